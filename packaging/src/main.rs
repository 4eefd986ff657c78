//! `naru-pages DIR`: writes the man page of naru and of every command, and completions for bash, zsh and fish, below `DIR`
//! as they are installed below a prefix's `share`.
//!
//! The texts come from the definitions that naru itself reads command lines by: its source files are included here.

#![allow(dead_code)]

#[path = "../../src"]
mod naru {
    pub mod cli;
}

/// All that the definitions take from naru's log.
mod log {
    /// `--log-format`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum Format {
        /// Lines for people.
        #[default]
        Text,
        /// Lines for programs.
        Json,
    }
}

use anyhow::{Context, Result, bail};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use naru::cli;
use std::fs;
use std::path::Path;

const NAME: &str = "naru";
/// Administration commands.
const SECTION: &str = "8";

fn main() -> Result<()> {
    let [_, dir] = &std::env::args_os().collect::<Vec<_>>()[..] else { bail!("usage: naru-pages DIR") };
    let dir = Path::new(dir);
    let tree = cli::tree(NAME);
    let commands: Vec<&Command> = tree.get_subcommands().collect();
    page(dir, NAME, &tree, &description(), &main_sections(&commands))?;
    for command in &commands {
        page(dir, &format!("{NAME}-{}", command.get_name()), command, &Roff::new(), &command_sections())?;
    }
    for (shell, path) in [
        (Shell::Bash, "bash-completion/completions/naru"),
        (Shell::Zsh, "zsh/site-functions/_naru"),
        (Shell::Fish, "fish/vendor_completions.d/naru.fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut tree.clone(), NAME, &mut text);
        write(&dir.join(path), &text)?;
    }
    Ok(())
}

/// One man page: what clap knows of the command, with sections of our own before and after its options.
fn page(dir: &Path, name: &str, command: &Command, before: &Roff, after: &Roff) -> Result<()> {
    // Without subcommands: each has a page of its own, which the list in our sections names.
    // clap wants names that live forever.
    let name: &'static str = name.to_owned().leak();
    let mut shown = Command::new(name)
        .display_name(name)
        .bin_name(name.replacen('-', " ", 1))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(command.get_arguments());
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if name == NAME {
        shown = shown.override_usage("naru [global options] COMMAND [options] [arguments]");
    }
    shown.build();
    let man = Man::new(shown);
    // No date: it would make every build another one.
    let version = env!("CARGO_PKG_VERSION");
    let mut text =
        format!(".TH {name} {SECTION} \"\" \"{NAME} {version}\" \"System administration\"\n").into_bytes();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    before.to_writer(&mut text)?;
    man.render_options_section(&mut text)?;
    after.to_writer(&mut text)?;
    write(&dir.join(format!("man/man{SECTION}/{name}.{SECTION}")), &text)
}

fn description() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "naru is a low-level OCI container runtime: container engines call it to make, start and remove containers. Its \
         command line, output, exit codes and error phrases are those of runc.",
    )]);
    roff
}

fn main_sections(commands: &[&Command]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for command in commands {
        roff.control("TP", []);
        roff.text([bold(format!("{NAME}-{}({SECTION})", command.get_name()))]);
        roff.text([roman(command.get_about().map(ToString::to_string).unwrap_or_default())]);
    }
    roff.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in [
        ("0", "The command did what it was asked for."),
        ("1", "It failed, and says why in one line."),
        ("3", "There is no such command."),
        ("255", "exec failed; any other status is that of the process."),
    ] {
        roff.control("TP", []);
        roff.text([bold(status)]);
        roff.text([roman(meaning)]);
    }
    roff.text([roman("run, restore and exec in the foreground end with the status of the program.")]);
    roff.control("SH", ["FILES"]);
    for (path, meaning) in [
        ("/run/naru", "State of root's containers, unless --root names another directory."),
        ("$XDG_RUNTIME_DIR/naru", "The same for other users."),
        (
            "/etc/criu/runc.conf",
            "Configuration for CRIU, unless the annotation org.criu.config names another file.",
        ),
    ] {
        roff.control("TP", []);
        roff.text([bold(path)]);
        roff.text([roman(meaning)]);
    }
    roff
}

fn command_sections() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold(NAME), roman(format!("({SECTION})"))]);
    roff
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    let parent = path.parent().context("a path without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("make directory {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
