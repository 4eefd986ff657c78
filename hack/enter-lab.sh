#!/usr/bin/env bash
# Runs a command in a lab root (hack/lab.sh) as if that were the machine: engines and their daemons work in there.
#
#   hack/enter-lab.sh [--cgroup v1|v2|host] [--naru FILE] [--bind SOURCE:TARGET].. [--host-net] ROOT CMD [ARG..]
#
#   --cgroup v1    the machine's v1 hierarchies, without the v2 mount of a hybrid layout (default where there are any)
#   --cgroup v2    the machine's v2 tree, with those controllers that v1 has left to it (default elsewhere)
#   --cgroup host  /sys/fs/cgroup as the machine has it
#   --naru FILE    bound read-only at /usr/local/bin/naru (default: the release binary of this repository, if built)
#   --bind         SOURCE (file or directory) bound read-only at TARGET
#   --host-net     stay in the machine's network namespace
#
# The command gets mount, pid and network namespaces of its own, an empty environment but PATH, HOME and TERM, and its
# status is carried back. ROOT is never written: it is the lower layer of an overlay that lives in memory. When the command
# ends, everything it left running is killed with the pid namespace and every mount goes with the mount namespace.
# Cgroups are the machine's: whoever makes some in here removes them.
# To end it from outside use SIGKILL (`timeout -k`), unshare --fork holds back SIGTERM.
set -euo pipefail

die() {
    echo "enter-lab: $*" >&2
    exit 125
}

read_arguments() {
    cgroup=
    net=(--net)
    binds=()
    naru=$(dirname "$(realpath "$0")")/../target/x86_64-unknown-linux-musl/release/naru
    while [ $# -gt 0 ]; do
        case $1 in
        --cgroup) cgroup=${2-} && shift 2 ;;
        --naru)
            naru=${2-}
            [ -f "$naru" ] || die "--naru: no file $naru"
            shift 2
            ;;
        --bind) binds+=("${2-}") && shift 2 ;;
        --host-net) net=() && shift ;;
        -*) die "unknown option $1" ;;
        *) break ;;
        esac
    done
    [ $# -ge 2 ] || die "usage: enter-lab.sh [OPTIONS] ROOT CMD [ARG..]"
    root=$(realpath -e "$1")
    shift
    command=("$@")
    [ -x "$root/bin/bash" ] || die "$root is no lab root: make one by hack/lab.sh"
    case $root in *[,:\\]*) die "overlayfs cannot name $root" ;; esac
    if [ -f "$naru" ]; then
        binds+=("$(realpath "$naru"):/usr/local/bin/naru")
    fi
    if [ -z "$cgroup" ]; then
        cgroup=v2
        [ -d /sys/fs/cgroup/memory ] && cgroup=v1
    fi
    case $cgroup in v1 | v2 | host) ;; *) die "--cgroup takes v1, v2 or host" ;; esac
    if [ "$cgroup" = v1 ] && [ ! -d /sys/fs/cgroup/memory ]; then
        die "this machine has no cgroup v1 hierarchies"
    fi
}

mount_cgroups() {
    local at=$1 hierarchy
    case $cgroup in
    v2) mount -t cgroup2 cgroup2 "$at" ;;
    host) mount --rbind /sys/fs/cgroup "$at" ;;
    v1)
        # Not the machine's own tmpfs: a runtime that takes the empty mount point of v2 for a hierarchy would litter it.
        mount -t tmpfs -o mode=755 cgroup "$at"
        for hierarchy in /sys/fs/cgroup/*; do
            if [ -L "$hierarchy" ]; then # cpu and cpuacct, where they are mounted as one
                cp -P "$hierarchy" "$at/"
            elif [ "$(stat -f -c %T "$hierarchy")" = cgroupfs ]; then
                mkdir "$at/${hierarchy##*/}"
                mount --bind "$hierarchy" "$at/${hierarchy##*/}"
            fi
        done
        ;;
    esac
}

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

# Runs as pid 1 of the new namespaces.
enter() {
    local new directory bind
    # Any directory does for the memory that holds the upper layer: only this namespace sees it.
    mount -t tmpfs -o mode=755 lab "$root/mnt"
    mkdir "$root/mnt"/{upper,work,new}
    new=$root/mnt/new
    mount -t overlay -o "lowerdir=$root,upperdir=$root/mnt/upper,workdir=$root/mnt/work" lab "$new"
    mount -t proc proc "$new/proc"
    mount -t sysfs sysfs "$new/sys" # a fresh one: sysfs shows the network namespace it was mounted in
    mount_cgroups "$new/sys/fs/cgroup"
    mount --rbind /dev "$new/dev"
    # Overlayfs cannot be the upper layer of another overlay, so engine storage is memory of its own. /dev/shm, because
    # Podman's locks are in it.
    for directory in dev/shm run tmp var/tmp var/lib/docker var/lib/containerd var/lib/containers; do
        mkdir -p "$new/$directory"
        mount -t tmpfs -o mode=755 "lab-${directory##*/}" "$new/$directory"
    done
    chmod 1777 "$new/tmp" "$new/var/tmp" "$new/dev/shm"
    mkdir "$new/run/lock"
    for bind in "${binds[@]}"; do
        bind_readonly "${bind%%:*}" "$new/${bind#*:}"
    done
    cd "$new"
    # Runtimes pivot_root too, which the kernel refuses below a mere chroot: the lab must be the real root.
    pivot_root . mnt
    hash -r
    umount -l /mnt
    cd /
    [ ${#net[@]} = 0 ] || ip link set lo up
    # A shell stays as pid 1: it reaps what daemons orphan, and the command keeps the signal rules of an ordinary process.
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM:-dumb}" \
        bash -c '"$@"; exit $?' lab-init "${command[@]}"
}

if [ "${1-}" = --entered ]; then
    shift
    read_arguments "$@"
    enter
fi
[ "$(id -u)" = 0 ] || die "needs root"
read_arguments "$@"
exec unshare --mount --propagation private --pid --fork --kill-child "${net[@]}" "$BASH" "$0" --entered "$@"
