//! `exec`: a further process in a running container.
//!
//! The runtime itself joins the container's namespaces, so that the one child it clones is born in them and in the
//! container's cgroup. Everything of the host that is still needed is opened before.

use super::{absolute, create};
use crate::bundle;
use crate::cgroup;
use crate::cli::{self, Global};
use crate::console::Console;
use crate::exit::ExitCode;
use crate::explain;
use crate::init::{self, Exec};
use crate::log;
use crate::lsm;
use crate::pid_file::PidFile;
use crate::plan::process::{self as plan, Process};
use crate::plan::seccomp::Filter;
use crate::signals::Signals;
use crate::spawn;
use crate::state::{self, Dir, State, Status, Store};
use crate::sync::{Frame, Kind, Wire};
use crate::sys::process::{Cloned, Ended};
use crate::sys::{Errno, exe, fs, layout, process};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{Capability, LinuxCapabilitiesBuilder, Process as SpecProcess, UserBuilder};
use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

/// Namespaces that exec enters, whatever the configuration says of the others: user, pid and mount come with the
/// pidfd in one call.
const JOINABLE: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | process::CLONE_NEWTIME;

/// Runs the process; in the foreground its exit status becomes naru's.
pub fn exec(global: &Global, args: cli::Exec) -> Result<ExitCode> {
    // The first act, because it may start the program anew.
    let sealed = exe::prepare().and_then(|seal| {
        match &seal {
            Some(seal) => seal.apply()?,
            None => layout::map_start(),
        }
        Ok(seal)
    });
    let sealed = sealed.map_err(|_| spawn::NeedsRestart.into());
    let mask = nix::sys::signal::SigSet::thread_get_mask().context("read the signal mask")?;
    let mut seal = spawn::restart_if_needed(sealed, mask)?;
    // Socket activation is for the program of `run` and `create`, which is told of it.
    let preserve_fds = create::preserved(args.preserve_fds, 0)?;
    let store = Store::new(global.root.as_deref())?;
    let (dir, state) = store.load(&args.id)?;
    let (status, init) = state.status(&dir)?;
    match status {
        Status::Stopped => bail!("cannot exec in a stopped container"),
        Status::Creating => bail!("cannot exec in a container that is still being created"),
        Status::Paused if !args.ignore_paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        _ => {}
    }
    let init = init.context("cannot exec in a stopped container")?;
    let mut spec = wanted(&args, &state)?;
    if spec.exec_cpu_affinity().is_none() {
        spec.set_exec_cpu_affinity(state.exec_cpu_affinity.clone());
    }
    let mut process = compile(&spec, &dir, &state)?;
    process.personality = state.personality;
    drop(dir);
    if !process.groups.is_empty() && !process::is_root() && denies_setgroups(state.pid) {
        bail!("/process/user/additionalGids: {}", crate::plan::rootless::NO_GROUPS);
    }
    explain::warn_of_capabilities(&process);
    process.memory_policy.clone_from(&state.memory_policy);
    process.keep_groups = state.annotations.get(crate::plan::KEEP_GROUPS).is_some_and(|value| value == "1");
    lsm::check(&process)?;
    create::check_terminal(process.terminal, args.detach, args.console_socket.is_some())?;

    let pid_file = args.pid_file.as_deref().map(absolute).transpose()?.map(PidFile::open).transpose()?;
    let signals = if args.detach { None } else { Some(Signals::block()?) };
    let mut console = None;
    let console_fd = if let Some(path) = &args.console_socket {
        Some(spawn::connect(path).with_context(|| format!("connect to console socket {}", path.display()))?)
    } else if process.terminal {
        let (ours, theirs) = Console::prepare()?;
        console = Some(ours);
        Some(theirs)
    } else {
        None
    };
    let pidfd_socket = match &args.pidfd_socket {
        Some(path) => Some(spawn::connect(path).with_context(|| format!("connect to {}", path.display()))?),
        None => None,
    };
    let tasks = match &state.resctrl {
        Some(group) => group.open_tasks()?,
        None => Vec::new(),
    };
    let agent = state.agent.as_deref().map(|agent| agent.connect()).transpose()?;
    let keyring = state.keyring.then(|| CString::new(format!("_ses.{}", state.id))).transpose()?;
    let join = Join {
        state: &state,
        status,
        init: &init,
        cgroups: &args.cgroups,
        agent: agent.into(),
        tasks: tasks.into(),
    };
    let child =
        join.child(&process, console_fd, keyring.as_deref(), preserve_fds, &signals, console.is_some())?;
    let (pid, pidfd) = join.run(&process, child, pid_file, pidfd_socket, &mut seal)?;
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let console = match console.map(Console::take_over).transpose() {
        Ok(console) => console,
        Err(error) => {
            // Nobody would wait for it any more.
            let _ = process::end(pid, pidfd.as_fd());
            return Err(error);
        }
    };
    let ended = signals.attend(pid, pidfd.as_fd(), console, None)?;
    Ok(ExitCode::from(ended.status() as u8))
}

