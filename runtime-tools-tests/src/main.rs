//! Black-box suite for OCI runtimes.
//! `RUNTIME=path suite [--view v1|v2|host] [--systemd] [--jobs N] [--list] [--times] [--verbose] [FILTER..]`
//! runs the tests whose names contain a filter; `REFERENCE=path suite compare` prints what containers see differently
//! under two runtimes. With `--systemd` every container is made by the systemd cgroup driver, which must run
//! here. Prints a line a test and counts; exit 1 when a test failed. Needs root.

mod bundle;
mod cgroup;
mod compare;
mod container;
mod cx;
mod leaks;
mod mountinfo;
mod stage;
mod sys;
mod terminal;
mod tests;
mod unit;

use anyhow::{Context, Result, bail, ensure};
use cx::View;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use stage::Verdict;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tests::Test;

struct Options {
    view: View,
    systemd: bool,
    jobs: usize,
    list: bool,
    verbose: bool,
    times: bool,
    compare: bool,
    filters: Vec<String>,
}

fn main() -> ExitCode {
    sys::attend_signals();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let r = match args.as_slice() {
        [flag, stage, rest] if flag == "--stage" => stage::run_stage(stage, rest),
        _ => options(&args).and_then(|o| if o.list { list(&o) } else { supervise(&o) }),
    };
    match r {
        Ok(code) => ExitCode::from(code as u8),
        Err(e) => {
            eprintln!("suite: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn options(args: &[String]) -> Result<Options> {
    let default = if cgroup::unified() { View::Host } else { View::V1 };
    let mut o = Options {
        view: default,
        systemd: false,
        jobs: 2,
        list: false,
        verbose: false,
        times: false,
        compare: false,
        filters: vec![],
    };
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
            "--systemd" => o.systemd = true,
            "--list" => o.list = true,
            "--verbose" => o.verbose = true,
            "--times" => o.times = true,
            "compare" => o.compare = true,
            flag if flag.starts_with('-') => bail!("unknown flag {flag}"),
            filter => o.filters.push(filter.to_string()),
        }
    }
    Ok(o)
}

fn chosen(o: &Options) -> Vec<Test> {
    let group = |t: &Test| t.name.starts_with("compare/");
    tests::all()
        .into_iter()
        .filter(|t| group(t) == o.compare)
        .filter(|t| o.filters.is_empty() || o.filters.iter().any(|f| t.name.contains(f.as_str())))
        .collect()
}

fn list(o: &Options) -> Result<i32> {
    for test in chosen(o) {
        println!("{}", test.name);
    }
    Ok(0)
}

/// Finds the binary of naru beside this package, wherever the build put us.
fn runtime() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RUNTIME") {
        let path = PathBuf::from(path);
        if path.components().count() == 1 {
            let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .map(|d| d.join(&path))
                .find(|p| p.is_file());
            return found.with_context(|| format!("RUNTIME={} is not in PATH", path.display()));
        }
        return std::path::absolute(&path).with_context(|| format!("RUNTIME={}", path.display()));
    }
    let exe = std::env::current_exe()?;
    for dir in exe.ancestors() {
        let built = dir.join("target/x86_64-unknown-linux-musl/release/naru");
        if built.is_file() {
            return Ok(built);
        }
    }
    bail!("no RUNTIME given and no built naru found")
}

/// The directory with the real configs: of the source tree that holds this binary, or beside the binary.
fn configs() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    exe.ancestors()
        .flat_map(|d| [d.join("configs"), d.join("runtime-tools-tests/configs")])
        .find(|d| d.join("docker-default.json").is_file())
        .context("no directory configs with docker-default.json near this binary")
}

/// First word of `--version`.
fn kind(runtime: &Path) -> Result<String> {
    let out =
        Command::new(runtime).arg("--version").output().with_context(|| format!("{}", runtime.display()))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    Ok(text.split_whitespace().next().unwrap_or("unknown").to_string())
}

