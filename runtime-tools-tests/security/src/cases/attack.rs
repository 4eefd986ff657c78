//! Attacks from inside of a running or created container.

use super::{attacker, capabilities, host_tool, last_line, tool};
use crate::bundle::Bundle;
use crate::canary::Canary;
use crate::container::{Container, finish, reap};
use crate::cx::{Cx, wait_for};
use crate::terminal::{ConsoleSocket, read_all};
use crate::variant::sane;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Ends a running container whatever it does.
fn finish_container(c: &Container) -> Result<()> {
    c.delete_force()?;
    Ok(())
}

/// `exec -t` with a console socket: exit status, and what the program said on the terminal that arrived.
fn exec_terminal(cx: &Cx, c: &Container, probe: &[&str]) -> Result<(i32, Option<String>)> {
    let path = cx.path(&format!("console.{}", cx.next()));
    let socket = ConsoleSocket::new(&path)?;
    let name = path.display().to_string();
    let pid_file = cx.path(&format!("exec.pid.{}", cx.next()));
    let pid_name = pid_file.display().to_string();
    let mut args =
        vec!["exec", "-t", "-d", "--pid-file", &pid_name, "--console-socket", &name, &c.id, "/bin/probe"];
    args.extend(probe);
    let out = cx.cmd(&args).limit(Duration::from_secs(5)).run()?;
    sane(&out)?;
    let mut said = None;
    if out.code == 0 {
        let master = socket.receive()?.master;
        said = Some(read_all(&master)?);
        if let Ok(pid) = fs::read_to_string(&pid_file)?.trim().parse::<i32>() {
            // Reaped by somebody else already is as good.
            let _ = reap(pid);
        }
    }
    fs::remove_file(path)?;
    Ok((out.code, said))
}

