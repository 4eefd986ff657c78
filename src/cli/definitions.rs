//! The definitions: every command with its flags, for clap, and how their values become a [`Command`].
//!
//! The only place that knows a flag's name. No side effects; called by the parser.

use super::words::parse_bool;
use super::{Command, Create, Exec, Global, Kill, OutputFormat, Ps, Run, Spec};
use crate::log::Format;
use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// A command as clap and [`scan`] need it.
pub struct Definition {
    pub name: &'static str,
    pub about: &'static str,
    /// Flags and positional arguments.
    pub args: fn() -> Vec<Arg>,
    /// Flags end at the first positional argument: what follows belongs to another program.
    pub stops: bool,
    /// Exit status if the runtime fails. Callers of `exec` tell it from the program's own by this.
    pub failure: u8,
    pub read: fn(&mut Values) -> Result<Command, String>,
}

/// Every command there is; one that is missing here is unknown in every respect, so that callers who probe for it
/// (Podman and CRI-O run `checkpoint --help`) see that it is missing.
pub const COMMANDS: &[Definition] = &[
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
        read: |v| Ok(Command::Create(v.create()?)),
    },
    Definition {
        name: "delete",
        about: "remove a stopped container and everything made for it",
        args: || vec![switch("force", "kill the container first if it is running").short('f'), id()],
        stops: false,
        failure: 1,
        read: |v| Ok(Command::Delete { id: v.id()?, force: v.switch("force") }),
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
        about: "send a signal (SIGTERM) to the init process of a container",
        args: || {
            vec![
                switch("all", "accepted for old callers").short('a').hide(true),
                id(),
                word("signal", "name or number"),
            ]
        },
        stops: true,
        failure: 1,
        read: |v| {
            let all = v.switch("all");
            Ok(Command::Kill(Kill { id: v.id()?, signal: v.text("signal")?, all }))
        },
    },
    Definition {
        name: "list",
        about: "list the containers of a root",
        args: || vec![format(), switch("quiet", "print ids only").short('q')],
        stops: false,
        failure: 1,
        read: |v| Ok(Command::List { format: v.format()?, quiet: v.switch("quiet") }),
    },
    Definition {
        name: "ps",
        about: "list the processes in a container",
        args: || vec![format(), id(), word("args", "options of ps(1)").num_args(0..)],
        stops: true,
        failure: 1,
        read: |v| Ok(Command::Ps(Ps { id: v.id()?, format: v.format()?, args: v.list("args") })),
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
                create: v.create()?,
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
        read: |v| Ok(Command::Spec(Spec { bundle: v.path("bundle"), rootless: v.switch("rootless") })),
    },
    Definition {
        name: "start",
        about: "let the program of a created container run",
        args: || vec![id()],
        stops: false,
        failure: 1,
        read: |v| Ok(Command::Start { id: v.id()? }),
    },
    Definition {
        name: "state",
        about: "print the state of a container, as JSON",
        args: || vec![id()],
        stops: false,
        failure: 1,
        read: |v| Ok(Command::State { id: v.id()? }),
    },
];

/// Flags that stand before the command.
pub fn global_args() -> Vec<Arg> {
    vec![
        switch("debug", "log at debug level"),
        value("log", "file to append the log to (default: stderr)"),
        value("log-format", "form of the log: text (default) or json"),
        value("root", "directory of all container states; should be on a tmpfs"),
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
        value("preserve-fds", "file descriptors to hand on after stdio and $LISTEN_FDS"),
    ]
}

fn exec_args() -> Vec<Arg> {
    vec![
        value("console-socket", "unix socket that gets the master of the terminal"),
        value("pidfd-socket", "unix socket that gets a pidfd of the process"),
        value("cwd", "working directory in the container"),
        list("env", "variable to add, NAME=value").short('e'),
        switch("tty", "give the process a terminal").short('t'),
        value("user", "UID[:GID] of the process").short('u'),
        list("additional-gids", "group id to add").short('g'),
        value("process", "file with the process as JSON").short('p'),
        switch("detach", "return when the process runs").short('d'),
        value("pid-file", "file to write the pid of the process to"),
        value("process-label", "SELinux label of the process"),
        value("apparmor", "AppArmor profile of the process"),
        switch("no-new-privs", "set no_new_privs for the process"),
        list("cap", "capability to add").short('c'),
        value("preserve-fds", "file descriptors to hand on after stdio and $LISTEN_FDS"),
        list("cgroup", "existing cgroup below the container's, [CONTROLLER,..:]PATH"),
        switch("ignore-paused", "go on although the container is paused"),
        id(),
        word("command", "program and its arguments").num_args(0..),
    ]
}

