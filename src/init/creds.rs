//! Who the program is: standard streams, user, groups, capabilities, working directory, and where it lies.

use super::Outcome;
use crate::plan::process::{HOME_FALLBACK, PASSWD, Process, home_in_passwd};
use crate::sync::{At, Step};
use crate::sys::{Errno, Result, fs, process};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{fstat, fstatat};
use nix::unistd::AccessFlags;
use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

/// Largest passwd file that is searched for HOME, bytes: it is the image's.
const PASSWD_MAX: usize = 1 << 20;
/// What is read of it at once, bytes.
const PASSWD_FIRST: usize = 4096;

/// Takes every capability that is not in `keep` out of the bounding set, up to the last one the kernel knows.
pub fn drop_bounding(keep: u64) -> Result<()> {
    for capability in 0..64 {
        if keep >> capability & 1 == 0 {
            match process::prctl(libc::PR_CAPBSET_DROP, capability) {
                Ok(_) => {}
                Err(Errno::EINVAL) => break,
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// Streams on the host's /dev/null move to the container's, which must be one (CVE-2026-88265); the others are given to
/// the user, who may have to reopen them by `/dev/stdout`.
pub fn own_stdio(uid: u32) -> Result<()> {
    let mut null = None;
    for number in 0..=2 {
        let stream = fs::stdio(number);
        let stat = match fstat(stream) {
            Ok(stat) => stat,
            // The caller left this one closed.
            Err(Errno::EBADF) => continue,
            Err(errno) => return Err(errno),
        };
        if stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == fs::makedev(1, 3) {
            if null.is_none() {
                null = Some(container_null()?);
            }
            if let Some(Some(null)) = &null {
                fs::dup_to_stdio(null.as_fd(), number)?;
            }
        } else if stat.st_uid != uid {
            match nix::unistd::fchown(stream, Some(uid.into()), None) {
                // Streams on read-only or foreign filesystems stay as they are.
                Ok(()) | Err(Errno::EPERM | Errno::EROFS | Errno::EINVAL | Errno::ENOSYS) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// The container's /dev/null if it has a real one.
fn container_null() -> Result<Option<std::os::fd::OwnedFd>> {
    let root = fs::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let open = |flags| fs::openat2(root.as_fd(), c"/dev/null", flags | libc::O_NOFOLLOW, 0, fs::IN_ROOT);
    let Ok(handle) = open(libc::O_PATH) else { return Ok(None) };
    let is_null =
        |stat: libc::stat| stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == fs::makedev(1, 3);
    if !is_null(fstat(&handle)?) {
        return Ok(None);
    }
    // Opened by name again and checked again: nothing else is ever used as a stream.
    match open(libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK) {
        Ok(null) if is_null(fstat(&null)?) => {
            nix::fcntl::fcntl(&null, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))?;
            Ok(Some(null))
        }
        // A device rule may forbid it; the stream then stays the host's null, which is harmless.
        _ => Ok(None),
    }
}

/// Changes to the working directory; `make` makes one that the image lacks. False: this user may not enter it, the program's
/// perhaps may. Before a seccomp filter is loaded, which may forbid getcwd(2).
pub fn enter_cwd(init: &Process, make: bool) -> Outcome<bool> {
    match nix::unistd::chdir(init.cwd.as_c_str()) {
        Ok(()) => {}
        Err(Errno::EACCES | Errno::EPERM) => return Ok(false),
        Err(Errno::ENOENT) if make => {
            make_cwd(&init.cwd).at(Step::Cwd)?;
            nix::unistd::chdir(init.cwd.as_c_str()).at(Step::Cwd)?;
        }
        Err(errno) => return Err(errno).at(Step::Cwd),
    }
    // The root itself cannot be outside.
    if init.cwd.as_c_str() != c"/" {
        check_cwd()?;
    }
    Ok(true)
}

/// A directory outside the root, by a leaked descriptor, shows as unreachable (CVE-2024-21626).
fn check_cwd() -> Outcome {
    if fs::cwd_is_inside_root().at(Step::Cwd)? { Ok(()) } else { Err(Errno::ESTALE).at(Step::Cwd) }
}

/// The program's groups. Also with none: the caller's are not the container's (T41), unless it has been told that they are.
/// Before a filter is loaded, which may forbid it.
pub fn set_groups(init: &Process) -> Outcome {
    if init.keep_groups {
        return Ok(());
    }
    match process::setgroups(&init.groups) {
        // A user namespace without newgidmap has no other groups than those that it came with (runc leaves them, too).
        Err(Errno::EPERM) if setgroups_is_denied() => Ok(()),
        other => other.at(Step::User),
    }
}

/// The capabilities that this process could have at most. Before a filter is loaded, which may forbid to ask.
pub fn able() -> Outcome<u64> {
    process::permitted().at(Step::Capabilities)
}

/// Ids and the four other capability sets, of those that this process is `able` to have, in the order in which each step still
/// has the right to do the next.
pub fn switch_user(init: &Process, in_cwd: bool, able: u64) -> Outcome {
    let caps = &init.capabilities;
    // Else a change to another user drops all of them.
    process::prctl(libc::PR_SET_KEEPCAPS, 1).at(Step::Capabilities)?;
    process::set_gid(init.gid).at_index(Step::User, 1)?;
    process::set_uid(init.uid).at_index(Step::User, 2)?;
    // Root may be the one who is refused (a network filesystem).
    if !in_cwd {
        nix::unistd::chdir(init.cwd.as_c_str()).at(Step::Cwd)?;
        check_cwd()?;
    }
    // What the kernel or the runtime cannot grant is left out, with no error (spec: warn).
    let permitted = caps.permitted & able;
    process::set_capabilities(caps.effective & permitted, permitted, caps.inheritable & able)
        .at(Step::Capabilities)?;
    // Without inheritable ones capset(2) has cleared them; else the caller's would survive it.
    if caps.ambient != 0 || caps.inheritable != 0 {
        process::ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0).at(Step::Capabilities)?;
        for capability in 0..64 {
            if caps.ambient >> capability & 1 == 1 {
                match process::ambient(libc::PR_CAP_AMBIENT_RAISE, capability) {
                    // One that is not also permitted and inheritable is skipped (runc warns).
                    Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => {}
                    Err(errno) => return Err(errno).at(Step::Capabilities),
                }
            }
        }
    }
    process::prctl(libc::PR_SET_KEEPCAPS, 0).at(Step::Capabilities).map(drop)
}

/// Makes a missing working directory while a root that is to be read-only can still be written (runc and crun make it then,
/// too). Any error is told when the directory is entered.
pub fn make_missing_cwd(cwd: &CStr) {
    if cwd != c"/" && nix::unistd::access(cwd, AccessFlags::F_OK) == Err(Errno::ENOENT) {
        let _ = make_cwd(cwd);
    }
}

/// A working directory that the image lacks is made, as runc does, inside the root that we are in by now.
fn make_cwd(cwd: &CStr) -> Result<()> {
    let root = fs::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    super::path::make_dir(root.as_fd(), cwd).map(drop)
}

/// Has the user namespace given up setgroups(2) (Linux 3.19)? Asked of a real procfs only.
fn setgroups_is_denied() -> bool {
    let Ok(file) = fs::open(c"/proc/self/setgroups", libc::O_RDONLY | libc::O_NONBLOCK, 0) else {
        return false;
    };
    let mut text = [0u8; 8];
    super::path::is_procfs(file.as_fd()).unwrap_or(false)
        && fs::read(file.as_fd(), &mut text).is_ok_and(|length| text[..length].starts_with(b"deny"))
}

/// The program's path: the first candidate that the user may execute. Looked for at create, so that a missing program
/// is create's error and not start's.
pub fn find_program(init: &Process) -> Outcome<CString> {
    if init.args.strings().is_empty() {
        // A container without a process, which `start` refuses.
        return Ok(CString::default());
    }
    let mut refused = Errno::ENOENT;
    for (index, candidate) in init.candidates.iter().enumerate() {
        match executable(candidate) {
            Ok(()) => return Ok(candidate.clone()),
            Err(errno) if init.candidates.len() == 1 => return Err(errno).at_index(Step::Find, index),
            Err(Errno::EACCES) => refused = Errno::EACCES,
            Err(_) => {}
        }
    }
    Err(refused).at(Step::Find)
}

fn executable(path: &CStr) -> Result<()> {
    fs::may_execute(path)?;
    // With a flag it is newfstatat(2), which filters that were made for runc let through.
    match fstatat(AT_FDCWD, path, AtFlags::AT_NO_AUTOMOUNT) {
        Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => Err(Errno::EISDIR),
        // A filter: execve(2) will say it.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// `HOME=..` for an environment that has none: from the container's passwd, which is hostile, else `/`.
pub fn home(init: &Process) -> Outcome<Option<CString>> {
    if !init.needs_home {
        return Ok(None);
    }
    let listed = match read_passwd() {
        Ok(text) => home_in_passwd(&text, init.uid),
        // Out of memory, descriptors or luck: not what the image says, so it is an error.
        Err(
            errno @ (Errno::ENOMEM
            | Errno::EMFILE
            | Errno::ENFILE
            | Errno::EIO
            | Errno::ENOSPC
            | Errno::EPERM),
        ) => {
            return Err(errno).at(Step::Home);
        }
        Err(_) => None,
    };
    Ok(Some(listed.unwrap_or_else(|| HOME_FALLBACK.into())))
}

/// Neither a fifo nor a device may hold us up, nor a huge file eat memory (CVE-2025-4437).
fn read_passwd() -> Result<Vec<u8>> {
    let root = fs::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let file = fs::openat2(
        root.as_fd(),
        PASSWD,
        libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY,
        0,
        fs::IN_ROOT,
    )?;
    if fstat(&file)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EINVAL);
    }
    // Most fit at once; the loop is for those that do not.
    let mut text = vec![0; PASSWD_FIRST];
    let mut length = 0;
    loop {
        match fs::read(file.as_fd(), &mut text[length..])? {
            0 => break,
            more => length += more,
        }
        if length == text.len() {
            if length >= PASSWD_MAX {
                break;
            }
            text.resize(length * 2, 0);
        }
    }
    text.truncate(length);
    Ok(text)
}
