//! The payload of the black-box suite: a static program that runs inside a container (and as a hook outside of it) and
//! tells what it sees or may do. One mode a run, or several with `seq`. It knows nothing of any runtime.
//! Answers are single lines: `ok`, `ok VALUE` or an errno name such as `EROFS`.

#![recursion_limit = "256"]

mod calls;
mod report;
mod sys;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    // Called as /bin/true or with a name of our own: the name of the file says the mode.
    let code = if args.is_empty() { 0 } else { run(&args) };
    exit(code);
}

/// Runs one mode; the exit code.
fn run(args: &[String]) -> i32 {
    let a: Vec<&str> = args.iter().map(String::as_str).collect();
    match a.as_slice() {
        ["true", ..] => 0,
        ["exit", n] => number(n) as i32,
        ["json"] => say(&report::report().to_string()),
        ["args", rest @ ..] => say(&json!(rest).to_string()),
        ["environ"] => say(&report::report()["environ"].to_string()),
        ["say", text] => say(text),
        ["err", text] => {
            eprintln!("{text}");
            0
        }
        ["stdin"] => copy_stdin(),
        ["cat", path] => answer(fs::read_to_string(path).map(|s| json!(s).to_string())),
        ["write", path, text] => answer(put(path, libc::O_WRONLY, text)),
        ["append", path, text] => answer(put(path, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND, text)),
        ["create", path, text] => answer(put(path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, text)),
        ["mkdir", path] => answer(fs::create_dir(path).map(|()| String::new())),
        ["unlink", path] => answer(fs::remove_file(path).map(|()| String::new())),
        ["rename", from, to] => answer(fs::rename(from, to).map(|()| String::new())),
        ["chown", path, uid, gid] => answer(
            std::os::unix::fs::chown(path, Some(number(uid) as u32), Some(number(gid) as u32))
                .map(|()| String::new()),
        ),
        ["chdir", path] => answer(std::env::set_current_dir(path).map(|()| String::new())),
        ["stat", path] => say(&report::node(path).to_string()),
        ["ls", path] => say(&json!(report::names(path)).to_string()),
        ["readlink", path] => answer(fs::read_link(path).map(|l| l.to_string_lossy().into_owned())),
        ["open", path, mode] => answer_errno(open_file(path, mode)),
        ["statfs", path] => answer_errno(
            nix::sys::statvfs::statvfs(*path)
                .map(|s| format!("{} {}", s.blocks() * s.fragment_size(), s.files())),
        ),
        ["mknod", path, kind, major, minor] => {
            answer_errno(make_node(path, kind, number(major), number(minor)))
        }
        ["mount", source, target, kind, flags] => {
            let flags = nix::mount::MsFlags::from_bits_retain(number(flags) as _);
            answer_errno(
                nix::mount::mount(Some(*source), *target, Some(*kind), flags, None::<&str>)
                    .map(|()| String::new()),
            )
        }
        ["umount", target] => answer_errno(nix::mount::umount(*target).map(|()| String::new())),
        ["sethostname", name] => answer_errno(nix::unistd::sethostname(name).map(|()| String::new())),
        ["setuid", uid] => {
            answer_errno(nix::unistd::setuid((number(uid) as u32).into()).map(|()| String::new()))
        }
        ["syscall", name, rest @ ..] => syscall(name, rest),
        ["int80", nr] => int80(number(nr)),
        ["tty"] => say(&terminal().to_string()),
        ["sleep"] => sleep(Duration::from_secs(3600)),
        ["sleep", ms] => sleep(Duration::from_millis(number(ms))),
        ["wait", path] => wait_file(path),
        ["count", path] => count(path),
        ["lock", path] => lock(path),
        ["piped", path] => piped(path),
        ["signals"] => signals(),
        ["raise", n] => raise(number(n) as i32),
        ["notify-flood"] => notify_flood(),
        ["notify", text] => answer(notify(text).map(|()| String::new())),
        ["orphan", path] => orphan(path),
        ["children", n] => children(number(n)),
        ["memory", mib] => memory(number(mib) as usize),
        ["fork-until-error"] => fork_until_error(),
        ["fd", n] => {
            answer(fs::read_link(format!("/proc/self/fd/{n}")).map(|l| l.to_string_lossy().into_owned()))
        }
        ["read-fd", n] => {
            answer(fs::read_to_string(format!("/proc/self/fd/{n}")).map(|s| json!(s).to_string()))
        }
        ["overwrite", path, ms] => overwrite(path, number(ms)),
        ["pids"] => say(&json!(pids()).to_string()),
        ["hook", path, rest @ ..] => hook(path, rest),
        ["exec", program, rest @ ..] => {
            let e = Command::new(program).args(rest).exec();
            say(&errno_name(&e))
        }
        ["spawn", rest @ ..] => spawn(rest),
        ["held-link", path] => held_link(path),
        ["connected", path] => connected(path),
        ["tcp", how] => tcp(*how == "accepted"),
        ["flood"] => flood_forever(),
        ["flood", bytes] => flood(number(bytes) as usize),
        ["leave-group"] => leave_group(),
        ["background", rest @ ..] => background(rest),
        ["leave", ms] => match sys::fork() {
            Ok(0) => sleep(Duration::from_millis(number(ms))),
            Ok(_) => 0,
            Err(_) => 3,
        },
        ["seq", rest @ ..] => sequence(rest),
        other => {
            eprintln!("probe: unknown mode: {other:?}");
            2
        }
    }
}

