//! The mount calls that work on descriptors (Linux 5.2, 5.12): detached mounts are made, changed and only then
//! attached to a descriptor, so that no path is resolved twice (CVE-2021-30465 and its kin).

use super::{Result, check, raw};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `MOUNT_ATTR_*` of linux/mount.h.
pub mod attr {
    #![allow(missing_docs)]
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    /// The mask of the access time choice; relatime is its zero.
    pub const ATIME: u64 = 0x70;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const IDMAP: u64 = 0x0010_0000;
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

const OPEN_TREE_CLONE: libc::c_uint = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
const FSPICK_CLOEXEC: libc::c_uint = 1;
const FSPICK_EMPTY_PATH: libc::c_uint = 8;

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: called only with a descriptor that the kernel has just returned to this process alone.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// `struct mount_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttr {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear; any change of the access time must clear the whole of [`attr::ATIME`].
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
    pub propagation: u64,
    /// The user namespace of an idmapped mount.
    pub userns_fd: u64,
}

/// A detached copy of the mount at `path`; with `recursive` of all mounts below it too. Uses neither errno nor the heap.
pub fn clone_tree(dir: BorrowedFd, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as libc::c_uint;
    }
    if recursive {
        flags |= AT_RECURSIVE;
    }
    let (dir, path) = (dir.as_raw_fd().into(), path.as_ptr() as libc::c_long);
    // SAFETY: `path` is NUL-terminated and outlives the call.
    unsafe { raw::call(libc::SYS_open_tree, [dir, path, flags.into(), 0, 0]) }.map(owned)
}

/// Changes the mount behind `fd` (Linux 5.12); with `recursive` all mounts below it too. Uses neither errno nor the heap.
pub fn set_attr(fd: BorrowedFd, attr: &MountAttr, recursive: bool) -> Result<()> {
    let mut flags = libc::AT_EMPTY_PATH as libc::c_uint;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    let path = c"".as_ptr() as libc::c_long;
    let (at, size) = (attr as *const MountAttr as libc::c_long, size_of::<MountAttr>() as libc::c_long);
    // SAFETY: `attr` is a live repr(C) mount_attr and its size is given; the path is a static string.
    unsafe { raw::call(libc::SYS_mount_setattr, [fd.as_raw_fd().into(), path, flags.into(), at, size]) }
        .map(drop)
}

/// Lets the owners of files appear as the maps of the user namespace `namespace` say (Linux 5.12). The mount must be a
/// detached one that was never attached.
pub fn set_idmap(fd: BorrowedFd, namespace: BorrowedFd, recursive: bool) -> Result<()> {
    let userns_fd = namespace.as_raw_fd() as u64;
    set_attr(fd, &MountAttr { set: attr::IDMAP, userns_fd, ..MountAttr::default() }, recursive)
}

/// Attaches the detached mount `mount` on the file or directory behind `target`.
pub fn attach(mount: BorrowedFd, target: BorrowedFd) -> Result<()> {
    // SAFETY: both paths are static strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Opens a context for a new instance of the filesystem `fstype`.
pub fn fs_open(fstype: &CStr) -> Result<OwnedFd> {
    // SAFETY: `fstype` is NUL-terminated and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) }).map(owned)
}

/// Opens a context for changing the filesystem that is mounted with its root at `mount`.
pub fn fs_pick(mount: BorrowedFd) -> Result<OwnedFd> {
    // SAFETY: the path is a static string.
    check(unsafe {
        libc::syscall(libc::SYS_fspick, mount.as_raw_fd(), c"".as_ptr(), FSPICK_CLOEXEC | FSPICK_EMPTY_PATH)
    })
    .map(owned)
}

/// Applies what was set in a context of [`fs_pick`] to its filesystem.
pub fn fs_reconfigure(context: BorrowedFd) -> Result<()> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes no key and no value.
    check(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_RECONFIGURE, null, null, 0)
    })
    .map(drop)
}

/// Sets one parameter of a context: a flag when `value` is absent, a string otherwise.
pub fn fs_set(context: BorrowedFd, key: &CStr, value: Option<&CStr>) -> Result<()> {
    let (command, pointer) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, std::ptr::null()),
    };
    // SAFETY: `key` and `value` are NUL-terminated (or null for a flag) and outlive the call.
    check(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key.as_ptr(), pointer, 0)
    })
    .map(drop)
}

