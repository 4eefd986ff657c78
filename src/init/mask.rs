//! `linux.maskedPaths` and `linux.readonlyPaths`. A path that does not exist is skipped (spec); any other failure is
//! one, because a mask that is not there is a hole (CVE-2025-31133).

use super::{Outcome, mounts, path};
use crate::sync::{At, Step};
use crate::sys::mount::{self, MountAttr, attr};
use crate::sys::{Errno, Result, fs};
use nix::sys::stat::fstat;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Covers files with /dev/null and directories with an empty read-only tmpfs, one instance for all of them: a
/// superblock a mask contends on the kernel's shrinker lock at scale.
pub fn mask(paths: &[CString], root: BorrowedFd) -> Outcome {
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for (index, path) in paths.iter().enumerate() {
        let Some(target) = existing(root, path).at_index(Step::Mask, index)? else { continue };
        if mounts::is_dir(target.as_fd()).at_index(Step::Mask, index)? {
            cover_directory(&mut empty, target.as_fd())
        } else {
            cover_file(&mut null, root, target.as_fd())
        }
        .at_index(Step::Mask, index)?;
    }
    Ok(())
}

/// The first mask is the new tmpfs itself, the others are copies of it: a mount that is never attached would cost a
/// grace period when its descriptor is closed.
fn cover_directory(first: &mut Option<OwnedFd>, target: BorrowedFd) -> Result<()> {
    match first {
        Some(first) => mount::attach(mount::clone_tree(first.as_fd(), c"", false)?.as_fd(), target),
        None => mount::attach(first.insert(empty_directory()?).as_fd(), target),
    }
}

fn cover_file(null: &mut Option<OwnedFd>, root: BorrowedFd, target: BorrowedFd) -> Result<()> {
    let source = match null {
        Some(null) => null,
        None => null.insert(null_device(root)?),
    };
    mount::attach(mount::clone_tree(source.as_fd(), c"", false)?.as_fd(), target)
}

/// Binds each path on itself, read-only; its other flags stay.
pub fn make_readonly(paths: &[CString], root: BorrowedFd) -> Outcome {
    for (index, path) in paths.iter().enumerate() {
        let Some(target) = existing(root, path).at_index(Step::ReadonlyPath, index)? else { continue };
        let tree = mount::clone_tree(target.as_fd(), c"", true).at_index(Step::ReadonlyPath, index)?;
        let readonly = MountAttr { set: attr::RDONLY, ..Default::default() };
        mount::set_attr(tree.as_fd(), &readonly, false).at_index(Step::ReadonlyPath, index)?;
        mount::attach(tree.as_fd(), target.as_fd()).at_index(Step::ReadonlyPath, index)?;
    }
    Ok(())
}

fn existing(root: BorrowedFd, path: &std::ffi::CStr) -> Result<Option<OwnedFd>> {
    match path::open(root, path) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn empty_directory() -> Result<OwnedFd> {
    let context = mount::fs_open(c"tmpfs")?;
    mount::fs_set(context.as_fd(), c"source", Some(c"tmpfs"))?;
    mount::fs_set(context.as_fd(), c"ro", None)?;
    for (key, value) in [(c"nr_blocks", c"1"), (c"nr_inodes", c"2")] {
        mount::fs_set(context.as_fd(), key, Some(value))?;
    }
    mount::fs_mount(context.as_fd(), attr::RDONLY)
}

/// The container's /dev/null, verified by what it is and not by its name. Where the container has none, the host's.
fn null_device(root: BorrowedFd) -> Result<OwnedFd> {
    let handle = match fs::openat2(root, c"/dev/null", libc::O_PATH | libc::O_NOFOLLOW, 0, fs::IN_ROOT) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => fs::open(c"/dev/null", libc::O_PATH | libc::O_NOFOLLOW, 0)?,
        other => other?,
    };
    let stat = fstat(&handle)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != fs::makedev(1, 3) {
        return Err(Errno::ENODEV);
    }
    Ok(handle)
}
