//! What a container start needs whatever its configuration says, made while the runtime still reads that: the files that
//! protect the executable, and, as soon as it is known to be wanted, a network namespace, with those of IPC and host names.
//!
//! Making a network namespace is a quarter of a container start, all of it inside the kernel. A second process that shares
//! this one's memory and descriptors does it: its clone copies nothing (18 us), where a fork would cost more than is won. It
//! makes some twenty system calls, touches neither errno nor the allocator, and its descriptors are this process's own.
//! It stays in the new namespaces, so that whoever has its pidfd can enter them, until it is ended.

use super::exe::{self, Seal};
use super::{Errno, Result, check, net, process, raw};
use std::cell::UnsafeCell;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// What the other process writes to. Together, because after the fork of the init stage the kernel copies every page that is
/// written to, and interrupts the other processor for it.
#[repr(C, align(4096))]
struct Shared {
    stack: UnsafeCell<[u8; STACK_SIZE]>,
    /// The runtime's process id; 0 as long as there is no other process.
    runtime: AtomicI32,
    /// How far it is with the files of the seal: [`AT_WORK`], [`NOT_NEEDED`], [`DONE`] or [`FAILED`]. A futex.
    sealed: AtomicI32,
    /// The two files, once they are made.
    files: [AtomicI32; 2],
    /// What it is to do: [`WAIT`], or [`MAKE`] with `CLONE_NEW*` flags. A futex.
    task: AtomicI32,
    /// The namespaces: [`AT_WORK`], [`DONE`], or a negative errno. A futex.
    made: AtomicI32,
}

const AT_WORK: i32 = 0;
const DONE: i32 = 1;
const NOT_NEEDED: i32 = 2;
const FAILED: i32 = 3;

const WAIT: i32 = 0;
const MAKE: i32 = 1;

/// Two pages, less what lies behind it; a multiple of 16.
const STACK_SIZE: usize = 8192 - 32;
/// How long the runtime sleeps before it looks whether the other process was killed.
const LOOK_AFTER_MS: i64 = 20;
/// How long that sleeps: nothing happens then.
const A_MINUTE_MS: i64 = 60_000;

// SAFETY: the stack is used by the one process that `begin` starts, see `Ahead`.
unsafe impl Sync for Shared {}

// SAFETY: a section of zero pages like .bss, by the one other name that the compiler takes for one (hack/layout.ld).
#[cfg_attr(not(any(test, fuzzing)), unsafe(link_section = ".llvm.linkonce.b.naru.stack"))]
static SHARED: Shared = Shared {
    stack: UnsafeCell::new([0; STACK_SIZE]),
    runtime: AtomicI32::new(0),
    sealed: AtomicI32::new(AT_WORK),
    files: [AtomicI32::new(0), AtomicI32::new(0)],
    task: AtomicI32::new(WAIT),
    made: AtomicI32::new(AT_WORK),
};

/// The other process. Dropped, it is waited for, and what was not taken is gone.
pub struct Ahead {
    pid: i32,
    pidfd: OwnedFd,
}