/// What exec needs of config.json; the rest is passed over.
#[derive(serde::Deserialize)]
struct Config {
    process: Option<SpecProcess>,
}

/// The process to run: `--process`, or the configuration's own with what the flags change.
fn wanted(args: &cli::Exec, state: &State) -> Result<SpecProcess> {
    if let Some(path) = &args.process {
        return bundle::read_json(path);
    }
    let config: Config = bundle::read_json(&state.bundle.join("config.json"))?;
    let mut process = config.process.context("/process: is required")?;
    let text = |word: &std::ffi::OsString| {
        word.clone().into_string().map_err(|w| anyhow::anyhow!("{w:?}: not UTF-8"))
    };
    process.set_args(Some(args.args.iter().map(text).collect::<Result<_>>()?));
    process.set_terminal(Some(args.tty));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.into());
    }
    let mut env = process.env().clone().unwrap_or_default();
    for word in &args.env {
        env.push(text(word)?);
    }
    process.set_env(Some(env));
    if let Some(no_new_privs) = args.no_new_privs {
        process.set_no_new_privileges(Some(no_new_privs));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    let user = process.user().clone();
    let (uid, gid) = match &args.user {
        Some(user_text) => parse_user(user_text, user.gid())?,
        None => (user.uid(), user.gid()),
    };
    let mut gids = user.additional_gids().clone().unwrap_or_default();
    gids.extend_from_slice(&args.additional_gids);
    let mut changed = UserBuilder::default().uid(uid).gid(gid).additional_gids(gids);
    if let Some(umask) = user.umask() {
        changed = changed.umask(umask);
    }
    process.set_user(changed.build()?);
    if !args.caps.is_empty() {
        add_capabilities(&mut process, &args.caps)?;
    }
    Ok(process)
}

/// `UID[:GID]`: decimal digits only, and never the id that means "unchanged" (CVE-2026-30892, CVE-2024-40635).
pub fn parse_user(text: &str, gid: u32) -> Result<(u32, u32)> {
    let number = |part: &str| -> Result<u32> {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let id = if digits { part.parse::<u32>().ok().filter(|&id| id != u32::MAX) } else { None };
        id.with_context(|| format!("--user: {text:?} is not UID[:GID]"))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, number(gid)?)),
        None => Ok((number(text)?, gid)),
    }
}

