//! Ending what is in a container's cgroup, and removing the cgroup.

use super::freeze::wait_for_event;
use super::record::{Hierarchy, Record};
use super::systemd;
use super::{Version, below, file};
use crate::sys::{process, words};
use anyhow::{Result, anyhow};
use nix::errno::Errno;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long processes that were told to end may keep a cgroup busy.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between attempts to remove a busy cgroup: the first, and the longest of the doubled ones.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

impl Record {
    /// Sends a signal to every process of the container, those of sub-cgroups included. SIGKILL leaves none alive,
    /// frozen or not, and the cgroup good for nothing but removal: a process that is cloned into a cgroup whose
    /// `cgroup.kill` was ever written is killed at birth (Linux 6.18 at least).
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL
            && let Some(unified) = self.unified()
        {
            let path = format!("{}/cgroup.kill", unified.dir());
            match file::write_value(file::ABSOLUTE, &path, "1") {
                Ok(()) => return self.thaw_killed(),
                // Before Linux 5.14; or the cgroup is gone, as the walk below will find; or it has made itself threaded.
                Err(Errno::ENOENT | Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(anyhow!("write {path}: {}", words(errno))),
            }
        }
        // Frozen, so that none is born or ends, and no pid passes to a stranger, between the list and the signal.
        let was_frozen = self.is_frozen()?;
        let frozen = was_frozen || self.freeze().is_ok();
        let result = self.signal_each(signal);
        // A paused container stays paused, unless it must run to die.
        if frozen && (!was_frozen || signal == libc::SIGKILL) {
            match self.thaw() {
                Err(error) if self.is_frozen().unwrap_or(false) => return result.and(Err(error)),
                // Thawed, or gone.
                _ => {}
            }
        }
        if signal == libc::SIGKILL && self.version != Version::V2 {
            return result.and(self.thaw_below());
        }
        result
    }

    fn signal_each(&self, signal: i32) -> Result<()> {
        let (pids, all) = below::procs(&self.main()?.dir());
        let mut failure = all.err();
        for pid in pids {
            match signal_process(pid, signal) {
                // It has ended where the freezer could not hold it.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => {
                    failure = Some(anyhow!("send signal {signal} to process {pid}: {}", words(errno)))
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Removes the container's cgroup. With `all` what is still in it is ended first; else it has to be empty soon.
    pub fn end_and_remove(&self, all: bool) -> Result<()> {
        // A unit's stay until it is stopped: systemd would miss its end.
        let is_unit = self.unit.is_some();
        let (mut busy, mut all_gone) = (is_unit, !is_unit);
        // All of them, also after the first that is busy: each one removed here is one less below.
        for one in self.hierarchies.iter().filter(|_| !is_unit) {
            match file::remove_dir(file::ABSOLUTE, &one.dir()) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => {
                    busy |= matches!(errno, Errno::EBUSY | Errno::ENOTEMPTY);
                    all_gone = false;
                }
            }
        }
        if all_gone && self.made.is_empty() {
            return Ok(());
        }
        // Whoever cannot be looked at may be one to end.
        if all && busy && !self.procs().is_ok_and(|pids| pids.is_empty()) {
            self.kill_all(libc::SIGKILL)?;
        }
        self.remove()
    }

    /// Removes the container's cgroup and all below it, which must have no processes or only such as are ending.
    /// Gone already is as good; where nothing may be removed, nothing was made.
    pub fn remove(&self) -> Result<()> {
        // First, or systemd would see its unit end by itself; below are the directories that it does not know. One that
        // does not answer finds the unit empty when it goes on, and only then: without its directory it would keep it.
        let mut failure = self.unit.as_ref().and_then(|unit| unit.stop().err());
        if failure.as_ref().is_some_and(systemd::is_unanswered) {
            return failure.map_or(Ok(()), Err);
        }
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        for one in &self.hierarchies {
            if let Err(error) = remove_tree(one, &one.dir(), deadline) {
                failure.get_or_insert(error);
            }
        }
        for dir in self.made.iter().rev() {
            // The container's own is gone by now; a parent that somebody else uses already stays.
            let _ = file::remove_dir(file::ABSOLUTE, dir);
        }
        failure.map_or(Ok(()), Err)
    }
}

fn signal_process(pid: i32, signal: i32) -> file::Result<()> {
    match process::pidfd_open(pid) {
        Ok(pidfd) => process::pidfd_signal(pidfd.as_fd(), signal),
        // Of a threaded cgroup: a thread whose process is in the list as well.
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn remove_tree(hierarchy: &Hierarchy, dir: &str, deadline: Instant) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    loop {
        match file::remove_dir(file::ABSOLUTE, dir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
            Err(errno) => {
                // A read-only mount says so before it says that there is no such directory.
                return match file::open_dir(file::ABSOLUTE, dir) {
                    Err(Errno::ENOENT) => Ok(()),
                    _ => Err(anyhow!("remove cgroup {dir}: {}", words(errno))),
                };
            }
        }
        // Sub-cgroups, or processes on their way out.
        below::remove(dir).map_err(|errno| anyhow!("remove what is below cgroup {dir}: {}", words(errno)))?;
        if Instant::now() >= deadline {
            return Err(anyhow!("remove cgroup {dir}: {}", words(Errno::EBUSY)));
        }
        // On v2 the kernel tells when the last process is gone; else, and if it is busy for another reason, ask again.
        if hierarchy.is_unified()
            && wait_for_event(&format!("{dir}/cgroup.events"), "populated 0", deadline) == Ok(true)
        {
            match file::remove_dir(file::ABSOLUTE, dir) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(()),
                Err(_) => {}
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
