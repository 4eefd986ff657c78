//! One file a command. Each takes the global flags and its own, prints its result to stdout and returns the exit
//! status; `main` prints an error it returns.

pub mod checkpoint;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod list;
pub mod pause;
pub mod ps;
pub mod restore;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;
pub mod version;

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// A path of the command line, absolute: what follows may change the current directory.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("make {} absolute", path.display()))
}
