//! What a configuration's resources come down to: an ordered list of file writes, the same form for both versions.
//!
//! Pure. The conversions are in `v1` and `v2`; here is what they share. `apply` carries the list out.

use super::Driver;
use super::systemd::properties::rounded_quota;
use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxBlockIo, LinuxMemory, LinuxResources};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// One value for one file of the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Which controller has the file; empty for files that every cgroup has.
    pub controller: Cow<'static, str>,
    /// File name.
    pub file: Cow<'static, str>,
    /// What to write.
    pub value: String,
    /// JSON pointer below `/linux/resources` of the field that asks for it.
    pub field: Cow<'static, str>,
    /// What it means if the file does not exist.
    pub absent: Absent,
    /// Neighbours in the list whose values the kernel checks against each other.
    pub group: Group,
}

/// What a missing file means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The resource cannot be controlled here: an error.
    Fail,
    /// Nothing would change: the kernel cannot do otherwise.
    Skip,
    /// This file takes this value instead.
    Use(&'static str, String),
}

/// Writes of one group are tried in turn until all are done: the kernel refuses (`EINVAL`) what does not fit the
/// values that the others still have, and which order fits depends on whether they grow or shrink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// None.
    Alone,
    /// Memory limit, memory and swap limit.
    Memory,
    /// Quota, period, burst.
    Time,
    /// Shares or weight, idle: an idle cgroup takes no weight.
    Weight,
    /// Realtime period and runtime.
    Realtime,
}

impl Write {
    /// A plain write that must succeed.
    pub fn new(
        controller: &'static str,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        field: impl Into<Cow<'static, str>>,
    ) -> Write {
        Write {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            field: field.into(),
            absent: Absent::Fail,
            group: Group::Alone,
        }
    }

    /// The same in a group.
    pub fn grouped(self, group: Group) -> Write {
        Write { group, ..self }
    }

    /// The same with another meaning of a missing file.
    pub fn if_absent(self, absent: Absent) -> Write {
        Write { absent, ..self }
    }
}

/// Limits that a later update is to be read with: each is one half of a pair that the kernel takes as one value, or
/// checks as one. 0 is "not set".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `memory.limit` in bytes, -1 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory: i64,
    /// `memory.swap`, memory and swap, in bytes, -1 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub swap: i64,
    /// `cpu.quota` in microseconds, negative for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub quota: i64,
    /// `cpu.period` in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub period: u64,
}

/// The resources as the driver can set them: systemd rounds a quota up, and the files are to hold the same.
pub fn rounded<'a>(resources: &'a LinuxResources, old: &Limits, driver: Driver) -> Cow<'a, LinuxResources> {
    let Some(cpu) = resources.cpu().as_ref().filter(|_| driver == Driver::Systemd) else {
        return Cow::Borrowed(resources);
    };
    let quota = asked(cpu.quota()).or(asked(cpu.period()).and(asked(Some(old.quota))));
    let Some(quota) = quota else { return Cow::Borrowed(resources) };
    let mut changed = resources.clone();
    let mut cpu = cpu.clone();
    cpu.set_quota(Some(rounded_quota(quota, asked(cpu.period()).unwrap_or(old.period))));
    changed.set_cpu(Some(cpu));
    Cow::Owned(changed)
}

/// For serde: is this the value that an absent field has?
pub fn is_zero<T: PartialEq + Default>(value: &T) -> bool {
    *value == T::default()
}

impl Limits {
    /// These limits with those of `resources` in their place where it sets one. Errors name the field.
    pub fn with(self, resources: &LinuxResources) -> Result<Limits> {
        let mut limits = self;
        if let Some(memory) = resources.memory() {
            let set = |old: i64, new: Option<i64>| new.filter(|&new| new != 0).unwrap_or(old);
            limits.memory = set(limits.memory, memory.limit());
            limits.swap = set(limits.swap, memory.swap());
            if memory.limit() == Some(-1) && asked(memory.swap()).is_none() {
                // Lifting the limit lifts the one on swap, which was counted from it.
                limits.swap = 0;
            }
            check_memory(memory, &limits)?;
        }
        if let Some(cpu) = resources.cpu() {
            limits.quota = cpu.quota().filter(|&quota| quota != 0).unwrap_or(limits.quota);
            limits.period = cpu.period().filter(|&period| period != 0).unwrap_or(limits.period);
        }
        Ok(limits)
    }
}

fn check_memory(memory: &LinuxMemory, limits: &Limits) -> Result<()> {
    for (field, value) in
        [("limit", memory.limit()), ("reservation", memory.reservation()), ("swap", memory.swap())]
    {
        if let Some(value) = value
            && value < -1
        {
            bail!(
                "/linux/resources/memory/{field}: {value} is neither a number of bytes nor -1 for no limit"
            );
        }
    }
    if limits.swap > 0 && limits.memory == 0 {
        bail!("/linux/resources/memory/swap: unable to set swap limit without memory limit");
    }
    if limits.memory > 0 && limits.swap > 0 && limits.swap < limits.memory {
        bail!("/linux/resources/memory/swap: memory+swap limit should be >= memory limit");
    }
    Ok(())
}

