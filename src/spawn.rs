//! The runtime's side of a container start: from a loaded bundle to a child that waits at the gate, or runs.
//!
//! Everything that can be refused is refused before the first side effect; what has effects is owned by a guard, so
//! that an error at any point undoes all of it. The child's side is `init/`, the wire between them `sync.rs`.

use crate::agent;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::explain;
use crate::hooks::{self, HookState};
use crate::idmap;
use crate::idmapped;
use crate::init::{self, Container};
use crate::log;
use crate::lsm;
use crate::net;
use crate::notify::Relay;
use crate::patience::{LOOK_AFTER, Patience};
use crate::pid_file::PidFile;
use crate::plan::process::Process;
use crate::plan::{self, Plan};
use crate::resctrl::Group;
use crate::state::{self, Dir, State, Store};
use crate::sync::{Failure, Frame, Kind, Step, Wire};
use crate::sys::ahead::Ahead;
use crate::sys::process::{Cloned, Ended};
use crate::sys::{Errno, exe, fs, process};
use anyhow::{Context, Result, bail};
use nix::sys::signal::SigSet;
use oci_spec::runtime::{Hook, Hooks};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const TELL: &str = "write to the init stage";

/// What create, run and restore ask for.
pub struct Request {
    /// Container id.
    pub id: String,
    /// The bundle.
    pub bundle: Bundle,
    /// Flags that change the plan.
    pub options: plan::Options,
    /// Connected socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// That terminal is carried by this process, and not handed to an engine.
    pub own_terminal: bool,
    /// The configuration names the directory of a notify socket.
    pub notify: bool,
    /// How many descriptors after 0, 1, 2 are for the program.
    pub preserve_fds: u32,
    /// Absolute path of the pid file.
    pub pid_file: Option<PathBuf>,
    /// Socket that gets a pidfd of the init process.
    pub pidfd_socket: Option<PathBuf>,
    /// Leave the program at the gate (create) or let it run.
    pub gate: bool,
    /// Signal mask that the program gets.
    pub signal_mask: SigSet,
    /// Use the systemd cgroup driver.
    pub systemd: bool,
    /// The protection of the executable; taken by `start`.
    pub seal: Option<exe::Seal>,
    /// `--rootless`.
    pub rootless: Option<bool>,
}

/// The executable cannot be protected in place: the whole program must start again from a protected file.
#[derive(Debug)]
pub struct NeedsRestart;

impl std::fmt::Display for NeedsRestart {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("protect the own executable")
    }
}

impl std::error::Error for NeedsRestart {}

/// Starts the program again if `result` asks for it, with the descriptors and signals that it was started with.
pub fn restart_if_needed<T>(result: Result<T>, signal_mask: SigSet) -> Result<T> {
    match result {
        Err(error) if error.is::<NeedsRestart>() => {
            crate::first_fds::hand_on().context("hand on descriptors")?;
            signal_mask.thread_set_mask().context("unblock signals")?;
            Err(exe::restart()).context("protect the own executable")
        }
        other => other,
    }
}

/// A container that was made.
pub struct Started {
    /// Its state directory.
    pub dir: Dir,
    /// Its state.
    pub state: State,
    /// Its init process.
    pub pidfd: OwnedFd,
    /// The socket on which the program says that it is ready; `start` makes it where the program waits at the gate.
    pub notify: Option<Relay>,
}

/// Undoes a half-made container: process, interfaces, resctrl group, root mount, cgroup, state directory, in this order; then
/// the poststop hooks run.
pub struct Guard {
    dir: Option<Dir>,
    cgroup: Option<cgroup::Record>,
    /// The init process, a child of this one.
    pub child: Option<(i32, OwnedFd)>,
    /// The resource control group, with what was made for it.
    resctrl: Option<Group>,
    /// Interfaces that were moved into the container: on an error they come back.
    net_devices: Option<net::Devices>,
    /// Without a mount namespace: the root filesystem, and the mount it lay on before.
    root: Option<(CString, u64)>,
    /// Run at the end if any other hook has run: they clean up after those.
    poststop: Vec<Hook>,
    hook_state: HookState,
    /// Those of the runtime have begun.
    hooks_ran: bool,
    /// Those of the container may have.
    inner_hooks_ran: bool,
}

impl Guard {
    /// The systemd driver: has the cgroup made around the process.
    pub fn make_unit(&mut self, cgroup: &cgroup::Live, pid: i32) -> Result<()> {
        cgroup.start_unit(pid)?;
        self.cgroup = Some(cgroup.record().clone());
        cgroup.fill_unit(pid)
    }

    /// Is there a cgroup to remove?
    pub fn has_cgroup(&self) -> bool {
        self.cgroup.is_some()
    }

    /// The state directory.
    pub fn dir(&self) -> Result<&Dir> {
        self.dir.as_ref().context("the state directory is gone")
    }

    /// Is the child a zombie, or gone?
    fn child_has_ended(&self) -> bool {
        self.child.as_ref().is_none_or(|child| process::has_ended(child.1.as_fd()))
    }

