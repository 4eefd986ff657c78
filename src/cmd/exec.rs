//! `exec`.

use crate::cli::Global;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs the command.
pub fn exec(_global: &Global, _args: crate::cli::Exec) -> Result<ExitCode> {
    bail!("exec is not part of this build")
}
