//! What a test must leave as it found it: mounts, cgroups, processes, and an empty state root.
//! Taken before and after each test by `stage.rs`, and by tests that check one failing command.

use crate::cgroup;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A picture of everything that could be left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    processes: BTreeSet<String>,
    states: BTreeSet<String>,
    shm: BTreeSet<String>,
    units: BTreeSet<String>,
}

/// The picture now. `mark` is a part of every container id of this test, `base` its cgroup directory, `root` its state root.
pub fn snapshot(base: &str, mark: &str, root: &Path, systemd: bool) -> Result<Snapshot> {
    Ok(Snapshot {
        mounts: mounts()?,
        // systemd may take empty directories away that are not its own.
        cgroups: cgroup::list(if systemd { None } else { Some(base) }, mark)?
            .iter()
            .map(|p| p.display().to_string())
            .collect(),
        processes: processes(systemd)?,
        // crun keeps `.empty-directory` there for all its containers.
        states: names(root).into_iter().filter(|n| !n.starts_with('.')).collect(),
        shm: names(Path::new("/dev/shm")),
        units: if systemd { units(mark)? } else { BTreeSet::new() },
    })
}

/// What is in `after` and was not in `before` or has gone, in words; empty when nothing.
pub fn difference(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut out = vec![];
    let mut one = |what: &str, a: &BTreeSet<String>, b: &BTreeSet<String>| {
        out.extend(b.difference(a).map(|x| format!("{what} left: {x}")));
        out.extend(a.difference(b).map(|x| format!("{what} gone: {x}")));
    };
    one("mount", &before.mounts, &after.mounts);
    one("cgroup", &before.cgroups, &after.cgroups);
    one("process", &before.processes, &after.processes);
    one("state", &before.states, &after.states);
    one("/dev/shm file", &before.shm, &after.shm);
    one("unit", &before.units, &after.units);
    out
}

/// Mount points with their flags, without ids and peer groups; several on one place are counted.
fn mounts() -> Result<BTreeSet<String>> {
    let info = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mut set = BTreeSet::new();
    for line in info.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let what = words.get(3..6).map(|w| w.join(" ")).unwrap_or_default();
        let kind = line.split_once(" - ").map_or("", |(_, k)| k.split(' ').next().unwrap_or(""));
        let mut entry = format!("{what} {kind}");
        while !set.insert(entry.clone()) {
            entry.push_str(" again");
        }
    }
    Ok(set)
}

/// Units of this test, once systemd has had half a second to forget those that are done.
fn units(mark: &str) -> Result<BTreeSet<String>> {
    let end = Instant::now() + Duration::from_millis(500);
    loop {
        let left = crate::unit::with_mark(mark)?;
        if left.is_empty() || Instant::now() > end {
            return Ok(left.into_iter().collect());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes of this pid namespace but the namespace's init and ourselves. Zombies of ours are reaped first; others get
/// up to half a second to end, because an exit that nobody waits for is no leak.
/// `children`: in a pid namespace with others, where all that runtimes leave behind are children of this subreaper.
fn processes(children: bool) -> Result<BTreeSet<String>> {
    let end = Instant::now() + Duration::from_millis(500);
    loop {
        reap();
        let mut left = BTreeSet::new();
        let all = match children {
            true => fs::read_to_string("/proc/thread-self/children").unwrap_or_default(),
            false => names(Path::new("/proc")).into_iter().collect::<Vec<_>>().join(" "),
        };
        for name in all.split_whitespace() {
            let Ok(pid) = name.parse::<u32>() else { continue };
            if pid == 1 || pid == std::process::id() {
                continue;
            }
            if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
                let line =
                    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
                let state = stat.rsplit(") ").next().and_then(|s| s.chars().next()).unwrap_or('?');
                left.insert(format!("{pid} [{state}] {}", line.trim()));
            }
        }
        if left.is_empty() || Instant::now() > end {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reaps every child of ours that has ended.
pub fn reap() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}
