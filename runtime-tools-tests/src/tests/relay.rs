//! In the foreground: what goes through comes out whole, and neither side can hold the runtime when the other is gone.

use super::exec::sleeping;
use super::terminal::{on_terminal, with_terminal};
use super::tests;
use crate::container::finish;
use crate::cx::{Cx, eq, wait_for};
use crate::terminal::{read_all, read_until};
use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

tests!["relay":
    input_that_stays_open,
    output_nobody_reads_any_more,
    slow_reader,
    exec_ends_with_its_program deviates ["runc" = "waits for all who hold its pipe"],
    signals_for_the_runtime_alone deviates ["crun" = "hands SIGURG on"],
    terminal_slow_reader deviates ["crun" = "leaves out what does not fit at once"],
    terminal_input_nobody_reads,
    terminal_of_a_caller_that_is_gone,
    terminal_reader_that_never_reads deviates ["runc" = "waits for ever", "crun" = "leaves the rest out"],
];

/// How long a reader lets the writer wait.
const PAUSE: Duration = Duration::from_millis(400);
/// More than any pipe or terminal holds.
const FLOOD: usize = 256 << 10;

/// A caller that keeps its end of the pipe, as engines do whose own caller may still type.
fn input_that_stays_open(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["exit", "3"]).save()?;
    let c = sleeping(cx)?;
    for (args, code) in
        [(&["run", "--bundle", &b.path(), &cx.id()][..], 3), (&["exec", &c.id, "/bin/probe", "exit", "4"], 4)]
    {
        let mut cmd = cx.cmd(args);
        cmd.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = cmd.spawn()?;
        let held = child.stdin.take();
        eq(&format!("exit code of {}", args[0]), finish(child)?, code)?;
        drop(held);
    }
    c.end()
}

fn output_nobody_reads_any_more(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["seq", "flood", &FLOOD.to_string(), "---", "exit", "5"]).save()?;
    let mut cmd = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]);
    cmd.command().stdout(Stdio::piped());
    let mut child = cmd.spawn()?;
    drop(child.stdout.take());
    eq("exit code", finish(child)?, 5)
}

fn slow_reader(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["flood", &FLOOD.to_string()]).save()?;
    let c = sleeping(cx)?;
    for args in [
        &["run", "--bundle", &b.path(), &cx.id()][..],
        &["exec", &c.id, "/bin/probe", "flood", &FLOOD.to_string()],
    ] {
        let mut cmd = cx.cmd(args);
        cmd.command().stdout(Stdio::piped());
        let mut child = cmd.spawn()?;
        std::thread::sleep(PAUSE);
        let mut text = String::new();
        child.stdout.take().context("no pipe")?.read_to_string(&mut text)?;
        eq("exit code", finish(child)?, 0)?;
        eq(&format!("bytes of {}", args[0]), text.len(), FLOOD)?;
    }
    c.end()
}

/// Not with what that has left in the background, which still holds the caller's pipe.
fn exec_ends_with_its_program(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let out = c.exec(&[], &["seq", "leave", "60000", "---", "say", "done", "---", "exit", "6"])?.code(6)?;
    eq("output", out.stdout.as_str(), "done\n")?;
    c.end()
}

/// SIGURG is what Go's scheduler uses, SIGCHLD what a runtime gets from its own children.
fn signals_for_the_runtime_alone(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["signals"]).save()?;
    let out = cx.path("got");
    let mut cmd = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]);
    cmd.command().stdout(fs::File::create(&out)?);
    let child = cmd.spawn()?;
    let pid = Pid::from_raw(child.id() as i32);
    let has = |text: &str| Ok(fs::read_to_string(&out)?.contains(text).then_some(()));
    wait_for("ready", || has("ready"))?;
    for signal in [Signal::SIGURG, Signal::SIGCHLD, Signal::SIGUSR1] {
        kill(pid, signal)?;
    }
    wait_for("SIGUSR1", || has("got SIGUSR1"))?;
    kill(pid, Signal::SIGTERM)?;
    eq("exit code", finish(child)?, 42)?;
    let text = fs::read_to_string(&out)?;
    ensure!(!text.contains("SIGURG") && !text.contains("SIGCHLD"), "handed on: {text}");
    Ok(())
}

/// The program has ended long before its output is read.
fn terminal_slow_reader(cx: &Cx) -> Result<()> {
    let b = with_terminal(cx, &["flood", &FLOOD.to_string()])?;
    let (master, pty, child) = on_terminal(cx, &["run", "--bundle", &b.path(), &cx.id()])?;
    drop(pty);
    let mut text = String::new();
    while let Ok(more) = {
        std::thread::sleep(Duration::from_millis(if text.len() < 8192 { 200 } else { 0 }));
        let before = text.len();
        read_until(&master, |new| !new.is_empty()).map(|new| (before, new))
    } {
        if more.1.is_empty() {
            break;
        }
        text.push_str(&more.1);
    }
    eq("exit code", finish(child)?, 0)?;
    // A terminal makes two characters of each line end.
    eq("bytes", text.len(), FLOOD + FLOOD / 64)
}

/// What is typed ahead must not stand in the way of what is printed.
fn terminal_input_nobody_reads(cx: &Cx) -> Result<()> {
    let b = with_terminal(
        cx,
        &["seq", "say", "first", "---", "sleep", "400", "---", "say", "second", "---", "exit", "3"],
    )?;
    let (master, pty, child) = on_terminal(cx, &["run", "--bundle", &b.path(), &cx.id()])?;
    read_until(&master, |text| text.contains("first"))?;
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    for _ in 0..32 {
        // Until nothing more goes in.
        if (&master).write(&[b'x'; 4096]).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    fcntl(&master, FcntlArg::F_SETFL(OFlag::empty()))?;
    read_until(&master, |text| text.contains("second"))?;
    eq("exit code", finish(child)?, 3)?;
    drop(pty);
    Ok(())
}

fn terminal_of_a_caller_that_is_gone(cx: &Cx) -> Result<()> {
    let b = with_terminal(cx, &["signals"])?;
    let c = b.container();
    let (master, pty, child) = on_terminal(cx, &["run", "--bundle", &b.path(), &c.id])?;
    read_until(&master, |text| text.contains("ready"))?;
    drop((master, pty));
    std::thread::sleep(PAUSE);
    c.is("running")?;
    c.kill("TERM")?.ok()?;
    eq("exit code", finish(child)?, 42)
}

/// The rest is kept for the reader until the caller says that the runtime shall end.
fn terminal_reader_that_never_reads(cx: &Cx) -> Result<()> {
    // More than the caller's terminal holds, and no more than that, the runtime and the container's hold together.
    let b = with_terminal(cx, &["flood", "20000"])?;
    let (master, pty, mut child) = on_terminal(cx, &["run", "--bundle", &b.path(), &cx.id()])?;
    std::thread::sleep(PAUSE);
    ensure!(child.try_wait()?.is_none(), "the rest of the output was left out");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
    eq("exit code", finish(child)?, 0)?;
    drop(pty);
    ensure!(!read_all(&master)?.is_empty(), "no output at all");
    Ok(())
}
