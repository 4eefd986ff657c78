//! System calls that `probe syscall` can make by name, and the ways `probe open` can open a file. Data only.

/// Name and number of calls whose result tells whether a seccomp rule matched. A filter answers before the kernel looks
/// at the arguments, so that harmless or invalid arguments are enough.
pub const NUMBERS: &[(&str, libc::c_long)] = &[
    ("getpid", libc::SYS_getpid),
    ("getppid", libc::SYS_getppid),
    ("getuid", libc::SYS_getuid),
    ("getcwd", libc::SYS_getcwd),
    ("uname", libc::SYS_uname),
    ("personality", libc::SYS_personality),
    ("socket", libc::SYS_socket),
    ("mkdirat", libc::SYS_mkdirat),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("keyctl", libc::SYS_keyctl),
    ("bpf", libc::SYS_bpf),
    ("ptrace", libc::SYS_ptrace),
    ("sethostname", libc::SYS_sethostname),
    ("setdomainname", libc::SYS_setdomainname),
    ("kcmp", libc::SYS_kcmp),
    ("clone3", libc::SYS_clone3),
    ("getpriority", libc::SYS_getpriority),
    ("setpriority", libc::SYS_setpriority),
    ("sched_yield", libc::SYS_sched_yield),
    ("dup", libc::SYS_dup),
    ("fcntl", libc::SYS_fcntl),
    ("alarm", libc::SYS_alarm),
    ("chroot", libc::SYS_chroot),
    ("reboot", libc::SYS_reboot),
    ("init_module", libc::SYS_init_module),
    ("add_key", libc::SYS_add_key),
    ("getrandom", libc::SYS_getrandom),
    ("statx", libc::SYS_statx),
    ("openat2", libc::SYS_openat2),
    ("close_range", libc::SYS_close_range),
    ("futex_waitv", libc::SYS_futex_waitv),
    ("mseal", 462),
    ("setuid", libc::SYS_setuid),
    ("setgid", libc::SYS_setgid),
];

/// Open modes by letter: read, write, append, read-write; `n` only looks (O_PATH).
pub fn open_flags(mode: &str) -> Option<i32> {
    Some(match mode {
        "r" => libc::O_RDONLY,
        "w" => libc::O_WRONLY,
        "a" => libc::O_WRONLY | libc::O_APPEND,
        "rw" => libc::O_RDWR,
        "c" => libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL,
        "n" => libc::O_PATH,
        _ => return None,
    })
}
