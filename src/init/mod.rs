//! The init stage: everything between clone3 and execve, as two flat lists, one line a step.
//!
//! [`container`] is the first process of a container, [`exec`] a further one. The child walks the plan that was
//! compiled before the clone: it parses none of the configuration, logs nothing, and reports a failing step as numbers; the
//! runtime, which still has the plan, finds the words (`explain`). A change to container start begins as a line here.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod binds;
mod cgroup_mounts;
pub mod console;
mod copy;
mod creds;
mod devices;
pub mod enter;
mod filter;
mod gate;
mod hook;
mod label;
pub mod mask;
pub mod middle;
mod mounts;
pub mod path;
pub mod root;
pub mod source;

use crate::plan::Plan;
use crate::plan::process::Process;
use crate::sync::{At, Failure, Kind, Step, Wire};
use crate::sys::{fs, process};
use nix::sys::signal::SigSet;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What one step returns: the failing step, its place in the plan and the errno.
pub type Outcome<T = ()> = Result<T, Failure>;

/// A cgroup hierarchy to show inside the container on cgroup v1.
pub struct Hierarchy {
    /// Directory name below the mount's destination, for example `cpu,cpuacct`.
    pub name: CString,
    /// Mount option of the hierarchy, for example `cpu,cpuacct` or `name=systemd` (own cgroup namespace).
    pub controllers: CString,
    /// The container's own directory in the runtime's mount namespace (no cgroup namespace).
    pub source: CString,
    /// Links to make beside it, for example `cpu` and `cpuacct`.
    pub links: Vec<CString>,
}

/// How a `cgroup` mount is made on this host.
pub enum CgroupView {
    /// One tree. The container's own directory is the fallback where a new cgroup2 mount is refused.
    Unified { own: CString },
    /// A tmpfs with one directory a hierarchy.
    Hierarchies(Vec<Hierarchy>),
}

/// The child's half of a container start: the plan's companions that are descriptors, opened by the runtime before
/// the clone.
pub struct Container<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The container's id and bundle, for the state that hooks read.
    pub state: &'a crate::hooks::HookState,
    /// To the runtime.
    pub wire: Wire,
    /// The runtime's end of it, inherited: with a copy here the runtime's death would never show.
    pub other_end: std::os::fd::BorrowedFd<'a>,
    /// `create`: the listening gate. `run`: none.
    pub gate: Option<OwnedFd>,
    /// cgroup files to write `0` to, before anything else.
    pub cgroups: Vec<OwnedFd>,
    /// The runtime has this process moved to its cgroup.
    pub moved: bool,
    /// The directory of settings in the container's own procfs once that is mounted, if they can be written through it.
    pub settings: Option<OwnedFd>,
    /// What masks are made of.
    pub covers: mask::Covers,
    /// User namespaces with the mappings of mounts.
    pub idmaps: &'a source::Idmaps,
    /// How cgroup mounts look.
    pub cgroup_view: CgroupView,
    /// Namespaces to join, in order: file, flag, index in the configuration.
    pub join: Vec<(OwnedFd, i32, usize)>,
    /// The host's procfs, where a mount namespace is joined: there the path may lead anywhere.
    pub proc: Option<OwnedFd>,
    /// The protection of the executable, and whether it is to be applied here.
    pub seal: Option<(&'a crate::sys::exe::Seal, bool)>,
    /// The process that makes namespaces, to enter them: see [`crate::plan::namespaces::Namespaces::made_ahead`].
    pub ahead: Option<std::os::fd::BorrowedFd<'a>>,
    /// Where the runtime passes sources of mounts that are out of reach.
    pub sources: Option<OwnedFd>,
    /// Where to send the terminal.
    pub console: Option<OwnedFd>,
    /// The runtime itself carries its data.
    pub own_terminal: bool,
    /// Descriptors after 0, 1, 2 that the program inherits.
    pub preserve_fds: u32,
    /// Signal mask to give back before the program runs.
    pub signal_mask: SigSet,
    /// The runtime will pass a seccomp filter.
    pub filtered: bool,
}

/// The first process of a container. Never returns.
pub fn container(mut child: Container) -> ! {
    let failure = match container_steps(&mut child) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    // With the runtime gone there is nobody left to tell; the exit status says it as well.
    let _ = child.wire.fail(&failure);
    process::exit_now(1)
}

