//! Resources → writes for cgroup v2.
//!
//! Pure. The specification's numbers are those of cgroup v1, so most of this is conversion. Called by
//! `cgroup::plan` and `update`.

use super::resources::{
    Absent, Group, Limits, Write, asked, block_device, hugepages, pids_max, rdma, throttles,
    warn_about_kernel_memory,
};
use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

/// Default of `cpu.max`, in microseconds (Documentation/admin-guide/cgroup-v2.rst).
const DEFAULT_PERIOD_US: u64 = 100_000;

/// The writes for `resources`, in order; `limits` are those in force with it. Errors name the field.
pub fn writes(resources: &LinuxResources, limits: &Limits, warnings: &mut Vec<String>) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(max) = pids_max(resources) {
        writes.push(Write::new("pids", "pids.max", max, "pids/limit"));
    }
    if let Some(memory) = resources.memory() {
        add_memory(memory, limits, &mut writes)?;
    }
    warn_about_kernel_memory(resources, warnings);
    if let Some(block_io) = resources.block_io() {
        add_io(block_io, &mut writes)?;
    }
    if let Some(cpu) = resources.cpu() {
        add_cpu(cpu, limits, &mut writes)?;
    }
    for (size, limit, field) in hugepages(resources)? {
        let value = max_or(limit);
        writes.push(Write::new("hugetlb", format!("hugetlb.{size}.max"), &value, field.clone()));
        // Reservations are counted since Linux 5.7.
        let reserved = Write::new("hugetlb", format!("hugetlb.{size}.rsvd.max"), value, field);
        writes.push(reserved.if_absent(Absent::Skip));
    }
    if let Some(network) = resources.network() {
        if asked(network.class_id()).is_some() {
            bail!("/linux/resources/network/classID: cgroup v2 has no network classes");
        }
        if network.priorities().as_ref().is_some_and(|list| !list.is_empty()) {
            bail!("/linux/resources/network/priorities: cgroup v2 has no network priorities");
        }
    }
    rdma(resources, &mut writes)?;
    // Last, because it overrides.
    add_unified(resources, &mut writes)?;
    Ok(writes)
}

fn max_or(limit: i64) -> String {
    if limit < 0 { "max".into() } else { limit.to_string() }
}

fn add_memory(memory: &LinuxMemory, limits: &Limits, writes: &mut Vec<Write>) -> Result<()> {
    if memory.swappiness().is_some_and(|value| value as i64 != -1) {
        bail!("/linux/resources/memory/swappiness: cgroup v2 has no swappiness");
    }
    if memory.disable_oom_killer() == Some(true) {
        bail!("/linux/resources/memory/disableOOMKiller: cgroup v2 cannot switch the OOM killer off");
    }
    let limit = asked(memory.limit());
    if let Some(swap) = swap_max(memory, limits) {
        // Without swap accounting there is nothing to switch off and nothing to limit.
        let absent = if swap == "0" || swap == "max" { Absent::Skip } else { Absent::Fail };
        writes.push(Write::new("memory", "memory.swap.max", swap, "memory/swap").if_absent(absent));
    }
    if let Some(limit) = limit {
        writes.push(Write::new("memory", "memory.max", max_or(limit), "memory/limit"));
    }
    if let Some(reservation) = asked(memory.reservation()) {
        writes.push(Write::new("memory", "memory.low", max_or(reservation), "memory/reservation"));
    }
    Ok(())
}

/// The value of `memory.swap.max`, if `memory` asks for one: swap alone, where the configuration counts memory and swap.
pub fn swap_max(memory: &LinuxMemory, limits: &Limits) -> Option<String> {
    asked(memory.limit()).or(asked(memory.swap()))?;
    match (limits.memory, limits.swap) {
        // No limit on memory and none given for swap: the same for both, as on v1.
        (-1, 0) => Some("max".to_string()),
        (_, 0) => None,
        (_, -1) => Some("max".to_string()),
        (-1, swap) => Some(swap.to_string()),
        (limit, swap) => Some(swap.saturating_sub(limit).to_string()),
    }
}

