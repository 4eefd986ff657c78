//! Wrong values: every field of config.json with a wrong type, out of range, and in combinations that cannot be. Each is exit
//! status 1 with an error that names the field by JSON pointer, and leaves nothing behind.
//!
//! Of other runtimes only the exit status and what is left is asked, for the pointer is naru's own promise.

use super::tests;
use crate::bundle::Bundle;
use crate::cx::Cx;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

tests!["wrong_values":
    types_of_the_process,
    types_of_hooks_and_mounts,
    types_of_linux,
    types_of_resources,
    bounds deviates ["runc" = "lets some pass", "crun" = "lets some pass"],
    nul_bytes deviates ["runc" = "lets some pass", "crun" = "lets some pass"],
    mistakes_beside_what_is_adapted deviates ["crun" = "does not look"],
    ranges deviates ["runc" = "lets some pass", "crun" = "does not look at most"],
    words deviates ["runc" = "lets some pass", "crun" = "lets some pass"],
    combinations deviates ["runc" = "lets some pass", "crun" = "lets some pass"],
    missing deviates ["runc" = "lets some pass", "crun" = "lets some pass"],
    not_json,
];

/// Every field that the specification has for Linux, each with a value of the right type. Not made to be run.
pub(super) fn everything() -> Value {
    let ids = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let hooks = json!([{"path": "/bin/true", "args": ["true"], "env": ["A=1"], "timeout": 1}]);
    let caps = json!(["CAP_KILL"]);
    let mut config = json!({
        "ociVersion": "1.3.0", "hostname": "h", "domainname": "d", "annotations": {"a": "b"},
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "terminal": false, "consoleSize": {"height": 1, "width": 1},
            "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [1]},
            "args": ["/bin/probe", "true"], "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true,
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps, "ambient": caps},
            "apparmorProfile": "p", "selinuxLabel": "l", "oomScoreAdj": 100,
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "execCPUAffinity": {"initial": "0", "final": "0"}
        },
        "mounts": [{"destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["rbind"],
                    "uidMappings": ids, "gidMappings": ids}],
        "hooks": {"prestart": hooks, "createRuntime": hooks, "createContainer": hooks, "startContainer": hooks,
                  "poststart": hooks, "poststop": hooks}
    });
    config["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 1, "priority": 0,
        "flags": ["SCHED_FLAG_RECLAIM"], "runtime": 0, "deadline": 0, "period": 0});
    let device =
        json!({"type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0});
    let throttle = json!([{"major": 8, "minor": 0, "rate": 1}]);
    config["linux"] = json!({
        "namespaces": [{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/net"}],
        "uidMappings": ids, "gidMappings": ids, "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 1}, "monotonic": {"secs": 1, "nanosecs": 1}},
        "devices": [device], "netDevices": {"nosuch0": {"name": "x"}}, "cgroupsPath": "/x",
        "intelRdt": {"closID": "c", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L2:0=f"],
                     "enableMonitoring": true},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "sysctl": {"kernel.shmmax": "1"}, "rootfsPropagation": "slave", "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"], "mountLabel": "l", "personality": {"domain": "LINUX", "flags": ["x"]}
    });
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/x", "listenerMetadata": "m",
        "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                      "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}]}]
    });
    config["linux"]["resources"] = json!({
        "devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
        "memory": {"limit": 1, "reservation": 1, "swap": 1, "swappiness": 1, "disableOOMKiller": false, "kernel": 1, "kernelTCP": 1,
                   "useHierarchy": false, "checkBeforeUpdate": false},
        "cpu": {"shares": 2, "quota": 1000, "burst": 1, "period": 1000, "realtimeRuntime": 1, "realtimePeriod": 1,
                "cpus": "0", "mems": "0", "idle": 0},
        "pids": {"limit": 1},
        "blockIO": {"weight": 10, "leafWeight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 10}],
                    "throttleReadBpsDevice": throttle, "throttleWriteBpsDevice": throttle,
                    "throttleReadIOPSDevice": throttle, "throttleWriteIOPSDevice": throttle},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
        "rdma": {"mlx5_1": {"hcaHandles": 1, "hcaObjects": 1}}, "unified": {"memory.high": "max"}
    });
    config
}

/// Pointer and value of every node below `at`.
fn nodes(at: &Value, pointer: &str, out: &mut Vec<(String, Value)>) {
    match at {
        Value::Object(map) => {
            for (key, value) in map {
                let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                out.push((pointer.clone(), value.clone()));
                nodes(value, &pointer, out);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                let pointer = format!("{pointer}/{index}");
                out.push((pointer.clone(), value.clone()));
                nodes(value, &pointer, out);
            }
        }
        _ => {}
    }
}

