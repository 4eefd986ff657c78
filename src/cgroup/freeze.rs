//! Freezing and thawing a container's cgroup.

use super::record::{Hierarchy, Record};
use super::{Version, below, file};
use crate::sys::words;
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::stat;
use nix::sys::uio::pread;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long all processes may take to stop. A task in an uninterruptible sleep cannot be frozen.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// v1: how often to ask, and the pauses between, before a cgroup with ever new processes counts as not freezable.
/// The kernel only promises to try; a thaw in between lets those that fork come to rest.
const V1_TRIES: u32 = 1000;
const V1_THAW_EACH: u32 = 50;
const V1_PAUSE: Duration = Duration::from_millis(10);

impl Record {
    /// Freezes every process of the container and waits until all are; on an error they run again.
    pub fn freeze(&self) -> Result<()> {
        let (hierarchy, path) = self.freezer()?;
        let frozen = match self.version {
            Version::V2 => freeze_v2(hierarchy, &path),
            _ => freeze_v1(&path),
        };
        // A container must not be left frozen, or half frozen, by a command that failed.
        frozen.inspect_err(|_| drop(self.thaw()))
    }

    /// Lets the processes run on.
    pub fn thaw(&self) -> Result<()> {
        let (_, path) = self.freezer()?;
        let value = if self.version == Version::V2 { "0" } else { "THAWED" };
        file::write_value(file::ABSOLUTE, &path, value)
            .map_err(|errno| anyhow!("thaw the container: write {path}: {}", words(errno)))
    }

    /// Is the container's own cgroup frozen (rather than one above it)? One that is not there is not.
    pub fn is_frozen(&self) -> Result<bool> {
        let Ok((hierarchy, path)) = self.freezer() else { return Ok(false) };
        match file::read_value(file::ABSOLUTE, &path).as_deref() {
            Ok("1") => Ok(true),
            Ok("0" | "THAWED") => Ok(false),
            // On v1 the state is also that of the ancestors.
            Ok("FROZEN" | "FREEZING") => {
                let own = format!("{}/freezer.self_freezing", hierarchy.dir());
                Ok(file::read_value(file::ABSOLUTE, &own).is_ok_and(|own| own == "1"))
            }
            Ok(state) => bail!("{path}: unknown state {state:?}"),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(anyhow!("read {path}: {}", words(*errno))),
        }
    }

    /// Before SIGKILL is sent: without the means for [`Record::thaw_killed`] it had better not be.
    pub fn can_thaw_killed(&self) -> Result<()> {
        if self.version == Version::V2 { Ok(()) } else { self.is_frozen().map(drop) }
    }

    /// After SIGKILL was sent: on v1 a frozen process only dies once it is thawed.
    pub fn thaw_killed(&self) -> Result<()> {
        if self.version == Version::V2 {
            return Ok(());
        }
        if self.is_frozen()? {
            self.thaw()?;
        }
        self.thaw_below()
    }

    /// v1: thaws also what the container has frozen by itself, in directories below its own.
    pub(super) fn thaw_below(&self) -> Result<()> {
        let Ok((hierarchy, _)) = self.freezer() else { return Ok(()) };
        let dir = hierarchy.dir();
        // Two links, and one for each directory in it.
        if !stat(dir.as_str()).is_ok_and(|stat| stat.st_nlink > 2) {
            return Ok(());
        }
        below::each(&dir, |one| file::write_value(one, "freezer.state", "THAWED"))
            .map_err(|errno| anyhow!("thaw what is below cgroup {dir}: {}", words(errno)))
    }

    /// Are the container's processes frozen, by whomever: its own cgroup or one above it? Then the directory.
    pub fn frozen_at(&self) -> Option<String> {
        self.hierarchies.iter().map(Hierarchy::dir).find(|dir| {
            let read = |name: &str| file::read_value(file::ABSOLUTE, &format!("{dir}/{name}"));
            // No directory has both files.
            read("cgroup.events").is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
                || read("freezer.state").is_ok_and(|state| state != "THAWED")
        })
    }

    /// Takes a process that was killed out of a frozen cgroup of v1, where it cannot even die, into the runtime's own.
    /// On v2 a frozen process dies like any other.
    pub fn release(&self, pid: i32) -> Result<()> {
        let Some(freezer) = self.hierarchies.iter().find(|one| one.has("freezer")) else { return Ok(()) };
        let memberships = super::own_memberships()?;
        let own = super::path::memberships(&memberships)
            .find(|one| one.controllers.split(',').any(|name| name == "freezer"))
            .context("the runtime is in no cgroup of the freezer")?;
        let tasks = format!("{}{}/tasks", freezer.mount, own.path.trim_end_matches('/'));
        file::write_value(file::ABSOLUTE, &tasks, &pid.to_string())
            .map_err(|errno| anyhow!("write {tasks}: {}", words(errno)))
    }

    fn freezer(&self) -> Result<(&Hierarchy, String)> {
        let name = if self.version == Version::V2 { "cgroup.freeze" } else { "freezer.state" };
        let hierarchy = match self.hierarchies.is_empty() {
            true => self.main()?,
            false => {
                self.hierarchy("freezer").context("cannot freeze or thaw: no freezer hierarchy is mounted")?
            }
        };
        Ok((hierarchy, format!("{}/{name}", hierarchy.dir())))
    }
}

fn freeze_v2(hierarchy: &Hierarchy, path: &str) -> Result<()> {
    let fail = |what: &str, errno: Errno| anyhow!("freeze the container: {what}: {}", words(errno));
    file::write_value(file::ABSOLUTE, path, "1").map_err(|errno| fail(path, errno))?;
    let events = format!("{}/cgroup.events", hierarchy.dir());
    let frozen = wait_for_event(&events, "frozen 1", Instant::now() + FREEZE_TIMEOUT);
    match frozen.map_err(|errno| fail(&events, errno))? {
        true => Ok(()),
        false => bail!("freeze the container: it still runs after {} s", FREEZE_TIMEOUT.as_secs()),
    }
}

/// Waits until `cgroup.events` has this line. False: not before the deadline.
pub fn wait_for_event(path: &str, line: &str, deadline: Instant) -> file::Result<bool> {
    let events = file::open_read(file::ABSOLUTE, path)?;
    let mut buffer = [0; 256];
    loop {
        let length = pread(&events, &mut buffer, 0)?;
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|have| have == line) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        // kernfs notifies whoever has read the old content.
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn freeze_v1(path: &str) -> Result<()> {
    let fail = |errno: Errno| anyhow!("freeze the container: {path}: {}", words(errno));
    for round in 1..=V1_TRIES {
        file::write_value(file::ABSOLUTE, path, "FROZEN").map_err(fail)?;
        match file::read_value(file::ABSOLUTE, path).map_err(fail)?.as_str() {
            "FROZEN" => return Ok(()),
            "FREEZING" => {}
            state => bail!("freeze the container: {path}: unexpected state {state:?}"),
        }
        if round % V1_THAW_EACH == 0 {
            file::write_value(file::ABSOLUTE, path, "THAWED").map_err(fail)?;
            std::thread::sleep(V1_PAUSE);
        }
    }
    bail!("freeze the container: it does not come to rest")
}
