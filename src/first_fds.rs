//! Which descriptors the caller handed over: seen as the first act of `main`, before naru opens any of its own.

use crate::sys::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// One bit for each of the first 64 descriptors.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// Marks everything beyond 0, 1, 2 close-on-exec, and notes which of the first 64 are open when `note` is set: only
/// commands that start a program with `--preserve-fds` or socket activation need to know.
pub fn take_stock(note: bool) -> crate::sys::Result<()> {
    if note {
        let open = (3..64).filter(|&fd| fs::is_open(fd)).fold(0u64, |bits, fd| bits | 1 << fd);
        OPEN.store(open, Ordering::Relaxed);
    }
    fs::cloexec_from(3)
}

/// Was this descriptor open when naru started? Beyond 63 the present tells.
pub fn was_open(fd: i32) -> bool {
    if fd < 64 { OPEN.load(Ordering::Relaxed) >> fd & 1 == 1 } else { fs::is_open(fd) }
}
