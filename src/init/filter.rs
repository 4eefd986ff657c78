//! Installs the seccomp filter, and hands the descriptor of one with an agent to the runtime.

use super::Outcome;
use crate::plan::process::Process;
use crate::plan::seccomp::Filter;
use crate::sync::{At, Kind, Step, Wire};
use crate::sys::{Errno, seccomp};
use std::os::fd::AsRawFd;

/// Takes the filter that the runtime has compiled meanwhile, if there is to be one.
pub fn take(init: &Process, wire: &Wire) -> Outcome {
    if let Some(filter) = wire.receive_filter().at(Step::Gate)? {
        // Once: a process waits for it in one place.
        let _ = init.seccomp.set(filter);
    }
    Ok(())
}

/// The filter that is installed before the capabilities are given up, because it needs CAP_SYS_ADMIN without no_new_privs. What
/// this process calls from then on must be among what filters that were made for runc let through.
pub fn early(init: &Process) -> Option<&Filter> {
    if init.no_new_privileges { None } else { init.seccomp.get() }
}

/// Will it be in force at the gate, and not let accept(2) through? runc opens a fifo there.
pub fn closes_the_gate(init: &Process) -> bool {
    early(init).is_some_and(|filter| !filter.permits(libc::SYS_accept4))
}

/// Installs it. Where an agent answers for some calls, it has the descriptor before this process goes on: the next call
/// may wait for its answer. The runtime is ready for that once it has said `Proceed`.
pub fn install(filter: &Filter, wire: &Wire) -> Outcome {
    if filter.agent.is_none() {
        return seccomp::install(&filter.program, filter.flags).at(Step::Seccomp).map(drop);
    }
    wire.expect(Kind::Proceed).at(Step::Gate)?;
    let flags = filter.flags | seccomp::FLAG_NEW_LISTENER;
    let listener = seccomp::install(&filter.program, flags).at(Step::Seccomp)?;
    let listener = listener.ok_or(Errno::EBADF).at(Step::Seccomp)?;
    wire.send_listener(listener.as_raw_fd()).at(Step::Seccomp)?;
    wire.expect(Kind::ListenerTaken).at(Step::Seccomp)
}

/// Waits until everything outside is in place. A filter with an agent has waited for that already, or goes in now: at
/// `start` nobody would be there to serve the agent.
pub fn install_or_proceed(init: &Process, wire: &Wire) -> Outcome {
    match init.seccomp.get().filter(|filter| filter.agent.is_some()) {
        None => wire.expect(Kind::Proceed).at(Step::Gate),
        Some(filter) if init.no_new_privileges => install(filter, wire),
        Some(_) => Ok(()),
    }
}
