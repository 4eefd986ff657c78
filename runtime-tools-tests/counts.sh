#!/usr/bin/env bash
# The whole black-box suite in every environment that this machine can show, for several runtimes: one table of counts.
#
#   LAB=/var/tmp/naru-lab runtime-tools-tests/counts.sh [OPTIONS] [ENVIRONMENT..]
#
#   --runtime NAME=PATH  instead of the default runtimes, may be given several times. `lab:PATH` is a path in the lab root
#                        (hack/lab.sh). Default: naru=the release binary of this repository, runc=lab:/usr/sbin/runc and
#                        crun=lab:/usr/bin/crun
#   --out DIR            where each run's full output goes, ENVIRONMENT.NAME.log (default: $LAB/counts). A log that has come
#                        to its end is not made again: remove it for that.
#   --table              run nothing: the table from the logs that are there
#
# Environments (default: all):
#   v1 v2                    the machine's kernel; a private view of its v1 hierarchies, a fresh cgroup2 tree (`suite --view`)
#   hybrid                   the same with v1 hierarchies and a cgroup2 tree beside them, where the machine has both
#   uml                      User-mode Linux: pure cgroup v2 with cpu, io, memory, pids
#   systemd systemd-v1       the same with systemd as the first process and its cgroup driver for every container, on v2, v1 and
#   systemd-hybrid           the hybrid; of the tests those whose names contain one of $systemd_words
#   checkpoint-v1 -v2        the machine's kernel with the lab's CRIU; the group `checkpoint` alone
#
# Prints `passed / deviating / failed / skipped`: deviating are the failures that the test names as known of that runtime.
# `rootless`: what of v1, v2 and uml together is the group `rootless`. Exits 1 when naru failed or deviated somewhere.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
repository=$(dirname "$here")
suite=$here/target/$(uname -m)-unknown-linux-musl/release/suite
export LAB=${LAB:-/var/tmp/naru-lab}
root=$LAB/forky
out=$LAB/counts
# What depends on the cgroup driver. SYSTEMD_WORDS= takes the whole suite.
systemd_words=${SYSTEMD_WORDS-systemd/ cgroups/ resources/ update/ pause/ events/ kill/ state/ exec/ annotations/}
runtimes=() environments=() run=1
unset RUST_BACKTRACE RUNTIME

die() {
    echo "counts: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    --runtime) runtimes+=("${2-}") && shift 2 ;;
    --out) out=${2-} && shift 2 ;;
    --table) run= && shift ;;
    -*) die "unknown option $1" ;;
    *) environments+=("$1") && shift ;;
    esac
done
if [ ${#runtimes[@]} = 0 ]; then
    runtimes=("naru=$repository/target/$(uname -m)-unknown-linux-musl/release/naru" runc=lab:/usr/sbin/runc crun=lab:/usr/bin/crun)
fi
[ ${#environments[@]} != 0 ] || environments=(v1 v2 hybrid uml systemd systemd-v1 systemd-hybrid checkpoint-v1 checkpoint-v2)
[ -x "$suite" ] || die "no $suite: cargo build --release --target $(uname -m)-unknown-linux-musl in $here"
[ -x "$root/usr/sbin/runc" ] || die "no lab in $LAB: make lab"
mkdir -p "$out"

# The peer by a path of the machine: the lab's programs run there with their own loader ($LAB/bin).
on_machine() {
    case $1 in
    lab:*) echo "$LAB/bin/$(basename "$1")" ;;
    *) realpath -e "$1" ;;
    esac
}

in_lab() {
    case $1 in
    lab:*) echo "${1#lab:}" ;;
    *) realpath -e "$1" ;;
    esac
}

# Why a runtime makes no container at all there.
refuses() { # ENVIRONMENT PROGRAM
    case $1-$("$2" --version | head -n 1) in
    *hybrid-crun*) echo "refuses the hybrid" ;;
    systemd-v1-crun*) echo "wants a cpuset hierarchy" ;;
    esac
}

