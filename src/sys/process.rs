//! Processes: clone, identity, capabilities, exec.

use super::{Errno, Result, check};
#[cfg(not(any(test, fuzzing)))]
use std::cell::UnsafeCell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// `CLONE_INTO_CGROUP`, Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_NEWTIME`.
pub const CLONE_NEWTIME: i32 = 0x80;

/// What [`clone3`] returned.
pub enum Cloned {
    /// In the new process.
    Child,
    /// In the caller: the child's process id in the caller's namespace, and its pidfd.
    Parent(i32, OwnedFd),
}

/// Where clone3(2) stores a pidfd. On the stack, whose pages the fork has just marked to be copied, the kernel would copy one
/// before the child may run, and interrupt the other processor for that; on a page that nobody has written to yet it does not.
#[cfg(not(any(test, fuzzing)))]
#[repr(C, align(4096))]
struct Born(UnsafeCell<RawFd>);

// SAFETY: only `clone3` uses it, in a process of one thread.
#[cfg(not(any(test, fuzzing)))]
unsafe impl Sync for Born {}

// SAFETY: a section of zero pages like .bss, by the one other name that the compiler takes for one (hack/layout.ld).
#[cfg(not(any(test, fuzzing)))]
#[unsafe(link_section = ".llvm.linkonce.b.naru.born")]
static BORN: Born = Born(UnsafeCell::new(0));

/// Forks with `flags` (namespaces), straight into the cgroup v2 directory `cgroup` if given (Linux 5.7).
///
/// The child gets a copy of the caller's memory, so both sides go on as after fork(2); the caller must have one
/// thread only, because the C library's own fork handlers do not run.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd>) -> Result<Cloned> {
    #[cfg(not(any(test, fuzzing)))]
    let pidfd = BORN.0.get();
    // Tests are threads.
    #[cfg(any(test, fuzzing))]
    let pidfd: *mut RawFd = Box::leak(Box::new(-1));
    // SAFETY: clone_args is plain data for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = pidfd as u64;
    // A sibling gets the caller's own, and the kernel refuses any other.
    args.exit_signal = if flags & libc::CLONE_PARENT as u64 != 0 { 0 } else { libc::SIGCHLD as u64 };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is initialised and its size is given; no CLONE_VM, so the child runs on its own copy of this
    // stack; this program has no other thread that could hold a lock (design rule: no threads before the last fork), and the
    // process of `ahead`, which may share this memory, takes none.
    let pid =
        match check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })
        {
            // Before Linux 5.3, or behind a filter, which cannot look into what clone3 is given and so often forbids it.
            Err(Errno::ENOSYS | Errno::EPERM) => clone2(flags, cgroup, pidfd),
            other => other,
        }?;
    super::alloc::leave_to_fork();
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: CLONE_PIDFD made the kernel store a new descriptor (close-on-exec) here.
    Ok(Cloned::Parent(pid as i32, unsafe { OwnedFd::from_raw_fd(*pidfd) }))
}

/// clone(2), which knows neither cgroups (`EOPNOTSUPP`) nor time namespaces (`EINVAL`).
#[cfg(target_arch = "x86_64")]
fn clone2(flags: u64, cgroup: Option<BorrowedFd>, pidfd: *mut RawFd) -> Result<libc::c_long> {
    if cgroup.is_some() {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & CLONE_NEWTIME as u64 != 0 {
        return Err(Errno::EINVAL);
    }
    let flags = flags | (libc::CLONE_PIDFD | libc::SIGCHLD) as u64;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: as for clone3: no CLONE_VM, so the child runs on its own copy of this stack; `pidfd` is where CLONE_PIDFD
    // stores the descriptor; the other pointers are not used with these flags.
    check(unsafe { libc::syscall(libc::SYS_clone, flags, none, pidfd, none, none) })
}

/// The order of clone(2)'s arguments differs elsewhere, and such kernels are newer.
#[cfg(not(target_arch = "x86_64"))]
fn clone2(_: u64, _: Option<BorrowedFd>, _: *mut RawFd) -> Result<libc::c_long> {
    Err(Errno::ENOSYS)
}

/// fork(2) by clone3: a copy of this process that enters a namespace in its place.
pub fn fork() -> Result<Cloned> {
    clone3(0, None)
}

/// Opens a pidfd (Linux 5.3), close-on-exec.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just returned it to this process alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A copy of the descriptor `number` of the process behind a pidfd (Linux 5.6), close-on-exec. Needs the right to trace it.
pub fn pidfd_getfd(pidfd: BorrowedFd, number: RawFd) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })?;
    // SAFETY: the kernel has just returned it to this process alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends `signal` (0 probes) to the process behind a pidfd (Linux 5.1).
