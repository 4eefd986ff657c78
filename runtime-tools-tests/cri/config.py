# Checks of what a pod or a container asks for under containerd's CRI plugin: namespaces, mounts, devices, security and
# resources. Its functions are run by main.py.
import contextlib
import os
import subprocess

from client import Failed
from pods import *  # the words of a check

# ---- namespaces -----------------------------------------------------------------------------------------------------


@check("namespaces: pods share ipc and uts, not pid")
def _():
    with Pod() as pod:
        one = pod.start("echo one >/dev/shm/word; exec sleep 1000")
        until(lambda: not cri.ExecSync(container_id=one, cmd=["test", "-s", "/dev/shm/word"])["exit_code"])
        expect(pod.run("cat /dev/shm/word; echo $$"), "one\n1")
        links = "for kind in ipc uts net; do readlink /proc/1/ns/$kind; done"
        expect(pod.run(links), execute(one, links))


@check("namespaces: a pod's pid namespace, and another container's")
def _():
    with Pod(namespaces={"pid": POD}) as pod:
        one = pod.start("exec sleep 321")
        expect_in("sleep 321", pod.run("ps -o args"))
        cri.StopContainer(container_id=one, timeout=0)
        expect(state(one)["exit_code"], 137)
    with Pod() as pod:
        one = pod.start("exec sleep 321")
        expect_in("sleep 321", pod.run("tr '\\0' ' ' </proc/1/cmdline", namespaces={"pid": TARGET, "target_id": one}))


@check("namespaces: the host's network, pid and ipc")
def _():
    kinds = ("net", "pid", "ipc")
    with Pod(namespaces={"network": NODE, "pid": NODE, "ipc": NODE}) as pod:
        container = pod.start("trap '' TERM; exec sleep 1000")
        got = execute(container, "for kind in net pid ipc; do readlink /proc/self/ns/$kind; done")
        expect(got.split(), [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds])
        cri.StopContainer(container_id=container, timeout=0)
        expect(state(container)["exit_code"], 137)


USER = {"mode": POD, "uids": [{"host_id": 200000, "length": 65536}], "gids": [{"host_id": 300000, "length": 65536}]}


def user_pod():
    return Pod(namespaces={"userns_options": USER}, hostname="box")


@check("user namespace: ids inside, outside, and of files", pod_network)
def _():
    with user_pod() as pod:
        container = pod.start()
        expect(execute(container, "cat /proc/self/uid_map /proc/self/gid_map").split(), "0 200000 65536 0 300000 65536".split())
        expect(execute(container, "id -u; stat -c %u:%g / /bin/busybox /etc/hosts"), "0\n0:0\n0:0\n0:0")
        outside = os.stat(f"/proc/{pid_of(container)}")
        expect((outside.st_uid, outside.st_gid), (200000, 300000))
        expect(execute(container, "touch /tmp/a && stat -c %u /tmp/a; hostname"), "0\nbox")


@check("user namespace: a volume with the pod's ids", pod_network)
def _():
    os.makedirs("/tmp/cri-volume", exist_ok=True)
    with open("/tmp/cri-volume/word", "w") as file:
        file.write("one\n")
    maps = {"uidMappings": USER["uids"], "gidMappings": USER["gids"]}
    with user_pod() as pod:
        mount = {"container_path": "/data", "host_path": "/tmp/cri-volume", **maps}
        expect(pod.run("stat -c %u:%g /data/word && cat /data/word && echo two >/data/new", mounts=[mount]), "0:0\none")
    expect(os.stat("/tmp/cri-volume/new").st_uid, 0)


@check("user namespace: exec, stop, seccomp, a user, no rights over the host", pod_network)
def _():
    with user_pod() as pod:
        container = pod.start('trap "exit 4" TERM; while :; do sleep 0.1; done', security={"seccomp": {}, "run_as_user": {"value": 0}})
        expect(execute(container, "awk '/^Seccomp:/ { print $2 }' /proc/self/status"), "2")
        expect(cri.ExecSync(container_id=container, cmd=["sh", "-c", "echo 1 >/proc/sys/kernel/panic"])["exit_code"], 1)
        cri.StopContainer(container_id=container, timeout=20)
        expect(state(container)["exit_code"], 4)
        expect(pod.run("id -u; awk '{ print $2; exit }' /proc/self/uid_map", security={"run_as_user": {"value": 1000}}), "1000\n200000")


# ---- mounts and devices ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tree(shared=False):
    """A directory with a mount below it."""
    root = "/tmp/cri-tree"
    os.makedirs(root, exist_ok=True)
    subprocess.run(["mount", "--bind", root, root], check=True)
    subprocess.run(["mount", "--make-shared" if shared else "--make-private", root], check=True)
    os.makedirs(f"{root}/below", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "below", f"{root}/below"], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", "-R", root], check=True)


WRITES = "for d in /data /data/below; do touch $d/a 2>/dev/null && echo yes || echo no; done"


