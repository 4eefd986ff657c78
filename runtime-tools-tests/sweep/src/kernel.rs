//! The kernel as the sweep sees it: starting a process, ptrace, waiting with a deadline, small files.
//!
//! Raw calls only, no policy: who is traced and what is faulted stands in `trace`. Called by `trace`, `world`,
//! `oracle` and `supervise`. One thread only; every descriptor is close-on-exec.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

#[cfg(not(target_arch = "x86_64"))]
compile_error!(
    "the sweep replaces x86_64 registers; another architecture needs its own `skip_call` and `set_result`"
);

/// A process id in the pid namespace of the sweep.
pub type Pid = libc::pid_t;

/// What `waitpid` said about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It exited with this code.
    Exited(i32),
    /// It died by this signal.
    Killed(i32),
    /// A syscall entry or exit stop; `stop_info` tells which.
    Syscall,
    /// It made a child (fork, vfork or clone); `event_message` gives its pid.
    Born,
    /// An execve succeeded.
    Exec,
    /// The first stop of a seized child, or the answer to `interrupt`.
    Stop,
    /// It is about to receive this signal.
    Signal(i32),
}

/// Reads a wait status of a seized tracee or of a child.
pub fn decode(status: i32) -> Event {
    if libc::WIFEXITED(status) {
        return Event::Exited(libc::WEXITSTATUS(status));
    }
    if libc::WIFSIGNALED(status) {
        return Event::Killed(libc::WTERMSIG(status));
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => Event::Born,
        libc::PTRACE_EVENT_EXEC => Event::Exec,
        libc::PTRACE_EVENT_STOP => Event::Stop,
        _ if signal == libc::SIGTRAP | 0x80 => Event::Syscall,
        _ => Event::Signal(signal),
    }
}

/// One system call as its entry stop shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The number in the x86_64 table.
    pub number: i64,
    /// The six argument registers.
    pub args: [u64; 6],
}

/// What a syscall stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Before the call.
    Entry(Call),
    /// After the call.
    Exit,
    /// Neither: not a syscall stop.
    Other,
}

/// Options of a tracee whose children are not followed.
pub const FOLLOW_NONE: i32 = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_EXITKILL;
/// Options of a tracee whose children are attached at birth.
pub const FOLLOW_CHILDREN: i32 =
    FOLLOW_NONE | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACECLONE;

fn ptrace(request: i32, pid: Pid, addr: usize, data: usize) -> Result<(), i32> {
    // SAFETY: all requests that go through here take addr and data as plain numbers.
    let r = unsafe { libc::ptrace(request as _, pid, addr, data) };
    if r == -1 { Err(errno()) } else { Ok(()) }
}

/// The errno of this thread.
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Attaches to a running process without stopping it.
pub fn seize(pid: Pid, options: i32) -> Result<()> {
    ptrace(libc::PTRACE_SEIZE, pid, 0, options as usize)
        .map_err(|e| anyhow::anyhow!("seize {pid}: errno {e}"))
}

/// Changes the options of a stopped tracee; false when it is gone.
pub fn set_options(pid: Pid, options: i32) -> bool {
    ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options as usize).is_ok()
}

/// How a tracee goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// To the next syscall stop.
    Syscalls,
    /// To the next event.
    Events,
}

/// Lets a stopped tracee go on, delivering `signal` when not 0; false when it is gone.
pub fn resume(pid: Pid, pace: Pace, signal: i32) -> bool {
    let request = match pace {
        Pace::Syscalls => libc::PTRACE_SYSCALL,
        Pace::Events => libc::PTRACE_CONT,
    };
    ptrace(request, pid, 0, signal as usize).is_ok()
}

/// Lets a stopped tracee go for good, delivering `signal` when not 0; false when it is gone.
pub fn detach(pid: Pid, signal: i32) -> bool {
    ptrace(libc::PTRACE_DETACH, pid, 0, signal as usize).is_ok()
}

/// Asks a running tracee to stop; false when it is gone.
pub fn interrupt(pid: Pid) -> bool {
    ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0).is_ok()
}

/// The message of a `Born` stop: the child's pid.
pub fn event_message(pid: Pid) -> Option<Pid> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: PTRACE_GETEVENTMSG writes one unsigned long at data, which lives here.
    let r = unsafe {
        libc::ptrace(libc::PTRACE_GETEVENTMSG as _, pid, 0usize, &mut message as *mut libc::c_ulong)
    };
    if r == -1 { None } else { Some(message as Pid) }
}

/// Tells whether a syscall stop is an entry (with its call) or an exit.
pub fn stop_info(pid: Pid) -> Stop {
    /// The head of `struct ptrace_syscall_info` up to the entry's arguments.
    #[repr(C)]
    struct Info {
        op: u8,
        pad: [u8; 3],
        arch: u32,
        instruction_pointer: u64,
        stack_pointer: u64,
        number: u64,
        args: [u64; 6],
    }
    const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
    let mut info = Info {
        op: 0,
        pad: [0; 3],
        arch: 0,
        instruction_pointer: 0,
        stack_pointer: 0,
        number: 0,
        args: [0; 6],
    };
    // SAFETY: the kernel writes at most addr = size_of(Info) bytes at data, which lives here.
    let r = unsafe {
        libc::ptrace(GET_SYSCALL_INFO as _, pid, std::mem::size_of::<Info>(), &mut info as *mut Info as usize)
    };
    match (r, info.op) {
        (-1, _) => Stop::Other,
        (_, 1) => Stop::Entry(Call { number: info.number as i64, args: info.args }),
        (_, 2) => Stop::Exit,
        _ => Stop::Other,
    }
}

