//! openat2(2) where there is none: before Linux 5.6, or behind a filter that does not know it and answers `EPERM`
//! (older Docker around us). One component at a time by handles, never by comparing strings: what somebody renames
//! meanwhile is still found below the directory that we hold. Slower, hence only for that case; called by `fs::openat2`.

use super::{Errno, Result, fs};
use nix::sys::stat::fstat;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// As many links as the kernel follows in one look-up.
const LINKS_MAX: u32 = 40;

/// Opens `path` below `dir` with the rules of `RESOLVE_IN_ROOT` or `RESOLVE_BENEATH`; magic links are refused always.
/// `RESOLVE_NO_XDEV` goes by the device number: a bind mount within one filesystem does not show.
pub fn open(dir: BorrowedFd, path: &CStr, flags: i32, resolve: u64) -> Result<OwnedFd> {
    let bytes = path.to_bytes();
    let beneath = resolve & libc::RESOLVE_BENEATH != 0;
    if flags & libc::O_CREAT != 0 || !beneath && resolve & libc::RESOLVE_IN_ROOT == 0 {
        return Err(Errno::ENOSYS);
    }
    if bytes.is_empty() {
        return Err(Errno::ENOENT);
    }
    if beneath && bytes[0] == b'/' {
        return Err(Errno::EXDEV);
    }
    let device = fstat(dir)?.st_dev;
    let mut todo = components(bytes)?;
    // Handles from the root down to the current directory: `..` goes back by dropping one.
    let mut stack = vec![fs::openat(dir, c".", libc::O_PATH | libc::O_DIRECTORY, 0)?];
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        let current = stack.last().map(AsFd::as_fd).ok_or(Errno::ENOENT)?;
        match name.to_bytes() {
            b"." => continue,
            b".." if stack.len() > 1 => {
                stack.pop();
                continue;
            }
            b".." if beneath => return Err(Errno::EXDEV),
            b".." => continue,
            _ => {}
        }
        let found = fs::openat(current, &name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
        let stat = fstat(&found)?;
        if resolve & libc::RESOLVE_NO_XDEV != 0 && stat.st_dev != device {
            return Err(Errno::EXDEV);
        }
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFLNK if todo.is_empty() && flags & libc::O_NOFOLLOW != 0 => {
                return if flags & libc::O_PATH != 0 && flags & libc::O_DIRECTORY == 0 {
                    Ok(found)
                } else {
                    Err(if flags & libc::O_DIRECTORY != 0 { Errno::ENOTDIR } else { Errno::ELOOP })
                };
            }
            libc::S_IFLNK => {
                links += 1;
                if links > LINKS_MAX || resolve & libc::RESOLVE_NO_SYMLINKS != 0 {
                    return Err(Errno::ELOOP);
                }
                let target = nix::fcntl::readlinkat(&found, "")?;
                let target = target.as_bytes();
                // The plain links of procfs (`self`, `mounts`, `net`) are relative; the magic ones have a path or `net:[..]`.
                let magic = target.first() == Some(&b'/') || target.contains(&b':');
                if magic
                    && nix::sys::statfs::fstatfs(&found)?.filesystem_type()
                        == nix::sys::statfs::PROC_SUPER_MAGIC
                {
                    return Err(Errno::ELOOP);
                }
                if target.first() == Some(&b'/') {
                    if beneath {
                        return Err(Errno::EXDEV);
                    }
                    stack.truncate(1);
                }
                let mut next = components(target)?;
                next.append(&mut todo);
                todo = next;
            }
            libc::S_IFDIR => stack.push(found),
            _ if !todo.is_empty() || flags & libc::O_DIRECTORY != 0 => return Err(Errno::ENOTDIR),
            _ if flags & libc::O_PATH != 0 => return Ok(found),
            // By its name again: whoever puts a link there now gets ELOOP.
            _ => return fs::openat(current, &name, flags | libc::O_NOFOLLOW, 0),
        }
    }
    let last = stack.pop().ok_or(Errno::ENOENT)?;
    if flags & libc::O_PATH != 0 {
        Ok(last)
    } else {
        fs::openat(last.as_fd(), c".", flags & !libc::O_NOFOLLOW, 0)
    }
}

