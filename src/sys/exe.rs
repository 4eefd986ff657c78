//! Keeps the runtime's own binary out of reach of containers (CVE-2019-5736).
//!
//! A process of naru that enters a container, or waits there to execute the program, shows as `/proc/PID/exe`. What
//! that link opens must never be writable, even for the host's root: else `#!/proc/self/exe` in an image is enough to
//! overwrite the runtime. Three ways, the cheapest that works is taken (figures: README, "Decisions"):
//!
//! 1. Nothing, where the binary lies on a read-only mount already, or is root's and the caller is not.
//! 2. [`reseat`]: map the same file again through a detached read-only mount, in place, and make that the process's
//!    executable (`PR_SET_MM_MAP`, Linux 3.18). No exec, no copy.
//! 3. Execute the read-only mount, or a sealed copy in memory where mounting is not allowed.
//!
//! The detached mount is dissolved when its last descriptor is closed, or comes off with the old root of the container's
//! mount namespace, before the container's program can run; from then on it is in no mount namespace, so no capability
//! can make it writable again.

use super::process::StringArray;
use super::{Errno, Result, check, fs, layout, mount, raw};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

const PAGE: usize = 4096;

/// A read-only mount of the executable, in no mount namespace, and the file opened through it. Dropping every copy
/// dissolves the mount, unless it has come off with an old root: from then on it cannot be changed by anybody.
pub struct Seal {
    tree: OwnedFd,
    file: OwnedFd,
}

/// Prepares the protection, in the mount namespace that the program was started in; nothing if none is needed because
/// the executable is unwritable already. Fails without the right to mount, and on a kernel that cannot [`reseat`]; then
/// [`restart`] is the way, and this is called so early that nothing has to be undone for it.
pub fn prepare() -> Result<Option<Seal>> {
    let error = match readonly_files() {
        Ok(None) => return Ok(None),
        // SAFETY: just opened, and nobody else knows them.
        Ok(Some(files)) => match files.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }) {
            [tree, file] => return Seal::from_files(tree, file).map(Some).ok_or(Errno::ENOSYS),
        },
        Err(errno) => errno,
    };
    let exe = fs::open(c"/proc/self/exe", libc::O_PATH, 0)?;
    if is_sealed_copy() || is_out_of_reach(&exe) { Ok(None) } else { Err(error) }
}

/// A detached read-only mount of the executable, and the file opened through it; nothing where it lies on a read-only
/// mount anyway. Uses neither errno nor the heap: `ahead` calls it, too.
pub fn readonly_files() -> Result<Option<[RawFd; 2]>> {
    let exe = raw::open(c"/proc/self/exe", libc::O_PATH)?;
    let files = readonly_files_of(exe);
    raw::close(exe);
    files
}

fn readonly_files_of(exe: RawFd) -> Result<Option<[RawFd; 2]>> {
    /// Words of the kernel's `struct statfs`, and which of them is `f_flags` (asm-generic/statfs.h, 64 bits).
    const WORDS: usize = 15;
    const FLAGS: usize = 10;
    let mut stat = [0u64; WORDS];
    // SAFETY: `stat` is as large as what the kernel writes.
    unsafe { raw::call(libc::SYS_fstatfs, [exe.into(), stat.as_mut_ptr() as libc::c_long, 0, 0, 0]) }?;
    if stat[FLAGS] & libc::ST_RDONLY != 0 {
        return Ok(None);
    }
    let attr = mount::MountAttr {
        set: mount::attr::RDONLY | mount::attr::NOSUID | mount::attr::NODEV,
        propagation: libc::MS_PRIVATE,
        ..Default::default()
    };
    // SAFETY: the caller's, for the length of this call.
    let tree = mount::clone_tree(unsafe { BorrowedFd::borrow_raw(exe) }, c"", false)?;
    mount::set_attr(tree.as_fd(), &attr, false)?;
    let file = raw::open(FdPath::new(tree.as_raw_fd()).as_c_str(), libc::O_RDONLY)?;
    Ok(Some([tree.into_raw_fd(), file]))
}

/// `/proc/self/fd/N`, on the stack.
struct FdPath([u8; 32]);

