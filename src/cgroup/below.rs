//! What lies below a container's cgroup, where a container that may write there makes directories of any name and depth.
//!
//! Their paths can be longer than the kernel takes, and a descriptor or a stack frame for each level more than a process
//! has. So a walk holds one directory open, with names as bytes, and goes back up by `..`: a cgroup never moves to another
//! parent.

use super::file;
use crate::sys::words;
use anyhow::{Result, anyhow};
use nix::errno::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

/// All processes of the cgroup `dir` and of those below it, in the caller's pid namespace. What could not be looked at is
/// the error beside those that were found.
pub fn procs(dir: &str) -> (Vec<i32>, Result<()>) {
    let mut pids = Vec::new();
    let all = each(dir, |one| own_procs(one, &mut pids));
    (pids, all.map_err(|errno| anyhow!("list the processes of cgroup {dir}: {}", words(errno))))
}

/// Calls `act` for the cgroup `dir` and for each below it; one that is gone has none below. An error keeps it from what is
/// below, not from the others; the first is returned.
pub fn each(dir: &str, mut act: impl FnMut(BorrowedFd) -> file::Result<()>) -> file::Result<()> {
    let mut here = match file::open_listed(file::ABSOLUTE, dir) {
        Ok(top) => top,
        Err(errno) => return if is_gone(errno) { Ok(()) } else { Err(errno) },
    };
    let mut failure = None;
    // Of each directory down to `here`, the names of those in it that are still to be seen.
    let mut left: Vec<Vec<CString>> = Vec::new();
    loop {
        let names = act(here.as_fd()).and_then(|()| file::child_dirs(here.as_fd()));
        left.push(unless_gone(names, &mut failure));
        here = loop {
            let Some(names) = left.last_mut() else { return failure.map_or(Ok(()), Err) };
            if let Some(name) = names.pop() {
                match file::open_listed(here.as_fd(), name.as_c_str()) {
                    Ok(below) => break below,
                    Err(errno) => unless_gone(Err(errno), &mut failure),
                }
            } else {
                left.pop();
                if !left.is_empty() {
                    here = file::open_dir(here.as_fd(), "..")?;
                }
            }
        };
    }
}

fn own_procs(dir: BorrowedFd, pids: &mut Vec<i32>) -> file::Result<()> {
    let text = match file::read_all(dir, "cgroup.procs") {
        // A threaded cgroup has threads alone.
        Err(Errno::EOPNOTSUPP) => file::read_all(dir, "cgroup.threads"),
        other => other,
    }?;
    // 0: a process that the caller's pid namespace does not show.
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&pid| pid != 0));
    Ok(())
}

/// Removes what can be removed of the directories below `dir`, each after those in it. Busy ones stay without an error.
pub fn remove(dir: &str) -> file::Result<()> {
    let mut here = match file::open_listed(file::ABSOLUTE, dir) {
        Ok(top) => top,
        Err(errno) => return if is_gone(errno) { Ok(()) } else { Err(errno) },
    };
    let mut failure = None;
    let mut names = unless_gone(file::child_dirs(here.as_fd()), &mut failure);
    // The name of each directory from below the top to `here`, and those beside it that are still to be seen.
    let mut above: Vec<(CString, Vec<CString>)> = Vec::new();
    loop {
        if let Some(name) = names.pop() {
            match remove_one(here.as_fd(), &name) {
                Ok(true) => {}
                // Has processes, or directories in it.
                Ok(false) => match file::open_listed(here.as_fd(), name.as_c_str()) {
                    Ok(below) => {
                        let inner = unless_gone(file::child_dirs(below.as_fd()), &mut failure);
                        if !inner.is_empty() {
                            here = below;
                            above.push((name, std::mem::replace(&mut names, inner)));
                        }
                    }
                    Err(errno) => unless_gone(Err(errno), &mut failure),
                },
                Err(errno) => {
                    failure.get_or_insert(errno);
                }
            }
        } else if let Some((name, beside)) = above.pop() {
            here = file::open_dir(here.as_fd(), "..")?;
            names = beside;
            if let Err(errno) = remove_one(here.as_fd(), &name) {
                failure.get_or_insert(errno);
            }
        } else {
            return failure.map_or(Ok(()), Err);
        }
    }
}

/// False: it is busy.
fn remove_one(dir: BorrowedFd, name: &CStr) -> file::Result<bool> {
    match file::remove_child(dir, name) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Gone before or while it was looked at: nothing is in it.
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENODEV)
}

/// Keeps the first error that tells of more than that.
fn unless_gone<T: Default>(result: file::Result<T>, failure: &mut Option<Errno>) -> T {
    result.unwrap_or_else(|errno| {
        if !is_gone(errno) {
            failure.get_or_insert(errno);
        }
        T::default()
    })
}
