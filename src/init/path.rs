//! Paths inside a root filesystem, which is hostile: every look-up starts at a descriptor and cannot leave it.
//!
//! The kernel's RESOLVE_IN_ROOT does the work; the walker below only runs where something has to be made. It must
//! never open for writing, follow a magic link or truncate anything (CVE-2024-45310, CVE-2026-41579).

use crate::sys::fs::{IN_ROOT, openat, openat2};
use crate::sys::{Errno, Result};
use nix::sys::stat::{Mode, SFlag, mkdirat};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// As many links as the kernel follows in one look-up.
const LINKS_MAX: u32 = 40;

/// Opens what is at `path` below `root` as a handle (`O_PATH`), following links as if `root` were `/`.
pub fn open(root: BorrowedFd, path: &CStr) -> Result<OwnedFd> {
    openat2(root, path, libc::O_PATH, 0, IN_ROOT)
}

/// The same for a place to mount on, with further `flags`. Links of the image may lead anywhere but to the root itself and
/// into a procfs, where later steps write (CVE-2019-19921): that is `EXDEV`.
pub fn open_target(root: BorrowedFd, path: &CStr, flags: i32) -> Result<OwnedFd> {
    let flags = libc::O_PATH | flags;
    match openat2(root, path, flags, 0, IN_ROOT | libc::RESOLVE_NO_SYMLINKS) {
        // A link on the way. A path without any says where it leads, and the plan has checked that.
        Err(Errno::ELOOP) => {}
        other => return other,
    }
    not_forbidden(root, openat2(root, path, flags, 0, IN_ROOT)?)
}

/// Opens the directory at `path`, making it and its parents (0755) where they are missing.
/// Tells whether the directory was there before.
pub fn make_dir(root: BorrowedFd, path: &CStr) -> Result<(OwnedFd, bool)> {
    match open_target(root, path, libc::O_DIRECTORY) {
        Ok(fd) => Ok((fd, true)),
        Err(Errno::ENOENT) => match make_last(root, path) {
            Ok(fd) => Ok((fd, false)),
            Err(Errno::ENOENT | Errno::EEXIST | Errno::EINVAL) => {
                Ok((walk(root, path, Last::Directory)?, false))
            }
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    }
}

/// The same where it is most likely missing: one call less then.
pub fn make_new_dir(root: BorrowedFd, path: &CStr) -> Result<(OwnedFd, bool)> {
    match make_last(root, path) {
        Ok(fd) => Ok((fd, false)),
        Err(_) => make_dir(root, path),
    }
}

/// The common case of a missing directory: only the last component is missing, and it is a plain name.
fn make_last(root: BorrowedFd, path: &CStr) -> Result<OwnedFd> {
    let (parent, name) = split(path)?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let parent = openat2(root, &parent, flags, 0, IN_ROOT)?;
    mkdirat(&parent, name.as_c_str(), Mode::from_bits_truncate(0o755))?;
    openat(parent.as_fd(), &name, flags | libc::O_NOFOLLOW, 0)
}

/// Directory and plain name of a path; `EINVAL` if it ends otherwise.
fn split(path: &CStr) -> Result<(CString, CString)> {
    let bytes = path.to_bytes();
    let at = bytes.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
    let name = &bytes[at..];
    if matches!(name, b"" | b"." | b"..") {
        return Err(Errno::EINVAL);
    }
    let parent = if at == 0 { &b"."[..] } else { &bytes[..at] };
    Ok((CString::new(parent).map_err(|_| Errno::EINVAL)?, CString::new(name).map_err(|_| Errno::EINVAL)?))
}

/// Opens the file at `path`, making an empty one (0755, as runc does) and its parents where they are missing.
pub fn make_file(root: BorrowedFd, path: &CStr) -> Result<OwnedFd> {
    match open_target(root, path, 0) {
        Err(Errno::ENOENT) => walk(root, path, Last::File),
        other => other,
    }
}

/// Opens the directory that holds the last component of `path`, making it where it is missing, and that component.
pub fn make_parent(root: BorrowedFd, path: &CStr) -> Result<(OwnedFd, CString)> {
    let (parent, name) = split(path)?;
    Ok((make_dir(root, &parent)?.0, name))
}

#[derive(Clone, Copy, PartialEq)]
enum Last {
    Directory,
    File,
}

/// Follows `path` component by component, resolving links itself, and makes what is missing: also the target of a
/// dangling link, inside the root. Another process may make the same directory meanwhile; that is no error.
fn walk(root: BorrowedFd, path: &CStr, last: Last) -> Result<OwnedFd> {
    let components = |bytes: &[u8]| -> VecDeque<OsString> {
        bytes
            .split(|&b| b == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .map(|part| OsString::from_vec(part.to_vec()))
            .collect()
    };
    let mut todo = components(path.to_bytes());
    // Handles of the directories from the root down to the current one: `..` goes back by dropping one.
    let mut stack: Vec<OwnedFd> = vec![root.try_clone_to_owned().map_err(|_| Errno::EMFILE)?];
    let mut links = 0;
    while let Some(part) = todo.pop_front() {
        if part == ".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        let current = stack.last().map(AsFd::as_fd).ok_or(Errno::ENOENT)?;
        let name = CString::new(part.as_bytes()).map_err(|_| Errno::EINVAL)?;
        let mut made = false;
        let fd = loop {
            match openat(current, &name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
                Err(Errno::ENOENT) if !made => {
                    made = true;
                    if todo.is_empty() && last == Last::File {
                        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
                        match openat(current, &name, flags, 0o755) {
                            Ok(_) | Err(Errno::EEXIST) => {}
                            Err(errno) => return Err(errno),
                        }
                    } else {
                        match mkdirat(current, name.as_c_str(), Mode::from_bits_truncate(0o755)) {
                            Ok(()) | Err(Errno::EEXIST) => {}
                            Err(errno) => return Err(errno),
                        }
                    }
                }
                other => break other?,
            }
        };
        match file_type(fd.as_fd())? {
            SFlag::S_IFLNK => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::ELOOP);
                }
                // A magic link of procfs would lead out of the root; nothing is ever made below procfs.
                if is_procfs(fd.as_fd())? {
                    return Err(Errno::ELOOP);
                }
                let target = nix::fcntl::readlinkat(&fd, "")?;
                if target.as_bytes().first() == Some(&b'/') {
                    stack.truncate(1);
                }
                let mut next = components(target.as_bytes());
                next.append(&mut todo);
                todo = next;
            }
            SFlag::S_IFDIR => stack.push(fd),
            _ if todo.is_empty() && last == Last::File => return not_forbidden(root, fd),
            _ => return Err(Errno::ENOTDIR),
        }
    }
    match last {
        // A link that was swapped in meanwhile leads no further than one that was there before.
        Last::Directory => not_forbidden(root, stack.pop().ok_or(Errno::ENOENT)?),
        Last::File => Err(Errno::EISDIR),
    }
}

