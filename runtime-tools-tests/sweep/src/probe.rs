//! The payload and the hook: this same program under the name `probe`, inside the container.
//!
//! `probe report` prints all that a container must be, a line each, so that two containers can be compared;
//! `probe wait` says `ready`, then a `u` for each SIGUSR1; `probe hook FILE` appends a line to FILE.
//! Called by `main` when argv[0] ends in `probe`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// The program's first argument decides; the exit code is 0 only when all was done.
pub fn main(args: &[String]) -> i32 {
    match args.get(1).map(String::as_str) {
        Some("report") => {
            let text = report();
            i32::from(std::io::stdout().write_all(text.as_bytes()).is_err())
        }
        Some("wait") => wait(),
        Some("hook") => {
            let state = std::io::read_to_string(std::io::stdin()).unwrap_or_default();
            let seen = if state.contains("\"ociVersion\"") { "state\n" } else { "no state\n" };
            let file = args.get(2).and_then(|p| fs::OpenOptions::new().append(true).open(p).ok());
            i32::from(file.is_none_or(|mut f| f.write_all(seen.as_bytes()).is_err()))
        }
        _ => 2,
    }
}

fn wait() -> i32 {
    // SAFETY: the set lives through the calls; raw numbers otherwise.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&mut set, libc::SIGUSR1);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::write(1, b"ready\n".as_ptr().cast(), 6);
        loop {
            let mut signal = 0;
            if libc::sigwait(&set, &mut signal) != 0 || signal == libc::SIGTERM {
                return 0;
            }
            libc::write(1, b"u".as_ptr().cast(), 1);
        }
    }
}

fn errno_or_zero(r: i64) -> i32 {
    if r == -1 { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

fn open_errno(path: &str, flags: i32) -> i32 {
    let path = std::ffi::CString::new(path).unwrap_or_default();
    // SAFETY: the path is a C string that lives through the call; the process ends soon, the descriptor with it.
    errno_or_zero(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) }.into())
}

/// One line per fact. Ids that differ between equal containers are left out or marked for the reader to replace.
fn report() -> String {
    let mut t = String::with_capacity(16384);
    descriptors(&mut t);
    status(&mut t);
    limits(&mut t);
    let mut env: Vec<String> =
        std::env::vars_os().map(|(k, v)| format!("{}={}", k.display(), v.display())).collect();
    env.sort();
    let _ = writeln!(t, "args {:?}", std::env::args_os().collect::<Vec<_>>());
    let _ = writeln!(t, "env {env:?}");
    let _ = writeln!(t, "cwd {:?}", std::env::current_dir().ok());
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        let _ = writeln!(t, "ns {}", link.display());
    }
    for file in [
        "sys/kernel/hostname",
        "sys/kernel/domainname",
        "sys/net/ipv4/ip_unprivileged_port_start",
        "sys/kernel/msgmax",
        "self/oom_score_adj",
        "self/cgroup",
        "self/uid_map",
        "self/gid_map",
    ] {
        let text = fs::read_to_string(format!("/proc/{file}"));
        let _ = writeln!(t, "{file} {:?}", text.map_err(|e| e.raw_os_error()));
    }
    mounts(&mut t);
    devices(&mut t, "/dev");
    covered(&mut t);
    refused(&mut t);
    t
}

fn descriptors(t: &mut String) {
    for fd in 0..64 {
        if let Ok(target) = fs::read_link(format!("/proc/self/fd/{fd}")) {
            let name: String = target.to_string_lossy().chars().filter(|c| !c.is_ascii_digit()).collect();
            let _ = writeln!(t, "fd {fd} {name}");
        }
    }
}

