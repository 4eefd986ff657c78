//! Plays one variant of a case from its data: recipe, configuration, action, expectation.

use crate::bundle::Bundle;
use crate::canary::Canary;
use crate::container::{Container, finish, reap};
use crate::cx::{Cx, Out};
use crate::terminal::{ConsoleSocket, read_all};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// What the placeholders of a variant stand for.
struct Names {
    canary: String,
    volume: PathBuf,
    rootfs: PathBuf,
    probe: String,
    id: String,
}

impl Names {
    fn text(&self, text: &str) -> String {
        text.replace("{canary}", &self.canary)
            .replace("{outside}", &format!("{}{}", "../".repeat(24), self.canary.trim_start_matches('/')))
            .replace("{volume}", &self.volume.to_string_lossy())
            .replace("{rootfs}", &self.rootfs.to_string_lossy())
            .replace("{probe}", &self.probe)
            .replace("{long}", &"x/".repeat(2100))
            .replace("{id}", &self.id)
    }

    fn value(&self, v: &Value) -> Value {
        match v {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(list) => list.iter().map(|v| self.value(v)).collect(),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(k, v)| (k.clone(), self.value(v))).collect())
            }
            other => other.clone(),
        }
    }
}

/// Runs it; the canary must be the same afterwards.
pub fn run(cx: &Cx, v: &Value) -> Result<()> {
    let canary = Canary::new(&cx.path(&format!("canary.{}", cx.next())))?;
    let mut b = cx.bundle()?;
    let names = Names {
        canary: canary.dir.display().to_string(),
        volume: cx.path(&format!("volume.{}", cx.next())),
        rootfs: b.rootfs(),
        probe: cx.probe.display().to_string(),
        id: cx.id(),
    };
    fs::create_dir(&names.volume)?;
    cook(&names, &list(v, "rootfs"))?;
    configure(&mut b, &names, v)?;
    // A hard link to a file of the canary changed its link count before the runtime ran.
    let hardlinks =
        list(v, "rootfs").iter().any(|op| op[0].as_str().is_some_and(|w| w.ends_with("hardlink")));
    let canary = if hardlinks { canary.again()? } else { canary };
    let out = act(cx, &b, v)?;
    canary.same()?;
    if let Some(out) = &out {
        sane(out)?;
        if v["expect"] == "refused" {
            ensure!(out.code != 0, "was not refused: stdout {:?}", out.stdout.trim_end());
        }
        if out.code == 0 {
            if let Some(wanted) = v["stdout"].as_str() {
                ensure!(out.stdout == wanted, "printed {:?} instead of {wanted:?}", out.stdout);
            }
            if let Some(wanted) = v["stdout_has"].as_str() {
                ensure!(out.stdout.contains(wanted), "printed {:?} without {wanted:?}", out.stdout);
            }
            for path in list(v, "inside") {
                let path = b.rootfs().join(path.as_str().unwrap_or_default());
                ensure!(path.symlink_metadata().is_ok(), "{} was not made", path.display());
            }
        }
    }
    for path in list(v, "not_on_host") {
        let path = path.as_str().unwrap_or_default();
        ensure!(Path::new(path).symlink_metadata().is_err(), "{path} is on the host");
    }
    Ok(())
}

/// Processor time of all commands that have ended so far: what one costs, however busy the machine is.
pub fn spent() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let [user, system] = [usage.user_time(), usage.system_time()]
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000));
    Ok(user + system)
}

/// A runtime may refuse, but not crash.
pub fn sane(out: &Out) -> Result<()> {
    ensure!(!matches!(out.code, 101 | 134 | 139), "crashed with {}: {}", out.code, out.stderr.trim_end());
    ensure!(
        !out.stderr.contains("panicked at") && !out.stderr.contains("goroutine 1"),
        "panicked: {}",
        out.stderr.trim_end()
    );
    Ok(())
}

fn list(v: &Value, key: &str) -> Vec<Value> {
    v[key].as_array().cloned().unwrap_or_default()
}

