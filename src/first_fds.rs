//! Which descriptors the caller handed over: seen as the first act of `main`, before naru opens any of its own.

use crate::sys::fs;
use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};

/// One bit for each of the first 64 descriptors.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// Marks everything beyond 0, 1, 2 close-on-exec, and notes which of the first 64 are open if anybody will ask:
/// with `--preserve-fds` or socket activation. The program gets descriptors by their numbers, so those between are taken
/// until it runs: none of naru's own may be born there.
pub fn take_stock(argv: &[OsString]) -> crate::sys::Result<()> {
    let preserved = argv.iter().any(|word| word.as_encoded_bytes().starts_with(b"--preserve-fds"))
        || argv.iter().any(|word| word.as_encoded_bytes().starts_with(b"-preserve-fds"));
    if preserved || std::env::var_os("LISTEN_FDS").is_some() {
        let open = (3..64).filter(|&fd| fs::is_open(fd)).fold(0u64, |bits, fd| bits | 1 << fd);
        OPEN.store(open, Ordering::Relaxed);
        let last = 63 - open.leading_zeros() as i32;
        (3..last).filter(|&fd| open >> fd & 1 == 0).try_for_each(|fd| fs::duplicate_to(last, fd))?;
    }
    fs::cloexec_from(3)
}

/// Gives the inherited descriptors back to a second start of this program.
pub fn hand_on() -> crate::sys::Result<()> {
    let open = OPEN.load(Ordering::Relaxed);
    (3..64).filter(|&fd| open >> fd & 1 == 1).try_for_each(fs::keep_across_exec)
}

/// Was this descriptor open when naru started? Beyond 63 the present tells.
pub fn was_open(fd: i32) -> bool {
    if fd < 64 { OPEN.load(Ordering::Relaxed) >> fd & 1 == 1 } else { fs::is_open(fd) }
}
