//! Which errno a system call can return: the table of the sweep. Pure; called by `plan` and `trace`.
//!
//! The source is the ERRORS part of the manual pages and, for calls on procfs and cgroup files, the kernel.
//! Calls that cannot fail (getpid, umask, close as far as a caller may care) are never faulted.

// The kernel's numbers keep libc's spelling, in patterns too.
#![allow(non_upper_case_globals)]

use crate::kernel::Call;
use libc::*;

/// The errnos of the sweep, in the order in which they are tried.
pub const SWEPT: [i32; 6] = [EPERM, ENOMEM, EINTR, EMFILE, ENOSPC, EIO];

/// Errnos by name, for the command line and the lines printed.
const ERRNOS: &[(&str, i32)] = &[
    ("EPERM", EPERM),
    ("ENOMEM", ENOMEM),
    ("EINTR", EINTR),
    ("EMFILE", EMFILE),
    ("ENOSPC", ENOSPC),
    ("EIO", EIO),
    ("EACCES", EACCES),
    ("EAGAIN", EAGAIN),
    ("EBUSY", EBUSY),
    ("EDQUOT", EDQUOT),
    ("EINVAL", EINVAL),
    ("ENFILE", ENFILE),
    ("ENOENT", ENOENT),
    ("ENOSYS", ENOSYS),
    ("EROFS", EROFS),
];

/// The number of an errno's name.
pub fn errno_of(name: &str) -> Option<i32> {
    ERRNOS.iter().find(|(n, _)| *n == name).map(|(_, e)| *e)
}

/// The name of an errno.
pub fn errno_name(errno: i32) -> String {
    ERRNOS.iter().find(|(_, e)| *e == errno).map_or_else(|| format!("errno{errno}"), |(n, _)| n.to_string())
}

macro_rules! names {
    ($($name:ident)*) => {
        &[$(($name, stringify!($name))),*]
    };
}

