//! Seccomp profiles: the compiled program against the rules themselves, read one by one, and where libseccomp is
//! installed against its program.
//!
//! Where several rules of different actions match a call, the specification does not say which one counts: the program
//! must say one of them. libseccomp is asked only about profiles in which no call has two rules, because its tree of
//! comparisons has faults elsewhere (`runtime-tools-tests/seccomp-differential` counts them).

use super::names_field;
use crate::input::Input;
use crate::interpret::{self, Call};
use crate::libseccomp::{ACTIONS, Compare, Library, OPS};
use crate::plan::seccomp::arch::{self, Arch, NATIVE, X32_BIT};
use crate::plan::seccomp::{compile, table};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};
use std::sync::OnceLock;

/// Calls that are interesting on x86: those inside socketcall and ipc, the carriers, neighbours, those of one ABI only.
const NAMES: [&str; 24] = [
    "read",
    "write",
    "open",
    "openat",
    "openat2",
    "socket",
    "accept",
    "accept4",
    "sendto",
    "shmat",
    "semtimedop",
    "msgget",
    "socketcall",
    "ipc",
    "clone",
    "clone3",
    "personality",
    "mount",
    "fchmodat2",
    "chmod",
    "execve",
    "stat",
    "no_such_call",
    "mseal",
];
const ARCHS: [&str; 6] = [
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_S390X",
];
const KILL: u32 = 0;
const ENOSYS: u32 = 0x0005_0000 | 38;

struct Condition {
    index: usize,
    operator: usize,
    value: u64,
    value_two: u64,
}

