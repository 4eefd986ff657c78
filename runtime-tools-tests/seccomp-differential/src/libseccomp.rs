//! libseccomp's C interface, loaded at run time. Nothing of it is linked, so that the package builds without it.

use anyhow::{Result, bail, ensure};
use seccompiler::sock_filter;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd};

/// The actions of a profile and the values that a program returns for them, without an errno or a message.
pub const ACTIONS: [(&str, u32); 9] = [
    ("SCMP_ACT_ALLOW", 0x7fff_0000),
    ("SCMP_ACT_ERRNO", 0x0005_0000),
    ("SCMP_ACT_KILL", 0),
    ("SCMP_ACT_KILL_THREAD", 0),
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ("SCMP_ACT_TRAP", 0x0003_0000),
    ("SCMP_ACT_TRACE", 0x7ff0_0000),
    ("SCMP_ACT_LOG", 0x7ffc_0000),
    ("SCMP_ACT_NOTIFY", 0x7fc0_0000),
];

/// In the order of `enum scmp_compare`, from 1 on.
pub const OPS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

/// `struct scmp_arg_cmp`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Compare {
    pub arg: u32,
    pub op: u32,
    pub datum_a: u64,
    pub datum_b: u64,
}

#[repr(C)]
struct Version {
    major: u32,
    minor: u32,
    micro: u32,
}

type Context = *mut c_void;

/// The loaded library.
pub struct Library {
    init: unsafe extern "C" fn(u32) -> Context,
    release: unsafe extern "C" fn(Context),
    arch_add: unsafe extern "C" fn(Context, u32) -> c_int,
    attr_set: unsafe extern "C" fn(Context, c_int, u32) -> c_int,
    resolve: unsafe extern "C" fn(*const c_char) -> c_int,
    resolve_arch: unsafe extern "C" fn(u32, *const c_char) -> c_int,
    rule_add: unsafe extern "C" fn(Context, u32, c_int, u32, *const Compare) -> c_int,
    export: unsafe extern "C" fn(Context, c_int) -> c_int,
    version: unsafe extern "C" fn() -> *const Version,
}

const ATTR_OPTIMIZE: c_int = 8;
/// `__NR_SCMP_ERROR`.
const UNKNOWN: c_int = -1;

impl Library {
    /// Loads `path`.
    pub fn load(path: &str) -> Result<Library> {
        let path = CString::new(path)?;
        // SAFETY: a NUL-terminated string; what the library does when it is loaded is its own affair.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            // SAFETY: after a failed dlopen, dlerror returns a string.
            bail!("{}", unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy());
        }
        // SAFETY: the types in `Library` are those of seccomp.h since libseccomp 2.5.
        unsafe {
            Ok(Library {
                init: symbol(handle, c"seccomp_init")?,
                release: symbol(handle, c"seccomp_release")?,
                arch_add: symbol(handle, c"seccomp_arch_add")?,
                attr_set: symbol(handle, c"seccomp_attr_set")?,
                resolve: symbol(handle, c"seccomp_syscall_resolve_name")?,
                resolve_arch: symbol(handle, c"seccomp_syscall_resolve_name_arch")?,
                rule_add: symbol(handle, c"seccomp_rule_add_array")?,
                export: symbol(handle, c"seccomp_export_bpf")?,
                version: symbol(handle, c"seccomp_version")?,
            })
        }
    }

    pub fn version(&self) -> String {
        // SAFETY: returns a static structure.
        let v = unsafe { &*(self.version)() };
        format!("{}.{}.{}", v.major, v.minor, v.micro)
    }

    /// The number of a call on the build's architecture; negative where that lacks it, `None` for an unknown name.
    pub fn resolve(&self, name: &str) -> Option<c_int> {
        let name = CString::new(name).ok()?;
        // SAFETY: a NUL-terminated string.
        Some(unsafe { (self.resolve)(name.as_ptr()) }).filter(|n| *n != UNKNOWN)
    }

    /// The same on the architecture `token` (`SCMP_ARCH_*`).
    pub fn resolve_arch(&self, token: u32, name: &str) -> Option<c_int> {
        let name = CString::new(name).ok()?;
        // SAFETY: a NUL-terminated string.
        Some(unsafe { (self.resolve_arch)(token, name.as_ptr()) }).filter(|n| *n != UNKNOWN)
    }

    pub fn filter(&self, default: u32) -> Result<Builder<'_>> {
        // SAFETY: takes a number.
        let context = unsafe { (self.init)(default) };
        ensure!(!context.is_null(), "seccomp_init failed");
        Ok(Builder { library: self, context })
    }
}

/// A function of the library.
///
/// # Safety
/// `handle` is from dlopen and `F` is the function's type.
unsafe fn symbol<F: Copy>(handle: *mut c_void, name: &CStr) -> Result<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: a handle from dlopen and a NUL-terminated name.
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    ensure!(!address.is_null(), "libseccomp has no {}", name.to_string_lossy());
    // SAFETY: of the same size, and of the right type as the caller promises.
    Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
}

/// A filter under construction.
pub struct Builder<'a> {
    library: &'a Library,
    context: Context,
}

impl Builder<'_> {
    pub fn arch(&self, token: u32) -> Result<()> {
        // SAFETY: a live context.
        match unsafe { (self.library.arch_add)(self.context, token) } {
            0 => Ok(()),
            e if e == -libc::EEXIST => Ok(()),
            e => bail!("seccomp_arch_add: {e}"),
        }
    }

    /// `SCMP_FLTATR_CTL_OPTIMIZE` 2: a tree.
    pub fn optimize(&self) -> Result<()> {
        // SAFETY: a live context.
        let ret = unsafe { (self.library.attr_set)(self.context, ATTR_OPTIMIZE, 2) };
        ensure!(ret == 0, "seccomp_attr_set: {ret}");
        Ok(())
    }

    pub fn rule(&self, action: u32, number: c_int, conditions: &[Compare]) -> Result<()> {
        // SAFETY: a live context and as many conditions as said.
        let ret = unsafe {
            (self.library.rule_add)(
                self.context,
                action,
                number,
                conditions.len() as u32,
                conditions.as_ptr(),
            )
        };
        ensure!(ret == 0, "seccomp_rule_add: {}", std::io::Error::from_raw_os_error(-ret));
        Ok(())
    }

    pub fn export(&self) -> Result<Vec<sock_filter>> {
        // SAFETY: takes a string and a flag; the descriptor is ours.
        let mut file = unsafe {
            let fd = libc::memfd_create(c"filter".as_ptr(), libc::MFD_CLOEXEC);
            ensure!(fd >= 0, "memfd_create failed");
            std::fs::File::from_raw_fd(fd)
        };
        // SAFETY: a live context and a descriptor.
        let ret = unsafe { (self.library.export)(self.context, file.as_raw_fd()) };
        ensure!(ret == 0, "seccomp_export_bpf: {ret}");
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        let halves = |b: &[u8]| u16::from_ne_bytes([b[0], b[1]]);
        let instruction = |b: &[u8]| sock_filter {
            code: halves(b),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        };
        Ok(bytes.chunks_exact(8).map(instruction).collect())
    }
}

impl Drop for Builder<'_> {
    fn drop(&mut self) {
        // SAFETY: a live context, not used again.
        unsafe { (self.library.release)(self.context) }
    }
}
