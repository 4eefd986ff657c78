//! `linux.maskedPaths` and `linux.readonlyPaths`. A path that does not exist is skipped (spec); any other failure is
//! one, because a mask that is not there is a hole (CVE-2025-31133).

use super::{Outcome, mounts, path};
use crate::plan::Plan;
use crate::sync::{At, Step};
use crate::sys::mount::{self, MountAttr, attr};
use crate::sys::{Errno, Result, fs};
use nix::sys::stat::fstat;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What masks are made of, once there is one, and what was covered early.
#[derive(Default)]
pub struct Covers {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
    /// For each masked path, then for each read-only one; empty before the early ones.
    done: Vec<bool>,
}

/// Covers, among the masked and the read-only paths, what stands directly in procfs. A link waits: it may lead to what is not
/// mounted yet.
pub fn apply_early(plan: &Plan, root: BorrowedFd, covers: &mut Covers) -> Outcome {
    for (path, step, index) in all(plan) {
        let done = plan.covers_early(path)
            && match fs::openat2(root, path, libc::O_PATH, 0, fs::IN_ROOT | libc::RESOLVE_NO_SYMLINKS) {
                Err(Errno::ELOOP) => false,
                target => cover(target, step, root, covers).at_index(step, index).map(|()| true)?,
            };
        covers.done.push(done);
    }
    Ok(())
}

/// Covers all that was not covered early.
pub fn apply(plan: &Plan, root: BorrowedFd, covers: &mut Covers) -> Outcome {
    for (at, (path, step, index)) in all(plan).enumerate() {
        if covers.done.get(at) != Some(&true) {
            cover(path::open(root, path), step, root, covers).at_index(step, index)?;
        }
    }
    Ok(())
}

/// Masked paths, then read-only ones, with what an error is about.
fn all(plan: &Plan) -> impl Iterator<Item = (&CStr, Step, usize)> {
    let masked = plan.masked_paths.iter().enumerate();
    let readonly = plan.readonly_paths.iter().enumerate();
    masked
        .map(|(index, path)| (path.as_c_str(), Step::Mask, index))
        .chain(readonly.map(|(index, path)| (path.as_c_str(), Step::ReadonlyPath, index)))
}

fn cover(target: Result<OwnedFd>, step: Step, root: BorrowedFd, covers: &mut Covers) -> Result<()> {
    let target = match target {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        target => target?,
    };
    match step {
        Step::ReadonlyPath => make_readonly(target.as_fd()),
        _ => mask(target.as_fd(), root, covers),
    }
}

/// Covers a file with /dev/null and a directory with an empty read-only tmpfs, one instance for all of them: a
/// superblock a mask contends on the kernel's shrinker lock at scale.
fn mask(target: BorrowedFd, root: BorrowedFd, covers: &mut Covers) -> Result<()> {
    if mounts::is_dir(target)? {
        cover_directory(&mut covers.empty, target)
    } else {
        cover_file(&mut covers.null, root, target)
    }
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

/// Binds the path on itself, read-only; its other flags stay.
fn make_readonly(target: BorrowedFd) -> Result<()> {
    let tree = mount::clone_tree(target, c"", true)?;
    mount::set_attr(tree.as_fd(), &MountAttr { set: attr::RDONLY, ..Default::default() }, false)?;
    mount::attach(tree.as_fd(), target)
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
