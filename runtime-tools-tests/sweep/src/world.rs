//! The sweep's own little host: namespaces, cgroup view, bundles, and running the runtime in them.
//!
//! A worker is pid 1 of a pid namespace, with mount, uts, ipc and network namespaces of its own, and empty /run
//! and /tmp: all that a runtime leaves is then seen there, nobody else's things are, and the worker's end kills
//! what is left. Mounts are shared within the namespace, as systemd makes them on most hosts, so that a mount
//! that escapes from a container shows. Called by `supervise` (enter, clean) and `verdict`.

use std::ffi::CString;
use std::fs;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::bundle;
use crate::kernel::{self, Pid, Program};
use crate::oracle;
use crate::plan::View;
use crate::trace::{Dead, End, end_of};

const BASE: &str = "/run/sweep";
/// State root given to the runtime.
pub const STATE: &str = "/run/sweep/state";
/// Bundle whose payload reports and ends.
pub const REPORT: &str = "/run/sweep/report";
/// Bundle whose payload stays.
pub const WAIT: &str = "/run/sweep/wait";
/// Where create and run write the pid.
pub const PID_FILE: &str = "/run/sweep/pid";
/// Where the hook writes.
pub const HOOK_LOG: &str = "/run/sweep/hook-log";
const PROBE: &str = "/run/sweep/rootfs/probe";

const NONE: Option<&str> = None;

/// Leaves the caller's namespaces; the next child is pid 1.
pub fn leave() -> Result<()> {
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET,
    )
    .context("unshare")
}

/// Two memory files that a process has as stdout and stderr.
pub struct Output {
    /// stdout
    pub out: RawFd,
    /// stderr
    pub err: RawFd,
}

impl Output {
    fn new() -> Result<Self> {
        Ok(Self { out: kernel::memory_file(c"out")?, err: kernel::memory_file(c"err")? })
    }

    /// Empties both.
    pub fn clear(&self) {
        kernel::clear(self.out);
        kernel::clear(self.err);
    }
}

/// What an untraced command did.
pub struct Ran {
    /// Its end.
    pub end: End,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

impl Ran {
    /// An error unless it exited with 0.
    pub fn good(self, what: &str) -> Result<String> {
        match self.end {
            End::Code(0) => Ok(self.out),
            end => bail!("{what}: {end:?}: {}", self.err.trim_end()),
        }
    }
}

/// The worker's host.
pub struct World {
    runtime: CString,
    /// Container id, and the tag of its cgroups.
    pub id: String,
    /// Mounted cgroup roots.
    pub hierarchies: Vec<String>,
    /// stdio of containers (and of create and run).
    pub payload: Output,
    /// stdio of the other commands.
    pub tool: Output,
    null: RawFd,
    /// Device and inode of the probe.
    pub probe: (u64, u64),
    /// Exits seen.
    pub dead: Dead,
    /// How long a command may take.
    pub limit: Duration,
    namespaces: Vec<String>,
}

fn show_cgroups(view: View) -> Result<()> {
    match view {
        View::V1 => {
            // Not there on a plain v1 host: nothing to hide then.
            let _ = umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH);
            let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
            if !mountinfo.contains(" - cgroup cgroup ") {
                bail!("this host has no v1 hierarchy");
            }
        }
        View::V2 => {
            umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).context("umount /sys/fs/cgroup")?;
            mount(Some("none"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), NONE)
                .context("mount cgroup2")?;
        }
    }
    Ok(())
}

/// Whether a program needs no loader: it must run in an empty rootfs.
fn is_static(elf: &[u8]) -> bool {
    let u16_at = |at: usize| elf.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]) as usize);
    let u64_at = |at: usize| {
        elf.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()) as usize)
    };
    let (start, size, count) = (u64_at(32), u16_at(54), u16_at(56));
    const PT_INTERP: &[u8] = &[3, 0, 0, 0];
    elf.starts_with(b"\x7fELF")
        && !(0..count).any(|i| elf.get(start + i * size..start + i * size + 4) == Some(PT_INTERP))
}

