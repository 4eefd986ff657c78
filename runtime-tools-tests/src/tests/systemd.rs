//! The systemd cgroup driver: which unit a container is, what systemd knows of its limits and devices, what stays in
//! force when systemd reloads, and that no unit is left.

use super::tests;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::container::{Container, reap};
use crate::cx::{Cx, Out, eq, same, wait_for};
use crate::unit::{BUS, Monitor, property, systemctl};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

tests!["systemd":
    scope_of_a_slice,
    scope_without_a_path,
    bad_paths deviates ["crun" = "takes what has no colon for a name"],
    limits_v2,
    limits_v1,
    cpu_quota_is_rounded deviates ["crun" = "does not round the file"],
    unified_v2,
    processors_and_nodes deviates ["crun" = "tells it what the fields say, whatever the files get"],
    limits_without_property deviates ["crun" = "takes limits without a controller for nothing"],
    oom_group_v2 deviates ["runc" = "1.3 leaves it to the file", "crun" = "has no such property"],
    tasks_unlimited,
    no_reload_is_needed_v2,
    devices_stay_after_reload,
    devices_that_systemd_cannot_name,
    all_devices,
    annotations deviates ["crun" = "takes no list"],
    bad_annotations deviates ["crun" = "has words of its own"],
    annotations_of_no_type deviates ["runc" = "panics", "crun" = "has words of its own"],
    update_tells_systemd deviates ["crun" = "has words of its own"],
    weight_or_idleness_v2 deviates ["runc" = "then fails at the file", "crun" = "has words of its own"],
    update_without_the_flag,
    failed_unit_is_removed,
    unit_in_use,
    failing_create_leaves_no_unit deviates ["crun" = "has words of its own"],
    exec_is_in_the_scope,
    pause_and_resume,
    systemd_executed_anew,
];

fn sleeper<'a>(cx: &'a Cx, resources: Value) -> Result<Bundle<'a>> {
    cx.need_systemd(true)?;
    if cx.kind == "crun" && !cx.unified() {
        cx.need_controller("cpuset")?;
    }
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    for (key, value) in resources.as_object().into_iter().flatten() {
        b.set(&format!("/linux/resources/{key}"), value.clone());
    }
    Ok(b)
}

/// The unit that the process is in by its own cgroup.
fn unit(c: &Container<'_>) -> Result<String> {
    let dir = cgroup::directory_of(c.pid()?, "pids")?;
    // crun has a directory of its own below the scope.
    let mut names = dir.iter().rev().map(|name| name.to_string_lossy().into_owned());
    names.find(|name| name.ends_with(".scope")).with_context(|| format!("in no scope: {}", dir.display()))
}

