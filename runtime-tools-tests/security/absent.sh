#!/bin/bash
# absent.sh RUNTIME [VIEW]: the whole black-box suite on a kernel that seems to lack one system call at a time, as an old
# kernel (ENOSYS) and as an old filter around a container (EPERM). Prints a line for each: the suite's counts, or how the
# runtime refuses. What fails with a call missing that no runtime makes is the wrapper's doing (an ordinary user needs
# no_new_privs for it, without which newuidmap is of no use; its filter shows in the container) and not counted.
# CALLS="clone3 .." chooses calls, TESTS="rootless/ .." tests.
set -u
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] && [ -x "$1" ] || { echo "usage: absent.sh RUNTIME [v1|v2|host]" >&2; exit 2; }
runtime=$(realpath -s "$1") view=${2:-v1}
built=target/$(uname -m)-unknown-linux-musl/release
suite=$here/../$built/suite
work=$(mktemp -d)
# For the tests of ordinary users.
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 refused=0

wrap() { # CALL ERRNO
    printf '#!/bin/sh\nexec %s %s %s %s "$@"\n' "$here/$built/absent" "$1" "$2" "$runtime" >"$work/runtime"
    chmod 755 "$work/runtime"
}

wrap name_to_handle_at ENOSYS
RUNTIME=$work/runtime "$suite" --view "$view" ${TESTS-} >"$work/whole" 2>&1
tail -n 1 "$work/whole" | grep -q '^[0-9]* passed' || { cat "$work/whole" >&2; exit 2; }
echo "nothing of use missing: $(tail -n 1 "$work/whole")"
grep '^FAIL' "$work/whole" | cut -d' ' -f2 | tr -d : | sort >"$work/known"
for call in ${CALLS:-openat2 clone3 close_range open_tree fsopen mount_setattr pidfd_open pidfd_send_signal memfd_create fchmodat2}; do
    for errno in ENOSYS EPERM; do
        wrap "$call" "$errno"
        # One container decides whether it goes another way or refuses.
        # Its output goes to a file: a suite whose reader leaves early leaves its directories behind.
        RUNTIME=$work/runtime "$suite" --view "$view" lifecycle/run_exit_codes >"$work/one" 2>&1
        if grep -q '^FAIL' "$work/one"; then
            why=$(grep -o -m 1 'msg=.*' "$work/one")
            echo "$call $errno: refused: $why"
            refused=$((refused + 1))
            continue
        fi
        RUNTIME=$work/runtime "$suite" --view "$view" ${TESTS-} >"$work/out" 2>&1
        new=
        for name in $(grep '^FAIL' "$work/out" | cut -d' ' -f2 | tr -d : | sort | comm -13 "$work/known" -); do
            # Once more by itself: on a busy machine a test can miss its deadline.
            RUNTIME=$work/runtime "$suite" --view "$view" "$name" >"$work/one" 2>&1
            grep -q "^FAIL $name:" "$work/one" && new="$new $name"
        done
        echo "$call $errno: $(tail -n 1 "$work/out")${new:+; differ:$new}"
        if [ -z "$new" ] && tail -n 1 "$work/out" | grep -q '^[0-9]* passed'; then passed=$((passed + 1)); else failed=$((failed + 1)); grep '^FAIL' "$work/out" | cut -c1-300; fi
    done
done
echo "# $refused refused"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
