//! The container's view of its cgroups: a cgroup2 mount, or on v1 a tmpfs with one directory a hierarchy.
//!
//! With a cgroup namespace of its own a container gets new mounts, whose roots are its own cgroups; without one it gets
//! what the host has.

use super::{Hierarchy, Outcome, mounts, path};
use crate::plan::Plan;
use crate::plan::mounts::{Mount, Parameter};
use crate::sync::{At, Step};
use crate::sys::mount::{self, MountAttr, attr};
use crate::sys::{Errno, Result, fs};
use nix::sys::stat::{Mode, mkdirat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// cgroup v2. Mounting cgroup2 in the runtime's own cgroup namespace costs a grace period and shows the same tree as a
/// copy of the host's mount, so the copy is taken there.
pub fn unified(
    plan: &Plan,
    entry: &Mount,
    own: &CStr,
    own_namespace: bool,
    parameters: &[Parameter],
    root: BorrowedFd,
) -> Outcome<Option<OwnedFd>> {
    let index = entry.index;
    let (target, _) = path::make_dir(root, &entry.destination).at_index(Step::MountTarget, index)?;
    let made = if own_namespace {
        if mounts::at_once(plan, entry, c"cgroup2", c"cgroup", parameters.iter(), target.as_fd()) {
            return Ok(None);
        }
        match mounts::make(index, c"cgroup2", c"cgroup", parameters.iter(), entry.attr.set) {
            // Where the tree may not be mounted again, the container's own directory shows the same.
            Err(failure) if matches!(failure.errno, Errno::EBUSY | Errno::EPERM) => copy(own, &entry.attr),
            made => return mounts::finish(entry, made?, target).map(Some),
        }
    } else {
        copy(c"/sys/fs/cgroup", &entry.attr)
    };
    mounts::finish(entry, made.at_index(Step::Mount, index)?, target).map(Some)
}

/// Type `cgroup2` on a host with v1: the tree of v2 beside the others, as any filesystem.
pub fn second_version(entry: &Mount, parameters: &[Parameter], root: BorrowedFd) -> Outcome<OwnedFd> {
    let (target, _) = path::make_dir(root, &entry.destination).at_index(Step::MountTarget, entry.index)?;
    let made = mounts::make(entry.index, c"cgroup2", c"cgroup2", parameters.iter(), entry.attr.set)?;
    mounts::finish(entry, made, target)
}

fn copy(source: &CStr, attrs: &MountAttr) -> Result<OwnedFd> {
    let tree = mount::clone_tree(nix::fcntl::AT_FDCWD, source, false)?;
    let clear = attrs.clear & (attr::ATIME | attr::NODIRATIME);
    let attrs = MountAttr { clear, propagation: libc::MS_PRIVATE, ..*attrs };
    mount::set_attr(tree.as_fd(), &attrs, false)?;
    Ok(tree)
}

/// cgroup v1: a tmpfs with one directory a hierarchy, read-only at the end if the mount is.
pub fn hierarchies(
    entry: &Mount,
    list: &[Hierarchy],
    own_namespace: bool,
    root: BorrowedFd,
) -> Outcome<OwnedFd> {
    let index = entry.index;
    let (target, _) = path::make_dir(root, &entry.destination).at_index(Step::MountTarget, index)?;
    let mode = [(c"mode".into(), Some(c"755".into()))];
    let made = mounts::make(index, c"tmpfs", c"tmpfs", mode.iter(), entry.attr.set & !attr::RDONLY)?;
    mount::attach(made.as_fd(), target.as_fd()).at_index(Step::Mount, index)?;
    for hierarchy in list {
        one_hierarchy(index, &made, hierarchy, own_namespace, &entry.attr)?;
        for link in &hierarchy.links {
            match nix::unistd::symlinkat(hierarchy.name.as_c_str(), &made, link.as_c_str()) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).at_index(Step::Mount, index),
            }
        }
    }
    if entry.attr.set & attr::RDONLY != 0 {
        let readonly = MountAttr { set: attr::RDONLY, ..Default::default() };
        mount::set_attr(made.as_fd(), &readonly, false).at_index(Step::MountFlags, index)?;
    }
    mounts::propagate(entry, made.as_fd())?;
    Ok(made)
}

fn one_hierarchy(
    index: usize,
    tmpfs: &OwnedFd,
    hierarchy: &Hierarchy,
    own_namespace: bool,
    attrs: &MountAttr,
) -> Outcome {
    let name = hierarchy.name.as_c_str();
    mkdirat(tmpfs, name, Mode::from_bits_truncate(0o755)).at_index(Step::Mount, index)?;
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let target = fs::openat(tmpfs.as_fd(), name, flags, 0).at_index(Step::Mount, index)?;
    let made = if own_namespace {
        let options: Vec<Parameter> =
            hierarchy.controllers.to_bytes().split(|&b| b == b',').filter_map(controller).collect();
        mounts::make(index, c"cgroup", c"cgroup", options.iter(), attrs.set)
    } else {
        copy(&hierarchy.source, attrs).at_index(Step::Mount, index)
    };
    match made {
        Ok(made) => mount::attach(made.as_fd(), target.as_fd()).at_index(Step::Mount, index),
        // A controller that went to v2 or was switched off meanwhile has nothing to show.
        Err(failure) if failure.errno == Errno::ENOENT => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// `cpu` or `name=systemd` as a parameter. The superblock of an existing hierarchy keeps its own flags, so read-only is
/// a matter of the mount alone.
fn controller(option: &[u8]) -> Option<Parameter> {
    match option.iter().position(|&b| b == b'=') {
        Some(at) => Some((CString::new(&option[..at]).ok()?, Some(CString::new(&option[at + 1..]).ok()?))),
        None => Some((CString::new(option).ok()?, None)),
    }
}
