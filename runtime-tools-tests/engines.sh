#!/usr/bin/env bash
# Engine smoke test: do Docker, containerd and Podman work with the runtime under test?
#
#   RUNTIME=naru|runc|crun|/path LAB=/var/tmp/naru-lab CGROUP=v1|v2|uml LEAKS=N runtime-tools-tests/engines.sh [ENGINE..]
#
# ENGINE: docker, docker_more (restart policy, health, namespaces of others, builds, Compose, Swarm, userns-remap),
# containerd, cri (pods by containerd's CRI plugin, as Kubernetes asks for them), podman, podman_more (pods, user namespaces,
# buildah), podman_rootless, leaks (N containers, 20 by default, created, exec'd into, stopped and deleted under Docker and
# containerd). Default: all but podman_rootless.
# SLOW multiplies every deadline (default: 1, and 5 in User-mode Linux).
# DOCKER_OPTIONS is more for dockerd, such as --userns-remap=default.
# RUNTIME is a path on this machine or the name of a program in the lab (default: naru, the release binary of this
# repository). CGROUP is a view of this machine's cgroups (hack/enter-lab.sh), or `uml` for pure v2 with controllers in
# User-mode Linux (uml.sh), `uml-systemd` for the same with systemd as init and the systemd cgroup driver.
# Runs in a lab root (hack/lab.sh), with daemons of its own, as root. Prints a line a check (`ok`, `not ok`, `skip` with the
# reason) and closes with `N passed, N failed, N skipped`; exits 1 if any failed. Every process, mount and cgroup it makes is
# gone when it ends.
# shellcheck disable=SC2016 # single quotes keep what a container's shell, or wait_until's eval, expands
set -uo pipefail
set -o allexport # a check runs in a shell of its own, which gets these functions from the environment

here=$(dirname "$(realpath "$0")")
passed=0 failed=0 skipped=0
case ${CGROUP-} in uml*) : "${SLOW:=5}" ;; *) : "${SLOW:=1}" ;; esac
image=localhost/busybox:lab

# ---- a line a check ------------------------------------------------------------------------------------------------

# check TITLE STATUS REGEX CMD..: run CMD (a program or a function); it must end with STATUS, and its output (both
# streams) match REGEX.
check() {
    local title=$1 status=$2 regex=$3 output got
    shift 3
    output=$(timeout -k 5 $((${limit:-60} * SLOW)) bash -c '"$@"' check "$@" 2>&1 </dev/null | tr -d '\0')
    got=$?
    if [ "$got" = "$status" ] && grep -qE -- "$regex" <<<"$output"; then
        passed=$((passed + 1))
        echo "ok     $title"
    else
        failed=$((failed + 1))
        echo "not ok $title: status $got (wanted $status), output (wanted /$regex/):"
        head -n 12 <<<"$output" | sed 's/^/         /'
    fi
}

skip() {
    skipped=$((skipped + 1))
    echo "skip   $1: $2"
}

# The output on one line, for a regex over several steps.
joined() {
    "$@" | tr '\n' ' '
}

# wait_until SECONDS CMD..: poll until CMD succeeds.
wait_until() {
    local ends=$((SECONDS + $1 * SLOW))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $ends ] || return 1
        sleep 0.1
    done
}

# ---- outside the lab -----------------------------------------------------------------------------------------------

enter_lab() {
    local root=${LAB:-/var/tmp/naru-lab}/forky runtime=${RUNTIME:-naru} options=() naru=() reason=
    [ -d "$root" ] || reason="no lab root $root (hack/lab.sh makes it)"
    [ "$(id -u)" = 0 ] || reason="needs root"
    if [ -n "$reason" ]; then
        skip engines "$reason"
        echo "0 passed, 0 failed, 1 skipped"
        exit 0
    fi
    case $runtime in
    naru) runtime=$here/../target/x86_64-unknown-linux-musl/release/naru ;;
    esac
    case $runtime in
    */*)
        runtime=$(realpath -e "$runtime") || exit 1
        options+=(--bind "$runtime:/usr/local/bin/${runtime##*/}")
        [ "${runtime##*/}" != naru ] || naru=(--naru "$runtime") # else enter-lab.sh puts its own there
        runtime=/usr/local/bin/${runtime##*/}
        ;;
    esac
    # The name makes this run's cgroups its own: several runs share the machine's hierarchies.
    set -- env "RUNTIME=$runtime" "DOCKER_OPTIONS=${DOCKER_OPTIONS-}" "CGROUP_PARENT=naru-engines-$$" "LEAKS=${LEAKS:-20}" "SLOW=$SLOW" \
        "$here/engines.sh" --inside "$@"
    case ${CGROUP-} in
    uml | uml-systemd)
        [ "$CGROUP" = uml ] || options+=(--systemd)
        exec "$here/uml.sh" --root "$root" --timeout 7200 --memory 4G "${options[@]}" "$@"
        ;;
    *) exec "$here/../hack/enter-lab.sh" ${CGROUP:+--cgroup "$CGROUP"} "${naru[@]}" "${options[@]}" --bind "$here:$here" "$root" "$@" ;;
    esac
}

