//! Runs a filter as the kernel does: to know beforehand what it says, and in tests.

use seccompiler::sock_filter;

/// `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

/// What the filter returns, and after how many instructions. None for a program that the kernel would refuse.
pub fn verdict(program: &[sock_filter], call: &Call) -> Option<(u32, usize)> {
    let word = |offset: u32| {
        let at = (offset as usize).checked_sub(16).map(|at| at / 8);
        let arg = at.and_then(|at| call.args.get(at));
        match offset {
            0 => Some(call.number),
            4 => Some(call.arch),
            _ if offset.is_multiple_of(8) => arg.map(|arg| *arg as u32),
            _ if offset.is_multiple_of(4) => arg.map(|arg| (*arg >> 32) as u32),
            _ => None,
        }
    };
    let (mut at, mut value, mut index, mut steps) = (0, 0u32, 0u32, 0);
    let mut memory = [0u32; 16];
    loop {
        let sock_filter { code, jt, jf, k } = program.get(at)?.clone();
        steps += 1;
        at += 1;
        let mut branch = |condition: bool| at += usize::from(if condition { jt } else { jf });
        match code {
            0x20 => value = word(k)?,
            0x00 => value = k,
            0x01 => index = k,
            0x07 => index = value,
            0x87 => value = index,
            0x02 => *memory.get_mut(k as usize)? = value,
            0x60 => value = *memory.get(k as usize)?,
            0x54 => value &= k,
            0x05 => at += k as usize,
            0x15 => branch(value == k),
            0x25 => branch(value > k),
            0x35 => branch(value >= k),
            0x45 => branch(value & k != 0),
            0x06 => return Some((k, steps)),
            _ => return None,
        }
    }
}

/// The same of a program that the kernel takes.
#[cfg(any(test, fuzzing))]
pub fn run(program: &[sock_filter], call: &Call) -> (u32, usize) {
    verdict(program, call).expect("the kernel would refuse the program")
}

/// Whether every jump stays inside and the last instruction ends the program, as bpf_check_classic wants it.
#[cfg(any(test, fuzzing))]
pub fn check(program: &[sock_filter]) -> bool {
    let inside = program.iter().enumerate().all(|(at, i)| match i.code {
        0x05 => at + 1 + (i.k as usize) < program.len(),
        0x15 | 0x25 | 0x35 | 0x45 => at + 1 + usize::from(i.jt.max(i.jf)) < program.len(),
        _ => true,
    });
    inside && program.len() <= 4096 && program.last().is_some_and(|i| i.code == 0x06)
}
