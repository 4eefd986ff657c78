//! What limits become on cgroup v1 and v2, and that they hold.

use super::tests;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::cx::{Cx, eq, skip};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

tests!["resources":
    resources_absent_or_empty,
    io_section_empty deviates ["crun" = "wants the io controller"],
    values_before_start,
    memory_limit_v1,
    memory_swap_unlimited_v1,
    memory_swappiness_v1 deviates ["crun" = "leaves the cgroup behind"],
    memory_oom_control_v1,
    memory_kernel_is_ignored,
    memory_v2,
    memory_swap_equal_v2,
    memory_swap_without_limit deviates ["crun" = "takes it"],
    memory_limit_holds,
    cpu_v1,
    cpu_v2,
    cpu_shares_zero_is_unset,
    cpu_realtime_v1,
    cpuset,
    pids,
    pids_zero deviates ["runc" = "1.3 takes it for absent", "crun" = "takes it for absent"],
    pids_unlimited,
    pids_limit_holds,
    blkio_throttle_v1,
    blkio_weight_v1,
    io_v2,
    hugetlb,
    network_class_v1,
    network_priorities_v1,
    unified_v2,
    unified_missing_controller_v2 deviates ["crun" = "leaves the cgroup behind"],
    unified_on_v1_fails deviates ["crun" = "leaves the cgroup behind"],
    devices_list_v1,
];

fn set(cx: &Cx, resources: Value) -> Result<Bundle<'_>> {
    let mut b = cx.bundle()?;
    for (key, value) in resources.as_object().into_iter().flatten() {
        b.set(&format!("/linux/resources/{key}"), value.clone());
    }
    Ok(b)
}

/// Creates with these resources and compares files of the container's cgroup.
fn check(cx: &Cx, resources: Value, controller: &str, files: &[(&str, &str)]) -> Result<()> {
    let c = set(cx, resources)?.create()?;
    let pid = c.pid()?;
    let mut wrong = vec![];
    for (file, wanted) in files {
        match cgroup::value_of(pid, controller, file) {
            Ok(got) if got == *wanted => {}
            Ok(got) => wrong.push(format!("{file}: {got}, wanted {wanted}")),
            Err(e) => wrong.push(format!("{e:#}")),
        }
    }
    c.delete_force()?;
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

fn resources_absent_or_empty(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.remove("/linux/resources").run()?.ok()?;
    b.set("/linux/resources", json!({})).run()?.ok()?;
    let mut sections = json!({"memory": {}, "cpu": {}, "hugepageLimits": []});
    if cgroup::has("pids") {
        sections["pids"] = json!({"limit": -1});
    }
    b.set("/linux/resources", sections).run()?.ok()?;
    Ok(())
}

/// Docker always writes it.
fn io_section_empty(cx: &Cx) -> Result<()> {
    set(cx, json!({"blockIO": {}}))?.run()?.ok()?;
    Ok(())
}

/// Limits are there before any code of the container runs.
fn values_before_start(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    let mut b = set(cx, json!({"pids": {"limit": 77}}))?;
    let probe = cx.probe.display().to_string();
    let file = cx.path("hook");
    b.push("/hooks/prestart", json!({"path": probe, "args": ["probe", "hook", file.display().to_string()]}));
    let c = b.create()?;
    let v = cgroup::value_of(c.pid()?, "pids", "pids.max")?;
    c.delete_force()?;
    eq("pids.max", v, "77".to_string())
}

fn memory_limit_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("memory")?;
    check(
        cx,
        json!({"memory": {"limit": 50_593_792, "reservation": 30_593_024, "swap": 60_592_128}}),
        "memory",
        &[
            ("memory.limit_in_bytes", "50593792"),
            ("memory.soft_limit_in_bytes", "30593024"),
            ("memory.memsw.limit_in_bytes", "60592128"),
        ],
    )
}

