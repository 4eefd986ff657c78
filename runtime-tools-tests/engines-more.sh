# Part of engines.sh, which reads it: what engines do with several containers at a time, builds, and leaks.
# shellcheck shell=bash disable=SC2016,SC2034,SC2086,SC2154 # see engines.sh

# ---- more of Docker ------------------------------------------------------------------------------------------------

docker_restart() {
    docker run -d --name again --restart on-failure:2 "$@" busybox sh -c 'exit 4' >/dev/null || return
    wait_until 20 eval '[ "$(docker inspect -f "{{.RestartCount}} {{.State.Status}}" again)" = "2 exited" ]'
    docker inspect -f '{{.RestartCount}} restarts, {{.State.ExitCode}}' again
    docker rm -f again >/dev/null
}

docker_health() {
    docker run -d --name well --health-cmd 'test -e /tmp/well' --health-interval 300ms --health-retries 1 "$@" busybox sleep 1000 >/dev/null
    wait_until 10 eval 'docker inspect -f "{{.State.Health.Status}}" well | grep -x unhealthy' && echo unhealthy
    docker exec well touch /tmp/well
    wait_until 10 eval 'docker inspect -f "{{.State.Health.Status}}" well | grep -x healthy' && echo healthy
    docker rm -f well >/dev/null
}

docker_oom() {
    # Not at once: the shim begins to watch when the container has started. Nor with the container's end, for with that systemd
    # takes the cgroup away, often before the shim has read there what happened.
    docker run --name hungry --memory 24m --memory-swap 24m "$@" busybox sh -c 'sleep 1; tail /dev/zero; sleep 2; exit 137'
    # The event has a way of its own, and may come after that of the end.
    wait_until 5 eval 'docker inspect -f "{{.State.OOMKilled}}" hungry | grep true'
    docker inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' hungry
    docker rm -f hungry >/dev/null
}

docker_stats() {
    docker run -d --name measured --pids-limit 30 "$@" busybox sleep 1000 >/dev/null || return
    docker stats --no-stream --format '{{.Name}} {{.PIDs}}' measured
    docker rm -f measured >/dev/null
}

docker_shared() {
    docker run -d --name first --hostname box --ipc shareable "$@" busybox sh -c 'echo one >/dev/shm/word; exec sleep 1000' >/dev/null
    wait_until 5 docker exec first test -s /dev/shm/word
    docker run --rm --ipc container:first --network container:first --pid container:first busybox \
        sh -c 'echo "$(cat /dev/shm/word) $(hostname) $(tr "\0" " " </proc/1/cmdline)"'
    docker rm -f first >/dev/null
}

docker_host() {
    docker run --rm --network host --ipc host --pid host --uts host --cgroupns host busybox sh -c \
        'for kind in net ipc pid uts cgroup; do readlink /proc/self/ns/$kind; done' >/tmp/there
    for kind in net ipc pid uts cgroup; do readlink /proc/self/ns/$kind; done | diff - /tmp/there && echo the same
}

docker_propagation() {
    mkdir -p /tmp/propagation/sub
    mountpoint -q /tmp/propagation || mount --bind /tmp/propagation /tmp/propagation
    mount --make-shared /tmp/propagation
    docker run -d --name below --mount type=bind,src=/tmp/propagation,dst=/data,bind-propagation=rslave "$@" busybox sleep 1000 >/dev/null
    mount -t tmpfs -o size=64k new /tmp/propagation/sub
    docker exec below grep -c ' /data/sub ' /proc/mounts
    docker rm -f below >/dev/null
    umount /tmp/propagation/sub /tmp/propagation
}

docker_links() {
    docker network create pair >/dev/null || return
    docker run -d --name database --network pair busybox sh -c 'echo row >/tmp/table; httpd -f -p 5432 -h /tmp' >/dev/null || return
    docker run -d --name web --network pair busybox sh -c \
        'until wget -qO /tmp/page http://database:5432/table; do sleep 0.1; done; httpd -f -p 80 -h /tmp' >/dev/null || return
    wait_until 15 docker exec web test -s /tmp/page
    docker run --rm --network pair busybox sh -c 'until wget -qO - http://web/page; do sleep 0.1; done'
    docker rm -f web database >/dev/null
    docker network rm pair >/dev/null
}