/// `seq A.. --- B.. --- C..`: one mode after the other in one process, one line each.
fn sequence(rest: &[&str]) -> i32 {
    let mut code = 0;
    for part in rest.split(|a| *a == "---") {
        let part: Vec<String> = part.iter().map(|s| s.to_string()).collect();
        code = run(&part);
    }
    code
}

/// Writes so many bytes in lines of 64, each of one letter.
fn flood(bytes: usize) -> i32 {
    for line in 0..bytes / 64 {
        let text = [b'a' + (line % 26) as u8; 63];
        if say(&String::from_utf8_lossy(&text)) != 0 {
            return 3;
        }
    }
    0
}

/// Writes until nobody takes it any more.
fn flood_forever() -> i32 {
    let mut text = [b'x'; 32 << 10];
    text.iter_mut().skip(63).step_by(64).for_each(|byte| *byte = b'\n');
    sys::come_first();
    while nix::unistd::write(std::io::stdout(), &text).is_ok() {}
    3
}

/// Another mode in a process and a session of its own, so that no terminal's end ends it.
fn background(rest: &[&str]) -> i32 {
    match sys::fork() {
        Ok(0) => {
            let rest: Vec<String> = rest.iter().map(|a| a.to_string()).collect();
            exit(if nix::unistd::setsid().is_ok() { run(&rest) } else { 3 })
        }
        Ok(_) => 0,
        Err(_) => 3,
    }
}

/// Goes over to the process group of a child.
fn leave_group() -> i32 {
    match sys::fork() {
        Ok(0) => sleep(Duration::from_secs(20)),
        Ok(child) => {
            let group = Pid::from_raw(child);
            let moved = nix::unistd::setpgid(group, group)
                .and_then(|()| nix::unistd::setpgid(Pid::from_raw(0), group));
            if moved.is_ok() { 0 } else { 3 }
        }
        Err(_) => 3,
    }
}

/// Another mode in a process of its own, waited for.
fn spawn(rest: &[&str]) -> i32 {
    match Command::new("/proc/self/exe").args(rest).status() {
        Ok(status) => status.code().unwrap_or(3),
        Err(_) => 3,
    }
}

fn number(s: &str) -> u64 {
    let (digits, radix) = s.strip_prefix("0x").map_or((s, 10), |h| (h, 16));
    if let Some(negative) = digits.strip_prefix('-') {
        return negative.parse::<i64>().map_or(0, |n| (-n) as u64);
    }
    match u64::from_str_radix(digits, radix) {
        Ok(n) => n,
        Err(_) => {
            eprintln!("probe: not a number: {s}");
            exit(2)
        }
    }
}

fn say(line: &str) -> i32 {
    let mut out = std::io::stdout().lock();
    // One write a line: readers poll the file while the probe still runs.
    match out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(_) => 3,
    }
}

/// sd_notify(3).
fn notify(text: &str) -> std::io::Result<()> {
    let socket = std::env::var_os("NOTIFY_SOCKET").ok_or(std::io::Error::from_raw_os_error(libc::ENOENT))?;
    std::os::unix::net::UnixDatagram::unbound()?.send_to(text.as_bytes(), socket).map(drop)
}

