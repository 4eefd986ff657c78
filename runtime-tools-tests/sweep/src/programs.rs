//! BPF programs for devices: which are attached to a cgroup, and which are left over, attached nowhere and held by nobody.
//!
//! Ids only grow within a boot, so that those made during a sweep are known; whose they are is not, hence the question
//! who holds one: a program that neither a cgroup nor a descriptor holds would be gone, unless something else has it
//! (a pin, a link). Called by `oracle` and `supervise`.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::oracle;

const PROG_GET_NEXT_ID: libc::c_int = 11;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const CGROUP_DEVICE_ATTACH: u64 = 6;
const CGROUP_DEVICE_PROGRAM: u32 = 15;

/// bpf(2) with the first 48 bytes of its attributes.
fn bpf(command: libc::c_int, attributes: &mut [u64; 6]) -> Option<i64> {
    let size = std::mem::size_of_val(attributes);
    // SAFETY: the kernel reads and writes within `size` bytes, which are live; pointers in them are the callers' to vouch for.
    let r = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size) };
    (r >= 0).then_some(r)
}

/// Ids of the device programs of a cgroup of v2; none where there is no such directory or kernel.
pub fn attached(dir: &str) -> Vec<u32> {
    let Ok(cgroup) = fs::File::open(dir) else { return Vec::new() };
    let mut ids = [0u32; 64];
    // target_fd, attach_type; query_flags, attach_flags; prog_ids; prog_cnt.
    let first = cgroup.as_raw_fd() as u64 | CGROUP_DEVICE_ATTACH << 32;
    let mut attributes = [first, 0, ids.as_mut_ptr() as u64, ids.len() as u64, 0, 0];
    match bpf(PROG_QUERY, &mut attributes) {
        Some(_) => ids[..(attributes[3] as u32 as usize).min(ids.len())].to_vec(),
        None => Vec::new(),
    }
}

/// All programs with an id above `since`.
fn ids_above(since: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let mut at = since;
    loop {
        // start_id, next_id.
        let mut attributes = [u64::from(at), 0, 0, 0, 0, 0];
        if bpf(PROG_GET_NEXT_ID, &mut attributes).is_none() {
            return all;
        }
        at = (attributes[0] >> 32) as u32;
        all.push(at);
    }
}

/// The highest id now.
pub fn latest() -> u32 {
    ids_above(0).pop().unwrap_or(0)
}

fn is_for_devices(id: u32) -> bool {
    let Some(fd) = bpf(PROG_GET_FD_BY_ID, &mut [u64::from(id), 0, 0, 0, 0, 0]) else { return false };
    let mut info = [0u32; 2];
    // bpf_fd, info_len; info.
    let mut attributes =
        [fd as u64 | (std::mem::size_of_val(&info) as u64) << 32, info.as_mut_ptr() as u64, 0, 0, 0, 0];
    let known = bpf(OBJ_GET_INFO_BY_FD, &mut attributes).is_some();
    // SAFETY: the descriptor was made above and is nobody else's.
    unsafe { libc::close(fd as i32) };
    known && info[0] == CGROUP_DEVICE_PROGRAM
}

/// Programs for devices made after `since` that nobody who could be asked holds, once all had time to go.
pub fn left_since(since: u32) -> Vec<u32> {
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        let mut left: Vec<u32> = ids_above(since).into_iter().filter(|id| is_for_devices(*id)).collect();
        if !left.is_empty() {
            let held = holders();
            left.retain(|id| !held.contains(id));
        }
        if left.is_empty() || Instant::now() > until {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Programs that are attached to any cgroup that is mounted, or open in any process.
fn holders() -> HashSet<u32> {
    let mut held = HashSet::new();
    let mut dirs = oracle::hierarchies(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    while let Some(dir) = dirs.pop() {
        held.extend(attached(&dir));
        let below = fs::read_dir(&dir).into_iter().flatten().filter_map(Result::ok);
        let below = below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        dirs.extend(below.map(|e| e.path().to_string_lossy().into_owned()));
    }
    for process in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        for info in fs::read_dir(process.path().join("fdinfo")).into_iter().flatten().filter_map(Result::ok) {
            let text = fs::read_to_string(info.path()).unwrap_or_default();
            let id = text.lines().find_map(|l| l.strip_prefix("prog_id:"));
            held.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads `return 1` as a program for devices; None without the right to.
    fn load() -> Option<std::os::fd::OwnedFd> {
        use std::os::fd::FromRawFd;
        // r0 = 1; exit
        let code: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
        // prog_type, insn_cnt; insns; license; log_level, log_size; log_buf; kern_version, prog_flags.
        let license = c"GPL";
        let mut attributes = [
            u64::from(CGROUP_DEVICE_PROGRAM) | (code.len() as u64) << 32,
            code.as_ptr() as u64,
            license.as_ptr() as u64,
            0,
            0,
            0,
        ];
        let fd = bpf(5, &mut attributes)?;
        // SAFETY: just made, and nobody else's.
        Some(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) })
    }

    #[test]
    fn a_program_is_seen_with_who_holds_it() {
        let before = latest();
        let Some(held) = load() else {
            println!("SKIP: no right to load BPF programs");
            return;
        };
        let mine: Vec<u32> = ids_above(before).into_iter().filter(|id| is_for_devices(*id)).collect();
        assert!(!mine.is_empty());
        let holders = holders();
        assert!(mine.iter().any(|id| holders.contains(id)));
        drop(held);
    }
}