# ---- inside --------------------------------------------------------------------------------------------------------

# Where there is a systemd it manages the cgroups, of which it shows a container's as X.slice/PREFIX-ID.scope.
driver=cgroupfs cgroup_parent=/${CGROUP_PARENT-} cgroup_below=/${CGROUP_PARENT-}/build
if [ -d /run/systemd/system ]; then
    # shellcheck disable=SC2034 # engines-more.sh uses them
    driver=systemd cgroup_parent=${CGROUP_PARENT-}.slice cgroup_below=$cgroup_parent
fi

# Cgroup directories of this run, deepest first.
list_cgroups() {
    find /sys/fs/cgroup -depth -type d -path "*/$CGROUP_PARENT*" '(' -fstype cgroup -o -fstype cgroup2 ')' 2>/dev/null
}

# What a container may leave: cgroups below this run's parent, mounts, the runtime's state, shims and monitors.
list_leftovers() {
    # The engines' own stay: Podman's for its monitors, Docker's for its builder.
    list_cgroups | grep -E "/$CGROUP_PARENT(\.slice)?/" | grep -vE '/(conmon|buildkit)$'
    # Mounts that belong to a container: its root, its network namespace (`default` is the host's), its /dev/shm.
    awk '$5 ~ /\/(rootfs|merged|netns\/.*|shm)$/ && $5 !~ /^\/dev|^\/run\/docker\/netns\/default$/ { print "mount " $5 }' /proc/self/mountinfo
    # One directory a container in the root that each engine gives the runtime; Podman leaves it the runtime's default.
    find /run/docker/runtime-*/moby /run/containerd/runc/* /run/runc /run/crun /run/youki /run/naru \
        -mindepth 1 -maxdepth 1 -not -name '.*' 2>/dev/null
    pgrep -l 'containerd-shim|conmon'
    true
}

no_leftovers() {
    # Engines finish a container's removal after their client has gone.
    wait_until 10 eval '[ -z "$(list_leftovers)" ]'
    list_leftovers
}

# That list is worth nothing if it cannot see a living container: name the kinds it does see.
leftover_kinds() {
    list_leftovers | sed -E 's/^[0-9]+ .*/process/; s/^mount .*/mount/; s/^.sys.*/cgroup/; s/^.run.*/state/' | sort -u | joined cat
}

daemons=()
clean_up() {
    local pid path i
    for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
        kill "${daemons[i]}" 2>/dev/null
        wait_until 15 eval "! kill -0 ${daemons[i]}" || kill -KILL "${daemons[i]}"
    done
    list_cgroups | while read -r path; do
        while read -r pid; do kill -KILL "$pid"; done <"$path/cgroup.procs"
    done 2>/dev/null
    # A killed process leaves its cgroup a moment later.
    wait_until 5 eval 'list_cgroups | while read -r path; do rmdir "$path"; done; [ -z "$(list_cgroups)" ]' ||
        echo "engines: cgroups stay behind: $(list_cgroups | tr '\n' ' ')" >&2
    # Pods of `podman kube play` are in Podman's own parent, which keeps a directory of each in name=systemd of v1.
    find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' '(' -fstype cgroup -o -fstype cgroup2 ')' -exec rmdir {} ';' 2>/dev/null
}

