//! The registry: one file for each group of behaviour. A test is a function over `Cx`; its name is `group/function`.

use crate::cx::Cx;
use anyhow::Result;

mod annotations;
mod binds;
mod cgroups;
mod checkpoint;
mod checkpoint_flags;
mod cli;
mod compare_with;
pub mod configs;
mod credentials;
mod destinations;
mod devices;
#[cfg(test)]
mod documented;
mod errors;
mod events;
mod exec;
mod exec_process;
mod exhausted;
mod flags;
mod frozen;
mod hooks;
mod idmapped;
mod intel_rdt;
mod kernel;
mod kill;
mod labels;
mod lifecycle;
mod load;
mod log;
mod mount_options;
mod mounts;
mod mounts_in_user_namespaces;
mod namespaces;
mod net_devices;
mod notify;
mod own_binary;
mod paths;
mod pause;
mod process;
mod relay;
mod resources;
mod root;
mod rootless;
mod scheduling;
mod seccomp;
mod seccomp_agent;
mod state;
mod stdio;
mod stopped;
mod systemd;
mod terminal;
mod update;
mod user_namespaces;
mod wrong_values;

/// One registered test.
#[derive(Clone)]
pub struct Test {
    /// `group/function`.
    pub name: &'static str,
    /// The test.
    pub run: fn(&Cx) -> Result<()>,
    /// Deadline of the whole test in milliseconds.
    pub limit_ms: u64,
    /// Runtimes known to fail it and why: their failure counts as passed.
    pub deviates: &'static [(&'static str, &'static str)],
}

/// Who fails nearly all of a group for one reason: the beginning of the tests' names, the runtime, the reason.
const GROUPS: &[(&str, &str, &str)] =
    &[("checkpoint/", "crun", "CRIU finds no mapping for a mount of the restored one; words of its own")];

impl Test {
    /// Why this runtime is known to fail the test.
    pub fn deviation(&self, kind: &str) -> Option<&'static str> {
        let own = self.deviates.iter().find(|(peer, _)| *peer == kind).map(|(_, why)| *why);
        let groups = || GROUPS.iter().find(|(group, peer, _)| self.name.starts_with(group) && *peer == kind);
        own.or_else(|| groups().map(|(_, _, why)| *why))
    }
}

/// Lists the tests of a file: `tests!["group": first, second deviates ["runc" = "why"], ...]`.
macro_rules! tests {
    ($group:literal: $($name:ident $(deviates [$($peer:literal = $why:literal),+ $(,)?])?),+ $(,)?) => {
        /// The tests of this file.
        pub const TESTS: &[$crate::tests::Test] = &[$(
            $crate::tests::Test {
                name: concat!($group, "/", stringify!($name)),
                run: $name,
                limit_ms: 30_000,
                deviates: &[$($(($peer, $why)),+)?],
            },
        )+];
    };
}
pub(crate) use tests;

/// Every test, in the order of a container's life.
pub fn all() -> Vec<Test> {
    [
        cli::TESTS,
        lifecycle::TESTS,
        state::TESTS,
        kill::TESTS,
        errors::TESTS,
        log::TESTS,
        hooks::TESTS,
        exec::TESTS,
        exec_process::TESTS,
        flags::TESTS,
        terminal::TESTS,
        stdio::TESTS,
        relay::TESTS,
        notify::TESTS,
        process::TESTS,
        credentials::TESTS,
        kernel::TESTS,
        scheduling::TESTS,
        labels::TESTS,
        namespaces::TESTS,
        user_namespaces::TESTS,
        rootless::TESTS,
        net_devices::TESTS,
        mounts::TESTS,
        mount_options::TESTS,
        idmapped::TESTS,
        mounts_in_user_namespaces::TESTS,
        binds::TESTS,
        destinations::TESTS,
        root::TESTS,
        devices::TESTS,
        paths::TESTS,
        seccomp::TESTS,
        seccomp_agent::TESTS,
        own_binary::TESTS,
        cgroups::TESTS,
        resources::TESTS,
        intel_rdt::TESTS,
        pause::TESTS,
        frozen::TESTS,
        update::TESTS,
        events::TESTS,
        annotations::TESTS,
        wrong_values::TESTS,
        checkpoint::TESTS,
        checkpoint_flags::TESTS,
        systemd::TESTS,
        stopped::TESTS,
        exhausted::TESTS,
        load::TESTS,
        configs::TESTS,
        compare_with::TESTS,
    ]
    .concat()
}
