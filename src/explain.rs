//! Turns the numbers that the init stage reports into words, with the plan that the runtime still has.
//!
//! Engines match parts of these texts (contract: `executable file not found in $PATH`, `no such file or directory`,
//! `permission denied`, `is a directory`); the tests name who.

use crate::log;
use crate::plan::Plan;
use crate::plan::process::Process;
use crate::sync::{Failure, Step};
use crate::sys::{Errno, words};
use anyhow::{Error, anyhow};

/// dockerd exits 127 on it, Podman too.
pub const NOT_IN_PATH: &str = "executable file not found in $PATH";
const PREFIX: &str = "unable to start container process: error during container init: ";
const BEFORE_EXEC: &str = "unable to start container process: error during container init";

/// Why a container did not start.
pub fn failure(failure: &Failure, plan: &Plan) -> Error {
    let index = failure.index;
    let why = words(failure.errno);
    let mount = |what: &str| {
        let at = plan.mounts.iter().find(|mount| mount.index == index);
        let destination =
            at.map(|mount| mount.destination.to_string_lossy().into_owned()).unwrap_or_default();
        let source = match at.map(|mount| &mount.kind) {
            Some(crate::plan::mounts::Kind::Bind(bind)) => bind.source.to_string_lossy().into_owned(),
            Some(crate::plan::mounts::Kind::Filesystem(fs)) => fs.fstype.to_string_lossy().into_owned(),
            Some(crate::plan::mounts::Kind::Remount(_)) => "remount".into(),
            _ => "cgroup".into(),
        };
        let log = if failure.text.is_empty() { String::new() } else { format!(" ({})", failure.text) };
        // runc's words first: they are what is looked for.
        format!("error mounting {source:?} to rootfs at {destination:?}: /mounts/{index}: {what}: {why}{log}")
    };
    let text = match failure.step {
        Step::MountSource => mount("open the source"),
        Step::MountTarget if failure.errno == Errno::EXDEV => {
            mount("cannot be mounted because a link leads it to the root or inside /proc")
        }
        // The words are runc's: an image with a link there is an attack (CVE-2019-16884).
        Step::MountTarget if failure.errno == Errno::ELOOP && is_proc_or_sys(plan, index) => {
            mount("must be mounted on ordinary directory")
        }
        Step::MountTarget => mount("open the destination"),
        Step::Mount => mount("mount"),
        Step::MountFlags => mount("set flags"),
        Step::MountIdmap if failure.errno == Errno::EINVAL => {
            mount("failed to set MOUNT_ATTR_IDMAP (can its filesystem do so on this kernel?)")
        }
        Step::MountIdmap => mount("failed to set MOUNT_ATTR_IDMAP"),
        Step::JoinNamespace => format!("/linux/namespaces/{index}/path: join the namespace: {why}"),
        Step::Device if index > 0 => format!("/linux/devices/{}: make the device: {why}", index - 1),
        Step::Device => format!("make the default devices in /dev: {why}"),
        Step::Mask => {
            let path = plan.masked_paths.get(index).map(|path| path.to_string_lossy()).unwrap_or_default();
            format!("/linux/maskedPaths/{index}: mask {path}: {why}")
        }
        Step::ReadonlyPath => {
            let path = plan.readonly_paths.get(index).map(|path| path.to_string_lossy()).unwrap_or_default();
            format!("/linux/readonlyPaths/{index}: make {path} read-only: {why}")
        }
        Step::Sysctl => {
            let name = plan.sysctl.get(index).map(|(name, _)| name.to_string_lossy()).unwrap_or_default();
            format!("/linux/sysctl: write {name}: {why}")
        }
        Step::CreateContainerHook => format!("error running createContainer hook #{index}: {}", failure.text),
        Step::StartContainerHook => format!("error running startContainer hook #{index}: {}", failure.text),
        Step::Root => format!("/root/path: mount {} on itself: {why}", plan.rootfs.to_string_lossy()),
        Step::Hostname => format!("/hostname: set it: {why}"),
        Step::Domainname => format!("/domainname: set it: {why}"),
        Step::Exec => {
            return Error::new(NotRun(process_step(failure, &plan.process))).context(BEFORE_EXEC);
        }
        _ => process_step(failure, &plan.process),
    };
    anyhow!("{PREFIX}{text}")
}

fn is_proc_or_sys(plan: &Plan, index: usize) -> bool {
    plan.mounts
        .iter()
        .any(|mount| mount.index == index && matches!(mount.destination.to_bytes(), b"/proc" | b"/sys"))
}

/// The kernel has refused the program itself, once everything else was done: `exec PROGRAM: why`.
#[derive(Debug)]
pub struct NotRun(String);

