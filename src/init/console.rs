//! The terminal: made by the container's own devpts, checked for what it is, sent to the caller, put on 0, 1, 2.
//!
//! The image may hold anything at /dev/ptmx, /dev/pts and /dev/console, so no path is opened for writing before its
//! handle has proved to be a pseudoterminal master on a devpts, and the peer comes from an ioctl (CVE-2025-52565).

use super::{Container, Outcome, enter, path};
use crate::plan::process::Process;
use crate::sync::{At, Step};
use crate::sys::{Errno, Result, fs, mount, socket, tty};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);

/// Container start: before the pivot.
pub fn open(child: &mut Container, root: BorrowedFd) -> Outcome {
    let proc = enter::hosts_proc(child).at(Step::Console)?;
    let socket = child.console.take();
    let peer =
        open_pair(root, proc.as_fd(), &child.plan.process, socket, child.own_terminal).at(Step::Console)?;
    cover_console(root, &peer).at(Step::Console)?;
    use_as_stdio(&peer).at(Step::Console)
}

/// exec: the runtime, in the container's mounts already but not among its processes, which must not see the host's
/// `procfs`. Returns the container's side.
pub fn open_in_running(
    process: &Process,
    root: Option<&OwnedFd>,
    socket: Option<OwnedFd>,
    own: bool,
    procfs: OwnedFd,
) -> Outcome<OwnedFd> {
    let root = match root {
        Some(root) => root.try_clone().map_err(|_| Errno::EMFILE),
        None => fs::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0),
    };
    let root = root.at(Step::Console)?;
    open_pair(root.as_fd(), procfs.as_fd(), process, socket, own).at(Step::Console)
}

/// Makes the pair, hands the master over and returns the peer. `own`: the runtime carries the data to the caller's
/// terminal, which does what is to be done to line ends; set before the program can write its first one.
fn open_pair(
    root: BorrowedFd,
    proc: BorrowedFd,
    process: &Process,
    socket: Option<OwnedFd>,
    own: bool,
) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let handle = fs::openat2(root, c"/dev/pts/ptmx", flags, 0, fs::IN_ROOT)?;
    let stat = fstat(&handle)?;
    let is_master = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == fs::makedev(5, 2);
    if !is_master || fstatfs(&handle)?.filesystem_type() != DEVPTS_SUPER_MAGIC {
        return Err(Errno::ENODEV);
    }
    let reopen = CString::new(format!("self/fd/{}", handle.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    let master = fs::openat(proc, &reopen, libc::O_RDWR | libc::O_NOCTTY, 0)?;
    tty::unlock(master.as_fd())?;
    let peer = tty::open_peer(master.as_fd())?;
    if let Some((rows, columns)) = process.console_size {
        tty::set_size(peer.as_fd(), rows, columns)?;
    }
    if own {
        let mut settings = tcgetattr(&peer)?;
        settings.output_flags.remove(OutputFlags::ONLCR);
        tcsetattr(&peer, SetArg::TCSANOW, &settings)?;
    }
    // The group stays what devpts gives (gid=5, tty).
    nix::unistd::fchown(&peer, Some(process.uid.into()), None)?;
    if let Some(socket) = socket {
        let name = format!("/dev/pts/{}", tty::number(master.as_fd())?);
        socket::send_fd(socket.as_fd(), name.as_bytes(), master.as_fd())?;
    }
    Ok(peer)
}

/// Shows the terminal as /dev/console (spec, "Default Devices"): a mount on a handle, so that a link there is harmless.
fn cover_console(root: BorrowedFd, peer: &OwnedFd) -> Result<()> {
    let (dev, _) = path::make_dir(root, c"/dev")?;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
    match fs::openat(dev.as_fd(), c"console", flags, 0o666) {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let target = fs::openat(dev.as_fd(), c"console", libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    if path::file_type(target.as_fd())? == nix::sys::stat::SFlag::S_IFLNK {
        return Err(Errno::ELOOP);
    }
    let copy = mount::clone_tree(peer.as_fd(), c"", false)?;
    mount::attach(copy.as_fd(), target.as_fd())
}

/// Makes it the controlling terminal of this session and its standard streams.
pub fn use_as_stdio(peer: &OwnedFd) -> Result<()> {
    tty::make_controlling(peer.as_fd())?;
    (0..=2).try_for_each(|fd| fs::dup_to_stdio(peer.as_fd(), fd))
}
