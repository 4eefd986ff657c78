//! The mount calls of the attacker, which no crate wraps.
#![allow(unsafe_code)]

use nix::errno::Errno;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Takes read-only off the mount behind a descriptor.
pub fn make_writable(fd: &OwnedFd) -> Result<(), Errno> {
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let attr: [u64; 4] = [0, MOUNT_ATTR_RDONLY, 0, 0];
    // SAFETY: `attr` is the 32 bytes of a struct mount_attr and outlives the call; the path is a static string.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attr.as_ptr(),
            size_of_val(&attr),
        )
    };
    Errno::result(done).map(drop)
}

/// A detached copy of the mount behind a descriptor.
pub fn copy_mount(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: the path is a static string.
    let new = unsafe { libc::syscall(libc::SYS_open_tree, fd.as_raw_fd(), c"".as_ptr(), flags) };
    let new = Errno::result(new)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(new as RawFd) })
}
