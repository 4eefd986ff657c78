#!/usr/bin/env bash
# Runs a command on pure cgroup v2 with every controller, in User-mode Linux: a kernel that runs as a process.
#
#   runtime-tools-tests/uml.sh [--systemd[=v1|=hybrid]] [--root DIR] [--bind SOURCE:TARGET].. [--timeout SECONDS] [--memory SIZE]
#       [--lsm NAMES] CMD [ARG..]
#
# The command sees this machine's files (or those of DIR, such as the lab root of hack/lab.sh) and may change them as it
# likes: changes stay in memory and end with it. This repository is in its place, read-only, and the working directory.
# /proc, /sys, /dev, /run, /tmp and the engines' storage are fresh. It runs as root, without input; its output and its status
# are ours. Else the status is 124 when the deadline passed (default: 300 s), 125 when the kernel did not get to the end.
#
# With --systemd the root's systemd is the first process, with a message bus, and the command is a service of it (default
# root: the lab's, whose systemd is new). --systemd=v1 has it use the hierarchies of cgroup v1, --systemd=hybrid a cgroup2 tree
# beside them, which only systemd before 258 can (default root: the machine's); this kernel has cpu, cpuacct, blkio, devices,
# freezer, net_cls and pids there.
#
# On the machine nothing is touched: the kernel's process has mount and pid namespaces of its own, where all but a scratch
# directory is read-only. The kernel is the lab's ($LAB, hack/lab.sh) or else the machine's package user-mode-linux; Linux 6.1
# dies on processors with AMX ("ptrace set fp regs failed"), 7.2 does not. Without root or a kernel: prints SKIP and exits 77.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

self=$(realpath "$0")
repository=$(realpath "$(dirname "$self")/..")

# ---- on the machine ------------------------------------------------------------------------------------------------

skip() {
    echo "SKIP uml: $*"
    exit 77
}

boot() {
    local root= binds=() seconds=300 memory=2G lsm= status=0 first=command
    while [ $# -gt 0 ]; do
        case $1 in
        --systemd) first=systemd && shift ;;
        --systemd=v1 | --systemd=hybrid) first=systemd-${1#*=} && shift ;;
        --root) root=$(realpath -e "${2-}") && shift 2 ;;
        --bind) binds+=("$(realpath -e "${2%%:*}"):${2#*:}") && shift 2 ;;
        --timeout) seconds=${2-} && shift 2 ;;
        --memory) memory=${2-} && shift 2 ;;
        --lsm) lsm=${2-} && shift 2 ;;
        *) break ;;
        esac
    done
    if [ $# = 0 ]; then
        echo "usage: uml.sh [--root DIR] [--bind SOURCE:TARGET].. [--timeout SECONDS] [--memory SIZE] [--lsm NAMES] CMD [ARG..]" >&2
        exit 125
    fi
    [ "$(id -u)" = 0 ] || skip "needs root"
    # The lab's kernel needs the lab's C library, so it runs with the lab for a root and the machine's files below it.
    local home=/ machine=/
    if [ -x "${LAB:=/var/tmp/naru-lab}/forky/usr/bin/linux.uml" ]; then
        home=$(realpath "$LAB/forky") machine=/mnt
    elif [ ! -x /usr/bin/linux.uml ]; then
        skip "no linux.uml: neither hack/lab.sh nor the package user-mode-linux"
    fi
    if [ "$first" = systemd ] && [ "$home" != / ]; then
        root=${root:-$home}
    fi
    root=${root:-/}
    if [ $first != command ] && { [ ! -x "$root/lib/systemd/systemd" ] || [ ! -e "$root/usr/bin/dbus-daemon" ]; }; then
        skip "no systemd with a message bus in $root"
    fi
    if [[ $first = systemd-* ]] && [ "$("$root/lib/systemd/systemd" --version | awk 'NR == 1 { print $2 }')" -ge 258 ]; then
        skip "the systemd of $root has no cgroup v1"
    fi

    scratch=$(mktemp -d /tmp/naru-uml.XXXXXX)
    trap 'rm -rf --one-file-system "$scratch"' EXIT
    printf '%s\0' "$@" >"$scratch/command"
    printf '%s\0' "$first" "$home" "$root" "$repository:$repository" "${binds[@]}" >"$scratch/places"

    # On v2 no group but the first has a real-time budget, so that real-time policies could not be tried; v1 has one each.
    local budgets=rt_group_sched=0
    [[ $first != systemd-* ]] || budgets=

    # unshare --fork holds back SIGTERM, hence SIGKILL; the pid namespace ends with it, and with that all its processes.
    # seccomp=on: processes run under a filter instead of ptrace; containers start 1.4 to 1.9 times as fast.
    # Output has a descriptor of its own, because the kernel's first words go to standard output whatever its consoles are.
    timeout --foreground -s KILL "$seconds" \
        unshare --mount --propagation private --pid --fork --kill-child "$BASH" "$self" --confined "$scratch" "$home" "$machine" \
        /usr/bin/linux.uml "mem=$memory" "uml_dir=/dev/shm/" umid=kernel \
        root=/dev/root rootfstype=hostfs "rootflags=$machine" ro "init=$self" \
        con=null con0=null,fd:1 ssl=null ssl0=null,fd:3 seccomp=on quiet panic=-1 $budgets ${lsm:+lsm=$lsm} -- --inside "${machine%/}$scratch" \
        3>&1 >"$scratch/console" 2>&1 </dev/null || status=$?
    if [ -s "$scratch/status" ]; then
        exit "$(cat "$scratch/status")"
    fi
    tail -n 30 "$scratch/console" >&2
    if [ $status = 137 ]; then
        echo "uml: not done after $seconds s" >&2
        exit 124
    fi
    echo "uml: the kernel ended before the command did" >&2
    exit 125
}

