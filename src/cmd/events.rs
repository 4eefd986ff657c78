//! `events`: what a container uses, once or every few seconds, and when it runs out of memory; a JSON object a line.
//!
//! Called by `main`. Ends with the container.

use crate::cgroup::Stats;
use crate::cli::{self, Global};
use crate::exit::ExitCode;
use crate::log;
use crate::state::{Status, Store};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use std::os::fd::AsFd;
use std::time::Instant;

/// One line.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

impl Event<'_> {
    fn print(&self) -> Result<ExitCode> {
        crate::print(&format!("{}\n", serde_json::to_string(self)?))
    }
}

/// Prints the figures once, or figures and events until the container ends.
pub fn events(global: &Global, args: cli::Events) -> Result<ExitCode> {
    let (dir, state) = Store::new(global.root.as_deref())?.load(&args.id)?;
    let Some(interval) = args.interval.filter(|interval| !interval.is_zero()) else {
        bail!("duration interval must be greater than 0");
    };
    let (Status::Created | Status::Running | Status::Paused, Some(init)) = state.status(&dir)? else {
        bail!("container with id {} is not running", args.id);
    };
    let id = args.id.as_str();
    if args.stats {
        return Event { kind: "stats", id, data: Some(state.cgroup.stats()?) }.print();
    }
    let mut oom = state.cgroup.watch_oom()?;
    let mut next = Instant::now().checked_add(interval);
    loop {
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        // Rounded up, or the last part of a millisecond would be spent asking.
        let millis = left.and_then(|left| i32::try_from(left.as_micros().div_ceil(1000)).ok());
        let timeout = PollTimeout::try_from(millis.unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX);
        let mut watched = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        watched.extend(oom.iter().map(|oom| oom.poll_on()).map(|(fd, flags)| PollFd::new(fd, flags)));
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for events"),
        }
        let ended = watched[0].revents().is_some_and(|events| !events.is_empty());
        // Before the end: it may be the reason.
        if oom.as_mut().is_some_and(|oom| oom.has_happened()) {
            Event { kind: "oom", id, data: None }.print()?;
        }
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
        if next.is_some_and(|next| Instant::now() >= next) {
            match state.cgroup.stats() {
                Ok(stats) => {
                    Event { kind: "stats", id, data: Some(stats) }.print()?;
                }
                Err(error) => log::error(format_args!("{error:#}")),
            }
            next = Instant::now().checked_add(interval);
        }
    }
}
