//! `mounts`: each one is made detached, given its flags and then attached to a descriptor of its destination.

use super::{CgroupView, Container, Hierarchy, Outcome, copy, devices, enter, path, source};
use crate::plan::mounts::{Filesystem, Kind, Mount};
use crate::sync::{At, Failure, Step};
use crate::sys::mount::{self, MountAttr, attr};
use crate::sys::{Errno, Result, fs};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Mounts everything in the order of the list.
pub fn mount_all(child: &mut Container, root: BorrowedFd) -> Outcome {
    let plan = child.plan;
    let mut readonly_last: Vec<(usize, OwnedFd)> = Vec::new();
    for &at in &plan.mount_order {
        let entry = &plan.mounts[at];
        let made = match &entry.kind {
            Kind::Bind { source, recursive } => bind(child, entry, source, *recursive, root)?,
            Kind::Filesystem(filesystem) => {
                // sysfs shows the network namespace of the process that mounts it.
                if filesystem.fstype.as_c_str() == c"sysfs" {
                    if plan.devices_early && child.runtime.is_some() {
                        devices::make_all(plan, root)?;
                    }
                    enter::network(child).at(Step::NewNamespace)?;
                }
                new_filesystem(entry, filesystem, root)?
            }
            Kind::Remount => remount(entry, root)?,
            Kind::Cgroup => {
                let own_namespace = plan.namespaces.private(libc::CLONE_NEWCGROUP);
                match &child.cgroup_view {
                    CgroupView::Unified { own } => unified(entry, own, own_namespace, root)?,
                    CgroupView::Hierarchies(list) => hierarchies(entry, list, own_namespace, root)?,
                }
            }
        };
        if entry.readonly_last {
            readonly_last.push((entry.index, made));
        } else if child.proc.is_none() && !plan.sysctl.is_empty() && shows_all_settings(entry) {
            child.proc = Some(made);
        }
    }
    for (index, made) in readonly_last {
        let readonly = MountAttr { set: attr::RDONLY, ..Default::default() };
        mount::set_attr(made.as_fd(), &readonly, false).at_index(Step::MountFlags, index)?;
    }
    Ok(())
}

/// Is this a procfs of the container's own, whole and writable? We hold it by descriptor since it was made, so nobody
/// can have put anything else in its place.
fn shows_all_settings(entry: &Mount) -> bool {
    match &entry.kind {
        Kind::Filesystem(fs) => fs.fstype.as_c_str() == c"proc" && fs.parameters.is_empty(),
        _ => false,
    }
}

/// Copies a mount of the runtime's namespace.
fn bind(
    child: &Container,
    entry: &Mount,
    source: &CStr,
    recursive: bool,
    root: BorrowedFd,
) -> Outcome<OwnedFd> {
    let index = entry.index;
    let tree = source::open(child, index, source, recursive).at_index(Step::MountSource, index)?;
    let stat = fstat(&tree).at_index(Step::MountSource, index)?;
    let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    // Only a whole procfs may stand in for /proc: labels and settings are written through it (CVE-2019-16884).
    if entry.destination.as_c_str() == c"/proc"
        && !(path::is_procfs(tree.as_fd()).at_index(Step::MountSource, index)? && stat.st_ino == 1)
    {
        return Err(Errno::EINVAL).at_index(Step::MountSource, index);
    }
    let target = if directory {
        path::make_dir(root, &entry.destination).map(|(fd, _)| fd)
    } else {
        path::make_file(root, &entry.destination)
    }
    .at_index(Step::MountTarget, index)?;
    if entry.attr.set != 0 || entry.attr.clear != 0 {
        mount::set_attr(tree.as_fd(), &entry.attr, false).at_index(Step::MountFlags, index)?;
    }
    finish(entry, tree, target)
}

/// Makes a new filesystem.
fn new_filesystem(entry: &Mount, filesystem: &Filesystem, root: BorrowedFd) -> Outcome<OwnedFd> {
    let index = entry.index;
    let (target, was_there) = target_dir(entry, filesystem, root).at_index(Step::MountTarget, index)?;
    let context = mount::fs_open(&filesystem.fstype).at_index(Step::Mount, index)?;
    let made = configure(&context, filesystem, target.as_fd(), was_there, entry.attr.set);
    let made =
        made.map_err(|errno| Failure { step: Step::Mount, index, errno, text: kernel_log(context.as_fd()) })?;
    if filesystem.copy_up && was_there {
        copy::directory(target.as_fd(), made.as_fd()).at_index(Step::MountSource, index)?;
    }
    finish(entry, made, target)
}

