//! What a test gets: the runtime, a private directory, and the means to run commands with a deadline. A test makes
//! bundles and containers from it (`bundle.rs`, `container.rs`) and returns an error to fail, `skip()` to skip.

use crate::bundle::Bundle;
use crate::leaks::{Snapshot, difference, snapshot};
use crate::sys;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::cell::Cell;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How cgroups are shown to the runtime under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The host's v1 trees without its cgroup2 mount.
    V1,
    /// A fresh cgroup2 at /sys/fs/cgroup.
    V2,
    /// As the host has it.
    Host,
}

/// A test that cannot run here.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends the test as skipped.
pub fn skip<T>(reason: impl Into<String>) -> Result<T> {
    Err(Skip(reason.into()).into())
}

/// What the runtime finds programs in.
pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// No single command of a runtime may take longer.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(15);

/// The surroundings of one test.
pub struct Cx {
    /// A directory of this test alone, on tmpfs.
    pub dir: PathBuf,
    /// State root given as `--root` to every command.
    pub root: PathBuf,
    /// The runtime's path.
    pub runtime: PathBuf,
    /// First word of its `--version`.
    pub kind: String,
    /// A runtime to compare with.
    pub reference: Option<PathBuf>,
    /// cgroups as shown.
    pub view: View,
    /// Every command gets `--systemd-cgroup`.
    pub systemd: bool,
    /// Own cgroup directory in every tree, from the tree's root.
    pub cgroup: String,
    /// Part of every id, unlike any of another test.
    pub mark: String,
    /// The static payload.
    pub probe: PathBuf,
    /// Directory of the real configs.
    pub configs: PathBuf,
    pub(crate) count: Cell<u32>,
}

impl Cx {
    /// The next number: for ids and file names.
    pub fn next(&self) -> u32 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    /// A container id nobody else uses.
    pub fn id(&self) -> String {
        format!("{}-{}", self.mark, self.next())
    }

    /// A new bundle with the default configuration and a root filesystem that holds the probe.
    pub fn bundle(&self) -> Result<Bundle<'_>> {
        Bundle::new(self)
    }

    /// A path below the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A command of the runtime with `--root` in front.
    pub fn cmd<S: AsRef<str>>(&self, args: &[S]) -> Cmd<'_> {
        let mut all = vec!["--root".to_string(), self.root.display().to_string()];
        if self.systemd {
            all.push("--systemd-cgroup".into());
        }
        all.extend(args.iter().map(|a| a.as_ref().to_string()));
        Cmd::new(self, &all)
    }

    /// A command of the runtime with exactly these arguments.
    pub fn bare<S: AsRef<str>>(&self, args: &[S]) -> Cmd<'_> {
        Cmd::new(self, &args.iter().map(|a| a.as_ref().to_string()).collect::<Vec<_>>())
    }

    /// Runs a command of the runtime.
    pub fn rt<S: AsRef<str>>(&self, args: &[S]) -> Result<Out> {
        self.cmd(args).run()
    }

    /// Says something of a test that passes, in its line.
    pub fn note(&self, text: &str) -> Result<()> {
        fs::write(self.path("note"), text).context("write the note")
    }

    /// Everything that could be left behind, as it is now.
    pub fn snapshot(&self) -> Result<Snapshot> {
        snapshot(&self.cgroup, &self.mark, &self.root, self.systemd)
    }

    /// Fails when anything was left since `before`.
    pub fn nothing_left(&self, before: &Snapshot) -> Result<()> {
        let diff = difference(before, &self.snapshot()?);
        ensure!(diff.is_empty(), "not as before: {}", diff.join("; "));
        Ok(())
    }

    /// True under a tree of cgroup v2 only.
    pub fn unified(&self) -> bool {
        crate::cgroup::unified()
    }

    /// Skips unless the systemd driver is asked for, or (`false`) where it is.
    pub fn need_systemd(&self, wanted: bool) -> Result<()> {
        match (self.systemd, wanted) {
            (true, false) => skip("cgroupfs driver only"),
            (false, true) => skip("no systemd here: uml.sh --systemd suite --systemd"),
            _ => Ok(()),
        }
    }

    /// Skips where no tree has the controller.
    pub fn need_controller(&self, name: &str) -> Result<()> {
        if crate::cgroup::has(name) { Ok(()) } else { skip(format!("no {name} controller here")) }
    }

    /// Skips unless there is a cgroup2 tree beside hierarchies of v1.
    pub fn need_hybrid(&self) -> Result<()> {
        if crate::cgroup::hybrid() { Ok(()) } else { skip("no cgroup2 tree beside hierarchies of v1 here") }
    }

    /// Gives the test's cgroup 20 ms of real time a second. Skips unless groups have such budgets, which is on v1 alone.
    pub fn need_real_time_budget(&self) -> Result<()> {
        self.need_unified(false)?;
        // Nobody gives the slices above a budget, and systemd has no property for it.
        self.need_systemd(false)?;
        self.need_controller("cpu")?;
        let mut dir = PathBuf::from("/sys/fs/cgroup/cpu");
        let parts: Vec<&str> = self.cgroup.split('/').filter(|part| !part.is_empty()).collect();
        for (n, part) in parts.iter().enumerate() {
            dir.push(part);
            // Above, there is room for other tests.
            let budget = if n + 1 == parts.len() { "20000" } else { "60000" };
            let file = dir.join("cpu.rt_runtime_us");
            if !file.exists() {
                return skip("no real-time budgets in this kernel or for this cgroup");
            }
            if fs::write(&file, budget).is_err() {
                return skip("no real-time budget is left for this cgroup");
            }
        }
        Ok(())
    }

    /// Skips unless this is cgroup v1 (`false`) or v2 (`true`).
    pub fn need_unified(&self, wanted: bool) -> Result<()> {
        match (self.unified(), wanted) {
            (true, false) => skip("cgroup v1 only"),
            (false, true) => skip("cgroup v2 only"),
            _ => Ok(()),
        }
    }
}

