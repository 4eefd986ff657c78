//! `kill` and `delete`: signals by every name, what is refused, what is left.

use super::tests;
use crate::container::{Container, reap};
use crate::cx::{Cx, eq, wait_for};
use anyhow::{Result, ensure};
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

tests!["kill":
    signal_names deviates ["crun" = "knows no lower case"],
    signal_numbers,
    default_is_term,
    zero_only_looks,
    unknown_signal deviates ["crun" = "has words of its own"],
    without_id,
    unknown_container,
    stopped deviates ["crun" = "has words of its own"],
    stopped_has_no_effect,
    all_flag_on_running,
    all_flag_on_stopped,
    created,
    created_ends_on_what_ends_programs deviates ["crun" = "ignores all but KILL"],
    created_then_deleted,
    kill_takes_the_whole_pid_namespace,
    kill_all_in_shared_pid_namespace deviates ["crun" = "kills the init process only, without --all"],
    kill_leftovers_in_shared_pid_namespace deviates ["crun" = "has no way to signal a container whose init is gone"],
    kill_in_joined_pid_namespace deviates ["crun" = "kills the init process only, without --all"],
    unrelated_processes_live,
    delete_leaves_who_else_is_in_the_cgroup deviates ["crun" = "ends them"],
    delete_unknown deviates ["crun" = "says the path it could not open"],
    delete_without_id,
    delete_unknown_force,
    delete_stray_directory deviates ["crun" = "leaves it without --force"],
    delete_running deviates ["crun" = "says `not in stopped state`"],
    delete_created,
    delete_force_running,
    delete_force_created,
    delete_force_stopped,
    delete_force_leftovers,
    delete_removes_what_create_made,
    delete_keeps_what_others_made,
    delete_removes_sub_cgroups,
    odd_name_below_killed deviates ["crun" = "kills the init process only, without --all"],
    odd_name_below_deleted,
    long_path_below_killed deviates [
        "runc" = "reads by paths, which are too long",
        "crun" = "kills the init process only, without --all",
    ],
    long_path_below_deleted deviates [
        "runc" = "removes by paths, which are too long",
        "crun" = "does not end on v1",
    ],
];

fn waiting(cx: &Cx) -> Result<Container<'_>> {
    let mut b = cx.bundle()?;
    b.probe(&["signals"]).save()?;
    let c = b.container();
    let out = c.create(&[])?.ok()?;
    c.start()?.ok()?;
    let file = out.out_path.clone();
    wait_for("ready", || Ok(fs::read_to_string(&file)?.contains("ready").then_some(())))?;
    fs::copy(&file, cx.path("unused"))?;
    fs::write(cx.path("where"), file.display().to_string())?;
    Ok(c)
}

fn got(cx: &Cx, signal: &str) -> Result<()> {
    let file = fs::read_to_string(cx.path("where"))?;
    wait_for(signal, || Ok(fs::read_to_string(&file)?.contains(&format!("got {signal}\n")).then_some(())))
}

fn signal_names(cx: &Cx) -> Result<()> {
    let c = waiting(cx)?;
    let pid = c.pid()?;
    for (name, signal) in [
        ("HUP", "SIGHUP"),
        ("SIGUSR1", "SIGUSR1"),
        ("usr2", "SIGUSR2"),
        ("sigint", "SIGINT"),
        ("WINCH", "SIGWINCH"),
    ] {
        c.kill(name)?.ok()?;
        got(cx, signal)?;
    }
    c.is("running")?;
    c.kill("TERM")?.ok()?;
    eq("exit", reap(pid)?, 42)?;
    c.delete()?.ok()?;
    Ok(())
}

fn signal_numbers(cx: &Cx) -> Result<()> {
    let c = waiting(cx)?;
    let pid = c.pid()?;
    for (number, signal) in [("1", "SIGHUP"), ("10", "SIGUSR1"), ("12", "SIGUSR2")] {
        c.kill(number)?.ok()?;
        got(cx, signal)?;
    }
    c.kill("9")?.ok()?;
    eq("exit", reap(pid)?, 137)?;
    c.delete()?.ok()?;
    Ok(())
}