# A busybox root file system, and an image of it in the archive format that all three engines load.
make_images() {
    local applet layer config
    mkdir -p /tmp/images/rootfs/{bin,etc,proc,sys,dev,tmp,root} /tmp/images/archive
    cp /usr/bin/busybox /tmp/images/rootfs/bin/
    for applet in $(busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "/tmp/images/rootfs/bin/$applet"
    done
    echo root:x:0:0:root:/root:/bin/sh >/tmp/images/rootfs/etc/passwd
    echo root:x:0: >/tmp/images/rootfs/etc/group
    tar -C /tmp/images/rootfs -cf /tmp/images/rootfs.tar .
    layer=$(sha256sum </tmp/images/rootfs.tar | cut -d' ' -f1)
    cp /tmp/images/rootfs.tar "/tmp/images/archive/$layer.tar"
    jq -n --arg layer "sha256:$layer" '{architecture: "amd64", os: "linux", config: {Cmd: ["/bin/sh"],
        Env: ["PATH=/bin"]}, rootfs: {type: "layers", diff_ids: [$layer]}}' >/tmp/images/config.json
    config=$(sha256sum </tmp/images/config.json | cut -d' ' -f1)
    cp /tmp/images/config.json "/tmp/images/archive/$config.json"
    jq -n --arg layer "$layer.tar" --arg config "$config.json" --arg image "$image" \
        '[{Config: $config, RepoTags: [$image], Layers: [$layer]}]' >/tmp/images/archive/manifest.json
    tar -C /tmp/images/archive -cf /tmp/images/archive.tar .
    jq -n '{defaultAction: "SCMP_ACT_ALLOW", syscalls: [{names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO"}]}' \
        >/tmp/images/no-mkdir.json
}

# Whether this layout can limit something: any v1 hierarchy of that name, or a v2 controller.
has_controller() {
    [ -d "/sys/fs/cgroup/$1" ] || grep -qsw "$1" /sys/fs/cgroup/cgroup.controllers
}

# Where a container sees its own memory limit.
memory_file() {
    if [ -d /sys/fs/cgroup/memory ]; then
        echo /sys/fs/cgroup/memory/memory.limit_in_bytes
    else
        echo /sys/fs/cgroup/memory.max
    fi
}

# continues BEFORE AFTER: did a container that counts ten times a second go on where it was?
counter='i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done'
continues() {
    local before=$1 after=$2
    if [ "$after" -gt "$before" ] && [ "$after" -lt $((before + 100)) ]; then
        echo "the count goes on"
    else
        echo "the count was $before and is $after"
    fi
}

# ---- Docker --------------------------------------------------------------------------------------------------------

start_docker() {
    local options=(--experimental --add-runtime "tested=$runtime" --default-runtime tested --cgroup-parent "$cgroup_parent"
        --exec-opt "native.cgroupdriver=$driver" --containerd /run/containerd/containerd.sock)
    docker_network=
    if ! iptables -t nat -N naru-probe >/dev/null 2>&1; then
        docker_network="iptables has no nat table here"
        options+=(--iptables=false --ip6tables=false --bridge=none)
    fi
    iptables -t nat -X naru-probe >/dev/null 2>&1
    # The daemon's own builder calls whatever is named runc.
    mkdir -p /tmp/named
    ln -sf "$runtime" /tmp/named/runc
    # shellcheck disable=SC2086 # words are meant
    PATH=/tmp/named:$PATH dockerd "${options[@]}" $DOCKER_OPTIONS >/tmp/dockerd.log 2>&1 &
    daemons+=($!)
    wait_until 30 docker version
}

docker_life() {
    docker run -d --name life "$@" busybox sh -c 'echo begun; trap "echo ended; exit 3" TERM; while :; do sleep 0.1; done' >/dev/null || return
    wait_until 10 eval 'docker logs life | grep begun' || return
    docker exec life sh -c 'echo "exec sees pid 1: $(tr "\0" " " </proc/1/cmdline)"'
    docker exec -u 1000:1000 -w /tmp -e A=b life sh -c 'echo "exec as $(id -u) in $(pwd) with $A"'
    echo "a living container shows: $(leftover_kinds)"
    docker exec life sh -c 'exit 9'
    echo "exec status $?"
    docker stop -t 10 life >/dev/null || return
    echo "log: $(docker logs life | tr '\n' ' ')"
    echo "stopped with $(docker inspect -f '{{.State.ExitCode}}' life)"
    docker rm life >/dev/null && echo removed
}

docker_kill() {
    docker run -d --name doomed "$@" busybox sleep 1000 >/dev/null && docker kill doomed >/dev/null && docker wait doomed
    docker rm -f doomed >/dev/null
}

