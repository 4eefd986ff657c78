//! The systemd driver while the message bus or systemd itself has stopped: what needs them is refused after a deadline, in
//! words, and changes nothing; what does not need them works; once they go on everything does, and nothing is left.
//! Each wait is half a minute, so that commands wait side by side.

use super::Test;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::container::reap;
use crate::cx::{Cmd, Cx, Out, eq, exit_code, wait_for};
use crate::leaks::Snapshot;
use crate::unit::{BUS, Stopped, property, with_mark};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    test("systemd/stopped_bus", bus),
    test("systemd/stopped_systemd", systemd),
    test("systemd/stopped_systemd_behind_a_bus", systemd_behind_a_bus),
    test("systemd/stopped_in_the_middle", in_the_middle),
];

const fn test(name: &'static str, run: fn(&Cx) -> Result<()>) -> Test {
    Test { name, run, limit_ms: 300_000, deviates: &[("runc", "waits for ever"), ("crun", "waits for ever")] }
}

/// The longest that a command may take, its way back included.
const DEADLINE: Duration = Duration::from_secs(75);
/// What it says then.
const NO_ANSWER: &str = "no answer from systemd within 30 s";

/// A command in the background, its output in files.
struct Running {
    child: Child,
    line: String,
    paths: [PathBuf; 2],
    began: Instant,
}

impl Running {
    fn new(cx: &Cx, args: &[&str], bus: Option<&str>) -> Result<Running> {
        let n = cx.next();
        let paths = [cx.path(&format!("out.{n}")), cx.path(&format!("err.{n}"))];
        let mut cmd: Cmd<'_> = cx.cmd(args);
        if let Some(address) = bus {
            cmd = cmd.env(BUS.0, address);
        }
        cmd.command().stdout(File::create(&paths[0])?).stderr(File::create(&paths[1])?);
        let began = Instant::now();
        Ok(Running { child: cmd.spawn()?, line: args.join(" "), paths, began })
    }

    /// Its end. One that does not end in time is killed, which is a failure.
    fn end(mut self) -> Result<Out> {
        let left = (self.began + DEADLINE).saturating_duration_since(Instant::now());
        let Some(status) = crate::sys::wait_timeout(&mut self.child, left)? else {
            self.child.kill()?;
            self.child.wait()?;
            anyhow::bail!("hang: {}: no end after {DEADLINE:?}", self.line);
        };
        let [out_path, err_path] = self.paths;
        let out = Out {
            line: self.line,
            code: exit_code(status),
            out_path,
            err_path,
            stdout: String::new(),
            stderr: String::new(),
            took: self.began.elapsed(),
        };
        out.again()
    }
}

fn sleeper<'a>(cx: &'a Cx) -> Result<Bundle<'a>> {
    cx.need_systemd(true)?;
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]).set("/linux/resources/pids", json!({"limit": 20})).save()?;
    Ok(b)
}