fn default_is_term(cx: &Cx) -> Result<()> {
    let c = waiting(cx)?;
    let pid = c.pid()?;
    cx.rt(&["kill", &c.id])?.ok()?;
    eq("exit", reap(pid)?, 42)?;
    c.delete()?.ok()?;
    Ok(())
}

fn zero_only_looks(cx: &Cx) -> Result<()> {
    let c = waiting(cx)?;
    c.kill("0")?.ok()?;
    c.is("running")?;
    c.end()
}

fn unknown_signal(cx: &Cx) -> Result<()> {
    let c = waiting(cx)?;
    for name in ["FOO", "SIGFOO", "-1", "-x", "1x", "SIG"] {
        let out = cx.rt(&["kill", &c.id, name])?.code(1)?;
        if name == "FOO" {
            out.fails(&["unknown signal \"FOO\""])?;
        }
    }
    c.is("running")?;
    c.end()
}

fn without_id(cx: &Cx) -> Result<()> {
    ensure!(cx.rt(&["kill"])?.code != 0, "kill without an id succeeded");
    ensure!(cx.rt(&["kill", ""])?.code != 0, "kill of an empty id succeeded");
    Ok(())
}

fn unknown_container(cx: &Cx) -> Result<()> {
    cx.rt(&["kill", &cx.id(), "KILL"])?.fails(&["does not exist"])?;
    Ok(())
}

fn ended(cx: &Cx) -> Result<Container<'_>> {
    let c = cx.bundle()?.create()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    Ok(c)
}

fn stopped(cx: &Cx) -> Result<()> {
    let c = ended(cx)?;
    for signal in ["TERM", "KILL", "0"] {
        c.kill(signal)?.fails(&["container not running"])?;
    }
    c.delete()?.ok()?;
    Ok(())
}

fn stopped_has_no_effect(cx: &Cx) -> Result<()> {
    let c = ended(cx)?;
    let before = c.state()?;
    ensure!(c.kill("KILL")?.code != 0, "kill of a stopped container succeeded");
    eq("state", c.state()?, before)?;
    c.delete()?.ok()?;
    Ok(())
}

fn all_flag_on_running(cx: &Cx) -> Result<()> {
    for args in [["kill", "--all"], ["kill", "-a"]] {
        let c = waiting(cx)?;
        let pid = c.pid()?;
        cx.rt(&[args[0], args[1], &c.id, "KILL"])?.ok()?;
        eq("exit", reap(pid)?, 137)?;
        c.delete()?.ok()?;
    }
    Ok(())
}

fn all_flag_on_stopped(cx: &Cx) -> Result<()> {
    let c = ended(cx)?;
    cx.rt(&["kill", "--all", &c.id, "9"])?.ok()?;
    cx.rt(&["kill", "-a", &c.id, "KILL"])?.ok()?;
    c.delete()?.ok()?;
    Ok(())
}

fn created(cx: &Cx) -> Result<()> {
    let c = cx.bundle()?.create()?;
    let pid = c.pid()?;
    c.kill("KILL")?.ok()?;
    eq("exit", reap(pid)?, 137)?;
    c.is("stopped")?;
    c.delete()?.ok()?;
    Ok(())
}

/// Nothing in the container has asked for these signals yet, and the first process of a pid namespace ignores such.
fn created_ends_on_what_ends_programs(cx: &Cx) -> Result<()> {
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        let c = cx.bundle()?.create()?;
        let pid = c.pid()?;
        c.kill(signal)?.ok()?;
        ensure!(reap(pid)? != 0, "{signal}: exit 0");
        c.is("stopped")?;
        c.delete()?.ok()?;
    }
    // The program has the default actions again: here none, so that it lives on.
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    c.kill("TERM")?.ok()?;
    std::thread::sleep(std::time::Duration::from_millis(100));
    c.is("running")?;
    c.end()
}

