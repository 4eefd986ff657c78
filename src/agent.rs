//! The seccomp agent: gets the descriptor behind which the calls of `SCMP_ACT_NOTIFY` rules wait, with the container process
//! state (config-linux.md "The Container Process State"), one message a connection.
//!
//! Called by the runtime when a container starts and by exec.

use crate::hooks::StateNow;
use crate::plan::seccomp::Agent;
use crate::spawn;
use crate::sys::{process, socket};
use anyhow::{Context, Result};
use serde::Serialize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// runc's words.
const NO_AGENT: &str = "failed to connect with seccomp agent specified in the seccomp profile";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a StateNow<'a>,
}

impl Agent {
    /// Connects to the agent; exec does so while the host's paths can still be seen.
    pub fn connect(&self) -> Result<OwnedFd> {
        spawn::connect(&self.path)
            .with_context(|| format!("/linux/seccomp/listenerPath: {NO_AGENT}: {}", self.path.display()))
    }
}

/// Takes the seccomp descriptor `fd` out of the process `pid` and sends it through the connection, which ends with that.
pub fn serve(
    connection: OwnedFd,
    agent: &Agent,
    fd: i32,
    pidfd: BorrowedFd,
    pid: i32,
    state: &StateNow,
) -> Result<()> {
    let listener = process::pidfd_getfd(pidfd, fd)
        .context("/linux/seccomp/listenerPath: take the seccomp descriptor from the process")?;
    let metadata = agent.metadata.as_deref().unwrap_or_default();
    let fds = ["seccompFd"];
    let message = ContainerProcessState { oci_version: state.oci_version, fds, pid, metadata, state };
    let message = serde_json::to_vec(&message).context("write the container process state")?;
    socket::send_fd(connection.as_fd(), &message, listener.as_fd())
        .with_context(|| format!("/linux/seccomp/listenerPath: send to {}", agent.path.display()))
}
