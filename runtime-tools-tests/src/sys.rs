//! The few kernel calls of the harness that have no safe wrapper: the only unsafe code of `suite`.
//! Called by the harness and by tests that hand descriptors or terminals to a runtime.
#![allow(unsafe_code)]

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Whoever started the tests in the background (nohup, a shell's `&`) had these ignored, and every program below would
/// inherit that.
pub fn attend_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the default action is always valid.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// A descriptor that becomes readable when the process ends.
pub fn pidfd_open(pid: u32) -> Result<OwnedFd> {
    // SAFETY: two integer arguments; the result is a new descriptor that nobody else owns.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) })
        .with_context(|| format!("pidfd_open {pid}"))?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Waits for a child, not longer than `limit`; None when it still runs.
pub fn wait_timeout(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let fd = pidfd_open(child.id())?;
    if readable(&fd, limit)? { Ok(Some(child.wait()?)) } else { Ok(None) }
}

/// True when the descriptor became readable (or its peer closed) within `limit`.
pub fn readable(fd: &impl AsFd, limit: Duration) -> Result<bool> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis() as i64 + 1).context("timeout too long")?;
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if Instant::now() >= end => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => bail!("poll: {e}"),
        }
    }
}

/// Gives the child of `command` our descriptors under the numbers asked for (each at least 3), not close-on-exec.
pub fn pass_fds(command: &mut Command, fds: &[(OwnedFd, RawFd)]) -> Result<()> {
    let pairs: Vec<(RawFd, RawFd)> = fds.iter().map(|(fd, to)| (fd.as_raw_fd(), *to)).collect();
    // SAFETY: dup2 and fcntl are async-signal-safe; the closure allocates nothing. The sources are moved out of the
    // way of all targets first, to numbers from 200 on.
    unsafe {
        command.pre_exec(move || {
            let mut high = [0; 64];
            for (i, (from, _)) in pairs.iter().enumerate().take(64) {
                high[i] = Errno::result(libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, 200))?;
            }
            for (i, (_, to)) in pairs.iter().enumerate().take(64) {
                Errno::result(libc::dup2(high[i], *to))?;
            }
            Ok(())
        });
    }
    Ok(())
}

/// The child becomes leader of a new session whose controlling terminal is its descriptor 0.
pub fn own_terminal(command: &mut Command) {
    // SAFETY: setsid and ioctl are async-signal-safe and the closure allocates nothing.
    unsafe {
        command.pre_exec(|| {
            Errno::result(libc::setsid())?;
            Errno::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
            Ok(())
        });
    }
}

/// The child starts without any of our groups and as this user.
pub fn as_user(command: &mut Command, uid: u32, gid: u32) {
    // SAFETY: async-signal-safe calls with integers and a null list.
    unsafe {
        command.pre_exec(move || {
            Errno::result(libc::setgroups(0, std::ptr::null()))?;
            Errno::result(libc::setresgid(gid, gid, gid))?;
            Errno::result(libc::setresuid(uid, uid, uid))?;
            Ok(())
        });
    }
}

/// Ignores a signal from the start of the program on.
pub fn with_ignored(command: &mut Command, signal: nix::sys::signal::Signal) {
    // SAFETY: the closure makes one call that is safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn)?;
            Ok(())
        })
    };
}

/// Takes a capability from the bounding set, so that even root does not have it.
pub fn without_capability(command: &mut Command, number: i32) {
    // SAFETY: the closure makes one call that is safe between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
}

/// The child and all that it starts share one processor: there, one that comes first leaves no gap to one that reads.
pub fn on_one_processor(command: &mut Command) -> Result<()> {
    let own = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|&cpu| own.is_set(cpu).unwrap_or(false)).context("no processor")?;
    one.set(first)?;
    // SAFETY: sched_setaffinity is async-signal-safe and the closure allocates nothing.
    unsafe { command.pre_exec(move || Ok(sched_setaffinity(Pid::from_raw(0), &one)?)) };
    Ok(())
}

/// Sets the umask of the child.
pub fn with_umask(command: &mut Command, mask: u32) {
    // SAFETY: umask is async-signal-safe and cannot fail.
    unsafe {
        command.pre_exec(move || {
            libc::umask(mask);
            Ok(())
        });
    }
}

/// Sets columns and rows of a terminal; its foreground process group gets SIGWINCH.
pub fn set_window_size(fd: &impl AsRawFd, columns: u16, rows: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &size) }).context("TIOCSWINSZ")?;
    Ok(())
}

/// Takes ownership of a descriptor that recvmsg made.
pub fn own_received(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel installed this descriptor for us just now; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `struct seccomp_notif`, linux/seccomp.h.
#[repr(C)]
#[derive(Default)]
struct SeccompNotif {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif_resp`, linux/seccomp.h.
#[repr(C)]
struct SeccompResponse {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

/// Takes the next call that waits behind a seccomp descriptor: its cookie and its number.
pub fn seccomp_receive(listener: &impl AsRawFd) -> Result<(u64, i32)> {
    const SECCOMP_IOCTL_NOTIF_RECV: u32 = 0xc050_2100;
    let mut call = SeccompNotif::default();
    // SAFETY: the request writes one seccomp_notif, which must be zero before.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_RECV as _, &mut call) })
        .context("SECCOMP_IOCTL_NOTIF_RECV")?;
    Ok((call.id, call.nr))
}

/// Lets a call that waits return this errno.
pub fn seccomp_answer(listener: &impl AsRawFd, id: u64, errno: i32) -> Result<()> {
    const SECCOMP_IOCTL_NOTIF_SEND: u32 = 0xc018_2101;
    let answer = SeccompResponse { id, val: 0, error: -errno, flags: 0 };
    // SAFETY: the request reads one seccomp_notif_resp.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SEND as _, &answer) })
        .context("SECCOMP_IOCTL_NOTIF_SEND")?;
    Ok(())
}
