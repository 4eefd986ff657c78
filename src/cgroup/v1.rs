//! Resources → writes for cgroup v1.
//!
//! Pure. Called by `cgroup::plan` and `update`.

use super::resources::{
    Absent, Group, Limits, Write, asked, block_device, hugepages, pids_max, rdma, throttles,
    warn_about_kernel_memory,
};
use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources};

/// What the kernel raises or lowers `cpu.shares` to without a word.
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;

/// The writes for `resources`, in order. Errors name the field.
pub fn writes(resources: &LinuxResources, limits: &Limits, warnings: &mut Vec<String>) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if resources.unified().as_ref().is_some_and(|all| !all.is_empty()) {
        bail!("/linux/resources/unified: invalid configuration: cannot use unified on cgroup v1");
    }
    if let Some(memory) = resources.memory() {
        add_memory(memory, limits, &mut writes, warnings)?;
    }
    warn_about_kernel_memory(resources, warnings);
    if let Some(cpu) = resources.cpu() {
        add_cpu(cpu, &mut writes)?;
    }
    if let Some(max) = pids_max(resources) {
        writes.push(Write::new("pids", "pids.max", max, "pids/limit"));
    }
    if let Some(block_io) = resources.block_io() {
        add_block_io(block_io, &mut writes)?;
    }
    for (size, limit, field) in hugepages(resources)? {
        let file = format!("hugetlb.{size}.limit_in_bytes");
        writes.push(Write::new("hugetlb", file, limit, field.clone()));
        // Reservations are counted since Linux 5.7.
        let reserved = Write::new("hugetlb", format!("hugetlb.{size}.rsvd.limit_in_bytes"), limit, field);
        writes.push(reserved.if_absent(Absent::Skip));
    }
    if let Some(network) = resources.network() {
        add_network(network, &mut writes)?;
    }
    rdma(resources, &mut writes)?;
    Ok(writes)
}

fn add_memory(
    memory: &LinuxMemory,
    limits: &Limits,
    writes: &mut Vec<Write>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    match memory.use_hierarchy() {
        Some(true) => {
            // Always so since Linux 5.11; before, it could only be changed while there was no child.
            let write = Write::new("memory", "memory.use_hierarchy", 1, "memory/useHierarchy");
            writes.push(write.if_absent(Absent::Skip));
        }
        Some(false) => {
            warnings.push(
                "/linux/resources/memory/useHierarchy: memory is always accounted hierarchically".into(),
            );
        }
        None => {}
    }
    let limit = asked(memory.limit()).map(|limit| {
        Write::new("memory", "memory.limit_in_bytes", limit, "memory/limit").grouped(Group::Memory)
    });
    // No limit on memory and none given for swap: none for both, or the limit could not be lifted.
    let lifted = limit.is_some() && limits.memory == -1 && limits.swap == 0;
    let swap = asked(memory.swap()).or(lifted.then_some(-1)).map(|swap| {
        let write = Write::new("memory", "memory.memsw.limit_in_bytes", swap, "memory/swap");
        let absent = if lifted { Absent::Skip } else { Absent::Fail };
        write.grouped(Group::Memory).if_absent(absent)
    });
    if limits.swap == -1 || lifted {
        writes.extend(swap);
        writes.extend(limit);
    } else {
        writes.extend(limit);
        writes.extend(swap);
    }
    if let Some(reservation) = asked(memory.reservation()) {
        writes.push(Write::new("memory", "memory.soft_limit_in_bytes", reservation, "memory/reservation"));
    }
    if memory.disable_oom_killer() == Some(true) {
        writes.push(Write::new("memory", "memory.oom_control", 1, "memory/disableOOMKiller"));
    }
    match memory.swappiness() {
        None => {}
        Some(value) if value as i64 == -1 => {}
        Some(value) if value <= 100 => {
            writes.push(Write::new("memory", "memory.swappiness", value, "memory/swappiness"));
        }
        Some(value) => bail!("/linux/resources/memory/swappiness: {value} is not in 0..100"),
    }
    Ok(())
}

