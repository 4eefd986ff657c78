//! Where a mount may go: made when missing, links followed inside of the root, never outside.

use super::binds::source;
use super::tests;
use crate::cx::{Cx, eq, same};
use crate::mountinfo::{at, mounts_of};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

tests!["destinations":
    destination_made,
    destination_file_made,
    destination_relative,
    destination_through_absolute_link,
    destination_through_relative_link,
    destination_through_dangling_link deviates ["crun" = "refuses it"],
    destination_with_dots,
    destination_over_earlier_mount deviates ["crun" = "refuses it"],
    proc_behind_a_link,
    sysfs_behind_a_link,
];

fn destination_made(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/deep/er/than/that", "tmpfs", "tmpfs", &[]);
    let v: Value = serde_json::from_str(&b.lines(&["stat", "/deep/er"])?[0])?;
    same("mode and owner", &json!([v["uid"], v["gid"]]), json!([0, 0]))?;
    ensure!(b.rootfs().join("deep/er/than/that").is_dir(), "not made in the root filesystem");
    Ok(())
}

fn destination_file_made(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.mount("/deep/er/file", "bind", dir.join("file"), &["bind", "ro"]);
    b.run()?.ok()?;
    ensure!(b.rootfs().join("deep/er/file").is_file(), "not made as a file");
    Ok(())
}

fn destination_relative(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("mnt", "tmpfs", "tmpfs", &[]);
    at(&mounts_of(&mut b)?, "/mnt").map(drop)
}

/// A directory outside that must stay as it is.
fn canary(cx: &Cx) -> Result<std::path::PathBuf> {
    let dir = cx.path("canary");
    fs::create_dir_all(dir.join("sub"))?;
    fs::write(dir.join("file"), "untouched")?;
    Ok(dir)
}

fn untouched(dir: &Path) -> Result<()> {
    let mut names: Vec<_> = fs::read_dir(dir)?.flatten().map(|e| e.file_name()).collect();
    names.sort();
    eq("names in the directory outside", names, vec!["file", "sub"])?;
    eq("names below", fs::read_dir(dir.join("sub"))?.count(), 0)?;
    eq("the file outside", fs::read_to_string(dir.join("file"))?, "untouched")
}

fn destination_through_absolute_link(cx: &Cx) -> Result<()> {
    let outside = canary(cx)?;
    let mut b = cx.bundle()?;
    symlink("/home", b.rootfs().join("link"))?;
    symlink(&outside, b.rootfs().join("out"))?;
    fs::create_dir_all(b.rootfs().join(outside.strip_prefix("/")?).join("sub"))?;
    b.mount("/link/made", "tmpfs", "tmpfs", &[]).mount("/out/sub/made", "tmpfs", "tmpfs", &[]);
    let all = mounts_of(&mut b)?;
    at(&all, "/home/made")?;
    at(&all, &outside.join("sub/made").display().to_string())?;
    untouched(&outside)
}

fn destination_through_relative_link(cx: &Cx) -> Result<()> {
    let outside = canary(cx)?;
    let mut b = cx.bundle()?;
    symlink("../../../../../../../../../..", b.rootfs().join("up"))?;
    symlink("../../canary/sub", b.rootfs().join("near"))?;
    fs::create_dir_all(b.rootfs().join("canary/sub"))?;
    b.mount("/up/made", "tmpfs", "tmpfs", &[]).mount("/near/made", "tmpfs", "tmpfs", &[]);
    let all = mounts_of(&mut b)?;
    at(&all, "/made")?;
    at(&all, "/canary/sub/made")?;
    untouched(&outside)
}

fn destination_through_dangling_link(cx: &Cx) -> Result<()> {
    let outside = canary(cx)?;
    let mut b = cx.bundle()?;
    symlink("/absent/place", b.rootfs().join("dangling"))?;
    symlink(outside.join("made"), b.rootfs().join("out"))?;
    b.mount("/dangling", "tmpfs", "tmpfs", &[]).mount("/out", "tmpfs", "tmpfs", &[]);
    let all = mounts_of(&mut b)?;
    at(&all, "/absent/place")?;
    untouched(&outside)?;
    ensure!(!Path::new("/absent").exists(), "made on the host");
    Ok(())
}

fn destination_with_dots(cx: &Cx) -> Result<()> {
    let outside = canary(cx)?;
    let mut b = cx.bundle()?;
    b.mount("/mnt/../tmp/./made//", "tmpfs", "tmpfs", &[]).mount(
        "/../../../../../canary/sub/x",
        "tmpfs",
        "tmpfs",
        &[],
    );
    let all = mounts_of(&mut b)?;
    at(&all, "/tmp/made")?;
    at(&all, "/canary/sub/x")?;
    untouched(&outside)
}

/// A link that an earlier volume holds, as another container could have put it there.
fn destination_over_earlier_mount(cx: &Cx) -> Result<()> {
    let outside = canary(cx)?;
    let volume = cx.path("volume");
    fs::create_dir(&volume)?;
    symlink(&outside, volume.join("out"))?;
    symlink("../../../../../..", volume.join("up"))?;
    let mut b = cx.bundle()?;
    b.mount("/volume", "bind", &volume, &["bind"]).mount("/volume/out/sub", "tmpfs", "tmpfs", &[]);
    b.mount("/volume/up/here", "tmpfs", "tmpfs", &[]);
    let all = mounts_of(&mut b)?;
    at(&all, &outside.join("sub").display().to_string())?;
    at(&all, "/here")?;
    untouched(&outside)
}

/// Writes to /proc would land elsewhere (CVE-2019-16884, CVE-2019-19921).
fn proc_behind_a_link(cx: &Cx) -> Result<()> {
    let outside = canary(cx)?;
    for target in ["/tmp", "../../canary", "/home/user"] {
        let b = cx.bundle()?;
        fs::remove_dir(b.rootfs().join("proc"))?;
        symlink(target, b.rootfs().join("proc"))?;
        b.save()?;
        let before = cx.snapshot()?;
        let out = b.run()?;
        ensure!(out.code != 0 || cx.kind == "crun", "/proc -> {target} was followed");
        cx.nothing_left(&before)?;
    }
    untouched(&outside)
}

fn sysfs_behind_a_link(cx: &Cx) -> Result<()> {
    let outside = canary(cx)?;
    for target in ["/tmp", "../../canary"] {
        let b = cx.bundle()?;
        fs::remove_dir(b.rootfs().join("sys"))?;
        symlink(target, b.rootfs().join("sys"))?;
        b.save()?;
        let before = cx.snapshot()?;
        let out = b.run()?;
        ensure!(out.code != 0 || cx.kind == "crun", "/sys -> {target} was followed");
        cx.nothing_left(&before)?;
    }
    untouched(&outside)
}
