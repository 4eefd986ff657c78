//! Device nodes: the default ones, links, those the config lists, and what the cgroup lets be opened.

use super::tests;
use crate::cx::{Cx, eq, same, skip};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

tests!["devices":
    default_nodes,
    default_links,
    default_access,
    nothing_else,
    created_without_dev_mount,
    listed,
    listed_outside_of_dev,
    listed_in_new_directory,
    listed_default_is_overridden,
    listed_modes_do_not_depend_on_umask,
    listed_over_an_existing_file deviates ["runc" = "leaves the file", "crun" = "leaves the file"],
    listed_through_a_link,
    no_nodes_with_bound_dev,
    bound_over_a_node,
    terminals_mounted_before_dev,
    dev_mounted_twice,
    readonly_dev,
    directory_for_a_link,
    image_links_in_dev,
    cgroup_denies,
    cgroup_allows_listed,
    cgroup_unknown_access deviates ["crun" = "hands them to the kernel, which refuses them"],
    cgroup_allows_mknod,
    cgroup_allows_all,
    cgroup_order_matters,
    cgroup_rule_absent deviates ["crun" = "allows all then"],
    ptmx_works,
];

const DEFAULTS: [(&str, &str); 6] = [
    ("null", "1:3"),
    ("zero", "1:5"),
    ("full", "1:7"),
    ("random", "1:8"),
    ("urandom", "1:9"),
    ("tty", "5:0"),
];

fn default_nodes(cx: &Cx) -> Result<()> {
    let v = cx.bundle()?.inside()?;
    for (name, number) in DEFAULTS {
        let node = &v["dev"][name];
        same(
            name,
            &json!([node["type"], node["rdev"], node["mode"], node["uid"]]),
            json!(["c", number, "666", 0]),
        )?;
    }
    Ok(())
}

fn default_links(cx: &Cx) -> Result<()> {
    let v = cx.bundle()?.inside()?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        same(name, &json!([v["dev"][name]["type"], v["dev"][name]["target"]]), json!(["l", target]))?;
    }
    Ok(())
}

fn default_access(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let mut table: Vec<(Vec<String>, &str)> = vec![];
    for (name, _) in DEFAULTS.iter().take(5) {
        table.push((vec!["open".into(), format!("/dev/{name}"), "rw".into()], "ok"));
    }
    // No terminal: ENXIO comes from the driver, EPERM would come from the cgroup.
    table.push((vec!["open".into(), "/dev/tty".into(), "rw".into()], "ENXIO"));
    let mut args = vec!["seq".to_string()];
    for (n, (mode, _)) in table.iter().enumerate() {
        if n > 0 {
            args.push("---".into());
        }
        args.extend(mode.clone());
    }
    let got = b.lines(&args)?;
    eq("opening", got, table.iter().map(|(_, wanted)| wanted.to_string()).collect::<Vec<_>>())
}

