//! Changing limits: every flag and the JSON form, what an update keeps, and that a failed one changes nothing.

use super::tests;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::container::{Container, reap};
use crate::cx::{Cx, Out, eq, skip};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;

tests!["update":
    pids,
    memory deviates ["crun" = "takes an empty value for 0"],
    memory_reclaim_v2,
    memory_units deviates ["crun" = "knows no units"],
    memory_swap deviates ["crun" = "knows no units"],
    memory_unlimited_lifts_swap deviates ["crun" = "leaves the limit of swap"],
    memory_below_usage_v1 deviates ["crun" = "has words of its own"],
    memory_checked_before_update_v2 deviates ["crun" = "has words of its own"],
    kernel_memory_is_ignored deviates ["crun" = "refuses it on v2"],
    cpu_quota_and_period_keep_each_other deviates ["crun" = "forgets the quota on v2"],
    cpu_burst deviates ["crun" = "has no such flag"],
    cpu_shares,
    cpu_idle deviates ["crun" = "has no such flag"],
    cpuset,
    hugetlb deviates ["runc" = "leaves them out of an update"],
    unified_v2,
    from_stdin deviates ["crun" = "wants the controller of an empty section"],
    from_stdin_that_stays_open deviates ["crun" = "waits for the end of the file"],
    from_file deviates ["crun" = "has words of its own"],
    resources_win_over_flags,
    nothing_asked deviates ["crun" = "takes no text after the first value"],
    bad_values deviates ["crun" = "has words of its own"],
    bad_json deviates ["runc" = "tells no file", "crun" = "has words of its own"],
    unknown_or_no_container deviates ["crun" = "has words of its own"],
    states deviates ["crun" = "has words of its own"],
    failure_changes_nothing deviates ["runc" = "does not take back all that it has set", "crun" = "takes back nothing"],
    what_cannot_be_stored_is_taken_back deviates ["runc" = "leaves it in force", "crun" = "stores nothing"],
    later_updates_know_earlier_ones deviates ["crun" = "knows no units"],
    at_the_same_time deviates ["runc" = "may lose one of them", "crun" = "forgets the quota on v2"],
    device_rules_stay deviates ["crun" = "sets the rules it is given"],
    no_cache_schema_without_rdt deviates ["crun" = "does not look"],
];

/// The controller, the file and the value on v1 and on v2.
type Place = (&'static str, &'static str, &'static str);

const PIDS: Place = ("pids", "pids.max", "pids.max");
const LIMIT: Place = ("memory", "memory.limit_in_bytes", "memory.max");
const RESERVATION: Place = ("memory", "memory.soft_limit_in_bytes", "memory.low");
const NO_LIMIT_V1: &str = "9223372036854771712";

fn limited(cx: &Cx, resources: Value) -> Result<Bundle<'_>> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    for (key, value) in resources.as_object().into_iter().flatten() {
        b.set(&format!("/linux/resources/{key}"), value.clone());
    }
    Ok(b)
}

fn update(c: &Container<'_>, flags: &[&str]) -> Result<Out> {
    let mut args = vec!["update"];
    args.extend(flags);
    args.push(&c.id);
    c.cx.rt(&args)
}

/// Updates with JSON on stdin, as engines do.
fn update_json(c: &Container<'_>, resources: &Value) -> Result<Out> {
    c.cx.cmd(&["update", "--resources=-", &c.id]).input(resources.to_string().as_bytes()).run()
}

fn value(c: &Container<'_>, (controller, v1, v2): Place) -> Result<String> {
    cgroup::value_of(c.pid()?, controller, if cgroup::unified() { v2 } else { v1 })
}

fn is(c: &Container<'_>, place: Place, wanted: &str) -> Result<()> {
    eq(if cgroup::unified() { place.2 } else { place.1 }, value(c, place)?, wanted)
}

