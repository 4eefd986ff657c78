//! `restore`: brings a container back from a checkpoint by CRIU, with a state as complete as after `create` and `start`.
//!
//! Everything but the processes is made anew from the bundle, like at `create`; of the images this program itself
//! believes no more than the names of three pipes.

use super::{checkpoint, create, run};
use crate::cli::{self, Global};
use crate::console::Console;
use crate::criu::message::{self, Kind, Options};
use crate::criu::session::{self, Session, Surroundings};
use crate::criu::{self, Directories, external, mounts};
use crate::exit::ExitCode;
use crate::plan::Plan;
use crate::signals::Signals;
use crate::spawn::{self, Begun, Request, Started};
use crate::state::Store;
use crate::sys::{process, socket};
use anyhow::{Context, Result};
use std::os::fd::AsFd;

/// CRIU's log, in the work directory; containerd's shim looks for this name.
const LOG: &str = "restore.log";
/// The first CRIU that does all of this.
const OLDEST: i32 = 31500;
/// The first CRIU that restores with another LSM profile than it saved.
const LSM: i32 = 31600;

/// Restores the container; in the foreground its program's exit status becomes naru's.
pub fn restore(global: &Global, args: cli::Restore) -> Result<ExitCode> {
    let store = Store::new(global.root.as_deref())?;
    session::find()?;
    let options = options(&args)?;
    let images = checkpoint::image_path(&args.criu)?;
    let directories = Directories::open(&images, args.criu.work_path.as_deref())?;
    let mut request = create::request(global, &store, args.create, None, args.detach)?;
    request.gate = false;
    if args.detach {
        bring_back(&store, &request, options, &directories)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.no_subreaper {
        // Orphans of the container come to us, so that none is left when we return.
        process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).context("become a subreaper")?;
    }
    let signals = Signals::block()?;
    request.signal_mask = signals.before;
    let console = if has_terminal(&request) {
        let (console, socket) = Console::prepare()?;
        request.console = Some(socket);
        Some(console)
    } else {
        None
    };
    let started = bring_back(&store, &request, options, &directories)?;
    let (started, console) = run::take_over(started, console)?;
    run::wait(started, signals, console, false)
}

fn has_terminal(request: &Request) -> bool {
    request.bundle.spec.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false))
}

fn options(args: &cli::Restore) -> Result<Options> {
    let bytes = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().to_owned());
    Ok(Options {
        log_file: LOG,
        evasive_devices: true,
        // Who restores is who waits.
        sibling: true,
        tcp_close: args.tcp_close,
        lsm_profile: bytes(&args.lsm_profile),
        lsm_mount_context: bytes(&args.lsm_mount_context),
        ..checkpoint::options(&args.criu)?
    })
}

/// Makes what `create` makes, and has CRIU put the processes in.
fn bring_back(
    store: &Store,
    request: &Request,
    mut options: Options,
    directories: &Directories,
) -> Result<Started> {
    let bundle = &request.bundle;
    let plan = spawn::plan(request)?;
    directories.set(&mut options);
    options.config_file = criu::config_file(&bundle.spec);
    options.inherit = external::read_descriptors(&directories.images_path)?;
    let namespaces = external::give_namespaces(&plan.namespaces, session::FIRST_EXTRA, &mut options)?;

    let mut begun = spawn::begin(store, request, &plan)?;
    let worked = work(&mut begun, request, &plan, options, directories, &namespaces);
    let Begun { guard, state, notify, lock: _lock, .. } = begun;
    if let Err(error) = worked {
        // Processes that CRIU was still restoring may be there; the guard expects none.
        if guard.has_cgroup() {
            let _ = state.cgroup.end_and_remove(true);
        }
        return Err(error);
    }
    spawn::finish(request, guard, state, notify)
}

fn work(
    begun: &mut Begun,
    request: &Request,
    plan: &Plan,
    mut options: Options,
    directories: &Directories,
    namespaces: &[std::os::fd::OwnedFd],
) -> Result<()> {
    let spec = &request.bundle.spec;
    let Begun { guard, state, cgroup, .. } = begun;
    spawn::compile_filter(&request.bundle, plan)?;
    spawn::keep_filter(plan, guard.dir()?, state)?;
    options.external_mounts = mounts::to_restore(&plan.rootfs, &plan.mounts)?;
    let cgroups = mounts::cgroup_binds(&plan.mounts, &plan.namespaces, cgroup.record())?;
    let bytes = |text: &std::ffi::CString| text.to_bytes().to_vec();
    options.external_mounts.extend(cgroups.iter().map(|(at, source)| (bytes(at), bytes(source))));
    if !plan.masked_paths.is_empty() {
        options.external_mounts.push((b"/dev/null".to_vec(), b"/dev/null".to_vec()));
    }
    options.external_mounts.extend(checkpoint::device_mounts(spec)?);

    // In a directory of this container, so that `delete` finds it should this process be killed.
    let state_dir = guard.dir()?.fd().try_clone_to_owned().context("copy a descriptor")?;
    let root = mounts::Root::bind(state_dir.as_fd(), &plan.rootfs)?;
    options.root = root.path.clone();
    let surroundings = Surroundings {
        stdio: !has_terminal(request),
        extra: namespaces.iter().map(AsFd::as_fd).collect(),
        cgroup: cgroup.clone_into(),
        cgroup_files: cgroup.join_files(true)?,
        cgroup_files_without_clone: cgroup.join_files(false)?,
        keyring: plan.keyring.as_deref(),
        user_namespace: plan.namespaces.private(libc::CLONE_NEWUSER),
        signal_mask: Some(request.signal_mask),
    };
    let mut session = Session::start(&surroundings)?;
    session.require(OLDEST, "restore")?;
    if options.lsm_profile.is_some() {
        session.require(LSM, "--lsm-profile")?;
    }
    if options.lsm_mount_context.is_some() {
        session.require(LSM, "--lsm-mount-context")?;
    }
    if cgroup.is_pending() {
        // A scope is made around a process, and what CRIU restores are its children.
        guard.make_unit(cgroup, session.pid())?;
    }
    cgroup.load_devices()?;
    options.cgroup_roots = external::cgroup_roots(session.pid())?;
    let message = message::request(Kind::Restore, &options);
    session.work(Kind::Restore, &message, &directories.logs.join(LOG), |step, pid, fd| {
        match step {
            "setup-namespaces" => guard.run_runtime_hooks(spec.hooks().as_ref(), pid)?,
            // Before the processes run on: a container that runs has a state.
            "post-restore" => {
                let pidfd = external::restored(pid)?;
                state.set_init(guard.dir()?, pid, pidfd.as_fd())?;
                state.namespaces |= external::added_namespaces(pid);
                guard.child = Some((pid, pidfd));
                guard.dir()?.write(state)?;
            }
            "orphan-pts-master" => {
                let master = fd.context("criu sent no terminal")?;
                let socket = request.console.as_ref().context("restored terminal has no console socket")?;
                socket::send_fd(socket.as_fd(), b"orphan-pts-master", master.as_fd())
                    .context("send the terminal")?;
            }
            _ => {}
        }
        Ok(())
    })?;
    if guard.child.is_none() {
        anyhow::bail!("criu restored no process");
    }
    Ok(())
}
