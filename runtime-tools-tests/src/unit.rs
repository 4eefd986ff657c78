//! Units of systemd as a test sees them: properties, and the way out for what a failed test has left.

use anyhow::{Context, Result, ensure};
use std::process::Command;

/// Runs systemctl; its output, trimmed.
pub fn systemctl(args: &[&str]) -> Result<String> {
    let out = Command::new("systemctl").args(args).output().context("run systemctl")?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "systemctl {}: {}: {}", args.join(" "), out.status, said.trim());
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_string())
}

/// A property of a unit as systemctl prints it; several lines for a list.
pub fn property(unit: &str, name: &str) -> Result<String> {
    systemctl(&["show", "--value", "-p", name, "--", unit])
}

/// The names of loaded units that hold `mark`.
pub fn with_mark(mark: &str) -> Result<Vec<String>> {
    let list =
        systemctl(&["list-units", "--all", "--plain", "--no-legend", "--no-pager", &format!("*{mark}*")])?;
    Ok(list.lines().filter_map(|line| line.split_whitespace().next()).map(String::from).collect())
}

/// Ends every unit that holds `mark`. Each by itself: one that is gone meanwhile must not keep the others.
pub fn stop_all(mark: &str) -> Result<()> {
    for unit in with_mark(mark)? {
        for command in ["kill", "stop", "reset-failed"] {
            let signal: &[&str] = if command == "kill" { &["--signal=KILL"] } else { &[] };
            // It may be gone.
            let _ = systemctl(&[&[command], signal, &["--", &unit]].concat());
        }
    }
    Ok(())
}