/// Calls by name; a number that is not here is printed as a number and faulted with every errno.
const NAMES: &[(i64, &str)] = names! {
    SYS_read SYS_write SYS_open SYS_close SYS_stat SYS_fstat SYS_lstat SYS_poll SYS_lseek SYS_mmap SYS_mprotect
    SYS_munmap SYS_brk SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_ioctl SYS_pread64 SYS_pwrite64
    SYS_readv SYS_writev SYS_access SYS_pipe SYS_select SYS_sched_yield SYS_mremap SYS_msync SYS_mincore
    SYS_madvise SYS_dup SYS_dup2 SYS_pause SYS_nanosleep SYS_getitimer SYS_alarm SYS_setitimer SYS_getpid
    SYS_sendfile SYS_socket SYS_connect SYS_accept SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_shutdown
    SYS_bind SYS_listen SYS_getsockname SYS_getpeername SYS_socketpair SYS_setsockopt SYS_getsockopt SYS_clone
    SYS_fork SYS_vfork SYS_execve SYS_exit SYS_wait4 SYS_kill SYS_uname SYS_fcntl SYS_flock SYS_fsync
    SYS_fdatasync SYS_truncate SYS_ftruncate SYS_getdents SYS_getcwd SYS_chdir SYS_fchdir SYS_rename SYS_mkdir
    SYS_rmdir SYS_creat SYS_link SYS_unlink SYS_symlink SYS_readlink SYS_chmod SYS_fchmod SYS_chown SYS_fchown
    SYS_lchown SYS_umask SYS_gettimeofday SYS_getrlimit SYS_getrusage SYS_sysinfo SYS_times SYS_getuid
    SYS_getgid SYS_setuid SYS_setgid SYS_geteuid SYS_getegid SYS_setpgid SYS_getppid SYS_getpgrp SYS_setsid
    SYS_setreuid SYS_setregid SYS_getgroups SYS_setgroups SYS_setresuid SYS_getresuid SYS_setresgid
    SYS_getresgid SYS_getpgid SYS_setfsuid SYS_setfsgid SYS_getsid SYS_capget SYS_capset SYS_rt_sigpending
    SYS_rt_sigtimedwait SYS_rt_sigqueueinfo SYS_rt_sigsuspend SYS_sigaltstack SYS_utime SYS_mknod
    SYS_personality SYS_statfs SYS_fstatfs SYS_getpriority SYS_setpriority SYS_sched_setparam
    SYS_sched_getparam SYS_sched_setscheduler SYS_sched_getscheduler SYS_mlock SYS_munlock SYS_mlockall
    SYS_pivot_root SYS_prctl SYS_arch_prctl SYS_setrlimit SYS_chroot SYS_sync SYS_acct SYS_mount SYS_umount2
    SYS_sethostname SYS_setdomainname SYS_gettid SYS_readahead SYS_setxattr SYS_lsetxattr SYS_fsetxattr
    SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_removexattr
    SYS_lremovexattr SYS_fremovexattr SYS_tkill SYS_time SYS_futex SYS_sched_setaffinity SYS_sched_getaffinity
    SYS_epoll_create SYS_getdents64 SYS_set_tid_address SYS_restart_syscall SYS_fadvise64 SYS_timer_create
    SYS_timer_settime SYS_timer_delete SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_exit_group
    SYS_epoll_wait SYS_epoll_ctl SYS_tgkill SYS_waitid SYS_add_key SYS_request_key SYS_keyctl SYS_ioprio_set
    SYS_ioprio_get SYS_inotify_init SYS_inotify_add_watch SYS_inotify_rm_watch SYS_openat SYS_mkdirat
    SYS_mknodat SYS_fchownat SYS_newfstatat SYS_unlinkat SYS_renameat SYS_linkat SYS_symlinkat SYS_readlinkat
    SYS_fchmodat SYS_faccessat SYS_pselect6 SYS_ppoll SYS_unshare SYS_set_robust_list SYS_get_robust_list
    SYS_splice SYS_tee SYS_sync_file_range SYS_utimensat SYS_epoll_pwait SYS_signalfd SYS_timerfd_create
    SYS_eventfd SYS_fallocate SYS_timerfd_settime SYS_timerfd_gettime SYS_accept4 SYS_signalfd4 SYS_eventfd2
    SYS_epoll_create1 SYS_dup3 SYS_pipe2 SYS_inotify_init1 SYS_preadv SYS_pwritev SYS_rt_tgsigqueueinfo
    SYS_prlimit64 SYS_name_to_handle_at SYS_open_by_handle_at SYS_syncfs SYS_sendmmsg SYS_setns SYS_getcpu
    SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp SYS_sched_setattr SYS_sched_getattr SYS_renameat2
    SYS_seccomp SYS_getrandom SYS_memfd_create SYS_bpf SYS_execveat SYS_userfaultfd SYS_membarrier SYS_mlock2
    SYS_copy_file_range SYS_preadv2 SYS_pwritev2 SYS_statx SYS_rseq SYS_pidfd_send_signal SYS_io_uring_setup
    SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_pidfd_open SYS_clone3
    SYS_close_range SYS_openat2 SYS_pidfd_getfd SYS_faccessat2 SYS_process_madvise SYS_epoll_pwait2
    SYS_mount_setattr SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self
    SYS_memfd_secret SYS_set_mempolicy SYS_get_mempolicy SYS_fchmodat2
};

/// The name of a call, or its number.
pub fn call_name(number: i64) -> String {
    match NAMES.iter().find(|(n, _)| *n == number) {
        Some((_, name)) => name["SYS_".len()..].to_string(),
        None => format!("syscall{number}"),
    }
}

/// Calls whose failure is a wait that ends early: a hang after another errno than EINTR lies in the fault itself.
pub fn is_wait(number: i64) -> bool {
    matches!(
        number,
        SYS_wait4
            | SYS_waitid
            | SYS_poll
            | SYS_ppoll
            | SYS_select
            | SYS_pselect6
            | SYS_epoll_wait
            | SYS_epoll_pwait
            | SYS_epoll_pwait2
            | SYS_futex
            | SYS_rt_sigtimedwait
            | SYS_rt_sigsuspend
            | SYS_pause
            | SYS_restart_syscall
    )
}

