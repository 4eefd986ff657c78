//! What naru's and libseccomp's filter for a profile cost: to compile, to install, in instructions.

use crate::libseccomp::Library;
use crate::plan::seccomp::interpret::{Call, run};
use crate::plan::seccomp::{Filter, compile};
use crate::profile::Profile;
use crate::runc;
use anyhow::{Context, Result};
use oci_spec::runtime::LinuxSeccomp;
use seccompiler::sock_filter;
use std::time::{Duration, Instant};

const ROUNDS: usize = 200;

pub fn measure(library: &Library, engine: &str, profile: &Profile) -> Result<()> {
    let spec: LinuxSeccomp = serde_json::from_value(profile.json())?;
    let Filter { program, flags, .. } = compile(&spec)?.context("a filter")?;
    println!("{engine}: the kernel refuses {} calls with the errno expected", refused(&program, flags)?);
    let theirs = runc::program(library, profile, "SCMP_ARCH_X86_64")?;
    let mut ours_time = Vec::new();
    let mut their_time = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        std::hint::black_box(compile(std::hint::black_box(&spec))?);
        ours_time.push(start.elapsed());
    }
    for _ in 0..ROUNDS / 10 {
        let start = Instant::now();
        std::hint::black_box(runc::program(library, profile, "SCMP_ARCH_X86_64")?);
        their_time.push(start.elapsed());
    }
    let (mut ours_install, mut their_install, mut none) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours_install.push(install(&program, flags)?);
        their_install.push(install(&theirs, flags)?);
        none.push(install(&[sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }], flags)?);
    }
    let steps = |program: &[sock_filter]| {
        let steps = |arch: u32| {
            (0..470).map(|number| run(program, &Call { number, arch, args: [0; 6] }).1).sum::<usize>()
        };
        let (native, compat) = (steps(0xc000_003e) as f64 / 470.0, steps(0x4000_0003) as f64 / 470.0);
        format!("{native:.1} x86_64, {compat:.1} x86")
    };
    println!(
        "{engine}: instructions: naru {}, libseccomp {} (without runc's stub)",
        program.len(),
        theirs.len()
    );
    println!("{engine}: instructions run per call: naru {}; libseccomp {}", steps(&program), steps(&theirs));
    println!("{engine}: compile: naru {}; libseccomp {}", quartiles(ours_time), quartiles(their_time));
    println!(
        "{engine}: install: naru {}; libseccomp {}; one instruction {}",
        quartiles(ours_install),
        quartiles(their_install),
        quartiles(none)
    );
    Ok(())
}

fn quartiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let us = |n: usize| times[n].as_nanos() as f64 / 1000.0;
    format!("min {:.1} median {:.1} us", us(0), us(times.len() / 2))
}

/// Makes, under the filter, every call for which it should return an errno, and counts them. They never run, so any will do.
fn refused(program: &[sock_filter], flags: u32) -> Result<usize> {
    let numbers = (0..600).chain(0x4000_0000..0x4000_0000 + 600).chain([0x8000_0000, u32::MAX - 5]);
    // uretprobe and uprobe go past every filter (Linux 6.14, seccomp_uprobe_exception).
    let numbers = numbers.filter(|number| !matches!(number, 335 | 336));
    let verdict = |number: u32| run(program, &Call { number, arch: 0xc000_003e, args: [0; 6] }).0;
    let calls: Vec<(u32, u32)> = numbers
        .map(|number| (number, verdict(number)))
        .filter(|(_, verdict)| verdict >> 16 == 5 && *verdict & 0xffff != 0)
        .collect();
    let argument = Program { len: program.len() as u16, filter: program.as_ptr() };
    let mut status = 0;
    // SAFETY: the child only makes system calls and leaves by _exit; all pointers are to live memory.
    unsafe {
        let pid = libc::fork();
        anyhow::ensure!(pid >= 0, "fork failed");
        if pid == 0 {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let mut right = libc::syscall(libc::SYS_seccomp, 1, flags as libc::c_ulong, &argument) == 0;
            for (number, verdict) in &calls {
                if !right {
                    break;
                }
                let ret = libc::syscall(*number as libc::c_long, 0, 0, 0, 0, 0, 0);
                right = ret == -1 && *libc::__errno_location() as u32 == verdict & 0xffff;
            }
            libc::_exit(i32::from(!right))
        }
        libc::waitpid(pid, &raw mut status, 0);
    }
    anyhow::ensure!(status == 0, "the kernel judges otherwise: {status:#x}");
    Ok(calls.len())
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: u16,
    filter: *const sock_filter,
}

/// How long a new process's seccomp(2) takes.
fn install(program: &[sock_filter], flags: u32) -> Result<Duration> {
    let argument = Program { len: program.len() as u16, filter: program.as_ptr() };
    let mut pipe = [0; 2];
    // SAFETY: the child only makes system calls and leaves by _exit; all pointers are to live memory.
    unsafe {
        anyhow::ensure!(libc::pipe(pipe.as_mut_ptr()) == 0, "pipe failed");
        let pid = libc::fork();
        anyhow::ensure!(pid >= 0, "fork failed");
        if pid == 0 {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let mut times: [libc::timespec; 2] = std::mem::zeroed();
            libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut times[0]);
            let ret = libc::syscall(libc::SYS_seccomp, 1, flags as libc::c_ulong, &argument);
            libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut times[1]);
            let ns =
                (times[1].tv_sec - times[0].tv_sec) * 1_000_000_000 + times[1].tv_nsec - times[0].tv_nsec;
            let answer: i64 = if ret == 0 { ns } else { -1 };
            libc::write(pipe[1], (&raw const answer).cast(), 8);
            libc::_exit(0);
        }
        let mut answer: i64 = -1;
        libc::close(pipe[1]);
        libc::read(pipe[0], (&raw mut answer).cast(), 8);
        libc::close(pipe[0]);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
        anyhow::ensure!(answer >= 0, "the kernel refused the filter");
        Ok(Duration::from_nanos(answer as u64))
    }
}
