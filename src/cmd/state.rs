//! `state`.

use crate::cli::Global;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs the command.
pub fn state(_global: &Global, _id: &str) -> Result<ExitCode> {
    bail!("state is not part of this build")
}
