//! `delete`: removes what create made, and nothing else; may be repeated after it was interrupted.

use super::kill;
use crate::cli::Global;
use crate::hooks;
use crate::log;
use crate::state::{DOES_NOT_EXIST, Dir, State, Status, Store};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;

/// How long a killed init process may take to end.
const END_TIMEOUT_MS: u16 = 10_000;

/// Deletes a stopped or created container; with `force` any.
pub fn delete(global: &Global, id: &str, force: bool) -> Result<ExitCode> {
    let store = Store::new(global.root.as_deref())?;
    let missing = |error: &anyhow::Error| error.to_string() == DOES_NOT_EXIST;
    let dir = match store.open(id) {
        Err(error) if force && missing(&error) => return Ok(ExitCode::SUCCESS),
        other => other?,
    };
    let lock = dir.lock();
    let state = match dir.read() {
        Ok(state) => state,
        Err(error) if lock.is_ok() && (missing(&error) || force) => {
            // A runtime was killed before it wrote down anything: only the directory is there.
            dir.remove()?;
            if force {
                return Ok(ExitCode::SUCCESS);
            }
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let _lock = lock?;
    let status = state.status_locked(&dir)?.0;
    if !force && matches!(status, Status::Running | Status::Paused) {
        bail!("cannot delete container {id} that is not stopped: {}", status.word());
    }
    destroy(dir, &state, true)?;
    Ok(ExitCode::SUCCESS)
}

/// Ends what is left of the container, removes its cgroup, runs the poststop hooks, removes its state.
pub fn destroy(dir: Dir, state: &State, end: bool) -> Result<()> {
    if end && let Some(init) = state.init()? {
        // Gone meanwhile is as good.
        if let Err(error) = kill::send(state, init.as_fd(), libc::SIGKILL)
            && error.to_string() != crate::state::NOT_RUNNING
        {
            return Err(error);
        }
        wait_for_end(init.as_fd())?;
    }
    state.cgroup.remove()?;
    run_poststop(state);
    dir.remove()
}

/// poststop hooks: a failure is told and the others run on (runtime.md "Lifecycle").
fn run_poststop(state: &State) {
    if state.poststop.is_empty() {
        return;
    }
    let json = state.for_hooks().json(Status::Stopped.word(), 0);
    for (index, hook) in state.poststop.iter().enumerate() {
        if let Err(text) = hooks::run(hook, &json) {
            log::warn(format_args!("error running poststop hook #{index}: {text}"));
        }
    }
}

fn wait_for_end(pidfd: BorrowedFd) -> Result<()> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(END_TIMEOUT_MS.into());
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now()).as_millis() as u16;
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::from(left)) {
            Ok(0) => bail!("container init still running"),
            Ok(_) => return Ok(()),
            Err(crate::sys::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for the init process"),
        }
    }
}
