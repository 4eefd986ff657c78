//! config.json as text → specification → plan, cgroup limits, device program, properties of a unit.

use super::{devices, names_field, quiet, resources};
use crate::cgroup::systemd::text;
use crate::plan::{self, Options};
use crate::sync::Failure;
use crate::{bundle, cgroup, interpret, notify};
use nix::errno::Errno;
use oci_spec::runtime::Spec;
use std::path::{Component, Path};

pub fn run(data: &[u8]) {
    quiet();
    match bundle::parse_config(Path::new("config.json"), data) {
        Ok(spec) => {
            if let Some((rest, range)) = bundle::parse_without_seccomp(data) {
                assert_eq!(rest.process(), spec.process());
                let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
                assert_eq!(serde_json::from_slice(&data[range]).ok().as_ref(), profile);
            }
            whole(*spec);
        }
        Err(error) => {
            let text = format!("{error:#}");
            let named = ["config.json: ", "/ociVersion: ", "/process/ioPriority/class: "];
            assert!(named.iter().any(|start| text.starts_with(start)), "neither file nor field: {text}");
        }
    }
}

/// Everything that is made of a configuration without a system call.
pub fn whole(mut spec: Spec) {
    let bundle = Path::new("/bundle");
    let rootfs = Path::new("/bundle/rootfs");
    for options in [
        Options::default(),
        Options { no_pivot: true, no_new_keyring: true, listen_fds: 3, unprivileged: true },
    ] {
        match plan::compile(&spec, "c1", bundle, rootfs, options) {
            Ok(plan) => check(&plan, &spec),
            Err(error) => names_field(&error),
        }
    }
    if let Some(linux) = spec.linux() {
        match linux.seccomp().as_ref().map(plan::seccomp::compile) {
            Some(Err(error)) => names_field(&error),
            Some(Ok(Some(filter))) => {
                assert!(interpret::check(&filter.program), "the kernel would refuse the filter");
            }
            _ => {}
        }
        if let Some(all) = linux.resources() {
            resources::convert(all, &Default::default());
        }
        devices::convert(linux);
        if let Some(path) = linux.cgroups_path().as_ref().and_then(|path| path.to_str()) {
            match cgroup::path::place(Some(path), "c1") {
                Ok(cgroup::path::Place::Root(path) | cgroup::path::Place::Own(path)) => {
                    assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path}");
                }
                Err(error) => names_field(&error),
            }
        }
    }
    if let Some(annotations) = spec.annotations() {
        match text::properties(annotations) {
            Ok(all) => super::text::check(all),
            Err(error) => names_field(&error),
        }
    }
    notify::add_to(&mut spec, Path::new("/run/naru/c1")).expect("a mount and a variable can be added");
}

fn check(plan: &plan::Plan, spec: &Spec) {
    let mut order = plan.mount_order.clone();
    order.sort_unstable();
    assert!(order.into_iter().eq(0..plan.mounts.len()), "each mount once");
    for mount in &plan.mounts {
        let destination = mount.destination.to_str().expect("text as in the configuration");
        let path = Path::new(destination);
        assert!(path.is_absolute() && path != Path::new("/"), "{destination}");
        assert!(path.components().all(|part| part != Component::ParentDir), "{destination}");
    }
    let maps = &plan.maps;
    cgroup::owner(spec, maps);
    // Whatever the init stage reports, there are words for it.
    for byte in 0..=u8::MAX {
        let frame = [5, byte, 1, 0, 13, 0, 0, 0];
        if let Some(crate::sync::Frame::Failed(failure)) = crate::sync::decode(&frame) {
            for index in [0, 1, usize::MAX] {
                let failure =
                    Failure { step: failure.step, index, errno: Errno::EACCES, text: String::new() };
                assert!(!format!("{:#}", crate::explain::failure(&failure, plan)).is_empty());
            }
        }
    }
}