/// What went wrong with each case; the test tells all at once.
struct Cases<'a> {
    cx: &'a Cx,
    bundle: Bundle<'a>,
    /// Written without a blank, as engines do, or for people.
    compact: bool,
    wrong: Vec<String>,
    count: usize,
}

impl<'a> Cases<'a> {
    fn new(cx: &'a Cx) -> Result<Self> {
        Ok(Cases { cx, bundle: cx.bundle()?, compact: false, wrong: vec![], count: 0 })
    }

    /// Creates a container from `config`: it must fail and name `pointer`, as a whole or as the beginning of one.
    fn refused(&mut self, config: Value, pointer: &str, what: &str) -> Result<()> {
        self.count += 1;
        self.bundle.config = config;
        self.bundle.save()?;
        if self.compact {
            std::fs::write(self.bundle.dir.join("config.json"), self.bundle.config.to_string())?;
        }
        let c = self.bundle.container();
        let out = c.create(&[])?;
        let named = out.said().match_indices(pointer).any(|(at, _)| {
            let rest = &out.said()[at + pointer.len()..];
            rest.starts_with(':') || rest.starts_with('/')
        });
        if out.code != 1 || out.said().contains("panicked") || (self.cx.kind == "naru" && !named) {
            self.wrong.push(format!("{pointer} = {what}: exit {} {}", out.code, out.said().trim_end()));
        }
        if out.code == 0 {
            c.delete_force()?;
        }
        Ok(())
    }

    /// The default configuration with one value changed.
    fn with(&mut self, pointer: &str, value: Value) -> Result<()> {
        self.with_at(pointer, value, pointer)
    }

    /// The same where the error names another field.
    fn with_at(&mut self, pointer: &str, value: Value, named: &str) -> Result<()> {
        let what = value.to_string();
        self.bundle.config = base(self.cx);
        self.bundle.set(pointer, value);
        let config = self.bundle.config.clone();
        self.refused(config, named, &what)
    }

    fn done(self, before: &crate::leaks::Snapshot) -> Result<()> {
        ensure!(
            self.wrong.is_empty(),
            "{} of {}:\n  {}",
            self.wrong.len(),
            self.count,
            self.wrong.join("\n  ")
        );
        self.cx.nothing_left(before)
    }
}

/// The default configuration with lists that values can be appended to.
fn base(cx: &Cx) -> Value {
    let mut config = crate::bundle::default_config();
    config["linux"]["cgroupsPath"] = json!(format!("{}/{}", cx.cgroup, cx.id()));
    config
}

fn types_of_the_process(cx: &Cx) -> Result<()> {
    types(cx, |pointer| pointer.starts_with("/process"))
}

fn types_of_hooks_and_mounts(cx: &Cx) -> Result<()> {
    types(cx, |pointer| !pointer.starts_with("/process") && !pointer.starts_with("/linux/"))
}

fn types_of_linux(cx: &Cx) -> Result<()> {
    types(cx, |pointer| pointer.starts_with("/linux/") && !pointer.starts_with("/linux/resources/"))
}

fn types_of_resources(cx: &Cx) -> Result<()> {
    types(cx, |pointer| pointer.starts_with("/linux/resources/"))
}

/// Every field with values of other types.
fn types(cx: &Cx, chosen: fn(&str) -> bool) -> Result<()> {
    let config = everything();
    let mut all = vec![];
    nodes(&config, "", &mut all);
    all.retain(|(pointer, _)| chosen(pointer));
    let mut cases = Cases::new(cx)?;
    let before = cx.snapshot()?;
    for (pointer, right) in all {
        let wrong: &[Value] = match right {
            Value::String(_) => &[json!(17), json!({}), json!(["x"])],
            Value::Number(_) => &[json!("17"), json!(1.5), json!([1]), json!(true)],
            Value::Bool(_) => &[json!("true"), json!(1)],
            Value::Array(_) => &[json!("x"), json!({"0": 1}), json!(7)],
            Value::Object(_) => &[json!("x"), json!([]), json!(["x", 1]), json!(7)],
            Value::Null => &[],
        };
        for value in wrong {
            let mut config = config.clone();
            // Without a field that must be there an empty list is read as an empty object, under any name.
            if pointer == "/linux/netDevices/nosuch0" && *value == json!([]) {
                continue;
            }
            if let Some(at) = config.pointer_mut(&pointer) {
                *at = value.clone();
            }
            cases.compact = !cases.compact;
            cases.refused(config, &pointer, &value.to_string())?;
        }
    }
    cases.done(&before)
}

