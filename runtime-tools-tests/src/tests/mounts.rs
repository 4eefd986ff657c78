//! Mounts of file systems: types, flags and data, order, the trees of cgroups.

use super::binds::source;
use super::tests;
use crate::cx::{Cx, eq, same};
use crate::mountinfo::{at, has, mounts_of, parse};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

tests!["mounts":
    default_set,
    order_of_the_config,
    listed_order,
    tmpfs_options,
    tmpfs_flags deviates ["crun" = "does not undo a flag"],
    tmpfs_defaults deviates ["runc" = "hands the word to the file system"],
    tmpfs_read_only,
    tmpfs_keeps_mode_of_directory,
    tmpcopyup,
    proc_options,
    sysfs,
    cgroup_mount,
    cgroup_mount_without_namespace,
    cgroup_mount_writable,
    cgroup_mount_twice,
    cgroup_mount_of_the_second_version,
    cgroup_mount_options,
    mqueue_and_shm,
    symlink_options deviates ["crun" = "does not know them"],
    many_mounts,
];

fn default_set(cx: &Cx) -> Result<()> {
    let all = mounts_of(&mut cx.bundle()?)?;
    for (target, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        eq(target, at(&all, target)?.kind.as_str(), kind)?;
    }
    has(at(&all, "/sys")?, &["ro", "nosuid", "nodev", "noexec"], &[])?;
    has(at(&all, "/dev/pts")?, &["rw", "nosuid", "noexec"], &["nodev"])?;
    let pts = at(&all, "/dev/pts")?;
    ensure!(pts.super_options.contains("gid=5") && pts.super_options.contains("mode=620"), "{pts:?}");
    ensure!(pts.super_options.contains("ptmxmode=666"), "{pts:?}");
    Ok(())
}

fn order_of_the_config(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/mnt", "tmpfs", "one", &[]).mount("/mnt/below", "tmpfs", "two", &[]).mount(
        "/mnt",
        "tmpfs",
        "three",
        &[],
    );
    let all = mounts_of(&mut b)?;
    let order: Vec<&str> =
        all.iter().filter(|m| m.target.starts_with("/mnt")).map(|m| m.target.as_str()).collect();
    eq("order", order, vec!["/mnt", "/mnt/below", "/mnt"])
}

