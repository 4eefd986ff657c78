#!/bin/sh
# demo.sh NARU: makes a bundle with the default configuration and a busybox root, runs it, and shows from inside what
# is isolated. As root, or as an ordinary user where the system allows user namespaces.
set -eu
naru=$(realpath "$1")

rootless=''
if [ "$(id -u)" != 0 ]; then
    echo "demo: not root: a rootless container, whose root is $(id -un)"
    rootless=--rootless
fi

busybox=$(command -v busybox || true)
if [ -z "$busybox" ] || ldd "$busybox" >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "demo: installing busybox-static for the container's root"
        { apt-get install -y -q busybox-static || { apt-get update -q && apt-get install -y -q busybox-static; }; } >/dev/null
        busybox=$(command -v busybox)
    else
        echo "demo: needs a static busybox (Debian: apt-get install busybox-static)" >&2
        exit 1
    fi
fi

dir=$(mktemp -d)
id=demo-$$
cleanup() {
    "$naru" --root "$dir/state" delete --force "$id" 2>/dev/null || true
    rm -rf "$dir"
}
trap cleanup EXIT
mkdir -p "$dir/bundle/rootfs/bin" "$dir/bundle/rootfs/etc" "$dir/bundle/rootfs/proc" "$dir/bundle/rootfs/sys" \
    "$dir/bundle/rootfs/dev" "$dir/bundle/rootfs/tmp"
cp "$busybox" "$dir/bundle/rootfs/bin/busybox"
for applet in sh id hostname ps mount ls cat head wc grep echo ip touch; do ln -s busybox "$dir/bundle/rootfs/bin/$applet"; done
echo 'root:x:0:0:root:/root:/bin/sh' >"$dir/bundle/rootfs/etc/passwd"

cat >"$dir/bundle/rootfs/show.sh" <<'END'
line() { printf '%-22s %s\n' "$1" "$2"; }
line 'user' "$(id)"
line 'host name' "$(hostname) (UTS namespace)"
line 'process id' "$$ (pid namespace)"
line 'network devices' "$(ls /sys/class/net 2>/dev/null | tr '\n' ' ')"
line 'mounts' "$(grep -c . /proc/self/mountinfo), none of the host's (mount namespace)"
line 'devices' "$(cd /dev && echo *)"
line 'capabilities' "$(grep CapEff /proc/self/status | cut -f2)"
line 'new privileges' "NoNewPrivs=$(grep NoNewPrivs /proc/self/status | cut -f2)"
line 'write to /' "$(touch /x 2>&1 || true)"
line 'write to /proc/sys' "$( (echo 1 >/proc/sys/kernel/panic) 2>&1 || true)"
line 'masked /proc/keys' "$(wc -c </proc/keys) bytes"
END

cd "$dir/bundle"
"$naru" spec $rootless
# The default configuration as it is, but for the program.
sed -i 's|"sh"|"/bin/sh", "/show.sh"|; s|"terminal": true|"terminal": false|' config.json
echo "demo: $("$naru" --version | head -n 1): naru run $id"
echo
"$naru" --root "$dir/state" run "$id"
echo
echo "demo: the container is gone: $("$naru" --root "$dir/state" list -q | wc -l) left"