/// Smallest and largest number of every field that holds one, in the specification's schema; None: that of 64 bits. Where it
/// has none, those of the type in its Go structures. `0` stands for an index.
const BOUNDS: &[(&str, i64, Option<i64>)] = &[
    ("/process/consoleSize/height", 0, None),
    ("/process/consoleSize/width", 0, None),
    ("/process/user/uid", 0, U32),
    ("/process/user/gid", 0, U32),
    ("/process/user/umask", 0, U32),
    ("/process/user/additionalGids/0", 0, U32),
    ("/process/oomScoreAdj", i64::MIN, None),
    ("/process/rlimits/0/soft", 0, None),
    ("/process/rlimits/0/hard", 0, None),
    ("/process/ioPriority/priority", I32.0, I32.1),
    ("/process/scheduler/nice", I32.0, I32.1),
    ("/process/scheduler/priority", I32.0, I32.1),
    ("/process/scheduler/runtime", 0, None),
    ("/process/scheduler/deadline", 0, None),
    ("/process/scheduler/period", 0, None),
    ("/mounts/0/uidMappings/0/containerID", 0, U32),
    ("/mounts/0/uidMappings/0/hostID", 0, U32),
    ("/mounts/0/uidMappings/0/size", 0, U32),
    ("/mounts/0/gidMappings/0/containerID", 0, U32),
    ("/mounts/0/gidMappings/0/hostID", 0, U32),
    ("/mounts/0/gidMappings/0/size", 0, U32),
    ("/hooks/prestart/0/timeout", 1, None),
    ("/hooks/createRuntime/0/timeout", 1, None),
    ("/hooks/createContainer/0/timeout", 1, None),
    ("/hooks/startContainer/0/timeout", 1, None),
    ("/hooks/poststart/0/timeout", 1, None),
    ("/hooks/poststop/0/timeout", 1, None),
    ("/linux/uidMappings/0/containerID", 0, U32),
    ("/linux/uidMappings/0/hostID", 0, U32),
    ("/linux/uidMappings/0/size", 0, U32),
    ("/linux/gidMappings/0/containerID", 0, U32),
    ("/linux/gidMappings/0/hostID", 0, U32),
    ("/linux/gidMappings/0/size", 0, U32),
    ("/linux/timeOffsets/boottime/secs", i64::MIN, None),
    ("/linux/timeOffsets/boottime/nanosecs", 0, U32),
    ("/linux/timeOffsets/monotonic/secs", i64::MIN, None),
    ("/linux/timeOffsets/monotonic/nanosecs", 0, U32),
    ("/linux/devices/0/major", i64::MIN, None),
    ("/linux/devices/0/minor", i64::MIN, None),
    ("/linux/devices/0/fileMode", 0, U32),
    ("/linux/devices/0/uid", 0, U32),
    ("/linux/devices/0/gid", 0, U32),
    ("/linux/resources/devices/0/major", i64::MIN, None),
    ("/linux/resources/devices/0/minor", i64::MIN, None),
    ("/linux/resources/memory/limit", i64::MIN, None),
    ("/linux/resources/memory/reservation", i64::MIN, None),
    ("/linux/resources/memory/swap", i64::MIN, None),
    ("/linux/resources/memory/kernel", i64::MIN, None),
    ("/linux/resources/memory/kernelTCP", i64::MIN, None),
    ("/linux/resources/memory/swappiness", 0, None),
    ("/linux/resources/cpu/shares", 0, None),
    ("/linux/resources/cpu/quota", i64::MIN, None),
    ("/linux/resources/cpu/burst", 0, None),
    ("/linux/resources/cpu/period", 0, None),
    ("/linux/resources/cpu/realtimeRuntime", i64::MIN, None),
    ("/linux/resources/cpu/realtimePeriod", 0, None),
    ("/linux/resources/cpu/idle", i64::MIN, None),
    ("/linux/resources/pids/limit", i64::MIN, None),
    ("/linux/resources/blockIO/weight", 0, U16),
    ("/linux/resources/blockIO/leafWeight", 0, U16),
    ("/linux/resources/blockIO/weightDevice/0/major", i64::MIN, None),
    ("/linux/resources/blockIO/weightDevice/0/minor", i64::MIN, None),
    ("/linux/resources/blockIO/weightDevice/0/weight", 0, U16),
    ("/linux/resources/blockIO/weightDevice/0/leafWeight", 0, U16),
    ("/linux/resources/blockIO/throttleReadBpsDevice/0/major", i64::MIN, None),
    ("/linux/resources/blockIO/throttleReadBpsDevice/0/minor", i64::MIN, None),
    ("/linux/resources/blockIO/throttleReadBpsDevice/0/rate", 0, None),
    ("/linux/resources/blockIO/throttleWriteBpsDevice/0/major", i64::MIN, None),
    ("/linux/resources/blockIO/throttleWriteBpsDevice/0/minor", i64::MIN, None),
    ("/linux/resources/blockIO/throttleWriteBpsDevice/0/rate", 0, None),
    ("/linux/resources/blockIO/throttleReadIOPSDevice/0/major", i64::MIN, None),
    ("/linux/resources/blockIO/throttleReadIOPSDevice/0/minor", i64::MIN, None),
    ("/linux/resources/blockIO/throttleReadIOPSDevice/0/rate", 0, None),
    ("/linux/resources/blockIO/throttleWriteIOPSDevice/0/major", i64::MIN, None),
    ("/linux/resources/blockIO/throttleWriteIOPSDevice/0/minor", i64::MIN, None),
    ("/linux/resources/blockIO/throttleWriteIOPSDevice/0/rate", 0, None),
    ("/linux/resources/hugepageLimits/0/limit", 0, None),
    ("/linux/resources/network/classID", 0, U32),
    ("/linux/resources/network/priorities/0/priority", 0, U32),
    ("/linux/resources/rdma/mlx5_1/hcaHandles", 0, U32),
    ("/linux/resources/rdma/mlx5_1/hcaObjects", 0, U32),
    ("/linux/seccomp/defaultErrnoRet", 0, U32),
    ("/linux/seccomp/syscalls/0/errnoRet", 0, U32),
    ("/linux/seccomp/syscalls/0/args/0/index", 0, U32),
    ("/linux/seccomp/syscalls/0/args/0/value", 0, None),
    ("/linux/seccomp/syscalls/0/args/0/valueTwo", 0, None),
];
const U16: Option<i64> = Some(u16::MAX as i64);
const U32: Option<i64> = Some(u32::MAX as i64);
const I32: (i64, Option<i64>) = (i32::MIN as i64, Some(i32::MAX as i64));

