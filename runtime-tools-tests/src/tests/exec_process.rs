//! `exec`: the process it makes, by flags over the config or by a process file.

use super::exec::sleeping;
use super::tests;
use crate::container::Container;
use crate::cx::{Cx, eq, same};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;

tests!["exec":
    environment,
    environment_with_newline_and_commas,
    cwd deviates ["crun" = "starts in /"],
    cwd_missing,
    user deviates ["crun" = "takes no group from the config"],
    user_bad deviates ["runc" = "4294967296 is user 0", "crun" = "exits with 1"],
    additional_gids deviates ["crun" = "has no such flag"],
    home,
    capabilities_like_config,
    capabilities_added deviates ["crun" = "takes none from the config then"],
    no_new_privs deviates ["crun" = "takes nothing from the config"],
    seccomp_like_config,
    umask_and_rlimits_like_config deviates ["crun" = "takes no limits from the config"],
    process_file,
    process_file_does_not_inherit,
    process_file_all_fields,
    process_file_least,
    process_file_umask deviates ["runc" = "takes the one of the config"],
    path_from_environment,
];

fn process(args: &[&str]) -> Value {
    let mut all = vec!["/bin/probe"];
    all.extend(args);
    json!({"args": all, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]})
}

/// Runs `exec --process` with this object.
fn with_file(c: &Container, process: &Value, flags: &[&str]) -> Result<crate::cx::Out> {
    let file = c.cx.path(&format!("process.{}", c.cx.next()));
    fs::write(&file, process.to_string())?;
    let file = file.display().to_string();
    let mut args = vec!["exec", "--process", &file];
    args.extend(flags);
    args.push(&c.id);
    c.cx.rt(&args)
}

fn environ(v: &Value) -> Vec<String> {
    v["environ"]
        .as_array()
        .map(|a| a.iter().filter_map(|s| s.as_str().map(String::from)).collect())
        .unwrap_or_default()
}

/// The config's variables and those of the command line; the last of equal names wins.
fn environment(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/env", json!(["PATH=/bin", "FROM=config", "SAME=config"])).probe(&["sleep"]);
    let c = b.start()?;
    let got = environ(&c.exec_inside(&["-e", "ADDED=1", "-e", "SAME=2", "-e", "TWICE=1", "-e", "TWICE=2"])?);
    for wanted in ["PATH=/bin", "FROM=config", "ADDED=1", "SAME=2", "TWICE=2"] {
        ensure!(got.iter().any(|v| v == wanted), "no {wanted} in {got:?}");
    }
    let last = |name: &str| got.iter().rfind(|v| v.starts_with(name)).cloned();
    eq("the last of SAME", last("SAME="), Some("SAME=2".into()))?;
    eq("the last of TWICE", last("TWICE="), Some("TWICE=2".into()))?;
    let got = environ(&c.exec_inside(&["--env", "A=1", "--env=B=2"])?);
    ensure!(got.contains(&"A=1".into()) && got.contains(&"B=2".into()), "{got:?}");
    c.end()
}

fn environment_with_newline_and_commas(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let got = environ(&c.exec_inside(&["-e", "N=a\nb", "-e", "C=1,2,3", "-e", "E=", "-e", "Q==="])?);
    for wanted in ["N=a\nb", "C=1,2,3", "E=", "Q==="] {
        ensure!(got.iter().any(|v| v == wanted), "no {wanted:?} in {got:?}");
    }
    c.end()
}

fn cwd(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/cwd", json!("/home")).probe(&["sleep"]);
    let c = b.start()?;
    same("default", &c.exec_inside(&[])?["cwd"], json!("/home"))?;
    same("--cwd", &c.exec_inside(&["--cwd", "/tmp"])?["cwd"], json!("/tmp"))?;
    c.end()
}

fn cwd_missing(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/root/readonly", json!(false)).probe(&["sleep"]);
    let c = b.start()?;
    // A container's own is made at create; what exec makes would stay behind in the container.
    let out = c.exec(&["--cwd", "/absent"], &["json"])?;
    ensure!(out.code != 0 && out.stderr.contains("/absent"), "status {}, stderr {}", out.code, out.stderr);
    ensure!(!c.bundle.join("rootfs/absent").exists(), "the directory was made");
    c.end()
}