/// Sends without end, and never the word of readiness.
fn notify_flood() -> i32 {
    let socket = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let Ok(client) = std::os::unix::net::UnixDatagram::unbound() else { return 3 };
    if client.connect(socket).is_err() {
        return 3;
    }
    sys::come_first();
    while client.send(b"STATUS=busy").is_ok() {}
    3
}

fn errno_name(e: &std::io::Error) -> String {
    e.raw_os_error().map_or_else(|| e.to_string(), |n| format!("{:?}", Errno::from_raw(n)))
}

fn answer(r: std::io::Result<String>) -> i32 {
    match r {
        Ok(v) if v.is_empty() => say("ok"),
        Ok(v) => say(&format!("ok {v}")),
        Err(e) => say(&errno_name(&e)),
    }
}

fn answer_errno(r: Result<String, Errno>) -> i32 {
    answer(r.map_err(|e| std::io::Error::from_raw_os_error(e as i32)))
}

fn put(path: &str, flags: i32, text: &str) -> std::io::Result<String> {
    let fd = open(path, OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC, Mode::from_bits_retain(0o666))?;
    fs::File::from(fd).write_all(text.as_bytes())?;
    Ok(String::new())
}

fn open_file(path: &str, mode: &str) -> Result<String, Errno> {
    let flags = calls::open_flags(mode).ok_or(Errno::EINVAL)?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    open(path, flags, Mode::from_bits_retain(0o600)).map(|_| String::new())
}

fn make_node(path: &str, kind: &str, major: u64, minor: u64) -> Result<String, Errno> {
    let kind = match kind {
        "c" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        "p" => SFlag::S_IFIFO,
        _ => return Err(Errno::EINVAL),
    };
    mknod(path, kind, Mode::from_bits_retain(0o600), makedev(major, minor)).map(|()| String::new())
}

fn syscall(name: &str, rest: &[&str]) -> i32 {
    let number_of = calls::NUMBERS.iter().find(|(n, _)| *n == name).map(|(_, nr)| *nr);
    let Some(nr) = number_of.or_else(|| name.parse().ok()) else {
        eprintln!("probe: unknown system call {name}");
        return 2;
    };
    let mut a = [0u64; 6];
    for (slot, text) in a.iter_mut().zip(rest) {
        *slot = number(text);
    }
    answer_errno(sys::raw(nr, a).map(|_| String::new()))
}

/// A 32-bit call by the old gate: what a filter without the x86 architecture lets kill us for.
fn int80(nr: u64) -> i32 {
    answer_errno(sys::int80(nr as u32).map(|_| String::new()))
}

fn terminal() -> serde_json::Value {
    let one = |fd: i32| {
        let target =
            fs::read_link(format!("/proc/self/fd/{fd}")).ok().map(|l| l.to_string_lossy().into_owned());
        json!({ "isatty": sys::window_size(fd).is_ok(), "target": target, "size": sys::window_size(fd).ok() })
    };
    let controlling = fs::File::open("/dev/tty").map_err(|e| errno_name(&e)).map(|_| "ok".to_string());
    json!({
        "stdio": [one(0), one(1), one(2)],
        "dev_tty": controlling.unwrap_or_else(|e| e),
        "sid": nix::unistd::getsid(None).map(|p| p.as_raw()).ok(),
        "pgrp": nix::unistd::getpgrp().as_raw(),
        "pid": std::process::id(),
        "console": report::node("/dev/console"),
        "termios": nix::sys::termios::tcgetattr(std::io::stdin()).ok().map(|t| t.output_flags.contains(nix::sys::termios::OutputFlags::ONLCR)),
    })
}

fn sleep(time: Duration) -> i32 {
    std::thread::sleep(time);
    0
}

