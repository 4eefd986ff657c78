//! `clock_gettime` in the place of musl's, which at its first call looks for the kernel's own in the vDSO: 20 us, most of it page
//! faults, for what a command that lives a millisecond asks twice.

/// The C library's.
///
/// # Safety
/// POSIX clock_gettime: a timespec can be written at `time`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int }
}