/// `--cap` goes to bounding, effective and permitted; to ambient only where the configuration has inheritable ones.
/// Never to inheritable (CVE-2022-27650, CVE-2025-27612).
fn add_capabilities(process: &mut SpecProcess, names: &[String]) -> Result<()> {
    let mut added = Vec::new();
    for name in names {
        let quoted = serde_json::to_string(&name.to_ascii_uppercase())?;
        let capability: Capability = serde_json::from_str(&quoted)
            .ok()
            .with_context(|| format!("--cap: unknown capability {name:?}"))?;
        added.push(capability);
    }
    let old = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<oci_spec::runtime::Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(added.iter().copied());
        set
    };
    let mut new = LinuxCapabilitiesBuilder::default()
        .bounding(with(old.bounding()))
        .effective(with(old.effective()))
        .permitted(with(old.permitted()))
        .inheritable(old.inheritable().clone().unwrap_or_default())
        .ambient(old.ambient().clone().unwrap_or_default());
    if old.inheritable().as_ref().is_some_and(|set| !set.is_empty()) {
        new = new.ambient(with(old.ambient()));
    }
    process.set_capabilities(Some(new.build()?));
    Ok(())
}

/// Compiles the process; the container's seccomp program is the one that create has kept.
fn compile(process: &SpecProcess, dir: &Dir, state: &State) -> Result<Process> {
    let mut process = plan::compile(process, &oci_spec::runtime::Linux::default(), "/process")?;
    process.seccomp = match dir.get(state::SECCOMP) {
        Ok(bytes) => {
            let mut filter = Filter::from_bytes(&bytes).context("read the seccomp program")?;
            filter.agent.clone_from(&state.agent);
            filter.into()
        }
        Err(Errno::ENOENT) => OnceCell::new(),
        Err(errno) => return Err(errno).context("read the seccomp program"),
    };
    Ok(process)
}

/// How long the process may be silent, in seconds.
const ANSWER_LIMIT: u32 = 15;

/// A descriptor that may wait in the queue of the runtime's end of the wire, where no process can open it by
/// `/proc/PID/fd`.
struct Stowed(bool);

impl Prepared<'_> {
    fn stow(&self, fd: Option<OwnedFd>) -> Result<Stowed> {
        let Some(fd) = fd else { return Ok(Stowed(false)) };
        crate::sys::socket::send_fd(self.child.wire.as_fd(), b".", fd.as_fd())
            .context("stow a descriptor")?;
        Ok(Stowed(true))
    }
}

impl Stowed {
    fn take(self, wire: &Wire) -> Result<Option<OwnedFd>> {
        if !self.0 {
            return Ok(None);
        }
        crate::sys::socket::receive_fd(wire.as_fd()).context("take a stowed descriptor").map(Some)
    }
}

/// What is taken out again once the child is there, in this order.
struct Later {
    proc: Stowed,
    pid_file: Option<(std::path::PathBuf, Stowed)>,
    agent: Stowed,
    tasks: Vec<Stowed>,
}

/// What is joined.
struct Join<'a> {
    state: &'a State,
    status: Status,
    init: &'a OwnedFd,
    /// `--cgroup`.
    cgroups: &'a [String],
    /// The connection to the seccomp agent, until it is used.
    agent: std::cell::Cell<Option<OwnedFd>>,
    /// Where the process joins the container's resource control group.
    tasks: std::cell::Cell<Vec<std::fs::File>>,
}

/// The child's half, and what the clone itself needs.
struct Prepared<'a> {
    child: Exec<'a>,
    /// Where to send the terminal.
    console: Option<OwnedFd>,
    /// This process carries its data.
    own_terminal: bool,
    wire: Wire,
    cgroup: Option<OwnedFd>,
    /// To join by, where the clone into the cgroup is refused or fatal.
    cgroup_files: Vec<OwnedFd>,
    /// To be moved by, where this user may not.
    by_systemd: Option<cgroup::Attach>,
}

