//! The command line: runc's global flags and commands, their definitions for clap and the values they become.
//!
//! No logic and no side effects: what a flag does is the business of its command. Help, man pages and completions come
//! from clap, which gets the definitions when they are wanted; [`words`] sorts what callers write by the same
//! definitions, because runc's rules are Go's. Called by `main`.

mod arg;
mod definitions;
mod words;

use crate::log::Format;
use definitions::{COMMANDS, Definition, global_args, read_global, switch};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;
use words::{check_count, check_id, sort};

/// Flags that stand before the command.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Global {
    /// Directory of all states, absolute. None: the default of this user.
    pub root: Option<PathBuf>,
    /// Log file. None: stderr.
    pub log: Option<PathBuf>,
    /// Form of a log line.
    pub log_format: Format,
    /// Log at debug level.
    pub debug: bool,
    /// Let systemd manage cgroups.
    pub systemd_cgroup: bool,
    /// Ignore cgroup permission errors. None: find out.
    pub rootless: Option<bool>,
}

/// A command with its flags. An id is not checked here beyond being there.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    Checkpoint(Checkpoint),
    Create(Create),
    Restore(Restore),
    Run(Run),
    Start { id: String },
    State { id: String },
    Kill(Kill),
    Delete { id: String, force: bool },
    Events(Events),
    Exec(Exec),
    List { format: OutputFormat, quiet: bool },
    Pause { id: String },
    Ps(Ps),
    Resume { id: String },
    Spec(Spec),
    Update(Update),
    Features,
}

/// `create`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Create {
    /// Container id as given.
    pub id: String,
    /// Bundle directory. None: the current directory.
    pub bundle: Option<PathBuf>,
    /// Socket that gets the master of the terminal.
    pub console_socket: Option<PathBuf>,
    /// Socket that gets a pidfd of the init process.
    pub pidfd_socket: Option<PathBuf>,
    /// File that gets the pid, relative to the current directory.
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivot_root(2).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors to hand on after 0 to 2 and those of `LISTEN_FDS`.
    pub preserve_fds: u32,
}

/// `run`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// What it shares with `create`.
    pub create: Create,
    /// Return when the container runs.
    pub detach: bool,
    /// Do not delete the container at its end.
    pub keep: bool,
    /// Leave orphans of the container to the caller.
    pub no_subreaper: bool,
}

/// What `checkpoint` and `restore` share.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Criu {
    /// Directory of the images. None: `checkpoint` in the current directory.
    pub image_path: Option<PathBuf>,
    /// Directory of logs. None: that of the images.
    pub work_path: Option<PathBuf>,
    /// Keep open TCP connections.
    pub tcp_established: bool,
    /// Unix sockets may have an end outside.
    pub ext_unix_sk: bool,
    /// The terminal may be the caller's.
    pub shell_job: bool,
    /// Keep file locks.
    pub file_locks: bool,
    /// Give back space in earlier images.
    pub auto_dedup: bool,
    /// Fetch memory when it is used.
    pub lazy_pages: bool,
    /// `soft`, `full`, `strict`, `ignore`, as given.
    pub manage_cgroups_mode: String,
    /// Namespaces that come back empty, as given.
    pub empty_ns: Vec<String>,
}

/// `checkpoint`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Container id as given.
    pub id: String,
    /// What it shares with `restore`.
    pub criu: Criu,
    /// Directory of earlier images, relative to that of the images.
    pub parent_path: Option<PathBuf>,
    /// Do not end the container.
    pub leave_running: bool,
    /// Leave out connections that are being made.
    pub tcp_skip_in_flight: bool,
    /// Link unlinked files back.
    pub link_remap: bool,
    /// Descriptor that gets a NUL byte when the page server is ready.
    pub status_fd: Option<i32>,
    /// `ADDRESS:PORT` as given.
    pub page_server: Option<String>,
    /// Save memory only and let the container run on.
    pub pre_dump: bool,
}

/// `restore`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restore {
    /// What it shares with `create`.
    pub create: Create,
    /// What it shares with `checkpoint`.
    pub criu: Criu,
    /// Return when the container runs.
    pub detach: bool,
    /// Leave orphans of the container to the caller.
    pub no_subreaper: bool,
    /// Come back with connections closed.
    pub tcp_close: bool,
    /// `TYPE:NAME` of an LSM profile.
    pub lsm_profile: Option<String>,
    /// LSM context for mounts.
    pub lsm_mount_context: Option<String>,
}

/// `kill`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kill {
    /// Container id as given.
    pub id: String,
    /// Name or number as given. None: SIGTERM.
    pub signal: Option<String>,
    /// A stopped container is no error.
    pub all: bool,
}

