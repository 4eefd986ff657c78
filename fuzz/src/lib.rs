//! naru's own modules, and the fuzz targets for what they read.
//!
//! naru is a program without a library: its modules are compiled here a second time, from the same files. What is in
//! `targets` takes any bytes and must come to an end; a panic there is a finding.
#![allow(dead_code)]

#[path = "../../src"]
mod product {
    pub mod agent;
    pub mod bundle;
    pub mod cgroup;
    pub mod cli;
    pub mod cmd;
    pub mod console;
    pub mod criu;
    pub mod exit;
    pub mod explain;
    pub mod first_fds;
    pub mod hooks;
    pub mod idmap;
    pub mod idmapped;
    pub mod init;
    pub mod json;
    pub mod log;
    pub mod lsm;
    pub mod net;
    pub mod netlink;
    pub mod notify;
    pub mod patience;
    pub mod pid_file;
    pub mod plan;
    pub mod resctrl;
    pub mod signals;
    pub mod spawn;
    pub mod state;
    pub mod sync;
    pub mod sys;
    pub mod time;
}

/// A second interpreter of BPF, which decides what a compiled filter says.
#[path = "../../src/plan/seccomp/interpret.rs"]
// The product's unit tests have it as well.
#[allow(clippy::duplicate_mod)]
mod interpret;
/// libseccomp, where it is installed.
#[path = "../../runtime-tools-tests/seccomp-differential/src/libseccomp.rs"]
#[allow(clippy::undocumented_unsafe_blocks)]
mod libseccomp;

mod input;
pub mod targets;

// The modules call each other by these names.
pub(crate) use product::*;

/// Stands in for the program's own: nothing here prints.
pub(crate) fn print(_text: &str) -> anyhow::Result<exit::ExitCode> {
    Ok(exit::ExitCode::SUCCESS)
}

/// Where the linker has put what; here nowhere.
mod layout {
    #[unsafe(no_mangle)]
    static naru_init_start: u8 = 0;
    #[unsafe(no_mangle)]
    static naru_init_end: u8 = 0;
    #[unsafe(no_mangle)]
    static naru_parent_end: u8 = 0;
}