impl std::fmt::Display for NotRun {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotRun {}

/// Ambient capabilities that the kernel will not raise (capabilities(7)): the program runs without them.
pub fn warn_of_capabilities(process: &Process) {
    let sets = &process.capabilities;
    let lost = sets.ambient & !(sets.permitted & sets.inheritable);
    if lost == 0 {
        return;
    }
    let mut names: Vec<caps::Capability> =
        caps::all().into_iter().filter(|capability| lost & capability.bitmask() != 0).collect();
    names.sort_unstable_by_key(|capability| capability.index());
    for name in names {
        log::warn(format_args!("can't raise ambient capability {name}: {}", words(Errno::EPERM)));
    }
}

/// Why a further process did not start.
pub fn exec_failure(failure: &Failure, process: &Process) -> Error {
    anyhow!(
        "unable to start container process: error executing setns process: {}",
        process_step(failure, process)
    )
}

/// The steps of a container's first process and of `exec`'s.
fn process_step(failure: &Failure, process: &Process) -> String {
    let index = failure.index;
    let why = words(failure.errno);
    let program = process.args.strings().first().map(|arg| arg.to_string_lossy()).unwrap_or_default();
    match failure.step {
        Step::Find if program.contains('/') && failure.errno == Errno::ENOENT => {
            format!("exec: {program:?}: stat {program}: {why}")
        }
        Step::Find if failure.errno == Errno::ENOENT => format!("exec: {program:?}: {NOT_IN_PATH}"),
        Step::Find => format!("exec: {program:?}: {why}"),
        Step::Exec => format!("exec {program}: {why}"),
        // The words are runc's; the process writes 0, which means itself.
        Step::JoinCgroup => format!("error adding pid 0 to cgroups: {why}"),
        Step::UserNamespace => format!("/linux/uidMappings: become root in the user namespace: {why}"),
        Step::TimeNamespace => format!("/linux/timeOffsets: make the time namespace: {why}"),
        Step::NewNamespace => format!("/linux/namespaces: make a namespace: {why}"),
        Step::Session => format!("become a session of its own: {why}"),
        Step::Keyring => format!("join the session keyring: {why}"),
        Step::Isolate => format!("/linux/rootfsPropagation: set the propagation of /: {why}"),
        Step::Console => format!("/process/terminal: make the console: {why}"),
        Step::Pivot => format!("pivot to the root: {why}"),
        Step::ReadonlyRoot => format!("/root/readonly: remount the root: {why}"),
        Step::Stdio => format!("give the standard streams to uid {}: {why}", process.uid),
        Step::Scheduling if index == 1 => format!("/process/ioPriority: set it: {why}"),
        Step::Scheduling if index == 2 => format!("/linux/personality: set it: {why}"),
        Step::Scheduling if index == 3 => format!("/linux/memoryPolicy: set it: {why}"),
        Step::Scheduling if index == 4 => {
            format!("/process/execCPUAffinity/final: error setting final CPU affinity: {why}")
        }
        Step::Label if index == 0 => {
            let name = process.apparmor.as_ref().map(|name| name.to_string_lossy()).unwrap_or_default();
            let name = name.trim_start_matches("exec ");
            format!(
                "/process/apparmorProfile: unable to apply apparmor profile {name:?}: write \
                 `/proc/thread-self/attr/apparmor/exec`: {why}"
            )
        }
        Step::Label => {
            let file = if index == 1 { "exec" } else { "keycreate" };
            format!("/process/selinuxLabel: write `/proc/thread-self/attr/{file}`: {why}")
        }
        // A cpuset that is not the whole machine refuses SCHED_DEADLINE. The words are runc's.
        Step::Scheduling if failure.errno == Errno::EPERM => {
            format!("/process/scheduler: process scheduler can't be used together with AllowedCPUs: {why}")
        }
        Step::Scheduling => format!("/process/scheduler: set it: {why}"),
        Step::Rlimit => format!("/process/rlimits/{index}: error setting rlimit: {why}"),
        Step::NoNewPrivileges => format!("/process/noNewPrivileges: set it: {why}"),
        Step::Seccomp => format!("/linux/seccomp: install the filter: {why}"),
        Step::User if failure.errno == Errno::EINVAL && index == 1 => {
            format!("/process/user/gid: cannot setgid to unmapped gid {} in user namespace", process.gid)
        }
        Step::User if failure.errno == Errno::EINVAL && index == 2 => {
            format!("/process/user/uid: cannot setuid to unmapped uid {} in user namespace", process.uid)
        }
        Step::User if index == 0 => format!("/process/user/additionalGids: set the groups: {why}"),
        Step::User => format!("/process/user: become {}:{}: {why}", process.uid, process.gid),
        Step::Capabilities => format!("/process/capabilities: set them: {why}"),
        Step::Cwd if failure.errno == Errno::ESTALE => {
            let cwd = process.cwd.to_string_lossy();
            format!(
                "/process/cwd: {cwd}: current working directory is outside of container mount namespace root"
            )
        }
        Step::Cwd => format!("/process/cwd: chdir to cwd ({:?}): {why}", process.cwd.to_string_lossy()),
        Step::Home => format!("/process/env: look up HOME in /etc/passwd: {why}"),
        Step::CloseFds => format!("close descriptors: {why}"),
        Step::PreservedFd => format!("unable to stat preserved-fd {index}: {why}"),
        Step::Seal => format!("protect the runtime's own executable: {why}"),
        Step::Gate => format!("wait for the runtime: {why}"),
        Step::Root => format!("enter the container's root: {why}"),
        other => format!("{other:?} {index}: {why}"),
    }
}

/// Why a program did not start behind the gate; the plan is gone by then.
pub fn start_failure(failure: &Failure) -> Error {
    let why = words(failure.errno);
    match failure.step {
        Step::StartContainerHook => {
            anyhow!("{PREFIX}error running startContainer hook #{}: {}", failure.index, failure.text)
        }
        Step::Exec => anyhow!("{PREFIX}exec: {why}"),
        Step::Seccomp => anyhow!("{PREFIX}/linux/seccomp: install the filter: {why}"),
        Step::PreservedFd => anyhow!("{PREFIX}unable to stat preserved-fd {}: {why}", failure.index),
        Step::Gate => anyhow!("{PREFIX}wait for start: {why}"),
        step => anyhow!("{PREFIX}{step:?}: {why}"),
    }
}
