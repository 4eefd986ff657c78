//! Terminals for tests: a console socket that receives the master as engines do, and reading from a master.

use anyhow::{Context, Result, bail, ensure};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A listening console socket.
pub struct ConsoleSocket {
    listener: UnixListener,
    /// Its path for `--console-socket`.
    pub path: PathBuf,
}

/// What came over it.
pub struct Received {
    /// The terminal's master.
    pub master: File,
    /// What was said with it.
    pub payload: String,
}

impl ConsoleSocket {
    /// Listens at a path.
    pub fn new(path: &Path) -> Result<Self> {
        let listener = UnixListener::bind(path).context("bind the console socket")?;
        Ok(ConsoleSocket { listener, path: path.to_path_buf() })
    }

    /// True when nobody has connected yet.
    pub fn silent(&self) -> Result<bool> {
        Ok(!crate::sys::readable(&self.listener, Duration::from_millis(1))?)
    }

    /// Takes the one connection and its one message: exactly one descriptor, a payload, then the end.
    pub fn receive(&self) -> Result<Received> {
        ensure!(
            crate::sys::readable(&self.listener, Duration::from_secs(5))?,
            "nobody connected to the console socket"
        );
        let (stream, _) = self.listener.accept()?;
        ensure!(crate::sys::readable(&stream, Duration::from_secs(5))?, "no message on the console socket");
        let mut buffer = [0u8; 8192];
        let mut space = cmsg_space!([i32; 8]);
        let (bytes, fds) = {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let message =
                recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
                    .context("recvmsg")?;
            let mut fds: Vec<OwnedFd> = vec![];
            for control in message.cmsgs()? {
                match control {
                    ControlMessageOwned::ScmRights(list) => {
                        fds.extend(list.into_iter().map(crate::sys::own_received));
                    }
                    other => bail!("an unexpected control message: {other:?}"),
                }
            }
            (message.bytes, fds)
        };
        ensure!(fds.len() == 1, "{} descriptors instead of one", fds.len());
        ensure!((1..4096).contains(&bytes), "a payload of {bytes} bytes");
        let mut rest = vec![];
        ensure!(crate::sys::readable(&stream, Duration::from_secs(5))?, "the connection stays open");
        (&stream).read_to_end(&mut rest)?;
        ensure!(rest.is_empty(), "more than one message: {rest:?}");
        let master = File::from(fds.into_iter().next().context("no descriptor")?);
        Ok(Received { master, payload: String::from_utf8_lossy(&buffer[..bytes]).into_owned() })
    }
}

/// Reads from a terminal's master until `done` says so or the other side hangs up; 5 s at most.
pub fn read_until(master: &File, mut done: impl FnMut(&str) -> bool) -> Result<String> {
    let mut text = String::new();
    let end = Instant::now() + Duration::from_secs(5);
    while !done(&text) {
        let left = end.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero() && crate::sys::readable(master, left)?, "the terminal only said {text:?}");
        let mut buffer = [0u8; 4096];
        match (&*master).read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => text.push_str(&String::from_utf8_lossy(&buffer[..n])),
            // The last slave was closed.
            Err(e) if e.raw_os_error() == Some(nix::libc::EIO) => break,
            Err(e) => return Err(e).context("read the terminal"),
        }
    }
    Ok(text)
}

/// Reads until hang-up.
pub fn read_all(master: &File) -> Result<String> {
    read_until(master, |_| false)
}