/// The limit that a resource asks for: absent and 0 both mean "leave alone".
pub fn asked<T: PartialEq + Default>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// The value of `pids.max`. 0 is an absent limit: one that was asked for is 1 by now (`json::set_explicit_limit`).
pub fn pids_max(resources: &LinuxResources) -> Option<String> {
    match resources.pids().as_ref()?.limit() {
        0 => None,
        limit if limit < 0 => Some("max".into()),
        limit => Some(limit.to_string()),
    }
}

/// `major:minor` of a block device.
pub fn block_device(major: i64, minor: i64, field: &str) -> Result<String> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => bail!("/linux/resources/{field}: {major}:{minor} is not a device number"),
    }
}

/// The four throttle lists: device, rate, field, and the place of the list (read bytes, write bytes, reads, writes).
pub fn throttles(block_io: &LinuxBlockIo) -> Result<Vec<(usize, String, u64, String)>> {
    let mut all = Vec::new();
    for (place, (name, list)) in [
        ("throttleReadBpsDevice", block_io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", block_io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", block_io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", block_io.throttle_write_iops_device()),
    ]
    .into_iter()
    .enumerate()
    {
        for (i, one) in list.iter().flatten().enumerate() {
            let field = format!("blockIO/{name}/{i}");
            all.push((place, block_device(one.major(), one.minor(), &field)?, one.rate(), field));
        }
    }
    Ok(all)
}

/// The hugepage limits: page size as in file names, limit (-1 none), field.
pub fn hugepages(resources: &LinuxResources) -> Result<Vec<(&str, i64, String)>> {
    let mut all = Vec::new();
    for (i, one) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = one.page_size().as_str();
        let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
        // It becomes part of a file name.
        if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
            bail!("/linux/resources/hugepageLimits/{i}/pageSize: {size:?} is not a size like \"2MB\"");
        }
        let limit = one.limit();
        if limit < -1 {
            bail!("/linux/resources/hugepageLimits/{i}/limit: {limit} is not a number of bytes");
        }
        all.push((size, limit, format!("hugepageLimits/{i}/limit")));
    }
    Ok(all)
}

/// `rdma.max` is the same on both versions. Sorted, so that a failure is the same one each time.
pub fn rdma(resources: &LinuxResources, writes: &mut Vec<Write>) -> Result<()> {
    let mut all: Vec<_> = resources.rdma().iter().flatten().collect();
    all.sort_by_key(|(device, _)| device.as_str());
    for (device, limit) in all {
        if device.is_empty() || device.contains(char::is_whitespace) {
            bail!("/linux/resources/rdma: {device:?} is not the name of a device");
        }
        let mut value = device.clone();
        for (name, number) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            if let Some(number) = number {
                value.push_str(&format!(" {name}={number}"));
            }
        }
        if value.len() > device.len() {
            writes.push(Write::new("rdma", "rdma.max", value, format!("rdma/{device}")));
        }
    }
    Ok(())
}

/// Notes on fields that are accepted without effect.
pub fn warn_about_kernel_memory(resources: &LinuxResources, warnings: &mut Vec<String>) {
    #[allow(deprecated)]
    let set = resources.memory().as_ref().is_some_and(|m| m.kernel().is_some() || m.kernel_tcp().is_some());
    if set {
        // The specification advises against them since 1.1 and the kernel has dropped them (Linux 5.16).
        warnings.push("/linux/resources/memory/kernel, kernelTCP: have no effect".into());
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn resources(text: &str) -> LinuxResources {
        serde_json::from_str(text).unwrap()
    }

    /// `controller/file=value` for each write, with `?` for one that may be missing and `|` for an alternative.
    pub fn lines(writes: &[Write]) -> Vec<String> {
        writes
            .iter()
            .map(|write| {
                let mut line = format!("{}/{}={}", write.controller, write.file, write.value);
                match &write.absent {
                    Absent::Fail => {}
                    Absent::Skip => line.push('?'),
                    Absent::Use(file, value) => line.push_str(&format!("|{file}={value}")),
                }
                line
            })
            .collect()
    }

    #[test]
    fn limits_remember_the_other_half() {
        let old = Limits { memory: 100, swap: 200, quota: 50, period: 1000 };
        let with = |text: &str| old.with(&resources(text));
        assert_eq!(with("{}").unwrap(), old);
        assert_eq!(with(r#"{"memory":{"limit":0},"cpu":{"quota":0}}"#).unwrap(), old);
        assert_eq!(with(r#"{"memory":{"limit":150}}"#).unwrap(), Limits { memory: 150, ..old });
        assert_eq!(with(r#"{"cpu":{"period":5}}"#).unwrap(), Limits { period: 5, ..old });
        assert_eq!(with(r#"{"memory":{"limit":-1}}"#).unwrap(), Limits { memory: -1, swap: 0, ..old });
        let error = with(r#"{"memory":{"limit":300}}"#).unwrap_err().to_string();
        assert_eq!(error, "/linux/resources/memory/swap: memory+swap limit should be >= memory limit");
        let error = Limits::default().with(&resources(r#"{"memory":{"swap":300}}"#)).unwrap_err().to_string();
        assert_eq!(error, "/linux/resources/memory/swap: unable to set swap limit without memory limit");
        let error = with(r#"{"memory":{"reservation":-2}}"#).unwrap_err().to_string();
        assert!(error.starts_with("/linux/resources/memory/reservation: -2 is neither"), "{error}");
        assert_eq!(serde_json::to_string(&Limits::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<Limits>(r#"{"quota":5}"#).unwrap().quota, 5);
    }
}
