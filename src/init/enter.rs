//! Entering cgroups, namespaces and the session keyring; what this process is to the runtime and to others.

use super::{Container, Outcome, mask};
use crate::plan::namespaces::Namespaces;
use crate::plan::process::{Affinity, Process};
use crate::sync::{At, Kind, Step};
use crate::sys::{Errno, Result, fs, key, process};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Default permissions of a session keyring (all for its possessor; view, read and link for its user) plus search for
/// its user, without which a process that changes its user loses the keys (runc does the same).
const KEYRING_PERMISSIONS: u32 = 0x3f1b_0000;
/// In a user namespace the search is for others: the keyring's user may be one that is not mapped.
const KEYRING_PERMISSIONS_IN_USER_NAMESPACE: u32 = 0x3f13_0008;

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

/// An exec process runs where it is told to, once it is in the cgroup. Told only where to begin, the kernel's choice stands.
pub fn processors(init: &Process) -> Result<()> {
    match init.affinity.as_deref() {
        Some(Affinity { last: Some(mask), .. }) => process::set_affinity(mask),
        Some(Affinity { initial: Some(_), .. }) => Ok(()),
        _ => all_processors(),
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

/// The opposite, for a process that has only the program's rights and descriptors left.
pub fn show() -> Result<()> {
    process::prctl(libc::PR_SET_DUMPABLE, 1).map(drop)
}

/// The runtime has opened the files and joined the pid namespace, which only counts for children.
pub fn join_namespaces(list: &[(OwnedFd, i32, usize)]) -> Outcome {
    for (file, flag, index) in list {
        process::setns(file.as_fd(), *flag).at_index(Step::JoinNamespace, *index)?;
    }
    Ok(())
}

/// In a new user namespace or behind a process in the middle: nothing can be done before the runtime has written the
/// maps, or knows this process.
pub fn user_namespace(child: &Container) -> Outcome {
    let namespaces = &child.plan.namespaces;
    let new = namespaces.makes(libc::CLONE_NEWUSER);
    if new || namespaces.needs_middle() {
        child.wire.expect(Kind::Mapped).at(Step::Gate)?;
    }
    if new {
        become_root().at(Step::UserNamespace)?;
        if namespaces.makes(libc::CLONE_NEWIPC) {
            // The message queues' filesystem belongs to whom makes the namespace.
            process::unshare(libc::CLONE_NEWIPC).at(Step::NewNamespace)?;
        }
    }
    Ok(())
}

/// Until now this process has an id that the user namespace does not map: what it made would belong to nobody. All
/// capabilities over the user namespace stay.
pub fn become_root() -> Result<()> {
    process::set_gid(0)?;
    process::set_uid(0)
}

/// The host's procfs, before the pivot. In a mount namespace that was joined another one may be at `/proc`, or none.
pub fn hosts_proc(child: &Container) -> Result<OwnedFd> {
    match &child.proc {
        Some(proc) => proc.try_clone().map_err(|_| Errno::EMFILE),
        None => fs::open(c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0),
    }
}

/// Makes a time namespace and enters it: unshare(2) alone is for children.
pub fn time_namespace(child: &Container) -> Result<()> {
    let plan = child.plan;
    if !plan.namespaces.makes(process::CLONE_NEWTIME) {
        return Ok(());
    }
    process::unshare(process::CLONE_NEWTIME)?;
    let proc = hosts_proc(child)?;
    if !plan.time_offsets.is_empty() {
        // The files of a process that nobody may look into belong to the host's root.
        let exposed = plan.namespaces.private(libc::CLONE_NEWUSER);
        if exposed {
            show()?;
        }
        let written = fs::openat(proc.as_fd(), c"self/timens_offsets", libc::O_WRONLY, 0)
            .and_then(|file| fs::write_once(file.as_fd(), plan.time_offsets.as_bytes()));
        if exposed {
            hide()?;
        }
        written?;
    }
    let namespace = fs::openat(proc.as_fd(), c"self/ns/time_for_children", libc::O_RDONLY, 0)?;
    process::setns(namespace.as_fd(), process::CLONE_NEWTIME)
}

pub fn new_cgroup_namespace(namespaces: &Namespaces) -> Result<()> {
    if namespaces.makes(libc::CLONE_NEWCGROUP) { process::unshare(libc::CLONE_NEWCGROUP) } else { Ok(()) }
}

/// The caller's session keyring would be shared with the container otherwise.
pub fn keyring(name: Option<&CStr>, in_user_namespace: bool) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    match key::join_session(name) {
        Ok(id) => match key::set_permissions(
            id,
            if in_user_namespace { KEYRING_PERMISSIONS_IN_USER_NAMESPACE } else { KEYRING_PERMISSIONS },
        ) {
            // A keyring that exists already (exec) belongs to the container's user and has its permissions.
            Ok(()) | Err(Errno::EACCES) => Ok(()),
            Err(errno) => Err(errno),
        },
        // A kernel without keyrings has nothing to share.
        Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Switches lo on in a network namespace that belongs to the user namespace; in any other who makes it does.
pub fn loopback(namespaces: &Namespaces) -> Result<()> {
    if namespaces.makes(libc::CLONE_NEWNET) && namespaces.made_ahead() == 0 {
        crate::sys::net::loopback_up()
    } else {
        Ok(())
    }
}

/// Enters the namespaces that the runtime has had made meanwhile, or makes others where it may not; once. What there is to
/// cover in procfs is covered before, in the time until they are there.
pub fn made_ahead(child: &mut Container, root: BorrowedFd) -> Outcome {
    let Some(process) = child.ahead.take() else { return Ok(()) };
    if child.plan.masks_early {
        mask::apply_early(child.plan, root, &mut child.covers)?;
    }
    child.wire.expect(Kind::NamespacesReady).at(Step::NewNamespace)?;
    let namespaces = child.plan.namespaces.made_ahead();
    let entered = match process::setns(process, namespaces) {
        // That takes the right to look into the runtime's processes (CAP_SYS_PTRACE), which a runtime in a container may lack.
        Err(Errno::EPERM) if child.plan.net_devices.is_empty() => {
            process::unshare(namespaces).and_then(|()| crate::sys::net::loopback_up())
        }
        other => other,
    };
    entered.at(Step::NewNamespace)
}

/// A container that was never started ends by what usually ends a program, although its first process is not the program
/// yet: runc's does, and engines that stop a created container wait for it.
pub fn end_on_signals() -> Result<()> {
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT]
        .into_iter()
        .try_for_each(process::end_on_signal)
}
