//! Pausing: every process of the container stands still, the commands say what they may, and nothing stays frozen.

use super::tests;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::container::{Container, reap};
use crate::cx::{Cx, eq, wait_for};
use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

tests!["pause":
    stands_still,
    processes_of_exec_too,
    sub_cgroups_too,
    created_container deviates ["crun" = "does not call it paused"],
    twice deviates ["crun" = "takes it"],
    resume_of_what_is_not_paused deviates ["crun" = "takes it"],
    stopped deviates ["crun" = "has words of its own"],
    unknown_or_no_container deviates ["crun" = "has words of its own"],
    paused_refuses_the_rest deviates ["crun" = "has words of its own"],
    killed_while_paused deviates ["runc" = "calls it paused still, on v2", "crun" = "does not thaw on v1"],
    deleted_while_paused,
    many_times,
];

/// How long a process that stands still is watched.
const WHILE: Duration = Duration::from_millis(150);

fn need_freezer(cx: &Cx) -> Result<()> {
    if cgroup::unified() { Ok(()) } else { cx.need_controller("freezer") }
}

/// A container that writes a line for each signal, and the file it writes to.
fn watched<'a>(b: &mut Bundle<'a>) -> Result<(Container<'a>, PathBuf)> {
    b.probe(&["signals"]).save()?;
    let c = b.container();
    let out = c.create(&[])?.ok()?.out_path;
    c.start()?.ok()?;
    line(&out, "ready", 1)?;
    Ok((c, out))
}

fn count(file: &Path, line: &str) -> Result<usize> {
    Ok(fs::read_to_string(file)?.lines().filter(|l| *l == line).count())
}

/// Waits for the nth such line.
fn line(file: &Path, line: &str, times: usize) -> Result<()> {
    wait_for(line, || Ok((count(file, line)? == times).then_some(())))
}

fn hang_up(pid: i32) -> Result<()> {
    Ok(kill(Pid::from_raw(pid), Signal::SIGHUP)?)
}

fn pause(c: &Container<'_>) -> Result<()> {
    let out = c.cx.rt(&["pause", &c.id])?.ok()?;
    eq("output", out.stdout.as_str(), "")?;
    c.is("paused")
}

fn resume(c: &Container<'_>) -> Result<()> {
    let out = c.cx.rt(&["resume", &c.id])?.ok()?;
    eq("output", out.stdout.as_str(), "")
}

fn stands_still(cx: &Cx) -> Result<()> {
    need_freezer(cx)?;
    let (c, out) = watched(&mut cx.bundle()?)?;
    let pid = c.pid()?;
    pause(&c)?;
    hang_up(pid)?;
    std::thread::sleep(WHILE);
    eq("signals handled while paused", count(&out, "got SIGHUP")?, 0)?;
    eq("pid", c.pid()?, pid)?;
    let listed = cx.rt(&["list", "--format", "json"])?.ok()?.json()?;
    ensure!(listed[0]["status"] == "paused", "list: {listed}");
    resume(&c)?;
    line(&out, "got SIGHUP", 1)?;
    c.is("running")?;
    c.end()
}

fn processes_of_exec_too(cx: &Cx) -> Result<()> {
    need_freezer(cx)?;
    let (c, _) = watched(&mut cx.bundle()?)?;
    let file = cx.path("pid");
    let out = c.exec(&["--detach", "--pid-file", &file.display().to_string()], &["signals"])?.ok()?.out_path;
    line(&out, "ready", 1)?;
    let pid: i32 = fs::read_to_string(&file)?.parse()?;
    pause(&c)?;
    hang_up(pid)?;
    std::thread::sleep(WHILE);
    eq("signals handled while paused", count(&out, "got SIGHUP")?, 0)?;
    resume(&c)?;
    line(&out, "got SIGHUP", 1)?;
    c.end()
}

fn sub_cgroups_too(cx: &Cx) -> Result<()> {
    need_freezer(cx)?;
    let (c, out) = watched(&mut cx.bundle()?)?;
    let pid = c.pid()?;
    let sub = cgroup::directory_of(pid, "freezer")?.join("sub");
    fs::create_dir(&sub)?;
    fs::write(sub.join("cgroup.procs"), pid.to_string())?;
    pause(&c)?;
    hang_up(pid)?;
    std::thread::sleep(WHILE);
    eq("signals handled while paused", count(&out, "got SIGHUP")?, 0)?;
    resume(&c)?;
    line(&out, "got SIGHUP", 1)?;
    c.end()
}

