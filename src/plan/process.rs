//! `process` → [`Process`]: ids, capability masks, limits and strings.
//!
//! The same for the container's own program and for `exec`.

use super::memory_policy::{self, MemoryPolicy};
use super::{c_path, c_string, list};
use crate::sys::process::{SchedAttr, StringArray};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, Linux, LinuxCapabilities, LinuxIOPriority, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, PosixRlimitType, Scheduler,
};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

/// The five capability sets, bit N for capability N (capabilities(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What exec can ever grant.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// Can be put in force.
    pub permitted: u64,
    /// Kept by exec of a file that lists them.
    pub inheritable: u64,
    /// Kept by exec of any file.
    pub ambient: u64,
}

/// A program to run in a container.
pub struct Process {
    /// `args`; the first is what is looked up.
    pub args: StringArray,
    /// `env`; each name once.
    pub env: StringArray,
    /// The environment has no `HOME`, or an empty one: it comes from the container's passwd file.
    pub needs_home: bool,
    /// Where to look for the program, in order: one path if it has a slash, else one for each entry of `PATH`.
    pub candidates: Vec<CString>,
    /// `cwd`.
    pub cwd: CString,
    /// `user.uid`.
    pub uid: u32,
    /// `user.gid`.
    pub gid: u32,
    /// `user.additionalGids`, each once.
    pub groups: Vec<u32>,
    /// The caller's groups stay ([`super::KEEP_GROUPS`]).
    pub keep_groups: bool,
    /// `user.umask`, 0022 if unset as in runc.
    pub umask: u32,
    /// `capabilities`; none when absent.
    pub capabilities: Capabilities,
    /// `rlimits`: resource number, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// `noNewPrivileges`.
    pub no_new_privileges: bool,
    /// `oomScoreAdj`.
    pub oom_score_adj: Option<i32>,
    /// `linux.seccomp`, compiled: on both sides of the wire, once the runtime has done so while the init stage mounts.
    pub seccomp: OnceCell<super::seccomp::Filter>,
    /// `terminal`.
    pub terminal: bool,
    /// `linux.personality`, as personality(2) takes it.
    pub personality: Option<u32>,
    /// `ioPriority`, as ioprio_set(2) takes it.
    pub io_priority: Option<u32>,
    /// `scheduler`.
    pub scheduler: Option<SchedAttr>,
    /// `consoleSize`: rows, columns.
    pub console_size: Option<(u16, u16)>,
    /// `apparmorProfile`, as the kernel takes it: `exec NAME`.
    pub apparmor: Option<CString>,
    /// `selinuxLabel`.
    pub selinux: Option<CString>,
    /// `execCPUAffinity`: not for the first process of a container.
    pub affinity: Option<Box<Affinity>>,
    /// `linux.memoryPolicy`.
    pub memory_policy: Option<Box<MemoryPolicy>>,
}

/// Processors of an exec process, bit N for processor N.
pub struct Affinity {
    /// Of the runtime before the process is in the container's cgroup.
    pub initial: Option<Vec<u64>>,
    /// Of the process once it is.
    pub last: Option<Vec<u64>>,
}

