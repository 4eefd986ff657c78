//! Security labels: AppArmor profiles and SELinux labels, where such a kernel is; refusals where not.
//!
//! `uml.sh --lsm apparmor` boots a kernel with AppArmor. Profiles are compiled by the program named in APPARMOR_PARSER, else
//! `apparmor_parser` of the machine.

use super::tests;
use crate::cx::{Cx, same, skip};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

tests!["labels":
    apparmor_confines,
    apparmor_of_exec,
    apparmor_unconfined,
    apparmor_profile_missing deviates ["crun" = "has words of its own"],
    selinux_label_needs_selinux deviates ["crun" = "runs without"],
    mount_label_without_selinux,
    through_a_false_proc,
];

/// Skips unless AppArmor is in force.
fn need_apparmor() -> Result<()> {
    let on = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if on.is_ok_and(|text| text.starts_with('Y')) && Path::new("/sys/kernel/security/apparmor").exists() {
        Ok(())
    } else {
        skip("this kernel has no AppArmor in force (uml.sh --lsm apparmor has)")
    }
}

/// Loads a profile that lets everything be done but writing below /tmp.
fn load(name: &str) -> Result<()> {
    let parser = option_env!("APPARMOR_PARSER").map_or("apparmor_parser".to_string(), str::to_string);
    let parser = std::env::var("APPARMOR_PARSER").unwrap_or(parser);
    let text = format!(
        "profile {name} flags=(attach_disconnected) {{\n  capability,\n  network,\n  mount,\n  umount,\n  signal,\n  \
         ptrace,\n  unix,\n  file,\n  deny /tmp/** w,\n}}\n"
    );
    let mut command = Command::new(&parser);
    command.args(["--replace", "--skip-cache"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return skip(format!("no {parser} to load a profile"));
        }
        other => other?,
    };
    child.stdin.take().context("no pipe")?.write_all(text.as_bytes())?;
    ensure!(child.wait()?.success(), "{parser} failed");
    Ok(())
}

fn label(v: &Value) -> &str {
    v["lsm"].as_str().unwrap_or_default()
}

fn apparmor_confines(cx: &Cx) -> Result<()> {
    need_apparmor()?;
    load("naru-suite")?;
    let mut b = cx.bundle()?;
    b.set("/process/apparmorProfile", json!("naru-suite"));
    let v = b.inside()?;
    ensure!(label(&v).starts_with("naru-suite (enforce)"), "label {}", v["lsm"]);
    b.expect(&[(&["create", "/tmp/x", "x"], "EACCES"), (&["create", "/x", "x"], "ok")])?;
    // As another user, with and without no_new_privs.
    b.set("/process/user", json!({"uid": 1000, "gid": 1000})).set("/process/noNewPrivileges", json!(false));
    ensure!(label(&b.inside()?).starts_with("naru-suite"), "label lost with the user");
    Ok(())
}

fn apparmor_of_exec(cx: &Cx) -> Result<()> {
    need_apparmor()?;
    load("naru-suite")?;
    let mut b = cx.bundle()?;
    b.set("/process/apparmorProfile", json!("naru-suite")).probe(&["sleep"]);
    let c = b.start()?;
    let v = c.exec_inside(&[])?;
    ensure!(label(&v).starts_with("naru-suite (enforce)"), "label {}", v["lsm"]);
    let v = c.exec_inside(&["--apparmor", "unconfined"]);
    // From within a profile another one is out of reach; the runtime itself is outside.
    ensure!(v.is_ok_and(|v| label(&v).starts_with("unconfined")), "--apparmor has no effect");
    c.end()
}

fn apparmor_unconfined(cx: &Cx) -> Result<()> {
    need_apparmor()?;
    let mut b = cx.bundle()?;
    b.set("/process/apparmorProfile", json!("unconfined"));
    same("label", &b.inside()?["lsm"], json!("unconfined"))
}

fn apparmor_profile_missing(cx: &Cx) -> Result<()> {
    need_apparmor()?;
    let mut b = cx.bundle()?;
    b.set("/process/apparmorProfile", json!("not-loaded-anywhere")).save()?;
    let before = cx.snapshot()?;
    b.run()?.fails(&["apparmor", "no such file or directory"])?;
    cx.nothing_left(&before)
}

fn selinux_label_needs_selinux(cx: &Cx) -> Result<()> {
    if std::fs::read("/proc/self/attr/current").is_ok_and(|l| l.contains(&b':')) {
        return skip("SELinux is here: needs a policy with a type for containers");
    }
    let mut b = cx.bundle()?;
    b.set("/process/selinuxLabel", json!("system_u:system_r:container_t:s0")).save()?;
    let before = cx.snapshot()?;
    b.run()?.fails(&["selinux label is specified in config, but selinux is disabled or not supported"])?;
    cx.nothing_left(&before)
}

/// Engines send it on every host that is set up for SELinux, whether it is on or not.
fn mount_label_without_selinux(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/mountLabel", json!(""));
    b.run()?.ok()?;
    Ok(())
}

/// An image with a /proc of its own making gets no label written there.
fn through_a_false_proc(cx: &Cx) -> Result<()> {
    need_apparmor()?;
    load("naru-suite")?;
    let mut b = cx.bundle()?;
    std::fs::create_dir_all(b.rootfs().join("proc/self/attr/apparmor"))?;
    std::fs::write(b.rootfs().join("proc/self/attr/apparmor/exec"), "")?;
    b.set("/process/apparmorProfile", json!("naru-suite")).without_mount("/proc");
    b.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    let out = b.probe(&["create", "/tmp/y", "x"]).run()?;
    let written = std::fs::read_to_string(b.rootfs().join("proc/self/attr/apparmor/exec"))?;
    ensure!(written.is_empty(), "the image's file was written: {written:?}");
    ensure!(out.code != 0 || out.stdout.contains("EACCES"), "ran without its profile: {}", out.stdout);
    Ok(())
}
