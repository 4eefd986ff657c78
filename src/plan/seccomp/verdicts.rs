//! Applies the rules to one architecture: which verdict every possible system call number gets, as spans of equal verdict. Knows
//! libseccomp's and runc's conventions about numbers; knows no instructions. Called by `plan::seccomp::compile`.

use super::arch::{self, Arch, X32_BIT};
use super::rules::{RET_ERRNO, RET_KILL_THREAD, Rules};
use super::table::COUNT;
use std::ops::Range;

/// What happens to a call of some number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Return this `SECCOMP_RET_*` value.
    Ret(u32),
    /// It depends on the arguments: `Choices::list[n]`.
    Choice(u16),
}

/// From `start` to the next span, or to `u32::MAX`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub start: u32,
    pub verdict: Verdict,
}

/// A rule with conditions, as one architecture sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// The `SECCOMP_RET_*` value.
    pub action: u32,
    /// In `Rules::conditions`.
    pub conditions: Range<u32>,
    /// For a call inside `socketcall` or `ipc`: its number there, compared with argument 0. A condition of the rule on argument 0 is
    /// dropped, the others stay, as libseccomp has it.
    pub carried: Option<u32>,
}

/// Cases for one system call, in the profile's order, and whether arguments have 64 bits. Several calls with equal cases share one.
pub struct Choice {
    pub cases: Range<usize>,
    pub wide: bool,
}

/// All choices of a filter.
#[derive(Default)]
pub struct Choices {
    pub cases: Vec<Case>,
    pub list: Vec<Choice>,
}

/// Above every number without base and without the private ones of ARM.
const DENSE: usize = 1024;

/// What one architecture makes of the rules.
struct Calls {
    /// By number without base.
    dense: Vec<Verdict>,
    /// How many of them may differ from the default.
    len: u32,
    /// Numbers beyond (ARM's private calls).
    sparse: Vec<(u32, Verdict)>,
    /// What a number above `last` gets.
    beyond: Verdict,
    /// The highest number that is not beyond.
    last: u32,
}

/// The spans for `arch`, and with `x32` those for the calls of that ABI, which come under the same `AUDIT_ARCH_*`.
pub fn spans(rules: &Rules, arch: &Arch, x32: Option<&Arch>, choices: &mut Choices) -> Vec<Span> {
    let default = Verdict::Ret(rules.default);
    let calls = calls(rules, arch, choices);
    let mut spans = Vec::with_capacity(128);
    push(&mut spans, 0, default);
    calls.put(arch.base, default, &mut spans);
    let Some(x32_arch) = arch.compat.iter().find(|a| a.base == X32_BIT) else { return spans };
    // Bit 30 says x32, whatever the other bits.
    let (other, top) = (X32_BIT << 1, X32_BIT * 3);
    if x32.is_some() {
        let x32 = self::calls(rules, x32_arch, choices);
        push(&mut spans, X32_BIT, default);
        x32.put(X32_BIT, default, &mut spans);
        push(&mut spans, other, calls.beyond);
        push(&mut spans, top, x32.beyond);
    } else {
        // An ABI the profile does not list is a wrong architecture; but -1 is what a tracer sets to skip a call (seccomp(2)).
        let wrong = Verdict::Ret(RET_KILL_THREAD);
        push(&mut spans, X32_BIT, wrong);
        if calls.last < u32::MAX {
            push(&mut spans, other, calls.beyond);
        }
        push(&mut spans, top, wrong);
        push(&mut spans, u32::MAX, default);
    }
    spans
}

impl Calls {
    /// Appends the spans from `base` on.
    fn put(&self, base: u32, default: Verdict, spans: &mut Vec<Span>) {
        let len = self.len.min((self.last - base).saturating_add(1));
        let mut before = None;
        for (n, &verdict) in self.dense[..len as usize].iter().enumerate() {
            if before != Some(verdict) {
                push(spans, base + n as u32, verdict);
                before = Some(verdict);
            }
        }
        push(spans, base + len, default);
        for &(number, verdict) in self.sparse.iter().filter(|(number, _)| *number <= self.last) {
            push(spans, number, verdict);
            push(spans, number + 1, default);
        }
        if self.last < u32::MAX {
            push(spans, self.last + 1, self.beyond);
        }
    }
}

/// From `start` on, `verdict` holds.
fn push(spans: &mut Vec<Span>, start: u32, verdict: Verdict) {
    if spans.last().is_some_and(|last| last.start == start) {
        spans.pop();
    }
    if spans.last().is_none_or(|last| last.verdict != verdict) {
        spans.push(Span { start, verdict });
    }
}

