//! What a container start needs whatever its configuration says, made while the runtime still reads that: the files that
//! protect the executable, and, as soon as it is known to be wanted, a network namespace.
//!
//! Making a network namespace is a quarter of a container start, all of it inside the kernel. A second process that shares
//! this one's memory and descriptors does it: its clone copies nothing (18 us), where a fork would cost more than is won. It
//! makes a dozen system calls and ends, touches neither the C library nor the allocator, and its descriptors are this
//! process's own.

use super::exe::{self, Seal};
use super::{Errno, Result, check, net, raw};
use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// What the other process writes to. Together, because after the fork of the init stage the kernel copies every page that is
/// written to, and interrupts the other processor for it.
#[repr(C, align(4096))]
struct Shared {
    stack: UnsafeCell<[u8; STACK_SIZE]>,
    /// The namespace's descriptor, or a negative errno: `EAGAIN` as long as the process is at work, `ECHILD` if it was not
    /// told to make one; 0 without a process.
    outcome: AtomicI32,
    /// How far it is with the files of the seal: [`AT_WORK`], [`NOT_NEEDED`], [`MADE`] or [`FAILED`]. A futex.
    sealed: AtomicI32,
    /// The two files, once they are made.
    files: [AtomicI32; 2],
    /// Is the namespace wanted? [`UNKNOWN`], [`YES`] or [`NO`]. A futex.
    wanted: AtomicI32,
}

const AT_WORK: i32 = 0;
const NOT_NEEDED: i32 = 1;
const MADE: i32 = 2;
const FAILED: i32 = 3;

const UNKNOWN: i32 = 0;
const YES: i32 = 1;
const NO: i32 = 2;

/// Two pages, less what lies behind it; a multiple of 16.
const STACK_SIZE: usize = 8192 - 32;
/// How long the runtime sleeps before it looks whether the other process was killed.
const LOOK_AFTER_MS: i64 = 20;
/// How long the other process waits to be told what is wanted. Reading a configuration takes a thousandth of that.
const PATIENCE_MS: i64 = 100;

// SAFETY: the stack is used by the one process that `begin` starts, see `Ahead`.
unsafe impl Sync for Shared {}

// SAFETY: a section of zero pages like .bss, by the one other name that the compiler takes for one (hack/layout.ld).
#[cfg_attr(not(any(test, fuzzing)), unsafe(link_section = ".llvm.linkonce.b.naru.stack"))]
static SHARED: Shared = Shared {
    stack: UnsafeCell::new([0; STACK_SIZE]),
    outcome: AtomicI32::new(0),
    sealed: AtomicI32::new(AT_WORK),
    files: [AtomicI32::new(0), AtomicI32::new(0)],
    wanted: AtomicI32::new(UNKNOWN),
};

/// The other process. Dropped, it is waited for, and what it has made is gone.
pub struct Ahead {
    pid: i32,
}

impl Ahead {
    /// Starts to make the files of a seal, and then a network namespace if that is wanted ([`Ahead::want`]); None where it
    /// cannot be done, or was done before. To be dropped or taken before the program's own mappings are replaced
    /// ([`Seal::apply`]), which the other process uses as well.
    pub fn begin() -> Option<Ahead> {
        let flags = libc::CLONE_VM | libc::CLONE_FILES;
        let unused = SHARED.outcome.compare_exchange(0, -libc::EAGAIN, Ordering::SeqCst, Ordering::SeqCst);
        unused.ok()?;
        // SAFETY: the end of the array, aligned to 16 bytes. No other process uses it: `outcome` lets only one caller
        // come here, ever.
        let top = unsafe { SHARED.stack.get().cast::<u8>().add(STACK_SIZE) };
        // No signal at its end: nobody else who waits for children sees it.
        // SAFETY: `make` runs on its own stack and, sharing all memory, writes only there and to the statics of this module.
        let pid =
            check(unsafe { libc::clone(make, top.cast(), flags, std::ptr::null_mut()) } as libc::c_long);
        pid.ok().map(|pid| Ahead { pid: pid as i32 })
    }

    /// Says whether the network namespace is wanted. Only the first word counts.
    pub fn want(&self, wanted: bool) {
        let word = if wanted { YES } else { NO };
        if SHARED.wanted.compare_exchange(UNKNOWN, word, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            wake(&SHARED.wanted);
        }
    }

    /// What [`exe::prepare`] would return, from the other process; None where that has failed, or was taken before.
    pub fn seal(&self) -> Option<Option<Seal>> {
        while SHARED.sealed.load(Ordering::SeqCst) == AT_WORK {
            if self.has_ended() {
                break;
            }
            let _ = sleep_while(&SHARED.sealed, AT_WORK, LOOK_AFTER_MS);
        }
        match SHARED.sealed.swap(FAILED, Ordering::SeqCst) {
            NOT_NEEDED => Some(None),
            MADE => {
                let files = SHARED.files.each_ref().map(|file| file.load(Ordering::SeqCst));
                // SAFETY: the other process has opened them in the table of descriptors that it shares with this one, and
                // does not use them any more; they were taken out of `sealed`, so nobody else owns them.
                let [tree, file] = files.map(|file| unsafe { OwnedFd::from_raw_fd(file) });
                Seal::from_files(tree, file).map(Some)
            }
            _ => None,
        }
    }

