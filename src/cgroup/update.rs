//! `update`: new limits for a container that exists.

use super::apply;
use super::create::Open;
use super::record::Record;
use super::{Version, file, v1, v2};
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
        let writes = match self.version {
            Version::V2 => v2::writes(resources, &limits, &mut warnings)?,
            Version::V1 | Version::Hybrid => v1::writes(resources, &limits, &mut warnings)?,
        };
        if !writes.is_empty() {
            self.main()?;
        }
        self.check_usage(resources)?;
        let changed = Record { limits, ..self.clone() };
        apply::apply_or_undo(&Open::new(self, &writes), &writes, || store(&changed))?;
        *self = changed;
        Ok(warnings)
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
