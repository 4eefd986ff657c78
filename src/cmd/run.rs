//! `run`: create, start, and in the foreground wait and delete.

use super::{create, delete, start};
use crate::cli::{self, Global};
use crate::console::Console;
use crate::exit::ExitCode;
use crate::log;
use crate::signals::Signals;
use crate::spawn::{self, Started};
use crate::state::Store;
use crate::sys::ahead::Ahead;
use crate::sys::{layout, process};
use anyhow::{Context, Result, bail};
use std::os::fd::AsFd;

/// Runs the program; its exit status becomes naru's.
pub fn run(global: &Global, args: cli::Run, ahead: Option<Ahead>) -> Result<ExitCode> {
    let store = Store::new(global.root.as_deref())?;
    let mut request = create::request(global, &store, args.create, ahead, args.detach)?;
    request.gate = false;
    if request.bundle.spec.process().is_none() {
        bail!("/process: process property must not be empty");
    }
    if args.detach {
        let mut started = after_start(spawn::start(&store, &mut request)?)?;
        if let Some(relay) = started.notify.take() {
            relay.wait(started.state.pid, started.pidfd.as_fd())?;
        }
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
        request.own_terminal = true;
        Some(console)
    } else {
        None
    };
    let started = spawn::start(&store, &mut request)?;
    // This process waits and ends: giving back memory piece by piece would only cost time.
    std::mem::forget(request);
    let (started, console) = take_over(started, console)?;
    let started = after_start(started)?;
    layout::unmap_start();
    wait(started, signals, console, args.keep)
}

/// Has the terminal carried from now on, if there is one.
pub fn take_over(started: Started, console: Option<Console>) -> Result<(Started, Option<Console>)> {
    match console.map(Console::take_over).transpose() {
        Ok(console) => Ok((started, console)),
        Err(error) => Err(delete::give_up(started.dir, &started.state, error)),
    }
}

/// Waits for the end of a container in the foreground and removes it, unless it is to be kept.
pub fn wait(started: Started, signals: Signals, console: Option<Console>, keep: bool) -> Result<ExitCode> {
    let notify = started.notify.as_ref();
    let ended = match signals.attend(started.state.pid, started.pidfd.as_fd(), console, notify) {
        Ok(ended) => ended,
        // Nobody would wait for it any more.
        Err(error) => return Err(delete::give_up(started.dir, &started.state, error)),
    };
    if !keep && let Err(error) = delete::destroy(started.dir, &started.state, false) {
        // As in runc: the caller wants to know how the program ended.
        log::warn(format_args!("remove the container: {error:#}"));
    }
    Ok(ExitCode::from(ended.status() as u8))
}

/// What follows the program's start.
fn after_start(started: Started) -> Result<Started> {
    match start::after_start(&started.state) {
        Ok(()) => Ok(started),
        Err(error) => Err(delete::give_up(started.dir, &started.state, error)),
    }
}
