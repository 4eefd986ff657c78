//! Network interfaces by ioctl; what needs more than a flag goes through rtnetlink (`netlink.rs`).

use super::{Result, raw};
use std::os::fd::RawFd;

/// Switches the loopback interface of this process's network namespace on. Uses neither errno nor the heap.
pub fn loopback_up() -> Result<()> {
    // A local socket, because a kernel may have no IPv4.
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is passed.
    let socket = unsafe { raw::call(libc::SYS_socket, [libc::AF_UNIX.into(), kind.into(), 0, 0, 0]) }?;
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as _;
    request.ifr_name[1] = b'o' as _;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as _;
    let (flags, at) = (libc::SIOCSIFFLAGS as libc::c_long, &raw const request as libc::c_long);
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives across the call.
    let switched = unsafe { raw::call(libc::SYS_ioctl, [socket, flags, at, 0, 0]) };
    raw::close(socket as RawFd);
    switched.map(drop)
}