fn add_cpu(cpu: &LinuxCpu, limits: &Limits, writes: &mut Vec<Write>) -> Result<()> {
    for (field, set) in [
        ("realtimeRuntime", asked(cpu.realtime_runtime()).is_some()),
        ("realtimePeriod", asked(cpu.realtime_period()).is_some()),
    ] {
        if set {
            bail!("/linux/resources/cpu/{field}: cgroup v2 has no realtime limits");
        }
    }
    if let Some(shares) = asked(cpu.shares()) {
        let weight = Write::new("cpu", "cpu.weight", weight_of_shares(shares), "cpu/shares");
        writes.push(weight.grouped(Group::Weight));
    }
    if let Some(idle) = cpu.idle() {
        writes.push(Write::new("cpu", "cpu.idle", idle, "cpu/idle").grouped(Group::Weight));
    }
    if asked(cpu.quota()).is_some() || asked(cpu.period()).is_some() {
        let period = if limits.period == 0 { DEFAULT_PERIOD_US } else { limits.period };
        let field = if asked(cpu.quota()).is_some() { "cpu/quota" } else { "cpu/period" };
        let quota = if limits.quota > 0 { limits.quota } else { -1 };
        let value = format!("{} {period}", max_or(quota));
        writes.push(Write::new("cpu", "cpu.max", value, field).grouped(Group::Time));
    }
    if let Some(burst) = cpu.burst() {
        writes.push(Write::new("cpu", "cpu.max.burst", burst, "cpu/burst").grouped(Group::Time));
    }
    for (file, value, field) in
        [("cpuset.cpus", cpu.cpus(), "cpu/cpus"), ("cpuset.mems", cpu.mems(), "cpu/mems")]
    {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            writes.push(Write::new("cpuset", file, value, field));
        }
    }
    Ok(())
}

/// CPU shares (2 to 262144, default 1024) → weight (1 to 10000, default 100): the curve through these three points
/// that runc and crun agreed on, in place of a straight line that put the default at 39.
pub fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// Block I/O weight (10 to 1000) → `io.weight` (1 to 10000), linear.
fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.max(10) - 10) * 9999 / 990
}

fn add_io(block_io: &LinuxBlockIo, writes: &mut Vec<Write>) -> Result<()> {
    if asked(block_io.leaf_weight()).is_some() {
        bail!("/linux/resources/blockIO/leafWeight: cgroup v2 has no leaf weight");
    }
    // Where the BFQ scheduler is built in, it is the one that takes weights, on the scale of the specification.
    if let Some(weight) = asked(block_io.weight()) {
        let write = Write::new("io", "io.bfq.weight", weight, "blockIO/weight");
        writes.push(write.if_absent(Absent::Use("io.weight", io_weight(weight).to_string())));
    }
    for (i, one) in block_io.weight_device().iter().flatten().enumerate() {
        let field = format!("blockIO/weightDevice/{i}");
        if asked(one.leaf_weight()).is_some() {
            bail!("/linux/resources/{field}/leafWeight: cgroup v2 has no leaf weight");
        }
        let device = block_device(one.major(), one.minor(), &field)?;
        if let Some(weight) = asked(one.weight()) {
            let write = Write::new("io", "io.bfq.weight", format!("{device} {weight}"), field);
            writes.push(write.if_absent(Absent::Use("io.weight", format!("{device} {}", io_weight(weight)))));
        }
    }
    for (place, device, rate, field) in throttles(block_io)? {
        let key = ["rbps", "wbps", "riops", "wiops"][place];
        // On v1 a rate of 0 takes the limit away; here the kernel would refuse it.
        let rate = if rate == 0 { "max".to_string() } else { rate.to_string() };
        writes.push(Write::new("io", "io.max", format!("{device} {key}={rate}"), field));
    }
    Ok(())
}