/// One command line of the runtime under construction.
pub struct Cmd<'a> {
    cx: &'a Cx,
    /// The arguments, for messages.
    line: String,
    command: Command,
    stdin: Option<Vec<u8>>,
    limit: Duration,
    held: Vec<OwnedFd>,
}

impl<'a> Cmd<'a> {
    fn new(cx: &'a Cx, args: &[String]) -> Self {
        let mut command = Command::new(&cx.runtime);
        command.args(args).env_clear().env("PATH", PATH).stdin(Stdio::null());
        Cmd { cx, line: args.join(" "), command, stdin: None, limit: COMMAND_LIMIT, held: vec![] }
    }

    /// Adds a variable; the environment is otherwise only PATH.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    /// Working directory of the runtime.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Bytes on standard input.
    pub fn input(mut self, bytes: &[u8]) -> Self {
        self.stdin = Some(bytes.to_vec());
        self
    }

    /// Standard input as it is.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Passes descriptors under given numbers.
    pub fn fds(mut self, fds: Vec<(OwnedFd, i32)>) -> Result<Self> {
        sys::pass_fds(&mut self.command, &fds)?;
        // The child's copies are made at fork: ours must live until then.
        self.held.extend(fds.into_iter().map(|(fd, _)| fd));
        Ok(self)
    }

    /// Runs with this umask.
    pub fn umask(mut self, mask: u32) -> Self {
        sys::with_umask(&mut self.command, mask);
        self
    }

    /// A shorter deadline, where a known peer hangs.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The command itself, for what is rare.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Runs to the end of the runtime; what it or the container wrote meanwhile is in the result. Output goes to files,
    /// so that a container that lives on does not hold us. Fails only when it cannot run or does not end in time.
    pub fn run(mut self) -> Result<Out> {
        let n = self.cx.next();
        let (out, err) = (self.cx.path(&format!("out.{n}")), self.cx.path(&format!("err.{n}")));
        self.command.stdout(File::create(&out)?).stderr(File::create(&err)?);
        if self.stdin.is_some() {
            self.command.stdin(Stdio::piped());
        }
        let start = Instant::now();
        let mut child = self.command.spawn().with_context(|| format!("run {}", self.cx.runtime.display()))?;
        if let (Some(bytes), Some(mut pipe)) = (&self.stdin, child.stdin.take()) {
            // A runtime that ends early closes the pipe: its exit code is what counts.
            let _ = pipe.write_all(bytes);
        }
        let Some(status) = sys::wait_timeout(&mut child, self.limit)? else {
            child.kill()?;
            child.wait()?;
            bail!("hang: no end after {:?}: {} stderr: {}", self.limit, self.line, fs::read_to_string(&err)?);
        };
        let out = Out {
            line: self.line,
            code: exit_code(status),
            out_path: out,
            err_path: err,
            stdout: String::new(),
            stderr: String::new(),
            took: start.elapsed(),
        };
        out.again()
    }

