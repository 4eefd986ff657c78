//! Waiting for a process of the container that may be unable to run: its cgroup, or one above it, may be frozen, and stay so,
//! or a neighbour in a shared pid namespace may have sent SIGSTOP.
//!
//! What the init stage does may take as long as it takes (mounts from afar, hooks without a timeout), so silence alone is
//! no reason to give up; that it is kept from running is. The socket's own timeout says when to look. Called by `spawn`
//! and `start`, which see the host's cgroups; `exec`, which does not any more when it waits, has a limit in place of it.

use crate::cgroup::Record;
use crate::state::is_stopped;
use crate::sync::{Frame, Wire};
use crate::sys::{Errno, process};
use anyhow::{Context, Result, bail};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Silence before each look, in seconds.
pub const LOOK_AFTER: u32 = 2;
/// How long it may be found unable to run, one look after the other.
const STUCK_LIMIT: Duration = Duration::from_secs(8);

/// What is known so far.
pub struct Patience<'a> {
    record: &'a Record,
    init: Option<i32>,
    stuck_since: Option<Instant>,
}

impl Patience<'_> {
    /// For a process in this cgroup, with its number if others may reach it.
    pub fn new(record: &Record, init: Option<i32>) -> Patience<'_> {
        Patience { record, init, stuck_since: None }
    }

    /// Waits for a frame on a wire with [`Wire::limit`].
    ///
    /// # Errors
    /// The cgroup is frozen, or the process stopped, and stays so for 10 s.
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
        let why = match self.record.frozen_at() {
            Some(dir) => {
                format!(
                    "container's cgroup unexpectedly frozen: {dir}, or one above it: its process cannot run"
                )
            }
            None if self.init.is_some_and(is_stopped) => {
                "container's first process was stopped by a signal before it could run the program".into()
            }
            None => {
                self.stuck_since = None;
                return Ok(());
            }
        };
        if self.stuck_since.get_or_insert_with(Instant::now).elapsed() >= STUCK_LIMIT {
            bail!("{why}");
        }
        Ok(())
    }
}
