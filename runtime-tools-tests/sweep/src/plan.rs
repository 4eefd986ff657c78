//! What is swept: roles, cases, and the command line that chooses them. Pure; called by everything.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::faults;
use crate::kernel::Call;

/// A process of the runtime by its place in the tree, since the order between processes is not fixed:
/// `p` is the process that the user started, `p.1` its first child, `p.1.2` that child's second one;
/// `i` is the container's init stage where it is there before the command (start).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Role {
    /// The tree starts at the waiting init stage, not at the command's own process.
    pub init: bool,
    /// The ordinal of the child at each step down, from 1.
    pub path: Vec<u32>,
}

impl Role {
    /// The process that the user started.
    pub fn main() -> Self {
        Self { init: false, path: Vec::new() }
    }

    /// The waiting init stage.
    pub fn init() -> Self {
        Self { init: true, path: Vec::new() }
    }

    /// The n-th child of this role.
    pub fn child(&self, n: u32) -> Self {
        let mut path = self.path.clone();
        path.push(n);
        Self { init: self.init, path }
    }

    /// Whether this is the process that the user started.
    pub fn is_main(&self) -> bool {
        !self.init && self.path.is_empty()
    }

    /// Reads `p`, `p.1.2`, `i`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split('.');
        let init = match parts.next() {
            Some("p") => false,
            Some("i") => true,
            _ => bail!("role {text}: begins with neither p nor i"),
        };
        let path: Result<Vec<u32>, _> = parts.map(str::parse).collect();
        let path = path.with_context(|| format!("role {text}: not a list of ordinals"))?;
        if path.contains(&0) {
            bail!("role {text}: ordinals count from 1");
        }
        Ok(Self { init, path })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.init { "i" } else { "p" })?;
        self.path.iter().try_for_each(|n| write!(f, ".{n}"))
    }
}

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The call is not made and returns this errno.
    Fail(i32),
    /// The process that the user started gets SIGKILL before the call of whichever role.
    KillMain,
    /// The role itself (not main) gets SIGKILL before the call.
    KillRole,
}

/// One run of the sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Whose call.
    pub role: Role,
    /// The n-th system call of that role, from 0.
    pub n: usize,
    /// What happens there.
    pub act: Act,
    /// The last call that the role was seen to make; after create that is the wait for start.
    pub last: bool,
}

impl Case {
    /// The options that rerun this single case.
    pub fn options(&self) -> String {
        let what = match self.act {
            Act::Fail(e) => format!("--errno {}", faults::errno_name(e)),
            Act::KillMain => "--kill=main".to_string(),
            Act::KillRole => "--kill=role".to_string(),
        };
        format!("--role {} --from {} --to {} {what}", self.role, self.n, self.n)
    }
}

/// The command whose calls are swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// create ID
    Create,
    /// start ID
    Start,
    /// run ID, in the foreground
    Run,
    /// delete ID of a stopped container
    Delete,
    /// delete --force ID of a running container
    DeleteForce,
    /// exec ID PROBE
    Exec,
    /// kill ID USR1
    Kill,
    /// state ID
    State,
    /// update ID with three limits
    Update,
    /// pause ID
    Pause,
    /// resume ID of a paused container
    Resume,
}

impl Command {
    /// All, in the order of a container's life.
    pub const ALL: [Command; 11] = [
        Command::Create,
        Command::Start,
        Command::Run,
        Command::Delete,
        Command::DeleteForce,
        Command::Exec,
        Command::Kill,
        Command::State,
        Command::Update,
        Command::Pause,
        Command::Resume,
    ];

    /// Works on a container that runs before and after it.
    pub fn keeps_running(self) -> bool {
        use Command::{Exec, Kill, Pause, Resume, State, Update};
        matches!(self, Exec | Kill | State | Update | Pause | Resume)
    }

    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Command::Create => "create",
            Command::Start => "start",
            Command::Run => "run",
            Command::Delete => "delete",
            Command::DeleteForce => "delete-force",
            Command::Exec => "exec",
            Command::Kill => "kill",
            Command::State => "state",
            Command::Update => "update",
            Command::Pause => "pause",
            Command::Resume => "resume",
        }
    }
}

/// How the cgroup hierarchies look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The host's v1 hierarchies without the unified one.
    V1,
    /// One cgroup2 tree.
    V2,
}

impl View {
    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            View::V1 => "v1",
            View::V2 => "v2",
        }
    }
}