fn user(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7]})).probe(&["sleep"]);
    let c = b.start()?;
    for (flag, value, uid, gid) in
        [("--user", "1000:2000", 1000, 2000), ("-u", "1000", 1000, 6), ("--user", "0:0", 0, 0)]
    {
        let v = c.exec_inside(&[flag, value])?;
        same("uid", &v["uid"], json!([uid, uid, uid]))?;
        same("gid", &v["gid"], json!([gid, gid, gid]))?;
    }
    let v = c.exec_inside(&[])?;
    same("uid", &v["uid"], json!([5, 5, 5]))?;
    same("groups", &v["groups"], json!([7]))?;
    c.end()
}

/// Go reads what is left out as zero, and callers that are written in it leave it out.
fn process_file_least(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let least = json!({"args": ["/bin/probe", "json"], "cwd": "/", "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
        "scheduler": {"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}});
    let v = with_file(&c, &least, &[])?.ok()?.json()?;
    same("uid", &v["uid"], json!([0, 0, 0]))?;
    same("gid", &v["gid"], json!([0, 0, 0]))?;
    c.end()
}

/// Only numbers: a name from the image must not decide (CVE-2016-3697).
fn user_bad(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for value in ["root", ":", "1:", "1:x", "-1", "4294967296", "1 ", "0x1", "1:2:3"] {
        let out = c.exec(&["--user", value], &["json"])?;
        ensure!(out.code == 255, "--user {value:?}: exit {} {}{}", out.code, out.stdout, out.stderr);
    }
    c.end()
}

fn additional_gids(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for flag in ["--additional-gids", "-g"] {
        let v = c.exec_inside(&[flag, "100", flag, "65534", "--user", "1000"])?;
        let mut groups: Vec<i64> = v["groups"]
            .as_array()
            .context("groups")?
            .iter()
            .filter_map(Value::as_i64)
            .filter(|g| *g != 0)
            .collect();
        groups.sort();
        eq("groups", groups, vec![100, 65534])?;
    }
    c.end()
}

/// From the container's passwd file by number, not by name; `/` when it is not there.
fn home(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for (user, home) in
        [("0", "HOME=/root"), ("1000", "HOME=/home/user"), ("1001", "HOME=/"), ("4000", "HOME=/")]
    {
        let got = environ(&c.exec_inside(&["--user", user])?);
        let homes: Vec<&String> = got.iter().filter(|v| v.starts_with("HOME=")).collect();
        eq(&format!("home of {user}"), homes, vec![home])?;
    }
    let got = environ(&c.exec_inside(&["--user", "1000", "-e", "HOME=/mine"])?);
    ensure!(got.contains(&"HOME=/mine".to_string()), "{got:?}");
    c.end()
}

fn capabilities_like_config(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let v = c.exec_inside(&[])?;
    let bits = "0000000020000420";
    for set in ["permitted", "effective", "bounding"] {
        same(set, &v["caps"][set], json!(bits))?;
    }
    same("inheritable", &v["caps"]["inheritable"], json!("0000000000000000"))?;
    same("ambient", &v["caps"]["ambient"], json!("0000000000000000"))?;
    c.end()
}

/// `--cap` goes to bounding, permitted and effective; inheritable stays as it was (CVE-2022-27650).
fn capabilities_added(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for flag in ["--cap", "-c"] {
        let v = c.exec_inside(&[flag, "CAP_SYS_CHROOT"])?;
        let bits = "0000000020040420";
        for set in ["permitted", "effective", "bounding"] {
            same(set, &v["caps"][set], json!(bits))?;
        }
        same("inheritable", &v["caps"]["inheritable"], json!("0000000000000000"))?;
    }
    c.end()
}

fn no_new_privs(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/noNewPrivileges", json!(false)).probe(&["sleep"]);
    let c = b.start()?;
    same("off", &c.exec_inside(&[])?["no_new_privs"], json!("0"))?;
    same("on", &c.exec_inside(&["--no-new-privs"])?["no_new_privs"], json!("1"))?;
    c.end()?;
    let c = sleeping(cx)?;
    same("of the config", &c.exec_inside(&[])?["no_new_privs"], json!("1"))?;
    c.end()
}

fn seccomp_like_config(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
               "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}),
    );
    b.probe(&["sleep"]);
    let c = b.start()?;
    let out = c.exec(&[], &["seq", "syscall", "getcwd", "---", "syscall", "getpid"])?.ok()?;
    eq("calls", out.lines(), vec!["EACCES", "ok"])?;
    same("mode", &c.exec_inside(&[])?["seccomp"], json!("2"))?;
    c.end()
}

fn umask_and_rlimits_like_config(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/user/umask", json!(0o27))
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]))
        .set("/process/oomScoreAdj", json!(321))
        .probe(&["sleep"]);
    let c = b.start()?;
    let v = c.exec_inside(&[])?;
    same("umask", &v["umask"], json!(0o27))?;
    same("nofile", &v["rlimits"]["RLIMIT_NOFILE"], json!([100, 200]))?;
    same("oom_score_adj", &v["oom_score_adj"], json!("321"))?;
    c.end()
}