/// All commands while nobody answers, then again with everybody awake.
fn unanswered(cx: &Cx, sleep: fn() -> Result<Stopped>, bus: Option<&str>) -> Result<()> {
    let before = {
        // Skips first.
        sleeper(cx)?;
        cx.snapshot()?
    };
    // Each has a unit of its own.
    let running = || sleeper(cx)?.start();
    let [update, dead, force, quick] = [running()?, running()?, running()?, running()?];
    let created = sleeper(cx)?.create()?;
    let pid = dead.pid()?;
    dead.kill("KILL")?.ok()?;
    reap(pid)?;
    let forced = force.pid()?;
    let (to_create, to_run) = (sleeper(cx)?, sleeper(cx)?);
    let (new, ran) = (to_create.container(), to_run.container());

    let stopped = sleep()?;
    let start = |args: &[&str]| Running::new(cx, args, bus);
    let waiting = [
        start(&["create", "--bundle", &to_create.path(), &new.id])?,
        start(&["run", "--bundle", &to_run.path(), &ran.id])?,
        start(&["update", "--pids-limit", "10", &update.id])?,
        start(&["delete", &dead.id])?,
        start(&["delete", "--force", &force.id])?,
    ];
    // What needs neither.
    let quickly = |args: &[&str]| {
        let mut cmd = cx.cmd(args);
        if let Some(address) = bus {
            cmd = cmd.env(BUS.0, address);
        }
        cmd.run()?.ok()
    };
    quickly(&["start", &created.id])?;
    eq("status", quickly(&["state", &quick.id])?.json()?["status"].clone(), "running")?;
    ensure!(quickly(&["list", "-q"])?.stdout.contains(&quick.id), "not in the list");
    eq("exec", quickly(&["exec", &quick.id, "/bin/probe", "say", "ran"])?.stdout, "ran\n")?;
    quickly(&["ps", "--format", "json", &quick.id])?;
    quickly(&["events", "--stats", &quick.id])?;
    quickly(&["pause", &quick.id])?;
    eq("status", quickly(&["state", &quick.id])?.json()?["status"].clone(), "paused")?;
    quickly(&["resume", &quick.id])?;
    let pid = quick.pid()?;
    quickly(&["kill", &quick.id, "KILL"])?;
    reap(pid)?;

    let mut took = vec![];
    for command in waiting {
        let out = command.end()?.fails(&[NO_ANSWER])?.one_line()?;
        took.push(format!(
            "{} {:.0} s",
            out.line.split(' ').next().unwrap_or_default(),
            out.took.as_secs_f64()
        ));
    }
    reap(forced)?;
    for gone in [&new, &ran] {
        ensure!(cx.rt(&["state", &gone.id])?.code == 1, "{} is there", gone.id);
    }
    // What is not done is known, and can be done again.
    for stays in [&dead, &force, &quick] {
        stays.is("stopped")?;
    }
    eq("limit", cgroup::value_of(update.pid()?, "pids", "pids.max")?, "20")?;

    drop(stopped);
    units_of_the_living(cx, 2)?;
    start(&["update", "--pids-limit", "11", &update.id])?.end()?.ok()?;
    eq("limit", cgroup::value_of(update.pid()?, "pids", "pids.max")?, "11")?;
    for ended in [&dead, &force, &quick] {
        start(&["delete", &ended.id])?.end()?.ok()?;
    }
    update.end()?;
    created.end()?;
    // The names are free.
    start(&["create", "--bundle", &to_create.path(), &new.id])?.end()?.ok()?;
    start(&["delete", "--force", &new.id])?.end()?.ok()?;
    nothing_left(cx, &before)?;
    cx.note(&took.join(", "))
}

/// Waits until systemd knows so many units of this test.
fn only(cx: &Cx, count: usize) -> Result<()> {
    wait_for("the other units to go", || Ok((with_mark(&cx.mark)?.len() == count).then_some(())))
        .with_context(|| format!("{:?}", with_mark(&cx.mark)))
}

/// Those that ended have taken their units with them, unless this is v1, where systemd is told of no end.
fn units_of_the_living(cx: &Cx, count: usize) -> Result<()> {
    if cx.unified() || cgroup::hybrid() { only(cx, count) } else { Ok(()) }
}

/// Once those who were stopped have done what was waiting for them.
fn nothing_left(cx: &Cx, before: &Snapshot) -> Result<()> {
    only(cx, 0)?;
    cx.nothing_left(before)
}

/// The message bus has stopped. Root needs none: only who is told of it waits for it.
fn bus(cx: &Cx) -> Result<()> {
    unanswered(cx, Stopped::bus, Some(BUS.1))?;
    let b = sleeper(cx)?;
    let before = cx.snapshot()?;
    let stopped = Stopped::bus()?;
    let c = b.start()?;
    cx.rt(&["update", "--pids-limit", "10", &c.id])?.ok()?;
    eq("limit", cgroup::value_of(c.pid()?, "pids", "pids.max")?, "10")?;
    c.end()?;
    drop(stopped);
    nothing_left(cx, &before)
}

/// systemd has stopped, and with it its own socket.
fn systemd(cx: &Cx) -> Result<()> {
    unanswered(cx, Stopped::systemd, None)
}

/// systemd has stopped, the bus has not.
fn systemd_behind_a_bus(cx: &Cx) -> Result<()> {
    unanswered(cx, Stopped::systemd, Some(BUS.1))
}

/// Buses between a runtime and the real one, one for each of these methods. Once each has been called, systemd stops, and
/// then the calls are passed on.
struct Between {
    addresses: Vec<String>,
    stopped: Arc<Mutex<Option<Stopped>>>,
}