/// Quota and period, `-1` for no quota.
fn bandwidth(c: &Container<'_>) -> Result<(i64, u64)> {
    let pid = c.pid()?;
    if cgroup::unified() {
        let text = cgroup::value_of(pid, "cpu", "cpu.max")?;
        let (quota, period) = text.split_once(' ').unwrap_or((&text, ""));
        return Ok((if quota == "max" { -1 } else { quota.parse()? }, period.parse()?));
    }
    let read = |file: &str| cgroup::value_of(pid, "cpu", file);
    Ok((read("cpu.cfs_quota_us")?.parse()?, read("cpu.cfs_period_us")?.parse()?))
}

fn has_file(c: &Container<'_>, controller: &str, file: &str) -> Result<bool> {
    Ok(cgroup::directory_of(c.pid()?, controller)?.join(file).exists())
}

fn pids(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    let c = limited(cx, json!({"pids": {"limit": 20}}))?.start()?;
    is(&c, PIDS, "20")?;
    for (flag, wanted) in [("10", "10"), ("30", "30"), ("-1", "max"), ("5", "5")] {
        update(&c, &["--pids-limit", flag])?.ok()?;
        is(&c, PIDS, wanted)?;
    }
    // Nobody could want a container without processes.
    update(&c, &["--pids-limit=0"])?.ok()?;
    let now = value(&c, PIDS)?;
    ensure!(["5", "1"].contains(&now.as_str()), "pids.max is {now}");
    c.end()
}

fn memory(cx: &Cx) -> Result<()> {
    cx.need_controller("memory")?;
    let c = limited(cx, json!({"memory": {"limit": 33_554_432, "reservation": 25_165_824}}))?.start()?;
    update(&c, &["--memory", "67108864"])?.ok()?;
    is(&c, LIMIT, "67108864")?;
    is(&c, RESERVATION, "25165824")?;
    update(&c, &["--memory-reservation", "33554432"])?.ok()?;
    is(&c, LIMIT, "67108864")?;
    is(&c, RESERVATION, "33554432")?;
    update(&c, &["--memory", ""])?.ok()?;
    update_json(&c, &json!({"memory": {"limit": 0, "reservation": 0}}))?.ok()?;
    is(&c, LIMIT, "67108864")?;
    is(&c, RESERVATION, "33554432")?;
    c.end()
}

/// A file that cannot be read. The kernel may find nothing to give back.
fn memory_reclaim_v2(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    cx.need_controller("memory")?;
    let c = limited(cx, json!({}))?.start()?;
    if has_file(&c, "memory", "memory.reclaim")? {
        let out = update_json(&c, &json!({"unified": {"memory.reclaim": "4096"}}))?;
        // EAGAIN, in each runtime's words.
        let nothing_found = ["try again", "temporarily"].iter().any(|words| out.stderr.contains(words));
        ensure!(out.code == 0 || nothing_found, "{}", out.said());
    }
    c.end()
}

fn memory_units(cx: &Cx) -> Result<()> {
    cx.need_controller("memory")?;
    let c = limited(cx, json!({}))?.start()?;
    for (flag, wanted) in [
        ("67108864", "67108864"),
        ("32768k", "33554432"),
        ("64M", "67108864"),
        ("32mb", "33554432"),
        ("64MiB", "67108864"),
        ("1g", "1073741824"),
        ("0.5GB", "536870912"),
        ("1.5m", "1572864"),
        ("134217728b", "134217728"),
    ] {
        update(&c, &["--memory-reservation", flag])?.ok()?;
        is(&c, RESERVATION, wanted)?;
    }
    c.end()
}

