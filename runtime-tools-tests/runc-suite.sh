#!/usr/bin/env bash
# runc's own integration suite, run against several runtimes in one environment, side by side.
#
#   LAB=/var/tmp/naru-lab runtime-tools-tests/runc-suite.sh [OPTIONS] CHECKOUT [NAME..]
#
#   --cgroup v1|v2|host|uml|systemd
#                            the view of this machine's cgroups (hack/enter-lab.sh), or `uml` for pure v2 with all
#                            controllers in User-mode Linux (uml.sh), or `systemd` for the same as a service of systemd
#                            and with the systemd driver. Default: v1 where there is any, else v2
#   --runtime NAME=PATH      instead of the default runtimes. PATH is on this machine, or `lab:PATH` in the lab root, or
#                            `checkout` for the runc that is built from CHECKOUT. May be given several times.
#                            Default: runc=lab:/usr/sbin/runc and naru=the release binary of this repository
#   --filter REGEX           only tests whose name matches
#   --out DIR                where the runs' full output goes, RUNTIME-CGROUP.tap each (default: $LAB/runc-suite-out)
#   --from-output            run nothing: make the table from what is in DIR
#   --seconds N              time limit of a test (default 60, in User-mode Linux 120)
#
# CHECKOUT is a checkout of runc's repository with its vendored modules, NAME a file of tests/integration without `.bats`
# (default: all). Nothing is written there: sources are built in a lab root (hack/lab.sh) and the result is kept in
# $LAB/runc-suite. The images that the suite downloads are made from the lab's own Debian packages.
#
# Prints a line a test, `FILE: TEST  RESULT RESULT..` in the order of the runtimes (pass, fail, skip), those first that
# differ, then the totals. Exits 1 if the last runtime failed a test that the first one passed.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
lab=${LAB:-/var/tmp/naru-lab}
root=$lab/forky
tree=$lab/runc-suite

die() {
    echo "runc-suite: $*" >&2
    exit 2
}

# ---- building, inside the lab --------------------------------------------------------------------------------------

# Busybox with its applets as links, and the few files that tests look up.
make_busybox() {
    local at=$1 applet
    # No /proc and /sys: tests put links in their places.
    mkdir -p "$at"/{bin,dev,etc,home,lib,root,tmp,usr/bin,usr/sbin,var/spool/mail,var/www}
    chmod 1777 "$at/tmp"
    cp /usr/bin/busybox "$at/bin/busybox"
    for applet in $(busybox --list); do
        case $applet in
        busybox) ;;
        *) ln "$at/bin/busybox" "$at/bin/$applet" ;;
        esac
    done
    ln -s ../../bin/env "$at/usr/bin/env"
    ln -s bin "$at/sbin"
    printf '%s\n' root:x:0:0:root:/root:/bin/sh daemon:x:1:1:daemon:/usr/sbin:/bin/false bin:x:2:2:bin:/bin:/bin/false \
        nobody:x:65534:65534:nobody:/home:/bin/false >"$at/etc/passwd"
    printf '%s\n' root:x:0: daemon:x:1: bin:x:2: tty:x:5: nogroup:x:65534: >"$at/etc/group"
    printf '%s\n' 'root:*:::::::' >"$at/etc/shadow"
}

