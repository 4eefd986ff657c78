//! Seccomp with an agent: SCMP_ACT_NOTIFY, the container process state, who answers for create and for exec.

use super::tests;
use crate::bundle::Bundle;
use crate::cx::{Cx, eq, same};
use crate::sys;
use anyhow::{Context, Result, ensure};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;
use std::time::Duration;

tests!["seccomp_agent":
    state_of_a_created_container deviates ["crun" = "leaves the connection open"],
    agent_answers deviates ["crun" = "leaves the connection open"],
    agent_answers_without_no_new_privs deviates ["crun" = "leaves the connection open"],
    exec_is_told_too deviates ["crun" = "leaves the connection open"],
    early_calls,
    path_without_agent_fails,
    path_without_notify_is_ignored deviates ["crun" = "connects all the same"],
    metadata_needs_a_path deviates ["runc" = "does not look", "crun" = "does not look"],
    write_cannot_wait deviates ["crun" = "does not look"],
    wait_killable deviates ["runc" = "1.3 does not know it", "crun" = "leaves the connection open"],
];

/// What the agent got in one connection.
struct Served {
    message: Value,
    listener: OwnedFd,
}

/// Takes one connection with one message and one descriptor, up to its end.
fn receive(socket: &UnixListener) -> Result<Served> {
    ensure!(sys::readable(socket, Duration::from_secs(5))?, "nobody connected");
    let (mut connection, _) = socket.accept()?;
    let mut bytes = vec![0; 65536];
    let mut control = cmsg_space!([RawFd; 4]);
    let (length, fds) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let got = recvmsg::<()>(
            connection.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let mut fds = vec![];
        for part in got.cmsgs()? {
            if let ControlMessageOwned::ScmRights(list) = part {
                fds.extend(list.into_iter().map(sys::own_received));
            }
        }
        (got.bytes, fds)
    };
    bytes.truncate(length);
    connection.set_read_timeout(Some(Duration::from_secs(3)))?;
    connection.read_to_end(&mut bytes).context("the connection was not closed")?;
    eq("descriptors", fds.len(), 1)?;
    let listener = fds.into_iter().next().context("no descriptor")?;
    Ok(Served { message: serde_json::from_slice(&bytes)?, listener })
}

/// An agent that serves `connections` processes and lets each call that waits fail with EXDEV.
fn agent(socket: UnixListener, connections: usize) -> JoinHandle<Result<Vec<Value>>> {
    std::thread::spawn(move || {
        let mut messages = vec![];
        let mut threads = vec![];
        for _ in 0..connections {
            let Served { message, listener } = receive(&socket)?;
            messages.push(message);
            threads.push(std::thread::spawn(move || {
                while sys::readable(&listener, Duration::from_secs(5)).unwrap_or(false) {
                    // The last process has ended.
                    let Ok((id, _)) = sys::seccomp_receive(&listener) else { break };
                    if sys::seccomp_answer(&listener, id, libc::EXDEV).is_err() {
                        break;
                    }
                }
            }));
        }
        Ok(messages)
    })
}

fn joined(agent: JoinHandle<Result<Vec<Value>>>) -> Result<Vec<Value>> {
    agent.join().map_err(|_| anyhow::anyhow!("the agent panicked"))?
}

/// A bundle whose calls of these names wait for an agent, and the socket for it.
fn waiting<'a>(cx: &'a Cx, names: &[&str]) -> Result<(Bundle<'a>, UnixListener)> {
    let path = cx.path(&format!("agent.{}", cx.next()));
    let mut b = cx.bundle()?;
    b.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path.display().to_string(),
               "listenerMetadata": "some metadata",
               "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]}),
    );
    Ok((b, UnixListener::bind(path)?))
}

fn state_of_a_created_container(cx: &Cx) -> Result<()> {
    let (mut b, socket) = waiting(cx, &["getpriority"])?;
    b.set("/annotations", json!({"some.key": "value"}));
    let agent = std::thread::spawn(move || receive(&socket));
    let c = b.create()?;
    let Served { message, .. } = agent.join().map_err(|_| anyhow::anyhow!("the agent panicked"))??;
    let pid = c.pid()?;
    same("version", &message["ociVersion"], b.config["ociVersion"].clone())
        .or_else(|_| same("version", &message["ociVersion"], json!("1.2.1")))
        .or_else(|_| same("version", &message["ociVersion"], json!("1.3.0")))?;
    same("fds", &message["fds"], json!(["seccompFd"]))?;
    same("pid", &message["pid"], json!(pid))?;
    same("metadata", &message["metadata"], json!("some metadata"))?;
    let state = &message["state"];
    same("id", &state["id"], json!(c.id))?;
    same("state's pid", &state["pid"], json!(pid))?;
    same("bundle", &state["bundle"], json!(b.path()))?;
    same("annotations", &state["annotations"], json!({"some.key": "value"}))?;
    same("status", &state["status"], json!("creating"))?;
    c.delete_force()?;
    Ok(())
}

