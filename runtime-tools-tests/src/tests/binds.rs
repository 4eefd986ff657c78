//! Bind mounts, with what they keep and what is asked of them, and propagation of mounts and of the root.

use super::tests;
use crate::cx::{Cx, eq, same};
use crate::mountinfo::{Mount, at, has, mounts_of, parse};
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

tests!["binds":
    bind_directory,
    bind_file,
    bind_read_only,
    bind_not_recursive,
    bind_recursive,
    bind_read_only_is_not_recursive,
    bind_recursive_read_only deviates ["crun" = "gets EINVAL for rnoatime"],
    bind_flags,
    bind_flags_kept_from_source deviates ["crun" = "clears nosuid"],
    bind_source_relative_to_bundle,
    bind_source_is_a_link,
    bind_of_a_device_and_a_fifo,
    bind_type_is_ignored,
    bind_without_bind_option,
    propagation_of_mounts deviates ["crun" = "does not make a tmpfs shared"],
    propagation_shared_reaches_out,
    propagation_private_stays_in,
    propagation_slave_comes_in deviates ["crun" = "needs a root that is a slave for this"],
    rootfs_propagation,
    rootfs_propagation_slave_comes_in deviates ["runc" = "1.3 makes it private", "crun" = "makes it private"],
    rootfs_propagation_runbindable deviates ["runc" = "cannot copy mounts any more then", "crun" = "cannot copy mounts any more then"],
    rootfs_propagation_unknown deviates ["crun" = "takes any word"],
];

/// A directory on the host with a file.
pub fn source(cx: &Cx, name: &str) -> Result<std::path::PathBuf> {
    let dir = cx.path(name);
    fs::create_dir(&dir)?;
    fs::write(dir.join("file"), "from outside")?;
    Ok(dir)
}

fn bind_directory(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "bind", &dir, &["bind"]);
    b.expect(&[
        (&["cat", "/mnt/file"], "ok \"from outside\""),
        (&["create", "/mnt/new", "from inside"], "ok"),
    ])?;
    eq("written", fs::read_to_string(dir.join("new"))?, "from inside")
}

fn bind_file(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.mount("/etc/plain", "bind", dir.join("file"), &["bind"]).mount(
        "/new/file",
        "bind",
        dir.join("file"),
        &["rbind"],
    );
    b.expect(&[
        (&["cat", "/etc/plain"], "ok \"from outside\""),
        (&["cat", "/new/file"], "ok \"from outside\""),
    ])
}

fn bind_read_only(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "bind", &dir, &["bind", "ro"]).mount("/rw", "bind", &dir, &["bind"]);
    b.expect(&[
        (&["create", "/mnt/new", "x"], "EROFS"),
        (&["write", "/mnt/file", "x"], "EROFS"),
        (&["create", "/rw/new", "x"], "ok"),
    ])?;
    eq("the source", fs::read_to_string(dir.join("new"))?, "x")
}

/// A directory with a tmpfs mounted below.
struct Tree<'a>(&'a Path);

impl<'a> Tree<'a> {
    fn new(dir: &'a Path) -> Result<Self> {
        fs::create_dir_all(dir.join("below"))?;
        mount(Some("tmpfs"), &dir.join("below"), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        fs::write(dir.join("below/inner"), "inner")?;
        Ok(Tree(dir))
    }
}

impl Drop for Tree<'_> {
    fn drop(&mut self) {
        // A failure shows as a leaked mount.
        let _ = umount2(&self.0.join("below"), MntFlags::MNT_DETACH);
    }
}

fn bind_not_recursive(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let _tree = Tree::new(&dir)?;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "bind", &dir, &["bind"]);
    b.expect(&[(&["ls", "/mnt/below"], "[]")])
}

fn bind_recursive(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let _tree = Tree::new(&dir)?;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "bind", &dir, &["rbind"]);
    b.expect(&[(&["cat", "/mnt/below/inner"], "ok \"inner\"")])
}

