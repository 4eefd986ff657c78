//! The rules: what each command must leave behind, with a fault or without, and when it counts as done.
//!
//! Exit not 0: one line on stderr, and the host is as it was. Exit 0: the container is all that an unfaulted one
//! is. Killed: one `delete --force` makes the host as it was. Nothing hangs. Called by `supervise`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::compare::{
    KILLED, first_difference, is_silent, message_fault, pid_of, plain_state, state_difference,
};
use crate::faults;
use crate::kernel::{self, Pid, text_of};
use crate::oracle::{self, Snapshot, difference};
use crate::plan::{Act, Case, Command, Options};
use crate::trace::{self, Counted, End, Launch, Outcome};
use crate::world::{self, HOOK_LOG, PID_FILE, REPORT, WAIT, World};

/// What `update` sets, and what it finds: the bundle's own limits.
const UPDATED: [&str; 6] = ["--pids-limit", "50", "--memory", "50331648", "--cpu-share", "256"];
const BEFORE: [&str; 6] = ["--pids-limit", "64", "--memory", "67108864", "--cpu-share", "512"];

/// What came of a case.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The faulted call.
    pub call: String,
    /// Why it does not count.
    pub skip: Option<String>,
    /// Rules broken.
    pub broken: Vec<String>,
    /// The worker's host cannot be used again.
    pub dirty: bool,
}

/// What an unfaulted life looks like.
#[derive(Default)]
struct Model {
    report: String,
    exec: String,
    created: Value,
    running: Value,
    stopped: Value,
    limits: String,
    updated: String,
    membership: String,
    hook: String,
    empty: Snapshot,
}

/// A worker's host with its model.
pub struct Judge {
    world: World,
    model: Model,
    hook: bool,
    /// The host with a container that stays, for exec, kill, state, update, pause and resume.
    running: Option<Snapshot>,
    /// Something is left on this host: it cannot be used again.
    dirty: bool,
}

