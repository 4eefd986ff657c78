//! Terminal requests.

use super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Unlocks the peer of a pseudoterminal master.
pub fn unlock(master: BorrowedFd) -> Result<()> {
    let zero: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const zero) } as libc::c_long)
        .map(drop)
}

/// Opens the peer of a master without any path (Linux 4.13): `/dev/pts/N` may be anything an image put there.
pub fn open_peer(master: BorrowedFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor.
    let fd =
        check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) } as libc::c_long)?;
    // SAFETY: the kernel has just returned it to this process alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The number of the pseudoterminal: its peer is `/dev/pts/N`.
pub fn number(master: BorrowedFd) -> Result<u32> {
    let mut n: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN as _, &raw mut n) } as libc::c_long)?;
    Ok(n)
}

/// Makes `tty` the controlling terminal of this session leader.
pub fn make_controlling(tty: BorrowedFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes its argument by value.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY as _, 0) } as libc::c_long).map(drop)
}

/// Sets the window size in characters.
pub fn set_size(tty: BorrowedFd, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) } as libc::c_long)
        .map(drop)
}

/// The window size in characters: rows, columns.
pub fn size(tty: BorrowedFd) -> Result<(u16, u16)> {
    // SAFETY: plain data, written by the ioctl.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size) } as libc::c_long)?;
    Ok((size.ws_row, size.ws_col))
}
