//! `mounts`: each one is made detached, given its flags and then attached to a descriptor of its destination; or, if that is all
//! and it is a filesystem of nothing, mounted there at once.

use super::{CgroupView, Container, Outcome, binds, cgroup_mounts, copy, devices, enter, path, root};
use crate::plan::Plan;
use crate::plan::mounts::{Filesystem, Kind, Mount, Parameter};
use crate::sync::{At, Failure, Step, TEXT_MAX};
use crate::sys::mount::{self, MountAttr, attr};
use crate::sys::{Errno, Result, fs};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest value that fsconfig(2) takes, bytes; mount(2) takes a page for all of them.
const VALUE_MAX: usize = 255;
/// What mount(2) takes of parameters, with a NUL at the end, bytes: a page.
const DATA_MAX: usize = 4096;
/// What the usual ones take.
const DATA_USUAL: usize = 128;

/// Mounts everything in the order of the list. Returns what turns read-only when nothing more is put into it.
pub fn mount_all(child: &mut Container, root: BorrowedFd) -> Outcome<Vec<(usize, OwnedFd)>> {
    let plan = child.plan;
    let mut readonly_last: Vec<(usize, OwnedFd)> = Vec::new();
    for &at in &plan.mount_order {
        let entry = &plan.mounts[at];
        let made = match &entry.kind {
            Kind::Bind(bind) => Some(binds::bind(child, entry, bind, root)?),
            Kind::Filesystem(filesystem) => {
                if entry.shows(plan.namespaces.made_ahead()) && child.ahead.is_some() {
                    if plan.devices_early {
                        devices::make_all(plan, root)?;
                    }
                    enter::made_ahead(child, root)?;
                }
                new_filesystem(plan, entry, filesystem, root)?
            }
            Kind::Remount(superblock) => Some(remount(entry, superblock.as_deref(), root)?),
            Kind::Cgroup { named_version_2, parameters } => {
                let own_namespace = plan.namespaces.private(libc::CLONE_NEWCGROUP);
                match &child.cgroup_view {
                    CgroupView::Hierarchies(_) if *named_version_2 => {
                        Some(cgroup_mounts::second_version(entry, parameters, root)?)
                    }
                    CgroupView::Hierarchies(list) => {
                        Some(cgroup_mounts::hierarchies(entry, list, own_namespace, root)?)
                    }
                    CgroupView::Unified { own } => {
                        cgroup_mounts::unified(plan, entry, own, own_namespace, parameters, root)?
                    }
                }
            }
        };
        if entry.readonly_last {
            readonly_last.extend(made.map(|made| (entry.index, made)));
        } else if let Some(proc) = made
            && child.settings.is_none()
            && writes_settings_through(plan, entry)
        {
            child.settings = Some(root::settings_of(proc.as_fd()).at(Step::Sysctl)?);
        }
    }
    Ok(readonly_last)
}

/// What had to stay writable for devices, the terminal and hooks.
pub fn make_readonly(list: Vec<(usize, OwnedFd)>) -> Outcome {
    for (index, made) in list {
        let readonly = MountAttr { set: attr::RDONLY, ..Default::default() };
        mount::set_attr(made.as_fd(), &readonly, false).at_index(Step::MountFlags, index)?;
    }
    Ok(())
}

/// Are there settings to be written, and is this a procfs of the container's own, whole and writable? We hold it by
/// descriptor since it was made, so nobody can have put anything else in its place.
fn writes_settings_through(plan: &Plan, entry: &Mount) -> bool {
    match &entry.kind {
        _ if plan.sysctl.is_empty() => false,
        Kind::Filesystem(fs) => fs.fstype.as_c_str() == c"proc" && fs.parameters.is_empty(),
        _ => false,
    }
}