fn agent_answers(cx: &Cx) -> Result<()> {
    let (mut b, socket) = waiting(cx, &["getpriority", "mkdirat"])?;
    let agent = agent(socket, 1);
    b.expect(&[
        (&["syscall", "getpriority"], "EXDEV"),
        (&["syscall", "getpid"], "ok"),
        (&["syscall", "mkdirat"], "EXDEV"),
    ])?;
    eq("messages", joined(agent)?.len(), 1)
}

/// The filter is loaded before the user changes, and the agent is served then.
fn agent_answers_without_no_new_privs(cx: &Cx) -> Result<()> {
    let (mut b, socket) = waiting(cx, &["getpriority"])?;
    b.set("/process/noNewPrivileges", json!(false)).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let agent = agent(socket, 1);
    b.expect(&[(&["syscall", "getpriority"], "EXDEV"), (&["syscall", "getpid"], "ok")])?;
    eq("messages", joined(agent)?.len(), 1)
}

fn exec_is_told_too(cx: &Cx) -> Result<()> {
    for no_new_privs in [true, false] {
        let (mut b, socket) = waiting(cx, &["getpriority"])?;
        b.set("/process/noNewPrivileges", json!(no_new_privs)).probe(&["sleep"]);
        let agent = agent(socket, 2);
        let c = b.start()?;
        let out = c.exec(&[], &["seq", "syscall", "getpriority", "---", "syscall", "getpid"])?.ok()?;
        eq("answers", out.lines(), vec!["EXDEV", "ok"])?;
        let messages = joined(agent)?;
        let pid = c.pid()?;
        same("status", &messages[1]["state"]["status"], json!("running"))?;
        same("state's pid", &messages[1]["state"]["pid"], json!(pid))?;
        ensure!(messages[1]["pid"] != json!(pid), "the pid of an exec process is that of init");
        c.end()?;
    }
    Ok(())
}

/// Calls that runtimes make themselves after the filter is loaded wait for the agent and do not stop the start.
fn early_calls(cx: &Cx) -> Result<()> {
    let (mut b, socket) = waiting(cx, &["getcwd", "umask", "getrandom"])?;
    let agent = agent(socket, 1);
    b.probe(&["say", "x"]);
    eq("output", b.run()?.ok()?.stdout, "x\n")?;
    joined(agent)?;
    Ok(())
}

fn path_without_agent_fails(cx: &Cx) -> Result<()> {
    let (mut b, socket) = waiting(cx, &["getpriority"])?;
    drop(socket);
    let before = cx.snapshot()?;
    let phrase = if cx.kind == "crun" { "connect" } else { "failed to connect with seccomp agent" };
    b.run()?.fails(&[phrase])?;
    b.set("/linux/seccomp/listenerPath", json!("/absent")).run()?.fails(&[phrase])?;
    cx.nothing_left(&before)
}

/// "If the SCMP_ACT_NOTIFY action is not used this value is ignored."
fn path_without_notify_is_ignored(cx: &Cx) -> Result<()> {
    let (mut b, socket) = waiting(cx, &["getpriority"])?;
    b.set("/linux/seccomp/syscalls/0/action", json!("SCMP_ACT_ERRNO"));
    b.expect(&[(&["syscall", "getpriority"], "EPERM")])?;
    ensure!(!sys::readable(&socket, Duration::from_millis(1))?, "somebody connected");
    Ok(())
}

fn metadata_needs_a_path(cx: &Cx) -> Result<()> {
    let (mut b, _socket) = waiting(cx, &["getpriority"])?;
    b.remove("/linux/seccomp/listenerPath").set("/linux/seccomp/syscalls/0/action", json!("SCMP_ACT_ERRNO"));
    b.run()?.fails(&["listenerMetadata"])?;
    Ok(())
}

/// The descriptor goes to the runtime by a write.
fn write_cannot_wait(cx: &Cx) -> Result<()> {
    let (b, _socket) = waiting(cx, &["write"])?;
    let before = cx.snapshot()?;
    b.run()?.fails(&["SCMP_ACT_NOTIFY cannot be used for the write syscall"])?;
    cx.nothing_left(&before)
}

fn wait_killable(cx: &Cx) -> Result<()> {
    let (mut b, socket) = waiting(cx, &["getpriority"])?;
    b.set(
        "/linux/seccomp/flags",
        json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_LOG"]),
    );
    let agent = agent(socket, 1);
    b.expect(&[(&["syscall", "getpriority"], "EXDEV")])?;
    joined(agent)?;
    Ok(())
}