docker_pause() {
    docker run -d --name paused "$@" busybox sleep 1000 >/dev/null && docker pause paused >/dev/null || return
    docker inspect -f '{{.State.Status}}' paused
    docker unpause paused >/dev/null && docker inspect -f '{{.State.Status}}' paused
    docker top paused | grep 'sleep 1000'
    docker rm -f paused >/dev/null
}

docker_update() {
    docker run -d --name updated --memory 64m "$@" busybox sleep 1000 >/dev/null || return
    docker update --memory 32m --memory-swap 32m updated >/dev/null
    docker exec updated cat "$(memory_file)"
    docker rm -f updated >/dev/null
}

# Docker 28 restores only containers without a network sandbox: it looks for that of pid 0.
docker_checkpoint() {
    local before
    docker run -d --name counter --network host busybox sh -c "$counter" >/dev/null || return
    wait_until 10 eval 'docker logs counter | grep -x 5' || return
    docker checkpoint create counter first || return
    echo "is $(docker inspect -f '{{.State.Status}}' counter)"
    before=$(docker logs --tail 1 counter)
    # Not before containerd has forgotten the same content of the first command.
    wait_until 10 docker start --checkpoint first counter || return
    sleep 1
    continues "$before" "$(docker logs --tail 1 counter)"
    docker exec counter echo exec works
    docker rm -f counter >/dev/null
}

docker_bridge() {
    local address
    docker run -d --name server busybox httpd -f -p 8080 -h /etc >/dev/null || return
    address=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' server)
    wait_until 10 busybox wget -qO /dev/null "http://$address:8080/passwd"
    busybox wget -qO - "http://$address:8080/passwd" | sed 's/^/from the host: /'
    docker run --rm busybox wget -qO - "http://$address:8080/passwd" | sed 's/^/from a container: /'
    docker rm -f server >/dev/null
}

test_docker() {
    if ! start_docker; then
        failed=$((failed + 1))
        echo "not ok docker: dockerd does not start:"
        tail -n 12 /tmp/dockerd.log | sed 's/^/         /'
        return
    fi
    local run=(docker run --rm) network=()
    check "docker: import an image" 0 '^sha256:' docker import /tmp/images/rootfs.tar busybox
    check "docker: uses the runtime under test" 0 "^tested $runtime\$" docker info -f \
        '{{.DefaultRuntime}} {{(index .Runtimes "tested").Path}}'
    check "docker: run prints the output" 0 '^hello from 1$' "${run[@]}" --network none busybox sh -c 'echo hello from $$'
    if [ -n "$docker_network" ]; then
        network=(--network none)
        run+=("${network[@]}")
        skip "docker: bridge network" "$docker_network"
    else
        check "docker: bridge network, from the host and from a container" 0 '^from the host: root.* from a container: root' \
            joined docker_bridge
    fi
    check "docker: run carries the status" 7 '' "${run[@]}" busybox sh -c 'exit 7'
    check "docker: run of no executable is 126" 126 'ermission denied' "${run[@]}" busybox /etc/passwd
    check "docker: run of no file is 127" 127 'no such file|not found' "${run[@]}" busybox /no/such/file
    check "docker: run of no command in PATH is 127" 127 'not found' "${run[@]}" busybox no-such-command
    check "docker: kill is 137" 0 '^137$' docker_kill "${network[@]}"
    check "docker: run -it has a terminal" 0 'a terminal of 33 99' script -qec \
        "stty rows 33 cols 99; ${run[*]} -it busybox sh -c 'test -t 0 && until stty size 2>&- | grep -q 33; do sleep 0.1; done; echo a terminal of \$(stty size)'" /dev/null
    check "docker: default seccomp profile is active" 0 '^Seccomp:[[:space:]]*2$' "${run[@]}" busybox grep Seccomp: /proc/self/status
    check "docker: default capabilities" 0 '^CapEff:[[:space:]]*00000000a80425fb$' "${run[@]}" busybox grep CapEff /proc/self/status
    check "docker: --cap-drop, --user, no-new-privileges" 0 '^1000 0000000000000000 1$' "${run[@]}" --cap-drop ALL --user 1000 \
        --security-opt no-new-privileges busybox sh -c 'echo $(id -u) $(awk "/CapBnd|NoNewPrivs/ { print \$2 }" /proc/self/status)'
    check "docker: --read-only, --tmpfs, -v" 0 '^no-root no-volume$' "${run[@]}" --read-only --tmpfs /tmp -v /tmp/images:/images:ro busybox \
        sh -c 'touch /tmp/a && test -f /images/rootfs.tar && echo $(touch /b 2>&- || echo no-root) $(touch /images/b 2>&- || echo no-volume)'
    check "docker: --privileged" 0 '^Seccomp:[[:space:]]*0$' "${run[@]}" --privileged --userns host busybox grep Seccomp: /proc/self/status
    check "docker: --hostname, --ulimit, --sysctl, --shm-size" 0 '^box 100 60 size=1024k$' "${run[@]}" --hostname box \
        --ulimit nofile=100:100 --sysctl net.ipv4.ip_unprivileged_port_start=60 --shm-size 1m busybox sh -c \
        'echo $(hostname) $(ulimit -n) $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start) $(grep " /dev/shm " /proc/mounts | grep -o size=[0-9a-z]*)'
    if has_controller memory; then
        check "docker: --memory shows inside" 0 '^67108864$' "${run[@]}" --memory 64m busybox cat "$(memory_file)"
        check "docker: update --memory shows inside" 0 '^33554432$' docker_update "${network[@]}"
    else
        skip "docker: --memory shows inside" "no memory controller in this layout"
        skip "docker: update --memory shows inside" "no memory controller in this layout"
    fi
    check "docker: pause, unpause, top" 0 '^paused running .*sleep 1000' joined docker_pause "${network[@]}"
    check "docker: run -d, exec, logs, stop, rm" 0 \
        '^exec sees pid 1: sh -c.* exec as 1000 in /tmp with b a living container shows: cgroup mount process (state )? exec status 9 log: begun ended  stopped with 3 removed $' \
        joined docker_life "${network[@]}"
    if criu check >/dev/null 2>&1; then
        check "docker: checkpoint, start --checkpoint" 0 'first is exited the count goes on exec works' joined docker_checkpoint
    else
        skip "docker: checkpoint, start --checkpoint" "no CRIU that works here"
    fi
    check "docker: no container stays" 0 '^$' docker ps -aq
    check "docker: nothing is left of them" 0 '^$' no_leftovers
    docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1 # what failed must not fail the other engines too
}

