//! A CRIU of our own: started for one job as `criu swrk FD`, talked to over that descriptor.
//!
//! CRIU is another program with full privileges; what it answers is checked for form and bounds. It is found by PATH like
//! any program a user calls. Called by `cmd::checkpoint` and `cmd::restore`.

use super::message::{self, Features, Kind, Response};
use crate::init::enter;
use crate::sys::process::{self, Cloned, StringArray};
use crate::sys::{fs, socket};
use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, send, shutdown, socketpair};
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where the socket is in CRIU.
const SOCKET: i32 = 3;
/// The first number for further descriptors in CRIU.
pub const FIRST_EXTRA: i32 = 4;
/// Largest answer, bytes.
const ANSWER_MAX: usize = 64 << 10;
/// Where programs are looked for without PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What CRIU is started with.
#[derive(Default)]
pub struct Surroundings<'a> {
    /// 0, 1 and 2 are the caller's; else /dev/null.
    pub stdio: bool,
    /// Descriptors from [`FIRST_EXTRA`] on.
    pub extra: Vec<BorrowedFd<'a>>,
    /// The cgroup2 directory to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// cgroup files to write `0` to.
    pub cgroup_files: Vec<OwnedFd>,
    /// The same for a CRIU that cannot be born in its cgroup.
    pub cgroup_files_without_clone: Vec<OwnedFd>,
    /// Session keyring, which restored processes inherit.
    pub keyring: Option<&'a CStr>,
    /// They are in a user namespace.
    pub user_namespace: bool,
    /// Signal mask; none: as it is.
    pub signal_mask: Option<SigSet>,
}

/// A running CRIU.
pub struct Session {
    socket: OwnedFd,
    pid: i32,
    /// As [`message::Response::version`] counts.
    version: i32,
    reaped: bool,
    /// CRIU's own words for its failure.
    words: String,
}

/// What comes beside an answer.
pub struct Answer {
    /// The message.
    pub response: Response,
    /// A descriptor that came with it.
    pub fd: Option<OwnedFd>,
}

/// Finds CRIU in PATH.
///
/// # Errors
/// There is none.
pub fn find() -> Result<CString> {
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty());
    let path = path.as_deref().unwrap_or(OsStr::new(DEFAULT_PATH));
    let found = std::env::split_paths(path).filter(|dir| dir.is_absolute()).find_map(|dir| {
        let file = dir.join("criu");
        let name = CString::new(file.as_os_str().as_bytes()).ok()?;
        (file.is_file() && fs::may_execute(&name).is_ok()).then_some(name)
    });
    found.context("exec: \"criu\": executable file not found in $PATH (checkpoint and restore need CRIU)")
}

impl Session {
    /// Starts CRIU and asks for its version.
    pub fn start(surroundings: &Surroundings) -> Result<Session> {
        let program = find()?;
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .context("make a socket for criu")?;
        let pid = spawn(&program, theirs, surroundings, true)?;
        let mut session = Session { socket, pid, version: 0, reaped: false, words: String::new() };
        session.version = match session.ask_version() {
            Ok(version) => version,
            // Killed at birth in its cgroup (see `spawn::launch`): then it goes there by itself.
            Err(_) if surroundings.cgroup.is_some() && session.was_killed() => {
                let flags = SockFlag::SOCK_CLOEXEC;
                let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
                    .context("make a socket for criu")?;
                let pid = spawn(&program, theirs, surroundings, false)?;
                session = Session { socket, pid, version: 0, reaped: false, words: String::new() };
                session.ask_version()?
            }
            Err(error) => return Err(error),
        };
        crate::log::debug(format_args!("using CRIU {}", session.version));
        Ok(session)
    }

    fn ask_version(&mut self) -> Result<i32> {
        let answer = self.send(&message::ask_version()).and_then(|()| self.receive());
        let response = answer.context("CRIU version check failed")?.response;
        if response.kind != Kind::Version as i32 || !response.success || response.version == 0 {
            bail!("CRIU version check failed: unexpected answer");
        }
        Ok(response.version)
    }

    /// Process id of CRIU.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Is CRIU of this version (as 31500 for 3.15) or later?
    pub fn is_at_least(&self, version: i32) -> bool {
        self.version >= version
    }

