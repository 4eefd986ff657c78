//! Files and directories of a cgroup filesystem: one open, one read or write each, never through a symlink.
//!
//! Paths are absolute or relative to a directory handle. Nothing here interprets; errors are errnos.

use crate::sys::{fs, uninterrupted};
use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where distributions mount cgroups.
pub const ROOT: &str = "/sys/fs/cgroup";

/// More than a file of one value, or the membership of a process, needs.
const VALUE_MAX: usize = 4096;

/// More than the directory of a cgroup without children needs.
const ENTRIES_MAX: usize = 16384;

/// What every call here returns.
pub type Result<T> = std::result::Result<T, Errno>;

/// The current directory, for absolute paths.
pub const ABSOLUTE: BorrowedFd<'static> = AT_FDCWD;

fn open_with<P: NixPath + ?Sized>(dir: BorrowedFd, path: &P, flags: OFlag) -> Result<OwnedFd> {
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    uninterrupted(|| openat(dir, path, flags, Mode::empty()))
}

/// A handle of a directory, only good for paths, clone3 and bpf.
pub fn open_dir(dir: BorrowedFd, path: &str) -> Result<OwnedFd> {
    open_with(dir, path, OFlag::O_PATH | OFlag::O_DIRECTORY)
}

/// A handle of a directory that can be listed.
pub fn open_listed<P: NixPath + ?Sized>(dir: BorrowedFd, path: &P) -> Result<OwnedFd> {
    open_with(dir, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// A handle for writing.
pub fn open_write(dir: BorrowedFd, path: &str) -> Result<OwnedFd> {
    open_with(dir, path, OFlag::O_WRONLY)
}

/// A handle for reading.
pub fn open_read(dir: BorrowedFd, path: &str) -> Result<OwnedFd> {
    open_with(dir, path, OFlag::O_RDONLY)
}

/// Content of a file that the kernel prints as a whole, in one read, without the last newline.
pub fn read_value(dir: BorrowedFd, path: &str) -> Result<String> {
    let file = open_read(dir, path)?;
    let mut buffer = [0; VALUE_MAX];
    let length = fs::read(file.as_fd(), &mut buffer)?;
    if length == buffer.len() {
        return read_all(dir, path).map(|text| text.trim_end().to_string());
    }
    Ok(String::from_utf8_lossy(&buffer[..length]).trim_end().to_string())
}

/// Content of a file of any length, also of one that the kernel prints record by record.
pub fn read_all(dir: BorrowedFd, path: &str) -> Result<String> {
    let file = open_read(dir, path)?;
    let mut content = Vec::new();
    let mut buffer = [0; VALUE_MAX];
    loop {
        match fs::read(file.as_fd(), &mut buffer)? {
            0 => return Ok(String::from_utf8_lossy(&content).into_owned()),
            length => content.extend_from_slice(&buffer[..length]),
        }
    }
}

/// Writes one value in one write.
pub fn write_value(dir: BorrowedFd, path: &str, value: &str) -> Result<()> {
    write_to(open_write(dir, path)?.as_fd(), value)
}

/// Writes one value to an open file.
pub fn write_to(file: BorrowedFd, value: &str) -> Result<()> {
    fs::write_once(file, value.as_bytes())
}

/// Makes one directory, 0755.
pub fn make_dir(path: &str) -> Result<()> {
    mkdirat(ABSOLUTE, path, Mode::from_bits_truncate(0o755))
}

/// Removes one directory; its files do not count.
pub fn remove_dir(dir: BorrowedFd, path: &str) -> Result<()> {
    uninterrupted(|| unlinkat(dir, path, UnlinkatFlags::RemoveDir))
}

/// The same by a name that may be any bytes.
pub fn remove_child(dir: BorrowedFd, name: &CStr) -> Result<()> {
    uninterrupted(|| unlinkat(dir, name, UnlinkatFlags::RemoveDir))
}

/// Names of the directories in one that was just opened to be listed.
pub fn child_dirs(dir: BorrowedFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    let mut buffer = [0; ENTRIES_MAX];
    loop {
        let length = fs::entries(dir, &mut buffer)?;
        if length == 0 {
            return Ok(names);
        }
        let mut entries = &buffer[..length];
        while !entries.is_empty() {
            let (entry, next) = fs::first_entry(entries)?;
            entries = next;
            if entry.is_dir && entry.name != c"." && entry.name != c".." {
                names.push(entry.name.to_owned());
            }
        }
    }
}
