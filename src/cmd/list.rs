//! `list`.

use crate::cli::Global;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs the command.
pub fn list(_global: &Global, _format: crate::cli::OutputFormat, _quiet: bool) -> Result<ExitCode> {
    bail!("list is not part of this build")
}