/// Compiles `process`; `pointer` is where it stands in the configuration.
pub fn compile(process: &oci_spec::runtime::Process, linux: &Linux, pointer: &str) -> Result<Process> {
    let args = process.args().as_deref().unwrap_or_default();
    let Some(program) = args.first() else { bail!("{pointer}/args: args must not be empty") };
    if args.len() > ENTRIES_MAX {
        bail!("{pointer}/args: {} entries are more than {ENTRIES_MAX}", args.len());
    }
    if !process.cwd().is_absolute() {
        bail!("{pointer}/cwd: Cwd must be an absolute path, not {:?}", process.cwd());
    }
    let env = environment(process.env().as_deref().unwrap_or_default(), pointer)?;
    let value = |name: &str| {
        env.iter().find_map(|entry| entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    let candidates = candidates(program, value("PATH"), pointer)?;
    let needs_home = value("HOME").is_none_or(<[u8]>::is_empty);
    let user = process.user();
    let mut groups = user.additional_gids().clone().unwrap_or_default();
    groups.sort_unstable();
    groups.dedup();
    for (id, field) in [(user.uid(), "uid"), (user.gid(), "gid")] {
        if id == u32::MAX {
            bail!("{pointer}/user/{field}: {id} is not an id");
        }
    }
    Ok(Process {
        args: StringArray::new(
            args.iter()
                .enumerate()
                .map(|(i, arg)| c_string(arg, &format!("{pointer}/args/{i}")))
                .collect::<Result<_>>()?,
        ),
        env: StringArray::new(env),
        needs_home,
        candidates,
        cwd: c_path(process.cwd(), &format!("{pointer}/cwd"))?,
        uid: user.uid(),
        gid: user.gid(),
        groups,
        keep_groups: false,
        umask: user.umask().unwrap_or(0o022),
        capabilities: capabilities(process.capabilities().as_ref()),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default(), pointer)?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process
            .oom_score_adj()
            .map(|score| match score {
                -1000..=1000 => Ok(score),
                _ => bail!("{pointer}/oomScoreAdj: {score} is not in -1000..1000"),
            })
            .transpose()?,
        seccomp: OnceCell::new(),
        terminal: process.terminal().unwrap_or(false),
        personality: linux.personality().as_ref().map(|personality| match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            // PER_LINUX32, sys/personality.h.
            LinuxPersonalityDomain::PerLinux32 => 8,
        }),
        io_priority: process.io_priority().as_ref().map(|p| io_priority(p, pointer)).transpose()?,
        scheduler: process.scheduler().as_ref().map(|s| scheduler(s, pointer)).transpose()?,
        console_size: process
            .console_size()
            .map(|size| -> Result<_> {
                let fit = |n: u64, field| {
                    u16::try_from(n)
                        .with_context(|| format!("{pointer}/consoleSize/{field}: {n} is too large"))
                };
                Ok((fit(size.height(), "height")?, fit(size.width(), "width")?))
            })
            .transpose()?,
        apparmor: named(process.apparmor_profile())
            .map(|name| c_string(&format!("exec {name}"), &format!("{pointer}/apparmorProfile")))
            .transpose()?,
        selinux: named(process.selinux_label())
            .map(|label| c_string(label, &format!("{pointer}/selinuxLabel")))
            .transpose()?,
        affinity: process.exec_cpu_affinity().as_ref().map(|a| affinity(a, pointer)).transpose()?,
        memory_policy: match linux.memory_policy() {
            Some(policy) => Some(Box::new(memory_policy::compile(policy)?)),
            None => None,
        },
    })
}

/// Longest PATH, bytes: what execve(2) takes for one variable where pages have 4 KiB (MAX_ARG_STRLEN). It is the image's,
/// and each of its entries costs.
const PATH_MAX: usize = 128 << 10;
/// More arguments or variables than any program gets: they come from images, and each one costs.
const ENTRIES_MAX: usize = 1 << 16;

/// A text that is there and not empty.
fn named(text: &Option<String>) -> Option<&String> {
    text.as_ref().filter(|text| !text.is_empty())
}

fn affinity(affinity: &ExecCPUAffinity, pointer: &str) -> Result<Box<Affinity>> {
    let mask = |text: &Option<String>, field| {
        list::mask(text.as_deref().unwrap_or_default(), &format!("{pointer}/execCPUAffinity/{field}"))
    };
    Ok(Box::new(Affinity {
        initial: mask(affinity.initial(), "initial")?,
        last: mask(affinity.cpu_affinity_final(), "final")?,
    }))
}