# A Debian small enough to be unpacked for every test: bash and what the tests call, with their libraries.
make_debian() {
    local at=$1 package
    mkdir -p "$at"/{dev,etc,home,mnt,opt,proc,root,run,srv,sys,tmp,usr,var/tmp,usr/bin,usr/sbin,usr/lib,usr/lib64}
    chmod 1777 "$at/tmp" "$at/var/tmp"
    ln -s usr/bin usr/sbin usr/lib usr/lib64 "$at/"
    for package in base-files base-passwd bash dash coreutils util-linux grep sed gawk findutils mount libc6 libc-bin libtinfo6 \
        libselinux1 libpcre2-8-0 libmount1 libblkid1 libsmartcols1 libcap2 libacl1 libattr1 libgmp10 libmpfr6 libreadline8t64 \
        libcap-ng0 libcrypt1 libudev1 libsystemd0 libssl3t64 zlib1g libzstd1 libuuid1 libaudit1 libpam0g procps libproc2-0 schedutils; do
        dpkg-query -L "$package" 2>/dev/null || true
    done | grep -vE '^/usr/share/|^/\.$|/(systemd|gconv)/' | sort -u | while read -r file; do
        if [ -f "$file" ] || [ -L "$file" ]; then echo "${file#/}"; fi
    done | grep -E '^(usr|etc|bin|sbin|lib)' | tar -C / -cf - -T - | tar -C "$at" -xf - --keep-directory-symlink
    cp -P /etc/passwd /etc/group "$at/etc/"
    ln -sf gawk "$at/usr/bin/awk"
    ln -sf dash "$at/usr/bin/sh"
    ldconfig -r "$at"
    chroot "$at" /bin/sh -c 'awk --version; ls /; findmnt --version; chrt --version; ionice --version' >/dev/null
}

# Runs in the lab root with the checkout at /src; the tree goes to standard output as an archive.
build() {
    local at=/tmp/tree helper
    exec 3>&1 >&2
    mkdir -p "$at"
    cp -r /src/tests /src/go.mod "$at/"
    rm -rf "$at/tests/cmd/_bin"
    mkdir -p "$at/tests/cmd/_bin"
    cd /src
    export GOCACHE=/tmp/gocache GOFLAGS=-mod=vendor CGO_ENABLED=1 GOPATH=/tmp/go GOTOOLCHAIN=local
    for helper in tests/cmd/*/; do
        go build -tags seccomp -o "$at/tests/cmd/_bin/" "./$helper"
    done
    go build -tags seccomp -ldflags "-X main.gitCommit=checkout" -o "$at/runc" .
    make_busybox /tmp/busybox
    make_debian /tmp/debian
    tar -C /tmp/busybox -cJf "$at/tests/integration/testdata/busybox-amd64.tar.xz" .
    # Stored without compression under that name: it is unpacked for each of some forty tests.
    tar -C /tmp/debian -cf "$at/tests/integration/testdata/debian-amd64.tar.xz" .
    tar -C "$at" -cf - . >&3
}

prepare() {
    [ -d "$checkout/tests/integration" ] || die "$checkout is no checkout of runc"
    [ -e "$tree/runc" ] && [ "$tree/runc" -nt "$here/runc-suite.sh" ] && return
    echo "# building the suite in $root" >&2
    rm -rf "$tree.part"
    mkdir -p "$tree.part"
    "$here/../hack/enter-lab.sh" --bind "$checkout:/src" --bind "$here:$here" "$root" "$here/runc-suite.sh" --build | tar -C "$tree.part" -xf -
    [ -e "$tree.part/runc" ] || die "the suite could not be built"
    touch "$tree.part/runc"
    rm -rf "$tree"
    mv "$tree.part" "$tree"
}

# ---- running, inside the lab or User-mode Linux ----------------------------------------------------------------------

# What the suite leaves of this run in the machine's cgroups.
remove_cgroups() {
    local path pid
    find /sys/fs/cgroup -depth -type d -path '*/runc-cgroups-integration-test*' 2>/dev/null | while read -r path; do
        [ ! -e "$path/freezer.state" ] || echo THAWED >"$path/freezer.state"
        while read -r pid; do kill -KILL "$pid"; done <"$path/cgroup.procs"
        rmdir "$path" || { sleep 0.2 && rmdir "$path"; }
    done 2>/dev/null || true
}