@check("mounts: read-only, and recursively so")
def _():
    with tree() as root, Pod() as pod:
        mount = {"container_path": "/data", "host_path": root}
        expect(pod.run(WRITES, mounts=[mount]), "yes\nyes")
        expect(pod.run(WRITES, mounts=[{**mount, "readonly": True}]), "no\nyes")
        expect(pod.run(WRITES, mounts=[{**mount, "readonly": True, "recursive_read_only": True}]), "no\nno")
        refused(pod.create, "recursive", command="true", mounts=[{**mount, "recursive_read_only": True}])


@check("mounts: propagation from the host and to it")
def _():
    with tree(shared=True) as root, Pod() as pod:
        private, slave = (
            pod.start(mounts=[{"container_path": "/data", "host_path": root, "propagation": how}]) for how in range(2)
        )
        os.makedirs(f"{root}/new", exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "new", f"{root}/new"], check=True)
        counts = [execute(container, "grep -c ' /data/new ' /proc/mounts || true") for container in (private, slave)]
        expect(counts, ["0", "1"])
    with tree(shared=True) as root, Pod(security={"privileged": True}) as pod:
        both = pod.start(mounts=[{"container_path": "/data", "host_path": root, "propagation": 2}], security={"privileged": True})
        execute(both, "mkdir -p /data/mine && mount -t tmpfs mine /data/mine")
        expect(os.path.ismount(f"{root}/mine"), True)


@check("mounts: a file, a missing source")
def _():
    with open("/tmp/cri-file", "w") as file:
        file.write("one\n")
    with Pod() as pod:
        mount = {"container_path": "/deep/er/file", "host_path": "/tmp/cri-file"}
        expect(pod.run("cat /deep/er/file", mounts=[mount]), "one")
        made = {"container_path": "/data", "host_path": "/tmp/cri-missing"}
        expect(pod.run("test -d /data && echo made", mounts=[made]), "made")


@check("mounts: read-only root, masked and read-only paths")
def _():
    with Pod() as pod:
        security = {"readonly_rootfs": True, "masked_paths": ["/proc/version", "/proc/bus"], "readonly_paths": ["/proc/sys"]}
        got = pod.run(
            "touch /a 2>/dev/null || echo read-only; cat /proc/version | wc -c; ls /proc/bus | wc -l; grep -c ' /proc/sys .*ro,' /proc/mounts",
            security=security,
        )
        expect(got, "read-only\n0\n0\n1")


@check("devices")
def _():
    with Pod() as pod:
        device = {"container_path": "/dev/messages", "host_path": "/dev/kmsg", "permissions": "w"}
        got = pod.run(
            "(: >/dev/messages) && echo write; (: </dev/messages) 2>/dev/null || echo no read; ls /dev | grep -c kmsg || true",
            devices=[device],
            security={"capabilities": {"add_capabilities": ["SYSLOG"]}},
        )
        expect(got, "write\nno read\n0")


# ---- security -------------------------------------------------------------------------------------------------------

STATUS = "awk '/^(Seccomp:|CapEff|CapBnd|CapAmb|NoNewPrivs)/ { print $1 $2 }' /proc/self/status"


def facts(text):
    return dict(line.split(":") for line in text.split())


@check("seccomp: RuntimeDefault, Unconfined, Localhost")
def _():
    with Pod() as pod:
        expect(facts(pod.run(STATUS, security={"seccomp": {"profile_type": 0}}))["Seccomp"], "2")
        expect(facts(pod.run(STATUS, security={"seccomp": {"profile_type": 1}}))["Seccomp"], "0")
        local = {"seccomp": {"profile_type": 2, "localhost_ref": "/tmp/images/no-mkdir.json"}}
        expect(pod.run("mkdir /tmp/a 2>&1 || true", security=local), "mkdir: can't create directory '/tmp/a': Operation not permitted")
        container = pod.start(security=local)
        expect(cri.ExecSync(container_id=container, cmd=["mkdir", "/tmp/b"])["exit_code"], 1)
        missing = {"seccomp": {"profile_type": 2, "localhost_ref": "/tmp/images/no-such.json"}}
        refused(pod.create, "no-such.json", command="true", security=missing)


@check("privileged: all capabilities, devices, no seccomp, a writable /sys")
def _():
    with Pod(security={"privileged": True}) as pod:
        got = facts(pod.run(STATUS, security={"privileged": True}))
        mine = facts(subprocess.run(["sh", "-c", STATUS], capture_output=True, text=True).stdout)
        expect((got["Seccomp"], got["CapEff"], got["CapBnd"]), ("0", mine["CapEff"], mine["CapBnd"]))
        got = pod.run("ls /dev | grep -xc -e kmsg -e fuse; grep -c ' /sys sysfs rw' /proc/mounts; echo ok >/dev/kmsg && echo written", security={"privileged": True})
        expect(got.split()[-2:], ["1", "written"])


