# What the checks of containerd's CRI plugin stand on: a containerd of their own, pods and containers, and the words in which a
# check speaks. It must not check anything. Called by life.py, config.py and main.py.
import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import time

from client import SLOW, Client, Failed

RUNTIME, PARENT, DRIVER, PODS = sys.argv[1:5]
IMAGE = "localhost/busybox:lab"
HOME = "/var/tmp/cri"
ADDRESS = "/run/cri/containerd.sock"
LOG = "/tmp/containerd-cri.log"
POD, CONTAINER, NODE, TARGET = range(4)  # NamespaceMode
READY, NOT_READY = range(2)
CREATED, RUNNING, EXITED = range(3)
V2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")

checks = []
numbers = iter(range(1 << 30))
cri = Client(ADDRESS)
daemon = None


def check(title, *needs):
    """Each of `needs` is a function that returns why it is not met here, or nothing."""

    def register(function):
        checks.append((title, needs, function))
        return function

    return register


def expect(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def expect_in(part, whole):
    if part not in whole:
        raise AssertionError(f"no {part!r} in {whole!r}")


def until(condition, seconds=10, what="what was waited for"):
    ends = time.monotonic() + seconds * SLOW
    while not (value := condition()):
        if time.monotonic() > ends:
            raise AssertionError(f"{what} did not come in {seconds * SLOW} s")
        time.sleep(0.05)
    return value


def read(path):
    with open(path, errors="replace") as file:
        return file.read()


# ---- the daemon -----------------------------------------------------------------------------------------------------

def start_daemon():
    global daemon
    os.makedirs("/etc/cni/net.d", exist_ok=True)
    # Each pod gets one end of a pair of virtual devices: no bridge, no packet filter.
    with open("/etc/cni/net.d/10-lab.conflist", "w") as file:
        subnet = [{"subnet": "10.88.77.0/24"}]
        plugins = [{"type": "ptp", "ipam": {"type": "host-local", "ranges": [subnet], "dataDir": "/run/cri/cni"}}]
        json.dump({"cniVersion": "1.0.0", "name": "lab", "plugins": plugins}, file)
    with open("/tmp/cri.toml", "w") as file:
        file.write(f"""
version = 3
root = "{HOME}/root"
state = "/run/cri/state"
[grpc]
  address = "{ADDRESS}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:lab"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true # else it asks for -998, which takes CAP_SYS_RESOURCE
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/etc/cni/net.d"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "{RUNTIME}"
  SystemdCgroup = {"true" if DRIVER == "systemd" else "false"}
""")
    with open(LOG, "a") as log:
        daemon = subprocess.Popen(["containerd", "-c", "/tmp/cri.toml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ready():
        with contextlib.suppress(Failed):
            return cri.Status()

    until(ready, 60, "containerd's CRI")


def stop_daemon():
    daemon.terminate()
    daemon.wait(30 * SLOW)


def ctr(*arguments):
    subprocess.run(["ctr", "-a", ADDRESS, "-n", "k8s.io", *arguments], check=True, capture_output=True)


def load_images():
    ctr("images", "import", "/tmp/images/archive.tar")
    # The pause image is the same file system with another command.
    make = "/tmp/images/pause"
    shutil.rmtree(make, ignore_errors=True)
    shutil.copytree("/tmp/images/archive", make)
    manifest = json.loads(read(f"{make}/manifest.json"))
    config = json.loads(read(f"{make}/{manifest[0]['Config']}"))
    config["config"]["Cmd"] = ["/bin/sleep", "1000000"]
    manifest[0].update(Config="pause.json", RepoTags=["localhost/pause:lab"])
    for name, content in (("pause.json", config), ("manifest.json", manifest)):
        with open(f"{make}/{name}", "w") as file:
            json.dump(content, file)
    subprocess.run(["tar", "-C", make, "-cf", f"{make}.tar", "."], check=True)
    ctr("images", "import", f"{make}.tar")
    until(lambda: len([tag for image in cri.ListImages()["images"] for tag in image["repo_tags"]]) >= 2, 10, "the images")


# ---- what is missing here -------------------------------------------------------------------------------------------


def controller(name):
    def missing():
        if V2:
            here = name in read("/sys/fs/cgroup/cgroup.controllers").split()
        else:
            here = os.path.isdir(f"/sys/fs/cgroup/{name}")
        return None if here else f"no {name} controller in this layout"

    return missing


def v2():
    return None if V2 else "cgroup v1"


network_fault = None


@functools.cache
def pod_network():
    try:
        Pod(namespaces={"network": POD}).__exit__()
    except Failed as error:
        remove_pods()
        return f"no network for pods here: {error}"[:200]
    return None


def criu():
    worked = subprocess.run(["criu", "check"], capture_output=True).returncode == 0
    return None if worked else "no CRIU that works here"


# ---- pods and containers --------------------------------------------------------------------------------------------


def cgroup_parent():
    """The path of the cgroup of all pods; that of a slice a-b is a.slice/a-b.slice."""
    if DRIVER == "cgroupfs":
        return f"/{PARENT}"
    words = PARENT.split("-")
    return "".join("/" + "-".join(words[: i + 1]) + ".slice" for i in range(len(words)))


class Pod:
    """A pod sandbox and its containers; leaving the `with` stops and removes it."""

    def __init__(self, namespaces=None, security=None, **config):
        name = f"pod{next(numbers)}"
        self.namespaces = {"pid": CONTAINER, **(namespaces or {})}
        if "network" not in self.namespaces:
            self.namespaces["network"] = NODE if pod_network() else POD
        linux = {"cgroup_parent": cgroup_parent(), **config.pop("linux", {})}
        linux["security_context"] = {"namespace_options": self.namespaces, **(security or {})}
        self.logs = f"/tmp/cri-logs/{name}"
        metadata = {"name": name, "uid": name, "namespace": "lab"}
        self.config = {"metadata": metadata, "log_directory": self.logs, "linux": linux, **config}
        self.id = cri.RunPodSandbox(config=self.config)["pod_sandbox_id"]
        self.names = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        cri.StopPodSandbox(pod_sandbox_id=self.id)
        cri.RemovePodSandbox(pod_sandbox_id=self.id)

    def create(self, command, security=None, resources=None, namespaces=None, **config):
        """The id of a new container; `command` is a script or a list."""
        name = f"c{next(numbers)}"
        if isinstance(command, str):
            command = ["sh", "-c", command]
        linux = {"security_context": {"namespace_options": {**self.namespaces, **(namespaces or {})}, **(security or {})}}
        if resources:
            linux["resources"] = resources
        fields = {"metadata": {"name": name}, "image": {"image": IMAGE}, "command": command, "log_path": f"{name}.log"}
        made = cri.CreateContainer(
            pod_sandbox_id=self.id, config={**fields, "linux": linux, **config}, sandbox_config=self.config
        )
        self.names[made["container_id"]] = name
        return made["container_id"]

    def start(self, command="exec sleep 1000", **options):
        container = self.create(command, **options)
        cri.StartContainer(container_id=container)
        return container

    def run(self, command, **options):
        """What the script of a container that ends by itself, with status 0, has printed."""
        last = "that was all"
        container = self.start(f"({command})\nstatus=$?\necho {last}\nexit $status", **options)
        status = self.ended(container)
        until(lambda: self.output(container).endswith(last) or status["exit_code"] == 128, 10, "the log's end")
        output = self.output(container).removesuffix(last).strip("\n")
        if status["exit_code"] != 0:
            raise AssertionError(f"{status}: {output!r}")
        return output

    def ended(self, container, seconds=20):
        until(lambda: state(container)["state"] == EXITED, seconds, "the container's end")
        return state(container)

    def expect_output(self, container, wanted, stream=("stdout", "stderr")):
        """A log may be complete a moment after the container's end is known."""
        until(lambda: self.output(container, stream) == wanted, 10, f"{wanted!r} in the log")

    def output(self, container, stream=("stdout", "stderr")):
        lines = [line.split(" ", 3) for line in read(f"{self.logs}/{self.names[container]}.log").splitlines()]
        return "\n".join(line[3] for line in lines if line[1] in stream)


def remove_pods():
    """All of them, whatever state they are in."""
    for pod in cri.ListPodSandbox()["items"]:
        with contextlib.suppress(Failed):
            cri.StopPodSandbox(pod_sandbox_id=pod["id"])
            cri.RemovePodSandbox(pod_sandbox_id=pod["id"])


def state(container):
    return cri.ContainerStatus(container_id=container)["status"]


def pid_of(container):
    return json.loads(cri.ContainerStatus(container_id=container, verbose=True)["info"]["info"])["pid"]


def execute(container, command, **options):
    """Standard output of an exec that succeeds."""
    if isinstance(command, str):
        command = ["sh", "-c", command]
    answer = cri.ExecSync(container_id=container, cmd=command, **options)
    expect((answer["exit_code"], answer["stderr"]), (0, ""))
    return answer["stdout"].strip()


def refused(call, *words, **fields):
    try:
        call(**fields)
    except Failed as error:
        for word in words:
            expect_in(word, str(error))
        return
    raise AssertionError("it was not refused")


def stream(url, keys=b"", resize=None):
    """Talks to the streaming server by the WebSocket protocol v4.channel.k8s.io; the output of all channels, by number."""
    address, _, path = url.removeprefix("http://").partition("/")
    host, _, port = address.rpartition(":")
    channels = {}
    with socket.create_connection((host.strip("[]"), int(port)), timeout=20 * SLOW) as peer:
        peer.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bmFydSBuYXJ1IG5hcnUhIQ==\r\n"
            "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
        )
        with peer.makefile("rb") as answer:
            first = answer.readline().decode()
            expect_in(" 101 ", first)
            while answer.readline() not in (b"\r\n", b""):
                pass

            def send(channel, data):  # a masked binary frame, as a client's must be; the mask is zero
                peer.sendall(bytes([0x82, 0x80 | len(data) + 1, 0, 0, 0, 0, channel]) + data)

            if resize:
                send(4, json.dumps({"Width": resize[0], "Height": resize[1]}).encode())
            if keys:
                time.sleep(0.5)
                send(0, keys)
            while len(head := answer.read(2)) == 2:
                size = head[1] & 0x7F
                if size >= 126:
                    size = int.from_bytes(answer.read(2 if size == 126 else 8), "big")
                data = answer.read(size)
                if head[0] & 0xF == 8:
                    break
                if head[0] & 0xF == 9:
                    continue
                channels[data[0]] = channels.get(data[0], b"") + data[1:]
    return {number: data.decode(errors="replace") for number, data in channels.items() if data}
