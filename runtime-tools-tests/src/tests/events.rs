//! `events`: the figures in runc's shape, at the interval asked for, and word of each time memory ran out.

use super::tests;
use crate::cgroup;
use crate::container::{Container, reap};
use crate::cx::{Cx, eq, same, skip, wait_for};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;

tests!["events":
    stats_once deviates ["crun" = "has no such command"],
    stats_follow_limits deviates ["crun" = "has no such command"],
    stats_of_created_and_paused deviates ["crun" = "has no such command"],
    at_an_interval deviates ["runc" = "goes on until the cgroup is gone on v1, and wants the memory controller on v2", "crun" = "has no such command"],
    out_of_memory deviates ["crun" = "has no such command"],
    out_of_memory_is_the_end deviates ["runc" = "goes on until the cgroup is gone on v1, and misses it on v2", "crun" = "has no such command"],
    not_running deviates ["crun" = "has no such command"],
    bad_interval deviates ["crun" = "has no such command"],
];

fn sleeping(cx: &Cx, resources: Value) -> Result<Container<'_>> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    for (key, value) in resources.as_object().into_iter().flatten() {
        b.set(&format!("/linux/resources/{key}"), value.clone());
    }
    b.create()
}

fn stats(c: &Container<'_>) -> Result<Value> {
    let out = c.cx.rt(&["events", "--stats", &c.id])?.ok()?;
    ensure!(out.stdout.ends_with("}\n") && out.lines().len() == 1, "not one line: {:?}", out.stdout);
    let event = out.json()?;
    eq("fields", event.as_object().map(|event| event.len()), Some(3))?;
    same("type", &event["type"], json!("stats"))?;
    same("id", &event["id"], json!(c.id))?;
    Ok(event["data"].clone())
}

/// Starts `events` in the background; its output.
fn watch(c: &Container<'_>, interval: &str) -> Result<(Child, PathBuf)> {
    let path = c.cx.path(&format!("events.{}", c.cx.next()));
    let mut cmd = c.cx.cmd(&["events", "--interval", interval, &c.id]);
    cmd.command().stdout(File::create(&path)?);
    Ok((cmd.spawn()?, path))
}

/// The lines so far, parsed; a line that is still being written is left out.
fn told(path: &PathBuf) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_string())).collect()
}

fn count(path: &PathBuf, kind: &str) -> Result<usize> {
    Ok(told(path)?.iter().filter(|event| event["type"] == kind).count())
}

fn stats_once(cx: &Cx) -> Result<()> {
    let c = sleeping(cx, json!({}))?;
    c.start()?.ok()?;
    let data = stats(&c)?;
    let fields: Vec<&str> = data.as_object().context("data")?.keys().map(String::as_str).collect();
    let wanted = ["blkio", "cpu", "cpuset", "hugetlb", "intel_rdt", "memory", "network_interfaces", "pids"];
    eq("fields", fields, wanted)?;
    same("network_interfaces", &data["network_interfaces"], json!(null))?;
    same("intel_rdt", &data["intel_rdt"], json!({}))?;
    for pointer in [
        "/cpu/usage/kernel",
        "/cpu/usage/user",
        "/cpuset/cpu_exclusive",
        "/cpuset/sched_relax_domain_level",
        "/memory/usage/limit",
        "/memory/usage/failcnt",
        "/memory/swap/limit",
        "/memory/kernel/limit",
        "/memory/kernelTCP/failcnt",
    ] {
        ensure!(data.pointer(pointer).is_some_and(Value::is_number), "no number at {pointer}: {data}");
    }
    ensure!(data["cpu"]["throttling"].is_object() && data["blkio"].is_object(), "{data}");
    if cx.unified() || cgroup::has("pids") {
        same("pids", &data["pids"]["current"], json!(1))?;
    }
    let counted = cx.unified() || cgroup::has("cpuacct");
    if counted && data["cpu"]["usage"]["total"].as_u64().unwrap_or(0) == 0 {
        c.end()?;
        return skip("this kernel counts no time that short");
    }
    c.end()
}

