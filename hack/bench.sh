#!/bin/sh
# Measures naru against the kernel's own price (benches/floor.c), crun, runc and youki, as far as they are installed,
# every command of every runtime in one round-robin run, and writes docs/bench.md and docs/bench.svg.
# Needs root, a C compiler and util-linux. Leaves nothing behind, and checks that by reading the cgroup directories.
#
#   hack/bench.sh [--v2] [--v1] [--rounds N] [--gap-rounds N] [--only MEASURE,..] [--no-report]
#
# Without --only it rewrites the report, from this run and the last full one of the other view. Without --v1 or --v2 it measures
# what the host can show of both. As v2 all runs in a private mount namespace under SCHED_FIFO (chrt -f 1); as v1 under the
# ordinary scheduler, since a FIFO task cannot enter a v1 cpu cgroup.
# MEASURE: run-spec run-docker run-spec-fixed run-docker-fixed (always in the same order) life exec exec-docker state kill
#   delete-force pause resume update events many own
# Runtimes: from NARU= CRUN= RUNC= YOUKI=, the build, or PATH. Payload: BUSYBOX= or a static busybox in PATH.
set -eu
. "$(dirname "$0")/bench-setup.sh"

views='' rounds=100 gap_rounds=40 only='' report=1 inside=''
while [ $# -gt 0 ]; do
    case $1 in
    --v1) views="$views v1" ;;
    --v2) views="$views v2" ;;
    --rounds) rounds=$2; shift ;;
    --gap-rounds) gap_rounds=$2; shift ;;
    --only) only=$2 report=0; shift ;;
    --no-report) report=0 ;;
    --inside) inside=$2; shift ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || die 'needs root'
peers='crun runc youki'

# ---- outside: one child in a private mount namespace per view, then the report
if [ -z "$inside" ]; then
    build_tools
    for v in ${views:-v2 v1}; do
        status=0
        "$repo/hack/cgroup-view.sh" "$v" "$0" --inside "$v" --rounds "$rounds" --gap-rounds "$gap_rounds" --only "$only" || status=$?
        if [ "$status" = 77 ] && [ -z "$views" ]; then say "cgroup $v: not on this host, left out"; continue; fi
        [ "$status" = 0 ] || exit "$status"
    done
    [ "$report" = 1 ] || exit 0
    mkdir -p "$repo/docs"
    for f in md svg; do
        cat "$tools"/facts-v[12] "$tools"/results-v2 "$tools"/results-v1 2>/dev/null | awk -v form=$f -f "$repo/benches/report.awk" >"$tools/bench.$f"
        cp "$tools/bench.$f" "$repo/docs/bench.$f"
    done
    say "written: docs/bench.md, docs/bench.svg"
    exit 0
fi

# ---- inside: everything that is mounted here goes with the namespace
view=$inside
tag=nb$$
dir=$(mktemp -d)
trap 'clear_up "$dir/state" "$tag"; umount -l "$dir"; rmdir "$dir"' EXIT
trap 'exit 130' INT TERM
mount -t tmpfs -o mode=755 bench "$dir"
make_bundles "$dir" "$view" "$tag"
mkdir "$dir/state"
results=$tools/results-$view facts=$tools/facts-$view
if [ -n "$only" ]; then results=$tools/partial-$view facts=$tools/partial-facts-$view; fi
: "${only:=run-spec,run-docker,run-spec-fixed,run-docker-fixed,life,exec,exec-docker,state,kill,delete-force,pause,resume,update,events,many,own}"
: >"$results"

parent_cgroups "$view" "$tag"

fifo='' sched='the ordinary scheduler'
floor_cgroup() { if [ "$view" = v2 ]; then echo "/sys/fs/cgroup/$tag-$1"; else echo -; fi; }
if [ "$view" = v2 ]; then
    if chrt -f 1 "$tools/floor" "$dir/rootfs" "$(floor_cgroup probe)" /bin/true 2>/dev/null; then
        fifo='chrt -f 1' sched='SCHED_FIFO (chrt -f 1)'
    else
        say 'SCHED_FIFO is not permitted here, or a FIFO task cannot enter a cgroup: the ordinary scheduler it is'
    fi