fn created_then_deleted(cx: &Cx) -> Result<()> {
    let c = cx.bundle()?.create()?;
    c.kill("9")?.ok()?;
    c.becomes("stopped")?;
    c.delete()?.ok()?;
    Ok(())
}

fn kill_takes_the_whole_pid_namespace(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["children", "3"]);
    let c = b.start()?;
    let pid = c.pid()?;
    wait_for("four processes", || {
        Ok((cx.rt(&["ps", "-f", "json", &c.id])?.ok()?.json()?.as_array().map(Vec::len) == Some(4))
            .then_some(()))
    })?;
    c.kill("KILL")?.ok()?;
    reap(pid)?;
    c.delete()?.ok()?;
    Ok(())
}

fn shared(cx: &Cx, args: &[&str]) -> Result<(i32, i32, String)> {
    let mut b = cx.bundle()?;
    b.without_namespace("pid").remove("/linux/maskedPaths").probe(args).save()?;
    let c = b.container();
    let out = c.create(&[])?.ok()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    let line = wait_for("the child's pid", || {
        Ok(Some(fs::read_to_string(&out.out_path)?).filter(|t| t.ends_with('\n')))
    })?;
    let children: Vec<i32> = serde_json::from_str(&line)?;
    Ok((pid, children[0], c.id))
}

fn kill_all_in_shared_pid_namespace(cx: &Cx) -> Result<()> {
    let (pid, child, id) = shared(cx, &["children", "1"])?;
    cx.rt(&["kill", &id, "KILL"])?.ok()?;
    eq("exit of init", reap(pid)?, 137)?;
    eq("exit of the other process", reap(child)?, 137)?;
    cx.rt(&["delete", &id])?.ok()?;
    Ok(())
}

/// The init process has ended, its children live on: SIGKILL must still reach them.
fn kill_leftovers_in_shared_pid_namespace(cx: &Cx) -> Result<()> {
    let (pid, child, id) = shared(cx, &["children", "1"])?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    reap(pid)?;
    cx.rt(&["kill", &id, "KILL"])?.ok()?;
    eq("exit of the other process", reap(child)?, 137)?;
    cx.rt(&["delete", &id])?.ok()?;
    Ok(())
}

/// As `docker run --pid container:NAME` has it: the first process is not that of the namespace.
fn kill_in_joined_pid_namespace(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let host = b.start()?;
    let namespace = format!("/proc/{}/ns/pid", host.pid()?);
    let mut b = cx.bundle()?;
    b.without_namespace("pid").push("/linux/namespaces", json!({"type": "pid", "path": namespace}));
    b.probe(&["children", "1"]).save()?;
    let c = b.container();
    let out = c.create(&[])?.ok()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    wait_for("the child", || Ok(fs::read_to_string(&out.out_path)?.ends_with('\n').then_some(())))?;
    let procs = c_procs(cx, &c.id)?;
    eq("processes", procs.len(), 2)?;
    cx.rt(&["kill", &c.id, "KILL"])?.ok()?;
    eq("exit of init", reap(pid)?, 137)?;
    let child = procs.into_iter().find(|&one| one != pid).unwrap_or_default();
    wait_for("the end of the other process", || Ok((!lives(child)).then_some(())))?;
    cx.rt(&["delete", &c.id])?.ok()?;
    host.is("running")?;
    host.end()
}

fn c_procs(cx: &Cx, id: &str) -> Result<Vec<i32>> {
    Ok(serde_json::from_value(cx.rt(&["ps", "-f", "json", id])?.ok()?.json()?)?)
}

/// Not even as a zombie.
fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}