/// Container start, in order. Each line says why it stands where it does.
fn container_steps(child: &mut Container) -> Outcome<std::convert::Infallible> {
    let plan = child.plan;
    let init = &plan.process;

    fs::close_inherited(child.other_end);
    // While this is one thread and owns nothing: on cgroup v1 a self-write of `0` spares the grace period that the
    // runtime's write of a pid costs (7 ms after an idle gap). On v2 clone3 has already put us there.
    enter::join_cgroups(&child.cgroups).at(Step::JoinCgroup)?;
    // systemd makes the cgroup around this process, which must not have any other one then.
    if child.moved {
        child.wire.expect(Kind::CgroupReady).at(Step::JoinCgroup)?;
    }
    // The runtime's own processors are not the container's; the cgroup alone limits it from here on.
    enter::all_processors().at(Step::Session)?;
    // Before another process can be in this pid namespace: what shows as this one's executable must not be writable
    // (CVE-2019-5736). Here and not in the runtime, because there is time: the network namespace is not made yet. As who
    // the runtime is: the root of a user namespace may have no right to execute the file.
    if let Some((seal, true)) = child.seal
        && !plan.namespaces.needs_middle()
    {
        seal.apply_in_child().at(Step::Seal)?;
    }
    // Who this process is decides what it may do, and a change of ids undoes the next two.
    enter::user_namespace(child)?;
    // If the runtime is killed half-way the container must not live on; given up before "created".
    enter::die_with_runtime().at(Step::Session)?;
    // Before any namespace shows us to others: no process of the container may look into this one (CVE-2016-9962).
    enter::hide().at(Step::Session)?;
    enter::join_namespaces(&child.join)?;
    enter::loopback(&plan.namespaces).at(Step::NewNamespace)?;
    // Before anything reads a clock that counts for the container.
    enter::time_namespace(child).at(Step::TimeNamespace)?;
    // After the cgroup is entered, else the namespace would be rooted at the runtime's.
    enter::new_cgroup_namespace(&plan.namespaces).at(Step::NewNamespace)?;
    process::setsid().at(Step::Session)?;
    let in_user_namespace = plan.namespaces.private(libc::CLONE_NEWUSER);
    label::with_key_label(init, || enter::keyring(plan.keyring.as_deref(), in_user_namespace))?;
    let umask = process::umask(0);
    // Legal this early because it only bites at exec; while there is time. Not for hooks, which act for the runtime.
    let with_hooks = !plan.create_container.is_empty();
    if !with_hooks {
        creds::drop_bounding(init.capabilities.bounding).at(Step::Capabilities)?;
    }

    // From here on every path inside the rootfs is looked up from `root`, a descriptor.
    root::isolate(plan).at(Step::Isolate)?;
    if let Some((seal, _)) = child.seal.take() {
        if root::leaves_old_root(plan) {
            seal.leave_in_old_root();
        }
        seal.close_in_child();
    }
    let root = root::bind(&plan.rootfs, root::cut_off(plan)).at(Step::Root)?;
    let readonly = mounts::mount_all(child, root.as_fd())?;
    if !plan.devices_early {
        devices::make_all(plan, root.as_fd())?;
    }
    enter::made_ahead(child, root.as_fd())?;

    // The runtime's hooks see the mounts done, the network namespace there and the old root still in place.
    if plan.runtime_hooks {
        child.wire.send(Kind::MountsDone).at(Step::Gate)?;
        child.wire.expect(Kind::HooksDone).at(Step::Gate)?;
    }
    // Their paths are the runtime's, hence before the pivot; they may still change the rootfs, hence before masks.
    if with_hooks {
        hook::create_container(child, root.as_fd(), umask)?;
        creds::drop_bounding(init.capabilities.bounding).at(Step::Capabilities)?;
    }

    // After the mounts, because the terminal comes from the container's own devpts; before the program is looked up,
    // because callers wait for the terminal first.
    if init.terminal {
        console::open(child, root.as_fd())?;
    }
    // After devices, terminal and hooks, which put files into them.
    mounts::make_readonly(readonly)?;
    // Writes to /proc/sys go before the masks make it read-only, through a procfs of our own (CVE-2025-52881).
    root::sysctl(&plan.sysctl, child.settings.take())?;
    // Masks are the last mounts: nothing may be mounted over them. Those that nothing could be were made in `enter::made_ahead`.
    mask::apply(plan, root.as_fd(), &mut child.covers)?;
    if let Some(name) = &plan.hostname {
        process::sethostname(name.as_bytes()).at(Step::Hostname)?;
    }
    if let Some(name) = &plan.domainname {
        process::setdomainname(name.as_bytes()).at(Step::Domainname)?;
    }
    // While the host's procfs is there, for old kernels; after createContainer hooks, which would carry the labels, too.
    label::set(init)?;
    // Last, because detaching the old root waits for the other processors.
    root::pivot(plan, root.as_fd()).at(Step::Pivot)?;
    if plan.root_readonly {
        creds::make_missing_cwd(&init.cwd);
        root::make_readonly(root.as_fd()).at(Step::ReadonlyRoot)?;
    }
    drop(root);

    // Before a filter may be loaded that does not know the calls for it.
    let home = creds::home(init)?;
    close_descriptors(child)?;
    if child.filtered {
        filter::take(init, &child.wire)?;
    }
    let mut pipes = None;
    if child.gate.is_some() {
        enter::end_on_signals().at(Step::Gate)?;
        if filter::closes_the_gate(init) {
            pipes = Some(gate::Pipes::new().at(Step::Gate)?);
        }
    }
    become_program(init, &child.wire, &child.signal_mask, true)?;
    // As the user it will run as: root may not be let in everywhere (NFS).
    let program = creds::find_program(init)?;
    // Device rules, limits and state are in place before the container counts as created or the program runs.
    filter::install_or_proceed(init, &child.wire)?;
    enter::outlive_runtime().at(Step::Session)?;
    if let Some(gate) = child.gate.take() {
        if !process::is_root() {
            // An ordinary user may only enter what they may look into; by now there is no more to see than in the program.
            enter::show().at(Step::Session)?;
        }
        child.wire = match pipes {
            None => {
                child.wire.send(Kind::Ready).at(Step::Gate)?;
                gate::wait_at_socket(gate)?
            }
            Some(pipes) => {
                pipes.numbers().and_then(|at| child.wire.ready_at(at)).at(Step::Gate)?;
                pipes.wait()?
            }
        };
    }
    hook::start_container(child, home.as_ref())?;
    launch(init, &program, home, child.preserve_fds, &child.signal_mask)
}

