//! Sources of bind mounts that the container's root cannot reach: it has the ids of a user namespace, and a directory on
//! the way may be closed to all but the host's root.
//!
//! The init stage asks on the wire; the runtime sends a process with its own privileges into the init stage's mount
//! namespace, which copies the mount there, so that flags and propagation are what they are in that namespace, and
//! passes it over a socket of its own: frames that the runtime has sent meanwhile may wait on the wire.

use super::Container;
use crate::plan::Plan;
use crate::plan::mounts::{Bind, Kind};
use crate::sys::process::{self, Cloned, Ended};
use crate::sys::{Errno, Result, mount, socket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A detached copy of the mount at `source`, for `/mounts/INDEX`.
pub fn open(child: &Container, index: usize, bind: &Bind) -> Result<OwnedFd> {
    match (mount::clone_tree(nix::fcntl::AT_FDCWD, &bind.source, bind.recursive), &child.sources) {
        (Err(Errno::EACCES | Errno::EPERM), Some(sources)) => {
            child.wire.need_source(index)?;
            socket::receive_fd(sources.as_fd())
        }
        (tree, _) => tree,
    }
}

/// The runtime's half: sends the source of `/mounts/INDEX` as the init process `pidfd` would see it with the rights to.
pub fn send(plan: &Plan, index: usize, pidfd: BorrowedFd, sources: BorrowedFd) -> Result<()> {
    let pid = match process::fork()? {
        Cloned::Child => {
            let sent = copy_there(plan, index, pidfd)
                .and_then(|tree| socket::send_fd(sources, b"source", tree.as_fd()));
            process::exit_now(sent.err().map_or(0, |errno| errno as i32))
        }
        Cloned::Parent(pid, _) => pid,
    };
    match process::wait(pid)? {
        Ended::Code(0) => Ok(()),
        Ended::Code(errno) => Err(Errno::from_raw(errno)),
        Ended::Signal(_) => Err(Errno::EINTR),
    }
}

fn copy_there(plan: &Plan, index: usize, pidfd: BorrowedFd) -> Result<OwnedFd> {
    let entry = plan.mounts.iter().find(|mount| mount.index == index).ok_or(Errno::EPROTO)?;
    let Kind::Bind(bind) = &entry.kind else { return Err(Errno::EPROTO) };
    process::setns(pidfd, libc::CLONE_NEWNS)?;
    mount::clone_tree(nix::fcntl::AT_FDCWD, &bind.source, bind.recursive)
}
