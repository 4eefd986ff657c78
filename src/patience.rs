//! Waiting for a process of the container that may be unable to run: its cgroup, or one above it, may be frozen, and stay so.
//!
//! What the init stage does may take as long as it takes (mounts from afar, hooks without a timeout), so silence alone is
//! no reason to give up; a freezer that nobody opens is. The socket's own timeout says when to look. Called by `spawn`
//! and `start`, which see the host's cgroups; `exec`, which does not any more when it waits, has a limit in place of it.

use crate::cgroup::Record;
use crate::sync::{Frame, Wire};
use crate::sys::{Errno, process};
use anyhow::{Context, Result, bail};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Silence before each look, in seconds.
pub const LOOK_AFTER: u32 = 2;
/// How long the cgroup may be found frozen, one look after the other.
const FROZEN_LIMIT: Duration = Duration::from_secs(8);

/// What is known of the freezer so far.
pub struct Patience<'a> {
    record: &'a Record,
    frozen_since: Option<Instant>,
}

impl Patience<'_> {
    /// For a process in this cgroup.
    pub fn new(record: &Record) -> Patience<'_> {
        Patience { record, frozen_since: None }
    }

    /// Waits for a frame on a wire with [`Wire::limit`].
    ///
    /// # Errors
    /// The cgroup is frozen and stays so for 10 s.
    pub fn receive(&mut self, wire: &Wire) -> Result<Frame> {
        loop {
            match wire.receive() {
                Err(Errno::EAGAIN) => self.look()?,
                other => return other.context("wait for the init stage"),
            }
        }
    }

    /// Waits for the end of a process, and leaves it to be reaped.
    ///
    /// # Errors
    /// The same.
    pub fn end_of(&mut self, pidfd: BorrowedFd) -> Result<()> {
        while !process::ends_within(pidfd, LOOK_AFTER * 1000)? {
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        let Some(dir) = self.record.frozen_at() else {
            self.frozen_since = None;
            return Ok(());
        };
        if self.frozen_since.get_or_insert_with(Instant::now).elapsed() >= FROZEN_LIMIT {
            bail!("container's cgroup unexpectedly frozen: {dir}, or one above it: its process cannot run");
        }
        Ok(())
    }
}
