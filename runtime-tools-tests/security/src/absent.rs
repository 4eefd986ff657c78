//! `absent CALL[,CALL..] ERRNO PROGRAM [ARG..]`: runs a program on a kernel that seems to lack system calls: each one
//! named answers ERRNO (`ENOSYS` as an old kernel does, `EPERM` as an old filter around a container does). A call may be
//! narrowed to one value of its first argument: `prctl=38`. Used by the missing-features sweep and by T42.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;

/// Names, and numbers that are the same on every architecture (all calls since Linux 5.0), or x86_64's.
const CALLS: &[(&str, i64)] = &[
    ("prctl", libc::SYS_prctl),
    ("memfd_create", libc::SYS_memfd_create),
    ("statx", libc::SYS_statx),
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    ("pidfd_send_signal", 424),
    ("open_tree", 428),
    ("move_mount", 429),
    ("fsopen", 430),
    ("fsconfig", 431),
    ("fsmount", 432),
    ("pidfd_open", 434),
    ("clone3", 435),
    ("close_range", 436),
    ("openat2", 437),
    ("faccessat2", 439),
    ("mount_setattr", 442),
    ("fchmodat2", 452),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [calls, errno, program, rest @ ..] = args.as_slice() else {
        refuse("CALL[,CALL..] ERRNO PROGRAM [ARG..]")
    };
    let errno = match errno.as_str() {
        "ENOSYS" => libc::ENOSYS,
        "EPERM" => libc::EPERM,
        "EINVAL" => libc::EINVAL,
        other => refuse(other),
    };
    install(&filter(calls, errno as u32));
    let error = std::process::Command::new(program).args(rest).exec();
    refuse(&format!("{program}: {error}"))
}

fn refuse(why: &str) -> ! {
    eprintln!("absent: {why}");
    std::process::exit(2)
}

/// One block a call: its number, perhaps its first argument, the errno. Everything else is allowed.
fn filter(calls: &str, errno: u32) -> Vec<libc::sock_filter> {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset: u32| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let answer = |k: u32| op(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    let equal = |k: u32, jt: u8, jf: u8| op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, k);
    let mut program = Vec::new();
    for call in calls.split(',') {
        let (name, argument) = call.split_once('=').map_or((call, None), |(name, value)| (name, Some(value)));
        let Some(&(_, number)) = CALLS.iter().find(|(known, _)| *known == name) else { refuse(name) };
        program.push(load(0));
        match argument.map(|value| value.parse::<u32>().unwrap_or_else(|_| refuse(value))) {
            None => program.extend([equal(number as u32, 0, 1), answer(libc::SECCOMP_RET_ERRNO | errno)]),
            Some(value) => program.extend([
                equal(number as u32, 0, 3),
                load(16),
                equal(value, 0, 1),
                answer(libc::SECCOMP_RET_ERRNO | errno),
            ]),
        }
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

/// As root without no_new_privs, which a runtime under test must be free to leave unset.
fn install(program: &[libc::sock_filter]) {
    let mut program = program.to_vec();
    let fprog = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let load = || {
        // SAFETY: `fprog` points to `len` live instructions, which the kernel copies.
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const fprog) }
    };
    let mut done = load();
    if done != 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EACCES) {
        // An ordinary user may load one only so.
        // SAFETY: no memory is passed.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        done = load();
    }
    if done != 0 {
        refuse(&format!("seccomp: {}", std::io::Error::last_os_error()));
    }
}
