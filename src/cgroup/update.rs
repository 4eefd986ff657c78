//! `update`: new limits for a container that exists.

use super::apply;
use super::create::Open;
use super::record::Record;
use super::resources::Limits;
use super::systemd::properties::{keep_period, of_resources, settle_weight};
use super::{Version, file, resources, v1, v2};
use anyhow::{Result, bail};
use oci_spec::runtime::LinuxResources;

impl Record {
    /// Sets the limits that `resources` names and leaves all others, and the device rules, alone: other parties change
    /// those after create. `store` is told the changed record once they are in force, and may refuse it. On an error
    /// the old values are back in place. Returns what has no effect.
    pub fn update(
        &mut self,
        resources: &LinuxResources,
        store: impl FnOnce(&Record) -> Result<()>,
    ) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let limits = self.limits.with(resources)?;
        let resources = &*resources::rounded(resources, &self.limits, self.driver);
        let in_force = self.limits.with(resources)?;
        let mut writes = match self.version {
            Version::V2 => v2::writes(resources, &in_force, &mut warnings)?,
            Version::V1 | Version::Hybrid => v1::writes(resources, &in_force, &mut warnings)?,
        };
        if self.unit.is_some() && self.version == Version::V2 {
            settle_weight(&mut writes, true, &mut warnings);
        } else if self.unit.is_some() {
            keep_period(&mut writes, &in_force);
        }
        if !writes.is_empty() {
            self.main()?;
        }
        self.check_usage(resources)?;
        let changed = Record { limits, ..self.clone() };
        let open = Open::new(self, &writes);
        apply::apply_or_undo(&open, &writes, || {
            // What the files take, systemd takes. It then writes them itself, in its own way, hence once more.
            if self.tell_systemd(resources, &in_force)? {
                apply::apply(&open, &writes)?;
            }
            store(&changed)
        })?;
        *self = changed;
        Ok(warnings)
    }

    /// Has systemd keep the limits in force. False: it has no part in this container.
    fn tell_systemd(&self, resources: &LinuxResources, limits: &Limits) -> Result<bool> {
        let Some(unit) = &self.unit else { return Ok(false) };
        let (mut bus, host) = unit.connect(self.version)?;
        let properties = of_resources(resources, limits, host)?;
        // On v1 systemd writes the device rules anew with any property: first none, then all. A container that runs would
        // meet refusals.
        let freeze = self.version != Version::V2
            && !properties.is_empty()
            && self.hierarchy("freezer").is_some()
            && unit.has_device_rules(&mut bus)
            && !self.is_frozen()?;
        if freeze {
            self.freeze()?;
        }
        let set = unit.set(&mut bus, properties);
        if freeze { self.thaw().and(set) } else { set }.map(|()| true)
    }

    /// `checkBeforeUpdate`: v2 would make room by killing, where v1 refuses by itself.
    fn check_usage(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory() else { return Ok(()) };
        if self.version != Version::V2 || memory.check_before_update() != Some(true) {
            return Ok(());
        }
        let Some(hierarchy) = self.hierarchy("memory") else { return Ok(()) };
        let usage = file::read_value(file::ABSOLUTE, &format!("{}/memory.current", hierarchy.dir()));
        // Without accounting there is nothing to compare with, and the limit itself will fail.
        let Some(usage) = usage.ok().and_then(|usage| usage.parse::<i64>().ok()) else { return Ok(()) };
        for (field, what, limit) in
            [("swap", "memory+swap", memory.swap()), ("limit", "memory", memory.limit())]
        {
            if let Some(limit) = limit
                && limit > 0
                && limit <= usage
            {
                bail!("/linux/resources/memory/{field}: rejecting {what} limit {limit} <= usage {usage}");
            }
        }
        Ok(())
    }
}
