# Sourced by bench.sh, syscall-budget.sh and layout.sh: compiles the C tools under benches/, finds the
# runtimes, and makes the bundles that are measured. It runs no container and must leave nothing outside
# target/ and the directory given to make_bundles.
# shellcheck shell=sh

repo=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
tools=${BENCH_TOOLS:-$repo/target/bench}

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

build_tools() {
    mkdir -p "$tools"
    echo '#include <sys/syscall.h>' | ${CC:-cc} -E -dM - |
        awk '$2 ~ /^__NR_/ && $3 ~ /^[0-9]+$/ {print "[" $3 "] = \"" substr($2, 6) "\","}' >"$tools/syscall-names.h"
    # floor is static, as the runtimes compared with it may be: it is the kernel's price, not the loader's.
    for t in floor payload; do
        [ "$tools/$t" -nt "$repo/benches/$t.c" ] || ${CC:-cc} -O2 -static -o "$tools/$t" "$repo/benches/$t.c"
    done
    for t in pairbench tally; do
        [ "$tools/$t" -nt "$repo/benches/$t.c" ] || ${CC:-cc} -O2 -I"$tools" -o "$tools/$t" "$repo/benches/$t.c"
    done
}

# The path of a runtime: from the environment (NARU, CRUN, RUNC, YOUKI), the build, or PATH; empty when there is none.
runtime_path() {
    case $1 in
    naru)
        p=${NARU-}
        if [ -z "$p" ]; then
            for p in "$repo/target/$(uname -m)-unknown-linux-musl/release/naru" "$repo/target/release/naru" ''; do
                if [ -x "$p" ]; then break; fi
            done
        fi
        ;;
    crun) p=${CRUN-} ;;
    runc) p=${RUNC-} ;;
    youki) p=${YOUKI-} ;;
    esac
    if [ -z "$p" ]; then p=$(command -v "$1" || true); fi
    if [ -n "$p" ] && [ -x "$p" ]; then readlink -f "$p"; fi
}

# with_args 'ARGS' ROOT: a config.json with its process.args (the first "args"; seccomp has others) replaced by a JSON
# list's inside, no terminal and an absolute root.
with_args() {
    awk -v args="$1" -v root="$2" '
        !done && /"args": \[/ { done = 1; sub(/\[.*/, "[" args "]"); held = $0; next }
        held != "" { if ($0 ~ /\]/) { print held ($0 ~ /,[ \t]*$/ ? "," : ""); held = "" }; next }
        { sub(/"terminal": true/, "\"terminal\": false"); sub(/"path": "rootfs"/, "\"path\": \"" root "\""); print }'
}

# What an engine on cgroup v2 writes instead of the recorded v1 config: a cgroup namespace, and no blockIO (empty
# in the recording), which crun takes as a wish for the io controller. $2 is the cgroupsPath.
as_engine_on() {
    awk -v view="$1" -v path="$2" '
        /"cgroupsPath":/ { sub(/"cgroupsPath": "[^"]*"/, "\"cgroupsPath\": \"" path "\"") }
        view == "v2" && /"blockIO": \{\}/ { sub(/,[ \t]*$/, "", line); sub(/"blockIO": \{\}/, ""); if ($0 ~ /,/) line = line ","; next }
        NR > 1 { print line }
        { line = $0 }
        view == "v2" && /"namespaces": \[/ { print line; line = "   {\"type\": \"cgroup\"}," }
        END { print line }'
}

# make_bundles DIR VIEW TAG: DIR/{spec,spec-sleep,docker,docker-sleep}. The default spec is what `spec` of a runtime
# writes; Docker's config is the recorded one. Docker's cgroup is /TAG/docker, whose parent stands as on a Docker host.
make_bundles() {
    dir=$1 view=$2 tag=$3
    mkdir -p "$dir/rootfs" "$dir/written"
    for d in bin dev proc sys etc tmp run; do mkdir -p "$dir/rootfs/$d"; done
    : >"$dir/rootfs/etc/resolv.conf" && : >"$dir/rootfs/etc/hostname" && : >"$dir/rootfs/etc/hosts"
    payload=${BUSYBOX:-$(command -v busybox || true)}
    if [ -n "$payload" ] && ! LC_ALL=C ldd "$payload" >/dev/null 2>&1; then payload_name='static busybox (glibc)'; else payload=$tools/payload payload_name='a static C program (glibc)'; fi
    for n in true sleep; do cp "$payload" "$dir/rootfs/bin/$n"; done
    for r in runc naru crun; do
        p=$(runtime_path $r)
        if [ -n "$p" ] && [ ! -e "$dir/written/config.json" ]; then (cd "$dir/written" && "$p" spec >/dev/null 2>&1) || :; fi
    done
    [ -e "$dir/written/config.json" ] || die "no runtime that can write the default spec"
    docker=${DOCKER_CONFIG_JSON:-$repo/runtime-tools-tests/configs/docker-default.json}
    for k in '' -sleep; do
        if [ -z "$k" ]; then args='"/bin/true"'; else args='"/bin/sleep", "1000"'; fi
        mkdir -p "$dir/spec$k" "$dir/docker$k/binds"
        with_args "$args" "$dir/rootfs" <"$dir/written/config.json" >"$dir/spec$k/config.json"
        [ -r "$docker" ] || continue
        for n in resolv.conf hostname hosts; do : >"$dir/docker$k/binds/$n"; done
        with_args "$args" "$dir/rootfs" <"$docker" | as_engine_on "$view" "/$tag/docker$k" >"$dir/docker$k/config.json"
    done
    [ -r "$docker" ] || say "no recorded Docker config at $docker: it is left out"
}

# parent_cgroups VIEW TAG: the parent of Docker's cgroup in each hierarchy, which stands there on a host with Docker.
parent_cgroups() {
    if [ "$1" = v2 ]; then mkdir "/sys/fs/cgroup/$2"; return; fi
    awk '$3 == "cgroup" && $2 ~ /^\/sys\/fs\/cgroup\// {print $2}' /proc/self/mounts | while read -r h; do mkdir "$h/$2"; done
}

# Directories of every cgroup hierarchy in view whose name holds TAG, deepest first.
cgroups_named() { find /sys/fs/cgroup -depth \( -fstype cgroup -o -fstype cgroup2 \) -type d -name "*$1*" 2>/dev/null || :; }

# Ends and removes what containers of this run are left: $1 the state directories' parent, $2 the tag.
clear_up() {
    for s in "$1"/*; do
        [ -d "$s" ] || continue
        r=$(runtime_path "$(basename "$s")")
        for c in "$s"/*"$2"*; do
            [ -d "$c" ] || continue
            "$r" --root "$s" delete -f "$(basename "$c")" >/dev/null 2>&1 || :
        done
    done
    # The parent made for Docker's config: its children were the runtimes' to remove.
    find /sys/fs/cgroup -depth -type d -path "*/$2" -exec rmdir {} + 2>/dev/null || :
}
