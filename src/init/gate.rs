//! The gate: where the init stage of a created container waits for `start`.

use super::Outcome;
use crate::sync::{At, GatePipes, Kind, Step, Wire};
use crate::sys::{Errno, Result, fs, uninterrupted};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Waits at the socket until `start` connects and says so. A `start` that dies half-way ends the container. Of several at
/// once the one that takes the gate away goes on; the others leave without a word, and by then it stands in the queue.
pub fn wait_at_socket(gate: OwnedFd) -> Outcome<Wire> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket::{SockFlag, accept4};
    loop {
        let socket = loop {
            match uninterrupted(|| accept4(gate.as_raw_fd(), SockFlag::SOCK_CLOEXEC)) {
                Err(Errno::ECONNABORTED) => {}
                other => break other.at(Step::Gate)?,
            }
        };
        let wire = Wire::from_socket(fs::adopt(socket));
        let Err(failure) = wire.expect(Kind::Proceed).at(Step::Gate) else { return Ok(wire) };
        if poll(&mut [PollFd::new(gate.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(1) {
            return Err(failure);
        }
    }
}

/// The gate where accept(2) is forbidden: two pipes, for which read(2) and write(2) are enough. `start` opens the other ends
/// through `/proc/PID/fd`.
pub struct Pipes {
    word: OwnedFd,
    /// Without a writer there would be nothing to wait for.
    _writer: OwnedFd,
    answer: OwnedFd,
}

impl Pipes {
    /// To be made while a filter cannot forbid it.
    pub fn new() -> Result<Pipes> {
        let (word, writer) = pipe2(OFlag::O_CLOEXEC)?;
        let (_, answer) = pipe2(OFlag::O_CLOEXEC)?;
        Ok(Pipes { word, _writer: writer, answer })
    }

    /// How `start` finds them.
    pub fn numbers(&self) -> Result<GatePipes> {
        let number = |fd: &OwnedFd| u16::try_from(fd.as_raw_fd()).map_err(|_| Errno::EMFILE);
        Ok(GatePipes { word: number(&self.word)?, answer: number(&self.answer)? })
    }

    /// Waits for the word. A `start` that dies before it has given it leaves the container waiting.
    pub fn wait(self) -> Outcome<Wire> {
        let mut word = [0; 8];
        let length = fs::read(self.word.as_fd(), &mut word).at(Step::Gate)?;
        if length != word.len() || word[0] != Kind::Proceed as u8 {
            return Err(Errno::EPIPE).at(Step::Gate);
        }
        Ok(Wire::from_socket(self.answer))
    }
}
