//! systemd's readiness protocol through the runtime: `NOTIFY_SOCKET` of the caller and of the program.

use super::tests;
use crate::bundle::Bundle;
use crate::container::{finish, finish_within, reap};
use crate::cx::{Cx, eq, same, wait_for};
use crate::sys::on_one_processor;
use anyhow::{Context, Result, ensure};
use nix::cmsg_space;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;
use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

tests!["notify":
    start_waits_for_readiness deviates ["crun" = "tells no pid"],
    start_ends_with_the_container,
    run_detached deviates ["crun" = "tells no pid"],
    run_in_the_foreground deviates ["runc" = "tells READY only, and waits", "crun" = "has no relay in the foreground"],
    flood_before_the_end deviates ["runc" = "waits, in the foreground", "crun" = "has no relay in the foreground"],
    flood_and_signals deviates ["runc" = "waits, in the foreground"],
    flood_after_the_end deviates ["crun" = "reads on while there is something"],
    nothing_without_the_variable,
    deleted_with_the_state,
];

/// A runtime that sees nothing but a flood would never end.
const FLOOD_LIMIT: Duration = Duration::from_secs(4);
const READY: [&str; 5] = ["seq", "notify", "STATUS=soon", "---", "notify"];

fn ready<'a>(cx: &'a Cx, then: &[&str]) -> Result<Bundle<'a>> {
    let mut b = cx.bundle()?;
    let mut args = READY.to_vec();
    args.extend(["READY=1\nSTATUS=up", "---"]);
    args.extend(then);
    b.probe(&args).save()?;
    Ok(b)
}

/// The caller's end.
struct Manager(UnixDatagram, String);

impl Manager {
    fn new(cx: &Cx) -> Result<Self> {
        let path = cx.path(&format!("manager.{}", cx.next()));
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_secs(4)))?;
        Ok(Manager(socket, path.display().to_string()))
    }

    /// The next message; a descriptor that comes with it is closed, which answers a barrier.
    fn next(&self) -> Result<String> {
        let mut data = [0; 4096];
        let mut parts = [IoSliceMut::new(&mut data)];
        let mut control = cmsg_space!(RawFd);
        let message =
            recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)
                .context("no message")?;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                fds.into_iter().for_each(|fd| drop(crate::sys::own_received(fd)));
            }
        }
        let length = message.bytes;
        Ok(String::from_utf8_lossy(&data[..length]).trim_end().to_string())
    }

    fn says(&self, wanted: &[String]) -> Result<()> {
        for text in wanted {
            eq("message", &self.next()?, text)?;
        }
        Ok(())
    }
}

fn start_waits_for_readiness(cx: &Cx) -> Result<()> {
    let manager = Manager::new(cx)?;
    let b = ready(cx, &["sleep"])?;
    let c = b.container();
    cx.cmd(&["create", "--bundle", &b.path(), &c.id]).env("NOTIFY_SOCKET", &manager.1).run()?.ok()?;
    let pid = c.pid()?;
    let start = cx.cmd(&["start", &c.id]).env("NOTIFY_SOCKET", &manager.1).spawn()?;
    manager.says(&["READY=1".into(), format!("MAINPID={pid}"), "BARRIER=1".into()])?;
    eq("exit code of start", finish(start)?, 0)?;
    c.end()
}

fn start_ends_with_the_container(cx: &Cx) -> Result<()> {
    let manager = Manager::new(cx)?;
    let mut b = cx.bundle()?;
    b.probe(&["exit", "3"]).save()?;
    let c = b.container();
    cx.cmd(&["create", "--bundle", &b.path(), &c.id]).env("NOTIFY_SOCKET", &manager.1).run()?.ok()?;
    let pid = c.pid()?;
    let start = cx.cmd(&["start", &c.id]).env("NOTIFY_SOCKET", &manager.1).spawn()?;
    eq("exit of the program", reap(pid)?, 3)?;
    eq("exit code of start", finish(start)?, 0)?;
    c.delete()?.ok()?;
    Ok(())
}

fn run_detached(cx: &Cx) -> Result<()> {
    let manager = Manager::new(cx)?;
    let b = ready(cx, &["sleep"])?;
    let c = b.container();
    let run =
        cx.cmd(&["run", "-d", "--bundle", &b.path(), &c.id]).env("NOTIFY_SOCKET", &manager.1).spawn()?;
    manager.says(&["READY=1".into()])?;
    let pid = c.pid()?;
    manager.says(&[format!("MAINPID={pid}"), "BARRIER=1".into()])?;
    eq("exit code of run", finish(run)?, 0)?;
    c.end()
}

