//! seccomp(2): install a filter.

use super::{Result, check};
use seccompiler::sock_filter;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

const SET_MODE_FILTER: libc::c_long = 1;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` (Linux 5.0): the call returns a notification descriptor.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;

#[repr(C)]
struct SockFprog {
    len: libc::c_ushort,
    filter: *const sock_filter,
}

/// Installs `program` for the calling thread. Needs no_new_privs or `CAP_SYS_ADMIN`; `EINVAL` for a program of no or
/// more than 4096 instructions. With [`FLAG_NEW_LISTENER`] the notification descriptor (close-on-exec) is returned.
pub fn install(program: &[sock_filter], flags: u32) -> Result<Option<OwnedFd>> {
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| nix::errno::Errno::EINVAL)?;
    let prog = SockFprog { len, filter: program.as_ptr() };
    // SAFETY: `prog` points to `len` instructions that live across the call; the kernel copies them.
    let ret = check(unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags as libc::c_ulong, &raw const prog)
    })?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER the return value is a new descriptor that belongs to us alone.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(ret as RawFd) }))
}

/// Has `command` install `program` in its child, as the last thing before its execve; flags without
/// [`FLAG_NEW_LISTENER`]. Nothing of the caller's own changes.
pub fn install_before_exec(command: &mut std::process::Command, program: &[sock_filter], flags: u32) {
    use std::os::unix::process::CommandExt;
    let program = program.to_vec();
    let act = move || Ok(install(&program, flags).map(drop)?);
    // SAFETY: runs in the child between fork and execve, where it makes one system call and allocates nothing.
    unsafe { command.pre_exec(act) };
}
