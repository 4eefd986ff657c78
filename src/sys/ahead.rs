//! What a container start needs and the configuration does not change, made while the runtime still reads that: the files
//! that protect the executable, and a network namespace.
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

/// The namespace's descriptor, or a negative errno: `ECHILD` without a process, `EAGAIN` as long as it is at work.
static OUTCOME: AtomicI32 = AtomicI32::new(-libc::ECHILD);
/// How far it is with the files of the seal: one of the following. A futex.
static SEALED: AtomicI32 = AtomicI32::new(AT_WORK);
const AT_WORK: i32 = 0;
const NOT_NEEDED: i32 = 1;
const MADE: i32 = 2;
const FAILED: i32 = 3;
/// The two files, once they are made.
static FILES: [AtomicI32; 2] = [AtomicI32::new(-1), AtomicI32::new(-1)];

const STACK_SIZE: usize = 8192;

#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; STACK_SIZE]>);

// SAFETY: used by the one process that `network` starts, see `Ahead`.
unsafe impl Sync for Stack {}

// SAFETY: a section of zero pages like .bss, by the one other name that the compiler takes for one (hack/layout.ld).
#[cfg_attr(not(any(test, fuzzing)), unsafe(link_section = ".llvm.linkonce.b.naru.stack"))]
static STACK: Stack = Stack(UnsafeCell::new([0; STACK_SIZE]));

/// A network namespace in the making. Dropped, it is waited for, and gone.
pub struct Ahead {
    pid: i32,
}

impl Ahead {
    /// Starts to make the files of a seal and then a network namespace; None where that cannot be done, or was done before.
    /// To be taken before the program's own mappings are replaced ([`Seal::apply`]), which the other process uses as well.
    pub fn network() -> Option<Ahead> {
        let flags = libc::CLONE_VM | libc::CLONE_FILES;
        let unused =
            OUTCOME.compare_exchange(-libc::ECHILD, -libc::EAGAIN, Ordering::SeqCst, Ordering::SeqCst);
        unused.ok()?;
        // SAFETY: the end of the array, aligned to 16 bytes. No other process uses it: `OUTCOME` lets only one caller
        // come here, ever.
        let top = unsafe { STACK.0.get().cast::<u8>().add(STACK_SIZE) };
        // No signal at its end: nobody else who waits for children sees it.
        // SAFETY: `make` runs on its own stack and, sharing all memory, writes only there and to the statics of this module.
        let pid =
            check(unsafe { libc::clone(make, top.cast(), flags, std::ptr::null_mut()) } as libc::c_long);
        pid.ok().map(|pid| Ahead { pid: pid as i32 })
    }

    /// What [`exe::prepare`] would return, from the other process; None where that has failed, or was taken before.
    pub fn seal(&self) -> Option<Option<Seal>> {
        while SEALED.load(Ordering::SeqCst) == AT_WORK {
            if self.has_ended() {
                break;
            }
            wait_while_at_work();
        }
        match SEALED.swap(FAILED, Ordering::SeqCst) {
            NOT_NEEDED => Some(None),
            MADE => {
                let files = FILES.each_ref().map(|file| file.load(Ordering::SeqCst));
                // SAFETY: the other process has opened them in the table of descriptors that it shares with this one, and
                // does not use them any more; they were taken out of `SEALED`, so nobody else owns them.
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

    /// Waits for the other process, and takes what it has made out of `OUTCOME`.
    fn outcome(&self) -> Result<OwnedFd> {
        let null = std::ptr::null_mut();
        // SAFETY: the status may be a null pointer.
        while check(unsafe { libc::waitpid(self.pid, null, libc::__WALL) } as libc::c_long)
            == Err(Errno::EINTR)
        {}
        let outcome = OUTCOME.swap(-libc::EAGAIN, Ordering::SeqCst);
        if outcome < 0 {
            return Err(Errno::from_raw(-outcome));
        }
        // SAFETY: the other process has opened it in the table of descriptors that it shared with this one, and ended; it
        // was taken out of `OUTCOME`, so nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(outcome) })
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        drop(self.seal());
        drop(self.outcome());
    }
}

/// Sleeps until the other process is done with the seal, or for 20 ms: it may have been killed.
fn wait_while_at_work() {
    let limit = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a live aligned word and a live timespec. Whatever the outcome, the caller looks again.
    unsafe { libc::syscall(libc::SYS_futex, SEALED.as_ptr(), wait, AT_WORK, &raw const limit) };
}

/// What the second process does.
extern "C" fn make(_: *mut libc::c_void) -> libc::c_int {
    let sealed = match exe::readonly_files() {
        Ok(Some(files)) => {
            FILES[0].store(files[0], Ordering::SeqCst);
            FILES[1].store(files[1], Ordering::SeqCst);
            MADE
        }
        Ok(None) => NOT_NEEDED,
        Err(_) => FAILED,
    };
    SEALED.store(sealed, Ordering::SeqCst);
    let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a live aligned word.
    let _ = unsafe { raw::call(libc::SYS_futex, [SEALED.as_ptr() as libc::c_long, wake.into(), 1, 0, 0]) };
    // SAFETY: no memory is passed.
    let made = unsafe { raw::call(libc::SYS_unshare, [libc::CLONE_NEWNET.into(), 0, 0, 0, 0]) };
    // Nobody has told the program to do so (runc and crun do it, too).
    let outcome = made.and_then(|_| net::loopback_up_and_namespace());
    OUTCOME.store(outcome.unwrap_or_else(|errno| -(errno as i32)), Ordering::SeqCst);
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
        let ahead = Ahead::network().unwrap();
        assert!(Ahead::network().is_none(), "one at a time");
        let own = exe::prepare().map(|seal| seal.is_some());
        assert_eq!(ahead.seal().map(|seal| seal.is_some()), own.ok());
        assert!(ahead.seal().is_none(), "it is taken");
        let file = ahead.take().unwrap();
        assert_eq!(super::super::process::namespace_type(file.as_fd()), Ok(libc::CLONE_NEWNET));
        let own = nix::sys::stat::stat(c"/proc/self/ns/net").unwrap().st_ino;
        assert_ne!(nix::sys::stat::fstat(&file).unwrap().st_ino, own);
        let flags = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETFD);
        assert_eq!(flags, Ok(libc::FD_CLOEXEC));
    }
}