/// `events`.
#[derive(Debug, PartialEq, Eq)]
pub struct Events {
    /// Container id as given.
    pub id: String,
    /// Time between figures. None: a negative one was given.
    pub interval: Option<Duration>,
    /// Print the figures once.
    pub stats: bool,
}

/// `exec`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// Container id as given.
    pub id: String,
    /// Program and arguments; empty only if `process` may give them.
    pub args: Vec<OsString>,
    /// Socket that gets the master of the terminal.
    pub console_socket: Option<PathBuf>,
    /// Socket that gets a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// Working directory in the container.
    pub cwd: Option<String>,
    /// Variables to add, `NAME=value`, in order.
    pub env: Vec<OsString>,
    /// Give the process a terminal.
    pub tty: bool,
    /// `UID[:GID]` as given.
    pub user: Option<String>,
    /// Group ids to add.
    pub additional_gids: Vec<u32>,
    /// File with the whole process as JSON; most other flags then count for nothing.
    pub process: Option<PathBuf>,
    /// Return when the process runs.
    pub detach: bool,
    /// File that gets the pid, relative to the current directory.
    pub pid_file: Option<PathBuf>,
    /// SELinux label.
    pub process_label: Option<String>,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// Set no_new_privs. None: as the container's config says.
    pub no_new_privs: Option<bool>,
    /// Capabilities to add.
    pub caps: Vec<String>,
    /// How many descriptors to hand on after 0 to 2.
    pub preserve_fds: u32,
    /// `[CONTROLLER[,CONTROLLER..]:]PATH` as given.
    pub cgroups: Vec<String>,
    /// Go on although the container is paused.
    pub ignore_paused: bool,
}

/// `ps`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ps {
    /// Container id as given.
    pub id: String,
    /// Table (output of ps(1)) or pids as JSON.
    pub format: OutputFormat,
    /// Options for ps(1).
    pub args: Vec<OsString>,
}

/// `spec`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Bundle directory. None: the current directory.
    pub bundle: Option<PathBuf>,
    /// Config for a caller without privileges.
    pub rootless: bool,
}

/// `update`. Values are as given; what they mean is checked once the container is known to exist, as in runc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Container id as given.
    pub id: String,
    /// File with `linux.resources` as JSON, `-` for stdin; the other flags then count for nothing.
    pub resources: Option<PathBuf>,
    /// Block I/O weight; 0: leave it.
    pub blkio_weight: i64,
    /// CPU period, microseconds.
    pub cpu_period: Option<String>,
    /// CPU quota, microseconds a period.
    pub cpu_quota: Option<String>,
    /// Unused quota that may be saved up, microseconds.
    pub cpu_burst: Option<String>,
    /// CPU shares.
    pub cpu_share: Option<String>,
    /// Realtime period, microseconds.
    pub cpu_rt_period: Option<String>,
    /// Realtime runtime, microseconds a period.
    pub cpu_rt_runtime: Option<String>,
    /// CPUs to use.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use.
    pub cpuset_mems: Option<String>,
    /// 1: run only when nobody else wants to.
    pub cpu_idle: Option<String>,
    /// Memory limit, bytes with a unit.
    pub memory: Option<String>,
    /// Memory reservation, bytes with a unit.
    pub memory_reservation: Option<String>,
    /// Limit of memory and swap together, bytes with a unit.
    pub memory_swap: Option<String>,
    /// Without effect.
    pub kernel_memory: Option<String>,
    /// Without effect.
    pub kernel_memory_tcp: Option<String>,
    /// Largest number of processes; negative: any.
    pub pids_limit: Option<i64>,
    /// A schema of the L3 cache.
    pub l3_cache_schema: Option<String>,
    /// A schema of the memory bandwidth.
    pub mem_bw_schema: Option<String>,
}

/// `--format` of `list` and `ps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Request {
    /// Run this command.
    Run {
        /// Flags before it.
        global: Global,
        /// The command with its own flags.
        command: Command,
        /// Exit status if the runtime fails.
        failure: u8,
    },
    /// Print this help.
    Help(String),
    /// Print the version.
    Version,
}

/// Why a command line is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where to log, as far as that was understood.
    pub global: Global,
    /// Text for stdout.
    pub usage: String,
    /// The error.
    pub message: String,
    /// Exit status.
    pub code: u8,
}