/// The recipe: what an image or a shared volume holds.
fn cook(names: &Names, ops: &[Value]) -> Result<()> {
    for op in ops {
        let word = |n: usize| op[n].as_str().map(|text| names.text(text)).unwrap_or_default();
        let verb = word(0);
        let (base, verb) = match verb.strip_prefix("volume-") {
            Some(rest) => (&names.volume, rest),
            None => (&names.rootfs, verb.as_str()),
        };
        let at = base.join(word(1));
        let node = |kind, device| mknod(&at, kind, Mode::from_bits_retain(0o666), device);
        match verb {
            "remove" if at.symlink_metadata()?.is_dir() => fs::remove_dir_all(&at)?,
            "remove" => fs::remove_file(&at)?,
            "link" => symlink(word(2), &at)?,
            "hardlink" => fs::hard_link(word(2), &at)?,
            "dir" => fs::create_dir_all(&at)?,
            "file" => fs::write(&at, word(2))?,
            "fifo" => node(SFlag::S_IFIFO, 0)?,
            "char" => {
                node(SFlag::S_IFCHR, makedev(op[2].as_u64().unwrap_or(0), op[3].as_u64().unwrap_or(0)))?
            }
            other => bail!("matrix.json: no recipe step {other}"),
        }
    }
    Ok(())
}

fn configure(b: &mut Bundle, names: &Names, v: &Value) -> Result<()> {
    for destination in list(v, "without_mounts") {
        b.without_mount(destination.as_str().unwrap_or_default());
    }
    let mut mounts = list(v, "mounts_first");
    let replaced = list(v, "mounts");
    for mount in &replaced {
        // A mount at a place that the default has replaces it.
        b.without_mount(mount["destination"].as_str().unwrap_or_default());
    }
    mounts.extend(b.config["mounts"].as_array().cloned().unwrap_or_default());
    mounts.extend(replaced);
    b.set("/mounts", names.value(&Value::Array(mounts)));
    let args: Vec<String> = list(v, "args").iter().filter_map(|a| a.as_str().map(String::from)).collect();
    b.probe(if args.is_empty() { &["true"][..] } else { &[] });
    if !args.is_empty() {
        b.probe(&args);
    }
    for (pointer, value) in v["set"].as_object().into_iter().flatten() {
        b.set(pointer, names.value(value));
    }
    Ok(())
}

/// What comes out; nothing when the streams were not ours.
fn act(cx: &Cx, b: &Bundle, v: &Value) -> Result<Option<Out>> {
    let limit = Duration::from_millis(v["limit_ms"].as_u64().unwrap_or(15_000));
    b.save()?;
    let c = b.container();
    match v["action"].as_str().unwrap_or("run") {
        "run" if v["stdio"] == "null" => {
            let mut cmd = cx.cmd(&["run", "--bundle", &b.path(), &c.id]);
            cmd.command().stdout(Stdio::null()).stderr(Stdio::null());
            finish(cmd.spawn()?)?;
            c.delete_force()?;
            Ok(None)
        }
        "run" => {
            let out = cx.cmd(&["run", "--bundle", &b.path(), &c.id]).limit(limit).run()?;
            c.delete_force()?;
            Ok(Some(out))
        }
        "create" => {
            let out = cx.cmd(&["create", "--bundle", &b.path(), &c.id]).limit(limit).run()?;
            if out.code == 0 {
                start_to_end(&c)?;
            }
            c.delete_force()?;
            Ok(Some(out.again()?))
        }
        "terminal" => terminal(cx, b, &c).map(Some),
        other => bail!("matrix.json: no action {other}"),
    }
}

/// Starts a created container and waits for its end.
fn start_to_end(c: &Container) -> Result<()> {
    let pid = c.pid()?;
    if c.start()?.code == 0 {
        reap(pid)?;
    }
    Ok(())
}

fn terminal(cx: &Cx, b: &Bundle, c: &Container) -> Result<Out> {
    let mut config = b.config.clone();
    config["process"]["terminal"] = Value::Bool(true);
    fs::write(b.dir.join("config.json"), config.to_string())?;
    let socket = ConsoleSocket::new(&cx.path(&format!("console.{}", cx.next())))?;
    let out = c.create(&["--console-socket", &socket.path.display().to_string()])?;
    if out.code == 0 {
        let master = socket.receive().context("the console socket")?.master;
        let pid = c.pid()?;
        if c.start()?.code == 0 {
            // What the program says there does not matter here.
            let _ = read_all(&master);
            reap(pid)?;
        }
    }
    c.delete_force()?;
    out.again()
}
