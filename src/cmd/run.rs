//! `run`: create, start, and in the foreground wait and delete.

use super::{create, delete, start};
use crate::cli::{self, Global};
use crate::console::Console;
use crate::spawn::{self, Started};
use crate::state::Store;
use crate::sys::process::{self, Ended};
use crate::sys::Errno;
use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// Runs the program; its exit status becomes naru's.
pub fn run(global: &Global, args: cli::Run) -> Result<ExitCode> {
    let store = Store::new(global.root.as_deref())?;
    let mut request = create::request(global, args.create, args.detach)?;
    request.gate = false;
    if args.detach {
        let started = spawn::start(&store, &request)?;
        after_start(started)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.no_subreaper {
        // Orphans of the container come to us, so that none is left when we return.
        process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).context("become a subreaper")?;
    }
    let signals = Signals::block()?;
    request.signal_mask = signals.before;
    let terminal = request.bundle.spec.process().as_ref().is_some_and(|p| p.terminal().unwrap_or(false));
    let console = if terminal {
        let (console, socket) = Console::prepare()?;
        request.console = Some(socket);
        Some(console)
    } else {
        None
    };
    let started = spawn::start(&store, &request)?;
    let console = console.map(Console::take_over).transpose()?;
    let ended = attend(&started, &signals, console);
    let Started { dir, state, home_network, .. } = started;
    return_home(home_network)?;
    let ended = ended?;
    if !args.keep {
        delete::destroy(dir, &state, false)?;
    }
    Ok(ExitCode::from(ended.status() as u8))
}

/// What follows the program's start in both forms.
fn after_start(started: Started) -> Result<()> {
    return_home(started.home_network)?;
    if let Err(error) = start::after_start(&started.state) {
        delete::destroy(started.dir, &started.state, true)?;
        return Err(error);
    }
    Ok(())
}

/// Hooks run in the runtime's own network namespace.
fn return_home(network: Option<OwnedFd>) -> Result<()> {
    match network {
        Some(network) => {
            process::setns(network.as_fd(), libc::CLONE_NEWNET).context("return to the own network namespace")
        }
        None => Ok(()),
    }
}

/// Signals as a descriptor, so that one wait sees everything.
struct Signals {
    before: SigSet,
    fd: nix::sys::signalfd::SignalFd,
}

impl Signals {
    fn block() -> Result<Signals> {
        use nix::sys::signalfd::{SfdFlags, SignalFd};
        let all = SigSet::all();
        let before = all.thread_swap_mask(SigmaskHow::SIG_SETMASK).context("block signals")?;
        let fd = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Signals { before, fd: fd.context("open a signal descriptor")? })
    }
}

/// Waits for the program, hands signals and terminal data on, and reaps whatever else ends meanwhile.
fn attend(started: &Started, signals: &Signals, mut console: Option<Console>) -> Result<Ended> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    if !started.state.poststart.is_empty()
        && let Err(error) = start::after_start(&started.state)
    {
        process::pidfd_signal(started.pidfd.as_fd(), libc::SIGKILL).context("end the container")?;
        process::wait(started.state.pid).context("wait for the init process")?;
        return Err(error);
    }
    let mut ended = None;
    loop {
        while let Some((pid, how)) = process::reap_any().context("wait for the init process")? {
            if pid == started.state.pid {
                ended = Some(how);
            }
        }
        if let Some(how) = ended {
            if let Some(console) = &mut console {
                console.flush();
            }
            return Ok(how);
        }
        let mut fds = vec![PollFd::new(signals.fd.as_fd(), PollFlags::POLLIN)];
        if let Some(console) = &console {
            console.poll_fds(&mut fds);
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for the container"),
        }
        drop(fds);
        if let Some(console) = &mut console {
            console.relay();
        }
        while let Some(info) = signals.fd.read_signal().context("read a signal")? {
            let number = info.ssi_signo as i32;
            match Signal::try_from(number) {
                Ok(Signal::SIGCHLD | Signal::SIGURG) => {}
                Ok(Signal::SIGWINCH) => {
                    if let Some(console) = &console {
                        console.resize();
                    }
                }
                // It may have ended meanwhile, which the next round sees.
                _ => drop(process::pidfd_signal(started.pidfd.as_fd(), number)),
            }
        }
    }
}
