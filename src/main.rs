//! naru, a low-level OCI container runtime: command line in, one command, at most one error line, exit status out.
//!
//! Exit status: 0; 1 for every failure of the runtime, but 255 for `exec` (its callers tell it from the program's
//! status by that) and 3 for an unknown command; the program's own for `run` and `exec` in the foreground.
//!
//! The C library calls [`sys::start`]'s `main` itself: Rust's own start-up would make a dozen system calls for stack guards
//! and signal stacks, and panics where one of them fails.
#![cfg_attr(not(test), no_main)]

mod agent;
mod bundle;
mod cgroup;
mod cli;
mod cmd;
mod console;
mod criu;
mod exit;
mod explain;
mod first_fds;
mod hooks;
mod idmap;
mod idmapped;
mod init;
mod json;
mod log;
mod lsm;
mod net;
mod netlink;
mod notify;
mod patience;
mod pid_file;
mod plan;
mod resctrl;
mod signals;
mod spawn;
mod state;
mod sync;
mod sys;
mod time;

use anyhow::{Context, Result};
use cli::{Command, Global, Refusal, Request};
use exit::ExitCode;
use nix::errno::Errno;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use sys::ahead::Ahead;

/// What `main` of the C library calls. Returns the exit status.
pub fn run_main(argv: &[OsString]) -> ExitCode {
    if let Err(errno) = first_fds::take_stock(argv) {
        log::error(format_args!("mark inherited descriptors close-on-exec: {}", sys::words(errno)));
        return ExitCode::FAILURE;
    }
    let program = cli::program(argv.first().map_or(OsStr::new(""), |word| word));
    match cli::parse(argv) {
        Ok(Request::Run { global, command, failure }) => run(&program, &global, command, failure),
        Ok(Request::Help(text)) => print_help(&text),
        Ok(Request::Version) => print_help(&cmd::version::text(&program)),
        Err(refusal) => refuse(&refusal),
    }
}

fn run(program: &str, global: &Global, command: Command, failure: u8) -> ExitCode {
    if let Err(error) = log::init(global.log.as_deref(), global.log_format, global.debug) {
        log::error(describe(&error));
        return ExitCode::FAILURE;
    }
    // How runc begins the errors of the commands that start processes.
    let context = match command {
        Command::Create(_) => format!("{program} create failed: "),
        Command::Run(_) => format!("{program} run failed: "),
        Command::Exec(_) => "exec failed: ".to_owned(),
        _ => String::new(),
    };
    // First, because it takes longer than everything else that follows before the init stage is cloned.
    let starts = matches!(command, Command::Create(_) | Command::Run(_));
    let ahead = if starts && sys::process::is_root() { Ahead::begin().ok() } else { None };
    if !matches!(command, Command::Exec(_)) {
        // The code of exec is replaced as its first act.
        sys::layout::map_start();
    }
    // Before the frames of those that read a configuration.
    if matches!(command, Command::Create(_) | Command::Run(_) | Command::Exec(_)) {
        sys::layout::populate_stack();
    }
    dispatch(global, command, ahead).unwrap_or_else(|error| {
        match error.downcast_ref::<explain::NotRun>() {
            // The program's own last word rather than the runtime's, as runc has it.
            Some(not_run) if context.contains(" run ") => log::error_bare(not_run),
            _ => log::error(format_args!("{context}{}", describe(&error))),
        }
        ExitCode::from(failure)
    })
}

fn dispatch(global: &Global, command: Command, ahead: Option<Ahead>) -> Result<ExitCode> {
    match command {
        Command::Checkpoint(args) => cmd::checkpoint::checkpoint(global, args),
        Command::Create(args) => cmd::create::create(global, args, ahead),
        Command::Restore(args) => cmd::restore::restore(global, args),
        Command::Run(args) => cmd::run::run(global, args, ahead),
        Command::Start { id } => cmd::start::start(global, &id),
        Command::State { id } => cmd::state::state(global, &id),
        Command::Kill(args) => cmd::kill::kill(global, args),
        Command::Delete { id, force } => cmd::delete::delete(global, &id, force),
        Command::Events(args) => cmd::events::events(global, args),
        Command::Exec(args) => cmd::exec::exec(global, args),
        Command::List { format, quiet } => cmd::list::list(global, format, quiet),
        Command::Pause { id } => cmd::pause::pause(global, &id),
        Command::Ps(args) => cmd::ps::ps(global, args),
        Command::Resume { id } => cmd::pause::resume(global, &id),
        Command::Spec(args) => cmd::spec::spec(args),
        Command::Update(args) => cmd::update::update(global, args),
        Command::Features => cmd::features::features(),
    }
}

/// Prints the usage to stdout and the error where errors go.
fn refuse(refusal: &Refusal) -> ExitCode {
    let global = &refusal.global;
    print_help(&refusal.usage);
    match log::init(global.log.as_deref(), global.log_format, global.debug) {
        Ok(()) => log::error(&refusal.message),
        Err(error) => log::error(describe(&error)),
    }
    ExitCode::from(refusal.code)
}

/// Writes a text to stdout.
pub fn print(text: &str) -> Result<ExitCode> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to stdout")?;
    Ok(ExitCode::SUCCESS)
}

/// Prints help: a caller that does not read it is no failure.
fn print_help(text: &str) -> ExitCode {
    print(text).unwrap_or(ExitCode::SUCCESS)
}

/// The whole chain of an error in one line: `create state directory /run/naru/c1: EACCES: permission denied`.
///
/// Engines match the kernel's words in lower case, as Go prints them, so a cause with an errno is printed that way.
fn describe(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let errno = match (cause.downcast_ref::<Errno>(), cause.downcast_ref::<io::Error>()) {
            (Some(errno), _) => Some(*errno),
            (None, Some(error)) => error.raw_os_error().map(Errno::from_raw),
            (None, None) => None,
        };
        if !line.is_empty() {
            line.push_str(": ");
        }
        match errno {
            Some(errno) => line.push_str(&format!("{errno:?}: {}", sys::words(errno))),
            None => line.push_str(&cause.to_string()),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn errors_carry_the_phrases_engines_match() {
        // dockerd: permission denied => 126, no such file or directory => 127; the shim: no such process => NotFound.
        for (errno, phrase) in [
            (Errno::EACCES, "EACCES: permission denied"),
            (Errno::EPERM, "EPERM: operation not permitted"),
            (Errno::ENOENT, "ENOENT: no such file or directory"),
            (Errno::ESRCH, "ESRCH: no such process"),
            (Errno::EISDIR, "EISDIR: is a directory"),
            (Errno::ENOTDIR, "ENOTDIR: not a directory"),
        ] {
            let raw = Err::<(), _>(errno).context("open /x").context("/process/args");
            assert_eq!(describe(&raw.unwrap_err()), format!("/process/args: open /x: {phrase}"));
            let std = Err::<(), _>(io::Error::from_raw_os_error(errno as i32)).context("open /x");
            assert_eq!(describe(&std.unwrap_err()), format!("open /x: {phrase}"));
        }
        assert_eq!(describe(&anyhow::anyhow!("container does not exist")), "container does not exist");
    }
}