# ---- containerd ----------------------------------------------------------------------------------------------------

start_containerd() {
    containerd >/tmp/containerd.log 2>&1 &
    daemons+=($!)
    wait_until 30 ctr version
}

# The namespace is also the cgroup parent of what `ctr run` makes, except for systemd.
ctr_run() {
    local options=()
    [ $driver = cgroupfs ] || options=(--runc-systemd-cgroup --cgroup "$cgroup_parent:ctr:$RANDOM$RANDOM")
    ctr -n "$CGROUP_PARENT" run --runc-binary "$runtime" "${options[@]}" "$@"
}

ctr_task() {
    ctr -n "$CGROUP_PARENT" task "$@"
}

ctr_status() {
    ctr_task ls | awk '/^life/ { print $3 }'
}

ctr_life() {
    ctr_run -d "$image" life sleep 1000 || return
    ctr_status
    ctr_task exec --exec-id one life echo from exec
    echo "a living container shows: $(leftover_kinds)"
    ctr_task exec --exec-id two life sh -c 'exit 9'
    echo "exec status $?"
    ctr_task pause life && ctr_status && ctr_task resume life
    ctr_task ps life | awk 'NR == 2 { print "ps sees a process: " ($1 > 0) }'
    ctr_task kill -s KILL life
    wait_until 10 eval 'ctr_status | grep STOPPED'
    ctr_task rm life 2>/dev/null # it warns of the status 137
    echo "rm status $?"
    ctr -n "$CGROUP_PARENT" container rm life && echo removed
}

# What counts writes to a file: ctr keeps no logs.
ctr_checkpoint() {
    local count="while :; do i=\$((i+1)); echo \$i >/count; sleep 0.1; done" before
    ctr_run -d "$image" counter sh -c "i=0; $count" || return
    ctr_last() { ctr_task exec --exec-id "$RANDOM" "$1" cat /count; }
    wait_until 10 eval '[ "$(ctr_last counter)" -ge 5 ]' || return
    ctr -n "$CGROUP_PARENT" container checkpoint --rw --task counter localhost/saved:lab || return
    before=$(ctr_last counter)
    ctr_task kill -s KILL counter
    wait_until 10 eval 'ctr_task ls | grep STOPPED'
    ctr_task rm counter 2>/dev/null
    ctr -n "$CGROUP_PARENT" container rm counter
    ctr -n "$CGROUP_PARENT" container restore --rw --live counter localhost/saved:lab || return
    sleep 1
    continues "$before" "$(ctr_last counter)"
    ctr_task kill -s KILL counter
    wait_until 10 eval 'ctr_task ls | grep STOPPED'
    ctr_task rm counter 2>/dev/null
    ctr -n "$CGROUP_PARENT" container rm counter && echo removed
}