fn created_container(cx: &Cx) -> Result<()> {
    need_freezer(cx)?;
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.create()?;
    pause(&c)?;
    c.start()?.fails(&["cannot start"])?;
    c.is("paused")?;
    resume(&c)?;
    c.is("created")?;
    c.start()?.ok()?;
    c.is("running")?;
    c.end()
}

fn twice(cx: &Cx) -> Result<()> {
    need_freezer(cx)?;
    let (c, _) = watched(&mut cx.bundle()?)?;
    pause(&c)?;
    cx.rt(&["pause", &c.id])?.fails(&["container not running"])?.one_line()?;
    c.is("paused")?;
    resume(&c)?;
    cx.rt(&["resume", &c.id])?.fails(&["container not paused"])?.one_line()?;
    c.is("running")?;
    c.end()
}

fn resume_of_what_is_not_paused(cx: &Cx) -> Result<()> {
    need_freezer(cx)?;
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.create()?;
    cx.rt(&["resume", &c.id])?.fails(&["container not paused"])?;
    c.is("created")?;
    c.start()?.ok()?;
    cx.rt(&["resume", &c.id])?.fails(&["container not paused"])?;
    c.is("running")?;
    c.end()
}

fn stopped(cx: &Cx) -> Result<()> {
    need_freezer(cx)?;
    let c = cx.bundle()?.create()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    cx.rt(&["pause", &c.id])?.fails(&["container not running"])?.one_line()?;
    cx.rt(&["resume", &c.id])?.fails(&["container not paused"])?.one_line()?;
    c.is("stopped")?;
    c.delete()?.ok()?;
    Ok(())
}

fn unknown_or_no_container(cx: &Cx) -> Result<()> {
    for command in ["pause", "resume"] {
        cx.rt(&[command, &cx.id()])?.fails(&["container does not exist"])?.one_line()?;
        let wrong = format!("{command:?} requires exactly 1 argument(s)");
        cx.rt(&[command])?.fails(&[&wrong])?;
        cx.rt(&[command, "a", "b"])?.fails(&[&wrong])?;
        cx.rt(&[command, ""])?.fails(&["container id cannot be empty"])?;
        cx.rt(&[command, "a/b"])?.fails(&["invalid container ID format"])?;
        cx.rt(&[command, "--help"])?.ok()?;
    }
    Ok(())
}

fn paused_refuses_the_rest(cx: &Cx) -> Result<()> {
    need_freezer(cx)?;
    let (c, _) = watched(&mut cx.bundle()?)?;
    pause(&c)?;
    c.exec(&[], &["true"])?.fails_with(255, &["cannot exec in a paused container"])?;
    c.start()?.fails(&["cannot start"])?;
    c.delete()?.fails(&["that is not stopped: paused"])?;
    c.kill("0")?.ok()?;
    c.is("paused")?;
    resume(&c)?;
    c.exec(&[], &["true"])?.ok()?;
    c.end()
}

fn killed_while_paused(cx: &Cx) -> Result<()> {
    need_freezer(cx)?;
    let before = cx.snapshot()?;
    for share in [false, true] {
        let mut b = cx.bundle()?;
        if share {
            b.without_namespace("pid").remove("/linux/maskedPaths");
        }
        let (c, _) = watched(&mut b)?;
        let pid = c.pid()?;
        pause(&c)?;
        c.kill("KILL")?.ok()?;
        eq("exit", reap(pid)?, 137)?;
        c.is("stopped")?;
        c.delete()?.ok()?;
    }
    cx.nothing_left(&before)
}

fn deleted_while_paused(cx: &Cx) -> Result<()> {
    need_freezer(cx)?;
    let before = cx.snapshot()?;
    let (c, _) = watched(&mut cx.bundle()?)?;
    let pid = c.pid()?;
    pause(&c)?;
    c.delete_force()?;
    reap(pid)?;
    cx.nothing_left(&before)
}

fn many_times(cx: &Cx) -> Result<()> {
    need_freezer(cx)?;
    let (c, out) = watched(&mut cx.bundle()?)?;
    let pid = c.pid()?;
    for n in 1..=20 {
        pause(&c)?;
        resume(&c)?;
        hang_up(pid)?;
        line(&out, "got SIGHUP", n)?;
    }
    c.end()
}
