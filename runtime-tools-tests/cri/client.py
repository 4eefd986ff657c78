# A client of the Container Runtime Interface (runtime.v1), as small as the checks beside it need it: requests and answers are
# dictionaries. It must not know what is tested. The numbers below are those of Kubernetes' api.proto; only fields that are
# used are named, others in an answer are skipped.
import os

import grpc

SLOW = int(os.environ.get("SLOW", "1"))  # multiplies every deadline, as in engines.sh

# Message: field=number:type, where `*` is repeated and `map` is map<string, string>.
SCHEMA = """
Empty:
Int64: value=1:int
Mapping: host_id=1:int container_id=2:int length=3:int
UserNamespace: mode=1:int uids=2:*Mapping gids=3:*Mapping
Namespaces: network=1:int pid=2:int ipc=3:int target_id=4:string userns_options=5:UserNamespace
Profile: profile_type=1:int localhost_ref=2:string
SandboxSecurity: namespace_options=1:Namespaces run_as_user=3:Int64 run_as_group=8:Int64 readonly_rootfs=4:bool
    supplemental_groups=5:*int privileged=6:bool seccomp=9:Profile
SandboxLinux: cgroup_parent=1:string security_context=2:SandboxSecurity sysctls=3:map
SandboxMetadata: name=1:string uid=2:string namespace=3:string attempt=4:int
Dns: servers=1:*string searches=2:*string options=3:*string
SandboxConfig: metadata=1:SandboxMetadata hostname=2:string log_directory=3:string dns_config=4:Dns labels=6:map
    annotations=7:map linux=8:SandboxLinux
RunPodSandboxRequest: config=1:SandboxConfig runtime_handler=2:string
RunPodSandboxResponse: pod_sandbox_id=1:string
PodRequest: pod_sandbox_id=1:string
PodIp: ip=1:string
PodNetwork: ip=1:string
PodStatus: id=1:string state=3:int network=5:PodNetwork
PodSandboxStatusResponse: status=1:PodStatus info=2:map

Image: image=1:string
KeyValue: key=1:string value=2:string
Mount: container_path=1:string host_path=2:string readonly=3:bool propagation=5:int uidMappings=6:*Mapping
    gidMappings=7:*Mapping recursive_read_only=8:bool
Device: container_path=1:string host_path=2:string permissions=3:string
Resources: cpu_period=1:int cpu_quota=2:int cpu_shares=3:int memory_limit_in_bytes=4:int oom_score_adj=5:int
    cpuset_cpus=6:string cpuset_mems=7:string unified=9:map memory_swap_limit_in_bytes=10:int
Capabilities: add_capabilities=1:*string drop_capabilities=2:*string add_ambient_capabilities=3:*string
Security: capabilities=1:Capabilities privileged=2:bool namespace_options=3:Namespaces run_as_user=5:Int64
    run_as_group=12:Int64 run_as_username=6:string readonly_rootfs=7:bool supplemental_groups=8:*int no_new_privs=11:bool
    masked_paths=13:*string readonly_paths=14:*string seccomp=15:Profile
Linux: resources=1:Resources security_context=2:Security
Metadata: name=1:string attempt=2:int
ContainerConfig: metadata=1:Metadata image=2:Image command=3:*string args=4:*string working_dir=5:string envs=6:*KeyValue
    mounts=7:*Mount devices=8:*Device labels=9:map annotations=10:map log_path=11:string stdin=12:bool stdin_once=13:bool
    tty=14:bool linux=15:Linux stop_signal=18:int
CreateContainerRequest: pod_sandbox_id=1:string config=2:ContainerConfig sandbox_config=3:SandboxConfig
CreateContainerResponse: container_id=1:string
ContainerRequest: container_id=1:string
StopContainerRequest: container_id=1:string timeout=2:int
ContainerStatusRequest: container_id=1:string verbose=2:bool
ContainerState: id=1:string state=3:int exit_code=7:int reason=10:string message=11:string
ContainerStatusResponse: status=1:ContainerState info=2:map
ContainerEntry: id=1:string pod_sandbox_id=2:string state=6:int
ListContainersResponse: containers=1:*ContainerEntry
PodEntry: id=1:string state=3:int
ListPodSandboxResponse: items=1:*PodEntry
UpdateContainerResourcesRequest: container_id=1:string linux=2:Resources
ExecSyncRequest: container_id=1:string cmd=2:*string timeout=3:int
ExecSyncResponse: stdout=1:string stderr=2:string exit_code=3:int
ExecRequest: container_id=1:string cmd=2:*string tty=3:bool stdin=4:bool stdout=5:bool stderr=6:bool
AttachRequest: container_id=1:string stdin=2:bool tty=3:bool stdout=4:bool stderr=5:bool
UrlResponse: url=1:string
CheckpointContainerRequest: container_id=1:string location=2:string timeout=3:int

Features: recursive_read_only_mounts=1:bool user_namespaces=2:bool
Handler: name=1:string features=2:Features
Condition: type=1:string status=2:bool reason=3:string message=4:string
Conditions: conditions=1:*Condition
StatusResponse: status=1:Conditions runtime_handlers=3:*Handler
ListImagesResponse: images=1:*ImageEntry
ImageEntry: id=1:string repo_tags=2:*string

UInt64: value=1:int
Cpu: usage_core_nano_seconds=2:UInt64
Memory: working_set_bytes=2:UInt64 usage_bytes=4:UInt64
Stats: cpu=2:Cpu memory=3:Memory
ContainerStatsResponse: stats=1:Stats
Processes: process_count=2:UInt64
PodLinuxStats: cpu=1:Cpu memory=2:Memory process=4:Processes
PodStats: linux=2:PodLinuxStats
PodSandboxStatsResponse: stats=1:PodStats
"""