pub fn pidfd_signal(pidfd: BorrowedFd, signal: i32) -> Result<()> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means what kill(2) would send.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null, 0) }).map(drop)
}

/// Kills a child. Ended by itself is as good.
pub fn kill_child(pid: i32, pidfd: BorrowedFd) {
    if !matches!(pidfd_signal(pidfd, libc::SIGKILL), Ok(()) | Err(Errno::ESRCH)) && !has_ended(pidfd) {
        // The call is missing or forbidden. Its number is the child's own until it is reaped, which comes after its end.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
    }
}

/// setns(2) with any mask that `fd` supports: a namespace file, or a pidfd (Linux 5.8).
pub fn setns(fd: BorrowedFd, flags: i32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) } as libc::c_long).map(drop)
}

/// unshare(2).
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(flags) } as libc::c_long).map(drop)
}

/// prctl(2) with integer arguments.
pub fn prctl(option: i32, arg: libc::c_ulong) -> Result<i32> {
    // SAFETY: used only with options whose argument is an integer.
    check(unsafe { libc::prctl(option, arg, 0 as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong) }
        as libc::c_long)
    .map(|v| v as i32)
}

/// `PR_CAP_AMBIENT`: `action` is `PR_CAP_AMBIENT_RAISE` or `PR_CAP_AMBIENT_CLEAR_ALL` (with capability 0).
pub fn ambient(action: i32, capability: u8) -> Result<()> {
    // SAFETY: integer arguments only.
    check(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            action as libc::c_ulong,
            capability as libc::c_ulong,
            0 as libc::c_ulong,
            0 as libc::c_ulong,
        )
    } as libc::c_long)
    .map(drop)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// The permitted set of this process, bit N for capability N.
pub fn permitted() -> Result<u64> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 writes two CapData.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(data[0].permitted as u64 | (data[1].permitted as u64) << 32)
}

/// Sets effective, permitted and inheritable at once, bit N for capability N.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two CapData.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// setgroups(2) by the raw call: musl's wrapper would synchronise threads, of which there are none.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: `groups` is valid for reads of its length.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// setgid(2) with the right to change all three ids; by the raw call.
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    if check(unsafe { libc::syscall(libc::SYS_setgid, gid) }).is_ok() {
        return Ok(());
    }
    // Also behind a filter that was made for a runtime which calls this.
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// setuid(2) with the right to change all three ids; by the raw call.
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    if check(unsafe { libc::syscall(libc::SYS_setuid, uid) }).is_ok() {
        return Ok(());
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Calls `work` with file access as root of the user namespace that was joined, for a process whose own ids it does not
/// map: what is made meanwhile has an owner. The ids that the process itself has have no number there; setreuid(2)
/// without a change gives the file access back to them.
pub fn with_files_of_root<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: no memory is passed. These calls cannot fail in a way that matters: without the right to the id nothing
    // changes, and what is made then belongs to nobody, which its next user notices.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, 0);
        libc::syscall(libc::SYS_setfsuid, 0);
    }
    let result = work();
    // SAFETY: as above.
    unsafe {
        libc::syscall(libc::SYS_setregid, -1, -1);
        libc::syscall(libc::SYS_setreuid, -1, -1);
    }
    result
}

/// Was this program started as root of its user namespace? Asks no system call.
pub fn is_root() -> bool {
    // SAFETY: no preconditions.
    unsafe { libc::getauxval(libc::AT_EUID) == 0 }
}

/// setsid(2).
pub fn setsid() -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::setsid() } as libc::c_long).map(drop)
}

/// umask(2), which cannot fail. Returns the one before.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: no memory is passed.
    unsafe { libc::umask(mask) }
}

/// sethostname(2).
pub fn sethostname(name: &[u8]) -> Result<()> {
    // SAFETY: `name` is valid for reads of its length.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } as libc::c_long).map(drop)
}

/// setdomainname(2).
pub fn setdomainname(name: &[u8]) -> Result<()> {
    // SAFETY: `name` is valid for reads of its length.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) } as libc::c_long).map(drop)
}

/// prlimit64(2) for this process.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let null = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: `limit` lives across the call; a null old limit is allowed.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, null) }).map(drop)
}

