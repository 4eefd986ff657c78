//! The kernel calls of the corpus that have no safe wrapper: its only unsafe code, apart from what it shares with the suite.
#![allow(unsafe_code)]

use nix::errno::Errno;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn text(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// Exchanges two names in one step.
pub fn exchange(a: &Path, b: &Path) -> Result<(), Errno> {
    let (a, b) = (text(a)?, text(b)?);
    // SAFETY: both paths are NUL-terminated and outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            a.as_ptr(),
            libc::AT_FDCWD,
            b.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    Errno::result(done).map(drop)
}

/// Gives this process a new session keyring of this name.
pub fn join_session_keyring(name: &str) -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let id = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    Errno::result(id).map(drop)
}
