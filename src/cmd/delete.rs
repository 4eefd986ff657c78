//! `delete`: removes what create made, and nothing else; may be repeated after it was interrupted.

use super::kill;
use crate::cgroup::systemd::is_unanswered;
use crate::cli::Global;
use crate::exit::ExitCode;
use crate::hooks;
use crate::log;
use crate::state::{DOES_NOT_EXIST, Dir, State, Status, Store};
use crate::sys::{Errno, process};
use anyhow::{Context, Result, bail};
use std::os::fd::{AsFd, BorrowedFd};

/// How long a killed init process may take to end, in milliseconds.
const END_LIMIT_MS: u32 = 10_000;
/// How long another process may be at work on the container.
const LOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Deletes a stopped or created container; with `force` any.
pub fn delete(global: &Global, id: &str, force: bool) -> Result<ExitCode> {
    let store = Store::new(global.root.as_deref())?;
    let missing = |error: &anyhow::Error| error.to_string() == DOES_NOT_EXIST;
    let dir = match store.open(id) {
        Err(error) if force && missing(&error) => return Ok(ExitCode::SUCCESS),
        other => other?,
    };
    // A create that was killed holds the lock until its child is gone, too.
    let _lock = dir.lock_within(LOCK_TIMEOUT)?;
    let state = match dir.read() {
        Ok(state) => state,
        // A runtime was killed before it wrote down anything, or the file is rubbish: only the directory is there.
        // Where it could not be read, nobody knows what is there, so nothing is removed.
        Err(error) if missing(&error) || (force && is_rubbish(&error)) => {
            // Whoever had the lock before may have removed it, and somebody else may have claimed the id anew.
            if !dir.is_gone() {
                dir.remove()?;
            }
            if force {
                return Ok(ExitCode::SUCCESS);
            }
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let init = if force {
        state.init()?
    } else {
        let (status, init) = state.status_locked(&dir)?;
        if matches!(status, Status::Running | Status::Paused) {
            bail!("cannot delete container {id} that is not stopped: {}", status.word());
        }
        init
    };
    destroy_locked(dir, &state, init.as_ref().map(AsFd::as_fd), force)?;
    Ok(ExitCode::SUCCESS)
}

/// Is what stands in the place of the state no state at all: not JSON, larger than any, or not even a file?
fn is_rubbish(error: &anyhow::Error) -> bool {
    error.is::<serde_json::Error>()
        || matches!(error.downcast_ref(), Some(Errno::ELOOP | Errno::EINVAL | Errno::ENXIO | Errno::EFBIG))
}

/// Ends what is left of the container, removes its cgroup, runs the poststop hooks, removes its state. `end`: also where it
/// still runs. Nothing if somebody else has done so, whatever has its id by now.
pub fn destroy(dir: Dir, state: &State, end: bool) -> Result<()> {
    let lock = dir.lock_within(LOCK_TIMEOUT);
    if dir.is_gone() {
        return Ok(());
    }
    let _lock = match lock {
        // Nobody would come back for what is left: no lock at all, for want of a descriptor, is no reason to leave it.
        Err(error) if error.downcast_ref() != Some(&Errno::EAGAIN) => None,
        lock => Some(lock?),
    };
    let init = if end { state.init()? } else { None };
    destroy_locked(dir, state, init.as_ref().map(AsFd::as_fd), end)
}

/// Ends and removes a container that runs, because of `error`, which is the one to tell.
pub fn give_up(dir: Dir, state: &State, error: anyhow::Error) -> anyhow::Error {
    if let Err(left) = destroy(dir, state, true) {
        log::warn(format_args!("remove the container: {left:#}"));
    }
    error
}

/// The same for a caller that holds the lock and knows the init process.
fn destroy_locked(dir: Dir, state: &State, init: Option<BorrowedFd>, end: bool) -> Result<()> {
    if let Some(init) = init {
        // Gone meanwhile is as good.
        if let Err(error) = kill::send(state, init, libc::SIGKILL)
            && error.to_string() != crate::state::NOT_RUNNING
        {
            return Err(error);
        }
        wait_for_end(init)?;
    }
    // Each step once more if it failed: a passing lack of memory must not leave anything behind. While the cgroup
    // stands the state stays too, so that delete can be repeated.
    // A pid namespace of the container's own has ended with its first process: who else is in the cgroup is not the container's,
    // unless its runtime was killed before it could write down who that is.
    let all = end || state.shares_pids() || state.pid == 0;
    twice(|| state.cgroup.end_and_remove(all))?;
    if let Some(group) = &state.resctrl {
        twice(|| group.remove())?;
    }
    twice(|| state.unmount_root())?;
    run_poststop(state);
    twice(|| dir.remove())
}

fn twice(step: impl Fn() -> Result<()>) -> Result<()> {
    // Who has waited half a minute in vain need not do so again.
    step().or_else(|error| if is_unanswered(&error) { Err(error) } else { step() })
}

/// poststop hooks: a failure is told and the others run on (runtime.md "Lifecycle").
fn run_poststop(state: &State) {
    if state.poststop.is_empty() {
        return;
    }
    let json = state.for_hooks().json(Status::Stopped.word(), 0);
    for (index, hook) in state.poststop.iter().enumerate() {
        if let Err(text) = hooks::run(hook, &json, &state.bundle) {
            log::warn(format_args!("error running poststop hook #{index}: {text}"));
        }
    }
}

fn wait_for_end(pidfd: BorrowedFd) -> Result<()> {
    if !process::ends_within(pidfd, END_LIMIT_MS).context("wait for the init process")? {
        bail!("container init still running");
    }
    Ok(())
}