fn add_cpu(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(shares) = asked(cpu.shares()) {
        if shares < MIN_SHARES {
            bail!("/linux/resources/cpu/shares: the minimum allowed cpu-shares is {MIN_SHARES}");
        }
        if shares > MAX_SHARES {
            bail!("/linux/resources/cpu/shares: the maximum allowed cpu-shares is {MAX_SHARES}");
        }
        writes.push(Write::new("cpu", "cpu.shares", shares, "cpu/shares").grouped(Group::Weight));
    }
    if let Some(idle) = cpu.idle() {
        writes.push(Write::new("cpu", "cpu.idle", idle, "cpu/idle").grouped(Group::Weight));
    }
    if let Some(period) = asked(cpu.period()) {
        writes.push(Write::new("cpu", "cpu.cfs_period_us", period, "cpu/period").grouped(Group::Time));
    }
    if let Some(quota) = asked(cpu.quota()) {
        writes.push(Write::new("cpu", "cpu.cfs_quota_us", quota, "cpu/quota").grouped(Group::Time));
    }
    if let Some(burst) = cpu.burst() {
        let write = Write::new("cpu", "cpu.cfs_burst_us", burst, "cpu/burst").grouped(Group::Time);
        // Linux 5.14. Without it there is no burst, which is the value 0.
        writes.push(if burst == 0 { write.if_absent(Absent::Skip) } else { write });
    }
    // All of this is done before a process joins, or one that is realtime already would be refused.
    if let Some(period) = asked(cpu.realtime_period()) {
        let write = Write::new("cpu", "cpu.rt_period_us", period, "cpu/realtimePeriod");
        writes.push(write.grouped(Group::Realtime));
    }
    if let Some(runtime) = asked(cpu.realtime_runtime()) {
        let write = Write::new("cpu", "cpu.rt_runtime_us", runtime, "cpu/realtimeRuntime");
        writes.push(write.grouped(Group::Realtime));
    }
    for (file, short, value, field) in
        [("cpuset.cpus", "cpus", cpu.cpus(), "cpu/cpus"), ("cpuset.mems", "mems", cpu.mems(), "cpu/mems")]
    {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            // The hierarchy may be mounted with `noprefix`.
            let absent = Absent::Use(short, value.to_string());
            writes.push(Write::new("cpuset", file, value, field).if_absent(absent));
        }
    }
    Ok(())
}

fn add_block_io(block_io: &LinuxBlockIo, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(weight) = asked(block_io.weight()) {
        let absent = Absent::Use("blkio.bfq.weight", weight.to_string());
        writes.push(Write::new("blkio", "blkio.weight", weight, "blockIO/weight").if_absent(absent));
    }
    if let Some(weight) = asked(block_io.leaf_weight()) {
        writes.push(Write::new("blkio", "blkio.leaf_weight", weight, "blockIO/leafWeight"));
    }
    for (i, one) in block_io.weight_device().iter().flatten().enumerate() {
        let field = format!("blockIO/weightDevice/{i}");
        let device = block_device(one.major(), one.minor(), &field)?;
        if let Some(weight) = asked(one.weight()) {
            let value = format!("{device} {weight}");
            let absent = Absent::Use("blkio.bfq.weight_device", value.clone());
            writes.push(Write::new("blkio", "blkio.weight_device", value, field.clone()).if_absent(absent));
        }
        if let Some(weight) = asked(one.leaf_weight()) {
            let value = format!("{device} {weight}");
            writes.push(Write::new("blkio", "blkio.leaf_weight_device", value, field));
        }
    }
    for (place, device, rate, field) in throttles(block_io)? {
        let file = [
            "blkio.throttle.read_bps_device",
            "blkio.throttle.write_bps_device",
            "blkio.throttle.read_iops_device",
            "blkio.throttle.write_iops_device",
        ][place];
        writes.push(Write::new("blkio", file, format!("{device} {rate}"), field));
    }
    Ok(())
}

