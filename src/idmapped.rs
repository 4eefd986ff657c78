//! User namespaces for idmapped mounts: mount_setattr(2) takes the maps of a mount from one.
//!
//! Made by the runtime before the clone of the init stage, with a process in each that lives only until the descriptor
//! is open. Called by `spawn.rs`; the mounts are made in `init/source.rs`.

use crate::idmap;
use crate::plan::Plan;
use crate::plan::ids::{self, Maps};
use crate::plan::mounts::Kind;
use crate::sys::process::{self, Cloned};
use anyhow::{Context, Result};
use std::os::fd::{AsFd, OwnedFd};

/// A user namespace with the maps of each mount that has its own: index in `/mounts`, namespace. No allocation
/// and no system call without any.
pub fn namespaces(plan: &Plan) -> Result<Vec<(usize, OwnedFd)>> {
    let mut list: Vec<(usize, OwnedFd, &Maps)> = Vec::new();
    for mount in &plan.mounts {
        let Kind::Bind(bind) = &mount.kind else { continue };
        let Some(maps) = bind.idmap.as_ref().and_then(|idmap| idmap.maps.as_ref()) else { continue };
        let pointer = || format!("/mounts/{}: make a user namespace for the mappings", mount.index);
        let namespace = match list.iter().find(|(_, _, other)| maps.same_as(other)) {
            Some((_, namespace, _)) => namespace.try_clone().with_context(pointer)?,
            None => make(maps).with_context(pointer)?,
        };
        list.push((mount.index, namespace, maps));
    }
    Ok(list.into_iter().map(|(index, namespace, _)| (index, namespace)).collect())
}

fn make(maps: &Maps) -> Result<OwnedFd> {
    let runtime = nix::unistd::getpid();
    let (pid, pidfd) = match process::clone3(libc::CLONE_NEWUSER as u64, None).context("clone")? {
        Cloned::Child => keep_namespace(runtime),
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    let namespace = fill(pid, maps);
    // Its namespace lives on in the descriptor.
    process::kill_child(pid, pidfd.as_fd());
    let ended = process::wait(pid);
    let namespace = namespace?;
    ended.context("end the process in it")?;
    Ok(namespace)
}

/// The process in the namespace: it is there and ends with the runtime at the latest.
fn keep_namespace(runtime: nix::unistd::Pid) -> ! {
    // Failing, it is left for the runtime's kill, which comes in any case unless that dies first.
    let _ = process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
    if nix::unistd::getppid() != runtime {
        // It died before it could be asked for.
        process::exit_now(1);
    }
    loop {
        nix::unistd::pause();
    }
}

fn fill(pid: i32, maps: &Maps) -> Result<OwnedFd> {
    for (name, list) in [("uid_map", &maps.uids), ("gid_map", &maps.gids)] {
        idmap::put(pid, name, &ids::text(list)).with_context(|| format!("write {name}"))?;
    }
    process::open_namespace(pid, "user").context("open the namespace")
}
