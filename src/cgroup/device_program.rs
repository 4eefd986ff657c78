//! Device policy → eBPF program for cgroup v2 (`BPF_PROG_TYPE_CGROUP_DEVICE`).
//!
//! Pure. The kernel's verifier follows every path through the program, so what a program costs to load is its branches
//! and exits, and little else. For the default rules, one block with two exits a rule, as others compile it, takes five times as
//! long as one exit and a branch a device; on a host where the latter takes 50 us, this form without any branch takes 42 us.
//! Called by `cgroup::plan`.
//!
//! Truth is the sign of a 64-bit number: what must be zero to match is at most 32 bits wide and has 1 taken away.

use super::devices::{Exception, Kind, Policy};
use crate::sys::bpf::Insn;
use anyhow::{Result, bail};

// linux/bpf.h and bpf_common.h; all but the exclusive or on 64 bits.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const SHIFT_LEFT: u8 = 0x67;
const SHIFT_RIGHT: u8 = 0x77;
const OR_REGISTER: u8 = 0x4f;
const AND: u8 = 0x57;
const AND_REGISTER: u8 = 0x5f;
const ADD: u8 = 0x07;
const NEGATE: u8 = 0x87;
/// On 32 bits, because the other one extends the sign of the immediate.
const XOR_32: u8 = 0xa4;
const XOR: u8 = 0xa7;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
/// Access in the upper half, kind (1 block, 2 char) in the lower.
const ACCESS: u8 = 2;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;
/// `major << 20 | minor`, as in the kernel's own dev_t.
const DEVICE: u8 = 5;
/// Does one of this group's exceptions match?
const MATCH: u8 = 6;
const SCRATCH: u8 = 7;

/// Numbers above these exist on no device.
const MAX_MAJOR: u32 = 0xfff;
const MAX_MINOR: u32 = 0xf_ffff;

/// What the kernel is given to check, at four instructions each: an eighth of its limit.
const MAX_EXCEPTIONS: usize = 32_000;

fn insn(code: u8, dst: u8, src: u8, imm: i32) -> Insn {
    Insn { code, regs: src << 4 | dst, off: 0, imm }
}

fn bit(kind: Kind) -> u32 {
    match kind {
        Kind::Block => 1,
        Kind::Char => 2,
    }
}

