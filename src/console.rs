//! The terminal of a foreground container: the caller's terminal in raw mode, data carried both ways, sizes followed.
//!
//! Neither direction may hold up the other: all descriptors are read only when they have data, and what one side does
//! not take yet waits in a bounded buffer while that direction is not read.

use crate::sys::{Errno, Result, fs, tty};
use anyhow::Context;
use nix::poll::{PollFd, PollFlags};
use nix::sys::termios::{self, SetArg, Termios};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const BUFFER: usize = 32 << 10;
/// No terminal holds more, bytes: 8 KiB and a page or two on their way, 4 KiB in its line discipline.
pub const HELD_MAX: usize = 128 << 10;

/// Before the container runs: the socket on which its terminal arrives. After: the relay.
pub struct Console {
    socket: Option<OwnedFd>,
    master: Option<OwnedFd>,
    /// The caller's terminal and how it was set before.
    outer: Option<(OwnedFd, Termios)>,
    /// Standard output again, where that can be had without waits: a terminal takes less than it says it would.
    sink: Option<OwnedFd>,
    /// From the caller to the container.
    input: Flow,
    /// From the container to the caller.
    output: Flow,
}

#[derive(Default)]
struct Flow {
    waiting: Vec<u8>,
    ended: bool,
}

impl Console {
    /// Makes the pair of sockets: the second goes to the init stage. Before any namespace is entered.
    pub fn prepare() -> anyhow::Result<(Console, OwnedFd)> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .context("make a socket for the terminal")?;
        // By the host's procfs: `exec` takes the terminal over in the container's mounts, where the path may lead anywhere.
        let sink = match termios::tcgetattr(fs::stdio(1)) {
            Ok(_) => fs::open(c"/proc/self/fd/1", libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0).ok(),
            // Pipes take what they say; files always do. Both may be shared, and one has a position.
            Err(_) => None,
        };
        let console = Console {
            socket: Some(ours),
            master: None,
            outer: None,
            sink,
            input: Flow::default(),
            output: Flow::default(),
        };
        Ok((console, theirs))
    }

    /// Receives the master, takes over the caller's terminal if there is one. Opens no path: see [`Console::prepare`].
    pub fn take_over(mut self) -> anyhow::Result<Console> {
        let socket = self.socket.take().context("terminal socket")?;
        let master = crate::sys::socket::receive_fd(socket.as_fd()).context("receive the terminal")?;
        set_nonblocking(master.as_fd()).context("set up the terminal")?;
        self.outer = [0, 1, 2].into_iter().find_map(|number| {
            let settings = termios::tcgetattr(fs::stdio(number)).ok()?;
            Some((fs::stdio(number).try_clone_to_owned().ok()?, settings))
        });
        if let Some((outer, settings)) = &self.outer {
            let mut raw = settings.clone();
            termios::cfmakeraw(&mut raw);
            raw.output_flags.insert(termios::OutputFlags::OPOST | termios::OutputFlags::ONLCR);
            termios::tcsetattr(outer, SetArg::TCSANOW, &raw).context("set the terminal to raw mode")?;
        }
        self.master = Some(master);
        self.resize();
        Ok(self)
    }

    /// Gives the container's terminal the size of the caller's.
    pub fn resize(&self) {
        if let (Some(master), Some((outer, _))) = (&self.master, &self.outer)
            && let Ok((rows, columns)) = tty::size(outer.as_fd())
        {
            // A terminal whose other side is gone has no size to set.
            let _ = tty::set_size(master.as_fd(), rows, columns);
        }
    }

    /// What to wait for.
    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let Some(master) = &self.master else { return };
        let mut master_events = PollFlags::empty();
        if self.output.waiting.is_empty() && !self.output.ended {
            master_events |= PollFlags::POLLIN;
        } else if !self.output.waiting.is_empty() {
            fds.push(PollFd::new(fs::stdio(1), PollFlags::POLLOUT));
        }
        if !self.input.waiting.is_empty() {
            master_events |= PollFlags::POLLOUT;
        } else if !self.input.ended {
            fds.push(PollFd::new(fs::stdio(0), PollFlags::POLLIN));
        }
        if !master_events.is_empty() {
            fds.push(PollFd::new(master.as_fd(), master_events));
        }
    }

    /// Moves what can be moved without waiting.
    pub fn relay(&mut self) {
        let Some(master) = &self.master else { return };
        let sink = sink(&self.sink);
        self.output.carry(master.as_fd(), sink, BUFFER);
        self.input.carry(fs::stdio(0), master.as_fd(), BUFFER);
    }

    /// After the program's end: moves some of what is still in the terminal. Gives what to wait for before the next call;
    /// nothing once the terminal is empty, or `left` bytes were read: what others write meanwhile is not waited for.
    pub fn flush(&mut self, left: &mut usize) -> Option<PollFd<'_>> {
        let master = self.master.as_ref()?.as_fd();
        *left -= self.output.carry(master, sink(&self.sink), *left);
        if !self.output.waiting.is_empty() {
            // The caller must read before more can go out.
            return Some(PollFd::new(fs::stdio(1), PollFlags::POLLOUT));
        }
        let more = *left > 0 && !self.output.ended && ready(master, PollFlags::POLLIN);
        more.then(|| PollFd::new(master, PollFlags::POLLIN))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some((outer, settings)) = &self.outer {
            // A terminal that is gone needs no settings.
            let _ = termios::tcsetattr(outer, SetArg::TCSANOW, settings);
        }
    }
}

impl Flow {
    /// Reads once, `limit` bytes at most, and writes what is taken at once; how much was read.
    fn carry(&mut self, from: BorrowedFd, to: BorrowedFd, limit: usize) -> usize {
        let mut read = 0;
        if self.waiting.is_empty() && !self.ended && limit > 0 && ready(from, PollFlags::POLLIN) {
            let mut buf = [0u8; BUFFER];
            match fs::read(from, &mut buf[..limit.min(BUFFER)]) {
                // A master whose other side is closed answers EIO.
                Ok(0) | Err(Errno::EIO) => self.ended = true,
                Ok(length) => {
                    self.waiting.extend_from_slice(&buf[..length]);
                    read = length;
                }
                Err(Errno::EAGAIN) => {}
                Err(_) => self.ended = true,
            }
        }
        while !self.waiting.is_empty() && ready(to, PollFlags::POLLOUT) {
            match nix::unistd::write(to, &self.waiting[..self.waiting.len().min(1024)]) {
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(_) => {
                    // Nobody takes it any more.
                    self.waiting.clear();
                    self.ended = true;
                }
            }
        }
        read
    }
}

/// Where the terminal's output goes.
fn sink(own: &Option<OwnedFd>) -> BorrowedFd<'_> {
    own.as_ref().map_or(fs::stdio(1), AsFd::as_fd)
}

/// Can this be done at once?
fn ready(fd: BorrowedFd, what: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, what)];
    nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

fn set_nonblocking(fd: BorrowedFd) -> Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_after_the_end_is_not_waited_for() {
        let open = |path, flags| Some(fs::open(path, flags, 0).unwrap());
        let (mut console, _) = Console::prepare().unwrap();
        console.master = open(c"/dev/zero", libc::O_RDONLY);
        console.sink = open(c"/dev/null", libc::O_WRONLY);
        let (mut left, mut rounds) = (HELD_MAX, 0);
        while console.flush(&mut left).is_some() {
            rounds += 1;
            assert!(rounds < HELD_MAX / BUFFER, "{left} bytes left");
        }
        assert_eq!((left, console.output.waiting.len()), (0, 0));
    }
}
