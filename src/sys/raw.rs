//! System calls that leave the C library's errno alone, for code that may run beside this process in its memory
//! (`ahead`).

use super::{Errno, Result};

/// Makes a system call of up to five arguments.
///
/// # Safety
/// What the kernel does with the memory that the arguments point to must be sound.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call(number: libc::c_long, args: [libc::c_long; 5]) -> Result<libc::c_long> {
    let result;
    // SAFETY: the caller's, for this call; the kernel changes no registers but these.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number => result, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], in("r10") args[3], in("r8") args[4], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    outcome(result)
}

/// Makes a system call of up to five arguments.
///
/// # Safety
/// What the kernel does with the memory that the arguments point to must be sound.
#[cfg(target_arch = "aarch64")]
pub unsafe fn call(number: libc::c_long, args: [libc::c_long; 5]) -> Result<libc::c_long> {
    let result;
    // SAFETY: the caller's, for this call; the kernel changes no register but the first.
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") args[0] => result, in("x1") args[1],
            in("x2") args[2], in("x3") args[3], in("x4") args[4], options(nostack));
    }
    outcome(result)
}

fn outcome(result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 { Err(Errno::from_raw(-result as i32)) } else { Ok(result) }
}

/// Closes a descriptor that the caller owns.
pub fn close(fd: i32) {
    // SAFETY: no memory is passed; the descriptor is the caller's, who does not use it again.
    let _ = unsafe { call(libc::SYS_close, [fd.into(), 0, 0, 0, 0]) };
}

/// openat(2) of a path from the current directory, close-on-exec.
pub fn open(path: &std::ffi::CStr, flags: i32) -> Result<i32> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: the path is NUL-terminated and outlives the call.
    unsafe {
        call(libc::SYS_openat, [libc::AT_FDCWD.into(), path.as_ptr() as libc::c_long, flags.into(), 0, 0])
    }
    .map(|fd| fd as i32)
}