fn supervise(o: &Options) -> Result<i32> {
    ensure!(nix::unistd::geteuid().is_root(), "must run as root");
    let runtime = runtime()?;
    let kind = kind(&runtime)?;
    let reference = match std::env::var_os("REFERENCE") {
        Some(path) => Some(PathBuf::from(&path).canonicalize().context("REFERENCE")?),
        None => None,
    };
    ensure!(!o.compare || reference.is_some(), "compare needs REFERENCE=path");
    ensure!(!o.systemd || Path::new("/run/systemd/system").is_dir(), "--systemd: no systemd runs here");
    let configs = configs()?;
    stage::enter_view(o.view)?;

    let own = std::process::id();
    let dir = PathBuf::from(format!("/tmp/runtime-tests.{own}"));
    fs::create_dir(&dir)?;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("mount tmpfs")?;
    let probe = dir.join("probe");
    fs::copy(std::env::current_exe()?.with_file_name("probe"), &probe).context("copy the probe")?;
    let base = format!("/runtime-tests-{own}");
    cgroup::make(&base)?;

    let view = match o.view {
        View::V1 => "v1",
        View::V2 => "v2",
        View::Host => "host",
    };
    let driver = if o.systemd { ", systemd" } else { "" };
    println!("# {} ({kind}), view {view}{driver}", runtime.display());
    let tests = chosen(o);
    let next = AtomicUsize::new(0);
    let counts = Mutex::new([0usize; 4]);
    let start = Instant::now();
    std::thread::scope(|scope| {
        // One after the other where a test has systemd reload.
        let jobs = if o.systemd { 1 } else { o.jobs.max(1) };
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(test) = tests.get(n) else { break };
                    let args = json!({
                        "test": test.name,
                        "dir": dir.join(format!("t{n}")),
                        "cgroup": format!("{base}/t{n}"),
                        "cgroup_home": "/",
                        "mark": format!("s{own}t{n}"),
                        "runtime": runtime, "kind": kind, "reference": reference, "view": view, "systemd": o.systemd,
                        "probe": probe, "configs": configs, "limit_ms": test.limit_ms,
                    });
                    report(o, test, &args, &kind, &counts);
                }
            });
        }
    });
    cgroup::remove(&base)?;
    nix::mount::umount2(&dir, nix::mount::MntFlags::MNT_DETACH)?;
    fs::remove_dir(&dir)?;
    let [passed, failed, skipped, deviating] = *counts.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    if deviating > 0 {
        println!("# {deviating} of the passed are known deviations of {kind}");
    }
    println!("# {:.1} s", start.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(i32::from(failed > 0))
}

/// Runs one test and prints its line.
fn report(o: &Options, test: &Test, args: &Value, kind: &str, counts: &Mutex<[usize; 4]>) {
    let start = Instant::now();
    let verdict = stage::run(args).unwrap_or_else(|e| Verdict::Fail(format!("{e:#}")));
    let deviation = test.deviation(kind);
    let time = if o.times { format!(" [{} ms]", start.elapsed().as_millis()) } else { String::new() };
    let (slot, line) = match (verdict, deviation) {
        (Verdict::Pass, None) => {
            let note = Path::new(args["dir"].as_str().unwrap_or_default()).join("note");
            let note = fs::read_to_string(note).map(|text| format!(" # {text}")).unwrap_or_default();
            (0, format!("ok   {}{time}{note}", test.name))
        }
        (Verdict::Pass, Some(why)) => {
            (0, format!("ok   {}{time} # {kind} is noted to deviate, but did not: {why}", test.name))
        }
        (Verdict::Fail(got), Some(why)) => {
            (3, format!("ok   {}{time} # {kind} deviates: {why}: {}", test.name, one_line(&got)))
        }
        (Verdict::Fail(why), None) => (1, format!("FAIL {}{time}: {}", test.name, why.trim_end())),
        (Verdict::Skip(why), _) => (2, format!("SKIP {}{time}: {why}", test.name)),
    };
    println!("{line}");
    if o.verbose && slot == 1 {
        // What the test itself printed.
        let log = Path::new(args["dir"].as_str().unwrap_or_default()).join("log");
        print!("{}", fs::read_to_string(log).unwrap_or_default());
    }
    if !o.systemd {
        // Room for the next ones: it is all memory. A test's mounts, other than with systemd, have gone with its mount namespace.
        let dir = args["dir"].as_str().unwrap_or_default();
        let removed = Command::new("rm").args(["-rf", "--one-file-system", "--", dir]).status();
        if !removed.is_ok_and(|status| status.success()) {
            println!("# {dir} is left");
        }
    }
    if let Ok(mut counts) = counts.lock() {
        counts[slot] += 1;
        if slot == 3 {
            counts[0] += 1;
        }
    }
}

fn one_line(s: &str) -> String {
    s.lines().next().unwrap_or_default().chars().take(160).collect()
}