/// `exec`: a further process of a container. The runtime has joined the namespaces, so that the clone is born in them.
pub struct Exec<'a> {
    /// What to run.
    pub process: &'a Process,
    /// To the runtime.
    pub wire: Wire,
    /// cgroup files to write `0` to.
    pub cgroups: Vec<OwnedFd>,
    /// The root of a container without a mount namespace.
    pub root: Option<OwnedFd>,
    /// The container has a user namespace, in which this process is nobody yet.
    pub user_namespace: bool,
    /// Session keyring of the container.
    pub keyring: Option<&'a std::ffi::CStr>,
    /// The container's side of the terminal, made by the runtime.
    pub terminal: Option<OwnedFd>,
    /// Descriptors after 0, 1, 2 that the program inherits.
    pub preserve_fds: u32,
    /// Signal mask to give back before the program runs.
    pub signal_mask: SigSet,
}

/// A further process of a container. Never returns.
pub fn exec(mut child: Exec) -> ! {
    let failure = match exec_steps(&mut child) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    // With the runtime gone there is nobody left to tell; the exit status says it as well.
    let _ = child.wire.fail(&failure);
    process::exit_now(255)
}

fn exec_steps(child: &mut Exec) -> Outcome<std::convert::Infallible> {
    let init = child.process;
    // First of all, for the container sees this process from its birth: with CAP_SYS_PTRACE it may look at what is open
    // here (CVE-2016-9962). What the runtime needs of the host later is not open now, see `cmd::exec`.
    let mut keep = vec![child.wire.as_fd().as_raw_fd()];
    keep.extend(child.cgroups.iter().chain(&child.terminal).chain(&child.root).map(AsRawFd::as_raw_fd));
    keep_only(&keep, child.preserve_fds).at(Step::CloseFds)?;
    enter::join_cgroups(&child.cgroups).at(Step::JoinCgroup)?;
    enter::processors(init).at_index(Step::Scheduling, 4)?;
    if let Some(root) = child.root.take() {
        root::enter(root.as_fd()).at(Step::Root)?;
    }
    if !child.cgroups.is_empty() {
        // Together: on cgroup v1 it is a dozen of them.
        let mut keep = vec![child.wire.as_fd().as_raw_fd()];
        keep.extend(child.terminal.as_ref().map(AsRawFd::as_raw_fd));
        keep_only(&keep, child.preserve_fds).at(Step::CloseFds)?;
    }
    if child.user_namespace {
        enter::become_root().at(Step::UserNamespace)?;
    }
    enter::die_with_runtime().at(Step::Session)?;
    process::setsid().at(Step::Session)?;
    label::with_key_label(init, || enter::keyring(child.keyring, child.user_namespace))?;
    if let Some(peer) = child.terminal.take() {
        console::use_as_stdio(&peer).at(Step::Console)?;
    }
    label::set(init)?;
    creds::drop_bounding(init.capabilities.bounding).at(Step::Capabilities)?;
    let home = creds::home(init)?;
    // Only a container's own directory is made where the image lacks it (as runc has it).
    become_program(init, &child.wire, &child.signal_mask, false)?;
    let program = creds::find_program(init)?;
    // The pid file and the terminal are with the caller before the program can end.
    filter::install_or_proceed(init, &child.wire)?;
    enter::outlive_runtime().at(Step::Session)?;
    launch(init, &program, home, child.preserve_fds, &child.signal_mask)
}