# Method: request and answer.
METHODS = """
Status Empty StatusResponse
RunPodSandbox RunPodSandboxRequest RunPodSandboxResponse
PodSandboxStatus PodRequest PodSandboxStatusResponse
PodSandboxStats PodRequest PodSandboxStatsResponse
StopPodSandbox PodRequest Empty
RemovePodSandbox PodRequest Empty
ListPodSandbox Empty ListPodSandboxResponse
CreateContainer CreateContainerRequest CreateContainerResponse
StartContainer ContainerRequest Empty
StopContainer StopContainerRequest Empty
RemoveContainer ContainerRequest Empty
ListContainers Empty ListContainersResponse
ContainerStatus ContainerStatusRequest ContainerStatusResponse
ContainerStats ContainerRequest ContainerStatsResponse
UpdateContainerResources UpdateContainerResourcesRequest Empty
ExecSync ExecSyncRequest ExecSyncResponse
Exec ExecRequest UrlResponse
Attach AttachRequest UrlResponse
CheckpointContainer CheckpointContainerRequest Empty
ListImages Empty ListImagesResponse
"""


def read_schema(text):
    messages = {}
    for word in text.split():
        if word.endswith(":"):
            fields = messages[word[:-1]] = {}
        else:
            name, _, rest = word.partition("=")
            number, _, kind = rest.partition(":")
            fields[name] = (int(number), kind.lstrip("*"), kind.startswith("*"))
    return messages


MESSAGES = read_schema(SCHEMA)
MESSAGES["map"] = {"key": (1, "string", False), "value": (2, "string", False)}


def varint(value):
    value &= (1 << 64) - 1  # a negative number is ten bytes of its two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(message, values):
    out = b""
    for name, value in values.items():
        number, kind, repeated = MESSAGES[message][name]
        if kind == "map":
            value = [{"key": key, "value": entry} for key, entry in value.items()]
        for one in value if repeated or kind == "map" else [value]:
            if kind in ("int", "bool"):
                out += varint(number << 3) + varint(int(one))
            else:
                data = one.encode() if kind == "string" else encode(kind, one)
                out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def decode(message, data):
    names = {number: (name, kind, repeated) for name, (number, kind, repeated) in MESSAGES[message].items()}
    out = {}
    at = 0

    def take_varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value - (1 << 64) if value >> 63 else value

    for name, kind, repeated in names.values():
        out[name] = {} if kind == "map" else [] if repeated else {"int": 0, "bool": False, "string": ""}.get(kind)
    while at < len(data):
        tag = take_varint()
        wire = tag & 7
        if wire == 0:
            value = take_varint()
        else:
            size = {1: 8, 5: 4}.get(wire) or take_varint()
            value = data[at : at + size]
            at += size
        if tag >> 3 not in names:
            continue
        name, kind, repeated = names[tag >> 3]
        if kind == "string":
            value = value.decode(errors="replace")
        elif kind == "map":
            entry = decode("map", value)
            out[name][entry["key"]] = entry["value"]
            continue
        elif kind not in ("int", "bool"):
            value = decode(kind, value)
        if repeated:
            out[name].append(value)
        else:
            out[name] = value
    return out


class Failed(Exception):
    """What the service said; its text begins with the name of the status code."""


class Client:
    """Client(socket).RunPodSandbox(config={..}) and so on: the methods above, fields as arguments."""

    def __init__(self, path):
        channel = grpc.insecure_channel("unix://" + path)
        for line in METHODS.strip().splitlines():
            name, request, answer = line.split()
            service = "ImageService" if name == "ListImages" else "RuntimeService"
            call = channel.unary_unary(f"/runtime.v1.{service}/{name}")
            setattr(self, name, self._method(call, request, answer))

    @staticmethod
    def _method(call, request, answer):
        def method(**fields):
            try:
                return decode(answer, call(encode(request, fields), timeout=60 * SLOW))
            except grpc.RpcError as error:
                raise Failed(f"{error.code().name}: {error.details()}") from None

        return method
