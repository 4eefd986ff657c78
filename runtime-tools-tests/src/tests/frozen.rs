//! A frozen cgroup above the container's: its processes cannot run, and who waits for them must not wait for ever. (What
//! holds for a paused container stands in `pause.rs`.)

use super::tests;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::cx::{Cx, wait_for};
use anyhow::{Result, ensure};
use serde_json::json;
use std::fs;
use std::time::Duration;

tests!["frozen":
    create_below deviates ["runc" = "waits for ever", "crun" = "waits for ever", "youki" = "waits for ever"],
    run_below deviates ["runc" = "waits for ever", "crun" = "waits for ever", "youki" = "waits for ever"],
    start_below deviates ["runc" = "waits for ever", "crun" = "does not look", "youki" = "waits for ever"],
    exec_below deviates ["runc" = "waits for ever", "crun" = "waits for ever", "youki" = "waits for ever"],
    create_of_a_stopped_process deviates ["runc" = "waits for ever", "crun" = "waits for ever", "youki" = "waits for ever"],
    start_of_a_stopped_process deviates ["runc" = "waits for ever", "crun" = "succeeds", "youki" = "succeeds"],
    kill_and_delete_below deviates ["crun" = "leaves the cgroup behind"],
    kill_and_delete_of_its_own deviates [
        "runc" = "does not thaw it on v1",
        "crun" = "does not thaw it on v1",
        "youki" = "does not thaw it on v1",
    ],
];

/// No command may take longer.
const LIMIT: Duration = Duration::from_secs(22);

/// The cgroup above those of the containers, of which no other process is a member.
fn parent(cx: &Cx) -> String {
    format!("{}/above", cx.cgroup)
}

fn bundle<'a>(cx: &'a Cx, probe: &[&str]) -> Result<Bundle<'a>> {
    cx.need_systemd(false)?;
    if !cgroup::unified() {
        cx.need_controller("freezer")?;
    }
    cgroup::make(&parent(cx))?;
    let mut b = cx.bundle()?;
    b.set("/linux/cgroupsPath", json!(format!("{}/{}", parent(cx), cx.id())));
    b.probe(probe).save()?;
    Ok(b)
}

fn freeze(cx: &Cx) -> Result<()> {
    for tree in cgroup::trees()? {
        let dir = tree.mount.join(parent(cx).trim_start_matches('/'));
        // With both, what the one has frozen the other never calls frozen.
        if tree.v2 != cx.unified() {
            continue;
        }
        let (file, word, events, frozen) = match tree.v2 {
            true => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            false => ("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
        };
        if dir.join(file).exists() {
            fs::write(dir.join(file), word)?;
            wait_for("the freezer", || {
                Ok(fs::read_to_string(dir.join(events))?.lines().any(|l| l == frozen).then_some(()))
            })?;
        }
    }
    Ok(())
}

fn end(cx: &Cx) -> Result<()> {
    cgroup::thaw(&parent(cx))?;
    cgroup::remove(&parent(cx))
}

fn create_below(cx: &Cx) -> Result<()> {
    let b = bundle(cx, &["true"])?;
    freeze(cx)?;
    let before = cx.snapshot()?;
    let pid_file = cx.path("pid");
    let id = cx.id();
    let args = ["create", "--bundle", &b.path(), "--pid-file", &pid_file.display().to_string(), &id];
    cx.cmd(&args).limit(LIMIT).run()?.fails(&["frozen"])?.one_line()?;
    ensure!(!pid_file.exists(), "a pid file");
    cx.nothing_left(&before)?;
    end(cx)
}

fn run_below(cx: &Cx) -> Result<()> {
    let b = bundle(cx, &["say", "ran"])?;
    freeze(cx)?;
    let before = cx.snapshot()?;
    let out = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).limit(LIMIT).run()?;
    let out = out.fails(&["frozen"])?.one_line()?;
    ensure!(!out.stdout.contains("ran"), "it ran");
    cx.nothing_left(&before)?;
    end(cx)
}

