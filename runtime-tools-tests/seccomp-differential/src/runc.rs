//! What runc makes of a profile, twice: with libseccomp's program behind runc's ENOSYS stub, and rule by rule without any program.

use crate::libseccomp::{Compare, Library, OPS};
use crate::profile::{Arg, Profile};
use anyhow::{Result, bail, ensure};
use seccompiler::sock_filter;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

/// `/linux/seccomp/architectures`, `SCMP_ARCH_*`, `AUDIT_ARCH_*`.
pub const ARCHS: [(&str, u32, u32); 11] = [
    ("SCMP_ARCH_X86_64", 0xc000_003e, 0xc000_003e),
    ("SCMP_ARCH_X86", 0x4000_0003, 0x4000_0003),
    ("SCMP_ARCH_X32", 0x4000_003e, 0xc000_003e),
    ("SCMP_ARCH_AARCH64", 0xc000_00b7, 0xc000_00b7),
    ("SCMP_ARCH_ARM", 0x4000_0028, 0x4000_0028),
    ("SCMP_ARCH_RISCV64", 0xc000_00f3, 0xc000_00f3),
    ("SCMP_ARCH_LOONGARCH64", 0xc000_0102, 0xc000_0102),
    ("SCMP_ARCH_PPC64LE", 0xc000_0015, 0xc000_0015),
    ("SCMP_ARCH_MIPSEL", 0x4000_0008, 0x4000_0008),
    ("SCMP_ARCH_MIPSEL64", 0xc000_0008, 0xc000_0008),
    ("SCMP_ARCH_MIPSEL64N32", 0xe000_0008, 0xe000_0008),
];

const X32: u32 = 0x4000_003e;
const X32_BIT: u32 = 0x4000_0000;
const KILL: u32 = 0;
const ENOSYS: u32 = 0x0005_0000 | 38;

pub fn token(name: &str) -> u32 {
    ARCHS.iter().find(|(n, _, _)| *n == name).expect("a known architecture").1
}

pub fn audit(name: &str) -> u32 {
    ARCHS.iter().find(|(n, _, _)| *n == name).expect("a known architecture").2
}

fn wide(token: u32) -> bool {
    token & 0x8000_0000 != 0 && token != 0xe000_0008
}

/// `socketcall` and `ipc`.
fn carriers(token: u32) -> Option<[u32; 2]> {
    match token {
        0x4000_0003 | 0xc000_0015 => Some([102, 117]),
        0x4000_0008 => Some([4102, 4117]),
        _ => None,
    }
}

/// libseccomp's program for the profile, made as runc makes it. With `native` another architecture than this machine's, that one is added.
pub fn program(library: &Library, profile: &Profile, native: &str) -> Result<Vec<sock_filter>> {
    let default = profile.default.ret();
    let filter = library.filter(default)?;
    filter.arch(token(native))?;
    for arch in &profile.archs {
        filter.arch(token(arch))?;
    }
    if profile.entries.iter().map(|e| e.names.len()).sum::<usize>() > 32 {
        filter.optimize()?;
    }
    for entry in &profile.entries {
        let action = entry.action.ret();
        let conditions: Vec<Compare> = entry.args.iter().map(compare).collect();
        let apart = twice(&entry.args);
        for name in &entry.names {
            let Some(number) = library.resolve(name).filter(|_| action != default) else { continue };
            if apart {
                conditions.iter().try_for_each(|c| filter.rule(action, number, &[*c]))?;
            } else {
                filter.rule(action, number, &conditions)?;
            }
        }
    }
    filter.export()
}

/// What became of an attempt to compile with libseccomp.
pub enum Attempt {
    Program(Vec<sock_filter>),
    /// EEXIST: rules that it cannot bring together. Runc then fails.
    Refused,
    /// It did not come to an end within five seconds: a ring in its tree.
    Hung,
}

