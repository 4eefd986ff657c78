#!/bin/bash
# reproducible.sh [PROFILE]: builds the committed sources twice, in directories of different names, the second time
# without a network from vendored crates, and compares the binaries.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-release}
target=$(uname -m)-unknown-linux-musl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
first=$work/a second=$work/another/and-a-longer-one
mkdir -p "$first" "$second"
git archive HEAD | tar -x -C "$first"
git archive HEAD | tar -x -C "$second"
NARU_COMMIT=$(git rev-parse HEAD)
export NARU_COMMIT CARGO_INCREMENTAL=0

(cd "$first" && hack/build.sh --profile "$profile")
(
    cd "$second"
    mkdir -p .cargo
    cargo vendor --locked --versioned-dirs vendor >vendor.toml
    # What `cargo vendor` prints belongs into a configuration file.
    cat vendor.toml >>.cargo/config.toml
    CARGO_NET_OFFLINE=true CARGO_HOME=$work/empty-home RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup} hack/build.sh --profile "$profile"
)
hash_of() { sha256sum <"$1/target/$target/$profile/naru" | cut -d' ' -f1; }
echo "first  $(hash_of "$first")"
echo "second $(hash_of "$second") (elsewhere, offline, vendored)"
[ "$(hash_of "$first")" = "$(hash_of "$second")" ] || { echo "reproducible: the binaries differ" >&2; exit 1; }