/// Kernels since 6.8 list mounts by the order in which they were made, which upstream's programs compare with the config.
fn listed_order(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let dir = source(cx, "source")?;
    b.mount("/a", "tmpfs", "tmpfs", &[]).mount("/b", "bind", &dir, &["rbind"]).mount(
        "/c",
        "tmpfs",
        "tmpfs",
        &["ro"],
    );
    b.without_mount("/sys/fs/cgroup");
    let wanted: Vec<String> = b.config["mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|m| m["destination"].as_str().map(String::from))
        .collect();
    let all = mounts_of(&mut b)?;
    let mut got: Vec<String> = vec![];
    for m in &all {
        if wanted.contains(&m.target) && !got.contains(&m.target) {
            got.push(m.target.clone());
        }
    }
    eq("order", got, wanted)
}

fn tmpfs_options(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount(
        "/mnt",
        "tmpfs",
        "tmpfs",
        &["nosuid", "nodev", "noexec", "size=64k", "mode=1750", "uid=7", "gid=8", "nr_inodes=50"],
    );
    let lines = b.answers(&[&["json"], &["stat", "/mnt"], &["statfs", "/mnt"], &["write", "/mnt", "x"]])?;
    let all = parse(&serde_json::from_str(&lines[0])?);
    let m = at(&all, "/mnt")?;
    has(m, &["rw", "nosuid", "nodev", "noexec"], &[])?;
    let v: Value = serde_json::from_str(&lines[1])?;
    same("mode", &v["mode"], json!("1750"))?;
    same("owner", &json!([v["uid"], v["gid"]]), json!([7, 8]))?;
    eq("size and inodes", lines[2].as_str(), "ok 65536 50")
}

fn tmpfs_flags(cx: &Cx) -> Result<()> {
    for (options, yes, no) in [
        (&["noatime"][..], &["noatime"][..], &["relatime"][..]),
        (&["strictatime"], &[], &["relatime", "noatime"]),
        (&["relatime", "nodiratime"], &["relatime", "nodiratime"], &["noatime"]),
        (&["nosuid", "suid"], &[], &["nosuid"]),
        (&["noexec", "exec"], &[], &["noexec"]),
        (&["nodev", "dev"], &[], &["nodev"]),
        (&["ro", "rw"], &["rw"], &["ro"]),
    ] {
        let mut b = cx.bundle()?;
        b.mount("/mnt", "tmpfs", "tmpfs", options);
        let all = mounts_of(&mut b)?;
        has(at(&all, "/mnt")?, yes, no).with_context(|| format!("{options:?}"))?;
    }
    let mut b = cx.bundle()?;
    b.mount("/mnt", "tmpfs", "tmpfs", &["sync", "dirsync"]);
    let all = mounts_of(&mut b)?;
    let m = at(&all, "/mnt")?;
    ensure!(m.super_options.contains("sync") && m.super_options.contains("dirsync"), "{m:?}");
    Ok(())
}

fn tmpfs_defaults(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/mnt", "tmpfs", "tmpfs", &["defaults"]);
    has(at(&mounts_of(&mut b)?, "/mnt")?, &["rw"], &["ro", "nosuid", "nodev", "noexec"])
}

fn tmpfs_read_only(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/mnt", "tmpfs", "tmpfs", &["ro"]);
    b.expect(&[(&["create", "/mnt/x", "x"], "EROFS")])
}

/// Without `mode=` the tmpfs takes the mode of the directory it covers.
fn tmpfs_keeps_mode_of_directory(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::set_permissions(b.rootfs().join("tmp"), fs::Permissions::from_mode(0o1751))?;
    b.mount("/tmp", "tmpfs", "tmpfs", &[]);
    let v: Value = serde_json::from_str(&b.lines(&["stat", "/tmp"])?[0])?;
    same("mode", &v["mode"], json!("1751"))
}

fn tmpcopyup(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let dir = b.rootfs().join("data");
    fs::create_dir_all(dir.join("sub"))?;
    fs::write(dir.join("sub/file"), "inside")?;
    fs::set_permissions(dir.join("sub/file"), fs::Permissions::from_mode(0o644))?;
    std::os::unix::fs::chown(dir.join("sub/file"), Some(12), Some(34))?;
    symlink("/etc/passwd", dir.join("link"))?;
    b.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let lines = b.answers(&[
        &["cat", "/data/sub/file"],
        &["stat", "/data/sub/file"],
        &["readlink", "/data/link"],
        &["write", "/data/sub/file", "changed"],
    ])?;
    eq("content", lines[0].as_str(), "ok \"inside\"")?;
    let v: Value = serde_json::from_str(&lines[1])?;
    same("mode and owner", &json!([v["mode"], v["uid"], v["gid"]]), json!(["644", 12, 34]))?;
    eq("link", lines[2].as_str(), "ok /etc/passwd")?;
    eq("file below", fs::read_to_string(dir.join("sub/file"))?, "inside")
}

fn proc_options(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.without_mount("/proc");
    let mut list = b.config["mounts"].as_array().cloned().unwrap_or_default();
    list.insert(0, json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev", "hidepid=2"]}));
    b.set("/mounts", json!(list));
    let all = mounts_of(&mut b)?;
    let m = at(&all, "/proc")?;
    has(m, &["nosuid", "noexec", "nodev"], &[])?;
    ensure!(m.super_options.iter().any(|o| o.starts_with("hidepid=")), "{m:?}");
    Ok(())
}

fn sysfs(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.expect(&[
        (&["open", "/sys/kernel/uevent_helper", "w"], "EROFS"),
        (&["create", "/sys/kernel/x", "x"], "EROFS"),
    ])
    .or_else(|e| if fs::exists("/sys/kernel/uevent_helper")? { Err(e) } else { Ok(()) })
}

fn cgroup_mount(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let all = mounts_of(&mut b)?;
    let top = at(&all, "/sys/fs/cgroup")?;
    if cx.unified() {
        eq("type", top.kind.as_str(), "cgroup2")?;
        eq("root", top.root.as_str(), "/")?;
        return has(top, &["ro", "nosuid", "nodev", "noexec"], &[]);
    }
    eq("type", top.kind.as_str(), "tmpfs")?;
    has(top, &["nosuid", "nodev", "noexec"], &[])?;
    for tree in crate::cgroup::trees()?.iter().filter(|t| !t.v2) {
        let target = tree.mount.display().to_string();
        let m = at(&all, &target)?;
        eq(&target, m.kind.as_str(), "cgroup")?;
        has(m, &["ro", "nosuid", "nodev", "noexec"], &[])?;
    }
    b.expect(&[
        (&["open", "/sys/fs/cgroup/pids/cgroup.procs", "w"], "EROFS"),
        (&["mkdir", "/sys/fs/cgroup/pids/sub"], "EROFS"),
    ])
}

/// Without a cgroup namespace the container sees its own directory, not the host's tree.
fn cgroup_mount_without_namespace(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.without_namespace("cgroup");
    let all = mounts_of(&mut b)?;
    if cx.unified() {
        return eq("type", at(&all, "/sys/fs/cgroup")?.kind.as_str(), "cgroup2");
    }
    let m = at(&all, "/sys/fs/cgroup/pids")?;
    ensure!(m.root.contains(&cx.mark), "root of the pids tree: {}", m.root);
    Ok(())
}

fn cgroup_mount_writable(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.without_mount("/sys/fs/cgroup").mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "rw"],
    );
    let dir = if cx.unified() { "/sys/fs/cgroup/sub" } else { "/sys/fs/cgroup/pids/sub" };
    b.expect(&[(&["mkdir", dir], "ok")])
}

