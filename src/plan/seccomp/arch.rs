//! The architectures a filter of this build can meet, and the way from a system call's name to its number.
//! Only little-endian ones: the kernel never shows a process's call under an architecture of the other byte order, and the crate
//! seccompiler does not exist there. Called by the rest of `plan::seccomp` only.

use super::table::{self, COUNT, NAMES, NONE, PRIVATE};
use oci_spec::runtime::Arch as Name;

/// One system call ABI.
pub struct Arch {
    /// Its name in `/linux/seccomp/architectures`.
    pub name: Name,
    /// `AUDIT_ARCH_*`, what `seccomp_data.arch` holds (linux/audit.h). x32 has that of x86_64.
    pub audit: u32,
    /// Numbers in the order of `NAMES`.
    numbers: &'static [u16; COUNT],
    /// Added to the numbers: the x32 bit, or the first number of a MIPS ABI.
    pub base: u32,
    /// Whether all 64 bits of an argument count. On a 32-bit ABI the kernel passes only the low word, so only that is compared.
    pub wide: bool,
    /// The numbers of `socketcall` and `ipc` where those carry other calls as a first argument.
    pub carriers: Option<[u32; 2]>,
    /// Other ABIs a process on a kernel of this architecture may use.
    pub compat: &'static [&'static Arch],
}

/// Set in the number of every x32 call (`__X32_SYSCALL_BIT`).
pub const X32_BIT: u32 = 0x4000_0000;

/// The architecture this program was built for.
#[cfg(target_arch = "x86_64")]
pub const NATIVE: &Arch = &X86_64;
/// The architecture this program was built for.
#[cfg(target_arch = "aarch64")]
pub const NATIVE: &Arch = &AARCH64;
/// The architecture this program was built for.
#[cfg(target_arch = "riscv64")]
pub const NATIVE: &Arch = &RISCV64;
/// The architecture this program was built for.
#[cfg(target_arch = "loongarch64")]
pub const NATIVE: &Arch = &LOONGARCH64;
/// The architecture this program was built for.
#[cfg(target_arch = "powerpc64")]
pub const NATIVE: &Arch = &PPC64LE;
/// The architecture this program was built for.
#[cfg(target_arch = "mips64")]
pub const NATIVE: &Arch = &MIPSEL64;

/// Every native architecture this file knows.
#[cfg(test)]
pub static ALL: [&Arch; 6] = [&X86_64, &AARCH64, &RISCV64, &LOONGARCH64, &PPC64LE, &MIPSEL64];

/// The number of the call `name` on the architecture whose `Arch::name` has the value `token`.
#[cfg(test)]
pub fn number(token: u32, name: &str) -> Option<u32> {
    let mut archs = ALL.iter().flat_map(|native| std::iter::once(native).chain(native.compat));
    archs.find(|arch| arch.name as u32 == token)?.number(id(name)?)
}

#[cfg(any(test, target_arch = "x86_64"))]
pub static X86_64: Arch = Arch {
    name: Name::ScmpArchX86_64,
    audit: 0xc000_003e,
    numbers: &table::X86_64,
    base: 0,
    wide: true,
    carriers: None,
    compat: &[&X86, &X32],
};

#[cfg(any(test, target_arch = "x86_64"))]
pub static X86: Arch = Arch {
    name: Name::ScmpArchX86,
    audit: 0x4000_0003,
    numbers: &table::X86,
    base: 0,
    wide: false,
    carriers: Some([102, 117]),
    compat: &[],
};

#[cfg(any(test, target_arch = "x86_64"))]
pub static X32: Arch = Arch {
    name: Name::ScmpArchX32,
    audit: 0xc000_003e,
    numbers: &table::X32,
    base: X32_BIT,
    wide: false,
    carriers: None,
    compat: &[],
};

#[cfg(any(test, target_arch = "aarch64"))]
pub static AARCH64: Arch = Arch {
    name: Name::ScmpArchAarch64,
    audit: 0xc000_00b7,
    numbers: &table::AARCH64,
    base: 0,
    wide: true,
    carriers: None,
    compat: &[&ARM],
};

#[cfg(any(test, target_arch = "aarch64"))]
pub static ARM: Arch = Arch {
    name: Name::ScmpArchArm,
    audit: 0x4000_0028,
    numbers: &table::ARM,
    base: 0,
    wide: false,
    carriers: None,
    compat: &[],
};

#[cfg(any(test, target_arch = "riscv64"))]
pub static RISCV64: Arch = Arch {
    name: Name::ScmpArchRiscv64,
    audit: 0xc000_00f3,
    numbers: &table::RISCV64,
    base: 0,
    wide: true,
    carriers: None,
    compat: &[],
};

#[cfg(any(test, target_arch = "loongarch64"))]
pub static LOONGARCH64: Arch = Arch {
    name: Name::ScmpArchLoongarch64,
    audit: 0xc000_0102,
    numbers: &table::LOONGARCH64,
    base: 0,
    wide: true,
    carriers: None,
    compat: &[],
};

