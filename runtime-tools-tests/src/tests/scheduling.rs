//! Processors, scheduling policies, I/O priority and memory policy, of the container's process and of exec.

use super::tests;
use crate::cx::{Cx, Out, same, skip};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;

tests!["scheduling":
    every_policy,
    deadline,
    scheduler_flags,
    real_time,
    real_time_in_a_budget_v1,
    scheduler_of_exec,
    io_priority_of_exec,
    affinity_final deviates ["crun" = "takes it from the file only"],
    affinity_initial_stays deviates ["crun" = "takes it from the file only"],
    affinity_of_the_file_wins deviates ["crun" = "knows no spaces"],
    affinity_not_for_init,
    affinity_impossible deviates ["crun" = "takes it from the file only"],
    affinity_list_malformed deviates ["crun" = "does not look at create"],
    memory_policy deviates ["runc" = "1.3 does not know it"],
    memory_policy_of_exec deviates ["runc" = "1.3 does not know it", "crun" = "has none there"],
    memory_policy_wrong deviates ["runc" = "1.3 does not know it"],
    personality_of_exec,
];

/// Not every machine gives every right: the kernel's own refusal is a skip.
fn permitted(out: Out) -> Result<Out> {
    if out.code != 0 && out.stderr.to_lowercase().contains("operation not permitted") {
        return skip("this kernel, its limits or the cgroup refuse the policy");
    }
    out.ok()
}

fn every_policy(cx: &Cx) -> Result<()> {
    for (policy, number, nice) in
        [("SCHED_OTHER", 0, -5), ("SCHED_OTHER", 0, 19), ("SCHED_BATCH", 3, 5), ("SCHED_IDLE", 5, 0)]
    {
        let mut b = cx.bundle()?;
        b.set("/process/scheduler", json!({"policy": policy, "nice": nice})).probe(&["json"]);
        let v = permitted(b.run()?)?.json()?;
        same("policy", &v["sched"]["policy"], json!(number))?;
        // sched_setattr(2) leaves the nice value alone with SCHED_IDLE, and ours may not be 0.
        if policy != "SCHED_IDLE" {
            same("nice", &v["sched"]["nice"], json!(nice))?;
        }
    }
    Ok(())
}

fn real_time(cx: &Cx) -> Result<()> {
    for (policy, number) in [("SCHED_FIFO", 1), ("SCHED_RR", 2)] {
        let mut b = cx.bundle()?;
        b.set("/process/scheduler", json!({"policy": policy, "priority": 7})).probe(&["json"]);
        let v = permitted(b.run()?)?.json()?;
        same("policy", &v["sched"]["policy"], json!(number))?;
        same("priority", &v["sched"]["priority"], json!(7))?;
    }
    Ok(())
}