fn status(t: &mut String) {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = [
        "Umask:",
        "PPid:",
        "TracerPid:",
        "Uid:",
        "Gid:",
        "Groups:",
        "SigBlk:",
        "SigIgn:",
        "CapInh:",
        "CapPrm:",
        "CapEff:",
        "CapBnd:",
        "CapAmb:",
        "NoNewPrivs:",
        "Seccomp:",
        "Seccomp_filters:",
    ];
    for line in text.lines().filter(|l| wanted.iter().any(|w| l.starts_with(w))) {
        let _ = writeln!(t, "{line}");
    }
    // The pid itself depends on how many came before, save for the first.
    let first = std::process::id() == 1;
    // SAFETY: getsid and getpgid take plain numbers.
    let leads = unsafe { (libc::getsid(0) == libc::getpid(), libc::getpgid(0) == libc::getpid()) };
    let _ = writeln!(t, "first {first}, leads its session and group {leads:?}");
    // SAFETY: prctl queries and getpriority take plain numbers; PR_GET_PDEATHSIG writes one int that lives here.
    unsafe {
        let mut death = 0i32;
        libc::prctl(libc::PR_GET_PDEATHSIG, &mut death as *mut i32);
        let _ = writeln!(
            t,
            "dumpable {} pdeathsig {death} securebits {} keepcaps {} nice {} personality {}",
            libc::prctl(libc::PR_GET_DUMPABLE),
            libc::prctl(libc::PR_GET_SECUREBITS),
            libc::prctl(libc::PR_GET_KEEPCAPS),
            libc::getpriority(libc::PRIO_PROCESS, 0),
            libc::personality(0xffff_ffff),
        );
        // The session keyring's description, whose name tells whose it is.
        let mut text = [0u8; 256];
        let r = libc::syscall(libc::SYS_keyctl, 6, -3i32, text.as_mut_ptr(), text.len());
        let keyring = text.split(|b| *b == 0).next().unwrap_or_default();
        let name = keyring.rsplit(|b| *b == b';').next().unwrap_or_default();
        let _ = writeln!(
            t,
            "session keyring {} {}",
            errno_or_zero(r),
            std::ffi::OsStr::from_bytes(name).display()
        );
    }
}

fn limits(t: &mut String) {
    for resource in 0..16 {
        // SAFETY: getrlimit writes one rlimit that lives here.
        unsafe {
            let mut r: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(resource, &mut r);
            let _ = writeln!(t, "rlimit {resource} {} {}", r.rlim_cur, r.rlim_max);
        }
    }
}

/// mountinfo without ids and device numbers; peer groups keep only their kind.
fn mounts(t: &mut String) {
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        let words: Vec<String> = line
            .split(' ')
            .skip(3)
            .map(|w| match w.split_once(':') {
                Some((kind @ ("shared" | "master" | "propagate_from"), _)) => kind.to_string(),
                _ => w.to_string(),
            })
            .collect();
        let _ = writeln!(t, "mount {}", words.join(" "));
    }
}

fn devices(t: &mut String, dir: &str) {
    let mut names: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|e| e.path()).collect();
    names.sort();
    for path in names {
        let Ok(m) = fs::symlink_metadata(&path) else { continue };
        let kind = m.file_type();
        let target = if kind.is_symlink() { fs::read_link(&path).ok() } else { None };
        let number = if kind.is_char_device() || kind.is_block_device() { m.rdev() } else { 0 };
        let _ = writeln!(
            t,
            "dev {} {:o} {}:{} {}:{} {:?}",
            path.display(),
            m.mode(),
            m.uid(),
            m.gid(),
            number >> 8,
            number & 0xff,
            target
        );
        if kind.is_dir() && dir == "/dev" {
            devices(t, &path.to_string_lossy());
        }
    }
}

/// Masked paths: what lies there now. Read-only paths: what a write says.
fn covered(t: &mut String) {
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/scsi", "/proc/acpi"]
    {
        let kind = fs::symlink_metadata(path).map(|m| {
            let entries = if m.is_dir() { fs::read_dir(path).map(|d| d.count()).ok() } else { None };
            (m.mode(), m.rdev(), entries)
        });
        let _ = writeln!(t, "masked {path} {:?}", kind.map_err(|e| e.raw_os_error()));
    }
    for path in [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/hostname",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/mm/ksm/run",
        "/new-file",
        "/data/file",
        "/data/new-file",
        "/dev/shm/new-file",
        "/tmp/new-file",
    ] {
        let flags = if path.contains("new") { libc::O_CREAT | libc::O_WRONLY } else { libc::O_WRONLY };
        let _ = writeln!(t, "write {path} {}", open_errno(path, flags));
        if path.contains("new") {
            // For the next report in the same container; absent where nothing could be made.
            let _ = fs::remove_file(path);
        }
    }
}

/// What seccomp, the device rules and the capabilities refuse.
fn refused(t: &mut String) {
    let _ = writeln!(t, "device allowed {}", open_errno("/dev/null", libc::O_RDWR));
    let _ = writeln!(t, "device denied {}", open_errno("/dev/denied", libc::O_RDONLY));
    // SAFETY: plain numbers and null pointers, which the calls answer with an errno.
    unsafe {
        let _ = writeln!(t, "seccomp rule {}", errno_or_zero(libc::syscall(libc::SYS_acct, 0)));
        let _ = writeln!(
            t,
            "seccomp rule with condition {} {}",
            errno_or_zero(libc::syscall(libc::SYS_getpriority, 1, 0)),
            errno_or_zero(libc::syscall(libc::SYS_getpriority, 0, 0)),
        );
        let _ = writeln!(t, "capability {}", errno_or_zero(libc::syscall(libc::SYS_chroot, c"/".as_ptr())));
    }
}
