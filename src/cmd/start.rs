//! `start`.

use crate::cli::Global;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs the command.
pub fn start(_global: &Global, _id: &str) -> Result<ExitCode> {
    bail!("start is not part of this build")
}
