//! How a further process enters the container's cgroup.
//!
//! What must not happen is that somebody writes a pid to `cgroup.procs`: that waits for an RCU grace period, 7 to 16 ms
//! on an idle machine. On cgroup2, also on the hybrid's, clone3 puts the child there at birth; on v1 the child, while it
//! is a single thread, writes `0` to `tasks`.

use super::record::{Hierarchy, Record};
use super::systemd::Unit;
use super::systemd::bus::Bus;
use super::{Version, file, path};
use crate::sys::{fs, words};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What runc says of a sub-cgroup that cannot be entered. The process writes 0, which means itself.
const ADDING: &str = "error adding pid 0 to cgroups";

/// Descriptors by which a process enters the container's cgroup; good after the mount namespace was left, too.
#[derive(Default)]
pub struct Entry {
    /// The cgroup2 directory, for `CLONE_INTO_CGROUP`.
    pub clone_into: Option<OwnedFd>,
    /// Files to which the child writes `0` as its first act, while it is a single thread.
    pub files: Vec<OwnedFd>,
    /// The same, in place of the clone into the cgroup where that is refused or ends in death.
    pub fallback: Vec<OwnedFd>,
    /// A user's systemd, which may move the process where this user may not.
    pub by_systemd: Option<Attach>,
}

/// A connection to the systemd that has the container's unit.
pub struct Attach {
    bus: Bus,
    unit: Unit,
    below: String,
}

impl Attach {
    /// Moves a process into the container's cgroup.
    pub fn attach(&mut self, pid: i32) -> Result<()> {
        self.unit.attach(&mut self.bus, &self.below, pid)
    }
}

/// One `--cgroup` of exec.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SubCgroup {
    /// Controllers of v1; empty: every hierarchy.
    controllers: Vec<String>,
    /// Path below the container's cgroup.
    path: String,
}

impl SubCgroup {
    /// Parses all `--cgroup` arguments: one path, or any number of `controller,..:path`.
    fn parse(arguments: &[String]) -> Result<Vec<SubCgroup>> {
        let mut all: Vec<SubCgroup> = Vec::new();
        for argument in arguments {
            let Some((list, path)) = argument.split_once(':') else {
                if arguments.len() != 1 {
                    bail!("invalid --cgroup argument: {argument} (missing <controller>: prefix)");
                }
                return Ok(vec![SubCgroup { controllers: Vec::new(), path: argument.clone() }]);
            };
            let mut controllers: Vec<String> = Vec::new();
            for name in list.split(',') {
                if name.is_empty() {
                    bail!("invalid --cgroup argument: {argument} (empty <controller> prefix)");
                }
                if all.iter().flat_map(|sub| &sub.controllers).chain(&controllers).any(|seen| seen == name) {
                    bail!("invalid --cgroup argument(s): controller {name} specified multiple times");
                }
                controllers.push(name.to_string());
            }
            all.push(SubCgroup { controllers, path: path.to_string() });
        }
        Ok(all)
    }
}

impl Record {
    /// Opens what a further process needs: to enter the container's cgroup, or those below it that exec's `--cgroup`
    /// names. On v2 the cgroup of the init process `init` stands in for the container's own where that is gone or takes
    /// no process any more: it may have moved itself, or handed controllers down.
    pub fn enter(&self, init: i32, sub: &[String]) -> Result<Entry> {
        let sub = SubCgroup::parse(sub)?;
        for wanted in sub.iter().flat_map(|sub| &sub.controllers) {
            if self.version == Version::V2 || !self.hierarchies.iter().any(|one| one.has(wanted)) {
                bail!("unknown controller {wanted} in --cgroup");
            }
        }
        let mut entry = Entry::default();
        if let Some(unit) = self.unit.as_ref().filter(|unit| unit.user) {
            // Here, because the way to the bus is closed once the container's mounts are entered.
            let (bus, _) = unit.connect(self.version)?;
            let below = path::clean(sub.first().map_or("", |sub| sub.path.as_str()));
            entry.by_systemd = Some(Attach { bus, unit: unit.clone(), below });
        }
        for one in &self.hierarchies {
            let below = sub
                .iter()
                .find(|sub| {
                    sub.controllers.is_empty() || sub.controllers.iter().any(|wanted| one.has(wanted))
                })
                .map_or("", |sub| sub.path.as_str());
            if below.split('/').any(|part| part == "..") {
                bail!("bad sub cgroup path: {below}");
            }
            let below = path::clean(below);
            if !one.is_unified() {
                let tasks = open_tasks(&path::join(&one.dir(), &below));
                entry.files.push(if below.is_empty() { tasks? } else { tasks.context(ADDING)? });
            } else if self.version == Version::V2 && sub.is_empty() {
                let own = file::open_dir(file::ABSOLUTE, &one.dir());
                let home = init_dir(one, init);
                entry.clone_into = match own {
                    Err(_) => Some(open_init(&home?)?),
                    Ok(own) => {
                        let moved = home.ok().filter(|home| *home != one.dir());
                        let home = moved.and_then(|home| open_init(&home).ok());
                        // Of use only where the clone is refused; if there is none, that refusal is the error.
                        entry.fallback.extend(open_procs(home.as_ref().unwrap_or(&own).as_fd()).ok());
                        Some(own)
                    }
                };
            } else {
                let fail = |errno| {
                    anyhow!("{ADDING}: open cgroup {}: {}", path::join(&one.dir(), &below), words(errno))
                };
                let dir = open_below(one, &below).map_err(fail)?;
                entry.fallback.push(open_procs(dir.as_fd()).map_err(fail)?);
                entry.clone_into = Some(dir);
            }
        }
        Ok(entry)
    }
}