    /// Ends and reaps the child, if there is one.
    fn end_child(&mut self) -> Option<Ended> {
        let (pid, pidfd) = self.child.take()?;
        process::end(pid, pidfd.as_fd()).or_else(|| {
            // What stays behind all the same ends when it can run.
            let _ = self.cgroup.as_ref()?.release(pid);
            process::end(pid, pidfd.as_fd())
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Errors here would hide the one that led here; what is left can be found by `delete`.
        self.end_child();
        self.net_devices = None;
        if let Some(group) = self.resctrl.take() {
            group.undo();
        }
        if let Some((rootfs, before)) = &self.root {
            let _ = state::unmount_root(rootfs, *before);
        }
        if let Some(record) = self.cgroup.take() {
            // Not the child alone: the program may have forked, and hooks leave processes.
            let _ = record.end_and_remove(true);
        }
        if let Some(dir) = self.dir.take() {
            let _ = dir.remove();
            if self.hooks_ran || self.inner_hooks_ran {
                let json = self.hook_state.json("stopped", 0);
                for hook in &self.poststop {
                    let _ = hooks::run(hook, &json, Path::new(&self.hook_state.bundle));
                }
            }
        }
    }
}

/// What stays the same over the attempts to start the init stage.
struct Launch<'a> {
    request: &'a Request,
    plan: &'a Plan,
    cgroup: &'a cgroup::Live,
    hooks: Option<&'a Hooks>,
    gate: Option<OwnedFd>,
    /// Let go before the program can run, which dissolves the mount behind it.
    seal: Option<exe::Seal>,
    /// User namespaces with the mappings of mounts.
    idmaps: Vec<(usize, OwnedFd)>,
    /// Makes some of the container's namespaces.
    ahead: Option<Ahead>,
}

/// Makes the container: to the gate, or to the running program.
pub fn start(store: &Store, request: &mut Request) -> Result<Started> {
    let seal = request.seal.take();
    let mut ahead = request.bundle.ahead.take();
    let request = &*request;
    state::check_id(&request.id)?;
    let plan = plan(request)?;
    explain::warn_of_capabilities(&plan.process);
    let seen = !plan.namespaces.makes(libc::CLONE_NEWPID);
    if let (Some(seal), true) = (&seal, seen) {
        // In a pid namespace with others the init stage can be seen from its birth. Nobody else may run in the
        // mappings that are replaced.
        ahead = None;
        seal.apply().context("protect the own executable")?;
    }
    let begun = begin(store, request, &plan)?;
    launch(request, plan, seal, ahead, begun)
}

/// Compiles the plan of the requested container; a user namespace to join says itself how it maps ids.
pub fn plan(request: &Request) -> Result<Plan> {
    let spec = &request.bundle.spec;
    let mut plan =
        plan::compile(spec, &request.id, &request.bundle.dir, &request.bundle.rootfs, request.options)?;
    if plan.namespaces.joined(libc::CLONE_NEWPID).is_some() {
        let own = own_pid_namespace()?;
        plan.namespaces.no_way_back = process::setns(own.as_fd(), libc::CLONE_NEWPID).is_err();
    }
    lsm::check(&plan.process)?;
    if let Some(label) = spec.linux().as_ref().and_then(plan::mount_label)
        && lsm::has_selinux()
    {
        let annotations = spec.annotations().as_ref();
        let option = annotations.and_then(|all| all.get(plan::mounts::CONTEXT_TYPE));
        plan::mounts::set_label(&mut plan.mounts, label, option.map(String::as_str))?;
    }
    if let (Some(join), Some(process)) = (plan.namespaces.joined(libc::CLONE_NEWUSER), spec.process()) {
        let (file, _, index) = open_namespace(&plan, join)?;
        idmap::adopt(&mut plan, file.as_fd(), index, process)?;
    }
    Ok(plan)
}

/// Compiles the seccomp profile.
pub fn compile_filter(bundle: &Bundle, plan: &Plan) -> Result<()> {
    let Some(profile) = bundle.seccomp()? else { return Ok(()) };
    if let Some(filter) = plan::seccomp::compile(&profile)? {
        let listener = if filter.agent.is_some() { crate::sys::seccomp::FLAG_NEW_LISTENER } else { 0 };
        log::debug(format_args!("seccomp filter flags: {}", filter.flags | listener));
        let _ = plan.process.seccomp.set(filter);
    }
    // What was parsed is of no more use; giving it back piece by piece would only cost time.
    std::mem::forget(profile);
    Ok(())
}

/// Keeps the filter for `exec`, which has to give the same to its processes.
pub fn keep_filter(plan: &Plan, dir: &Dir, container: &mut State) -> Result<()> {
    let Some(filter) = plan.process.seccomp.get() else { return Ok(()) };
    container.agent.clone_from(&filter.agent);
    dir.put(state::SECCOMP, state::SECCOMP, &filter.to_bytes()).context("keep the seccomp program")
}

/// A container of which nothing runs yet.
pub struct Begun {
    /// Undoes it.
    pub guard: Guard,
    /// Its state, without a process.
    pub state: State,
    /// Its cgroup.
    pub cgroup: cgroup::Live,
    /// Where `start` will come, if the request asks for that.
    pub gate: Option<OwnedFd>,
    /// Where the program's readiness will arrive, if `run` is to hand it on.
    pub notify: Option<Relay>,
    /// Keeps others away until the container is made.
    pub lock: OwnedFd,
}

/// Claims the id, writes down what a crash would leave behind, and makes the cgroup.
pub fn begin(store: &Store, request: &Request, plan: &Plan) -> Result<Begun> {
    let spec = &request.bundle.spec;
    let linux = spec.linux().as_ref().context("/linux: is required")?;
    let cgroup_plan = cgroup::plan(linux, &request.id, cgroup_options(request, plan))?;
    for warning in cgroup_plan.warnings() {
        log::warn(warning);
    }
    let hooks = spec.hooks().as_ref();
    let list = |hooks: Option<&Vec<Hook>>| hooks.cloned().unwrap_or_default();

    let now = crate::time::now();
    // The id is claimed, and what a crash would leave behind is written down, before anything else is made.
    let mut container = State {
        version: 1,
        oci_version: spec.version().clone(),
        id: request.id.clone(),
        pid: 0,
        start_time: None,
        pidfd_inode: None,
        of_this_boot: true,
        making: false,
        bundle: request.bundle.dir.clone(),
        rootfs: request.bundle.rootfs.clone(),
        created: crate::time::rfc3339(now.0, now.1),
        annotations: spec.annotations().clone().unwrap_or_default(),
        owner: nix::unistd::getuid().as_raw(),
        namespaces: plan.namespaces.all(),
        joined_pids: plan.namespaces.joined(libc::CLONE_NEWPID).is_some(),
        keyring: plan.keyring.is_some(),
        sees_all: !plan.namespaces.private(libc::CLONE_NEWUSER)
            && plan.process.capabilities.bounding & caps::Capability::CAP_SYS_PTRACE.bitmask() != 0,
        memory_policy: plan.process.memory_policy.clone(),
        exec_cpu_affinity: spec.process().as_ref().and_then(|p| p.exec_cpu_affinity().clone()),
        agent: None,
        gate_pipes: None,
        no_process: spec.process().is_none(),
        personality: plan.process.personality,
        root_mount: match plan.namespaces.private(libc::CLONE_NEWNS) {
            true => None,
            false => Some(fs::mount_id(&plan.rootfs).context("look at the root filesystem")?),
        },
        cgroup: cgroup_plan.record(),
        resctrl: match &plan.intel_rdt {
            Some(rdt) => Some(Group::find(rdt, &request.id)?),
            None => None,
        },
        poststart: list(hooks.and_then(|h| h.poststart().as_ref())),
        poststop: list(hooks.and_then(|h| h.poststop().as_ref())),
    };
    let (dir, lock) = store.begin(&container)?;
    let mut guard = Guard {
        dir: Some(dir),
        cgroup: None,
        child: None,
        resctrl: None,
        net_devices: None,
        root: container.root_mount.map(|before| (plan.rootfs.clone(), before)),
        poststop: container.poststop.clone(),
        hook_state: container.for_hooks(),
        hooks_ran: false,
        inner_hooks_ran: false,
    };
    if request.notify {
        guard.dir()?.make_notify_directory().context("make the directory of the notify socket")?;
    }
    let notify = if request.notify && !request.gate { Relay::bind(guard.dir()?)? } else { None };
    let gate =
        if request.gate { Some(bind_gate(guard.dir()?).context("make the start gate")?) } else { None };
    // On an error it has removed what it made; what was there before is not ours.
    let cgroup = cgroup_plan.create()?;
    container.cgroup = cgroup.record().clone();
    // A unit of systemd is ours once it was made around the init process.
    guard.cgroup = (!cgroup.is_pending()).then(|| container.cgroup.clone());
    if container.cgroup.hierarchies.is_empty() && container.shares_pids() {
        log::warn(
            "Creating a rootless container with no cgroup and no private pid namespace. Such configuration is strongly \
             discouraged (as it is impossible to properly kill all container's processes)",
        );
    }
    Ok(Begun { guard, state: container, cgroup, gate, notify, lock })
}

/// Starts the init stage of a container that was begun, and lets it go as far as the request says.
fn launch(
    request: &Request,
    plan: Plan,
    seal: Option<exe::Seal>,
    ahead: Option<Ahead>,
    begun: Begun,
) -> Result<Started> {
    let Begun { mut guard, state: mut container, cgroup, gate, notify, lock: _lock } = begun;
    let spec = &request.bundle.spec;
    let hooks = spec.hooks().as_ref();
    if let Some((rdt, group)) = plan.intel_rdt.as_ref().zip(container.resctrl.clone()) {
        guard.resctrl.insert(group).create(rdt)?;
    }

    guard.net_devices = net::Devices::prepare(&plan.net_devices)?;
    if plan.namespaces.private(libc::CLONE_NEWUSER) {
        raise_limits(&plan.process);
    }
    // Until execve nobody may look into these processes (CVE-2016-9962). Where an ordinary user writes the maps of a
    // process, the kernel wants to see it as theirs: then later.
    if process::is_root() || !plan.namespaces.makes(libc::CLONE_NEWUSER) {
        hide()?;
    }
    let mut launch = Launch {
        seal,
        ahead: make_ahead(ahead, plan.namespaces.made_ahead())?,
        request,
        plan: &plan,
        cgroup: &cgroup,
        hooks,
        gate,
        idmaps: idmapped::namespaces(&plan)?,
    };
    if !launch.attempt(&mut container, &mut guard, true)? {
        // Once cgroup.kill was written in the runtime's own cgroup, a child cloned into another is killed at birth
        // (Linux 6.18 at least): then it joins by itself, at the cost of a grace period.
        guard.end_child();
        // Out of the network namespace that has ended with it.
        guard.net_devices = None;
        guard.net_devices = net::Devices::prepare(&plan.net_devices)?;
        launch.seal = exe::prepare().context("protect the own executable")?;
        if !launch.attempt(&mut container, &mut guard, false)? {
            bail!("init process was killed before it could do anything");
        }
    }
    log::debug(format_args!(
        "init: closing the pipe to signal completion: {}",
        if request.gate { "it waits for start" } else { "the program runs" }
    ));
    // This process is about to end or to wait: giving back memory piece by piece would only cost time.
    drop(launch);
    std::mem::forget(plan);
    finish(request, guard, container, notify)
}

/// The process that makes these namespaces, if there are any: the one that was begun, if it was told of them.
fn make_ahead(begun: Option<Ahead>, namespaces: i32) -> Result<Option<Ahead>> {
    let begun = begun.filter(|ahead| namespaces != 0 && ahead.makes(namespaces));
    if namespaces == 0 || begun.is_some() {
        return Ok(begun);
    }
    let ahead = Ahead::begin().context("start the process that makes namespaces")?;
    ahead.make(namespaces);
    Ok(Some(ahead))
}

/// The container runs or waits at its gate: hands it over and tells the caller.
pub fn finish(
    request: &Request,
    mut guard: Guard,
    container: State,
    notify: Option<Relay>,
) -> Result<Started> {
    let (pid, pidfd) = guard.child.take().context("the init process is gone")?;
    let dir = guard.dir.take().context("the state directory is gone")?;
    guard.cgroup = None;
    let root = guard.root.take();
    let started = Started { dir, state: container, pidfd, notify };
    if let Err(error) = announce(request, &started, pid) {
        // The caller will not know the container: undo it like any other failure.
        guard.child = Some((pid, started.pidfd));
        guard.root = root;
        guard.cgroup = Some(started.state.cgroup);
        guard.dir = Some(started.dir);
        return Err(error);
    }
    if let Some(devices) = guard.net_devices.take() {
        devices.leave();
    }
    guard.resctrl = None;
    Ok(started)
}

fn cgroup_options<'a>(request: &'a Request, plan: &Plan) -> cgroup::Options<'a> {
    let driver = if request.systemd { cgroup::Driver::Systemd } else { cgroup::Driver::Cgroupfs };
    let spec = &request.bundle.spec;
    let owner = cgroup::owner(spec, &plan.maps);
    cgroup::Options { driver, owner, rootless: request.rootless, annotations: spec.annotations().as_ref() }
}

