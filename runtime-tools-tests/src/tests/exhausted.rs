//! What a command does when something has run out: descriptors, address space, memory, processes, disk space, inodes, or
//! the patience with a bus that never answers. It works or is refused in one line, and what it began is undone.

use super::Test;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::container::{Container, reap};
use crate::cx::{Cx, Out, skip};
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The tests of this file.
pub const TESTS: &[Test] = &[
    test("exhausted/descriptors", descriptors, &[RUNC_LEAKS, CRUN_LEAKS]),
    test("exhausted/address_space", address_space, &[GO, CRUN_LEAKS]),
    test("exhausted/memory", memory, &[KILLED, CRUN_LEAKS]),
    test("exhausted/processes", processes, &[GO, ("crun", "says it in two lines")]),
    test("exhausted/blocks", blocks, &[CRUN_LEAKS]),
    test("exhausted/inodes", inodes, &[CRUN_LEAKS]),
    test("exhausted/pid_file_and_log", pid_file_and_log, &[CRUN_LEAKS]),
    test("exhausted/silent_bus", silent_bus, &[("runc", "waits for ever"), ("crun", "waits for ever")]),
];

const RUNC_LEAKS: (&str, &str) = ("runc", "panics, or leaves something");
const CRUN_LEAKS: (&str, &str) = ("crun", "leaves what it began");
const KILLED: (&str, &str) = ("runc", "leaves a cgroup when its init stage is killed early");
const GO: (&str, &str) = ("runc", "Go's own start fails in a hundred lines");

const fn test(
    name: &'static str,
    run: fn(&Cx) -> Result<()>,
    deviates: &'static [(&'static str, &'static str)],
) -> Test {
    Test { name, run, limit_ms: 300_000, deviates }
}

/// The same surroundings with a runtime that runs `first`, shell commands, before it begins.
fn limited(cx: &Cx, first: &str) -> Result<Cx> {
    let path = cx.path(&format!("limited.{}", cx.next()));
    let script = format!("#!/bin/sh\n{first}\nexec '{}' \"$@\"\n", cx.runtime.display());
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(Cx { runtime: path, ..apart(cx) })
}

/// The same surroundings, counting on.
fn apart(cx: &Cx) -> Cx {
    Cx {
        dir: cx.dir.clone(),
        root: cx.root.clone(),
        runtime: cx.runtime.clone(),
        kind: cx.kind.clone(),
        reference: cx.reference.clone(),
        view: cx.view,
        systemd: cx.systemd,
        cgroup: cx.cgroup.clone(),
        mark: cx.mark.clone(),
        probe: cx.probe.clone(),
        configs: cx.configs.clone(),
        count: Cell::new(cx.next() * 1000),
    }
}

/// Worked (true) or refused in words, not in a panic. `killed`: by the kernel, for want of memory, is as good.
fn judged(out: &Out, killed: bool) -> Result<bool> {
    if killed && out.code == 137 {
        return Ok(false);
    }
    let sane = (out.code < 128 || out.code == 255) && !out.stderr.contains("panic");
    ensure!(sane, "exit {}: {}: {}", out.code, out.line, out.stderr.trim_end());
    if out.code != 0 {
        out.clone().one_line()?;
    }
    Ok(out.code == 0)
}

fn sleeper<'a>(cx: &'a Cx) -> Result<Bundle<'a>> {
    let mut b = cx.bundle()?;
    let unlimited = json!({"type": "RLIMIT_AS", "hard": u64::MAX, "soft": u64::MAX});
    b.probe(&["sleep"]).set("/process/rlimits", json!([unlimited])).save()?;
    Ok(b)
}

