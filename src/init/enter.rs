//! Entering cgroups, namespaces and the session keyring; what this process is to the runtime and to others.

use super::{Container, Outcome};
use crate::plan::namespaces::Namespaces;
use crate::sync::{At, Frame, Kind, Step};
use crate::sys::{Errno, Result, fs, key, process};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// Default permissions of a session keyring (all for its possessor; view, read and link for its user) plus search for
/// its user, without which a process that changes its user loses the keys (runc does the same).
const KEYRING_PERMISSIONS: u32 = 0x3f1b_0000;

pub fn join_cgroups(files: &[OwnedFd]) -> Result<()> {
    files.iter().try_for_each(|file| fs::write_once(file.as_fd(), b"0"))
}

/// Newer kernels keep the affinity that a process had before it entered a cgroup (runc#3922).
pub fn all_processors() -> Result<()> {
    match process::use_all_processors() {
        // The cgroup's cpuset leaves none of those, or there is no such call: the kernel's choice stands.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

pub fn die_with_runtime() -> Result<()> {
    process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong).map(drop)
}

pub fn outlive_runtime() -> Result<()> {
    process::prctl(libc::PR_SET_PDEATHSIG, 0).map(drop)
}

/// Not dumpable: ptrace and /proc/PID need CAP_SYS_PTRACE over the runtime's user namespace. execve sets it back.
pub fn hide() -> Result<()> {
    process::prctl(libc::PR_SET_DUMPABLE, 0).map(drop)
}

/// The runtime has opened the files and joined the pid namespace, which only counts for children.
pub fn join_namespaces(list: &[(OwnedFd, i32, usize)]) -> Outcome {
    for (file, flag, index) in list {
        process::setns(file.as_fd(), *flag).at_index(Step::JoinNamespace, *index)?;
    }
    Ok(())
}

pub fn new_cgroup_namespace(namespaces: &Namespaces) -> Result<()> {
    if namespaces.makes(libc::CLONE_NEWCGROUP) { process::unshare(libc::CLONE_NEWCGROUP) } else { Ok(()) }
}

/// The caller's session keyring would be shared with the container otherwise.
pub fn keyring(name: Option<&CStr>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    match key::join_session(name) {
        Ok(id) => match key::set_permissions(id, KEYRING_PERMISSIONS) {
            // A keyring that exists already (exec) belongs to the container's user and has its permissions.
            Ok(()) | Err(Errno::EACCES) => Ok(()),
            Err(errno) => Err(errno),
        },
        // A kernel without keyrings has nothing to share.
        Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Takes over the network namespace that was made meanwhile; once. Letting go of its source ends the helper.
pub fn network(child: &mut Container) -> Outcome {
    let Some(source) = child.network.take() else { return Ok(()) };
    match source.wire.receive().at(Step::NewNamespace)? {
        Frame::Plain(Kind::NetworkReady) => {}
        Frame::Failed(failure) => return Err(failure),
        _ => return Err(Errno::EPIPE).at(Step::NewNamespace),
    }
    process::setns(source.pidfd.as_fd(), libc::CLONE_NEWNET).at(Step::NewNamespace)
}
