//! `linux.resources`, also as `update` reads it → limits, writes for both versions of cgroups, properties of a unit.

use super::names_field;
use crate::cgroup::resources::{Limits, rounded};
use crate::cgroup::systemd::properties::{self, Host};
use crate::cgroup::{Driver, Version, v1, v2};
use crate::cmd::update::parse_resources;
use oci_spec::runtime::LinuxResources;

pub fn run(data: &[u8]) {
    super::quiet();
    // The limits that an update finds in the state, and its own.
    let (old, new) = match data.iter().position(|&byte| byte == 0) {
        Some(at) => (serde_json::from_slice(&data[..at]).unwrap_or_default(), &data[at + 1..]),
        None => (Limits::default(), data),
    };
    if let Ok(resources) = parse_resources(new) {
        convert(&resources, &old);
    }
}

/// As `cgroup::plan` and `Record::update` do it, for every host.
pub fn convert(resources: &LinuxResources, old: &Limits) {
    let mut warnings = Vec::new();
    for driver in [Driver::Cgroupfs, Driver::Systemd] {
        let exact = resources;
        let resources = &*rounded(exact, old, driver);
        let limits = match old.with(resources).and_then(|limits| Ok((limits, old.with(exact)?))) {
            Ok((limits, _)) => limits,
            Err(error) => {
                names_field(&error);
                continue;
            }
        };
        for writes in
            [v1::writes(resources, &limits, &mut warnings), v2::writes(resources, &limits, &mut warnings)]
        {
            match writes {
                Ok(writes) => {
                    for write in writes {
                        assert!(!write.file.contains('/') && !write.file.is_empty(), "{write:?}");
                        assert!(!matches!(&*write.file, "." | ".."), "{write:?}");
                        assert!(!write.controller.contains('/'), "{write:?}");
                    }
                }
                Err(error) => names_field(&error),
            }
        }
        for cgroups in [Version::V1, Version::Hybrid, Version::V2] {
            for systemd in [239, 245, 262] {
                let host = Host { cgroups, systemd };
                match properties::of_resources(resources, &limits, host) {
                    Ok(mut all) => {
                        all.extend(properties::oom_policy(resources, host));
                        super::text::check(all);
                    }
                    Err(error) => names_field(&error),
                }
            }
        }
    }
}
