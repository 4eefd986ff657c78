//! Mounts of containers with a user namespace: idmapped ones, flags that stay, views that cannot be made anew.

use super::tests;
use super::user_namespaces::{GID, Holder, UID, bundle, join};
use crate::bundle::Bundle;
use crate::cx::{Cx, eq, skip};
use crate::mountinfo::{at, has, mounts_of};
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

tests!["mounts_in_user_namespaces":
    idmapped_by_own_maps,
    idmapped_by_the_containers_maps deviates ["crun" = "maps the mounts below, too"],
    idmapped_in_a_joined_namespace,
    idmapped_file_of_a_closed_directory,
    new_files_in_idmapped,
    sources_made_by_earlier_mounts deviates ["crun" = "opens them all at first"],
    flags_stay deviates ["crun" = "clears what it cannot, and fails"],
    flags_that_cannot_go deviates ["crun" = "keeps them without a word"],
    flags_for_all_below,
    access_times_stay deviates ["crun" = "clears what it cannot, and fails"],
    tmpfs_owners deviates ["crun" = "does not name the mount as the config does"],
    sysfs_of_the_host deviates ["runc" = "fails", "crun" = "loses read-only"],
    proc_of_the_host deviates ["runc" = "fails", "crun" = "fails"],
    mqueue_of_the_host deviates ["runc" = "fails", "crun" = "fails"],
    proc_that_would_show_more deviates ["runc" = "has no words for it", "crun" = "shows the host's"],
    filesystem_not_for_users deviates ["crun" = "does not name the mount as the config does"],
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

/// A tmpfs below another directory with a file of 9:9, or on it with these flags; gone at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn below(dir: &Path) -> Result<Self> {
        let below = dir.join("below");
        fs::create_dir(&below)?;
        let below = Tmpfs::on(below, MsFlags::MS_RELATIME)?;
        put(&below.0, 9, 9)?;
        Ok(below)
    }

    fn on(dir: PathBuf, flags: MsFlags) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::MS_STRICTATIME, None::<&str>)?;
        let tmpfs = Tmpfs(dir);
        fs::set_permissions(&tmpfs.0, fs::Permissions::from_mode(0o777))?;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
        mount(None::<&str>, &tmpfs.0, None::<&str>, flags, None::<&str>)?;
        Ok(tmpfs)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A failure shows as a leaked mount.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Adds a bind mount with mappings: first id on disk, first id in the user namespace's parent.
fn add(b: &mut Bundle, target: &str, source: &Path, options: &[&str], uids: (u32, u32), gids: (u32, u32)) {
    let map = |(disk, outside): (u32, u32)| json!([{"containerID": disk, "hostID": outside, "size": 1000}]);
    let source = source.display().to_string();
    b.push(
        "/mounts",
        json!({"destination": target, "source": source, "options": options,
               "uidMappings": map(uids), "gidMappings": map(gids)}),
    );
}

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

const NOBODY: (u64, u64) = (65_534, 65_534);

fn idmapped_by_own_maps(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 8)?;
    let mut b = bundle(cx)?;
    add(&mut b, "/same", &dir, &["bind"], (0, UID), (0, GID));
    add(&mut b, "/other", &dir, &["bind"], (0, UID + 500), (0, GID + 600));
    b.mount("/plain", "bind", &dir, &["bind"]);
    let before = cx.snapshot()?;
    let got = owners(&mut b, &["/same/file", "/other/file", "/plain/file"])?;
    eq("owners", got, vec![(7, 8), (507, 608), NOBODY])?;
    cx.nothing_left(&before)
}

/// `idmap` alone: what the container's user namespace says.
fn idmapped_by_the_containers_maps(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 8)?;
    let _below = Tmpfs::below(&dir)?;
    let mut b = bundle(cx)?;
    b.mount("/one", "bind", &dir, &["rbind", "idmap"]).mount("/all", "bind", &dir, &["rbind", "ridmap"]);
    let got = owners(&mut b, &["/one/file", "/one/below/file", "/all/file", "/all/below/file"])?;
    eq("owners", got, vec![(7, 8), NOBODY, (7, 8), (9, 9)])
}

fn idmapped_in_a_joined_namespace(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 8)?;
    let holder = Holder::new(cx)?;
    let mut b = bundle(cx)?;
    join(&mut b, &holder.path("user")).mount("/mnt", "bind", &dir, &["bind", "idmap"]);
    add(&mut b, "/other", &dir, &["bind"], (0, UID + 500), (0, GID + 600));
    eq("owners", owners(&mut b, &["/mnt/file", "/other/file"])?, vec![(7, 8), (507, 608)])
}