fn memory_swap(cx: &Cx) -> Result<()> {
    cx.need_controller("memory")?;
    let c = limited(cx, json!({"memory": {"limit": 33_554_432}}))?.start()?;
    let (file, both, swap): (&str, Place, bool) = match cx.unified() {
        true => ("memory.swap.max", ("memory", "", "memory.swap.max"), true),
        false => ("memory.memsw.limit_in_bytes", ("memory", "memory.memsw.limit_in_bytes", ""), false),
    };
    if !has_file(&c, "memory", file)? {
        c.end()?;
        return skip("no accounting of swap here");
    }
    let expect = |total: u64, limit: u64| if swap { (total - limit).to_string() } else { total.to_string() };
    const M: u64 = 1 << 20;
    update(&c, &["--memory", "64m", "--memory-swap", "96m"])?.ok()?;
    is(&c, LIMIT, &(64 * M).to_string())?;
    is(&c, both, &expect(96 * M, 64 * M))?;
    // Down and up again: the kernel of v1 takes the two in one order only.
    update(&c, &["--memory", "32m", "--memory-swap", "32m"])?.ok()?;
    is(&c, both, &expect(32 * M, 32 * M))?;
    update(&c, &["--memory", "128m", "--memory-swap", "256m"])?.ok()?;
    is(&c, LIMIT, &(128 * M).to_string())?;
    is(&c, both, &expect(256 * M, 128 * M))?;
    update(&c, &["--memory-swap", "-1"])?.ok()?;
    is(&c, both, if swap { "max" } else { NO_LIMIT_V1 })?;
    is(&c, LIMIT, &(128 * M).to_string())?;
    c.end()
}

fn memory_unlimited_lifts_swap(cx: &Cx) -> Result<()> {
    cx.need_controller("memory")?;
    let b = limited(cx, json!({"memory": {"limit": 33_554_432, "swap": 67_108_864}}))?;
    b.save()?;
    let c = b.container();
    if c.create(&[])?.code != 0 {
        return skip("no accounting of swap here");
    }
    c.start()?.ok()?;
    update(&c, &["--memory", "-1"])?.ok()?;
    is(&c, LIMIT, if cx.unified() { "max" } else { NO_LIMIT_V1 })?;
    is(
        &c,
        ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
        if cx.unified() { "max" } else { NO_LIMIT_V1 },
    )?;
    update(&c, &["--memory", "32m"])?.ok()?;
    is(&c, LIMIT, "33554432")?;
    c.end()
}

fn memory_below_usage_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("memory")?;
    let c = limited(cx, json!({"memory": {"limit": 33_554_432}}))?.start()?;
    update(&c, &["--memory", "4096"])?
        .fails(&["unable to set memory limit to 4096 (current usage: ", "peak usage: "])?;
    is(&c, LIMIT, "33554432")?;
    c.is("running")?;
    c.end()
}

fn memory_checked_before_update_v2(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    cx.need_controller("memory")?;
    let c = limited(cx, json!({"memory": {"limit": 33_554_432}}))?.start()?;
    update_json(&c, &json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}))?
        .fails(&["rejecting memory limit 4096 <= usage "])?;
    is(&c, LIMIT, "33554432")?;
    c.is("running")?;
    c.end()
}

fn kernel_memory_is_ignored(cx: &Cx) -> Result<()> {
    let c = limited(cx, json!({}))?.start()?;
    update(&c, &["--kernel-memory", "64m", "--kernel-memory-tcp", "64m"])?.ok()?;
    c.end()
}

fn cpu_quota_and_period_keep_each_other(cx: &Cx) -> Result<()> {
    cx.need_controller("cpu")?;
    let c = limited(cx, json!({"cpu": {"quota": 50_000, "period": 100_000}}))?.start()?;
    for (flags, wanted) in [
        (&["--cpu-quota", "60000"][..], (60_000, 100_000)),
        (&["--cpu-period", "50000"], (60_000, 50_000)),
        (&["--cpu-quota=-1"], (-1, 50_000)),
        (&["--cpu-quota", "20000", "--cpu-period", "40000"], (20_000, 40_000)),
        (&["--cpu-quota", "0"], (20_000, 40_000)),
        (&["--cpu-period", "0"], (20_000, 40_000)),
    ] {
        update(&c, flags)?.ok()?;
        eq(&flags.join(" "), bandwidth(&c)?, wanted)?;
    }
    c.end()
}

