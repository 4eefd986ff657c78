//! Hooks of the container's namespaces: createContainer and startContainer.

use super::Outcome;
use crate::hooks::{self, HookState};
use crate::sync::{Failure, Step};
use crate::sys::Errno;
use oci_spec::runtime::Hook;

/// Runs them in order; the first failure ends the start. The pid they are told is that inside the container.
pub fn run_all(list: &[Hook], state: &HookState, status: &str, step: Step) -> Outcome {
    if list.is_empty() {
        return Ok(());
    }
    let json = state.json(status, nix::unistd::getpid().as_raw());
    for (index, hook) in list.iter().enumerate() {
        hooks::run(hook, &json).map_err(|text| Failure { step, index, errno: Errno::ECANCELED, text })?;
    }
    Ok(())
}
