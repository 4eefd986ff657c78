//! `update`: new limits for a container that exists.

use super::apply;
use super::create::Open;
use super::record::Record;
use super::resources::{Limits, asked};
use super::{Version, file, v1, v2};
use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxMemory, LinuxResources};

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
        let limits = in_force(self.limits, resources).with(resources)?;
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

/// The limits that the new ones are to be read with. Where memory is to have none and swap is not named, the old limit of
/// swap goes too: the kernel of v1 would not let the one be lifted above the other, and runc does the same on v2.
fn in_force(old: Limits, resources: &LinuxResources) -> Limits {
    let lifts = |memory: &LinuxMemory| memory.limit() == Some(-1) && asked(memory.swap()).is_none();
    if resources.memory().as_ref().is_some_and(lifts) { Limits { swap: 0, ..old } } else { old }
}

#[cfg(test)]
mod tests {
    use super::super::resources::tests::resources;
    use super::*;

    #[test]
    fn no_limit_on_memory_takes_that_on_swap_away() {
        let old = Limits { memory: 100, swap: 200, quota: 50, period: 1000 };
        for (text, swap) in [
            (r#"{"memory":{"limit":-1}}"#, 0),
            (r#"{"memory":{"limit":-1,"swap":0}}"#, 0),
            (r#"{"memory":{"limit":-1,"swap":-1}}"#, 200),
            (r#"{"memory":{"limit":150}}"#, 200),
            ("{}", 200),
        ] {
            assert_eq!(in_force(old, &resources(text)), Limits { swap, ..old }, "{text}");
        }
    }
}