# The builder of the daemon looks for a program called runc, so the tested one is that in the daemon's PATH.
docker_build() {
    mkdir -p /tmp/build
    printf 'FROM busybox\nRUN echo built by $(id -u) >/word && ls /proc/1/exe >/dev/null\nCMD cat /word\n' >/tmp/build/Dockerfile
    DOCKER_BUILDKIT=$1 docker build -q --network none -t built:"$1" /tmp/build >/dev/null || return
    shift
    docker run --rm "$@" built:"${BUILT:-1}"
}

docker_compose() {
    mkdir -p /tmp/project/words
    cat >/tmp/project/compose.yaml <<'YAML'
name: project
services:
  second:
    image: busybox
    command: sh -c "cat /words/first; echo second"
    volumes: [./words:/words]
    network_mode: none
    depends_on:
      first: {condition: service_healthy}
  first:
    image: busybox
    command: sh -c "echo first >/words/first; exec sleep 1000"
    volumes: [./words:/words]
    network_mode: none
    healthcheck: {test: test -s /words/first, interval: 300ms}
YAML
    docker compose -f /tmp/project/compose.yaml up --abort-on-container-exit --no-color 2>/dev/null | grep -o 'second-1.*'
    docker compose -f /tmp/project/compose.yaml down -t 1 >/dev/null 2>&1
}

docker_swarm() {
    docker swarm init --advertise-addr 127.0.0.1 >/dev/null || return
    docker service create --detach --name many --replicas 3 --stop-grace-period 1s busybox sleep 1000 >/dev/null &&
        wait_until 40 eval '[ "$(docker ps -q --filter status=running --filter name=many | wc -l)" = 3 ]' && echo three run
    docker service scale --detach many=1 >/dev/null
    wait_until 20 eval '[ "$(docker ps -q --filter status=running --filter name=many | wc -l)" = 1 ]' && echo one runs
    docker service rm many >/dev/null
    wait_until 20 eval '[ -z "$(docker ps -aq --filter name=many)" ]' && echo none runs
    docker swarm leave --force >/dev/null
}