/// Makes a new filesystem. Returns it where something more may be done with it.
fn new_filesystem(
    plan: &Plan,
    entry: &Mount,
    filesystem: &Filesystem,
    root: BorrowedFd,
) -> Outcome<Option<OwnedFd>> {
    let index = entry.index;
    let (target, was_there) = target_dir(plan, entry, filesystem, root).at_index(Step::MountTarget, index)?;
    let mode = inherited_mode(filesystem, target.as_fd(), was_there).at_index(Step::MountTarget, index)?;
    let mode = mode.map(|mode| (c"mode".into(), Some(mode)));
    let parameters = || filesystem.parameters.iter().chain(&mode);
    let (fstype, source) = (&filesystem.fstype, &filesystem.source);
    let more = filesystem.copy_up || writes_settings_through(plan, entry);
    if !more && at_once(plan, entry, fstype, source, parameters(), target.as_fd()) {
        return Ok(None);
    }
    let long = |(_, value): &Parameter| value.as_ref().is_some_and(|value| value.count_bytes() > VALUE_MAX);
    let made = if parameters().any(long) {
        by_page(filesystem, parameters(), entry.attr.set, target.as_fd()).at_index(Step::Mount, index)
    } else {
        make(index, fstype, source, parameters(), entry.attr.set)
    };
    let made = match made {
        Err(failure) if failure.errno == Errno::EPERM => match hosts_own(plan, entry, filesystem) {
            Some(made) => made.at_index(Step::Mount, index)?,
            None => return Err(failure),
        },
        other => other?,
    };
    if filesystem.copy_up && was_there {
        copy::directory(target.as_fd(), made.as_fd()).at_index(Step::MountSource, index)?;
    }
    finish(entry, made, target).map(Some)
}

/// A new filesystem with which nothing more is to be done, by one mount(2) on its directory, where the others take six to ten
/// calls (8 us each filesystem). The directory becomes the working directory: nothing then may name a file from there, see
/// [`Plan::mounts_name_no_file`]. False: nothing was mounted, and the other calls do it, or have the words for why not.
pub fn at_once<'p>(
    plan: &Plan,
    entry: &Mount,
    fstype: &CStr,
    source: &CStr,
    parameters: impl Iterator<Item = &'p Parameter>,
    target: BorrowedFd,
) -> bool {
    let plain = entry.recursive.is_none() && entry.propagation.is_empty() && !entry.readonly_last;
    if !plan.mounts_name_no_file || !plain {
        return false;
    }
    let Some((flags, data)) = flags_and_data(parameters, entry.attr.set) else { return false };
    nix::unistd::fchdir(target).is_ok()
        && mount::mount(Some(source), c".", Some(fstype), flags, Some(&data)).is_ok()
}

/// Parameters, of those that [`crate::plan::mounts::name_no_file`] knows, and attributes as mount(2) takes them; none where they
/// mean something else there.
fn flags_and_data<'p>(
    parameters: impl Iterator<Item = &'p Parameter>,
    attrs: u64,
) -> Option<(libc::c_ulong, CString)> {
    let mut flags = mount::flags_for_mount(attrs)?;
    let mut data = Vec::with_capacity(DATA_USUAL);
    for (key, value) in parameters {
        match (key.to_bytes(), value.as_ref().map(|value| value.to_bytes())) {
            (b"ro", None) => flags |= libc::MS_RDONLY,
            (_, Some(value)) if value.is_empty() || value.contains(&b',') => return None,
            (key, value) => append(&mut data, key, value),
        }
    }
    if data.len() < DATA_MAX { CString::new(data).ok().map(|data| (flags, data)) } else { None }
}

/// Adds a parameter to what mount(2) takes.
fn append(data: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    if !data.is_empty() {
        data.push(b',');
    }
    data.extend_from_slice(key);
    if let Some(value) = value {
        data.push(b'=');
        data.extend_from_slice(value);
    }
}

/// A tmpfs over a directory of the image keeps that directory's permissions unless the options say otherwise.
fn inherited_mode(filesystem: &Filesystem, target: BorrowedFd, was_there: bool) -> Result<Option<CString>> {
    let named = || filesystem.parameters.iter().any(|(key, _)| key.as_c_str() == c"mode");
    if !was_there || filesystem.fstype.as_c_str() != c"tmpfs" || named() {
        return Ok(None);
    }
    let mode = format!("{:o}", fstat(target)?.st_mode & 0o7777);
    CString::new(mode).map(Some).map_err(|_| Errno::EINVAL)
}

/// A new filesystem as a detached mount; what the kernel has logged is part of the failure.
pub fn make<'p>(
    index: usize,
    fstype: &CStr,
    source: &CStr,
    parameters: impl Iterator<Item = &'p Parameter>,
    attrs: u64,
) -> Outcome<OwnedFd> {
    let context = mount::fs_open(fstype).at_index(Step::Mount, index)?;
    let context = context.as_fd();
    let configure = || {
        mount::fs_set(context, c"source", Some(source))?;
        for (key, value) in parameters {
            mount::fs_set(context, key, value.as_deref())?;
        }
        mount::fs_mount(context, attrs)
    };
    configure().map_err(|errno| logged(context, index, errno))
}

