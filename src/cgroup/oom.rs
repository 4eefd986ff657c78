//! Telling that the container ran out of memory, as it happens.
//!
//! Called by `events`.

use super::record::Record;
use super::{Version, file};
use crate::sys::words;
use anyhow::{Result, anyhow};
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A watch over one cgroup.
pub enum OomWatch {
    /// v1 counts notices on a descriptor, one for each time, and one when the cgroup goes.
    Notices {
        /// The counter.
        notices: EventFd,
        /// The cgroup's own file of the same name.
        control: String,
    },
    /// v2 counts kills in a file that can be polled.
    Kills {
        /// `memory.events`, open.
        events: OwnedFd,
        /// How many have been told.
        told: u64,
    },
}

impl Record {
    /// Starts to watch. None: there is no memory controller.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        let Some(hierarchy) = self.hierarchy("memory") else { return Ok(None) };
        let dir = hierarchy.dir();
        let name = if self.version == Version::V2 { "memory.events" } else { "memory.oom_control" };
        let watched = match file::open_read(file::ABSOLUTE, &format!("{dir}/{name}")) {
            Ok(watched) => watched,
            Err(nix::errno::Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(anyhow!("open {dir}/{name}: {}", words(errno))),
        };
        if self.version == Version::V2 {
            let told = kills(watched.as_fd());
            return Ok(Some(OomWatch::Kills { events: watched, told }));
        }
        let fail = |errno| anyhow!("watch {dir}/{name}: {}", words(errno));
        let notices = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(fail)?;
        let control = format!("{dir}/cgroup.event_control");
        let line = format!("{} {}", notices.as_fd().as_raw_fd(), watched.as_raw_fd());
        file::write_value(file::ABSOLUTE, &control, &line).map_err(fail)?;
        Ok(Some(OomWatch::Notices { notices, control }))
    }
}

impl OomWatch {
    /// What to poll, and for what.
    pub fn poll_on(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            OomWatch::Notices { notices, .. } => (notices.as_fd(), PollFlags::POLLIN),
            OomWatch::Kills { events, .. } => (events.as_fd(), PollFlags::POLLPRI),
        }
    }

    /// Has it happened since the last call? Does not wait.
    pub fn has_happened(&mut self) -> bool {
        match self {
            // Nothing to read is EAGAIN.
            OomWatch::Notices { notices, control } => {
                notices.read().is_ok() && file::open_write(file::ABSOLUTE, control).is_ok()
            }
            OomWatch::Kills { events, told } => {
                let now = kills(events.as_fd());
                now > std::mem::replace(told, now)
            }
        }
    }
}

/// `oom_kill` of an open `memory.events`; 0 once the cgroup is gone.
fn kills(events: BorrowedFd) -> u64 {
    let mut buffer = [0; 1024];
    let Ok(length) = nix::sys::uio::pread(events, &mut buffer, 0) else { return 0 };
    let text = String::from_utf8_lossy(&buffer[..length]);
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}