/// Reads the words of a command line, the program's own name first.
///
/// # Errors
/// A [`Refusal`] for a command or flag that does not exist, a wrong number of arguments or a value of the wrong form.
pub fn parse(argv: &[OsString]) -> Result<Request, Refusal> {
    let words: Vec<&OsStr> = argv.iter().map(OsString::as_os_str).collect();
    let (argv0, words) =
        words.split_first().map_or((OsStr::new(""), &words[..]), |(argv0, rest)| (*argv0, rest));
    let program = program(argv0);
    let global_args = global_args();
    let before = sort(words, &global_args, true)
        .map_err(|message| misused(Global::default(), message, &help(&program, None)))?;
    if before.switch("help") {
        return Ok(Request::Help(help(&program, None)));
    }
    if before.switch("version") {
        return Ok(Request::Version);
    }
    // `help` and `h` take the name of a command, as in runc.
    let asks_help = before.positional.first().is_some_and(|word| *word == "help" || *word == "h");
    let Some((command, rest)) = before.positional[usize::from(asks_help)..].split_first() else {
        return Ok(Request::Help(help(&program, None)));
    };
    let global = read_global(&before).map_err(|message| refused(Global::default(), message))?;
    let Some(definition) = COMMANDS.iter().find(|definition| *command == definition.name) else {
        let message = format!("No help topic for '{}'", command.to_string_lossy());
        return Err(Refusal { code: 3, ..refused(global, message) });
    };
    let help = || help(&program, Some(definition));
    if asks_help {
        return Ok(Request::Help(help()));
    }
    let args = (definition.args)();
    let after = match sort(rest, &args, definition.stops) {
        Ok(after) => after,
        Err(message) => return Err(misused(global, message, &help())),
    };
    if after.switch("help") {
        return Ok(Request::Help(help()));
    }
    if let Err(wrong) = check_count(&after) {
        let message = format!("{}: {:?} {wrong}", argv0.to_string_lossy(), definition.name);
        let usage = format!("Incorrect Usage.\n\n{}", help());
        return Err(Refusal { usage, ..refused(global, message) });
    }
    if let Err(message) = check_id(&after) {
        return Err(Refusal { code: definition.failure, ..refused(global, message) });
    }
    match (definition.read)(&after) {
        Ok(command) => Ok(Request::Run { global, command, failure: definition.failure }),
        Err(message) => Err(misused(global, message, &help())),
    }
}

fn refused(global: Global, message: String) -> Refusal {
    Refusal { global, usage: String::new(), message, code: 1 }
}

/// Refused for its words: the help goes with it.
fn misused(global: Global, message: String, help: &str) -> Refusal {
    Refusal { usage: format!("Incorrect Usage: {message}\n\n{help}"), ..refused(global, message) }
}

/// The name the program was called by. It shows in messages that callers match (`runc version `).
pub fn program(argv0: &OsStr) -> String {
    Path::new(argv0).file_name().map_or_else(|| "naru".to_owned(), |name| name.to_string_lossy().into())
}

/// A command without anything clap would add by itself.
fn plain_command(name: &'static str) -> clap::Command {
    clap::Command::new(name).disable_help_flag(true).disable_version_flag(true).disable_help_subcommand(true)
}

/// The whole command line as clap knows it, for help, man pages and completions.
pub fn tree(program: &str) -> clap::Command {
    // clap wants text that lives forever; a process prints its help once.
    let program: &'static str = program.to_owned().leak();
    plain_command(program)
        .about("Open Container Initiative runtime")
        .override_usage(format!("{program} [global options] COMMAND [options] [arguments]"))
        .args(global_args().into_iter().map(arg::Arg::clap))
        .subcommands(COMMANDS.iter().map(|definition| subcommand(program, definition)))
        .help_template(
            "NAME:\n   {name} - {about}\n\nUSAGE:\n   {usage}\n\nCOMMANDS:\n{subcommands}\n\nGLOBAL OPTIONS:\n{options}\n\n\
             `{name} COMMAND --help` shows the options of a command.",
        )
}

fn subcommand(program: &'static str, definition: &Definition) -> clap::Command {
    let name: &'static str = format!("{program} {}", definition.name).leak();
    let args = (definition.args)();
    let template = if args.iter().any(|arg| arg.long().is_none()) {
        "NAME:\n   {name} - {about}\n\nUSAGE:\n   {usage}\n\nARGUMENTS:\n{positionals}\n\nOPTIONS:\n{options}"
    } else {
        "NAME:\n   {name} - {about}\n\nUSAGE:\n   {usage}\n\nOPTIONS:\n{options}"
    };
    plain_command(definition.name)
        .display_name(name)
        .bin_name(name)
        .about(definition.about)
        .args(args.into_iter().map(arg::Arg::clap))
        .arg(switch("help", "print help").short('h').clap())
        .help_template(template)
}

fn help(program: &str, definition: Option<&Definition>) -> String {
    let mut command = match definition {
        None => tree(program),
        Some(definition) => subcommand(program.to_owned().leak(), definition),
    };
    format!("{}\n", command.render_help().to_string().trim_end())
}

#[cfg(test)]
mod tests;
