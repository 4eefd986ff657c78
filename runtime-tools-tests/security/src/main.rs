//! The security corpus: `RUNTIME=path security [--view v1|v2|host] [--attempts N] [--jobs N] [--list] [CASE..]` runs the
//! matrix of `matrix.json` against any runtime with runc's command line and prints a line a case, then counts. A race
//! reports its attempts and hits: none in N attempts is recorded with N, never as "safe". Exit 1 when a case failed.
//!
//! The surroundings of a case (its own pid and mount namespaces, cgroups, deadline, leak oracle) are the suite's.

mod canary;
mod cases;
mod kernel;
mod matrix;
mod swapper;
mod variant;

#[path = "../../src/bundle.rs"]
#[allow(dead_code)]
mod bundle;
#[path = "../../src/cgroup.rs"]
#[allow(dead_code)]
mod cgroup;
#[path = "../../src/compare.rs"]
#[allow(dead_code)]
mod compare;
#[path = "../../src/container.rs"]
#[allow(dead_code)]
mod container;
#[path = "../../src/cx.rs"]
#[allow(dead_code)]
mod cx;
#[path = "../../src/leaks.rs"]
mod leaks;
#[path = "../../src/mountinfo.rs"]
#[allow(dead_code)]
mod mountinfo;
#[path = "../../src/stage.rs"]
#[allow(dead_code)]
mod stage;
#[path = "../../src/sys.rs"]
#[allow(dead_code)]
mod sys;
#[path = "../../src/terminal.rs"]
#[allow(dead_code)]
mod terminal;
#[path = "../../src/tests/mod.rs"]
#[allow(dead_code)]
mod tests;
#[path = "../../src/unit.rs"]
#[allow(dead_code)]
mod unit;

use anyhow::{Context, Result, bail, ensure};
use cx::{Cx, Skip, View};
use matrix::{Case, Ended};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use stage::Verdict;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What the published run does in a race.
const ATTEMPTS: u32 = 2000;

struct Options {
    view: View,
    jobs: usize,
    attempts: u32,
    list: bool,
    cases: Vec<String>,
}

fn main() -> ExitCode {
    sys::attend_signals();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.as_slice() {
        [flag, stage, rest] if flag == "--stage" && stage == "test" => one_case(rest),
        [flag, stage, rest] if flag == "--stage" => stage::run_stage(stage, rest),
        _ => options(&args).and_then(|o| run(&o)),
    };
    match done {
        Ok(code) => ExitCode::from(code as u8),
        Err(e) => {
            eprintln!("security: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn options(args: &[String]) -> Result<Options> {
    let view = if cgroup::unified() { View::Host } else { View::V1 };
    let mut o = Options { view, jobs: 1, attempts: ATTEMPTS, list: false, cases: vec![] };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--view" => {
                o.view = match args.next().map(String::as_str) {
                    Some("v1") => View::V1,
                    Some("v2") => View::V2,
                    Some("host") => View::Host,
                    other => bail!("--view v1|v2|host, not {other:?}"),
                }
            }
            "--jobs" => o.jobs = args.next().context("--jobs N")?.parse().context("--jobs N")?,
            "--attempts" => {
                o.attempts = args.next().context("--attempts N")?.parse().context("--attempts N")?
            }
            "--list" => o.list = true,
            flag if flag.starts_with('-') => bail!("unknown flag {flag}"),
            case => o.cases.push(case.to_string()),
        }
    }
    Ok(o)
}

fn runtime() -> Result<PathBuf> {
    let path = PathBuf::from(std::env::var_os("RUNTIME").context("RUNTIME=path of the runtime")?);
    if path.components().count() == 1 {
        return std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|dir| dir.join(&path))
            .find(|found| found.is_file())
            .with_context(|| format!("RUNTIME={} is not in PATH", path.display()));
    }
    Ok(std::path::absolute(path)?)
}