#[cfg(any(test, target_arch = "powerpc64"))]
pub static PPC64LE: Arch = Arch {
    name: Name::ScmpArchPpc64le,
    audit: 0xc000_0015,
    numbers: &table::PPC64,
    base: 0,
    wide: true,
    carriers: Some([102, 117]),
    compat: &[],
};

#[cfg(any(test, target_arch = "mips64"))]
pub static MIPSEL64: Arch = Arch {
    name: Name::ScmpArchMipsel64,
    audit: 0xc000_0008,
    numbers: &table::MIPS_N64,
    base: 5000,
    wide: true,
    carriers: None,
    compat: &[&MIPSEL, &MIPSEL64N32],
};

#[cfg(any(test, target_arch = "mips64"))]
pub static MIPSEL: Arch = Arch {
    name: Name::ScmpArchMipsel,
    audit: 0x4000_0008,
    numbers: &table::MIPS_O32,
    base: 4000,
    wide: false,
    carriers: Some([4102, 4117]),
    compat: &[],
};

#[cfg(any(test, target_arch = "mips64"))]
pub static MIPSEL64N32: Arch = Arch {
    name: Name::ScmpArchMipsel64n32,
    audit: 0xe000_0008,
    numbers: &table::MIPS_N32,
    base: 6000,
    wide: false,
    carriers: None,
    compat: &[],
};

impl Arch {
    /// The number of the call whose name stands at `id` in `NAMES`; `None` where this architecture lacks it.
    pub fn number(&self, id: u16) -> Option<u32> {
        match self.numbers[usize::from(id)] {
            NONE => None,
            private if private >= PRIVATE => Some(0x0f_0000 + u32::from(private - PRIVATE)),
            number => Some(self.base + u32::from(number)),
        }
    }
}

/// Which of the two carriers (0 `socketcall`, 1 `ipc`) can carry the call at `id`, and under which number in its first argument
/// (linux/net.h `SYS_*`, linux/ipc.h).
pub fn carried(id: u16) -> Option<(usize, u32)> {
    let call = CARRIED[usize::from(id)];
    (call != 0).then(|| (usize::from(call >> 7), u32::from(call & 0x7f)))
}

/// The place of `name` in `NAMES`.
pub fn id(name: &str) -> Option<u16> {
    let mut slot = hash(name.as_bytes()) % SLOTS;
    loop {
        let id = INDEX[slot];
        if id == NONE {
            return None;
        }
        if NAMES[usize::from(id)] == name {
            return Some(id);
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// A power of two, about four times `COUNT`: a lookup then takes 1.1 tries.
const SLOTS: usize = 2048;

/// Open addressing, filled at compile time: 350 lookups in the sorted array would cost more than all the rest of a compilation.
static INDEX: [u16; SLOTS] = {
    let mut index = [NONE; SLOTS];
    let mut id = 0;
    while id < COUNT {
        let mut slot = hash(NAMES[id].as_bytes()) % SLOTS;
        while index[slot] != NONE {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = id as u16;
        id += 1;
    }
    index
};

/// Per name: 0, or its number in `socketcall`, or 0x80 plus its number in `ipc`.
static CARRIED: [u8; COUNT] = {
    let calls: [(&str, u8); 32] = [
        ("socket", 1),
        ("bind", 2),
        ("connect", 3),
        ("listen", 4),
        ("accept", 5),
        ("getsockname", 6),
        ("getpeername", 7),
        ("socketpair", 8),
        ("send", 9),
        ("recv", 10),
        ("sendto", 11),
        ("recvfrom", 12),
        ("shutdown", 13),
        ("setsockopt", 14),
        ("getsockopt", 15),
        ("sendmsg", 16),
        ("recvmsg", 17),
        ("accept4", 18),
        ("recvmmsg", 19),
        ("sendmmsg", 20),
        ("semop", 0x80 | 1),
        ("semget", 0x80 | 2),
        ("semctl", 0x80 | 3),
        ("semtimedop", 0x80 | 4),
        ("msgsnd", 0x80 | 11),
        ("msgrcv", 0x80 | 12),
        ("msgget", 0x80 | 13),
        ("msgctl", 0x80 | 14),
        ("shmat", 0x80 | 21),
        ("shmdt", 0x80 | 22),
        ("shmget", 0x80 | 23),
        ("shmctl", 0x80 | 24),
    ];
    let mut carried = [0; COUNT];
    let mut call = 0;
    while call < calls.len() {
        let mut id = 0;
        while !same(NAMES[id].as_bytes(), calls[call].0.as_bytes()) {
            id += 1;
        }
        carried[id] = calls[call].1;
        call += 1;
    }
    carried
};

/// FNV-1a.
const fn hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ name[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 15)) as usize
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