/// The same by mount(2), for values that are too long for fsconfig(2) (the directories of an overlay). It mounts on a
/// directory in a tmpfs that nobody else can reach, where no name can be swapped for another, and takes the mount off
/// again. Working directory: the one before again.
fn by_page<'p>(
    filesystem: &Filesystem,
    parameters: impl Iterator<Item = &'p Parameter>,
    attrs: u64,
    target: BorrowedFd,
) -> Result<OwnedFd> {
    let mut data = Vec::new();
    for (key, value) in parameters {
        append(&mut data, key.to_bytes(), value.as_ref().map(|value| value.to_bytes()));
    }
    let data = CString::new(data).map_err(|_| Errno::EINVAL)?;
    let directory = libc::O_PATH | libc::O_DIRECTORY;
    let here = fs::open(c".", directory, 0)?;
    let context = mount::fs_open(c"tmpfs")?;
    let scratch = mount::fs_mount(context.as_fd(), 0)?;
    mount::attach(scratch.as_fd(), target)?;
    mkdirat(&scratch, c"mount", Mode::from_bits_truncate(0o700))?;
    nix::unistd::fchdir(fs::openat(scratch.as_fd(), c"mount", directory, 0)?)?;
    let made = mount::mount(Some(&filesystem.source), c".", Some(&filesystem.fstype), 0, Some(&data));
    let made = made.and_then(|()| {
        let made = fs::openat(scratch.as_fd(), c"mount", directory, 0)?;
        let tree = mount::clone_tree(made.as_fd(), c"", false)?;
        mount::set_attr(
            tree.as_fd(),
            &MountAttr { set: attrs, clear: attr::ATIME, ..Default::default() },
            false,
        )?;
        Ok(tree)
    });
    nix::unistd::fchdir(&scratch)?;
    mount::detach(c".")?;
    nix::unistd::fchdir(here)?;
    made
}

/// What a user namespace may not make anew it may still be shown, if the container shares the namespace that it is a
/// view of: then the host's own mount shows the same.
fn hosts_own(plan: &Plan, entry: &Mount, filesystem: &Filesystem) -> Option<Result<OwnedFd>> {
    let (path, namespace) = match filesystem.fstype.to_bytes() {
        b"proc" => (c"/proc", libc::CLONE_NEWPID),
        b"sysfs" => (c"/sys", libc::CLONE_NEWNET),
        b"mqueue" => (c"/dev/mqueue", libc::CLONE_NEWIPC),
        _ => return None,
    };
    if plan.namespaces.private(namespace) {
        return None;
    }
    let readonly = filesystem.parameters.iter().any(|(key, _)| key.as_c_str() == c"ro");
    // As a whole: what is mounted below hides something, and the kernel would not part with it.
    Some(mount::clone_tree(nix::fcntl::AT_FDCWD, path, true).and_then(|tree| {
        let set =
            entry.attr.set & !(attr::ATIME | attr::NODIRATIME) | if readonly { attr::RDONLY } else { 0 };
        mount::set_attr(tree.as_fd(), &MountAttr { set, ..Default::default() }, true)?;
        Ok(tree)
    }))
}

/// A mount that is there gets the flags that the options name, and its filesystem the parameters.
fn remount(entry: &Mount, superblock: Option<&[Parameter]>, root: BorrowedFd) -> Outcome<OwnedFd> {
    let index = entry.index;
    let target = path::open_target(root, &entry.destination, 0).at_index(Step::MountTarget, index)?;
    if let Some(parameters) = superblock {
        let context = mount::fs_pick(target.as_fd()).at_index(Step::Mount, index)?;
        let context = context.as_fd();
        let configure = || {
            for (key, value) in parameters {
                mount::fs_set(context, key, value.as_deref())?;
            }
            mount::fs_reconfigure(context)
        };
        configure().map_err(|errno| logged(context, index, errno))?;
    }
    if entry.attr != MountAttr::default() {
        mount::set_attr(target.as_fd(), &entry.attr, false).at_index(Step::MountFlags, index)?;
    }
    if let Some(attrs) = &entry.recursive {
        mount::set_attr(target.as_fd(), attrs, true).at_index(Step::MountFlags, index)?;
    }
    propagate(entry, target.as_fd())?;
    Ok(target)
}