/// Compiles the program. Fails only on a policy of tens of thousands of rules.
pub fn compile(policy: &Policy) -> Result<Vec<Insn>> {
    let groups = group(policy);
    if policy.exceptions.len() > MAX_EXCEPTIONS {
        bail!("/linux/resources/devices: more than {MAX_EXCEPTIONS} rules");
    }
    if groups.is_empty() || !policy.allow_by_default && groups.iter().any(Group::is_everything) {
        let everything = policy.allow_by_default || !groups.is_empty();
        return Ok(vec![insn(MOVE, RESULT, 0, everything.into()), insn(EXIT, 0, 0, 0)]);
    }
    let mut program = vec![insn(MOVE, RESULT, 0, 0), insn(LOAD_WORD, ACCESS, CONTEXT, 0)];
    let all = || groups.iter().flat_map(|group| &group.devices);
    if all().any(|one| one.major.is_some()) {
        program.push(Insn { off: 4, ..insn(LOAD_WORD, MAJOR, CONTEXT, 0) });
    }
    if all().any(|one| one.minor.is_some()) {
        program.push(Insn { off: 8, ..insn(LOAD_WORD, MINOR, CONTEXT, 0) });
    }
    if all().any(|one| one.major.is_some() && one.minor.is_some()) {
        program.push(insn(MOVE_REGISTER, DEVICE, MAJOR, 0));
        program.push(insn(SHIFT_LEFT, DEVICE, 0, 20));
        program.push(insn(OR_REGISTER, DEVICE, MINOR, 0));
    }
    for group in &groups {
        let access = u32::from(group.access) << 16;
        let any = group.devices.iter().any(Exception::is_any);
        program.push(insn(MOVE, MATCH, 0, if any { -1 } else { 0 }));
        for one in group.devices.iter().filter(|_| !any) {
            let (number, value) = match (one.major, one.minor) {
                (Some(major), Some(minor)) => (DEVICE, major << 20 | minor),
                (Some(major), None) => (MAJOR, major),
                (None, minor) => (MINOR, minor.unwrap_or_default()),
            };
            program.push(insn(MOVE_REGISTER, SCRATCH, number, 0));
            program.push(insn(XOR_32, SCRATCH, 0, value as i32));
            program.push(insn(ADD, SCRATCH, 0, -1));
            program.push(insn(OR_REGISTER, MATCH, SCRATCH, 0));
        }
        // Bits that exclude this group: those of the kinds it is not about and, if its exceptions must grant the whole
        // access (default deny), those that it does not grant.
        let mut excluding = 3 & !group.kinds;
        if !policy.allow_by_default {
            excluding |= (7 << 16) & !access;
        }
        if excluding != 0 {
            program.push(insn(MOVE_REGISTER, SCRATCH, ACCESS, 0));
            program.push(insn(AND, SCRATCH, 0, excluding as i32));
            program.push(insn(ADD, SCRATCH, 0, -1));
            program.push(insn(AND_REGISTER, MATCH, SCRATCH, 0));
        }
        if policy.allow_by_default {
            // Any bit of its access is enough, like on v1: programs that ask for all of it (runc 1.3.6, crun 1.28) let a
            // device that may not be written be opened for reading and writing.
            program.push(insn(MOVE_REGISTER, SCRATCH, ACCESS, 0));
            program.push(insn(AND, SCRATCH, 0, access as i32));
            program.push(insn(NEGATE, SCRATCH, 0, 0));
            program.push(insn(AND_REGISTER, MATCH, SCRATCH, 0));
        }
        program.push(insn(OR_REGISTER, RESULT, MATCH, 0));
    }
    program.push(insn(SHIFT_RIGHT, RESULT, 0, 63));
    if policy.allow_by_default {
        program.push(insn(XOR, RESULT, 0, 1));
    }
    program.push(insn(EXIT, 0, 0, 0));
    Ok(program)
}

/// Exceptions with the same access and the same kinds.
struct Group {
    access: u8,
    kinds: u32,
    devices: Vec<Exception>,
}

impl Group {
    fn is_everything(&self) -> bool {
        self.access == 7 && self.kinds == 3 && self.devices.iter().any(Exception::is_any)
    }
}