run_in() { # ENVIRONMENT RUNTIME
    local machine lab refusal binds=()
    machine=$(on_machine "$2") lab=$(in_lab "$2")
    refusal=$(refuses "$1" "$machine")
    if [ -n "$refusal" ]; then
        echo "0 passed, 0 failed, 0 skipped: $refusal"
        return
    fi
    # shellcheck disable=SC2086 # words
    # A program of the machine is not in the lab, unless this repository holds it.
    case $lab in "$repository"/*) ;; "$machine") binds=(--bind "$machine:$machine") ;; esac
    case $1 in
    v1 | v2) RUNTIME=$machine timeout -k 10 1200 "$suite" --view "$1" ;;
    hybrid)
        if [ ! -d /sys/fs/cgroup/unified ]; then
            echo "0 passed, 0 failed, 0 skipped: this machine has no such tree"
            return
        fi
        RUNTIME=$machine timeout -k 10 1200 "$suite" --view host
        ;;
    uml) "$here/uml.sh" --timeout 1800 env "RUNTIME=$machine" "$suite" --view host ;;
    systemd) "$here/uml.sh" --systemd "${binds[@]}" --timeout 2400 env "RUNTIME=$lab" "$suite" --systemd --view host $systemd_words ;;
    systemd-v1 | systemd-hybrid) "$here/uml.sh" "--systemd=${1#systemd-}" --timeout 2400 env "RUNTIME=$machine" "$suite" --systemd --view host $systemd_words ;;
    checkpoint-v1 | checkpoint-v2)
        timeout -k 10 1200 "$repository/hack/enter-lab.sh" --cgroup "${1#checkpoint-}" "${binds[@]}" --bind "$repository:$repository" \
            "$root" env "RUNTIME=$lab" "$suite" --view "${1#checkpoint-}" checkpoint/
        ;;
    *) die "no environment $1" ;;
    esac
}

complete() { grep -q '^[0-9]* passed, [0-9]* failed, [0-9]* skipped' "$1" 2>/dev/null; }

# How many tests a run had.
count() { grep -cE '^(ok  |FAIL|SKIP) ' "$1" || true; }

# A cell from the lines of some logs that are about tests of a group (or all).
cell() { # GROUP LOG..
    local group=$1
    shift
    awk -v group="$group" '
        !/^(ok  |FAIL|SKIP) / || index($2, group) != 1 { next }
        /^ok   [^ ]+ # .* deviates: / { deviating++; next }
        /^ok/ { passed++; next }
        /^FAIL/ { failed++; next }
        { skipped++ }
        END { printf "%d / %d / %d / %d", passed, deviating, failed, skipped }' "$@"
}

if [ "$run" ]; then
    for environment in "${environments[@]}"; do
        for runtime in "${runtimes[@]}"; do
            log=$out/$environment.${runtime%%=*}.log
            complete "$log" && continue
            echo "counts: $environment, ${runtime%%=*}" >&2
            run_in "$environment" "${runtime#*=}" >"$log" 2>&1 </dev/null || true
            complete "$log" || echo "counts: $log did not come to its end" >&2
        done
    done
fi

printf '| environment |' && printf ' %s |' "${runtimes[@]%%=*}" && echo
printf '|---|' && printf '%s' "${runtimes[@]/*/---|}" && echo
for environment in "${environments[@]}"; do
    tests=0
    for runtime in "${runtimes[@]}"; do
        log=$out/$environment.${runtime%%=*}.log
        if complete "$log"; then tests=$(count "$log"); fi
        [ "$tests" = 0 ] || break
    done
    printf '| %s, %d tests |' "$environment" "$tests"
    for runtime in "${runtimes[@]}"; do
        log=$out/$environment.${runtime%%=*}.log
        if grep -q '^0 passed, 0 failed, 0 skipped: ' "$log" 2>/dev/null; then
            printf ' %s |' "$(sed -n 's/^0 passed, 0 failed, 0 skipped: //p' "$log")"
        elif complete "$log"; then printf ' %s |' "$(cell "" "$log")"; else printf ' not run |'; fi
    done
    echo
done
printf '| rootless |'
for runtime in "${runtimes[@]}"; do
    logs=()
    for environment in v1 v2 uml; do
        [ ! -e "$out/$environment.${runtime%%=*}.log" ] || logs+=("$out/$environment.${runtime%%=*}.log")
    done
    if [ ${#logs[@]} != 0 ]; then printf ' %s |' "$(cell rootless/ "${logs[@]}")"; else printf ' not run |'; fi
done
echo
for runtime in "${runtimes[@]%%=*}"; do
    for log in "$out"/*."$runtime".log; do
        grep -E '^FAIL|^ok .* deviates: ' "$log" 2>/dev/null | sed "s|^|# $(basename "$log" .log): |" || true
    done
done >"$out/differences.txt"
! grep -q '\.naru: ' "$out/differences.txt"
