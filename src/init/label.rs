//! Security labels that the program gets when it is executed: AppArmor's profile, SELinux' label and that of the keyring.
//!
//! The kernel is told by a call of its own (Linux 6.8). Before, it is a file of procfs; a label written anywhere else is no
//! protection, so that is opened below a procfs that has proved to be one, without following a link or crossing a mount
//! (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).

use super::{Outcome, path};
use crate::plan::process::Process;
use crate::sync::{At, Step};
use crate::sys::{Errno, Result, fs, lsm, mount};
use nix::sys::stat::fstat;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Inode of the root of every procfs (`PROC_ROOT_INO`).
const PROC_ROOT_INO: u64 = 1;

/// A module's attribute: by number, and its files below `/proc/PID`.
struct Attribute {
    module: u64,
    number: u32,
    /// The module's own file, where the kernel has several modules in force.
    own: &'static CStr,
    shared: &'static CStr,
}

const APPARMOR_EXEC: Attribute =
    Attribute { module: lsm::APPARMOR, number: lsm::EXEC, own: c"attr/apparmor/exec", shared: c"attr/exec" };
const SELINUX_EXEC: Attribute =
    Attribute { module: lsm::SELINUX, number: lsm::EXEC, own: c"attr/selinux/exec", shared: c"attr/exec" };
const SELINUX_KEY: Attribute = Attribute {
    module: lsm::SELINUX,
    number: lsm::KEY_CREATE,
    own: c"attr/selinux/keycreate",
    shared: c"attr/keycreate",
};

/// Sets the labels of the next execve.
pub fn set(init: &Process) -> Outcome {
    if let Some(profile) = &init.apparmor {
        give(&APPARMOR_EXEC, profile.to_bytes()).at(Step::Label)?;
    }
    if let Some(label) = &init.selinux {
        give(&SELINUX_EXEC, label.to_bytes()).at_index(Step::Label, 1)?;
    }
    Ok(())
}

/// Makes a session keyring in `make` that the program may use: under SELinux it has the program's label.
pub fn with_key_label(init: &Process, make: impl FnOnce() -> Result<()>) -> Outcome {
    let Some(label) = &init.selinux else { return make().at(Step::Keyring) };
    give(&SELINUX_KEY, label.to_bytes()).at_index(Step::Label, 2)?;
    make().at(Step::Keyring)?;
    give(&SELINUX_KEY, b"").at_index(Step::Label, 2)
}

fn give(attribute: &Attribute, value: &[u8]) -> Result<()> {
    match lsm::set_self(attribute.module, attribute.number, value) {
        Err(Errno::ENOSYS) => write(own_directory()?.as_fd(), attribute, value),
        other => other,
    }
}

/// This process's directory in the procfs at `/proc`, whosever that is, or in one of our own.
fn own_directory() -> Result<OwnedFd> {
    let at_proc = fs::open(c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0);
    match at_proc.and_then(|procfs| own_directory_in(procfs.as_fd())) {
        Err(_) => {
            let own = mount::fs_open(c"proc")?;
            let attrs = mount::attr::NOSUID | mount::attr::NODEV | mount::attr::NOEXEC;
            own_directory_in(mount::fs_mount(own.as_fd(), attrs)?.as_fd())
        }
        found => found,
    }
}

fn own_directory_in(procfs: BorrowedFd) -> Result<OwnedFd> {
    if !path::is_procfs(procfs)? || fstat(procfs)?.st_ino != PROC_ROOT_INO {
        return Err(Errno::ENODEV);
    }
    // Its process ids need not be those of our own namespace.
    let number = nix::fcntl::readlinkat(procfs, c"self")?;
    let number = CString::new(number.as_bytes()).map_err(|_| Errno::EINVAL)?;
    fs::openat2(procfs, &number, libc::O_PATH | libc::O_DIRECTORY, 0, fs::BENEATH)
}

fn write(task: BorrowedFd, attribute: &Attribute, value: &[u8]) -> Result<()> {
    let open = |name| fs::openat2(task, name, libc::O_WRONLY, 0, fs::BENEATH);
    let file = match open(attribute.own) {
        Err(Errno::ENOENT) => open(attribute.shared)?,
        other => other?,
    };
    fs::write_once(file.as_fd(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_real_procfs_will_do() {
        let task = own_directory().unwrap();
        // Which label the kernel takes depends on its modules; that the file is there does not.
        assert!(fs::openat2(task.as_fd(), c"attr/exec", libc::O_WRONLY, 0, fs::BENEATH).is_ok());
        let stat = fs::openat2(task.as_fd(), c"stat", libc::O_RDONLY, 0, fs::BENEATH).unwrap();
        let mut text = [0; 64];
        let length = fs::read(stat.as_fd(), &mut text).unwrap();
        assert!(text[..length].starts_with(format!("{} ", std::process::id()).as_bytes()));
        for other in [c"/proc/self", c"/tmp", c"/sys"] {
            let fd = fs::open(other, libc::O_PATH | libc::O_DIRECTORY, 0).unwrap();
            assert_eq!(own_directory_in(fd.as_fd()).err(), Some(Errno::ENODEV), "{other:?}");
        }
    }

    #[test]
    fn the_file_of_the_module_comes_first() {
        let dir = std::env::temp_dir().join(format!("naru-label-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("attr/apparmor")).unwrap();
        for name in ["attr/apparmor/exec", "attr/exec", "attr/keycreate"] {
            std::fs::write(dir.join(name), "").unwrap();
        }
        let fd = OwnedFd::from(std::fs::File::open(&dir).unwrap());
        write(fd.as_fd(), &APPARMOR_EXEC, b"first").unwrap();
        write(fd.as_fd(), &SELINUX_EXEC, b"second").unwrap();
        write(fd.as_fd(), &SELINUX_KEY, b"third").unwrap();
        let text = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!((text("attr/apparmor/exec"), text("attr/exec")), ("first".into(), "second".into()));
        assert_eq!(text("attr/keycreate"), "third");
        // A link in its place is not followed.
        std::fs::remove_file(dir.join("attr/exec")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("attr/exec")).unwrap();
        assert_eq!(write(fd.as_fd(), &SELINUX_EXEC, b"x").err(), Some(Errno::ELOOP));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_module_that_is_not_in_force_takes_nothing() {
        if !crate::lsm::has_selinux() {
            let errno = lsm::set_self(lsm::SELINUX, lsm::EXEC, b"a:b:c").unwrap_err();
            assert!(matches!(errno, Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM), "{errno}");
        }
    }
}