fn nothing_else(cx: &Cx) -> Result<()> {
    let v = cx.bundle()?.inside()?;
    let mut names: Vec<&str> = v["dev"].as_object().context("dev")?.keys().map(String::as_str).collect();
    names.retain(|n| *n != "core");
    let mut wanted = vec![
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    wanted.sort();
    eq("names in /dev", names, wanted)
}

const PROC: &str = r#"{"destination": "/proc", "type": "proc", "source": "proc"}"#;
const DEV: &str = r#"{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]}"#;
const PTS: &str = r#"{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}"#;

/// The report from inside a container with these mounts.
fn with_mounts(cx: &Cx, mounts: &[&str]) -> Result<Value> {
    let mut b = cx.bundle()?;
    b.set("/mounts", serde_json::from_str(&format!("[{}]", mounts.join(",")))?);
    b.inside()
}

/// As engines bind a device that the container is to have; the others stand beside it.
fn bound_over_a_node(cx: &Cx) -> Result<()> {
    let bind = r#"{"destination": "/dev/null", "type": "bind", "source": "/dev/null", "options": ["bind"]}"#;
    let v = with_mounts(cx, &[PROC, DEV, PTS, bind])?;
    for (name, number) in DEFAULTS {
        same(name, &json!([v["dev"][name]["type"], v["dev"][name]["rdev"]]), json!(["c", number]))?;
    }
    Ok(())
}

/// A list is mounted in its order: what comes later covers what was there.
fn terminals_mounted_before_dev(cx: &Cx) -> Result<()> {
    let v = with_mounts(cx, &[PROC, PTS, DEV])?;
    same("pts below the new /dev", &v["dev"]["pts"], Value::Null)?;
    same("null", &v["dev"]["null"]["rdev"], json!("1:3"))
}

/// The devices are in the one that shows.
fn dev_mounted_twice(cx: &Cx) -> Result<()> {
    let v = with_mounts(cx, &[PROC, DEV, PTS, DEV])?;
    same("pts below the second /dev", &v["dev"]["pts"], Value::Null)?;
    for (name, number) in DEFAULTS {
        same(name, &v["dev"][name]["rdev"], json!(number))?;
    }
    Ok(())
}

fn readonly_dev(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let dev = DEV.replace("\"nosuid\"", "\"nosuid\", \"ro\"");
    b.set("/mounts", serde_json::from_str(&format!("[{PROC},{dev},{PTS}]"))?);
    let got = b.lines(&["seq", "open", "/dev/null", "rw", "---", "create", "/dev/x", "x"])?;
    eq("a device and a new file", got, ["ok", "EROFS"])
}

/// A directory in the place of a link stays one.
fn directory_for_a_link(cx: &Cx) -> Result<()> {
    let fd = r#"{"destination": "/dev/fd", "type": "tmpfs", "source": "tmpfs", "options": ["mode=711"]}"#;
    let v = with_mounts(cx, &[PROC, DEV, PTS, fd])?;
    same("fd", &json!([v["dev"]["fd"]["type"], v["dev"]["fd"]["mode"]]), json!(["d", "711"]))?;
    same("stdin", &v["dev"]["stdin"]["target"], json!("/proc/self/fd/0"))
}

/// Without a mount on /dev they are made in the image's directory.
fn created_without_dev_mount(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]));
    let v = b.inside()?;
    for (name, number) in DEFAULTS {
        same(name, &v["dev"][name]["rdev"], json!(number))?;
    }
    Ok(())
}

fn listed(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set(
        "/linux/devices",
        json!([
            {"path": "/dev/test1", "type": "c", "major": 10, "minor": 666, "fileMode": 432, "uid": 0, "gid": 0},
            {"path": "/dev/test2", "type": "b", "major": 8, "minor": 666, "fileMode": 384, "uid": 12, "gid": 34},
            {"path": "/dev/test3", "type": "p", "fileMode": 438},
            {"path": "/dev/test4", "type": "u", "major": 1, "minor": 5}
        ]),
    );
    let v = b.inside()?;
    let node =
        |name: &str, keys: &[&str]| -> Value { keys.iter().map(|k| v["dev"][name][*k].clone()).collect() };
    let keys = ["type", "rdev", "mode", "uid", "gid"];
    same("character", &node("test1", &keys), json!(["c", "10:666", "660", 0, 0]))?;
    same("block", &node("test2", &keys), json!(["b", "8:666", "600", 12, 34]))?;
    same("fifo", &node("test3", &["type", "mode"]), json!(["p", "666"]))?;
    same("unbuffered character", &node("test4", &["type", "rdev"]), json!(["c", "1:5"]))
}

fn listed_outside_of_dev(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/devices", json!([{"path": "/tmp/node", "type": "c", "major": 1, "minor": 3, "fileMode": 420, "uid": 5, "gid": 6}]));
    let v: Value = serde_json::from_str(&b.lines(&["stat", "/tmp/node"])?[0])?;
    same(
        "node",
        &json!([v["type"], v["rdev"], v["mode"], v["uid"], v["gid"]]),
        json!(["c", "1:3", "644", 5, 6]),
    )
}

fn listed_in_new_directory(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set(
        "/linux/devices",
        json!([{"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 438}]),
    );
    let lines = b.answers(&[&["stat", "/dev/net/tun"], &["stat", "/dev/net"]])?;
    let v: Value = serde_json::from_str(&lines[0])?;
    same("node", &json!([v["type"], v["rdev"], v["mode"]]), json!(["c", "10:200", "666"]))?;
    let v: Value = serde_json::from_str(&lines[1])?;
    same("directory", &json!([v["type"], v["mode"]]), json!(["d", "755"]))
}

fn listed_default_is_overridden(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/devices", json!([{"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 384, "uid": 7, "gid": 8}]));
    let v = b.inside()?;
    let n = &v["dev"]["full"];
    same("full", &json!([n["rdev"], n["mode"], n["uid"], n["gid"]]), json!(["1:7", "600", 7, 8]))
}

