//! `start`: lets the program of a created container run.

use super::delete;
use crate::cli::Global;
use crate::exit::ExitCode;
use crate::explain;
use crate::notify::Relay;
use crate::patience::{LOOK_AFTER, Patience};
use crate::spawn::run_hooks;
use crate::state::{self, Dir, State, Status, Store};
use crate::sync::{Frame, GatePipes, Kind, Wire};
use crate::sys::{Errno, fs, process};
use anyhow::{Context, Result, bail};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Opens the gate and returns once the program runs and the poststart hooks have.
pub fn start(global: &Global, id: &str) -> Result<ExitCode> {
    let store = Store::new(global.root.as_deref())?;
    let (dir, state) = store.load(id)?;
    let (status, init) = state.status(&dir)?;
    match status {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Paused if dir.has_gate() => bail!("cannot start a container in the paused state"),
        Status::Creating => bail!("cannot start a container that is still being created"),
        Status::Running | Status::Paused => bail!("cannot start an already running container"),
    }
    let relay = Relay::bind(&dir)?;
    if state.no_process {
        bail!("/process: cannot start a container without a process");
    }
    open_gate(&dir, &state, init.as_ref())?;
    if let Err(error) = after_start(&state) {
        // The spec (1.3, runtime.md "Lifecycle"): stop and destroy the container.
        return Err(delete::give_up(dir, &state, error));
    }
    if let (Some(relay), Some(init)) = (relay, init) {
        relay.wait(state.pid, init.as_fd())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells the init stage to go on and waits for its execve.
fn open_gate(dir: &Dir, state: &State, init: Option<&OwnedFd>) -> Result<()> {
    let (word, answer) = match (state.gate_pipes, init) {
        (Some(at), Some(init)) => pipes(state.pid, init, at).map(|(word, answer)| (word, Some(answer)))?,
        _ => (connect_to_gate(dir)?, None),
    };
    // Taken away before the word is given: whoever sees a gate sees a container that is not running yet. If this
    // process dies in between, the init stage sees its end and ends as well (at pipes it waits on, until it is deleted).
    match dir.remove_gate() {
        Ok(()) => {}
        Err(Errno::ENOENT) => bail!("cannot start an already running container"),
        Err(errno) => return Err(errno).context("remove the start gate"),
    }
    // Whatever can fail comes before the word.
    let wire = answer.as_ref().unwrap_or(&word);
    wire.limit(LOOK_AFTER).context("limit the wait for the init stage")?;
    word.send(Kind::Proceed).context("write to the init stage")?;
    let answer = Patience::new(&state.cgroup, Some(state.pid)).receive(wire);
    if let (Err(_), Some(init)) = (&answer, init) {
        // It has the word to go on, unread perhaps, and must not run after `start` has failed.
        let _ = process::pidfd_signal(init.as_fd(), libc::SIGKILL);
        let _ = state.cgroup.release(state.pid);
    }
    match answer? {
        Frame::End => Ok(()),
        Frame::Failed(failure) => Err(explain::start_failure(&failure)),
        _ => bail!("container init ended before it could run the program"),
    }
}

fn connect_to_gate(dir: &Dir) -> Result<Wire> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let gate = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .context("make a socket for the start gate")?;
    let address = UnixAddr::new(dir.socket_path(state::GATE).as_str()).context("name the start gate")?;
    match connect(gate.as_raw_fd(), &address) {
        Ok(()) => Ok(Wire::from_socket(gate)),
        Err(Errno::ENOENT) => bail!("cannot start an already running container"),
        Err(Errno::ECONNREFUSED) => bail!("cannot start a container that has stopped"),
        Err(errno) => Err(errno).context("connect to the start gate"),
    }
}

/// The other ends of the init stage's pipes: for the word, and for the answer.
fn pipes(pid: i32, init: &OwnedFd, at: GatePipes) -> Result<(Wire, Wire)> {
    let open = |number: u16, flags| {
        let path = CString::new(format!("/proc/{pid}/fd/{number}"))?;
        let pipe = fs::open(&path, flags | libc::O_NONBLOCK, 0).context("open a pipe of the start gate")?;
        anyhow::Ok(Wire::from_socket(pipe))
    };
    let ends = (open(at.word, libc::O_WRONLY)?, open(at.answer, libc::O_RDONLY)?);
    // The number is still that of the init process.
    match process::pidfd_signal(init.as_fd(), 0) {
        Ok(()) => Ok(ends),
        Err(_) => bail!("cannot start a container that has stopped"),
    }
}

/// The poststart hooks, of `run` as well. On an error the container is to be destroyed.
pub fn after_start(state: &State) -> Result<()> {
    if state.poststart.is_empty() {
        return Ok(());
    }
    let json = state.for_hooks().json(Status::Running.word(), state.pid);
    run_hooks("poststart", &state.poststart, &json, &state.bundle)
}
