//! Idmapped mounts of containers without a user namespace: whose a file seems to be, and whose a new one is.

use super::tests;
use crate::bundle::Bundle;
use crate::cx::{Cx, eq};
use crate::mountinfo::{at, has, parse};
use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

tests!["idmapped":
    owners_appear_as_others,
    uids_and_gids_by_maps_of_their_own,
    new_files_get_the_owner_outside,
    unmapped_owners,
    only_the_mount_itself,
    with_all_below deviates ["crun" = "maps none of them"],
    several_with_several_maps,
    a_file,
    with_flags_and_propagation deviates ["crun" = "does not make it shared"],
    filesystem_without_support deviates ["crun" = "names no field"],
    wrong_mappings deviates ["crun" = "takes some of them"],
];

/// A directory with `file` of this owner.
fn source(cx: &Cx, uid: u32, gid: u32) -> Result<PathBuf> {
    let dir = cx.path(&format!("source.{}", cx.next()));
    fs::create_dir(&dir)?;
    put(&dir, uid, gid)?;
    Ok(dir)
}

fn put(dir: &Path, uid: u32, gid: u32) -> Result<()> {
    fs::write(dir.join("file"), "x")?;
    chown(dir.join("file"), Some(uid), Some(gid)).context("chown")
}

/// Lines of a map: id on disk, id in the container, how many.
fn map(lines: &[(u32, u32, u32)]) -> Value {
    lines.iter().map(|(disk, seen, n)| json!({"containerID": disk, "hostID": seen, "size": n})).collect()
}

fn add(b: &mut Bundle, target: &str, source: &Path, options: &[&str], uids: Value, gids: Value) {
    let source = source.display().to_string();
    b.push(
        "/mounts",
        json!({"destination": target, "type": "bind", "source": source, "options": options,
               "uidMappings": uids, "gidMappings": gids}),
    );
}

/// The owners that the container sees of these files.
fn owners(b: &mut Bundle, files: &[&str]) -> Result<Vec<(u64, u64)>> {
    let modes: Vec<Vec<&str>> = files.iter().map(|file| vec!["stat", file]).collect();
    let modes: Vec<&[&str]> = modes.iter().map(Vec::as_slice).collect();
    let lines = b.answers(&modes)?;
    lines
        .iter()
        .map(|line| {
            let v: Value = serde_json::from_str(line)?;
            Ok((v["uid"].as_u64().context("no uid")?, v["gid"].as_u64().context("no gid")?))
        })
        .collect()
}

fn owners_appear_as_others(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 8)?;
    let mut b = cx.bundle()?;
    let all = map(&[(0, 100_000, 65_536)]);
    add(&mut b, "/mnt", &dir, &["bind"], all.clone(), all);
    let before = cx.snapshot()?;
    eq("owners", owners(&mut b, &["/mnt/file", "/mnt"])?, vec![(100_007, 100_008), (100_000, 100_000)])?;
    cx.nothing_left(&before)?;
    eq("owner outside", fs::metadata(dir.join("file"))?.uid(), 7)
}

fn uids_and_gids_by_maps_of_their_own(cx: &Cx) -> Result<()> {
    let dir = source(cx, 1005, 20)?;
    let mut b = cx.bundle()?;
    let uids = map(&[(0, 500, 10), (1000, 0, 10)]);
    add(&mut b, "/mnt", &dir, &["bind"], uids, map(&[(20, 30, 1), (0, 40, 1)]));
    eq("owners", owners(&mut b, &["/mnt/file", "/mnt"])?, vec![(5, 30), (500, 40)])
}

fn new_files_get_the_owner_outside(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 7)?;
    chown(&dir, Some(7), Some(7))?;
    let mut b = cx.bundle()?;
    let root_is_7 = map(&[(7, 0, 1)]);
    add(&mut b, "/mnt", &dir, &["bind"], root_is_7.clone(), root_is_7);
    b.expect(&[(&["create", "/mnt/new", "x"], "ok")])?;
    let new = fs::metadata(dir.join("new"))?;
    eq("owner outside", (new.uid(), new.gid()), (7, 7))
}

fn unmapped_owners(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 8)?;
    let mut b = cx.bundle()?;
    let others = map(&[(1000, 1000, 10)]);
    add(&mut b, "/mnt", &dir, &["bind"], others.clone(), others);
    eq("owners", owners(&mut b, &["/mnt/file"])?, vec![(65_534, 65_534)])?;
    b.expect(&[(&["create", "/mnt/new", "x"], "EOVERFLOW")])
}

/// A tmpfs below another directory, gone at the end.
struct Below(PathBuf);

