//! Mounts: types and options, binds, propagation, where a destination may lead, the root itself.

use super::tests;
use crate::bundle::Bundle;
use crate::cx::{Cx, eq, same};
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

tests!["mounts":
    default_set,
    order_of_the_config,
    tmpfs_options,
    tmpfs_flags deviates ["crun" = "does not undo a flag"],
    tmpfs_defaults deviates ["runc" = "hands the word to the file system"],
    tmpfs_read_only,
    tmpfs_keeps_mode_of_directory,
    tmpcopyup,
    proc_options,
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
    sysfs,
    cgroup_mount,
    cgroup_mount_without_namespace,
    cgroup_mount_writable,
    mqueue_and_shm,
    root_read_only,
    root_writable,
    root_absolute_path,
    root_is_a_mount_point deviates ["runc" = "clears nodev and nosuid", "crun" = "clears nodev and nosuid"],
    root_is_a_link deviates ["crun" = "follows it"],
    nothing_of_the_host_is_visible,
    working_directory_is_not_pinned,
    no_pivot,
    symlink_options deviates ["crun" = "does not know them"],
    rootfs_unchanged_after_run,
    many_mounts,
];

/// One line of mountinfo.
#[derive(Debug)]
struct Mount {
    target: String,
    options: BTreeSet<String>,
    tags: String,
    kind: String,
    super_options: BTreeSet<String>,
    root: String,
}

fn parse(v: &Value) -> Vec<Mount> {
    let lines = v["mountinfo"].as_array().cloned().unwrap_or_default();
    let set = |s: &str| s.split(',').map(String::from).collect();
    lines
        .iter()
        .filter_map(|l| {
            let (left, right) = l.as_str()?.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            Some(Mount {
                root: left.get(3)?.to_string(),
                target: left.get(4)?.to_string(),
                options: set(left.get(5)?),
                tags: left.get(6..).map(|t| t.join(" ")).unwrap_or_default(),
                kind: right.first()?.to_string(),
                super_options: set(right.get(2)?),
            })
        })
        .collect()
}

fn mounts_of(b: &mut Bundle) -> Result<Vec<Mount>> {
    Ok(parse(&b.inside()?))
}

/// The topmost mount at a place.
fn at<'m>(all: &'m [Mount], target: &str) -> Result<&'m Mount> {
    all.iter().rfind(|m| m.target == target).with_context(|| format!("no mount at {target}"))
}

fn has(m: &Mount, yes: &[&str], no: &[&str]) -> Result<()> {
    for o in yes {
        ensure!(m.options.contains(*o), "{}: no {o} in {:?}", m.target, m.options);
    }
    for o in no {
        ensure!(!m.options.contains(*o), "{}: {o} in {:?}", m.target, m.options);
    }
    Ok(())
}

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
    b.mount("/mnt", "tmpfs", "one", &[]).mount("/mnt/below", "tmpfs", "two", &[]).mount("/mnt", "tmpfs", "three", &[]);
    let all = mounts_of(&mut b)?;
    let order: Vec<&str> = all.iter().filter(|m| m.target.starts_with("/mnt")).map(|m| m.target.as_str()).collect();
    eq("order", order, vec!["/mnt", "/mnt/below", "/mnt"])
}

fn tmpfs_options(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/mnt", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec", "size=64k", "mode=1750", "uid=7", "gid=8", "nr_inodes=50"]);
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

/// A directory on the host with a file.
fn source(cx: &Cx, name: &str) -> Result<std::path::PathBuf> {
    let dir = cx.path(name);
    fs::create_dir(&dir)?;
    fs::write(dir.join("file"), "from outside")?;
    Ok(dir)
}

fn bind_directory(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "bind", &dir, &["bind"]);
    b.expect(&[(&["cat", "/mnt/file"], "ok \"from outside\""), (&["create", "/mnt/new", "from inside"], "ok")])?;
    eq("written", fs::read_to_string(dir.join("new"))?, "from inside")
}

fn bind_file(cx: &Cx) -> Result<()> {
    let dir = source(cx, "source")?;
    let mut b = cx.bundle()?;
    b.mount("/etc/plain", "bind", dir.join("file"), &["bind"]).mount("/new/file", "bind", dir.join("file"), &["rbind"]);
    b.expect(&[(&["cat", "/etc/plain"], "ok \"from outside\""), (&["cat", "/new/file"], "ok \"from outside\"")])
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
    b.mount("/mnt", "bind", &dir, &["rbind", "rro"]).mount("/a", "bind", &dir, &["rbind", "rnoexec", "rnosuid", "rnodev", "rnoatime"]);
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
    b.mount("/a", "bind", &dir, &["bind", "nosuid", "nodev", "noexec", "noatime"])
        .mount("/b", "bind", &dir, &["bind", "nodiratime", "relatime"]);
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
    b.mount("/a", "none", &dir, &["bind"]).mount("/b", "tmpfs", &dir, &["rbind"]).mount("/c", "", &dir, &["bind"]);
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
    let mut words: Vec<&str> =
        m.tags.split(' ').map(|t| t.split(':').next().unwrap_or("")).filter(|t| *t != "propagate_from").collect();
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
    b.mount("/b/slave", "bind", dir, &["bind", "slave"]).mount("/b/rslave", "bind", dir, &["rbind", "rslave"]);
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
    b.probe(&["seq", "mount", "tmpfs", "/mnt/below", "tmpfs", "0", "---", "create", "/mnt/below/x", "x", "---", "sleep"]).save()?;
    let c = b.container();
    let out = c.create(&[])?.ok()?;
    c.start()?.ok()?;
    crate::cx::wait_for("the mount", || Ok((fs::read_to_string(&out.out_path)?.lines().count() == 2).then_some(())))?;
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
    for option in ["rprivate"] {
        ensure!(!mount_from_inside(cx, option)?, "the host sees a mount on a {option} volume");
    }
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
    ] {
        let mut b = cx.bundle()?;
        b.set("/linux/rootfsPropagation", json!(value));
        let all = mounts_of(&mut b)?;
        let got = tag(at(&all, "/")?);
        let fits = got == wanted || (wanted == "shared" && got.contains("shared")) || (wanted == "master" && got.is_empty());
        ensure!(fits, "rootfsPropagation {value}: the root is {got:?}");
    }
    Ok(())
}

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
    b.mount("/mnt/../tmp/./made//", "tmpfs", "tmpfs", &[]).mount("/../../../../../canary/sub/x", "tmpfs", "tmpfs", &[]);
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
        let mut b = cx.bundle()?;
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
        let mut b = cx.bundle()?;
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
    b.without_mount("/sys/fs/cgroup").mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "rw"]);
    let dir = if cx.unified() { "/sys/fs/cgroup/sub" } else { "/sys/fs/cgroup/pids/sub" };
    b.expect(&[(&["mkdir", dir], "ok")])
}

