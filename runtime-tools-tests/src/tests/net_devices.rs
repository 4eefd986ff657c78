//! linux.netDevices: interfaces of the host move into the container.
//!
//! Each test has a network namespace of its own for a host, with veth pairs made by ip(8).

use super::tests;
use crate::bundle::Bundle;
use crate::cx::{Cx, eq, skip};
use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use std::process::{Command, Stdio};

tests!["net_devices":
    moved_by_name deviates ["runc" = "1.3 does not know it"],
    renamed deviates ["runc" = "1.3 does not know it"],
    addresses_go_along deviates ["runc" = "1.3 does not know it"],
    properties_stay deviates ["runc" = "1.3 does not know it"],
    template deviates ["runc" = "1.3 does not know it", "crun" = "does not know it"],
    into_a_joined_namespace deviates ["runc" = "1.3 does not know it"],
    in_a_user_namespace deviates ["runc" = "1.3 does not know it"],
    settings_reach_it deviates ["runc" = "1.3 does not know it"],
    several deviates ["runc" = "1.3 does not know it"],
    missing deviates ["runc" = "1.3 does not know it"],
    name_taken deviates ["runc" = "1.3 does not know it", "crun" = "loses it"],
    comes_back_after_a_failure deviates ["runc" = "1.3 does not know it", "crun" = "loses it"],
    needs_a_network_namespace deviates ["runc" = "1.3 does not know it", "crun" = "does not look"],
    names_that_cannot_be deviates ["runc" = "1.3 does not know it", "crun" = "loses it"],
];

