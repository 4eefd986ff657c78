//! Reads the profile into rules by system call, whatever the architecture. Knows what the spec allows and what runc refuses; knows no
//! numbers and no instructions. Called by `plan::seccomp::compile`.

use super::{arch, table::COUNT};
use anyhow::{Result, bail, ensure};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Op,
};
use std::ops::Range;

/// What a filter returns, `SECCOMP_RET_*` with its data (linux/seccomp.h).
pub const RET_KILL_THREAD: u32 = 0;
pub const RET_ERRNO: u32 = 0x0005_0000;

/// Most conditions in a profile: as many as a filter can have instructions, and each may be compared with all others.
const MAX_CONDITIONS: usize = super::MAX_INSTRUCTIONS;
/// Most rules, counted by call: many more than any profile has.
const MAX_RULES: usize = 16 << 10;

/// A condition on one argument, of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Condition {
    /// 0 to 5.
    pub index: u8,
    pub op: Op,
    /// All ones but for `SCMP_CMP_MASKED_EQ`.
    pub mask: u64,
    /// What the masked argument is compared with; itself masked.
    pub value: u64,
}

/// A call that meets all conditions gets the action.
pub struct Rule {
    /// The `SECCOMP_RET_*` value.
    pub action: u32,
    /// In `Rules::conditions`; none means every call. Sorted by index, each index once.
    pub conditions: Range<u32>,
    /// The next rule for the same system call, in `Rules::rules`.
    pub next: Option<u32>,
}

/// The rules of a profile.
pub struct Rules {
    /// What a call without a matching rule gets.
    pub default: u32,
    /// Whether a call newer than the profile gets ENOSYS and not the default: see `compile`.
    pub enosys: bool,
    pub rules: Vec<Rule>,
    pub conditions: Vec<Condition>,
    /// Per name: its first and last rule, in the profile's order.
    pub ends: Box<[Option<(u32, u32)>; COUNT]>,
    /// Per name: whether the profile names it, even in a rule that says the same as the default.
    pub named: Box<[bool; COUNT]>,
    /// Whether a rule hands calls to the seccomp agent.
    pub notify: bool,
}

/// Reads the whole profile. The error names the field that cannot be.
pub fn read(profile: &LinuxSeccomp) -> Result<Rules> {
    let action = profile.default_action();
    let default = ret(action, profile.default_errno_ret(), "/linux/seccomp/defaultErrnoRet")?;
    ensure!(
        action != Action::ScmpActNotify,
        "/linux/seccomp/defaultAction: SCMP_ACT_NOTIFY would stop the runtime itself before the agent has the descriptor"
    );
    let mut rules = Rules {
        default,
        // Runc's choice: TRACE counts as permissive, since a tracer can answer for new calls itself.
        enosys: !matches!(action, Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace),
        rules: Vec::with_capacity(512),
        conditions: Vec::with_capacity(32),
        ends: Box::new([None; COUNT]),
        named: Box::new([false; COUNT]),
        notify: false,
    };
    for (i, call) in profile.syscalls().iter().flatten().enumerate() {
        let at = format_args!("/linux/seccomp/syscalls/{i}");
        let action = match (call.action(), call.errno_ret()) {
            // The common ones, without a pointer to format.
            (Action::ScmpActAllow, None) => RET_ALLOW,
            (action, errno) => ret(action, errno, &format!("{at}/errnoRet"))?,
        };
        let first = rules.conditions.len() as u32;
        for (j, arg) in call.args().iter().flatten().enumerate() {
            ensure!(
                arg.index() < 6,
                "{at}/args/{j}/index: a system call has the arguments 0 to 5, not {}",
                arg.index()
            );
            ensure!(
                rules.conditions.len() < MAX_CONDITIONS,
                "{at}/args: the profile has more than {MAX_CONDITIONS} conditions, more than fit a filter"
            );
            rules.conditions.push(condition(arg));
        }
        let conditions = &mut rules.conditions[first as usize..];
        // Runc: if any index comes twice, each condition becomes a rule of its own, so they are or-ed.
        let apart =
            (1..conditions.len()).any(|j| conditions[..j].iter().any(|c| c.index == conditions[j].index));
        if !apart {
            conditions.sort_unstable_by_key(|c| c.index);
        }
        let last = rules.conditions.len() as u32;
        for (j, name) in call.names().iter().enumerate() {
            ensure!(!name.is_empty(), "{at}/names/{j}: an empty string is no system call");
            if call.action() == Action::ScmpActNotify {
                // The descriptor reaches the parent by a write.
                ensure!(
                    name != "write",
                    "{at}/names/{j}: SCMP_ACT_NOTIFY cannot be used for the write syscall"
                );
                rules.notify = true;
            }
            ensure!(
                rules.rules.len() < MAX_RULES,
                "{at}/names/{j}: the profile has more than {MAX_RULES} rules for single calls"
            );
            // Unknown here: newer than this program, or of an architecture it cannot meet.
            let Some(id) = arch::id(name) else { continue };
            rules.named[usize::from(id)] = true;
            if action == default {
                continue;
            }
            if apart {
                (first..last).for_each(|c| rules.push(id, action, c..c + 1));
            } else {
                rules.push(id, action, first..last);
            }
        }
    }
    Ok(rules)
}