/// Where groups have budgets of real time, the container has its own before a real-time policy is asked for.
fn real_time_in_a_budget_v1(cx: &Cx) -> Result<()> {
    cx.need_real_time_budget()?;
    let mut b = cx.bundle()?;
    b.set("/linux/resources/cpu", json!({"realtimePeriod": 500_000, "realtimeRuntime": 5_000}))
        .set("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 7}));
    let v = b.inside()?;
    same("policy", &v["sched"]["policy"], json!(1))?;
    same("priority", &v["sched"]["priority"], json!(7))
}

fn deadline(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let wanted = json!({"policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 50_000_000, "period": 100_000_000});
    b.set("/process/scheduler", wanted.clone()).probe(&["json"]);
    let v = permitted(b.run()?)?.json()?;
    same("policy", &v["sched"]["policy"], json!(6))?;
    for field in ["runtime", "deadline", "period"] {
        same(field, &v["sched"][field], wanted[field].clone())?;
    }
    Ok(())
}

fn scheduler_flags(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set(
        "/process/scheduler",
        json!({"policy": "SCHED_BATCH", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
    )
    .probe(&["json"]);
    let v = permitted(b.run()?)?.json()?;
    same("flags", &v["sched"]["flags"], json!(1))
}

/// A process.json for `exec -p`.
fn file(cx: &Cx, more: &[(&str, Value)]) -> Result<String> {
    let mut process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/probe", "json"],
        "env": ["PATH=/bin"], "noNewPrivileges": true});
    for (key, value) in more {
        process[*key] = value.clone();
    }
    let path = cx.path(&format!("process.{}", cx.next()));
    fs::write(&path, process.to_string())?;
    Ok(path.display().to_string())
}

fn scheduler_of_exec(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let file = file(cx, &[("scheduler", json!({"policy": "SCHED_BATCH", "nice": 4}))])?;
    let v = cx.rt(&["exec", "-p", &file, &c.id])?.ok()?.json()?;
    same("policy", &v["sched"]["policy"], json!(3))?;
    same("nice", &v["sched"]["nice"], json!(4))?;
    c.end()
}

fn io_priority_of_exec(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let file = file(cx, &[("ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 1}))])?;
    let v = cx.rt(&["exec", "-p", &file, &c.id])?.ok()?.json()?;
    same("priority", &v["ioprio"], json!(2 << 13 | 1))?;
    c.end()
}

/// Needs two processors, which are 0 and 1 wherever the suite runs.
fn two_processors() -> Result<()> {
    let text = fs::read_to_string("/proc/self/status")?;
    match text.lines().any(|line| line.starts_with("Cpus_allowed_list:\t0-")) {
        true => Ok(()),
        false => skip("needs processors 0 and 1"),
    }
}

fn affinity_final(cx: &Cx) -> Result<()> {
    two_processors()?;
    let mut b = cx.bundle()?;
    b.set("/process/execCPUAffinity", json!({"initial": "0", "final": "1"})).probe(&["sleep"]);
    let c = b.start()?;
    same("processors", &c.exec_inside(&[])?["cpus_allowed"], json!("1"))?;
    // A file that does not say keeps the container's.
    let v = cx.rt(&["exec", "-p", &file(cx, &[])?, &c.id])?.ok()?.json()?;
    same("processors", &v["cpus_allowed"], json!("1"))?;
    c.end()
}

fn affinity_initial_stays(cx: &Cx) -> Result<()> {
    two_processors()?;
    let mut b = cx.bundle()?;
    b.set("/process/execCPUAffinity", json!({"initial": "0"})).probe(&["sleep"]);
    let c = b.start()?;
    let v = c.exec_inside(&[])?;
    // Where the cgroup has a cpuset of its own the kernel sets the affinity anew.
    ensure!(v["cpus_allowed"] == "0" || cx.unified(), "processors {}", v["cpus_allowed"]);
    c.end()
}

fn affinity_of_the_file_wins(cx: &Cx) -> Result<()> {
    two_processors()?;
    let mut b = cx.bundle()?;
    b.set("/process/execCPUAffinity", json!({"final": "0"})).probe(&["sleep"]);
    let c = b.start()?;
    let file = file(cx, &[("execCPUAffinity", json!({"final": " 1,1-1, "}))])?;
    let v = cx.rt(&["exec", "-p", &file, &c.id])?.ok()?.json()?;
    same("processors", &v["cpus_allowed"], json!("1"))?;
    c.end()
}

fn affinity_not_for_init(cx: &Cx) -> Result<()> {
    two_processors()?;
    let mut b = cx.bundle()?;
    let all = b.inside()?["cpus_allowed"].clone();
    b.set("/process/execCPUAffinity", json!({"initial": "0", "final": "1"}));
    same("processors", &b.inside()?["cpus_allowed"], all)
}

fn affinity_impossible(cx: &Cx) -> Result<()> {
    for field in ["initial", "final"] {
        let mut b = cx.bundle()?;
        b.set("/process/execCPUAffinity", json!({field: "1000"})).probe(&["sleep"]);
        let c = b.start()?;
        c.exec(&[], &["true"])?.fails_with(255, &["CPU affinity"])?;
        c.is("running")?;
        c.end()?;
    }
    Ok(())
}

fn affinity_list_malformed(cx: &Cx) -> Result<()> {
    for bad in ["x", "3-1", "-1", "0x1", "70000"] {
        let mut b = cx.bundle()?;
        b.set("/process/execCPUAffinity", json!({"initial": bad})).save()?;
        let before = cx.snapshot()?;
        b.container().create(&[])?.code(1)?;
        cx.nothing_left(&before)?;
    }
    Ok(())
}

/// Skips where the kernel has no memory policies.
fn need_numa() -> Result<()> {
    if std::path::Path::new("/sys/devices/system/node/node0").exists() {
        Ok(())
    } else {
        skip("no NUMA in this kernel")
    }
}

fn memory_policy(cx: &Cx) -> Result<()> {
    need_numa()?;
    for (policy, wanted) in [
        (json!({"mode": "MPOL_DEFAULT"}), json!([0, 0])),
        (json!({"mode": "MPOL_LOCAL"}), json!([4, 0])),
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), json!([2, 1])),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), json!([3, 1])),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), json!([1, 1])),
        (json!({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}), json!([5, 1])),
        (json!({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0"}), json!([6, 1])),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), json!([0x8002, 1])),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}), json!([0x4002, 1])),
    ] {
        let mut b = cx.bundle()?;
        b.set("/linux/memoryPolicy", policy.clone());
        same(&policy.to_string(), &b.inside()?["mempolicy"], wanted)?;
    }
    Ok(())
}

fn memory_policy_of_exec(cx: &Cx) -> Result<()> {
    need_numa()?;
    let mut b = cx.bundle()?;
    b.set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0"})).probe(&["sleep"]);
    let c = b.start()?;
    same("policy", &c.exec_inside(&[])?["mempolicy"], json!([2, 1]))?;
    let v = cx.rt(&["exec", "-p", &file(cx, &[])?, &c.id])?.ok()?.json()?;
    same("policy by file", &v["mempolicy"], json!([2, 1]))?;
    c.end()
}

/// A node that is not there is the kernel's to refuse.
fn memory_policy_wrong(cx: &Cx) -> Result<()> {
    for (policy, phrase) in [
        (json!({"mode": "MPOL_BIND"}), "memory policy mode requires at least one node but got 0"),
        (json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}), "memory policy mode requires 0 nodes but got 8"),
        (json!({"mode": "MPOL_BIND", "nodes": "x"}), "invalid memory policy nodes"),
        (json!({"mode": "MPOL_BIND", "nodes": "900"}), ""),
        (json!({"mode": "MPOL_NONE"}), "invalid memory policy mode"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NONE"]}), "invalid memory policy flag"),
        (json!({"nodes": "0"}), "invalid memory policy mode"),
        (json!({}), "invalid memory policy mode"),
    ] {
        let mut b = cx.bundle()?;
        b.set("/linux/memoryPolicy", policy.clone()).save()?;
        let before = cx.snapshot()?;
        let out = b.run()?;
        ensure!(out.code == 1, "{policy}: exit {} {}", out.code, out.stderr);
        ensure!(cx.kind == "crun" || out.said().contains(phrase), "{policy}: {}", out.stderr);
        cx.nothing_left(&before)?;
    }
    Ok(())
}

fn personality_of_exec(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/personality", json!({"domain": "LINUX32"})).probe(&["sleep"]);
    let c = b.start()?;
    same("personality", &c.exec_inside(&[])?["personality"], json!(8))?;
    c.end()
}
