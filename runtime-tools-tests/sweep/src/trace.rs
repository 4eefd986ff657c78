//! The tracer: counts the system calls of a runtime's processes, and makes one of them fail or kills there.
//!
//! A role is followed only as far as needed: once the target is known every other process is let go, and after
//! the fault the target too, so that the rest of a run has its natural speed and order. A process is the
//! runtime's until it executes the probe (payload or hook), known by device and inode. Called by `verdict`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::faults;
use crate::kernel::{
    self, Call, Event, FOLLOW_CHILDREN, FOLLOW_NONE, Pace, Pid, Program, Stop, decode, wait_any,
};
use crate::plan::{Act, Case, Role, errnos_at};

/// Exit notices of processes nobody waited for yet.
#[derive(Default)]
pub struct Dead(HashMap<Pid, Event>);

impl Dead {
    /// Forgets all: process ids may come back.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets one process that was waited for.
    pub fn forget(&mut self, pid: Pid) {
        self.0.remove(&pid);
    }

    /// Waits for the end of one process; None at the deadline. A tracee that stops meanwhile is let go.
    pub fn wait(&mut self, pid: Pid, deadline: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.0.get(&pid) {
                return Some(*event);
            }
            let (other, event) = wait_any(deadline)?;
            self.note(other, event);
        }
    }

    /// Reaps whoever is dead now.
    pub fn reap(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: waitpid writes one int at status.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            self.note(pid, decode(status));
        }
    }

    fn note(&mut self, pid: Pid, event: Event) {
        match event {
            Event::Exited(_) | Event::Killed(_) => {
                self.0.insert(pid, event);
            }
            Event::Signal(s) => {
                kernel::detach(pid, s);
            }
            _ => {
                kernel::detach(pid, 0);
            }
        }
    }
}

/// How the command's own process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// exit(code).
    Code(i32),
    /// A signal.
    Signal(i32),
    /// Not within the deadline; it is still there.
    Hang,
}

/// Reads an exit notice.
pub fn end_of(event: Option<Event>) -> End {
    match event {
        Some(Event::Exited(code)) => End::Code(code),
        Some(Event::Killed(signal)) => End::Signal(signal),
        _ => End::Hang,
    }
}

/// A command to trace.
pub struct Launch<'a> {
    /// Program and arguments.
    pub program: &'a Program,
    /// Its stdin, stdout and stderr.
    pub stdio: [RawFd; 3],
    /// The container's waiting init stage, when it belongs to the command.
    pub init: Option<Pid>,
    /// Device and inode of the probe.
    pub probe: (u64, u64),
    /// When the command must be over.
    pub deadline: Instant,
}

impl Launch<'_> {
    fn is_probe(&self, pid: Pid) -> bool {
        let exe = std::fs::metadata(format!("/proc/{pid}/exe"));
        exe.is_ok_and(|m| (m.dev(), m.ino()) == self.probe)
    }
}

/// The call that was hit, for the lines printed.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The call.
    pub call: Call,
    /// Its name and what tells it from others of that name.
    pub text: String,
}

impl Hit {
    fn new(pid: Pid, call: Call) -> Self {
        let mut text = faults::call_name(call.number);
        if let Some(i) = faults::path_argument(call.number)
            && let Some(path) = kernel::read_string(pid, call.args[i], 256)
        {
            text.push_str(&format!("({path})"));
        } else if matches!(
            call.number,
            libc::SYS_write | libc::SYS_read | libc::SYS_prctl | libc::SYS_ioctl | libc::SYS_unshare
        ) {
            text.push_str(&format!("({})", call.args[0] as i32));
        }
        Self { call, text }
    }
}

/// What a faulted run showed.
pub struct Outcome {
    /// The end of the command's own process.
    pub end: End,
    /// The faulted call; None when the point was not reached (or not with that call).
    pub hit: Option<Hit>,
}

/// The calls of each role, in order.
pub type Counted = Vec<(Role, Vec<Hit>)>;