impl Below {
    fn new(dir: &Path) -> Result<Self> {
        let below = dir.join("below");
        fs::create_dir(&below)?;
        mount(Some("tmpfs"), &below, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        let below = Below(below);
        put(&below.0, 9, 9)?;
        Ok(below)
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        // A failure shows as a leaked mount.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn only_the_mount_itself(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 8)?;
    let _below = Below::new(&dir)?;
    let all = map(&[(0, 100_000, 65_536)]);
    for options in [&["rbind"][..], &["rbind", "idmap"]] {
        let mut b = cx.bundle()?;
        add(&mut b, "/mnt", &dir, options, all.clone(), all.clone());
        let got = owners(&mut b, &["/mnt/file", "/mnt/below/file"])?;
        eq(&format!("{options:?}"), got, vec![(100_007, 100_008), (9, 9)])?;
    }
    Ok(())
}

fn with_all_below(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 8)?;
    let _below = Below::new(&dir)?;
    let all = map(&[(0, 100_000, 65_536)]);
    let mut b = cx.bundle()?;
    add(&mut b, "/mnt", &dir, &["rbind", "ridmap"], all.clone(), all);
    let got = owners(&mut b, &["/mnt/file", "/mnt/below/file"])?;
    eq("owners", got, vec![(100_007, 100_008), (100_009, 100_009)])
}

fn several_with_several_maps(cx: &Cx) -> Result<()> {
    let (one, two) = (source(cx, 1, 1)?, source(cx, 2, 2)?);
    let mut b = cx.bundle()?;
    for (target, dir, seen) in
        [("/a", &one, 1000), ("/b", &two, 1000), ("/c", &one, 2000), ("/d", &one, 1000), ("/e", &two, 3000)]
    {
        let all = map(&[(0, seen, 100)]);
        add(&mut b, target, dir, &["bind"], all.clone(), all);
    }
    b.mount("/plain", "bind", &one, &["bind"]);
    let files = ["/a/file", "/b/file", "/c/file", "/d/file", "/e/file", "/plain/file"];
    let wanted = [1001, 1002, 2001, 1001, 3002, 1].map(|id| (id, id)).to_vec();
    eq("owners", owners(&mut b, &files)?, wanted)
}

fn a_file(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 8)?;
    let mut b = cx.bundle()?;
    let all = map(&[(0, 100_000, 65_536)]);
    add(&mut b, "/etc/mapped", &dir.join("file"), &["bind"], all.clone(), all);
    eq("owners", owners(&mut b, &["/etc/mapped"])?, vec![(100_007, 100_008)])
}

fn with_flags_and_propagation(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 8)?;
    let mut b = cx.bundle()?;
    let all = map(&[(0, 100_000, 65_536)]);
    add(&mut b, "/mnt", &dir, &["bind", "ro", "nosuid", "rnoexec", "shared"], all.clone(), all);
    let lines = b.answers(&[&["json"], &["create", "/mnt/new", "x"]])?;
    let all = parse(&serde_json::from_str(&lines[0])?);
    let m = at(&all, "/mnt")?;
    has(m, &["ro", "nosuid", "noexec"], &["rw"])?;
    anyhow::ensure!(m.tags.contains("shared:"), "not shared: {m:?}");
    eq("write", lines[1].as_str(), "EROFS")
}

fn filesystem_without_support(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let all = map(&[(0, 100_000, 65_536)]);
    add(&mut b, "/mnt", Path::new("/sys/kernel"), &["bind"], all.clone(), all);
    b.save()?;
    let before = cx.snapshot()?;
    b.run()?.fails(&["MOUNT_ATTR_IDMAP", "invalid argument"])?;
    cx.nothing_left(&before)
}

fn wrong_mappings(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 8)?;
    let path = dir.display().to_string();
    let good = map(&[(0, 1000, 1)]);
    for (entry, words) in [
        (json!({"source": path, "options": ["bind"], "uidMappings": good}), "both uid and gid mappings"),
        (json!({"source": path, "options": ["bind"], "gidMappings": good}), "both uid and gid mappings"),
        (json!({"source": path, "options": ["bind", "idmap"]}), "both uid and gid mappings"),
        (
            json!({"source": "tmpfs", "type": "tmpfs", "uidMappings": good, "gidMappings": good}),
            "id-mapped mounts are only supported for bind-mounts",
        ),
        (
            json!({"source": path, "options": ["bind"], "uidMappings": map(&[(0, 5, 0)]), "gidMappings": good}),
            "",
        ),
        (
            json!({"source": path, "options": ["bind"], "uidMappings": map(&[(0, 5, 9), (3, 50, 1)]), "gidMappings": good}),
            "",
        ),
    ] {
        let mut entry = entry;
        entry["destination"] = json!("/mnt");
        let mut b = cx.bundle()?;
        b.push("/mounts", entry.clone()).save()?;
        let before = cx.snapshot()?;
        b.run()?.fails(&[words]).with_context(|| entry.to_string())?;
        cx.nothing_left(&before)?;
    }
    Ok(())
}