/// The runtime stays: it is what the manager watches, and nobody needs a barrier.
fn run_in_the_foreground(cx: &Cx) -> Result<()> {
    let manager = Manager::new(cx)?;
    let b = ready(cx, &["exit", "5"])?;
    let run = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).env("NOTIFY_SOCKET", &manager.1).spawn()?;
    let pid = run.id();
    manager.says(&["READY=1".into(), format!("MAINPID={pid}")])?;
    eq("exit code of run", finish(run)?, 5)
}

/// However much was said before, the last word is handed on.
fn flood_before_the_end(cx: &Cx) -> Result<()> {
    let manager = Manager::new(cx)?;
    let mut args = vec!["seq"];
    (0..300).for_each(|_| args.extend(["notify", "STATUS=busy", "---"]));
    args.extend(["notify", "READY=1", "---", "exit", "5"]);
    let mut b = cx.bundle()?;
    b.probe(&args).save()?;
    let mut run = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).env("NOTIFY_SOCKET", &manager.1);
    run.command().stdout(Stdio::null());
    let run = run.spawn()?;
    let pid = run.id();
    manager.says(&["READY=1".into(), format!("MAINPID={pid}")])?;
    eq("exit code of run", finish(run)?, 5)
}

/// A container that sends without end does not keep the runtime from anything else.
fn flood_and_signals(cx: &Cx) -> Result<()> {
    let manager = Manager::new(cx)?;
    let mut b = cx.bundle()?;
    b.probe(&["seq", "background", "notify-flood", "---", "signals"]).may_come_first().save()?;
    let out = cx.path("said");
    let mut run = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).env("NOTIFY_SOCKET", &manager.1);
    run.command().stdout(File::create(&out)?);
    on_one_processor(run.command())?;
    let run = run.spawn()?;
    wait_for("ready", || Ok(std::fs::read_to_string(&out)?.contains("ready").then_some(())))?;
    std::thread::sleep(Duration::from_millis(50));
    kill(Pid::from_raw(run.id() as i32), Signal::SIGTERM)?;
    eq("exit code of run", finish_within(run, FLOOD_LIMIT)?, 42)
}

/// In a pid namespace that is not its own what sends may outlive the program.
fn flood_after_the_end(cx: &Cx) -> Result<()> {
    let manager = Manager::new(cx)?;
    let mut b = cx.bundle()?;
    b.without_namespace("pid");
    b.probe(&["seq", "background", "notify-flood", "---", "sleep", "50", "---", "exit", "3"]);
    b.may_come_first().save()?;
    let c = b.container();
    let mut create = cx.cmd(&["create", "--bundle", &b.path(), &c.id]).env("NOTIFY_SOCKET", &manager.1);
    on_one_processor(create.command())?;
    create.run()?.ok()?;
    let mut start = cx.cmd(&["start", &c.id]).env("NOTIFY_SOCKET", &manager.1);
    on_one_processor(start.command())?;
    let pid = c.pid()?;
    let start = start.spawn()?;
    eq("exit of the program", reap(pid)?, 3)?;
    eq("exit code of start", finish_within(start, FLOOD_LIMIT)?, 0)?;
    c.delete_force()?;
    Ok(())
}

fn nothing_without_the_variable(cx: &Cx) -> Result<()> {
    let v = cx.bundle()?.inside()?;
    ensure!(!v["environ"].to_string().contains("NOTIFY_SOCKET"), "{}", v["environ"]);
    let mut b = cx.bundle()?;
    same("/run/notify", &serde_json::json!(b.lines(&["notify", "READY=1"])?), serde_json::json!(["ENOENT"]))
}

fn deleted_with_the_state(cx: &Cx) -> Result<()> {
    let manager = Manager::new(cx)?;
    let before = cx.snapshot()?;
    let b = ready(cx, &["sleep"])?;
    let c = b.container();
    cx.cmd(&["create", "--bundle", &b.path(), &c.id]).env("NOTIFY_SOCKET", &manager.1).run()?.ok()?;
    let pid = c.pid()?;
    c.delete()?.ok()?;
    reap(pid)?;
    cx.nothing_left(&before)
}