/// The default configuration with one part of that which has everything: errors of others do not come first.
fn base_with(cx: &Cx, pointer: &str) -> Value {
    let levels = match pointer {
        p if p.starts_with("/linux/resources/") => 3,
        p if p.starts_with("/process/") || p.starts_with("/linux/") => 2,
        _ => 1,
    };
    let end = pointer.match_indices('/').map(|(at, _)| at).nth(levels).unwrap_or(pointer.len());
    let mut config = base(cx);
    let all = everything();
    let (parent, key) = pointer[..end].rsplit_once('/').unwrap_or_default();
    if let (Some(part), Some(at)) = (all.pointer(&pointer[..end]), config.pointer_mut(parent)) {
        at[key] = part.clone();
    }
    config
}

/// Every field that holds a number: just below and just above what it can hold.
fn bounds(cx: &Cx) -> Result<()> {
    let mut all = vec![];
    nodes(&everything(), "", &mut all);
    for (pointer, _) in all.iter().filter(|(_, value)| value.is_number()) {
        ensure!(BOUNDS.iter().any(|row| row.0 == pointer), "no bounds of {pointer}");
    }
    let mut cases = Cases::new(cx)?;
    let before = cx.snapshot()?;
    for (pointer, min, max) in BOUNDS {
        let above = match max {
            Some(max) => (i128::from(*max) + 1).to_string(),
            None if *min == i64::MIN => "9223372036854775808".into(),
            None => "18446744073709551616".into(),
        };
        for value in [(i128::from(*min) - 1).to_string(), above] {
            let mut config = base_with(cx, pointer);
            let at = config.pointer_mut(pointer);
            *at.ok_or_else(|| anyhow::anyhow!("no {pointer}"))? = serde_json::from_str(&value)?;
            cases.refused(config, pointer, &value)?;
        }
    }
    cases.done(&before)
}