fn shows(c: &Container<'_>, wanted: &[(&str, &str)]) -> Result<()> {
    let unit = unit(c)?;
    let mut wrong = vec![];
    for (name, value) in wanted {
        let got = property(&unit, name)?;
        if got != *value {
            wrong.push(format!("{name}: got {got:?}, wanted {value:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{unit}: {}", wrong.join("; "));
    Ok(())
}

fn file(c: &Container<'_>, controller: &str, name: &str, wanted: &str) -> Result<()> {
    eq(name, cgroup::value_of(c.pid()?, controller, name)?, wanted)
}

fn scope_of_a_slice(cx: &Cx) -> Result<()> {
    let mut b = sleeper(cx, json!({}))?;
    let name = cx.id();
    let slice = format!("{}-in.slice", cx.mark);
    b.set("/linux/cgroupsPath", json!(format!("{slice}:pre:{name}")));
    let c = b.start()?;
    let wanted = format!("/sys/fs/cgroup/{}.slice/{slice}/pre-{name}.scope", cx.mark);
    let got = cgroup::directory_of(c.pid()?, "pids")?;
    let path = got.strip_prefix("/sys/fs/cgroup").unwrap_or(&got);
    // On v1 below the name of a hierarchy; crun has a directory of its own below the scope.
    ensure!(
        path.ends_with(Path::new(&wanted).strip_prefix("/sys/fs/cgroup")?) || cx.kind == "crun",
        "{got:?} instead of {wanted}"
    );
    if cx.kind != "crun" {
        shows(
            &c,
            &[
                ("Slice", &slice),
                ("Delegate", "yes"),
                ("DefaultDependencies", "no"),
                ("ActiveState", "active"),
            ],
        )?;
    }
    c.end()?;
    // A slice lives on once something has asked for it.
    systemctl(&["stop", "--", &slice, &format!("{}.slice", cx.mark)])?;
    // Nor does systemd know of the hierarchies of v1 that it does not use.
    cgroup::remove(&format!("/{}.slice", cx.mark))
}

fn scope_without_a_path(cx: &Cx) -> Result<()> {
    let mut b = sleeper(cx, json!({}))?;
    b.remove("/linux/cgroupsPath");
    let c = b.start()?;
    let dir = cgroup::directory_of(c.pid()?, "pids")?;
    let text = dir.display().to_string();
    let end = format!("{}-{}.scope", cx.kind, c.id);
    ensure!(text.contains(&format!("/system.slice/{end}")), "{text}");
    c.end()
}

fn bad_paths(cx: &Cx) -> Result<()> {
    let mut b = sleeper(cx, json!({}))?;
    let before = cx.snapshot()?;
    for (path, phrase) in [
        (
            "/a/b",
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead",
        ),
        ("a:b", "expected cgroupsPath to be of format"),
        ("a:b:c:d", "expected cgroupsPath to be of format"),
        ("a--b.slice:x:y", "invalid slice name: a--b.slice"),
        ("-b.slice:x:y", "invalid slice name: -b.slice"),
        ("a.scope:x:y", "invalid slice name: a.scope"),
    ] {
        b.set("/linux/cgroupsPath", json!(path)).save()?;
        b.container().create(&[])?.fails(&[phrase])?;
        cx.nothing_left(&before)?;
    }
    Ok(())
}

fn limits_v2(cx: &Cx) -> Result<()> {
    let b = sleeper(
        cx,
        json!({
            "memory": {"limit": 33_554_432, "reservation": 25_165_824, "swap": 50_331_648},
            "cpu": {"shares": 512, "quota": 50_000, "period": 200_000},
            "pids": {"limit": 20}
        }),
    )?;
    cx.need_unified(true)?;
    let c = b.start()?;
    if cx.kind != "crun" {
        shows(
            &c,
            &[
                ("MemoryMax", "33554432"),
                ("MemoryLow", "25165824"),
                ("MemorySwapMax", "16777216"),
                ("CPUWeight", "59"),
                ("CPUQuotaPerSecUSec", "250ms"),
                ("CPUQuotaPeriodUSec", "200ms"),
                ("TasksMax", "20"),
            ],
        )?;
        file(&c, "memory", "memory.max", "33554432")?;
        file(&c, "memory", "memory.low", "25165824")?;
        file(&c, "memory", "memory.swap.max", "16777216")?;
        file(&c, "cpu", "cpu.weight", "59")?;
        file(&c, "cpu", "cpu.max", "50000 200000")?;
        file(&c, "pids", "pids.max", "20")?;
    }
    c.end()
}

fn limits_v1(cx: &Cx) -> Result<()> {
    let b = sleeper(
        cx,
        json!({"cpu": {"shares": 512, "quota": 50_000, "period": 200_000}, "pids": {"limit": 20}}),
    )?;
    cx.need_unified(false)?;
    let c = b.start()?;
    shows(
        &c,
        &[
            ("CPUShares", "512"),
            ("CPUQuotaPerSecUSec", "250ms"),
            ("CPUQuotaPeriodUSec", "200ms"),
            ("TasksMax", "20"),
        ],
    )?;
    file(&c, "cpu", "cpu.shares", "512")?;
    file(&c, "cpu", "cpu.cfs_quota_us", "50000")?;
    file(&c, "cpu", "cpu.cfs_period_us", "200000")?;
    file(&c, "pids", "pids.max", "20")?;
    // Hierarchies that systemd does not know or was not asked for have the container as well.
    for controller in ["freezer", "net_cls", "blkio", "devices"] {
        if cgroup::has(controller) {
            let dir = cgroup::directory_of(c.pid()?, controller)?;
            ensure!(dir.ends_with(unit(&c)?), "{controller}: {dir:?}");
        }
    }
    c.end()
}

/// systemd knows hundredths of a processor; the file has the same, or a cgroup below could not have what it asks for.
fn cpu_quota_is_rounded(cx: &Cx) -> Result<()> {
    let c = sleeper(cx, json!({"cpu": {"quota": 5_000, "period": 33_333}}))?.start()?;
    if cx.unified() {
        file(&c, "cpu", "cpu.max", "5333 33333")?;
    } else {
        file(&c, "cpu", "cpu.cfs_quota_us", "5333")?;
    }
    shows(&c, &[("CPUQuotaPerSecUSec", "160ms")])?;
    c.end()
}

fn unified_v2(cx: &Cx) -> Result<()> {
    let b = sleeper(
        cx,
        json!({
            "memory": {"limit": 33_554_432},
            "cpu": {"shares": 3333},
            "unified": {
                "memory.min": "131072", "memory.low": "524288", "memory.high": "20971520", "memory.max": "41943040",
                "pids.max": "99", "cpu.max": "10000 100000", "cpu.weight": "42"
            }
        }),
    )?;
    cx.need_unified(true)?;
    let c = b.start()?;
    if cx.kind != "crun" {
        shows(
            &c,
            &[
                ("MemoryMin", "131072"),
                ("MemoryLow", "524288"),
                ("MemoryHigh", "20971520"),
                ("MemoryMax", "41943040"),
                ("TasksMax", "99"),
                ("CPUQuotaPerSecUSec", "100ms"),
                ("CPUWeight", "42"),
            ],
        )?;
        file(&c, "memory", "memory.max", "41943040")?;
        file(&c, "memory", "memory.high", "20971520")?;
        file(&c, "cpu", "cpu.weight", "42")?;
        file(&c, "cpu", "cpu.max", "10000 100000")?;
    }
    c.end()
}

/// What systemd is told when a container with these resources is created, and how that ended.
fn told(cx: &Cx, resources: Value) -> Result<(BTreeMap<String, Value>, Out)> {
    let mut b = sleeper(cx, resources)?;
    let name = cx.id();
    b.set("/linux/cgroupsPath", json!(format!("system.slice:told:{name}")));
    b.save()?;
    let monitor = Monitor::new(cx)?;
    let c = b.container();
    let bundle = c.bundle.display().to_string();
    let out = cx.cmd(&["create", "--bundle", &bundle, &c.id]).env(BUS.0, BUS.1).run()?;
    let properties = monitor.properties(&format!("told-{name}.scope"))?;
    ensure!(!properties.is_empty(), "systemd was told nothing: {out:?}");
    c.delete_force()?;
    Ok((properties, out))
}

/// On v1 runc with systemd leaves out, without a word, what has no controller.
fn refuses(cx: &Cx) -> bool {
    cx.unified() || cx.kind != "runc"
}

/// systemd is told of them whatever controllers there are, and keeps them; the files need theirs.
fn processors_and_nodes(cx: &Cx) -> Result<()> {
    let mut wanted = vec![(json!({"cpu": {"cpus": "0-2,9", "mems": "0"}}), json!([7, 2]), json!([1]))];
    if cx.unified() {
        // The later one stands.
        let unified = json!({"cpu": {"cpus": "1"}, "unified": {"cpuset.cpus": "3", "cpuset.mems": "0-1"}});
        wanted.push((unified, json!([8]), json!([3])));
    }
    for (resources, cpus, nodes) in wanted {
        let (properties, out) = told(cx, resources)?;
        for (name, wanted) in [("AllowedCPUs", cpus), ("AllowedMemoryNodes", nodes)] {
            same(name, properties.get(name).unwrap_or(&Value::Null), wanted)?;
        }
        if !cgroup::has("cpuset") && refuses(cx) {
            out.fails(&["cpuset"])?;
        }
    }
    Ok(())
}

/// These have no property: the files alone, or a refusal where the controller is not there.
fn limits_without_property(cx: &Cx) -> Result<()> {
    let (plain, out) = told(cx, json!({}))?;
    out.ok()?;
    let resources = [
        ("hugetlb", json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]})),
        ("rdma", json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10_000}}})),
    ];
    for (controller, resources) in resources {
        let (properties, out) = told(cx, resources)?;
        let names = |all: &BTreeMap<String, Value>| all.keys().cloned().collect::<Vec<_>>();
        eq(controller, names(&properties), names(&plain))?;
        if !cgroup::has(controller) && refuses(cx) {
            out.fails(&[controller])?;
        }
    }
    Ok(())
}

