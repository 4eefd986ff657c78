//! The only module with `unsafe`: raw kernel calls in, [`Errno`] out, one wrapper a call.
//!
//! What `nix` wraps safely is called there directly; here stand the calls it lacks and those that need more than a
//! plain wrapper. A wrapper forces close-on-exec and turns the return value into a `Result`; a few go another way where a
//! call is missing, and say so. What `ahead` calls uses neither errno nor the heap.
#![allow(unsafe_code)]

pub mod ahead;
pub mod alloc;
pub mod bpf;
#[cfg(all(target_env = "musl", not(any(test, fuzzing))))]
mod clock;
pub mod exe;
pub mod fs;
pub mod key;
pub mod layout;
mod lookup;
pub mod lsm;
#[cfg(all(target_arch = "x86_64", target_env = "musl"))]
mod memory;
pub mod mount;
pub mod net;
pub mod process;
mod raw;
pub mod seccomp;
pub mod socket;
pub mod start;
pub mod tty;

pub use nix::errno::Errno;

/// What every wrapper returns.
pub type Result<T> = std::result::Result<T, Errno>;

/// Turns a raw return value into a `Result` with the thread's errno.
pub(crate) fn check(ret: libc::c_long) -> Result<libc::c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}

/// As often as this a call is made again that a signal has interrupted. A filter, around this program or the container's own, may
/// answer `EINTR` for ever.
const INTERRUPTIONS: u32 = 10_000;

/// Makes a call until no signal interrupts it.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..INTERRUPTIONS {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
    Err(Errno::EINTR)
}

/// The errno in the words that engines match: runc's (Go's) texts are strerror's in lower case, for example
/// `no such file or directory` and `permission denied`.
pub fn words(errno: Errno) -> String {
    let text = match errno {
        // An old kernel, or a filter around us: the words that follow help, those before are what engines know.
        Errno::ENOSYS => {
            "function not implemented (Linux 5.14 is needed, and no filter that hides its calls)"
        }
        Errno::ERANGE => "numerical result out of range",
        Errno::EOPNOTSUPP => "operation not supported",
        _ => errno.desc(),
    };
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_string(),
    }
}

/// A signal in words, as Go prints it: `bad system call`.
pub fn signal_words(signal: i32) -> String {
    if signal == libc::SIGFPE {
        return "floating point exception".into();
    }
    // SAFETY: the C library answers any number with a string that it never changes.
    let text = unsafe { std::ffi::CStr::from_ptr(libc::strsignal(signal)) };
    text.to_string_lossy().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_call_is_made_again_but_not_for_ever() {
        let mut calls = 0;
        let mut answer = |interruptions: u32| {
            calls = 0;
            let result = uninterrupted(|| {
                calls += 1;
                if calls > interruptions { Ok(()) } else { Err(Errno::EINTR) }
            });
            (result, calls)
        };
        assert_eq!(answer(0), (Ok(()), 1));
        assert_eq!(answer(3), (Ok(()), 4));
        assert_eq!(answer(u32::MAX), (Err(Errno::EINTR), INTERRUPTIONS));
        assert_eq!(uninterrupted(|| Err::<(), _>(Errno::EIO)), Err(Errno::EIO));
    }

    #[test]
    fn errno_words_are_those_engines_match() {
        assert_eq!(words(Errno::ENOENT), "no such file or directory");
        assert_eq!(words(Errno::EACCES), "permission denied");
        assert_eq!(words(Errno::EPERM), "operation not permitted");
        assert_eq!(words(Errno::EISDIR), "is a directory");
        assert_eq!(words(Errno::ESRCH), "no such process");
        assert_eq!(words(Errno::EIO), "I/O error");
        for (signal, words) in [
            (libc::SIGKILL, "killed"),
            (libc::SIGSYS, "bad system call"),
            (libc::SIGSEGV, "segmentation fault"),
            (libc::SIGFPE, "floating point exception"),
        ] {
            assert_eq!(signal_words(signal), words);
        }
    }
}