/// Stands in where a container has no `process`: nothing to run.
pub fn absent() -> Process {
    Process {
        args: StringArray::new(Vec::new()),
        env: StringArray::new(Vec::new()),
        needs_home: false,
        candidates: Vec::new(),
        cwd: c"/".into(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        keep_groups: false,
        umask: 0o022,
        capabilities: Capabilities::default(),
        rlimits: Vec::new(),
        no_new_privileges: true,
        oom_score_adj: None,
        seccomp: OnceCell::new(),
        terminal: false,
        personality: None,
        io_priority: None,
        scheduler: None,
        console_size: None,
        apparmor: None,
        selinux: None,
        affinity: None,
        memory_policy: None,
    }
}

/// Checks each entry and keeps the last of each name, at the place of its last mention.
fn environment(env: &[String], pointer: &str) -> Result<Vec<CString>> {
    if env.len() > ENTRIES_MAX {
        bail!("{pointer}/env: {} entries are more than {ENTRIES_MAX}", env.len());
    }
    let mut list: Vec<CString> = Vec::with_capacity(env.len());
    // Comparing each with all is the fastest for a few; what an image brings may be many.
    let mut last: Option<HashMap<&str, usize>> = (env.len() > 64).then(HashMap::new);
    if let Some(last) = &mut last {
        last.extend(env.iter().enumerate().filter_map(|(i, entry)| Some((entry.split_once('=')?.0, i))));
    }
    for (i, entry) in env.iter().enumerate() {
        let Some((name, _)) = entry.split_once('=') else {
            bail!("{pointer}/env/{i}: invalid environment variable {entry:?}: missing '='");
        };
        if name.is_empty() {
            bail!("{pointer}/env/{i}: invalid environment variable {entry:?}: name cannot be empty");
        }
        let again = match &last {
            Some(last) => last.get(name) != Some(&i),
            None => {
                env[i + 1..].iter().any(|later| later.split_once('=').is_some_and(|(other, _)| other == name))
            }
        };
        if !again {
            list.push(c_string(entry, &format!("{pointer}/env/{i}"))?);
        }
    }
    Ok(list)
}

/// execvp's rule: a name with a slash is used as it is; any other is looked for in `PATH` of the container's
/// environment, never of the runtime's.
fn candidates(program: &str, path: Option<&[u8]>, pointer: &str) -> Result<Vec<CString>> {
    let pointer = format!("{pointer}/args/0");
    if program.contains('/') {
        return Ok(vec![c_string(program, &pointer)?]);
    }
    if program.is_empty() {
        return Ok(Vec::new());
    }
    let path = path.unwrap_or_default();
    if path.len() > PATH_MAX {
        bail!("{}: PATH is longer than {PATH_MAX} bytes", pointer.replace("/args/0", "/env"));
    }
    path.split(|&byte| byte == b':')
        .map(|dir| {
            // An empty entry means the current directory (execvp); runc's lookup reads it the same way.
            let dir = if dir.is_empty() { b"." } else { dir };
            let mut full = dir.to_vec();
            full.push(b'/');
            full.extend_from_slice(program.as_bytes());
            CString::new(full).with_context(|| format!("{pointer}: contains a NUL byte"))
        })
        .collect()
}

fn capabilities(sets: Option<&LinuxCapabilities>) -> Capabilities {
    let Some(sets) = sets else { return Capabilities::default() };
    let mask = |set: &Option<oci_spec::runtime::Capabilities>| {
        set.iter().flatten().fold(0u64, |mask, cap| mask | capability_bit(&cap.to_string()))
    };
    Capabilities {
        bounding: mask(sets.bounding()),
        effective: mask(sets.effective()),
        permitted: mask(sets.permitted()),
        inheritable: mask(sets.inheritable()),
        ambient: mask(sets.ambient()),
    }
}

/// The bit of a capability by its name with or without `CAP_`; 0 for a name that this build does not know.
pub fn capability_bit(name: &str) -> u64 {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    format!("CAP_{name}").parse::<caps::Capability>().map_or(0, |cap| cap.bitmask())
}

fn rlimits(list: &[oci_spec::runtime::PosixRlimit], pointer: &str) -> Result<Vec<(u32, u64, u64)>> {
    let mut limits: Vec<(u32, u64, u64)> = Vec::with_capacity(list.len());
    for (i, limit) in list.iter().enumerate() {
        let resource = rlimit_number(limit.typ());
        if limits.iter().any(|&(other, ..)| other == resource) {
            bail!("{pointer}/rlimits/{i}/type: {} is listed twice", limit.typ());
        }
        if limit.soft() > limit.hard() {
            bail!("{pointer}/rlimits/{i}/soft: {} is more than hard {}", limit.soft(), limit.hard());
        }
        limits.push((resource, limit.soft(), limit.hard()));
    }
    Ok(limits)
}

/// Class in the upper bits, level in the lower (ioprio_set(2)).
fn io_priority(priority: &LinuxIOPriority, pointer: &str) -> Result<u32> {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match priority.priority() {
        level @ 0..=7 => Ok(class << 13 | level as u32),
        level => bail!("{pointer}/ioPriority/priority: {level} is not in 0..7"),
    }
}

fn scheduler(scheduler: &Scheduler, pointer: &str) -> Result<SchedAttr> {
    use LinuxSchedulerFlag as F;
    use LinuxSchedulerPolicy as P;
    let policy = match scheduler.policy() {
        P::SchedOther => libc::SCHED_OTHER,
        P::SchedFifo => libc::SCHED_FIFO,
        P::SchedRr => libc::SCHED_RR,
        P::SchedBatch => libc::SCHED_BATCH,
        // SCHED_ISO, which no released kernel has.
        P::SchedIso => 4,
        P::SchedIdle => libc::SCHED_IDLE,
        P::SchedDeadline => libc::SCHED_DEADLINE,
    };
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        bail!("{pointer}/scheduler/nice: invalid scheduler.nice {nice}, not in -20..19");
    }
    let priority = scheduler.priority().unwrap_or(0);
    let realtime = matches!(scheduler.policy(), P::SchedFifo | P::SchedRr);
    if priority != 0 && !realtime {
        bail!("{pointer}/scheduler/priority: is for SCHED_FIFO and SCHED_RR only");
    }
    let deadline = [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|n| n.unwrap_or(0));
    if deadline != [0; 3] && *scheduler.policy() != P::SchedDeadline {
        bail!("{pointer}/scheduler/runtime: runtime, deadline and period are for SCHED_DEADLINE only");
    }
    let flags = scheduler.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                F::SchedResetOnFork => 0x01,
                F::SchedFlagReclaim => 0x02,
                F::SchedFlagDLOverrun => 0x04,
                F::SchedFlagKeepPolicy => 0x08,
                F::SchedFlagKeepParams => 0x10,
                F::SchedFlagUtilClampMin => 0x20,
                F::SchedFlagUtilClampMax => 0x40,
            }
    });
    Ok(SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: policy as u32,
        flags,
        nice,
        priority: u32::try_from(priority)
            .with_context(|| format!("{pointer}/scheduler/priority: {priority} is negative"))?,
        runtime: deadline[0],
        deadline: deadline[1],
        period: deadline[2],
    })
}