fn process_file(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for flag in ["--process", "-p"] {
        let file = cx.path("process.json");
        let mut p = process(&["json"]);
        p["env"] = json!(["A=1", "PATH=/nowhere"]);
        p["cwd"] = json!("/tmp");
        p["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [4, 5]});
        fs::write(&file, p.to_string())?;
        let v = cx.rt(&["exec", flag, &file.display().to_string(), &c.id])?.ok()?.json()?;
        same("uid", &v["uid"], json!([1000, 1000, 1000]))?;
        same("groups", &v["groups"], json!([4, 5]))?;
        same("cwd", &v["cwd"], json!("/tmp"))?;
        let env = environ(&v);
        ensure!(env.contains(&"A=1".into()) && env.contains(&"HOME=/home/user".into()), "env {env:?}");
    }
    c.end()
}

/// What the file leaves out is off, not taken from the config.
fn process_file_does_not_inherit(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/env", json!(["PATH=/bin", "FROM=config"]))
        .set("/process/cwd", json!("/tmp"))
        .probe(&["sleep"]);
    b.set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7]}));
    let c = b.start()?;
    let v = with_file(&c, &process(&["json"]), &[])?.ok()?.json()?;
    ensure!(!environ(&v).iter().any(|e| e.starts_with("FROM=")), "env {:?}", environ(&v));
    same("cwd", &v["cwd"], json!("/"))?;
    same("uid", &v["uid"], json!([0, 0, 0]))?;
    same("groups", &v["groups"], json!([]))?;
    c.end()
}

fn process_file_all_fields(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let mut p = process(&["json"]);
    p["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"], "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]});
    p["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
    p["noNewPrivileges"] = json!(true);
    let v = with_file(&c, &p, &[])?.ok()?.json()?;
    for (set, bits) in [
        ("bounding", "0000000000000021"),
        ("permitted", "0000000000000021"),
        ("inheritable", "0000000000000001"),
        ("ambient", "0000000000000001"),
    ] {
        same(set, &v["caps"][set], json!(bits))?;
    }
    same("core", &v["rlimits"]["RLIMIT_CORE"], json!([0, 0]))?;
    same("no_new_privs", &v["no_new_privs"], json!("1"))?;
    c.end()
}

fn process_file_umask(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let mut p = process(&["json"]);
    p["user"]["umask"] = json!(0o77);
    same("umask", &with_file(&c, &p, &[])?.ok()?.json()?["umask"], json!(0o77))?;
    c.end()
}

fn path_from_environment(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::create_dir(b.rootfs().join("opt"))?;
    fs::copy(&cx.probe, b.rootfs().join("opt/tool"))?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    cx.rt(&["exec", "-e", "PATH=/absent:/opt", &c.id, "tool", "exit", "6"])?.code(6)?;
    ensure!(cx.rt(&["exec", &c.id, "tool", "exit", "6"])?.code != 6, "found outside of PATH");
    c.end()
}
