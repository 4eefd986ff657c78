//! The raw system calls of the probe: the only unsafe code of this binary. Each returns the kernel's number or its errno.
//! Called by `main.rs` and `report.rs`.
#![allow(unsafe_code)]

use nix::errno::Errno;

/// A system call by number with up to six integer arguments. The caller must pass no pointer of its own: addresses
/// come from the command line, and a wrong one makes the kernel answer EFAULT.
pub fn raw(number: libc::c_long, a: [u64; 6]) -> Result<i64, Errno> {
    // SAFETY: the arguments are integers chosen by the test; calls that would write through one of them are not named
    // in `calls::NUMBERS` with a pointer into this program's memory.
    let r = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    Errno::result(r)
}

/// getcwd as the kernel tells it: starts with "(unreachable)" when the directory is outside the root.
pub fn raw_getcwd() -> Result<String, Errno> {
    let mut buf = [0u8; 4096];
    // SAFETY: buf is writable for its whole length during the call.
    let n = unsafe { libc::syscall(libc::SYS_getcwd, buf.as_mut_ptr(), buf.len()) };
    let n = Errno::result(n)? as usize;
    Ok(String::from_utf8_lossy(&buf[..n.saturating_sub(1)]).into_owned())
}

/// The description of this thread's session keyring, `type;uid;gid;perm;description`.
pub fn session_keyring() -> Result<String, Errno> {
    const KEYCTL_DESCRIBE: u64 = 6;
    const KEY_SPEC_SESSION_KEYRING: i64 = -3;
    let mut buf = [0u8; 512];
    // SAFETY: buf is writable for its whole length during the call.
    let n = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_DESCRIBE,
            KEY_SPEC_SESSION_KEYRING,
            buf.as_mut_ptr(),
            buf.len(),
        )
    };
    let n = (Errno::result(n)? as usize).min(buf.len());
    Ok(String::from_utf8_lossy(&buf[..n.saturating_sub(1)]).into_owned())
}

/// Soft and hard limit of one resource of this process.
pub fn rlimit(resource: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: limit is a valid rlimit64 to be written; a null new limit changes nothing.
    let r = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<libc::rlimit64>(), &mut limit)
    };
    Errno::result(r)?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Columns and rows of the terminal behind a descriptor.
pub fn window_size(fd: i32) -> Result<(u16, u16), Errno> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which `size` is.
    let r = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &mut size) };
    Errno::result(r)?;
    Ok((size.ws_col, size.ws_row))
}

/// From now on this process runs before any usual one of its processor, as soon as it can: what a reader there takes is
/// replaced before the reader looks again. Where that is not permitted it only tries as hard as others.
pub fn come_first() {
    let priority: libc::c_int = 1;
    // SAFETY: the kernel reads one sched_param, which is one int.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &priority) };
}

/// Forks; 0 in the child. The probe has one thread, so the child may do anything.
pub fn fork() -> Result<i32, Errno> {
    // SAFETY: this program never starts a second thread.
    Errno::result(unsafe { libc::fork() })
}

/// The file mode creation mask, read by setting it and setting it back.
pub fn umask() -> u32 {
    // SAFETY: umask cannot fail and this program has one thread.
    unsafe {
        let old = libc::umask(0o77);
        libc::umask(old);
        old as u32
    }
}

/// A call by the 32-bit gate, which the kernel numbers by the x86 table. Zero arguments.
#[cfg(target_arch = "x86_64")]
pub fn int80(nr: u32) -> Result<i64, Errno> {
    let r: i64;
    // SAFETY: int 0x80 takes its number in eax and arguments in ebx, ecx, edx; it clobbers r8-r11 and writes eax only.
    // rbx is saved by hand because the compiler reserves it.
    unsafe {
        std::arch::asm!(
            "push rbx", "xor ebx, ebx", "int 0x80", "pop rbx",
            inlateout("rax") i64::from(nr) => r,
            in("rcx") 0u64, in("rdx") 0u64,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let r = i64::from(r as i32);
    if (-4095..0).contains(&r) { Err(Errno::from_raw(-r as i32)) } else { Ok(r) }
}

/// There is no 32-bit gate here.
#[cfg(not(target_arch = "x86_64"))]
pub fn int80(_: u32) -> Result<i64, Errno> {
    Err(Errno::ENOSYS)
}

/// This process's NUMA policy: mode with flags, and the first 64 nodes.
pub fn memory_policy() -> Result<(i32, u64), Errno> {
    let (mut mode, mut nodes) = (0, [0u64; 16]);
    // SAFETY: the kernel writes one int and 1024 bits, for which there is room.
    let r = unsafe { libc::syscall(libc::SYS_get_mempolicy, &mut mode, nodes.as_mut_ptr(), 1024, 0, 0) };
    Errno::result(r)?;
    Ok((mode, nodes[0]))
}

/// `struct sched_attr`, its first version, linux/sched/types.h.
#[repr(C)]
#[derive(Default)]
pub struct Scheduling {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// How this process is scheduled.
pub fn scheduling() -> Result<Scheduling, Errno> {
    let mut attr = Scheduling::default();
    let size = size_of::<Scheduling>();
    // SAFETY: the kernel writes at most `size` bytes.
    let r = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &mut attr, size, 0) };
    Errno::result(r)?;
    Ok(attr)
}