fn add_network(network: &LinuxNetwork, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(class) = asked(network.class_id()) {
        writes.push(Write::new("net_cls", "net_cls.classid", class, "network/classID"));
    }
    for (i, one) in network.priorities().iter().flatten().enumerate() {
        let (name, field) = (one.name(), format!("network/priorities/{i}"));
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!("/linux/resources/{field}/name: {name:?} is not the name of an interface");
        }
        writes.push(Write::new(
            "net_prio",
            "net_prio.ifpriomap",
            format!("{name} {}", one.priority()),
            field,
        ));
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
            (r#"{"memory":{"limit":4096}}"#, &["memory/memory.limit_in_bytes=4096"]),
            (
                r#"{"memory":{"limit":-1}}"#,
                &["memory/memory.memsw.limit_in_bytes=-1?", "memory/memory.limit_in_bytes=-1"],
            ),
            (
                r#"{"memory":{"limit":100,"swap":300}}"#,
                &["memory/memory.limit_in_bytes=100", "memory/memory.memsw.limit_in_bytes=300"],
            ),
            (
                r#"{"memory":{"limit":100,"swap":-1}}"#,
                &["memory/memory.memsw.limit_in_bytes=-1", "memory/memory.limit_in_bytes=100"],
            ),
            (
                r#"{"memory":{"reservation":50,"disableOOMKiller":true,"swappiness":0,"useHierarchy":true}}"#,
                &[
                    "memory/memory.use_hierarchy=1?",
                    "memory/memory.soft_limit_in_bytes=50",
                    "memory/memory.oom_control=1",
                    "memory/memory.swappiness=0",
                ],
            ),
            (r#"{"memory":{"swappiness":18446744073709551615}}"#, &[]),
            (
                r#"{"cpu":{"shares":512,"idle":1,"quota":500,"period":1000,"burst":100}}"#,
                &[
                    "cpu/cpu.shares=512",
                    "cpu/cpu.idle=1",
                    "cpu/cpu.cfs_period_us=1000",
                    "cpu/cpu.cfs_quota_us=500",
                    "cpu/cpu.cfs_burst_us=100",
                ],
            ),
            (r#"{"cpu":{"quota":-1,"burst":0}}"#, &["cpu/cpu.cfs_quota_us=-1", "cpu/cpu.cfs_burst_us=0?"]),
            (
                r#"{"cpu":{"realtimeRuntime":900,"realtimePeriod":1000}}"#,
                &["cpu/cpu.rt_period_us=1000", "cpu/cpu.rt_runtime_us=900"],
            ),
            (
                r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#,
                &["cpuset/cpuset.cpus=0-1|cpus=0-1", "cpuset/cpuset.mems=0|mems=0"],
            ),
            (
                r#"{"blockIO":{"weight":10,"leafWeight":20,
                    "weightDevice":[{"major":8,"minor":0,"weight":100,"leafWeight":200}],
                    "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],
                    "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}],
                    "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}],
                    "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}"#,
                &[
                    "blkio/blkio.weight=10|blkio.bfq.weight=10",
                    "blkio/blkio.leaf_weight=20",
                    "blkio/blkio.weight_device=8:0 100|blkio.bfq.weight_device=8:0 100",
                    "blkio/blkio.leaf_weight_device=8:0 200",
                    "blkio/blkio.throttle.read_bps_device=8:0 1",
                    "blkio/blkio.throttle.write_bps_device=8:0 2",
                    "blkio/blkio.throttle.read_iops_device=8:0 3",
                    "blkio/blkio.throttle.write_iops_device=8:0 0",
                ],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4096}]}"#,
                &["hugetlb/hugetlb.2MB.limit_in_bytes=4096", "hugetlb/hugetlb.2MB.rsvd.limit_in_bytes=4096?"],
            ),
            (
                r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":500}]}}"#,
                &["net_cls/net_cls.classid=1048577", "net_prio/net_prio.ifpriomap=eth0 500"],
            ),
            (r#"{"rdma":{"mlx5_1":{"hcaHandles":3}}}"#, &["rdma/rdma.max=mlx5_1 hca_handle=3"]),
            (r#"{"unified":{}}"#, &[]),
        ] {
            assert_eq!(all(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refusals_name_the_field() {
        for (text, expected) in [
            (r#"{"cpu":{"shares":1}}"#, "cpu/shares: the minimum allowed cpu-shares is 2"),
            (r#"{"cpu":{"shares":262145}}"#, "cpu/shares: the maximum allowed cpu-shares is 262144"),
            (r#"{"memory":{"swappiness":101}}"#, "memory/swappiness: 101 is not in 0..100"),
            (
                r#"{"memory":{"limit":2,"swap":1}}"#,
                "memory/swap: memory+swap limit should be >= memory limit",
            ),
            (
                r#"{"unified":{"memory.max":"1"}}"#,
                "unified: invalid configuration: cannot use unified on cgroup v1",
            ),
            (
                r#"{"network":{"priorities":[{"name":"eth0\nlo 1","priority":1}]}}"#,
                r#"network/priorities/0/name: "eth0\nlo 1" is not the name of an interface"#,
            ),
        ] {
            let error = all(text).unwrap_err().to_string();
            assert_eq!(error, format!("/linux/resources/{expected}"), "{text}");
        }
    }
}
