//! Units of systemd as a test sees them: properties, what a runtime says of them over the message bus, and the way out for
//! what a failed test has left.

use crate::cx::{Cx, skip, wait_for};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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

/// Somebody who has stopped, until this is dropped.
pub enum Stopped {
    /// systemd: frozen, because nobody can send it SIGSTOP from within its pid namespace.
    Systemd,
    /// The message bus.
    Bus(Pid),
}

/// systemd's own cgroup on v2, and one for it on v1.
const FREEZE: &str = "/sys/fs/cgroup/init.scope/cgroup.freeze";
const FREEZER: &str = "/sys/fs/cgroup/freezer";

impl Stopped {
    /// Stops systemd.
    pub fn systemd() -> Result<Stopped> {
        if crate::cgroup::unified() {
            fs::write(FREEZE, "1").context("freeze systemd")?;
            wait_for("systemd to freeze", || {
                let events = fs::read_to_string("/sys/fs/cgroup/init.scope/cgroup.events")?;
                Ok(events.contains("frozen 1").then_some(()))
            })?;
            return Ok(Stopped::Systemd);
        }
        let dir = PathBuf::from(FREEZER).join("stopped");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("cgroup.procs"), "1").context("move systemd to a freezer")?;
        fs::write(dir.join("freezer.state"), "FROZEN").context("freeze systemd")?;
        wait_for("systemd to freeze", || {
            Ok((fs::read_to_string(dir.join("freezer.state"))?.trim() == "FROZEN").then_some(()))
        })?;
        Ok(Stopped::Systemd)
    }

    /// Stops the message bus.
    pub fn bus() -> Result<Stopped> {
        systemctl(&["start", "dbus.service"])?;
        let pid = Pid::from_raw(property("dbus.service", "MainPID")?.parse()?);
        ensure!(pid.as_raw() > 1, "the message bus has no process");
        kill(pid, Signal::SIGSTOP)?;
        wait_for("the message bus to stop", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            Ok(status.contains("State:\tT").then_some(()))
        })?;
        Ok(Stopped::Bus(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        match self {
            Stopped::Systemd => wake_systemd(),
            // Gone, it is not stopped either.
            Stopped::Bus(pid) => drop(kill(*pid, Signal::SIGCONT)),
        }
    }
}

fn wake_systemd() {
    // Where one of these is not there, nobody has stopped it that way.
    let _ = fs::write(FREEZE, "0");
    let dir = PathBuf::from(FREEZER).join("stopped");
    if dir.exists() {
        let _ = fs::write(dir.join("freezer.state"), "THAWED");
        let _ = fs::write(PathBuf::from(FREEZER).join("cgroup.procs"), "1");
        let _ = fs::remove_dir(dir);
    }
}

/// Has systemd and the message bus go on after a test that may have stopped them.
pub fn wake_all() {
    wake_systemd();
    if let Ok(Ok(pid)) = property("dbus.service", "MainPID").map(|pid| pid.parse())
        && pid > 1
    {
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
    }
}