fn cpu_burst(cx: &Cx) -> Result<()> {
    cx.need_controller("cpu")?;
    const BURST: Place = ("cpu", "cpu.cfs_burst_us", "cpu.max.burst");
    let c = limited(cx, json!({"cpu": {"quota": 50_000, "period": 100_000}}))?.start()?;
    if !has_file(&c, "cpu", if cx.unified() { BURST.2 } else { BURST.1 })? {
        c.end()?;
        return skip("no burst here");
    }
    update(&c, &["--cpu-burst", "30000"])?.ok()?;
    is(&c, BURST, "30000")?;
    update(&c, &["--cpu-burst", "0"])?.ok()?;
    is(&c, BURST, "0")?;
    c.end()
}

const WEIGHT: Place = ("cpu", "cpu.shares", "cpu.weight");

fn cpu_shares(cx: &Cx) -> Result<()> {
    cx.need_controller("cpu")?;
    let c = limited(cx, json!({"cpu": {"shares": 100}}))?.start()?;
    update(&c, &["--cpu-share", "2048"])?.ok()?;
    let v2 = value(&c, WEIGHT)?;
    ensure!(if cx.unified() { v2 != "17" } else { v2 == "2048" }, "weight is {v2}");
    let before = value(&c, WEIGHT)?;
    update(&c, &["--cpu-share", "0"])?.ok()?;
    is(&c, WEIGHT, &before)?;
    c.end()
}

fn cpu_idle(cx: &Cx) -> Result<()> {
    cx.need_controller("cpu")?;
    let c = limited(cx, json!({"cpu": {"shares": 100}}))?.start()?;
    if !has_file(&c, "cpu", "cpu.idle")? {
        c.end()?;
        return skip("no cpu.idle here");
    }
    // An idle cgroup takes no weight, so the old one must not be written along.
    for idle in ["1", "0", "1", "0"] {
        update(&c, &["--cpu-idle", idle])?.ok()?;
        is(&c, ("cpu", "cpu.idle", "cpu.idle"), idle)?;
    }
    update(&c, &["--cpu-idle", "0", "--cpu-share", "2048"])?.ok()?;
    c.end()
}

fn cpuset(cx: &Cx) -> Result<()> {
    cx.need_controller("cpuset")?;
    let c = limited(cx, json!({}))?.start()?;
    update(&c, &["--cpuset-cpus", "0", "--cpuset-mems", "0"])?.ok()?;
    is(&c, ("cpuset", "cpuset.cpus", "cpuset.cpus"), "0")?;
    is(&c, ("cpuset", "cpuset.mems", "cpuset.mems"), "0")?;
    let allowed = fs::read_to_string(format!("/proc/{}/status", c.pid()?))?;
    ensure!(allowed.lines().any(|l| l == "Cpus_allowed_list:\t0"), "{allowed}");
    c.end()
}

fn hugetlb(cx: &Cx) -> Result<()> {
    cx.need_controller("hugetlb")?;
    let c = limited(cx, json!({}))?.start()?;
    const FILE: Place = ("hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
    if !has_file(&c, "hugetlb", if cx.unified() { FILE.2 } else { FILE.1 })? {
        c.end()?;
        return skip("no pages of 2 MiB here");
    }
    update_json(&c, &json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}))?.ok()?;
    is(&c, FILE, "4194304")?;
    c.end()
}

fn unified_v2(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    let c = limited(cx, json!({}))?.start()?;
    update_json(&c, &json!({"unified": {"cgroup.max.depth": "7"}}))?.ok()?;
    is(&c, ("", "", "cgroup.max.depth"), "7")?;
    update_json(&c, &json!({"unified": {"nosuch.max": "7"}}))?.fails(&["nosuch"])?;
    c.end()
}

fn from_stdin(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    let c = limited(cx, json!({"pids": {"limit": 20}}))?.start()?;
    // An engine may send every list, empty, and the devices as it has them.
    let sent = json!({"devices": [{"allow": true, "access": "rwm"}], "memory": {}, "cpu": {"shares": 0, "cpus": ""},
        "pids": {"limit": 33}, "blockIO": {"weight": 0}, "hugepageLimits": [], "network": {}, "future": {"a": 1}});
    for (n, flag) in [("33", "--resources=-"), ("34", "-r=-")] {
        let text = sent.to_string().replace("33", n);
        cx.cmd(&["update", flag, &c.id]).input(text.as_bytes()).run()?.ok()?;
        is(&c, PIDS, n)?;
    }
    c.end()
}

