#!/bin/sh
# Shows where the time of one command goes: each system call of all its processes in order of time, with the
# milliseconds since the start, since the same process's last call ended (its own work, or waiting for a CPU), and of
# the call itself. Calls and gaps of at least MARK ms (default 0.2) are marked.
#
#   hack/timeline.sh [--v1|--v2] [--perf] CMD [ARG..]
#   e.g. hack/timeline.sh --v2 target/x86_64-unknown-linux-musl/release/naru run -b BUNDLE t1
#
# strace stops the process twice at each call: read it for the order and the long ones, not for sums. --perf uses
# `perf trace`, which disturbs less, where tracepoints are permitted.
set -eu
perf=0 view=''
while [ $# -gt 0 ]; do
    case $1 in
    --v1) view=v1 ;;
    --v2) view=v2 ;;
    --perf) perf=1 ;;
    -*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || { echo "timeline.sh: no command" >&2; exit 2; }
out=$(mktemp)
trap 'rm -f "$out"' EXIT
run() { if [ -n "$view" ]; then "$(dirname "$0")/cgroup-view.sh" "$view" "$@"; else "$@"; fi; }
status=0
if [ $perf = 1 ]; then
    run perf trace -o "$out" -- "$@" || status=$?
    cat "$out"
    exit $status
fi
command -v strace >/dev/null || { echo "SKIP timeline: strace is missing"; exit 0; }
run strace -f -ttt -T -s 48 -o "$out" "$@" || status=$?
# "PID TIME call(..) = r <TOOK>", or split in two by other processes: "call(.. <unfinished ...>" and "<... call resumed>..".
awk -v mark="${MARK:-0.2}" '
    function show(pid, from, to, text,   took, gap) {
        took = (to - from) * 1000
        gap = (pid in ended) ? (from - ended[pid]) * 1000 : 0
        ended[pid] = to
        sub(/ <[0-9.]+>$/, "", text)
        printf "%9.3f %8.3f%s %8.3f%s %-6s %s\n", (from - t0) * 1000, gap, (gap >= mark ? "*" : " "), took, (took >= mark ? "*" : " "), pid, substr(text, 1, 110) | "sort -n"
    }
    !t0 { t0 = $2; print "       at      gap      took  pid    call"; fflush() }
    /<unfinished \.\.\.>$/ { since[$1] = $2; sub(/ *<unfinished \.\.\.>$/, ""); head[$1] = substr($0, index($0, $3)); next }
    $3 == "<..." { p = $1; at = $2; t = $0; sub(/^.* resumed>/, "", t); show(p, since[p], at, head[p] t); next }
    $3 == "+++" || $3 == "---" { show($1, $2, $2, substr($0, index($0, $3))); next }
    { match($0, /<[0-9.]+>$/); show($1, $2, $2 + (RSTART ? substr($0, RSTART + 1, RLENGTH - 2) : 0), substr($0, index($0, $3))) }
' "$out"
exit $status