# A daemon of its own, whose containers' root is user 100000 here.
docker_remapped() {
    local daemon remapped=(docker -H unix:///tmp/remapped.sock)
    : | tee /etc/subuid >/etc/subgid
    dockerd --userns-remap default --host unix:///tmp/remapped.sock --data-root /var/tmp/remapped --exec-root /run/remapped \
        --pidfile /run/remapped.pid --containerd /run/containerd/containerd.sock --add-runtime "tested=$runtime" \
        --default-runtime tested --cgroup-parent "$cgroup_parent" --exec-opt "native.cgroupdriver=$driver" \
        --bridge=none --iptables=false --ip6tables=false >/tmp/remapped.log 2>&1 &
    daemon=$!
    wait_until 30 "${remapped[@]}" version || tail -n 5 /tmp/remapped.log
    "${remapped[@]}" import /tmp/images/rootfs.tar busybox >/dev/null
    "${remapped[@]}" run -d --name mapped --network none busybox sleep 1000 >/dev/null
    "${remapped[@]}" exec mapped sh -c 'echo "root here: $(id -u) $(awk "{ print \$2 }" /proc/self/uid_map)"'
    echo "there: $(stat -c %u "/proc/$("${remapped[@]}" inspect -f '{{.State.Pid}}' mapped)")"
    "${remapped[@]}" rm -f mapped >/dev/null
    kill "$daemon"
    wait "$daemon" 2>/dev/null
}

# Not even to end. Which status the daemon makes of that depends on what it stumbles over.
docker_nothing() {
    echo '{"defaultAction": "SCMP_ACT_ERRNO"}' >/tmp/images/nothing.json
    timeout -s KILL $((20 * SLOW)) docker run --rm --security-opt seccomp=/tmp/images/nothing.json "$@" busybox true >/dev/null 2>&1
    [ $? = 137 ] || echo ended
}

# What exec makes would stay in the container.
docker_exec_nowhere() {
    docker run -d --name there "$@" busybox sleep 1000 >/dev/null || return
    docker exec -w /no/where there true
    echo "status $?"
    docker exec there sh -c 'test -e /no || echo nothing was made'
    docker rm -f there >/dev/null
}

test_docker_more() {
    local run=(docker run --rm) network=() reason
    if ! wait_until 1 docker version && ! start_docker; then
        failed=$((failed + 1))
        echo "not ok docker: dockerd does not start"
        return
    fi
    docker image inspect busybox >/dev/null 2>&1 || docker import /tmp/images/rootfs.tar busybox >/dev/null
    [ -z "${docker_network-}" ] || network=(--network none)
    run+=("${network[@]}")
    check "docker: --restart on-failure" 0 '^2 restarts, 4$' docker_restart "${network[@]}"
    check "docker: health check" 0 '^unhealthy healthy $' joined docker_health "${network[@]}"
    if has_controller memory; then
        check "docker: OOMKilled" 0 '^true 137$' docker_oom "${network[@]}"
    else
        skip "docker: OOMKilled" "no memory controller in this layout"
    fi
    if has_controller pids; then
        check "docker: stats with a pids limit" 0 '^measured 1$' docker_stats "${network[@]}"
    else
        skip "docker: stats with a pids limit" "no pids controller in this layout"
    fi
    check "docker: --device" 0 'crw.* 1, +5 .*/dev/nothing' "${run[@]}" --device /dev/zero:/dev/nothing:r busybox ls -l /dev/nothing
    check "docker: own seccomp profile" 1 'not permitted' "${run[@]}" --security-opt seccomp=/tmp/images/no-mkdir.json busybox mkdir /tmp/a
    check "docker: a seccomp profile that permits nothing" 0 '^ended$' docker_nothing "${network[@]}"
    check "docker: exec in a directory that is not there" 0 '/no/where.* status 127 nothing was made $' joined docker_exec_nowhere "${network[@]}"
    check "docker: namespaces of another container" 0 '^one box sh -c|^one box sleep 1000' docker_shared "${network[@]}"
    check "docker: namespaces of the host" 0 '^the same$' docker_host
    check "docker: bind with propagation" 0 '^1$' docker_propagation "${network[@]}"
    check "docker: build, classic" 0 '^built by 0$' env BUILT=0 bash -c 'docker_build "$@"' build 0 "${network[@]}"
    check "docker: build, BuildKit" 0 '^built by 0$' docker_build 1 "${network[@]}"
    check "docker: Compose with depends_on" 0 'second-1 .*first.*second-1 .*second' joined docker_compose
    if [ -n "${docker_network-}" ]; then
        skip "docker: two services on a network" "$docker_network"
        skip "docker: Swarm service with three replicas" "$docker_network"
    else
        check "docker: two services on a network" 0 '^row$' docker_links
        check "docker: Swarm service with three replicas" 0 '^three run one runs none runs $' joined docker_swarm
    fi
    # Last, because this daemon takes the other's bridge away.
    check "docker: userns-remap" 0 '^root here: 0 100000 there: 100000 $' joined docker_remapped
    check "docker: nothing is left of these either" 0 '^$' no_leftovers
    docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1
}

# ---- containerd's CRI plugin ----------------------------------------------------------------------------------------

# It has a containerd of its own, and prints the lines of its checks itself.
test_cri() {
    local line before=$failed
    if ! has_controller cpu; then
        skip "cri: all" "pods have cpu shares, and this layout has no cpu controller"
        return
    fi
    while IFS= read -r line; do
        case $line in
        "ok  "*) passed=$((passed + 1)) ;;
        "not ok "*) failed=$((failed + 1)) ;;
        "skip "*) skipped=$((skipped + 1)) ;;
        "status 0") continue ;;
        "status "*)
            [ $failed = "$before" ] || continue
            failed=$((failed + 1))
            line="not ok cri: the checks ended with $line"
            ;;
        esac
        printf '%s\n' "$line"
    done < <(
        PYTHONDONTWRITEBYTECODE=1 timeout -k 5 $(((600 + LEAKS * 6) * SLOW)) \
            python3 "$here/cri/main.py" "$runtime" "$CGROUP_PARENT" $driver "$LEAKS" 2>&1
        echo "status $?"
    )
    check "cri: nothing is left of them" 0 '^$' no_leftovers
}

