//! `delete`.

use crate::cli::Global;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs the command.
pub fn delete(_global: &Global, _id: &str, _force: bool) -> Result<ExitCode> {
    bail!("delete is not part of this build")
}