fi

runtimes=''
for r in $peers naru; do
    if [ -n "$(runtime_path $r)" ]; then runtimes="$runtimes $r"; mkdir "$dir/state/$r"; else say "$r: not installed, left out"; fi
done
[ -n "$runtimes" ] || die 'no runtime found'

{
    fact() { printf 'fact\t%s\t%s\t%s\n' "$view" "$1" "$2"; }
    fact cpu "$(nproc) x $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)$(if grep -q '^flags.* hypervisor' /proc/cpuinfo; then echo ', virtual machine'; fi)"
    fact kernel "Linux $(uname -r | sed 's/^\([0-9]*\.[0-9]*\).*/\1/')"
    fact scheduler "$sched"
    fact payload "$payload_name"
    fact rounds "$rounds back to back, $gap_rounds after idling 100 ms"
    for r in $runtimes; do
        p=$(runtime_path $r)
        fact version "$r $("$p" --version 2>/dev/null | sed -n '1s/.* version //p') ($(($(stat -c %s "$p") / 1024)) KiB)"
    done
} >"$facts"

R() { echo "$(runtime_path "$1") --root $dir/state/$1"; }
# plan MEASURE: what pairbench is to do, floor first where there is one to compare with.
plan() {
    case $1 in
    run-* | many)
        nth=@ step='time run'
        if [ "$1" = many ]; then nth=@-% step='burst run 50'; fi
        printf 'row floor\n%s %s\n' "$step" "$tools/floor $dir/rootfs $(floor_cgroup "f$nth") /bin/true"
        ;;
    esac
    b=$dir/spec-sleep
    # Always in this order: the floor follows the last, and naru the floor.
    case $1 in
    *-fixed) all="naru $(echo "$runtimes" | sed 's/ naru$//')" ;;
    *) all=$runtimes ;;
    esac
    for r in $all; do
        id=$tag-$1-$r
        echo "row $r"
        case $1 in
        run-spec*) echo "time run $(R "$r") run -b $dir/spec $id@" ;;
        run-docker*) echo "time run $(R "$r") run -b $dir/docker $id@" ;;
        many) echo "burst run 50 $(R "$r") run -b $dir/spec $id@-%" ;;
        life)
            cat <<END
time create $(R "$r") create -b $b --pid-file $dir/$r.pid $id@
time start $(R "$r") start $id@
time kill $(R "$r") kill $id@ KILL
reap gone $dir/$r.pid
time delete $(R "$r") delete $id@
rescue $(R "$r") delete -f $id@
END
            ;;
        delete-force)
            cat <<END