fn memory_swap_unlimited_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("memory")?;
    let max = "9223372036854771712";
    check(
        cx,
        json!({"memory": {"limit": 50_593_792, "swap": -1}}),
        "memory",
        &[("memory.limit_in_bytes", "50593792"), ("memory.memsw.limit_in_bytes", max)],
    )?;
    check(
        cx,
        json!({"memory": {"limit": -1}}),
        "memory",
        &[("memory.limit_in_bytes", max), ("memory.memsw.limit_in_bytes", max)],
    )
}

fn memory_swappiness_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("memory")?;
    check(cx, json!({"memory": {"swappiness": 10}}), "memory", &[("memory.swappiness", "10")])?;
    let b = set(cx, json!({"memory": {"swappiness": 101}}))?;
    b.save()?;
    ensure!(b.container().create(&[])?.code != 0 || cx.kind == "crun", "a swappiness of 101 was taken");
    Ok(())
}

fn memory_oom_control_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("memory")?;
    let c = set(cx, json!({"memory": {"disableOOMKiller": true}}))?.create()?;
    let text = cgroup::value_of(c.pid()?, "memory", "memory.oom_control")?;
    c.delete_force()?;
    ensure!(text.contains("oom_kill_disable 1"), "{text}");
    Ok(())
}

/// Limits the kernel no longer has: taken and left alone.
fn memory_kernel_is_ignored(cx: &Cx) -> Result<()> {
    cx.need_controller("memory")?;
    let b = set(cx, json!({"memory": {"kernel": 50_593_792, "kernelTCP": 50_593_792}}))?;
    let out = b.run()?;
    if out.code != 0 && cx.kind == "crun" {
        return skip("crun sets them");
    }
    out.ok()?;
    Ok(())
}

fn memory_v2(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    cx.need_controller("memory")?;
    let resources = json!({"memory": {"limit": 50_593_792, "reservation": 30_593_024, "swap": 60_592_128}});
    check(cx, resources.clone(), "memory", &[("memory.max", "50593792"), ("memory.low", "30593024")])?;
    swap_v2(cx, resources, "9998336")?;
    swap_v2(cx, json!({"memory": {"limit": 50_593_792, "swap": -1}}), "max")?;
    check(cx, json!({"memory": {"limit": -1}}), "memory", &[("memory.max", "max")])
}

/// memory.swap.max is not there without swap support.
fn swap_v2(cx: &Cx, resources: Value, wanted: &str) -> Result<()> {
    let c = set(cx, resources)?.create()?;
    let dir = cgroup::directory_of(c.pid()?, "memory")?;
    let got = fs::read_to_string(dir.join("memory.swap.max")).ok();
    c.delete_force()?;
    got.map_or(Ok(()), |text| eq("memory.swap.max", text.trim(), wanted))
}

fn memory_swap_equal_v2(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    cx.need_controller("memory")?;
    swap_v2(cx, json!({"memory": {"limit": 50_593_792, "swap": 50_593_792}}), "0")
}

fn memory_swap_without_limit(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    cx.need_controller("memory")?;
    let b = set(cx, json!({"memory": {"swap": 50_593_792}}))?;
    b.save()?;
    let before = cx.snapshot()?;
    b.container().create(&[])?.code(1)?;
    cx.nothing_left(&before)
}

fn memory_limit_holds(cx: &Cx) -> Result<()> {
    cx.need_controller("memory")?;
    let mut b = set(cx, json!({"memory": {"limit": 32 << 20, "swap": 32 << 20}}))?;
    b.probe(&["memory", "8"]).run()?.ok()?;
    b.probe(&["memory", "128"]).run()?.code(137)?;
    Ok(())
}

fn cpu_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("cpu")?;
    check(
        cx,
        json!({"cpu": {"shares": 512, "quota": 50_000, "period": 200_000}}),
        "cpu",
        &[("cpu.shares", "512"), ("cpu.cfs_quota_us", "50000"), ("cpu.cfs_period_us", "200000")],
    )?;
    check(cx, json!({"cpu": {"quota": -1}}), "cpu", &[("cpu.cfs_quota_us", "-1")])?;
    check(
        cx,
        json!({"cpu": {"quota": 20_000}}),
        "cpu",
        &[("cpu.cfs_quota_us", "20000"), ("cpu.cfs_period_us", "100000")],
    )?;
    check(cx, json!({"cpu": {"period": 50_000}}), "cpu", &[("cpu.cfs_period_us", "50000")])
}