fn change_registers(pid: Pid, change: impl FnOnce(&mut libc::user_regs_struct)) -> bool {
    // SAFETY: user_regs_struct is plain integers; all zero is valid.
    let mut regs: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one user_regs_struct at data, which lives here.
    if unsafe { libc::ptrace(libc::PTRACE_GETREGS as _, pid, 0usize, &mut regs as *mut _ as usize) } == -1 {
        return false;
    }
    change(&mut regs);
    // SAFETY: the kernel reads one user_regs_struct at data, which lives here.
    unsafe { libc::ptrace(libc::PTRACE_SETREGS as _, pid, 0usize, &regs as *const _ as usize) != -1 }
}

/// At an entry stop: nothing is done in place of the call.
///
/// The number becomes getpid's, not -1: a seccomp filter that the runtime has loaded already sees the number
/// too, and many a filter kills or denies -1 (it carries the x32 bit).
pub fn skip_call(pid: Pid) -> bool {
    change_registers(pid, |r| r.orig_rax = libc::SYS_getpid as u64)
}

/// At an entry stop of brk: the call becomes the query `brk(0)`, which is how a failing brk looks from inside
/// (it returns the old end and never an errno).
pub fn refuse_brk(pid: Pid) -> bool {
    change_registers(pid, |r| r.rdi = 0)
}

/// At an exit stop: the call returns `value` (an errno negated), the first argument register is as it was.
pub fn set_result(pid: Pid, value: Option<i64>, first_arg: u64) -> bool {
    change_registers(pid, |r| {
        if let Some(value) = value {
            r.rax = value as u64;
        }
        r.rdi = first_arg;
    })
}

/// Up to `limit` bytes of the string at `address` in the tracee; None when unreadable.
pub fn read_string(pid: Pid, address: u64, limit: usize) -> Option<String> {
    let mut bytes = vec![0u8; limit];
    // Not across a page border in one piece: the next page may be unmapped.
    let first = (4096 - (address as usize & 4095)).min(limit);
    let mut got = 0;
    for (at, len) in [(0, first), (first, limit - first)] {
        if len == 0 || bytes[..got].contains(&0) {
            break;
        }
        let local = libc::iovec { iov_base: bytes[at..].as_mut_ptr().cast(), iov_len: len };
        let remote = libc::iovec { iov_base: (address as usize + at) as *mut libc::c_void, iov_len: len };
        // SAFETY: local points at `len` bytes of the vector; remote is only looked at in the other process.
        let r = unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) };
        if r <= 0 {
            break;
        }
        got += r as usize;
    }
    let end = bytes[..got].iter().position(|b| *b == 0).unwrap_or(got);
    if got == 0 { None } else { Some(String::from_utf8_lossy(&bytes[..end]).into_owned()) }
}

/// An argument vector ready for execve.
pub struct Program {
    path: CString,
    args: Vec<CString>,
}

impl Program {
    /// `path` with argv[0] = `path` and the rest.
    pub fn new(path: &CStr, rest: &[&str]) -> Result<Self> {
        let mut args = vec![path.to_owned()];
        for a in rest {
            args.push(CString::new(*a).context("argument with a NUL byte")?);
        }
        Ok(Self { path: path.to_owned(), args })
    }
}

/// Starts `program` with the three descriptors as stdio and PATH as its only environment.
/// When `held` is given (options), the child is seized before its execve; its first event is that `Exec`.
pub fn start(program: &Program, stdio: [RawFd; 3], held: Option<i32>) -> Result<Pid> {
    let mut argv: Vec<*const libc::c_char> = program.args.iter().map(|a| a.as_ptr()).collect();
    argv.push(std::ptr::null());
    let envp = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".as_ptr(), std::ptr::null()];
    let mut gate = [-1; 2];
    if held.is_some() {
        // SAFETY: pipe2 writes two descriptors into the array.
        if unsafe { libc::pipe2(gate.as_mut_ptr(), libc::O_CLOEXEC) } == -1 {
            bail!("pipe: errno {}", errno());
        }
    }
    // SAFETY: this process has one thread; the child only makes async-signal-safe calls before execve or _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: raw calls on descriptors and on memory prepared before the fork; never returns.
        unsafe {
            for (to, from) in stdio.iter().enumerate() {
                libc::dup2(*from, to as i32);
            }
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            if held.is_some() {
                let mut byte = 0u8;
                libc::read(gate[0], (&mut byte as *mut u8).cast(), 1);
            }
            libc::execve(program.path.as_ptr(), argv.as_ptr(), envp.as_ptr());
            libc::_exit(127);
        }
    }
    if pid == -1 {
        bail!("fork: errno {}", errno());
    }
    if let Some(options) = held {
        let seized = seize(pid, options);
        // SAFETY: writes one byte from a live buffer, then closes two descriptors owned here.
        unsafe {
            libc::write(gate[1], b"g".as_ptr().cast(), 1);
            libc::close(gate[0]);
            libc::close(gate[1]);
        }
        seized?;
    }
    Ok(pid)
}