/// Two bundles that name the same cgroup: of a container that has ended nothing is left in it to be killed.
fn delete_leaves_who_else_is_in_the_cgroup(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    let path = json!(format!("{}/both", cx.cgroup));
    let mut b = cx.bundle()?;
    b.set("/linux/cgroupsPath", path.clone()).probe(&["exit", "0"]);
    let first = b.start()?;
    first.becomes("stopped")?;
    let mut b = cx.bundle()?;
    b.set("/linux/cgroupsPath", path).probe(&["sleep"]);
    let second = b.start()?;
    let refused = first.delete()?;
    ensure!(refused.code != 0, "delete has removed a cgroup in use: {}", refused.said());
    second.is("running")?;
    second.end()?;
    first.delete()?.ok()?;
    Ok(())
}

fn unrelated_processes_live(cx: &Cx) -> Result<()> {
    let mut other = std::process::Command::new(&cx.probe).arg("sleep").spawn()?;
    let (pid, child, id) = shared(cx, &["children", "1"])?;
    cx.rt(&["delete", "--force", &id])?.ok()?;
    reap(pid)?;
    reap(child)?;
    ensure!(other.try_wait()?.is_none(), "a process outside of the container was killed");
    other.kill()?;
    other.wait()?;
    Ok(())
}

fn delete_unknown(cx: &Cx) -> Result<()> {
    cx.rt(&["delete", &cx.id()])?.fails(&["does not exist"])?;
    Ok(())
}

fn delete_without_id(cx: &Cx) -> Result<()> {
    ensure!(cx.rt(&["delete"])?.code != 0, "delete without an id succeeded");
    ensure!(cx.rt(&["delete", ""])?.code != 0, "delete of an empty id succeeded");
    Ok(())
}

fn delete_unknown_force(cx: &Cx) -> Result<()> {
    cx.rt(&["delete", "--force", &cx.id()])?.ok()?;
    cx.rt(&["delete", "-f", &cx.id()])?.ok()?;
    Ok(())
}

/// A directory without a state: what a create that was killed at once leaves behind.
fn delete_stray_directory(cx: &Cx) -> Result<()> {
    for force in [false, true] {
        let id = cx.id();
        fs::create_dir_all(cx.root.join(&id))?;
        if force {
            cx.rt(&["delete", "--force", &id])?.ok()?;
        } else {
            cx.rt(&["delete", &id])?.fails(&["does not exist"])?;
        }
        ensure!(!cx.root.join(&id).exists(), "the directory is still there (force {force})");
    }
    Ok(())
}

fn delete_running(cx: &Cx) -> Result<()> {
    let c = waiting(cx)?;
    c.delete()?.fails(&["cannot delete container", "that is not stopped: running"])?;
    c.is("running")?;
    c.end()
}

fn delete_created(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let c = cx.bundle()?.create()?;
    c.delete()?.ok()?;
    cx.nothing_left(&before)
}

fn delete_force_running(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let c = waiting(cx)?;
    c.delete_force()?;
    cx.nothing_left(&before)
}

fn delete_force_created(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let c = cx.bundle()?.create()?;
    cx.rt(&["delete", "-f", &c.id])?.ok()?;
    cx.nothing_left(&before)
}

fn delete_force_stopped(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let c = ended(cx)?;
    c.delete_force()?;
    cx.nothing_left(&before)
}

fn delete_force_leftovers(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let (pid, child, id) = shared(cx, &["children", "1"])?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    reap(pid)?;
    cx.rt(&["delete", "--force", &id])?.ok()?;
    eq("exit of the other process", reap(child)?, 137)?;
    cx.nothing_left(&before)
}

fn delete_removes_what_create_made(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    let mut b = cx.bundle()?;
    b.set("/linux/cgroupsPath", json!(format!("{}/deep/er/c", cx.cgroup)));
    let c = b.create()?;
    let pid = c.pid()?;
    let dir = crate::cgroup::directory_of(pid, "pids")?;
    ensure!(dir.exists(), "no cgroup {}", dir.display());
    c.delete()?.ok()?;
    ensure!(!dir.exists(), "cgroup {} is left", dir.display());
    ensure!(!cx.root.join(&c.id).exists(), "state left");
    // Directories above that one may have been made by others since: runtimes leave them.
    crate::cgroup::remove(&format!("{}/deep", cx.cgroup))
}