fn bind_read_only_is_not_recursive(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let _tree = Tree::new(&dir)?;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "bind", &dir, &["rbind", "ro"]);
    b.expect(&[(&["create", "/mnt/x", "x"], "EROFS"), (&["create", "/mnt/below/x", "x"], "ok")])
}

fn bind_recursive_read_only(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let _tree = Tree::new(&dir)?;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "bind", &dir, &["rbind", "rro"]).mount(
        "/a",
        "bind",
        &dir,
        &["rbind", "rnoexec", "rnosuid", "rnodev", "rnoatime"],
    );
    let lines = b.answers(&[&["create", "/mnt/x", "x"], &["create", "/mnt/below/x", "x"], &["json"]])?;
    eq("writes", &lines[..2], &["EROFS", "EROFS"][..])?;
    let all = parse(&serde_json::from_str(&lines[2])?);
    has(at(&all, "/a/below")?, &["rw", "noexec", "nosuid", "nodev", "noatime"], &[])?;
    // The source is as before.
    fs::write(dir.join("below/outside"), "x").context("the source became read-only")
}

fn bind_flags(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.mount("/a", "bind", &dir, &["bind", "nosuid", "nodev", "noexec", "noatime"]).mount(
        "/b",
        "bind",
        &dir,
        &["bind", "nodiratime", "relatime"],
    );
    let all = mounts_of(&mut b)?;
    has(at(&all, "/a")?, &["nosuid", "nodev", "noexec", "noatime", "rw"], &["relatime"])?;
    has(at(&all, "/b")?, &["nodiratime", "relatime"], &["nosuid", "noexec"])
}

/// Flags the source mount has and the config does not speak of stay; those it clears go.
fn bind_flags_kept_from_source(cx: &Cx) -> Result<()> {
    let dir = cx.path("source");
    fs::create_dir(&dir)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), flags, None::<&str>)?;
    let mut b = cx.bundle()?;
    b.mount("/plain", "bind", &dir, &["bind"]).mount("/ro", "bind", &dir, &["bind", "ro"]);
    b.mount("/exec", "bind", &dir, &["bind", "exec"]);
    let result = mounts_of(&mut b);
    umount2(&dir, MntFlags::MNT_DETACH)?;
    let all = result?;
    has(at(&all, "/plain")?, &["nosuid", "nodev", "noexec", "noatime"], &[])?;
    has(at(&all, "/ro")?, &["ro"], &["rw"])?;
    has(at(&all, "/exec")?, &[], &["noexec"])
}

fn bind_source_relative_to_bundle(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::create_dir(b.dir.join("volume"))?;
    fs::write(b.dir.join("volume/file"), "relative")?;
    b.mount("/mnt", "bind", "volume", &["bind"]).probe(&["cat", "/mnt/file"]).save()?;
    let out = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).cwd("/").run()?.ok()?;
    eq("content", out.stdout, "ok \"relative\"\n")
}

fn bind_source_is_a_link(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    symlink(&dir, cx.path("link"))?;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "bind", cx.path("link"), &["bind"]);
    b.expect(&[(&["cat", "/mnt/file"], "ok \"from outside\"")])
}

fn bind_of_a_device_and_a_fifo(cx: &Cx) -> Result<()> {
    nix::unistd::mkfifo(&cx.path("fifo"), nix::sys::stat::Mode::from_bits_retain(0o600))?;
    let socket = std::os::unix::net::UnixListener::bind(cx.path("socket"))?;
    let mut b = cx.bundle()?;
    b.mount("/mnt/zero", "bind", "/dev/zero", &["bind"])
        .mount("/mnt/fifo", "bind", cx.path("fifo"), &["bind", "ro"])
        .mount("/mnt/socket", "bind", cx.path("socket"), &["bind", "rro"]);
    let lines = b.answers(&[&["stat", "/mnt/zero"], &["stat", "/mnt/fifo"], &["stat", "/mnt/socket"]])?;
    drop(socket);
    for (line, kind) in lines.iter().zip(["c", "p", "s"]) {
        let v: Value = serde_json::from_str(line)?;
        same("type", &v["type"], json!(kind))?;
    }
    Ok(())
}

