//! Every option word of a mount: alone, taken back, for the mount and for all below it, for the file system behind it.

use super::tests;
use crate::bundle::Bundle;
use crate::cx::{Cx, eq};
use crate::mountinfo::{Mount, at, has, mounts_of, parse};
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

tests!["mount_options":
    words_for_binds deviates ["crun" = "does not know them all and takes others as the words of a remount"],
    access_times_of_binds deviates ["crun" = "clears what was not named"],
    no_word_keeps_all_flags deviates ["crun" = "clears them for a bind mount of a whole file system"],
    words_for_all_below deviates ["crun" = "knows neither rsymfollow nor how to change access times"],
    words_for_all_below_and_the_mount deviates ["crun" = "clears flags that nobody named"],
    words_for_all_below_a_file,
    superblock_words deviates ["crun" = "hands some words to the file system"],
    words_without_effect deviates ["crun" = "hands some words to the file system"],
    several_in_one_string,
    empty_words deviates ["runc" = "hands them to the file system", "crun" = "hands them to the file system"],
    long_values,
    kernel_explains deviates ["runc" = "uses mount(2), which has no words", "crun" = "uses mount(2), which has no words"],
    remount_of_the_mount,
    remount_of_the_filesystem deviates ["crun" = "refuses it"],
    features_list_them deviates ["runc" = "lists idmap and ridmap only as an extension", "crun" = "lists fewer"],
];

/// A tmpfs with another one below, both with these flags; gone at the end.
struct Source(PathBuf);

impl Source {
    fn new(cx: &Cx, flags: MsFlags) -> Result<Self> {
        let dir = cx.path(&format!("source.{}", cx.next()));
        fs::create_dir(&dir)?;
        let source = Source(dir);
        let below = source.0.join("below");
        tmpfs(&source.0)?;
        fs::create_dir(&below)?;
        fs::write(source.0.join("file"), "file")?;
        tmpfs(&below)?;
        for dir in [&below, &source.0] {
            // On the mount and not on its file system, so that a bind mount can do without.
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
            mount(None::<&str>, dir, None::<&str>, flags, None::<&str>)?;
        }
        Ok(source)
    }
}

fn tmpfs(dir: &Path) -> Result<()> {
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::MS_STRICTATIME, None::<&str>).context("mount a tmpfs")
}

