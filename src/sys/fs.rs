//! File calls that `nix` lacks or wraps with more than the call.

use super::{Result, check, uninterrupted};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A path can never leave the directory it is resolved from, and symlinks are resolved as if that were `/`.
/// Magic links (`/proc/self/fd/N`, `/proc/self/exe`) are refused: CVE-2024-21626 and CVE-2019-5736 went through them.
pub const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// A path below the directory, on the same mount, with no symlink of any kind: for procfs entries.
pub const BENEATH: u64 =
    libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_SYMLINKS;

/// How often a lookup that raced with a rename (`EAGAIN`) is tried again before the error stands.
const OPENAT2_TRIES: u32 = 128;

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: called only with a descriptor that the kernel has just returned to this process alone.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// openat2(2), close-on-exec, `mode` 0 without `O_CREAT`; where the kernel lacks it (before Linux 5.6) or a filter answers
/// for it, the same by hand.
pub fn openat2(dir: BorrowedFd, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    match openat2_kernel(dir, path, flags, mode, resolve) {
        Err(super::Errno::ENOSYS | super::Errno::EPERM) => super::lookup::open(dir, path, flags, resolve),
        other => other,
    }
}

/// The call itself.
pub fn openat2_kernel(dir: BorrowedFd, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    // SAFETY: open_how is plain data for which all zeroes is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u32 as u64;
    how.mode = mode as u64;
    how.resolve = resolve;
    let mut tries = 0;
    loop {
        // SAFETY: `path` is NUL-terminated, `how` is initialised and its size is given; both outlive the call.
        let ret = check(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        });
        match ret {
            Ok(fd) => return Ok(owned(fd)),
            Err(super::Errno::EAGAIN | super::Errno::EINTR) if tries < OPENAT2_TRIES => tries += 1,
            Err(errno) => return Err(errno),
        }
    }
}

/// openat(2), close-on-exec; once more when a signal interrupts it.
pub fn openat(dir: BorrowedFd, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    uninterrupted(|| {
        // SAFETY: `path` is NUL-terminated and outlives the call.
        let fd = unsafe { libc::openat(dir.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        check(fd as libc::c_long).map(owned)
    })
}

/// open(2) from the current directory, close-on-exec.
pub fn open(path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    openat(nix::fcntl::AT_FDCWD, path, flags, mode)
}

/// fchmodat2(2) on the descriptor itself; before Linux 6.6, or behind a filter, by the host's procfs, which must still be at
/// `/proc`.
pub fn fchmod_path(fd: BorrowedFd, mode: u32) -> Result<()> {
    // SAFETY: the empty path is a static NUL-terminated string.
    match check(unsafe {
        libc::syscall(libc::SYS_fchmodat2, fd.as_raw_fd(), c"".as_ptr(), mode, libc::AT_EMPTY_PATH)
    }) {
        Err(super::Errno::ENOSYS | super::Errno::EPERM) => {
            let path = format!("/proc/self/fd/{}\0", fd.as_raw_fd());
            // SAFETY: `path` ends with NUL and outlives the call.
            check(unsafe { libc::chmod(path.as_ptr().cast(), mode) } as libc::c_long).map(drop)
        }
        other => other.map(drop),
    }
}

/// fchownat(2) on the descriptor itself, which may be `O_PATH`.
pub fn fchown_path(fd: BorrowedFd, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: the empty path is a static NUL-terminated string.
    check(unsafe { libc::fchownat(fd.as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) }
        as libc::c_long)
    .map(drop)
}

/// faccessat2(2) with the effective ids (Linux 5.8): may this process execute `path`?
///
/// Where the call is missing, or an old seccomp profile forbids it, the question goes by the real ids, which are the same
/// for a process that has just become its user. A profile that forbids both leaves it to execve(2).
pub fn may_execute(path: &CStr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    match check(unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS)
    }) {
        Err(super::Errno::ENOSYS | super::Errno::EPERM) => {
            // SAFETY: as above.
            match check(unsafe { libc::access(path.as_ptr(), libc::X_OK) } as libc::c_long) {
                // Nobody to ask: execve(2) will say it.
                Err(super::Errno::ENOSYS | super::Errno::EPERM) => Ok(()),
                other => other.map(drop),
            }
        }
        other => other.map(drop),
    }
}

