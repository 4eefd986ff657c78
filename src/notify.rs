//! systemd's readiness protocol (sd_notify(3)) through to a program in a container.
//!
//! With `NOTIFY_SOCKET` in the caller's environment the container gets a directory of its own at `/run/notify`, and
//! whoever starts the program binds a socket in it: what the program sends there is the container's word, so that
//! nothing but a line of readiness is handed on, together with the pid that the service manager is to watch. Called by
//! `create`, `run` and `start`.

use crate::state::Dir;
use crate::sys::{Errno, fs, socket};
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, recv, send};
use oci_spec::runtime::{MountBuilder, Spec};
use std::ffi::{CStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Name of the directory in a state directory.
pub const DIRECTORY: &CStr = c"notify";
/// Name of the socket in it.
pub const SOCKET: &str = "notify.sock";
const IN_CONTAINER: &str = "/run/notify";
/// How long the service manager may take to work off what it was sent, ms.
const BARRIER_MS: u16 = 30_000;
/// How many messages are read before anything else is looked at. A queue holds fewer (`net.unix.max_dgram_qlen`, 10 and
/// systemd's 512), so that what was said before the program's end is read after it.
const MESSAGES: usize = 1024;

/// The caller's own socket, if it has one.
pub fn callers_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
}

/// Adds the directory below `state`, the container's state directory, and the variable to a configuration.
pub fn add_to(spec: &mut Spec, state: &Path) -> Result<()> {
    let mount = MountBuilder::default()
        .destination(IN_CONTAINER)
        .source(state.join(DIRECTORY.to_string_lossy().as_ref()))
        .options(["bind", "nosuid", "noexec", "nodev", "ro"].map(String::from).to_vec())
        .build()?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    if let Some(mut process) = spec.process().clone() {
        let mut env = process.env().clone().unwrap_or_default();
        env.push(format!("NOTIFY_SOCKET={IN_CONTAINER}/{SOCKET}"));
        process.set_env(Some(env));
        spec.set_process(Some(process));
    }
    Ok(())
}

/// A socket of which a program in the container says that it is ready.
pub struct Relay {
    container: OwnedFd,
    caller: OwnedFd,
}

impl Relay {
    /// Binds the socket of a container that was made with one; nothing if it was not, or the caller has none.
    pub fn bind(dir: &Dir) -> Result<Option<Relay>> {
        let Some(caller) = callers_socket() else { return Ok(None) };
        let directory = match fs::openat(dir.fd(), DIRECTORY, libc::O_PATH | libc::O_DIRECTORY, 0) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno).context("open the directory of the notify socket"),
        };
        let container = new_socket().context("make the notify socket")?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        bind(container.as_raw_fd(), &UnixAddr::new(path.as_str())?).context("bind the notify socket")?;
        // Any user of the container may be the one that is ready.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .context("open the notify socket to all users")?;
        let caller = connect_to(&caller)
            .with_context(|| format!("connect to NOTIFY_SOCKET {}", Path::new(&caller).display()))?;
        Ok(Some(Relay { container, caller }))
    }

    /// Waits until the program says that it is ready, or `pidfd` ends, and hands that on.
    pub fn wait(self, pid: i32, pidfd: BorrowedFd) -> Result<()> {
        loop {
            let mut fds = [
                PollFd::new(self.container.as_fd(), PollFlags::POLLIN),
                PollFd::new(pidfd, PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.context("wait for the notify socket")?,
            };
            let ended = fds[1].revents().is_some_and(|events| !events.is_empty());
            if self.hand_on(pid)? {
                return self.barrier();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// What to wait for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }

    /// Reads what has come, the container's processes may send without end; true once it was the word of readiness,
    /// which then is with the caller, as is `pid`.
    pub fn hand_on(&self, pid: i32) -> Result<bool> {
        let mut message = [0u8; 4096];
        for _ in 0..MESSAGES {
            let length = match recv(self.container.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno).context("read the notify socket"),
            };
            let Some(ready) = readiness(&message[..length]) else { continue };
            for text in [[ready, b"\n"].concat(), format!("MAINPID={pid}\n").into_bytes()] {
                send(self.caller.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL)
                    .context("write to NOTIFY_SOCKET")?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Waits until the caller has worked off what it was sent: else it may find the sender gone, and with it the
    /// service that the words were about (sd_notify_barrier(3)).
    fn barrier(&self) -> Result<()> {
        let (ours, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("make a pipe")?;
        socket::send_fd(self.caller.as_fd(), b"BARRIER=1", theirs.as_fd())
            .context("write to NOTIFY_SOCKET")?;
        drop(theirs);
        loop {
            let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(BARRIER_MS)) {
                Err(Errno::EINTR) => {}
                Ok(0) => {
                    crate::log::warn("NOTIFY_SOCKET does not answer a barrier");
                    return Ok(());
                }
                other => return other.map(drop).context("wait for NOTIFY_SOCKET"),
            }
        }
    }
}

/// The line `READY=...` of a message.
fn readiness(message: &[u8]) -> Option<&[u8]> {
    message.split(|&byte| byte == b'\n').find(|line| line.starts_with(b"READY="))
}

fn new_socket() -> nix::Result<OwnedFd> {
    nix::sys::socket::socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// `@name` is abstract, all else a path of any length.
fn connect_to(address: &OsString) -> nix::Result<OwnedFd> {
    let client = new_socket()?;
    if let Some(name) = address.as_bytes().strip_prefix(b"@") {
        connect(client.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
    } else {
        let path = std::ffi::CString::new(address.as_bytes()).map_err(|_| Errno::EINVAL)?;
        let handle = fs::open(&path, libc::O_PATH, 0)?;
        connect(
            client.as_raw_fd(),
            &UnixAddr::new(format!("/proc/self/fd/{}", handle.as_raw_fd()).as_str())?,
        )?;
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readiness_is_handed_on() {
        assert_eq!(readiness(b"READY=1"), Some(&b"READY=1"[..]));
        assert_eq!(readiness(b"STATUS=up\nREADY=1\nMAINPID=1"), Some(&b"READY=1"[..]));
        for other in [&b""[..], b"STOPPING=1", b"MAINPID=1\nXREADY=1"] {
            assert_eq!(readiness(other), None);
        }
    }
}