    /// What an old CRIU lacks is an error that says so.
    pub fn require(&self, version: i32, what: &str) -> Result<()> {
        if self.is_at_least(version) {
            return Ok(());
        }
        let (major, minor) = (version / 10000, version / 100 % 100);
        bail!(
            "{what} requires at least CRIU {major}.{minor}: CRIU version {} must be {version} or higher",
            self.version
        )
    }

    /// Checks that these features are there.
    pub fn require_features(&mut self, wanted: Features) -> Result<()> {
        self.send(&message::ask_features(wanted))?;
        let response = self.receive().context("CRIU feature check failed")?.response;
        if !response.success || response.kind != Kind::FeatureCheck as i32 {
            bail!("CRIU feature check failed");
        }
        for (wanted, there, name) in [
            (wanted.memory_tracking, response.features.memory_tracking, "MemTrack"),
            (wanted.lazy_pages, response.features.lazy_pages, "LazyPages"),
        ] {
            if wanted && !there {
                bail!("criu is missing features: [{name}]");
            }
        }
        Ok(())
    }

    /// Does the job: `notice` is called for each notification with its name, pid and descriptor. Its error makes CRIU
    /// give up and is the error of the job; an error of CRIU's own comes with what `log` says.
    pub fn work(
        &mut self,
        kind: Kind,
        request: &[u8],
        log: &Path,
        mut notice: impl FnMut(&str, i32, Option<OwnedFd>) -> Result<()>,
    ) -> Result<()> {
        let mut refused = None;
        let result = self.converse(kind, request, &mut |step, pid, fd| match notice(step, pid, fd) {
            Ok(()) => true,
            Err(error) => {
                refused.get_or_insert(error);
                false
            }
        });
        match (refused, result) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => Err(match quote(log) {
                Some(lines) => anyhow!("{error:#}; {}: {lines}", log.display()),
                None if !self.words.is_empty() => anyhow!("{error:#}: {}", self.words),
                None => error,
            }),
        }
    }

    /// The same; `notice` tells whether to go on.
    fn converse(
        &mut self,
        kind: Kind,
        request: &[u8],
        notice: &mut dyn FnMut(&str, i32, Option<OwnedFd>) -> bool,
    ) -> Result<()> {
        self.send(request)?;
        let response = loop {
            let Answer { response, fd } = self.receive()?;
            if response.kind != Kind::Notify as i32 {
                break response;
            }
            let (step, pid) = response.notify.context("criu sent a notification without a name")?;
            crate::log::debug(format_args!("notify: {step}"));
            let go_on = notice(&step, pid, fd);
            // A CRIU that has gone away meanwhile is found out by the next read.
            let _ = self.send(&message::notified(go_on));
        };
        if !response.success {
            self.words = response.message.trim().replace('\n', "; ");
            bail!("criu failed: type {} errno {}", kind.name(), response.errno);
        }
        if response.kind != kind as i32 {
            bail!("criu failed: answer of type {} to {}", response.kind, kind.name());
        }
        // A pre-dump would go on with another one; this tells CRIU that there is none.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        self.reaped = true;
        match process::wait(self.pid).context("wait for criu")? {
            process::Ended::Code(0) => Ok(()),
            _ if kind == Kind::PreDump => Ok(()),
            ended => bail!("criu failed: {}", words(ended)),
        }
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        let sent = send(self.socket.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL).context("write to criu")?;
        if sent == message.len() { Ok(()) } else { bail!("write to criu: message cut off") }
    }

    fn receive(&mut self) -> Result<Answer> {
        let mut buffer = vec![0; ANSWER_MAX];
        let (length, fd) = socket::receive(self.socket.as_fd(), &mut buffer).context("read from criu")?;
        if length == 0 {
            self.reaped = true;
            match process::wait(self.pid) {
                Ok(ended) => bail!("criu failed: unexpected EOF: {}", words(ended)),
                Err(errno) => return Err(errno).context("criu failed: unexpected EOF"),
            }
        }
        let response = message::parse(&buffer[..length]).context("parse the answer of criu")?;
        Ok(Answer { response, fd })
    }

    fn was_killed(&mut self) -> bool {
        !self.reaped && {
            self.reaped = true;
            process::wait(self.pid).is_ok_and(|ended| ended == process::Ended::Signal(libc::SIGKILL))
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.reaped {
            // It gives up once it reads the end of the socket; CRIU then lets a half-dumped container go.
            let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
            // Nothing is left to be told.
            let _ = process::wait(self.pid);
        }
    }
}

