//! The root itself: cut off from the host, made a mount point, pivoted to, read-only; settings in /proc/sys.

use super::Outcome;
use crate::plan::Plan;
use crate::sync::{At, Step};
use crate::sys::fs::BENEATH;
use crate::sys::mount::{self, MountAttr, attr};
use crate::sys::{Errno, Result, fs};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// No mount made from here on may reach the host.
pub fn isolate(plan: &Plan) -> Result<()> {
    mount::mount(None, c"/", None, plan.isolation, None)?;
    if plan.root_propagation.is_none() {
        return Ok(());
    }
    // pivot_root refuses a new root whose parent mount is shared: the one that holds the rootfs turns private.
    let mut path = plan.rootfs.as_bytes();
    loop {
        let directory = CString::new(if path.is_empty() { b"/" } else { path }).map_err(|_| Errno::EINVAL)?;
        match mount::mount(None, &directory, None, libc::MS_PRIVATE, None) {
            // Not a mount point: the next directory up may be.
            Err(Errno::EINVAL) if !path.is_empty() => {
                path = &path[..path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)];
            }
            other => return other,
        }
    }
}

/// Binds the rootfs on itself, because pivot_root wants a mount point, and returns the new mount.
pub fn bind(rootfs: &CStr) -> Result<OwnedFd> {
    let tree = mount::clone_tree(nix::fcntl::AT_FDCWD, rootfs, true)?;
    // A shared parent would hand the coming mounts on to its peers; pivot_root refuses a shared one, too.
    mount::set_attr(tree.as_fd(), &MountAttr { propagation: libc::MS_PRIVATE, ..Default::default() }, false)?;
    let target = fs::open(rootfs, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let attached = mount::attach(tree.as_fd(), target.as_fd());
    match attached {
        Ok(()) => Ok(tree),
        Err(errno) => Err(errno),
    }
}

/// Makes `root` the root directory and lets go of the old one: never by chroot alone, which can be left again.
pub fn pivot(plan: &Plan, root: BorrowedFd) -> Result<()> {
    nix::unistd::fchdir(root)?;
    if plan.pivot {
        match plan.root_propagation {
            None => {
                mount::pivot_to_cwd()?;
                mount::detach(c".")?;
            }
            Some(_) => {
                // The old root may be shared: keep its unmounting from the host. Not by the name ".", which is the
                // new root's directory below it.
                let old = fs::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
                mount::pivot_to_cwd()?;
                nix::unistd::fchdir(&old)?;
                mount::mount(None, c".", None, libc::MS_SLAVE | libc::MS_REC, None)?;
                mount::detach(c".")?;
            }
        }
    } else {
        // On an initramfs pivot_root is impossible: move the root mount over the old one. What hides the full procfs
        // and sysfs there must not come off again, so those are detached first.
        detach_kernel_views(root)?;
        mount::mount(Some(c"."), c"/", None, libc::MS_MOVE, None)?;
        nix::unistd::chroot(c".")?;
    }
    nix::unistd::chdir(c"/")?;
    if plan.root_readonly {
        set_root_readonly()?;
    }
    if let Some(flags) = plan.root_propagation {
        mount::mount(None, c"/", None, flags, None)?;
    }
    Ok(())
}

/// `--no-pivot`: the host's proc and sys mounts stay reachable below the covered root; take them off this namespace.
fn detach_kernel_views(root: BorrowedFd) -> Result<()> {
    let own = nix::sys::stat::fstat(root)?.st_dev;
    for path in [c"/proc", c"/sys"] {
        if nix::sys::stat::stat(path).is_ok_and(|stat| stat.st_dev != own) {
            match mount::detach(path) {
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

fn set_root_readonly() -> Result<()> {
    let root = fs::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    mount::set_attr(root.as_fd(), &MountAttr { set: attr::RDONLY, ..Default::default() }, false)
}

/// Writes each setting through a procfs that nobody else can mount over (CVE-2025-52881): the container's own by the
/// descriptor that made it, or one that is never attached, which costs a grace period more.
pub fn sysctl(settings: &[(CString, CString)], proc: Option<OwnedFd>) -> Outcome {
    if settings.is_empty() {
        return Ok(());
    }
    let proc = match proc {
        Some(proc) => proc,
        None => {
            let context = mount::fs_open(c"proc").at(Step::Sysctl)?;
            mount::fs_mount(context.as_fd(), attr::NOSUID | attr::NODEV | attr::NOEXEC).at(Step::Sysctl)?
        }
    };
    let sys =
        fs::openat2(proc.as_fd(), c"sys", libc::O_PATH | libc::O_DIRECTORY, 0, BENEATH).at(Step::Sysctl)?;
    for (index, (name, value)) in settings.iter().enumerate() {
        let file = fs::openat2(sys.as_fd(), name, libc::O_WRONLY | libc::O_NOFOLLOW, 0, BENEATH)
            .at_index(Step::Sysctl, index)?;
        fs::write_once(file.as_fd(), value.to_bytes()).at_index(Step::Sysctl, index)?;
    }
    Ok(())
}
