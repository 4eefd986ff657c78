#!/bin/sh
# build.sh [PROFILE-FLAG..]: builds the release binary for the musl target, adding the target where rustup can. Where it
# cannot, the gnu target with a static C library takes its place, and this says so: the binary starts 0.3 ms later.
set -eu
cd "$(dirname "$0")/.."
target=$(uname -m)-unknown-linux-musl
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ] && ! rustup target add "$target" >/dev/null 2>&1; then
    gnu=$(uname -m)-unknown-linux-gnu
    echo "build: the target $target cannot be added; building a static binary for $gnu instead" >&2
    RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' cargo build --release --target "$gnu" "$@"
    mkdir -p "target/$target/release"
    cp "target/$gnu/release/naru" "target/$target/release/naru"
    exit 0
fi
exec cargo build --release --target "$target" "$@"