test_containerd() {
    if ! has_controller cpu; then
        skip "containerd: all" "ctr gives every container cpu shares, and this layout has no cpu controller"
        return
    fi
    check "containerd: import an image" 0 "$image" ctr -n "$CGROUP_PARENT" images import /tmp/images/archive.tar
    check "containerd: run prints the output" 0 '^hello from 1$' ctr_run --rm "$image" c1 sh -c 'echo hello from $$'
    check "containerd: run carries the status" 7 '' ctr_run --rm "$image" c2 sh -c 'exit 7'
    check "containerd: run of no file fails" 1 'no such file|not found' ctr_run --rm "$image" c3 /no/such/file
    check "containerd: run -t has a terminal" 0 'a terminal of 33 99' env SHELL=/bin/bash script -qec \
        "stty rows 33 cols 99; ctr_run --rm -t $image c4 sh -c 'test -t 0 && until stty size 2>&- | grep -q 33; do sleep 0.1; done; echo a terminal of \$(stty size)'" /dev/null
    check "containerd: --seccomp is active" 0 '^Seccomp:[[:space:]]*2$' ctr_run --rm --seccomp "$image" c5 grep Seccomp: /proc/self/status
    check "containerd: run -d, task exec, pause, resume, ps, kill, rm" 0 \
        '^RUNNING from exec a living container shows: cgroup mount process state  exec status 9 PAUSED ps sees a process: 1 rm status 0 removed $' joined ctr_life
    if criu check >/dev/null 2>&1; then
        check "containerd: container checkpoint, restore" 0 'the count goes on removed $' joined ctr_checkpoint
    else
        skip "containerd: container checkpoint, restore" "no CRIU that works here"
    fi
    check "containerd: no container stays" 0 '^$' ctr -n "$CGROUP_PARENT" containers ls -q
    check "containerd: nothing is left of them" 0 '^$' no_leftovers
}

# ---- Podman --------------------------------------------------------------------------------------------------------

podman_tested() {
    podman --runtime "$runtime" --cgroup-manager $driver --log-level error "$@"
}

podman_run() {
    podman_tested run --log-driver k8s-file --cgroup-parent "$cgroup_parent" "$@"
}

podman_life() {
    podman_run -d --name life "$@" "$image" sh -c 'echo begun; trap "echo ended; exit 3" TERM; while :; do sleep 0.1; done' >/dev/null || return
    wait_until 10 eval 'podman_tested logs life | grep begun' || return
    podman_tested exec life sh -c 'echo "exec sees pid 1: $(tr "\0" " " </proc/1/cmdline)"'
    echo "a living container shows: $(leftover_kinds)"
    podman_tested exec life sh -c 'exit 9'
    echo "exec status $?"
    podman_tested pause life >/dev/null && podman_tested inspect -f '{{.State.Status}}' life && podman_tested unpause life >/dev/null
    podman_tested stop -t 10 life >/dev/null || return
    echo "log: $(podman_tested logs life | tr '\n' ' ')"
    echo "stopped with $(podman_tested inspect -f '{{.State.ExitCode}}' life)"
    podman_tested rm life >/dev/null && echo removed
}

podman_kill() {
    podman_run -d --name doomed "$@" "$image" sleep 1000 >/dev/null && podman_tested kill doomed >/dev/null && podman_tested wait doomed
    podman_tested rm -f doomed >/dev/null
}

podman_checkpoint() {
    local before
    podman_run -d --name counter "$@" "$image" sh -c "$counter" >/dev/null || return
    wait_until 10 eval 'podman_tested logs counter | grep -x 5' || return
    podman_tested container checkpoint counter || return
    echo "is $(podman_tested inspect -f '{{.State.Status}}' counter)"
    before=$(podman_tested logs --tail 1 counter | tail -n 1) # it may be two, when one is being written
    podman_tested container restore counter || return
    sleep 1
    continues "$before" "$(podman_tested logs --tail 1 counter | tail -n 1)"
    podman_tested exec counter echo exec works
    podman_tested rm -f -t 0 counter >/dev/null
}

