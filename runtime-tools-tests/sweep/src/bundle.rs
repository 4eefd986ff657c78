//! The bundle of the sweep: what a default container has, and enough rules to see when one is missing. Pure.
//! Called by `world`.

use serde_json::{Value, json};

use crate::plan::View;

/// What differs between the bundles of a sweep.
pub struct Wish<'a> {
    /// Container id, also the name of its cgroup.
    pub id: &'a str,
    /// The cgroup view decides on resources.
    pub view: View,
    /// The v2 tree's controllers, as `cgroup.controllers` has them.
    pub controllers: &'a str,
    /// The payload's arguments.
    pub args: &'a [&'a str],
    /// Absolute path of the rootfs.
    pub rootfs: &'a str,
    /// Absolute path of a host directory to bind read-only at /data.
    pub data: &'a str,
    /// A createRuntime hook's program and the file that it appends to.
    pub hook: Option<(&'a str, &'a str)>,
}

/// Directories that the rootfs needs, so that no runtime makes them.
pub const ROOTFS_DIRS: [&str; 7] = ["proc", "dev", "sys", "etc", "tmp", "data", "root"];

/// The config.json of a wish.
pub fn config(wish: &Wish) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    let mut resources = json!({
        "devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        ]
    });
    let has = |name| wish.view == View::V1 || wish.controllers.split_whitespace().any(|c| c == name);
    for (controller, limit) in [
        ("memory", json!({"limit": 67_108_864})),
        ("pids", json!({"limit": 64})),
        ("cpu", json!({"shares": 512})),
    ] {
        if has(controller) {
            resources[controller] = limit;
        }
    }
    if wish.view == View::V2 {
        namespaces.push("cgroup");
    }
    let mut config = json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0, "additionalGids": [5, 10]},
            "args": wish.args,
            "env": ["PATH=/", "TERM=xterm", "SWEEP=1"],
            "cwd": "/root",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512},
                {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
            ],
            "noNewPrivileges": true,
            "oomScoreAdj": 100,
        },
        "root": {"path": wish.rootfs, "readonly": true},
        "hostname": "swept",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
            {"destination": "/data", "type": "bind", "source": wish.data,
             "options": ["rbind", "ro", "nosuid", "rprivate"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "nodev", "noexec", "size=1024k"]},
        ],
        "linux": {
            "cgroupsPath": format!("/{}", wish.id),
            "resources": resources,
            "namespaces": namespaces.iter().map(|n| json!({"type": n})).collect::<Vec<_>>(),
            "devices": [
                {"path": "/dev/denied", "type": "c", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 0, "gid": 0},
            ],
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.msgmax": "9000"},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [
                    {"names": ["acct"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
                    {"names": ["kexec_load", "init_module", "swapon", "swapoff"], "action": "SCMP_ACT_ERRNO"},
                    {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
                     "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
                    // As long as an engine's profile, which is looked at late.
                    {"names": (0..80).map(|n| format!("no_such_call_{n}")).collect::<Vec<_>>(), "action": "SCMP_ACT_LOG"},
                ],
            },
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        }
    });
    if let Some((program, file)) = wish.hook {
        config["hooks"] = json!({
            "createRuntime": [{"path": program, "args": ["probe", "hook", file], "timeout": 5}]
        });
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(view: View, hook: bool) -> Value {
        let controllers = if hook { "hugetlb" } else { "" };
        config(&Wish {
            id: "c1",
            view,
            controllers,
            args: &["/probe", "report"],
            rootfs: "/r",
            data: "/d",
            hook: hook.then_some(("/r/probe", "/log")),
        })
    }

    #[test]
    fn views_and_hook_differ_where_they_must() {
        let v1 = wish(View::V1, false);
        let v2 = wish(View::V2, true);
        assert_eq!(v1["linux"]["namespaces"].as_array().unwrap().len(), 5);
        assert_eq!(v2["linux"]["namespaces"].as_array().unwrap().len(), 6);
        assert_eq!(v1["linux"]["resources"]["pids"]["limit"], 64);
        assert!(v2["linux"]["resources"].get("pids").is_none());
        let whole = config(&Wish {
            id: "c1",
            view: View::V2,
            controllers: "cpuset cpu io memory pids",
            args: &[],
            rootfs: "/r",
            data: "/d",
            hook: None,
        });
        assert_eq!(whole["linux"]["resources"]["pids"]["limit"], 64);
        assert_eq!(whole["linux"]["resources"]["memory"]["limit"], 67_108_864);
        assert!(v1.get("hooks").is_none());
        assert_eq!(v2["hooks"]["createRuntime"][0]["args"][2], "/log");
        assert_eq!(v1["linux"]["cgroupsPath"], "/c1");
    }

    #[test]
    fn every_mount_point_is_in_the_rootfs_or_in_a_mount() {
        for m in wish(View::V1, false)["mounts"].as_array().unwrap() {
            let destination = m["destination"].as_str().unwrap().trim_start_matches('/');
            let top = destination.split('/').next().unwrap();
            assert!(ROOTFS_DIRS.contains(&top), "{destination}");
        }
    }
}
