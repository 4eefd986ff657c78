//! `kill`.

use crate::cli::Global;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs the command.
pub fn kill(_global: &Global, _args: crate::cli::Kill) -> Result<ExitCode> {
    bail!("kill is not part of this build")
}