/// The option decides, not the type.
fn bind_type_is_ignored(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.mount("/a", "none", &dir, &["bind"]).mount("/b", "tmpfs", &dir, &["rbind"]).mount(
        "/c",
        "",
        &dir,
        &["bind"],
    );
    b.expect(&[
        (&["cat", "/a/file"], "ok \"from outside\""),
        (&["cat", "/b/file"], "ok \"from outside\""),
        (&["cat", "/c/file"], "ok \"from outside\""),
    ])
}

/// Type `bind` without the option: peers treat it as a bind or refuse; never anything else.
fn bind_without_bind_option(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "bind", &dir, &["ro"]).probe(&["cat", "/mnt/file"]).save()?;
    let before = cx.snapshot()?;
    let out = b.run()?;
    if out.code == 0 {
        eq("content", out.stdout, "ok \"from outside\"\n")?;
    }
    cx.nothing_left(&before)
}

fn tag(m: &Mount) -> String {
    let mut words: Vec<&str> = m
        .tags
        .split(' ')
        .map(|t| t.split(':').next().unwrap_or(""))
        .filter(|t| *t != "propagate_from")
        .collect();
    words.sort();
    words.join(" ")
}

/// A shared mount on the host: the mount below the root filesystem itself is made private by runtimes.
struct Shared(std::path::PathBuf);