/// Every field that holds a string: what stands behind a NUL byte would be lost on the way to the kernel.
fn nul_bytes(cx: &Cx) -> Result<()> {
    // Strings that the kernel never sees, or not in this configuration.
    let unseen = |pointer: &str| {
        matches!(pointer, "/annotations/a" | "/linux/personality/flags/0" | "/linux/seccomp/syscalls/0/names/0" | "/mounts/0/type")
            // Without SCMP_ACT_NOTIFY there is no listener.
            || pointer.starts_with("/linux/seccomp/listener")
            // Without the controller they are refused as a whole.
            || pointer.starts_with("/linux/resources/network/") || pointer.starts_with("/linux/resources/unified/")
    };
    let mut all = vec![];
    nodes(&everything(), "", &mut all);
    let mut cases = Cases::new(cx)?;
    let before = cx.snapshot()?;
    for (pointer, _) in all.iter().filter(|(pointer, value)| value.is_string() && !unseen(pointer)) {
        let mut config = base_with(cx, pointer);
        // What would be refused first, or cannot be here.
        if pointer != "/hostname"
            && let Some(all) = config.as_object_mut()
        {
            all.remove("hostname");
        }
        if let Some(cpu) = config.pointer_mut("/linux/resources/cpu").and_then(Value::as_object_mut) {
            cpu.remove("realtimeRuntime");
            cpu.remove("realtimePeriod");
        }
        // The directory for the cgroup goes where the test's are, if anything is made at all.
        let value =
            if pointer == "/linux/cgroupsPath" { format!("{}/a\0b", cx.cgroup) } else { "/a\0b".into() };
        let at = config.pointer_mut(pointer);
        *at.ok_or_else(|| anyhow::anyhow!("no {pointer}"))? = json!(value);
        // Options are read as one list.
        let named = if pointer == "/mounts/0/options/0" { "/mounts/0/options" } else { pointer.as_str() };
        cases.refused(config, named, "a NUL byte")?;
    }
    cases.done(&before)
}

/// Values that are right but have to be adapted (other names, unknown capabilities) are not what the error is about.
fn mistakes_beside_what_is_adapted(cx: &Cx) -> Result<()> {
    let mut c = Cases::new(cx)?;
    let before = cx.snapshot()?;
    for (pointer, value) in [
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"]})),
        ("/process/capabilities/bounding", json!(["CAP_OF_THE_FUTURE"])),
        ("/process/execCPUAffinity", json!({"initial": "0, 0"})),
    ] {
        for compact in [false, true] {
            c.compact = compact;
            let mut config = base(cx);
            if let Some(process) =
                config.pointer_mut(pointer.rsplit_once('/').map_or("", |(parent, _)| parent))
            {
                process[pointer.rsplit('/').next().unwrap_or_default()] = value.clone();
            }
            config["linux"]["maskedPaths"] = json!(["/proc/kcore", 17]);
            c.refused(config, "/linux/maskedPaths/1", &value.to_string())?;
        }
    }
    c.done(&before)
}

fn ranges(cx: &Cx) -> Result<()> {
    let mut c = Cases::new(cx)?;
    let before = cx.snapshot()?;
    let huge: Value = serde_json::from_str("99999999999999999999999")?;
    for pointer in [
        "/process/user/uid",
        "/process/user/gid",
        "/process/user/umask",
        "/linux/resources/pids/limit",
        "/linux/resources/cpu/quota",
        "/linux/resources/memory/limit",
        "/process/oomScoreAdj",
    ] {
        c.with(pointer, huge.clone())?;
    }
    for (pointer, value) in [
        ("/process/user/uid", json!(-1)),
        ("/process/user/uid", json!(4_294_967_295u32)),
        ("/process/user/uid", json!(4_294_967_296u64)),
        ("/process/user/gid", json!(-1)),
        ("/process/user/gid", json!(4_294_967_295u32)),
        ("/process/user/umask", json!(-1)),
        ("/process/user/additionalGids", json!([1, -1])),
        ("/process/user/additionalGids", json!([1, 4_294_967_295u32])),
        ("/process/oomScoreAdj", json!(1001)),
        ("/process/oomScoreAdj", json!(-1001)),
        ("/process/consoleSize", json!({"height": 65536, "width": 1})),
        ("/process/consoleSize", json!({"height": 1, "width": -1})),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8})),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": -1})),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 20})),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": -21})),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": -1})),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 100})),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 0})),
        ("/process/scheduler", json!({"policy": "SCHED_DEADLINE", "runtime": 5, "deadline": 4, "period": 4})),
        ("/process/scheduler", json!({"policy": "SCHED_DEADLINE"})),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}])),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": -1, "hard": 1}])),
        ("/process/execCPUAffinity", json!({"initial": "70000"})),
        ("/process/execCPUAffinity", json!({"final": "3-1"})),
        ("/hooks", json!({"prestart": [{"path": "/bin/true", "timeout": 0}]})),
        ("/hooks", json!({"poststop": [{"path": "/bin/true", "timeout": -1}]})),
        ("/linux/devices", json!([{"type": "c", "path": "/dev/x", "major": -1, "minor": 0}])),
        ("/linux/devices", json!([{"type": "c", "path": "/dev/x", "major": 4096, "minor": 0}])),
        ("/linux/devices", json!([{"type": "c", "path": "/dev/x", "major": 1, "minor": 1_048_576}])),
        (
            "/linux/devices",
            json!([{"type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": 65536}]),
        ),
        ("/linux/devices", json!([{"type": "c", "path": "/dev/x", "major": 1, "minor": 3, "uid": -1}])),
        ("/linux/resources/cpu/shares", json!(-1)),
        ("/linux/resources/cpu/period", json!(-1)),
        ("/linux/resources/cpu/idle", json!(2)),
        ("/linux/resources/blockIO/weight", json!(65536)),
        ("/linux/resources/blockIO/weight", json!(1001)),
        ("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": -1}])),
        ("/linux/resources/network/classID", json!(-1)),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 65536})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1})),
        (
            "/linux/seccomp/syscalls/0/args/0/index",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
        ),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "70000"})),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "a"})),
    ] {
        match pointer.strip_suffix("/syscalls/0/args/0/index") {
            Some(parent) => c.with_at(parent, value, pointer)?,
            None => c.with(pointer, value)?,
        }
    }
    c.done(&before)
}