/// Raises this process's hard limit, which its children inherit, to `hard` where it is lower. The soft one stays.
pub fn raise_hard_limit(resource: u32, hard: u64) -> Result<()> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let null = std::ptr::null::<libc::rlimit64>();
    // SAFETY: `limit` is live and writable; a null new limit changes nothing.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, null, &raw mut limit) })?;
    if limit.rlim_max >= hard { Ok(()) } else { set_limit(resource, limit.rlim_cur, hard) }
}

extern "C" fn exit_by_signal(signal: libc::c_int) {
    exit_now(128 + signal)
}

/// Lets `signal` end this process also where the kernel would not: the first process of a pid namespace has no default
/// actions. A signal that is ignored stays so. An execve gives the default back.
pub fn end_on_signal(signal: i32) -> Result<()> {
    let handler = exit_by_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler makes no call but exit_group(2), and abort(3) should that be refused; both may be made there.
    match unsafe { libc::signal(signal, handler) } {
        libc::SIG_ERR => Err(Errno::last()),
        libc::SIG_IGN => {
            // SAFETY: SIG_IGN is always a valid handler.
            let old = unsafe { libc::signal(signal, libc::SIG_IGN) };
            if old == libc::SIG_ERR { Err(Errno::last()) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// Argument or environment strings together with the pointer array that execve takes.
pub struct StringArray {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl StringArray {
    /// Builds the array; allocates.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        StringArray { strings, pointers }
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    /// Adds a string at the end; allocates.
    pub fn push(&mut self, string: CString) {
        let at = self.pointers.len() - 1;
        self.pointers.insert(at, string.as_ptr());
        self.strings.push(string);
    }
}

/// execve(2): returns only on failure.
pub fn execve(path: &CStr, args: &StringArray, env: &StringArray) -> Errno {
    // SAFETY: `path` and every string are NUL-terminated and alive; both arrays end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    Errno::last()
}

/// Ends this process at once, without destructors or exit handlers: for forked children.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: exit_group has no preconditions.
    unsafe { libc::syscall(libc::SYS_exit_group, code) };
    // A seccomp filter refuses even that, and _exit(2) would ask for ever. What abort(3) ends in is no system call.
    std::process::abort()
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// exit status 0..=255
    Code(i32),
    /// killed by this signal
    Signal(i32),
}

impl Ended {
    /// The status a shell would report: 128 + N for signal N.
    pub fn status(self) -> i32 {
        match self {
            Ended::Code(code) => code,
            Ended::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits for the child `pid` to end and reaps it.
pub fn wait(pid: i32) -> Result<Ended> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live int.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) } as libc::c_long) {
            Ok(_) if libc::WIFEXITED(status) => return Ok(Ended::Code(libc::WEXITSTATUS(status))),
            Ok(_) if libc::WIFSIGNALED(status) => return Ok(Ended::Signal(libc::WTERMSIG(status))),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits for the process behind a pidfd to end, for so many milliseconds at most, and leaves it to be reaped. False: it
/// has not ended.
pub fn ends_within(pidfd: BorrowedFd, limit_ms: u32) -> Result<bool> {
    let deadline = Instant::now() + Duration::from_millis(limit_ms.into());
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        match poll_end(pidfd, i32::try_from(left).unwrap_or(i32::MAX)) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// How long a killed process may take to end, in milliseconds.
const END_LIMIT_MS: u32 = 2000;

/// Kills a child and reaps it; None where it does not end within two seconds, as a frozen process of cgroup v1 or one
/// that waits for a device. Then its parent's end leaves it to init.
pub fn end(pid: i32, pidfd: BorrowedFd) -> Option<Ended> {
    kill_child(pid, pidfd);
    // Where even the look fails it is waited for: SIGKILL is on its way.
    if ends_within(pidfd, END_LIMIT_MS).unwrap_or(true) { wait(pid).ok() } else { None }
}

/// Opens a namespace of a process; `name` is that of its file in /proc/PID/ns.
pub fn open_namespace(pid: i32, name: &str) -> Result<OwnedFd> {
    let path = CString::new(format!("/proc/{pid}/ns/{name}")).map_err(|_| Errno::EINVAL)?;
    super::fs::open(&path, libc::O_RDONLY, 0)
}

/// The inode of a pidfd. On a kernel without pidfs (before Linux 6.9) all of them have the same.
pub fn pidfd_inode(pidfd: BorrowedFd) -> Result<u64> {
    nix::sys::stat::fstat(pidfd).map(|stat| stat.st_ino)
}

/// Does the pidfd's inode belong to one process alone until the next boot (pidfs, Linux 6.9)?
pub fn is_on_pidfs(pidfd: BorrowedFd) -> bool {
    // PID_FS_MAGIC, linux/magic.h
    const MAGIC: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0x5049_4446);
    nix::sys::statfs::fstatfs(pidfd).is_ok_and(|stat| stat.filesystem_type() == MAGIC)
}

/// Has the process behind a pidfd ended?
pub fn has_ended(pidfd: BorrowedFd) -> bool {
    poll_end(pidfd, 0).unwrap_or(false)
}

fn poll_end(pidfd: BorrowedFd, timeout_ms: i32) -> Result<bool> {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd is given.
    check(unsafe { libc::poll(&raw mut poll, 1, timeout_ms) } as libc::c_long).map(|ready| ready > 0)
}

/// Reaps any child that has ended, without waiting: its pid and how it ended.
pub fn reap_any() -> Result<Option<(i32, Ended)>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live int.
        match check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } as libc::c_long) {
            Ok(0) | Err(Errno::ECHILD) => return Ok(None),
            Ok(pid) if libc::WIFEXITED(status) => {
                return Ok(Some((pid as i32, Ended::Code(libc::WEXITSTATUS(status)))));
            }
            Ok(pid) if libc::WIFSIGNALED(status) => {
                return Ok(Some((pid as i32, Ended::Signal(libc::WTERMSIG(status)))));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The `CLONE_NEW*` flag of a namespace file (Linux 4.11); `ENOTTY` for any other file.
pub fn namespace_type(fd: BorrowedFd) -> Result<i32> {
    /// `NS_GET_NSTYPE`, linux/nsfs.h.
    const NS_GET_NSTYPE: u32 = 0xb703;
    // SAFETY: the request takes no argument.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) } as libc::c_long).map(|flag| flag as i32)
}

/// execveat(2) of the file behind `fd` itself: returns only on failure.
pub fn execveat(fd: BorrowedFd, args: &StringArray, env: &StringArray) -> Errno {
    // SAFETY: the empty path is static, every string NUL-terminated and alive; both arrays end with a null pointer.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// Lets this process run on every processor that its cpuset allows, also beyond the 1024 of `cpu_set_t`.
pub fn use_all_processors() -> Result<()> {
    let all = [u64::MAX; 128];
    // SAFETY: `all` is valid for reads of its size.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&all), all.as_ptr()) }).map(drop)
}

/// Keeps this process, and the child that it clones, on the processor where it is now. Returns those that it had.
pub fn stay_here() -> Result<[u64; 128]> {
    let mut before = [0; 128];
    // SAFETY: `before` is valid for writes of its size.
    check(unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&before), before.as_mut_ptr())
    })?;
    // SAFETY: no arguments.
    let here = check(unsafe { libc::sched_getcpu() }.into())? as usize;
    let mut one = [0; 128];
    *one.get_mut(here / 64).ok_or(Errno::EINVAL)? |= 1 << (here % 64);
    set_affinity(&one).map(|()| before)
}

/// Lets this process run on the processors of `mask` only, bit N for processor N.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    // SAFETY: `mask` is valid for reads of its size.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) })
        .map(drop)
}

/// set_mempolicy(2) for this process: `nodes` has bit N for node N.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // The kernel counts one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: `pointer` is null with no bits, else valid for reads of `bits - 1` bits.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}

/// `struct sched_attr`, its first version (48 bytes), linux/sched/types.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedAttr {
    /// Size of this structure, bytes.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// For SCHED_DEADLINE, ns.
    pub runtime: u64,
    /// For SCHED_DEADLINE, ns.
    pub deadline: u64,
    /// For SCHED_DEADLINE, ns.
    pub period: u64,
}

/// sched_setattr(2) for this process.
pub fn set_scheduler(attr: &SchedAttr) -> Result<()> {
    // SAFETY: `attr` is a live sched_attr that says its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, attr as *const SchedAttr, 0) }).map(drop)
}

/// ioprio_set(2) for this process's group, as the spec says (`IOPRIO_WHO_PGRP`).
pub fn set_io_priority(priority: u32) -> Result<()> {
    const IOPRIO_WHO_PGRP: libc::c_long = 2;
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PGRP, 0, priority as libc::c_long) })
        .map(drop)
}

/// personality(2).
pub fn personality(domain: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::personality(domain as libc::c_ulong) } as libc::c_long).map(drop)
}
