//! The only module with `unsafe`: raw kernel calls in, [`Errno`] out, one wrapper a call.
//!
//! What `nix` wraps safely is called there directly; here stand the calls it lacks and those that need more than a
//! plain wrapper. A wrapper never interprets: it forces close-on-exec and turns the return value into a `Result`.
//! Nothing here allocates unless its doc says so, because most of it runs between clone and exec.
#![allow(unsafe_code)]

pub mod alloc;
pub mod bpf;
pub mod seccomp;

pub use nix::errno::Errno;

/// What every wrapper returns.
pub type Result<T> = std::result::Result<T, Errno>;

/// Turns a raw return value into a `Result` with the thread's errno.
pub(crate) fn check(ret: libc::c_long) -> Result<libc::c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}