# Ends what hangs: without a new line in the output for so long, the runtime's processes are killed, which fails the test and
# lets the next one begin; if that does not help, everything that the file's run has started. (bats' own time limit loses
# tests.) Processes here are all of this run: it has a pid namespace.
supervise() {
    local before='' now since=$SECONDS pid kept
    while kill -0 "$1" 2>/dev/null; do
        now=$(wc -c </tmp/tap)
        [ "$now" = "$before" ] || { before=$now since=$SECONDS; }
        if [ $((SECONDS - since)) -gt "$limit" ]; then
            echo "# no progress for $limit s" >>/tmp/tap
            if ! pkill -KILL -f "^$RUNC "; then
                kept=" 1 $1 $$ $PPID $BASHPID $(pgrep -x script | tr '\n' ' ')"
                for pid in /proc/[0-9]*; do
                    pid=${pid#/proc/}
                    case $kept in *" $pid "*) ;; *) kill -KILL "$pid" 2>/dev/null || true ;; esac
                done
            fi
            before=$(wc -c </tmp/tap) since=$SECONDS
        fi
        sleep 0.5
    done
}

inside() {
    local runtime=$1 filter=$2 file status
    shift 2
    export RUNC=$runtime TMPDIR=/tmp
    limit=$SECONDS_A_TEST
    unset SECONDS_A_TEST
    cd /suite/tests/integration
    [ $# -gt 0 ] || set -- ./*.bats
    echo "# $("$runtime" --version | head -n 1), Linux $(uname -r), $(stat -f -c %T /sys/fs/cgroup) at /sys/fs/cgroup"
    # Nothing here names devices after the kernel has, so there is nobody to wait for.
    mkdir /tmp/bin
    command -v udevadm >/dev/null || ln -s /bin/true /tmp/bin/udevadm
    PATH=$PATH:/tmp/bin
    if modprobe loop 2>/dev/null && [ -z "$(lsblk -dno MAJ:MIN)" ]; then
        # One block device, to set limits for.
        truncate -s 4M /tmp/disk
        losetup -f /tmp/disk
    fi
    mkfifo /tmp/never
    exec 9<>/tmp/never
    for file; do
        file=$(basename "$file" .bats)
        echo "# file $file"
        status=0
        : >/tmp/tap
        # A helper that a test leaves running may hold the output open, so it goes through a file. Most tests want a
        # controlling terminal, which script makes; its own input must not end, or it sends the tests an end of file.
        script -qefc "bats --formatter tap ${filter:+--filter '$filter'} $file.bats >/tmp/tap 2>&1" /dev/null <&9 >/dev/null 2>&1 &
        supervise $!
        wait $! || status=$?
        tr -d '\r' </tmp/tap
        [ $status -le 1 ] || echo "# $file ended with status $status"
    done
    remove_cgroups
}

run_one() {
    local name=$1 path=$2 options=(--bind "$tree:/suite") variables=() runtime command
    case $path in
    lab:*) runtime=${path#lab:} ;;
    checkout) runtime=/suite/runc ;;
    *)
        path=$(realpath -e "$path") || exit 2
        # Some tests read the name that the program prints for itself.
        options+=(--bind "$path:/usr/local/bin/runc")
        runtime=/usr/local/bin/runc
        ;;
    esac
    # The suite looks whether the variable exists.
    [ "$cgroup" != systemd ] || variables+=(RUNC_USE_SYSTEMD=yes)
    command=(env "SECONDS_A_TEST=$seconds" "${variables[@]}" "$here/runc-suite.sh" --inside "$runtime" "$filter" "${names[@]}")
    case $cgroup in
    systemd) "$here/uml.sh" --systemd --root "$root" --timeout 7200 --memory 4G "${options[@]}" "${command[@]}" ;;
    uml) "$here/uml.sh" --root "$root" --timeout 7200 --memory 4G "${options[@]}" "${command[@]}" ;;
    *) "$here/../hack/enter-lab.sh" ${cgroup:+--cgroup "$cgroup"} "${options[@]}" --bind "$here:$here" "$root" "${command[@]}" ;;
    esac
}