fn listed_modes_do_not_depend_on_umask(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/user/umask", json!(0o77)).set(
        "/linux/devices",
        json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 511}]),
    );
    b.probe(&["json"]).save()?;
    let v = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).umask(0o777).run()?.ok()?.json()?;
    same("x", &v["dev"]["x"]["mode"], json!("777"))?;
    same("null", &v["dev"]["null"]["mode"], json!("666"))
}

/// runtime-spec: a file that does not match is an error.
fn listed_over_an_existing_file(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/devices", json!([{"path": "/etc/plain", "type": "c", "major": 1, "minor": 3}])).save()?;
    let before = cx.snapshot()?;
    let out = b.run()?;
    eq("the file", fs::read_to_string(b.rootfs().join("etc/plain"))?, "plain\n")?;
    ensure!(out.code != 0, "a regular file was taken for the device");
    cx.nothing_left(&before)
}

fn listed_through_a_link(cx: &Cx) -> Result<()> {
    let outside = cx.path("canary");
    fs::create_dir(&outside)?;
    let mut b = cx.bundle()?;
    symlink(&outside, b.rootfs().join("out"))?;
    symlink("../../canary", b.rootfs().join("up"))?;
    for path in ["/out/node", "/up/node", "/dev/../../../canary/node"] {
        b.set("/linux/devices", json!([{"path": path, "type": "c", "major": 1, "minor": 3}])).save()?;
        let before = cx.snapshot()?;
        b.run()?;
        cx.nothing_left(&before)?;
        eq(&format!("names outside after {path}"), fs::read_dir(&outside)?.count(), 0)?;
    }
    Ok(())
}

/// A bound /dev is the caller's business: nothing is added to it.
fn no_nodes_with_bound_dev(cx: &Cx) -> Result<()> {
    let dir = cx.path("devices");
    fs::create_dir(&dir)?;
    fs::write(dir.join("mine"), "x")?;
    for destination in ["/dev", "/dev/"] {
        let mut b = cx.bundle()?;
        b.set(
            "/mounts",
            json!([
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": destination, "type": "bind", "source": dir, "options": ["rbind"]}
            ]),
        );
        b.remove("/linux/maskedPaths").run()?;
        eq("names", fs::read_dir(&dir)?.count(), 1)?;
    }
    Ok(())
}

/// What an image has in /dev must not lead elsewhere (CVE-2026-41579).
fn image_links_in_dev(cx: &Cx) -> Result<()> {
    let outside = cx.path("canary");
    fs::write(&outside, "untouched")?;
    let mode = || -> Result<(u32, u32)> {
        use std::os::unix::fs::MetadataExt;
        let m = fs::metadata(&outside)?;
        Ok((m.mode(), m.uid()))
    };
    let before = mode()?;
    for (name, target) in [
        ("zero", "canary"),
        ("null", "canary"),
        ("stdin", "canary"),
        ("ptmx", "canary"),
        ("tty", "../etc/plain"),
    ] {
        let mut b = cx.bundle()?;
        let target = if target == "canary" { outside.clone() } else { target.into() };
        symlink(&target, b.rootfs().join("dev").join(name))?;
        b.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}])).save()?;
        b.run()?;
        eq(&format!("file outside after a link at /dev/{name}"), fs::read_to_string(&outside)?, "untouched")?;
        eq("mode and owner", mode()?, before)?;
        eq("file inside", fs::read_to_string(b.rootfs().join("etc/plain"))?, "plain\n")?;
    }
    // All of /dev is a link.
    let mut b = cx.bundle()?;
    let dir = cx.path("canary-directory");
    fs::create_dir(&dir)?;
    fs::remove_dir(b.rootfs().join("dev"))?;
    symlink(&dir, b.rootfs().join("dev"))?;
    for mounts in
        [json!([{"destination": "/proc", "type": "proc", "source": "proc"}]), b.config["mounts"].clone()]
    {
        b.set("/mounts", mounts).save()?;
        b.run()?;
        eq("names in the directory outside", fs::read_dir(&dir)?.count(), 0)?;
    }
    Ok(())
}

/// A host that is itself below a device policy cannot show what a container's own allows.
fn host_allows_all(cx: &Cx) -> Result<()> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let path = cx.path("local");
    mknod(&path, SFlag::S_IFCHR, Mode::from_bits_retain(0o600), makedev(60, 9))?;
    match fs::File::open(&path) {
        Err(e) if e.raw_os_error() == Some(nix::libc::EPERM) => skip("this host's own cgroup denies devices"),
        _ => Ok(()),
    }
}

