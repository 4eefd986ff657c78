//! Many cases over few workers: forks them, hands out cases, replaces a worker whose host is spoiled, and adds up.
//!
//! Three generations: a job outlives its workers; a holder leaves the namespaces and waits; the worker is pid 1
//! in them. They share one page with the next case's number and write result lines to one pipe.
//! Called by `main`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::faults;
use crate::kernel::{self, Call};
use crate::oracle;
use crate::plan::{self, Case, Command, Options, Role, View};
use crate::programs;
use crate::trace::{Counted, Hit};
use crate::verdict::Judge;
use crate::world::{self, World};

/// The sums of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that kept the rules.
    pub passed: usize,
    /// Cases that broke one.
    pub failed: usize,
    /// Calls that cannot fail, points not reached, hangs in a faulted wait, views that the host lacks.
    pub skipped: usize,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// What jobs share: the next case, and for each job the case it is at (plus one).
struct Shared {
    next: AtomicUsize,
    current: [AtomicUsize; 64],
}

fn shared() -> Result<&'static Shared> {
    // SAFETY: a fresh anonymous mapping, zeroed, larger than the structure and page aligned; it is never unmapped.
    // Atomics are valid at all zero.
    unsafe {
        let p = libc::mmap(
            std::ptr::null_mut(),
            std::mem::size_of::<Shared>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if p == libc::MAP_FAILED {
            bail!("mmap: errno {}", kernel::errno());
        }
        Ok(&*p.cast::<Shared>())
    }
}

/// Forks; the child runs `body`, exits with its result and dies with its parent.
fn child(body: impl FnOnce() -> i32) -> Result<kernel::Pid> {
    // SAFETY: this program has one thread; the child never returns from here.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: plain numbers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let code = body();
        std::process::exit(code);
    }
    if pid == -1 {
        bail!("fork: errno {}", kernel::errno());
    }
    Ok(pid)
}

fn wait_for(pid: kernel::Pid) -> i32 {
    let mut status = 0;
    // SAFETY: waitpid writes one int at status.
    while unsafe { libc::waitpid(pid, &mut status, 0) } == -1 && kernel::errno() == libc::EINTR {}
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

fn pipe() -> Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: pipe2 writes two descriptors, each of which gets one owner.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) == -1 {
            bail!("pipe: errno {}", kernel::errno());
        }
        Ok((File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])))
    }
}

/// A worker's exit code: no case left.
const DONE: i32 = 0;
/// A worker's exit code: its host is spoiled, another one shall go on.
const SPOILED: i32 = 3;
/// A worker's exit code: it could not begin (said in a line).
const UNFIT: i32 = 4;

/// Runs `work` as pid 1 in namespaces of its own, removes its cgroups afterwards, returns its exit code.
fn in_own_world(id: &str, work: impl FnOnce() -> i32) -> Result<i32> {
    let holder = child(|| {
        if let Err(e) = world::leave() {
            eprintln!("sweep: {e:#}");
            return UNFIT;
        }
        match child(work) {
            Ok(pid) => wait_for(pid),
            Err(_) => UNFIT,
        }
    })?;
    let code = wait_for(holder);
    // Here, not in the holder: its /proc belongs to the worker's pid namespace, where it is not.
    let roots = oracle::hierarchies(&std::fs::read_to_string("/proc/self/mountinfo")?);
    for left in world::remove_cgroups(&roots, id) {
        eprintln!("sweep: {left} cannot be removed");
    }
    Ok(code)
}

/// A line of the pipe, short enough to be written whole.
fn line(kind: &str, index: usize, call: &str, text: &str) -> String {
    let cut: String = text.trim_end().replace('\n', " | ").chars().take(800).collect();
    let call: String = call.replace(['\n', '\t'], " ").chars().take(100).collect();
    format!("{kind}\t{index}\t{call}\t{cut}\n")
}

fn unline(text: &str) -> Option<(&str, usize, &str, &str)> {
    let mut parts = text.splitn(4, '\t');
    Some((parts.next()?, parts.next()?.parse().ok()?, parts.next()?, parts.next()?))
}

fn roles_to_json(roles: &Counted) -> Value {
    let call = |h: &Hit| json!([h.call.number, h.call.args, h.text]);
    roles
        .iter()
        .map(|(r, calls)| json!([r.to_string(), calls.iter().map(call).collect::<Vec<_>>()]))
        .collect()
}