fn calls(rules: &Rules, arch: &Arch, choices: &mut Choices) -> Calls {
    let default = Verdict::Ret(rules.default);
    let mut calls = Calls {
        // Not in a box, which would be filled on the stack.
        dense: vec![default; DENSE],
        len: 0,
        sparse: Vec::new(),
        beyond: default,
        last: u32::MAX,
    };
    let mut newest = 0;
    // For each carrier: the rules of what it carries, with their place in the profile.
    let mut carried: [Vec<(u32, Case)>; 2] = Default::default();
    for id in 0..COUNT as u16 {
        if !rules.named[usize::from(id)] {
            continue;
        }
        let inside = arch.carriers.and(arch::carried(id));
        let number = arch.number(id);
        // Runc asks libseccomp for the number, and that has none of its own for a call with a carrier.
        newest = newest.max(number.filter(|_| inside.is_none()).unwrap_or(0));
        if let Some((carrier, call)) = inside {
            carried[carrier].extend(rules.of(id).map(|(at, rule)| {
                let conditions = rule.conditions.clone();
                (at, Case { action: rule.action, conditions, carried: Some(call) })
            }));
        }
        let Some(number) = number else { continue };
        // Most calls have one rule, and most of those no conditions.
        if let Some(rule) = rules.only(id)
            && rule.conditions.is_empty()
        {
            calls.set(arch, number, Verdict::Ret(rule.action));
            continue;
        }
        let first = choices.cases.len();
        choices.cases.extend(rules.of(id).map(|(_, rule)| Case {
            action: rule.action,
            conditions: rule.conditions.clone(),
            carried: None,
        }));
        if choices.cases.len() > first {
            calls.set(arch, number, verdict(rules, arch.wide, choices, first));
        }
    }
    for (carrier, mut cases) in carried.into_iter().enumerate() {
        let Some(number) = arch.carriers.map(|c| c[carrier]).filter(|_| !cases.is_empty()) else { continue };
        let name = arch::id(["socketcall", "ipc"][carrier]);
        cases.extend(name.into_iter().flat_map(|id| rules.of(id)).map(|(at, rule)| {
            (at, Case { action: rule.action, conditions: rule.conditions.clone(), carried: None })
        }));
        cases.sort_by_key(|(at, _)| *at);
        let first = choices.cases.len();
        choices.cases.extend(cases.into_iter().map(|(_, case)| case));
        calls.set(arch, number, verdict(rules, arch.wide, choices, first));
    }
    calls.sparse.sort_unstable_by_key(|(number, _)| *number);
    // Runc: a call above the newest one the profile names is newer than the profile, and a program that tries it must see ENOSYS to
    // fall back on an older one (opencontainers/runc, patchbpf).
    if rules.enosys && newest != 0 {
        (calls.beyond, calls.last) = (Verdict::Ret(RET_ERRNO | libc::ENOSYS as u32), newest);
    }
    calls
}

impl Calls {
    fn set(&mut self, arch: &Arch, number: u32, verdict: Verdict) {
        let at = (number - arch.base) as usize;
        if at < DENSE {
            self.dense[at] = verdict;
            self.len = self.len.max(at as u32 + 1);
        } else {
            self.sparse.push((number, verdict));
        }
    }
}

/// Takes the cases from `first` on as those of one call: the first one without conditions decides alone, as in libseccomp; else they
/// become a choice.
fn verdict(rules: &Rules, wide: bool, choices: &mut Choices, first: usize) -> Verdict {
    // A condition with an empty mask is none.
    let mask = if wide { u64::MAX } else { u32::MAX.into() };
    // A rule that names a call twice.
    let cases = &mut choices.cases;
    let mut kept = first;
    for n in first..cases.len() {
        let again = |case: &Case| case.conditions == cases[n].conditions && case.carried == cases[n].carried;
        if !cases[first..kept].iter().any(again) {
            cases.swap(kept, n);
            kept += 1;
        }
    }
    cases.truncate(kept);
    let all = |case: &Case| {
        let conditions = &rules.conditions[case.conditions.start as usize..case.conditions.end as usize];
        case.carried.is_none() && conditions.iter().all(|c| c.mask & mask == 0)
    };
    if let Some(case) = choices.cases[first..].iter().find(|case| all(case)) {
        let action = case.action;
        choices.cases.truncate(first);
        return Verdict::Ret(action);
    }
    let known = choices.list.iter().position(|choice| {
        choice.wide == wide && choices.cases[choice.cases.clone()] == choices.cases[first..]
    });
    if let Some(known) = known {
        choices.cases.truncate(first);
        return Verdict::Choice(known as u16);
    }
    choices.list.push(Choice { cases: first..choices.cases.len(), wide });
    Verdict::Choice((choices.list.len() - 1) as u16)
}