before $(R "$r") create -b $b $id@
before $(R "$r") start $id@
time delete $(R "$r") delete -f $id@
rescue $(R "$r") delete -f $id@
END
            ;;
        exec | exec-docker | state | kill | pause | resume | update | events)
            # Docker's config names one cgroup: a copy per runtime, as all their containers live at once.
            if [ "$1" = exec-docker ]; then
                b=$dir/docker-sleep-$r
                if [ ! -d "$b" ]; then
                    cp -r "$dir/docker-sleep" "$b"
                    sed "s,/$tag/docker-sleep,/$tag/docker-$r," "$dir/docker-sleep/config.json" >"$b/config.json"
                fi
            fi
            echo "setup $(R "$r") create -b $b $id"
            echo "setup $(R "$r") start $id"
            case $1 in
            exec*) echo "time exec $(R "$r") exec $id /bin/true" ;;
            state) echo "time state $(R "$r") state $id" ;;
            kill) echo "time kill $(R "$r") kill $id 0" ;;
            pause) printf '%s\n' "time pause $(R "$r") pause $id" "after $(R "$r") resume $id" ;;
            resume) printf '%s\n' "before $(R "$r") pause $id" "time resume $(R "$r") resume $id" ;;
            update) echo "time update $(R "$r") update -r $dir/limits/@ $id" ;;
            # crun has no such command, and is left out.
            events) echo "time events $(R "$r") events --stats $id" ;;
            esac
            echo "teardown $(R "$r") delete -f $id"
            ;;
        esac
    done
}
# limits N: what each round of `update` sets, other values than the round before: as engines do, a JSON file. A hybrid
# host's v2 tree has no other controller than hugetlb.
limits() {
    [ ! -d "$dir/limits" ] || return 0
    mkdir "$dir/limits"
    i=0
    while [ $i -le $(($1 + 2)) ]; do
        if [ "$view" = v1 ] || grep -qw memory /sys/fs/cgroup/cgroup.controllers; then
            echo "{\"cpu\":{\"shares\":$((512 + i))},\"memory\":{\"limit\":$((100 + i))000000},\"pids\":{\"limit\":$((100 + i))}}"
        else
            echo "{\"hugepageLimits\":[{\"pageSize\":\"2MB\",\"limit\":$((2097152 * (i + 1)))}]}"
        fi >"$dir/limits/$i"
        i=$((i + 1))
    done
}
measure() {
    what=$1 gap=$2 n=$3
    case $what in *docker*) [ -e "$dir/docker/config.json" ] || return 0 ;; esac
    [ "$what" != update ] || limits "$rounds"
    plan "$what" >"$dir/plan"
    say "cgroup $view, $what, idle $gap ms, $n rounds"
    keep=''
    case $what in *-fixed) keep=-k ;; esac
    # shellcheck disable=SC2086
    GAP=$gap $fifo "$tools/pairbench" -t $keep "$n" -f "$dir/plan" >"$dir/out"
    sed -i "s,$dir,DIR,g" "$dir/out"
    awk -v OFS='\t' -v v="$view" -v w="$what" -v g="$gap" '{print "time", v, w, g, $0}' "$dir/out" >>"$results"
    awk -F'\t' '{ if ($3 == 0) printf "  %-7s left out: %s\n", $1, $12
        else printf "  %-7s %-7s min %8.3f  med %8.3f ms  cpu %8.3f  x%.2f / x%.2f%s\n", $1, $2, $5, $6, $8, $10, $11, $4 ? "  " $4 " FAILED" : "" }' "$dir/out" >&2
}
# own: system calls and peak memory of the runtime's own processes, without the payload.
own() {
    for r in $runtimes; do
        id=$tag-own-$r
        tallied() {
            cmd=$1
            shift
            if "$tools/tally" -o "$dir/out" -p "$1" "$2" --root "$dir/state/$r" "$cmd" $3 </dev/null >/dev/null 2>&1; then
                awk -v OFS='\t' -v v="$view" -v r="$r" -v c="$cmd" '{print "own", v, r, c, $0}' "$dir/out" >>"$results"
            fi
        }
        p=$(runtime_path "$r")
        tallied run /bin/true "$p" "-b $dir/spec $id-r"
        tallied create /bin/sleep "$p" "-b $dir/spec-sleep $id"
        tallied start /bin/sleep "$p" "$id"
        tallied exec /bin/true "$p" "$id /bin/true"
        tallied state - "$p" "$id"
        tallied kill - "$p" "$id KILL"
        n=0
        until tallied delete - "$p" "$id" && [ ! -e "$dir/state/$r/$id" ] || [ $n = 50 ]; do n=$((n + 1)); sleep 0.1; done
    done
    awk -F'\t' '$1 == "own" {printf "  %-7s %-7s %-7s %6d system calls, peak RSS %6d KiB\n", $3, $4, $5, $7, $8}' "$results" >&2
}
for m in $(echo "$only" | tr , ' '); do
    case $m in
    own) own ;;
    many) measure many 0 5; measure many 100 5 ;;
    life) measure life 0 "$rounds"; measure life 100 $(((gap_rounds + 1) / 2)) ;;
    *) measure "$m" 0 "$rounds"; measure "$m" 100 "$gap_rounds" ;;
    esac
done

clear_up "$dir/state" "$tag"
left=$(cgroups_named "$tag")
if [ -n "$left" ]; then
    say "cgroups left behind:" "$left"
    exit 1
fi
printf 'fact\t%s\tleft\tno cgroup was left behind\n' "$view" >>"$facts"