# Hostfs acts with this process's rights on every path of the machine, so paths are made read-only before it starts.
confine() {
    local home=$2 machine=$3 mountpoint
    shift 3
    mount --bind "$scratch" "$scratch"
    if [ "$home" != / ]; then
        mount --rbind / "$home$machine"
        mount --rbind /dev "$home/dev"
    fi
    mount -t proc proc "$home/proc"
    awk '{ print $5 }' /proc/self/mountinfo | while read -r mountpoint; do
        case $mountpoint in
        *"$scratch") ;;
        # A mount that another one hides cannot be changed, nor reached, by hostfs no more than by us.
        *) mount -o remount,bind,ro "$mountpoint" 2>/dev/null || true ;;
        esac
    done
    mount -t tmpfs -o mode=1777 memory "$home/dev/shm" # the kernel's memory is a file in here
    # Not exec: a kernel that panics ends itself by a signal, which the first process of a pid namespace would not get.
    chroot "$home" "$@"
}

# ---- in User-mode Linux, as its first process ----------------------------------------------------------------------

# The mount point must have the kind of what is bound on it.
bind_readonly() {
    local source=$1 target=$2
    if [ -d "$source" ]; then
        mkdir -p "$target"
    else
        mkdir -p "$(dirname "$target")"
        [ -e "$target" ] || : >"$target"
    fi
    mount --bind "$source" "$target"
    mount -o remount,bind,ro "$target"
}

