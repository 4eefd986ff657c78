//! The container's cgroup, on cgroup v1, on v2 and on the hybrid of both.
//!
//! [`plan`] decides what to make and compiles limits and device rules; [`Plan::create`] makes it; [`Live`] is the
//! cgroup while the init process is being put into it; [`Record`] is what `state.json` keeps of it, and all that later
//! commands need. Who makes the directories is a matter of the driver: this program, or `systemd`. The conversions (`path`, `resources`, `v1`, `v2`, `devices`, `device_program`) make no system
//! calls. A container start must not pay for what it does not use: no mountinfo is read where the usual mount points
//! are there, no controller is touched that no limit needs and that its parent has handed down already.

mod apply;
mod below;
mod create;
pub mod device_program;
pub mod devices;
mod enter;
mod file;
mod freeze;
mod kill;
mod oom;
pub mod path;
pub mod record;
pub mod resources;
pub mod stats;
pub mod systemd;
#[cfg(test)]
mod tests;
mod update;
pub mod v1;
pub mod v2;

pub use create::Live;
pub use enter::Attach;
pub use record::{Hierarchy, Record};
pub use stats::Stats;

use crate::plan::ids::Maps;
use crate::sys::words;
use anyhow::{Context, Result, anyhow, bail};
use devices::Policy;
use nix::errno::Errno;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Mount, Spec};
use path::Place;
use resources::{Limits, Write};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Which hierarchies this host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One hierarchy for each controller or few.
    V1,
    /// v1, and a cgroup2 tree at `/sys/fs/cgroup/unified` which limits nothing but knows its processes.
    Hybrid,
    /// One tree.
    V2,
}

impl Version {
    /// Asks the filesystem at the usual place.
    pub fn detect() -> Version {
        if is_mounted(file::ROOT, CGROUP2_SUPER_MAGIC) {
            Version::V2
        } else if is_mounted(&format!("{}/{UNIFIED}", file::ROOT), CGROUP2_SUPER_MAGIC) {
            Version::Hybrid
        } else {
            Version::V1
        }
    }
}

/// Who makes the cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// This program.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
}

/// What the command line and the rest of the configuration add to `linux`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// `--systemd-cgroup`.
    pub driver: Driver,
    /// `--rootless`: go without a cgroup where there is no permission and nothing asks for one. None: in a user namespace.
    pub rootless: Option<bool>,
    /// Host uid that is to own the cgroup: that of the container's process, if it has a cgroup namespace of its own
    /// and a writable cgroup mount at `/sys/fs/cgroup` (config-linux.md "Cgroup ownership").
    pub owner: Option<u32>,
    /// `annotations`: some are properties for systemd.
    pub annotations: Option<&'a HashMap<String, String>>,
}

impl Options<'_> {
    /// Asked only when something has failed: it takes system calls.
    fn rootless(&self) -> bool {
        self.rootless.unwrap_or_else(|| !crate::sys::process::is_root() || in_user_namespace())
    }
}