/// The command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// The runtime's path as given.
    pub runtime: String,
    /// Which commands.
    pub commands: Vec<Command>,
    /// Which views.
    pub views: Vec<View>,
    /// Which errnos; others than the swept six go to each call that can fail at all.
    pub errnos: Vec<i32>,
    /// Kill main at each point.
    pub kill_main: bool,
    /// Kill each role but main at each of its points.
    pub kill_role: bool,
    /// Parallel sweeps.
    pub jobs: usize,
    /// Each k-th case only.
    pub every: usize,
    /// Lowest index of a call within its role.
    pub from: usize,
    /// Highest index.
    pub to: usize,
    /// This role only.
    pub role: Option<Role>,
    /// The bundle has a createRuntime hook.
    pub hook: bool,
    /// How long one command may take.
    pub deadline: Duration,
    /// Print the calls and what would be done, and do not sweep.
    pub list: bool,
}

/// The words of `--help`.
pub const USAGE: &str = "\
usage: sweep RUNTIME [options]
  --command LIST   create,start,run,delete,delete-force,exec,kill,state,update,pause,resume or all
                   (default create,start,run,delete)
  --view LIST      v1,v2 (default v1)
  --errno LIST     EPERM,ENOMEM,EINTR,EMFILE,ENOSPC,EIO (default: all of these that the call can return)
  --kill[=WHO]     instead of errnos: SIGKILL before each call; WHO is main, role or both (default)
  --role R         only this process: p, p.1, p.1.2, i
  --from I --to J  only calls I to J of each process
  --every K        each K-th case
  --hook           the bundle has a createRuntime hook
  --jobs N         sweeps side by side (default 2)
  --deadline S     seconds that a command may take (default 10)
  --list           print the calls of each process with their errnos and stop";

fn list_of<T>(text: &str, all: Option<Vec<T>>, item: impl Fn(&str) -> Option<T>) -> Result<Vec<T>> {
    if let (Some(all), "all") = (all, text) {
        return Ok(all);
    }
    text.split(',').map(|word| item(word).with_context(|| format!("unknown word {word}"))).collect()
}

/// Reads the command line without argv[0].
pub fn parse(args: &[String]) -> Result<Options> {
    let mut o = Options {
        runtime: String::new(),
        commands: vec![Command::Create, Command::Start, Command::Run, Command::Delete],
        views: vec![View::V1],
        errnos: faults::SWEPT.to_vec(),
        kill_main: false,
        kill_role: false,
        jobs: 2,
        every: 1,
        from: 0,
        to: usize::MAX,
        role: None,
        hook: false,
        deadline: Duration::from_secs(10),
        list: false,
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let (flag, inline) = match word.split_once('=') {
            Some((f, v)) if f.starts_with("--") => (f, Some(v.to_string())),
            _ => (word.as_str(), None),
        };
        match flag {
            "--kill" => {
                let who = inline.unwrap_or_else(|| "both".to_string());
                o.kill_main = who != "role";
                o.kill_role = who != "main";
                if !["both", "role", "main"].contains(&who.as_str()) {
                    bail!("--kill={who}: neither main, role nor both");
                }
                continue;
            }
            "--hook" => {
                o.hook = true;
                continue;
            }
            "--list" => {
                o.list = true;
                continue;
            }
            _ if !flag.starts_with("--") && o.runtime.is_empty() => {
                o.runtime = flag.to_string();
                continue;
            }
            _ => {}
        }
        let value = match inline {
            Some(v) => v,
            None => words.next().with_context(|| format!("{flag}: unknown or without a value"))?.clone(),
        };
        let number = || value.parse::<usize>().with_context(|| format!("{flag} {value}: not a number"));
        match flag {
            "--command" => {
                o.commands = list_of(&value, Some(Command::ALL.to_vec()), |w| {
                    Command::ALL.into_iter().find(|c| c.word() == w)
                })
                .context(flag.to_string())?
            }
            "--view" => {
                o.views = list_of(&value, Some(vec![View::V1, View::V2]), |w| {
                    [View::V1, View::V2].into_iter().find(|v| v.word() == w)
                })
                .context(flag.to_string())?
            }
            "--errno" => {
                o.errnos = list_of(&value, Some(faults::SWEPT.to_vec()), faults::errno_of)
                    .context(flag.to_string())?
            }
            "--jobs" => o.jobs = number()?.max(1),
            "--every" => o.every = number()?.max(1),
            "--from" => o.from = number()?,
            "--to" => o.to = number()?,
            "--deadline" => o.deadline = Duration::from_secs(number()?.max(1) as u64),
            "--role" => o.role = Some(Role::parse(&value)?),
            _ => bail!("{flag}: unknown option"),
        }
    }
    if o.runtime.is_empty() {
        bail!("no runtime given");
    }
    Ok(o)
}