impl World {
    /// Makes the host around this process, which is pid 1 after `leave`.
    pub fn enter(runtime: &str, id: &str, view: View, hook: bool, limit: Duration) -> Result<Self> {
        let own = fs::read("/proc/self/exe").context("read own program")?;
        if !is_static(&own) {
            bail!("the sweep is its own payload and must be static: build it for the musl target");
        }
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context("make / private")?;
        mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), NONE).context("mount /proc")?;
        show_cgroups(view).with_context(|| format!("view {}", view.word()))?;
        for dir in ["/run", "/tmp"] {
            mount(Some("sweep"), dir, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
                .with_context(|| format!("mount {dir}"))?;
        }
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE).context("make / shared")?;
        nix::unistd::sethostname("sweep-host").context("sethostname")?;
        if !Path::new(runtime).is_file() {
            bail!("{runtime}: not there, or below /run or /tmp, which the sweep hides");
        }
        make_files(&own, id, view, hook)?;
        let m = fs::metadata(PROBE)?;
        let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into_raw_fd();
        let namespaces = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
            .iter()
            .filter_map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).ok())
            .map(|link| link.to_string_lossy().into_owned())
            .collect();
        Ok(Self {
            runtime: CString::new(runtime)?,
            id: id.to_string(),
            hierarchies: oracle::hierarchies(&fs::read_to_string("/proc/self/mountinfo")?),
            payload: Output::new()?,
            tool: Output::new()?,
            null,
            probe: (m.dev(), m.ino()),
            dead: Dead::default(),
            limit,
            namespaces,
        })
    }

    /// Whether the container's cgroup has the limits that `update` is to change.
    pub fn has_limits(&self) -> bool {
        oracle::limits(&self.hierarchies, &self.id).contains("pids.max")
    }

    /// A command line of the runtime.
    pub fn program(&self, args: &[&str]) -> Result<Program> {
        let mut all = vec!["--root", STATE];
        all.extend(args);
        Program::new(&self.runtime, &all)
    }

    /// Descriptors for a command: null and an output.
    pub fn stdio(&self, output: &Output) -> [RawFd; 3] {
        [self.null, output.out, output.err]
    }

    /// When a command that begins now must be over.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.limit
    }

    fn run(&mut self, args: &[&str], stdio: [RawFd; 3]) -> Result<End> {
        let pid = kernel::start(&self.program(args)?, stdio, None)?;
        let deadline = self.deadline();
        let end = end_of(self.dead.wait(pid, deadline));
        self.dead.forget(pid);
        Ok(end)
    }

    /// Runs a command without a fault.
    pub fn tool(&mut self, args: &[&str]) -> Result<Ran> {
        self.tool.clear();
        let end = self.run(args, self.stdio(&self.tool))?;
        Ok(Ran { end, out: kernel::text_of(self.tool.out), err: kernel::text_of(self.tool.err) })
    }

    /// Creates a container whose stdio is the payload's.
    pub fn create(&mut self, bundle: &str) -> Result<()> {
        let id = self.id.clone();
        self.payload.clear();
        let end = self
            .run(&["create", "--bundle", bundle, "--pid-file", PID_FILE, &id], self.stdio(&self.payload))?;
        if end != End::Code(0) {
            bail!("create: {end:?}: {}", kernel::text_of(self.payload.err).trim_end());
        }
        Ok(())
    }

    /// Whether no payload has said anything yet.
    pub fn payload_is_silent(&self) -> bool {
        kernel::text_of(self.payload.out).is_empty()
    }

    /// The pid in the pid file, which is then removed.
    pub fn take_pid_file(&self) -> Option<Pid> {
        let text = fs::read_to_string(PID_FILE).ok()?;
        // Read just now: only its absence could make this fail.
        let _ = fs::remove_file(PID_FILE);
        text.trim().parse().ok()
    }

    /// Removes the pid file if there is one: no runtime removes it after create.
    pub fn drop_pid_file(&self) {
        // Absent is as good.
        let _ = fs::remove_file(PID_FILE);
    }

    /// Kills by its id each process there is but this one, which is pid 1 here, and reaps it.
    pub fn end_processes(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            let others: Vec<Pid> = fs::read_dir("/proc")
                .into_iter()
                .flatten()
                .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
                .filter(|pid| *pid != 1)
                .collect();
            if others.is_empty() {
                return;
            }
            others.into_iter().for_each(|pid| {
                kernel::kill(pid);
            });
            std::thread::sleep(Duration::from_micros(500));
            self.dead.reap();
        }
    }

    /// A probe's report with ids replaced, so that two containers compare.
    pub fn normal(&self, report: &str) -> String {
        let mut out = String::with_capacity(report.len());
        for line in report.lines() {
            match line.strip_prefix("ns ") {
                Some(ns) => {
                    let kind = ns.split(':').next().unwrap_or_default();
                    let whose = if self.namespaces.iter().any(|n| n == ns) { "host" } else { "own" };
                    out.push_str(&format!("ns {kind} {whose}"));
                }
                None => out.push_str(&line.replace(&self.id, "ID")),
            }
            out.push('\n');
        }
        out
    }
}