/// A mount that is there gets the flags that the options name.
fn remount(entry: &Mount, root: BorrowedFd) -> Outcome<OwnedFd> {
    let index = entry.index;
    let target = path::open(root, &entry.destination).at_index(Step::MountTarget, index)?;
    mount::set_attr(target.as_fd(), &entry.attr, false).at_index(Step::MountFlags, index)?;
    for &(propagation, recursive) in &entry.propagation {
        let change = MountAttr { propagation, ..Default::default() };
        mount::set_attr(target.as_fd(), &change, recursive).at_index(Step::MountFlags, index)?;
    }
    Ok(target)
}

/// proc and sysfs go only on plain directories: through a link the image would choose what later writes to /proc reach
/// (CVE-2019-19921, CVE-2023-27561).
fn target_dir(entry: &Mount, filesystem: &Filesystem, root: BorrowedFd) -> Result<(OwnedFd, bool)> {
    if !matches!(filesystem.fstype.to_bytes(), b"proc" | b"sysfs") {
        return path::make_dir(root, &entry.destination);
    }
    let resolve = fs::IN_ROOT | libc::RESOLVE_NO_SYMLINKS;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match fs::openat2(root, &entry.destination, flags, 0, resolve) {
        Err(Errno::ENOENT) => {
            path::make_dir(root, &entry.destination)?;
            Ok((fs::openat2(root, &entry.destination, flags, 0, resolve)?, false))
        }
        other => Ok((other?, true)),
    }
}

fn configure(
    context: &OwnedFd,
    filesystem: &Filesystem,
    target: BorrowedFd,
    was_there: bool,
    attrs: u64,
) -> Result<OwnedFd> {
    let context = context.as_fd();
    mount::fs_set(context, c"source", Some(&filesystem.source))?;
    let mut has_mode = false;
    for (key, value) in &filesystem.parameters {
        has_mode |= key.as_c_str() == c"mode";
        mount::fs_set(context, key, value.as_deref())?;
    }
    // A tmpfs over a directory of the image keeps that directory's permissions unless the options say otherwise.
    if filesystem.fstype.as_c_str() == c"tmpfs" && was_there && !has_mode {
        let mode = format!("{:o}", fstat(target)?.st_mode & 0o7777);
        let mode = CString::new(mode).map_err(|_| Errno::EINVAL)?;
        mount::fs_set(context, c"mode", Some(&mode))?;
    }
    mount::fs_mount(context, attrs)
}

/// Recursive flags and propagation, then the place. The descriptor stays that of the mount's root.
fn finish(entry: &Mount, made: OwnedFd, target: OwnedFd) -> Outcome<OwnedFd> {
    let index = entry.index;
    if let Some(attrs) = &entry.recursive {
        mount::set_attr(made.as_fd(), attrs, true).at_index(Step::MountFlags, index)?;
    }
    mount::attach(made.as_fd(), target.as_fd()).at_index(Step::Mount, index)?;
    for &(propagation, recursive) in &entry.propagation {
        let change = MountAttr { propagation, ..Default::default() };
        mount::set_attr(made.as_fd(), &change, recursive).at_index(Step::MountFlags, index)?;
    }
    Ok(made)
}

/// What the kernel has logged for a failing context, without its level letters.
fn kernel_log(context: BorrowedFd) -> String {
    let mut text = String::new();
    let mut buf = [0u8; 256];
    while let Ok(length @ 1..) = fs::read(context, &mut buf) {
        let line = String::from_utf8_lossy(&buf[..length]);
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(line.trim_end().trim_start_matches("e ").trim_start_matches("w "));
    }
    text
}

/// cgroup v2. Mounting cgroup2 in the runtime's own cgroup namespace costs a grace period and shows the same tree as a
/// copy of the host's mount, so the copy is taken there.
fn unified(entry: &Mount, own: &CStr, own_namespace: bool, root: BorrowedFd) -> Outcome<OwnedFd> {
    let index = entry.index;
    let (target, _) = path::make_dir(root, &entry.destination).at_index(Step::MountTarget, index)?;
    let made = if own_namespace {
        match cgroup_filesystem(c"cgroup2", &[], entry.attr.set) {
            // Where the tree may not be mounted again, the container's own directory shows the same.
            Err(Errno::EBUSY) => copy(own, entry.attr.set),
            other => other,
        }
    } else {
        copy(c"/sys/fs/cgroup", entry.attr.set)
    };
    finish(entry, made.at_index(Step::Mount, index)?, target)
}