struct Rule {
    names: Vec<&'static str>,
    action: (&'static str, u32),
    errno: Option<u16>,
    conditions: Vec<Condition>,
}

struct Profile {
    default: (&'static str, u32),
    errno: Option<u16>,
    archs: Vec<&'static str>,
    rules: Vec<Rule>,
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let profile = profile(&mut input);
    let spec: LinuxSeccomp = serde_json::from_value(profile.json()).expect("a profile");
    let filter = match compile(&spec) {
        Ok(Some(filter)) => filter,
        Ok(None) => {
            assert!(
                profile.rules.is_empty() && profile.archs.is_empty() && profile.default.0 == "SCMP_ACT_ALLOW"
            );
            return;
        }
        Err(error) => return names_field(&error),
    };
    let program = &filter.program;
    assert!(interpret::check(program), "the kernel would refuse the program");
    let theirs = profile.ask_libseccomp();
    let archs = std::iter::once(NATIVE).chain(NATIVE.compat.iter().copied());
    for arch in archs.filter(|arch| std::ptr::eq(*arch, NATIVE) || profile.lists(arch)) {
        for (number, args) in profile.calls(arch, &mut input) {
            let call = Call { number, arch: arch.audit, args };
            let (got, steps) = interpret::run(program, &call);
            assert!(steps <= 4096);
            let expected = profile.expected(arch, number, &args);
            assert!(expected.contains(&got), "{call:x?}: {got:x}, the rules {expected:x?}");
            if let Some(theirs) = &theirs {
                let theirs = match profile.is_newer(arch, number) {
                    true => ENOSYS,
                    false => interpret::run(theirs, &call).0,
                };
                assert_eq!(got, theirs, "{call:x?}: libseccomp says {theirs:x}");
            }
        }
    }
    let other = Call { number: 1, arch: 0x1234, args: [0; 6] };
    assert_eq!(interpret::run(program, &other).0, KILL, "an architecture that cannot be");
}

fn profile(input: &mut Input) -> Profile {
    let action = |input: &mut Input, default: bool| loop {
        let action = *input.pick(&ACTIONS);
        if !(default && action.0 == "SCMP_ACT_NOTIFY") {
            let takes = matches!(action.0, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
            let errno = (takes && input.one_in(3)).then(|| input.number() as u16);
            return (action, errno);
        }
    };
    let shape = input.byte();
    // Often few actions, so that rules go together.
    let few = [action(input, false), action(input, false)];
    let (default, errno) = action(input, true);
    let archs = ARCHS.iter().copied().filter(|_| input.one_in(2)).collect();
    let all = table::NAMES;
    let mut rules = Vec::new();
    // Values near which arguments are tried again.
    let mut near: Vec<u64> = vec![0];
    while !input.is_empty() && rules.len() < 24 {
        let (action, errno) = if shape & 1 == 0 { *input.pick(&few) } else { action(input, false) };
        let count = match shape >> 1 & 3 {
            0 => 1,
            1 => 1 + input.below(4),
            _ => 1 + input.below(40),
        };
        let mut names: Vec<&'static str> = (0..count)
            .map(|_| if shape & 8 == 0 { *input.pick(&NAMES) } else { all[input.below(all.len())] })
            .collect();
        if action.0 == "SCMP_ACT_NOTIFY" {
            names.retain(|name| *name != "write");
        }
        let conditions = (0..input.below(5))
            .map(|_| {
                let value = match input.byte() % 4 {
                    0 => *input.pick(&near),
                    1 => input.pick(&near).wrapping_add(1),
                    _ => input.number(),
                };
                near.push(value);
                let operator = input.below(OPS.len());
                let value_two = if operator == 6 { input.number() } else { 0 };
                Condition { index: input.below(6), operator, value, value_two }
            })
            .collect();
        rules.push(Rule { names, action, errno, conditions });
    }
    Profile { default, errno, archs, rules }
}

fn ret(action: (&str, u32), errno: Option<u16>) -> u32 {
    match action.0 {
        "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE" => action.1 | u32::from(errno.unwrap_or(1)),
        _ => action.1,
    }
}

/// The numbers of a call on an architecture: alone, and inside a carrier.
struct Numbers {
    direct: Option<u32>,
    carried: Option<(u32, u32)>,
}

fn numbers(arch: &Arch, name: &str) -> Numbers {
    let Some(id) = arch::id(name) else { return Numbers { direct: None, carried: None } };
    let carried =
        arch.carriers.zip(arch::carried(id)).map(|(carriers, (which, call))| (carriers[which], call));
    Numbers { direct: arch.number(id), carried }
}

impl Profile {
    fn json(&self) -> Value {
        let rule = |rule: &Rule| {
            let condition = |c: &Condition| json!({"index": c.index, "op": OPS[c.operator], "value": c.value, "valueTwo": c.value_two});
            let mut value = json!({"names": rule.names, "action": rule.action.0,
                "args": rule.conditions.iter().map(condition).collect::<Vec<_>>()});
            if let Some(errno) = rule.errno {
                value["errnoRet"] = errno.into();
            }
            value
        };
        let mut value = json!({"defaultAction": self.default.0, "architectures": self.archs, "listenerPath": "/run/agent",
            "syscalls": self.rules.iter().map(rule).collect::<Vec<_>>()});
        if let Some(errno) = self.errno {
            value["defaultErrnoRet"] = errno.into();
        }
        value
    }

    fn lists(&self, arch: &Arch) -> bool {
        self.archs.iter().any(|name| serde_json::to_value(arch.name).expect("a name") == *name)
    }

    /// Is the call newer than all that the profile names, and would else be forbidden?
    fn is_newer(&self, arch: &Arch, number: u32) -> bool {
        let permissive = matches!(self.default.0, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE");
        let has_x32 = NATIVE.compat.iter().any(|arch| arch.base == X32_BIT);
        // By bit 30 alone.
        let arch = match has_x32 && arch.audit == NATIVE.audit {
            true if number & X32_BIT != 0 => {
                match NATIVE.compat.iter().find(|arch| arch.base == X32_BIT && self.lists(arch)) {
                    Some(x32) => x32,
                    None => return false,
                }
            }
            true => NATIVE,
            false => arch,
        };
        let newest = self.rules.iter().flat_map(|rule| &rule.names).filter_map(|name| {
            let numbers = numbers(arch, name);
            numbers.direct.filter(|_| numbers.carried.is_none())
        });
        !permissive && newest.max().is_some_and(|newest| newest > 0 && number > newest)
    }

    /// The verdicts that the rules allow.
    fn expected(&self, arch: &Arch, number: u32, args: &[u64; 6]) -> Vec<u32> {
        let x32 = NATIVE.compat.iter().find(|arch| arch.base == X32_BIT);
        let mut arch = arch;
        let mut default = ret(self.default, self.errno);
        if self.is_newer(arch, number) {
            return vec![ENOSYS];
        }
        if let Some(x32) = x32.filter(|_| arch.audit == NATIVE.audit) {
            let listed = self.lists(x32);
            if !listed && number >= X32_BIT {
                return vec![if number == u32::MAX { default } else { KILL }];
            }
            arch = if listed && number & X32_BIT != 0 { x32 } else { NATIVE };
        }
        let cut = if arch.wide { u64::MAX } else { u32::MAX.into() };
        let mut matching = Vec::new();
        for rule in &self.rules {
            let verdict = ret(rule.action, rule.errno);
            if verdict == default {
                continue;
            }
            // Two conditions on one argument: each one is a rule.
            let conditions: Vec<&Condition> = rule.conditions.iter().collect();
            let twice =
                (1..conditions.len()).any(|n| conditions[..n].iter().any(|c| c.index == conditions[n].index));
            let sets: Vec<&[&Condition]> = match twice {
                true => conditions.chunks(1).collect(),
                false => vec![&conditions[..]],
            };
            for name in &rule.names {
                let numbers = numbers(arch, name);
                for set in &sets {
                    let holds = |skip: Option<usize>| {
                        set.iter().filter(|c| Some(c.index) != skip).all(|c| c.holds(args[c.index], cut))
                    };
                    let empty = set.iter().all(|c| c.operator == 6 && c.value & cut == 0);
                    if numbers.direct == Some(number) {
                        if empty {
                            // The first rule without a condition decides alone.
                            matching.push((verdict, true));
                        } else if holds(None) {
                            matching.push((verdict, false));
                        }
                    }
                    if numbers
                        .carried
                        .is_some_and(|(carrier, call)| carrier == number && args[0] & cut == u64::from(call))
                        && holds(Some(0))
                    {
                        matching.push((verdict, false));
                    }
                }
            }
        }
        if let Some((verdict, _)) = matching.iter().find(|(_, alone)| *alone) {
            return vec![*verdict];
        }
        let mut verdicts: Vec<u32> = matching.into_iter().map(|(verdict, _)| verdict).collect();
        if verdicts.is_empty() {
            verdicts.push(std::mem::take(&mut default));
        }
        verdicts
    }

    /// Calls worth trying: around the numbers that the profile names, with arguments around its values.
    fn calls(&self, arch: &Arch, input: &mut Input) -> Vec<(u32, [u64; 6])> {
        let mut calls = Vec::new();
        let mut seen = Vec::new();
        let huge = [
            0,
            1,
            1023,
            1024,
            X32_BIT - 1,
            X32_BIT,
            X32_BIT + 1,
            X32_BIT * 2,
            X32_BIT * 3,
            u32::MAX - 1,
            u32::MAX,
        ];
        calls.extend(huge.map(|number| (number, [0; 6])));
        for rule in self.rules.iter().take(24) {
            let mut values: [Vec<u64>; 6] = Default::default();
            for c in &rule.conditions {
                let bases = if c.operator == 6 {
                    vec![c.value_two & c.value, c.value, !c.value]
                } else {
                    vec![c.value]
                };
                for v in bases {
                    let near = [
                        v,
                        v.wrapping_add(1),
                        v.wrapping_sub(1),
                        v ^ 1 << 32,
                        v & 0xffff_ffff,
                        v | 0xffff_ffff,
                        v.wrapping_add(1 << 32),
                    ];
                    values[c.index].extend(near);
                }
            }
            for name in rule.names.iter().take(4) {
                let numbers = numbers(arch, name);
                for (number, first) in numbers
                    .direct
                    .map(|n| (n, None))
                    .into_iter()
                    .chain(numbers.carried.map(|(n, call)| (n, Some(call))))
                {
                    if !seen.contains(&number) {
                        seen.push(number);
                        for near in [number.wrapping_sub(1), number, number + 1] {
                            calls.extend([(near, [0; 6]), (near, [u64::MAX; 6])]);
                        }
                    }
                    // All others hold, one is varied.
                    let mut good = [0; 6];
                    for c in &rule.conditions {
                        good[c.index] = c.example();
                    }
                    if let Some(call) = first {
                        good[0] = call.into();
                    }
                    calls.push((number, good));
                    for (index, list) in values.iter().enumerate() {
                        for &value in list {
                            let mut args = good;
                            args[index] = value;
                            calls.push((number, args));
                        }
                    }
                    for _ in 0..2 {
                        let args = std::array::from_fn(|index| {
                            let list = &values[index];
                            if list.is_empty() { input.number() } else { *input.pick(list) }
                        });
                        calls.push((number, args));
                    }
                }
            }
        }
        calls
    }

    /// libseccomp's program, for a profile that it gets right; none without libseccomp.
    fn ask_libseccomp(&self) -> Option<Vec<seccompiler::sock_filter>> {
        let (library, known) = libseccomp()?;
        let default = ret(self.default, self.errno);
        let mut seen: Vec<&str> = Vec::new();
        let names = |rule: &Rule| rule.names.clone();
        for name in self.rules.iter().flat_map(names) {
            // Known to both, of one number each, and inside no other call.
            if seen.contains(&name) || !known.contains(&name) {
                return None;
            }
            seen.push(name);
        }
        if seen.is_empty() || !cfg!(target_arch = "x86_64") {
            return None;
        }
        let made = || -> anyhow::Result<Vec<seccompiler::sock_filter>> {
            let filter = library.filter(default)?;
            filter.arch(0xc000_003e)?;
            for (name, token) in [("SCMP_ARCH_X86", 0x4000_0003), ("SCMP_ARCH_X32", 0x4000_003e)] {
                if self.archs.contains(&name) {
                    filter.arch(token)?;
                }
            }
            for rule in &self.rules {
                let action = ret(rule.action, rule.errno);
                let conditions: Vec<Compare> = rule.conditions.iter().map(Condition::compare).collect();
                let twice =
                    (1..conditions.len()).any(|n| conditions[..n].iter().any(|c| c.arg == conditions[n].arg));
                for name in rule.names.iter().filter(|_| action != default) {
                    let number = library.resolve(name).unwrap_or(-1);
                    anyhow::ensure!(!twice, "its tree may merge these");
                    filter.rule(action, number, &conditions)?;
                }
            }
            filter.export()
        };
        made().ok()
    }
}

/// The library, and the calls whose numbers it and naru agree about on all three ABIs.
fn libseccomp() -> Option<&'static (Library, Vec<&'static str>)> {
    static LIBRARY: OnceLock<Option<(Library, Vec<&'static str>)>> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            let library = Library::load("libseccomp.so.2").ok()?;
            let known = table::NAMES.iter().copied().filter(|name| {
                let archs = std::iter::once(NATIVE).chain(NATIVE.compat.iter().copied());
                archs.into_iter().all(|arch| {
                    let numbers = numbers(arch, name);
                    let theirs = library.resolve_arch(arch.name as u32, name);
                    numbers.carried.is_none()
                        && numbers.direct.is_some()
                        && theirs.and_then(|n| u32::try_from(n).ok()) == numbers.direct
                })
            });
            let known = known.collect();
            Some((library, known))
        })
        .as_ref()
}

impl Condition {
    fn holds(&self, actual: u64, cut: u64) -> bool {
        let (actual, value) = (actual & cut, self.value & cut);
        match OPS[self.operator] {
            "SCMP_CMP_NE" => actual != value,
            "SCMP_CMP_LT" => actual < value,
            "SCMP_CMP_LE" => actual <= value,
            "SCMP_CMP_EQ" => actual == value,
            "SCMP_CMP_GE" => actual >= value,
            "SCMP_CMP_GT" => actual > value,
            _ => actual & value == self.value_two & value,
        }
    }

    /// An argument that meets it, if there is one.
    fn example(&self) -> u64 {
        match OPS[self.operator] {
            "SCMP_CMP_NE" | "SCMP_CMP_GT" => self.value.wrapping_add(1),
            "SCMP_CMP_LT" => self.value.wrapping_sub(1),
            "SCMP_CMP_MASKED_EQ" => self.value & self.value_two,
            _ => self.value,
        }
    }

    fn compare(&self) -> Compare {
        Compare {
            arg: self.index as u32,
            op: self.operator as u32 + 1,
            datum_a: self.value,
            datum_b: self.value_two,
        }
    }
}