fn cpu_v2(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    cx.need_controller("cpu")?;
    for (shares, weight) in [(2, "1"), (1024, "100"), (262_144, "10000"), (512, "59")] {
        check(cx, json!({"cpu": {"shares": shares}}), "cpu", &[("cpu.weight", weight)])?;
    }
    check(cx, json!({"cpu": {"quota": 50_000, "period": 200_000}}), "cpu", &[("cpu.max", "50000 200000")])?;
    check(cx, json!({"cpu": {"quota": 50_000}}), "cpu", &[("cpu.max", "50000 100000")])?;
    check(cx, json!({"cpu": {"quota": -1, "period": 50_000}}), "cpu", &[("cpu.max", "max 50000")])
}

fn cpu_shares_zero_is_unset(cx: &Cx) -> Result<()> {
    cx.need_controller("cpu")?;
    let file = if cx.unified() { ("cpu.weight", "100") } else { ("cpu.shares", "1024") };
    check(cx, json!({"cpu": {"shares": 0, "quota": 0, "period": 0}}), "cpu", &[file])
}

fn cpuset(cx: &Cx) -> Result<()> {
    cx.need_controller("cpuset")?;
    check(
        cx,
        json!({"cpu": {"cpus": "0", "mems": "0"}}),
        "cpuset",
        &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
    )?;
    let mut b = set(cx, json!({"cpu": {"cpus": "0"}}))?;
    let v = b.inside()?;
    eq("processors inside", v["cpus_allowed"].as_str(), Some("0"))
}

fn pids(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    check(cx, json!({"pids": {"limit": 1000}}), "pids", &[("pids.max", "1000")])
}

/// A limit since version 1.3 of the specification; 1 is the least that can be.
fn pids_zero(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    check(cx, json!({"pids": {"limit": 0}}), "pids", &[("pids.max", "1")])?;
    if !cx.systemd {
        for unset in [json!({}), json!({"limit": null}), json!(null)] {
            check(cx, json!({"pids": unset, "memory": null}), "pids", &[("pids.max", "max")])?;
        }
    }
    Ok(())
}

fn pids_unlimited(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    check(cx, json!({"pids": {"limit": -1}}), "pids", &[("pids.max", "max")])
}

fn pids_limit_holds(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    let mut b = set(cx, json!({"pids": {"limit": 10}}))?;
    let line = b.lines(&["fork-until-error"])?;
    eq("forks", line[0].as_str(), "EAGAIN 9")
}

/// A disk that is there: `major:minor`.
fn disk() -> Result<(i64, i64)> {
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("loop") || name.starts_with("ram") {
            continue;
        }
        if let Ok(text) = fs::read_to_string(entry.path().join("dev"))
            && let Some((major, minor)) = text.trim().split_once(':')
        {
            return Ok((major.parse()?, minor.parse()?));
        }
    }
    skip("no disk here")
}

fn blkio_throttle_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("blkio")?;
    let (major, minor) = disk()?;
    let one = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let line = |rate: u64| format!("{major}:{minor} {rate}");
    check(
        cx,
        json!({"blockIO": {"throttleReadBpsDevice": one(102_400), "throttleWriteBpsDevice": one(204_800),
                           "throttleReadIOPSDevice": one(300), "throttleWriteIOPSDevice": one(400)}}),
        "blkio",
        &[
            ("blkio.throttle.read_bps_device", &line(102_400)),
            ("blkio.throttle.write_bps_device", &line(204_800)),
            ("blkio.throttle.read_iops_device", &line(300)),
            ("blkio.throttle.write_iops_device", &line(400)),
        ],
    )
}

fn blkio_weight_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("blkio")?;
    let own = cgroup::directory_of(std::process::id() as i32, "blkio")?;
    let Some(file) = ["blkio.bfq.weight", "blkio.weight"].into_iter().find(|f| own.join(f).exists()) else {
        return skip("no blkio weight here");
    };
    check(cx, json!({"blockIO": {"weight": 500}}), "blkio", &[(file, "500")])
}