fn cgroup_filesystem(fstype: &CStr, options: &[&CStr], attrs: u64) -> Result<OwnedFd> {
    let context = mount::fs_open(fstype)?;
    mount::fs_set(context.as_fd(), c"source", Some(c"cgroup"))?;
    for option in options {
        let (key, value) = match option.to_bytes().iter().position(|&b| b == b'=') {
            Some(at) => (&option.to_bytes()[..at], Some(&option.to_bytes()[at + 1..])),
            None => (option.to_bytes(), None),
        };
        let key = CString::new(key).map_err(|_| Errno::EINVAL)?;
        let value = value.map(CString::new).transpose().map_err(|_| Errno::EINVAL)?;
        mount::fs_set(context.as_fd(), &key, value.as_deref())?;
    }
    // The superblock of an existing hierarchy keeps its own flags, so read-only is a matter of the mount alone.
    mount::fs_mount(context.as_fd(), attrs)
}

fn copy(source: &CStr, attrs: u64) -> Result<OwnedFd> {
    let tree = mount::clone_tree(nix::fcntl::AT_FDCWD, source, false)?;
    let attr = MountAttr { set: attrs, propagation: libc::MS_PRIVATE, ..Default::default() };
    mount::set_attr(tree.as_fd(), &attr, false)?;
    Ok(tree)
}

/// cgroup v1: a tmpfs with one directory a hierarchy, read-only at the end if the mount is.
fn hierarchies(entry: &Mount, list: &[Hierarchy], own_namespace: bool, root: BorrowedFd) -> Outcome<OwnedFd> {
    let index = entry.index;
    let (target, _) = path::make_dir(root, &entry.destination).at_index(Step::MountTarget, index)?;
    let context = mount::fs_open(c"tmpfs").at_index(Step::Mount, index)?;
    mount::fs_set(context.as_fd(), c"source", Some(c"tmpfs")).at_index(Step::Mount, index)?;
    mount::fs_set(context.as_fd(), c"mode", Some(c"755")).at_index(Step::Mount, index)?;
    let made =
        mount::fs_mount(context.as_fd(), entry.attr.set & !attr::RDONLY).at_index(Step::Mount, index)?;
    mount::attach(made.as_fd(), target.as_fd()).at_index(Step::Mount, index)?;
    for hierarchy in list {
        let mounted = one_hierarchy(&made, hierarchy, own_namespace, entry.attr.set);
        mounted.at_index(Step::Mount, index)?;
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
    for &(propagation, recursive) in &entry.propagation {
        let change = MountAttr { propagation, ..Default::default() };
        mount::set_attr(made.as_fd(), &change, recursive).at_index(Step::MountFlags, index)?;
    }
    Ok(made)
}

fn one_hierarchy(tmpfs: &OwnedFd, hierarchy: &Hierarchy, own_namespace: bool, attrs: u64) -> Result<()> {
    mkdirat(tmpfs, hierarchy.name.as_c_str(), Mode::from_bits_truncate(0o755))?;
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let target = fs::openat(tmpfs.as_fd(), &hierarchy.name, flags, 0)?;
    let made = if own_namespace {
        let options: Vec<CString> = hierarchy
            .controllers
            .to_bytes()
            .split(|&b| b == b',')
            .filter_map(|option| CString::new(option).ok())
            .collect();
        let options: Vec<&CStr> = options.iter().map(CString::as_c_str).collect();
        cgroup_filesystem(c"cgroup", &options, attrs)
    } else {
        copy(&hierarchy.source, attrs)
    };
    match made {
        Ok(made) => mount::attach(made.as_fd(), target.as_fd()),
        // A controller that went to v2 or was switched off meanwhile has nothing to show.
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Is the handle a directory?
pub fn is_dir(fd: BorrowedFd) -> Result<bool> {
    Ok(path::file_type(fd)? == SFlag::S_IFDIR)
}