test_podman() {
    if ! has_controller pids; then
        skip "podman: all" "Podman writes a pids limit into every config, and this layout has no pids controller"
        return
    fi
    check "podman: load an image" 0 "$image" podman_tested load -i /tmp/images/archive.tar
    check "podman: import an image" 0 '[0-9a-f]{64}' podman_tested import /tmp/images/rootfs.tar localhost/imported:lab
    check "podman: uses the runtime under test" 0 "^$runtime\$" podman_tested info -f '{{.Host.OCIRuntime.Path}}'
    check "podman: run prints the output" 0 '^hello from 1$' podman_run --rm --network none "$image" sh -c 'echo hello from $$'
    local network=(--network none) reason
    # An engine that cannot build its bridge fails before it calls the runtime.
    if reason=$(podman_run --rm --network bridge "$image" true 2>&1 </dev/null); then
        network=(--network bridge)
        check "podman: bridge network" 0 'eth0.* inet ' joined podman_run --rm --network bridge "$image" ip addr show eth0
    else
        skip "podman: bridge network" "$(tail -n 1 <<<"$reason")"
    fi
    local run=(podman_run --rm "${network[@]}")
    check "podman: run carries the status" 7 '' "${run[@]}" "$image" sh -c 'exit 7'
    check "podman: run of no executable is 126" 126 'ermission denied' "${run[@]}" "$image" /etc/passwd
    check "podman: run of no file is 127" 127 'no such file|not found' "${run[@]}" "$image" /no/such/file
    check "podman: kill is 137" 0 '^137$' podman_kill "${network[@]}"
    check "podman: run -it has a terminal" 0 'a terminal of 33 99' env SHELL=/bin/bash script -qec \
        "stty rows 33 cols 99; podman_run --rm ${network[*]} -it $image sh -c 'test -t 0 && until stty size 2>&- | grep -q 33; do sleep 0.1; done; echo a terminal of \$(stty size)'" /dev/null
    check "podman: default seccomp profile is active" 0 '^Seccomp:[[:space:]]*2$' "${run[@]}" "$image" grep Seccomp: /proc/self/status
    if has_controller memory; then
        check "podman: --memory shows inside" 0 '^67108864$' "${run[@]}" --memory 64m "$image" cat "$(memory_file)"
    else
        skip "podman: --memory shows inside" "no memory controller in this layout"
    fi
    check "podman: run -d, exec, pause, logs, stop, rm" 0 \
        '^exec sees pid 1: sh -c.* a living container shows: cgroup mount process state  exec status 9 paused log: begun ended  stopped with 3 removed $' joined podman_life "${network[@]}"
    if criu check >/dev/null 2>&1; then
        check "podman: container checkpoint, restore" 0 'counter is exited counter the count goes on exec works' joined podman_checkpoint "${network[@]}"
    else
        skip "podman: container checkpoint, restore" "no CRIU that works here"
    fi
    check "podman: no container stays" 0 '^$' podman_tested ps -aq
    check "podman: nothing is left of them" 0 '^$' no_leftovers
    podman_tested rm -af >/dev/null 2>&1
}

# ---- Podman as an ordinary user ------------------------------------------------------------------------------------

# As a user with 65536 granted ids, of whom the lab knows nothing before.
ordinary() {
    (cd /home/ordinary && setpriv --reuid ordinary --regid ordinary --init-groups --inh-caps=-all env -i PATH="$PATH" \
        HOME=/home/ordinary XDG_RUNTIME_DIR=/run/user/5000 PODMAN_IGNORE_CGROUPSV1_WARNING=1 \
        podman --storage-driver vfs --cgroup-manager cgroupfs --runtime "$runtime" "$@")
}

ordinary_run() {
    ordinary run --rm --log-driver k8s-file --network none "$@"
}

ordinary_life() {
    ordinary run -d --log-driver k8s-file --network none --name life "$image" sh -c 'echo begun; sleep 1000' >/dev/null || return
    ordinary exec life sh -c 'echo "exec as $(id -u) sees pid 1: $(tr "\0" " " </proc/1/cmdline)"'
    ordinary exec life sh -c 'exit 9'
    echo "exec status $?"
    ordinary kill life >/dev/null && ordinary wait life
    ordinary rm life >/dev/null && echo removed
}