fn io_v2(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    cx.need_controller("io")?;
    let (major, minor) = disk()?;
    let one = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let wanted = format!("{major}:{minor} rbps=102400 wbps=204800 riops=300 wiops=400");
    check(
        cx,
        json!({"blockIO": {"throttleReadBpsDevice": one(102_400), "throttleWriteBpsDevice": one(204_800),
                           "throttleReadIOPSDevice": one(300), "throttleWriteIOPSDevice": one(400)}}),
        "io",
        &[("io.max", &wanted)],
    )
}

/// Where groups have real-time budgets, a share of those above.
fn cpu_realtime_v1(cx: &Cx) -> Result<()> {
    cx.need_real_time_budget()?;
    check(
        cx,
        json!({"cpu": {"realtimePeriod": 500_000, "realtimeRuntime": 5_000}}),
        "cpu",
        &[("cpu.rt_period_us", "500000"), ("cpu.rt_runtime_us", "5000")],
    )
}

fn hugetlb(cx: &Cx) -> Result<()> {
    cx.need_controller("hugetlb")?;
    let size: PathBuf = "/sys/kernel/mm/hugepages/hugepages-2048kB".into();
    if !size.exists() {
        return skip("no pages of 2 MiB here");
    }
    let file = if cx.unified() { "hugetlb.2MB.max" } else { "hugetlb.2MB.limit_in_bytes" };
    check(
        cx,
        json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
        "hugetlb",
        &[(file, "4194304")],
    )
}

fn network_class_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("net_cls")?;
    check(cx, json!({"network": {"classID": 255}}), "net_cls", &[("net_cls.classid", "255")])
}

fn network_priorities_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("net_prio")?;
    let c = set(cx, json!({"network": {"priorities": [{"name": "lo", "priority": 10}]}}))?.create()?;
    let text = cgroup::value_of(c.pid()?, "net_prio", "net_prio.ifpriomap")?;
    c.delete_force()?;
    ensure!(text.lines().any(|l| l == "lo 10"), "{text}");
    Ok(())
}

fn unified_v2(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    cx.need_controller("hugetlb")?;
    let file = cgroup::directory_of(std::process::id() as i32, "hugetlb")?.join("hugetlb.2MB.max");
    if !file.parent().is_some_and(|d| d.join("hugetlb.2MB.max").exists()) {
        cx.need_controller("pids")?;
        return check(
            cx,
            json!({"pids": {"limit": 5}, "unified": {"pids.max": "99"}}),
            "pids",
            &[("pids.max", "99")],
        );
    }
    check(
        cx,
        json!({"unified": {"hugetlb.2MB.max": "8388608"}}),
        "hugetlb",
        &[("hugetlb.2MB.max", "8388608")],
    )
}

fn unified_missing_controller_v2(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    let b = set(cx, json!({"unified": {"nosuch.max": "1"}}))?;
    b.save()?;
    let before = cx.snapshot()?;
    b.container().create(&[])?.fails(&["nosuch"])?;
    cx.nothing_left(&before)
}

fn unified_on_v1_fails(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    let b = set(cx, json!({"unified": {"memory.max": "1"}}))?;
    b.save()?;
    let before = cx.snapshot()?;
    let out = b.container().create(&[])?;
    ensure!(out.code != 0, "unified was taken on v1");
    cx.nothing_left(&before)
}

fn devices_list_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("devices")?;
    let c = set(
        cx,
        json!({"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"}]}),
    )?
    .create()?;
    let text = cgroup::value_of(c.pid()?, "devices", "devices.list")?;
    c.delete_force()?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.contains(&"c 10:229 rwm"), "{lines:?}");
    ensure!(
        lines.contains(&"c 1:3 rwm") && lines.contains(&"c 5:2 rwm") && lines.contains(&"c 136:* rwm"),
        "{lines:?}"
    );
    ensure!(!lines.contains(&"a *:* rwm"), "all is allowed: {lines:?}");
    Ok(())
}