/// Counts: the calls of each role, in order, from a run without a fault.
pub fn count(launch: &Launch, dead: &mut Dead) -> Result<(End, Counted)> {
    struct Tracee {
        role: Role,
        children: u32,
    }
    let mut tracees: HashMap<Pid, Tracee> = HashMap::new();
    let mut expected: HashMap<Pid, Role> = HashMap::new();
    let mut early: HashSet<Pid> = HashSet::new();
    let mut calls: BTreeMap<Role, Vec<Hit>> = BTreeMap::new();
    if let Some(init) = launch.init {
        kernel::seize(init, FOLLOW_CHILDREN)?;
        kernel::interrupt(init);
        tracees.insert(init, Tracee { role: Role::init(), children: 0 });
    }
    let main = kernel::start(launch.program, launch.stdio, Some(FOLLOW_CHILDREN))?;
    tracees.insert(main, Tracee { role: Role::main(), children: 0 });
    let mut end = None;
    let mut deadline = launch.deadline;
    let mut started = false;
    let go = |pid, signal| kernel::resume(pid, Pace::Syscalls, signal);
    while !tracees.is_empty() {
        let Some((pid, event)) = wait_any(deadline) else { break };
        if end.is_some() {
            // Main is over; what is still running falls quiet at the start gate.
            deadline = launch.deadline.min(Instant::now() + Duration::from_millis(60));
        }
        match event {
            Event::Exited(_) | Event::Killed(_) => {
                tracees.remove(&pid);
                if pid == main {
                    end = Some(event);
                    deadline = launch.deadline.min(Instant::now() + Duration::from_millis(60));
                } else {
                    dead.note(pid, event);
                }
            }
            Event::Born => {
                if let (Some(parent), Some(child)) = (tracees.get_mut(&pid), kernel::event_message(pid)) {
                    parent.children += 1;
                    let role = parent.role.child(parent.children);
                    if early.remove(&child) {
                        tracees.insert(child, Tracee { role, children: 0 });
                        go(child, 0);
                    } else {
                        expected.insert(child, role);
                    }
                }
                go(pid, 0);
            }
            Event::Stop if tracees.contains_key(&pid) => {
                go(pid, 0);
            }
            Event::Stop => match expected.remove(&pid) {
                Some(role) => {
                    tracees.insert(pid, Tracee { role, children: 0 });
                    go(pid, 0);
                }
                None => {
                    early.insert(pid);
                }
            },
            Event::Exec if pid == main && !started => {
                started = true;
                go(pid, 0);
            }
            Event::Exec if launch.is_probe(pid) => {
                kernel::detach(pid, 0);
                tracees.remove(&pid);
                if pid == main {
                    bail!("the command's own process became the payload");
                }
            }
            Event::Syscall => {
                if let (Some(t), Stop::Entry(call)) = (tracees.get(&pid), kernel::stop_info(pid)) {
                    calls.entry(t.role.clone()).or_default().push(Hit::new(pid, call));
                }
                go(pid, 0);
            }
            Event::Exec => {
                go(pid, 0);
            }
            Event::Signal(s) => {
                go(pid, s);
            }
        }
    }
    for pid in tracees.keys().filter(|pid| **pid != main) {
        kernel::interrupt(*pid);
    }
    let mut left = tracees.len() - usize::from(tracees.contains_key(&main));
    let end = match end {
        Some(event) => end_of(Some(event)),
        None => end_of(dead.wait(main, launch.deadline)),
    };
    while left > 0 {
        let Some((pid, event)) = wait_any(Instant::now() + Duration::from_secs(1)) else { break };
        dead.note(pid, event);
        left -= usize::from(tracees.contains_key(&pid));
    }
    Ok((end, calls.into_iter().collect()))
}

/// The walk to the target of one case.
struct Walk<'a> {
    launch: &'a Launch<'a>,
    case: &'a Case,
    asked: &'a [i32],
    main: Pid,
    /// Who is traced now: the target or an ancestor of it. None: everybody is let go.
    current: Option<Pid>,
    /// Steps of the role's path done.
    depth: usize,
    /// Children of `current` seen.
    children: u32,
    /// Calls of the target seen.
    seen: usize,
    /// Main's execve was seen.
    started: bool,
    /// The target's call has been replaced; its exit stop comes next.
    replaced: Option<(Option<i64>, u64)>,
    /// Children that are not on the way, to let go at their first stop.
    strays: HashSet<Pid>,
    /// Children whose first stop came before their parent's event.
    early: HashSet<Pid>,
    hit: Option<Hit>,
}

/// Runs the command once with one fault.
pub fn inject(launch: &Launch, case: &Case, asked: &[i32], dead: &mut Dead) -> Result<Outcome> {
    let walking = !case.role.path.is_empty();
    let options = if walking { FOLLOW_CHILDREN } else { FOLLOW_NONE };
    let mut current = None;
    if let (true, Some(init)) = (case.role.init, launch.init) {
        kernel::seize(init, options)?;
        kernel::interrupt(init);
        current = Some(init);
    }
    let held = if case.role.init { None } else { Some(options) };
    let main = kernel::start(launch.program, launch.stdio, held)?;
    let mut walk = Walk {
        launch,
        case,
        asked,
        main,
        current: current.or(Some(main)),
        depth: 0,
        children: 0,
        seen: 0,
        started: case.role.init,
        replaced: None,
        strays: HashSet::new(),
        early: HashSet::new(),
        hit: None,
    };
    let mut end = None;
    let mut deadline = launch.deadline;
    while walk.current.is_some() {
        let Some((pid, event)) = wait_any(deadline) else { break };
        let over = matches!(event, Event::Exited(_) | Event::Killed(_));
        if over && pid == main {
            end = Some(event);
            // A process that outlives main waits at the start gate, or reaches its point at once.
            deadline = deadline.min(Instant::now() + Duration::from_millis(150));
        } else if over {
            dead.note(pid, event);
        }
        if walk.current == Some(pid) {
            if over {
                walk.current = None;
            } else {
                walk.step(pid, event);
            }
        } else if !over {
            walk.other(pid, event);
        }
    }
    if let Some(pid) = walk.current {
        // Not reached: let it go. It answers with a stop, which `Dead` turns into a detach.
        kernel::interrupt(pid);
        let until = Instant::now() + Duration::from_secs(1);
        while let Some((other, event)) = wait_any(until) {
            if other == main && matches!(event, Event::Exited(_) | Event::Killed(_)) {
                end = Some(event);
            }
            dead.note(other, event);
            if other == pid {
                break;
            }
        }
    }
    for pid in walk.early {
        kernel::detach(pid, 0);
    }
    // Nobody is traced any more, save for strays whose first stop is still to come; `Dead` lets them go.
    let end = match end {
        Some(event) => end_of(Some(event)),
        None => end_of(dead.wait(main, launch.deadline)),
    };
    Ok(Outcome { end, hit: walk.hit })
}

