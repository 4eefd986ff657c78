//! `tmpcopyup`: copies what a directory of the image holds into a tmpfs before that covers it.
//!
//! The source is hostile: links are copied as links, nothing is opened that is not a regular file or a directory.

use crate::sys::{Errno, Result, fs};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat, mkdirat, mknodat};
use nix::unistd::{fchown, fchownat, symlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Directories below each other that are followed; deeper ones are `ELOOP`.
const DEPTH_MAX: u32 = 128;

/// Copies the content of `from` (any handle of a directory) into `to`.
pub fn directory(from: BorrowedFd, to: BorrowedFd) -> Result<()> {
    let from = fs::openat(from, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let stat = fstat(&from)?;
    fchown(to, Some(stat.st_uid.into()), Some(stat.st_gid.into()))?;
    content(from, to, DEPTH_MAX)
}

fn content(from: OwnedFd, to: BorrowedFd, depth: u32) -> Result<()> {
    if depth == 0 {
        return Err(Errno::ELOOP);
    }
    let mut names: Vec<CString> = Vec::new();
    let mut dir = Dir::from_fd(from)?;
    for entry in dir.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    for name in names {
        one(dir.as_fd(), to, &name, depth)?;
    }
    Ok(())
}

fn one(from: BorrowedFd, to: BorrowedFd, name: &CStr, depth: u32) -> Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    let (uid, gid) = (Some(stat.st_uid.into()), Some(stat.st_gid.into()));
    let kind = SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT);
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, mode)?;
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let new = fs::openat(to, name, flags, 0)?;
            fchown(&new, uid, gid)?;
            fchmod(&new, mode)?;
            content(fs::openat(from, name, flags, 0)?, new.as_fd(), depth - 1)
        }
        SFlag::S_IFREG => {
            let source = fs::openat(from, name, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)?;
            // What was a file a moment ago may be something else now.
            if fstat(&source)?.st_mode & libc::S_IFMT != libc::S_IFREG {
                return Err(Errno::ESTALE);
            }
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let new = fs::openat(to, name, flags.bits(), 0o600)?;
            std::io::copy(
                &mut std::fs::File::from(source),
                &mut std::fs::File::from(new.try_clone().map_err(errno)?),
            )
            .map_err(errno)?;
            fchown(&new, uid, gid)?;
            // After the owner, whose change drops set-id bits.
            fchmod(&new, mode)
        }
        SFlag::S_IFLNK => {
            symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
            fchownat(to, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
        }
        _ => {
            mknodat(to, name, kind, mode, stat.st_rdev)?;
            fchownat(to, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
        }
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn everything_is_copied_as_what_it_is() {
        let dir = std::env::temp_dir().join(format!("naru-copy-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::create_dir_all(&to).unwrap();
        std::fs::write(from.join("sub/file"), "text").unwrap();
        std::fs::set_permissions(from.join("sub/file"), std::fs::Permissions::from_mode(0o4711)).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        nix::unistd::mkfifo(&from.join("fifo"), Mode::S_IRUSR).unwrap();
        let open = |path: &std::path::Path| OwnedFd::from(std::fs::File::open(path).unwrap());
        directory(open(&from).as_fd(), open(&to).as_fd()).unwrap();
        assert_eq!(std::fs::read(to.join("sub/file")).unwrap(), b"text");
        assert_eq!(std::fs::metadata(to.join("sub/file")).unwrap().permissions().mode() & 0o7777, 0o4711);
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), std::path::Path::new("/etc/passwd"));
        assert!(to.join("fifo").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