/// A container's whole life, each command under each of the limits; what a limit forbids is done without it. Gives how
/// many commands worked and how many were refused.
fn lives(cx: &Cx, limits: &[(String, String)], killed: bool) -> Result<()> {
    let b = sleeper(cx)?;
    let before = cx.snapshot()?;
    let (mut worked, mut refused, mut not_begun) = (0, 0, 0);
    let mut count = |works: bool| {
        if works {
            worked += 1
        } else {
            refused += 1
        }
        works
    };
    for (label, first) in limits {
        let tight = limited(cx, first)?;
        let at = |what: &str| format!("{what} with {label}");
        if tight.bare(&["--version"]).run()?.code != 0 {
            not_begun += 1;
            continue;
        }
        let c = b.container();
        let here = Container { cx: &tight, id: c.id.clone(), bundle: c.bundle.clone() };
        let made = here.create(&[])?;
        if !count(judged(&made, killed).with_context(|| at("create"))?) {
            if made.code == 137 {
                c.delete_force()?;
            }
            cx.nothing_left(&before).with_context(|| at("a failed create"))?;
            c.create(&[])?.ok()?;
        }
        if !count(judged(&here.start()?, killed).with_context(|| at("start"))?) {
            c.delete_force()?;
            cx.nothing_left(&before).with_context(|| at("a failed start"))?;
            c.create(&[])?.ok()?;
            c.start()?.ok()?;
        }
        let pid = c.pid()?;
        let state = here.cx.rt(&["state", &c.id])?;
        if count(judged(&state, killed).with_context(|| at("state"))?) {
            ensure!(state.json()?["status"] == "running", "{}: {}", at("state"), state.stdout);
        }
        let list = here.cx.rt(&["list", "-q"])?;
        if count(judged(&list, killed).with_context(|| at("list"))?) {
            ensure!(list.stdout.trim() == c.id, "{}: {:?}", at("list"), list.stdout);
        }
        let ran = here.exec(&[], &["say", "ran"])?;
        if count(judged(&ran, killed).with_context(|| at("exec"))?) {
            ensure!(ran.stdout == "ran\n", "{}: {:?}", at("exec"), ran.stdout);
        }
        if cx.need_controller("pids").is_ok() {
            let update = here.cx.rt(&["update", "--pids-limit", "64", &c.id])?;
            count(judged(&update, killed).with_context(|| at("update"))?);
        }
        let killing = here.kill("KILL")?;
        if !count(judged(&killing, killed).with_context(|| at("kill"))?) {
            c.is("running").with_context(|| at("a failed kill"))?;
            c.kill("KILL")?.ok()?;
        }
        reap(pid)?;
        if !count(judged(&here.delete()?, killed).with_context(|| at("delete"))?) {
            c.delete_force()?;
        }
        cx.nothing_left(&before).with_context(|| at("a whole life"))?;
    }
    ensure!(worked > 0 && refused > 0, "{worked} worked, {refused} refused: these limits limit nothing");
    cx.note(&format!(
        "{worked} commands worked, {refused} were refused; {not_begun} limits too small to begin"
    ))
}

fn descriptors(cx: &Cx) -> Result<()> {
    let limits: Vec<_> = (3..28).map(|n| (format!("{n} descriptors"), format!("ulimit -n {n}"))).collect();
    lives(cx, &limits, false)
}

fn address_space(cx: &Cx) -> Result<()> {
    if fs::read_to_string("/proc/cpuinfo")?.contains("User Mode Linux") {
        return skip("User-mode Linux: the least of these limits is enough there");
    }
    let sizes =
        [3200, 3600, 4000, 4400, 4800, 5200, 5600, 6000, 6400, 7000, 8000, 9000, 12_000, 16_000, 64_000];
    let limits: Vec<_> =
        sizes.iter().map(|kib| (format!("{kib} KiB of addresses"), format!("ulimit -v {kib}"))).collect();
    lives(cx, &limits, false)
}