/// The argument that is a path, for the lines printed.
pub fn path_argument(number: i64) -> Option<usize> {
    match number {
        SYS_open | SYS_stat | SYS_lstat | SYS_access | SYS_execve | SYS_chdir | SYS_rename | SYS_mkdir
        | SYS_rmdir | SYS_creat | SYS_link | SYS_unlink | SYS_readlink | SYS_chmod | SYS_chown
        | SYS_lchown | SYS_mknod | SYS_statfs | SYS_pivot_root | SYS_umount2 | SYS_chroot | SYS_setxattr
        | SYS_getxattr | SYS_truncate | SYS_fsopen | SYS_memfd_create | SYS_sethostname => Some(0),
        SYS_symlink
        | SYS_mount
        | SYS_openat
        | SYS_openat2
        | SYS_mkdirat
        | SYS_mknodat
        | SYS_fchownat
        | SYS_newfstatat
        | SYS_unlinkat
        | SYS_renameat
        | SYS_renameat2
        | SYS_linkat
        | SYS_readlinkat
        | SYS_fchmodat
        | SYS_fchmodat2
        | SYS_faccessat
        | SYS_faccessat2
        | SYS_utimensat
        | SYS_execveat
        | SYS_statx
        | SYS_open_tree
        | SYS_mount_setattr
        | SYS_name_to_handle_at => Some(1),
        SYS_symlinkat | SYS_fsconfig => Some(2),
        SYS_move_mount => Some(3),
        _ => None,
    }
}