extern "C" fn on_alarm(_: i32) {}

/// Makes blocking waits return every 100 ms, so that a deadline is seen. Once per process; not inherited by children.
pub fn tick() {
    // SAFETY: the handler does nothing; both structures live through the calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_alarm as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
        let tenth = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
        let every = libc::itimerval { it_interval: tenth, it_value: tenth };
        libc::setitimer(libc::ITIMER_REAL, &every, std::ptr::null_mut());
    }
}

/// The next event of any child or tracee; None at the deadline or when there is nobody to wait for.
pub fn wait_any(deadline: Instant) -> Option<(Pid, Event)> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // The tick is coarse: short waits look without blocking.
        let flags =
            if left < Duration::from_millis(100) { libc::__WALL | libc::WNOHANG } else { libc::__WALL };
        let mut status = 0;
        // SAFETY: waitpid writes one int at status.
        let pid = unsafe { libc::waitpid(-1, &mut status, flags) };
        if pid > 0 {
            return Some((pid, decode(status)));
        }
        if pid == -1 && errno() != libc::EINTR {
            return None;
        }
        if left.is_zero() {
            return None;
        }
        if pid == 0 {
            std::thread::sleep(Duration::from_micros(100).min(left));
        }
    }
}

fn wait_untouched(pid: Pid, flags: i32) -> Option<Pid> {
    // SAFETY: siginfo_t is plain data; the kernel writes one at a live place. WNOWAIT leaves the child unreaped.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        loop {
            match libc::waitid(libc::P_PID, pid as u32, &mut info, libc::WEXITED | libc::WNOWAIT | flags) {
                0 => return Some(info.si_pid()),
                _ if errno() == libc::EINTR => {}
                _ => return None,
            }
        }
    }
}

/// Whether a child still runs; it is not reaped.
pub fn is_alive(pid: Pid) -> bool {
    wait_untouched(pid, libc::WNOHANG) == Some(0)
}

/// Waits until a killed child is dead, without reaping it.
pub fn await_death(pid: Pid) {
    wait_untouched(pid, 0);
}

/// Sends SIGKILL to one process; false when it is gone.
pub fn kill(pid: Pid) -> bool {
    // SAFETY: plain numbers.
    unsafe { libc::kill(pid, libc::SIGKILL) == 0 }
}

/// An empty memory file whose writers append.
pub fn memory_file(name: &CStr) -> Result<RawFd> {
    // SAFETY: the name is a C string; the descriptor is owned by the caller from here on.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: plain numbers.
    if fd == -1 || unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_APPEND) } == -1 {
        bail!("memory file: errno {}", errno());
    }
    Ok(fd)
}

/// The whole text of a memory file.
pub fn text_of(fd: RawFd) -> String {
    let mut all = vec![0u8; 4096];
    let mut got = 0;
    loop {
        if got == all.len() {
            all.resize(got * 2, 0);
        }
        let room = &mut all[got..];
        // SAFETY: room is a live buffer of that length.
        let r = unsafe { libc::pread(fd, room.as_mut_ptr().cast(), room.len(), got as i64) };
        if r <= 0 {
            break;
        }
        got += r as usize;
    }
    String::from_utf8_lossy(&all[..got]).into_owned()
}

/// Empties a memory file.
pub fn clear(fd: RawFd) {
    // SAFETY: plain numbers. Cannot fail on a writable memory file.
    unsafe { libc::ftruncate(fd, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_wait_statuses() {
        assert_eq!(decode(3 << 8), Event::Exited(3));
        assert_eq!(decode(9), Event::Killed(9));
        assert_eq!(decode(0x7f | (libc::SIGTRAP | 0x80) << 8), Event::Syscall);
        assert_eq!(decode(0x7f | libc::SIGTRAP << 8 | libc::PTRACE_EVENT_VFORK << 16), Event::Born);
        assert_eq!(decode(0x7f | libc::SIGTRAP << 8 | libc::PTRACE_EVENT_EXEC << 16), Event::Exec);
        assert_eq!(decode(0x7f | libc::SIGTRAP << 8 | libc::PTRACE_EVENT_STOP << 16), Event::Stop);
        assert_eq!(decode(0x7f | libc::SIGHUP << 8), Event::Signal(libc::SIGHUP));
    }

    #[test]
    fn reads_strings_of_a_process() {
        let s = CString::new("a path").unwrap();
        let me = std::process::id() as Pid;
        assert_eq!(read_string(me, s.as_ptr() as u64, 64).as_deref(), Some("a path"));
        assert_eq!(read_string(me, 8, 64), None);
    }
}
