#!/bin/bash
# run.sh PATH [NAME..]: runs the validation programs of an already built runtime-tools checkout at PATH against RUNTIME
# (default: the naru built beside this directory), with cgroups shown as v1, and compares each result with expected.txt.
# Prints one line a program, then the differences and the counts. Exit 1 when a program did worse than expected.
#   pass   all of its checks held        fail   a check did not, or it ended badly
#   empty  nothing was checked: the programs that print only failures
# A program that expected.txt calls `race` may be lost by a fast runtime: it gets five tries to pass.
set -u
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] && [ -x "$1/runtimetest" ] || { echo "usage: run.sh PATH [NAME..], PATH being a built checkout" >&2; exit 2; }
checkout=$(cd "$1" && pwd); shift
runtime=${RUNTIME:-$here/../target/x86_64-unknown-linux-musl/release/naru}
case $runtime in */*) runtime=$(realpath -s "$runtime") ;; *) runtime=$(command -v "$runtime") ;; esac
[ -x "$runtime" ] || { echo "run.sh: no runtime at $runtime" >&2; exit 2; }

# Once more in mounts and processes of our own: what a program leaves ends with it.
if [ -z "${RUN_SH_INSIDE:-}" ]; then
    RUN_SH_INSIDE=1 RUNTIME=$runtime exec unshare --mount --propagation private --pid --fork --mount-proc "$0" "$checkout" "$@"
fi
[ ! -e /sys/fs/cgroup/unified/cgroup.procs ] || umount /sys/fs/cgroup/unified
mount -t tmpfs tmpfs /run
work=$(mktemp -d /tmp/run-sh.XXXXXX)
mount -t tmpfs -o mode=755 tmpfs "$work"
# Bundles are made in TMPDIR, a tmpfs for each program: containers without a mount namespace leave mounts of proc and
# sysfs in it, so it is detached with all that hangs below it and never removed file by file.
export TMPDIR=$work/tmp; mkdir "$TMPDIR"

# The containers of this run by id, and the two cgroups the programs name: all are ours to remove.
sweep() {
    for dir in /sys/fs/cgroup/*/cgrouptest /sys/fs/cgroup/*/testdir /sys/fs/cgroup/memory/*/*/testdir; do
        [ -d "$dir" ] || continue
        find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null
    done
    for state in /run/*/*/; do
        id=$(basename "$state")
        case $id in ????????-????-????-????-????????????) "$runtime" delete --force "$id" >/dev/null 2>&1 ;; esac
    done
}

passed=0 failed=0 empty=0 worse=() better=()
cd "$checkout" || exit 2
names=("$@")
[ ${#names[@]} -gt 0 ] || for t in validation/*/*.t; do names+=("$(basename "$t" .t)"); done
for name in "${names[@]}"; do
    read -r _ expected reason < <(grep -E "^$name " "$here/expected.txt") || { expected=pass reason=; }
    tries=1
    [ "$expected" != race ] || { expected=pass tries=5; }
    while :; do
        mount -t tmpfs -o mode=755 tmpfs "$TMPDIR"
        timeout -k 5 60 "validation/$name/$name.t" >"$work/out" 2>"$work/err" </dev/null
        code=$?
        bad=$(grep -c '^ *not ok' "$work/out"); good=$(grep -c '^ *ok' "$work/out")
        if [ $code -ne 0 ] || [ "$bad" -ne 0 ]; then result=fail
        elif [ "$good" -eq 0 ]; then result=empty
        else result=pass; fi
        sweep
        umount -l "$TMPDIR"
        tries=$((tries - 1))
        [ $result = fail ] && [ $tries -gt 0 ] || break
    done
    case $result in fail) failed=$((failed + 1)) ;; empty) empty=$((empty + 1)) ;; pass) passed=$((passed + 1)) ;; esac
    why=
    if [ $result = fail ]; then
        why=$( (grep -m1 '^ *not ok' "$work/out"; grep -v '^[0-9.]*$' "$work/err" | head -n 2) | tr '\n' ' ' | cut -c1-200)
        [ $code -lt 124 ] || why="ended with $code; $why"
    fi
    if [ $result = "$expected" ]; then
        echo "ok   $name: $result${reason:+ ($reason)}"
    elif [ $result = fail ]; then
        echo "FAIL $name: $result, expected $expected: $why"; worse+=("$name: $result, expected $expected")
    elif [ "$expected" = fail ]; then
        echo "ok   $name: $result, expected $expected ($reason)"; better+=("$name: $result, expected $expected: $reason")
    else
        echo "FAIL $name: $result, expected $expected"; worse+=("$name: $result, expected $expected")
    fi
done
cd /
umount -l "$work"; rmdir "$work"
for line in "${worse[@]:-}"; do [ -z "$line" ] || echo "worse:  $line"; done
for line in "${better[@]:-}"; do [ -z "$line" ] || echo "better: $line"; done
echo "$passed passed, $failed failed, $empty skipped"
[ ${#worse[@]} -eq 0 ]
