//! The pid file: what `--pid-file` asks for. Written last by `create`, `run` and `exec`, and only on success, because
//! engines wait for it and tell a failure by its absence. Whole or not there at any moment, and nothing else ever lies
//! beside it: the file has no name until it is complete. Must not look at the path again once its directory is open,
//! because `exec` writes it from within the container's namespaces.

use crate::plan;
use crate::sys::{Errno, fs};
use anyhow::{Context, Result};
use nix::fcntl::AtFlags;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A place for a pid file, its directory open.
pub struct PidFile {
    path: PathBuf,
    dir: OwnedFd,
    name: CString,
}

impl PidFile {
    /// Opens the directory of `path`.
    pub fn open(path: PathBuf) -> Result<PidFile> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let dir = fs::open(&plan::c_path(parent, "--pid-file")?, libc::O_PATH | libc::O_DIRECTORY, 0)
            .with_context(|| format!("open {}", parent.display()))?;
        PidFile::together(path, dir)
    }

    /// A path and its open directory.
    pub fn together(path: PathBuf, dir: OwnedFd) -> Result<PidFile> {
        let name = path.file_name().context("--pid-file: names no file")?;
        let name = CString::new(name.as_bytes()).context("--pid-file")?;
        Ok(PidFile { path, dir, name })
    }

    /// The two again, where the descriptor has to be out of sight for a while.
    pub fn apart(self) -> (PathBuf, OwnedFd) {
        (self.path, self.dir)
    }

    /// Writes `pid` in decimal, without a newline: go-runc converts it as it stands.
    pub fn write(&self, pid: i32) -> Result<()> {
        let content = pid.to_string();
        let written = match write_nameless(self.dir.as_fd(), &self.name, content.as_bytes()) {
            // The filesystem has no such files, or the kernel does not let this process name them.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT) => {
                write_and_move(self.dir.as_fd(), &self.name, content.as_bytes())
            }
            other => other,
        };
        written.with_context(|| format!("write pid file {}", self.path.display()))
    }
}

/// Writes a file without a name and then gives it `name`. Who is killed meanwhile leaves nothing behind.
fn write_nameless(dir: BorrowedFd, name: &CStr, content: &[u8]) -> Result<(), Errno> {
    let file = fs::openat(dir, c".", libc::O_WRONLY | libc::O_TMPFILE, 0o644)?;
    fs::write_once(file.as_fd(), content)?;
    // By the descriptor itself: /proc may be the container's by now.
    match linkat(file.as_fd(), c"", dir, name, AtFlags::AT_EMPTY_PATH) {
        Err(Errno::EEXIST) => {
            // linkat(2) replaces nothing. What is there names a process of the past.
            unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?;
            linkat(file.as_fd(), c"", dir, name, AtFlags::AT_EMPTY_PATH)
        }
        other => other,
    }
}

/// The same by a hidden name beside the final one.
fn write_and_move(dir: BorrowedFd, name: &CStr, content: &[u8]) -> Result<(), Errno> {
    let temporary = CString::new([b".", name.to_bytes()].concat()).map_err(|_| Errno::EINVAL)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let file = match fs::openat(dir, &temporary, flags, 0o644) {
        Err(Errno::EEXIST) => {
            // What a killed run left.
            unlinkat(dir, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
            fs::openat(dir, &temporary, flags, 0o644)
        }
        other => other,
    }?;
    let moved = fs::write_once(file.as_fd(), content)
        .and_then(|()| nix::fcntl::renameat(dir, temporary.as_c_str(), dir, name));
    if moved.is_err() {
        // The error that led here is the one to tell.
        let _ = unlinkat(dir, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_replace_what_is_there_and_leave_nothing_else() {
        let base = std::env::temp_dir().join(format!("naru-pid-file-{}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        let place = PidFile::open(base.join("pid")).unwrap();
        let content = || std::fs::read_to_string(base.join("pid")).unwrap();
        place.write(1).unwrap();
        assert_eq!(content(), "1");
        place.write(23).unwrap();
        assert_eq!(content(), "23");
        // Neither a dangling link nor what a killed run left is in the way, and a link is replaced, not followed.
        std::fs::write(base.join(".pid"), "old").unwrap();
        std::fs::remove_file(base.join("pid")).unwrap();
        std::os::unix::fs::symlink("elsewhere", base.join("pid")).unwrap();
        write_and_move(place.dir.as_fd(), &place.name, b"456").unwrap();
        assert_eq!(content(), "456");
        std::fs::remove_file(base.join("pid")).unwrap();
        std::os::unix::fs::symlink("elsewhere", base.join("pid")).unwrap();
        place.write(7).unwrap();
        assert_eq!(content(), "7");
        let names: Vec<_> = std::fs::read_dir(&base).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["pid"]);
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_directory_in_its_place_is_an_error() {
        let base = std::env::temp_dir().join(format!("naru-pid-file-dir-{}", std::process::id()));
        std::fs::create_dir_all(base.join("pid")).unwrap();
        assert!(PidFile::open(base.join("pid")).unwrap().write(1).is_err());
        std::fs::remove_dir_all(&base).unwrap();
        assert!(PidFile::open(PathBuf::from("/")).is_err());
    }
}