fn make_files(own: &[u8], id: &str, view: View, hook: bool) -> Result<()> {
    let mut dir = fs::DirBuilder::new();
    dir.recursive(true).mode(0o755);
    for name in bundle::ROOTFS_DIRS {
        dir.create(format!("{BASE}/rootfs/{name}"))?;
    }
    for path in [STATE, REPORT, WAIT, "/run/sweep/data"] {
        dir.create(path)?;
    }
    fs::write("/run/sweep/data/file", "data\n")?;
    fs::write("/run/sweep/rootfs/etc/passwd", "root:x:0:0:root:/root:/probe\n")?;
    fs::write("/run/sweep/rootfs/etc/group", "root:x:0:\n")?;
    fs::write(PROBE, own)?;
    fs::set_permissions(PROBE, fs::Permissions::from_mode(0o755))?;
    if hook {
        fs::write(HOOK_LOG, "")?;
    }
    // Not there as v1: no controllers then.
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    for (path, word) in [(REPORT, "report"), (WAIT, "wait")] {
        let config = bundle::config(&bundle::Wish {
            id,
            view,
            controllers: &controllers,
            args: &["/probe", word],
            rootfs: "/run/sweep/rootfs",
            data: "/run/sweep/data",
            hook: hook.then_some((PROBE, HOOK_LOG)),
        });
        fs::write(format!("{path}/config.json"), config.to_string())?;
    }
    Ok(())
}

/// Removes the cgroups with `id` in their name below `roots`, deepest first; those that stay are returned.
pub fn remove_cgroups(roots: &[String], id: &str) -> Vec<String> {
    let mut left = Vec::new();
    for root in roots {
        let tops = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
        for top in tops.filter(|e| e.file_name().to_string_lossy().contains(id)) {
            let path = top.path();
            let until = Instant::now() + Duration::from_secs(2);
            while path.is_dir() && !remove_tree(&path) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            if path.exists() {
                left.push(path.display().to_string());
            }
        }
    }
    left
}

fn remove_tree(dir: &Path) -> bool {
    for e in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if e.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&e.path());
        }
    }
    fs::remove_dir(dir).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kind: u8) -> Vec<u8> {
        let mut e = vec![0u8; 64 + 56];
        e[..4].copy_from_slice(b"\x7fELF");
        e[32] = 64;
        e[54] = 56;
        e[56] = 1;
        e[64] = kind;
        e
    }

    #[test]
    fn tells_static_programs() {
        assert!(is_static(&elf(1)));
        assert!(!is_static(&elf(3)));
        assert!(!is_static(b"#!/bin/sh"));
    }
}
