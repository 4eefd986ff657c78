//! `create`.

use crate::cli::Global;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs the command.
pub fn create(_global: &Global, _args: crate::cli::Create) -> Result<ExitCode> {
    bail!("create is not part of this build")
}