/// The errnos of the sweep that `call` can return. Empty: the call cannot fail.
pub fn possible(call: &Call) -> Vec<i32> {
    let create = |flags: u64| flags & (O_CREAT | O_TMPFILE & !O_DIRECTORY) as u64 != 0;
    let opening = |flags: u64| -> &'static [i32] {
        if create(flags) {
            &[EPERM, ENOMEM, EINTR, EMFILE, ENOSPC, EIO]
        } else {
            &[EPERM, ENOMEM, EINTR, EMFILE, EIO]
        }
    };
    const NONE: &[i32] = &[];
    let a = &call.args;
    let row: &[i32] = match call.number {
        SYS_open => opening(a[1]),
        SYS_openat => opening(a[2]),
        // The flags lie in memory (struct open_how): the wider row.
        SYS_creat | SYS_openat2 => opening(O_CREAT as u64),
        SYS_read | SYS_pread64 | SYS_readv | SYS_preadv | SYS_preadv2 => &[EINTR, EIO],
        SYS_write | SYS_pwrite64 | SYS_writev | SYS_pwritev | SYS_pwritev2 => {
            &[EPERM, ENOMEM, EINTR, ENOSPC, EIO]
        }
        SYS_getdents | SYS_getdents64 => &[EINTR, EIO],
        SYS_stat | SYS_lstat | SYS_newfstatat | SYS_statx | SYS_access | SYS_faccessat | SYS_faccessat2 => {
            &[ENOMEM, EIO]
        }
        SYS_fstat => &[ENOMEM, EIO],
        SYS_statfs | SYS_fstatfs => &[ENOMEM, EINTR, EIO],
        SYS_readlink | SYS_readlinkat => &[ENOMEM, EIO],
        SYS_getcwd => &[ENOMEM],
        SYS_chdir | SYS_chroot => &[EPERM, ENOMEM, EIO],
        SYS_fchdir => &[EIO],
        SYS_mkdir | SYS_mkdirat | SYS_mknod | SYS_mknodat | SYS_symlink | SYS_symlinkat | SYS_link
        | SYS_linkat | SYS_rename | SYS_renameat | SYS_renameat2 => &[EPERM, ENOMEM, ENOSPC, EIO],
        SYS_rmdir | SYS_unlink | SYS_unlinkat => &[EPERM, ENOMEM, EIO],
        SYS_chmod | SYS_fchmod | SYS_fchmodat | SYS_fchmodat2 | SYS_chown | SYS_fchown | SYS_lchown
        | SYS_fchownat | SYS_utimensat => &[EPERM, ENOMEM, EIO],
        SYS_setxattr | SYS_lsetxattr | SYS_fsetxattr => &[EPERM, ENOMEM, ENOSPC, EIO],
        SYS_getxattr | SYS_lgetxattr | SYS_fgetxattr => &[ENOMEM, EIO],
        SYS_truncate | SYS_ftruncate | SYS_fallocate => &[EPERM, EINTR, ENOSPC, EIO],
        SYS_fsync | SYS_fdatasync | SYS_syncfs => &[EINTR, ENOSPC, EIO],
        SYS_sendfile | SYS_splice | SYS_copy_file_range => &[EPERM, ENOMEM, EINTR, ENOSPC, EIO],
        SYS_name_to_handle_at | SYS_open_by_handle_at => &[EPERM, ENOMEM, EMFILE],
        SYS_flock => &[EINTR, ENOMEM],
        SYS_ioctl => &[EPERM, ENOMEM, EINTR, EIO],
        SYS_fcntl => match a[1] as i32 {
            F_DUPFD | F_DUPFD_CLOEXEC => &[EMFILE],
            F_SETFL | F_ADD_SEALS => &[EPERM],
            F_SETLKW | F_OFD_SETLKW => &[EINTR],
            F_SETPIPE_SZ => &[EPERM, ENOMEM],
            _ => NONE,
        },
        SYS_dup | SYS_dup2 | SYS_dup3 => &[EMFILE],
        SYS_pipe | SYS_pipe2 | SYS_eventfd | SYS_eventfd2 | SYS_epoll_create | SYS_epoll_create1
        | SYS_signalfd | SYS_signalfd4 | SYS_timerfd_create | SYS_memfd_create | SYS_inotify_init
        | SYS_inotify_init1 | SYS_socketpair => &[ENOMEM, EMFILE],
        SYS_epoll_ctl | SYS_inotify_add_watch => &[EPERM, ENOMEM, ENOSPC],
        SYS_socket => &[EPERM, ENOMEM, EMFILE],
        SYS_connect | SYS_bind => &[EPERM, ENOMEM, EINTR],
        SYS_accept | SYS_accept4 => &[EPERM, ENOMEM, EINTR, EMFILE],
        SYS_sendto | SYS_sendmsg | SYS_sendmmsg => &[EPERM, ENOMEM, EINTR],
        SYS_recvfrom | SYS_recvmsg => &[ENOMEM, EINTR],
        SYS_setsockopt => &[EPERM, ENOMEM],
        SYS_mmap => &[EPERM, ENOMEM],
        SYS_brk | SYS_mprotect | SYS_munmap | SYS_mremap | SYS_madvise | SYS_sigaltstack => &[ENOMEM],
        SYS_mlock | SYS_mlock2 | SYS_mlockall => &[EPERM, ENOMEM],
        SYS_clone | SYS_clone3 => &[EPERM, ENOMEM, EMFILE, ENOSPC],
        SYS_fork | SYS_vfork => &[ENOMEM],
        SYS_execve | SYS_execveat => &[EPERM, ENOMEM, EMFILE, EIO],
        SYS_unshare => &[EPERM, ENOMEM, ENOSPC],
        SYS_setns => &[EPERM, ENOMEM],
        SYS_close_range => &[ENOMEM, EMFILE],
        SYS_mount => &[EPERM, ENOMEM, ENOSPC, EIO],
        SYS_umount2 => &[EPERM, ENOMEM],
        SYS_pivot_root => &[EPERM, ENOMEM],
        SYS_fsopen | SYS_fspick | SYS_fsmount | SYS_open_tree => &[EPERM, ENOMEM, EMFILE, ENOSPC],
        SYS_fsconfig => &[EPERM, ENOMEM, ENOSPC, EIO],
        SYS_move_mount => &[EPERM, ENOMEM, ENOSPC],
        SYS_mount_setattr => &[EPERM, ENOMEM],
        SYS_prctl => match a[0] as i32 {
            // Those that shape what a container may do; an outer filter can refuse each of them.
            PR_SET_NO_NEW_PRIVS
            | PR_CAPBSET_DROP
            | PR_CAP_AMBIENT
            | PR_SET_SECUREBITS
            | PR_SET_KEEPCAPS
            | PR_SET_DUMPABLE
            | PR_SET_PDEATHSIG
            | PR_SET_CHILD_SUBREAPER => &[EPERM],
            PR_SET_SECCOMP => &[EPERM, ENOMEM],
            PR_SET_MM => &[EPERM, ENOMEM],
            _ => NONE,
        },
        SYS_seccomp => &[EPERM, ENOMEM],
        SYS_capset | SYS_capget => &[EPERM],
        SYS_setuid | SYS_setgid | SYS_setreuid | SYS_setregid | SYS_setresuid | SYS_setresgid => &[EPERM],
        SYS_setgroups => &[EPERM, ENOMEM],
        SYS_setsid | SYS_setpgid | SYS_sethostname | SYS_setdomainname => &[EPERM],
        SYS_setrlimit => &[EPERM],
        SYS_prlimit64 if a[2] != 0 || a[0] != 0 => &[EPERM],
        SYS_setpriority
        | SYS_ioprio_set
        | SYS_sched_setscheduler
        | SYS_sched_setparam
        | SYS_sched_setattr => &[EPERM],
        SYS_sched_setaffinity | SYS_set_mempolicy => &[EPERM, ENOMEM],
        SYS_keyctl | SYS_add_key | SYS_request_key => &[EPERM, ENOMEM, EINTR],
        SYS_bpf => &[EPERM, ENOMEM, EMFILE, ENOSPC],
        SYS_landlock_create_ruleset => &[ENOMEM, EMFILE],
        SYS_landlock_add_rule | SYS_landlock_restrict_self => &[EPERM, ENOMEM],
        SYS_pidfd_open => &[ENOMEM, EMFILE],
        SYS_pidfd_getfd => &[EPERM, EMFILE],
        SYS_pidfd_send_signal
        | SYS_kill
        | SYS_tkill
        | SYS_tgkill
        | SYS_rt_sigqueueinfo
        | SYS_rt_tgsigqueueinfo => &[EPERM],
        SYS_wait4 | SYS_waitid => &[EINTR],
        SYS_poll | SYS_ppoll | SYS_select | SYS_pselect6 => &[ENOMEM, EINTR],
        SYS_epoll_wait | SYS_epoll_pwait | SYS_epoll_pwait2 | SYS_rt_sigtimedwait | SYS_rt_sigsuspend
        | SYS_pause | SYS_nanosleep | SYS_clock_nanosleep | SYS_getrandom | SYS_restart_syscall => &[EINTR],
        SYS_futex => match a[1] as i32 & 0x7f {
            FUTEX_WAIT | FUTEX_WAIT_BITSET => &[EINTR],
            _ => NONE,
        },
        // What cannot fail in a way that a caller could meet.
        SYS_close
        | SYS_lseek
        | SYS_rt_sigaction
        | SYS_rt_sigprocmask
        | SYS_rt_sigreturn
        | SYS_sched_yield
        | SYS_getitimer
        | SYS_alarm
        | SYS_setitimer
        | SYS_getpid
        | SYS_shutdown
        | SYS_listen
        | SYS_msync
        | SYS_getsockname
        | SYS_getpeername
        | SYS_getsockopt
        | SYS_exit
        | SYS_uname
        | SYS_umask
        | SYS_gettimeofday
        | SYS_getrlimit
        | SYS_prlimit64
        | SYS_getrusage
        | SYS_sysinfo
        | SYS_times
        | SYS_getuid
        | SYS_getgid
        | SYS_geteuid
        | SYS_getegid
        | SYS_getppid
        | SYS_getpgrp
        | SYS_getgroups
        | SYS_getresuid
        | SYS_getresgid
        | SYS_getpgid
        | SYS_setfsuid
        | SYS_setfsgid
        | SYS_getsid
        | SYS_rt_sigpending
        | SYS_personality
        | SYS_getpriority
        | SYS_sched_getparam
        | SYS_mincore
        | SYS_sched_getscheduler
        | SYS_sched_getaffinity
        | SYS_sched_getattr
        | SYS_arch_prctl
        | SYS_sync
        | SYS_gettid
        | SYS_time
        | SYS_set_tid_address
        | SYS_fadvise64
        | SYS_readahead
        | SYS_clock_gettime
        | SYS_clock_getres
        | SYS_exit_group
        | SYS_ioprio_get
        | SYS_set_robust_list
        | SYS_get_robust_list
        | SYS_getcpu
        | SYS_rseq
        | SYS_munlock
        | SYS_timerfd_settime
        | SYS_timerfd_gettime
        | SYS_inotify_rm_watch
        | SYS_membarrier
        | SYS_get_mempolicy => NONE,
        _ => &SWEPT,
    };
    row.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: i64, args: [u64; 6]) -> Call {
        Call { number, args }
    }

    #[test]
    fn rows_hold_only_swept_errnos_once() {
        for (number, name) in NAMES {
            for arg in 0..80 {
                let row = possible(&call(*number, [arg, arg, arg, 0, 0, 0]));
                assert!(row.iter().all(|e| SWEPT.contains(e)), "{name}");
                assert!(row.iter().enumerate().all(|(i, e)| !row[..i].contains(e)), "{name}");
            }
        }
    }

    #[test]
    fn arguments_decide() {
        assert!(!possible(&call(SYS_openat, [0; 6])).contains(&ENOSPC));
        assert!(possible(&call(SYS_openat, [0, 0, O_CREAT as u64, 0, 0, 0])).contains(&ENOSPC));
        assert!(possible(&call(SYS_openat, [0, 0, O_TMPFILE as u64, 0, 0, 0])).contains(&ENOSPC));
        assert!(!possible(&call(SYS_openat, [0, 0, O_DIRECTORY as u64, 0, 0, 0])).contains(&ENOSPC));
        assert!(possible(&call(SYS_prlimit64, [0; 6])).is_empty());
        assert_eq!(possible(&call(SYS_prlimit64, [0, 7, 1, 0, 0, 0])), [EPERM]);
        assert!(possible(&call(SYS_prctl, [PR_SET_NAME as u64, 0, 0, 0, 0, 0])).is_empty());
        assert_eq!(possible(&call(SYS_prctl, [PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0, 0, 0])), [EPERM]);
        assert_eq!(possible(&call(SYS_futex, [0, 128, 0, 0, 0, 0])), [EINTR]);
        assert!(possible(&call(SYS_futex, [0, 129, 0, 0, 0, 0])).is_empty());
    }

    #[test]
    fn harmless_calls_are_left_alone_and_unknown_ones_are_not() {
        for n in [SYS_close, SYS_getpid, SYS_exit_group, SYS_rt_sigaction] {
            assert!(possible(&call(n, [0; 6])).is_empty());
        }
        assert_eq!(possible(&call(9999, [0; 6])), SWEPT);
        assert_eq!(call_name(9999), "syscall9999");
        assert_eq!(call_name(SYS_clone3), "clone3");
    }

    #[test]
    fn errno_names_go_both_ways() {
        for (name, number) in ERRNOS {
            assert_eq!(errno_of(name), Some(*number));
            assert_eq!(errno_name(*number), *name);
        }
        assert_eq!(errno_of("EWHAT"), None);
    }
}
