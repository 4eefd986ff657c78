//! `kill`: sends a signal to a container.

use crate::cli::{self, Global};
use crate::exit::ExitCode;
use crate::log;
use crate::state::{NOT_RUNNING, State, Status, Store};
use crate::sys::{Errno, process};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::os::fd::{AsFd, BorrowedFd};

/// Sends the signal to the init process; SIGKILL of a container that shares its pid namespace ends all of it.
pub fn kill(global: &Global, args: cli::Kill) -> Result<ExitCode> {
    let signal = parse_signal(args.signal.as_deref().unwrap_or("SIGTERM"))?;
    let store = Store::new(global.root.as_deref())?;
    let (dir, state) = store.load(&args.id)?;
    let (status, init) = state.status(&dir)?;
    if signal == libc::SIGKILL && state.shares_pids() {
        // Its processes do not end with the init process, and may outlive it.
        if status == Status::Stopped && !args.all && state.cgroup.procs().unwrap_or_default().is_empty() {
            bail!(NOT_RUNNING);
        }
        if let (true, Some(init)) = (state.cgroup.hierarchies.is_empty(), &init) {
            log::warn(
                "failed to kill all processes, due to lack of cgroup (Hint: enable cgroup v2 delegation)",
            );
            send(&state, init.as_fd(), signal)?;
            return Ok(ExitCode::SUCCESS);
        }
        if state.cgroup.hierarchies.is_empty() {
            // Nothing is left that could be found.
            return Ok(ExitCode::SUCCESS);
        }
        state.cgroup.kill_all(signal)?;
        return Ok(ExitCode::SUCCESS);
    }
    match init {
        Some(init) => send(&state, init.as_fd(), signal)?,
        None if args.all => {}
        None => bail!(NOT_RUNNING),
    }
    Ok(ExitCode::SUCCESS)
}

/// Signals the init process. A frozen one on cgroup v1 only dies once it is thawed.
pub fn send(state: &State, init: BorrowedFd, signal: i32) -> Result<()> {
    if signal == libc::SIGKILL {
        state.cgroup.can_thaw_killed()?;
    }
    match process::pidfd_signal(init, signal) {
        Ok(()) => {}
        Err(Errno::ESRCH) => bail!(NOT_RUNNING),
        Err(errno) => return Err(errno).with_context(|| format!("send signal {signal}")),
    }
    if signal == libc::SIGKILL {
        state.cgroup.thaw_killed()?;
    }
    Ok(())
}

/// A number, or a name with or without SIG in any case.
pub fn parse_signal(word: &str) -> Result<i32> {
    if let Ok(number) = word.parse::<i32>() {
        if (0..=64).contains(&number) {
            return Ok(number);
        }
        bail!("unknown signal {word:?}");
    }
    let upper = word.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(signal) = format!("SIG{short}").parse::<Signal>() {
        return Ok(signal as i32);
    }
    let realtime = |text: &str, base: i32, sign: i32| -> Option<i32> {
        let offset = if text.is_empty() { 0 } else { text[1..].parse::<u8>().ok()? };
        let number = base + sign * i32::from(offset);
        (34..=64).contains(&number).then_some(number)
    };
    let number = match (short.strip_prefix("RTMIN"), short.strip_prefix("RTMAX")) {
        (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => realtime(rest, 34, 1),
        (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => realtime(rest, 64, -1),
        _ => None,
    };
    number.with_context(|| format!("unknown signal {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (word, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("Hup", 1),
            ("0", 0),
            ("RTMIN+3", 37),
            ("RTMAX", 64),
        ] {
            assert_eq!(parse_signal(word).unwrap(), number, "{word}");
        }
        for word in
            ["", "SIG", "FOO", "-1", "65", "RTMIN+99", "RTMIN3", "RTMIN+2147483644", "RTMAX--2147483648"]
        {
            let error = parse_signal(word).unwrap_err().to_string();
            assert_eq!(error, format!("unknown signal {word:?}"));
        }
    }
}
