#!/bin/sh
# Counts the system calls of each command of naru, and compares them with docs/budget.txt: exit 1 when one is over.
# Also the size of the binary. Counted by benches/tally.c (ptrace): "parent" is the command's own process from its
# execve on, "init" the process that becomes the container's until it executes the payload. Needs root and a C compiler.
#
#   hack/syscall-budget.sh [--update] [--calls VIEW/CONFIG/COMMAND] [--v1] [--v2]
#
# --update writes what was counted into docs/budget.txt (to be committed with the change that needs it, and its reason);
# --calls prints one command's system calls by name, e.g. --calls v2/docker/run. Runtime: NARU= or the release build.
set -eu
. "$(dirname "$0")/bench-setup.sh"

views='' update=0 show='' inside=''
while [ $# -gt 0 ]; do
    case $1 in
    --v1) views="$views v1" ;;
    --v2) views="$views v2" ;;
    --update) update=1 ;;
    --calls) show=$2 views="${2%%/*}"; shift ;;
    --inside) inside=$2; shift ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift
done
skip() { echo "SKIP syscall-budget${2:+ ($2)}: $1"; exit 0; }
budget=$repo/docs/budget.txt
naru=$(runtime_path naru)
times=3

if [ -z "$inside" ]; then
    [ "$(id -u)" = 0 ] || skip 'needs root'
    command -v "${CC:-cc}" >/dev/null || skip 'needs a C compiler'
    [ -n "$naru" ] || die 'naru is not built'
    build_tools
    "$tools/tally" -o /dev/null true || skip 'ptrace is not permitted'
    : >"$tools/counted"
    for v in ${views:-v2 v1}; do
        status=0
        "$repo/hack/cgroup-view.sh" "$v" "$0" --inside "$v" ${show:+--calls "$show"} || status=$?
        if [ "$status" = 77 ]; then echo "SKIP syscall-budget ($v): the host cannot show cgroup $v"; continue; fi
        [ "$status" = 0 ] || exit "$status"
    done
    [ -z "$show" ] || exit 0
    size=$(stat -c %s "$naru")
    if [ "$update" = 1 ]; then
        {
            cat <<'END'
# Upper limits, checked by hack/syscall-budget.sh (--update rewrites them).
# VIEW CONFIG COMMAND ROLE SYSTEM-CALLS, and the binary's size in bytes.
binary bytes 3145728
END
            # A view that this host cannot show keeps its numbers.
            awk 'FNR == NR { new[$1] = 1; next } /^v[12] / && !($1 in new)' "$tools/counted" "$budget" 2>/dev/null || :
            awk '{ print $1, $2, $3, $4, $6 }' "$tools/counted"
        } >"$tools/budget"
        mkdir -p "$repo/docs"
        cp "$tools/budget" "$budget"
        echo "written: docs/budget.txt"
        exit 0
    fi
    [ -r "$budget" ] || die 'no docs/budget.txt: make it with --update'
    awk -v size="$size" '
        /^#/ || NF == 0 { next }
        FNR == NR { if ($1 == "binary") bytes = $3; else most[$1, $2, $3, $4] = $5; next }
        !head++ { printf "%-4s %-7s %-7s %-7s %8s %8s\n", "view", "config", "command", "role", "calls", "budget" }
        {
            known = ($1, $2, $3, $4) in most
            verdict = !known ? "NO BUDGET" : $5 > most[$1, $2, $3, $4] ? "OVER" : $5 < most[$1, $2, $3, $4] ? "under" : ""
            printf "%-4s %-7s %-7s %-7s %8d %8s %s\n", $1, $2, $3, $4, $5, known ? most[$1, $2, $3, $4] : "-", verdict
            if (verdict ~ /^[NO]/) { bad++; worst = $1 "/" $2 "/" $3 }
        }
        END {
            printf "binary: %d bytes, limit %d%s\n", size, bytes, (size > bytes ? " OVER" : "")
            if (size > bytes) bad++
            if (bad) { print "FAIL syscall-budget: " bad " over budget" (worst ? " (see --calls " worst ")" : ""); exit 1 }
            print "PASS syscall-budget"
        }' "$budget" "$tools/counted"
    exit
fi

# ---- inside a private mount namespace that shows one cgroup version
view=$inside
tag=sb$$
dir=$(mktemp -d)
trap 'clear_up "$dir/state" "$tag"; umount -l "$dir"; rmdir "$dir"' EXIT
trap 'exit 130' INT TERM
mount -t tmpfs -o mode=755 budget "$dir"
make_bundles "$dir" "$view" "$tag"
parent_cgroups "$view" "$tag"
mkdir -p "$dir/state/naru"

# count CONFIG COMMAND ARGS..: one run, added to $dir/counts; a command that fails has no count to compare.
count() {
    config=$1 command=$2
    shift 2
    payload=/bin/sleep
    case $command in run | exec) payload=/bin/true ;; esac
    "$tools/tally" -v -o "$dir/out" -p $payload "$naru" --root "$dir/state/naru" "$command" "$@" </dev/null >"$dir/said" 2>&1 ||
        { cat "$dir/said" >&2; die "$view $config: $command failed"; }
    if [ "$show" = "$view/$config/$command" ] && [ "$i" = 1 ]; then
        awk -F'\t' 'NF == 4 { close("sort -rn"); print $1 ": " $3 " system calls, peak RSS " $4 " KiB"; fflush(); next } { printf "%8d %s\n", $3, $2 | "sort -rn" }' "$dir/out"
    fi
    awk -v k="$view $config $command" 'NF == 4 && $3 > 0 { print k, $1, $3 }' "$dir/out" >>"$dir/counts"
}
: >"$dir/counts"
for config in spec docker; do
    [ -e "$dir/$config/config.json" ] || continue
    i=1
    while [ $i -le $times ]; do
        id=$tag-$config-$i
        count $config run -b "$dir/$config" "$id-r"
        count $config create -b "$dir/$config-sleep" --pid-file "$dir/pid" "$id"
        count $config start "$id"
        count $config exec "$id" /bin/true
        count $config state "$id"
        count $config kill "$id" KILL
        # Orphaned to this machine's init, which reaps it in its own time.
        n=0
        while [ -e "/proc/$(cat "$dir/pid")" ] && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.05; done
        count $config delete "$id"
        i=$((i + 1))
    done
done
# Per command the middle and the greatest count of the runs: a wait that was or was not needed makes a difference of one.
sort -k1,4 -k5n "$dir/counts" | awk -v times=$times '
    { k = $1 " " $2 " " $3 " " $4 }
    k != last { if (last != "") print last, v[int((n + 1) / 2)], v[n]; last = k; n = 0 }
    { v[++n] = $5 }
    END { if (last != "") print last, v[int((n + 1) / 2)], v[n] }' >>"$tools/counted"
