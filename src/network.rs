//! Makes the container's network namespace in a process of its own, while the runtime still prepares the rest.
//!
//! It is the dearest of the namespaces (0.3 ms, most of it the tables of net sysctls) and depends on nothing else, so it
//! is begun as soon as the plan is known. The helper says that it is ready and keeps the namespace until both the
//! runtime and the init stage have let go of the wire. It never touches anything else. Called by `spawn`.

use crate::sync::{At, Frame, Kind, Step, Wire};
use crate::sys::process::{self, Cloned};
use anyhow::{Context, Result};
use std::os::fd::OwnedFd;

/// The init stage's half: what to wait on, and the process to take the namespace from.
pub struct Source {
    /// Says `NetworkReady` or why not.
    pub wire: Wire,
    /// The helper, for setns(2).
    pub pidfd: OwnedFd,
}

/// The runtime's half: reaps the helper, which ends once the init stage has let go.
pub struct Helper {
    pid: i32,
}

/// Starts the helper.
pub fn begin() -> Result<(Source, Helper)> {
    let (wire, theirs) = Wire::pair().context("make a wire to the network helper")?;
    match process::fork().context("start the network helper")? {
        Cloned::Child => {
            drop(wire);
            help(&theirs)
        }
        Cloned::Parent(pid, pidfd) => Ok((Source { wire, pidfd }, Helper { pid })),
    }
}

fn help(wire: &Wire) -> ! {
    let made = match process::unshare(libc::CLONE_NEWNET).at(Step::NewNamespace) {
        Ok(()) => wire.send(Kind::NetworkReady),
        Err(failure) => wire.fail(&failure),
    };
    if made.is_ok() {
        // Until the end of file: nothing is ever sent this way.
        while !matches!(wire.receive(), Ok(Frame::End | Frame::Lost) | Err(_)) {}
    }
    process::exit_now(0)
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Whoever drops this has closed the runtime's end, and the init stage has its namespace or is gone.
        let _ = process::wait(self.pid);
    }
}