/// The errnos that are tried at a call: of the swept six those that it can return, any other one asked for when
/// the call can fail at all.
pub fn errnos_at(call: &Call, asked: &[i32]) -> Vec<i32> {
    let possible = faults::possible(call);
    let fits = |e: &i32| possible.contains(e) || (!possible.is_empty() && !faults::SWEPT.contains(e));
    asked.iter().copied().filter(fits).collect()
}

/// The cases of one counted command, and how many calls cannot fail.
pub fn cases(roles: &[(Role, Vec<Call>)], o: &Options) -> (Vec<Case>, usize) {
    let mut all = Vec::new();
    let mut harmless = 0;
    for (role, calls) in roles.iter().filter(|(r, _)| o.role.as_ref().is_none_or(|only| only == r)) {
        for (n, call) in calls.iter().enumerate().filter(|(n, _)| (o.from..=o.to).contains(n)) {
            // Where a wait was interrupted, it was counted twice once, and is not the last in number.
            let last = n + 1 == calls.len() || call.number == libc::SYS_accept4;
            let mut add = |act| all.push(Case { role: role.clone(), n, act, last });
            if o.kill_main {
                add(Act::KillMain);
            }
            if o.kill_role && !role.is_main() {
                add(Act::KillRole);
            }
            if !o.kill_main && !o.kill_role {
                errnos_at(call, &o.errnos).into_iter().for_each(|e| add(Act::Fail(e)));
                harmless += usize::from(faults::possible(call).is_empty());
            }
        }
    }
    (all.into_iter().step_by(o.every).collect(), harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &str) -> Result<Options> {
        parse(&words.split_whitespace().map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn roles_go_both_ways() {
        for text in ["p", "p.1", "p.1.12", "i", "i.2"] {
            assert_eq!(Role::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "q", "p.", "p.x", "p.0", ".1"] {
            assert!(Role::parse(text).is_err(), "{text}");
        }
        assert!(Role::main().is_main() && !Role::main().child(1).is_main() && !Role::init().is_main());
        assert_eq!(Role::main().child(2).child(1), Role::parse("p.2.1").unwrap());
    }

    #[test]
    fn reads_the_command_line() {
        let o =
            options("crun --command create,exec --view all --errno EIO --from 3 --to=9 --jobs 4").unwrap();
        assert_eq!(o.runtime, "crun");
        assert_eq!(o.commands, [Command::Create, Command::Exec]);
        assert_eq!(o.views, [View::V1, View::V2]);
        assert_eq!((o.errnos, o.from, o.to, o.jobs), (vec![libc::EIO], 3, 9, 4));
        assert_eq!(options("crun --command all").unwrap().commands.len(), 11);
        let kill = options("--kill crun").unwrap();
        assert!(kill.kill_main && kill.kill_role && kill.runtime == "crun");
        let kill = options("crun --kill=role").unwrap();
        assert!(!kill.kill_main && kill.kill_role);
        for bad in
            ["", "crun --command fly", "crun --kill=all", "crun --jobs", "crun more", "crun --errno EWHAT"]
        {
            assert!(options(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn makes_cases() {
        let call = |number| Call { number, args: [0; 6] };
        let roles = vec![
            (Role::main(), vec![call(libc::SYS_getpid), call(libc::SYS_read)]),
            (Role::main().child(1), vec![call(libc::SYS_setsid)]),
        ];
        let (all, harmless) = cases(&roles, &options("r").unwrap());
        let text: Vec<String> = all.iter().map(Case::options).collect();
        assert_eq!(
            text,
            [
                "--role p --from 1 --to 1 --errno EINTR",
                "--role p --from 1 --to 1 --errno EIO",
                "--role p.1 --from 0 --to 0 --errno EPERM",
            ]
        );
        assert_eq!(harmless, 1);
        assert_eq!(cases(&roles, &options("r --every 2").unwrap()).0.len(), 2);
        assert_eq!(cases(&roles, &options("r --kill").unwrap()).0.len(), 4);
        assert_eq!(cases(&roles, &options("r --kill=role").unwrap()).0.len(), 1);
        assert_eq!(cases(&roles, &options("r --errno ENOSYS").unwrap()).0.len(), 2);
        assert_eq!(cases(&roles, &options("r --role p.1").unwrap()).0.len(), 1);
    }

    #[test]
    fn a_case_reruns_itself() {
        for text in ["--role p.1 --from 7 --to 7 --errno EIO", "--role i --from 0 --to 0 --kill=main"] {
            let o = options(&format!("r {text}")).unwrap();
            let calls = vec![Call { number: libc::SYS_write, args: [0; 6] }; 9];
            let (all, _) = cases(&[(o.role.clone().unwrap(), calls)], &o);
            assert_eq!(all.iter().map(Case::options).collect::<Vec<_>>(), [text]);
        }
    }
}