fn oom_group_v2(cx: &Cx) -> Result<()> {
    let b = sleeper(cx, json!({"unified": {"memory.oom.group": "1"}}))?;
    cx.need_unified(true)?;
    let c = b.start()?;
    shows(&c, &[("OOMPolicy", "kill")])?;
    file(&c, "memory", "memory.oom.group", "1")?;
    c.end()
}

fn tasks_unlimited(cx: &Cx) -> Result<()> {
    let c = sleeper(cx, json!({"pids": {"limit": -1}}))?.start()?;
    if cx.kind != "crun" {
        shows(&c, &[("TasksMax", "infinity")])?;
        file(&c, "pids", "pids.max", "max")?;
    }
    c.end()
}

/// A unit that wants a reload nags whoever calls systemctl.
fn no_reload_is_needed_v2(cx: &Cx) -> Result<()> {
    let b = sleeper(cx, json!({"devices": [{"allow": false, "access": "rwm"}], "pids": {"limit": 20}}))?;
    cx.need_unified(true)?;
    let c = b.start()?;
    shows(&c, &[("NeedDaemonReload", "no")])?;
    c.end()
}

/// A character device without a driver, which only the rules keep from answering ENXIO.
fn node(b: &Bundle<'_>, name: &str, major: u64, minor: u64) -> Result<()> {
    nix::sys::stat::mknod(
        &b.rootfs().join("tmp").join(name),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::from_bits_truncate(0o666),
        nix::sys::stat::makedev(major, minor),
    )?;
    Ok(())
}