    /// Starts it with pipes or whatever was set; the caller waits.
    pub fn spawn(mut self) -> Result<Child> {
        self.command.spawn().with_context(|| format!("run {}", self.line))
    }
}

/// Exit code as a shell counts: 128 + signal.
pub fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Out {
    /// Its arguments.
    pub line: String,
    /// Exit code, 128 + signal when killed.
    pub code: i32,
    /// File with standard output: a container that lives on may still write to it.
    pub out_path: PathBuf,
    /// File with standard error.
    pub err_path: PathBuf,
    /// Standard output so far.
    pub stdout: String,
    /// Standard error so far.
    pub stderr: String,
    /// Wall time.
    pub took: Duration,
}

impl Out {
    /// Reads the output files anew.
    pub fn again(mut self) -> Result<Self> {
        self.stdout = String::from_utf8_lossy(&fs::read(&self.out_path)?).into_owned();
        self.stderr = String::from_utf8_lossy(&fs::read(&self.err_path)?).into_owned();
        Ok(self)
    }

    /// Fails unless it ended with this code.
    pub fn code(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "exit {} instead of {code}: {}\n  stdout: {}\n  stderr: {}",
            self.code,
            self.line,
            self.stdout.trim_end(),
            self.stderr.trim_end()
        );
        Ok(self)
    }

    /// Fails unless it ended with 0.
    pub fn ok(self) -> Result<Self> {
        self.code(0)
    }

    /// Standard error as an engine sees it: quotes inside of a quoted text line undone.
    pub fn said(&self) -> String {
        self.stderr.replace("\\\"", "\"")
    }

    /// Fails unless standard error has exactly one line. runc's warnings do not count: it warns where a tree has no
    /// memory controller.
    pub fn one_line(self) -> Result<Self> {
        let counts =
            |l: &&str| !(l.trim().is_empty() || (l.starts_with("time=") && l.contains("level=warning")));
        ensure!(
            self.stderr.lines().filter(counts).count() == 1,
            "not one line of error from {}: {:?}",
            self.line,
            self.stderr
        );
        Ok(self)
    }

    /// Fails unless it ended with 1 and said each of these on standard error.
    pub fn fails(self, phrases: &[&str]) -> Result<Self> {
        self.fails_with(1, phrases)
    }

    /// Fails unless it ended with this code and said each of these on standard error.
    pub fn fails_with(self, code: i32, phrases: &[&str]) -> Result<Self> {
        let out = self.code(code)?;
        for phrase in phrases {
            ensure!(
                out.said().contains(phrase),
                "no {phrase:?} in stderr of {}: {}",
                out.line,
                out.stderr.trim_end()
            );
        }
        Ok(out)
    }

    /// Fails unless it ended with 1 and said one of these on standard error.
    pub fn fails_any(self, phrases: &[&str]) -> Result<Self> {
        let out = self.code(1)?;
        ensure!(
            phrases.iter().any(|p| out.said().contains(p)),
            "none of {phrases:?} in stderr of {}: {}",
            out.line,
            out.stderr.trim_end()
        );
        Ok(out)
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| {
            format!("not JSON from {}: {:?} stderr {:?}", self.line, self.stdout, self.stderr)
        })
    }

    /// Lines of standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// Fails unless both are equal.
pub fn eq<A: fmt::Debug + PartialEq<B>, B: fmt::Debug>(what: &str, got: A, wanted: B) -> Result<()> {
    ensure!(got == wanted, "{what}: got {got:?}, wanted {wanted:?}");
    Ok(())
}

/// Fails unless a JSON value is the one wanted.
pub fn same(what: &str, got: &Value, wanted: Value) -> Result<()> {
    ensure!(*got == wanted, "{what}: got {got}, wanted {wanted}");
    Ok(())
}

/// Calls `f` until it gives something, 15 s at most.
pub fn wait_for<T>(what: &str, mut f: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(v) = f()? {
            return Ok(v);
        }
        ensure!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}