    /// Was the other process killed?
    fn has_ended(&self) -> bool {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
        !matches!(waitid(Id::Pid(nix::unistd::Pid::from_raw(self.pid)), flags), Ok(WaitStatus::StillAlive))
    }

    /// The namespace, once it is made, with its loopback interface on.
    pub fn take(self) -> Result<OwnedFd> {
        ManuallyDrop::new(self).outcome()
    }

    /// Waits for the other process, and takes what it has made out of `outcome`.
    fn outcome(&self) -> Result<OwnedFd> {
        let null = std::ptr::null_mut();
        // SAFETY: the status may be a null pointer.
        while check(unsafe { libc::waitpid(self.pid, null, libc::__WALL) } as libc::c_long)
            == Err(Errno::EINTR)
        {}
        let outcome = SHARED.outcome.swap(-libc::EAGAIN, Ordering::SeqCst);
        if outcome < 0 {
            return Err(Errno::from_raw(-outcome));
        }
        // SAFETY: the other process has opened it in the table of descriptors that it shared with this one, and ended; it
        // was taken out of `outcome`, so nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(outcome) })
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.want(false);
        drop(self.seal());
        drop(self.outcome());
    }
}

/// Sleeps as long as `word` is `value`, but no longer than so many milliseconds (`ETIMEDOUT`). Whatever the outcome, the caller
/// looks again.
fn sleep_while(word: &AtomicI32, value: i32, milliseconds: i64) -> Result<()> {
    let limit = libc::timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let (word, limit) = (word.as_ptr() as libc::c_long, &raw const limit as libc::c_long);
    // SAFETY: a live aligned word and a live timespec.
    unsafe { raw::call(libc::SYS_futex, [word, wait.into(), value.into(), limit, 0]) }.map(drop)
}

fn wake(word: &AtomicI32) {
    let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a live aligned word.
    let _ = unsafe { raw::call(libc::SYS_futex, [word.as_ptr() as libc::c_long, wake.into(), 1, 0, 0]) };
}

/// Waits to be told so, for [`PATIENCE_MS`].
fn is_wanted() -> bool {
    while SHARED.wanted.load(Ordering::SeqCst) == UNKNOWN {
        if sleep_while(&SHARED.wanted, UNKNOWN, PATIENCE_MS) == Err(Errno::ETIMEDOUT) {
            break;
        }
    }
    SHARED.wanted.load(Ordering::SeqCst) == YES
}

/// What the second process does.
extern "C" fn make(_: *mut libc::c_void) -> libc::c_int {
    let (option, signal) = (libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into());
    // If it is too late for that, nobody will say what is wanted.
    // SAFETY: no memory is passed.
    let _ = unsafe { raw::call(libc::SYS_prctl, [option, signal, 0, 0, 0]) };
    let sealed = match exe::readonly_files() {
        Ok(Some(files)) => {
            SHARED.files[0].store(files[0], Ordering::SeqCst);
            SHARED.files[1].store(files[1], Ordering::SeqCst);
            MADE
        }
        Ok(None) => NOT_NEEDED,
        Err(_) => FAILED,
    };
    SHARED.sealed.store(sealed, Ordering::SeqCst);
    wake(&SHARED.sealed);
    if !is_wanted() {
        SHARED.outcome.store(-libc::ECHILD, Ordering::SeqCst);
        return 0;
    }
    // SAFETY: no memory is passed.
    let made = unsafe { raw::call(libc::SYS_unshare, [libc::CLONE_NEWNET.into(), 0, 0, 0, 0]) };
    // Nobody has told the program to do so (runc and crun do it, too).
    let outcome = made.and_then(|_| net::loopback_up_and_namespace());
    SHARED.outcome.store(outcome.unwrap_or_else(|errno| -(errno as i32)), Ordering::SeqCst);
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_namespace_is_another_one() {
        if !super::super::process::is_root() {
            println!("SKIP: needs root");
            return;
        }
        let ahead = Ahead::begin().unwrap();
        assert!(Ahead::begin().is_none(), "one at a time");
        let own = exe::prepare().map(|seal| seal.is_some());
        assert_eq!(ahead.seal().map(|seal| seal.is_some()), own.ok());
        assert!(ahead.seal().is_none(), "it is taken");
        ahead.want(true);
        ahead.want(false);
        let file = ahead.take().unwrap();
        assert_eq!(super::super::process::namespace_type(file.as_fd()), Ok(libc::CLONE_NEWNET));
        let own = nix::sys::stat::stat(c"/proc/self/ns/net").unwrap().st_ino;
        assert_ne!(nix::sys::stat::fstat(&file).unwrap().st_ino, own);
        let flags = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETFD);
        assert_eq!(flags, Ok(libc::FD_CLOEXEC));
    }
}
