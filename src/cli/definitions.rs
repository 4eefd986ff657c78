//! The definitions: every command with its flags, for clap, and how their values become a [`Command`].
//!
//! The only place that knows a flag's name. No side effects; called by the parser.

use super::arg::{Arg, Kind};
use super::words::{Words, parse_bool};
use super::{
    Checkpoint, Command, Create, Criu, Events, Exec, Global, Kill, OutputFormat, Ps, Restore, Run, Spec,
    Update,
};
use crate::log::Format;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Time between figures of `events`.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// A command as [`sort`](super::words::sort) and clap need it.
pub struct Definition {
    pub name: &'static str,
    pub about: &'static str,
    /// Flags and positional arguments.
    pub args: fn() -> Vec<Arg>,
    /// Flags end at the first positional argument: what follows belongs to another program.
    pub stops: bool,
    /// Exit status if the runtime fails. Callers of `exec` tell it from the program's own by this.
    pub failure: u8,
    pub read: fn(&Words) -> Result<Command, String>,
}

/// Every command there is; one that is missing here is unknown in every respect, so that callers who probe for it
/// (Podman and CRI-O run `checkpoint --help`) see that it is missing.
pub const COMMANDS: &[Definition] = &[
    Definition {
        name: "checkpoint",
        about: "save a running container to files, by CRIU",
        args: checkpoint_args,
        stops: false,
        failure: 1,
        read: read_checkpoint,
    },
    Definition {
        name: "create",
        about: "create a container from a bundle and leave it before its start",
        args: || {
            let mut args = create_args();
            args.push(id());
            args
        },
        stops: false,
        failure: 1,
        read: |v| Ok(Command::Create(read_create(v)?)),
    },
    Definition {
        name: "delete",
        about: "remove a stopped container and everything made for it",
        args: || vec![switch("force", "kill the container first if it is running").short('f'), id()],
        stops: false,
        failure: 1,
        read: |v| Ok(Command::Delete { id: read_id(v), force: v.switch("force") }),
    },
    Definition {
        name: "events",
        about: "print what a container uses, and when it runs out of memory, as JSON",
        args: || {
            vec![
                value("interval", "time between figures, such as 500ms or 1m30s (default: 5s)"),
                switch("stats", "print the figures once"),
                id(),
            ]
        },
        stops: false,
        failure: 1,
        read: |v| {
            Ok(Command::Events(Events {
                id: read_id(v),
                interval: read_interval(v)?,
                stats: v.switch("stats"),
            }))
        },
    },
    Definition {
        name: "exec",
        about: "run another process in a container",
        args: exec_args,
        stops: true,
        failure: 255,
        read: read_exec,
    },
    Definition {
        name: "features",
        about: "print what this runtime can do, as JSON",
        args: Vec::new,
        stops: false,
        failure: 1,
        read: |_| Ok(Command::Features),
    },
    Definition {
        name: "kill",
        about: "send a signal (default: SIGTERM) to the init process of a container",
        args: || {
            vec![
                switch("all", "accepted for old callers").short('a').hide(true),
                id(),
                word("signal", "number, or name with or without SIG"),
            ]
        },
        stops: true,
        failure: 1,
        read: |v| {
            let signal = v.positional.get(1).filter(|signal| !signal.is_empty());
            Ok(Command::Kill(Kill {
                id: read_id(v),
                signal: signal.map(|signal| signal.to_string_lossy().into_owned()),
                all: v.switch("all"),
            }))
        },
    },
    Definition {
        name: "list",
        about: "list the containers of a root",
        args: || vec![format(), switch("quiet", "print ids only").short('q')],
        stops: false,
        failure: 1,
        read: |v| Ok(Command::List { format: read_format(v)?, quiet: v.switch("quiet") }),
    },
    Definition {
        name: "pause",
        about: "stop every process of a container where it is",
        args: || vec![id()],
        stops: false,
        failure: 1,
        read: |v| Ok(Command::Pause { id: read_id(v) }),
    },
    Definition {
        name: "ps",
        about: "list the processes in a container",
        args: || vec![format(), id(), word("args", "options of ps(1)").any_number()],
        stops: true,
        failure: 1,
        read: |v| Ok(Command::Ps(Ps { id: read_id(v), format: read_format(v)?, args: rest(v) })),
    },
    Definition {
        name: "restore",
        about: "bring a container back from a checkpoint, by CRIU",
        args: restore_args,
        stops: false,
        failure: 1,
        read: read_restore,
    },
    Definition {
        name: "resume",
        about: "let the processes of a paused container run on",
        args: || vec![id()],
        stops: false,
        failure: 1,
        read: |v| Ok(Command::Resume { id: read_id(v) }),
    },
    Definition {
        name: "run",
        about: "create and start a container, wait for its end and remove it",
        args: || {
            let mut args = create_args();
            args.push(switch("detach", "return when the container runs").short('d'));
            args.push(switch("keep", "do not delete the container at its end"));
            args.push(switch("no-subreaper", "leave orphans of the container to the caller"));
            args.push(id());
            args
        },
        stops: false,
        failure: 1,
        read: |v| {
            Ok(Command::Run(Run {
                create: read_create(v)?,
                detach: v.switch("detach"),
                keep: v.switch("keep"),
                no_subreaper: v.switch("no-subreaper"),
            }))
        },
    },
    Definition {
        name: "spec",
        about: "write a config.json to begin with",
        args: || {
            vec![
                value("bundle", "directory to write to (default: the current directory)").short('b'),
                switch("rootless", "for a caller without privileges"),
            ]
        },
        stops: false,
        failure: 1,
        read: |v| Ok(Command::Spec(Spec { bundle: path(v, "bundle"), rootless: v.switch("rootless") })),
    },
    Definition {
        name: "start",
        about: "let the program of a created container run",
        args: || vec![id()],
        stops: false,
        failure: 1,
        read: |v| Ok(Command::Start { id: read_id(v) }),
    },
    Definition {
        name: "state",
        about: "print the state of a container, as JSON",
        args: || vec![id()],
        stops: false,
        failure: 1,
        read: |v| Ok(Command::State { id: read_id(v) }),
    },
    Definition {
        name: "update",
        about: "set new limits for a container",
        args: update_args,
        stops: false,
        failure: 1,
        read: read_update,
    },
];