fn words(cx: &Cx) -> Result<()> {
    let mut c = Cases::new(cx)?;
    let before = cx.snapshot()?;
    let namespaces = |entry: Value| json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, entry]);
    for (pointer, value) in [
        ("/ociVersion", json!("one")),
        ("/ociVersion", json!("1.0")),
        ("/ociVersion", json!("")),
        ("/root/path", json!("/absent")),
        ("/root/path", json!("config.json")),
        ("/process/cwd", json!("relative")),
        ("/process/cwd", json!("")),
        ("/process/cwd", json!("/a\u{0}b")),
        ("/process/args", json!([])),
        ("/process/args", json!(["/bin/probe", "a\u{0}b"])),
        ("/process/env", json!(["PATH=/bin", "NOVALUE"])),
        ("/process/env", json!(["=x"])),
        ("/process/env", json!(["A=\u{0}"])),
        ("/process/capabilities/ambient", json!([""])),
        ("/process/rlimits", json!([{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}])),
        ("/process/rlimits", json!([{"type": "", "soft": 1, "hard": 1}])),
        ("/process/scheduler", json!({"policy": "SCHED_NONE"})),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NONE"]})),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_NONE", "priority": 0})),
        ("/process/apparmorProfile", json!("a\u{0}b")),
        ("/process/selinuxLabel", json!("a\u{0}b")),
        ("/hostname", json!("x".repeat(65))),
        ("/hostname", json!("a\u{0}b")),
        ("/domainname", json!("x".repeat(65))),
        ("/mounts", json!([{"destination": "/", "type": "tmpfs", "source": "x"}])),
        ("/mounts", json!([{"destination": "/mnt", "type": "nosuchfs", "source": "x"}])),
        ("/mounts", json!([{"destination": "/mnt", "type": "", "source": "x"}])),
        (
            "/mounts",
            json!([{"destination": "/mnt", "type": "tmpfs", "source": "x", "options": ["nosuchoption"]}]),
        ),
        (
            "/mounts",
            json!([{"destination": "/mnt", "type": "bind", "source": "/absent", "options": ["bind"]}]),
        ),
        ("/mounts", json!([{"destination": "/mnt", "options": ["bind"]}])),
        ("/mounts", json!([{"destination": "/m\u{0}t", "type": "tmpfs"}])),
        (
            "/mounts",
            json!([{"destination": "/proc/self", "type": "bind", "source": "/tmp", "options": ["bind"]}]),
        ),
        ("/hooks", json!({"createRuntime": [{"path": "bin/true"}]})),
        ("/hooks", json!({"createRuntime": [{"path": ""}]})),
        ("/hooks", json!({"createContainer": [{"path": "bin/true"}]})),
        ("/hooks", json!({"startContainer": [{"path": "true"}]})),
        ("/hooks", json!({"poststart": [{"path": "true"}]})),
        ("/hooks", json!({"poststop": [{"path": "true"}]})),
        ("/linux/namespaces", namespaces(json!({"type": "none"}))),
        ("/linux/namespaces", namespaces(json!({"type": "ipc", "path": "relative"}))),
        ("/linux/namespaces", namespaces(json!({"type": "ipc", "path": "/absent"}))),
        ("/linux/namespaces", namespaces(json!({"type": "ipc", "path": "/proc/self/ns/uts"}))),
        ("/linux/namespaces", namespaces(json!({"type": "ipc", "path": "/proc/self/status"}))),
        ("/linux/devices", json!([{"type": "x", "path": "/dev/x", "major": 1, "minor": 3}])),
        ("/linux/devices", json!([{"type": "c", "path": "dev/x", "major": 1, "minor": 3}])),
        ("/linux/devices", json!([{"type": "c", "path": "", "major": 1, "minor": 3}])),
        ("/linux/netDevices", json!({"a/b": {}})),
        ("/linux/netDevices", json!({"lo": {"name": "sixteen-letters-"}})),
        ("/linux/netDevices", json!({"absent0": {}})),
        ("/linux/rootfsPropagation", json!("none")),
        ("/linux/maskedPaths", json!(["relative"])),
        ("/linux/readonlyPaths", json!([""])),
        ("/linux/sysctl", json!({"kernel.core_pattern": "x"})),
        ("/linux/sysctl", json!({"kernel.hostname": "x"})),
        ("/linux/sysctl", json!({"net.ipv4.no_such_setting": "1"})),
        ("/linux/sysctl", json!({"../../x": "1"})),
        ("/linux/sysctl", json!({"": "1"})),
        ("/linux/personality", json!({"domain": "LINUX64"})),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_NONE"})),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_DEFAULT", "flags": ["MPOL_F_NONE"]})),
        ("/linux/intelRdt", json!({"closID": ".."})),
        ("/linux/intelRdt", json!({"closID": "a/b"})),
        ("/linux/intelRdt", json!({"memBwSchema": "0=20"})),
        ("/linux/intelRdt", json!({"schemata": ["a\nb"]})),
        ("/linux/intelRdt", json!({})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NONE"})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NONE"]})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NONE"]})),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [""], "action": "SCMP_ACT_ERRNO"}]}),
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getcwd"], "action": "ERRNO"}]}),
        ),
        ("/linux/resources/devices", json!([{"allow": true, "type": "x", "access": "r"}])),
        ("/linux/resources/devices", json!([{"allow": true, "type": "c", "access": "x"}])),
        ("/linux/resources/devices", json!([{"allow": true, "type": "c", "access": ""}])),
        ("/linux/resources/hugepageLimits", json!([{"pageSize": "3MB", "limit": 1}])),
        ("/linux/resources/unified", json!({"../x": "1"})),
        ("/linux/resources/unified", json!({"memory/high": "1"})),
    ] {
        c.with(pointer, value)?;
    }
    c.done(&before)
}

