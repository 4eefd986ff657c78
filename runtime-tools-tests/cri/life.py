# Checks of pods and of the life of containers under containerd's CRI plugin: what is created, started, exec'd into, stopped
# and removed, and what of it is told. Its functions are run by main.py.
import json
import os
import subprocess

from client import Failed
from pods import *  # the words of a check

# ---- pods -----------------------------------------------------------------------------------------------------------


@check("features of the runtime: recursive read-only mounts, user namespaces")
def _():
    status = cri.Status()
    expect({c["type"]: c["status"] for c in status["status"]["conditions"]}["RuntimeReady"], True)
    for handler in status["runtime_handlers"]:
        if handler["name"] == "runc":
            expect(handler["features"], {"recursive_read_only_mounts": True, "user_namespaces": True})
            return
    raise AssertionError(status)


@check("pod: run, status, stop, stop again, remove, remove again")
def _():
    with Pod() as pod:
        expect(cri.PodSandboxStatus(pod_sandbox_id=pod.id)["status"]["state"], READY)
        cri.StopPodSandbox(pod_sandbox_id=pod.id)
        expect(cri.PodSandboxStatus(pod_sandbox_id=pod.id)["status"]["state"], NOT_READY)
        cri.StopPodSandbox(pod_sandbox_id=pod.id)
        cri.RemovePodSandbox(pod_sandbox_id=pod.id)
        refused(cri.PodSandboxStatus, "NOT_FOUND", pod_sandbox_id=pod.id)


@check("pod: network of its own, with an address that the host reaches", pod_network)
def _():
    with Pod(hostname="box") as pod:
        address = cri.PodSandboxStatus(pod_sandbox_id=pod.id)["status"]["network"]["ip"]
        container = pod.start("echo page >/tmp/index.html; exec httpd -f -p 8080 -h /tmp")
        expect_in(f"inet {address}/", execute(container, "ip addr"))
        got = until(lambda: subprocess.run(["busybox", "wget", "-qO", "-", f"http://{address}:8080/"], capture_output=True).stdout)
        expect(got, b"page\n")
        expect(execute(container, "hostname"), "box")


@check("pod: sysctls, dns, hostname", pod_network)
def _():
    sysctls = {"net.ipv4.ip_unprivileged_port_start": "60", "kernel.shm_rmid_forced": "1"}
    dns = {"servers": ["192.0.2.1"], "searches": ["lab.test"], "options": ["ndots:3"]}
    with Pod(hostname="box", dns_config=dns, linux={"sysctls": sysctls}) as pod:
        got = pod.run("hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced /etc/resolv.conf")
        expect(got.split("\n")[:3], ["box", "60", "1"])
        expect_in("nameserver 192.0.2.1", got)
        expect_in("search lab.test", got)