/// Flags that stand before the command.
pub fn global_args() -> Vec<Arg> {
    vec![
        switch("debug", "log at debug level"),
        value("log", "file to append the log to (default: stderr)"),
        value("log-format", "form of the log: text (default) or json"),
        value(
            "root",
            "directory of all container states, best on a tmpfs (default: /run/naru; an ordinary user's: $XDG_RUNTIME_DIR/naru)",
        ),
        switch("systemd-cgroup", "let systemd manage cgroups; cgroupsPath is then slice:prefix:name"),
        value("rootless", "ignore cgroup permission errors: true, false or auto (default)"),
        // runc took it until 1.3; old engines still send it.
        value("criu", "accepted for old callers").hide(true),
        switch("help", "print help").short('h'),
        switch("version", "print the version").short('v').short_alias('V'),
    ]
}

fn create_args() -> Vec<Arg> {
    vec![
        value("bundle", "bundle directory (default: the current directory)").short('b'),
        value("console-socket", "unix socket that gets the master of the terminal"),
        value("pidfd-socket", "unix socket that gets a pidfd of the init process"),
        value("pid-file", "file to write the pid of the init process to"),
        switch("no-pivot", "move the root instead of pivot_root, for a rootfs on a ramdisk"),
        switch("no-new-keyring", "keep the session keyring of the caller"),
        value("preserve-fds", "how many descriptors to hand on after stdio and $LISTEN_FDS"),
    ]
}

/// Flags that `checkpoint` and `restore` share.
fn criu_args() -> Vec<Arg> {
    vec![
        value("image-path", "directory of the images (default: checkpoint, in the current directory)"),
        value("work-path", "directory of logs and other work files (default: that of the images)"),
        switch("tcp-established", "allow open TCP connections"),
        switch("ext-unix-sk", "allow unix sockets with an end outside the container"),
        switch("shell-job", "allow a terminal that is the caller's own"),
        switch("file-locks", "allow file locks"),
        value("manage-cgroups-mode", "what to do with cgroups: soft (default), full, strict or ignore"),
        list("empty-ns", "namespace that comes back empty: network, which always does"),
        switch("auto-dedup", "give back space in earlier images"),
        switch("lazy-pages", "fetch memory when it is used"),
    ]
}

