//! Bind mounts: a copy of a mount of the runtime's namespace, with the flags that the options name.

use super::{Container, Outcome, mounts, path, source};
use crate::plan::mounts::{Bind, Mount};
use crate::sync::{At, Failure, Step};
use crate::sys::mount::{self, MountAttr, attr};
use crate::sys::{Errno, Result};
use nix::sys::stat::fstat;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Copies a mount of the runtime's namespace.
pub fn bind(child: &Container, entry: &Mount, bind: &Bind, root: BorrowedFd) -> Outcome<OwnedFd> {
    let index = entry.index;
    let tree = source::open(child, index, bind)?;
    let stat = fstat(&tree).at_index(Step::MountSource, index)?;
    let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    // Only a whole procfs may stand in for /proc: labels and settings are written through it (CVE-2019-16884).
    if entry.destination.as_c_str() == c"/proc"
        && !(path::is_procfs(tree.as_fd()).at_index(Step::MountSource, index)? && stat.st_ino == 1)
    {
        let text = "it cannot be mounted there because it is not the root of a procfs".into();
        return Err(Failure { step: Step::MountSource, index, errno: Errno::EINVAL, text });
    }
    let target = if directory {
        path::make_dir(root, &entry.destination).map(|(fd, _)| fd)
    } else {
        path::make_file(root, &entry.destination)
    }
    .at_index(Step::MountTarget, index)?;
    if entry.attr != MountAttr::default() {
        match mount::set_attr(tree.as_fd(), &entry.attr, false) {
            Err(Errno::EPERM) => keep_locked(tree.as_fd(), &entry.attr, bind.cleared),
            other => other,
        }
        .at_index(Step::MountFlags, index)?;
    }
    mounts::finish(entry, tree, target)
}

/// A mount that came from a user namespace with more rights has flags that stay (mount_namespaces(7)). They do so
/// without a word unless the options ask for them to go: the user would believe in a mount that is not there.
fn keep_locked(tree: BorrowedFd, wanted: &MountAttr, cleared: u64) -> Result<()> {
    let now = mount::attributes(tree)?;
    let access_times = attr::ATIME | attr::NODIRATIME;
    // The one flag that is never locked.
    let free = attr::NOSYMFOLLOW;
    if now & cleared & !access_times & !free != 0 {
        return Err(Errno::EPERM);
    }
    if wanted.clear & attr::ATIME != 0 && wanted.set & access_times != now & access_times {
        return Err(Errno::EPERM);
    }
    // It goes if it is not asked for.
    let kept =
        MountAttr { set: wanted.set & !access_times, clear: wanted.clear & free, ..MountAttr::default() };
    mount::set_attr(tree, &kept, false)
}