/// A caller that keeps its end of the pipe open has still said everything.
fn from_stdin_that_stays_open(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    let c = limited(cx, json!({"pids": {"limit": 20}}))?.start()?;
    let (read, write) = std::io::pipe()?;
    std::io::Write::write_all(&mut &write, br#"{"pids":{"limit":33}}"#)?;
    cx.cmd(&["update", "--resources", "-", &c.id]).stdin(Stdio::from(read)).run()?.ok()?;
    drop(write);
    is(&c, PIDS, "33")?;
    c.end()
}

fn from_file(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    let c = limited(cx, json!({"pids": {"limit": 20}}))?.start()?;
    let file = cx.path("resources.json");
    fs::write(&file, r#"{"pids": {"limit": 44}}"#)?;
    update(&c, &["--resources", &file.display().to_string()])?.ok()?;
    is(&c, PIDS, "44")?;
    update(&c, &["-r", "/nosuch/file"])?.fails(&["/nosuch/file", "no such file or directory"])?.one_line()?;
    update(&c, &["-r", "/"])?.fails(&["is a directory"])?.one_line()?;
    c.end()
}

fn resources_win_over_flags(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    let c = limited(cx, json!({"pids": {"limit": 20}}))?.start()?;
    cx.cmd(&["update", "--pids-limit", "12", "--memory", "x", "--resources=-", &c.id])
        .input(b"{}")
        .run()?
        .ok()?;
    is(&c, PIDS, "20")?;
    c.end()
}

fn nothing_asked(cx: &Cx) -> Result<()> {
    let c = limited(cx, json!({}))?.start()?;
    let out = update(&c, &[])?.ok()?;
    eq("output", out.stdout.as_str(), "")?;
    for text in ["{}", "null", "{} rest"] {
        cx.cmd(&["update", "-r", "-", &c.id]).input(text.as_bytes()).run()?.ok()?;
    }
    c.end()
}

fn bad_values(cx: &Cx) -> Result<()> {
    let c = limited(cx, json!({}))?.start()?;
    for (flags, phrase) in [
        (&["--memory", "x"][..], "invalid value for memory: invalid size: 'x'"),
        (&["--memory", "-5"], "invalid value for memory: invalid size: '-5'"),
        (&["--memory", "1mm"], "invalid value for memory: invalid "),
        (&["--memory-swap", "1 2"], "invalid value for memory-swap: "),
        (&["--memory-reservation", "m"], "invalid value for memory-reservation: invalid size: 'm'"),
        (&["--cpu-share", "x"], "invalid value for cpu-share: "),
        (&["--cpu-share", "-1"], "invalid syntax"),
        (&["--cpu-period", "1.5"], "invalid value for cpu-period: "),
        (&["--cpu-quota", "99999999999999999999"], "value out of range"),
        (&["--cpu-idle", "yes"], "invalid value for cpu-idle: "),
        (&["--cpu-burst", "-1"], "invalid value for cpu-burst: "),
        (&["--pids-limit", "x"], "invalid value \"x\" for flag -pids-limit: parse error"),
        (&["--blkio-weight", "x"], "invalid value \"x\" for flag -blkio-weight: parse error"),
        (&["--bogus"], "flag provided but not defined: -bogus"),
    ] {
        update(&c, flags)?.fails(&[phrase])?.one_line()?;
    }
    cx.rt(&["update", "--memory"])?.fails(&["flag needs an argument: -memory"])?;
    c.is("running")?;
    c.end()
}

fn bad_json(cx: &Cx) -> Result<()> {
    let c = limited(cx, json!({}))?.start()?;
    for (text, phrase) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("x", "stdin"),
        (r#"{"pids":"x"}"#, "pids"),
        (r#"{"cpu":{"shares":-1}}"#, "/cpu/shares"),
        (r#"{"memory":{"limit":"64m"}}"#, "/memory/limit"),
    ] {
        cx.cmd(&["update", "-r", "-", &c.id]).input(text.as_bytes()).run()?.fails(&[phrase])?.one_line()?;
    }
    c.end()
}

fn unknown_or_no_container(cx: &Cx) -> Result<()> {
    cx.rt(&["update", &cx.id()])?.fails(&["container does not exist"])?.one_line()?;
    cx.rt(&["update", "--pids-limit", "5", &cx.id()])?.fails(&["container does not exist"])?;
    cx.rt(&["update"])?.fails(&["\"update\" requires exactly 1 argument(s)"])?;
    cx.rt(&["update", "a", "b"])?.fails(&["\"update\" requires exactly 1 argument(s)"])?;
    cx.rt(&["update", ""])?.fails(&["container id cannot be empty"])?;
    cx.rt(&["update", "--help"])?.ok()?;
    Ok(())
}

fn states(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    let c = limited(cx, json!({"pids": {"limit": 20}}))?.create()?;
    update(&c, &["--pids-limit", "21"])?.ok()?;
    is(&c, PIDS, "21")?;
    c.is("created")?;
    c.start()?.ok()?;
    if cx.unified() || cgroup::has("freezer") {
        cx.rt(&["pause", &c.id])?.ok()?;
        update(&c, &["--pids-limit", "22"])?.ok()?;
        is(&c, PIDS, "22")?;
        c.is("paused")?;
        cx.rt(&["resume", &c.id])?.ok()?;
    }
    let pid = c.pid()?;
    c.kill("KILL")?.ok()?;
    reap(pid)?;
    update(&c, &["--pids-limit", "23"])?.fails(&["container not running"])?.one_line()?;
    update(&c, &[])?.fails(&["container not running"])?;
    c.delete()?.ok()?;
    Ok(())
}

/// All or nothing, and what was refused is not remembered either.
fn failure_changes_nothing(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    cx.need_controller("pids")?;
    cx.need_controller("cpu")?;
    cx.need_controller("memory")?;
    let c = limited(
        cx,
        json!({"pids": {"limit": 20}, "cpu": {"quota": 50_000, "period": 100_000}, "memory": {"limit": 33_554_432}}),
    )?
    .start()?;
    let check = |what: &str| {
        is(&c, PIDS, "20")?;
        is(&c, LIMIT, "33554432")?;
        eq(what, bandwidth(&c)?, (50_000, 100_000))
    };
    // The kernel refuses: a quota below a millisecond.
    for flags in [
        &["--pids-limit", "17", "--memory", "64m", "--cpu-quota", "10"][..],
        &["--pids-limit", "17", "--memory", "64m", "--cpu-period", "10"],
        &["--pids-limit", "17", "--memory", "64m", "--memory-swap", "32m"],
        &["--pids-limit", "17", "--memory", "64m", "--cpu-quota", "x"],
    ] {
        update(&c, flags)?.code(1)?.one_line()?;
        check(&flags.join(" "))?;
    }
    update(&c, &["--cpu-period", "50000"])?.ok()?;
    eq("after a refused quota", bandwidth(&c)?, (50_000, 50_000))?;
    c.end()
}

fn what_cannot_be_stored_is_taken_back(cx: &Cx) -> Result<()> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    cx.need_controller("cpu")?;
    let c = limited(cx, json!({"cpu": {"quota": 50_000, "period": 100_000}}))?.start()?;
    let none = None::<&str>;
    mount(Some(&cx.root), &cx.root, none, MsFlags::MS_BIND, none)?;
    mount(none, &cx.root, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
    let out = update(&c, &["--cpu-quota", "60000"]);
    let now = bandwidth(&c);
    umount2(&cx.root, MntFlags::MNT_DETACH)?;
    out?.fails(&["read-only file system"])?.one_line()?;
    eq("quota and period", now?, (50_000, 100_000))?;
    update(&c, &["--cpu-period", "50000"])?.ok()?;
    eq("quota and period", bandwidth(&c)?, (50_000, 50_000))?;
    c.end()
}

fn later_updates_know_earlier_ones(cx: &Cx) -> Result<()> {
    cx.need_controller("cpu")?;
    cx.need_controller("memory")?;
    let c = limited(cx, json!({}))?.create()?;
    update(&c, &["--cpu-period", "50000"])?.ok()?;
    c.start()?.ok()?;
    update(&c, &["--cpu-quota", "20000"])?.ok()?;
    eq("quota and period", bandwidth(&c)?, (20_000, 50_000))?;
    update(&c, &["--memory", "64m"])?.ok()?;
    update(&c, &["--memory-swap", "32m"])?.code(1)?;
    is(&c, LIMIT, "67108864")?;
    c.end()
}

/// Ten updates at once, half of them of the quota and half of the period: the last of each is in force.
fn at_the_same_time(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    cx.need_controller("cpu")?;
    let c = limited(cx, json!({"cpu": {"quota": 50_000, "period": 100_000}}))?.start()?;
    let mut running = vec![];
    for _ in 0..5 {
        for flag in ["--cpu-quota=30000", "--cpu-period=60000"] {
            running.push(cx.cmd(&["update", flag, &c.id]).spawn()?);
        }
    }
    for child in running {
        eq("exit", crate::container::finish(child)?, 0)?;
    }
    eq("quota and period", bandwidth(&c)?, (30_000, 60_000))?;
    // What is stored must be that, too.
    update(&c, &["--cpu-quota", "40000"])?.ok()?;
    eq("quota and period", bandwidth(&c)?, (40_000, 60_000))?;
    c.end()
}

fn device_rules_stay(cx: &Cx) -> Result<()> {
    if !cx.unified() {
        cx.need_controller("devices")?;
    }
    let mut b = limited(cx, json!({"devices": [{"allow": false, "access": "rwm"}]}))?;
    for set in ["bounding", "effective", "permitted"] {
        b.push(&format!("/process/capabilities/{set}"), json!("CAP_MKNOD"));
    }
    let c = b.start()?;
    let lists = |c: &Container<'_>| -> Result<String> {
        if cx.unified() { Ok(String::new()) } else { cgroup::value_of(c.pid()?, "devices", "devices.list") }
    };
    let denied = || -> Result<()> {
        let out = c.exec(
            &["--cap", "CAP_MKNOD"],
            &["seq", "open", "/dev/null", "w", "---", "open", "/tmp/loop", "r"],
        )?;
        ensure!(out.stdout.lines().next() == Some("ok"), "{:?}", out.stdout);
        ensure!(out.stdout.lines().nth(1) == Some("EPERM"), "a denied device was opened: {:?}", out.stdout);
        Ok(())
    };
    // From outside: a node the rules do not grant.
    nix::sys::stat::mknod(
        &b.rootfs().join("tmp/loop"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::from_bits_truncate(0o666),
        nix::sys::stat::makedev(1, 1),
    )?;
    denied()?;
    if !cx.unified() {
        // Somebody else's rule, as of a plugin for graphics cards.
        fs::write(cgroup::directory_of(c.pid()?, "devices")?.join("devices.allow"), "c 10:229 rw")?;
    }
    let before = lists(&c)?;
    update_json(&c, &json!({"devices": [{"allow": true, "access": "rwm"}]}))?.ok()?;
    update(&c, &[])?.ok()?;
    eq("device rules", lists(&c)?, before)?;
    denied()?;
    c.end()
}

fn no_cache_schema_without_rdt(cx: &Cx) -> Result<()> {
    if std::path::Path::new("/sys/fs/resctrl/info").exists() {
        return skip("this machine has resource control");
    }
    let c = limited(cx, json!({}))?.start()?;
    update(&c, &["--l3-cache-schema", "L3:0=f"])?
        .fails(&["Intel RDT/CAT: l3 cache schema is not enabled"])?;
    update(&c, &["--mem-bw-schema", "MB:0=20"])?
        .fails(&["Intel RDT/MBA: memory bandwidth schema is not enabled"])?;
    c.end()
}