fn checkpoint_args() -> Vec<Arg> {
    let mut args = criu_args();
    args.extend([
        value("parent-path", "directory of a pre-dump's images, relative to --image-path"),
        switch("leave-running", "let the container run on"),
        switch("tcp-skip-in-flight", "leave out TCP connections that are being made"),
        switch("link-remap", "link unlinked files that are in use back"),
        value("status-fd", "descriptor that gets a NUL byte when lazy pages can be fetched"),
        value("page-server", "ADDRESS:PORT of the page server"),
        switch("pre-dump", "save memory only, and let the container run on"),
        id(),
    ]);
    args
}

fn restore_args() -> Vec<Arg> {
    let mut args = criu_args();
    args.extend([
        value("bundle", "bundle directory (default: the current directory)").short('b'),
        value("console-socket", "unix socket that gets the master of the terminal"),
        value("pid-file", "file to write the pid of the init process to"),
        switch("detach", "return when the container runs").short('d'),
        switch("no-subreaper", "leave orphans of the container to the caller"),
        switch("no-pivot", "accepted for callers that create with it; CRIU makes the mounts"),
        switch("tcp-close", "bring TCP connections back closed"),
        value("lsm-profile", "LSM profile to restore with, TYPE:NAME"),
        value("lsm-mount-context", "LSM context for mounts"),
        id(),
    ]);
    args
}

fn exec_args() -> Vec<Arg> {
    vec![
        value("console-socket", "unix socket that gets the master of the terminal"),
        value("pidfd-socket", "unix socket that gets a pidfd of the process"),
        value("cwd", "working directory in the container"),
        list("env", "variable to add, NAME=value (may be repeated)").short('e'),
        switch("tty", "give the process a terminal").short('t'),
        value("user", "UID[:GID] of the process").short('u'),
        list("additional-gids", "group id to add (may be repeated)").short('g'),
        value("process", "file with the process as JSON, in place of the command").short('p'),
        switch("detach", "return when the process runs").short('d'),
        value("pid-file", "file to write the pid of the process to"),
        value("process-label", "SELinux label of the process"),
        value("apparmor", "AppArmor profile of the process"),
        switch("no-new-privs", "set no_new_privs for the process"),
        list("cap", "capability to add (may be repeated)").short('c'),
        value("preserve-fds", "how many descriptors to hand on after stdio"),
        list("cgroup", "existing cgroup below the container's, [CONTROLLER,..:]PATH (may be repeated)"),
        switch("ignore-paused", "go on although the container is paused"),
        id(),
        word("command", "program and its arguments").any_number(),
    ]
}

fn update_args() -> Vec<Arg> {
    vec![
        value("resources", "file with linux.resources as JSON, - for stdin; other flags are ignored")
            .short('r'),
        value("blkio-weight", "block I/O weight, 10 to 1000"),
        value("cpu-period", "CPU period, microseconds"),
        value("cpu-quota", "CPU time a period, microseconds; -1 for no limit"),
        value("cpu-burst", "CPU time that may be saved up, microseconds"),
        value("cpu-share", "CPU shares, relative to other containers"),
        value("cpu-rt-period", "CPU period for realtime, microseconds"),
        value("cpu-rt-runtime", "realtime CPU time a period, microseconds"),
        value("cpuset-cpus", "CPUs to use"),
        value("cpuset-mems", "memory nodes to use"),
        value("cpu-idle", "1: run only when nobody else wants to; 0: as usual"),
        value("memory", "memory limit, bytes or with a unit (512m); -1 for no limit"),
        value("memory-reservation", "memory reservation, bytes or with a unit"),
        value("memory-swap", "limit of memory and swap together, bytes or with a unit; -1 for no limit"),
        value("kernel-memory", "accepted for old callers").hide(true),
        value("kernel-memory-tcp", "accepted for old callers").hide(true),
        value("pids-limit", "largest number of processes; -1 for no limit"),
        value("l3-cache-schema", "Intel RDT: share of the L3 cache"),
        value("mem-bw-schema", "Intel RDT: share of the memory bandwidth"),
        id(),
    ]
}

const fn value(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name, Kind::Value, help)
}

const fn list(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name, Kind::List, help)
}

/// A positional argument.
const fn word(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name, Kind::Positional, help)
}

/// A flag without a value.
pub const fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name, Kind::Switch, help)
}

fn format() -> Arg {
    value("format", "table (default) or json").short('f')
}

fn id() -> Arg {
    word("container-id", "name of the container, unique under its root").required()
}

