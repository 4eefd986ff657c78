#!/bin/bash
# test.sh: everything that decides whether naru is right, in stages; installs what they need where it can (root, apt).
#
# Each stage prints a line `N passed, N failed, N skipped`; the last line of all is their sum. A stage that cannot run
# here counts as one skipped, with its reason. STAGES="unit suite-v1" runs only these.
set -u
cd "$(dirname "$0")/.." || exit 1
repo=$PWD
target=$(uname -m)-unknown-linux-musl
naru=$repo/target/$target/release/naru
suite_dir=$repo/runtime-tools-tests
suite=$suite_dir/target/$target/release/suite
passed=0 failed=0 skipped=0 broken=()
# As the Makefile sets it: else the stages that call `make` would build again.
export NARU_COMMIT=${NARU_COMMIT-$(git describe --always --dirty --abbrev=40 2>/dev/null)}
work=$(mktemp -d)
outside=
trap 'rm -rf "$work" ${outside:+"$outside"}' EXIT

# Adds a package where a program is missing; without root or apt the stages that need it skip.
need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null && return 0
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    [ -e "$work/updated" ] || { apt-get update -q >/dev/null 2>&1 && touch "$work/updated"; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$2" >/dev/null 2>&1
    command -v "$1" >/dev/null
}

wanted() { [ -z "${STAGES-}" ] || case " $STAGES " in *" $1 "*) true ;; *) false ;; esac; }

skip() { # STAGE REASON
    wanted "$1" || return 0
    echo "== $1: SKIP $2"
    skipped=$((skipped + 1))
}

