#!/bin/bash
# fuzz.sh [TARGET..]: builds the fuzz targets of fuzz/ with a stable compiler and runs each for TIME seconds (60), JOBS (2)
# at a time; prints a line of figures for each. With BUILD=1 it only builds.
#
# cargo-fuzz has the same layout and needs a nightly compiler for its sanitizers; here LLVM's coverage pass alone is
# asked for, which a stable one has. What a run finds stays in fuzz/target: inputs worth keeping in fuzz/target/corpus/TARGET, what
# fails in fuzz/target/artifacts/TARGET (`fuzz/target/*/release/TARGET FILE` runs one input).
set -eu
cd "$(dirname "$0")/../fuzz"
target=$(uname -m)-unknown-linux-gnu
time=${TIME:-60}
export target time
# An error that is told costs no trace of the stack.
export RUST_LIB_BACKTRACE=0

flags="-Ccodegen-units=1 -Cpasses=sancov-module"
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
    flags="$flags -Cllvm-args=-sanitizer-coverage-$flag"
done
RUSTFLAGS=$flags cargo build --release --locked --target "$target" --bins
[ "${BUILD-}" != 1 ] || exit 0

# One target: its figures from libFuzzer's own words.
one() {
    local name=$1 dict=() status=0 started=$SECONDS log=target/$1.log
    mkdir -p "target/corpus/$name" "target/artifacts/$name"
    [ ! -e "dict/$name.dict" ] || dict=("-dict=dict/$name.dict")
    # Bounds of time and memory are findings, too: seconds an input, and MiB in all and at once.
    nice -n 19 "target/$target/release/$name" -max_total_time="$time" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=512 \
        -max_len=8192 -print_final_stats=1 -artifact_prefix="target/artifacts/$name/" "${dict[@]}" \
        "target/corpus/$name" "corpus/$name" >"$log" 2>&1 || status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | cut -c 6-)
    found=passed
    [ "$status" = 0 ] || found="FAILED, see fuzz/$log"
    printf '%-12s %12s executions %6s s %6s edges  %s\n' "$name" "${executions:-?}" $((SECONDS - started)) "${edges:-?}" "$found"
    [ "$status" = 0 ]
}
export -f one
[ $# != 0 ] || set -- $(cd fuzz_targets && ls -- *.rs | sed 's/\.rs$//')
printf '%s\n' "$@" | xargs -P "${JOBS:-2}" -I NAME bash -c 'one NAME'