/// The last value of a flag. Callers pass an empty value where they mean none, as runc takes it.
fn last(words: &Words, name: &str) -> Option<OsString> {
    words.value(name).filter(|value| !value.is_empty()).map(OsStr::to_owned)
}

fn path(words: &Words, name: &str) -> Option<PathBuf> {
    last(words, name).map(PathBuf::from)
}

fn text(words: &Words, name: &str) -> Result<Option<String>, String> {
    words.value(name).filter(|value| !value.is_empty()).map(|value| utf8(name, value)).transpose()
}

fn texts(words: &Words, name: &str) -> Result<Vec<String>, String> {
    words.values(name).map(|value| utf8(name, value)).collect()
}

fn utf8(name: &str, value: &OsStr) -> Result<String, String> {
    value.to_str().map(str::to_owned).ok_or_else(|| invalid(name, value))
}

fn number(name: &str, value: &OsStr) -> Result<u32, String> {
    value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| invalid(name, value))
}

fn integer(words: &Words, name: &str) -> Result<Option<i64>, String> {
    let parse = |value: &OsStr| value.to_str().and_then(|text| text.parse().ok());
    words.value(name).map(|value| parse(value).ok_or_else(|| invalid(name, value))).transpose()
}

fn invalid(name: &str, value: &OsStr) -> String {
    format!("invalid value {:?} for flag -{name}: parse error", value.to_string_lossy())
}