/// T11: whatever a container has at its ptmx, exec -t is a real terminal or an error, soon.
pub fn ptmx_fake_exec(cx: &Cx) -> Result<String> {
    let (mut refused, mut real) = (0, 0);
    for kind in ["fifo", "file", "zero", "tty", "link", "ptmx-elsewhere"] {
        let mut b = cx.bundle()?;
        capabilities(&mut b, &["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
        b.probe(&["sleep"]).save()?;
        tool(&b, "attacker")?;
        let c = b.start()?;
        cx.rt(&["exec", &c.id, "/bin/attacker", "fake-terminals", kind])?.ok()?;
        match exec_terminal(cx, &c, &["tty"])? {
            (0, Some(text)) => {
                ensure!(text.contains("\"rdev\"") || text.contains("isatty\":true"), "{kind}: {text}");
                real += 1;
            }
            _ => refused += 1,
        }
        let plain = fs::read_to_string(b.rootfs().join("etc/plain"))?;
        ensure!(plain == "plain\n", "{kind}: the file behind the link holds {plain:?}");
        finish_container(&c)?;
    }
    Ok(format!("{refused} refused, {real} real terminals"))
}

/// T12: /dev/pts changes while exec -t makes a terminal.
pub fn pts_swap_race(cx: &Cx, attempts: u32) -> Result<String> {
    let mut b = cx.bundle()?;
    capabilities(&mut b, &["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    let (c, said) = attacker(&mut b, &["swap-terminals", "/stop"])?;
    let (mut real, mut refused, mut hits) = (0u32, 0u32, 0u32);
    for _ in 0..attempts {
        match exec_terminal(cx, &c, &["tty"])? {
            (0, Some(text)) if text.contains("isatty\":true") && !text.contains("isatty\":false") => {
                real += 1
            }
            (0, _) => hits += 1,
            _ => refused += 1,
        }
    }
    let pid = c.pid()?;
    fs::write(b.rootfs().join("stop"), "")?;
    reap(pid)?;
    let end = last_line(&said)?;
    finish_container(&c)?;
    ensure!(hits == 0, "{hits} hits in {attempts} attempts: no terminal on the standard streams");
    ensure!(end.contains("touched 0"), "a plain file was written to: {end}");
    Ok(format!("{attempts} attempts, 0 hits ({real} terminals, {refused} refused, {end})"))
}

/// T26: with CAP_SYS_ADMIN and everything else: the protection of the runtime's file cannot be taken off.
pub fn exe_unwrap(cx: &Cx) -> Result<String> {
    let copy = cx.path("the-runtime");
    fs::copy(&cx.runtime, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let run = |args: &[&str]| -> Result<i32> {
        let mut command = Command::new(&copy);
        command.arg("--root").arg(&cx.root).args(args).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        finish(child)
    };
    let mut b = cx.bundle()?;
    capabilities(&mut b, ALL);
    tool(&b, "attacker")?;
    fs::write(b.rootfs().join("tmp/copy"), "")?;
    b.probe(&["sleep", "2500"]).save()?;
    let c = b.container();
    ensure!(run(&["create", "--bundle", &b.path(), &c.id])? == 0, "create");
    let said = cx.path("said");
    let mut command = Command::new(&copy);
    command.arg("--root").arg(&cx.root).args([
        "exec",
        &c.id,
        "/bin/attacker",
        "unwrap",
        "/proc/1/exe",
        "1500",
    ]);
    let mut child = command.stdin(Stdio::null()).stdout(fs::File::create(&said)?).spawn()?;
    // An executable that is still running is busy: it must have ended when the attacker writes.
    let held = wait_for("the attacker", || Ok(fs::read_to_string(&said)?.contains('\n').then_some(())));
    ensure!(run(&["start", &c.id])? == 0, "start");
    let _ = child.wait();
    held?;
    let end = last_line(&said)?;
    run(&["delete", "--force", &c.id])?;
    ensure!(fs::read(&copy)? == fs::read(&cx.runtime)?, "the runtime's file was written to: {end}");
    ensure!(!end.contains("wrote"), "the attacker {end}");
    Ok(end)
}

const ALL: &[&str] = &[
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_SYS_CHROOT",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_MKNOD",
    "CAP_CHOWN",
];

/// Runs a scanner in a container while processes enter it; how many and what it found.
fn snooped(cx: &Cx, caps: &[&str], attempts: u32) -> Result<String> {
    let mut b: Bundle = cx.bundle()?;
    capabilities(&mut b, caps);
    // As engines do: a score to set and a pid file to write.
    b.set("/process/oomScoreAdj", json!(100));
    let (c, said) = attacker(&mut b, &["snoop", "/stop"])?;
    let pid_file = cx.path("exec.pid").display().to_string();
    for n in 0..attempts {
        let out = if n % 4 == 3 {
            let (code, _) = exec_terminal(cx, &c, &["true"])?;
            ensure!(code == 0, "exec -t ended with {code}");
            continue;
        } else {
            c.exec(&["--pid-file", &pid_file], &["true"])?
        };
        out.ok()?;
    }
    let pid = c.pid()?;
    fs::write(b.rootfs().join("stop"), "")?;
    reap(pid)?;
    let end = last_line(&said)?;
    finish_container(&c)?;
    Ok(end)
}

/// T28: without CAP_SYS_PTRACE nothing of an entering process can be seen.
pub fn exec_snoop(cx: &Cx, attempts: u32) -> Result<String> {
    let end = snooped(cx, &["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER"], attempts)?;
    ensure!(end.contains("found 0"), "hits in {attempts} attempts: {end}");
    Ok(format!("{attempts} attempts, 0 hits ({})", end.trim()))
}

/// T29: with it, no directory of the host and no writable executable.
pub fn exec_snoop_ptrace(cx: &Cx, attempts: u32) -> Result<String> {
    let end = snooped(cx, ALL, attempts)?;
    ensure!(end.contains("found 0"), "hits in {attempts} attempts: {end}");
    Ok(format!("{attempts} attempts, 0 hits ({})", end.trim()))
}

/// T50: a root that was moved instead of pivoted shows no procfs of the host and cannot be left.
pub fn no_pivot_proc(cx: &Cx) -> Result<String> {
    let canary = Canary::new(&cx.path("canary"))?;
    let mut b = cx.bundle()?;
    capabilities(&mut b, ALL);
    tool(&b, "attacker")?;
    let marker = canary.dir.join("file").display().to_string();
    let mut run = |args: serde_json::Value| -> Result<String> {
        b.set("/process/args", args).save()?;
        let out = cx.rt(&["run", "--no-pivot", "--bundle", &b.path(), &cx.id()])?.ok()?;
        Ok(out.stdout)
    };
    let said = run(json!([
        "/bin/probe",
        "seq",
        "mount",
        "proc",
        "/mnt",
        "proc",
        "0",
        "---",
        "ls",
        "/mnt/1/root/bin",
        "---",
        "pids"
    ]))?;
    ensure!(
        said.lines().nth(1).is_some_and(|line| line.contains("probe")),
        "a procfs of somebody else: {said}"
    );
    let said = run(json!(["/bin/attacker", "escape", marker]))?;
    ensure!(said.trim() == "in", "it came out: {said}");
    canary.same()?;
    Ok(String::new())
}

/// T62: nothing of the handshake can be reached from inside; of two starts exactly one wins.
pub fn handshake_inside(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    capabilities(&mut b, ALL);
    tool(&b, "attacker")?;
    b.probe(&["sleep"]).save()?;
    let c = b.create()?;
    let said = cx.rt(&["exec", &c.id, "/bin/attacker", "sockets"])?;
    if said.code == 0 {
        ensure!(said.stdout.starts_with("found 0"), "reachable: {}", said.stdout);
    }
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let mut cmd = cx.cmd(&["start", &c.id]);
            cmd.command().stdout(Stdio::null()).stderr(Stdio::null());
            cmd.spawn()
        })
        .collect::<Result<_>>()?;
    let codes: Vec<i32> = starts.into_iter().map(finish).collect::<Result<_>>()?;
    ensure!(codes.iter().filter(|code| **code == 0).count() == 1, "exit statuses of four starts: {codes:?}");
    c.becomes("running")?;
    finish_container(&c)?;
    Ok(String::new())
}

/// Used by the cases of other files: the path of a tool on the host as text.
pub fn tool_path(cx: &Cx, name: &str) -> Result<String> {
    let path = host_tool(cx, name);
    ensure!(Path::new(&path).is_file(), "{} is not there", path.display());
    Ok(path.to_str().context("a path that is not UTF-8")?.to_string())
}
