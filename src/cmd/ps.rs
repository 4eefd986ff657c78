//! `ps`: the processes of a container.

use crate::cli::{self, Global, OutputFormat};
use crate::exit::ExitCode;
use crate::state::{Status, Store};
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Prints pids as JSON, or the lines of ps(1) that belong to the container.
pub fn ps(global: &Global, args: cli::Ps) -> Result<ExitCode> {
    let store = Store::new(global.root.as_deref())?;
    let (dir, state) = store.load(&args.id)?;
    let stopped = state.status(&dir)?.0 == Status::Stopped;
    // In a pid namespace with others its processes may outlive the first.
    let pids = if stopped && !state.shares_pids() { Vec::new() } else { state.cgroup.procs()? };
    if args.format == OutputFormat::Json {
        let text = if stopped && pids.is_empty() { "null".into() } else { serde_json::to_string(&pids)? };
        return crate::print(&format!("{text}\n"));
    }
    let default = ["-ef".into()];
    let options = if args.args.is_empty() { &default[..] } else { &args.args };
    let output = Command::new("ps").args(options).output().context("run ps")?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    crate::print(&filter(&text, &pids)?)
}

/// Keeps the title and the lines whose PID column holds one of `pids`.
fn filter(text: &str, pids: &[i32]) -> Result<String> {
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let column =
        title.split_whitespace().position(|word| word == "PID").context("ps: no PID field in its output")?;
    let mut kept = format!("{title}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_stay() {
        let text = "UID PID CMD\nroot 1 init\nroot 12 sh\nroot x y\n";
        assert_eq!(filter(text, &[12]).unwrap(), "UID PID CMD\nroot 12 sh\n");
        assert!(filter("A B\n", &[]).is_err());
    }
}