@check("capabilities: defaults, added, dropped, ambient")
def _():
    with Pod() as pod:
        expect(facts(pod.run(STATUS))["CapEff"], "00000000a80425fb")
        none = pod.run(STATUS, security={"capabilities": {"drop_capabilities": ["ALL"]}})
        expect((facts(none)["CapEff"], facts(none)["CapBnd"]), ("0" * 16, "0" * 16))
        one = pod.run(STATUS, security={"capabilities": {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_ADMIN"]}})
        expect(facts(one)["CapEff"], "0000000000001000")
        all_of_them = {"capabilities": {"add_capabilities": ["ALL"]}}
        mine = facts(subprocess.run(["sh", "-c", STATUS], capture_output=True, text=True).stdout)
        expect(facts(pod.run(STATUS, security=all_of_them))["CapEff"], mine["CapEff"])


@check("no_new_privs, and a user without rights")
def _():
    with Pod() as pod:
        got = facts(pod.run(STATUS, security={"no_new_privs": True, "run_as_user": {"value": 1000}}))
        expect((got["NoNewPrivs"], got["CapEff"]), ("1", "0" * 16))


# ---- resources ------------------------------------------------------------------------------------------------------


def limit(container, old, new):
    return execute(container, f"cat /sys/fs/cgroup/{new if V2 else old}")


def weight(shares):
    """What v2 makes of cpu shares: either of the two formulas that runtimes have used."""
    return {str(1 + (shares - 2) * 9999 // 262142), weight_of_today(shares)}


def weight_of_today(shares):
    from math import ceil, log2

    power = log2(shares)
    return str(ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34)))


@check("resources: limits at the start", controller("memory"), controller("cpu"))
def _():
    resources = {
        "memory_limit_in_bytes": 64 << 20,
        "cpu_period": 50000,
        "cpu_quota": 20000,
        "cpu_shares": 512,
        "oom_score_adj": 500,
    }
    with Pod() as pod:
        container = pod.start(resources=resources)
        expect(limit(container, "memory/memory.limit_in_bytes", "memory.max"), str(64 << 20))
        if V2:
            expect(limit(container, "", "cpu.max"), "20000 50000")
            expect_in(limit(container, "", "cpu.weight"), weight(512))
        else:
            expect(limit(container, "cpu/cpu.cfs_quota_us", ""), "20000")
            expect(limit(container, "cpu/cpu.shares", ""), "512")
        expect(execute(container, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj"), "500\n500")


@check("resources: update", controller("memory"), controller("cpu"))
def _():
    with Pod() as pod:
        container = pod.start(resources={"memory_limit_in_bytes": 64 << 20, "cpu_shares": 512})
        new = {"memory_limit_in_bytes": 32 << 20, "cpu_period": 100000, "cpu_quota": 30000, "cpu_shares": 256}
        cri.UpdateContainerResources(container_id=container, linux=new)
        expect(limit(container, "memory/memory.limit_in_bytes", "memory.max"), str(32 << 20))
        if V2:
            expect(limit(container, "", "cpu.max"), "30000 100000")
            expect_in(limit(container, "", "cpu.weight"), weight(256))
        else:
            expect(limit(container, "cpu/cpu.cfs_quota_us", ""), "30000")
            expect(limit(container, "cpu/cpu.shares", ""), "256")
        expect(state(container)["state"], RUNNING)


@check("resources: update before the start", controller("memory"), controller("cpu"))
def _():
    with Pod() as pod:
        container = pod.create("exec sleep 1000", resources={"memory_limit_in_bytes": 64 << 20})
        cri.UpdateContainerResources(container_id=container, linux={"memory_limit_in_bytes": 32 << 20})
        cri.StartContainer(container_id=container)
        expect(limit(container, "memory/memory.limit_in_bytes", "memory.max"), str(32 << 20))


@check("resources: cpuset at the start and by update", controller("cpuset"))
def _():
    with Pod() as pod:
        container = pod.start(resources={"cpuset_cpus": "0-1", "cpuset_mems": "0"})
        expect(execute(container, "grep Cpus_allowed_list /proc/self/status | cut -f2"), "0-1")
        cri.UpdateContainerResources(container_id=container, linux={"cpuset_cpus": "1"})
        expect(execute(container, "grep Cpus_allowed_list /proc/1/status | cut -f2"), "1")


@check("resources: unified", v2, controller("memory"))
def _():
    with Pod() as pod:
        container = pod.start(resources={"unified": {"memory.high": str(48 << 20), "pids.max": "99"}})
        expect(execute(container, "cd /sys/fs/cgroup && cat memory.high pids.max"), f"{48 << 20}\n99")


@check("stats: of a container and of a pod", controller("memory"))
def _():
    with Pod() as pod:
        container = pod.start("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 1000")

        def cpu():
            stats = cri.ContainerStats(container_id=container)["stats"]
            return stats["cpu"]["usage_core_nano_seconds"]["value"] > 1_000_000 and stats

        stats = until(cpu, 10, "cpu time")
        expect(0 < stats["memory"]["working_set_bytes"]["value"] < 1 << 30, True)
        of_pod = cri.PodSandboxStats(pod_sandbox_id=pod.id)["stats"]["linux"]
        expect(of_pod["memory"]["usage_bytes"]["value"] > 0, True)
        expect(of_pod["process"]["process_count"]["value"] >= 1, True)
