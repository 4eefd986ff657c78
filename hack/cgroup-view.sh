#!/bin/sh
# cgroup-view.sh v1|v2 CMD [ARG..]: run CMD in a private mount namespace in which /sys/fs/cgroup shows
# cgroup v1 alone or one cgroup v2 tree, whatever mix the host has. Exit 77 when the host cannot show it.
set -eu
view=$1
shift
if [ "${CGROUP_VIEW_INSIDE-}" != 1 ]; then
    CGROUP_VIEW_INSIDE=1 exec unshare -m --propagation private "$0" "$view" "$@"
fi
unset CGROUP_VIEW_INSIDE
case $view in
v2)
    umount -R /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
    ;;
v1)
    # The v1 hierarchies on a fresh tmpfs, without a hybrid host's v2 tree, which crun refuses beside them: covering the
    # host's tmpfs also keeps out what a runtime may write next to the hierarchies.
    v1=$(awk '$3 == "cgroup" {print $2}' /proc/self/mounts)
    if [ -z "$v1" ]; then
        echo "cgroup-view: no cgroup v1 hierarchies on this host" >&2
        exit 77
    fi
    new=$(mktemp -d)
    mount -t tmpfs -o mode=755 cgroup "$new"
    for m in $v1; do
        mkdir "$new/${m##*/}"
        mount --bind "$m" "$new/${m##*/}"
    done
    for l in /sys/fs/cgroup/*; do if [ -L "$l" ]; then cp -P "$l" "$new/"; fi; done
    umount -R /sys/fs/cgroup
    mount --rbind "$new" /sys/fs/cgroup
    umount -R "$new"
    rmdir "$new"
    ;;
*)
    echo "usage: cgroup-view.sh v1|v2 CMD [ARG..]" >&2
    exit 2
    ;;
esac
exec "$@"