fn roles_from_json(text: &str) -> Result<Counted> {
    let v: Value = serde_json::from_str(text).context("count line")?;
    let mut all = Vec::new();
    for role in v.as_array().context("count line")? {
        let calls = role[1].as_array().context("count line")?.iter().map(|c| {
            let mut args = [0; 6];
            args.iter_mut().enumerate().for_each(|(i, a)| *a = c[1][i].as_u64().unwrap_or(0));
            let call = Call { number: c[0].as_i64().unwrap_or(-1), args };
            Hit { call, text: c[2].as_str().unwrap_or_default().to_string() }
        });
        all.push((Role::parse(role[0].as_str().unwrap_or_default())?, calls.collect()));
    }
    Ok(all)
}

/// Of two counts of the same command, for each role the longer one; and where they differ.
fn merge(a: Counted, b: Counted) -> (Counted, Vec<String>) {
    let mut notes = Vec::new();
    let mut all = a;
    for (role, calls) in b {
        match all.iter_mut().find(|(r, _)| *r == role) {
            Some((_, have)) => {
                if have.len() != calls.len() {
                    notes.push(format!("{role} {} or {} calls", have.len(), calls.len()));
                }
                if have.len() < calls.len() {
                    *have = calls;
                }
            }
            None => {
                notes.push(format!("{role} not always there"));
                all.push((role, calls));
            }
        }
    }
    (all, notes)
}

/// Counts a command's calls in a world of its own; Err(skip) when the host lacks what the view needs.
fn count(command: Command, view: View, o: &Options) -> Result<(Counted, Vec<String>)> {
    let (read, mut write) = pipe()?;
    let id = format!("sweep-{}-count", std::process::id());
    let counter = child(|| {
        let code = in_own_world(&id, || {
            kernel::tick();
            let result = World::enter(&o.runtime, &id, view, o.hook, o.deadline)
                .and_then(|w| Judge::new(w, command, o.hook))
                .and_then(|mut j| Ok((j.count(command)?, j.count(command)?)));
            let text = match result {
                Ok((a, b)) => format!("{}\n{}\n", roles_to_json(&a), roles_to_json(&b)),
                Err(e) => format!("E{e:#}\n"),
            };
            i32::from(write.write_all(text.as_bytes()).is_err())
        });
        code.unwrap_or(UNFIT)
    })?;
    drop(write);
    let lines: Vec<String> = BufReader::new(read).lines().collect::<Result<_, _>>()?;
    wait_for(counter);
    match lines.as_slice() {
        [a, b] if !a.starts_with('E') => Ok(merge(roles_from_json(a)?, roles_from_json(b)?)),
        [e, ..] => bail!("{}", e.trim_start_matches('E')),
        [] => bail!("the counting worker died"),
    }
}

/// What all jobs of one command have.
struct Task<'a> {
    shared: &'a Shared,
    command: Command,
    view: View,
    cases: &'a [Case],
    o: &'a Options,
}

/// A worker: judges cases until none is left or its host is spoiled.
fn work(task: &Task, job: usize, id: &str, out: &mut File) -> i32 {
    let Task { shared, command, view, cases, o } = *task;
    kernel::tick();
    let judge =
        World::enter(&o.runtime, id, view, o.hook, o.deadline).and_then(|w| Judge::new(w, command, o.hook));
    let mut judge = match judge {
        Ok(judge) => judge,
        Err(e) => {
            // The job sees the exit code when even this line is lost.
            let _ = out.write_all(line("unfit", 0, "", &format!("{e:#}")).as_bytes());
            return UNFIT;
        }
    };
    loop {
        let index = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(case) = cases.get(index) else { return DONE };
        shared.current[job].store(index + 1, Ordering::Relaxed);
        let v = judge.case(command, case, o);
        let (kind, text) = match (&v.skip, v.broken.is_empty()) {
            (_, false) => ("fail", v.broken.join("; ")),
            (Some(why), _) => ("skip", why.clone()),
            (None, _) => ("pass", String::new()),
        };
        shared.current[job].store(0, Ordering::Relaxed);
        if out.write_all(line(kind, index, &v.call, &text).as_bytes()).is_err() {
            return UNFIT;
        }
        if v.dirty {
            return SPOILED;
        }
    }
}

