//! The real configs of `configs/`, each run as an engine wrote it but for the program, and what must be seen inside.
//! With REFERENCE set, `suite compare` prints what two runtimes show differently.

use super::tests;
use crate::bundle::Bundle;
use crate::compare;
use crate::container::reap;
use crate::cx::{Cx, eq, same};
use crate::terminal::{ConsoleSocket, read_all};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

tests!["configs":
    containerd_ctr,
    docker_default deviates ["crun" = "wants the io controller on v2"],
    docker_limits_tty deviates ["crun" = "wants controllers on v2"],
    docker_privileged deviates ["crun" = "wants the io controller on v2"],
    docker_volumes deviates ["crun" = "wants the io controller on v2"],
    podman_default deviates ["crun" = "wants controllers on v2"],
];

fn containerd_ctr(cx: &Cx) -> Result<()> {
    check(cx, "containerd-ctr")
}

fn docker_default(cx: &Cx) -> Result<()> {
    check(cx, "docker-default")
}

fn docker_limits_tty(cx: &Cx) -> Result<()> {
    check(cx, "docker-limits-tty")
}

fn docker_privileged(cx: &Cx) -> Result<()> {
    check(cx, "docker-privileged")
}

fn docker_volumes(cx: &Cx) -> Result<()> {
    check(cx, "docker-volumes")
}

fn podman_default(cx: &Cx) -> Result<()> {
    check(cx, "podman-default")
}

/// Runs it through create, start, delete and compares what the process sees with what the config says.
fn check(cx: &Cx, name: &str) -> Result<()> {
    let mut b = compare::real_bundle(cx, name)?;
    let v = see(cx, &mut b)?;
    agrees(cx, &b, &v)
}

/// The report of `probe json` from inside, over a console socket where the config has a terminal.
pub fn see(cx: &Cx, b: &mut Bundle) -> Result<Value> {
    b.probe(&["json"]).save()?;
    let c = b.container();
    let terminal = b.config["process"]["terminal"] == true;
    let socket =
        if terminal { Some(ConsoleSocket::new(&cx.path(&format!("console.{}", cx.next())))?) } else { None };
    let path = socket.as_ref().map(|s| s.path.display().to_string());
    let flags: Vec<&str> = path.as_deref().map(|p| vec!["--console-socket", p]).unwrap_or_default();
    let out = c.create(&flags)?.ok()?;
    let pid = c.pid()?;
    let master = socket.map(|s| s.receive()).transpose()?.map(|r| r.master);
    c.start()?.ok()?;
    let text = match &master {
        Some(master) => read_all(master)?,
        None => String::new(),
    };
    eq("exit", reap(pid)?, 0)?;
    c.delete()?.ok()?;
    let text = if master.is_some() { text } else { out.again()?.stdout };
    let from = text.find('{').with_context(|| format!("no report in {text:?}"))?;
    serde_json::from_str(text[from..].trim_end()).context("the report")
}

fn bits(list: &Value) -> Result<u64> {
    let mut bits = 0;
    for name in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
        let number =
            CAPABILITIES.iter().position(|c| name == format!("CAP_{c}")).with_context(|| name.to_string())?;
        bits |= 1u64 << number;
    }
    Ok(bits)
}

/// By number, as the kernel counts them.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn agrees(cx: &Cx, b: &Bundle, v: &Value) -> Result<()> {
    let config = &b.config;
    let process = &config["process"];
    same("uid", &v["uid"][0], process["user"]["uid"].clone())?;
    same("gid", &v["gid"][0], process["user"]["gid"].clone())?;
    same("cwd", &v["cwd"], process["cwd"].clone())?;
    let user = process["user"]["uid"] != 0;
    let bounding = format!("{:016x}", bits(&process["capabilities"]["bounding"])?);
    same("bounding set", &v["caps"]["bounding"], json!(bounding))?;
    let wanted = if user { format!("{:016x}", 0) } else { bounding };
    same("effective set", &v["caps"]["effective"], json!(wanted))?;
    let flag = if process["noNewPrivileges"] == true { "1" } else { "0" };
    same("no_new_privs", &v["no_new_privs"], json!(flag))?;
    let mode = if config["linux"]["seccomp"].is_object() { "2" } else { "0" };
    same("seccomp", &v["seccomp"], json!(mode))?;
    for entry in process["env"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let found = v["environ"].as_array().is_some_and(|l| l.iter().any(|e| e == entry));
        ensure!(found || entry == "HOME=", "no {entry} in {}", v["environ"]);
    }
    for limit in process["rlimits"].as_array().into_iter().flatten() {
        let name = limit["type"].as_str().unwrap_or_default();
        same(name, &v["rlimits"][name], json!([limit["soft"], limit["hard"]]))?;
    }
    if let Some(name) = config["hostname"].as_str() {
        same("hostname", &v["hostname"], json!(name))?;
    }
    let files = [
        ("pid", "pid"),
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("mount", "mnt"),
        ("cgroup", "cgroup"),
    ];
    for (kind, file) in files {
        let listed =
            config["linux"]["namespaces"].as_array().is_some_and(|l| l.iter().any(|n| n["type"] == kind));
        let own = std::fs::read_link(format!("/proc/self/ns/{file}"))?.display().to_string();
        ensure!((v["ns"][file] != json!(own)) == listed, "{kind} namespace: new is not {listed}");
    }
    for mount in config["mounts"].as_array().into_iter().flatten() {
        let target = mount["destination"].as_str().unwrap_or_default();
        let line = v["mountinfo"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .rfind(|l| l.split(' ').nth(4) == Some(target));
        let line = line.with_context(|| format!("no mount at {target}"))?;
        let set: Vec<&str> = line.split(' ').nth(5).unwrap_or_default().split(',').collect();
        for option in mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let option = if option == "rro" { "ro" } else { option };
            let visible = ["ro", "nosuid", "nodev", "noexec"].contains(&option);
            // On v1 the tmpfs over the trees stays writable under the peers.
            let tmpfs = target == "/sys/fs/cgroup" && !cx.unified() && option == "ro";
            ensure!(!visible || tmpfs || set.contains(&option), "{target}: no {option} in {line}");
        }
    }
    for device in config["linux"]["devices"].as_array().into_iter().flatten() {
        let path = device["path"].as_str().unwrap_or_default().trim_start_matches("/dev/");
        // The one in /dev/pts is meant: runtimes pass over a listed /dev/ptmx.
        if !path.contains('/') && path != "ptmx" {
            let wanted = format!("{}:{}", device["major"], device["minor"]);
            same(path, &v["dev"][path]["rdev"], json!(wanted))?;
        }
    }
    if config["root"]["readonly"] == true {
        let root = v["mountinfo"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .rfind(|l| l.split(' ').nth(4) == Some("/"));
        ensure!(
            root.is_some_and(|l| l.split(' ').nth(5).is_some_and(|o| o.starts_with("ro"))),
            "root {root:?}"
        );
    }
    Ok(())
}