inside() {
    local new=/mnt/new directory bind modules status=0 command places first
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
    mount -t proc proc /proc
    mount -t tmpfs -o mode=755 memory /mnt
    mkdir /mnt/{upper,work,new,scratch}
    mount -t hostfs -o "$scratch" scratch /mnt/scratch
    mapfile -d '' command </mnt/scratch/command
    mapfile -d '' places </mnt/scratch/places
    first=${places[0]} places=("${places[@]:1}")
    exec 9>/mnt/scratch/status
    modules=/usr/lib/uml/modules/$(uname -r)

    chroot "${places[0]}" insmod "$modules/kernel/fs/overlayfs/overlay.ko"
    # What the tests use and nobody in there may be able to load: the root can be without kmod.
    for directory in net/dummy net/veth block/loop; do
        chroot "${places[0]}" insmod "$modules/kernel/drivers/$directory.ko" || true
    done
    mount -t overlay -o "lowerdir=${places[1]},upperdir=/mnt/upper,workdir=/mnt/work" root $new
    mount -t proc proc $new/proc
    mount -t sysfs sysfs $new/sys
    mount -t securityfs securityfs $new/sys/kernel/security || true # with --lsm apparmor
    if [[ $first != systemd-* ]]; then
        mount -t cgroup2 cgroup2 $new/sys/fs/cgroup
    fi
    if [ "$first" = command ]; then
        sed 's/[^ ]*/+&/g' $new/sys/fs/cgroup/cgroup.controllers >$new/sys/fs/cgroup/cgroup.subtree_control
    fi
    mount -t devtmpfs devtmpfs $new/dev
    mkdir -p $new/dev/pts $new/dev/shm $new/dev/mqueue
    mount -t devpts -o ptmxmode=666,gid=5 devpts $new/dev/pts
    ln -sfn /proc/self/fd $new/dev/fd
    ln -sf /proc/self/fd/0 $new/dev/stdin
    ln -sf /proc/self/fd/1 $new/dev/stdout
    ln -sf /proc/self/fd/2 $new/dev/stderr
    # Not the upper layer of the root: an overlay refuses another overlay for its own upper layer.
    for directory in dev/shm run tmp var/tmp var/lib/docker var/lib/containerd var/lib/containers; do
        mkdir -p "$new/$directory"
        mount -t tmpfs -o mode=755 memory "$new/$directory"
    done
    chmod 1777 $new/tmp $new/var/tmp $new/dev/shm
    mkdir -p "$new/lib/modules/$(uname -r)"
    mount --bind "${places[0]}$modules" "$new/lib/modules/$(uname -r)"
    for bind in "${places[@]:2}"; do
        bind_readonly "${bind%%:*}" "$new${bind#*:}"
    done

    if [ "$first" != command ]; then
        # The status goes through the scratch directory, which this process leaves to the command's service.
        mkdir $new/run/uml
        mount --bind /mnt/scratch $new/run/uml
    fi
    cd $new
    pivot_root . mnt
    hash -r
    umount -l /mnt
    ip link set lo up
    stty -F /dev/ttyS0 raw -echo
    if [ "$first" != command ]; then
        exec 9>&-
        become_systemd "$first"
    fi
    cd "$repository"
    # setsid, so that a command that wants a controlling terminal can take one.
    setsid -w "${command[@]}" </dev/null >/dev/ttyS0 2>&1 9>&- || status=$?
    echo "$status" >&9
    exec 9>&-
    power_off
}

power_off() {
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
}

# Only what the tests need is started: neither udev nor the journal, and no waiting for what the default target wants.
become_systemd() {
    local units=/run/systemd/system unit own=1 arguments=(--unit=uml.target --show-status=false --log-target=null)
    local early=$'[Unit]\nDefaultDependencies=no'
    mkdir -p $units
    for unit in dbus.socket dbus.service user@.service user-runtime-dir@.service systemd-logind.service; do
        mkdir -p "$units/$unit.d"
        echo "$early" >"$units/$unit.d/uml.conf"
    done
    printf '%s\n' "$early" 'Requires=dbus.socket uml.service' >$units/uml.target
    printf '%s\n' "$early" 'Requires=dbus.socket' 'After=dbus.socket' '[Service]' 'Type=oneshot' 'Delegate=yes' \
        'TimeoutStartSec=infinity' 'StandardInput=null' "ExecStart=$BASH $self --serve" >$units/uml.service
    if [[ $1 = systemd-* ]]; then
        arguments+=(--system)
        [ "$1" = systemd-v1 ] || own=0
        export SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 \
            SYSTEMD_PROC_CMDLINE="systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=$own"
    fi
    mkdir -p /run/dbus
    exec /lib/systemd/systemd "${arguments[@]}" </dev/null >/dev/null 2>&1
}

# The command as a service of systemd.
serve() {
    local command status=0
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
    mapfile -d '' command </run/uml/command
    cd "$repository"
    setsid -w "${command[@]}" </dev/null >/dev/ttyS0 2>&1 || status=$?
    echo "$status" >/run/uml/status
    power_off
}

case ${1-} in
--confined)
    shift
    scratch=$1
    confine "$@"
    ;;
--inside)
    scratch=$2
    inside
    ;;
--serve) serve ;;
*) boot "$@" ;;
esac
