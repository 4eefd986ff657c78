//! One test in surroundings of its own. The supervisor starts the suite again for each test in three stages:
//! `enter` makes a pid namespace and cgroup directories and watches the deadline, `init` is process 1 in it with mounts
//! of its own, `test` is the subreaper that runs the test like an engine would and
//! then looks for leaks. When `init` dies the kernel kills whatever is left. With the systemd driver there is no pid
//! namespace; there the units of a test that failed are stopped. Called by `main.rs`.

use crate::cx::{Cx, Skip, View};
use crate::leaks::{self, difference};
use crate::{cgroup, sys, tests};
use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How a test ended.
pub enum Verdict {
    /// It held.
    Pass,
    /// It did not: why.
    Fail(String),
    /// Not possible here: why.
    Skip(String),
}

/// Makes this process's mounts private and shows cgroups as asked. Called once by the supervisor, before any thread.
pub fn enter_view(view: View) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
    propagation(MsFlags::MS_PRIVATE)?;
    match view {
        View::Host => {}
        View::V1 => {
            if cgroup::unified() {
                bail!("this host has no v1 cgroups to show: use --view host or v2");
            }
            let unified = Path::new("/sys/fs/cgroup/unified");
            if unified.join("cgroup.procs").exists() {
                umount2(unified, MntFlags::MNT_DETACH).context("unmount /sys/fs/cgroup/unified")?;
            }
        }
        View::V2 => {
            if !cgroup::unified() {
                for tree in cgroup::trees()? {
                    umount2(&tree.mount, MntFlags::MNT_DETACH)?;
                }
                umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).context("unmount /sys/fs/cgroup")?;
                mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>)
                    .context("mount cgroup2")?;
            }
        }
    }
    Ok(())
}

fn propagation(kind: MsFlags) -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, kind | MsFlags::MS_REC, None::<&str>)
        .context("set propagation of /")
}

/// Runs one stage of a test by name; `args` is what `command` made.
pub fn run_stage(stage: &str, args: &str) -> Result<i32> {
    let args: Value = serde_json::from_str(args)?;
    match stage {
        "enter" => enter(&args),
        "init" => init(&args),
        "test" => test(&args),
        other => bail!("no stage {other}"),
    }
}

/// The command line of a stage.
pub fn command(stage: &str, args: &Value) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--stage", stage, &args.to_string()]).stdin(Stdio::null());
    Ok(command)
}

fn text<'a>(args: &'a Value, key: &str) -> &'a str {
    args[key].as_str().unwrap_or_default()
}

/// Stage 1. Exit code 0; the verdict is in a file, absent when the test hung or died.
fn enter(args: &Value) -> Result<i32> {
    let dir = PathBuf::from(text(args, "dir"));
    let cg = text(args, "cgroup");
    fs::create_dir_all(&dir)?;
    cgroup::make(&format!("{cg}/self"))?;
    cgroup::enter(&format!("{cg}/self"))?;
    let systemd = args["systemd"] == true;
    if !systemd {
        unshare(CloneFlags::CLONE_NEWPID).context("unshare the pid namespace")?;
    }
    let log = File::create(dir.join("log"))?;
    let mut child = command("init", args)?.stdout(log.try_clone()?).stderr(log).spawn()?;
    let limit = Duration::from_millis(args["limit_ms"].as_u64().unwrap_or(20_000));
    let done = sys::wait_timeout(&mut child, limit)?;
    if done.is_none() {
        fs::write(
            dir.join("verdict"),
            json!({"fail": format!("hang: not done after {limit:?}")}).to_string(),
        )?;
        child.kill()?;
        cgroup::thaw(cg)?;
        child.wait()?;
    }
    if systemd && done.is_none_or(|status| !status.success()) {
        crate::unit::wake_all();
        crate::unit::stop_all(text(args, "mark"))?;
    }
    // Back out of the directories we are about to remove.
    cgroup::enter(text(args, "cgroup_home"))?;
    cgroup::remove(cg)?;
    Ok(0)
}