/// `program` in a child, which can be killed.
pub fn attempt(library: &Library, profile: &Profile, native: &str) -> Result<Attempt> {
    let (mut reader, mut writer) = std::io::pipe()?;
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    ensure!(pid >= 0, "fork failed");
    if pid == 0 {
        let answer = match program(library, profile, native) {
            Ok(program) => program.iter().flat_map(|i| u64::to_ne_bytes(pack(i))).collect(),
            Err(e) if e.to_string().contains("File exists") => b"refused".to_vec(),
            Err(e) => format!("{e}").into_bytes(),
        };
        let sent = writer.write_all(&answer);
        // SAFETY: ends the child without the parent's destructors.
        unsafe { libc::_exit(i32::from(sent.is_err())) }
    }
    drop(writer);
    let mut poll = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 5000) };
    let mut answer = Vec::new();
    if ready > 0 {
        reader.read_to_end(&mut answer)?;
    }
    // SAFETY: our own child, not waited for yet.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
    match &answer[..] {
        _ if ready <= 0 => Ok(Attempt::Hung),
        b"refused" => Ok(Attempt::Refused),
        bytes if !bytes.is_empty() && bytes.len().is_multiple_of(8) => {
            let unpack = |b: &[u8]| u64::from_ne_bytes(b.try_into().expect("eight bytes"));
            Ok(Attempt::Program(bytes.chunks_exact(8).map(|b| instruction(unpack(b))).collect()))
        }
        text => bail!("libseccomp: {}", String::from_utf8_lossy(text)),
    }
}

fn pack(i: &sock_filter) -> u64 {
    u64::from(i.code) | u64::from(i.jt) << 16 | u64::from(i.jf) << 24 | u64::from(i.k) << 32
}

fn instruction(packed: u64) -> sock_filter {
    sock_filter {
        code: packed as u16,
        jt: (packed >> 16) as u8,
        jf: (packed >> 24) as u8,
        k: (packed >> 32) as u32,
    }
}

fn compare(arg: &Arg) -> Compare {
    let op = OPS.iter().position(|op| *op == arg.op).expect("a known operator") as u32 + 1;
    Compare { arg: arg.index, op, datum_a: arg.value, datum_b: arg.value_two }
}

fn twice(args: &[Arg]) -> bool {
    args.iter().enumerate().any(|(n, a)| args[..n].iter().any(|b| a.index == b.index))
}

/// One rule on one architecture.
struct Rule {
    action: u32,
    /// For a call inside `socketcall` or `ipc`.
    carried: Option<u32>,
    args: Vec<Arg>,
}

/// A profile on the ABIs under one `AUDIT_ARCH_*`, rule by rule.
pub struct Oracle {
    /// By number, without those of x32 and for those of x32.
    rules: BTreeMap<u32, Vec<Rule>>,
    default: u32,
    /// The newest number the profile names, for numbers without and with the x32 bit.
    newest: [Option<u32>; 2],
    x32: bool,
    x86_64: bool,
    wide: bool,
}

/// What the rules say.
#[derive(Debug, PartialEq)]
pub enum Expected {
    One(u32),
    /// Several rules match and disagree.
    Several(Vec<u32>),
}

