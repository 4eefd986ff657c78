//! The runtime's own files and processes on the host: ids, pid files, logs, states, pids, limits.

use super::process::{gone, limited};
use crate::canary::Canary;
use crate::container::reap;
use crate::cx::{Cx, skip};
use crate::variant::sane;
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// T58: an id is a name and never a path, for every verb.
pub fn id_traversal(cx: &Cx) -> Result<String> {
    let canary = Canary::new(&cx.path("canary"))?;
    let mut b = cx.bundle()?;
    b.probe(&["true"]).save()?;
    let bundle = b.path();
    let long = "x".repeat(4096);
    let mut tried = 0;
    for id in
        ["..", ".", "a/b", "../canary", "../../canary", "", "-x", "a\nb", "a b", "/", "é", long.as_str()]
    {
        for verb in [
            "create", "run", "state", "start", "kill", "delete", "exec", "pause", "resume", "ps", "update",
            "events",
        ] {
            let mut args: Vec<&str> = match verb {
                "create" | "run" => vec![verb, "--bundle", &bundle, "--", id],
                "exec" => vec![verb, "--", id, "/bin/probe", "true"],
                "update" => vec![verb, "--pids-limit", "5", "--", id],
                "events" => vec![verb, "--stats", "--", id],
                "kill" => vec![verb, "--", id, "0"],
                _ => vec![verb, "--", id],
            };
            // A name may begin with a dash, but is a flag where nothing says otherwise.
            args.retain(|word| *word != "--" || !id.starts_with('-'));
            let out = cx.cmd(&args).limit(Duration::from_secs(5)).run()?;
            sane(&out)?;
            ensure!(out.code != 0, "{verb} {id:?} was taken");
            tried += 1;
        }
    }
    // Forced deletion of what is not there may succeed, but touches nothing.
    for id in ["../canary", ".."] {
        sane(&cx.rt(&["delete", "--force", "--", id])?)?;
    }
    canary.same()?;
    ensure!(cx.root.is_dir(), "the state root is gone");
    Ok(format!("{tried} commands"))
}

/// T59: links and fifos where the pid file or the log should be.
pub fn pidfile_symlink(cx: &Cx) -> Result<String> {
    let canary = Canary::new(&cx.path("canary"))?;
    let mut b = cx.bundle()?;
    b.probe(&["true"]).save()?;
    let (link, fifo, log) = (cx.path("pid.link"), cx.path("pid.fifo"), cx.path("log.link"));
    symlink(canary.dir.join("file"), &link)?;
    symlink(canary.dir.join("file"), &log)?;
    let mode = nix::sys::stat::Mode::from_bits_retain(0o666);
    nix::unistd::mkfifo(&fifo, mode)?;
    for path in [&link, &fifo] {
        let pid_file = path.display().to_string();
        let out = cx
            .cmd(&["run", "--pid-file", &pid_file, "--bundle", &b.path(), &cx.id()])
            .limit(Duration::from_secs(5))
            .run()?;
        sane(&out)?;
    }
    let log_fifo = cx.path("log.fifo");
    nix::unistd::mkfifo(&log_fifo, mode)?;
    for path in [&log, &log_fifo] {
        let name = path.display().to_string();
        let root = cx.root.display().to_string();
        let out = cx
            .bare(&["--root", &root, "--log", &name, "state", "missing"])
            .limit(Duration::from_secs(5))
            .run()?;
        sane(&out)?;
    }
    canary.same()?;
    Ok(String::new())
}

/// T60: rubbish instead of a state: errors, and delete --force still cleans up.
pub fn state_corrupt(cx: &Cx) -> Result<String> {
    let canary = Canary::new(&cx.path("canary"))?;
    let mut notes = vec![];
    for kind in ["truncated", "empty", "huge", "link", "fifo", "directory", "rubbish"] {
        let mut b = cx.bundle()?;
        b.probe(&["sleep"]);
        let c = b.start()?;
        let pid = c.pid()?;
        let dir = cx.root.join(&c.id);
        let files: Vec<_> = fs::read_dir(&dir)?
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_file()))
            .filter(|e| e.file_name().to_string_lossy().contains("stat"))
            .map(|e| e.path())
            .collect();
        ensure!(!files.is_empty(), "no state file in {}", dir.display());
        for file in &files {
            let text = fs::read(file)?;
            fs::remove_file(file)?;
            match kind {
                "truncated" => fs::write(file, &text[..text.len() / 2])?,
                "empty" => fs::write(file, "")?,
                "huge" => fs::File::create(file)?.set_len(1 << 30)?,
                "link" => symlink(canary.dir.join("file"), file)?,
                "fifo" => nix::unistd::mkfifo(file, nix::sys::stat::Mode::from_bits_retain(0o600))?,
                "directory" => fs::create_dir(file)?,
                _ => fs::write(file, "{\"pid\":-1,\"id\":7}")?,
            }
        }
        for verb in [&["state"][..], &["kill"], &["exec"], &["ps"], &["start"], &["pause"]] {
            let mut args = verb.to_vec();
            args.push(&c.id);
            if verb[0] == "exec" {
                args.extend(["/bin/probe", "true"]);
            }
            let out = cx.cmd(&args).limit(Duration::from_secs(5)).run()?;
            sane(&out)?;
            ensure!(out.code != 0, "{kind}: {} works", verb[0]);
        }
        sane(&cx.cmd(&["list"]).limit(Duration::from_secs(5)).run()?)?;
        // Without a state nobody knows the processes: those end here, then everything else must go.
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("kill the container's process")?;
        gone(pid);
        let out = c.cx.cmd(&["delete", "--force", &c.id]).limit(Duration::from_secs(15)).run()?;
        sane(&out)?;
        if dir.exists() {
            notes.push(format!("{kind}: delete --force leaves the directory"));
            fs::remove_dir_all(&dir)?;
        }
        // Where its cgroup was is not known either.
        crate::cgroup::remove(&format!("{}/{}", cx.cgroup, cgroup_name(&b)))?;
    }
    canary.same()?;
    Ok(notes.join(", "))
}