fn run(o: &Options) -> Result<i32> {
    let wanted = |case: &Case| {
        o.cases.is_empty()
            || o.cases.iter().any(|w| *w == case.id || (w.len() > 3 && case.name.contains(w.as_str())))
    };
    let all: Vec<Case> = matrix::load()?.into_iter().filter(wanted).collect();
    if o.list {
        for case in &all {
            println!("{:<4} {:<24} {:<12} {}", case.id, case.name, case.rules, case.advisories);
        }
        return Ok(0);
    }
    ensure!(nix::unistd::geteuid().is_root(), "must run as root");
    let runtime = runtime()?;
    let version = Command::new(&runtime).arg("--version").output().context("--version")?.stdout;
    let version = String::from_utf8_lossy(&version);
    let kind = version.split_whitespace().next().unwrap_or("unknown").to_string();
    stage::enter_view(o.view)?;
    let own = std::process::id();
    let dir = PathBuf::from(format!("/tmp/runtime-security.{own}"));
    fs::create_dir(&dir)?;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("mount tmpfs")?;
    let beside = std::env::current_exe()?;
    for name in ["probe", "attacker", "absent"] {
        fs::copy(beside.with_file_name(name), dir.join(name)).with_context(|| format!("copy {name}"))?;
    }
    let base = format!("/runtime-security-{own}");
    cgroup::make(&base)?;
    let view = match o.view {
        View::V1 => "v1",
        View::V2 => "v2",
        View::Host => "host",
    };
    println!("# {}, view {view}, {} attempts a race", version.lines().next().unwrap_or_default(), o.attempts);
    let next = AtomicUsize::new(0);
    let counts = Mutex::new([0usize; 3]);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..o.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = all.get(n) else { break };
                    let limit = match (case.race, case.slow) {
                        (true, _) => 90_000 + u64::from(o.attempts) * 300,
                        (_, true) => 400_000,
                        _ => 90_000,
                    };
                    let args = json!({
                        "test": case.id,
                        "dir": dir.join(format!("t{n}")),
                        "cgroup": format!("{base}/t{n}"),
                        "cgroup_home": "/",
                        "mark": format!("x{own}t{n}"),
                        "runtime": runtime, "kind": kind, "view": view, "probe": dir.join("probe"),
                        "configs": dir, "limit_ms": limit, "attempts": o.attempts,
                    });
                    report(case, &args, &counts);
                }
            });
        }
    });
    cgroup::remove(&base)?;
    nix::mount::umount2(&dir, nix::mount::MntFlags::MNT_DETACH)?;
    fs::remove_dir(&dir)?;
    let [passed, failed, skipped] = *counts.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    println!("# {:.1} s", start.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(i32::from(failed > 0))
}

/// Runs one case in surroundings of its own and prints its line.
fn report(case: &Case, args: &Value, counts: &Mutex<[usize; 3]>) {
    let verdict = stage::run(args).unwrap_or_else(|e| Verdict::Fail(format!("{e:#}")));
    let dir = Path::new(args["dir"].as_str().unwrap_or_default());
    let file = fs::read_to_string(dir.join("verdict")).unwrap_or_default();
    let file: Value = serde_json::from_str(&file).unwrap_or(Value::Null);
    let (slot, word, text) = match verdict {
        Verdict::Pass => (0, "pass", file["note"].as_str().unwrap_or_default().to_string()),
        Verdict::Fail(why) => (1, "FAIL", why),
        Verdict::Skip(why) => (2, "SKIP", why),
    };
    println!("{word} {:<4} {:<24} {}", case.id, case.name, text.replace('\n', " | ").trim_end());
    if let Ok(mut counts) = counts.lock() {
        counts[slot] += 1;
    }
    // Its files can be many; what matters has been said.
    let _ = fs::remove_dir_all(dir);
}

/// The last stage: the case itself, then the verdict in a file.
fn one_case(args: &str) -> Result<i32> {
    let args: Value = serde_json::from_str(args)?;
    let text = |key: &str| args[key].as_str().unwrap_or_default().to_string();
    nix::sys::prctl::set_child_subreaper(true)?;
    // "The host's" namespaces are ours, so that a runtime that writes to them does not reach the machine's.
    use nix::sched::CloneFlags;
    nix::sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    let dir = PathBuf::from(text("dir"));
    let case = matrix::load()?.into_iter().find(|case| case.id == text("test")).context("no such case")?;
    let cx = Cx {
        root: dir.join("root"),
        runtime: PathBuf::from(text("runtime")),
        kind: text("kind"),
        reference: None,
        systemd: false,
        view: match text("view").as_str() {
            "v1" => View::V1,
            "v2" => View::V2,
            _ => View::Host,
        },
        cgroup: text("cgroup"),
        mark: text("mark"),
        probe: PathBuf::from(text("probe")),
        configs: PathBuf::from(text("configs")),
        count: Cell::new(0),
        dir: dir.clone(),
    };
    std::env::set_current_dir(&dir)?;
    fs::create_dir(&cx.root)?;
    let attempts = args["attempts"].as_u64().unwrap_or(0) as u32;
    let verdict = match matrix::run(&cx, &case, attempts) {
        Ok(Ended::Pass(note)) => json!({"pass": true, "note": note}),
        Ok(Ended::Skip(why)) => json!({"skip": why}),
        Err(e) => match e.downcast_ref::<Skip>() {
            Some(skip) => json!({"skip": skip.0}),
            None => json!({"fail": format!("{e:#}")}),
        },
    };
    leaks::reap();
    cgroup::thaw(&cx.cgroup)?;
    fs::write(dir.join("verdict"), verdict.to_string())?;
    Ok(0)
}