impl Join<'_> {
    fn child<'p>(
        &self,
        process: &'p Process,
        console: Option<OwnedFd>,
        keyring: Option<&'p std::ffi::CStr>,
        preserve_fds: u32,
        signals: &Option<Signals>,
        own_terminal: bool,
    ) -> Result<Prepared<'p>> {
        let (wire, child_wire) = Wire::pair().context("make the wire to the process")?;
        let entry = self.state.cgroup.enter(self.state.pid, self.cgroups)?;
        let signal_mask = match signals {
            Some(signals) => signals.before,
            None => nix::sys::signal::SigSet::thread_get_mask().context("read the signal mask")?,
        };
        Ok(Prepared {
            child: Exec {
                process,
                wire: child_wire,
                cgroups: entry.files,
                root: if self.state.namespaces & libc::CLONE_NEWNS == 0 {
                    let path = CString::new(format!("/proc/{}/root", self.state.pid))?;
                    let root = fs::open(&path, libc::O_PATH | libc::O_DIRECTORY, 0);
                    Some(root.context("open the container's root")?)
                } else {
                    None
                },
                user_namespace: self.state.namespaces & libc::CLONE_NEWUSER != 0,
                keyring,
                terminal: None,
                preserve_fds,
                signal_mask,
            },
            console,
            own_terminal,
            wire,
            cgroup: entry.clone_into,
            cgroup_files: entry.fallback,
            by_systemd: entry.by_systemd,
        })
    }

    /// Enters the container, clones the process and waits for its execve.
    fn run(
        &self,
        process: &Process,
        mut prepared: Prepared,
        pid_file: Option<PidFile>,
        pidfd_socket: Option<OwnedFd>,
        seal: &mut Option<exe::Seal>,
    ) -> Result<(i32, OwnedFd)> {
        // The beginnings are runc's, as in `spawn`.
        log::debug("nsexec container setup: join the container's namespaces");
        let lent = LentScore::lend(process, prepared.child.user_namespace)?;
        if prepared.child.user_namespace {
            spawn::raise_limits(process);
        }
        // Before the first namespace is joined: from there on the container's processes may see this one
        // (CVE-2016-9962).
        process::prctl(libc::PR_SET_DUMPABLE, 0).context("hide from the container")?;
        let own_proc = if process.oom_score_adj.is_some() || process.terminal {
            Some(spawn::open_proc()?)
        } else {
            None
        };
        enter(self.init, self.state)?;
        // The child is a copy of this process, with every descriptor, and the container sees it from its birth: a
        // process with CAP_SYS_PTRACE could open the host's directories there. So the terminal is made here, and what
        // is needed later lies in the wire's queue meanwhile.
        if let (true, Some(proc)) = (process.terminal, &own_proc) {
            let proc = proc.try_clone().context("copy a descriptor")?;
            let (console, root) = (prepared.console.take(), prepared.child.root.as_ref());
            let own = prepared.own_terminal;
            let open = || init::console::open_in_running(process, root, console, own, proc);
            let peer = match prepared.child.user_namespace {
                true => process::with_files_of_root(open),
                false => open(),
            };
            prepared.child.terminal = Some(peer.map_err(|failure| explain::exec_failure(&failure, process))?);
        }
        let own_proc = own_proc.filter(|_| process.oom_score_adj.is_some() && lent.is_none());
        let later = prepared.stow(own_proc)?;
        let pid_file = match pid_file {
            Some(file) => {
                let (path, dir) = file.apart();
                Some((path, prepared.stow(Some(dir))?))
            }
            None => None,
        };
        let agent = prepared.stow(self.agent.take())?;
        let tasks = self.tasks.take().into_iter().map(|file| prepared.stow(Some(file.into())));
        let tasks = tasks.collect::<Result<Vec<_>>>()?;
        if let Some(mask) = process.affinity.as_ref().and_then(|affinity| affinity.initial.as_ref()) {
            process::set_affinity(mask)
                .context("/process/execCPUAffinity/initial: error setting initial CPU affinity")?;
            log::debug(format_args!("nsexec: affinity: {:#x}", mask.first().unwrap_or(&0)));
        }
        let mut cgroup = prepared.cgroup.take();
        if self.state.sees_all && !prepared.cgroup_files.is_empty() {
            // The descriptor for the clone is a directory of the host, so the child joins by a file, although that is
            // slow. (Capabilities that an earlier `exec --cap` gave do not count: `sees_all` is about the configuration's.)
            cgroup = None;
        }
        if cgroup.is_none() {
            prepared.child.cgroups.append(&mut prepared.cgroup_files);
        }
        if self.state.sees_all {
            // Such a process could make the mount writable for as long as a descriptor of it is open there.
            drop(seal.take());
        }
        let pinned = match &process.affinity {
            Some(affinity) if affinity.initial.is_some() => None,
            // The two take turns from here on: to wake an idle processor for each costs more than what they would do at
            // once. The child gets all of its processors before anything else (`enter::processors`).
            _ => process::stay_here().ok(),
        };
        let cloned = process::clone3(0, cgroup.as_ref().map(AsFd::as_fd));
        // From a session's cgroup there is no way into that of a unit of the user but systemd's.
        let refused = matches!(cloned, Err(Errno::EACCES | Errno::EPERM));
        let moved = prepared.by_systemd.take().filter(|_| refused);
        let cloned = match cloned {
            Err(_) if moved.is_some() => process::clone3(0, None),
            // The cgroup went away or is not one that processes can be born in: join by hand.
            // Or it belongs to the container's root by now, over whom this process has no more rights. Or its limit of
            // processes is reached, which holds for births alone.
            Err(
                Errno::EBUSY
                | Errno::ENOENT
                | Errno::EOPNOTSUPP
                | Errno::ENODEV
                | Errno::EACCES
                | Errno::EPERM
                | Errno::EAGAIN,
            ) if cgroup.is_some() && (!prepared.cgroup_files.is_empty() || !process::is_root()) => {
                prepared.child.cgroups.append(&mut prepared.cgroup_files);
                process::clone3(0, None)
            }
            other => other,
        }
        .context("clone the process")?;
        let (pid, pidfd) = match cloned {
            Cloned::Child => init::exec(prepared.child),
            Cloned::Parent(pid, pidfd) => (pid, pidfd),
        };
        if let Some(lent) = lent {
            lent.take_back();
        }
        log::debug(format_args!("child process in init(): pid {pid}"));
        let Prepared { child, wire, .. } = prepared;
        drop(child);
        if let Some(mut moved) = moved
            && let Err(error) = moved.attach(pid)
        {
            // Like runc: without the rights that a cgroup needs the process runs where the runtime does.
            log::warn(format_args!("{error:#}"));
        }
        if let Some(processors) = pinned {
            // It only waits, and would wait longer on one.
            let _ = process::set_affinity(&processors);
        }
        let result = self.follow(
            process,
            &wire,
            pid,
            &pidfd,
            Later { proc: later, pid_file, agent, tasks },
            pidfd_socket,
        );
        // The mount dissolves while the program runs.
        drop(seal.take());
        if result.is_err() {
            // A frozen process of cgroup v1 ends once it is thawed.
            let _ = process::end(pid, pidfd.as_fd());
        }
        result.map(|()| (pid, pidfd))
    }

    fn follow(
        &self,
        process: &Process,
        wire: &Wire,
        pid: i32,
        pidfd: &OwnedFd,
        Later { proc, pid_file, agent, tasks }: Later,
        pidfd_socket: Option<OwnedFd>,
    ) -> Result<()> {
        // With --ignore-paused it is for the caller to thaw the container.
        if self.status != Status::Paused {
            wire.limit(ANSWER_LIMIT).context("limit the wait for the process")?;
        }
        // In the order in which they were stowed, before the first word of the child.
        if let Some(proc) = proc.take(wire)? {
            spawn::set_oom_score(process, pid, &proc)?;
        }
        let pid_file = match pid_file {
            Some((path, dir)) => dir.take(wire)?.map(|dir| PidFile::together(path, dir)).transpose()?,
            None => None,
        };
        let agent_socket = agent.take(wire)?;
        for file in tasks {
            if let Some(file) = file.take(wire)? {
                crate::resctrl::join(&file.into(), pid)
                    .context("/linux/intelRdt: put the process in the group")?;
            }
        }
        if let Some(socket) = pidfd_socket {
            crate::sys::socket::send_fd(socket.as_fd(), b"setns", pidfd.as_fd()).context("send the pidfd")?;
        }
        wire.send(Kind::Proceed).context("write to the process")?;
        let mut answer = hear(wire)?;
        if let Frame::Listener(fd) = answer {
            let state = self.state;
            let (agent, connection) =
                state.agent.as_deref().zip(agent_socket).context("no seccomp agent is named")?;
            let hook_state = state.for_hooks();
            let now = hook_state.with(self.status.word(), state.pid);
            crate::agent::serve(connection, agent, fd, pidfd.as_fd(), pid, &now)?;
            wire.send(Kind::ListenerTaken).context("write to the process")?;
            answer = hear(wire)?;
        }
        match answer {
            Frame::End => log::debug("setns_init: about to exec: it has"),
            Frame::Failed(failure) => return Err(explain::exec_failure(&failure, process)),
            _ => match process::wait(pid) {
                Ok(Ended::Signal(signal)) => bail!("process was killed by signal {signal} before it ran"),
                _ => bail!("process ended before it ran"),
            },
        }
        match pid_file {
            // Last and only on success: callers tell a failed exec by its absence.
            Some(file) => file.write(pid),
            None => Ok(()),
        }
    }
}