impl FdPath {
    fn new(fd: RawFd) -> FdPath {
        const DIR: &[u8] = b"/proc/self/fd/";
        let mut path = [0; 32];
        path[..DIR.len()].copy_from_slice(DIR);
        let digits = fd.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1;
        let mut rest = fd.unsigned_abs();
        for at in (DIR.len()..DIR.len() + digits).rev() {
            path[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        FdPath(path)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// For a caller who is not root: does the file belong to root, and may nobody else write to it? Then the containers of this
/// caller, whose ids are its own and those that were granted to it, are no danger to the file.
fn is_out_of_reach(exe: &OwnedFd) -> bool {
    !super::process::is_root()
        && nix::sys::stat::fstat(exe).is_ok_and(|stat| stat.st_uid == 0 && stat.st_mode & 0o022 == 0)
}

impl Seal {
    /// The seal with these two files; None on a kernel that cannot [`reseat`].
    pub fn from_files(tree: OwnedFd, file: OwnedFd) -> Option<Seal> {
        can_reseat().then_some(Seal { tree, file })
    }

    /// Makes this process's executable unwritable, in place. For a process of one thread that no container can see yet.
    pub fn apply(&self) -> Result<()> {
        reseat(&self.file)?;
        layout::map_start();
        Ok(())
    }

    /// The same in a forked child. Its code, which begins with the program, is mapped again by the first fault, with the 64 KiB
    /// around.
    pub fn apply_in_child(&self) -> Result<()> {
        reseat(&self.file)
    }

    /// Attaches the mount in the old root of a forked child's own mount namespace, from where nothing reaches the host
    /// any more: it comes off with the old root, in the same grace period. Dissolving it by itself takes another one,
    /// for which the unmounting of the old root then waits as well (0.3 ms).
    pub fn leave_in_old_root(&self) {
        // A file that nobody looks at. An error (no procfs, a user namespace) leaves it to be dissolved.
        if let Ok(target) = fs::open(c"/proc/execdomains", libc::O_PATH, 0) {
            let _ = mount::attach(self.tree.as_fd(), target.as_fd());
        }
    }

    /// Closes a forked child's copies of the descriptors: from then on the runtime's are the last.
    pub fn close_in_child(&self) {
        // SAFETY: a child of fork(2) that ends in execve or _exit never drops the value, so nothing closes them twice.
        unsafe {
            libc::close(self.file.as_raw_fd());
            libc::close(self.tree.as_raw_fd());
        }
    }
}

/// Starts this program again, with the same arguments, from a file that nobody can write to: the second start finds
/// itself protected. Returns only the error. The caller has undone whatever it did and given back what it inherited.
pub fn restart() -> Errno {
    let exe = match fs::open(c"/proc/self/exe", libc::O_PATH, 0) {
        Ok(exe) => exe,
        Err(errno) => return errno,
    };
    // Without the right to mount: a sealed copy.
    let file = match readonly_files_of(exe.as_raw_fd()) {
        // SAFETY: just opened, and nobody else knows it. The mount is dissolved by the execve.
        Ok(Some([_, file])) => Ok(unsafe { OwnedFd::from_raw_fd(file) }),
        _ => sealed_copy(),
    };
    match file {
        Ok(file) => execute(&file),
        Err(errno) => errno,
    }
}

/// `struct prctl_mm_map`, linux/prctl.h.
#[repr(C)]
struct MmMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// `PR_SET_MM` and its sub-calls, linux/prctl.h.
const SET_MM: libc::c_long = 35;
const MM_MAP: libc::c_long = 14;
const MM_MAP_SIZE: libc::c_long = 15;

/// Does the kernel have `PR_SET_MM_MAP` (CONFIG_CHECKPOINT_RESTORE), in the form that is used here?
fn can_reseat() -> bool {
    // SAFETY: reads what the kernel has put on this process's stack. Elsewhere than on x86 pages may be larger.
    if unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize != PAGE {
        return false;
    }
    let mut size: libc::c_uint = 0;
    // SAFETY: `size` is a live unsigned int, which the call fills in.
    let asked = unsafe { libc::syscall(libc::SYS_prctl, SET_MM, MM_MAP_SIZE, &raw mut size, 0, 0) };
    check(asked).is_ok() && size as usize == size_of::<MmMap>()
}

/// Replaces every mapping of the binary, code by the same bytes of `file` and variables by a copy in new pages, then makes
/// `file` the executable: the kernel refuses that (`EBUSY`) as long as the old one is mapped anywhere.
fn reseat(file: &OwnedFd) -> Result<()> {
    let headers = program_headers()?;
    let mut map = memory_layout();
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
        let start = header.p_vaddr as usize & !(PAGE - 1);
        let end = (header.p_vaddr + header.p_filesz) as usize;
        let length = (end - start).next_multiple_of(PAGE);
        let mut protection = libc::PROT_READ;
        if header.p_flags & libc::PF_X != 0 {
            protection |= libc::PROT_EXEC;
            (map.start_code, map.end_code) = (start as u64, end as u64);
        }
        if header.p_flags & libc::PF_W == 0 {
            let offset = header.p_offset as usize & !(PAGE - 1);
            remap(start, length, protection, file.as_raw_fd(), offset)?;
        } else {
            (map.start_data, map.end_data) = (start as u64, end as u64);
            // Put in its place at once: a call may go by a pointer that is in this segment.
            let copy = map_pages(length, protection | libc::PROT_WRITE)?;
            // SAFETY: `start..start + length` is the mapped writable segment of this very program (its last page is mapped
            // whole), and `copy` as large and ours alone. Nothing else runs in this process, so nothing is written to the
            // segment between the copy and the move.
            unsafe {
                std::ptr::copy_nonoverlapping(start as *const u8, copy, length);
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                check(libc::syscall(libc::SYS_mremap, copy, length, length, flags, start))?;
            }
        }
    }
    map.exe_fd = file.as_raw_fd() as u32;
    // SAFETY: `map` is a live repr(C) prctl_mm_map and its size is given.
    check(unsafe { libc::syscall(libc::SYS_prctl, SET_MM, MM_MAP, &raw const map, size_of::<MmMap>(), 0) })
        .map(drop)
}

/// New zero pages, mapped in at once, because all of them are written next.
fn map_pages(length: usize, protection: i32) -> Result<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: without an address the kernel takes a range that is free.
    let pages =
        unsafe { libc::syscall(libc::SYS_mmap, 0_usize, length, protection, flags, -1_isize, 0_usize) };
    check(pages).map(|at| at as *mut u8)
}

/// mmap(2) over a range of this program with the same content.
fn remap(start: usize, length: usize, protection: i32, file: RawFd, offset: usize) -> Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    // SAFETY: the range is a segment of this program that nobody writes to, and it is replaced by the same bytes of the same
    // file with the same protection, so code goes on as before.
    check(unsafe { libc::syscall(libc::SYS_mmap, start, length, protection, flags, file, offset) }).map(drop)
}

/// The program headers that the kernel points to.
fn program_headers() -> Result<&'static [libc::Elf64_Phdr]> {
    // SAFETY: no preconditions.
    let (pointer, count, size) = unsafe {
        (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM), libc::getauxval(libc::AT_PHENT))
    };
    if pointer == 0 || size as usize != size_of::<libc::Elf64_Phdr>() {
        return Err(Errno::ENOEXEC);
    }
    // SAFETY: the kernel's auxiliary vector gives the address, number and size of headers mapped for the whole run.
    Ok(unsafe { std::slice::from_raw_parts(pointer as *const libc::Elf64_Phdr, count as usize) })
}

