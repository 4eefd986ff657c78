//! A network namespace that is made while the runtime still reads the configuration.
//!
//! Making one is a quarter of a container start, all of it inside the kernel. A second process that shares this one's
//! memory and descriptors does it: its clone copies nothing (18 us), where a fork would cost more than is won. It makes
//! two system calls and ends, touches neither the C library nor the allocator, and its descriptor is this process's own.

use super::{Errno, Result, check};
use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// The descriptor, or a negative errno: `ECHILD` without a process, `EAGAIN` as long as it is at work.
static OUTCOME: AtomicI32 = AtomicI32::new(-libc::ECHILD);

const STACK_SIZE: usize = 4096;

#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; STACK_SIZE]>);

// SAFETY: used by the one process that `network` starts, see `Ahead`.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; STACK_SIZE]));

/// A network namespace in the making. Dropped, it is waited for, and gone.
pub struct Ahead {
    pid: i32,
}

impl Ahead {
    /// Starts to make a network namespace; None where that cannot be done, or was done before. To be taken before the
    /// program's own mappings are replaced ([`super::exe::Seal::apply`]), which the other process uses as well.
    pub fn network() -> Option<Ahead> {
        let flags = libc::CLONE_VM | libc::CLONE_FILES;
        let unused =
            OUTCOME.compare_exchange(-libc::ECHILD, -libc::EAGAIN, Ordering::SeqCst, Ordering::SeqCst);
        unused.ok()?;
        // SAFETY: the end of the array, aligned to 16 bytes. No other process uses it: `OUTCOME` lets only one caller
        // come here, ever.
        let top = unsafe { STACK.0.get().cast::<u8>().add(STACK_SIZE) };
        // No signal at its end: nobody else who waits for children sees it.
        // SAFETY: `make` runs on its own stack and, sharing all memory, writes only there and to `OUTCOME`.
        let pid =
            check(unsafe { libc::clone(make, top.cast(), flags, std::ptr::null_mut()) } as libc::c_long);
        pid.ok().map(|pid| Ahead { pid: pid as i32 })
    }

    /// The namespace, once it is made.
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
        drop(self.outcome());
    }
}

/// What the second process does.
extern "C" fn make(_: *mut libc::c_void) -> libc::c_int {
    // SAFETY: no memory is passed.
    let mut outcome = unsafe { raw_call(libc::SYS_unshare, [libc::CLONE_NEWNET as libc::c_long, 0, 0]) };
    if outcome == 0 {
        let path = c"/proc/self/ns/net".as_ptr() as libc::c_long;
        let flags = (libc::O_RDONLY | libc::O_CLOEXEC).into();
        // SAFETY: the path is a static NUL-terminated string.
        outcome = unsafe { raw_call(libc::SYS_openat, [libc::AT_FDCWD.into(), path, flags]) };
    }
    OUTCOME.store(outcome as i32, Ordering::SeqCst);
    0
}

/// A system call that leaves the C library's errno alone, which the two processes share.
#[cfg(target_arch = "x86_64")]
unsafe fn raw_call(number: libc::c_long, args: [libc::c_long; 3]) -> libc::c_long {
    let result;
    // SAFETY: the caller's, for this call; the kernel changes no registers but these.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number => result, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call that leaves the C library's errno alone, which the two processes share.
#[cfg(target_arch = "aarch64")]
unsafe fn raw_call(number: libc::c_long, args: [libc::c_long; 3]) -> libc::c_long {
    let result;
    // SAFETY: the caller's, for this call; the kernel changes no register but the first.
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") args[0] => result, in("x1") args[1],
            in("x2") args[2], options(nostack));
    }
    result
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
        let file = ahead.take().unwrap();
        assert_eq!(super::super::process::namespace_type(file.as_fd()), Ok(libc::CLONE_NEWNET));
        let own = nix::sys::stat::stat(c"/proc/self/ns/net").unwrap().st_ino;
        assert_ne!(nix::sys::stat::fstat(&file).unwrap().st_ino, own);
        let flags = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETFD);
        assert_eq!(flags, Ok(libc::FD_CLOEXEC));
    }
}
