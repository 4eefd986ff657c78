//! Which descriptors the caller handed over: seen as the first act of `main`, before naru opens any of its own.

use crate::sys::fs;
use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many descriptors there is a bit for: more cannot be handed on.
pub const MOST: i32 = 1024;

/// One bit for each of them.
static OPEN: [AtomicU64; MOST as usize / 64] = [const { AtomicU64::new(0) }; MOST as usize / 64];

/// Marks everything beyond 0, 1, 2 close-on-exec, and notes which are open if anybody will ask: with `--preserve-fds` or socket
/// activation. The program gets descriptors by their numbers, so those between are taken until it runs: few of naru's own are
/// born there, and none of those is handed on.
pub fn take_stock(argv: &[OsString]) -> crate::sys::Result<()> {
    let preserved = argv.iter().any(|word| word.as_encoded_bytes().starts_with(b"--preserve-fds"))
        || argv.iter().any(|word| word.as_encoded_bytes().starts_with(b"-preserve-fds"));
    if preserved || std::env::var_os("LISTEN_FDS").is_some() {
        for fd in (3..MOST).filter(|&fd| fs::is_open(fd)) {
            OPEN[fd as usize / 64].fetch_or(1 << (fd % 64), Ordering::Relaxed);
        }
        let last = 63 - OPEN[0].load(Ordering::Relaxed).leading_zeros() as i32;
        (3..last).filter(|&fd| !was_open(fd)).try_for_each(|fd| fs::duplicate_to(last, fd))?;
    }
    fs::cloexec_from(3)
}

/// Gives the inherited descriptors back to a second start of this program.
pub fn hand_on() -> crate::sys::Result<()> {
    (3..MOST).filter(|&fd| was_open(fd)).try_for_each(fs::keep_across_exec)
}

/// Was this descriptor open when naru started?
pub fn was_open(fd: i32) -> bool {
    let word = usize::try_from(fd / 64).ok().and_then(|at| OPEN.get(at));
    word.is_some_and(|word| word.load(Ordering::Relaxed) >> (fd % 64) & 1 == 1)
}
