//! `probe json`: everything a process can see of its own container, as one JSON object on one line.
//! It only reads; what cannot be read is null. Called by `main.rs`.

use crate::sys;
use nix::sys::stat::{SFlag, lstat, major, minor};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

const RLIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// The whole report.
pub fn report() -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(|v| v.trim().to_string())
    };
    let uids = nix::unistd::getresuid().ok();
    let gids = nix::unistd::getresgid().ok();
    let limits: Map<String, Value> = RLIMITS
        .iter()
        .enumerate()
        .filter_map(|(i, name)| {
            let (soft, hard) = sys::rlimit(i as u32).ok()?;
            Some((format!("RLIMIT_{name}"), json!([soft, hard])))
        })
        .collect();
    json!({
        "args": std::env::args().collect::<Vec<_>>(),
        "environ": std::env::vars_os()
            .map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy())).collect::<Vec<_>>(),
        "pid": std::process::id(),
        "ppid": nix::unistd::getppid().as_raw(),
        "pgrp": nix::unistd::getpgrp().as_raw(),
        "sid": nix::unistd::getsid(None).map(|p| p.as_raw()).ok(),
        "uid": uids.map(|u| vec![u.real.as_raw(), u.effective.as_raw(), u.saved.as_raw()]),
        "gid": gids.map(|g| vec![g.real.as_raw(), g.effective.as_raw(), g.saved.as_raw()]),
        "groups": nix::unistd::getgroups().ok().map(|g| g.iter().map(|g| g.as_raw()).collect::<Vec<_>>()),
        "umask": sys::umask(),
        "cwd": sys::raw_getcwd().ok(),
        "caps": {
            "inheritable": field("CapInh"), "permitted": field("CapPrm"), "effective": field("CapEff"),
            "bounding": field("CapBnd"), "ambient": field("CapAmb"),
        },
        "no_new_privs": field("NoNewPrivs"),
        "seccomp": field("Seccomp"),
        "seccomp_filters": field("Seccomp_filters"),
        "sig_blocked": field("SigBlk"),
        "sig_ignored": field("SigIgn"),
        "cpus_allowed": field("Cpus_allowed_list"),
        "mems_allowed": field("Mems_allowed_list"),
        "rlimits": limits,
        "hostname": read("/proc/sys/kernel/hostname").or_else(|| nix::unistd::gethostname().ok()?.into_string().ok()),
        "domainname": read("/proc/sys/kernel/domainname"),
        "oom_score_adj": read("/proc/self/oom_score_adj"),
        "personality": sys::raw(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]).ok(),
        "sched_policy": sys::raw(libc::SYS_sched_getscheduler, [0; 6]).ok(),
        "nice": sys::raw(libc::SYS_getpriority, [0; 6]).ok().map(|v| 20 - v),
        "ioprio": sys::raw(libc::SYS_ioprio_get, [1, 0, 0, 0, 0, 0]).ok(),
        "pdeathsig": pdeathsig(),
        "session_keyring": sys::session_keyring().ok(),
        "ns": links("/proc/self/ns"),
        "cgroup": read_lines("/proc/self/cgroup"),
        "mountinfo": read_lines("/proc/self/mountinfo"),
        "fds": fds(),
        "dev": nodes("/dev"),
        "root": names("/"),
        "lsm": read("/proc/self/attr/current"),
        "mempolicy": sys::memory_policy().ok().map(|(mode, nodes)| json!([mode, nodes])),
        "sched": sys::scheduling().ok().map(|s| json!({
            "policy": s.policy, "flags": s.flags, "nice": s.nice, "priority": s.priority,
            "runtime": s.runtime, "deadline": s.deadline, "period": s.period,
        })),
    })
}

fn pdeathsig() -> Option<i32> {
    nix::sys::prctl::get_pdeathsig().ok().map(|s| s.map_or(0, |s| s as i32))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|s| s.trim_end_matches(['\n', '\0']).to_string())
}

fn read_lines(path: &str) -> Option<Vec<String>> {
    fs::read_to_string(path).ok().map(|s| s.lines().map(String::from).collect())
}

/// Namespaces, cgroups and root directory of another process.
pub fn peer(pid: i64) -> Value {
    json!({
        "ns": links(&format!("/proc/{pid}/ns")),
        "cgroup": read_lines(&format!("/proc/{pid}/cgroup")),
        "root": names(&format!("/proc/{pid}/root")),
    })
}

/// The names in a directory, sorted.
pub fn names(dir: &str) -> Option<Vec<String>> {
    let mut names: Vec<_> =
        fs::read_dir(dir).ok()?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Some(names)
}

fn links(dir: &str) -> Option<Map<String, Value>> {
    let all = names(dir)?;
    let read =
        |n: &String| fs::read_link(Path::new(dir).join(n)).ok().map(|l| l.to_string_lossy().into_owned());
    Some(all.into_iter().filter_map(|n| read(&n).map(|l| (n, json!(l)))).collect())
}

/// Open descriptors and what they are. The one that lists the directory is left out: its target is gone by then.
fn fds() -> Option<Map<String, Value>> {
    let all = names("/proc/self/fd")?;
    let mut out = Map::new();
    for n in all {
        if let Ok(target) = fs::read_link(format!("/proc/self/fd/{n}")) {
            out.insert(n, json!(target.to_string_lossy()));
        }
    }
    Some(out)
}

fn nodes(dir: &str) -> Option<Map<String, Value>> {
    let all = names(dir)?;
    Some(all.into_iter().map(|n| (n.clone(), node(&format!("{dir}/{n}")))).collect())
}

/// One file: type letter, device number, permissions, owner and, for a symlink, its target.
pub fn node(path: &str) -> Value {
    let s = match lstat(path) {
        Ok(s) => s,
        Err(e) => return json!({ "error": format!("{e:?}") }),
    };
    let kind = match SFlag::from_bits_truncate(s.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFCHR => "c",
        SFlag::S_IFBLK => "b",
        SFlag::S_IFDIR => "d",
        SFlag::S_IFLNK => "l",
        SFlag::S_IFIFO => "p",
        SFlag::S_IFSOCK => "s",
        _ => "f",
    };
    let mut v = json!({ "type": kind, "mode": format!("{:o}", s.st_mode & 0o7777), "uid": s.st_uid, "gid": s.st_gid });
    if kind == "c" || kind == "b" {
        v["rdev"] = json!(format!("{}:{}", major(s.st_rdev), minor(s.st_rdev)));
    }
    if kind == "l" {
        v["target"] = json!(fs::read_link(path).ok().map(|t| t.to_string_lossy().into_owned()));
    }
    if kind == "f" {
        v["size"] = json!(s.st_size);
    }
    v
}