/// Sorted, so that a failure is the same one each time.
fn add_unified(resources: &LinuxResources, writes: &mut Vec<Write>) -> Result<()> {
    let mut all: Vec<_> = resources.unified().iter().flatten().collect();
    all.sort_by_key(|(key, _)| key.as_str());
    for (key, value) in all {
        if key.contains('/') {
            bail!("/linux/resources/unified: {key:?} must be a file name (no slashes)");
        }
        let Some((controller, _)) = key.split_once('.').filter(|(name, _)| !name.is_empty()) else {
            bail!("/linux/resources/unified: {key:?} must be in the form CONTROLLER.PARAMETER");
        };
        let controller = if controller == "cgroup" { "" } else { controller };
        // The kernel takes one device or key a write; a value may list several, a line each.
        for line in value.split_inclusive('\n') {
            writes.push(Write {
                controller: controller.to_string().into(),
                file: key.clone().into(),
                ..Write::new("", "", line, format!("unified/{key}"))
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::resources::tests::{lines, resources};
    use super::*;

    fn all(text: &str) -> Result<Vec<String>> {
        let resources = resources(text);
        let limits = Limits::default().with(&resources)?;
        Ok(lines(&writes(&resources, &limits, &mut Vec::new())?))
    }

    /// What runc 1.3.6 writes for the same resources.
    #[test]
    fn conversions() {
        for (text, expected) in [
            ("{}", &[][..]),
            (
                r#"{"memory":{"disableOOMKiller":false},"blockIO":{},"cpu":{"shares":0},"pids":{"limit":0}}"#,
                &[],
            ),
            (r#"{"pids":{"limit":20}}"#, &["pids/pids.max=20"]),
            (r#"{"pids":{"limit":-1}}"#, &["pids/pids.max=max"]),
            (r#"{"memory":{"limit":4096}}"#, &["memory/memory.max=4096"]),
            (r#"{"memory":{"limit":-1}}"#, &["memory/memory.swap.max=max?", "memory/memory.max=max"]),
            (
                r#"{"memory":{"limit":100,"swap":300,"reservation":50}}"#,
                &["memory/memory.swap.max=200", "memory/memory.max=100", "memory/memory.low=50"],
            ),
            (
                r#"{"memory":{"limit":100,"swap":100}}"#,
                &["memory/memory.swap.max=0?", "memory/memory.max=100"],
            ),
            (
                r#"{"memory":{"limit":100,"swap":-1}}"#,
                &["memory/memory.swap.max=max?", "memory/memory.max=100"],
            ),
            (
                r#"{"memory":{"limit":-1,"swap":300}}"#,
                &["memory/memory.swap.max=300", "memory/memory.max=max"],
            ),
            (r#"{"memory":{"swap":-1}}"#, &["memory/memory.swap.max=max?"]),
            (r#"{"memory":{"limit":0,"swap":0,"reservation":0,"checkBeforeUpdate":true}}"#, &[]),
            (r#"{"memory":{"reservation":-1}}"#, &["memory/memory.low=max"]),
            (r#"{"memory":{"swappiness":18446744073709551615,"useHierarchy":true}}"#, &[]),
            (r#"{"cpu":{"shares":1024}}"#, &["cpu/cpu.weight=100"]),
            (r#"{"cpu":{"quota":50000}}"#, &["cpu/cpu.max=50000 100000"]),
            (r#"{"cpu":{"quota":-1}}"#, &["cpu/cpu.max=max 100000"]),
            (r#"{"cpu":{"period":5000}}"#, &["cpu/cpu.max=max 5000"]),
            (r#"{"cpu":{"quota":0,"period":0,"realtimeRuntime":0,"realtimePeriod":0}}"#, &[]),
            (
                r#"{"cpu":{"quota":500,"period":1000,"burst":100}}"#,
                &["cpu/cpu.max=500 1000", "cpu/cpu.max.burst=100"],
            ),
            (r#"{"cpu":{"burst":0}}"#, &["cpu/cpu.max.burst=0"]),
            (r#"{"cpu":{"shares":2,"idle":1}}"#, &["cpu/cpu.weight=1", "cpu/cpu.idle=1"]),
            (r#"{"cpu":{"idle":0}}"#, &["cpu/cpu.idle=0"]),
            (r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#, &["cpuset/cpuset.cpus=0-1", "cpuset/cpuset.mems=0"]),
            (r#"{"cpu":{"cpus":"","mems":""}}"#, &[]),
            (r#"{"blockIO":{"weight":10}}"#, &["io/io.bfq.weight=10|io.weight=1"]),
            (r#"{"blockIO":{"weight":500}}"#, &["io/io.bfq.weight=500|io.weight=4950"]),
            (r#"{"blockIO":{"weight":1000}}"#, &["io/io.bfq.weight=1000|io.weight=10000"]),
            (r#"{"blockIO":{"weight":0,"leafWeight":0}}"#, &[]),
            (
                r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":100}]}}"#,
                &["io/io.bfq.weight=8:0 100|io.weight=8:0 910"],
            ),
            (
                r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],
                    "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}],
                    "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}],
                    "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}"#,
                &[
                    "io/io.max=8:0 rbps=1",
                    "io/io.max=8:0 wbps=2",
                    "io/io.max=8:0 riops=3",
                    "io/io.max=8:0 wiops=max",
                ],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4096},{"pageSize":"1GB","limit":0}]}"#,
                &[
                    "hugetlb/hugetlb.2MB.max=4096",
                    "hugetlb/hugetlb.2MB.rsvd.max=4096?",
                    "hugetlb/hugetlb.1GB.max=0",
                    "hugetlb/hugetlb.1GB.rsvd.max=0?",
                ],
            ),
            (
                r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000},"mlx4_0":{"hcaObjects":1},"x":{}}}"#,
                &["rdma/rdma.max=mlx4_0 hca_object=1", "rdma/rdma.max=mlx5_1 hca_handle=3 hca_object=10000"],
            ),
            (r#"{"network":{"classID":0,"priorities":[]}}"#, &[]),
            (
                r#"{"memory":{"limit":5},"unified":{"memory.max":"7","cgroup.max.depth":"3","io.max":"8:0 rbps=1\n8:16 rbps=2\n"}}"#,
                &[
                    "memory/memory.max=5",
                    "/cgroup.max.depth=3",
                    "io/io.max=8:0 rbps=1\n",
                    "io/io.max=8:16 rbps=2\n",
                    "memory/memory.max=7",
                ],
            ),
        ] {
            assert_eq!(all(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refusals_name_the_field() {
        for (text, expected) in [
            (
                r#"{"memory":{"limit":-2}}"#,
                "memory/limit: -2 is neither a number of bytes nor -1 for no limit",
            ),
            (r#"{"memory":{"swap":1}}"#, "memory/swap: unable to set swap limit without memory limit"),
            (
                r#"{"memory":{"limit":2,"swap":1}}"#,
                "memory/swap: memory+swap limit should be >= memory limit",
            ),
            (r#"{"memory":{"swappiness":0}}"#, "memory/swappiness: cgroup v2 has no swappiness"),
            (
                r#"{"memory":{"disableOOMKiller":true}}"#,
                "memory/disableOOMKiller: cgroup v2 cannot switch the OOM killer off",
            ),
            (r#"{"cpu":{"realtimeRuntime":1}}"#, "cpu/realtimeRuntime: cgroup v2 has no realtime limits"),
            (r#"{"cpu":{"realtimePeriod":1}}"#, "cpu/realtimePeriod: cgroup v2 has no realtime limits"),
            (r#"{"blockIO":{"leafWeight":10}}"#, "blockIO/leafWeight: cgroup v2 has no leaf weight"),
            (
                r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"leafWeight":1}]}}"#,
                "blockIO/weightDevice/0/leafWeight: cgroup v2 has no leaf weight",
            ),
            (
                r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":1}]}}"#,
                "blockIO/throttleReadBpsDevice/0: -1:0 is not a device number",
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#,
                r#"hugepageLimits/0/pageSize: "../x" is not a size like "2MB""#,
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":-2}]}"#,
                "hugepageLimits/0/limit: -2 is not a number of bytes",
            ),
            (r#"{"network":{"classID":1}}"#, "network/classID: cgroup v2 has no network classes"),
            (
                r#"{"network":{"priorities":[{"name":"eth0","priority":1}]}}"#,
                "network/priorities: cgroup v2 has no network priorities",
            ),
            (r#"{"rdma":{"a b":{"hcaHandles":1}}}"#, r#"rdma: "a b" is not the name of a device"#),
            (r#"{"unified":{"a/b.c":"1"}}"#, r#"unified: "a/b.c" must be a file name (no slashes)"#),
            (
                r#"{"unified":{"memory":"1"}}"#,
                r#"unified: "memory" must be in the form CONTROLLER.PARAMETER"#,
            ),
            (r#"{"unified":{"..":"1"}}"#, r#"unified: ".." must be in the form CONTROLLER.PARAMETER"#),
        ] {
            let error = all(text).unwrap_err().to_string();
            assert_eq!(error, format!("/linux/resources/{expected}"), "{text}");
        }
    }

    #[test]
    fn shares() {
        // What runc 1.3.6 and crun 1.28 write (0 never gets here).
        for (shares, weight) in [
            (0, 1),
            (1, 1),
            (2, 1),
            (3, 2),
            (10, 4),
            (100, 17),
            (102, 17),
            (512, 59),
            (1023, 100),
            (1024, 100),
            (1025, 101),
            (2048, 174),
            (8192, 532),
            (100_000, 4340),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        assert!((3..262_144).all(|shares| weight_of_shares(shares) >= weight_of_shares(shares - 1)));
    }

    #[test]
    fn an_update_completes_pairs_from_the_limits_in_force() {
        let old = Limits { memory: 100, swap: 300, quota: 500, period: 1000 };
        for (text, expected) in [
            (r#"{"cpu":{"quota":600}}"#, &["cpu/cpu.max=600 1000"][..]),
            (r#"{"cpu":{"period":2000}}"#, &["cpu/cpu.max=500 2000"]),
            (r#"{"memory":{"limit":250}}"#, &["memory/memory.swap.max=50", "memory/memory.max=250"]),
            (r#"{"memory":{"limit":-1}}"#, &["memory/memory.swap.max=max?", "memory/memory.max=max"]),
            (r#"{"memory":{"swap":400}}"#, &["memory/memory.swap.max=300"]),
            (r#"{"memory":{"reservation":5}}"#, &["memory/memory.low=5"]),
        ] {
            let resources = resources(text);
            let limits = old.with(&resources).unwrap();
            assert_eq!(lines(&writes(&resources, &limits, &mut Vec::new()).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn kernel_memory_is_a_warning() {
        let mut warnings = Vec::new();
        let resources = resources(r#"{"memory":{"kernel":5}}"#);
        assert!(writes(&resources, &Limits::default(), &mut warnings).unwrap().is_empty());
        assert_eq!(warnings.len(), 1);
    }
}