impl Judge {
    /// Learns the model from two unfaulted lives; they must agree and leave nothing.
    /// Only what `command` needs is tried: a runtime may not have all yet.
    pub fn new(world: World, command: Command, hook: bool) -> Result<Self> {
        let mut judge = Self { world, model: Model::default(), hook, running: None, dirty: false };
        judge.model = judge.life(command).context("a life without faults")?;
        let until = Instant::now() + Duration::from_secs(5);
        let mut empty = judge.look();
        while empty.has_keys() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
            empty = judge.look();
        }
        judge.model.empty = empty;
        let again = judge.life(command).context("a second life without faults")?;
        if judge.model.report != again.report {
            bail!("two reports differ: {}", first_difference(&judge.model.report, &again.report));
        }
        if let Some(left) = judge.settle() {
            bail!("a life without faults leaves something: {}", left.join("; "));
        }
        Ok(judge)
    }

    fn look(&self) -> Snapshot {
        oracle::look(&self.world.hierarchies, &self.world.id)
    }

    /// Waits, for a bounded time, until the host is as it was; otherwise what differs.
    fn settle_to(&mut self, wanted: &Snapshot) -> Option<Vec<String>> {
        // The kernel lets the credentials of a process go, and with them its keys, when it finds the time.
        const KEYS: Duration = Duration::from_secs(10);
        const ANYTHING: Duration = Duration::from_secs(1);
        let begun = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            self.world.dead.reap();
            let now = self.look();
            if now == *wanted {
                return None;
            }
            let limit = if wanted.differs_by_keys(&now) { KEYS } else { ANYTHING };
            let left = begun.elapsed() > limit;
            // Without a process more than there should be, nobody is there to tidy up: the kernel's own delays are short.
            let idle = begun.elapsed() > Duration::from_millis(60) && wanted.same_processes(&now);
            if left || idle {
                let id = &self.world.id;
                return Some(difference(wanted, &now).iter().map(|l| l.replace(id, "ID")).collect());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn settle(&mut self) -> Option<Vec<String>> {
        let wanted = self.model.empty.clone();
        self.settle_to(&wanted)
    }

    fn tool(&mut self, args: &[&str]) -> Result<String> {
        self.world.tool(args)?.good(args[0])
    }

    fn id(&self) -> String {
        self.world.id.clone()
    }

    fn state(&mut self) -> Result<(Value, Option<Pid>)> {
        let id = self.id();
        let text = self.tool(&["state", &id])?;
        Ok((plain_state(&text)?, pid_of(&text)))
    }

    fn membership(&self, pid: Pid) -> String {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .unwrap_or_default()
            .replace(&self.world.id, "ID")
    }

    fn take_hook_log(&self) -> String {
        let text = std::fs::read_to_string(HOOK_LOG).unwrap_or_default();
        if self.hook {
            // A tmpfs file that was just read.
            let _ = std::fs::write(HOOK_LOG, "");
        }
        text
    }

    fn life(&mut self, command: Command) -> Result<Model> {
        let id = self.id();
        let mut m = Model::default();
        self.world.create(REPORT)?;
        let (created, pid) = self.state()?;
        let pid = pid.context("state without a pid")?;
        if self.world.take_pid_file() != Some(pid) {
            bail!("pid file and state differ");
        }
        m.created = created;
        m.limits = oracle::limits(&self.world.hierarchies, &id);
        m.membership = self.membership(pid);
        m.hook = self.take_hook_log();
        if m.hook != if self.hook { "state\n" } else { "" } {
            bail!("the hook wrote {:?}", m.hook);
        }
        self.tool(&["start", &id])?;
        let deadline = self.world.deadline();
        self.world.dead.wait(pid, deadline).context("the payload does not end")?;
        m.report = self.report();
        if !m.report.contains("capability") {
            bail!("an incomplete report: {}", text_of(self.world.payload.err).trim_end());
        }
        m.stopped = self.state()?.0;
        self.tool(&["delete", &id])?;
        if command.keeps_running() {
            self.world.dead.clear();
            self.keep_running()?;
            m.running = self.state()?.0;
            if command == Command::Update {
                if !self.world.has_limits() {
                    bail!("this host has no controllers here that an update could set");
                }
                self.tool(&[&["update"], &UPDATED[..], &[&id]].concat())?;
                m.updated = oracle::limits(&self.world.hierarchies, &id);
                if m.updated == m.limits {
                    bail!("an update changes nothing");
                }
            }
            if command == Command::Exec {
                let out = self.tool(&["exec", &id, "/probe", "report"])?;
                m.exec = self.world.normal(&out);
            }
            self.tool(&["delete", "--force", &id])?;
            self.running = None;
        }
        self.take_hook_log();
        Ok(m)
    }

    fn report(&self) -> String {
        self.world.normal(&text_of(self.world.payload.out))
    }

    fn keep_running(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let id = self.id();
        self.world.create(WAIT)?;
        self.world.take_pid_file().context("no pid file")?;
        self.tool(&["start", &id])?;
        self.take_hook_log();
        if !self.payload_says("ready\n") {
            bail!("the waiting payload is not ready");
        }
        self.world.dead.reap();
        self.running = Some(self.look());
        Ok(())
    }

    fn payload_says(&self, wanted: &str) -> bool {
        let until = Instant::now() + Duration::from_secs(2);
        while text_of(self.world.payload.out) != wanted {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        true
    }

    /// Brings the container into the state that the command wants; the init stage when it is part of it.
    fn prepare(&mut self, command: Command) -> Result<Option<Pid>> {
        let id = self.id();
        match command {
            Command::Create | Command::Run => {
                self.world.payload.clear();
                Ok(None)
            }
            Command::Start => {
                self.world.create(REPORT)?;
                self.take_hook_log();
                Ok(Some(self.world.take_pid_file().context("no pid file")?))
            }
            Command::Delete => {
                self.world.create(REPORT)?;
                self.take_hook_log();
                let pid = self.world.take_pid_file().context("no pid file")?;
                self.tool(&["start", &id])?;
                let deadline = self.world.deadline();
                self.world.dead.wait(pid, deadline).context("the payload does not end")?;
                Ok(None)
            }
            Command::DeleteForce => {
                self.running = None;
                self.keep_running()?;
                Ok(None)
            }
            Command::Exec | Command::State | Command::Pause => {
                self.keep_running()?;
                Ok(None)
            }
            Command::Resume => {
                self.keep_running()?;
                self.tool(&["pause", &id])?;
                Ok(None)
            }
            Command::Update => {
                self.keep_running()?;
                self.tool(&[&["update"], &BEFORE[..], &[&id]].concat())?;
                Ok(None)
            }
            Command::Kill => {
                self.keep_running()?;
                kernel::clear(self.world.payload.out);
                Ok(None)
            }
        }
    }

    fn with_launch<T>(
        &mut self,
        command: Command,
        init: Option<Pid>,
        trace: impl FnOnce(&Launch, &mut trace::Dead) -> Result<T>,
    ) -> Result<T> {
        let id = self.id();
        let update = [&["update"], &UPDATED[..], &[&id]].concat();
        let args: &[&str] = match command {
            Command::Create => &["create", "--bundle", REPORT, "--pid-file", PID_FILE, &id],
            Command::Run => &["run", "--bundle", REPORT, "--pid-file", PID_FILE, &id],
            Command::Start => &["start", &id],
            Command::Delete => &["delete", &id],
            Command::DeleteForce => &["delete", "--force", &id],
            Command::Exec => &["exec", &id, "/probe", "report"],
            Command::Kill => &["kill", &id, "USR1"],
            Command::State => &["state", &id],
            Command::Update => &update,
            Command::Pause => &["pause", &id],
            Command::Resume => &["resume", &id],
        };
        let program = self.world.program(args)?;
        let output = match command {
            Command::Create | Command::Run => &self.world.payload,
            _ => {
                self.world.tool.clear();
                &self.world.tool
            }
        };
        let launch = Launch {
            program: &program,
            stdio: self.world.stdio(output),
            init,
            probe: self.world.probe,
            deadline: self.world.deadline(),
        };
        trace(&launch, &mut self.world.dead)
    }

    /// The calls of a command without a fault.
    pub fn count(&mut self, command: Command) -> Result<Counted> {
        self.world.dead.clear();
        let init = self.prepare(command).with_context(|| format!("prepare {}", command.word()))?;
        let (end, counted) = self.with_launch(command, init, trace::count)?;
        if end != End::Code(0) {
            bail!("{} under the tracer: {end:?}: {}", command.word(), self.stderr(command).trim_end());
        }
        let mut broken = Vec::new();
        self.succeeded(command, &mut broken)?;
        if !broken.is_empty() {
            bail!("{} under the tracer: {}", command.word(), broken.join("; "));
        }
        Ok(counted)
    }

    fn stderr(&self, command: Command) -> String {
        match command {
            Command::Create | Command::Run => text_of(self.world.payload.err),
            _ => text_of(self.world.tool.err),
        }
    }

    /// Runs one case and judges it.
    pub fn case(&mut self, command: Command, case: &Case, o: &Options) -> Verdict {
        self.world.dead.reap();
        self.world.dead.clear();
        let mut v = Verdict::default();
        if let Err(e) = self.run_case(command, case, o, &mut v) {
            v.broken.push(format!("{e:#}"));
            v.dirty = true;
        }
        v.call = v.call.replace(&self.world.id, "ID");
        v.broken.iter_mut().for_each(|b| *b = b.replace(&self.world.id, "ID"));
        v.dirty = v.dirty && !self.tidy();
        v
    }

    fn run_case(&mut self, command: Command, case: &Case, o: &Options, v: &mut Verdict) -> Result<()> {
        let init = self.prepare(command).with_context(|| format!("prepare {}", command.word()))?;
        let Outcome { end, hit } =
            self.with_launch(command, init, |l, dead| trace::inject(l, case, &o.errnos, dead))?;
        let err = self.stderr(command);
        let Some(hit) = hit else {
            v.skip = Some("point not reached".to_string());
            if end == End::Code(0) {
                self.succeeded(command, &mut Vec::new())?;
            } else {
                v.broken.push(format!("{end:?} without a fault: {}", err.trim_end()));
                v.dirty = true;
            }
            return Ok(());
        };
        v.call = hit.text.clone();
        let panic = err.contains("panicked");
        if panic {
            let lines: Vec<&str> =
                err.lines().filter(|l| !l.is_empty() && !l.starts_with("note: ")).collect();
            v.broken.push(format!("panic: {}", lines.join(" | ")));
        }
        if end == End::Hang {
            let excused =
                matches!(case.act, Act::Fail(e) if e != libc::EINTR && faults::is_wait(hit.call.number));
            if excused {
                v.skip = Some("hangs after a fault in a wait".to_string());
            } else {
                v.broken.push(format!("hang: stderr {:?}", err.trim_end()));
            }
            v.dirty = true;
            return Ok(());
        }
        let broken = &mut v.broken;
        match case.act {
            Act::KillMain => self.killed(broken)?,
            Act::Fail(_) | Act::KillRole => {
                if let (End::Signal(s), Act::Fail(_), false) = (end, case.act, panic) {
                    broken.push(format!("died by signal {s}: stderr {:?}", err.trim_end()));
                }
                if end == End::Code(0) {
                    self.succeeded_with(command, case, init, broken)?;
                } else {
                    if !panic && !is_silent(end, case, &hit) {
                        broken.extend(message_fault(&err));
                    }
                    if command == Command::Run && end == KILLED {
                        // Started, then killed in the payload's place: the pid file is the caller's.
                        self.world.drop_pid_file();
                    }
                    self.failed(command, broken)?;
                }
            }
        }
        v.dirty = self.dirty;
        if let (Some(first), End::Code(code)) = (v.broken.first_mut(), end)
            && code != 0
        {
            first.insert_str(0, &format!("exit {code}, "));
        }
        Ok(())
    }

    /// Makes the host as it was, by force; false when that fails and another worker must go on.
    fn tidy(&mut self) -> bool {
        self.running = None;
        self.dirty = false;
        self.world.end_processes();
        world::remove_cgroups(&self.world.hierarchies, &self.world.id);
        for path in self.look().files_beyond(&self.model.empty) {
            // What cannot be removed shows in the comparison.
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
        self.world.payload.clear();
        self.take_hook_log();
        self.look() == self.model.empty
    }

    /// Exit 0: the command has done what it says. Ends with an empty host, or with the container that stays.
    fn succeeded(&mut self, command: Command, broken: &mut Vec<String>) -> Result<()> {
        match command {
            Command::Create => self.created(broken)?,
            Command::Start => {
                let (_, pid) = self.state()?;
                self.started(pid, broken)?;
            }
            Command::Run => {
                if self.world.take_pid_file().is_none() {
                    broken.push("exit 0 without a pid file".to_string());
                }
                self.compare_report(broken);
                self.compare_hook(broken);
            }
            Command::Delete | Command::DeleteForce => self.running = None,
            Command::Exec => {
                let got = self.world.normal(&text_of(self.world.tool.out));
                if got != self.model.exec {
                    broken.push(format!("exit 0, but exec: {}", first_difference(&self.model.exec, &got)));
                }
            }
            Command::Kill => {
                if !self.payload_says("u") {
                    broken.push("exit 0, but the signal did not arrive".to_string());
                }
            }
            Command::Update => self.compare_limits(broken),
            Command::Pause => {
                let status = self.status()?;
                if status != "paused" {
                    broken.push(format!("exit 0, but the status is {status}"));
                }
                self.thaw(broken)?;
            }
            Command::Resume => {
                let status = self.status()?;
                if status != "running" {
                    broken.push(format!("exit 0, but the status is {status}"));
                }
                self.thaw(broken)?;
            }
            Command::State => match plain_state(&text_of(self.world.tool.out)) {
                Ok(v) if v == self.model.running => {}
                Ok(v) => {
                    broken.push(format!("exit 0, but state: {}", state_difference(&self.model.running, &v)))
                }
                Err(e) => broken.push(format!("exit 0, but {e:#}")),
            },
        }
        self.compare_host(command, "", broken);
        Ok(())
    }

    fn status(&mut self) -> Result<String> {
        Ok(self.state()?.0["status"].as_str().unwrap_or_default().to_string())
    }

    /// Makes a paused container run again, by a command without a fault.
    fn thaw(&mut self, broken: &mut Vec<String>) -> Result<()> {
        let id = self.id();
        if self.status()? == "paused" {
            self.tool(&["resume", &id])?;
        }
        let status = self.status()?;
        if status != "running" {
            broken.push(format!("after resume the status is {status}"));
            self.dirty = true;
        }
        Ok(())
    }

    fn compare_limits(&mut self, broken: &mut Vec<String>) {
        let limits = oracle::limits(&self.world.hierarchies, &self.world.id);
        if limits != self.model.updated {
            broken.push(format!("updated, but limits: {}", first_difference(&self.model.updated, &limits)));
        }
    }

    /// The host must be empty, or as it was with the container that stays.
    fn compare_host(&mut self, command: Command, when: &str, broken: &mut Vec<String>) {
        let left = match (command, &self.running) {
            (command, Some(wanted)) if command.keeps_running() => {
                let wanted = wanted.clone();
                self.settle_to(&wanted)
            }
            _ => self.settle(),
        };
        self.dirty |= left.is_some();
        broken.extend(left.into_iter().flatten().map(|l| format!("{when}{l}")));
    }

    fn compare_hook(&mut self, broken: &mut Vec<String>) {
        let hook = self.take_hook_log();
        if hook != self.model.hook {
            broken.push(format!("exit 0, but the hook wrote {hook:?}"));
        }
    }

    fn compare_report(&mut self, broken: &mut Vec<String>) {
        let (wanted, got) = (without_devices(&self.model.report), without_devices(&self.report()));
        if got != wanted {
            broken.push(format!("exit 0, but inside: {}", first_difference(&wanted, &got)));
        }
    }

    fn created(&mut self, broken: &mut Vec<String>) -> Result<()> {
        let id = self.id();
        let (state, pid) = self.state().context("after create")?;
        if state != self.model.created {
            broken.push(format!("exit 0, but state: {}", state_difference(&self.model.created, &state)));
        }
        let named = self.world.take_pid_file();
        if named.is_none() || named != pid {
            broken.push(format!("exit 0, but pid file {named:?} and state {pid:?}"));
        }
        let limits = oracle::limits(&self.world.hierarchies, &id);
        if limits != self.model.limits {
            broken.push(format!("exit 0, but limits: {}", first_difference(&self.model.limits, &limits)));
        }
        let membership = pid.map(|p| self.membership(p)).unwrap_or_default();
        if membership != self.model.membership {
            let d = first_difference(&self.model.membership, &membership);
            broken.push(format!("exit 0, but cgroups: {d}"));
        }
        self.compare_hook(broken);
        if !broken.is_empty() {
            return self.force_delete(broken);
        }
        let ran = self.world.tool(&["start", &id])?;
        if ran.end != End::Code(0) {
            broken.push(format!("exit 0, but start {:?}: {}", ran.end, ran.err.trim_end()));
            return self.force_delete(broken);
        }
        self.started(pid, broken)
    }

    /// After a good start: the payload runs, ends, says what it must; delete works.
    fn started(&mut self, pid: Option<Pid>, broken: &mut Vec<String>) -> Result<()> {
        let id = self.id();
        let deadline = self.world.deadline();
        if let Some(pid) = pid.filter(|p| *p > 0)
            && self.world.dead.wait(pid, deadline).is_none()
        {
            broken.push("exit 0, but the payload does not end".to_string());
            return self.force_delete(broken);
        }
        self.compare_report(broken);
        let (state, _) = self.state().context("after the payload's end")?;
        if state != self.model.stopped {
            broken.push(format!("ended, but state: {}", state_difference(&self.model.stopped, &state)));
        }
        let ran = self.world.tool(&["delete", &id])?;
        if ran.end != End::Code(0) {
            broken.push(format!("ended, but delete {:?}: {}", ran.end, ran.err.trim_end()));
            return self.force_delete(broken);
        }
        Ok(())
    }

    /// Exit 0 although something was done to a process: as `succeeded`, but a command that has returned cannot
    /// know what becomes of the init stage after it.
    fn succeeded_with(
        &mut self,
        command: Command,
        case: &Case,
        init: Option<Pid>,
        broken: &mut Vec<String>,
    ) -> Result<()> {
        let deadline = self.world.deadline();
        match (command, case.act) {
            (Command::Start, _) if case.role.init => {
                if init.and_then(|pid| self.world.dead.wait(pid, deadline)).is_none() {
                    broken.push("exit 0, but the init stage does not end".to_string());
                    return self.force_delete(broken);
                }
                if self.world.payload_is_silent() {
                    return self.killed(broken);
                }
            }
            (Command::Create, Act::KillRole) => {
                self.world.dead.reap();
                if self.state().context("after the init stage's end")?.0["status"] == "stopped" {
                    return self.killed(broken);
                }
                // Made anew, as after a kill at birth that was meant for another cgroup: then it must be all there.
            }
            (Command::Create, Act::Fail(_)) if case.last => return self.created_at_gate(broken),
            _ => {}
        }
        self.succeeded(command, broken)
    }

    /// Create returned 0 and the init stage's wait for start was faulted: it is all there, or it is stopped and
    /// start says so.
    fn created_at_gate(&mut self, broken: &mut Vec<String>) -> Result<()> {
        let id = self.id();
        if self.state().context("after create")?.0["status"] != "stopped" {
            let pid = self.world.take_pid_file();
            let ran = self.world.tool(&["start", &id])?;
            match ran.end {
                End::Code(0) => {
                    self.compare_hook(broken);
                    self.started(pid, broken)?;
                    self.compare_host(Command::Create, "", broken);
                    return Ok(());
                }
                End::Code(_) => broken.extend(message_fault(&ran.err)),
                end => broken.push(format!("exit 0, but start {end:?}: {}", ran.err.trim_end())),
            }
        }
        self.killed(broken)
    }

    /// Exit not 0: nothing is left, or for a command on a container one `delete --force` leaves nothing.
    fn failed(&mut self, command: Command, broken: &mut Vec<String>) -> Result<()> {
        match command {
            Command::Create => {}
            // The pid file of a container that has run is the caller's.
            Command::Run if !self.world.payload_is_silent() => self.world.drop_pid_file(),
            Command::Run => {}
            Command::Start => {
                // A released payload speaks within milliseconds; one that still waits never does.
                let until = Instant::now() + Duration::from_millis(20);
                while self.world.payload_is_silent() && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if !self.world.payload_is_silent() {
                    broken.push("start failed, but the payload ran".to_string());
                }
                self.force_delete(broken)?;
            }
            Command::Delete | Command::DeleteForce => self.force_delete(broken)?,
            Command::Exec | Command::Kill | Command::State => {}
            // Some limits may be the new ones by then; the same command again sets them all.
            Command::Update => {
                let id = self.id();
                self.tool(&[&["update"], &UPDATED[..], &[&id]].concat())?;
                self.compare_limits(broken);
            }
            // A pause that fails leaves nothing frozen; a resume that fails may be repeated.
            Command::Pause => {
                let status = self.status()?;
                if status != "running" {
                    broken.push(format!("but the status is {status}"));
                }
                self.thaw(broken)?;
            }
            Command::Resume => self.thaw(broken)?,
        }
        self.take_hook_log();
        self.compare_host(command, "", broken);
        Ok(())
    }

    /// After SIGKILL of the runtime.
    fn killed(&mut self, broken: &mut Vec<String>) -> Result<()> {
        self.force_delete(broken)?;
        self.world.drop_pid_file();
        self.take_hook_log();
        self.compare_host(Command::Create, "after delete --force: ", broken);
        Ok(())
    }

    fn force_delete(&mut self, broken: &mut Vec<String>) -> Result<()> {
        let id = self.id();
        self.running = None;
        let ran = self.world.tool(&["delete", "--force", &id])?;
        if ran.end != End::Code(0) {
            broken.push(format!("delete --force after it: {:?}: {}", ran.end, ran.err.trim_end()));
            self.dirty = true;
        }
        Ok(())
    }
}

/// A report without what two good ways differ in: device nodes are made or the host's are bound, with masks from the
/// one or the other null, and a cgroup mount is new or the host's.
fn without_devices(report: &str) -> String {
    const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
    let node = |line: &str| {
        NODES.iter().any(|node| {
            line.strip_prefix("mount /")
                .and_then(|l| l.strip_prefix(node))
                .is_some_and(|l| l.starts_with(' '))
        })
    };
    report
        .lines()
        .filter(|line| !node(line))
        .map(|line| line.replace(" - cgroup2 none ", " - cgroup2 cgroup ") + "\n")
        .collect()
}