/// A cgroup in which nothing but the runtime runs, and the limit's file in it. Skips where there is no such controller.
fn tight_cgroup(cx: &Cx, controller: &str, v1: &str, v2: &str) -> Result<(PathBuf, PathBuf)> {
    cx.need_systemd(false)?;
    cx.need_controller(controller)?;
    let path = format!("{}/tight", cx.cgroup);
    cgroup::make(&path)?;
    let trees = cgroup::trees()?;
    let tree = trees.iter().find(|t| t.controllers.iter().any(|c| c == controller)).context("no tree")?;
    if tree.v2 {
        let mut dir = tree.mount.clone();
        for part in cx.cgroup.split('/').filter(|p| !p.is_empty()) {
            dir.push(part);
            if fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")).is_err() {
                return skip(format!("{controller} cannot be handed down to {}", dir.display()));
            }
        }
    }
    let dir = tree.mount.join(path.trim_start_matches('/'));
    Ok((dir.join("cgroup.procs"), dir.join(if tree.v2 { v2 } else { v1 })))
}

fn inside(procs: &Path, limit: &Path, value: &str) -> String {
    format!("echo {value} >'{}' || exit 99\necho 0 >'{}' || exit 99", limit.display(), procs.display())
}

fn memory(cx: &Cx) -> Result<()> {
    let (procs, limit) = tight_cgroup(cx, "memory", "memory.limit_in_bytes", "memory.max")?;
    let kib = [256, 384, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 4096, 8192, 65_536];
    let limits: Vec<_> = kib
        .iter()
        .map(|kib| (format!("{kib} KiB of memory"), inside(&procs, &limit, &(kib * 1024).to_string())))
        .collect();
    lives(cx, &limits, true)?;
    cgroup::remove(&format!("{}/tight", cx.cgroup))
}

fn processes(cx: &Cx) -> Result<()> {
    let (procs, limit) = tight_cgroup(cx, "pids", "pids.max", "pids.max")?;
    let limits: Vec<_> = (1..8)
        .map(|n| (format!("{n} processes"), inside(&procs, &limit, &n.to_string())))
        // A child that is born in the container's own cgroup (v2) never counts here.
        .chain([("4 descriptors".to_string(), "ulimit -n 4".to_string())])
        .collect();
    lives(cx, &limits, false)?;
    cgroup::remove(&format!("{}/tight", cx.cgroup))
}

/// A small tmpfs for the states, full but for `free` pages or inodes, and the file that fills it.
struct Full {
    dir: PathBuf,
}

impl Full {
    fn new(cx: &Cx, options: &str) -> Result<Full> {
        let dir = cx.path(&format!("full.{}", cx.next()));
        fs::create_dir(&dir)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some(options))
            .context("mount a small tmpfs")?;
        Ok(Full { dir })
    }

    fn fill(&self, free_pages: u64) -> Result<()> {
        use std::io::Write;
        let mut file = fs::File::create(self.dir.join(".filler"))?;
        let mut pages = 0;
        while file.write_all(&[1; 4096]).is_ok() {
            pages += 1;
        }
        file.set_len((pages * 4096u64).saturating_sub(free_pages * 4096)).context("free some pages")
    }

    fn empty(&self) -> Result<()> {
        fs::remove_file(self.dir.join(".filler")).context("remove the filler")
    }

    fn names(&self) -> Result<Vec<String>> {
        let all = fs::read_dir(&self.dir)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
        let mut all: Vec<String> = all.collect::<Result<_>>()?;
        all.retain(|name| !name.starts_with('.'));
        Ok(all)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        // Whatever is left open in it: the mount is this test's own.
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}

/// With the states on that disk: create works or is refused and leaves nothing there; what ends a container needs no room.
fn on_full_disk(cx: &Cx, full: &Full, label: &str) -> Result<bool> {
    let here = Cx { root: full.dir.clone(), ..apart(cx) };
    let b = sleeper(&here)?;
    let before = here.snapshot()?;
    let c = b.container();
    let made = judged(&c.create(&[])?, false).with_context(|| format!("create with {label}"))?;
    if made {
        c.start()?.ok().with_context(|| format!("start with {label}"))?;
        ensure!(c.exec(&[], &["say", "ran"])?.ok()?.stdout == "ran\n", "exec with {label}");
        if cx.need_controller("pids").is_ok() {
            judged(&here.rt(&["update", "--pids-limit", "64", &c.id])?, false)
                .with_context(|| format!("update with {label}"))?;
            c.is("running").with_context(|| format!("update with {label}"))?;
        }
        c.end().with_context(|| format!("kill and delete with {label}"))?;
    }
    ensure!(full.names()?.is_empty(), "left with {label}: {:?}", full.names()?);
    here.nothing_left(&before).with_context(|| label.to_string())?;
    Ok(made)
}

