//! The wait of the foreground: signals are handed on, terminal data carried, orphans reaped, until the process ends.

use crate::console::Console;
use crate::log;
use crate::notify::Relay;
use crate::sys::process::{self, Ended};
use crate::sys::{Errno, Result as SysResult};
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// All signals as a descriptor, so that one wait sees everything.
pub struct Signals {
    /// The mask before, which the program gets.
    pub before: SigSet,
    fd: SignalFd,
}

impl Signals {
    /// Blocks every signal; they are read from now on.
    pub fn block() -> Result<Signals> {
        let all = SigSet::all();
        let before = all.thread_swap_mask(SigmaskHow::SIG_SETMASK).context("block signals")?;
        let fd = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Signals { before, fd: fd.context("open a signal descriptor")? })
    }

    /// The next signal that has come, if any.
    fn next(&self) -> Result<Option<nix::sys::signalfd::siginfo>> {
        loop {
            match self.fd.read_signal() {
                Err(Errno::EINTR) => {}
                other => return other.context("read a signal"),
            }
        }
    }

    /// Waits for `pid` to end; whatever else ends meanwhile is reaped. This process stays, so that it is the one that
    /// the service manager behind `notify` is to watch.
    pub fn attend(
        &self,
        pid: i32,
        pidfd: BorrowedFd,
        mut console: Option<Console>,
        mut notify: Option<&Relay>,
    ) -> Result<Ended> {
        loop {
            if let Some(how) = reap(pid).context("wait for the process")? {
                // Its last word may have come together with its end.
                hear(&mut notify);
                if let Some(console) = &mut console {
                    self.flush(console);
                }
                return Ok(how);
            }
            {
                let mut fds = vec![PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
                if let Some(console) = &console {
                    console.poll_fds(&mut fds);
                }
                if let Some(relay) = notify {
                    fds.push(PollFd::new(relay.fd(), PollFlags::POLLIN));
                }
                match poll(&mut fds, PollTimeout::NONE) {
                    // Out of memory for a moment: the process runs on, so the wait must too.
                    Ok(_) | Err(Errno::EINTR | Errno::ENOMEM) => {}
                    Err(errno) => return Err(errno).context("wait for the process"),
                }
            }
            if let Some(console) = &mut console {
                console.relay();
            }
            hear(&mut notify);
            while let Some(info) = self.next()? {
                let number = info.ssi_signo as i32;
                match Signal::try_from(number) {
                    // A child has ended, which the next round sees; the others are for this process alone.
                    Ok(Signal::SIGCHLD) => break,
                    Ok(Signal::SIGURG) => {}
                    Ok(Signal::SIGWINCH) => {
                        if let Some(console) = &console {
                            console.resize();
                        }
                    }
                    // It may have ended meanwhile, which the next round sees.
                    _ => drop(process::pidfd_signal(pidfd, number)),
                }
            }
        }
    }

    /// After the program's end: what it has printed goes out, however slowly that is read, until a signal says that this
    /// process shall end, too. The container may go on printing for ever, which nobody waits for.
    fn flush(&self, console: &mut Console) {
        let mut left = crate::console::HELD_MAX;
        while let Some(next) = console.flush(&mut left) {
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN), next];
            if !matches!(poll(&mut fds, PollTimeout::NONE), Ok(_) | Err(Errno::EINTR)) {
                return;
            }
            loop {
                let info = match self.next() {
                    Ok(Some(info)) => info,
                    Ok(None) => break,
                    Err(_) => return,
                };
                use Signal::*;
                match Signal::try_from(info.ssi_signo as i32) {
                    Ok(SIGCHLD | SIGURG | SIGWINCH | SIGCONT | SIGTSTP | SIGTTIN | SIGTTOU) => {}
                    _ => return,
                }
            }
        }
    }
}

/// Hands on what the program has said; after the word of readiness, or an error, nobody listens any more.
fn hear(notify: &mut Option<&Relay>) {
    let Some(relay) = notify else { return };
    match relay.hand_on(std::process::id() as i32) {
        Ok(false) => return,
        Ok(true) => {}
        // The program runs, whoever hears of it.
        Err(error) => log::warn(format_args!("{error:#}")),
    }
    *notify = None;
}

/// Reaps everything that has ended; tells how `pid` did.
fn reap(pid: i32) -> SysResult<Option<Ended>> {
    while let Some((ended, how)) = process::reap_any()? {
        if ended == pid {
            return Ok(Some(how));
        }
    }
    Ok(None)
}