fn rlimit_number(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType::*;
    (match kind {
        RlimitCpu => libc::RLIMIT_CPU,
        RlimitFsize => libc::RLIMIT_FSIZE,
        RlimitData => libc::RLIMIT_DATA,
        RlimitStack => libc::RLIMIT_STACK,
        RlimitCore => libc::RLIMIT_CORE,
        RlimitRss => libc::RLIMIT_RSS,
        RlimitNproc => libc::RLIMIT_NPROC,
        RlimitNofile => libc::RLIMIT_NOFILE,
        RlimitMemlock => libc::RLIMIT_MEMLOCK,
        RlimitAs => libc::RLIMIT_AS,
        RlimitLocks => libc::RLIMIT_LOCKS,
        RlimitSigpending => libc::RLIMIT_SIGPENDING,
        RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        RlimitNice => libc::RLIMIT_NICE,
        RlimitRtprio => libc::RLIMIT_RTPRIO,
        RlimitRttime => libc::RLIMIT_RTTIME,
    }) as u32
}

/// The `HOME` of `uid` in the text of a passwd file: numbers only, never a name (CVE-2016-3697).
pub fn home_in_passwd(passwd: &[u8], uid: u32) -> Option<CString> {
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let id = std::str::from_utf8(fields.nth(2)?).ok()?;
        if !id.bytes().all(|b| b.is_ascii_digit()) || id.parse::<u32>().ok()? != uid {
            return None;
        }
        let home = fields.nth(2).filter(|home| !home.is_empty())?;
        CString::new([b"HOME=", home].concat()).ok()
    })
}