/// proc and sysfs go only on plain directories: through a link the image would choose what later writes to /proc reach
/// (CVE-2019-19921, CVE-2023-27561).
fn target_dir(
    plan: &Plan,
    entry: &Mount,
    filesystem: &Filesystem,
    root: BorrowedFd,
) -> Result<(OwnedFd, bool)> {
    if !matches!(filesystem.fstype.to_bytes(), b"proc" | b"sysfs") {
        // Most likely in a new filesystem, which is empty.
        let in_dev = plan.devices.is_some() && entry.destination.to_bytes().starts_with(b"/dev/");
        return if in_dev {
            path::make_new_dir(root, &entry.destination)
        } else {
            path::make_dir(root, &entry.destination)
        };
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

/// Recursive flags, the place, propagation. The descriptor stays that of the mount's root.
pub fn finish(entry: &Mount, made: OwnedFd, target: OwnedFd) -> Outcome<OwnedFd> {
    let index = entry.index;
    if let Some(attrs) = &entry.recursive {
        mount::set_attr(made.as_fd(), attrs, true).at_index(Step::MountFlags, index)?;
    }
    match mount::attach(made.as_fd(), target.as_fd()) {
        Ok(()) => {}
        // The kernel's word for a file on a directory; callers match the other one and hint at it.
        Err(Errno::EINVAL) if is_dir(made.as_fd()) != is_dir(target.as_fd()) => {
            return Err(Errno::ENOTDIR).at_index(Step::Mount, index);
        }
        Err(errno) => return Err(errno).at_index(Step::Mount, index),
    }
    propagate(entry, made.as_fd())?;
    Ok(made)
}

/// The changes of propagation that the options name, in their order.
pub fn propagate(entry: &Mount, made: BorrowedFd) -> Outcome {
    for &(propagation, recursive) in &entry.propagation {
        let change = MountAttr { propagation, ..Default::default() };
        mount::set_attr(made, &change, recursive).at_index(Step::MountFlags, entry.index)?;
    }
    Ok(())
}

/// A failure with what the kernel has logged for the context, without its level letters.
pub fn logged(context: BorrowedFd, index: usize, errno: Errno) -> Failure {
    let mut text = String::new();
    let mut buf = [0u8; 256];
    while text.len() < TEXT_MAX
        && let Ok(length @ 1..) = fs::read(context, &mut buf)
    {
        let line = String::from_utf8_lossy(&buf[..length]);
        let line = line.trim_end();
        let line = ["e ", "w ", "i "].iter().find_map(|level| line.strip_prefix(level)).unwrap_or(line);
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(line);
    }
    Failure { step: Step::Mount, index, errno, text }
}

/// Is the handle a directory?
pub fn is_dir(fd: BorrowedFd) -> Result<bool> {
    Ok(path::file_type(fd)? == SFlag::S_IFDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(parameters: &[(&CStr, Option<&CStr>)], attrs: u64) -> Option<(libc::c_ulong, CString)> {
        let owned: Vec<Parameter> =
            parameters.iter().map(|&(key, value)| (key.into(), value.map(CString::from))).collect();
        flags_and_data(owned.iter(), attrs)
    }

    #[test]
    fn what_one_call_takes() {
        let size = (c"size", Some(c"64k"));
        assert_eq!(taken(&[], 0), Some((0, c"".into())));
        assert_eq!(
            taken(&[(c"ro", None), (c"newinstance", None), size], attr::NOSUID | attr::STRICTATIME),
            Some((libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_STRICTATIME, c"newinstance,size=64k".into()))
        );
        // What would be taken apart, cut off, or for something else.
        assert_eq!(taken(&[(c"context", Some(c"a:s0:c1,c2"))], 0), None);
        assert_eq!(taken(&[(c"size", Some(c""))], 0), None);
        assert_eq!(taken(&[size], attr::IDMAP), None);
        let long = CString::new(vec![b'x'; DATA_MAX]).unwrap();
        assert_eq!(taken(&[(&long, None)], 0), None);
    }
}
