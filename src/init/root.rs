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
    if !plan.namespaces.private(libc::CLONE_NEWNS) {
        // It is the runtime's: how its mounts propagate is not ours to change.
        return Ok(());
    }
    mount::mount(None, c"/", None, plan.isolation, None)?;
    if plan.root_propagation.is_none() {
        return Ok(());
    }
    // pivot_root refuses a new root whose parent mount is shared.
    let mut path = plan.rootfs.as_bytes();
    loop {
        let directory = CString::new(if path.is_empty() { b"/" } else { path }).map_err(|_| Errno::EINVAL)?;
        match mount::mount(None, &directory, None, cut_off(plan), None) {
            // Not a mount point: the next directory up may be.
            Err(Errno::EINVAL) if !path.is_empty() => {
                path = &path[..path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)];
            }
            other => return other,
        }
    }
}

/// What the root and the mount that holds it turn to: nothing goes out, and if the configuration says so something comes in.
pub fn cut_off(plan: &Plan) -> u64 {
    match plan.root_propagation {
        Some(flags) if flags & libc::MS_SLAVE != 0 => libc::MS_SLAVE,
        _ => libc::MS_PRIVATE,
    }
}

/// Does the old root with everything on it come off, and does nothing that is mounted there reach the host?
pub fn leaves_old_root(plan: &Plan) -> bool {
    plan.pivot && plan.root_propagation.is_none() && plan.namespaces.makes(libc::CLONE_NEWNS)
}

/// Binds the rootfs on itself, because pivot_root wants a mount point, and returns the new mount.
pub fn bind(rootfs: &CStr, propagation: u64) -> Result<OwnedFd> {
    let tree = mount::clone_tree(nix::fcntl::AT_FDCWD, rootfs, true)?;
    // A shared parent would hand the coming mounts on to its peers; pivot_root refuses a shared one, too.
    mount::set_attr(tree.as_fd(), &MountAttr { propagation, ..Default::default() }, false)?;
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
    if !plan.namespaces.private(libc::CLONE_NEWNS) {
        // Nothing to pivot in (runc does the same): such a container is for those who trust its program.
        nix::unistd::chroot(c".")?;
    } else if plan.pivot {
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
        detach_kernel_views(&plan.rootfs)?;
        mount::mount(Some(c"."), c"/", None, libc::MS_MOVE, None)?;
        nix::unistd::chroot(c".")?;
    }
    nix::unistd::chdir(c"/")?;
    if let Some(flags) = plan.root_propagation {
        mount::mount(None, c"/", None, flags, None)?;
    }
    Ok(())
}

/// `/root/readonly`: the root's own mount alone, whose other flags stay.
pub fn make_readonly(root: BorrowedFd) -> Result<()> {
    mount::set_attr(root, &MountAttr { set: attr::RDONLY, ..Default::default() }, false)
}

/// exec in a container without a mount namespace, whose root nothing else would make this process's.
pub fn enter(root: BorrowedFd) -> Result<()> {
    nix::unistd::fchdir(root)?;
    nix::unistd::chroot(c".")?;
    nix::unistd::chdir(c"/")
}

/// `--no-pivot`: the host's mounts stay below the covered root, and with a whole procfs or sysfs among them the kernel
/// lets a user namespace of the container mount one without our masks. So they go, or are covered where they are locked.
fn detach_kernel_views(rootfs: &CStr) -> Result<()> {
    let file = fs::open(c"/proc/self/mountinfo", libc::O_RDONLY, 0)?;
    let text = std::io::read_to_string(std::fs::File::from(file))
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    for path in text.lines().filter_map(whole_kernel_view) {
        let inside =
            path.strip_prefix(rootfs.to_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        if inside {
            continue;
        }
        let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
        // The detaching stays in this namespace.
        match mount::mount(None, &path, None, libc::MS_SLAVE | libc::MS_REC, None) {
            Ok(()) => {}
            // Gone with another one.
            Err(Errno::ENOENT | Errno::EINVAL) => continue,
            Err(errno) => return Err(errno),
        }
        match mount::detach(&path) {
            Err(Errno::EINVAL | Errno::EPERM) => {
                mount::mount(Some(c"tmpfs"), &path, Some(c"tmpfs"), 0, None)?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Where a line of mountinfo has a procfs or sysfs with its root.
pub fn whole_kernel_view(line: &str) -> Option<Vec<u8>> {
    let (mount, filesystem) = line.split_once(" - ")?;
    if !matches!(filesystem.split(' ').next(), Some("proc" | "sysfs")) {
        return None;
    }
    let mut words = mount.split(' ').skip(3);
    if words.next() != Some("/") {
        return None;
    }
    let mut path = Vec::new();
    let mut bytes = words.next()?.as_bytes();
    while let [first, rest @ ..] = bytes {
        // Blanks and backslashes stand as three octal digits.
        match (first, rest) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                path.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                bytes = after;
            }
            _ => {
                path.push(*first);
                bytes = rest;
            }
        }
    }
    Some(path)
}

fn own_proc() -> Result<OwnedFd> {
    let context = mount::fs_open(c"proc")?;
    mount::fs_mount(context.as_fd(), attr::NOSUID | attr::NODEV | attr::NOEXEC)
}

fn hosts_proc() -> Result<OwnedFd> {
    let proc = fs::open(c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    if super::path::is_procfs(proc.as_fd())? { Ok(proc) } else { Err(Errno::ENODEV) }
}

/// The directory of settings in a procfs, through which they stay writable when a mount covers it.
pub fn settings_of(proc: BorrowedFd) -> Result<OwnedFd> {
    fs::openat2(proc, c"sys", libc::O_PATH | libc::O_DIRECTORY, 0, BENEATH)
}

/// Writes each setting through a procfs that nobody else can mount over (CVE-2025-52881): the `directory` of the container's
/// own, opened when that was made, or that of one that is never attached, which costs a grace period more.
pub fn sysctl(settings: &[(CString, CString)], directory: Option<OwnedFd>) -> Outcome {
    if settings.is_empty() {
        return Ok(());
    }
    let directory = match directory {
        Some(directory) => Ok(directory),
        None => match own_proc() {
            // The pid namespace is one that the user namespace does not own: then the runtime's own procfs, which the
            // container has not touched, stands in. Settings are those of the writer's namespaces.
            Err(Errno::EPERM) => hosts_proc(),
            other => other,
        }
        .and_then(|proc| settings_of(proc.as_fd())),
    }
    .at(Step::Sysctl)?;
    for (index, (name, value)) in settings.iter().enumerate() {
        let file = fs::openat2(directory.as_fd(), name, libc::O_WRONLY | libc::O_NOFOLLOW, 0, BENEATH)
            .at_index(Step::Sysctl, index)?;
        fs::write_once(file.as_fd(), value.to_bytes()).at_index(Step::Sysctl, index)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_kernel_views_are_found() {
        for (line, path) in [
            ("22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw", Some("/proc")),
            (r"23 27 0:22 / /a\040b\134c rw - sysfs sysfs rw", Some(r"/a b\c")),
            ("24 27 0:22 /kernel /sys/kernel rw - sysfs sysfs rw", None),
            ("25 27 0:23 / /tmp rw - tmpfs proc rw", None),
            ("", None),
        ] {
            assert_eq!(whole_kernel_view(line), path.map(|path| path.as_bytes().to_vec()), "{line}");
        }
    }
}