/// What the process says next. It runs no hooks and mounts nothing, so that a long silence means that it cannot run; why
/// cannot be seen from where this process is now.
fn hear(wire: &Wire) -> Result<Frame> {
    match wire.receive() {
        Err(Errno::EAGAIN) => bail!(
            "no word from the process within {ANSWER_LIMIT} s: is the container's cgroup, or one above it, frozen?"
        ),
        other => other.context("wait for the process"),
    }
}

/// The runtime's own OOM score, while it has that of the process to come: a child inherits it. In a user namespace there is
/// no right to lower one, and without privileges none to that of a process that nobody may look into.
struct LentScore {
    file: OwnedFd,
    own: String,
}

impl LentScore {
    /// Nothing to lend where the child's can be set from outside.
    fn lend(process: &Process, user_namespace: bool) -> Result<Option<LentScore>> {
        let Some(score) = process.oom_score_adj.filter(|_| user_namespace) else { return Ok(None) };
        let path = c"/proc/self/oom_score_adj";
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").context("read the own OOM score")?;
        if process::is_root() && own.trim().parse().is_ok_and(|own: i32| own <= score) {
            return Ok(None);
        }
        // While this process is not hidden yet: then its files are no longer its own.
        let written = fs::open(path, libc::O_WRONLY, 0)
            .and_then(|file| fs::write_once(file.as_fd(), score.to_string().as_bytes()).map(|()| file));
        let file = written.context("/process/oomScoreAdj: write oom_score_adj")?;
        Ok(Some(LentScore { file, own }))
    }

    fn take_back(self) {
        // A runtime that waits for its child is as good a victim as any.
        let _ = fs::write_once(self.file.as_fd(), self.own.trim().as_bytes());
    }
}

/// Has the user namespace of the process `pid` no other groups than those it came with?
fn denies_setgroups(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/setgroups")).is_ok_and(|text| text.trim() == "deny")
}

/// Joins every namespace of the init process in one call (Linux 5.8).
fn enter(init: &OwnedFd, state: &State) -> Result<()> {
    let wanted = state.namespaces & JOINABLE;
    if wanted == 0 {
        return Ok(());
    }
    match process::setns(init.as_fd(), wanted) {
        Ok(()) => Ok(()),
        Err(Errno::ESRCH) => bail!("cannot exec in a stopped container"),
        Err(errno) => Err(errno).context("join the container's namespaces"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        assert_eq!(parse_user("1", 7).unwrap(), (1, 7));
        assert_eq!(parse_user("1:2", 7).unwrap(), (1, 2));
        for bad in ["", "0x1", "-1", "+1", "4294967295", "4294967296", "1:", ":1", "1:2:3", "1 ", "root"] {
            assert!(parse_user(bad, 0).is_err(), "{bad}");
        }
    }
}
