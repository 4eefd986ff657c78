//! What `state.json` keeps of a container's cgroup: where it is, by hierarchy.
//!
//! Later commands work from this alone: a record outlives the process that made it and may name directories that were
//! never made or are gone, so that "not there" is never an error of its own.

use super::resources::Limits;
use super::systemd::Unit;
use super::{Driver, Version, below};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The container's place in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// As in `/proc/self/cgroup`: `cpu,cpuacct`, `name=systemd`, empty for cgroup2.
    pub controllers: String,
    /// Mount point.
    pub mount: String,
    /// Path below it, without a leading slash.
    pub path: String,
}

impl Hierarchy {
    /// Is this controller one of this hierarchy?
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }

    /// Is this the cgroup2 tree?
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// The container's directory.
    pub fn dir(&self) -> String {
        [&*self.mount, "/", &*self.path].concat()
    }
}

/// Where a container's cgroup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What the host had.
    pub version: Version,
    /// Who made it.
    pub driver: Driver,
    /// The systemd driver: its unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// One entry on v2, one for each hierarchy on v1, none for a rootless container without a cgroup.
    pub hierarchies: Vec<Hierarchy>,
    /// What the next update has to know.
    #[serde(default)]
    pub limits: Limits,
    /// Directories that this process has made, parents first. Not stored: a parent that outlives the command that made
    /// it is left alone like one of somebody else's, because others may have set limits there by then (runc and crun
    /// leave it, too).
    #[serde(skip)]
    pub(super) made: Vec<String>,
}

impl Record {
    /// The hierarchy of a controller: on v2 the only one, which has them all.
    pub fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        match self.version {
            Version::V2 => self.hierarchies.first(),
            _ => self.hierarchies.iter().find(|one| one.has(controller)),
        }
    }

    /// The cgroup2 tree, which the hybrid has beside the others.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|one| one.is_unified())
    }

    /// The hierarchy that tells which processes the container has.
    pub fn main(&self) -> Result<&Hierarchy> {
        match self.hierarchy("devices").or(self.hierarchies.first()) {
            Some(hierarchy) => Ok(hierarchy),
            None => bail!("container has no cgroup (rootless: delegate a cgroup v2 tree to the user)"),
        }
    }

    /// All processes of the container, those of its sub-cgroups included, in the caller's pid namespace.
    pub fn procs(&self) -> Result<Vec<i32>> {
        let (pids, all) = below::procs(&self.main()?.dir());
        all.map(|()| pids)
    }
}