impl Shared {
    fn new(cx: &Cx) -> Result<Self> {
        let dir = cx.path("volume");
        fs::create_dir(&dir)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?;
        fs::create_dir(dir.join("below"))?;
        Ok(Shared(dir))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A failure shows as a leaked mount.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn propagation_of_mounts(cx: &Cx) -> Result<()> {
    let volume = Shared::new(cx)?;
    let dir = &volume.0;
    let mut b = cx.bundle()?;
    let table = [
        ("shared", "shared"),
        ("rshared", "shared"),
        ("private", ""),
        ("rprivate", ""),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ];
    for (option, _) in table {
        b.mount(&format!("/t/{option}"), "tmpfs", "tmpfs", &[option]);
        b.mount(&format!("/b/{option}"), "bind", dir, &["rbind", option]);
    }
    b.mount("/b/slave", "bind", dir, &["bind", "slave"]).mount(
        "/b/rslave",
        "bind",
        dir,
        &["rbind", "rslave"],
    );
    let all = mounts_of(&mut b)?;
    for (option, wanted) in table {
        eq(&format!("tmpfs {option}"), tag(at(&all, &format!("/t/{option}"))?), wanted.to_string())?;
        let got = tag(at(&all, &format!("/b/{option}"))?);
        // A shared bind of a mount that came as a slave stays its slave besides.
        ensure!(got == wanted || (wanted == "shared" && got == "master shared"), "bind {option}: {got:?}");
    }
    // The source's mount is shared here, so a slave has a master.
    eq("slave", tag(at(&all, "/b/slave")?), "master".to_string())?;
    eq("rslave", tag(at(&all, "/b/rslave")?), "master".to_string())
}

/// A container mounts a tmpfs below /mnt; what the host then sees there.
fn mount_from_inside(cx: &Cx, option: &str) -> Result<bool> {
    let volume = Shared::new(cx)?;
    let dir = &volume.0;
    let mut b = cx.bundle()?;
    b.set("/linux/rootfsPropagation", json!("rshared"));
    let all = json!(["CAP_SYS_ADMIN"]);
    b.set("/process/capabilities", json!({"bounding": all, "permitted": all, "effective": all}));
    b.mount("/mnt", "bind", dir, &["rbind", option]);
    b.probe(&[
        "seq",
        "mount",
        "tmpfs",
        "/mnt/below",
        "tmpfs",
        "0",
        "---",
        "create",
        "/mnt/below/x",
        "x",
        "---",
        "sleep",
    ])
    .save()?;
    let c = b.container();
    let out = c.create(&[])?.ok()?;
    c.start()?.ok()?;
    crate::cx::wait_for("the mount", || {
        Ok((fs::read_to_string(&out.out_path)?.lines().count() == 2).then_some(()))
    })?;
    eq("inside", fs::read_to_string(&out.out_path)?, "ok\nok\n")?;
    let seen = dir.join("below/x").exists();
    c.end()?;
    Ok(seen)
}

fn propagation_shared_reaches_out(cx: &Cx) -> Result<()> {
    ensure!(mount_from_inside(cx, "rshared")?, "the host does not see a mount on a shared volume");
    Ok(())
}

fn propagation_private_stays_in(cx: &Cx) -> Result<()> {
    ensure!(!mount_from_inside(cx, "rprivate")?, "the host sees a mount on a private volume");
    Ok(())
}

/// The host mounts below a slave volume while the container runs.
fn propagation_slave_comes_in(cx: &Cx) -> Result<()> {
    let volume = Shared::new(cx)?;
    let dir = &volume.0;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "bind", dir, &["rbind", "rslave"]).mount("/private", "bind", dir, &["rbind", "rprivate"]);
    b.probe(&["sleep"]);
    let c = b.start()?;
    mount(Some("tmpfs"), &dir.join("below"), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    fs::write(dir.join("below/late"), "late")?;
    let out = c.exec(&[], &["seq", "cat", "/mnt/below/late", "---", "cat", "/private/below/late"])?.ok()?;
    umount2(&dir.join("below"), MntFlags::MNT_DETACH)?;
    c.end()?;
    eq("slave and private", out.lines(), vec!["ok \"late\"", "ENOENT"])
}

fn rootfs_propagation(cx: &Cx) -> Result<()> {
    for (value, wanted) in [
        ("shared", "shared"),
        ("rshared", "shared"),
        ("slave", "master"),
        ("rslave", "master"),
        ("private", ""),
        ("rprivate", ""),
        ("unbindable", "unbindable"),
        ("", ""),
    ] {
        let mut b = cx.bundle()?;
        b.set("/linux/rootfsPropagation", json!(value));
        let all = mounts_of(&mut b)?;
        let got = tag(at(&all, "/")?);
        let fits = got == wanted
            || (wanted == "shared" && got.contains("shared"))
            || (wanted == "master" && got.is_empty());
        ensure!(fits, "rootfsPropagation {value}: the root is {got:?}");
    }
    Ok(())
}

/// What the host mounts below it later shows inside.
fn rootfs_propagation_slave_comes_in(cx: &Cx) -> Result<()> {
    let volume = Shared::new(cx)?;
    let mut b = cx.bundle()?;
    let moved = volume.0.join("rootfs");
    std::process::Command::new("cp").arg("-a").arg(b.rootfs()).arg(&moved).status()?;
    fs::create_dir(moved.join("late"))?;
    b.set("/root/path", json!(moved)).set("/linux/rootfsPropagation", json!("rslave")).probe(&["sleep"]);
    let c = b.start()?;
    mount(Some("tmpfs"), &moved.join("late"), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    fs::write(moved.join("late/file"), "late")?;
    let out = c.exec(&[], &["cat", "/late/file"])?;
    umount2(&moved.join("late"), MntFlags::MNT_DETACH)?;
    c.end()?;
    eq("inside", out.ok()?.lines(), vec!["ok \"late\""])
}

/// Masks and read-only paths are copies of mounts, which an unbindable one refuses: it turns so at the end.
fn rootfs_propagation_runbindable(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.set("/linux/rootfsPropagation", json!("runbindable")).mount("/mnt", "bind", &dir, &["bind"]);
    b.mount("/etc/host", "bind", "/proc/version", &["bind", "ro"]);
    let all = mounts_of(&mut b)?;
    eq("root", tag(at(&all, "/")?), "unbindable".to_string())?;
    eq("below", tag(at(&all, "/dev")?), "unbindable".to_string())?;
    has(at(&all, "/proc/sys")?, &["ro"], &[])
}

fn rootfs_propagation_unknown(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/rootfsPropagation", json!("sideways")).save()?;
    b.run()?.fails(&["rootfsPropagation", "sideways"]).map(drop)
}