fn opens(c: &Container<'_>, wanted: &[(&str, &str, &str)]) -> Result<()> {
    for (path, mode, answer) in wanted {
        let out = c.exec(&[], &["open", path, mode])?;
        eq(&format!("open {path} {mode}"), out.stdout.trim(), *answer)?;
    }
    Ok(())
}

fn devices_stay_after_reload(cx: &Cx) -> Result<()> {
    let mut b = sleeper(cx, json!({}))?;
    b.set(
        "/linux/resources/devices",
        json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 60, "minor": 9, "access": "r"},
            {"allow": true, "type": "c", "major": 61, "access": "rw"}
        ]),
    );
    node(&b, "listed", 60, 9)?;
    node(&b, "other", 60, 8)?;
    node(&b, "any", 61, 5)?;
    let c = b.start()?;
    let rules = [
        ("/dev/null", "rw", "ok"),
        ("/dev/zero", "r", "ok"),
        ("/tmp/listed", "r", "ENXIO"),
        ("/tmp/listed", "w", "EPERM"),
        ("/tmp/other", "r", "EPERM"),
        ("/tmp/any", "rw", "ENXIO"),
    ];
    opens(&c, &rules)?;
    systemctl(&["daemon-reload"])?;
    opens(&c, &rules)?;
    // Any change of the unit makes systemd look at its rules again.
    cx.rt(&["update", "--pids-limit", "100", &c.id])?.ok()?;
    systemctl(&["daemon-reload"])?;
    opens(&c, &rules)?;
    c.end()
}

fn devices_that_systemd_cannot_name(cx: &Cx) -> Result<()> {
    let mut b = sleeper(cx, json!({}))?;
    b.set(
        "/linux/resources/devices",
        json!([
            {"allow": true, "access": "rwm"},
            {"allow": false, "type": "c", "major": 60, "minor": 9, "access": "rwm"}
        ]),
    );
    node(&b, "denied", 60, 9)?;
    node(&b, "other", 60, 8)?;
    let c = b.start()?;
    let rules = [("/dev/null", "rw", "ok"), ("/tmp/denied", "r", "EPERM"), ("/tmp/other", "r", "ENXIO")];
    opens(&c, &rules)?;
    if cx.unified() && cx.kind == "naru" {
        systemctl(&["daemon-reload"])?;
        opens(&c, &rules)?;
    }
    c.end()
}

fn all_devices(cx: &Cx) -> Result<()> {
    let mut b = sleeper(cx, json!({}))?;
    b.set("/linux/resources/devices", json!([{"allow": true, "access": "rwm"}]));
    node(&b, "any", 60, 9)?;
    let c = b.start()?;
    if cx.kind != "crun" {
        shows(&c, &[("DevicePolicy", "auto"), ("DeviceAllow", "")])?;
    }
    opens(&c, &[("/tmp/any", "rw", "ENXIO")])?;
    systemctl(&["daemon-reload"])?;
    opens(&c, &[("/tmp/any", "rw", "ENXIO")])?;
    c.end()
}

