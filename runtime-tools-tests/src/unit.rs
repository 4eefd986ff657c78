//! Units of systemd as a test sees them: properties, what a runtime says of them over the message bus, and the way out for
//! what a failed test has left.

use crate::cx::{Cx, skip, wait_for};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// With this in its environment a runtime speaks to systemd over the message bus, where it can be overheard.
pub const BUS: (&str, &str) = ("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/dbus/system_bus_socket");

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

/// Overhears what systemd is told over the message bus.
pub struct Monitor {
    busctl: Child,
    heard: PathBuf,
}

impl Monitor {
    /// Listens from now on.
    pub fn new(cx: &Cx) -> Result<Monitor> {
        let heard = cx.path("heard");
        let busctl = Command::new("busctl")
            .args(["--system", "--json=short", "--match=type='method_call'", "monitor"])
            .stdin(Stdio::null())
            .stdout(File::create(&heard)?)
            .stderr(Stdio::null())
            .spawn();
        let Ok(busctl) = busctl else { return skip("no busctl here") };
        let monitor = Monitor { busctl, heard };
        monitor.hears("begin")?;
        Ok(monitor)
    }

    /// The properties that `unit` was given so far, the last of each name, as the bus carries them.
    pub fn properties(&self, unit: &str) -> Result<BTreeMap<String, Value>> {
        let mut all = BTreeMap::new();
        // Messages keep their order: once this one is heard, all before it are.
        for line in self.hears("end")?.lines() {
            let message: Value = serde_json::from_str(line).with_context(|| format!("busctl: {line}"))?;
            let (member, data) = (message["member"].as_str(), &message["payload"]["data"]);
            if matches!(member, Some("StartTransientUnit" | "SetUnitProperties")) && data[0] == unit {
                for property in data[2].as_array().into_iter().flatten() {
                    let name = property[0].as_str().unwrap_or_default();
                    all.insert(name.to_string(), property[1]["data"].clone());
                }
            }
        }
        Ok(all)
    }

    /// Says a word until it is heard; all that was heard so far.
    fn hears(&self, word: &str) -> Result<String> {
        wait_for("the message bus", || {
            // There is no such unit.
            let _ = Command::new("busctl")
                .args(["--system", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"])
                .args(["org.freedesktop.systemd1.Manager", "GetUnit", "s", word])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .status()?;
            std::thread::sleep(Duration::from_millis(20));
            let text = fs::read_to_string(&self.heard)?;
            Ok((text.contains(&format!("[\"{word}\"]")) && text.ends_with('\n')).then_some(text))
        })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.busctl.kill();
        let _ = self.busctl.wait();
    }
}