impl Oracle {
    pub fn new(library: &Library, profile: &Profile, arch: &str) -> Oracle {
        let main = token(arch);
        let x86_64 = arch == "SCMP_ARCH_X86_64";
        let x32 = x86_64 && profile.archs.contains(&"SCMP_ARCH_X32");
        let mut oracle = Oracle {
            rules: BTreeMap::new(),
            default: profile.default.ret(),
            newest: [None; 2],
            x32,
            x86_64,
            wide: wide(main),
        };
        let stub = !matches!(profile.default.name, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE");
        for (n, token) in [Some(main), x32.then_some(X32)].into_iter().flatten().enumerate() {
            let names = profile.entries.iter().flat_map(|e| &e.names);
            let newest = names.filter_map(|name| library.resolve_arch(token, name)).max();
            oracle.newest[n] = newest.filter(|n| *n > 0 && stub).map(|n| n as u32);
            for entry in &profile.entries {
                let sets = match twice(&entry.args) {
                    true => entry.args.iter().map(|a| vec![*a]).collect(),
                    false => vec![entry.args.clone()],
                };
                if entry.action.ret() == oracle.default {
                    continue;
                }
                for name in &entry.names {
                    for args in &sets {
                        oracle.add(library, token, name, entry.action.ret(), args);
                    }
                }
            }
        }
        oracle
    }

    fn add(&mut self, library: &Library, token: u32, name: &str, action: u32, args: &[Arg]) {
        let Some(number) = library.resolve_arch(token, name) else { return };
        let mut put = |number: u32, carried, args| {
            self.rules.entry(number).or_default().push(Rule { action, carried, args });
        };
        if number >= 0 {
            put(number as u32, None, args.to_vec());
            return;
        }
        // Pseudo numbers: -101.. are calls of socketcall, -201.. those of ipc.
        let Some(carriers) = carriers(token) else { return };
        let (carrier, call) = match number {
            -120..=-101 => (carriers[0], -number - 100),
            -224..=-201 => (carriers[1], -number - 200),
            _ => return,
        };
        put(carrier, Some(call as u32), args.iter().filter(|a| a.index != 0).copied().collect());
        // Many can also be called directly; libseccomp keeps that number to itself, the table of this test crate's subject knows it.
        if let Some(direct) = crate::plan::seccomp::arch::number(token, name) {
            put(direct, None, args.to_vec());
        }
    }

    /// The verdict of runc's stub, if it has one.
    pub fn stub(&self, number: u32) -> Option<u32> {
        let is_x32 = self.x86_64 && number & X32_BIT != 0;
        let newest = self.newest[usize::from(is_x32)];
        newest.filter(|newest| number > *newest).map(|_| ENOSYS)
    }

    /// What runc's whole filter says to a call.
    pub fn expected(&self, number: u32, args: &[u64; 6]) -> Expected {
        if let Some(enosys) = self.stub(number) {
            return Expected::One(enosys);
        }
        if self.x86_64 && !self.x32 && number >= X32_BIT && number != u32::MAX {
            return Expected::One(KILL);
        }
        let wide = self.wide && !(self.x32 && number & X32_BIT != 0);
        let rules = self.rules.get(&number).map_or(&[][..], |r| r);
        // The first rule without conditions decides alone.
        let vacuous = |a: &Arg| {
            a.op == "SCMP_CMP_MASKED_EQ" && a.value & if wide { u64::MAX } else { 0xffff_ffff } == 0
        };
        if let Some(rule) = rules.iter().find(|r| r.carried.is_none() && r.args.iter().all(vacuous)) {
            return Expected::One(rule.action);
        }
        let matching = rules.iter().filter(|rule| {
            rule.carried
                .is_none_or(|call| args[0] & if wide { u64::MAX } else { 0xffff_ffff } == u64::from(call))
                && rule.args.iter().all(|a| holds(a, args[a.index as usize], wide))
        });
        let mut actions: Vec<u32> = matching.map(|rule| rule.action).collect();
        actions.sort_unstable();
        actions.dedup();
        match actions[..] {
            [] => Expected::One(self.default),
            [one] => Expected::One(one),
            _ => Expected::Several(actions),
        }
    }

    /// Numbers with conditions, and for each the values worth trying as arguments.
    pub fn conditional(&self) -> impl Iterator<Item = (u32, [Vec<u64>; 6])> {
        self.rules.iter().filter_map(|(number, rules)| {
            let mut values: [Vec<u64>; 6] = Default::default();
            for rule in rules {
                values[0].extend(rule.carried.map(u64::from));
                for arg in &rule.args {
                    let base = match arg.op {
                        "SCMP_CMP_MASKED_EQ" => {
                            vec![arg.value, arg.value & arg.value_two, !arg.value, arg.value_two]
                        }
                        _ => vec![arg.value],
                    };
                    for v in base {
                        let near = [
                            v,
                            v.wrapping_add(1),
                            v.wrapping_sub(1),
                            v ^ 1 << 32,
                            v & 0xffff_ffff,
                            v | 0xffff_ffff,
                        ];
                        values[arg.index as usize].extend(near);
                        values[arg.index as usize].extend([
                            v.wrapping_add(1 << 32),
                            v.wrapping_sub(1 << 32),
                            v >> 32 << 32,
                        ]);
                    }
                }
            }
            let any = values.iter().any(|v| !v.is_empty());
            values.iter_mut().for_each(|v| {
                v.extend([0, u64::MAX]);
                v.sort_unstable();
                v.dedup();
            });
            any.then_some((*number, values))
        })
    }
}

fn holds(arg: &Arg, actual: u64, wide: bool) -> bool {
    let cut = if wide { u64::MAX } else { 0xffff_ffff };
    let (actual, value) = (actual & cut, arg.value & cut);
    match arg.op {
        "SCMP_CMP_NE" => actual != value,
        "SCMP_CMP_LT" => actual < value,
        "SCMP_CMP_LE" => actual <= value,
        "SCMP_CMP_EQ" => actual == value,
        "SCMP_CMP_GE" => actual >= value,
        "SCMP_CMP_GT" => actual > value,
        _ => actual & value == arg.value_two & value,
    }
}
