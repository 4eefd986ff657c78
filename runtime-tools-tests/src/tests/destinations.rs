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
    link_into_proc deviates ["crun" = "follows it"],
    link_to_the_root deviates ["crun" = "follows it"],
    nothing_inside_proc,
    what_lxcfs_offers,
    proc_by_a_bind_of_something_else deviates ["crun" = "takes it"],
    file_on_a_directory,
    named_by_its_place_on_the_host deviates ["crun" = "takes it for a path inside"],
    sources_made_by_earlier_mounts,
    read_only_dev,
    copy_up_through_a_link,
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
        let said = out.said().contains("must be mounted on ordinary directory");
        ensure!(said || cx.kind == "crun", "stderr {}", out.stderr);
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

/// A link of the image must not lead a mount onto what later steps write to (CVE-2019-19921 and its kin).
fn link_into_proc(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    for (target, kind, options) in
        [("/proc", "bind", &["bind"][..]), ("/proc/self", "tmpfs", &[]), ("../proc/sys", "bind", &["rbind"])]
    {
        let mut b = cx.bundle()?;
        symlink(target, b.rootfs().join("link"))?;
        b.mount("/link", kind, &dir, options).save()?;
        let before = cx.snapshot()?;
        b.run()?.fails_any(&["inside /proc", "is not of type proc"])?;
        cx.nothing_left(&before)?;
    }
    Ok(())
}

fn link_to_the_root(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    symlink("..", b.rootfs().join("link"))?;
    b.mount("/link", "bind", &dir, &["bind"]).save()?;
    let before = cx.snapshot()?;
    b.run()?.fails_any(&["on the top of rootfs", "leads it to the root"])?;
    cx.nothing_left(&before)
}

fn nothing_inside_proc(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    for (target, kind, options) in [
        ("/proc/sys", "tmpfs", &[][..]),
        ("/proc/self/attr/", "bind", &["bind"]),
        ("proc/../proc/1", "bind", &["rbind"]),
    ] {
        let mut b = cx.bundle()?;
        b.mount(target, kind, &dir, options).save()?;
        let out = b.run()?;
        ensure!(out.code != 0 || cx.kind == "crun", "a {kind} on {target} was made");
        if cx.kind != "crun" {
            out.fails(&["inside /proc"])?;
        }
    }
    Ok(())
}

fn what_lxcfs_offers(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.mount("/proc/uptime", "bind", dir.join("file"), &["bind", "ro"]);
    b.expect(&[(&["cat", "/proc/uptime"], "ok \"from outside\"")])
}

/// Security labels are written through /proc: only a procfs may be there (CVE-2019-16884).
fn proc_by_a_bind_of_something_else(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.without_mount("/proc").mount("/proc", "bind", &dir, &["bind"]).save()?;
    let before = cx.snapshot()?;
    b.run()?.fails_any(&["is not of type proc", "is not the root of a procfs"])?;
    cx.nothing_left(&before)
}

/// Docker looks for these words and then hints at the file or the directory that is missing.
fn file_on_a_directory(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    for (target, from) in [("/mnt", dir.join("file")), ("/etc/plain", dir.clone())] {
        let mut b = cx.bundle()?;
        b.mount(target, "bind", &from, &["bind"]).save()?;
        let before = cx.snapshot()?;
        let out = b.run()?.code(1)?;
        ensure!(out.said().to_lowercase().contains("not a directory"), "{}", out.stderr);
        cx.nothing_left(&before)?;
    }
    Ok(())
}

fn named_by_its_place_on_the_host(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let target = b.rootfs().join("mnt/made").display().to_string();
    b.mount(&target, "tmpfs", "tmpfs", &[]);
    at(&mounts_of(&mut b)?, "/mnt/made").map(drop)
}

/// Mounts may show what earlier ones of the list have put into the root filesystem.
fn sources_made_by_earlier_mounts(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let root = b.rootfs();
    let volume = cx.path("volume");
    for sub in ["a/x", "b/y"] {
        fs::create_dir_all(volume.join(sub))?;
        fs::write(volume.join(sub).join("file"), sub)?;
    }
    b.mount("/mnt", "bind", volume.join("a"), &["bind"])
        .mount("/mnt/x", "bind", volume.join("b"), &["bind"])
        .mount("/final", "bind", root.join("mnt"), &["rbind"]);
    b.expect(&[(&["cat", "/final/x/y/file"], "ok \"b/y\"")])
}

/// Devices, the terminal and createContainer hooks still put files there.
fn read_only_dev(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let list = b.config["mounts"].as_array_mut().into_iter().flatten();
    for m in list.filter(|m| m["destination"] == "/dev") {
        m["options"] = json!(["nosuid", "mode=755", "ro"]);
    }
    b.expect(&[
        (&["create", "/dev/x", "x"], "EROFS"),
        (&["write", "/dev/null", "x"], "ok"),
        (&["create", "/dev/shm/x", "x"], "ok"),
    ])
}

fn copy_up_through_a_link(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    symlink("/var/real", b.rootfs().join("link"))?;
    fs::create_dir_all(b.rootfs().join("var/real"))?;
    fs::write(b.rootfs().join("var/real/file"), "copied")?;
    b.mount("/link", "tmpfs", "tmpfs", &["tmpcopyup", "ro"]);
    b.expect(&[(&["cat", "/var/real/file"], "ok \"copied\""), (&["create", "/link/new", "x"], "EROFS")])
}
