//! The root file system: read-only or not, where it may be, and that nothing else is visible from it.

use super::tests;
use crate::bundle::Bundle;
use crate::cx::{Cx, PATH, eq, same, skip};
use crate::mountinfo::{at, has, mounts_of, parse};
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};

tests!["root":
    root_read_only,
    root_writable,
    root_absolute_path,
    root_is_a_mount_point deviates ["runc" = "clears nodev and nosuid", "crun" = "clears nodev and nosuid"],
    root_is_a_link deviates ["crun" = "follows it"],
    nothing_of_the_host_is_visible,
    working_directory_is_not_pinned,
    runtime_in_a_root_of_its_own,
    runtime_without_the_right_to_chroot deviates ["runc" = "fails without a reason"],
    no_pivot,
    no_pivot_leaves_no_whole_view deviates ["crun" = "leaves them"],
    rootfs_unchanged_after_run,
];

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
            ["/", "/proc", "/dev", "/sys"]
                .iter()
                .any(|p| m.target == *p || m.target.starts_with(&format!("{}/", p.trim_end_matches('/')))),
            "an unexpected mount {m:?}"
        );
    }
    eq("mounts on /", all.iter().filter(|m| m.target == "/").count(), 1)?;
    let mut got: Vec<String> = serde_json::from_value(v["root"].clone())?;
    got.retain(|n| n != ".pivot_root");
    let mut wanted: Vec<String> =
        fs::read_dir(b.rootfs())?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
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

/// What the runtime finds, its init stage finds too, also where their root is not that of the mount namespace.
fn runtime_in_a_root_of_its_own(cx: &Cx) -> Result<()> {
    let (parent, here) = (cx.path("not shared"), cx.path("only-in-view"));
    let view = parent.join("view");
    fs::create_dir(&here)?;
    fs::create_dir(&parent)?;
    // The kernel refuses to pivot where the root's own parent is shared.
    let none = None::<&str>;
    mount(Some("tmpfs"), &parent, Some("tmpfs"), MsFlags::empty(), none)?;
    mount(none, &parent, none, MsFlags::MS_PRIVATE, none)?;
    fs::create_dir(&view)?;
    let mut b = cx.bundle()?;
    b.probe(&["seq", "json", "---", "cat", "/only-inside"]).save()?;
    fs::write(b.rootfs().join("only-inside"), "the same bundle")?;
    mount(Some("/"), &view, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    mount(none, &view, none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let in_view = view.join(here.strip_prefix("/")?);
    mount(Some(&b.dir), &in_view, none, MsFlags::MS_BIND, none)?;
    let mut command = Command::new("chroot");
    command.arg(&view).arg(&cx.runtime).arg("--root").arg(&cx.root).arg("run").arg("--bundle").arg(&here);
    let out = command.arg(cx.id()).env_clear().env("PATH", PATH).output()?;
    umount2(&parent, MntFlags::MNT_DETACH)?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.success(), "{:?} {}", out.status, String::from_utf8_lossy(&out.stderr));
    ensure!(text.contains("the same bundle"), "{text}");
    let inside: serde_json::Value = serde_json::from_str(text.lines().next().context("no answer")?)?;
    eq("mounts on /", parse(&inside).iter().filter(|m| m.target == "/").count(), 1)
}

fn runtime_without_the_right_to_chroot(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["json"]).save()?;
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_chroot", "--inh-caps", "-all"]).arg(&cx.runtime);
    command.arg("--root").arg(&cx.root).args(["run", "--bundle", &b.path(), &cx.id()]);
    let out = command.env_clear().env("PATH", PATH).stdin(Stdio::null()).output()?;
    ensure!(out.status.success(), "{:?} {}", out.status, String::from_utf8_lossy(&out.stderr));
    let inside = serde_json::from_slice(&out.stdout)?;
    eq("mounts on /", parse(&inside).iter().filter(|m| m.target == "/").count(), 1)?;
    let host = fs::read_link("/proc/self/ns/mnt")?.display().to_string();
    ensure!(inside["ns"]["mnt"] != json!(host), "the host's mount namespace");
    eq("this mount namespace's mounts below the bundle", below(&b.path())?, 0)
}

/// How many mounts this process sees below `path`.
fn below(path: &str) -> Result<usize> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with(path))).count())
}

fn no_pivot(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::write(b.rootfs().join("only-inside"), "")?;
    b.probe(&["json"]).save()?;
    let v = cx.rt(&["run", "--no-pivot", "--bundle", &b.path(), &cx.id()])?.ok()?.json()?;
    ensure!(v["root"].to_string().contains("only-inside"), "root {}", v["root"]);
    same("cwd", &v["cwd"], json!("/"))
}

/// The kernel lets a user namespace mount a sysfs as long as a whole one is anywhere in the mount namespace, and below a
/// root that is only covered the host's ones still are.
fn no_pivot_leaves_no_whole_view(cx: &Cx) -> Result<()> {
    let views = ["another view", "deep/er"].map(|name| cx.path(name));
    let try_it = |flags: &[&str]| -> Result<String> {
        let mut b = cx.bundle()?;
        b.probe(&["seq", "syscall", "unshare", "0x50020000", "---", "mount", "sysfs", "/mnt", "sysfs", "0"])
            .save()?;
        let mut args = vec!["run", "--bundle"];
        let (path, id) = (b.path(), cx.id());
        args.push(&path);
        args.extend(flags);
        args.push(&id);
        Ok(cx.rt(&args)?.ok()?.stdout)
    };
    for dir in &views {
        fs::create_dir_all(dir)?;
        mount(Some("sysfs"), dir, Some("sysfs"), MsFlags::empty(), None::<&str>)?;
    }
    let got = try_it(&[]).and_then(|pivot| Ok((pivot, try_it(&["--no-pivot"])?)));
    for dir in &views {
        umount2(dir, MntFlags::MNT_DETACH)?;
    }
    let (pivot, no_pivot) = got?;
    if !pivot.starts_with("ok\n") {
        return skip("no user namespaces in a container here");
    }
    eq("with pivot_root", pivot.as_str(), "ok\nEPERM\n")?;
    eq("without", no_pivot.as_str(), "ok\nEPERM\n")
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