fn idmapped_file_of_a_closed_directory(cx: &Cx) -> Result<()> {
    let dir = source(cx, 0, 0)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    let mut b = bundle(cx)?;
    b.mount("/etc/mapped", "bind", dir.join("file"), &["bind", "idmap", "ro"]);
    eq("owners", owners(&mut b, &["/etc/mapped"])?, vec![(0, 0)])?;
    b.expect(&[(&["write", "/etc/mapped", "y"], "EROFS")])
}

fn new_files_in_idmapped(cx: &Cx) -> Result<()> {
    let dir = source(cx, 7, 8)?;
    let mut b = bundle(cx)?;
    b.mount("/mnt", "bind", &dir, &["bind", "idmap"]);
    b.expect(&[(&["create", "/mnt/new", "x"], "ok")])?;
    let new = fs::metadata(dir.join("new"))?;
    eq("owner outside", (new.uid(), new.gid()), (0, 0))
}

/// Also where the runtime has to open them: they are what they are in the container's mount namespace by then.
fn sources_made_by_earlier_mounts(cx: &Cx) -> Result<()> {
    for options in [&["rbind"][..], &["rbind", "idmap"]] {
        let mut b = bundle(cx)?;
        let root = b.rootfs();
        let volume = cx.path(&format!("volume.{}", cx.next()));
        for sub in ["a/x", "b/y"] {
            fs::create_dir_all(volume.join(sub))?;
            fs::write(volume.join(sub).join("file"), sub)?;
        }
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o700))?;
        b.mount("/mnt", "bind", volume.join("a"), &["bind"])
            .mount("/mnt/x", "bind", volume.join("b"), &["bind"])
            .mount("/final", "bind", root.join("mnt"), options);
        b.expect(&[(&["cat", "/final/x/y/file"], "ok \"b/y\"")])?;
    }
    Ok(())
}

const LOCKED: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// A bind mount with options that name flags does without those that the source has, but not where they are locked.
fn flags_stay(cx: &Cx) -> Result<()> {
    let nosymfollow = MsFlags::from_bits_retain(256);
    let all = &["nosuid", "nodev", "noexec"][..];
    for (flags, options, yes, no) in [
        (LOCKED, &["bind"][..], all, &["ro"][..]),
        (LOCKED, &["bind", "ro"], &["ro", "nosuid", "nodev", "noexec"], &[]),
        (LOCKED | MsFlags::MS_RDONLY, &["bind", "noexec"], &["ro", "nosuid", "nodev", "noexec"], &[]),
        (LOCKED | nosymfollow, &["bind", "rw", "symfollow"], all, &["nosymfollow", "ro"]),
        (LOCKED | nosymfollow, &["bind", "rw"], all, &["nosymfollow", "ro"]),
        (LOCKED | MsFlags::MS_NOATIME, &["bind", "ro"], &["noatime", "ro", "nosuid"], &[]),
    ] {
        let source = Tmpfs::on(cx.path("flags"), flags)?;
        let mut b = bundle(cx)?;
        b.mount("/mnt", "bind", &source.0, options);
        has(at(&mounts_of(&mut b)?, "/mnt")?, yes, no).with_context(|| format!("{options:?}"))?;
    }
    Ok(())
}

/// An option that asks for one to go is an error: the user would believe in a mount that is not there.
fn flags_that_cannot_go(cx: &Cx) -> Result<()> {
    for options in [&["bind", "suid"][..], &["bind", "dev", "ro"], &["bind", "exec"], &["rbind", "rexec"]] {
        let source = Tmpfs::on(cx.path("flags"), LOCKED)?;
        let mut b = bundle(cx)?;
        b.mount("/mnt", "bind", &source.0, options).save()?;
        let before = cx.snapshot()?;
        b.run()?.fails(&["/mnt", "operation not permitted"]).with_context(|| format!("{options:?}"))?;
        cx.nothing_left(&before)?;
    }
    Ok(())
}

fn flags_for_all_below(cx: &Cx) -> Result<()> {
    let source = Tmpfs::on(cx.path("flags"), LOCKED)?;
    let _below = Tmpfs::below(&source.0)?;
    let mut b = bundle(cx)?;
    b.mount("/mnt", "bind", &source.0, &["rbind", "rro", "rnosuid"]);
    let all = mounts_of(&mut b)?;
    has(at(&all, "/mnt")?, &["ro", "nosuid", "nodev", "noexec"], &[])?;
    has(at(&all, "/mnt/below")?, &["ro", "nosuid"], &["noexec"])
}