/// The parts of a path; a slash at its end asks for a directory, which a last `.` does, too.
fn components(path: &[u8]) -> Result<VecDeque<CString>> {
    let mut list: VecDeque<CString> = VecDeque::new();
    for part in path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        list.push_back(CString::new(part).map_err(|_| Errno::EINVAL)?);
    }
    if path.ends_with(b"/") {
        list.push_back(c".".into());
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Both must find the same file, or fail alike.
    #[test]
    fn it_does_what_the_kernel_does() {
        let dir = std::env::temp_dir().join(format!("naru-lookup-{}", std::process::id()));
        let root = dir.join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/f"), "x").unwrap();
        std::fs::write(dir.join("outside"), "x").unwrap();
        for (name, target) in [
            ("abs", "/a"),
            ("up", "../../../../a/f"),
            ("chain", "abs/b"),
            ("out", "../outside"),
            ("loop", "loop"),
            ("gone", "nowhere"),
            ("file", "a/f"),
            ("slash", "a/b/"),
            ("fileslash", "a/f/"),
            ("root", "/"),
            ("dots", "a/../a/./b/.."),
        ] {
            symlink(target, root.join(name)).unwrap();
        }
        symlink("/proc/self/fd/0", root.join("a/magic")).unwrap();
        let fd: OwnedFd = std::fs::File::open(&root).unwrap().into();
        let names = [
            "a",
            "a/",
            "a/.",
            "a/b/..",
            "a/f",
            "a/f/",
            "a/f/.",
            "a/f/..",
            "abs",
            "abs/",
            "abs/f",
            "abs/b",
            "up",
            "chain",
            "out",
            "loop",
            "gone",
            "gone/x",
            "file",
            "file/",
            "slash",
            "fileslash",
            "root",
            "root/a",
            "dots",
            "dots/f",
            ".",
            "..",
            "../..",
            "../a/f",
            "/",
            "/a",
            "//a//f",
            "/../a",
            "missing",
            "a/missing",
            "",
            "a/magic",
            "./a/../abs/f",
        ];
        let beneath = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
        for name in names {
            let path = CString::new(name).unwrap();
            for flags in [
                libc::O_PATH,
                libc::O_PATH | libc::O_NOFOLLOW,
                libc::O_PATH | libc::O_DIRECTORY,
                libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW,
                libc::O_RDONLY,
                libc::O_RDONLY | libc::O_NOFOLLOW,
            ] {
                for resolve in [fs::IN_ROOT, fs::IN_ROOT | libc::RESOLVE_NO_SYMLINKS, beneath, fs::BENEATH] {
                    let inode = |fd: OwnedFd| fstat(&fd).unwrap().st_ino;
                    let kernel = fs::openat2_kernel(fd.as_fd(), &path, flags, 0, resolve).map(inode);
                    let own = open(fd.as_fd(), &path, flags, resolve).map(inode);
                    assert_eq!(own, kernel, "{name:?} flags {flags:o} resolve {resolve:x}");
                }
            }
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn magic_links_are_refused_and_plain_ones_are_not() {
        let proc: OwnedFd = std::fs::File::open("/proc").unwrap().into();
        for (name, refused) in
            [("self/exe", true), ("self/fd/0", true), ("self/ns/net", true), ("mounts", false)]
        {
            let path = CString::new(name).unwrap();
            let kernel = fs::openat2_kernel(proc.as_fd(), &path, libc::O_PATH, 0, fs::IN_ROOT);
            let own = open(proc.as_fd(), &path, libc::O_PATH, fs::IN_ROOT);
            assert_eq!((own.is_err(), kernel.is_err()), (refused, refused), "{name}");
        }
    }
}
