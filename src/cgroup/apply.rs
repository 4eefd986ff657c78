//! Carries out a list of writes, and takes it back if one fails.

use super::file;
use super::resources::{Absent, Group, Write};
use crate::sys::words;
use anyhow::{Result, anyhow};
use nix::errno::Errno;
use std::os::fd::BorrowedFd;

/// The directories that writes go to.
pub trait Directories {
    /// The container's cgroup that has this controller's files, or none.
    fn of(&self, controller: &str) -> Option<BorrowedFd<'_>>;
    /// The path of that cgroup, for messages.
    fn path(&self, controller: &str) -> String;
}

/// One write as it can be taken back.
struct Undo {
    controller: String,
    file: String,
    /// What the file read before.
    old: String,
    /// What was written.
    new: String,
}

/// Applies the writes in order; on an error the values written before stand.
pub fn apply(dirs: &impl Directories, writes: &[Write]) -> Result<()> {
    run(dirs, writes, &mut None)
}

/// Applies the writes in order and then calls `then`; on an error of either the files have their old values again.
pub fn apply_or_undo(
    dirs: &impl Directories,
    writes: &[Write],
    then: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut journal = Some(Vec::new());
    let done = run(dirs, writes, &mut journal).and_then(|()| then());
    done.inspect_err(|_| undo(dirs, journal.unwrap_or_default()))
}

fn run(dirs: &impl Directories, writes: &[Write], journal: &mut Option<Vec<Undo>>) -> Result<()> {
    let mut rest = writes;
    while let Some(first) = rest.first() {
        let length = match first.group {
            Group::Alone => 1,
            group => rest.iter().take_while(|write| write.group == group).count(),
        };
        let (group, after) = rest.split_at(length);
        run_group(dirs, group, journal)?;
        rest = after;
    }
    Ok(())
}

fn run_group(dirs: &impl Directories, group: &[Write], journal: &mut Option<Vec<Undo>>) -> Result<()> {
    let mut open: Vec<&Write> = group.iter().collect();
    loop {
        let mut refused = Vec::new();
        let before = open.len();
        for write in open {
            match one(dirs, write, journal) {
                Ok(()) => {}
                // It may fit once the others have their new values.
                Err(Errno::EINVAL) if before > 1 => refused.push(write),
                Err(errno) => return Err(explain(dirs, write, errno)),
            }
        }
        match refused.first() {
            None => return Ok(()),
            Some(write) if refused.len() == before => return Err(explain(dirs, write, Errno::EINVAL)),
            Some(_) => open = refused,
        }
    }
}