# ---- more of Podman, buildah ---------------------------------------------------------------------------------------

# It counts the descriptors from 3, where nothing is.
podman_preserve() {
    podman_run --rm --network none --preserve-fd 5 "$image" sh -c 'cat <&5' 5<<<five
}

podman_update() {
    podman_run -d --name updated "$@" "$image" sleep 1000 >/dev/null || return
    podman_tested update --pids-limit 20 updated >/dev/null
    podman_tested exec updated sh -c 'cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max'
    podman_tested rm -f -t 0 updated >/dev/null
}

# No infra image is at hand, so that the namespaces are those of the first container.
podman_pod() {
    podman_run -d --name leader --network none --hostname box "$image" sleep 1000 >/dev/null || return
    podman_run --rm --name follower --network container:leader --ipc container:leader --pid container:leader --uts container:leader \
        "$image" sh -c '[ "$(hostname)" = box ] && grep -q sleep /proc/1/cmdline && echo yes'
    podman_tested rm -f -t 0 leader >/dev/null
}

podman_kube() {
    cat >/tmp/pod.yaml <<YAML
apiVersion: v1
kind: Pod
metadata: {name: played}
spec:
  hostNetwork: true
  restartPolicy: Never
  containers:
  - {name: speaker, image: $image, imagePullPolicy: Never, command: [sh, -c, 'echo from a pod; sleep 1000']}
YAML
    podman_tested kube play --log-driver k8s-file /tmp/pod.yaml >/dev/null || return
    wait_until 10 eval 'podman_tested logs played-speaker | grep "from a pod"'
    podman_tested logs played-speaker
    podman_tested kube down /tmp/pod.yaml >/dev/null
    podman_tested pod rm -af -t 0 >/dev/null 2>&1
}

# Its default is the highest that there is, which needs CAP_SYS_RESOURCE.
buildah_limits="--ulimit nofile=1000:1000 --ulimit nproc=1000:1000"

buildah_run() {
    local work
    work=$(buildah from --pull=never $buildah_limits "$image") || return
    buildah run --network none --runtime "$runtime" "$work" sh -c 'echo built by $(id -u)'
    buildah rm "$work" >/dev/null
}

buildah_build() {
    mkdir -p /tmp/buildah
    printf 'FROM %s\nRUN echo built by $(id -u) >/word\nCMD cat /word\n' "$image" >/tmp/buildah/Dockerfile
    buildah build -q --pull=never $buildah_limits --isolation oci --runtime "$runtime" --cgroup-parent "$cgroup_below" --network host \
        -t localhost/built:lab /tmp/buildah >/dev/null || return
    podman_run --rm "$@" localhost/built:lab
}

test_podman_more() {
    if ! has_controller pids; then
        skip "podman: more" "Podman writes a pids limit into every config, and this layout has no pids controller"
        return
    fi
    local network=(--network none)
    local run=(podman_run --rm "${network[@]}")
    podman_tested image exists "$image" || podman_tested load -i /tmp/images/archive.tar >/dev/null 2>&1
    check "podman: update" 0 '^20$' podman_update "${network[@]}"
    check "podman: run --preserve-fd" 0 '^five$' podman_preserve
    check "podman: a pod shares its namespaces" 0 '^yes$' podman_pod
    check "podman: kube play" 0 '^from a pod$' podman_kube
    check "podman: user namespace" 0 '^0 200000 1000$' "${run[@]}" --uidmap 0:200000:1000 --gidmap 0:200000:1000 "$image" \
        awk '{ print $1, $2, $3 }' /proc/self/uid_map
    check "buildah: run" 0 '^built by 0$' buildah_run
    check "buildah: build" 0 '^built by 0$' buildah_build "${network[@]}"
    check "podman: nothing is left of these either" 0 '^$' no_leftovers
    podman_tested rm -af -t 0 >/dev/null 2>&1
}

# ---- leaks ---------------------------------------------------------------------------------------------------------