fn hide() -> Result<()> {
    process::prctl(libc::PR_SET_DUMPABLE, 0).map(drop).context("hide from containers")
}

/// Tells the caller which process it is; last, because callers wait for the pid file.
fn announce(request: &Request, started: &Started, pid: i32) -> Result<()> {
    if let Some(path) = &request.pidfd_socket {
        send_pidfd(path, b"standard", started.pidfd.as_fd())?;
    }
    match &request.pid_file {
        Some(path) => PidFile::open(path.clone())?.write(pid),
        None => Ok(()),
    }
}

impl Launch<'_> {
    /// Clones the init stage and does the runtime's half of its work. False: it was killed at birth.
    fn attempt(&mut self, container: &mut State, guard: &mut Guard, into_cgroup: bool) -> Result<bool> {
        let (wire, child_wire) = Wire::pair().context("make the wire to the init stage")?;
        let (sources, child_sources) = self.sources()?;
        let child = Container {
            plan: self.plan,
            state: &guard.hook_state,
            wire: child_wire,
            other_end: wire.as_fd(),
            gate: self.gate.as_ref().map(OwnedFd::try_clone).transpose().context("copy a descriptor")?,
            cgroups: self.cgroup.join_files(into_cgroup)?,
            moved: self.cgroup.is_pending(),
            settings: None,
            covers: init::mask::Covers::default(),
            idmaps: &self.idmaps,
            cgroup_view: self.cgroup.view()?,
            join: open_namespaces(self.plan)?,
            proc: self.plan.namespaces.joined(libc::CLONE_NEWNS).map(|_| open_proc()).transpose()?,
            seal: self.seal.as_ref().map(|seal| (seal, self.plan.namespaces.makes(libc::CLONE_NEWPID))),
            ahead: self.ahead.as_ref().map(Ahead::pidfd),
            sources: child_sources,
            console: self
                .request
                .console
                .as_ref()
                .map(OwnedFd::try_clone)
                .transpose()
                .context("copy a descriptor")?,
            own_terminal: self.request.own_terminal,
            preserve_fds: self.request.preserve_fds,
            signal_mask: self.request.signal_mask,
            filtered: self.request.bundle.has_seccomp(),
        };
        if let Some(devices) = &mut guard.net_devices
            && let Some((file, ..)) = child.join.iter().find(|join| join.1 == libc::CLONE_NEWNET)
        {
            devices.move_into(&self.plan.net_devices, file.as_fd())?;
        }
        let target = if into_cgroup { self.cgroup.clone_into() } else { None };
        // What --debug says of the stages begins as runc says it, whose stages have the same order: people look for it.
        log::debug("nsexec container setup: clone the init stage into its namespaces");
        guard.child = match clone_child(self.plan, target, child) {
            // No clone into a cgroup on this kernel, or through the filter around us.
            Err(error) if into_cgroup && error.downcast_ref() == Some(&Errno::EOPNOTSUPP) => {
                return Ok(false);
            }
            // The parent's directory is this user's, but no process may be moved there.
            Err(error) if target.is_some() && error.downcast_ref() == Some(&Errno::EACCES) => {
                return Err(self.closed_cgroup()?);
            }
            other => Some(other?),
        };
        if self.plan.namespaces.needs_middle()
            && let Some(frame) = adopt_init(guard, &wire, self.cgroup.record())?
        {
            return self.ended(frame, guard, into_cgroup);
        }
        let pid = guard.child.as_ref().map_or(0, |child| child.0);
        if self.cgroup.is_pending() {
            guard.make_unit(self.cgroup, pid)?;
            wire.send(Kind::CgroupReady).context(TELL)?;
        }
        if let Some(group) = &guard.resctrl {
            group.enter(pid)?;
        }
        if guard.net_devices.is_some() && self.ahead.is_none() {
            // The child has its network namespace, and waits until its ids are mapped: settings come later.
            let file = process::open_namespace(pid, "net");
            if file.is_err() && guard.child_has_ended() {
                return self.ended(Frame::Lost, guard, into_cgroup);
            }
            let file = file.context("open the container's network namespace")?;
            if let Some(devices) = &mut guard.net_devices {
                devices.move_into(&self.plan.net_devices, file.as_fd())?;
            }
        }
        if (self.plan.namespaces.makes(libc::CLONE_NEWUSER) || self.plan.namespaces.needs_middle())
            && !self.admit(guard, &wire, pid)?
        {
            return self.ended(Frame::Lost, guard, into_cgroup);
        }
        log::debug(format_args!("child process in init(): pid {pid}"));

        // The child mounts meanwhile: the network namespace alone is a quarter of a container start.
        if let Some(ahead) = &self.ahead {
            ahead.made().context("make namespaces")?;
            if let Some(devices) = &mut guard.net_devices {
                // Before settings for them are written in the child.
                devices.move_into(&self.plan.net_devices, ahead.pidfd())?;
            }
            wire.send(Kind::NamespacesReady).context(TELL)?;
        }
        let starts = !self.request.gate && !self.plan.start_container.is_empty();
        guard.inner_hooks_ran = starts || !self.plan.create_container.is_empty();
        // All that later commands have is the number: without these calls no container may come to be, which they could not end.
        let init = process::pidfd_open(pid).context("open the init process")?;
        process::pidfd_signal(init.as_fd(), 0).context("reach the init process")?;
        drop(init);
        wire.limit(LOOK_AFTER).context("limit the wait for the init stage")?;
        // The mount is the child's by now, or the child's copy is the last one.
        self.seal = None;
        if let Err(error) = self.cgroup.load_devices() {
            return Err(self.childs_word(&wire, guard).unwrap_or(error));
        }
        let told_before = !process::is_root() && self.plan.namespaces.makes(libc::CLONE_NEWUSER);
        if self.plan.process.oom_score_adj.is_some() && !told_before {
            set_oom_score(&self.plan.process, pid, &open_proc()?)?;
        }
        let filtered = self.request.bundle.has_seccomp();
        if filtered {
            // A third of the planning of an engine's container, and the init stage wants it last.
            if self.plan.process.seccomp.get().is_none() {
                compile_filter(&self.request.bundle, self.plan)?;
            }
            // It is installed while the rest is done here.
            if !self.plan.runtime_hooks {
                wire.send_filter(self.plan.process.seccomp.get()).context(TELL)?;
            }
            keep_filter(self.plan, guard.dir()?, container)?;
        }
        if let Some((_, pidfd)) = &guard.child {
            container.set_init(guard.dir()?, pid, pidfd.as_fd())?;
        }
        guard.dir()?.write_making(container)?;
        if self.plan.runtime_hooks {
            match self.listen(&wire, guard, sources.as_ref())? {
                Frame::Plain(Kind::MountsDone) => {}
                other => return self.ended(other, guard, into_cgroup),
            }
            guard.run_runtime_hooks(self.hooks, pid)?;
            wire.send(Kind::HooksDone).context(TELL)?;
            if filtered {
                wire.send_filter(self.plan.process.seccomp.get()).context(TELL)?;
            }
        }
        wire.send(Kind::Proceed).context(TELL)?;
        match self.listen(&wire, guard, sources.as_ref())? {
            Frame::Plain(Kind::Ready) if self.request.gate => guard.dir()?.made()?,
            Frame::ReadyAt(pipes) if self.request.gate => {
                container.gate_pipes = Some(pipes);
                guard.dir()?.write(container)?;
            }
            // execve has closed the child's end.
            Frame::End if !self.request.gate => guard.dir()?.made()?,
            other => return self.ended(other, guard, into_cgroup),
        }
        Ok(true)
    }

    /// Both ends of the socket for sources that the container's root cannot reach, where the runtime has more rights.
    fn sources(&self) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        if !self.plan.namespaces.private(libc::CLONE_NEWUSER) || !process::is_root() {
            return Ok((None, None));
        }
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .context("make a socket for mounts")?;
        Ok((Some(ours), Some(theirs)))
    }

    /// Waits for the init stage, and meanwhile serves its wishes.
    fn listen(&self, wire: &Wire, guard: &Guard, sources: Option<&OwnedFd>) -> Result<Frame> {
        let init = guard.child.as_ref().map(|child| child.0);
        let mut patience = Patience::new(self.cgroup.record(), init);
        loop {
            match (patience.receive(wire)?, sources, &guard.child) {
                (Frame::NeedSource(index), Some(sources), Some((pid, pidfd))) => {
                    let init = (*pid, pidfd.as_fd());
                    init::source::send(self.plan, index, init, &self.idmaps, sources.as_fd())
                        .map_err(|failure| explain::failure(&failure, self.plan))?;
                }
                (Frame::Listener(fd), ..) => {
                    self.serve_agent(fd, guard)?;
                    wire.send(Kind::ListenerTaken).context(TELL)?;
                }
                (frame, ..) => return Ok(frame),
            }
        }
    }

    /// Maps the ids of a new user namespace and lets the child become its root. False: it was killed before.
    fn admit(&self, guard: &Guard, wire: &Wire, pid: i32) -> Result<bool> {
        if self.plan.namespaces.makes(libc::CLONE_NEWUSER) {
            let unprivileged = !process::is_root();
            let admitted = match unprivileged && self.plan.process.oom_score_adj.is_some() {
                true => set_oom_score(&self.plan.process, pid, &open_proc()?),
                false => Ok(()),
            };
            if let Err(error) = admitted.and_then(|()| idmap::write(pid, &self.plan.maps)) {
                // The files of one that has failed meanwhile belong to somebody else.
                if let Ok(Some(Frame::Failed(failure))) = wire.receive_now() {
                    return Err(self.childs_failure(&failure)?);
                }
                return if guard.child_has_ended() { Ok(false) } else { Err(error) };
            }
            if unprivileged {
                hide()?;
            }
        }
        wire.send(Kind::Mapped).context(TELL)?;
        Ok(true)
    }

    /// Takes the seccomp descriptor `fd` of the init stage and passes it to the agent.
    fn serve_agent(&self, fd: i32, guard: &Guard) -> Result<()> {
        let agent = self.plan.process.seccomp.get().and_then(|filter| filter.agent.as_deref());
        let (agent, (pid, pidfd)) = agent.zip(guard.child.as_ref()).context("no seccomp agent is named")?;
        let state = guard.hook_state.with("creating", *pid);
        agent::serve(agent.connect()?, agent, fd, pidfd.as_fd(), *pid, &state)
    }

    /// Why the init stage has ended, if it has: systemd takes an empty scope away at once, and what is missing there then is
    /// not what went wrong.
    fn childs_word(&self, wire: &Wire, guard: &Guard) -> Option<anyhow::Error> {
        match guard.child_has_ended().then(|| wire.receive()) {
            Some(Ok(Frame::Failed(failure))) => Some(explain::failure(&failure, self.plan)),
            _ => None,
        }
    }

    fn closed_cgroup(&self) -> Result<anyhow::Error> {
        let cgroup = self.cgroup.record().main()?.dir();
        Ok(anyhow::anyhow!("unable to apply cgroup configuration: enter cgroup {cgroup}: permission denied"))
    }

    /// The words for a failure of the init stage.
    fn childs_failure(&self, failure: &Failure) -> Result<anyhow::Error> {
        match (failure.step, failure.errno) {
            // What a clone into the cgroup would have said.
            (Step::JoinCgroup, Errno::EACCES) => self.closed_cgroup(),
            _ => Ok(explain::failure(failure, self.plan)),
        }
    }

    /// The init stage has failed: says why, or that it was killed at birth (false).
    fn ended(&self, frame: Frame, guard: &mut Guard, into_cgroup: bool) -> Result<bool> {
        if let Frame::Failed(failure) = &frame {
            return Err(self.childs_failure(failure)?);
        }
        let ended = guard.child.take().and_then(|(pid, _)| process::wait(pid).ok());
        let killed = ended == Some(Ended::Signal(libc::SIGKILL));
        if killed
            && into_cgroup
            && frame == Frame::Lost
            && self.cgroup.clone_into().is_some()
            && !guard.hooks_ran
        {
            return Ok(false);
        }
        if killed && self.cgroup.was_oom_killed() {
            bail!("unable to start container process: container init was OOM-killed (memory limit too low?)");
        }
        match ended {
            Some(Ended::Signal(signal)) => {
                bail!("unable to start container process: container init was killed by signal {signal}")
            }
            _ => bail!("unable to start container process: container init ended without a word"),
        }
    }
}

