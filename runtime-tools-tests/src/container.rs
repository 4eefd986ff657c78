//! One container by id: the lifecycle commands and what a test asks about it.

use crate::cx::{Cx, Out, eq, exit_code, wait_for};
use anyhow::{Context, Result, ensure};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A container that may or may not exist.
pub struct Container<'a> {
    /// The surroundings.
    pub cx: &'a Cx,
    /// Its id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
}

impl Container<'_> {
    /// `create` with more flags.
    pub fn create(&self, flags: &[&str]) -> Result<Out> {
        let bundle = self.bundle.display().to_string();
        let mut args = vec!["create", "--bundle", &bundle];
        args.extend(flags);
        args.push(&self.id);
        self.cx.rt(&args)
    }

    /// `start`.
    pub fn start(&self) -> Result<Out> {
        self.cx.rt(&["start", &self.id])
    }

    /// The state object; `state` must succeed.
    pub fn state(&self) -> Result<Value> {
        self.cx.rt(&["state", &self.id])?.ok()?.json()
    }

    /// The status word.
    pub fn status(&self) -> Result<String> {
        Ok(self.state()?["status"].as_str().unwrap_or_default().to_string())
    }

    /// Fails unless the status is this now.
    pub fn is(&self, status: &str) -> Result<()> {
        eq("status", self.status()?, status)
    }

    /// Waits until `state` tells this status.
    pub fn becomes(&self, status: &str) -> Result<()> {
        wait_for(&format!("status {status}"), || Ok((self.status()? == status).then_some(())))
    }

    /// Process id of the container's init as the host counts.
    pub fn pid(&self) -> Result<i32> {
        let pid = self.state()?["pid"].as_i64().context("no pid in the state")?;
        ensure!(pid > 0, "pid {pid} in the state");
        Ok(pid as i32)
    }

    /// `kill ID SIGNAL`.
    pub fn kill(&self, signal: &str) -> Result<Out> {
        self.cx.rt(&["kill", &self.id, signal])
    }

    /// `delete`.
    pub fn delete(&self) -> Result<Out> {
        self.cx.rt(&["delete", &self.id])
    }

    /// `delete --force`, which must succeed.
    pub fn delete_force(&self) -> Result<Out> {
        self.cx.rt(&["delete", "--force", &self.id])?.ok()
    }

    /// Kills, waits for the end, deletes.
    pub fn end(&self) -> Result<()> {
        let pid = self.pid()?;
        self.kill("KILL")?.ok()?;
        reap(pid)?;
        self.delete()?.ok()?;
        Ok(())
    }

    /// `exec` of the probe with flags before the id.
    pub fn exec<S: AsRef<str>>(&self, flags: &[&str], probe: &[S]) -> Result<Out> {
        let mut args: Vec<String> = vec!["exec".into()];
        args.extend(flags.iter().map(|s| s.to_string()));
        args.extend([self.id.clone(), "/bin/probe".into()]);
        args.extend(probe.iter().map(|s| s.as_ref().to_string()));
        self.cx.rt(&args)
    }

    /// `exec probe json`.
    pub fn exec_inside(&self, flags: &[&str]) -> Result<Value> {
        self.exec(flags, &["json"])?.ok()?.json()
    }
}

/// Waits for a process that was reparented to us; its exit code, 128 + signal when killed. Like an engine we reap other
/// orphans meanwhile: a zombie of ours inside of a pid namespace keeps that namespace's init from ending.
pub fn reap(pid: i32) -> Result<i32> {
    let fd = crate::sys::pidfd_open(pid as u32)?;
    let end = Instant::now() + Duration::from_secs(4);
    while !crate::sys::readable(&fd, Duration::from_millis(100))? {
        ensure!(Instant::now() < end, "hang: process {pid} did not end in 4 s");
        for child in children()? {
            if child != pid {
                // Still running is no error; the next round looks again.
                let _ = waitpid(Pid::from_raw(child), Some(WaitPidFlag::WNOHANG));
            }
        }
    }
    match waitpid(Pid::from_raw(pid), None).with_context(|| format!("wait for {pid}: not our child"))? {
        WaitStatus::Exited(_, code) => Ok(code),
        WaitStatus::Signaled(_, signal, _) => Ok(128 + signal as i32),
        other => anyhow::bail!("process {pid}: {other:?}"),
    }
}

/// Our children now.
fn children() -> Result<Vec<i32>> {
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    Ok(text.split_whitespace().filter_map(|p| p.parse().ok()).collect())
}

/// Waits for a started runtime command.
pub fn finish(child: std::process::Child) -> Result<i32> {
    finish_within(child, crate::cx::COMMAND_LIMIT)
}

/// The same with a shorter deadline.
pub fn finish_within(mut child: std::process::Child, limit: Duration) -> Result<i32> {
    let status = crate::sys::wait_timeout(&mut child, limit)?;
    match status {
        Some(s) => Ok(exit_code(s)),
        None => {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("hang: the runtime did not end")
        }
    }
}
