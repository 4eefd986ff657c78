//! Sources of bind mounts that the container's root cannot reach: it has the ids of a user namespace, and a directory on
//! the way may be closed to all but the host's root.
//!
//! The init stage asks on the wire; the runtime sends a process with its own privileges into the init stage's mount
//! namespace, which copies the mount there, so that flags and propagation are what they are in that namespace, and
//! passes it over a socket of its own: frames that the runtime has sent meanwhile may wait on the wire. An idmapped mount
//! comes that way, too: it takes privileges over the filesystem.

use super::{Container, Outcome};
use crate::plan::Plan;
use crate::plan::mounts::{Bind, Kind};
use crate::sync::{At, Frame, Step, Wire};
use crate::sys::process::{self, Cloned, Ended};
use crate::sys::{Errno, Result, mount, socket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// User namespaces that hold the mappings of mounts, by index in `/mounts`.
pub type Idmaps = [(usize, OwnedFd)];

/// A detached copy of the mount that `bind`, which is `/mounts/INDEX`, shows: idmapped if it is to be.
pub fn open(child: &Container, index: usize, bind: &Bind) -> Outcome<OwnedFd> {
    let ask = |sources: &OwnedFd| {
        child.wire.need_source(index)?;
        socket::receive_fd(sources.as_fd())
    };
    let in_user_namespace = child.plan.namespaces.private(libc::CLONE_NEWUSER);
    match (&bind.idmap, &child.sources) {
        (None, None) => copy(bind).at_index(Step::MountSource, index),
        (None, Some(sources)) => match copy(bind) {
            Err(Errno::EACCES | Errno::EPERM) => ask(sources),
            tree => tree,
        }
        .at_index(Step::MountSource, index),
        (Some(_), Some(sources)) => ask(sources).at_index(Step::MountSource, index),
        (Some(_), None) if in_user_namespace => Err(Errno::EPERM).at_index(Step::MountIdmap, index),
        (Some(_), None) => copy_idmapped(bind, index, child.idmaps, None),
    }
}

fn copy(bind: &Bind) -> Result<OwnedFd> {
    mount::clone_tree(nix::fcntl::AT_FDCWD, &bind.source, bind.recursive)
}

/// `container`: the container's own user namespace, for a mount without maps of its own.
fn copy_idmapped(bind: &Bind, index: usize, idmaps: &Idmaps, container: Option<OwnedFd>) -> Outcome<OwnedFd> {
    let tree = copy(bind).at_index(Step::MountSource, index)?;
    if let Some(idmap) = &bind.idmap {
        let own = idmaps.iter().find(|(at, _)| *at == index).map(|(_, namespace)| namespace);
        let namespace = own.or(container.as_ref()).ok_or(Errno::EPROTO).at_index(Step::MountIdmap, index)?;
        mount::set_idmap(tree.as_fd(), namespace.as_fd(), idmap.recursive)
            .at_index(Step::MountIdmap, index)?;
    }
    Ok(tree)
}

/// The runtime's half: sends the source of `/mounts/INDEX` as the init process would see it with the rights to.
pub fn send(
    plan: &Plan,
    index: usize,
    init: (i32, BorrowedFd),
    idmaps: &Idmaps,
    sources: BorrowedFd,
) -> Outcome {
    let at = |result: Result<_>| result.at_index(Step::MountSource, index);
    let (ours, theirs) = Wire::pair().at_index(Step::MountSource, index)?;
    let pid = match process::fork().at_index(Step::MountSource, index)? {
        Cloned::Child => {
            let sent = copy_there(plan, index, init, idmaps)
                .and_then(|tree| at(socket::send_fd(sources, b"source", tree.as_fd())));
            let told = match &sent {
                Ok(()) => Ok(()),
                Err(failure) => theirs.fail(failure),
            };
            process::exit_now(told.is_err() as i32)
        }
        Cloned::Parent(pid, _) => pid,
    };
    drop(theirs);
    let frame = ours.receive().at_index(Step::MountSource, index)?;
    let ended = process::wait(pid).at_index(Step::MountSource, index)?;
    match frame {
        Frame::End if ended == Ended::Code(0) => Ok(()),
        Frame::Failed(failure) => Err(failure),
        _ => at(Err(Errno::EPROTO)),
    }
}

fn copy_there(plan: &Plan, index: usize, init: (i32, BorrowedFd), idmaps: &Idmaps) -> Outcome<OwnedFd> {
    let entry = plan.mounts.iter().find(|mount| mount.index == index).map(|mount| &mount.kind);
    let Some(Kind::Bind(bind)) = entry else { return Err(Errno::EPROTO).at_index(Step::MountSource, index) };
    let container = match &bind.idmap {
        Some(idmap) if idmap.maps.is_none() => {
            Some(process::open_namespace(init.0, "user").at_index(Step::MountIdmap, index)?)
        }
        _ => None,
    };
    process::setns(init.1, libc::CLONE_NEWNS).at_index(Step::MountSource, index)?;
    copy_idmapped(bind, index, idmaps, container)
}