/// The first positional word, which the parser has checked to be an id.
fn read_id(words: &Words) -> String {
    words.positional.first().map(|id| id.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The words after the id.
fn rest(words: &Words) -> Vec<OsString> {
    words.positional.iter().skip(1).map(|word| (*word).to_owned()).collect()
}

fn read_format(words: &Words) -> Result<OutputFormat, String> {
    match text(words, "format")?.as_deref() {
        None | Some("table") => Ok(OutputFormat::Table),
        Some("json") => Ok(OutputFormat::Json),
        Some(other) => Err(format!("invalid format option {other:?}: neither table nor json")),
    }
}

fn read_preserve_fds(words: &Words) -> Result<u32, String> {
    words.value("preserve-fds").map_or(Ok(0), |value| number("preserve-fds", value))
}

fn read_create(words: &Words) -> Result<Create, String> {
    Ok(Create {
        id: read_id(words),
        bundle: path(words, "bundle"),
        console_socket: path(words, "console-socket"),
        pidfd_socket: path(words, "pidfd-socket"),
        pid_file: path(words, "pid-file"),
        no_pivot: words.switch("no-pivot"),
        no_new_keyring: words.switch("no-new-keyring"),
        preserve_fds: read_preserve_fds(words)?,
    })
}

fn read_criu(words: &Words) -> Result<Criu, String> {
    Ok(Criu {
        image_path: path(words, "image-path"),
        work_path: path(words, "work-path"),
        tcp_established: words.switch("tcp-established"),
        ext_unix_sk: words.switch("ext-unix-sk"),
        shell_job: words.switch("shell-job"),
        file_locks: words.switch("file-locks"),
        auto_dedup: words.switch("auto-dedup"),
        lazy_pages: words.switch("lazy-pages"),
        manage_cgroups_mode: text(words, "manage-cgroups-mode")?.unwrap_or_default(),
        empty_ns: texts(words, "empty-ns")?,
    })
}

fn read_checkpoint(words: &Words) -> Result<Command, String> {
    let status_fd = integer(words, "status-fd")?.filter(|&fd| fd >= 0);
    Ok(Command::Checkpoint(Checkpoint {
        id: read_id(words),
        criu: read_criu(words)?,
        parent_path: path(words, "parent-path"),
        leave_running: words.switch("leave-running"),
        tcp_skip_in_flight: words.switch("tcp-skip-in-flight"),
        link_remap: words.switch("link-remap"),
        status_fd: status_fd.map(|fd| i32::try_from(fd).unwrap_or(i32::MAX)),
        page_server: text(words, "page-server")?,
        pre_dump: words.switch("pre-dump"),
    }))
}

fn read_restore(words: &Words) -> Result<Command, String> {
    Ok(Command::Restore(Restore {
        create: Create {
            id: read_id(words),
            bundle: path(words, "bundle"),
            console_socket: path(words, "console-socket"),
            pid_file: path(words, "pid-file"),
            no_pivot: words.switch("no-pivot"),
            ..Create::default()
        },
        criu: read_criu(words)?,
        detach: words.switch("detach"),
        no_subreaper: words.switch("no-subreaper"),
        tcp_close: words.switch("tcp-close"),
        lsm_profile: text(words, "lsm-profile")?,
        lsm_mount_context: text(words, "lsm-mount-context")?,
    }))
}

fn read_exec(words: &Words) -> Result<Command, String> {
    let gids = words.values("additional-gids").map(|gid| number("additional-gids", gid));
    Ok(Command::Exec(Exec {
        id: read_id(words),
        args: rest(words),
        console_socket: path(words, "console-socket"),
        pidfd_socket: path(words, "pidfd-socket"),
        cwd: text(words, "cwd")?,
        env: words.values("env").map(OsStr::to_owned).collect(),
        tty: words.switch("tty"),
        user: text(words, "user")?,
        additional_gids: gids.collect::<Result<_, _>>()?,
        process: path(words, "process"),
        detach: words.switch("detach"),
        pid_file: path(words, "pid-file"),
        process_label: text(words, "process-label")?,
        apparmor: text(words, "apparmor")?,
        no_new_privs: words.switch_if_given("no-new-privs"),
        caps: texts(words, "cap")?,
        preserve_fds: read_preserve_fds(words)?,
        cgroups: texts(words, "cgroup")?,
        ignore_paused: words.switch("ignore-paused"),
    }))
}

/// `--interval` as Go writes durations. None: less than nothing.
fn read_interval(words: &Words) -> Result<Option<Duration>, String> {
    let Some(value) = words.value("interval") else { return Ok(Some(DEFAULT_INTERVAL)) };
    let text = value.to_str().unwrap_or_default();
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let length = duration(rest).ok_or_else(|| invalid("interval", value))?;
    Ok((!negative).then_some(length))
}

/// `0`, or numbers each with a unit: `1m30s`, `1.5h`, `250ms`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let (mut seconds, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let length = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..length] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[length..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

fn read_update(words: &Words) -> Result<Command, String> {
    Ok(Command::Update(Update {
        id: read_id(words),
        resources: path(words, "resources"),
        blkio_weight: integer(words, "blkio-weight")?.unwrap_or(0),
        cpu_period: text(words, "cpu-period")?,
        cpu_quota: text(words, "cpu-quota")?,
        cpu_burst: text(words, "cpu-burst")?,
        cpu_share: text(words, "cpu-share")?,
        cpu_rt_period: text(words, "cpu-rt-period")?,
        cpu_rt_runtime: text(words, "cpu-rt-runtime")?,
        cpuset_cpus: text(words, "cpuset-cpus")?,
        cpuset_mems: text(words, "cpuset-mems")?,
        cpu_idle: text(words, "cpu-idle")?,
        memory: text(words, "memory")?,
        memory_reservation: text(words, "memory-reservation")?,
        memory_swap: text(words, "memory-swap")?,
        kernel_memory: text(words, "kernel-memory")?,
        kernel_memory_tcp: text(words, "kernel-memory-tcp")?,
        pids_limit: integer(words, "pids-limit")?,
        l3_cache_schema: text(words, "l3-cache-schema")?,
        mem_bw_schema: text(words, "mem-bw-schema")?,
    }))
}

/// Reads the flags before the command.
///
/// # Errors
/// A value of the wrong form.
pub fn read_global(words: &Words) -> Result<Global, String> {
    Ok(Global {
        root: words.value("root").map(absolute).transpose()?,
        log: path(words, "log"),
        log_format: match text(words, "log-format")?.as_deref() {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => return Err(format!("invalid log-format: {other}")),
        },
        debug: words.switch("debug"),
        systemd_cgroup: words.switch("systemd-cgroup"),
        rootless: match text(words, "rootless")? {
            Some(value) if !value.eq_ignore_ascii_case("auto") => {
                Some(parse_bool(&value).ok_or_else(|| invalid("rootless", OsStr::new(&value)))?)
            }
            _ => None,
        },
    })
}

/// `--root` as an absolute path without `.` and `..`, resolved as text like runc does.
fn absolute(root: &OsStr) -> Result<PathBuf, String> {
    let refuse = || "Option --root argument should not be set to /".to_owned();
    if root.is_empty() {
        return Err(refuse());
    }
    let path = std::path::absolute(root).map_err(|error| format!("make --root absolute: {error}"))?;
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    if clean == Path::new("/") { Err(refuse()) } else { Ok(clean) }
}