/// A job: one worker after another.
fn job(task: &Task, number: usize, mut out: File) -> i32 {
    let parent = std::os::unix::process::parent_id();
    let mut unfit = 0;
    for generation in 0.. {
        let id = format!("sweep-{parent}-{number}-{generation}");
        let code = in_own_world(&id, || work(task, number, &id, &mut out)).unwrap_or(UNFIT);
        match code {
            DONE => return 0,
            SPOILED => unfit = 0,
            UNFIT => unfit += 1,
            _ => {
                let at = task.shared.current[number].swap(0, Ordering::Relaxed);
                if at > 0 {
                    let text = format!("the worker died with code {code}");
                    // Without the line the sums do not add up, which the supervisor says.
                    let _ = out.write_all(line("fail", at - 1, "", &text).as_bytes());
                } else {
                    unfit += 1;
                }
            }
        }
        if unfit >= 3 {
            return 1;
        }
    }
    0
}

/// Sweeps one command in one view and prints its lines.
pub fn sweep(command: Command, view: View, o: &Options) -> Result<Tally> {
    let begun = Instant::now();
    let name = format!("{} {}", command.word(), view.word());
    let (roles, notes) = match count(command, view, o) {
        Ok(counted) => counted,
        Err(e) if format!("{e:#}").contains("this host has no") => {
            println!("SKIP {name}: {e:#}");
            return Ok(Tally { skipped: 1, ..Tally::default() });
        }
        Err(e) => return Err(e.context(name)),
    };
    let sizes: Vec<String> = roles.iter().map(|(r, calls)| format!("{r} {}", calls.len())).collect();
    println!("{name}: calls: {}", sizes.join(", "));
    if !notes.is_empty() {
        println!("{name}: not the same each time: {}", notes.join(", "));
    }
    let plain: Vec<(Role, Vec<Call>)> =
        roles.iter().map(|(r, hits)| (r.clone(), hits.iter().map(|h| h.call).collect())).collect();
    let (cases, harmless) = plan::cases(&plain, o);
    if o.list {
        list(&roles, o);
        return Ok(Tally { skipped: cases.len() + harmless, ..Tally::default() });
    }
    let programs_before = programs::latest();
    let (read, write) = pipe()?;
    let task = Task { shared: shared()?, command, view, cases: &cases, o };
    let mut jobs = Vec::new();
    for number in 0..o.jobs.min(64).min(cases.len()) {
        let out = write.try_clone()?;
        jobs.push(child(|| job(&task, number, out))?);
    }
    drop(write);
    let mut tally = Tally { skipped: harmless, ..Tally::default() };
    let mut unreached = 0;
    for text in BufReader::new(read).lines() {
        let text = text?;
        let Some((kind, index, call, why)) = unline(&text) else { bail!("broken line {text:?}") };
        match kind {
            "pass" => tally.passed += 1,
            "skip" => {
                tally.skipped += 1;
                unreached += usize::from(why == "point not reached");
                if why != "point not reached" {
                    println!("SKIP {name} {}#{} {call}: {why}", cases[index].role, cases[index].n);
                }
            }
            "unfit" => println!("{name}: a worker cannot begin: {why}"),
            _ => {
                tally.failed += 1;
                let case = &cases[index];
                let hook = if o.hook { " --hook" } else { "" };
                println!(
                    "FAIL {name} {}#{} {call} {}: {why}\n     rerun: sweep {} --command {} --view {}{hook} {}",
                    case.role,
                    case.n,
                    match case.act {
                        plan::Act::Fail(e) => faults::errno_name(e),
                        plan::Act::KillMain => "SIGKILL of main".to_string(),
                        plan::Act::KillRole => "SIGKILL".to_string(),
                    },
                    o.runtime,
                    command.word(),
                    view.word(),
                    case.options()
                );
            }
        }
    }
    let ends: Vec<i32> = jobs.into_iter().map(wait_for).collect();
    let programs_left = programs::left_since(programs_before);
    if !programs_left.is_empty() {
        println!("FAIL {name}: BPF programs left that nobody holds: {programs_left:?}");
        bail!("{name}: programs left");
    }
    let judged = tally.passed + tally.failed + tally.skipped - harmless;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{name}: {} faults, {} failed, {unreached} points not reached, {harmless} calls cannot fail, {seconds:.1} s \
         ({:.1} ms a fault)",
        cases.len(),
        tally.failed,
        seconds * 1000.0 / cases.len().max(1) as f64
    );
    if judged != cases.len() || ends.iter().any(|e| *e != 0) {
        bail!("{name}: {judged} of {} cases judged (jobs ended with {ends:?})", cases.len());
    }
    Ok(tally)
}