impl Guard {
    /// Runs the prestart and createRuntime hooks; from then on poststop hooks run if the container is undone.
    #[allow(deprecated)]
    pub fn run_runtime_hooks(&mut self, hooks: Option<&Hooks>, pid: i32) -> Result<()> {
        let json = self.hook_state.json("creating", pid);
        let Some(hooks) = hooks else { return Ok(()) };
        self.hooks_ran = true;
        for (name, list) in [("prestart", hooks.prestart()), ("createRuntime", hooks.create_runtime())] {
            let bundle = Path::new(&self.hook_state.bundle);
            run_hooks(name, list.as_deref().unwrap_or_default(), &json, bundle)?;
        }
        Ok(())
    }
}

/// Runs a list of hooks in the runtime's namespaces; the first failure ends it.
pub fn run_hooks(name: &str, list: &[Hook], state: &[u8], bundle: &Path) -> Result<()> {
    for (index, hook) in list.iter().enumerate() {
        hooks::run(hook, state, bundle)
            .map_err(|text| anyhow::anyhow!("error running {name} hook #{index}: {text}"))?;
    }
    Ok(())
}

/// Waits for the end of the process in the middle and puts the init process in its place in the guard. A frame: it has
/// failed, and is in the guard still.
fn adopt_init(guard: &mut Guard, wire: &Wire, cgroup: &cgroup::Record) -> Result<Option<Frame>> {
    let (pid, middle) = guard.child.as_ref().context("the init process is gone")?;
    Patience::new(cgroup, Some(*pid))
        .end_of(middle.as_fd())
        .context("wait for the process that joins namespaces")?;
    // What it had to say it has said; the init process waits to be let in, so the end of the wire does not show.
    match wire.receive_now().context("wait for the init stage")? {
        Some(Frame::Born(pid)) => {
            let pidfd = process::pidfd_open(pid).context("open the init process")?;
            if let Some((middle, _)) = guard.child.replace((pid, pidfd)) {
                process::wait(middle).context("wait for the process that joined namespaces")?;
            }
            Ok(None)
        }
        Some(frame) => Ok(Some(frame)),
        None => Ok(Some(Frame::Lost)),
    }
}