/// Makes the superblock and returns it as a detached mount with `attrs` ([`attr`]).
pub fn fs_mount(context: BorrowedFd, attrs: u64) -> Result<OwnedFd> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes no key and no value.
    check(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0)
    })?;
    // SAFETY: no memory is passed.
    check(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attrs as libc::c_uint)
    })
    .map(owned)
}

/// pivot_root(".", "."): the current directory becomes the root, the old root lies over it until it is unmounted.
pub fn pivot_to_cwd() -> Result<()> {
    // SAFETY: both paths are static strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// mount(2) for a change of propagation or a filesystem by path.
pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    fstype: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> Result<()> {
    let pointer = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: every string is NUL-terminated (or null where the kernel allows it) and outlives the call.
    check(unsafe {
        libc::mount(pointer(source), target.as_ptr(), pointer(fstype), flags, pointer(data).cast())
    } as libc::c_long)
    .map(drop)
}

/// Attributes ([`attr`]), as flags of mount(2) and as flags of statfs(2).
const FLAGS: [(u64, libc::c_ulong, libc::c_ulong); 8] = [
    (attr::RDONLY, libc::MS_RDONLY, libc::ST_RDONLY),
    (attr::NOSUID, libc::MS_NOSUID, libc::ST_NOSUID),
    (attr::NODEV, libc::MS_NODEV, libc::ST_NODEV),
    (attr::NOEXEC, libc::MS_NOEXEC, libc::ST_NOEXEC),
    (attr::NOATIME, libc::MS_NOATIME, libc::ST_NOATIME),
    // Of the three choices of access times it is the one without a flag of statfs(2).
    (attr::STRICTATIME, libc::MS_STRICTATIME, 0),
    (attr::NODIRATIME, libc::MS_NODIRATIME, libc::ST_NODIRATIME),
    (attr::NOSYMFOLLOW, MS_NOSYMFOLLOW, ST_NOSYMFOLLOW),
];
/// Linux 5.10.
const MS_NOSYMFOLLOW: libc::c_ulong = 256;
/// linux/statfs.h.
const ST_RELATIME: libc::c_ulong = 0x1000;
const ST_NOSYMFOLLOW: libc::c_ulong = 0x2000;

/// Attributes as the flags of mount(2); none where it does not know one.
pub fn flags_for_mount(attrs: u64) -> Option<libc::c_ulong> {
    let known = FLAGS.iter().filter(|(attr, ..)| attrs & attr != 0);
    let (seen, flags) = known.fold((0, 0), |(seen, flags), (attr, flag, _)| (seen | attr, flags | flag));
    (seen == attrs).then_some(flags)
}

/// The attributes that the mount behind `fd` has, from statfs(2), whose flags are those of the mount.
pub fn attributes(fd: BorrowedFd) -> Result<u64> {
    let flags = flags(fd)?;
    let set = FLAGS.iter().filter(|(.., flag)| flags & flag != 0).fold(0, |set, (attr, ..)| set | attr);
    let strict = flags & (libc::ST_NOATIME | ST_RELATIME) == 0;
    Ok(if strict { set | attr::STRICTATIME } else { set })
}

/// umount2(path, MNT_DETACH).
pub fn detach(path: &CStr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } as libc::c_long).map(drop)
}

/// Takes away a mount point that is a directory of `parent`, and whatever is mounted on it.
pub fn remove_mount_point(parent: BorrowedFd, name: &CStr) -> Result<()> {
    let at = super::fs::openat(parent, name, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", at.as_raw_fd()))
        .map_err(|_| super::Errno::EINVAL)?;
    match detach(&path) {
        // Nothing is mounted there.
        Ok(()) | Err(super::Errno::EINVAL) => {}
        Err(errno) => return Err(errno),
    }
    drop(at);
    nix::unistd::unlinkat(parent, name, nix::unistd::UnlinkatFlags::RemoveDir)
}

/// The `ST_*` flags of the mount that `fd` is on (linux/statfs.h), all that the kernel tells: fstatfs(2).
fn flags(fd: BorrowedFd) -> Result<libc::c_ulong> {
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `stat` is valid for writes of its size.
    check(unsafe { libc::fstatvfs(fd.as_raw_fd(), stat.as_mut_ptr()) }.into())?;
    // SAFETY: the call has filled it.
    Ok(unsafe { stat.assume_init() }.f_flag)
}
