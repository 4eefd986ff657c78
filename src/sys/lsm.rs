//! Attributes of this process in a security module, without procfs.

use super::{Result, check};

/// `LSM_ID_SELINUX`, linux/lsm.h.
pub const SELINUX: u64 = 101;
/// `LSM_ID_APPARMOR`.
pub const APPARMOR: u64 = 104;
/// `LSM_ATTR_EXEC`: what the next execve gives.
pub const EXEC: u32 = 101;
/// `LSM_ATTR_KEYCREATE`: what new keys get.
pub const KEY_CREATE: u32 = 103;

/// lsm_set_self_attr(2), Linux 6.8. `EOPNOTSUPP` where the module is not in force.
pub fn set_self(module: u64, attribute: u32, value: &[u8]) -> Result<()> {
    const SYS_LSM_SET_SELF_ATTR: libc::c_long = 460;
    const HEAD: usize = 32;
    // struct lsm_ctx: id, flags, length of all, length of the value, the value.
    let size = HEAD + value.len();
    let mut context = vec![0u64; size.div_ceil(8)];
    context[..4].copy_from_slice(&[module, 0, size as u64, value.len() as u64]);
    for (word, bytes) in context[4..].iter_mut().zip(value.chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(padded);
    }
    // SAFETY: `context` is valid for reads of `size` bytes, which its own field says, too.
    check(unsafe {
        libc::syscall(SYS_LSM_SET_SELF_ATTR, attribute, context.as_ptr(), size as u32, 0 as libc::c_uint)
    })
    .map(drop)
}
