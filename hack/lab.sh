#!/usr/bin/env bash
# Makes the lab: a Debian forky root with the engines that drive a container runtime, the released peers as programs
# that run straight on this machine, and a small bundle. Run it again at any time; what is complete is kept.
#
#   LAB=/var/tmp/naru-lab hack/lab.sh
#
#   $LAB/forky    root for hack/enter-lab.sh (docker, containerd, podman, systemd, criu, bats, go, ...)
#   $LAB/bin      runc and crun from forky, with their own loader and libraries ($LAB/peers), for comparisons on the host
#   $LAB/bundle   busybox, `runc spec` with /bin/true and no terminal
#
# It writes nothing outside $LAB and starts no daemon.
set -euo pipefail

lab=${LAB:-/var/tmp/naru-lab}
suite=forky

# One package a word; a change here rebuilds the root.
packages=(
    runc crun containerd docker.io docker-cli podman buildah conmon criu libcriu2
    netavark aardvark-dns passt slirp4netns fuse-overlayfs containernetworking-plugins
    systemd systemd-sysv dbus dbus-user-session libpam-systemd
    iproute2 iptables nftables kmod procps uidmap util-linux bsdutils attr libcap2-bin
    user-mode-linux bats jq gawk xz-utils strace socat file python3 python3-grpcio golang-go gcc libc6-dev pkg-config libseccomp-dev
    docker-compose docker-buildx catatonit make git busybox-static ca-certificates
)

die() {
    echo "lab: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die "needs root"
for tool in mmdebstrap patchelf jq; do
    command -v "$tool" >/dev/null || die "$tool is missing: apt-get install mmdebstrap patchelf jq"
done
mkdir -p "$lab"
lab=$(realpath "$lab")

# A root is built beside its place and renamed when whole, so that an interrupted run never looks complete.
make_root() {
    local root=$lab/$suite stamp include
    include=$(IFS=,; echo "${packages[*]}")
    stamp=$(printf '%s' "$suite $include" | sha256sum | cut -d' ' -f1)
    if [ "$(cat "$root/.lab" 2>/dev/null || true)" = "$stamp" ]; then
        echo "lab: $root is complete"
        return
    fi
    # One file system only: were something mounted in there, it must not be walked.
    rm -rf --one-file-system "$root.part"
    # An archive mirror may serve a Release file past its date; what it signs is still checked.
    mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
        --include="$include" "$suite" "$root.part"
    echo "$stamp" >"$root.part/.lab"
    rm -rf --one-file-system "$root"
    mv "$root.part" "$root"
    echo "lab: made $root"
}

# A wrapper script or an explicit loader would be timed along with the program (and /proc/self/exe, which runtimes
# execute again, would name the loader). So the ELF itself is told where its loader and libraries are.
make_peer() {
    local name=$1 program=$2 root=$lab/$suite peers=$lab/peers library
    shift 2
    mkdir -p "$peers/lib" "$lab/bin"
    if [ "$peers/$name" -nt "$root/.lab" ]; then
        return
    fi
    cp -L "$root$program" "$peers/$name.part"
    for object in "$program" "$@"; do
        chroot "$root" ldd "$object" | awk '$3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }'
    done | sort -u | while read -r library; do
        cp -L "$root$library" "$peers/lib/"
    done
    for library in "$@"; do # opened by name at run time, so ldd does not list them
        cp -L "$root$library" "$peers/lib/"
    done
    patchelf --set-interpreter "$peers/lib/ld-linux-x86-64.so.2" --set-rpath "$peers/lib" "$peers/$name.part"
    mv "$peers/$name.part" "$peers/$name"
    touch "$peers/$name"
    ln -sfn "../peers/$name" "$lab/bin/$name"
    echo "lab: $lab/bin/$name is $("$lab/bin/$name" --version | head -n 1)"
}

make_bundle() {
    local bundle=$lab/bundle part=$lab/bundle.part applet
    [ -e "$bundle/config.json" ] && return
    rm -rf --one-file-system "$part"
    mkdir -p "$part"/rootfs/{bin,etc,proc,sys,dev,tmp,root,run,var,home,usr}
    chmod 1777 "$part/rootfs/tmp"
    cp "$lab/$suite/usr/bin/busybox" "$part/rootfs/bin/busybox"
    chroot "$part/rootfs" /bin/busybox --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$part/rootfs/bin/$applet"
    done
    ln -s bin "$part/rootfs/sbin"
    ln -s ../bin "$part/rootfs/usr/bin"
    printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534:nobody:/:/bin/false \
        user:x:1000:1000:user:/home:/bin/sh >"$part/rootfs/etc/passwd"
    printf '%s\n' root:x:0: nogroup:x:65534: user:x:1000: >"$part/rootfs/etc/group"
    (cd "$part" && "$lab/bin/runc" spec)
    jq '.process.terminal = false | .process.args = ["/bin/true"]' "$part/config.json" >"$part/config.json.new"
    mv "$part/config.json.new" "$part/config.json"
    mv "$part" "$bundle"
    echo "lab: made $bundle"
}

make_root
make_peer runc /usr/sbin/runc
make_peer crun /usr/bin/crun /usr/lib/x86_64-linux-gnu/libcriu.so.2
make_bundle
