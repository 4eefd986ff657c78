#!/bin/sh
# build.sh [PROFILE-FLAG..]: builds the release binary for the musl target, adding the target where rustup can. Where it
# cannot, the gnu target with a static C library takes its place, and this says so: the binary starts 0.3 ms later.
#
# The paths of crates get fixed names, so that the binary does not depend on where it was built.
set -eu
cd "$(dirname "$0")/.."
target=$(uname -m)-unknown-linux-musl
cargo_home=${CARGO_HOME:-$HOME/.cargo}
[ $# -gt 0 ] || set -- --release
# What `naru --version` prints, where this is a checkout.
NARU_COMMIT=${NARU_COMMIT:-$(git describe --always --dirty --abbrev=40 2>/dev/null || true)}
export NARU_COMMIT
crates=
for dir in "$cargo_home"/registry/src/*/ "$PWD/vendor/"; do
    crates="$crates'--remap-path-prefix=${dir%/}=/crates', "
done
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ] && ! rustup target add "$target" >/dev/null 2>&1; then
    gnu=$(uname -m)-unknown-linux-gnu
    echo "build: the target $target cannot be added; building a static binary for $gnu instead" >&2
    cargo build --locked --target "$gnu" "$@" \
        --config "target.$gnu.rustflags=[$crates'-Ctarget-feature=+crt-static', '-Crelocation-model=static', '-Csymbol-mangling-version=v0']"
    mkdir -p "target/$target/release"
    cp "target/$gnu/release/naru" "target/$target/release/naru"
    exit 0
fi
exec cargo build --locked --target "$target" "$@" --config "target.$target.rustflags=[$crates]"