fn start_below(cx: &Cx) -> Result<()> {
    let b = bundle(cx, &["say", "ran"])?;
    let before = cx.snapshot()?;
    let c = b.container();
    let out = c.create(&[])?.ok()?;
    freeze(cx)?;
    cx.cmd(&["start", &c.id]).limit(LIMIT).run()?.code(1)?.one_line()?;
    cgroup::thaw(&parent(cx))?;
    // A start that has failed must not come true later.
    std::thread::sleep(Duration::from_millis(300));
    ensure!(!out.again()?.stdout.contains("ran"), "it ran after start had failed");
    c.delete_force()?;
    cx.nothing_left(&before)?;
    end(cx)
}

fn exec_below(cx: &Cx) -> Result<()> {
    let b = bundle(cx, &["sleep"])?;
    let before = cx.snapshot()?;
    let c = b.start()?;
    freeze(cx)?;
    cx.cmd(&["exec", &c.id, "/bin/probe", "say", "ran"])
        .limit(LIMIT)
        .run()?
        .fails_with(255, &["frozen"])?
        .one_line()?;
    cgroup::thaw(&parent(cx))?;
    let out = c.exec(&[], &["say", "once more"])?.ok()?;
    ensure!(out.stdout == "once more\n", "exec after the thaw: {:?}", out.stdout);
    // On cgroup v1 the killed process outlives the exec that gave it up, and becomes a child of this one.
    crate::leaks::reap();
    c.delete_force()?;
    cx.nothing_left(&before)?;
    end(cx)
}

/// What cannot die while it is frozen (cgroup v1) dies afterwards; the commands end either way.
fn kill_and_delete_below(cx: &Cx) -> Result<()> {
    let b = bundle(cx, &["sleep"])?;
    let before = cx.snapshot()?;
    let c = b.start()?;
    freeze(cx)?;
    cx.cmd(&["kill", &c.id, "KILL"]).limit(LIMIT).run()?.ok()?;
    let deleted = cx.cmd(&["delete", "--force", &c.id]).limit(LIMIT).run()?;
    ensure!(deleted.code <= 1, "delete --force: exit {}: {}", deleted.code, deleted.stderr);
    ensure!(deleted.code == 0 || !cx.unified(), "delete --force on v2: {}", deleted.stderr);
    cgroup::thaw(&parent(cx))?;
    c.delete_force()?;
    cx.nothing_left(&before)?;
    end(cx)
}

/// A neighbour in a shared pid namespace may stop a container's first process; here a hook does it in its place.
fn create_of_a_stopped_process(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let stop = r#"kill -STOP "$(sed 's/.*"pid": *\([0-9]*\).*/\1/')""#;
    b.probe(&["sleep"]).push("/hooks/createRuntime", json!({"path": "/bin/sh", "args": ["sh", "-c", stop]}));
    b.save()?;
    let before = cx.snapshot()?;
    for command in ["create", "run"] {
        let out = cx.cmd(&[command, "--bundle", &b.path(), &cx.id()]).limit(LIMIT).run()?;
        out.fails(&["stopped by a signal"])?.one_line()?;
        cx.nothing_left(&before)?;
    }
    Ok(())
}

fn start_of_a_stopped_process(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]).save()?;
    let before = cx.snapshot()?;
    let c = b.create()?;
    let pid = nix::unistd::Pid::from_raw(c.pid()?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP)?;
    let out = cx.cmd(&["start", &c.id]).limit(LIMIT).run()?;
    out.fails(&["stopped by a signal"])?.one_line()?;
    crate::container::reap(pid.as_raw())?;
    c.is("stopped")?;
    c.delete()?.ok()?;
    cx.nothing_left(&before)
}

/// A container that may write to its cgroup has frozen itself, in a directory below.
fn kill_and_delete_of_its_own(cx: &Cx) -> Result<()> {
    for kill in [true, false] {
        let mut b = cx.bundle()?;
        b.probe(&["sleep"]);
        let c = b.start()?;
        let pid = c.pid()?;
        let (file, word) = match cx.unified() {
            true => ("cgroup.freeze", "1"),
            false => {
                cx.need_controller("freezer")?;
                ("freezer.state", "FROZEN")
            }
        };
        let below = cgroup::directory_of(pid, "freezer")?.join("a/b");
        fs::create_dir_all(&below)?;
        fs::write(below.join("cgroup.procs"), pid.to_string())?;
        fs::write(below.join(file), word)?;
        if kill {
            c.end()?;
        } else {
            c.delete_force()?;
        }
    }
    Ok(())
}