/// The `st_rdev` of a device number pair.
pub fn makedev(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// Writes the whole of `data` in one write(2), which is how procfs and cgroupfs take a value; a short write is `EIO`.
pub fn write_once(fd: BorrowedFd, data: &[u8]) -> Result<()> {
    let written = uninterrupted(|| {
        // SAFETY: `data` is valid for reads of its length.
        check(unsafe { libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len()) } as libc::c_long)
    })?;
    if written as usize == data.len() { Ok(()) } else { Err(super::Errno::EIO) }
}

/// Reads up to `buf.len()` bytes, once.
pub fn read(fd: BorrowedFd, buf: &mut [u8]) -> Result<usize> {
    let length = uninterrupted(|| {
        // SAFETY: `buf` is valid for writes of its length.
        check(unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) } as libc::c_long)
    })?;
    Ok(length as usize)
}

/// getdents64(2): the next entries of an open directory, for [`first_entry`]; 0 bytes at its end.
pub fn entries(dir: BorrowedFd, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: `buf` is valid for writes of its length.
    let length =
        check(unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buf.as_mut_ptr(), buf.len()) })?;
    Ok(length as usize)
}

/// One entry of a directory.
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a CStr,
    /// Is it a directory? False as well where the filesystem does not tell.
    pub is_dir: bool,
}

/// Takes the first entry off what [`entries`] wrote; also what comes after it.
pub fn first_entry(bytes: &[u8]) -> Result<(Entry<'_>, &[u8])> {
    use std::mem::offset_of;
    let length = bytes.get(offset_of!(libc::dirent64, d_reclen)..).and_then(|rest| rest.first_chunk());
    let length = length.map_or(0, |&length| u16::from_ne_bytes(length).into());
    let (entry, rest) = bytes.split_at_checked(length).ok_or(super::Errno::EIO)?;
    let name = entry.get(offset_of!(libc::dirent64, d_name)..).ok_or(super::Errno::EIO)?;
    let name = CStr::from_bytes_until_nul(name).map_err(|_| super::Errno::EIO)?;
    let is_dir = entry[offset_of!(libc::dirent64, d_type)] == libc::DT_DIR;
    Ok((Entry { name, is_dir }, rest))
}

/// Marks every descriptor from `first` on close-on-exec (Linux 5.11).
pub fn cloexec_from(first: u32) -> Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on (Linux 5.9). The caller owns none of them any more: only for use right
/// before execve or `_exit`, where no `OwnedFd` is dropped afterwards.
pub fn close_from(first: u32) -> Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: libc::c_uint) -> Result<()> {
    // SAFETY: no memory is passed.
    match check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) }) {
        Ok(_) => Ok(()),
        // Before 5.9, 5.11, or behind a filter: one fcntl or close a descriptor. The marking is main's first act, with the
        // host's procfs to ask; the caller may have lowered the limit below what it left open.
        Err(super::Errno::ENOSYS | super::Errno::EINVAL | super::Errno::EPERM) if flags != 0 => {
            let mut own = nix::dir::Dir::open(
                "/proc/self/fd",
                nix::fcntl::OFlag::O_RDONLY,
                nix::sys::stat::Mode::empty(),
            )?;
            for entry in own.iter() {
                let number = entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok());
                if let Some(fd) = number.filter(|&fd| fd >= first) {
                    // SAFETY: no memory is passed; the number is open.
                    unsafe { libc::fcntl(fd as i32, libc::F_SETFD, libc::FD_CLOEXEC) };
                }
            }
            Ok(())
        }
        Err(super::Errno::ENOSYS | super::Errno::EINVAL | super::Errno::EPERM) => {
            // SAFETY: plain data, written by getrlimit.
            let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
            // SAFETY: `limit` is a live rlimit.
            check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } as libc::c_long)?;
            for fd in first..limit.rlim_cur.min(1 << 20) as u32 {
                // SAFETY: no memory is passed; a number that is not open yields EBADF, which is what is wanted.
                unsafe { libc::close(fd as i32) };
            }
            Ok(())
        }
        Err(errno) => Err(errno),
    }
}

/// Moves `fd` to the number `to` (dup3, close-on-exec) and returns it; the old number stays open in `fd`.
pub fn dup_to(fd: BorrowedFd, to: RawFd) -> Result<OwnedFd> {
    // SAFETY: no memory is passed; `to` belongs to the caller, who gets it back as an OwnedFd.
    check(unsafe { libc::dup3(fd.as_raw_fd(), to, libc::O_CLOEXEC) } as libc::c_long).map(owned)
}

