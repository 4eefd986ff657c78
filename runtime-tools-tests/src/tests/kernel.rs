//! What else the kernel is told: names, sysctls, personality, scheduling, keyring, affinity, security modules.

use super::tests;
use crate::cx::{Cx, eq, same, skip};
use anyhow::{Result, ensure};
use serde_json::json;
use std::fs;

tests!["kernel":
    hostname,
    domainname,
    hostname_of_host_kept_outside,
    sysctl_of_namespaces,
    sysctl_written_with_slashes,
    personality,
    scheduler,
    io_priority,
    session_keyring,
    session_keyring_not_new,
    affinity_is_all,
    apparmor_profile_needs_apparmor deviates ["crun" = "runs without"],
];

fn hostname(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    for name in ["hostname-specific", "a.b.c", "x"] {
        b.set("/hostname", json!(name));
        same("hostname", &b.inside()?["hostname"], json!(name))?;
    }
    b.remove("/hostname");
    let own = fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_string();
    same("inherited", &b.inside()?["hostname"], json!(own))
}

fn domainname(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/domainname", json!("example.org"));
    same("domainname", &b.inside()?["domainname"], json!("example.org"))
}

fn hostname_of_host_kept_outside(cx: &Cx) -> Result<()> {
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut b = cx.bundle()?;
    b.set("/hostname", json!("other")).set("/domainname", json!("other.org"));
    b.run()?.ok()?;
    eq("hostname", fs::read_to_string("/proc/sys/kernel/hostname")?, before)
}

fn sysctl_of_namespaces(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set(
        "/linux/sysctl",
        json!({"net.ipv4.ip_forward": "1", "net.core.somaxconn": "256", "kernel.shmmax": "123456789",
               "kernel.msgmax": "4096", "fs.mqueue.msg_max": "20", "net.ipv4.ping_group_range": "0 2147483647",
               "kernel.sem": "100 200 30 40"}),
    );
    b.expect(&[
        (&["cat", "/proc/sys/net/ipv4/ip_forward"], "ok \"1\\n\""),
        (&["cat", "/proc/sys/net/core/somaxconn"], "ok \"256\\n\""),
        (&["cat", "/proc/sys/kernel/shmmax"], "ok \"123456789\\n\""),
        (&["cat", "/proc/sys/kernel/msgmax"], "ok \"4096\\n\""),
        (&["cat", "/proc/sys/fs/mqueue/msg_max"], "ok \"20\\n\""),
        (&["cat", "/proc/sys/net/ipv4/ping_group_range"], "ok \"0\\t2147483647\\n\""),
        (&["cat", "/proc/sys/kernel/sem"], "ok \"100\\t200\\t30\\t40\\n\""),
    ])
}

fn sysctl_written_with_slashes(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/sysctl", json!({"net/ipv4/ip_forward": "1", "net/ipv4/conf/lo/rp_filter": "2"}));
    b.expect(&[
        (&["cat", "/proc/sys/net/ipv4/conf/lo/rp_filter"], "ok \"2\\n\""),
        (&["cat", "/proc/sys/net/ipv4/conf/all/forwarding"], "ok \"1\\n\""),
    ])
}

fn personality(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/personality", json!({"domain": "LINUX32"}));
    same("personality", &b.inside()?["personality"], json!(8))?;
    b.set("/linux/personality", json!({"domain": "LINUX"}));
    same("personality", &b.inside()?["personality"], json!(0))
}

fn scheduler(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    for (policy, number, nice) in [("SCHED_BATCH", 3, 5), ("SCHED_IDLE", 5, 0), ("SCHED_OTHER", 0, 7)] {
        b.set("/process/scheduler", json!({"policy": policy, "nice": nice}));
        let v = b.inside()?;
        same(policy, &v["sched_policy"], json!(number))?;
        if policy != "SCHED_IDLE" {
            same("nice", &v["nice"], json!(nice))?;
        }
    }
    Ok(())
}

fn io_priority(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    for (class, number, priority) in [("IOPRIO_CLASS_BE", 2, 6), ("IOPRIO_CLASS_IDLE", 3, 0)] {
        b.set("/process/ioPriority", json!({"class": class, "priority": priority}));
        same(class, &b.inside()?["ioprio"], json!((number << 13) | priority))?;
    }
    Ok(())
}

fn session_keyring(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["json"]).save()?;
    let id = cx.id();
    let v = cx.rt(&["run", "--bundle", &b.path(), &id])?.ok()?.json()?;
    let Some(text) = v["session_keyring"].as_str() else { return skip("no keyrings here") };
    ensure!(text.ends_with(&format!(";_ses.{id}")) || cx.kind == "crun", "session keyring {text}");
    Ok(())
}

fn session_keyring_not_new(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["json"]).save()?;
    let id = cx.id();
    let v = cx.rt(&["run", "--no-new-keyring", "--bundle", &b.path(), &id])?.ok()?.json()?;
    ensure!(
        !v["session_keyring"].as_str().unwrap_or_default().contains(&id),
        "keyring {}",
        v["session_keyring"]
    );
    Ok(())
}

/// An engine bound to one processor does not bind its containers: the cgroup decides.
fn affinity_is_all(cx: &Cx) -> Result<()> {
    use nix::sched::{CpuSet, sched_setaffinity};
    let own = fs::read_to_string("/proc/self/status")?;
    let all =
        own.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).map(str::trim).unwrap_or_default();
    if all == "0" {
        return skip("one processor");
    }
    let mut one = CpuSet::new();
    one.set(0)?;
    sched_setaffinity(nix::unistd::Pid::from_raw(0), &one)?;
    let mut b = cx.bundle()?;
    same("processors", &b.inside()?["cpus_allowed"], json!(all))?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    same("processors of exec", &c.exec_inside(&[])?["cpus_allowed"], json!(all))?;
    c.end()
}

/// Where the kernel has no AppArmor a profile cannot be had: an error, never a program without it.
fn apparmor_profile_needs_apparmor(cx: &Cx) -> Result<()> {
    if std::path::Path::new("/sys/kernel/security/apparmor").exists()
        || fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y'))
    {
        return skip("AppArmor is here: needs a loaded profile");
    }
    let mut b = cx.bundle()?;
    b.set("/process/apparmorProfile", json!("acme_secure_profile"));
    b.save()?;
    let before = cx.snapshot()?;
    let out = b.run()?;
    ensure!(out.code != 0, "ran without its profile");
    cx.nothing_left(&before)
}