/// Clones the init stage into its new namespaces and, on cgroup v2, its cgroup. In the child it does not return.
fn clone_child(plan: &Plan, cgroup: Option<BorrowedFd>, child: Container) -> Result<(i32, OwnedFd)> {
    if plan.namespaces.needs_middle() {
        return match process::clone3(0, cgroup).context("clone the process that joins namespaces")? {
            Cloned::Child => init::middle::run(child),
            Cloned::Parent(pid, pidfd) => Ok((pid, pidfd)),
        };
    }
    // A pid namespace that is joined counts for children only, so the runtime enters it before it clones.
    let mut child = child;
    let joined_pid =
        child.join.iter().position(|join| join.1 == libc::CLONE_NEWPID).map(|at| child.join.remove(at));
    let own_pid_namespace = match &joined_pid {
        Some((file, flag, index)) => {
            let own = own_pid_namespace()?;
            process::setns(file.as_fd(), *flag)
                .with_context(|| format!("/linux/namespaces/{index}/path: join the pid namespace"))?;
            Some(own)
        }
        None => None,
    };
    let cloned = process::clone3(plan.namespaces.clone_flags() as u64, cgroup)
        .context("clone the init stage into its namespaces")?;
    match cloned {
        Cloned::Child => init::container(child),
        Cloned::Parent(pid, pidfd) => {
            if let Some(own) = own_pid_namespace
                && let Err(errno) = process::setns(own.as_fd(), libc::CLONE_NEWPID)
            {
                // Hooks must not run in the container's pid namespace; the child is not in the guard yet.
                process::kill_child(pid, pidfd.as_fd());
                let _ = process::wait(pid);
                return Err(errno).context("return to the own pid namespace");
            }
            Ok((pid, pidfd))
        }
    }
}