ordinary_joined() {
    ordinary run -d --log-driver k8s-file --network none --name first "$image" sleep 1000 >/dev/null || return
    ordinary_run --pid container:first "$image" sh -c 'tr "\0" " " </proc/1/cmdline'
    ordinary rm -f -t 0 first >/dev/null
}

test_podman_rootless() {
    useradd --create-home --uid 5000 --add-subids-for-system ordinary 2>/dev/null || useradd --create-home --uid 5000 ordinary
    grep -q ordinary /etc/subuid || echo ordinary:500000:65536 | tee -a /etc/subuid >>/etc/subgid
    install -d -o ordinary -m 0700 /run/user/5000
    check "podman rootless: load an image" 0 "$image" ordinary load -i /tmp/images/archive.tar
    check "podman rootless: run" 0 '^hello from 1 as 0$' ordinary_run "$image" sh -c 'echo hello from $$ as $(id -u)'
    check "podman rootless: run carries the status" 7 '' ordinary_run "$image" sh -c 'exit 7'
    check "podman rootless: maps" 0 '^0 5000 1 1 [0-9]+ 65536 $' joined ordinary_run "$image" sh -c 'echo $(cat /proc/self/uid_map)'
    check "podman rootless: --userns=keep-id" 0 '^5000$' ordinary_run --userns keep-id "$image" id -u
    check "podman rootless: --userns=auto" 0 '^0 1 1000$' ordinary_run --userns auto:size=1000 "$image" sh -c 'echo $(cat /proc/self/uid_map)'
    check "podman rootless: --user, --group-add" 0 '^5 6 7' ordinary_run --user 5:6 --group-add 7 "$image" sh -c 'echo $(id -u) $(id -G)'
    check "podman rootless: --pid=host" 0 '^fine$' ordinary_run --pid host "$image" echo fine
    # On v1 it mounts over /sys/fs/cgroup/systemd, which has to be there though the container has no cgroup.
    check "podman rootless: --systemd=always" 0 '^podman$' ordinary_run --systemd always "$image" sh -c 'echo $container'
    check "podman rootless: --pid=container:" 0 '^sleep 1000 ' ordinary_joined
    check "podman rootless: --network=host" 0 '^fine$' ordinary run --rm --log-driver k8s-file --network host "$image" echo fine
    check "podman rootless: --privileged" 0 '^Seccomp:[[:space:]]*0$' ordinary_run --privileged "$image" grep Seccomp: /proc/self/status
    check "podman rootless: --read-only, --tmpfs, -v" 0 '^no-root no-volume$' ordinary_run --read-only --tmpfs /x -v /tmp/images:/images:ro "$image" \
        sh -c 'touch /x/a && test -f /images/rootfs.tar && echo $(touch /b 2>&- || echo no-root) $(touch /images/b 2>&- || echo no-volume)'
    check "podman rootless: run -t has a terminal" 0 'a terminal' script -qec "$(declare -f ordinary ordinary_run); ordinary_run -t $image sh -c 'test -t 0 && echo a terminal'" /dev/null
    check "podman rootless: run -d, exec, kill, rm" 0 '^exec as 0 sees pid 1: s[hl].* exec status 9 137 removed $' joined ordinary_life
    check "podman rootless: no container stays" 0 '^$' ordinary ps -aq
}

# --------------------------------------------------------------------------------------------------------------------

[ "${1-}" = --inside ] || enter_lab "$@"
# shellcheck source=runtime-tools-tests/engines-more.sh
. "$here/engines-more.sh"
shift
[ $# -gt 0 ] || set -- docker docker_more containerd cri podman podman_more leaks
runtime=$(command -v "$RUNTIME") || {
    echo "engines: no $RUNTIME in the lab" >&2
    exit 1
}
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
trap clean_up EXIT
echo "# $("$runtime" --version | head -n 1), $(stat -f -c %T /sys/fs/cgroup) at /sys/fs/cgroup"
make_images
# Else CRIU walks all cgroups of those hierarchies in whose root a container is, those of others included.
mkdir -p /etc/criu && echo manage-cgroups=ignore | tee /etc/criu/runc.conf >/etc/criu/crun.conf
if ! start_containerd; then
    echo "not ok containerd does not start:"
    tail -n 12 /tmp/containerd.log
    exit 1
fi
for engine; do
    "test_$engine"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