/// Stage 2: process 1. Mounts stay in this namespace; "/" is shared as on a host with systemd, so that a runtime that
/// forgets to cut propagation leaks mounts where the test sees them.
fn init(args: &Value) -> Result<i32> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    if args["systemd"] == true {
        // systemd must know our processes by the same numbers, and its socket is below /run.
        nix::sys::prctl::set_child_subreaper(true)?;
        return run_test(args);
    }
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
    propagation(MsFlags::MS_PRIVATE)?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("proc"), "/proc", Some("proc"), plain | MsFlags::MS_NOEXEC, None::<&str>)
        .context("mount /proc")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), plain, Some("mode=755")).context("mount /run")?;
    mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), plain, Some("mode=1777")).context("mount /dev/shm")?;
    propagation(MsFlags::MS_SHARED)?;
    run_test(args)
}

fn run_test(args: &Value) -> Result<i32> {
    let child = command("test", args)?.spawn()?;
    let wanted = nix::unistd::Pid::from_raw(child.id() as i32);
    loop {
        use nix::sys::wait::{WaitStatus, waitpid};
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == wanted => return Ok(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == wanted => return Ok(128 + signal as i32),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => bail!("wait: {e}"),
        }
    }
}

/// Stage 3: the test itself, then the leak check.
fn test(args: &Value) -> Result<i32> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let dir = PathBuf::from(text(args, "dir"));
    let name = text(args, "test");
    let test = tests::all().into_iter().find(|t| t.name == name).context("no such test")?;
    let cx = Cx {
        root: dir.join("root"),
        runtime: PathBuf::from(text(args, "runtime")),
        kind: text(args, "kind").to_string(),
        reference: args["reference"].as_str().map(PathBuf::from),
        view: match text(args, "view") {
            "v1" => View::V1,
            "v2" => View::V2,
            _ => View::Host,
        },
        systemd: args["systemd"] == true,
        cgroup: text(args, "cgroup").to_string(),
        mark: text(args, "mark").to_string(),
        probe: PathBuf::from(text(args, "probe")),
        configs: PathBuf::from(text(args, "configs")),
        count: Cell::new(0),
        dir: dir.clone(),
    };
    std::env::set_current_dir(&dir)?;
    fs::create_dir(&cx.root)?;
    let before = cx.snapshot()?;
    let verdict = match (test.run)(&cx) {
        Ok(()) => {
            let left = difference(&before, &cx.snapshot()?);
            if left.is_empty() { json!({"pass": true}) } else { json!({"fail": left.join("; ")}) }
        }
        Err(e) => match e.downcast_ref::<Skip>() {
            Some(skip) => json!({"skip": skip.0}),
            None => json!({"fail": format!("{e:#}")}),
        },
    };
    leaks::reap();
    cgroup::thaw(&cx.cgroup)?;
    fs::write(dir.join("verdict"), verdict.to_string())?;
    Ok(i32::from(cx.systemd && verdict["pass"] != true))
}

/// Runs one test in its own surroundings, from the supervisor.
pub fn run(args: &Value) -> Result<Verdict> {
    let dir = PathBuf::from(text(args, "dir"));
    let out = command("enter", args)?.output()?;
    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
    let verdict = fs::read_to_string(dir.join("verdict")).unwrap_or_default();
    let trouble = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success() || !trouble.is_empty(), "stage enter: {}", out.status);
    let verdict: Value = serde_json::from_str(&verdict).unwrap_or(Value::Null);
    Ok(if let Some(why) = verdict["skip"].as_str() {
        Verdict::Skip(why.into())
    } else if verdict["pass"] == true && trouble.is_empty() {
        Verdict::Pass
    } else if let Some(why) = verdict["fail"].as_str() {
        Verdict::Fail(format!("{why}{}{}", if trouble.is_empty() { "" } else { "; " }, trouble.trim_end()))
    } else {
        Verdict::Fail(format!("no verdict: {} {}", log.trim_end(), trouble.trim_end()))
    })
}
