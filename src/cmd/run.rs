//! `run`.

use crate::cli::Global;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs the command.
pub fn run(_global: &Global, _args: crate::cli::Run) -> Result<ExitCode> {
    bail!("run is not part of this build")
}