fn annotations(cx: &Cx) -> Result<()> {
    let mut b = sleeper(cx, json!({}))?;
    b.set(
        "/annotations",
        json!({
            "org.systemd.property.TimeoutStopUSec": "uint64 123000000",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.After": "['dbus.socket']",
            "org.example.other": "['"
        }),
    );
    let c = b.start()?;
    if cx.kind != "crun" {
        shows(&c, &[("TimeoutStopUSec", "2min 3s"), ("CollectMode", "inactive-or-failed")])?;
        let after = property(&unit(&c)?, "After")?;
        ensure!(after.contains("dbus.socket"), "After: {after}");
    }
    c.end()?;
    b.set("/annotations", json!({"org.systemd.property.RuntimeMaxSec": "90"}));
    let c = b.start()?;
    if cx.kind != "crun" {
        shows(&c, &[("RuntimeMaxUSec", "1min 30s")])?;
    }
    c.end()
}

fn bad_annotations(cx: &Cx) -> Result<()> {
    let mut b = sleeper(cx, json!({}))?;
    let before = cx.snapshot()?;
    for (name, value, phrase) in [
        ("ab", "1", "annotation org.systemd.property.ab name incorrect: too short"),
        (
            "A_bc",
            "1",
            "annotation org.systemd.property.A_bc name incorrect: contains non-alphabetic character",
        ),
        ("TimeoutStopSec", "'x'", "value parse error"),
        ("After", "['a", "value parse error"),
        ("NoSuchProperty", "1", "NoSuchProperty"),
    ] {
        b.set("/annotations", json!({format!("org.systemd.property.{name}"): value})).save()?;
        b.container().create(&[])?.fails(&[phrase])?;
        cx.nothing_left(&before)?;
    }
    Ok(())
}

/// No such types, paths, signatures: a bus ends the connection over them.
fn annotations_of_no_type(cx: &Cx) -> Result<()> {
    let mut b = sleeper(cx, json!({}))?;
    let before = cx.snapshot()?;
    for value in
        ["@a{} []", "@a{vs} {}", "@(s} ('a',)", "@a() []", "<{[1]: 2}>", "objectpath 'a'", "signature 'a{}'"]
    {
        b.set("/annotations", json!({"org.systemd.property.After": value})).save()?;
        b.container().create(&[])?.fails(&["org.systemd.property.After", "value parse error"])?.one_line()?;
        cx.nothing_left(&before)?;
    }
    Ok(())
}

