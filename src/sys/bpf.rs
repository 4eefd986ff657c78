//! bpf(2): load a cgroup device program, attach it, query and detach others.

use super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `BPF_PROG_TYPE_CGROUP_DEVICE`, linux/bpf.h.
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`, linux/bpf.h.
const ATTACH_CGROUP_DEVICE: u32 = 6;
const CMD_PROG_LOAD: libc::c_long = 5;
const CMD_PROG_ATTACH: libc::c_long = 8;
const CMD_PROG_DETACH: libc::c_long = 9;
const CMD_PROG_GET_FD_BY_ID: libc::c_long = 13;
const CMD_PROG_QUERY: libc::c_long = 16;
/// `BPF_F_ALLOW_MULTI`: programs of ancestors and siblings stay in force.
pub const F_ALLOW_MULTI: u32 = 2;
/// `BPF_F_REPLACE`: replace exactly the program named (Linux 5.6).
pub const F_REPLACE: u32 = 4;

/// One eBPF instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u8,
    /// Destination register in the low half, source register in the high half.
    pub regs: u8,
    /// Jump or memory offset.
    pub off: i16,
    /// Immediate.
    pub imm: i32,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgAttach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
}

#[repr(C)]
#[derive(Default)]
struct GetFdById {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

fn bpf<T>(cmd: libc::c_long, attr: &mut T) -> Result<libc::c_long> {
    // SAFETY: `attr` is a live, fully initialised repr(C) prefix of `union bpf_attr` and its own size is passed; every
    // pointer stored in it (as u64) is kept alive by the caller for the length of the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, cmd, attr as *mut T, size_of::<T>()) })
}

/// Loads a device program (Linux 4.15) and returns its descriptor, which the kernel opens close-on-exec.
pub fn load_device_program(insns: &[Insn]) -> Result<OwnedFd> {
    let mut attr = ProgLoad {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Default::default()
    };
    let fd = bpf(CMD_PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches `prog` to the cgroup directory `cgroup`; with `replace` in the place of that program (Linux 5.6).
pub fn attach_device_program(
    cgroup: BorrowedFd,
    prog: BorrowedFd,
    flags: u32,
    replace: Option<BorrowedFd>,
) -> Result<()> {
    let mut attr = ProgAttach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: prog.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: flags,
        replace_bpf_fd: replace.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    bpf(CMD_PROG_ATTACH, &mut attr).map(drop)
}

/// Detaches `prog` from the cgroup directory `cgroup`.
pub fn detach_device_program(cgroup: BorrowedFd, prog: BorrowedFd) -> Result<()> {
    let mut attr = ProgAttach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: prog.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        ..Default::default()
    };
    bpf(CMD_PROG_DETACH, &mut attr).map(drop)
}

/// Writes the ids of the device programs attached to `cgroup` itself into `ids` and returns how many there are;
/// `ENOSPC` when there are more than fit.
pub fn query_device_programs(cgroup: BorrowedFd, ids: &mut [u32]) -> Result<usize> {
    let mut attr = ProgQuery {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..Default::default()
    };
    bpf(CMD_PROG_QUERY, &mut attr)?;
    Ok(attr.prog_cnt as usize)
}

/// Opens a loaded program by its id.
pub fn open_program(id: u32) -> Result<OwnedFd> {
    let mut attr = GetFdById { prog_id: id, ..Default::default() };
    let fd = bpf(CMD_PROG_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: the kernel just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
