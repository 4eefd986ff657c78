//! The program's first and last steps, in place of Rust's own start-up.

#[cfg(not(test))]
use super::fs;
use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

static ARGV: AtomicPtr<*const libc::c_char> = AtomicPtr::new(std::ptr::null_mut());
static ARGC: AtomicUsize = AtomicUsize::new(0);

/// What the C library calls.
#[cfg(not(any(test, fuzzing)))]
#[unsafe(no_mangle)]
extern "C" fn main(argc: libc::c_int, argv: *const *const libc::c_char) -> libc::c_int {
    ARGC.store(argc.max(0) as usize, Ordering::Relaxed);
    ARGV.store(argv.cast_mut(), Ordering::Relaxed);
    super::layout::populate_memory();
    if open_missing_stdio().is_err() {
        return 1;
    }
    // A pipe that nobody reads is an error of write(2) here, not the end of the runtime. A handler and not SIG_IGN, which an
    // execve would hand on: where the container's filter is in force, no call may be left to take it back.
    let handler = do_nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does nothing, so it may run anywhere.
    unsafe { libc::signal(libc::SIGPIPE, handler) };
    // Ignored, as a caller may hand it on, the kernel would reap children itself: nobody could wait for them.
    // SAFETY: the default of this signal is to do nothing.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let code = crate::run_main(&args());
    // SAFETY: nothing is buffered, and no destructor has anything to do that the end of the process does not.
    unsafe { libc::_exit(code.0.into()) }
}

#[cfg(not(any(test, fuzzing)))]
extern "C" fn do_nothing(_: libc::c_int) {}

/// The arguments, the program's name first.
pub fn args() -> Vec<OsString> {
    let argv = ARGV.load(Ordering::Relaxed);
    if argv.is_null() {
        return std::env::args_os().collect();
    }
    (0..ARGC.load(Ordering::Relaxed))
        .map(|at| {
            // SAFETY: the kernel put `argc` pointers to NUL-terminated strings there, which stay for the whole run.
            let arg = unsafe { CStr::from_ptr(*argv.add(at)) };
            OsString::from_vec(arg.to_bytes().to_vec())
        })
        .collect()
}

/// A caller may start us with 0, 1 or 2 closed; what is opened next would take that number and be written to as if it
/// were the stream.
#[cfg(not(test))]
fn open_missing_stdio() -> super::Result<()> {
    for number in 0..=2 {
        if !fs::is_open(number) {
            // The lowest free number is this one. It stays open for the whole run.
            std::mem::forget(fs::open_inheritable(c"/dev/null", libc::O_RDWR)?);
        }
    }
    Ok(())
}