fn read_exec(v: &mut Values) -> Result<Command, String> {
    Ok(Command::Exec(Exec {
        id: v.id()?,
        args: v.list("command"),
        console_socket: v.path("console-socket"),
        pidfd_socket: v.path("pidfd-socket"),
        cwd: v.text("cwd")?,
        env: v.list("env"),
        tty: v.switch("tty"),
        user: v.text("user")?,
        additional_gids: v.numbers("additional-gids")?,
        process: v.path("process"),
        detach: v.switch("detach"),
        pid_file: v.path("pid-file"),
        process_label: v.text("process-label")?,
        apparmor: v.text("apparmor")?,
        no_new_privs: v.switch_if_given("no-new-privs"),
        caps: v.texts("cap")?,
        preserve_fds: v.number("preserve-fds")?,
        cgroups: v.texts("cgroup")?,
        ignore_paused: v.switch("ignore-paused"),
    }))
}

fn value(name: &'static str, help: &'static str) -> Arg {
    word(name, help).long(name).value_name("value").action(ArgAction::Set)
}

fn list(name: &'static str, help: &'static str) -> Arg {
    word(name, help).long(name).value_name("value").action(ArgAction::Append)
}

/// Values are stored as they came: no encoding is asked of paths and arguments.
fn word(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).help(help).value_parser(ValueParser::os_string())
}

/// A flag without a value.
pub fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

fn format() -> Arg {
    value("format", "table (default) or json").short('f')
}

fn id() -> Arg {
    word("container-id", "name of the container, unique under its root").required(true)
}

/// Values of one command line. A name that the command does not define is a mistake in a definition above; the
/// tests run every `read`.
pub struct Values {
    pub given: ArgMatches,
    /// Switches that were turned off in words.
    pub off: Vec<OsString>,
}

impl Values {
    fn switch(&self, name: &str) -> bool {
        self.given.get_flag(name)
    }

    /// A switch that means something else when it is not given than when it is off.
    fn switch_if_given(&self, name: &str) -> Option<bool> {
        let off = || self.off.iter().any(|off| off == name).then_some(false);
        self.switch(name).then_some(true).or_else(off)
    }

    fn os(&mut self, name: &str) -> Option<OsString> {
        // Callers pass an empty value where they mean none, as runc takes it.
        self.given.remove_one::<OsString>(name).filter(|value| !value.is_empty())
    }

    fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.os(name).map(PathBuf::from)
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        self.os(name).map(|value| text(name, value)).transpose()
    }

    fn list(&mut self, name: &str) -> Vec<OsString> {
        self.given.remove_many::<OsString>(name).map(Iterator::collect).unwrap_or_default()
    }

    fn texts(&mut self, name: &str) -> Result<Vec<String>, String> {
        self.list(name).into_iter().map(|value| text(name, value)).collect()
    }

    fn number(&mut self, name: &str) -> Result<u32, String> {
        self.os(name).map_or(Ok(0), |value| number(name, &value))
    }

    fn numbers(&mut self, name: &str) -> Result<Vec<u32>, String> {
        self.list(name).iter().map(|value| number(name, value)).collect()
    }

    fn id(&mut self) -> Result<String, String> {
        match self.given.remove_one::<OsString>("container-id") {
            Some(id) if !id.is_empty() => {
                id.into_string().map_err(|_| "invalid container ID format".to_owned())
            }
            _ => Err("container id cannot be empty".to_owned()),
        }
    }

    fn format(&mut self) -> Result<OutputFormat, String> {
        match self.text("format")?.as_deref() {
            None | Some("table") => Ok(OutputFormat::Table),
            Some("json") => Ok(OutputFormat::Json),
            Some(_) => Err("invalid format option".to_owned()),
        }
    }

    fn create(&mut self) -> Result<Create, String> {
        Ok(Create {
            id: self.id()?,
            bundle: self.path("bundle"),
            console_socket: self.path("console-socket"),
            pidfd_socket: self.path("pidfd-socket"),
            pid_file: self.path("pid-file"),
            no_pivot: self.switch("no-pivot"),
            no_new_keyring: self.switch("no-new-keyring"),
            preserve_fds: self.number("preserve-fds")?,
        })
    }

    /// The flags before the command.
    pub fn global(&mut self) -> Result<Global, String> {
        Ok(Global {
            root: self.given.remove_one::<OsString>("root").map(|root| absolute(&root)).transpose()?,
            log: self.path("log"),
            log_format: match self.text("log-format")?.as_deref() {
                None | Some("text") => Format::Text,
                Some("json") => Format::Json,
                Some(other) => return Err(format!("invalid log-format: {other}")),
            },
            debug: self.switch("debug"),
            systemd_cgroup: self.switch("systemd-cgroup"),
            rootless: match self.text("rootless")? {
                Some(value) if !value.eq_ignore_ascii_case("auto") => {
                    Some(parse_bool(&value).ok_or_else(|| invalid("rootless", OsStr::new(&value)))?)
                }
                _ => None,
            },
        })
    }
}

fn text(name: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|value| invalid(name, &value))
}

fn number(name: &str, value: &OsStr) -> Result<u32, String> {
    value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| invalid(name, value))
}

fn invalid(name: &str, value: &OsStr) -> String {
    format!("invalid value {:?} for flag -{name}: parse error", value.to_string_lossy())
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
