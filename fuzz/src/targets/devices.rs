//! Device rules: the program for cgroup v2 against the list that cgroup v1 would hold, access by access.

use super::names_field;
use crate::cgroup::Version;
use crate::cgroup::device_program;
use crate::cgroup::devices::{Exception, Kind, Policy};
use crate::cgroup::systemd::properties::{self, Host};
use crate::input::Input;
use crate::sys::bpf::Insn;
use oci_spec::runtime::Linux;
use serde_json::{Value, json};

/// Few numbers, so that rules meet.
const NUMBERS: [i64; 12] = [-1, 0, 1, 3, 5, 8, 10, 136, 200, 4095, 4096, 1 << 20];
const TYPES: [&str; 8] = ["a", "b", "c", "c", "c", "b", "u", "p"];
const ACCESSES: [&str; 10] = ["r", "w", "m", "rw", "rm", "wm", "rwm", "rwm", "", "rwx"];

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut rules = Vec::new();
    while !input.is_empty() && rules.len() < 60 {
        let mut rule = json!({"allow": input.one_in(2), "access": *input.pick(&ACCESSES)});
        if !input.one_in(8) {
            rule["type"] = json!(*input.pick(&TYPES));
        }
        for name in ["major", "minor"] {
            match input.byte() {
                0..32 => {}
                32..48 => rule[name] = json!(input.number() as i64),
                _ => rule[name] = json!(*input.pick(&NUMBERS)),
            }
        }
        rules.push(rule);
    }
    let nodes: Value = match rules.len() % 3 {
        0 => json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]),
        _ => json!([]),
    };
    let linux = json!({"devices": nodes, "resources": {"devices": rules}});
    let linux: Linux = serde_json::from_value(linux).expect("device rules");
    convert(&linux);
}

pub fn convert(linux: &Linux) {
    let policy = match Policy::of(linux) {
        Ok(policy) => policy,
        Err(error) => return names_field(&error),
    };
    for cgroups in [Version::V1, Version::V2] {
        for systemd in [239, 262] {
            super::text::check(properties::of_devices(
                &policy,
                Host { cgroups, systemd },
                "Block devices:\n8 sd\n",
            ));
        }
    }
    let program = match device_program::compile(&policy) {
        Ok(program) => program,
        Err(error) => return names_field(&error),
    };
    // Around every number that a rule names.
    let mut numbers = [vec![0, 1, 0xfff], vec![0, 1, 0xf_ffff]];
    for one in policy.exceptions.iter().take(40) {
        for (list, number, max) in [(0, one.major, 0xfff), (1, one.minor, 0xf_ffff)] {
            let near = number.into_iter().flat_map(|n| [n, n ^ 1]);
            numbers[list].extend(near.filter(|&n| n <= max));
        }
    }
    for list in &mut numbers {
        list.sort_unstable();
        list.dedup();
        list.truncate(12);
    }
    for kind in [Kind::Block, Kind::Char] {
        for access in 1..8u8 {
            for &major in &numbers[0] {
                for &minor in &numbers[1] {
                    let expected = allows(&policy, kind, major, minor, access);
                    let got = interpret(&program, kind, major, minor, access);
                    assert_eq!(got, expected, "{kind:?} {major}:{minor} {access} of {policy:?}");
                }
            }
        }
    }
}

/// devcgroup_check_permission of the kernel.
fn allows(policy: &Policy, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
    let mut about = policy.exceptions.iter().filter(|one: &&Exception| {
        one.kind == kind && one.major.is_none_or(|n| n == major) && one.minor.is_none_or(|n| n == minor)
    });
    match policy.allow_by_default {
        false => about.any(|one| access & !one.access == 0),
        true => !about.any(|one| access & one.access != 0),
    }
}

/// As the kernel runs it; panics on what its verifier would refuse.
fn interpret(program: &[Insn], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
    let word = match kind {
        Kind::Block => 1,
        Kind::Char => 2,
    };
    let context = [u32::from(access) << 16 | word, major, minor];
    let mut registers = [None::<u64>; 11];
    for insn in program {
        let (to, from) = (usize::from(insn.regs & 0xf), usize::from(insn.regs >> 4));
        let read = |register: usize| registers[register].expect("a register that was written");
        let immediate = insn.imm as i64 as u64;
        registers[to] = Some(match insn.code {
            0x61 => {
                assert_eq!((from, insn.off % 4), (1, 0));
                context[insn.off as usize / 4].into()
            }
            0xb7 => immediate,
            0xbf => read(from),
            0x67 => read(to) << insn.imm,
            0x77 => read(to) >> insn.imm,
            0x4f => read(to) | read(from),
            0x57 => read(to) & immediate,
            0x5f => read(to) & read(from),
            0x07 => read(to).wrapping_add(immediate),
            0x87 => read(to).wrapping_neg(),
            0xa4 => u64::from(read(to) as u32 ^ insn.imm as u32),
            0xa7 => read(to) ^ immediate,
            0x95 => {
                assert!(read(0) <= 1);
                return read(0) == 1;
            }
            other => panic!("instruction {other:#x}"),
        });
    }
    panic!("no exit")
}