/// `HOME` for an id that no passwd file lists.
pub const HOME_FALLBACK: &CStr = c"HOME=/";

/// Where the container's users are listed.
pub const PASSWD: &CStr = c"/etc/passwd";

#[cfg(test)]
mod tests {
    use super::*;

    fn one(json: &str) -> Result<Process, String> {
        let text = format!(r#"{{"user":{{"uid":0,"gid":0}},"cwd":"/",{json}}}"#);
        let process: oci_spec::runtime::Process = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        compile(&process, &serde_json::from_str("{}").unwrap(), "/process").map_err(|e| e.to_string())
    }

    #[test]
    fn the_last_mention_of_a_variable_wins() {
        let p =
            one(r#""args":["sh"],"env":["A=1","PATH=/x","A=2","PATH=/bin::/usr/bin","B=a=b\n"]"#).unwrap();
        let env: Vec<_> = p.env.strings().iter().map(|s| s.to_str().unwrap()).collect();
        assert_eq!(env, ["A=2", "PATH=/bin::/usr/bin", "B=a=b\n"]);
        let paths: Vec<_> = p.candidates.iter().map(|s| s.to_str().unwrap()).collect();
        assert_eq!(paths, ["/bin/sh", "./sh", "/usr/bin/sh"]);
        assert!(p.needs_home);
    }

    #[test]
    fn capability_names_become_bits() {
        assert_eq!(capability_bit("CAP_CHOWN"), 1);
        assert_eq!(capability_bit("CHECKPOINT_RESTORE"), 1 << 40);
        assert_eq!(capability_bit("CAP_NONSENSE"), 0);
        let p = one(r#""args":["x"],"capabilities":{"bounding":["CAP_KILL","CAP_SYS_ADMIN"]}"#).unwrap();
        assert_eq!(p.capabilities, Capabilities { bounding: 1 << 5 | 1 << 21, ..Default::default() });
        assert_eq!(one(r#""args":["x"]"#).unwrap().capabilities, Capabilities::default());
    }

    #[test]
    fn refusals_name_the_field() {
        let error = |json: &str| one(json).err().unwrap_or_default();
        assert!(error(r#""args":[]"#).starts_with("/process/args"));
        assert!(error(r#""args":["x"],"env":["A"]"#).starts_with("/process/env/0"));
        assert!(error(r#""args":["x"],"env":["A=\u0000"]"#).starts_with("/process/env/0"));
        assert!(error(r#""args":["a\u0000"]"#).starts_with("/process/args/0"));
        let twice = r#"{"type":"RLIMIT_CORE","soft":1,"hard":1}"#;
        assert!(
            error(&format!(r#""args":["x"],"rlimits":[{twice},{twice}]"#)).starts_with("/process/rlimits/1")
        );
        assert!(error(r#""args":["x"],"oomScoreAdj":1001"#).starts_with("/process/oomScoreAdj"));
        let long =
            |program| error(&format!(r#""args":["{program}"],"env":["PATH={}"]"#, ":".repeat(200_000)));
        assert_eq!(long("x"), "/process/env: PATH is longer than 131072 bytes");
        assert_eq!(long("/x"), "");
    }

    #[test]
    fn home_is_found_by_number_only() {
        let passwd =
            b"1000:x:0:0::/wrong:\nroot:x:0:0:root:/root:/bin/sh\nbad\nu:x:1000:1::/home/u:\ne:x:7:7:::\n";
        assert_eq!(home_in_passwd(passwd, 0).as_deref(), Some(c"HOME=/wrong"));
        assert_eq!(home_in_passwd(passwd, 1000).as_deref(), Some(c"HOME=/home/u"));
        assert_eq!(home_in_passwd(passwd, 7), None);
        assert_eq!(home_in_passwd(passwd, 8), None);
    }
}