/// Waits until a path exists, 10 s at most.
fn wait_file(path: &str) -> i32 {
    let end = Instant::now() + Duration::from_secs(10);
    while fs::symlink_metadata(path).is_err() {
        if Instant::now() > end {
            return 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    0
}

/// Writes 1, 2, 3 .. to a file, a hundred a second, until it is killed; SIGTERM is left to its default action.
fn count(path: &str) -> i32 {
    let mut number = 0u64;
    loop {
        number += 1;
        if fs::write(path, format!("{number}\n")).is_err() {
            return 3;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Counts like `count`, by lines that a child writes to a pipe on standard input.
fn piped(path: &str) -> i32 {
    let Ok((read, write)) = nix::unistd::pipe() else { return 3 };
    let mut child = Command::new("/proc/self/exe");
    child.args(["count", "/dev/stdout"]).stdin(std::process::Stdio::null()).stdout(write);
    let Ok(_child) = child.spawn() else { return 3 };
    drop(child);
    if nix::unistd::dup2_stdin(&read).is_err() {
        return 3;
    }
    drop(read);
    for line in std::io::stdin().lines() {
        if line.is_err() || fs::write(path, format!("{}\n", line.unwrap_or_default())).is_err() {
            return 3;
        }
    }
    0
}

/// Keeps a file open whose name is gone and which has another one.
fn held_link(path: &str) -> i32 {
    let Ok(file) = fs::File::create(path) else { return 3 };
    std::mem::forget(file);
    i32::from(fs::hard_link(path, format!("{path}.other")).is_err() || fs::remove_file(path).is_err())
}

/// Keeps a datagram socket that is connected to another one.
fn connected(path: &str) -> i32 {
    let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() else { return 3 };
    let connected = socket.connect(path);
    std::mem::forget(socket);
    i32::from(connected.is_err())
}

/// Keeps a connection to itself, accepted or not.
fn tcp(accepted: bool) -> i32 {
    let Ok(listener) = std::net::TcpListener::bind("127.0.0.1:0") else { return 3 };
    let Ok(client) = listener.local_addr().and_then(std::net::TcpStream::connect) else { return 3 };
    if accepted {
        std::mem::forget(listener.accept());
    }
    std::mem::forget((listener, client));
    0
}

/// Locks a file and keeps it so.
fn lock(path: &str) -> i32 {
    let Ok(file) = fs::File::create(path) else { return 3 };
    match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive) {
        Ok(_locked) => sleep(Duration::from_secs(3600)),
        Err(_) => 3,
    }
}

/// Says `ready`, then the name of each signal that arrives; SIGTERM ends it with 42. The signals are blocked, not
/// handled: so that they also reach process 1 of a pid namespace.
fn signals() -> i32 {
    let mut set = SigSet::empty();
    for s in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGCHLD))
    {
        set.add(s);
    }
    if sigprocmask(SigmaskHow::SIG_SETMASK, Some(&set), None).is_err() {
        return 3;
    }
    say("ready");
    loop {
        let Ok(s) = set.wait() else { return 3 };
        say(&format!("got {}", s.as_str()));
        if s == Signal::SIGWINCH {
            say(&format!("size {:?}", sys::window_size(0).ok()));
        }
        if s == Signal::SIGTERM {
            return 42;
        }
    }
}

/// Dies of a signal: the default action is set first. Process 1 of a pid namespace survives all but SIGKILL from
/// outside, so there the exit code tells: 77.
fn raise(n: i32) -> i32 {
    let Ok(signal) = Signal::try_from(n) else { return 2 };
    // A failed raise shows as exit code 77 as well.
    let _ = nix::sys::signal::raise(signal);
    std::thread::sleep(Duration::from_millis(50));
    77
}

/// Leaves a grandchild behind whose parent is gone, which writes who its new parent is, and exits at once.
fn orphan(path: &str) -> i32 {
    let before = nix::unistd::getpid();
    match sys::fork() {
        Ok(0) => {
            let end = Instant::now() + Duration::from_secs(5);
            while nix::unistd::getppid() == before && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
            let text = format!("{} {}\n", std::process::id(), nix::unistd::getppid());
            i32::from(fs::write(path, text).is_err())
        }
        Ok(_) => 0,
        Err(_) => 3,
    }
}

/// Starts N sleeping children, says their pids, sleeps too.
fn children(n: u64) -> i32 {
    let mut pids = vec![];
    for _ in 0..n {
        match sys::fork() {
            Ok(0) => return sleep(Duration::from_secs(3600)),
            Ok(pid) => pids.push(pid),
            Err(e) => {
                say(&format!("{e:?}"));
            }
        }
    }
    say(&json!(pids).to_string());
    sleep(Duration::from_secs(3600))
}

fn memory(mib: usize) -> i32 {
    let mut held = vec![];
    for i in 0..mib {
        held.push(vec![i as u8 | 1; 1 << 20]);
    }
    say(&format!("ok {}", held.len()))
}

fn fork_until_error() -> i32 {
    let mut pids = vec![];
    let failure = loop {
        match sys::fork() {
            Ok(0) => return sleep(Duration::from_secs(3600)),
            Ok(pid) => pids.push(pid),
            Err(e) => break e,
        }
        if pids.len() > 200 {
            break Errno::UnknownErrno;
        }
    };
    for pid in &pids {
        // They are our own sleeping children; a failure only leaves them to the end of the pid namespace.
        let _ = nix::sys::signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(Pid::from_raw(*pid), None);
    }
    say(&format!("{failure:?} {}", pids.len()))
}

/// Holds a file by a descriptor that only names it and tries, as long as told, to open that for writing and to append
/// to it: how CVE-2019-5736 replaces a runtime. Says how often it was refused, or that it wrote.
fn overwrite(path: &str, ms: u64) -> i32 {
    let held = match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(fd) => fd,
        Err(e) => return say(&format!("{e:?}")),
    };
    say("held");
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    let end = Instant::now() + Duration::from_millis(ms);
    let mut refused = 0;
    while Instant::now() < end {
        if put(&again, libc::O_WRONLY | libc::O_APPEND, "overwritten").is_ok() {
            return say("wrote");
        }
        refused += 1;
        std::thread::sleep(Duration::from_micros(200));
    }
    say(&format!("refused {}", refused > 0))
}

fn pids() -> Vec<u32> {
    let mut all: Vec<u32> =
        report::names("/proc").unwrap_or_default().iter().filter_map(|n| n.parse().ok()).collect();
    all.sort();
    all
}

/// As a hook: appends what it got (stdin, arguments, environment, directory, namespaces, time) as one JSON line to a
/// file, then does what the further arguments say: `exit N`, `sleep MS`, `say TEXT`, `err TEXT`, `stat PATH`, `touch PATH`.
fn hook(path: &str, rest: &[&str]) -> i32 {
    let mut stdin = String::new();
    let skip = rest.first() == Some(&"no-stdin");
    if !skip && std::io::stdin().read_to_string(&mut stdin).is_err() {
        return 3;
    }
    let rest = if skip { &rest[1..] } else { rest };
    let r = report::report();
    let mut v = json!({ "stdin": stdin });
    for key in [
        "args",
        "environ",
        "cwd",
        "ns",
        "pid",
        "fds",
        "root",
        "no_new_privs",
        "uid",
        "cgroup",
        "caps",
        "umask",
    ] {
        v[key] = r[key].clone();
    }
    let mut code = 0;
    let mut extra = serde_json::Map::new();
    for pair in rest.chunks(2) {
        match pair {
            ["stat", p] => {
                extra.insert(p.to_string(), report::node(p));
            }
            ["mounts", "yes"] => {
                extra.insert("mountinfo".into(), r["mountinfo"].clone());
            }
            ["try", p] => {
                let done = put(p, libc::O_WRONLY | libc::O_CREAT, "x").map_err(|e| errno_name(&e));
                extra.insert(format!("try {p}"), json!(done.err().unwrap_or_else(|| "ok".into())));
            }
            ["exit", n] => code = number(n) as i32,
            ["say", t] => println!("{t}"),
            ["err", t] => eprintln!("{t}"),
            _ => {}
        }
    }
    // What a hook in the runtime's namespaces sees of the process its state names.
    if let Some(pid) = serde_json::from_str::<serde_json::Value>(&stdin).ok().and_then(|s| s["pid"].as_i64())
    {
        extra.insert("peer".into(), report::peer(pid));
    }
    v["extra"] = extra.into();
    if put(path, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND, &format!("{v}\n")).is_err() {
        return 4;
    }
    for pair in rest.chunks(2) {
        if let ["sleep", ms] = pair {
            std::thread::sleep(Duration::from_millis(number(ms)));
        }
    }
    code
}

fn copy_stdin() -> i32 {
    let mut buf = [0u8; 65536];
    loop {
        match std::io::stdin().read(&mut buf) {
            Ok(0) => return 0,
            Ok(n) => {
                let mut out = std::io::stdout();
                if out.write_all(&buf[..n]).and_then(|()| out.flush()).is_err() {
                    return 3;
                }
            }
            Err(_) => return 3,
        }
    }
}