fn mqueue_and_shm(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let lines =
        b.answers(&[&["stat", "/dev/shm"], &["create", "/dev/shm/x", "x"], &["statfs", "/dev/shm"]])?;
    let v: Value = serde_json::from_str(&lines[0])?;
    same("mode", &v["mode"], json!("1777"))?;
    eq("write", lines[1].as_str(), "ok")?;
    ensure!(lines[2].starts_with("ok 67108864 "), "size {}", lines[2]);
    Ok(())
}

fn symlink_options(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/mnt", "tmpfs", "tmpfs", &["nosymfollow"]);
    let all = mounts_of(&mut b)?;
    has(at(&all, "/mnt")?, &["nosymfollow"], &[])
}

fn many_mounts(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    for n in 0..200 {
        b.mount(&format!("/many/{n}"), "bind", &dir, &["rbind", "ro"]);
    }
    let all = mounts_of(&mut b)?;
    eq("mounts", all.iter().filter(|m| m.target.starts_with("/many/")).count(), 200)
}

/// Programs in containers mount their own: a second entry in the list is no error.
fn cgroup_mount_twice(cx: &Cx) -> Result<()> {
    for namespace in [true, false] {
        let mut b = cx.bundle()?;
        if !namespace {
            b.without_namespace("cgroup");
        }
        b.mount("/other", "cgroup", "cgroup", &["ro", "nosuid"]);
        let all = mounts_of(&mut b)?;
        let kind = if cx.unified() { "cgroup2" } else { "tmpfs" };
        eq("type", at(&all, "/other")?.kind.as_str(), kind)?;
        has(at(&all, "/other")?, &["nosuid"], &[])?;
    }
    Ok(())
}

/// By its own name, which also a host with v1 may know.
fn cgroup_mount_of_the_second_version(cx: &Cx) -> Result<()> {
    for namespace in [true, false] {
        let mut b = cx.bundle()?;
        if !namespace {
            b.without_namespace("cgroup");
        }
        b.mount("/second", "cgroup2", "cgroup2", &["nosuid", "nodev", "noexec"]);
        let all = mounts_of(&mut b)?;
        let m = at(&all, "/second")?;
        eq("type", m.kind.as_str(), "cgroup2")?;
        has(m, &["rw", "nosuid", "nodev", "noexec"], &[])?;
    }
    Ok(())
}

fn cgroup_mount_options(cx: &Cx) -> Result<()> {
    for namespace in [true, false] {
        let mut b = cx.bundle()?;
        if !namespace {
            b.without_namespace("cgroup");
        }
        b.without_mount("/sys/fs/cgroup").mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro", "rprivate"],
        );
        let all = mounts_of(&mut b)?;
        let place = if cx.unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
        let m = at(&all, place)?;
        has(m, &["ro", "nosuid", "nodev", "noexec", "relatime"], &[])?;
        eq("propagation", m.tags.as_str(), "")?;
    }
    Ok(())
}