/// A copy of `fd` with a number not below `first`, close-on-exec.
pub fn dup_above(fd: BorrowedFd, first: RawFd) -> Result<OwnedFd> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(first)).map(|fd| owned(fd.into()))
}

/// Puts `fd` at one of the standard numbers 0, 1, 2, where it stays open across exec.
pub fn dup_to_stdio(fd: BorrowedFd, to: RawFd) -> Result<()> {
    assert!((0..=2).contains(&to));
    // SAFETY: no memory is passed; 0 to 2 are never owned by an OwnedFd in this program.
    check(unsafe { libc::dup2(fd.as_raw_fd(), to) } as libc::c_long).map(drop)
}

/// Clears close-on-exec, for a descriptor that the payload is to inherit.
pub fn keep_across_exec(fd: RawFd) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } as libc::c_long).map(drop)
}

/// Makes `number`, which must be free, a second descriptor of what `fd` is; an execve closes it.
pub fn duplicate_to(fd: RawFd, number: RawFd) -> Result<()> {
    // SAFETY: no memory is passed, and nobody owns a number that is free.
    check(unsafe { libc::dup3(fd, number, libc::O_CLOEXEC) } as libc::c_long).map(drop)
}

/// Is `fd` open?
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: no memory is passed.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// One of the standard streams as a borrowed descriptor.
pub fn stdio(fd: RawFd) -> BorrowedFd<'static> {
    assert!((0..=2).contains(&fd));
    // SAFETY: 0 to 2 are never closed by this program; if the caller started it with one closed, calls yield EBADF.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Takes a descriptor number that was inherited from the caller (`--status-fd`).
pub fn inherited(fd: RawFd) -> BorrowedFd<'static> {
    assert!(fd > 2);
    // SAFETY: the caller of naru handed this number over; nothing in this program owns or closes it.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// The raw bytes of getcwd(2), which unlike libc's tells `(unreachable)` paths apart (CVE-2024-21626): the kernel's
/// answer starts with `/` only if the directory lies under the process's root.
pub fn cwd_is_inside_root() -> Result<bool> {
    let mut buf = [0u8; libc::PATH_MAX as usize];
    // SAFETY: `buf` is valid for writes of its length.
    match check(unsafe { libc::syscall(libc::SYS_getcwd, buf.as_mut_ptr(), buf.len()) }) {
        Ok(_) => Ok(buf[0] == b'/'),
        Err(super::Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Closes the descriptors `first..end`; see [`close_from`].
pub fn close_between(first: u32, end: u32) -> Result<()> {
    if first >= end {
        return Ok(());
    }
    // SAFETY: no memory is passed.
    match check(unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) }) {
        Ok(_) => Ok(()),
        Err(_) => {
            for fd in first..end {
                // SAFETY: no memory is passed; a number that is not open yields EBADF, which is what is wanted.
                unsafe { libc::close(fd as i32) };
            }
            Ok(())
        }
    }
}

/// Takes ownership of a descriptor that a nix call has just returned as a number.
pub fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: called only on a number that the kernel has just handed to this process alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Takes the lock of a file or directory for itself, or `EAGAIN` at once; closing the last copy lets it go.
pub fn lock(fd: BorrowedFd) -> Result<()> {
    uninterrupted(|| {
        // SAFETY: no memory is passed.
        check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } as libc::c_long)
    })
    .map(drop)
}

/// The id of the mount on which `path` lies: that of the topmost one, if it is a mount point (Linux 5.8).
pub fn mount_id(path: &CStr) -> Result<u64> {
    // SAFETY: statx is plain data for which all zeroes is valid.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: `path` is NUL-terminated, and `found` is a live statx.
    check(unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_MNT_ID, &raw mut found) }
        as libc::c_long)?;
    Ok(found.stx_mnt_id)
}

/// open(2) without close-on-exec, for a standard stream that was missing.
#[cfg(not(test))]
pub fn open_inheritable(path: &CStr, flags: i32) -> Result<OwnedFd> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(unsafe { libc::open(path.as_ptr(), flags) } as libc::c_long).map(owned)
}

/// Closes a forked child's copy of a descriptor that the parent's stack owns.
pub fn close_inherited(fd: BorrowedFd) {
    // SAFETY: called in a forked child that ends in execve or _exit, so the value that owns the number is never dropped
    // here, and nothing uses it.
    unsafe { libc::close(fd.as_raw_fd()) };
}