# Runs a stage. With `counts`, its own closing line is added up; else it is one check.
stage() { # NAME counts|plain CMD..
    local name=$1 kind=$2 log=$work/$1.log line status
    shift 2
    wanted "$name" || return 0
    echo "== $name"
    "$@" >"$log" 2>&1
    status=$?
    line=$(grep -E '^([a-z-]+: )?[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
    if [ "$status" = 77 ]; then
        skip "$name" "$(grep -m 1 SKIP "$log" | sed 's/.*SKIP //')"
        return
    fi
    if [ "$kind" = counts ] && [ -n "$line" ]; then
        local p f s
        [[ $line =~ ([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)? ]]
        p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[4]:-0}
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
        grep -E '^SKIP' "$log" || true
        [ "$status" = 0 ] || [ "$f" != 0 ] || { failed=$((failed + 1)) f=1; }
        if [ "$f" != 0 ]; then
            broken+=("$name")
            grep -E -A4 '^(FAIL|VIOLATION)' "$log" | head -n 200
            [ "$(grep -c -E '^(FAIL|VIOLATION)' "$log")" != 0 ] || tail -n 60 "$log"
        fi
        echo "   $line"
    elif [ "$status" = 0 ]; then
        passed=$((passed + 1))
        echo "   passed"
    else
        failed=$((failed + 1))
        broken+=("$name")
        tail -n 60 "$log"
    fi
}

unit() {
    local sums
    cargo test --target "$target" 2>&1 | tee "$work/unit.out"
    [ "${PIPESTATUS[0]}" = 0 ] || { echo "0 passed, 1 failed, 0 skipped"; return 1; }
    sums=$(awk '/^test result:/ {p += $4; f += $6; s += $8} END {print p + 0, f + 0, s + 0}' "$work/unit.out")
    # shellcheck disable=SC2086
    printf '%s passed, %s failed, %s skipped\n' $sums
}

need cc gcc && need make make
rustc --print sysroot >/dev/null || exit 1
stage format plain cargo fmt --check
stage lint plain cargo clippy --all-targets -- -D warnings
stage build plain hack/build.sh
stage unit counts unit
stage install counts hack/install-test.sh
need jq jq || true
stage supply counts hack/supply-test.sh

stage spec-table plain sh -c "cd '$suite_dir' && cargo test --target $target"
stage seccomp plain sh -c "cd '$suite_dir/seccomp-differential' && cargo test --release"
stage corpora plain make --no-print-directory corpora
stage suite-build plain sh -c "cd '$suite_dir' && cargo build --release --target $target"
if [ "$(id -u)" != 0 ]; then
    for name in suite-v1 suite-v2 suite-hybrid suite-uml suite-systemd suite-systemd-v1 suite-systemd-hybrid security-v1 security-v2 sweep-v1 sweep-v2; do
        skip "$name" "needs root"
    done
else
    export RUNTIME=$naru
    need criu criu || true # its tests skip without it
    stage suite-v1 counts "$suite" --view v1
    stage suite-v2 counts "$suite" --view v2
    if [ -e /sys/fs/cgroup/unified/cgroup.procs ]; then
        stage suite-hybrid counts "$suite" --view host cgroups/ kill/ pause/ frozen/ resources/ update/ exec/ mounts/cgroup
    else
        skip suite-hybrid "no cgroup2 tree beside hierarchies of v1 here"
    fi
    if [ ! -x "${LAB:=/var/tmp/naru-lab}/forky/usr/bin/linux.uml" ] && [ "${NARU_NO_LAB-}" != 1 ] && { wanted suite-uml || wanted suite-systemd; }; then
        need mmdebstrap mmdebstrap && need patchelf patchelf && need jq jq && hack/lab.sh >"$work/lab.log" 2>&1
    fi
    export LAB
    stage suite-uml counts "$suite_dir/uml.sh" --timeout 900 "$suite" --view host
    # This machine's distribution may have no CRIU, or one that is too old for its kernel; the lab has one.
    if ! criu check >/dev/null 2>&1 && [ -x "$LAB/forky/usr/sbin/criu" ]; then
        for view in v1 v2; do
            stage "suite-criu-$view" counts hack/enter-lab.sh --cgroup $view --naru "$naru" --bind "$suite_dir:$suite_dir" \
                "$LAB/forky" env RUNTIME=/usr/local/bin/naru "$suite" --view $view checkpoint
        done
    fi
    stage suite-systemd counts "$suite_dir/uml.sh" --systemd --timeout 900 \
        env "RUNTIME=$naru" "$suite" --systemd --view host systemd/ resources/ update/ pause/ events/ kill/
    stage suite-systemd-v1 counts "$suite_dir/uml.sh" --systemd=v1 --timeout 600 \
        env "RUNTIME=$naru" "$suite" --systemd --view host systemd/ resources/ pause/
    stage suite-systemd-hybrid counts "$suite_dir/uml.sh" --systemd=hybrid --timeout 600 \
        env "RUNTIME=$naru" "$suite" --systemd --view host systemd/ cgroups/ pause/
    need busybox busybox-static
    stage security-build plain sh -c "cd '$suite_dir/security' && cargo build --release --target $target"
    security=$suite_dir/security/target/$target/release/security
    # Some hundreds of attempts a race here; the published run has 2,000.
    stage security-v1 counts "$security" --view v1 --attempts "${SECURITY_ATTEMPTS:-300}"
    stage security-v2 counts "$security" --view v2 --attempts "${SECURITY_ATTEMPTS:-300}"
    stage sweep-build plain sh -c "cd '$suite_dir/sweep' && cargo build --release --target $target"
    sweep=$suite_dir/sweep/target/$target/release/sweep
    # Every seventh call here; SWEEP_EVERY=1 takes all of them. The sweep hides /tmp and /run, where a checkout may be.
    swept=$naru
    case $repo in
    /tmp/* | /run/*)
        outside=$(mktemp -d /var/tmp/naru-sweep.XXXXXX)
        cp "$naru" "$sweep" "$outside"
        swept=$outside/naru sweep=$outside/sweep
        ;;
    esac
    stage sweep-v1 counts "$sweep" "$swept" --view v1 --every "${SWEEP_EVERY:-7}"
    stage sweep-v2 counts "$sweep" "$swept" --view v2 --every "${SWEEP_EVERY:-7}"
fi

echo
[ ${#broken[@]} = 0 ] || echo "failed stages: ${broken[*]}"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