impl Rules {
    fn push(&mut self, id: u16, action: u32, conditions: Range<u32>) {
        let rule = self.rules.len() as u32;
        self.rules.push(Rule { action, conditions, next: None });
        let ends = &mut self.ends[usize::from(id)];
        match ends {
            None => *ends = Some((rule, rule)),
            Some((_, last)) => {
                self.rules[*last as usize].next = Some(rule);
                *last = rule;
            }
        }
    }

    /// The rule of the name at `id`, if it has just one.
    pub fn only(&self, id: u16) -> Option<&Rule> {
        let (first, last) = self.ends[usize::from(id)]?;
        (first == last).then(|| &self.rules[first as usize])
    }

    /// The rules of the name at `id` in the profile's order.
    pub fn of(&self, id: u16) -> impl Iterator<Item = (u32, &Rule)> {
        let mut next = self.ends[usize::from(id)].map(|(first, _)| first);
        std::iter::from_fn(move || {
            let at = next?;
            let rule = &self.rules[at as usize];
            next = rule.next;
            Some((at, rule))
        })
    }
}

pub const RET_ALLOW: u32 = 0x7fff_0000;
pub const RET_LOG: u32 = 0x7ffc_0000;

/// The `SECCOMP_RET_*` value of an action. `errno` without a place in the action is an error (config-linux.md, `errnoRet`).
fn ret(action: Action, errno: Option<u32>, at: &str) -> Result<u32> {
    let base = match action {
        Action::ScmpActKill | Action::ScmpActKillThread => RET_KILL_THREAD,
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActTrap => 0x0003_0000,
        Action::ScmpActErrno => RET_ERRNO,
        Action::ScmpActNotify => 0x7fc0_0000,
        Action::ScmpActTrace => 0x7ff0_0000,
        Action::ScmpActLog => RET_LOG,
        Action::ScmpActAllow => RET_ALLOW,
    };
    if !matches!(action, Action::ScmpActErrno | Action::ScmpActTrace) {
        ensure!(errno.is_none(), "{at}: {action} returns no errno");
        return Ok(base);
    }
    let errno = errno.unwrap_or(libc::EPERM as u32);
    // The kernel has 16 bits for it; cut off, 65536 would let a forbidden call seem to succeed.
    if errno > 0xffff {
        bail!("{at}: {errno} is more than the 65535 a filter can return");
    }
    Ok(base | errno)
}

fn condition(arg: &LinuxSeccompArg) -> Condition {
    let (mask, value) = match arg.op() {
        Op::ScmpCmpMaskedEq => (arg.value(), arg.value_two().unwrap_or(0) & arg.value()),
        _ => (u64::MAX, arg.value()),
    };
    Condition { index: arg.index() as u8, op: arg.op(), mask, value }
}