fn cgroup_name(b: &crate::bundle::Bundle) -> String {
    let path = b.config["linux"]["cgroupsPath"].as_str().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().to_string()
}

/// T61: the init process is gone and its pid is somebody else's.
pub fn pid_reuse(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let pid = c.pid()?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    reap(pid)?;
    let mut decoy = None;
    for _ in 0..50 {
        if fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).is_err() {
            c.delete_force()?;
            return skip("pids cannot be chosen here");
        }
        let mut child = Command::new(&cx.probe).args(["sleep"]).stdout(Stdio::null()).spawn()?;
        if child.id() == pid as u32 {
            decoy = Some(child);
            break;
        }
        child.kill()?;
        child.wait()?;
    }
    let mut decoy = decoy.context("the pid did not come again")?;
    for args in [
        &["kill", &c.id, "KILL"][..],
        &["kill", "--all", &c.id, "KILL"],
        &["exec", &c.id, "/bin/probe", "true"],
        &["pause", &c.id],
    ] {
        sane(&cx.rt(args)?)?;
    }
    let status = c.status().unwrap_or_default();
    c.delete_force()?;
    let alive = decoy.try_wait()?.is_none();
    decoy.kill()?;
    decoy.wait()?;
    ensure!(alive, "the decoy was hit");
    ensure!(status == "stopped" || status.is_empty(), "status {status}");
    Ok(String::new())
}

/// T63: nobody waits for a process that is gone.
pub fn dead_init_start(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    b.probe(&["true"]);
    let c = b.create()?;
    let pid = c.pid()?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    reap(pid)?;
    let start = Instant::now();
    let out = c.start()?;
    sane(&out)?;
    ensure!(out.code != 0, "it was started");
    ensure!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    c.delete_force()?;
    Ok(String::new())
}

/// T67: no descriptors, no room for a state, a state root that cannot be written.
pub fn exhaustion(cx: &Cx) -> Result<String> {
    let before = cx.snapshot()?;
    let mut b = cx.bundle()?;
    b.probe(&["true"]).save()?;
    let (mut refused, mut worked) = (0, 0);
    for n in 3..40 {
        let id = cx.id();
        let out = limited(cx, &format!("ulimit -n {n}"), &["run", "--bundle", &b.path(), &id])?;
        sane(&out)?;
        if out.code == 0 {
            worked += 1;
        } else {
            refused += 1;
            ensure!(n < 5 || !out.stderr.trim().is_empty(), "{n} descriptors: refused without a word");
            c_delete(cx, &id)?;
        }
        cx.nothing_left(&before).with_context(|| format!("{n} descriptors"))?;
    }
    // A full disk under the states.
    mount(Some("tmpfs"), &cx.root, Some("tmpfs"), MsFlags::empty(), Some("size=4k,nr_inodes=2"))
        .context("mount a small tmpfs")?;
    let fill = fs::write(cx.root.join(".full"), vec![0; 4096]);
    let full = b.run();
    let _ = fs::remove_file(cx.root.join(".full"));
    mount(
        None::<&str>,
        &cx.root,
        None::<&str>,
        MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_BIND,
        None::<&str>,
    )?;
    let readonly = b.run();
    umount2(&cx.root, MntFlags::MNT_DETACH)?;
    fill.context("fill the state root")?;
    for (name, out) in [("full", full?), ("read-only", readonly?)] {
        sane(&out)?;
        ensure!(out.code != 0 && !out.stderr.trim().is_empty(), "{name} state root: exit {}", out.code);
    }
    cx.nothing_left(&before).context("a state root without room")?;
    Ok(format!("descriptors 3 to 39: {refused} refused, {worked} worked"))
}

fn c_delete(cx: &Cx, id: &str) -> Result<()> {
    sane(&cx.rt(&["delete", "--force", id])?)
}