fn own_pid_namespace() -> Result<OwnedFd> {
    fs::open(c"/proc/self/ns/pid", libc::O_RDONLY, 0).context("open the own pid namespace")
}

/// Opens the namespace files to join.
fn open_namespaces(plan: &Plan) -> Result<Vec<(OwnedFd, i32, usize)>> {
    plan.namespaces.join.iter().map(|join| open_namespace(plan, join)).collect()
}

/// Opens a namespace file and checks that it is what it is listed as.
fn open_namespace(plan: &Plan, join: &plan::namespaces::Join) -> Result<(OwnedFd, i32, usize)> {
    let what = || format!("/linux/namespaces/{}/path: {}", join.index, join.path.display());
    let path = CString::new(join.path.as_os_str().as_bytes()).with_context(what)?;
    // Not blocking: the path may be a fifo.
    let file = fs::open(&path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0).with_context(what)?;
    match process::namespace_type(file.as_fd()) {
        Ok(flag) if flag == join.flag => {
            refuse_settings_of_the_host(plan, flag, file.as_fd())?;
            Ok((file, join.flag, join.index))
        }
        Ok(flag) => bail!(
            "{}: is a {} namespace, not {}",
            what(),
            plan::namespaces::file(flag),
            plan::namespaces::file(join.flag)
        ),
        Err(_) => bail!("{}: is not a namespace", what()),
    }
}