fn with_rules<'a>(cx: &'a Cx, rules: Value) -> Result<crate::bundle::Bundle<'a>> {
    let mut b = cx.bundle()?;
    let caps = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
    b.set("/process/capabilities", json!({"bounding": caps, "permitted": caps, "effective": caps}));
    // Major 60 is for local use: no driver, so that opening it gives ENXIO when the cgroup allows it.
    b.set(
        "/linux/devices",
        json!([
            {"path": "/dev/local", "type": "c", "major": 60, "minor": 9, "fileMode": 438},
            {"path": "/dev/other-zero", "type": "c", "major": 1, "minor": 5, "fileMode": 438}
        ]),
    );
    b.set("/linux/resources/devices", rules);
    Ok(b)
}

fn cgroup_denies(cx: &Cx) -> Result<()> {
    let mut b = with_rules(cx, json!([{"allow": false, "access": "rwm"}]))?;
    b.expect(&[
        (&["open", "/dev/local", "r"], "EPERM"),
        (&["open", "/dev/local", "w"], "EPERM"),
        (&["open", "/dev/other-zero", "rw"], "ok"),
        (&["open", "/dev/null", "rw"], "ok"),
    ])
}

fn cgroup_allows_listed(cx: &Cx) -> Result<()> {
    host_allows_all(cx)?;
    let mut b = with_rules(
        cx,
        json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 60, "minor": 9, "access": "r"}
        ]),
    )?;
    b.expect(&[
        (&["open", "/dev/local", "r"], "ENXIO"),
        (&["open", "/dev/local", "w"], "EPERM"),
        (&["open", "/dev/local", "rw"], "EPERM"),
    ])?;
    let mut b = with_rules(
        cx,
        json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 60, "access": "rw"}
        ]),
    )?;
    b.expect(&[(&["open", "/dev/local", "r"], "ENXIO"), (&["open", "/dev/local", "w"], "ENXIO")])
}

/// Other letters are passed over.
fn cgroup_unknown_access(cx: &Cx) -> Result<()> {
    host_allows_all(cx)?;
    let mut b = with_rules(
        cx,
        json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 60, "minor": 9, "access": "rxa"}
        ]),
    )?;
    b.expect(&[(&["open", "/dev/local", "r"], "ENXIO"), (&["open", "/dev/local", "w"], "EPERM")])
}

/// Making nodes is always allowed, opening them is not.
fn cgroup_allows_mknod(cx: &Cx) -> Result<()> {
    let mut b = with_rules(cx, json!([{"allow": false, "access": "rwm"}]))?;
    b.expect(&[
        (&["mknod", "/dev/made", "c", "60", "9"], "ok"),
        (&["open", "/dev/made", "r"], "EPERM"),
        (&["mknod", "/dev/block", "b", "7", "99"], "ok"),
        (&["mknod", "/dev/fine", "c", "1", "5"], "ok"),
    ])
}

fn cgroup_allows_all(cx: &Cx) -> Result<()> {
    host_allows_all(cx)?;
    let mut b = with_rules(cx, json!([{"allow": true, "access": "rwm"}]))?;
    b.expect(&[(&["open", "/dev/local", "r"], "ENXIO"), (&["open", "/dev/local", "w"], "ENXIO")])
}

fn cgroup_order_matters(cx: &Cx) -> Result<()> {
    host_allows_all(cx)?;
    let mut b = with_rules(
        cx,
        json!([
            {"allow": true, "type": "c", "major": 60, "minor": 9, "access": "rw"},
            {"allow": false, "access": "rwm"}
        ]),
    )?;
    b.expect(&[(&["open", "/dev/local", "r"], "EPERM")])?;
    let mut b = with_rules(
        cx,
        json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 60, "minor": 9, "access": "rw"},
            {"allow": false, "type": "c", "major": 60, "minor": 9, "access": "w"}
        ]),
    )?;
    b.expect(&[(&["open", "/dev/local", "r"], "ENXIO"), (&["open", "/dev/local", "w"], "EPERM")])
}

/// No rules: the default is to deny what is not in the default list.
fn cgroup_rule_absent(cx: &Cx) -> Result<()> {
    let mut b = with_rules(cx, json!([]))?;
    b.expect(&[(&["open", "/dev/local", "r"], "EPERM"), (&["open", "/dev/null", "rw"], "ok")])
}

fn ptmx_works(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.expect(&[(&["open", "/dev/ptmx", "rw"], "ok"), (&["open", "/dev/pts/ptmx", "rw"], "ok")])
}