impl Ahead {
    /// Starts to make the files of a seal; then it waits for [`Ahead::make`]. Errors: those of clone(2), `EBUSY` where there is
    /// one already. To be dropped before the program's own mappings are replaced ([`Seal::apply`]), which the other process uses
    /// as well, and before an execve, which it would outlive.
    pub fn begin() -> Result<Ahead> {
        let myself = std::process::id() as i32;
        if SHARED.runtime.compare_exchange(0, myself, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Err(Errno::EBUSY);
        }
        let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PIDFD;
        let mut pidfd: RawFd = -1;
        // SAFETY: the end of the array, aligned to 16 bytes. No other process uses it: `runtime` is 0 only where there is none.
        let top = unsafe { SHARED.stack.get().cast::<u8>().add(STACK_SIZE) };
        // No signal at its end: nobody else who waits for children sees it.
        // SAFETY: `work` runs on its own stack and, sharing all memory, writes only there and to `SHARED`. `pidfd` is where
        // CLONE_PIDFD stores the descriptor before the call returns.
        let pid = unsafe { libc::clone(work, top.cast(), flags, std::ptr::null_mut(), &raw mut pidfd) };
        match check(pid.into()) {
            // SAFETY: the kernel has just made it, close-on-exec, and it is ours alone.
            Ok(pid) => Ok(Ahead { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
            Err(errno) => {
                SHARED.runtime.store(0, Ordering::SeqCst);
                Err(errno)
            }
        }
    }

    /// Says which namespaces are wanted, by `CLONE_NEW*` flags, if any; once.
    pub fn make(&self, namespaces: i32) {
        SHARED.task.store(MAKE | namespaces, Ordering::SeqCst);
        wake(&SHARED.task);
    }

    /// Was it told to make (at least) these?
    pub fn makes(&self, namespaces: i32) -> bool {
        let task = SHARED.task.load(Ordering::SeqCst);
        task & MAKE != 0 && task & namespaces == namespaces
    }

    /// Waits until they are made, and the loopback interface of that of the network is on.
    pub fn made(&self) -> Result<()> {
        self.wait_while_at_work(&SHARED.made);
        match SHARED.made.load(Ordering::SeqCst) {
            DONE => Ok(()),
            // It was killed.
            AT_WORK => Err(Errno::ECHILD),
            errno => Err(Errno::from_raw(-errno)),
        }
    }

    /// The process, to enter its namespaces with setns(2) (Linux 5.8), as long as this lives.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// What [`exe::prepare`] would return, from the other process; None where that has failed, or was taken before.
    pub fn seal(&self) -> Option<Option<Seal>> {
        self.wait_while_at_work(&SHARED.sealed);
        match SHARED.sealed.swap(FAILED, Ordering::SeqCst) {
            NOT_NEEDED => Some(None),
            DONE => {
                let files = SHARED.files.each_ref().map(|file| file.load(Ordering::SeqCst));
                // SAFETY: the other process has opened them in the table of descriptors that it shares with this one, and
                // does not use them any more; they were taken out of `sealed`, so nobody else owns them.
                let [tree, file] = files.map(|file| unsafe { OwnedFd::from_raw_fd(file) });
                Seal::from_files(tree, file).map(Some)
            }
            _ => None,
        }
    }

    /// Until it is done with that, or was killed.
    fn wait_while_at_work(&self, word: &AtomicI32) {
        while word.load(Ordering::SeqCst) == AT_WORK && !self.has_ended() {
            sleep_while(word, AT_WORK, LOOK_AFTER_MS);
        }
    }

    /// Was the other process killed?
    fn has_ended(&self) -> bool {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
        !matches!(waitid(Id::Pid(nix::unistd::Pid::from_raw(self.pid)), flags), Ok(WaitStatus::StillAlive))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Stopped or at work, it has nothing that would have to be put in order.
        process::kill_child(self.pid, self.pidfd());
        let null = std::ptr::null_mut();
        // SAFETY: the status may be a null pointer.
        while check(unsafe { libc::waitpid(self.pid, null, libc::__WALL) }.into()) == Err(Errno::EINTR) {}
        drop(self.seal());
        SHARED.sealed.store(AT_WORK, Ordering::SeqCst);
        SHARED.task.store(WAIT, Ordering::SeqCst);
        SHARED.made.store(AT_WORK, Ordering::SeqCst);
        SHARED.runtime.store(0, Ordering::SeqCst);
    }
}

/// Sleeps as long as `word` is `value`, for so many milliseconds at most. Whatever has ended that, the caller looks again.
fn sleep_while(word: &AtomicI32, value: i32, milliseconds: i64) {
    let limit = libc::timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let (word, limit) = (word.as_ptr() as libc::c_long, &raw const limit as libc::c_long);
    // SAFETY: a live aligned word and a live timespec.
    let _ = unsafe { raw::call(libc::SYS_futex, [word, wait.into(), value.into(), limit, 0]) };
}

fn wake(word: &AtomicI32) {
    let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a live aligned word.
    let _ = unsafe { raw::call(libc::SYS_futex, [word.as_ptr() as libc::c_long, wake.into(), 1, 0, 0]) };
}

/// What the other process does.
extern "C" fn work(_: *mut libc::c_void) -> libc::c_int {
    if !dies_with_runtime() {
        return 0;
    }
    let sealed = match exe::readonly_files() {
        Ok(Some(files)) => {
            SHARED.files[0].store(files[0], Ordering::SeqCst);
            SHARED.files[1].store(files[1], Ordering::SeqCst);
            DONE
        }
        Ok(None) => NOT_NEEDED,
        Err(_) => FAILED,
    };
    SHARED.sealed.store(sealed, Ordering::SeqCst);
    wake(&SHARED.sealed);
    let task = loop {
        match SHARED.task.load(Ordering::SeqCst) {
            WAIT => sleep_while(&SHARED.task, WAIT, A_MINUTE_MS),
            task => break task,
        }
    };
    let namespaces = task & !MAKE;
    if namespaces == 0 {
        return 0;
    }
    // SAFETY: no memory is passed.
    let made = match unsafe { raw::call(libc::SYS_unshare, [namespaces.into(), 0, 0, 0, 0]) } {
        // Nobody has told the program to do so (runc and crun do it, too).
        Ok(_) if namespaces & libc::CLONE_NEWNET != 0 => net::loopback_up(),
        other => other.map(drop),
    };
    SHARED.made.store(made.map_or_else(|errno| -(errno as i32), |()| DONE), Ordering::SeqCst);
    wake(&SHARED.made);
    loop {
        sleep_while(&SHARED.task, task, A_MINUTE_MS);
    }
}

/// The process ends with the runtime and by nothing else: signals at their process group (^C, ^Z) are the runtime's to follow.
/// False: that is gone already.
fn dies_with_runtime() -> bool {
    let all: u64 = !0;
    let (how, set, size) =
        (libc::SIG_SETMASK.into(), &raw const all as libc::c_long, size_of::<u64>() as libc::c_long);
    // SAFETY: a live set of the kernel's size; no memory is written to.
    let _ = unsafe { raw::call(libc::SYS_rt_sigprocmask, [how, set, 0, size, 0]) };
    let signal = [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into(), 0, 0, 0];
    // SAFETY: no memory is passed.
    let dies = unsafe { raw::call(libc::SYS_prctl, signal) };
    // SAFETY: no memory is passed.
    let parent = unsafe { raw::call(libc::SYS_getppid, [0; 5]) };
    dies.is_ok() && parent == Ok(SHARED.runtime.load(Ordering::SeqCst).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespaces_are_other_ones() {
        if !process::is_root() {
            println!("SKIP: needs root");
            return;
        }
        let ahead = Ahead::begin().unwrap();
        assert_eq!(Ahead::begin().err(), Some(Errno::EBUSY), "one at a time");
        let own = exe::prepare().map(|seal| seal.is_some());
        assert_eq!(ahead.seal().map(|seal| seal.is_some()), own.ok());
        assert!(ahead.seal().is_none(), "it is taken");
        assert!(!ahead.makes(libc::CLONE_NEWNET));
        ahead.make(libc::CLONE_NEWNET | libc::CLONE_NEWUTS);
        assert!(!ahead.has_ended());
        assert_eq!(ahead.made(), Ok(()));
        assert!(ahead.makes(libc::CLONE_NEWNET) && !ahead.makes(libc::CLONE_NEWNET | libc::CLONE_NEWIPC));
        let inode = |name: &str| nix::sys::stat::stat(format!("/proc/{name}").as_str()).unwrap().st_ino;
        for (kind, other) in [("net", true), ("uts", true), ("ipc", false), ("mnt", false)] {
            let (theirs, own) = (format!("{}/ns/{kind}", ahead.pid), format!("self/ns/{kind}"));
            assert_eq!(inode(&theirs) != inode(&own), other, "{kind}");
        }
        drop(ahead);
        let next = Ahead::begin().unwrap();
        next.make(0);
        assert!(!next.makes(libc::CLONE_NEWNET));
        drop(next);
        drop(Ahead::begin().unwrap());
    }
}