fn words(ended: process::Ended) -> String {
    match ended {
        process::Ended::Code(code) => format!("exit status {code}"),
        process::Ended::Signal(signal) => format!("signal: {signal}"),
    }
}

/// Forks and executes CRIU with exactly the descriptors it is to have.
fn spawn(program: &CStr, socket: OwnedFd, surroundings: &Surroundings, into_cgroup: bool) -> Result<i32> {
    let number = CString::new(SOCKET.to_string())?;
    let args = StringArray::new(vec![c"criu".into(), c"swrk".into(), number]);
    let env = std::env::vars_os().filter_map(|(name, value)| {
        let mut entry = name.into_encoded_bytes();
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        CString::new(entry).ok()
    });
    let env = StringArray::new(env.collect());
    let null = fs::open(c"/dev/null", libc::O_RDWR, 0).context("open /dev/null")?;
    // Copies above all targets, so that no target is overwritten before it is moved.
    let first = SOCKET + 1 + surroundings.extra.len() as i32;
    let above = |fd: BorrowedFd| fs::dup_above(fd, first).context("copy a descriptor");
    let mut copies = vec![above(socket.as_fd())?];
    for fd in &surroundings.extra {
        copies.push(above(*fd)?);
    }
    let cgroup = surroundings.cgroup.filter(|_| into_cgroup);
    match process::clone3(0, cgroup).context("start criu")? {
        Cloned::Parent(pid, _) => Ok(pid),
        Cloned::Child => {
            // Whatever fails here is seen by the reader of the socket, as the exit status.
            let files = match into_cgroup {
                true => &surroundings.cgroup_files,
                false => &surroundings.cgroup_files_without_clone,
            };
            let _ =
                prepare(&copies, &null, files, surroundings).map(|()| process::execve(program, &args, &env));
            process::exit_now(127)
        }
    }
}

/// In the child: cgroups, keyring, descriptors, signals.
fn prepare(
    copies: &[OwnedFd],
    null: &OwnedFd,
    cgroup_files: &[OwnedFd],
    surroundings: &Surroundings,
) -> crate::sys::Result<()> {
    for file in cgroup_files {
        fs::write_once(file.as_fd(), b"0")?;
    }
    enter::keyring(surroundings.keyring, surroundings.user_namespace)?;
    if !surroundings.stdio {
        for number in 0..3 {
            fs::dup_to_stdio(null.as_fd(), number)?;
        }
    }
    for (number, copy) in (SOCKET..).zip(copies) {
        std::mem::forget(fs::dup_to(copy.as_fd(), number)?);
        fs::keep_across_exec(number)?;
    }
    if let Some(mask) = surroundings.signal_mask {
        mask.thread_set_mask()?;
    }
    Ok(())
}

/// How much of the end of a log is looked at, bytes.
const TAIL: u64 = 64 << 10;
/// How many lines of it are told.
const LINES: usize = 4;

/// The lines at the end of CRIU's log that tell of an error.
fn quote(log: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut text = Vec::new();
    file.take(TAIL).read_to_end(&mut text).ok()?;
    tail(&String::from_utf8_lossy(&text))
}

/// The first errors are the causes, the last one says what was given up.
pub fn tail(text: &str) -> Option<String> {
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("Error (")).map(without_time).collect();
    let lines = match errors.len() {
        0 => text.lines().last().map(without_time).into_iter().collect(),
        count if count > LINES => [&errors[..LINES - 1], &errors[count - 1..]].concat(),
        _ => errors,
    };
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// A line without `(00.123456) `.
fn without_time(line: &str) -> &str {
    line.strip_prefix('(').and_then(|rest| rest.split_once(") ")).map_or(line, |(_, rest)| rest).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_causes_and_the_end_of_a_log_are_told() {
        let log = "(00.1) fine\n(00.2) Error (a.c:1): one\n(00.3) Error (a.c:2): two\n(00.4)     77: Error (b.c:3): three\n\
                   (00.5) Error (b.c:4): four\n(00.6) Error (cr-dump.c:5): Dumping FAILED.\n";
        assert_eq!(
            tail(log).unwrap(),
            "Error (a.c:1): one; Error (a.c:2): two; 77: Error (b.c:3): three; Error (cr-dump.c:5): Dumping FAILED."
        );
        assert_eq!(tail("(00.1) fine\n(00.2) done\n").unwrap(), "done");
        assert_eq!(tail(""), None);
    }
}
