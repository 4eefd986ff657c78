//! The process between the runtime and the init process, where namespaces are joined before a user namespace counts.
//!
//! Joining takes privileges over the namespace that is joined: the runtime's for those of the host, which end with the
//! entry into a user namespace, or the user namespace's for those that it owns. New namespaces belong to the user
//! namespace of whoever makes them. Neither can the runtime do this itself, because there is no way back, nor the init
//! process, because a pid namespace begins with a child. So a process that does nothing else enters, clones the init
//! process as the runtime's child (`CLONE_PARENT`), tells its pid and ends. Called by `spawn`.

use super::{Container, Outcome, enter};
use crate::sync::{At, Step};
use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, fs};
use std::os::fd::AsFd;

/// Never returns: exit status 0 says that the init process was made and told.
pub fn run(mut child: Container) -> ! {
    let made = steps(&mut child).and_then(|()| {
        let flags = child.plan.namespaces.clone_flags() | libc::CLONE_PARENT;
        process::clone3(flags as u64, None).at(Step::NewNamespace)
    });
    let told = match made {
        Ok(Cloned::Child) => super::container(child),
        Ok(Cloned::Parent(pid, _)) => child.wire.born(pid),
        // With the runtime gone there is nobody left to tell; the exit status says it as well.
        Err(failure) => child.wire.fail(&failure).and(Err(failure.errno)),
    };
    process::exit_now(told.is_err() as i32)
}

fn steps(child: &mut Container) -> Outcome {
    fs::close_inherited(child.other_end);
    // Children are born in the cgroups of their parent.
    enter::join_cgroups(&child.cgroups).at(Step::JoinCgroup)?;
    child.cgroups.clear();
    // The init process is a copy of this one.
    if let Some((seal, true)) = child.seal {
        seal.apply_in_child().at(Step::Seal)?;
    }
    let user =
        child.join.iter().position(|join| join.1 == libc::CLONE_NEWUSER).map(|at| child.join.remove(at));
    // With the runtime's privileges first: what the user namespace does not own can be joined only now.
    let mut refused = Vec::new();
    for join in child.join.drain(..) {
        match process::setns(join.0.as_fd(), join.1) {
            Ok(()) => {}
            Err(Errno::EPERM) => refused.push(join),
            Err(errno) => return Err(errno).at_index(Step::JoinNamespace, join.2),
        }
    }
    child.join = refused;
    if let Some((file, flag, index)) = user {
        process::setns(file.as_fd(), flag).at_index(Step::JoinNamespace, index)?;
        enter::become_root().at(Step::UserNamespace)?;
        enter::join_namespaces(&child.join)?;
        child.join.clear();
    }
    // The init process joins what is left once its user namespace is there; a pid namespace it could not enter.
    match child.join.iter().find(|join| join.1 == libc::CLONE_NEWPID) {
        Some(join) => Err(Errno::EPERM).at_index(Step::JoinNamespace, join.2),
        None => Ok(()),
    }
}