# ---- the table -----------------------------------------------------------------------------------------------------

# From the output of one run: FILE<tab>TEST<tab>RESULT.
results() {
    awk '
        /^# file / { file = $3; next }
        /^(not )?ok [0-9]+ / {
            result = /^not/ ? "fail" : "pass"
            line = $0
            sub(/^(not )?ok [0-9]+ /, "", line)
            if (match(line, / # skip/)) { result = "skip"; line = substr(line, 1, RSTART - 1) }
            sub(/ # timeout after .*$/, "", line)
            sub(/ in [0-9]+(ms|sec)$/, "", line)
            print file "\t" line "\t" result
        }' "$1"
}

table() {
    local name files=()
    for name in "${runtimes[@]%%=*}"; do
        results "$out/$name-$label.tap" >"$out/$name-$label.results"
        files+=("$out/$name-$label.results")
    done
    awk -F '\t' -v "names=${runtimes[*]%%=*}" '
        FNR == 1 { column++ }
        { test = $1 ": " $2; if (!(test in seen)) { seen[test] = ++count; order[count] = test } result[test, column] = $3 }
        END {
            columns = split(names, name, " ")
            for (pass = 0; pass < 2; pass++)
                for (i = 1; i <= count; i++) {
                    line = ""; differ = 0
                    for (c = 1; c <= columns; c++) {
                        r = result[order[i], c]; if (r == "") r = "-"
                        line = line sprintf(" %-5s", r)
                        if (r != result[order[i], 1]) differ = 1
                        if (!pass) total[c, r]++
                    }
                    if (differ != pass) print line "  " order[i]
                    if (!pass && result[order[i], 1] == "pass" && result[order[i], columns] != "pass") worse++
                }
            for (c = 1; c <= columns; c++)
                printf "%s: %d passed, %d failed, %d skipped\n", name[c], total[c, "pass"], total[c, "fail"] + total[c, "-"], total[c, "skip"]
            exit worse > 0
        }' "${files[@]}"
}

case ${1-} in
--build) build; exit ;;
--inside) shift; inside "$@"; exit ;;
esac

cgroup='' filter='' out=$lab/runc-suite-out seconds='' runtimes=() only_table=
while [ $# -gt 0 ]; do
    case $1 in
    --cgroup) cgroup=${2-} && shift 2 ;;
    --runtime) runtimes+=("${2-}") && shift 2 ;;
    --filter) filter=${2-} && shift 2 ;;
    --out) out=${2-} && shift 2 ;;
    --seconds) seconds=${2-} && shift 2 ;;
    --from-output) only_table=1 && shift ;;
    -*) die "unknown option $1" ;;
    *) break ;;
    esac
done
[ $# -ge 1 ] || die "usage: runc-suite.sh [OPTIONS] CHECKOUT [NAME..]"
[ "$(id -u)" = 0 ] && [ -d "$root" ] || { echo "SKIP runc-suite: needs root and the lab (hack/lab.sh)"; exit 77; }
checkout=$(realpath -e "$1")
shift
names=("$@")
[ ${#runtimes[@]} -gt 0 ] || runtimes=(runc=lab:/usr/sbin/runc "naru=$here/../target/x86_64-unknown-linux-musl/release/naru")
[ -n "$cgroup" ] || { cgroup=v2 && [ ! -d /sys/fs/cgroup/memory ] || cgroup=v1; }
label=$cgroup
[ -n "$seconds" ] || { seconds=60 && { [ "$cgroup" != uml ] && [ "$cgroup" != systemd ]; } || seconds=120; }
mkdir -p "$out"
if [ -z "$only_table" ]; then
    prepare
    for entry in "${runtimes[@]}"; do
        run_one "${entry%%=*}" "${entry#*=}" >"$out/${entry%%=*}-$label.tap" </dev/null
    done
fi
table