impl Between {
    fn new(cx: &Cx, methods: &'static [&'static str]) -> Result<Between> {
        let stopped = Arc::new(Mutex::new(None));
        let all_called = Arc::new(Barrier::new(methods.len()));
        let mut addresses = vec![];
        for method in methods {
            let path = cx.path(&format!("between.{}", cx.next()));
            let listener = UnixListener::bind(&path)?;
            let (stopped, all_called) = (stopped.clone(), all_called.clone());
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    // An error here is a connection that ends, which the runtime notices.
                    let _ = pass_on(client, method, &all_called, &stopped);
                }
            });
            addresses.push(format!("unix:path={}", path.display()));
        }
        Ok(Between { addresses, stopped })
    }

    /// systemd goes on. Fails where it was not stopped.
    fn go_on(&self) -> Result<()> {
        let stopped = self.stopped.lock().ok().and_then(|mut stopped| stopped.take());
        stopped.map(drop).context("the calls were never made")
    }
}

/// Serves one connection.
fn pass_on(
    mut client: UnixStream,
    method: &str,
    all_called: &Barrier,
    stopped: &Mutex<Option<Stopped>>,
) -> Result<()> {
    let mut server = UnixStream::connect(BUS.1.trim_start_matches("unix:path="))?;
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = client.read(&mut buffer)?;
        if length == 0 {
            server.shutdown(Shutdown::Both)?;
            return Ok(());
        }
        if buffer[..length].windows(method.len()).any(|part| part == method.as_bytes()) {
            if all_called.wait().is_leader() {
                let asleep = Stopped::systemd()?;
                if let Ok(mut stopped) = stopped.lock() {
                    *stopped = Some(asleep);
                }
            }
            all_called.wait();
        }
        server.write_all(&buffer[..length])?;
    }
}

/// systemd stops when it has been asked to start, to change and to stop a unit, and gets to it when those who asked have
/// gone: the process that the new unit was for has ended, the limits are the old ones, and the unit of a container that
/// has ended goes with it.
fn in_the_middle(cx: &Cx) -> Result<()> {
    let b = sleeper(cx)?;
    let before = cx.snapshot()?;
    let new = b.container();
    let (changed, ended) = (sleeper(cx)?.start()?, sleeper(cx)?.start()?);
    let pid = ended.pid()?;
    let between = Between::new(cx, &["StartTransientUnit", "SetUnitProperties", "StopUnit"])?;
    let bundle = b.path();
    let commands: [(&[&str], &str); 3] = [
        (&["create", "--bundle", &bundle, &new.id], "unable to start unit"),
        (&["update", "--pids-limit", "10", &changed.id], "unable to set unit properties"),
        (&["delete", "--force", &ended.id], "stop unit"),
    ];
    let mut running = vec![];
    for ((args, words), address) in commands.into_iter().zip(&between.addresses) {
        running.push((Running::new(cx, args, Some(address))?, words));
    }
    let mut took = vec![];
    for (command, words) in running {
        let out = command.end()?.fails(&[words, NO_ANSWER])?.one_line()?;
        took.push(format!(
            "{} {:.0} s",
            out.line.split(' ').next().unwrap_or_default(),
            out.took.as_secs_f64()
        ));
    }
    reap(pid)?;
    ensure!(cx.rt(&["state", &new.id])?.code == 1, "a failed create left a state");
    eq("limit", cgroup::value_of(changed.pid()?, "pids", "pids.max")?, "20")?;
    ended.is("stopped")?;

    between.go_on()?;
    units_of_the_living(cx, 1)?;
    ended.delete()?.ok()?;
    cx.rt(&["update", "--pids-limit", "12", &changed.id])?.ok()?;
    eq("limit", cgroup::value_of(changed.pid()?, "pids", "pids.max")?, "12")?;
    only(cx, 1)?;
    let name = with_mark(&cx.mark)?.pop().context("no unit")?;
    eq("TasksMax", property(&name, "TasksMax")?, "12")?;
    // The name is free.
    new.create(&[])?.ok()?;
    new.delete_force()?;
    changed.end()?;
    nothing_left(cx, &before)?;
    cx.note(&took.join(", "))
}