fn one(dirs: &impl Directories, write: &Write, journal: &mut Option<Vec<Undo>>) -> file::Result<()> {
    let dir = dirs.of(&write.controller).ok_or(Errno::ENODEV);
    let set = |name: &str, value: &str, journal: &mut Option<Vec<Undo>>| {
        let dir = dir?;
        if let Some(journal) = journal {
            match file::read_value(dir, name) {
                Ok(old) => {
                    let (controller, file) = (write.controller.to_string(), name.to_string());
                    journal.push(Undo { controller, file, old, new: value.to_string() });
                }
                // One that is an order and not a value (memory.reclaim) has nothing to give back.
                Err(Errno::EINVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        file::write_value(dir, name, value)
    };
    match set(&write.file, &write.value, journal) {
        Err(Errno::ENOENT | Errno::ENODEV) if write.absent == Absent::Skip => Ok(()),
        Err(Errno::ENOENT) => match &write.absent {
            Absent::Use(name, value) => set(name, value, journal),
            _ => Err(Errno::ENOENT),
        },
        other => other,
    }
}

/// Gives files their old values. Each is tried: a container with some new limits is worse than one with few.
fn undo(dirs: &impl Directories, journal: Vec<Undo>) {
    for one in journal.iter().rev() {
        let Some(dir) = dirs.of(&one.controller) else { continue };
        for line in restore(&one.file, &one.old, &one.new) {
            // The error that led here is the one to tell.
            let _ = file::write_value(dir, &one.file, &line);
        }
    }
}

/// What to write, line by line, for a file to read `old` again after `new` was written.
fn restore(name: &str, old: &str, new: &str) -> Vec<String> {
    if name == "memory.oom_control" {
        return old
            .lines()
            .filter_map(|line| line.strip_prefix("oom_kill_disable "))
            .map(String::from)
            .collect();
    }
    // Files with a line a device or interface take one at a time; the others were not touched.
    let Some((key, _)) = new.split_once(' ').filter(|_| name != "cpu.max" && !name.starts_with("cpuset."))
    else {
        let line = old.lines().next().unwrap_or_default();
        return vec![line.strip_prefix("default ").unwrap_or(line).to_string()];
    };
    let reset = match name {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.weight" | "io.bfq.weight" => "default",
        "rdma.max" => "hca_handle=max hca_object=max",
        _ => "0",
    };
    let before = old.lines().filter(|line| line.split(' ').next() == Some(key)).map(String::from);
    std::iter::once(format!("{key} {reset}")).chain(before).collect()
}

/// The error for the user: field, file, value, reason.
fn explain(dirs: &impl Directories, write: &Write, errno: Errno) -> anyhow::Error {
    let Write { controller, value, field, .. } = write;
    let name = match &write.absent {
        // Neither is there.
        Absent::Use(other, _) if errno == Errno::ENOENT => other,
        _ => &*write.file,
    };
    let at = format!("/linux/resources/{field}");
    let path = dirs.path(controller);
    if errno == Errno::ENODEV && dirs.of(controller).is_none() {
        return anyhow!("{at}: cannot set {controller} limit: container could not join or create cgroup");
    }
    let missing = matches!(errno, Errno::ENOENT | Errno::EACCES | Errno::EPERM);
    if let Some(key) = field.strip_prefix("unified/")
        && missing
        && !controller.is_empty()
        && !has_controller(dirs, controller)
    {
        return anyhow!(
            "{at}: unified resource {key:?} can't be set: controller {controller:?} not available"
        );
    }
    if errno == Errno::ENOENT && !has_controller(dirs, controller) {
        return anyhow!("{at}: controller {controller:?} is not available in {path}");
    }
    if errno == Errno::EBUSY
        && name == "memory.limit_in_bytes"
        && let Some(dir) = dirs.of(controller)
        && let Ok(usage) = file::read_value(dir, "memory.usage_in_bytes")
        && let Ok(peak) = file::read_value(dir, "memory.max_usage_in_bytes")
    {
        return anyhow!(
            "{at}: unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak})"
        );
    }
    anyhow!("{at}: write {:?} to {path}/{name}: {}", value.trim_end(), words(errno))
}

/// cgroup v1 mounts what it has; v2 lists what was handed down.
fn has_controller(dirs: &impl Directories, controller: &str) -> bool {
    let Some(dir) = dirs.of(controller) else { return false };
    match file::read_value(dir, "cgroup.controllers") {
        Ok(list) => list.split(' ').any(|name| name == controller),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_values_are_written_as_the_kernel_takes_them() {
        for (name, old, new, expected) in [
            ("memory.max", "4096", "max", &["4096"][..]),
            ("cpu.max", "max 100000", "5 1000", &["max 100000"]),
            ("cpuset.cpus", "", "0", &[""]),
            ("cpuset.cpus", "0-1", "0-2, 9", &["0-1"]),
            ("io.weight", "default 100", "500", &["100"]),
            ("io.weight", "default 100\n8:0 50", "500", &["100"]),
            ("io.weight", "default 100\n8:0 50", "8:0 500", &["8:0 default", "8:0 50"]),
            ("io.weight", "default 100\n8:0 50", "8:16 500", &["8:16 default"]),
            (
                "io.max",
                "8:0 rbps=5 wbps=max riops=max wiops=max",
                "8:0 rbps=9",
                &["8:0 rbps=max wbps=max riops=max wiops=max", "8:0 rbps=5 wbps=max riops=max wiops=max"],
            ),
            ("blkio.throttle.read_bps_device", "", "8:0 9", &["8:0 0"]),
            ("net_prio.ifpriomap", "lo 0\neth0 3", "eth0 5", &["eth0 0", "eth0 3"]),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0", "1", &["0"]),
        ] {
            assert_eq!(restore(name, old, new), expected, "{name}: {old:?} after {new:?}");
        }
    }
}
