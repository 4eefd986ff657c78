//! What a container may have that CRIU refuses to save unless a flag says so, and what `create` has added to it.

use super::checkpoint::{self, Counting, start};
use super::tests;
use crate::container::reap;
use crate::cx::{Cx, eq, wait_for};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

tests!["checkpoint_flags":
    notify_socket,
    link_remap,
    ext_unix_sk,
    tcp_established,
    tcp_skip_in_flight,
    shell_job,
    auto_dedup,
    restore_no_subreaper,
];

/// Fails without the flag, in CRIU's words; with it, it is saved and restored and counts on.
fn needs<'a>(s: &Counting<'a>, flag: &str, words: &[&str], restore: &[&str]) -> Result<()> {
    let out = s.try_save(&[])?.code(1)?;
    ensure!(words.iter().any(|text| out.said().contains(text)), "none of {words:?} in {}", out.stderr);
    s.c.is("running")?;
    let count = s.save(&[flag])?;
    s.restore(count, restore)?;
    s.c.end()
}

/// The directory that `create` has bound into the container is none of what the bundle says.
fn notify_socket(cx: &Cx) -> Result<()> {
    checkpoint::need_criu()?;
    let path = cx.path("manager");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    let path = path.display().to_string();
    let mut b = cx.bundle()?;
    b.probe(&["seq", "notify", "READY=1", "---", "count", "/tmp/count"]).save()?;
    let c = b.container();
    let mut cmd = cx.cmd(&["run", "--detach", "--bundle", &b.path(), &c.id]).env("NOTIFY_SOCKET", &path);
    cmd.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = cmd.spawn()?;
    let mut buffer = [0; 256];
    for _ in 0..3 {
        // READY, MAINPID and a barrier, whose descriptor is closed as it is not taken.
        manager.recv(&mut buffer).context("no message")?;
    }
    eq("exit code of run", crate::container::finish(child)?, 0)?;
    let s = Counting::of(c, &b)?;
    let count = s.save(&[])?;
    let bundle = s.c.bundle.display().to_string();
    let mut args = vec!["restore", checkpoint::IGNORE, "--detach", "--bundle", &bundle];
    args.extend(["--image-path", &s.images, "--work-path", &s.work, &s.c.id]);
    cx.cmd(&args).env("NOTIFY_SOCKET", &path).run()?.ok()?;
    s.passes(count)?;
    let v = s.c.exec_inside(&[])?;
    ensure!(v["mountinfo"].to_string().contains(" /run/notify "), "no /run/notify: {}", v["mountinfo"]);
    s.c.end()
}

/// An open file whose name is gone while another name of it stays.
fn link_remap(cx: &Cx) -> Result<()> {
    let s = start_with(cx, &["seq", "held-link", "/tmp/held", "---", "count", "/tmp/count"])?;
    needs(&s, "--link-remap", &["link-remap", "link remap"], &[])
}

/// A datagram socket that is connected to one of the host's, as for a log. The dump alone: a restore connects to the name that
/// the other side was bound by, which means something else in the container's root.
fn ext_unix_sk(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    // CRIU only knows sockets of the container's own network.
    b.without_namespace("network");
    let socket = UnixDatagram::bind(b.rootfs().join("tmp/log"))?;
    b.probe(&["seq", "connected", "/tmp/log", "---", "count", "/tmp/count"]);
    let s = checkpoint::started(&mut b)?;
    s.try_save(&[])?.fails_any(&["ext-unix-sk", "xternal socket"])?;
    s.c.is("running")?;
    let done = dump(&s, &["--ext-unix-sk"]);
    drop(socket);
    done
}

/// The dump alone: a connection can only come back where the engine has made the network.
fn tcp_established(cx: &Cx) -> Result<()> {
    let s = start_with(cx, &["seq", "tcp", "accepted", "---", "count", "/tmp/count"])?;
    s.try_save(&[])?.fails_any(&["tcp-established", "onnected TCP"])?;
    s.c.is("running")?;
    dump(&s, &["--tcp-established"])
}

fn tcp_skip_in_flight(cx: &Cx) -> Result<()> {
    let s = start_with(cx, &["seq", "tcp", "waiting", "---", "count", "/tmp/count"])?;
    s.try_save(&["--tcp-established"])?.fails_any(&["n-flight", "n flight"])?;
    s.c.is("running")?;
    dump(&s, &["--tcp-established", "--tcp-skip-in-flight"])
}

/// Dumps and lets it run on. CRIU locks the network by a program of the machine.
fn dump(s: &Counting, flags: &[&str]) -> Result<()> {
    let mut all = flags.to_vec();
    all.push("--leave-running");
    let out = s.try_save(&all)?;
    if out.code != 0 && ["iptables", "nft"].iter().any(|word| out.said().contains(word)) {
        s.c.end()?;
        return crate::cx::skip("no iptables with which CRIU could lock the network");
    }
    out.ok()?;
    s.passes(s.count()?)?;
    s.c.end()
}

/// A container's init process is the leader of a session of its own: nothing in it needs the flag.
fn shell_job(cx: &Cx) -> Result<()> {
    let s = start(&mut cx.bundle()?)?;
    let count = s.save(&["--shell-job"])?;
    s.restore(count, &["--shell-job"])?;
    s.c.end()
}

/// What has been restored is given back in the images.
fn auto_dedup(cx: &Cx) -> Result<()> {
    let s = start(&mut cx.bundle()?)?;
    let count = s.save(&["--auto-dedup"])?;
    let blocks = || -> Result<u64> {
        let mut sum = 0;
        for entry in fs::read_dir(&s.images)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("pages-") {
                sum += entry.metadata()?.blocks();
            }
        }
        Ok(sum)
    };
    let before = blocks()?;
    s.restore(count, &["--auto-dedup"])?;
    let after = blocks()?;
    ensure!(after < before, "{before} blocks before, {after} after");
    s.c.end()
}

fn restore_no_subreaper(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let s = start(&mut b)?;
    let count = s.save(&[])?;
    // As containerd's client writes it.
    s.restore(count, &["-no-subreaper"])?;
    let pid = s.c.pid()?;
    s.c.kill("KILL")?.ok()?;
    eq("exit", reap(pid)?, 137)?;
    s.c.delete()?.ok().map(drop)
}

fn start_with<'a>(cx: &'a Cx, probe: &[&str]) -> Result<Counting<'a>> {
    let mut b = cx.bundle()?;
    b.probe(probe);
    let s = checkpoint::started(&mut b)?;
    wait_for("the program", || Ok(s.file.exists().then_some(())))?;
    Ok(s)
}