@check("pod: cgroup parent")
def _():
    with Pod() as pod:
        container = pod.start()
        for line in read(f"/proc/{pid_of(container)}/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            # Lines of hierarchies that are not mounted here say nothing.
            if V2 or any(name and controller(name)() is None for name in controllers.split(",")):
                expect_in(PARENT, path)


@check("pod: stop ends its containers")
def _():
    with Pod() as pod:
        container = pod.start()
        cri.StopPodSandbox(pod_sandbox_id=pod.id)
        expect(state(container)["state"], EXITED)
        expect(state(container)["exit_code"], 137)


@check("pod: ten containers at a time")
def _():
    with Pod() as pod:
        containers = [pod.create(f"echo {i}; exit {i}") for i in range(10)]
        for container in containers:
            cri.StartContainer(container_id=container)
        expect([pod.ended(container)["exit_code"] for container in containers], list(range(10)))
        for i, container in enumerate(containers):
            pod.expect_output(container, str(i))


# ---- life of a container --------------------------------------------------------------------------------------------


@check("container: created, running, exited; logs of both streams; exit codes and reasons")
def _():
    with Pod() as pod:
        container = pod.create("echo out; echo err >&2; sleep 0.5; exit 3")
        expect(state(container)["state"], CREATED)
        cri.StartContainer(container_id=container)
        expect(state(container)["state"], RUNNING)
        ended = pod.ended(container)
        expect((ended["exit_code"], ended["reason"]), (3, "Error"))
        pod.expect_output(container, "out", ("stdout",))
        pod.expect_output(container, "err", ("stderr",))
        ended = pod.ended(pod.start("true"))
        expect((ended["exit_code"], ended["reason"]), (0, "Completed"))
        cri.RemoveContainer(container_id=container)
        refused(cri.ContainerStatus, "NOT_FOUND", container_id=container)


@check("container: a created one is removed without a start")
def _():
    with Pod() as pod:
        container = pod.create("true")
        cri.RemoveContainer(container_id=container)
        expect([c for c in cri.ListContainers()["containers"] if c["id"] == container], [])


@check("container: remove of a running one ends it")
def _():
    with Pod() as pod:
        container = pod.start()
        pid = pid_of(container)
        cri.RemoveContainer(container_id=container)
        until(lambda: not os.path.exists(f"/proc/{pid}"), 5, "the process's end")


@check("container: a program that does not exist, is not executable, is not in PATH")
def _():
    with Pod() as pod:
        for command, words in (
            ("/no/such/file", ("no such file",)),
            ("/etc/passwd", ("permission denied",)),
            ("no-such-command", ("not found",)),
        ):
            container = pod.create([command])
            refused(cri.StartContainer, command, *words, container_id=container)
            ended = state(container)
            expect((ended["state"], ended["reason"]), (EXITED, "StartError"))
            expect_in(words[0], ended["message"])


@check("container: a working directory that is no directory")
def _():
    with Pod() as pod:
        container = pod.create("true", working_dir="/etc/passwd")
        refused(cri.StartContainer, "not a directory", container_id=container)


@check("container: stop with a grace period, and without")
def _():
    with Pod() as pod:
        polite, stubborn = pod.start('trap "exit 4" TERM; echo set; while :; do sleep 0.1; done'), pod.start()
        until(lambda: pod.output(polite))
        cri.StopContainer(container_id=polite, timeout=20)
        expect(state(polite)["exit_code"], 4)
        cri.StopContainer(container_id=stubborn, timeout=0)
        expect(state(stubborn)["exit_code"], 137)


@check("container: environment, working directory, user, groups")
def _():
    with Pod() as pod:
        got = pod.run(
            "echo $A $(pwd) $(id -u) $(id -g) $(id -G)",
            envs=[{"key": "A", "value": "b c"}],
            working_dir="/tmp",
            security={"run_as_user": {"value": 1000}, "run_as_group": {"value": 1001}, "supplemental_groups": [7, 8]},
        )
        expect(got, "b c /tmp 1000 1001 1001 7 8")
        expect(pod.run("id -u", security={"run_as_username": "root"}), "0")


@check("container: killed for want of memory", controller("memory"))
def _():
    with Pod() as pod:
        # Its end comes later: with that systemd takes the cgroup away, often before the shim has read there what happened.
        container = pod.start("sleep 1; tail /dev/zero; sleep 2; exit 137", resources={"memory_limit_in_bytes": 24 << 20, "memory_swap_limit_in_bytes": 24 << 20})
        ended = pod.ended(container)
        expect((ended["exit_code"], ended["reason"]), (137, "OOMKilled"))


@check("container: terminal and standard input, by attach")
def _():
    with Pod() as pod:
        container = pod.start('stty size; read word; echo "read $word from $(tty)"', tty=True, stdin=True)
        url = cri.Attach(container_id=container, stdin=True, tty=True, stdout=True)["url"]
        got = stream(url, b"something\n")
        expect(pod.ended(container)["exit_code"], 0)
        until(lambda: "read something from /dev/" in pod.output(container), 10, "the log")
        expect_in("read something", got.get(1, ""))


@check("container: survives a restart of containerd")
def _():
    with Pod() as pod:
        container = pod.start('trap "exit 6" TERM; while :; do sleep 0.1; done')
        pid = pid_of(container)
        stop_daemon()
        start_daemon()
        expect(state(container)["state"], RUNNING)
        expect(pid_of(container), pid)
        expect(execute(container, "echo still"), "still")
        cri.StopContainer(container_id=container, timeout=20)
        expect(state(container)["exit_code"], 6)


@check("container: checkpoint", criu)
def _():
    with Pod() as pod:
        # A sleep that CRIU has interrupted ends early, hence many.
        container = pod.start("while :; do sleep 0.1; done")
        cri.CheckpointContainer(container_id=container, location="/tmp/cri-checkpoint.tar")
        listed = subprocess.run(["tar", "-tf", "/tmp/cri-checkpoint.tar"], capture_output=True, text=True).stdout
        expect_in("checkpoint/pstree.img", listed)
        expect(execute(container, "echo on"), "on")


# ---- exec -----------------------------------------------------------------------------------------------------------


@check("exec: output, status, environment, both streams")
def _():
    with Pod() as pod:
        container = pod.start(envs=[{"key": "A", "value": "b"}], working_dir="/tmp")
        answer = cri.ExecSync(container_id=container, cmd=["sh", "-c", "echo $A $(pwd); echo err >&2; exit 9"])
        expect((answer["stdout"], answer["stderr"], answer["exit_code"]), ("b /tmp\n", "err\n", 9))
        expect(execute(container, "seq 1 20000 | wc -l"), "20000")
        expect(len(execute(container, ["seq", "1", "20000"]).split()), 20000)


@check("exec: of no file")
def _():
    with Pod() as pod:
        refused(cri.ExecSync, "no such file", container_id=pod.start(), cmd=["/no/such/file"])


@check("exec: a deadline ends the process")
def _():
    with Pod() as pod:
        container = pod.start()
        refused(cri.ExecSync, "DEADLINE_EXCEEDED", container_id=container, cmd=["sleep", "987"], timeout=1)
        expect(execute(container, "ps -o args | grep -c '^sleep 987' || true"), "0")


@check("exec: streams, and its status")
def _():
    with Pod() as pod:
        container = pod.start()
        url = cri.Exec(container_id=container, cmd=["sh", "-c", "echo out; echo err >&2; exit 3"], stdout=True, stderr=True)["url"]
        got = stream(url)
        expect((got[1], got[2]), ("out\n", "err\n"))
        expect_in('"message":"3"', got[3].replace(" ", ""))


@check("exec: a terminal, its size and input")
def _():
    with Pod() as pod:
        command = ["sh", "-c", 'read word; until stty size | grep -q 33; do sleep 0.1; done 2>&-; echo "$word in $(stty size) at $(tty)"']
        url = cri.Exec(container_id=pod.start(), cmd=command, tty=True, stdin=True, stdout=True)["url"]
        expect_in("something in 33 99 at /dev/pts/", stream(url, b"something\n", resize=(99, 33))[1])
