//! Load: many commands at once on one container and on many, and many containers at once. Seconds here; for ten minutes of it
//! `LOAD_SECONDS=600 LOAD_CONTAINERS=2000 suite load/` (`make load`).
//!
//! No command may hang, be killed or panic; what is refused is refused in one line; nothing is lost and nothing left.

use super::Test;
use crate::cx::{COMMAND_LIMIT, Cx, eq, exit_code};
use crate::sys;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The tests of this file.
pub const TESTS: &[Test] = &[ONE_ID, test("load/many_ids", many_ids), test("load/many_alive", many_alive)];

const ONE_ID: Test = Test {
    deviates: &[
        ("runc", "creates of one id take each other's directory"),
        ("crun", "a start waits for ever, or no create wins"),
    ],
    ..test("load/one_id", one_id)
};

/// Each command has its own, short limit; these are as long as they are told to be.
const fn test(name: &'static str, run: fn(&Cx) -> Result<()>) -> Test {
    Test { name, run, limit_ms: 3_600_000, deviates: &[] }
}

/// Commands or containers at work side by side.
const AT_ONCE: usize = 64;

fn setting(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

/// When to stop.
fn deadline() -> Result<Instant> {
    Ok(Instant::now() + Duration::from_secs(setting("LOAD_SECONDS", 5)? as u64))
}

/// What a thread needs of the surroundings.
struct Runtime {
    path: PathBuf,
    root: String,
    systemd: bool,
}

/// A command that was started, and where it complains.
struct Running {
    child: Child,
    line: String,
    complaints: PathBuf,
}

impl Runtime {
    fn of(cx: &Cx) -> Runtime {
        Runtime { path: cx.runtime.clone(), root: cx.root.display().to_string(), systemd: cx.systemd }
    }

    fn spawn(&self, args: &[&str], complaints: &Path) -> Result<Running> {
        let mut command = Command::new(&self.path);
        command.args(["--root", &self.root]);
        if self.systemd {
            command.arg("--systemd-cgroup");
        }
        command.args(args).env_clear().env("PATH", crate::cx::PATH);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(complaints)?);
        let child = command.spawn().context("run the runtime")?;
        Ok(Running { child, line: args.join(" "), complaints: complaints.to_path_buf() })
    }

    fn run(&self, args: &[&str], complaints: &Path) -> Result<i32> {
        self.spawn(args, complaints)?.finish()
    }

    fn ok(&self, args: &[&str], complaints: &Path) -> Result<()> {
        let code = self.run(args, complaints)?;
        ensure!(code == 0, "exit {code}: {}: {}", args.join(" "), fs::read_to_string(complaints)?.trim_end());
        Ok(())
    }

    fn state(&self, id: &str) -> Result<Value> {
        let mut command = Command::new(&self.path);
        let out = command.args(["--root", &self.root, "state", id]).output()?;
        ensure!(out.status.success(), "state {id}: {}", String::from_utf8_lossy(&out.stderr).trim_end());
        Ok(serde_json::from_slice(&out.stdout)?)
    }
}

impl Running {
    /// Exit code 0, or 1 with one line that says why.
    fn finish(mut self) -> Result<i32> {
        let said = || fs::read_to_string(&self.complaints).unwrap_or_default();
        let Some(status) = sys::wait_timeout(&mut self.child, COMMAND_LIMIT * 2)? else {
            self.child.kill()?;
            self.child.wait()?;
            bail!("hang: {}: {}", self.line, said());
        };
        let code = exit_code(status);
        ensure!(code <= 1, "exit {code}: {}: {}", self.line, said());
        if code == 1 {
            let said = said();
            let errors = said.lines().filter(|l| !l.trim().is_empty() && !l.contains("level=warning"));
            ensure!(errors.count() == 1, "not one line of error: {}: {said:?}", self.line);
        }
        Ok(code)
    }
}

/// A bundle that is nothing but a configuration: the root filesystem is another one's, the cgroup its own.
fn slim_bundle(cx: &Cx, config: &Value, n: usize) -> Result<(String, String)> {
    let dir = cx.path(&format!("slim.{n}"));
    fs::create_dir(&dir)?;
    let id = format!("{}-n{n}", cx.mark);
    let mut config = config.clone();
    config["linux"]["cgroupsPath"] = json!(match cx.systemd {
        true => format!("system.slice:suite:{id}"),
        false => format!("{}/{id}", cx.cgroup),
    });
    fs::write(dir.join("config.json"), config.to_string())?;
    Ok((dir.display().to_string(), id))
}

/// A configuration whose program waits, with an absolute root.
fn waiting(cx: &Cx) -> Result<Value> {
    let mut b = cx.bundle()?;
    let root = b.rootfs().display().to_string();
    b.probe(&["sleep"]).set("/root", json!({"path": root, "readonly": true}));
    Ok(b.config.clone())
}

/// Waits for the end of a container's init process, which is our child by now.
fn reap(pid: i32) -> Result<()> {
    let pidfd = sys::pidfd_open(pid as u32)?;
    ensure!(sys::readable(&pidfd, COMMAND_LIMIT)?, "hang: process {pid} does not end");
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None)
        .with_context(|| format!("wait for {pid}: not our child"))?;
    Ok(())
}

/// Runs `work` in as many threads, each with its number, and gives the first error.
fn in_threads(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..count).map(|n| scope.spawn(move || work(n))).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}