/// A namespace given by its path may be the runtime's own: a setting in it would be the host's.
fn refuse_settings_of_the_host(plan: &Plan, flag: i32, file: BorrowedFd) -> Result<()> {
    let in_it = |path: &CString| {
        path.to_str().ok().and_then(plan::sysctl_namespace).filter(|(needs, _)| *needs == flag)
    };
    let Some((name, (_, kind))) = plan.sysctl.iter().find_map(|(path, _)| Some((path, in_it(path)?))) else {
        return Ok(());
    };
    let own = CString::new(format!("/proc/self/ns/{}", plan::namespaces::file(flag)))?;
    let own = nix::sys::stat::stat(own.as_c_str()).context("stat the own namespace")?;
    let joined = nix::sys::stat::fstat(file).context("stat a namespace")?;
    if (own.st_dev, own.st_ino) == (joined.st_dev, joined.st_ino) {
        let name = name.to_string_lossy();
        bail!("/linux/sysctl: sysctl {name:?} is not allowed in the host {kind} namespace");
    }
    Ok(())
}

/// The host's procfs.
pub fn open_proc() -> Result<OwnedFd> {
    fs::open(c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0).context("open /proc")
}

/// The OOM score, set from outside while the child still has other things to do. `proc` is the host's procfs.
pub fn set_oom_score(process: &Process, pid: i32, proc: &OwnedFd) -> Result<()> {
    if let Some(score) = process.oom_score_adj {
        let path = CString::new(format!("{pid}/oom_score_adj"))?;
        let written = fs::openat(proc.as_fd(), &path, libc::O_WRONLY, 0)
            .and_then(|file| fs::write_once(file.as_fd(), score.to_string().as_bytes()));
        match written {
            Ok(()) | Err(Errno::ENOENT | Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context("/process/oomScoreAdj: write oom_score_adj"),
        }
    }
    Ok(())
}

/// Hard limits above the runtime's own, taken before a user namespace is entered: its root may not raise them.
pub fn raise_limits(process: &Process) {
    for &(resource, _, hard) in &process.rlimits {
        // Without the right to it the child says which limit it was, when it sets them.
        let _ = process::raise_hard_limit(resource, hard);
    }
}

/// The socket at which the created container waits for `start`.
fn bind_gate(dir: &Dir) -> Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
    use std::os::fd::AsRawFd;
    let gate = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    bind(gate.as_raw_fd(), &UnixAddr::new(dir.socket_path(state::GATE).as_str())?)?;
    listen(&gate, Backlog::new(8)?)?;
    Ok(gate)
}

/// Passes a pidfd to the socket at `path`.
pub fn send_pidfd(path: &Path, payload: &[u8], pidfd: BorrowedFd) -> Result<()> {
    let socket = connect(path).with_context(|| format!("connect to {}", path.display()))?;
    crate::sys::socket::send_fd(socket.as_fd(), payload, pidfd).context("send the pidfd")
}

/// Connects to a unix stream socket, whatever the length of its path.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let handle = fs::open(&c_path, libc::O_PATH, 0)?;
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let address = UnixAddr::new(format!("/proc/self/fd/{}", handle.as_raw_fd()).as_str())?;
    connect(socket.as_raw_fd(), &address)?;
    Ok(socket)
}
