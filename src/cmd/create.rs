//! `create`: makes a container whose program waits for `start`.

use super::absolute;
use crate::bundle;
use crate::cli::{self, Global};
use crate::exit::ExitCode;
use crate::notify;
use crate::plan;
use crate::spawn::{self, Request};
use crate::state::{Store, check_id};
use crate::sys::ahead::Ahead;
use crate::sys::exe;
use crate::sys::process;
use anyhow::{Context, Result, bail};
use nix::sys::signal::SigSet;
use std::os::fd::OwnedFd;

/// Makes the container and returns once it is `created`.
pub fn create(global: &Global, args: cli::Create, ahead: Option<Ahead>) -> Result<ExitCode> {
    let store = Store::new(global.root.as_deref())?;
    let mut request = request(global, &store, args, ahead, true)?;
    let started = spawn::start(&store, &mut request)?;
    // The process ends here: giving back memory piece by piece would only cost time.
    std::mem::forget((started, request));
    Ok(ExitCode::SUCCESS)
}

/// What `create` and `run` share: the bundle, the terminal's rules, the descriptors to hand on. `detached`: the
/// runtime returns while the program lives.
pub fn request(
    global: &Global,
    store: &Store,
    args: cli::Create,
    ahead: Option<Ahead>,
    detached: bool,
) -> Result<Request> {
    let mut bundle = bundle::open(args.bundle.as_deref(), ahead)?.parse()?;
    let signal_mask = SigSet::thread_get_mask().context("read the signal mask")?;
    // Before anything is connected or made, because it may start the program anew.
    let sealed = match bundle.ahead.as_ref().and_then(Ahead::seal) {
        Some(seal) => Ok(seal),
        None => exe::prepare().map_err(|_| spawn::NeedsRestart.into()),
    };
    if sealed.is_err() {
        // It would outlive this program.
        bundle.ahead = None;
    }
    let seal = spawn::restart_if_needed(sealed, signal_mask)?;
    let listen_fds = activation();
    let preserve_fds = preserved(args.preserve_fds, listen_fds)?;
    let pid_file = args.pid_file.as_deref().map(absolute).transpose()?;
    let pidfd_socket = args.pidfd_socket.as_deref().map(absolute).transpose()?;
    let console_socket = args.console_socket.as_deref().filter(|path| !path.as_os_str().is_empty());
    let notify = notify::callers_socket().is_some();
    if notify {
        check_id(&args.id)?;
        notify::add_to(&mut bundle.spec, &store.path_of(&args.id)?)?;
    }
    let terminal = bundle.spec.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false));
    check_terminal(terminal, detached, console_socket.is_some())?;
    let console: Option<OwnedFd> = match console_socket {
        Some(path) => Some(
            spawn::connect(path).with_context(|| format!("connect to console socket {}", path.display()))?,
        ),
        None => None,
    };
    Ok(Request {
        id: args.id,
        bundle,
        options: plan::Options {
            no_pivot: args.no_pivot,
            no_new_keyring: args.no_new_keyring,
            listen_fds,
            unprivileged: !process::is_root(),
        },
        console,
        own_terminal: false,
        notify,
        preserve_fds,
        pid_file,
        pidfd_socket,
        gate: detached,
        signal_mask,
        seal,
        systemd: global.systemd_cgroup,
        rootless: global.rootless,
    })
}

/// Who holds the other side of a terminal must be clear before anything is made.
pub fn check_terminal(terminal: bool, detached: bool, has_socket: bool) -> Result<()> {
    if detached && terminal && !has_socket {
        bail!(
            "cannot allocate tty if runc will detach without setting console socket \
             (--console-socket, or /process/terminal false)"
        );
    }
    if has_socket && (!detached || !terminal) {
        bail!("cannot use console socket if runc will not detach or allocate tty");
    }
    Ok(())
}

/// How many descriptors this process was given for socket activation (sd_listen_fds(3)).
fn activation() -> u32 {
    let pid = std::env::var("LISTEN_PID").ok().and_then(|pid| pid.parse::<u32>().ok());
    match std::env::var("LISTEN_FDS").ok().and_then(|fds| fds.parse::<u32>().ok()) {
        Some(fds) if pid == Some(std::process::id()) => fds,
        _ => 0,
    }
}

/// `--preserve-fds` on top of `listen` descriptors of socket activation; each of these and the last of all must be open. What
/// is not open before the last is not open in the program either (`podman run --preserve-fd 5`). Returns how many these are.
pub fn preserved(count: u32, listen: u32) -> Result<u32> {
    let total = count.checked_add(listen).filter(|&total| total <= crate::first_fds::MOST as u32 - 3);
    let total = total.context("--preserve-fds: too many")?;
    for fd in 3..3 + total as i32 {
        let needed = fd < 3 + listen as i32 || fd == 2 + total as i32;
        if needed && !crate::first_fds::was_open(fd) {
            bail!("unable to stat preserved-fd {} (of {total}): not open", fd - 3);
        }
    }
    Ok(total)
}