fn mqueue_and_shm(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let lines = b.answers(&[&["stat", "/dev/shm"], &["create", "/dev/shm/x", "x"], &["statfs", "/dev/shm"]])?;
    let v: Value = serde_json::from_str(&lines[0])?;
    same("mode", &v["mode"], json!("1777"))?;
    eq("write", lines[1].as_str(), "ok")?;
    ensure!(lines[2].starts_with("ok 67108864 "), "size {}", lines[2]);
    Ok(())
}

fn root_read_only(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/root/readonly", json!(true)).mount("/tmp", "tmpfs", "tmpfs", &[]);
    b.expect(&[
        (&["create", "/x", "x"], "EROFS"),
        (&["create", "/etc/x", "x"], "EROFS"),
        (&["create", "/tmp/x", "x"], "ok"),
        (&["create", "/dev/shm/x", "x"], "ok"),
    ])?;
    fs::write(b.rootfs().join("host"), "x").context("the host's view became read-only")
}

fn root_writable(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/root/readonly", json!(false));
    b.expect(&[(&["create", "/x", "x"], "ok")])
}

fn root_absolute_path(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let path = b.rootfs().display().to_string();
    for form in [path.clone(), format!("{path}/")] {
        b.set("/root/path", json!(form));
        b.run()?.ok()?;
    }
    Ok(())
}

/// Engines hand over a mount: nodev and the like of it stay.
fn root_is_a_mount_point(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let root = b.rootfs();
    mount(Some(&root), &root, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(None::<&str>, &root, None::<&str>, flags, None::<&str>)?;
    b.set("/root/readonly", json!(true));
    let result = mounts_of(&mut b);
    umount2(&root, MntFlags::MNT_DETACH)?;
    has(at(&result?, "/")?, &["ro", "nodev", "nosuid"], &[])
}

fn root_is_a_link(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    symlink("rootfs", b.dir.join("link"))?;
    b.set("/root/path", json!("link"));
    let before = cx.snapshot()?;
    b.run()?.code(1)?;
    cx.nothing_left(&before)
}

fn nothing_of_the_host_is_visible(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let v = b.inside()?;
    let all = parse(&v);
    for m in &all {
        ensure!(
            ["/", "/proc", "/dev", "/sys"].iter().any(|p| m.target == *p || m.target.starts_with(&format!("{}/", p.trim_end_matches('/')))),
            "an unexpected mount {m:?}"
        );
    }
    eq("mounts on /", all.iter().filter(|m| m.target == "/").count(), 1)?;
    let mut got: Vec<String> = serde_json::from_value(v["root"].clone())?;
    got.retain(|n| n != ".pivot_root");
    let mut wanted: Vec<String> = fs::read_dir(b.rootfs())?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    wanted.sort();
    eq("names in /", got, wanted)
}

/// The caller's directory can be removed and its mounts go away while the container runs.
fn working_directory_is_not_pinned(cx: &Cx) -> Result<()> {
    let dir = cx.path("caller");
    fs::create_dir(&dir)?;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]).save()?;
    let c = b.container();
    cx.cmd(&["create", "--bundle", &b.path(), &c.id]).cwd(&dir).run()?.ok()?;
    let busy = nix::mount::umount(&dir);
    c.delete_force()?;
    busy.context("unmount the caller's directory")
}

fn no_pivot(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::write(b.rootfs().join("only-inside"), "")?;
    b.probe(&["json"]).save()?;
    let v = cx.rt(&["run", "--no-pivot", "--bundle", &b.path(), &cx.id()])?.ok()?.json()?;
    ensure!(v["root"].to_string().contains("only-inside"), "root {}", v["root"]);
    same("cwd", &v["cwd"], json!("/"))
}

fn symlink_options(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/mnt", "tmpfs", "tmpfs", &["nosymfollow"]);
    let all = mounts_of(&mut b)?;
    has(at(&all, "/mnt")?, &["nosymfollow"], &[])
}

fn rootfs_unchanged_after_run(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let list = |b: &Bundle| -> Result<Vec<(String, u32, u32)>> {
        let mut all = vec![];
        for dir in ["", "dev", "etc", "proc", "sys", "tmp"] {
            for e in fs::read_dir(b.rootfs().join(dir))?.flatten() {
                let m = e.metadata()?;
                all.push((e.path().display().to_string(), m.mode(), m.uid()));
            }
        }
        all.sort();
        Ok(all)
    };
    let before = list(&b)?;
    b.set("/root/readonly", json!(true)).run()?.ok()?;
    eq("root filesystem", list(&b)?, before)
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