/// `target`, unless it is the root itself or in a procfs.
fn not_forbidden(root: BorrowedFd, target: OwnedFd) -> Result<OwnedFd> {
    let identity = |fd: BorrowedFd| nix::sys::stat::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    if is_procfs(target.as_fd())? || identity(target.as_fd())? == identity(root)? {
        return Err(Errno::EXDEV);
    }
    Ok(target)
}

/// The type bits of what a handle shows.
pub fn file_type(fd: BorrowedFd) -> Result<SFlag> {
    Ok(SFlag::from_bits_truncate(nix::sys::stat::fstat(fd)?.st_mode & libc::S_IFMT))
}

/// Does the handle lie on a procfs?
pub fn is_procfs(fd: BorrowedFd) -> Result<bool> {
    Ok(nix::sys::statfs::fstatfs(fd)?.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (std::path::PathBuf, OwnedFd) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = std::env::temp_dir().join(format!(
            "naru-path-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(dir.join("root")).unwrap();
        let fd = std::fs::File::open(dir.join("root")).unwrap().into();
        (dir, fd)
    }

    #[test]
    fn what_is_missing_is_made_inside_the_root() {
        let (dir, fd) = root();
        let r = dir.join("root");
        symlink("/etc/x", r.join("abs")).unwrap();
        symlink("../../../up", r.join("up")).unwrap();
        symlink("abs", r.join("chain")).unwrap();
        symlink("loop", r.join("loop")).unwrap();
        for (path, made) in [
            (c"/a/b/c", "a/b/c"),
            (c"abs/y", "etc/x/y"),
            (c"up/z", "up2"),
            (c"chain/q/", "etc/x/q"),
            (c"a/../new", "new"),
            (c"../../out", "out"),
        ] {
            let result = make_dir(fd.as_fd(), path);
            if made == "up2" {
                // root/up leads to /up inside the root, which is itself that link: a loop.
                assert_eq!(result.err(), Some(Errno::ELOOP));
            } else {
                assert!(result.is_ok(), "{path:?}: {result:?}");
                assert!(r.join(made).is_dir(), "{path:?}");
            }
        }
        assert_eq!(make_dir(fd.as_fd(), c"loop/x").err(), Some(Errno::ELOOP));
        assert!(!dir.join("out").exists() && !dir.join("up").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// As if the link had been put there between the first look and the walk.
    #[test]
    fn no_walk_ends_in_procfs_or_at_the_root() {
        let (dir, fd) = root();
        symlink(dir.join("root"), dir.join("back")).unwrap();
        symlink("/proc/sys/kernel", dir.join("settings")).unwrap();
        symlink("/proc/version", dir.join("file")).unwrap();
        let host = OwnedFd::from(std::fs::File::open("/").unwrap());
        let at = |name: &str| CString::new(dir.join(name).into_os_string().into_vec()).unwrap();
        let end = |root: &OwnedFd, path: &CStr, last| walk(root.as_fd(), path, last).map(drop);
        assert_eq!(end(&host, &at("settings"), Last::Directory), Err(Errno::EXDEV));
        assert_eq!(end(&host, &at("file"), Last::File), Err(Errno::EXDEV));
        assert_eq!(end(&host, &at("back"), Last::Directory), Ok(()));
        symlink("/", dir.join("root/whole")).unwrap();
        assert_eq!(end(&fd, c"whole", Last::Directory), Err(Errno::EXDEV));
        assert_eq!(end(&fd, c"a/..", Last::Directory), Err(Errno::EXDEV));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn files_are_made_and_never_truncated() {
        let (dir, fd) = root();
        let r = dir.join("root");
        std::fs::write(r.join("f"), "content").unwrap();
        symlink("/deep/target", r.join("dangling")).unwrap();
        make_file(fd.as_fd(), c"f").unwrap();
        make_file(fd.as_fd(), c"dangling").unwrap();
        make_file(fd.as_fd(), c"p/q").unwrap();
        assert_eq!(std::fs::read(r.join("f")).unwrap(), b"content");
        assert!(r.join("deep/target").is_file() && r.join("p/q").is_file());
        assert_eq!(make_dir(fd.as_fd(), c"f/x").err(), Some(Errno::ENOTDIR));
        assert_eq!(make_parent(fd.as_fd(), c"x/..").err(), Some(Errno::EINVAL));
        assert_eq!(make_parent(fd.as_fd(), c"/new/n").unwrap().1.as_c_str(), c"n");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