/// 64 commands at once on one id, again and again. The id is free when they begin, so that at least one create wins.
fn one_id(cx: &Cx) -> Result<()> {
    let runtime = Runtime::of(cx);
    let config = waiting(cx)?;
    let (bundle, id) = slim_bundle(cx, &config, 0)?;
    let before = cx.snapshot()?;
    let end = deadline()?;
    let (mut rounds, mut won, mut started) = (0, 0, 0);
    while Instant::now() < end {
        let mut all = vec![];
        for n in 0..AT_ONCE {
            let args: Vec<&str> = match (n + rounds) % 8 {
                0..=2 => vec!["create", "--bundle", &bundle, &id],
                3 | 4 => vec!["start", &id],
                5 => vec!["kill", &id, "KILL"],
                6 => vec!["delete", &id],
                _ => vec!["state", &id],
            };
            all.push(runtime.spawn(&args, &cx.path(&format!("said.{n}")))?);
        }
        let (mut winners, mut refusals) = (0, vec![]);
        for one in all {
            let (create, start) = (one.line.starts_with("create"), one.line.starts_with("start"));
            let complaints = one.complaints.clone();
            let code = one.finish()?;
            winners += usize::from(create && code == 0);
            started += usize::from(start && code == 0);
            if create && code != 0 {
                refusals.push(fs::read_to_string(complaints)?);
            }
        }
        // The one that had the id may have been killed by one of the kills.
        let killed =
            refusals.iter().any(|said| said.contains("killed") || said.contains("ended without a word"));
        ensure!(winners > 0 || killed, "round {rounds}: no create of a free id won: {refusals:?}");
        won += winners;
        runtime.ok(&["delete", "--force", &id], &cx.path("said"))?;
        cx.nothing_left(&before).with_context(|| format!("round {rounds}"))?;
        rounds += 1;
    }
    cx.note(&format!("{} commands, {won} creates and {started} starts won", rounds * AT_ONCE))
}

/// 64 containers at once, each through its whole life again and again. Nothing may fail.
fn many_ids(cx: &Cx) -> Result<()> {
    let runtime = Runtime::of(cx);
    let config = waiting(cx)?;
    let bundles = (0..AT_ONCE).map(|n| slim_bundle(cx, &config, n)).collect::<Result<Vec<_>>>()?;
    let places: Vec<PathBuf> = (0..AT_ONCE).map(|n| cx.path(&format!("said.{n}"))).collect();
    let before = cx.snapshot()?;
    let (end, lives) = (deadline()?, AtomicUsize::new(0));
    in_threads(AT_ONCE, |n| {
        let ((bundle, id), said) = (&bundles[n], places[n].as_path());
        while Instant::now() < end {
            runtime.ok(&["create", "--bundle", bundle, id], said)?;
            let created = runtime.state(id)?;
            eq("status", created["status"].as_str(), Some("created"))?;
            runtime.ok(&["start", id], said)?;
            runtime.ok(&["kill", id, "KILL"], said)?;
            reap(created["pid"].as_i64().unwrap_or(0) as i32)?;
            runtime.ok(&["delete", id], said)?;
            lives.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    cx.nothing_left(&before)?;
    cx.note(&format!("{} whole lives", lives.into_inner()))
}

/// As many containers as asked for, all alive at once: listed, each one's state, and all gone again.
fn many_alive(cx: &Cx) -> Result<()> {
    let count = setting("LOAD_CONTAINERS", 64)?;
    let runtime = Runtime::of(cx);
    let config = waiting(cx)?;
    let bundles = (0..count).map(|n| slim_bundle(cx, &config, n)).collect::<Result<Vec<_>>>()?;
    let before = cx.snapshot()?;
    let free = available()?;
    let begun = Instant::now();
    let said = cx.path("said");
    for (bundle, id) in &bundles {
        runtime.ok(&["create", "--bundle", bundle, id], &said)?;
        runtime.ok(&["start", id], &said)?;
    }
    let (made, used) = (begun.elapsed(), free.saturating_sub(available()?));
    let list = cx.rt(&["list", "--format", "json"])?.ok()?;
    let listed = list.json()?;
    let all = listed.as_array().context("list is no array")?;
    let running = all.iter().filter(|one| one["status"] == "running").count();
    ensure!(all.len() == count && running == count, "list has {}, {running} of them running", all.len());
    let mut pids = vec![];
    for (_, id) in &bundles {
        let state = runtime.state(id)?;
        eq("status", state["status"].as_str(), Some("running"))?;
        pids.push(state["pid"].as_i64().unwrap_or(0) as i32);
    }
    let begun = Instant::now();
    for ((_, id), pid) in bundles.iter().zip(pids) {
        runtime.ok(&["kill", id, "KILL"], &said)?;
        reap(pid)?;
        runtime.ok(&["delete", id], &said)?;
    }
    let gone = begun.elapsed();
    cx.nothing_left(&before)?;
    cx.note(&format!(
        "{count} containers: created and started in {:.1} s, {} KiB each, listed in {} ms, killed and deleted in {:.1} s",
        made.as_secs_f64(),
        used / count.max(1) as u64,
        list.took.as_millis(),
        gone.as_secs_f64()
    ))
}

/// Memory that could be had now, in KiB.
fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