/// The file by which a child joins a v1 hierarchy.
pub fn open_tasks(dir: &str) -> Result<OwnedFd> {
    let path = format!("{dir}/tasks");
    file::open_write(file::ABSOLUTE, &path).map_err(|errno| anyhow!("open {path}: {}", words(errno)))
}

/// The file by which a child joins a cgroup2 directory.
pub fn open_procs(dir: BorrowedFd) -> file::Result<OwnedFd> {
    file::open_write(dir, "cgroup.procs")
}

/// The cgroup2 directory in which the init process is now.
fn init_dir(unified: &Hierarchy, init: i32) -> Result<String> {
    let proc = format!("/proc/{init}/cgroup");
    let text =
        file::read_value(file::ABSOLUTE, &proc).map_err(|errno| anyhow!("read {proc}: {}", words(errno)))?;
    Ok(path::join(&unified.mount, &path::clean(path::own_unified(&text)?)))
}

fn open_init(dir: &str) -> Result<OwnedFd> {
    let fail = |errno: Errno| anyhow!("open the cgroup of the init process: {dir}: {}", words(errno));
    file::open_dir(file::ABSOLUTE, dir).map_err(fail)
}

/// Opens a directory below the container's: the sub-cgroup's path is the only one here that may come from the
/// container's side (a user repeats what it shows), so it cannot leave the container's cgroup.
fn open_below(hierarchy: &Hierarchy, below: &str) -> file::Result<OwnedFd> {
    let dir = file::open_dir(file::ABSOLUTE, &hierarchy.dir())?;
    if below.is_empty() {
        return Ok(dir);
    }
    let below = std::ffi::CString::new(below).map_err(|_| Errno::EINVAL)?;
    fs::openat2(dir.as_fd(), &below, libc::O_PATH | libc::O_DIRECTORY, 0, fs::BENEATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_cgroups() {
        let parse = |list: &[&str]| SubCgroup::parse(&list.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        let sub = |controllers: &[&str], path: &str| SubCgroup {
            controllers: controllers.iter().map(|s| s.to_string()).collect(),
            path: path.into(),
        };
        assert_eq!(parse(&[]).unwrap(), []);
        assert_eq!(parse(&["a/b"]).unwrap(), [sub(&[], "a/b")]);
        assert_eq!(
            parse(&["cpu,cpuacct:a", "pids:b"]).unwrap(),
            [sub(&["cpu", "cpuacct"], "a"), sub(&["pids"], "b")]
        );
        for (list, expected) in [
            (&["a", "b"][..], "invalid --cgroup argument: a (missing <controller>: prefix)"),
            (&[":a"], "invalid --cgroup argument: :a (empty <controller> prefix)"),
            (&["cpu:a", "cpu:b"], "invalid --cgroup argument(s): controller cpu specified multiple times"),
            (&["cpu,cpu:a"], "invalid --cgroup argument(s): controller cpu specified multiple times"),
        ] {
            assert_eq!(parse(list).unwrap_err().to_string(), expected);
        }
    }
}