/// User, groups, capabilities, directory: from here on the process has only the program's rights.
fn become_program(init: &Process, wire: &Wire, mask: &SigSet, make_cwd: bool) -> Outcome {
    // All four while the rights are there, and before a filter may forbid them (runc#4900).
    if let Some(attr) = &init.scheduler {
        process::set_scheduler(attr).at(Step::Scheduling)?;
    }
    if let Some(priority) = init.io_priority {
        process::set_io_priority(priority).at_index(Step::Scheduling, 1)?;
    }
    if let Some(domain) = init.personality {
        process::personality(domain).at_index(Step::Scheduling, 2)?;
    }
    if let Some(policy) = &init.memory_policy {
        process::set_memory_policy(policy.mode, &policy.nodes).at_index(Step::Scheduling, 3)?;
    }
    creds::own_stdio(init.uid).at(Step::Stdio)?;
    // Here and not from the runtime: once the user has changed, only CAP_SYS_RESOURCE may set the limits of another
    // process. After everything that opens descriptors, before the user loses the right to raise a limit.
    for (index, &(resource, soft, hard)) in init.rlimits.iter().enumerate() {
        process::set_limit(resource, soft, hard).at_index(Step::Rlimit, index)?;
    }
    let in_cwd = creds::enter_cwd(init, make_cwd)?;
    // What a filter made for runc may forbid.
    creds::set_groups(init)?;
    let able = creds::able()?;
    process::umask(init.umask);
    if init.no_new_privileges {
        process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).at(Step::NoNewPrivileges)?;
    }
    if let Some(filter) = filter::early(init) {
        mask.thread_set_mask().at(Step::Exec)?;
        filter::install(filter, wire)?;
    }
    creds::switch_user(init, in_cwd, able)
}

/// A leaked directory descriptor is a way out of the container (CVE-2024-21626): close-on-exec alone comes too late,
/// because the working directory and the program are looked up before it closes anything. Before a filter is loaded,
/// which may forbid close_range(2).
fn close_descriptors(child: &Container) -> Outcome {
    let mut keep = vec![child.wire.as_fd().as_raw_fd()];
    keep.extend(child.gate.as_ref().map(|gate| gate.as_raw_fd()));
    keep_only(&keep, child.preserve_fds).at(Step::CloseFds)
}

/// Closes everything but 0, 1, 2, the preserved descriptors and `keep`.
fn keep_only(keep: &[i32], preserve_fds: u32) -> crate::sys::Result<()> {
    let mut keep = keep.to_vec();
    // Between those that the caller passed there may be some of the runtime's own.
    keep.extend((3..3 + preserve_fds as i32).filter(|&fd| crate::first_fds::was_open(fd)));
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        fs::close_between(first, fd as u32)?;
        first = first.max(fd as u32 + 1);
    }
    fs::close_from(first)
}

/// The last calls: signals, the filter as late as can be, the program.
fn launch(
    init: &Process,
    program: &std::ffi::CStr,
    home: Option<CString>,
    preserve_fds: u32,
    mask: &SigSet,
) -> Outcome<std::convert::Infallible> {
    // Not before: hooks have no part in what is handed to the program.
    for fd in (3..3 + preserve_fds as i32).filter(|&fd| crate::first_fds::was_open(fd)) {
        fs::keep_across_exec(fd).at_index(Step::PreservedFd, fd as usize)?;
    }
    if filter::early(init).is_none() {
        mask.thread_set_mask().at(Step::Exec)?;
    }
    if init.no_new_privileges
        && let Some(filter) = init.seccomp.get().filter(|filter| filter.agent.is_none())
    {
        crate::sys::seccomp::install(&filter.program, filter.flags).at(Step::Seccomp)?;
    }
    let errno = match home {
        Some(home) => {
            let mut env: Vec<CString> = init.env.strings().to_vec();
            env.retain(|entry| !entry.to_bytes().starts_with(b"HOME="));
            env.push(home);
            process::execve(program, &init.args, &process::StringArray::new(env))
        }
        None => process::execve(program, &init.args, &init.env),
    };
    Err(errno).at(Step::Exec)
}
