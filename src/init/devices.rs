//! Device nodes and links in the container's `/dev`.
//!
//! `/dev` may be the image's own directory, so nothing found there is trusted: a node that exists must be the one
//! asked for, and ownership is set through a verified handle (CVE-2026-41579, CVE-2026-47766).

use super::{Outcome, path};
use crate::plan::Plan;
use crate::plan::devices::{LINKS, Node};
use crate::sync::{At, Step};
use crate::sys::{Errno, Result, fs, mount};
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, fstat, mknodat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

pub fn make_all(plan: &Plan, root: BorrowedFd) -> Outcome {
    let Some(devices) = &plan.devices else { return Ok(()) };
    let (dev, _) = path::make_dir(root, c"/dev").at(Step::Device)?;
    for node in &devices.nodes {
        let index = node.index.map_or(0, |index| index + 1);
        match &node.name {
            Some(name) => make(dev.as_fd(), name, node),
            None => path::make_parent(root, &node.path)
                .and_then(|(parent, name)| make(parent.as_fd(), &name, node)),
        }
        .at_index(Step::Device, index)?;
    }
    for (name, target) in LINKS {
        link(dev.as_fd(), name, target, false).at(Step::Device)?;
    }
    // A core link only where the host has what it points to.
    if fs::open(c"/proc/kcore", libc::O_PATH, 0).is_ok() {
        link(dev.as_fd(), c"core", c"/proc/kcore", false).at(Step::Device)?;
    }
    // The container's terminals come from its own devpts, whatever the image holds here.
    link(dev.as_fd(), c"ptmx", c"pts/ptmx", true).at(Step::Device)
}

fn make(dir: BorrowedFd, name: &CStr, node: &Node) -> Result<()> {
    let kind = SFlag::from_bits_truncate(node.mode & libc::S_IFMT);
    let permissions = Mode::from_bits_truncate(node.mode & 0o7777);
    let device = fs::makedev(node.major, node.minor);
    // The umask is 0 here, so the mode is exact.
    let made = match mknodat(dir, name, kind, permissions, device) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(Errno::EPERM) if kind != SFlag::S_IFIFO => return bind(dir, name, node),
        Err(errno) => return Err(errno),
    };
    // The common case ends here: a fresh node of root's.
    if made && node.uid == 0 && node.gid == 0 {
        return Ok(());
    }
    let handle = fs::openat(dir, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    let stat = fstat(&handle)?;
    let same_device = kind == SFlag::S_IFIFO || stat.st_rdev == device;
    if stat.st_mode & libc::S_IFMT != kind.bits() || !same_device {
        return Err(Errno::EEXIST);
    }
    if stat.st_uid != node.uid || stat.st_gid != node.gid {
        match fs::fchown_path(handle.as_fd(), node.uid, node.gid) {
            // The host's node, bound in a user namespace that does not map its owner: it stays the host's.
            Err(Errno::EPERM) if !made => return Ok(()),
            other => other?,
        }
    }
    if !made && stat.st_mode & 0o7777 != node.mode & 0o7777 {
        fs::fchmod_path(handle.as_fd(), node.mode & 0o7777)?;
    }
    Ok(())
}

/// In a user namespace there is no mknod(2) of a device, and none made on its filesystems could be opened: the host's
/// node of the same path stands in, if it is that device. Its owner and mode are the host's.
fn bind(dir: BorrowedFd, name: &CStr, node: &Node) -> Result<()> {
    let tree = mount::clone_tree(nix::fcntl::AT_FDCWD, &node.path, false)?;
    let stat = fstat(&tree)?;
    if stat.st_mode & libc::S_IFMT != node.mode & libc::S_IFMT
        || stat.st_rdev != fs::makedev(node.major, node.minor)
    {
        return Err(Errno::ENODEV);
    }
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
    match fs::openat(dir, name, flags, 0o666) {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let target = fs::openat(dir, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    if matches!(path::file_type(target.as_fd())?, SFlag::S_IFLNK | SFlag::S_IFDIR) {
        return Err(Errno::EEXIST);
    }
    mount::attach(tree.as_fd(), target.as_fd())
}

fn link(dir: BorrowedFd, name: &CStr, target: &CStr, replace: bool) -> Result<()> {
    match symlinkat(target, dir, name) {
        Err(Errno::EEXIST) if replace => {
            let there = nix::sys::stat::fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if there.st_mode & libc::S_IFMT == libc::S_IFDIR {
                return Err(Errno::EISDIR);
            }
            unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?;
            symlinkat(target, dir, name)
        }
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}