fn stats_follow_limits(cx: &Cx) -> Result<()> {
    cx.need_controller("pids")?;
    cx.need_controller("memory")?;
    let c = sleeping(cx, json!({"pids": {"limit": 20}, "memory": {"limit": 33_554_432}}))?;
    c.start()?.ok()?;
    let data = stats(&c)?;
    same("pids", &data["pids"], json!({"current": 1, "limit": 20}))?;
    same("limit", &data["memory"]["usage"]["limit"], json!(33_554_432))?;
    let usage = data["memory"]["usage"]["usage"].as_u64();
    ensure!(usage > Some(0) && data["memory"]["usage"]["max"].as_u64() >= usage, "{}", data["memory"]);
    // The kernel adds these up every two seconds.
    wait_for("page faults in memory.stat", || {
        Ok((stats(&c)?["memory"]["raw"]["pgfault"].as_u64() > Some(0)).then_some(()))
    })?;
    cx.rt(&["update", "--pids-limit", "-1", "--memory", "64m", &c.id])?.ok()?;
    let data = stats(&c)?;
    same("pids", &data["pids"], json!({"current": 1}))?;
    same("limit", &data["memory"]["usage"]["limit"], json!(67_108_864))?;
    if cgroup::has("cpuset") && !cx.unified() {
        ensure!(
            data["cpuset"]["cpus"][0].is_number() && data["cpuset"]["mems"][0] == 0,
            "{}",
            data["cpuset"]
        );
    }
    c.end()
}

fn stats_of_created_and_paused(cx: &Cx) -> Result<()> {
    let c = sleeping(cx, json!({}))?;
    stats(&c)?;
    c.start()?.ok()?;
    if cx.unified() || cgroup::has("freezer") {
        cx.rt(&["pause", &c.id])?.ok()?;
        stats(&c)?;
        cx.rt(&["resume", &c.id])?.ok()?;
    }
    c.end()
}

fn at_an_interval(cx: &Cx) -> Result<()> {
    let c = sleeping(cx, json!({}))?;
    c.start()?.ok()?;
    let (child, path) = watch(&c, "50ms")?;
    wait_for("three lines", || Ok((count(&path, "stats")? >= 3).then_some(())))?;
    let pid = c.pid()?;
    c.kill("KILL")?.ok()?;
    reap(pid)?;
    eq("exit", crate::container::finish(child)?, 0)?;
    eq("lines that are not stats", told(&path)?.len(), count(&path, "stats")?)?;
    c.delete()?.ok()?;
    Ok(())
}

const TIGHT: u64 = 16 << 20;

fn out_of_memory(cx: &Cx) -> Result<()> {
    cx.need_controller("memory")?;
    let c = sleeping(cx, json!({"memory": {"limit": TIGHT}}))?;
    c.start()?.ok()?;
    // A long interval: the word must come by itself.
    let (mut child, path) = watch(&c, "1h")?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    for times in 1..=2 {
        let out = c.exec(&[], &["memory", "64"])?;
        eq("exit of what takes too much", out.code, 137)?;
        wait_for("the event", || Ok((count(&path, "oom")? >= times).then_some(())))?;
    }
    same("event", &told(&path)?[0], json!({"type": "oom", "id": c.id}))?;
    ensure!(child.try_wait()?.is_none(), "it ended while the container runs");
    c.end()?;
    eq("exit", crate::container::finish(child)?, 0)
}

fn out_of_memory_is_the_end(cx: &Cx) -> Result<()> {
    // systemd takes the cgroup of a scope away at once, and with it what it would tell.
    cx.need_systemd(false)?;
    cx.need_controller("memory")?;
    let mut b = cx.bundle()?;
    b.probe(&["memory", "64"]).set("/linux/resources/memory/limit", json!(TIGHT));
    let c = b.create()?;
    let pid = c.pid()?;
    let (child, path) = watch(&c, "1h")?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    c.start()?.ok()?;
    eq("exit of the container", reap(pid)?, 137)?;
    eq("exit", crate::container::finish(child)?, 0)?;
    ensure!(count(&path, "oom")? >= 1, "the last event was not told: {:?}", told(&path)?);
    c.delete()?.ok()?;
    Ok(())
}

fn not_running(cx: &Cx) -> Result<()> {
    cx.rt(&["events", &cx.id()])?.fails(&["container does not exist"])?.one_line()?;
    cx.rt(&["events"])?.fails(&["\"events\" requires exactly 1 argument(s)"])?;
    cx.rt(&["events", "--help"])?.ok()?;
    let c = cx.bundle()?.create()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    for flags in [&["--stats"][..], &[]] {
        let mut args = vec!["events"];
        args.extend(flags);
        args.push(&c.id);
        let words = format!("container with id {} is not running", c.id);
        cx.rt(&args)?.fails(&[&words])?.one_line()?;
    }
    c.delete()?.ok()?;
    Ok(())
}

fn bad_interval(cx: &Cx) -> Result<()> {
    let c = sleeping(cx, json!({}))?;
    for interval in ["0", "0s", "-1s"] {
        let flag = format!("--interval={interval}");
        cx.rt(&["events", &flag, &c.id])?.fails(&["duration interval must be greater than 0"])?;
    }
    for interval in ["5", "x", "1s2", ""] {
        let words = format!("invalid value {interval:?} for flag -interval: parse error");
        cx.rt(&["events", "--interval", interval, &c.id])?.fails(&[&words])?;
    }
    c.delete_force()?;
    Ok(())
}