fn group(policy: &Policy) -> Vec<Group> {
    let exists = |one: &Exception| {
        one.major.is_none_or(|n| n <= MAX_MAJOR) && one.minor.is_none_or(|n| n <= MAX_MINOR)
    };
    let redundant = |one: &Exception| {
        policy
            .exceptions
            .iter()
            .any(|other| other != one && other.covers(one) && one.access & !other.access == 0)
    };
    let mut groups: Vec<Group> = Vec::new();
    for one in policy.exceptions.iter().filter(|one| exists(one) && !redundant(one)) {
        // mknod of any block and of any character device: one test for both.
        let twin = groups.iter_mut().find(|group| {
            group.access == one.access
                && group.kinds & bit(one.kind) == 0
                && matches!(&group.devices[..], [only] if only.is_any() && one.is_any())
        });
        if let Some(twin) = twin {
            twin.kinds |= bit(one.kind);
            continue;
        }
        match groups.iter_mut().find(|group| group.access == one.access && group.kinds == bit(one.kind)) {
            Some(group) => group.devices.push(*one),
            None => {
                groups.push(Group { access: one.access, kinds: bit(one.kind), devices: vec![*one] });
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::super::devices::tests::policy;
    use super::*;

    /// Runs a program of the instructions above on one request.
    fn run(program: &[Insn], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let mut registers = [0u64; 11];
        for insn in program {
            let (dst, src) = ((insn.regs & 15) as usize, (insn.regs >> 4) as usize);
            let imm = insn.imm as i64 as u64;
            match insn.code {
                LOAD_WORD => {
                    assert_eq!(src, CONTEXT as usize);
                    registers[dst] = u64::from(match insn.off {
                        0 => u32::from(access) << 16 | bit(kind),
                        4 => major,
                        8 => minor,
                        other => panic!("load of {other}"),
                    });
                }
                MOVE => registers[dst] = imm,
                MOVE_REGISTER => registers[dst] = registers[src],
                SHIFT_LEFT => registers[dst] <<= imm,
                SHIFT_RIGHT => registers[dst] >>= imm,
                OR_REGISTER => registers[dst] |= registers[src],
                AND => registers[dst] &= imm,
                AND_REGISTER => registers[dst] &= registers[src],
                ADD => registers[dst] = registers[dst].wrapping_add(imm),
                NEGATE => registers[dst] = registers[dst].wrapping_neg(),
                XOR_32 => registers[dst] = u64::from(registers[dst] as u32 ^ insn.imm as u32),
                XOR => registers[dst] ^= imm,
                EXIT => {
                    assert!(registers[0] <= 1);
                    return registers[0] == 1;
                }
                other => panic!("instruction {other:#x}"),
            }
        }
        panic!("no exit")
    }

    const RULES: [&str; 9] = [
        "[]",
        r#"[{"allow":true,"access":"rwm"}]"#,
        r#"[{"allow":true,"type":"b","major":8,"access":"rw"},{"allow":true,"type":"b","minor":3,"access":"r"}]"#,
        r#"[{"allow":true,"type":"c","access":"rwm"},{"allow":true,"type":"b","access":"rwm"}]"#,
        r#"[{"allow":true,"type":"c","access":"w"},{"allow":true,"type":"c","major":4,"access":"r"}]"#,
        r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":4,"minor":64,"access":"w"}]"#,
        r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","access":"rw"},
            {"allow":false,"type":"b","major":8,"access":"m"}]"#,
        r#"[{"allow":true,"type":"c","major":4095,"minor":1048575,"access":"rw"},
            {"allow":true,"type":"c","major":2048,"minor":0,"access":"rw"},
            {"allow":true,"type":"c","major":4096,"minor":0,"access":"rw"}]"#,
        r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","minor":7,"access":"rwm"}]"#,
    ];

    /// The program answers every request like cgroup v1 does.
    #[test]
    fn program_is_the_policy() {
        let majors = [0, 1, 2, 4, 5, 8, 10, 136, 137, 2048, 4095];
        let minors = [0, 1, 2, 3, 5, 7, 8, 9, 64, 200, 1_048_575];
        for rules in RULES {
            let Ok(policy) = Policy::of(&super::super::devices::tests::linux(rules)) else {
                // The last one meets the list that is appended.
                assert_eq!(rules, RULES[8]);
                continue;
            };
            let program = compile(&policy).unwrap();
            for kind in [Kind::Block, Kind::Char] {
                for (major, minor) in majors.iter().flat_map(|a| minors.iter().map(move |b| (*a, *b))) {
                    for access in 0..8 {
                        assert_eq!(
                            run(&program, kind, major, minor, access),
                            policy.allows(kind, major, minor, access),
                            "{rules}: {kind:?} {major}:{minor} {access}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn default_program_is_short() {
        let length = |rules: &str| compile(&policy(rules)).unwrap().len();
        assert_eq!(length("[]"), 57);
        assert_eq!(length(r#"[{"allow":true,"access":"rwm"}]"#), 2);
    }

    /// Against the kernel: loads every program, and reports what loading the default one takes.
    #[test]
    fn kernel_accepts_the_programs() {
        for rules in RULES {
            let Ok(policy) = Policy::of(&super::super::devices::tests::linux(rules)) else { continue };
            match crate::sys::bpf::load_device_program(&compile(&policy).unwrap()) {
                Ok(_) => {}
                Err(errno @ (crate::sys::Errno::EPERM | crate::sys::Errno::ENOSYS)) => {
                    println!("SKIP: bpf: {errno}");
                    return;
                }
                Err(errno) => panic!("{rules}: {errno}"),
            }
        }
        let program = compile(&policy("[]")).unwrap();
        let mut times: Vec<_> = (0..200)
            .map(|_| {
                let start = std::time::Instant::now();
                drop(crate::sys::bpf::load_device_program(&program).unwrap());
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("load of the default program: min {:?} median {:?}", times[0], times[100]);
    }
}
