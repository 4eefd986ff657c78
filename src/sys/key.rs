//! keyctl(2): the session keyring of a container.

use super::{Result, check};
use std::ffi::CStr;

const JOIN_SESSION_KEYRING: libc::c_long = 1;
const SETPERM: libc::c_long = 5;

/// Joins the session keyring `name`, making it if it is not there, and returns its serial number.
pub fn join_session(name: &CStr) -> Result<i32> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) }).map(|id| id as i32)
}

/// Sets the permission mask of a key.
pub fn set_permissions(id: i32, mask: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, id as libc::c_long, mask as libc::c_long) })
        .map(drop)
}
