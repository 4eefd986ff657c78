#!/bin/bash
# supply-test.sh: does what docs/dependencies.md promises hold? Closes with `N passed, N failed, N skipped`.
# ADVISORY_DB=DIR: a checkout of RustSec's advisory database, for where it cannot be fetched.
set -u
cd "$(dirname "$0")/.." || exit 1
passed=0 failed=0 skipped=0
check() { # TITLE CMD..
    local title=$1 output
    shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok   $title"
    else
        failed=$((failed + 1))
        echo "FAIL $title: $(tail -n 5 <<<"$output")"
    fi
}
skip() {
    skipped=$((skipped + 1))
    echo "SKIP $1: $2"
}

unsafe_places() { # only src/sys lifts the lint, and only it has the keyword
    local found
    found=$(grep -rlE '(allow|expect)\((.*[ ,(])?unsafe_code' src)
    [ "$found" = src/sys/mod.rs ] || { echo "lifted in: $found"; return 1; }
    found=$(grep -rnE '^[^/"]*\bunsafe (\{|fn|impl|extern)' src --include='*.rs' | grep -v '^src/sys/')
    [ -z "$found" ] || { echo "$found"; return 1; }
}
listed() { # every crate that is asked for has its row
    local crate
    # shellcheck disable=SC2013 # names have no spaces
    for crate in $(sed -n '/^\[dependencies\]/,/^\[/s/^\([a-z_-]*\) *=.*/\1/p' Cargo.toml); do
        grep -qE "^\| [a-z_, -]*\b$crate\b" docs/dependencies.md || { echo "no row for $crate"; return 1; }
    done
}
counts() { # the figures of the page are those of the list
    local all linked
    all=$(jq '.components | length' target/naru.cdx.json)
    linked=$(jq '[.components[] | select(.scope == "required")] | length' target/naru.cdx.json)
    tr '\n' ' ' <docs/dependencies.md | grep -q "$all are used by a build, $linked of them have code" ||
        { echo "now $all and $linked"; return 1; }
}
complete() { # a checksum and a licence for each
    jq -e 'all(.components[]; (.hashes[0].content | length == 64) and (.licenses[0].expression != "NOASSERTION"))' target/naru.cdx.json
}

audited() { # every lock file, those of the tests as well
    local lock
    for lock in Cargo.lock ./*/Cargo.lock runtime-tools-tests/*/Cargo.lock; do
        cargo audit --quiet --deny warnings --file "$lock" ${ADVISORY_DB:+--db "$ADVISORY_DB" --no-fetch} || return 1
    done
}

check "unsafe only in src/sys" unsafe_places
check "every dependency has its reason" listed
if command -v jq >/dev/null; then
    check "bill of materials" hack/sbom.sh target/naru.cdx.json
    check "each crate has a checksum and a licence" complete
    check "the figures in docs/dependencies.md" counts
else
    skip "bill of materials" "no jq"
fi
if cargo deny --version >/dev/null 2>&1; then
    check "licences, sources, bans" cargo deny check licenses sources bans
    # The database is fetched: without a network there is nothing to check against.
    if cargo deny fetch db >/dev/null 2>&1; then
        check "advisories" cargo deny check advisories
    else
        skip "advisories" "the advisory database cannot be fetched"
    fi
else
    skip "licences, sources, bans, advisories" "no cargo-deny"
fi
if ! cargo audit --version >/dev/null 2>&1; then
    skip "lock files" "no cargo-audit"
elif [ -n "${ADVISORY_DB-}" ] || ! cargo audit --quiet --file Cargo.lock 2>&1 | grep -q "couldn't fetch"; then
    check "no advisory against any lock file" audited
else
    skip "lock files" "the advisory database cannot be fetched"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