fn ip(line: &str) -> Result<String> {
    let out = Command::new("ip").args(line.split(' ')).output().context("run ip")?;
    ensure!(out.status.success(), "ip {line}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// A network namespace for this test alone, with a pair v0 - v1.
fn host() -> Result<()> {
    if Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip("no ip(8)");
    }
    unshare(CloneFlags::CLONE_NEWNET).context("unshare the network namespace")?;
    if let Err(error) = ip("link add v0 type veth peer name v1") {
        let text = error.to_string();
        return if text.contains("Unknown device type") || text.contains("not supported") {
            skip("no veth in this kernel")
        } else {
            Err(error)
        };
    }
    Ok(())
}

/// The interfaces as the container's sysfs shows them.
const NAMES: &[&str] = &["ls", "/sys/class/net"];

fn names_inside(b: &mut Bundle) -> Result<String> {
    Ok(b.answers(&[NAMES])?.remove(0))
}

fn moved_by_name(cx: &Cx) -> Result<()> {
    host()?;
    let mut b = cx.bundle()?;
    b.set("/linux/netDevices", json!({"v0": {}})).probe(&["sleep"]);
    let c = b.start()?;
    let out = c.exec(&[], NAMES)?.ok()?;
    eq("inside", out.stdout.trim(), "[\"lo\",\"v0\"]")?;
    // It is up there (the other end is not, so there is no carrier).
    let flags = c.exec(&[], &["cat", "/sys/class/net/v0/flags"])?.ok()?.stdout;
    eq("flags", flags.trim(), "ok \"0x1003\\n\"")?;
    let outside = ip("-o link")?;
    ensure!(!outside.contains(" v0"), "still outside: {outside}");
    c.end()?;
    // A virtual one ends with its namespace, and the other end with it.
    crate::cx::wait_for("the end of the pair", || Ok((!ip("-o link")?.contains("v1")).then_some(())))
}

fn renamed(cx: &Cx) -> Result<()> {
    host()?;
    let mut b = cx.bundle()?;
    b.set("/linux/netDevices", json!({"v0": {"name": "ctr_net0"}}));
    eq("inside", names_inside(&mut b)?, "[\"ctr_net0\",\"lo\"]")
}

fn template(cx: &Cx) -> Result<()> {
    host()?;
    let mut b = cx.bundle()?;
    b.set("/linux/netDevices", json!({"v0": {"name": "eth%d"}, "v1": {"name": "eth%d"}}));
    eq("inside", names_inside(&mut b)?, "[\"eth0\",\"eth1\",\"lo\"]")
}

fn addresses_go_along(cx: &Cx) -> Result<()> {
    host()?;
    for line in [
        "addr add 10.9.8.7/24 broadcast 10.9.8.255 dev v0",
        "addr add 10.9.8.9/32 dev v0",
        "addr add 2001:db8::7/64 dev v0 nodad",
        "addr add 169.254.1.1/16 scope link dev v0",
        "addr add 10.9.9.1/24 valid_lft 900 preferred_lft 900 dev v0",
        "link set v0 up",
        "link set v1 up",
    ] {
        ip(line)?;
    }
    let mut b = cx.bundle()?;
    b.set("/linux/netDevices", json!({"v0": {"name": "other"}})).probe(&["sleep"]);
    let c = b.start()?;
    let inside = Command::new("nsenter")
        .args([
            "-t",
            &c.pid()?.to_string(),
            "-n",
            "ip",
            "-o",
            "addr",
            "show",
            "dev",
            "other",
            "scope",
            "global",
        ])
        .output()?;
    let text = String::from_utf8_lossy(&inside.stdout).into_owned();
    for wanted in ["10.9.8.7/24 brd 10.9.8.255", "10.9.8.9/32", "2001:db8::7/64"] {
        ensure!(text.contains(wanted), "no {wanted} in {text}");
    }
    for unwanted in ["10.9.9.1", "169.254.1.1"] {
        ensure!(!text.contains(unwanted), "{unwanted} in {text}");
    }
    c.end()
}

fn properties_stay(cx: &Cx) -> Result<()> {
    host()?;
    ip("link set v0 mtu 1337 address 02:00:00:00:00:07")?;
    let mut b = cx.bundle()?;
    b.set("/linux/netDevices", json!({"v0": {"name": "n"}}));
    b.expect(&[
        (&["cat", "/sys/class/net/n/mtu"], "ok \"1337\\n\""),
        (&["cat", "/sys/class/net/n/address"], "ok \"02:00:00:00:00:07\\n\""),
    ])
}

fn into_a_joined_namespace(cx: &Cx) -> Result<()> {
    host()?;
    let mut holder = Command::new("unshare").args(["-n", "sleep", "30"]).spawn()?;
    let path = format!("/proc/{}/ns/net", holder.id());
    let own = std::fs::read_link("/proc/self/ns/net")?;
    crate::cx::wait_for("the namespace", || Ok((std::fs::read_link(&path)? != own).then_some(())))?;
    let mut b = cx.bundle()?;
    b.without_namespace("network").push("/linux/namespaces", json!({"type": "network", "path": path}));
    b.set("/linux/netDevices", json!({"v0": {"name": "n"}}));
    let inside = names_inside(&mut b);
    // It stays there when the container has gone.
    let after = Command::new("nsenter")
        .args(["--net", "-t", &holder.id().to_string(), "ip", "-o", "link"])
        .output()?;
    holder.kill()?;
    holder.wait()?;
    eq("inside", inside?, "[\"lo\",\"n\"]")?;
    let after = String::from_utf8_lossy(&after.stdout).into_owned();
    ensure!(after.contains(" n@") || after.contains(" n:"), "gone with the container: {after}");
    Ok(())
}

/// Where the network namespace belongs to a user namespace; a program that is not there gives the device back.
fn in_a_user_namespace(cx: &Cx) -> Result<()> {
    host()?;
    let mut b = super::user_namespaces::bundle(cx)?;
    b.set("/linux/netDevices", json!({"v0": {"name": "n"}}));
    if cx.kind == "naru" {
        b.set("/process/args", json!(["/bin/absent"]));
        fails(cx, &b, "no such file or directory")?;
    }
    eq("inside", names_inside(&mut b)?, "[\"lo\",\"n\"]")
}

/// Settings below net.ipv4.conf.NAME exist once it is there.
fn settings_reach_it(cx: &Cx) -> Result<()> {
    host()?;
    let mut b = cx.bundle()?;
    b.set("/linux/netDevices", json!({"v0": {"name": "n0"}}));
    b.set("/linux/sysctl", json!({"net.ipv4.conf.n0.forwarding": "1"}));
    b.expect(&[(&["cat", "/proc/sys/net/ipv4/conf/n0/forwarding"], "ok \"1\\n\"")])
}

fn several(cx: &Cx) -> Result<()> {
    host()?;
    ip("link add w0 type veth peer name w1")?;
    let mut b = cx.bundle()?;
    // Two of them take each other's names.
    b.set("/linux/netDevices", json!({"v0": {"name": "w0"}, "w0": {"name": "v0"}, "w1": {}}));
    eq("inside", names_inside(&mut b)?, "[\"lo\",\"v0\",\"w0\",\"w1\"]")?;
    let outside = ip("-o link")?;
    ensure!(!outside.contains(" w1"), "still outside: {outside}");
    Ok(())
}

fn fails(cx: &Cx, b: &Bundle, phrase: &str) -> Result<()> {
    let before = cx.snapshot()?;
    let out = b.run()?.code(1)?;
    ensure!(out.said().contains(phrase) || cx.kind != "naru", "no {phrase:?} in {}", out.stderr);
    cx.nothing_left(&before)
}

fn missing(cx: &Cx) -> Result<()> {
    host()?;
    let mut b = cx.bundle()?;
    b.set("/linux/netDevices", json!({"absent": {}}));
    fails(cx, &b, "/linux/netDevices/absent: ")
}

fn name_taken(cx: &Cx) -> Result<()> {
    host()?;
    let before = ip("-o -br link")?;
    let mut b = cx.bundle()?;
    b.set("/linux/netDevices", json!({"v0": {"name": "lo"}}));
    fails(cx, &b, "/linux/netDevices/v0/name: ")?;
    eq("links", ip("-o -br link")?, before)
}

/// As if the operation was never attempted (runtime.md "Errors").
fn comes_back_after_a_failure(cx: &Cx) -> Result<()> {
    host()?;
    for line in [
        "addr add 10.9.8.7/24 dev v0",
        "addr add 2001:db8::7/64 dev v0 nodad",
        "link set v0 up",
        "link set v1 up",
    ] {
        ip(line)?;
    }
    let look = || -> Result<String> {
        Ok(ip("-o addr show dev v0 scope global")?.replace("tentative ", "")
            + &ip("-o -br link show dev v0")?)
    };
    let strip = |text: String| -> Vec<String> {
        text.split_whitespace().skip(1).filter(|w| !w.starts_with("v0@")).map(String::from).collect()
    };
    let before = strip(look()?);
    let mut b = cx.bundle()?;
    b.set("/linux/netDevices", json!({"v0": {"name": "n"}})).set("/process/args", json!(["/bin/absent"]));
    fails(cx, &b, "no such file or directory")?;
    eq("after a program that is not there", strip(look()?), before.clone())?;
    // The second one cannot be moved: the first comes back.
    b.set("/linux/netDevices", json!({"v0": {"name": "n"}, "v9": {}}));
    fails(cx, &b, "/linux/netDevices/v9: ")?;
    eq("after a device that is not there", strip(look()?), before)
}

fn needs_a_network_namespace(cx: &Cx) -> Result<()> {
    host()?;
    let mut b = cx.bundle()?;
    b.without_namespace("network").without_mount("/sys");
    b.set("/linux/netDevices", json!({"v0": {}}));
    fails(cx, &b, "/linux/netDevices/v0: unable to move network devices without a NET namespace")
}

fn names_that_cannot_be(cx: &Cx) -> Result<()> {
    host()?;
    for name in ["sixteen-letters-", "a/b", "a b", "..", "a:b"] {
        let mut b = cx.bundle()?;
        b.set("/linux/netDevices", json!({"v0": {"name": name}}));
        fails(cx, &b, "/linux/netDevices/v0/name: ")?;
        ensure!(ip("-o link")?.contains(" v0@"), "{name}: v0 is gone");
    }
    Ok(())
}