fn update_tells_systemd(cx: &Cx) -> Result<()> {
    let c =
        sleeper(cx, json!({"pids": {"limit": 20}, "cpu": {"quota": 20_000, "period": 100_000}}))?.start()?;
    let update = |flags: &[&str]| cx.rt(&[&["update"], flags, &[&c.id]].concat());
    update(&["--pids-limit", "10", "--cpu-quota", "33333"])?.ok()?;
    shows(&c, &[("TasksMax", "10"), ("CPUQuotaPerSecUSec", "340ms")])?;
    file(&c, "pids", "pids.max", "10")?;
    let quota = |wanted: i64, period: u64| match cx.unified() {
        true => file(&c, "cpu", "cpu.max", &format!("{wanted} {period}")),
        false => file(&c, "cpu", "cpu.cfs_quota_us", &wanted.to_string()),
    };
    quota(34_000, 100_000)?;
    update(&["--cpu-quota", "34000"])?.ok()?;
    // The other half stays.
    update(&["--cpu-period", "50000"])?.ok()?;
    shows(&c, &[("CPUQuotaPeriodUSec", "50ms"), ("CPUQuotaPerSecUSec", "680ms")])?;
    quota(34_000, 50_000)?;
    update(&["--pids-limit", "-1"])?.ok()?;
    shows(&c, &[("TasksMax", "infinity")])?;
    if cgroup::has("memory") && cx.unified() {
        update(&["--memory", "67108864", "--memory-swap", "100663296"])?.ok()?;
        shows(&c, &[("MemoryMax", "67108864"), ("MemorySwapMax", "33554432")])?;
        update(&["--memory", "-1"])?.ok()?;
        shows(&c, &[("MemoryMax", "infinity"), ("MemorySwapMax", "infinity")])?;
    }
    // What is refused changes neither.
    let bad = match cx.unified() {
        true => json!({"pids": {"limit": 7}, "unified": {"pids.nothing": "1"}}),
        false => {
            json!({"pids": {"limit": 7}, "blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 1, "rate": 1}]}})
        }
    };
    let out = cx.cmd(&["update", "--resources=-", &c.id]).input(bad.to_string().as_bytes()).run()?;
    ensure!(out.code == 1, "{out:?}");
    if cx.kind == "naru" {
        shows(&c, &[("TasksMax", "infinity")])?;
        file(&c, "pids", "pids.max", "max")?;
    }
    systemctl(&["daemon-reload"])?;
    quota(34_000, 50_000)?;
    c.end()
}

/// systemd has one property for the two.
fn weight_or_idleness_v2(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    let c = sleeper(cx, json!({"cpu": {"shares": 200}}))?.start()?;
    let update = |json: Value| {
        let out =
            cx.cmd(&["update", "--resources=-", &c.id]).input(json.to_string().as_bytes()).run()?.ok()?;
        Ok::<bool, anyhow::Error>(out.stderr.contains("unable to apply both"))
    };
    for both in
        [json!({"cpu": {"shares": 200, "idle": 1}}), json!({"unified": {"cpu.idle": "1", "cpu.weight": "8"}})]
    {
        ensure!(update(both.clone())?, "{both}: not a word of what is ignored");
        file(&c, "cpu", "cpu.idle", "1")?;
        for weight in [json!({"cpu": {"shares": 300}}), json!({"unified": {"cpu.weight": "8"}})] {
            ensure!(!update(weight.clone())?, "{weight}: a warning");
            file(&c, "cpu", "cpu.idle", "0")?;
            update(json!({"cpu": {"idle": 1}}))?;
            file(&c, "cpu", "cpu.idle", "1")?;
        }
    }
    systemctl(&["daemon-reload"])?;
    file(&c, "cpu", "cpu.idle", "1")?;
    c.end()
}

/// Engines give the flag to create alone.
fn update_without_the_flag(cx: &Cx) -> Result<()> {
    let c = sleeper(cx, json!({"pids": {"limit": 20}}))?.start()?;
    let root = cx.root.display().to_string();
    let bare = |args: &[&str]| cx.bare(&[&["--root", &root], args].concat()).run();
    bare(&["update", "--pids-limit", "11", &c.id])?.ok()?;
    if cx.kind != "crun" {
        shows(&c, &[("TasksMax", "11")])?;
    }
    bare(&["exec", &c.id, "/bin/probe", "true"])?.ok()?;
    bare(&["pause", &c.id])?.ok()?;
    bare(&["resume", &c.id])?.ok()?;
    bare(&["delete", "--force", &c.id])?.ok()?;
    Ok(())
}

fn failed_unit_is_removed(cx: &Cx) -> Result<()> {
    let mut b = sleeper(cx, json!({}))?;
    b.set(
        "/annotations",
        json!({"org.systemd.property.RuntimeMaxUSec": "uint64 300000", "org.systemd.property.TimeoutStopUSec": "uint64 100000"}),
    );
    let c = b.start()?;
    let (pid, unit) = (c.pid()?, unit(&c)?);
    reap(pid)?;
    wait_for("the unit to fail", || Ok((property(&unit, "ActiveState")? == "failed").then_some(())))?;
    c.delete()?.ok()?;
    eq("unit", property(&unit, "LoadState")?, "not-found")?;
    // Its name is free.
    b.remove("/annotations");
    let c = b.start()?;
    c.end()
}

fn unit_in_use(cx: &Cx) -> Result<()> {
    let b = sleeper(cx, json!({}))?;
    let first = b.start()?;
    let second = b.container();
    let out = second.create(&[])?;
    ensure!(out.code == 1, "a unit in use was taken: {out:?}");
    if cx.kind != "crun" {
        out.fails(&["container's cgroup is not empty: 1 process(es) found"])?;
    }
    first.is("running")?;
    // One that has no processes and is not ours.
    let name = format!("suite-{}", cx.id());
    systemctl(&["start", "dbus.socket"])?;
    systemd_run(&name)?;
    let mut b = sleeper(cx, json!({}))?;
    b.set("/linux/cgroupsPath", json!(format!("system.slice:suite:{}", &name[6..])));
    b.save()?;
    let out = b.container().create(&[])?;
    ensure!(out.code == 1, "a unit of somebody else's was taken: {out:?}");
    eq("the other unit", property(&format!("{name}.scope"), "ActiveState")?, "active")?;
    systemctl(&["kill", "--signal=KILL", "--", &format!("{name}.scope")])?;
    crate::leaks::reap();
    // On v1 systemd is not told of its end; on v2 it may know already.
    let _ = systemctl(&["stop", "--", &format!("{name}.scope")]);
    first.end()
}

/// A scope of this name with a process that sleeps.
fn systemd_run(name: &str) -> Result<()> {
    std::process::Command::new("systemd-run")
        .args(["--scope", "--quiet", &format!("--unit={name}"), "--", "sleep", "60"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()?;
    wait_for("the other unit", || {
        Ok((property(&format!("{name}.scope"), "ActiveState")? == "active").then_some(()))
    })
}

fn failing_create_leaves_no_unit(cx: &Cx) -> Result<()> {
    let mut b = sleeper(cx, json!({}))?;
    let before = cx.snapshot()?;
    b.set("/process/args", json!(["/no/such/program"])).save()?;
    b.container().create(&[])?.fails(&["no such file or directory"])?;
    cx.nothing_left(&before)?;
    b.probe(&["true"]).hook("createRuntime", &["exit", "1"]);
    b.save()?;
    ensure!(b.container().create(&[])?.code == 1, "a failing hook was ignored");
    cx.nothing_left(&before)?;
    b.remove("/hooks").set("/linux/resources/pids", json!({"limit": 20}));
    if cx.unified() {
        b.set("/linux/resources/unified", json!({"pids.nothing": "1"}));
    } else {
        b.set(
            "/linux/resources/blockIO",
            json!({"throttleReadBpsDevice": [{"major": 4000, "minor": 1, "rate": 1}]}),
        );
    }
    b.save()?;
    ensure!(b.container().create(&[])?.code == 1, "a limit that cannot be set was ignored");
    cx.nothing_left(&before)
}

fn exec_is_in_the_scope(cx: &Cx) -> Result<()> {
    let b = sleeper(cx, json!({"pids": {"limit": 20}}))?;
    let c = b.start()?;
    let init = fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?;
    let pid_file = cx.path("pid");
    c.exec(&["--detach", "--pid-file", &pid_file.display().to_string()], &["sleep"])?.ok()?;
    let pid: i32 = fs::read_to_string(&pid_file)?.parse()?;
    eq("cgroups of the second process", fs::read_to_string(format!("/proc/{pid}/cgroup"))?, init)?;
    let out = cx.rt(&["ps", "--format", "json", &c.id])?.ok()?;
    let pids: Vec<i32> = serde_json::from_str(&out.stdout)?;
    ensure!(pids.contains(&pid) && pids.contains(&c.pid()?), "{pids:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    reap(pid)?;
    c.end()
}

fn pause_and_resume(cx: &Cx) -> Result<()> {
    let c = sleeper(cx, json!({}))?.start()?;
    cx.rt(&["pause", &c.id])?.ok()?;
    c.is("paused")?;
    // Limits can be changed meanwhile, and it stays paused.
    cx.rt(&["update", "--pids-limit", "50", &c.id])?.ok()?;
    c.is("paused")?;
    cx.rt(&["resume", &c.id])?.ok()?;
    c.is("running")?;
    cx.rt(&["pause", &c.id])?.ok()?;
    c.delete_force()?;
    Ok(())
}

/// Connections break, units stay.
fn systemd_executed_anew(cx: &Cx) -> Result<()> {
    let c = sleeper(cx, json!({"pids": {"limit": 20}}))?.start()?;
    systemctl(&["daemon-reexec"])?;
    cx.rt(&["update", "--pids-limit", "10", &c.id])?.ok()?;
    if cx.kind != "crun" {
        shows(&c, &[("TasksMax", "10")])?;
        file(&c, "pids", "pids.max", "10")?;
    }
    c.end()
}