impl Walk<'_> {
    fn at_target(&self) -> bool {
        self.depth == self.case.role.path.len()
    }

    fn go(&self, pid: Pid, signal: i32) {
        let pace = if self.at_target() && self.started { Pace::Syscalls } else { Pace::Events };
        kernel::resume(pid, pace, signal);
    }

    fn let_go(&mut self, pid: Pid) {
        kernel::detach(pid, 0);
        self.current = None;
    }

    /// An event of the process that is followed.
    fn step(&mut self, pid: Pid, event: Event) {
        match event {
            Event::Exec if pid == self.main && !self.started => {
                self.started = true;
                self.go(pid, 0);
            }
            Event::Exec if self.launch.is_probe(pid) => self.let_go(pid),
            Event::Born if !self.at_target() => self.born(pid),
            Event::Syscall => self.syscall(pid),
            Event::Stop => self.settle(pid),
            Event::Signal(s) => self.go(pid, s),
            _ => self.go(pid, 0),
        }
    }

    fn born(&mut self, pid: Pid) {
        self.children += 1;
        let Some(child) = kernel::event_message(pid) else { return self.go(pid, 0) };
        let wanted = self.case.role.path[self.depth] == self.children;
        let stopped = self.early.remove(&child);
        if !wanted {
            if stopped {
                kernel::detach(child, 0);
            } else {
                self.strays.insert(child);
            }
            return self.go(pid, 0);
        }
        kernel::detach(pid, 0);
        self.current = Some(child);
        self.depth += 1;
        self.children = 0;
        if stopped {
            self.settle(child);
        }
    }

    /// The next process on the way is at a stop: its options, then on.
    fn settle(&mut self, pid: Pid) {
        if self.at_target() {
            kernel::set_options(pid, FOLLOW_NONE);
        }
        self.go(pid, 0);
    }

    /// An event of a process that is not followed.
    fn other(&mut self, pid: Pid, event: Event) {
        match event {
            Event::Stop if self.strays.remove(&pid) => {
                kernel::detach(pid, 0);
            }
            Event::Stop => {
                self.early.insert(pid);
            }
            Event::Signal(s) => {
                kernel::resume(pid, Pace::Events, s);
            }
            _ => {
                kernel::detach(pid, 0);
            }
        }
    }

    fn syscall(&mut self, pid: Pid) {
        match kernel::stop_info(pid) {
            Stop::Entry(call) => {
                if self.seen < self.case.n {
                    self.seen += 1;
                    return self.go(pid, 0);
                }
                self.act(pid, call);
            }
            _ => {
                if let Some((result, first)) = self.replaced {
                    kernel::set_result(pid, result, first);
                    return self.let_go(pid);
                }
                self.go(pid, 0);
            }
        }
    }

    fn act(&mut self, pid: Pid, call: Call) {
        match self.case.act {
            Act::Fail(errno) => {
                if !errnos_at(&call, self.asked).contains(&errno) {
                    // Another call than at the count stands here, one that cannot return this.
                    return self.let_go(pid);
                }
                self.hit = Some(Hit::new(pid, call));
                if call.number == libc::SYS_brk {
                    kernel::refuse_brk(pid);
                    self.replaced = Some((None, call.args[0]));
                } else {
                    kernel::skip_call(pid);
                    self.replaced = Some((Some(-i64::from(errno)), call.args[0]));
                }
                self.go(pid, 0);
            }
            Act::KillRole => {
                self.hit = Some(Hit::new(pid, call));
                kernel::kill(pid);
                // Its exit notice comes next and ends the walk.
            }
            Act::KillMain if pid == self.main => {
                self.hit = Some(Hit::new(pid, call));
                kernel::kill(pid);
            }
            Act::KillMain => {
                // Main is not traced here, but it is our child: until it is reaped the pid is its own.
                if kernel::is_alive(self.main) && kernel::kill(self.main) {
                    self.hit = Some(Hit::new(pid, call));
                    // Dead before the target goes on, not merely about to die.
                    kernel::await_death(self.main);
                }
                self.let_go(pid);
            }
        }
    }
}