fn delete_keeps_what_others_made(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    let parent = format!("{}/ours", cx.cgroup);
    crate::cgroup::make(&parent)?;
    let mut b = cx.bundle()?;
    b.set("/linux/cgroupsPath", json!(format!("{parent}/c")));
    fs::write(b.dir.join("other"), "x")?;
    b.run()?.ok()?;
    for tree in crate::cgroup::trees()? {
        let dir = tree.mount.join(parent.trim_start_matches('/'));
        ensure!(dir.exists(), "{} is gone", dir.display());
    }
    ensure!(b.dir.join("other").exists() && b.rootfs().join("bin/probe").exists(), "the bundle was touched");
    crate::cgroup::remove(&parent)
}

/// What the container or an engine made below its cgroup goes with it.
fn delete_removes_sub_cgroups(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let dir = crate::cgroup::directory_of(c.pid()?, "pids")?;
    fs::create_dir_all(dir.join("sub/below"))?;
    c.end()?;
    ensure!(!dir.exists(), "cgroup {} is left", dir.display());
    Ok(())
}

/// A container that shares its pid namespace, with a process in a cgroup that it may have made: `name`, so many times, below
/// its own. In other trees are such directories without processes.
fn hidden(cx: &Cx, name: &[u8], depth: usize) -> Result<(i32, i32, String)> {
    cx.need_systemd(false)?;
    let (pid, child, id) = shared(cx, &["children", "1"])?;
    for tree in crate::cgroup::trees()? {
        let controller = tree.controllers.first().filter(|_| !tree.v2).map_or("", String::as_str);
        let dir = crate::cgroup::directory_of(pid, controller)?;
        let listed = cx.unified() || controller == "devices";
        // More than there may be descriptors; cgroup2 makes them slowly.
        let depth = if controller == "devices" { depth * 55 } else { depth };
        let (last, _open) = crate::cgroup::nest(&dir, OsStr::from_bytes(name), depth)?;
        if listed {
            fs::write(last.join("cgroup.procs"), child.to_string())?;
        }
    }
    Ok((pid, child, id))
}

fn hidden_killed(cx: &Cx, name: &[u8], depth: usize) -> Result<()> {
    let before = cx.snapshot()?;
    let (pid, child, id) = hidden(cx, name, depth)?;
    let all = cx.rt(&["ps", "-f", "json", &id])?.ok()?.json()?;
    let mut all: Vec<i32> = serde_json::from_value(all)?;
    all.sort_unstable();
    eq("processes", all, vec![pid, child])?;
    cx.rt(&["kill", &id, "KILL"])?.ok()?;
    eq("exit of init", reap(pid)?, 137)?;
    eq("exit of the other process", reap(child)?, 137)?;
    cx.rt(&["delete", &id])?.ok()?;
    cx.nothing_left(&before)
}

fn hidden_deleted(cx: &Cx, name: &[u8], depth: usize) -> Result<()> {
    let before = cx.snapshot()?;
    let (pid, child, id) = hidden(cx, name, depth)?;
    cx.rt(&["delete", "--force", &id])?.ok()?;
    eq("exit of init", reap(pid)?, 137)?;
    eq("exit of the other process", reap(child)?, 137)?;
    cx.nothing_left(&before)
}

/// No UTF-8.
fn odd_name_below_killed(cx: &Cx) -> Result<()> {
    hidden_killed(cx, b"\xff", 1)
}

fn odd_name_below_deleted(cx: &Cx) -> Result<()> {
    hidden_deleted(cx, b"\xff", 1)
}

/// Longer than a path may be.
fn long_path_below_killed(cx: &Cx) -> Result<()> {
    hidden_killed(cx, &[b'x'; 250], 20)
}

fn long_path_below_deleted(cx: &Cx) -> Result<()> {
    hidden_deleted(cx, &[b'x'; 250], 20)
}