fn blocks(cx: &Cx) -> Result<()> {
    let (mut worked, mut refused) = (0, 0);
    for free in 0..8 {
        let full = Full::new(cx, "size=128k,mode=700")?;
        full.fill(free)?;
        match on_full_disk(cx, &full, &format!("{free} free pages"))? {
            true => worked += 1,
            false => refused += 1,
        }
        full.empty()?;
        ensure!(on_full_disk(cx, &full, "room again")?, "create is refused where there is room again");
    }
    ensure!(refused > 0, "{worked} creates worked without room");
    cx.note(&format!("{worked} worked, {refused} refused"))
}

fn inodes(cx: &Cx) -> Result<()> {
    let (mut worked, mut refused) = (0, 0);
    for free in 0..8 {
        // The root directory is one.
        let full = Full::new(cx, &format!("size=1m,mode=700,nr_inodes={}", free + 1))?;
        match on_full_disk(cx, &full, &format!("{free} free inodes"))? {
            true => worked += 1,
            false => refused += 1,
        }
    }
    ensure!(refused > 0 && worked > 0, "{worked} worked, {refused} refused");
    cx.note(&format!("{worked} worked, {refused} refused"))
}

fn pid_file_and_log(cx: &Cx) -> Result<()> {
    let full = Full::new(cx, "size=64k,mode=700")?;
    let log = full.dir.join(".log").display().to_string();
    fs::write(&log, "")?;
    full.fill(0)?;
    let b = sleeper(cx)?;
    let before = cx.snapshot()?;
    let c = b.container();
    let pid_file = full.dir.join("pid").display().to_string();
    let out = c.create(&["--pid-file", &pid_file])?;
    ensure!(!judged(&out, false)?, "a pid file without content is no success");
    ensure!(full.names()?.is_empty(), "left: {:?}", full.names()?);
    cx.nothing_left(&before)?;
    // A log that takes nothing more must not change what the commands do.
    for format in ["text", "json"] {
        let with_log = |args: &[&str]| {
            let mut all = vec!["--log", &log, "--log-format", format, "--debug"];
            all.extend(args);
            cx.rt(&all)
        };
        with_log(&["create", "--bundle", &b.path(), &c.id])?.ok()?;
        with_log(&["start", &c.id])?.ok()?;
        ensure!(with_log(&["state", "no-such-container"])?.code == 1, "state of no container");
        with_log(&["delete", "--force", &c.id])?.ok()?;
        cx.nothing_left(&before)?;
    }
    Ok(())
}

/// A message bus that takes connections and says nothing, as one that was stopped does.
fn silent_bus(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    // What says that systemd runs here; /run is this test's own.
    fs::create_dir_all("/run/systemd/system")?;
    let path = cx.path("bus");
    let listener = UnixListener::bind(&path)?;
    let address = format!("unix:path={}", path.display());
    let mut b = cx.bundle()?;
    let id = cx.id();
    b.probe(&["true"]).set("/linux/cgroupsPath", json!(format!("system.slice:suite:{id}"))).save()?;
    let before = cx.snapshot()?;
    let root = cx.root.display().to_string();
    // The queue of the listener takes the connection; nobody ever reads from it.
    let out = cx
        .bare(&["--root", &root, "--systemd-cgroup", "create", "--bundle", &b.path(), &id])
        .env("DBUS_SYSTEM_BUS_ADDRESS", &address)
        .limit(Duration::from_secs(70))
        .run()?;
    let out = out.fails_any(&["systemd", "dbus"])?.one_line()?;
    drop(listener);
    cx.nothing_left(&before)?;
    cx.note(&format!("refused after {:.0} s: {}", out.took.as_secs_f64(), out.stderr.trim_end()))
}
