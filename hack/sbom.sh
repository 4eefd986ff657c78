#!/bin/bash
# sbom.sh FILE: writes what naru is made of as CycloneDX 1.5 JSON: every crate that its build uses on this target, with the
# checksum of Cargo.lock and its licence. `scope` tells what is in the binary ("required") from what only runs at build
# time ("excluded"). Needs jq. The same sources give the same file.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: sbom.sh FILE}
target=$(uname -m)-unknown-linux-musl
mkdir -p "$(dirname "$out")"
checksums=$(awk -F'"' '/^name = /{n=$2} /^version = /{v=$2} /^checksum = /{print n "@" v "\t" $2}' Cargo.lock |
    jq -R -s 'split("\n") | map(select(. != "") | split("\t") | {(.[0]): .[1]}) | add')
# Procedural macros and what only they or build scripts use are not linked.
linked=$(cargo tree --locked --target "$target" -e normal,no-proc-macro --prefix none --format '{p}' | awk '{print $1 "@" substr($2, 2)}' |
    sort -u | jq -R -s 'split("\n") | map(select(. != "") | {(.): true}) | add')
used=$(cargo tree --locked --target "$target" -e normal,build --prefix none --format '{p}' | awk '{print $1 "@" substr($2, 2)}' |
    sort -u | jq -R -s 'split("\n") | map(select(. != "") | {(.): true}) | add')
cargo metadata --locked --format-version 1 --filter-platform "$target" | jq --sort-keys \
    --argjson checksums "$checksums" --argjson linked "$linked" --argjson used "$used" '
    def purl: "pkg:cargo/\(.name)@\(.version)";
    def key: "\(.name)@\(.version)";
    def component: {
        type: "library", "bom-ref": purl, name, version, purl: purl,
        licenses: [{expression: (.license // "NOASSERTION" | gsub(" */ *"; " OR "))}],
        scope: (if $linked[key] then "required" else "excluded" end)
    } + (if $checksums[key] then {hashes: [{alg: "SHA-256", content: $checksums[key]}]} else {} end);
    (.packages | map({(.id): .}) | add) as $by_id
    | .resolve.root as $root
    | {
        bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
        metadata: {component: ($by_id[$root] | {type: "application", "bom-ref": purl, name, version, purl: purl,
            licenses: [{expression: .license}]})},
        components: [.packages[] | select(.id != $root and $used[key]) | component] | sort_by(.purl),
        dependencies: [.resolve.nodes[] | ($by_id[.id]) as $p | select(.id == $root or $used[$p | key])
            | {ref: ($p | purl), dependsOn: ([.deps[] | select(any(.dep_kinds[]; .kind != "dev")) | $by_id[.pkg]
                | select($used[key]) | purl] | unique)}] | sort_by(.ref)
    }' >"$out"
echo "$out: $(jq '.components | length' "$out") crates, $(jq '[.components[] | select(.scope == "required")] | length' "$out") of them in the binary"