# What must not grow: processes, mounts, cgroups, sockets, open files of the daemons, files of the runtime and anybody's
# files where such things are put.
count_everything() {
    local pid
    echo "processes $(pgrep -c .)"
    echo "mounts $(wc -l </proc/self/mountinfo)"
    echo "cgroups $(find /sys/fs/cgroup -type d '(' -fstype cgroup -o -fstype cgroup2 ')' -path "*$CGROUP_PARENT*" | wc -l)"
    echo "state $(find /run/docker/runtime-* /run/containerd/runc /run/naru /run/runc -mindepth 2 2>/dev/null | wc -l)"
    echo "files $(find /run /tmp /var/tmp /dev/shm -xdev 2>/dev/null | wc -l)"
    echo "sockets $(wc -l </proc/net/unix)"
    for pid in $(pgrep -x 'dockerd|containerd'); do
        echo "$(cat "/proc/$pid/comm") descriptors $(find "/proc/$pid/fd" | wc -l)"
    done
}

one_under_docker() {
    docker create --name "leak$1" --network none busybox sleep 1000 >/dev/null && docker start "leak$1" >/dev/null &&
        docker exec "leak$1" true && docker stop -t 0 "leak$1" >/dev/null && docker rm "leak$1" >/dev/null
}

one_under_containerd() {
    ctr_run -d "$image" "leak$1" sleep 1000 && ctr_task exec --exec-id "e$1" "leak$1" true && ctr_task kill -s KILL "leak$1" &&
        wait_until 10 eval "ctr_task ls | grep '^leak$1 ' | grep STOPPED" && ctr_task rm "leak$1" 2>/dev/null &&
        ctr -n "$CGROUP_PARENT" container rm "leak$1"
}

# The first few warm the daemons up; files and processes may be a few more or less at any moment.
leaks_under() {
    local i
    for ((i = 0; i < 3; i++)); do "one_under_$1" "w$i" || return; done
    no_leftovers
    sleep 1
    count_everything >/tmp/before
    for ((i = 0; i < ${LEAKS:-20}; i++)); do "one_under_$1" "$i" || return; done
    no_leftovers
    sleep 2
    count_everything >/tmp/after
    paste -d' ' /tmp/before /tmp/after | awk '{ if ($NF - $(NF / 2) > 8) print "grown: " $0 }'
    echo "$i under $1"
}

# Words of a runtime in trouble, in the daemons' logs since each was this long. A shim that ends may complain of its own
# watcher of v1's OOM events (`epoll wait`) or lose the end of its log, whichever the runtime.
runtime_errors() {
    { tail -c +"$1" /tmp/dockerd.log && tail -c +"$2" /tmp/containerd.log; } | grep -E 'level=(error|warning)' |
        grep -iE 'runc|naru|crun|OCI runtime|shim' | grep -vE 'cleanup warnings|cleaning up (after|dead) shim|exit status 137|deprecated|epoll wait|copy shim log' | head -n 5
}

test_leaks() {
    if ! wait_until 1 docker version && ! start_docker; then
        failed=$((failed + 1))
        echo "not ok leaks: dockerd does not start"
        return
    fi
    docker image inspect busybox >/dev/null 2>&1 || docker import /tmp/images/rootfs.tar busybox >/dev/null
    local from limit=$((60 + 6 * ${LEAKS:-20}))
    from=$(stat -c %s /tmp/dockerd.log /tmp/containerd.log)
    check "leaks: ${LEAKS:-20} containers under Docker leave nothing" 0 "^${LEAKS:-20} under docker\$" joined_is leaks_under docker
    if has_controller cpu; then
        ctr -n "$CGROUP_PARENT" images import /tmp/images/archive.tar >/dev/null
        check "leaks: ${LEAKS:-20} containers under containerd leave nothing" 0 "^${LEAKS:-20} under containerd\$" joined_is leaks_under containerd
    else
        skip "leaks: ${LEAKS:-20} containers under containerd leave nothing" "no cpu controller in this layout"
    fi
    check "leaks: no errors of the runtime in the daemons' logs" 0 '^$' runtime_errors $from
}

# Everything on one line, without the space at its end.
joined_is() {
    joined "$@" | sed 's/ $//'
}