/// The other fields of the layout, which stay as they are: heap, stack, arguments, environment.
fn memory_layout() -> MmMap {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    let here = 0u8;
    // SAFETY: brk(0) only asks.
    let brk = unsafe { libc::syscall(libc::SYS_brk, 0) } as u64;
    let stack = &raw const here as u64;
    let (mut env_start, mut env_end) = (stack, stack);
    // SAFETY: `environ` is the array of NUL-terminated strings that the kernel put on the stack, ended by null;
    // this program never changes it.
    unsafe {
        let mut entry = environ;
        if !entry.is_null() && !(*entry).is_null() {
            env_start = *entry as u64;
            while !(*entry).is_null() {
                env_end = *entry as u64 + CStr::from_ptr(*entry).to_bytes_with_nul().len() as u64;
                entry = entry.add(1);
            }
        }
    }
    MmMap {
        start_code: 0,
        end_code: 0,
        start_data: 0,
        end_data: 0,
        start_brk: brk,
        brk,
        start_stack: stack,
        arg_start: env_start,
        arg_end: env_start,
        env_start,
        env_end: env_end.max(env_start),
        auxv: 0,
        auxv_size: 0,
        exe_fd: 0,
    }
}

const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

fn is_sealed_copy() -> bool {
    let Ok(exe) = fs::open(c"/proc/self/exe", libc::O_RDONLY, 0) else { return false };
    // SAFETY: no memory is passed.
    match check(unsafe { libc::fcntl(exe.as_raw_fd(), libc::F_GET_SEALS) } as libc::c_long) {
        Ok(seals) => seals as i32 & SEALS == SEALS,
        // Only files in memory have seals at all.
        Err(_) => false,
    }
}

/// A copy of this program in memory that nobody can change.
fn sealed_copy() -> Result<OwnedFd> {
    /// `MFD_EXEC` (Linux 6.3): needed where vm.memfd_noexec asks for it.
    const MFD_EXEC: libc::c_uint = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a static NUL-terminated string.
    let create = |flags| check(unsafe { libc::memfd_create(c"naru".as_ptr(), flags) } as libc::c_long);
    let fd = match create(flags | MFD_EXEC) {
        Err(Errno::EINVAL) => create(flags),
        other => other,
    }?;
    // SAFETY: the kernel has just returned it to this process alone.
    let copy = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let exe = fs::open(c"/proc/self/exe", libc::O_RDONLY, 0)?;
    let mut left = nix::sys::stat::fstat(&exe)?.st_size as usize;
    while left > 0 {
        match nix::sys::sendfile::sendfile(&copy, &exe, None, left)? {
            0 => return Err(Errno::EIO),
            sent => left -= sent.min(left),
        }
    }
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } as libc::c_long)?;
    Ok(copy)
}

/// Executes `file` in the place of this program; returns only the error.
fn execute(file: &OwnedFd) -> Errno {
    use std::os::unix::ffi::OsStringExt;
    let args = super::start::args()
        .into_iter()
        .map(|arg| CString::new(arg.into_vec()).unwrap_or_default())
        .collect();
    let env = std::env::vars_os().map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        CString::new(entry).unwrap_or_default()
    });
    let env = StringArray::new(env.collect());
    super::process::execveat(file.as_fd(), &StringArray::new(args), &env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_on_disk_is_no_sealed_copy() {
        assert!(!is_sealed_copy());
    }

    #[test]
    fn a_sealed_copy_cannot_be_written() {
        use std::io::Write;
        let copy = sealed_copy().unwrap();
        let mut file = std::fs::File::from(copy);
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
    }
}