fn access_times_stay(cx: &Cx) -> Result<()> {
    let (noatime, nodiratime) = (MsFlags::MS_NOATIME, MsFlags::MS_NODIRATIME);
    for (flags, options, yes) in [
        (noatime | nodiratime, &["bind", "norelatime"][..], Some(&["noatime", "nodiratime"][..])),
        (noatime, &["bind", "noatime", "ro"], Some(&["noatime"])),
        (MsFlags::MS_RELATIME, &["bind", "relatime"], Some(&["relatime"])),
        (noatime, &["bind", "strictatime"], None),
        (MsFlags::MS_RELATIME, &["bind", "noatime"], None),
        (MsFlags::MS_RELATIME, &["bind", "strictatime"], None),
        (nodiratime, &["bind", "strictatime"], None),
        (MsFlags::MS_RELATIME, &["bind", "nodiratime"], None),
        (MsFlags::MS_STRICTATIME, &["bind", "relatime"], None),
    ] {
        let source = Tmpfs::on(cx.path("flags"), flags)?;
        let mut b = bundle(cx)?;
        b.mount("/mnt", "bind", &source.0, options);
        let what = || format!("{flags:?} {options:?}");
        match yes {
            Some(yes) => has(at(&mounts_of(&mut b)?, "/mnt")?, yes, &[]).with_context(what)?,
            None => b.run()?.fails(&["/mnt", "operation not permitted"]).map(drop).with_context(what)?,
        }
    }
    Ok(())
}

fn tmpfs_owners(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.mount("/a", "tmpfs", "tmpfs", &["uid=7", "gid=8"]).mount("/b", "tmpfs", "tmpfs", &[]);
    eq("owners", owners(&mut b, &["/a", "/b"])?, vec![(7, 8), (0, 0)])?;
    let mut b = bundle(cx)?;
    b.mount("/a", "tmpfs", "tmpfs", &["uid=70000"]).save()?;
    let before = cx.snapshot()?;
    b.run()?.fails(&["/a", "invalid argument"])?;
    cx.nothing_left(&before)
}

/// With the host's network there is no right to a sysfs: the host's own is shown, as a whole and read-only if asked.
fn sysfs_of_the_host(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.without_namespace("network").without_mount("/sys/fs/cgroup");
    let all = mounts_of(&mut b)?;
    let m = at(&all, "/sys")?;
    eq("type", m.kind.as_str(), "sysfs")?;
    has(m, &["ro", "nosuid", "nodev", "noexec"], &[])
}

fn proc_of_the_host(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.without_namespace("pid");
    let all = mounts_of(&mut b)?;
    eq("type", at(&all, "/proc")?.kind.as_str(), "proc")?;
    has(at(&all, "/proc/sys")?, &["ro"], &[])
}

fn mqueue_of_the_host(cx: &Cx) -> Result<()> {
    if !Path::new("/dev/mqueue").is_dir() || fs::metadata("/dev/mqueue")?.dev() == fs::metadata("/dev")?.dev()
    {
        return skip("no mqueue on the host to show");
    }
    let mut b = bundle(cx)?;
    b.without_namespace("ipc");
    eq("type", at(&mounts_of(&mut b)?, "/dev/mqueue")?.kind.as_str(), "mqueue")
}

/// Where the host's own procfs is masked, as in a container, the kernel makes none without the masks; the error says so,
/// and the host's is no substitute for one of the container's processes.
fn proc_that_would_show_more(cx: &Cx) -> Result<()> {
    let b = bundle(cx)?;
    b.save()?;
    let before = cx.snapshot()?;
    let script = "mount --make-rprivate / && mount --bind /dev/null /proc/cpuinfo && exec \"$@\"";
    let (root, path) = (cx.root.display().to_string(), b.path());
    let out = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&cx.runtime)
        .args(["--root", &root, "run", "--bundle", &path, &cx.id()])
        .stdin(Stdio::null())
        .output()
        .context("run unshare")?;
    let said = String::from_utf8_lossy(&out.stderr);
    eq("exit code", out.status.code(), Some(1)).with_context(|| said.to_string())?;
    ensure!(said.contains("/proc") && said.contains("Mount too revealing"), "{said}");
    cx.nothing_left(&before)
}

/// The kernel lets users mount few filesystems.
fn filesystem_not_for_users(cx: &Cx) -> Result<()> {
    if !std::fs::read_to_string("/proc/filesystems")?.contains("\tdebugfs") {
        return skip("this kernel has no debugfs");
    }
    let mut b = bundle(cx)?;
    b.mount("/mnt", "debugfs", "debugfs", &[]).save()?;
    let before = cx.snapshot()?;
    b.run()?.fails(&["/mnt", "operation not permitted"])?;
    cx.nothing_left(&before)
}
