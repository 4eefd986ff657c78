//! `ps`.

use crate::cli::Global;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs the command.
pub fn ps(_global: &Global, _args: crate::cli::Ps) -> Result<ExitCode> {
    bail!("ps is not part of this build")
}
