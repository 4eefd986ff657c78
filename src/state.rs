//! The state of containers: one directory an id, with `state.json`, the gate, and the seccomp program for exec.
//!
//! What can be derived is not stored: a container is `created` while its gate is there, `stopped` when its init
//! process is gone, `paused` while its cgroup is frozen, else `running`. state.json is written before anything that
//! would need cleaning up, so that whatever a killed runtime leaves behind can be found by `delete`.

use crate::cgroup;
use crate::notify;
use crate::plan::memory_policy::MemoryPolicy;
use crate::plan::seccomp::Agent;
use crate::resctrl::Group;
use crate::sync::GatePipes;
use crate::sys::{Errno, fs, process};
use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};
use oci_spec::runtime::{ExecCPUAffinity, Hook};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What callers match on a missing container (containerd's shim, CRI-O).
pub const DOES_NOT_EXIST: &str = "container does not exist";
/// What callers match on a container that has ended (containerd's shim, CRI-O).
pub const NOT_RUNNING: &str = "container not running";
/// What callers match on an id in use.
pub const ALREADY_EXISTS: &str = "container with given ID already exists";

const FILE: &CStr = c"state.json";
const NEW_FILE: &CStr = c".state.json";
/// Name of the gate in a state directory.
pub const GATE: &CStr = c"gate";
/// Name of the compiled seccomp program in a state directory.
pub const SECCOMP: &CStr = c"seccomp.bpf";
/// Largest file of a state directory that is read, bytes. Twice a configuration's size: state.json repeats parts of one
/// (annotations, hooks), and a container whose state could not be read could not be deleted.
const FILE_MAX: u64 = 2 * crate::bundle::CONFIG_MAX;
/// Longest id, bytes: it is a file name.
const ID_MAX: usize = 255;

/// What state.json holds.
#[derive(Serialize, Deserialize)]
pub struct State {
    /// Format of this file.
    pub version: u32,
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// Container id.
    pub id: String,
    /// Init process in the runtime's pid namespace; 0 until it exists.
    pub pid: i32,
    /// Its start time (proc_pid_stat(5) field 22), against reuse of the pid; nothing where the next field says it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
    /// The inode of its pidfd, which no other process has between two boots (pidfs, Linux 6.9); the start time alone
    /// counts in hundredths of a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pidfd_inode: Option<u64>,
    /// Read from a tmpfs, so that what it says of the init process is of this boot.
    #[serde(skip)]
    pub of_this_boot: bool,
    /// The runtime that makes it has not seen it ready: as long as that one holds the lock, it is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub making: bool,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root filesystem.
    pub rootfs: PathBuf,
    /// RFC 3339, UTC.
    pub created: String,
    /// `annotations` of the configuration.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
    /// User who made it.
    pub owner: u32,
    /// `CLONE_NEW*` flags of the configured namespaces.
    pub namespaces: i32,
    /// Its pid namespace was given by its path: others are in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joined_pids: bool,
    /// The container has a session keyring of its own.
    pub keyring: bool,
    /// Its processes may look into others of its pid namespace whatever these do (CAP_SYS_PTRACE, no user namespace).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sees_all: bool,
    /// The configuration has no `process`: the container cannot be started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_process: bool,
    /// `linux.personality`, as personality(2) takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<u32>,
    /// `linux.memoryPolicy`, for exec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<Box<MemoryPolicy>>,
    /// `process.execCPUAffinity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<ExecCPUAffinity>,
    /// Who answers for the calls of `SCMP_ACT_NOTIFY` rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Box<Agent>>,
    /// Where the created container waits for `start`, if that is not the socket: its filter forbids accept(2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_pipes: Option<GatePipes>,
    /// Without a mount namespace: the mount on which the root filesystem lay before the container was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mount: Option<u64>,
    /// Where its cgroup is.
    pub cgroup: cgroup::Record,
    /// Its resource control group (`linux.intelRdt`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Group>,
    /// poststart hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// poststop hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// Status as `state` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Being made by a runtime that still runs.
    Creating,
    /// Waiting at the gate.
    Created,
    /// The program runs.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
}

impl Status {
    /// The word of runtime.md "State".
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// Where states are kept.
pub struct Store {
    root: PathBuf,
    /// Given by `--root`.
    explicit: bool,
    /// In a user's runtime directory: what has the sticky bit is not cleaned up there (XDG base directories).
    sticky: bool,
}

/// The state directory of one container.
pub struct Dir {
    fd: OwnedFd,
    parent: OwnedFd,
    name: CString,
}

/// How often a new directory may be taken away before it is locked, and how long others may look into it.
const CLAIMS: u32 = 100;
const CLAIM_TIMEOUT: Duration = Duration::from_secs(5);

impl Store {
    /// The directory of `--root`, or the default one of this user.
    pub fn new(root: Option<&Path>) -> Result<Store> {
        if let Some(root) = root {
            return Ok(Store { root: root.to_path_buf(), explicit: true, sticky: false });
        }
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        let (root, sticky) = match runtime_dir {
            Some(dir) if has_runtime_dir() => (Path::new(&dir).join("naru"), true),
            _ => (PathBuf::from("/run/naru"), false),
        };
        Ok(Store { root, explicit: false, sticky })
    }

    /// Where the directory of a container is.
    pub fn path_of(&self, id: &str) -> Result<PathBuf> {
        let root = std::path::absolute(&self.root).context("find the root of all states")?;
        Ok(root.join(id))
    }

    /// Makes the directory of a new container, locked and with its first state in it.
    pub fn begin(&self, state: &State) -> Result<(Dir, OwnedFd)> {
        for _ in 0..CLAIMS {
            let dir = self.claim(&state.id)?;
            // Between the directory and its lock others may look into it: `delete` takes one without a state away.
            match dir.lock_within(CLAIM_TIMEOUT).and_then(|lock| dir.write(state).map(|()| lock)) {
                Ok(lock) => return Ok((dir, lock)),
                Err(_) if dir.is_gone() => {}
                Err(error) => {
                    // The first error is the one that counts.
                    let _ = dir.remove();
                    return Err(error);
                }
            }
        }
        bail!("{}: the state directory is taken away again and again", state.id)
    }

    /// Makes the directory of a new container, which is what claims the id.
    fn claim(&self, id: &str) -> Result<Dir> {
        check_id(id)?;
        let name = CString::new(id)?;
        let parent = match self.open_root() {
            Err(Errno::ENOENT) => {
                use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.root)
                    .and_then(|()| match self.sticky {
                        true => std::fs::set_permissions(&self.root, PermissionsExt::from_mode(0o1700)),
                        false => Ok(()),
                    })
                    .with_context(|| format!("make directory {}", self.root.display()))?;
                self.open_root()
            }
            other => other,
        }
        .with_context(|| format!("open {}", self.root.display()))?;
        match mkdirat(&parent, name.as_c_str(), Mode::from_bits_truncate(0o711)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => bail!(ALREADY_EXISTS),
            Err(errno) => {
                return Err(errno).with_context(|| format!("make directory {}/{id}", self.root.display()));
            }
        }
        let fd = match open_dir(parent.as_fd(), &name) {
            Ok(fd) => fd,
            Err(errno) => {
                // Nothing else could be done about a directory that cannot even be opened.
                let _ = unlinkat(&parent, name.as_c_str(), UnlinkatFlags::RemoveDir);
                return Err(errno).with_context(|| format!("open {}/{id}", self.root.display()));
            }
        };
        Ok(Dir { fd, parent, name })
    }

    /// Opens the directory of a container.
    pub fn open(&self, id: &str) -> Result<Dir> {
        check_id(id)?;
        let name = CString::new(id)?;
        let parent = match self.open_root() {
            Err(Errno::ENOENT) => bail!(DOES_NOT_EXIST),
            other => other.with_context(|| format!("open {}", self.root.display()))?,
        };
        match open_dir(parent.as_fd(), &name) {
            Ok(fd) => Ok(Dir { fd, parent, name }),
            Err(Errno::ENOENT) => bail!(DOES_NOT_EXIST),
            Err(errno) => Err(errno).with_context(|| format!("open {}/{id}", self.root.display())),
        }
    }

    /// Opens a container and reads its state.
    pub fn load(&self, id: &str) -> Result<(Dir, State)> {
        let dir = self.open(id)?;
        let mut state = dir.read()?;
        if state.pid == 0 {
            match dir.lock() {
                // Whoever made it was done before this, perhaps after it was read.
                Ok(_lock) => state = dir.read()?,
                Err(_) => state.making = true,
            }
        }
        Ok((dir, state))
    }

    /// The ids of all containers, sorted. A missing default directory holds none.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.explicit => {
                return Ok(Vec::new());
            }
            other => other.with_context(|| format!("open {}", self.root.display()))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", self.root.display()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Ok(id) = entry.file_name().into_string()
            {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn open_root(&self) -> crate::sys::Result<OwnedFd> {
        let path = CString::new(self.root.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
        fs::open(&path, libc::O_PATH | libc::O_DIRECTORY, 0)
    }
}

/// Is `$XDG_RUNTIME_DIR` for this user's states? Not for the host's root; but for who is root of a user namespace only,
/// unless the environment says otherwise (runc has the same rule).
fn has_runtime_dir() -> bool {
    !process::is_root()
        || std::env::var_os("USER").is_none_or(|user| user != "root") && cgroup::in_user_namespace()
}

fn open_dir(parent: BorrowedFd, name: &CStr) -> crate::sys::Result<OwnedFd> {
    fs::openat(parent, name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)
}

impl Dir {
    /// The directory itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Does it lie on a tmpfs, so that nothing in it is from before the last boot?
    fn is_of_this_boot(&self) -> bool {
        fstatfs(&self.fd).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC)
    }

    /// Has somebody else removed it, whatever stands in its place now?
    pub fn is_gone(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Holds the lock under which a container is made or deleted; gives up at once if somebody else has it.
    /// It is let go when the descriptor is closed, in this process and in the init stage that inherits it.
    pub fn lock(&self) -> Result<OwnedFd> {
        let lock = open_dir(self.parent.as_fd(), &self.name).context("open the state directory")?;
        match fs::lock(lock.as_fd()) {
            Ok(()) => Ok(lock),
            Err(errno) => Err(errno).context("container is being created or deleted by another process"),
        }
    }

    /// The same, waiting for a while. Pauses grow from 0.2 to 10 ms: the kernel has no such wait with a deadline.
    pub fn lock_within(&self, timeout: Duration) -> Result<OwnedFd> {
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_micros(200);
        loop {
            match self.lock() {
                Err(error) if error.downcast_ref() == Some(&Errno::EAGAIN) && Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(10));
                }
                other => return other,
            }
        }
    }

    /// Writes state.json: a new file moved over the old one. Not synced: state does not outlive a reboot.
    pub fn write(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state).context("write state.json")?;
        self.put(FILE, NEW_FILE, &text).context("write state.json")
    }

    /// Writes state.json for a container that is being made, and what it shall be once [`Dir::made`] is called.
    pub fn write_making(&self, state: &mut State) -> Result<()> {
        state.making = true;
        let written = self.write(state);
        state.making = false;
        written?;
        let text = serde_json::to_vec(state).context("write state.json")?;
        self.put(NEW_FILE, NEW_FILE, &text).context("write state.json")
    }

    /// The container is made: what was written for that moment holds.
    pub fn made(&self) -> Result<()> {
        nix::fcntl::renameat(&self.fd, NEW_FILE, &self.fd, FILE).context("write state.json")
    }

    /// Puts a small file in the directory.
    pub fn put(&self, name: &CStr, temporary: &CStr, content: &[u8]) -> crate::sys::Result<()> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
        let file = fs::openat(self.fd(), temporary, flags, 0o600)?;
        let mut file = std::fs::File::from(file);
        file.write_all(content)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        if name != temporary {
            nix::fcntl::renameat(&self.fd, temporary, &self.fd, name)?;
        }
        Ok(())
    }

    /// Reads a small file of the directory.
    pub fn get(&self, name: &CStr) -> crate::sys::Result<Vec<u8>> {
        let file = fs::openat(self.fd(), name, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)?;
        let stat = fstat(&file)?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(Errno::EINVAL);
        }
        // One byte more than its size, so that one read and the end of file are all.
        let mut content = Vec::with_capacity((stat.st_size as u64).min(FILE_MAX) as usize + 1);
        std::fs::File::from(file)
            .take(FILE_MAX + 1)
            .read_to_end(&mut content)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        if content.len() as u64 > FILE_MAX {
            return Err(Errno::EFBIG);
        }
        Ok(content)
    }

    /// Reads state.json.
    pub fn read(&self) -> Result<State> {
        match self.get(FILE) {
            Ok(text) => Ok(State { of_this_boot: self.is_of_this_boot(), ..parse(&text)? }),
            // A directory that a killed runtime left before it wrote anything.
            Err(Errno::ENOENT) => bail!(DOES_NOT_EXIST),
            Err(errno) => Err(errno).context("read state.json"),
        }
    }

    /// Is the gate there: has nobody started the container yet?
    pub fn has_gate(&self) -> bool {
        fstatat(&self.fd, GATE, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Takes the gate away: the container counts as started.
    pub fn remove_gate(&self) -> crate::sys::Result<()> {
        unlinkat(&self.fd, GATE, UnlinkatFlags::NoRemoveDir)
    }

    /// A path for a socket in this directory that fits sun_path (108 bytes) whatever the directory's own length.
    pub fn socket_path(&self, name: &CStr) -> String {
        format!("/proc/self/fd/{}/{}", self.fd.as_raw_fd(), name.to_string_lossy())
    }

    /// Removes the directory and every file in it.
    pub fn remove(&self) -> Result<()> {
        match unlinkat(&self.fd, FILE, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            // Nobody but root can have put a directory there; an empty one goes.
            Err(Errno::EISDIR) => {
                unlinkat(&self.fd, FILE, UnlinkatFlags::RemoveDir).context("remove the state directory")?
            }
            Err(errno) => return Err(errno).context("remove the state directory"),
        }
        let remove_dir = || unlinkat(&self.parent, self.name.as_c_str(), UnlinkatFlags::RemoveDir);
        let mut removed = remove_dir();
        // Mostly it is one of these, the first after a start. To look what there is takes longer, and a descriptor, which a
        // create that failed for want of them has not, as long as the process beside it is at work.
        for name in [SECCOMP, GATE, NEW_FILE] {
            if removed == Err(Errno::ENOTEMPTY)
                && unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir).is_ok()
            {
                removed = remove_dir();
            }
        }
        match removed {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::ENOTEMPTY) => self.remove_rest(),
            Err(errno) => Err(errno).context("remove the state directory"),
        }
    }

    /// Makes the directory for the notify socket (notify.rs), which users of the container may enter.
    pub fn make_notify_directory(&self) -> crate::sys::Result<()> {
        mkdirat(&self.fd, notify::DIRECTORY, Mode::from_bits_truncate(0o755))
    }

    /// Was the container made with such a directory?
    pub fn has_notify_directory(&self) -> bool {
        fstatat(&self.fd, notify::DIRECTORY, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// The container sees it read-only, so that nothing but the socket can be in there.
    fn remove_notify_directory(&self) -> Result<()> {
        let dir = open_dir(self.fd.as_fd(), notify::DIRECTORY).context("remove the notify socket")?;
        match unlinkat(&dir, notify::SOCKET, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context("remove the notify socket"),
        }
        unlinkat(&self.fd, notify::DIRECTORY, UnlinkatFlags::RemoveDir).context("remove the notify socket")
    }

    /// Removes what else is there: the directory of the notify socket, what a killed command has left.
    fn remove_rest(&self) -> Result<()> {
        let mut dir =
            nix::dir::Dir::openat(&self.fd, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        for entry in dir.iter() {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            match unlinkat(&self.fd, entry.file_name(), UnlinkatFlags::NoRemoveDir) {
                Err(Errno::EISDIR) if entry.file_name() == notify::DIRECTORY => {
                    self.remove_notify_directory()?;
                }
                // The root that a killed restore has bound for CRIU.
                Err(Errno::EISDIR | Errno::EBUSY) => {
                    crate::sys::mount::remove_mount_point(self.fd(), entry.file_name())?;
                }
                other => other?,
            }
        }
        unlinkat(&self.parent, self.name.as_c_str(), UnlinkatFlags::RemoveDir)
            .context("remove the state directory")
    }
}

impl State {
    /// Records who the init process is, for a file in `dir`. What ended before anybody could look, and is not reaped, has start
    /// time 0.
    pub fn set_init(&mut self, dir: &Dir, pid: i32, pidfd: BorrowedFd) -> Result<()> {
        self.pid = pid;
        self.pidfd_inode = Some(process::pidfd_inode(pidfd).context("look at the init process")?);
        // Reading it from procfs is 40 us.
        let said = dir.is_of_this_boot() && process::is_on_pidfs(pidfd);
        self.start_time = if said { None } else { Some(start_time(pid)?.unwrap_or(0)) };
        Ok(())
    }

    /// The init process, if it lives: only a pidfd of the recorded inode is it, or one whose process has the recorded start
    /// time where inodes do not tell.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        if self.pid <= 0 {
            return Ok(None);
        }
        let pidfd = match process::pidfd_open(self.pid) {
            Ok(pidfd) => pidfd,
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
            Err(errno) => return Err(errno).with_context(|| format!("open process {}", self.pid)),
        };
        if let Some(recorded) = self.pidfd_inode {
            if process::pidfd_inode(pidfd.as_fd()).context("look at the init process")? != recorded {
                return Ok(None);
            }
            // Nobody else can have that one, so the start time says nothing more, and may not have been asked for.
            if self.start_time.is_none() || self.of_this_boot && process::is_on_pidfs(pidfd.as_fd()) {
                return Ok((!process::has_ended(pidfd.as_fd())).then_some(pidfd));
            }
        }
        match start_time(self.pid) {
            Ok(Some(start_time)) if Some(start_time) == self.start_time => Ok(Some(pidfd)),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The status now, and the init process if it lives. While the container is made its first process is no place to enter:
    /// it has the host's mounts still.
    pub fn status(&self, dir: &Dir) -> Result<(Status, Option<OwnedFd>)> {
        if self.making && (self.pid == 0 || dir.lock().is_err()) {
            return Ok((Status::Creating, self.init()?));
        }
        self.status_locked(dir)
    }

    /// Is SIGKILL of its first process not the end of all others?
    pub fn shares_pids(&self) -> bool {
        self.joined_pids || self.namespaces & libc::CLONE_NEWPID == 0
    }

    /// The same for a caller that holds the lock: nobody is making the container.
    pub fn status_locked(&self, dir: &Dir) -> Result<(Status, Option<OwnedFd>)> {
        let Some(init) = self.init()? else { return Ok((Status::Stopped, None)) };
        let status = if self.cgroup.is_frozen().unwrap_or(false) {
            Status::Paused
        } else if dir.has_gate() {
            Status::Created
        } else {
            Status::Running
        };
        Ok((status, Some(init)))
    }

    /// Takes the root off again that a container without a mount namespace has left in the runtime's, with all that is
    /// mounted below. What lies there and was there before stays.
    pub fn unmount_root(&self) -> Result<()> {
        match self.root_mount {
            Some(before) => {
                let rootfs = crate::plan::c_path(&self.rootfs, "/root/path")?;
                unmount_root(&rootfs, before).with_context(|| format!("unmount {}", self.rootfs.display()))
            }
            None => Ok(()),
        }
    }

    /// What hooks are told.
    pub fn for_hooks(&self) -> crate::hooks::HookState {
        crate::hooks::HookState {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            bundle: self.bundle.to_string_lossy().into_owned(),
            annotations: self.annotations.clone(),
        }
    }
}

/// Detaches what is mounted on `rootfs` since its mount was `before`.
pub fn unmount_root(rootfs: &CStr, before: u64) -> crate::sys::Result<()> {
    match fs::mount_id(rootfs) {
        Ok(now) if now != before => crate::sys::mount::detach(rootfs),
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A state from its text.
pub fn parse(text: &[u8]) -> Result<State> {
    use serde::de::Error;
    let text = std::str::from_utf8(text).map_err(serde_json::Error::custom);
    text.and_then(serde_json::from_str).context("parse state.json")
}

/// Start time of a process in clock ticks since boot; nothing if it is gone or has ended and waits to be reaped.
pub fn start_time(pid: i32) -> Result<Option<u64>> {
    let mut buf = [0; 1024];
    let Some(length) = read_stat(pid, &mut buf)? else { return Ok(None) };
    parse_stat(&buf[..length]).with_context(|| format!("read /proc/{pid}/stat"))
}

/// Has a signal stopped the process? A debugger's stops do not count.
pub fn is_stopped(pid: i32) -> bool {
    let mut buf = [0; 1024];
    let Ok(Some(length)) = read_stat(pid, &mut buf) else { return false };
    let name_end = buf[..length].iter().rposition(|&byte| byte == b')');
    name_end.is_some_and(|end| buf[end..length].starts_with(b") T"))
}

/// Reads `/proc/PID/stat`; nothing where there is no such process.
fn read_stat(pid: i32, buf: &mut [u8]) -> Result<Option<usize>> {
    let path = CString::new(format!("/proc/{pid}/stat"))?;
    let file = match fs::open(&path, libc::O_RDONLY, 0) {
        Ok(file) => file,
        Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
        Err(errno) => return Err(errno).with_context(|| format!("open /proc/{pid}/stat")),
    };
    match fs::read(file.as_fd(), buf) {
        Ok(length) => Ok(Some(length)),
        Err(Errno::ESRCH) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("read /proc/{pid}/stat")),
    }
}

/// The start time, as [`start_time`] returns it, from the text of `/proc/PID/stat`.
pub fn parse_stat(text: &[u8]) -> Result<Option<u64>> {
    use procfs::FromRead;
    // The crate cuts out the name by bytes and panics where what the kernel writes around it is not there.
    let (open, close) =
        (text.iter().position(|&byte| byte == b'('), text.iter().rposition(|&byte| byte == b')'));
    let whole = matches!((open, close), (Some(open), Some(close)) if open < close
        && matches!(text[..open], [b'0'..=b'9', .., b' '])
        && matches!(text[close..], [_, b' ', b'A'..=b'Z' | b'a'..=b'z', ..]));
    if !whole {
        bail!("not a line about a process");
    }
    let stat = procfs::process::Stat::from_read(text).map_err(|error| anyhow!("{error}"))?;
    Ok((!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime))
}

/// `[A-Za-z0-9_+.-]+`, but not `.` or `..`: the id becomes a file name.
pub fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        bail!("container id cannot be empty");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    if matches!(id, "." | "..") || id.len() > ID_MAX || !id.bytes().all(allowed) {
        bail!("invalid container ID format: {id:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "c1", "a_b+c.d-e", "...", "0"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "a\0", &"x".repeat(256)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_state_is_as_large_as_any_configuration_makes_it_and_no_larger() {
        let root = std::env::temp_dir().join(format!("naru-state-{}", std::process::id()));
        let dir = Store::new(Some(&root)).unwrap().claim("c1").unwrap();
        let content = vec![b' '; crate::bundle::CONFIG_MAX as usize + 4096];
        dir.put(FILE, NEW_FILE, &content).unwrap();
        assert!(dir.read().err().unwrap().to_string().starts_with("parse state.json"));
        std::fs::File::options()
            .write(true)
            .open(root.join("c1/state.json"))
            .unwrap()
            .set_len(FILE_MAX + 1)
            .unwrap();
        assert_eq!(dir.read().err().unwrap().downcast_ref(), Some(&Errno::EFBIG));
        dir.remove().unwrap();
        std::fs::remove_dir(root).unwrap();
    }

    #[test]
    fn a_name_in_proc_stat_is_any_bytes() {
        let line = |name: &[u8], state: u8| {
            let rest = b" 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 100 5 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 \
                0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
            parse_stat(&[b"77 (", name, b") ", &[state], &rest[..]].concat()).unwrap()
        };
        for name in [&b"sh"[..], b") S 1 (", b"\xff\xfe", b"a\nb", b""] {
            assert_eq!((line(name, b'S'), line(name, b'Z')), (Some(4242), None), "{name:?}");
        }
        for text in
            ["", "(", ")", "(a) S", " (a) S 1", "77\u{fffd}(a) S 1", "77 )(", "77 (a)", "77 (a) ", "77 (a) S"]
        {
            assert!(parse_stat(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_start_time_is_kept_where_an_inode_could_come_again() {
        let own = std::process::id() as i32;
        let pidfd = process::pidfd_open(own).unwrap();
        for base in [std::env::temp_dir(), "/dev/shm".into(), env!("CARGO_MANIFEST_DIR").into()] {
            let root = base.join(format!("naru-start-time-{own}"));
            let Ok(dir) = Store::new(Some(&root)).unwrap().claim("c1") else {
                println!("SKIP: no directory in {}", base.display());
                continue;
            };
            let mut state = parse(include_bytes!("../fuzz/corpus/state/small")).unwrap();
            state.set_init(&dir, own, pidfd.as_fd()).unwrap();
            state.of_this_boot = dir.is_of_this_boot();
            let said = state.of_this_boot && process::is_on_pidfs(pidfd.as_fd());
            assert_eq!(state.start_time.is_none(), said, "{}", base.display());
            assert!(state.init().unwrap().is_some());
            // Where that cannot be found out again.
            state.of_this_boot = false;
            assert!(state.init().unwrap().is_some());
            let inode = state.pidfd_inode;
            state.pidfd_inode = inode.map(|inode| inode + 1);
            assert!(state.init().unwrap().is_none());
            // After a reboot the inode may be another process's.
            (state.pidfd_inode, state.of_this_boot, state.start_time) = (inode, false, Some(1));
            assert!(state.init().unwrap().is_none());
            dir.remove().unwrap();
            std::fs::remove_dir(root).unwrap();
        }
    }

    #[test]
    fn own_start_time_is_known_and_a_free_pid_has_none() {
        assert!(start_time(std::process::id() as i32).unwrap().is_some());
        assert_eq!(start_time(i32::MAX).unwrap(), None);
    }
}
