//! `pause` and `resume`: stop every process of a container where it is, and let them run on.
//!
//! No flag is stored: a container is paused while its own cgroup is frozen. No lock is held, so that a freeze that takes
//! its time does not keep `kill` or `delete --force` waiting. Called by `main`.

use crate::cli::Global;
use crate::exit::ExitCode;
use crate::state::{NOT_RUNNING, Status, Store};
use anyhow::{Result, bail};

/// Freezes a container, those of its processes included that `exec` added, and returns once all have stopped.
///
/// # Errors
/// It is paused already, has ended, or does not come to rest in 10 s; then it runs on.
pub fn pause(global: &Global, id: &str) -> Result<ExitCode> {
    let (dir, state) = Store::new(global.root.as_deref())?.load(id)?;
    match state.status(&dir)?.0 {
        Status::Created | Status::Running => state.cgroup.freeze()?,
        // runc says the same of a paused one; containerd reads it as "no such container".
        Status::Creating | Status::Paused | Status::Stopped => bail!(NOT_RUNNING),
    }
    Ok(ExitCode::SUCCESS)
}

/// Thaws a paused container.
///
/// # Errors
/// It is not paused.
pub fn resume(global: &Global, id: &str) -> Result<ExitCode> {
    let (dir, state) = Store::new(global.root.as_deref())?.load(id)?;
    match state.status(&dir)?.0 {
        Status::Paused => state.cgroup.thaw()?,
        Status::Creating | Status::Created | Status::Running | Status::Stopped => {
            bail!("container not paused")
        }
    }
    Ok(ExitCode::SUCCESS)
}