fn list(roles: &Counted, o: &Options) {
    for (role, calls) in roles.iter().filter(|(r, _)| o.role.as_ref().is_none_or(|only| only == r)) {
        for (n, hit) in calls.iter().enumerate() {
            let errnos: Vec<String> =
                plan::errnos_at(&hit.call, &o.errnos).into_iter().map(faults::errno_name).collect();
            println!("{role}#{n} {} {}", hit.text, errnos.join(","));
        }
    }
}

fn sweep_all(o: &Options) -> Result<i32> {
    let begun = Instant::now();
    let mut tally = Tally::default();
    let mut unswept = 0;
    for view in &o.views {
        for command in &o.commands {
            match sweep(*command, *view, o) {
                Ok(sums) => tally.add(sums),
                Err(e) => {
                    println!("FAIL cannot be swept: {e:#}");
                    tally.failed += 1;
                    unswept += 1;
                }
            }
        }
    }
    println!("{:.1} s in all", begun.elapsed().as_secs_f64());
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(if unswept > 0 { 2 } else { i32::from(tally.failed > 0) })
}

static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

extern "C" fn on_end(_: i32) {
    ASKED_TO_END.store(true, Ordering::Relaxed);
}

/// Sweeps all that was asked for; the process's exit code. A process of its own does it, so that this one can
/// remove the cgroups also when the sweep is told to end midway: all the others die with their parents.
pub fn main(o: &Options) -> Result<i32> {
    let sweeper = child(|| match sweep_all(o) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("sweep: {e:#}");
            2
        }
    })?;
    // SAFETY: the handler stores to an atomic; the structure lives through the calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_end as extern "C" fn(i32) as usize;
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
    let mut status = 0;
    // SAFETY: waitpid writes one int at status.
    while unsafe { libc::waitpid(sweeper, &mut status, 0) } == -1 && kernel::errno() == libc::EINTR {
        if ASKED_TO_END.load(Ordering::Relaxed) {
            kernel::kill(sweeper);
        }
    }
    let roots = oracle::hierarchies(&std::fs::read_to_string("/proc/self/mountinfo")?);
    for left in world::remove_cgroups(&roots, &format!("sweep-{sweeper}-")) {
        eprintln!("sweep: {left} cannot be removed");
    }
    Ok(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_survive_the_pipe() {
        let text = line("fail", 7, "openat(a\tb)", "one\ntwo");
        assert_eq!(unline(text.trim_end()), Some(("fail", 7, "openat(a b)", "one | two")));
        assert!(line("fail", 1, "x", &"é".repeat(9000)).len() < 4096);
        assert_eq!(unline("nonsense"), None);
    }

    #[test]
    fn counts_survive_json() {
        let hit = |n, text: &str| Hit {
            call: Call { number: n, args: [1, 2, 3, 4, 5, u64::MAX] },
            text: text.into(),
        };
        let roles = vec![(Role::main(), vec![hit(1, "write(2)")]), (Role::main().child(1), vec![])];
        let back = roles_from_json(&roles_to_json(&roles).to_string()).unwrap();
        assert_eq!(back[0].1[0].call, roles[0].1[0].call);
        assert_eq!(back[0].1[0].text, "write(2)");
        assert_eq!(back[1].0, roles[1].0);
    }

    #[test]
    fn merging_keeps_the_longer_count() {
        let hit = || Hit { call: Call { number: 0, args: [0; 6] }, text: String::new() };
        let a = vec![(Role::main(), vec![hit()])];
        let b = vec![(Role::main(), vec![hit(), hit()]), (Role::main().child(1), vec![hit()])];
        let (all, notes) = merge(a, b);
        assert_eq!((all[0].1.len(), all.len(), notes.len()), (2, 2, 2));
    }
}