fn combinations(cx: &Cx) -> Result<()> {
    let mut c = Cases::new(cx)?;
    let before = cx.snapshot()?;
    let all =
        json!([{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]);
    let without = |kind: &str| {
        Value::Array(all.as_array().into_iter().flatten().filter(|n| n["type"] != kind).cloned().collect())
    };
    let ids = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let twice = json!({"type": "RLIMIT_CORE", "soft": 1, "hard": 1});
    for (changes, named) in [
        (
            vec![("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}]))],
            "/linux/namespaces/1/type",
        ),
        (vec![("/linux/namespaces", without("uts"))], "/hostname"),
        (
            vec![
                ("/linux/namespaces", without("uts")),
                ("/hostname", json!("")),
                ("/domainname", json!("d")),
            ],
            "/domainname",
        ),
        (
            vec![
                ("/linux/namespaces", without("network")),
                ("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
            ],
            "/linux/sysctl",
        ),
        (
            vec![("/linux/namespaces", without("ipc")), ("/linux/sysctl", json!({"kernel.shmmax": "1"}))],
            "/linux/sysctl",
        ),
        (
            vec![("/linux/namespaces", without("network")), ("/linux/netDevices", json!({"lo": {}}))],
            "/linux/netDevices/lo",
        ),
        (
            vec![("/linux/netDevices", json!({"a0": {"name": "x"}, "b0": {"name": "x"}}))],
            "/linux/netDevices/b0/name",
        ),
        (vec![("/linux/uidMappings", ids.clone())], "/linux/uidMappings"),
        (vec![("/linux/gidMappings", ids.clone())], "/linux/gidMappings"),
        (vec![("/linux/timeOffsets", json!({"boottime": {"secs": 1}}))], "/linux/timeOffsets"),
        (vec![("/process/rlimits", json!([twice, twice]))], "/process/rlimits/1"),
        (
            vec![("/process/scheduler", json!({"policy": "SCHED_OTHER", "priority": 1}))],
            "/process/scheduler/priority",
        ),
        (
            vec![("/process/scheduler", json!({"policy": "SCHED_FIFO", "runtime": 1}))],
            "/process/scheduler/runtime",
        ),
        (
            vec![("/linux/memoryPolicy", json!({"mode": "MPOL_DEFAULT", "nodes": "0"}))],
            "/linux/memoryPolicy/nodes",
        ),
        (vec![("/linux/memoryPolicy", json!({"mode": "MPOL_BIND"}))], "/linux/memoryPolicy/nodes"),
        (
            vec![(
                "/linux/memoryPolicy",
                json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
            )],
            "/linux/memoryPolicy/flags",
        ),
        (vec![("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "900"}))], "/linux/memoryPolicy"),
        (
            vec![("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}))],
            "/linux/seccomp/defaultErrnoRet",
        ),
        (
            vec![(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}]}),
            )],
            "/linux/seccomp/syscalls/0/errnoRet",
        ),
        (
            vec![(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_NOTIFY"}]}),
            )],
            "/linux/seccomp/listenerPath",
        ),
        (
            vec![("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}))],
            "/linux/seccomp/listenerMetadata",
        ),
        (
            vec![(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]}),
            )],
            "/linux/seccomp/flags/0",
        ),
        (
            vec![(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x", "syscalls": [{"names": ["getcwd", "write"], "action": "SCMP_ACT_NOTIFY"}]}),
            )],
            "/linux/seccomp/syscalls/0/names/1",
        ),
        (
            vec![(
                "/mounts",
                json!([{"destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["bind"], "uidMappings": ids}]),
            )],
            "/mounts/0",
        ),
        (
            vec![(
                "/mounts",
                json!([{"destination": "/mnt", "type": "tmpfs", "source": "x", "options": ["idmap"]}]),
            )],
            "/mounts/0",
        ),
        (vec![("/linux/maskedPaths", json!(["/proc/keys", "x"]))], "/linux/maskedPaths/1"),
        (
            vec![("/linux/resources/memory", json!({"limit": 10_000_000, "swap": 1_000_000}))],
            "/linux/resources/memory",
        ),
    ] {
        let what = json!(changes).to_string();
        c.bundle.config = base(cx);
        for (pointer, value) in changes {
            c.bundle.set(pointer, value);
        }
        let config = c.bundle.config.clone();
        c.refused(config, named, &what)?;
    }
    c.done(&before)
}

/// What is required and not there.
fn missing(cx: &Cx) -> Result<()> {
    let mut c = Cases::new(cx)?;
    let before = cx.snapshot()?;
    for (pointer, named) in [
        ("/ociVersion", ""),
        ("/root", "/root"),
        ("/root/path", "/root"),
        ("/process/cwd", "/process"),
        ("/process/args", "/process/args"),
    ] {
        c.bundle.config = base(cx);
        c.bundle.remove(pointer);
        let config = c.bundle.config.clone();
        c.refused(config, named, "nothing")?;
    }
    for (pointer, value, named) in [
        ("/mounts", json!([{"type": "tmpfs"}]), "/mounts/0"),
        ("/hooks", json!({"prestart": [{"args": ["x"]}]}), "/hooks/prestart/0"),
        ("/process/rlimits", json!([{"soft": 1, "hard": 1}]), "/process/rlimits/0"),
        ("/process/scheduler", json!({"nice": 1}), "/process/scheduler"),
        ("/process/ioPriority", json!({"priority": 1}), "/process/ioPriority"),
        ("/linux/namespaces", json!([{"path": "/x"}]), "/linux/namespaces/0"),
        ("/linux/devices", json!([{"type": "c", "major": 1, "minor": 3}]), "/linux/devices/0"),
        ("/linux/devices", json!([{"path": "/dev/x", "major": 1, "minor": 3}]), "/linux/devices/0"),
        ("/linux/seccomp", json!({}), "/linux/seccomp"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO"}]}),
            "/linux/seccomp/syscalls/0",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getcwd"]}]}),
            "/linux/seccomp/syscalls/0",
        ),
        ("/linux/memoryPolicy", json!({"nodes": "0"}), "/linux/memoryPolicy"),
        ("/linux/personality", json!({}), "/linux/personality"),
        ("/linux/resources/hugepageLimits", json!([{"limit": 1}]), "/linux/resources/hugepageLimits/0"),
    ] {
        c.with_at(pointer, value, named)?;
    }
    c.done(&before)
}

fn not_json(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    let before = cx.snapshot()?;
    let deep = "[".repeat(200_000);
    for text in [
        "",
        "{",
        "null",
        "17",
        "\"x\"",
        "[]",
        "{\"ociVersion\":",
        "\u{0}",
        "{\"process\":{\"args\":[\"\\ud800\"]}}",
        &deep,
    ] {
        std::fs::write(b.dir.join("config.json"), text)?;
        let out = b.container().create(&[])?;
        let short: String = text.chars().take(20).collect();
        ensure!(out.code == 1, "{short:?}: exit {} {}", out.code, out.stderr);
    }
    cx.nothing_left(&before)
}