/// Is this process in another user namespace than the initial one, which maps every id to itself, in one line?
pub fn in_user_namespace() -> bool {
    let map = file::read_value(file::ABSOLUTE, "/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The directory of the hybrid's cgroup2 tree.
const UNIFIED: &str = "unified";

/// Everything about a container's cgroup that is known before it is made.
pub struct Plan {
    record: Record,
    writes: Vec<Write>,
    devices: Policy,
    program: Vec<crate::sys::bpf::Insn>,
    options: Options<'static>,
    /// The systemd driver: the unit to make.
    unit: Option<systemd::Wanted>,
    /// `cgroupsPath` is set: to do without a cgroup is no option.
    explicit_path: bool,
    warnings: Vec<String>,
}

/// Decides where the container's cgroup is and what is written to it. Reads the runtime's own membership if it
/// matters; changes nothing. Errors name the field of the configuration.
pub fn plan(linux: &Linux, id: &str, options: Options) -> Result<Plan> {
    let cgroups_path = match linux.cgroups_path() {
        Some(path) => Some(path.to_str().context("/linux/cgroupsPath: is not UTF-8")?),
        None => None,
    };
    let version = Version::detect();
    let mut unit = None;
    let place = match options.driver {
        Driver::Cgroupfs => path::place(cgroups_path, id)?,
        Driver::Systemd => {
            let (wanted, path) = systemd::plan(cgroups_path, id, version, &options)?;
            unit = Some(wanted);
            Place::Root(path)
        }
    };
    let hierarchies = match version {
        Version::V2 => vec![unified_hierarchy(&place)?],
        Version::V1 | Version::Hybrid => hierarchies(&place, version, options)?,
    };

    let mut warnings = Vec::new();
    let mut limits = Limits::default();
    let mut writes = Vec::new();
    if let Some(resources) = linux.resources() {
        let rounded = resources::rounded(resources, &limits, options.driver);
        let in_force = limits.with(&rounded)?;
        limits = limits.with(resources)?;
        writes = match version {
            Version::V2 => v2::writes(&rounded, &in_force, &mut warnings)?,
            Version::V1 | Version::Hybrid => v1::writes(&rounded, &in_force, &mut warnings)?,
        };
        if options.driver == Driver::Systemd && version == Version::V2 {
            systemd::properties::settle_weight(&mut writes, false, &mut warnings);
        }
    }
    let devices = Policy::of(linux)?;
    if let Some(unit) = &mut unit {
        unit.limit(linux.resources().as_ref(), &limits, &devices)?;
    }
    let program = if version == Version::V2 { device_program::compile(&devices)? } else { Vec::new() };
    Ok(Plan {
        record: Record {
            version,
            driver: options.driver,
            unit: unit.as_ref().map(|wanted| wanted.unit.clone()),
            hierarchies,
            limits,
            made: Vec::new(),
        },
        writes,
        devices,
        program,
        options: Options {
            driver: options.driver,
            rootless: options.rootless,
            owner: options.owner,
            annotations: None,
        },
        unit,
        explicit_path: cgroups_path.is_some_and(|path| !path.is_empty()),
        warnings,
    })
}

impl Plan {
    /// What to keep in the state, before [`Plan::create`], so that a crash leaves nothing that cannot be found.
    pub fn record(&self) -> Record {
        self.record.clone()
    }

    /// Fields that are accepted and have no effect.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn is_mounted(path: &str, magic: FsType) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == magic)
}

fn own_memberships() -> Result<String> {
    file::read_value(file::ABSOLUTE, "/proc/self/cgroup")
        .map_err(|errno| anyhow!("read /proc/self/cgroup: {}", words(errno)))
}

fn unified_hierarchy(place: &Place) -> Result<Hierarchy> {
    // An absolute path spares the look at where the runtime is.
    let path = match place {
        Place::Root(path) => path.clone(),
        Place::Own(_) => path::unified(place, path::own_unified(&own_memberships()?)?),
    };
    Ok(Hierarchy { controllers: String::new(), mount: file::ROOT.into(), path })
}

/// The hierarchies of cgroup v1 that the runtime itself is in and that are mounted.
fn hierarchies(place: &Place, version: Version, options: Options) -> Result<Vec<Hierarchy>> {
    let memberships = own_memberships()?;
    let mut mountinfo = None;
    let mut all = Vec::new();
    for one in path::memberships(&memberships) {
        let name = match one.controllers {
            "" if version == Version::Hybrid => UNIFIED,
            "" => continue,
            "name=systemd" => "systemd",
            // Other named hierarchies belong to who made them.
            named if named.starts_with("name=") => continue,
            controllers => controllers,
        };
        let mount = format!("{}/{name}", file::ROOT);
        let usual = one.controllers.is_empty() || is_mounted(&mount, CGROUP_SUPER_MAGIC);
        let path = path::hierarchy(place, one.path);
        // Inside a container without a cgroup namespace, the own path begins above what is mounted.
        let within = matches!(place, Place::Root(_))
            || one.path == "/"
            || file::open_dir(file::ABSOLUTE, &format!("{mount}{}", one.path)).is_ok();
        let hierarchy = if usual && within {
            Hierarchy { controllers: one.controllers.into(), mount, path }
        } else {
            let text = match &mountinfo {
                Some(text) => text,
                None => mountinfo.insert(read_mountinfo()?),
            };
            let Some(found) = path::find_mount(text, one.controllers) else { continue };
            let own = one.path.strip_prefix(found.root.trim_end_matches('/')).unwrap_or("/");
            Hierarchy {
                controllers: one.controllers.into(),
                mount: found.point,
                path: path::hierarchy(place, own),
            }
        };
        all.push(hierarchy);
    }
    if !all.iter().any(|one| one.has("devices")) && !options.rootless() {
        bail!("cgroup v1 has no devices hierarchy: the container's devices could not be limited");
    }
    Ok(all)
}

/// Where the runtime itself is.
fn own_hierarchies(version: Version) -> Result<Vec<Hierarchy>> {
    hierarchies(&Place::Own(String::new()), version, Options { rootless: Some(true), ..Options::default() })
}

fn read_mountinfo() -> Result<String> {
    file::read_all(file::ABSOLUTE, "/proc/self/mountinfo")
        .map_err(|errno: Errno| anyhow!("read /proc/self/mountinfo: {}", words(errno)))
}

/// The host uid that is to own the container's cgroup on v2: that of its process, if it has a cgroup namespace of its own
/// and a writable cgroup mount at `/sys/fs/cgroup` (config-linux.md, "Cgroup ownership"). None where it is ours anyway.
pub fn owner(spec: &Spec, maps: &Maps) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let new = |namespace: &LinuxNamespace| {
        namespace.typ() == LinuxNamespaceType::Cgroup
            && namespace.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())
    };
    let writable = |mount: &Mount| {
        let cgroup = matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"));
        let last = mount.options().iter().flatten().rfind(|option| matches!(option.as_str(), "ro" | "rw"));
        cgroup
            && path::clean(&mount.destination().to_string_lossy()) == file::ROOT.trim_start_matches('/')
            && last.is_none_or(|option| option == "rw")
    };
    if !linux.namespaces().iter().flatten().any(new) || !spec.mounts().iter().flatten().any(writable) {
        return None;
    }
    let uid = spec.process().as_ref()?.user().uid();
    let host = if maps.is_empty() { uid } else { crate::plan::ids::outside(&maps.uids, uid)? };
    Some(host).filter(|&host| host != nix::unistd::geteuid().as_raw())
}