impl Drop for Source {
    fn drop(&mut self) {
        // A failure shows as a leaked mount.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

const EVERYTHING: MsFlags = MsFlags::MS_RDONLY
    .union(MsFlags::MS_NOSUID)
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC)
    .union(NOSYMFOLLOW);
/// linux/mount.h.
const NOSYMFOLLOW: MsFlags = MsFlags::from_bits_retain(256);
const NOATIME: MsFlags = MsFlags::MS_NOATIME;
const NONE: MsFlags = MsFlags::MS_STRICTATIME;

/// Flags of the source, options, flags that must be there, flags that must not.
type Row<'a> = (MsFlags, &'a [&'a str], &'a [&'a str], &'a [&'a str]);

/// Binds a source for each row and compares `/N` and `/N/below` with it.
fn check(cx: &Cx, rows: &[Row], below_too: bool) -> Result<()> {
    let mut sources = vec![];
    let mut b = cx.bundle()?;
    for (n, (flags, options, _, _)) in rows.iter().enumerate() {
        let source = Source::new(cx, *flags)?;
        let mut all = vec!["rbind"];
        all.extend(*options);
        b.mount(&format!("/{n}"), "bind", &source.0, &all);
        sources.push(source);
    }
    let all = mounts_of(&mut b)?;
    let mut wrong = vec![];
    for (n, (_, options, yes, no)) in rows.iter().enumerate() {
        let mut places = vec![format!("/{n}")];
        if below_too {
            places.push(format!("/{n}/below"));
        }
        for place in places {
            if let Err(e) = has(at(&all, &place)?, yes, no) {
                wrong.push(format!("{options:?}: {e}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

fn words_for_binds(cx: &Cx) -> Result<()> {
    let all_gone = &["ro", "nosuid", "nodev", "noexec", "nosymfollow"][..];
    check(
        cx,
        &[
            (NONE, &["ro"], &["ro"], &["rw"]),
            (NONE, &["nosuid"], &["nosuid", "rw"], &["nodev"]),
            (NONE, &["nodev"], &["nodev", "rw"], &["nosuid"]),
            (NONE, &["noexec"], &["noexec", "rw"], &["nosuid"]),
            (NONE, &["nosymfollow"], &["nosymfollow", "rw"], &["nosuid"]),
            // A word replaces all flags, also one that only takes back.
            (EVERYTHING, &["rw"], &["rw"], all_gone),
            (EVERYTHING, &["suid"], &["rw"], all_gone),
            (EVERYTHING, &["dev"], &["rw"], all_gone),
            (EVERYTHING, &["exec"], &["rw"], all_gone),
            (EVERYTHING, &["symfollow"], &["rw"], all_gone),
            (EVERYTHING, &["noexec"], &["rw", "noexec"], &["nosuid", "nodev", "nosymfollow"]),
            (EVERYTHING, &["async"], &["rw"], all_gone),
            (NONE, &["ro", "rw"], &["rw"], &["ro"]),
            (NONE, &["noexec", "exec", "nodev"], &["nodev"], &["noexec"]),
        ],
        false,
    )
}

/// As mount(2) reads them: words that take back change nothing that the options have not named themselves.
fn access_times_of_binds(cx: &Cx) -> Result<()> {
    let nodiratime = MsFlags::MS_NODIRATIME;
    check(
        cx,
        &[
            (NONE, &["noatime"], &["noatime"], &["relatime", "nodiratime"]),
            (NONE, &["relatime"], &["relatime"], &["noatime", "nodiratime"]),
            (NONE, &["nodiratime"], &["nodiratime", "relatime"], &["noatime"]),
            (NOATIME, &["strictatime"], &[], &["noatime", "relatime", "nodiratime"]),
            (NOATIME, &["relatime"], &["relatime"], &["noatime"]),
            (NOATIME, &["nodiratime"], &["nodiratime", "relatime"], &["noatime"]),
            (NOATIME, &["nodiratime", "strictatime"], &["nodiratime"], &["noatime", "relatime"]),
            (nodiratime, &["strictatime"], &[], &["noatime", "relatime", "nodiratime"]),
            (NOATIME, &["atime"], &["noatime"], &["relatime"]),
            (NOATIME, &["norelatime"], &["noatime"], &["relatime"]),
            (NOATIME, &["nostrictatime"], &["noatime"], &["relatime"]),
            (NOATIME, &["ro"], &["noatime", "ro"], &["relatime"]),
            (nodiratime, &["diratime"], &["nodiratime"], &[]),
            (NONE, &["noatime", "norelatime"], &["noatime"], &["relatime"]),
            (NONE, &["noatime", "atime"], &[], &["noatime", "relatime"]),
        ],
        false,
    )
}

fn no_word_keeps_all_flags(cx: &Cx) -> Result<()> {
    let flags = EVERYTHING | NOATIME | MsFlags::MS_NODIRATIME;
    let kept = &["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"][..];
    check(
        cx,
        &[
            (flags, &[], kept, &["rw"]),
            (flags, &["rprivate"], kept, &["rw"]),
            (flags, &["rslave"], kept, &["rw"]),
        ],
        true,
    )
}

fn words_for_all_below(cx: &Cx) -> Result<()> {
    let nodiratime = MsFlags::MS_NODIRATIME;
    check(
        cx,
        &[
            (NONE, &["rro"], &["ro"], &["rw", "nosuid"]),
            (EVERYTHING, &["rrw"], &["rw", "nosuid", "nodev", "noexec", "nosymfollow"], &["ro"]),
            (NONE, &["rnosuid"], &["nosuid"], &["nodev"]),
            (EVERYTHING, &["rsuid"], &["ro", "nodev"], &["nosuid"]),
            (NONE, &["rnodev"], &["nodev"], &["nosuid"]),
            (EVERYTHING, &["rdev"], &["ro", "nosuid"], &["nodev"]),
            (NONE, &["rnoexec"], &["noexec"], &["nosuid"]),
            (EVERYTHING, &["rexec"], &["ro", "nosuid"], &["noexec"]),
            (NONE, &["rnosymfollow"], &["nosymfollow"], &["nosuid"]),
            (EVERYTHING, &["rsymfollow"], &["ro", "nosuid"], &["nosymfollow"]),
            (NONE, &["rnodiratime"], &["nodiratime"], &["noatime"]),
            (nodiratime, &["rdiratime"], &[], &["nodiratime"]),
            (NONE, &["rnoatime"], &["noatime"], &["relatime"]),
            (NOATIME, &["ratime"], &["relatime"], &["noatime"]),
            (NOATIME, &["rrelatime"], &["relatime"], &["noatime"]),
            (NOATIME, &["rnorelatime"], &["relatime"], &["noatime"]),
            (NOATIME, &["rstrictatime"], &[], &["noatime", "relatime"]),
            (NONE, &["rnostrictatime"], &["relatime"], &["noatime"]),
            (
                NONE,
                &["rro", "rnoexec", "rnosuid", "rnodev", "rnoatime"],
                &["ro", "noexec", "nosuid", "nodev", "noatime"],
                &[],
            ),
            (NONE, &["rro", "rrw"], &["rw"], &["ro"]),
        ],
        true,
    )
}

/// The words for all below come after those for the mount alone.
fn words_for_all_below_and_the_mount(cx: &Cx) -> Result<()> {
    let source = Source::new(cx, NONE)?;
    let mut b = cx.bundle()?;
    b.mount("/a", "bind", &source.0, &["rbind", "ro", "rnoexec"]);
    b.mount("/b", "bind", &source.0, &["rbind", "ro", "rrw"]);
    b.mount("/c", "bind", &source.0, &["bind", "rro"]);
    b.mount("/d", "tmpfs", "tmpfs", &["rnoexec", "rnoatime"]);
    let all = mounts_of(&mut b)?;
    has(at(&all, "/a")?, &["ro", "noexec"], &[])?;
    has(at(&all, "/a/below")?, &["rw", "noexec"], &[])?;
    has(at(&all, "/b")?, &["rw"], &[])?;
    has(at(&all, "/c")?, &["ro"], &[])?;
    if cx.kind == "runc" {
        // Sets them on bind mounts only.
        return Ok(());
    }
    has(at(&all, "/d")?, &["noexec", "noatime"], &[])
}

fn words_for_all_below_a_file(cx: &Cx) -> Result<()> {
    let source = Source::new(cx, NONE)?;
    let mut b = cx.bundle()?;
    b.mount("/file", "bind", source.0.join("file"), &["rbind", "rro"]);
    b.expect(&[(&["write", "/file", "x"], "EROFS")])
}

fn superblock_words(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let rows: &[(&[&str], &[&str], &[&str])] = &[
        (&["sync"], &["sync"], &["dirsync"]),
        (&["sync", "async"], &[], &["sync"]),
        (&["dirsync"], &["dirsync"], &["sync"]),
        (&["lazytime"], &["lazytime"], &[]),
        (&["lazytime", "nolazytime"], &[], &["lazytime"]),
    ];
    for (n, (options, _, _)) in rows.iter().enumerate() {
        b.mount(&format!("/{n}"), "tmpfs", "tmpfs", options);
    }
    let all = mounts_of(&mut b)?;
    for (n, (options, yes, no)) in rows.iter().enumerate() {
        let m = at(&all, &format!("/{n}"))?;
        for word in *yes {
            ensure!(m.super_options.contains(*word), "{options:?}: no {word} in {m:?}");
        }
        for word in *no {
            ensure!(!m.super_options.contains(*word), "{options:?}: {word} in {m:?}");
        }
    }
    Ok(())
}

/// What kernels of today leave to the file system, or ignore, is no error; neither are words for a file system on a
/// bind mount.
fn words_without_effect(cx: &Cx) -> Result<()> {
    let source = Source::new(cx, NONE)?;
    let mut b = cx.bundle()?;
    let words = ["iversion", "noiversion", "silent", "loud", "mand", "nomand", "async", "nolazytime"];
    for word in words {
        b.mount(&format!("/t/{word}"), "tmpfs", "tmpfs", &[word]);
    }
    for word in words.iter().chain(&["sync", "dirsync", "lazytime"]) {
        b.mount(&format!("/b/{word}"), "bind", &source.0, &["bind", word]);
    }
    let all = mounts_of(&mut b)?;
    for word in words {
        at(&all, &format!("/t/{word}"))?;
        has(at(&all, &format!("/b/{word}"))?, &["rw"], &[])?;
    }
    Ok(())
}

fn several_in_one_string(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/mnt", "tmpfs", "tmpfs", &["size=64k,mode=1750", "nr_inodes=50"]);
    let lines = b.answers(&[&["stat", "/mnt"], &["statfs", "/mnt"]])?;
    let v: Value = serde_json::from_str(&lines[0])?;
    eq("mode", v["mode"].as_str(), Some("1750"))?;
    eq("size and inodes", lines[1].as_str(), "ok 65536 50")
}

fn empty_words(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/mnt", "tmpfs", "tmpfs", &["", "size=64k", ",", "defaults"]);
    b.expect(&[(&["create", "/mnt/x", "x"], "ok")])
}

/// The directories of an overlay: more than 255 bytes, more than the kernel takes for one value of a parameter.
fn long_values(cx: &Cx) -> Result<()> {
    let name = "d".repeat(60);
    let mut lower = vec![];
    for n in 0..8 {
        let dir = cx.path(&format!("lower{n}")).join(&name);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("file{n}")), n.to_string())?;
        lower.push(dir.display().to_string());
    }
    let (upper, work) = (cx.path("upper"), cx.path("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let options = [
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
        "nosuid".into(),
        "nodev".into(),
        "noatime".into(),
    ];
    let mut b = cx.bundle()?;
    b.mount("/over", "overlay", "overlay", &options.each_ref().map(String::as_str));
    let lines = b.answers(&[
        &["cat", "/over/file0"],
        &["cat", "/over/file7"],
        &["create", "/over/new", "new"],
        &["ls", "/"],
        &["json"],
    ])?;
    eq("files", &lines[..3], &["ok \"0\"", "ok \"7\"", "ok"][..])?;
    eq("written", fs::read_to_string(upper.join("new"))?, "new")?;
    let all = parse(&serde_json::from_str(&lines[4])?);
    let over: Vec<&Mount> = all.iter().filter(|m| m.target.starts_with("/over")).collect();
    eq("mounts there", over.len(), 1)?;
    eq("type", over[0].kind.as_str(), "overlay")?;
    has(over[0], &["rw", "nosuid", "nodev", "noatime"], &[])
}

/// The kernel's own words about a wrong parameter are part of the error, and so is the mount they are about.
fn kernel_explains(cx: &Cx) -> Result<()> {
    for (kind, option, words) in [
        ("tmpfs", "size=wrong", "tmpfs: Bad value for 'size'"),
        ("tmpfs", "nonsense=1", "tmpfs: Unknown parameter 'nonsense'"),
        ("proc", "hidepid=17", "hidepid"),
    ] {
        let mut b = cx.bundle()?;
        let target = if kind == "proc" { "/proc" } else { "/mnt" };
        b.mount(target, kind, kind, &[option]).save()?;
        let before = cx.snapshot()?;
        let out = b.run()?.one_line()?;
        out.fails(&["/mounts/7", target, words])?;
        cx.nothing_left(&before)?;
    }
    Ok(())
}

fn remounted<'a>(cx: &'a Cx, options: &[&str]) -> Result<(Bundle<'a>, Vec<Mount>)> {
    let source = cx.path(&format!("source.{}", cx.next()));
    fs::create_dir(&source)?;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "tmpfs", "tmpfs", &["size=64k", "nosuid", "noexec"])
        .mount("/mnt", "tmpfs", &source, options);
    let all = mounts_of(&mut b)?;
    let there = all.iter().filter(|m| m.target == "/mnt").count();
    eq("mounts there", there, 1)?;
    Ok((b, all))
}

fn remount_of_the_mount(cx: &Cx) -> Result<()> {
    let (mut b, all) = remounted(cx, &["bind", "remount", "ro", "nodev"])?;
    let m = at(&all, "/mnt")?;
    has(m, &["ro", "nodev"], &["nosuid", "noexec"])?;
    ensure!(m.super_options.contains("rw"), "the file system became read-only: {m:?}");
    b.expect(&[(&["create", "/mnt/x", "x"], "EROFS")])
}

fn remount_of_the_filesystem(cx: &Cx) -> Result<()> {
    let (mut b, all) = remounted(cx, &["remount", "size=128k", "nodev"])?;
    has(at(&all, "/mnt")?, &["rw", "nodev"], &["nosuid", "noexec"])?;
    let lines = b.answers(&[&["statfs", "/mnt"], &["create", "/mnt/x", "x"][..]])?;
    ensure!(lines[0].starts_with("ok 131072 "), "size {}", lines[0]);
    eq("write", lines[1].as_str(), "ok")?;
    let (mut b, all) = remounted(cx, &["remount", "ro"])?;
    has(at(&all, "/mnt")?, &["ro"], &["rw"])?;
    b.expect(&[(&["create", "/mnt/x", "x"], "EROFS")])
}

/// Engines look here before they use one.
fn features_list_them(cx: &Cx) -> Result<()> {
    let features = cx.bare(&["features"]).run()?.ok()?.json()?;
    let listed = features["mountOptions"].as_array().context("no mountOptions")?;
    let words = "async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noatime nodev \
        nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev \
        rdiratime relatime remount rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid \
        rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared \
        silent slave strictatime suid symfollow sync tmpcopyup unbindable";
    let missing: Vec<&str> = words.split_whitespace().filter(|word| !listed.contains(&json!(word))).collect();
    ensure!(missing.is_empty(), "not listed: {missing:?}");
    eq("idmap", features.pointer("/linux/mountExtensions/idmap/enabled"), Some(&json!(true)))
}
