//! Masked and read-only paths.

use super::tests;
use crate::cx::{Cx, eq, same};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

tests!["paths":
    masked_file,
    masked_directory,
    masked_directory_is_read_only,
    masked_missing_is_skipped,
    masked_in_proc_and_sys,
    masked_of_namespaces,
    masked_through_a_link_stays_inside,
    masked_special_files,
    masked_twice deviates ["runc" = "mounts one over the other", "crun" = "mounts one over the other"],
    masked_relative deviates ["runc" = "takes it", "crun" = "takes it"],
    masked_with_image_null deviates ["crun" = "takes the image's"],
    masked_many,
    readonly_file_and_directory,
    readonly_missing_is_skipped,
    readonly_keeps_flags,
    readonly_in_proc,
    readonly_through_a_link_stays_inside,
    readonly_is_recursive_over_submounts,
    masked_below_readonly,
    masked_and_readonly,
    exec_sees_them_too,
];

fn masked_file(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/maskedPaths", json!(["/etc/plain"]));
    let lines =
        b.answers(&[&["cat", "/etc/plain"], &["stat", "/etc/plain"], &["open", "/etc/plain", "rw"]])?;
    eq("content", lines[0].as_str(), "ok \"\"")?;
    let v: Value = serde_json::from_str(&lines[1])?;
    same("node", &json!([v["type"], v["rdev"]]), json!(["c", "1:3"]))?;
    eq("file below", fs::read_to_string(b.rootfs().join("etc/plain"))?, "plain\n")
}

fn masked_directory(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::create_dir_all(b.rootfs().join("secret/deep"))?;
    fs::write(b.rootfs().join("secret/file"), "x")?;
    b.set("/linux/maskedPaths", json!(["/secret"]));
    b.expect(&[(&["ls", "/secret"], "[]"), (&["cat", "/secret/file"], "ENOENT")])
}

fn masked_directory_is_read_only(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::create_dir(b.rootfs().join("secret"))?;
    b.set("/linux/maskedPaths", json!(["/secret"]));
    b.expect(&[(&["create", "/secret/x", "x"], "EROFS"), (&["mkdir", "/secret/x"], "EROFS")])
}

fn masked_missing_is_skipped(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/maskedPaths", json!(["/absent", "/absent/below", "/proc/absent"]));
    b.run()?.ok()?;
    ensure!(!b.rootfs().join("absent").exists(), "it was made");
    Ok(())
}

fn masked_in_proc_and_sys(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/maskedPaths", json!(["/proc/interrupts", "/proc/kcore", "/sys/firmware", "/sys/kernel"]));
    b.expect(&[
        (&["cat", "/proc/interrupts"], "ok \"\""),
        (&["ls", "/sys/kernel"], "[]"),
        (&["create", "/sys/kernel/x", "x"], "EROFS"),
    ])
}

/// A file of procfs that belongs to the container's own network namespace, which may be made after procfs was mounted.
fn masked_of_namespaces(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/maskedPaths", json!(["/proc/sys/net/ipv4/ip_forward", "/proc/timer_list"]));
    b.set("/linux/readonlyPaths", json!([]));
    b.expect(&[
        (&["cat", "/proc/sys/net/ipv4/ip_forward"], "ok \"\""),
        (&["cat", "/proc/sys/net/ipv4/ip_default_ttl"], "ok \"64\\n\""),
        (&["cat", "/proc/timer_list"], "ok \"\""),
    ])
}

fn masked_through_a_link_stays_inside(cx: &Cx) -> Result<()> {
    let outside = cx.path("canary");
    fs::create_dir(&outside)?;
    fs::write(outside.join("file"), "untouched")?;
    let mut b = cx.bundle()?;
    symlink(&outside, b.rootfs().join("out"))?;
    symlink("../../../../../../../../etc/plain", b.rootfs().join("up"))?;
    b.set("/linux/maskedPaths", json!(["/out", "/out/file", "/up"]));
    b.run()?.ok()?;
    eq("the file outside", fs::read_to_string(outside.join("file"))?, "untouched")
}

fn masked_special_files(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    nix::unistd::mkfifo(&b.rootfs().join("fifo"), nix::sys::stat::Mode::from_bits_retain(0o666))?;
    let socket = std::os::unix::net::UnixListener::bind(b.rootfs().join("socket"))?;
    b.set("/linux/maskedPaths", json!(["/fifo", "/socket", "/dev/zero"]));
    let lines = b.answers(&[&["stat", "/fifo"], &["stat", "/socket"], &["stat", "/dev/zero"]])?;
    drop(socket);
    for line in lines {
        let v: Value = serde_json::from_str(&line)?;
        same("node", &v["rdev"], json!("1:3"))?;
    }
    Ok(())
}

fn masked_twice(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/maskedPaths", json!(["/etc/plain", "/etc/plain", "/home", "/home/", "/home"]));
    b.expect(&[(&["cat", "/etc/plain"], "ok \"\""), (&["ls", "/home"], "[]")])?;
    let mounts = b.lines(&["cat", "/proc/self/mountinfo"])?;
    eq("masks of /etc/plain", mounts.concat().matches(" /etc/plain ").count(), 1)
}

/// The spec asks for absolute paths.
fn masked_relative(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/maskedPaths", json!(["etc/plain"])).save()?;
    let before = cx.snapshot()?;
    b.run()?.code(1)?;
    cx.nothing_left(&before)
}

/// An image's own /dev/null must not serve as mask (CVE-2025-31133).
fn masked_with_image_null(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]));
    b.set("/linux/maskedPaths", json!(["/etc/plain", "/proc/sysrq-trigger"]))
        .set("/linux/readonlyPaths", json!([]));
    const PATTERN: &str = "/proc/sys/kernel/core_pattern";
    symlink(PATTERN, b.rootfs().join("dev/null"))?;
    b.probe(&["cat", "/etc/plain"]).save()?;
    let before = cx.snapshot()?;
    let pattern = fs::read(PATTERN)?;
    let out = b.run();
    if fs::read(PATTERN)? != pattern {
        // The machine's: not to be left as a runtime has made it.
        fs::write(PATTERN, &pattern)?;
        cx.note("the runtime wrote to the host's core_pattern")?;
    }
    let out = out?;
    if out.code == 0 {
        eq("masked file", out.stdout.as_str(), "ok \"\"\n")?;
    }
    cx.nothing_left(&before)?;
    // A regular file in its place.
    let mut b = cx.bundle()?;
    b.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]));
    b.set("/linux/maskedPaths", json!(["/etc/plain"]));
    fs::write(b.rootfs().join("dev/null"), "hostile")?;
    let out = b.probe(&["cat", "/etc/plain"]).run()?;
    if out.code == 0 {
        eq("masked file", out.stdout.as_str(), "ok \"\"\n")?;
    }
    Ok(())
}

fn masked_many(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::create_dir(b.rootfs().join("many"))?;
    let mut list = vec![];
    for n in 0..100 {
        fs::create_dir(b.rootfs().join(format!("many/d{n}")))?;
        fs::write(b.rootfs().join(format!("many/f{n}")), "x")?;
        list.extend([format!("/many/d{n}"), format!("/many/f{n}")]);
    }
    b.set("/linux/maskedPaths", json!(list));
    b.expect(&[
        (&["create", "/many/d99/x", "x"], "EROFS"),
        (&["cat", "/many/f99"], "ok \"\""),
        (&["cat", "/many/f0"], "ok \"\""),
    ])
}

fn readonly_file_and_directory(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::create_dir(b.rootfs().join("frozen"))?;
    fs::write(b.rootfs().join("frozen/file"), "content")?;
    b.set("/linux/readonlyPaths", json!(["/frozen", "/etc/plain"]));
    b.expect(&[
        (&["cat", "/frozen/file"], "ok \"content\""),
        (&["write", "/frozen/file", "x"], "EROFS"),
        (&["create", "/frozen/new", "x"], "EROFS"),
        (&["write", "/etc/plain", "x"], "EROFS"),
        (&["cat", "/etc/plain"], "ok \"plain\\n\""),
        (&["create", "/etc/new", "x"], "ok"),
    ])
}

fn readonly_missing_is_skipped(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/readonlyPaths", json!(["/absent", "/proc/absent"]));
    b.run()?.ok()?;
    Ok(())
}

fn readonly_keeps_flags(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/mnt", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec"])
        .set("/linux/readonlyPaths", json!(["/mnt"]));
    let v = b.inside()?;
    let lines = v["mountinfo"].as_array().context("mountinfo")?.clone();
    let last =
        lines.iter().filter_map(Value::as_str).rfind(|l| l.contains(" /mnt ")).context("no mount at /mnt")?;
    let options: Vec<&str> = last.split(' ').nth(5).unwrap_or_default().split(',').collect();
    for wanted in ["ro", "nosuid", "nodev", "noexec"] {
        ensure!(options.contains(&wanted), "no {wanted} in {last}");
    }
    Ok(())
}

fn readonly_in_proc(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"] {
        if fs::exists(path)? {
            b.expect(&[(&["open", path, "w"], "EROFS")])?;
        }
    }
    Ok(())
}

fn readonly_through_a_link_stays_inside(cx: &Cx) -> Result<()> {
    let outside = cx.path("canary");
    fs::create_dir(&outside)?;
    let mut b = cx.bundle()?;
    symlink(&outside, b.rootfs().join("out"))?;
    symlink("/home", b.rootfs().join("in"))?;
    b.set("/linux/readonlyPaths", json!(["/out", "/in"]));
    b.expect(&[(&["create", "/home/x", "x"], "EROFS")])?;
    fs::write(outside.join("x"), "x").context("the directory outside became read-only")
}

/// What is mounted below a read-only path keeps its own flags.
fn readonly_is_recursive_over_submounts(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/mnt/below", "tmpfs", "tmpfs", &[]).set("/linux/readonlyPaths", json!(["/mnt"]));
    b.expect(&[(&["create", "/mnt/x", "x"], "EROFS"), (&["create", "/mnt/below/x", "x"], "ok")])
}

/// Whichever of the two comes first, the mask must not end up below a bind that leaves it out.
fn masked_below_readonly(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::create_dir_all(b.rootfs().join("frozen/secret"))?;
    fs::write(b.rootfs().join("frozen/secret/file"), "secret")?;
    fs::write(b.rootfs().join("frozen/key"), "secret")?;
    b.set("/linux/readonlyPaths", json!(["/frozen", "/proc/sys"]));
    b.set("/linux/maskedPaths", json!(["/frozen/secret", "/frozen/key", "/proc/sys/kernel/hostname"]));
    b.expect(&[
        (&["ls", "/frozen/secret"], "[]"),
        (&["cat", "/frozen/key"], "ok \"\""),
        (&["cat", "/proc/sys/kernel/hostname"], "ok \"\""),
        (&["create", "/frozen/x", "x"], "EROFS"),
    ])
}

fn masked_and_readonly(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::create_dir_all(b.rootfs().join("both/below"))?;
    fs::write(b.rootfs().join("both/file"), "secret")?;
    b.set("/linux/readonlyPaths", json!(["/both", "/etc/plain", "/both/below"]));
    b.set("/linux/maskedPaths", json!(["/both", "/etc/plain"]));
    b.expect(&[
        (&["ls", "/both"], "[]"),
        (&["create", "/both/x", "x"], "EROFS"),
        (&["cat", "/etc/plain"], "ok \"\""),
    ])
}

fn exec_sees_them_too(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/maskedPaths", json!(["/etc/plain"]))
        .set("/linux/readonlyPaths", json!(["/home"]))
        .probe(&["sleep"]);
    let c = b.start()?;
    let out = c.exec(&[], &["seq", "cat", "/etc/plain", "---", "create", "/home/x", "x"])?.ok()?;
    eq("answers", out.lines(), vec!["ok \"\"", "EROFS"])?;
    c.end()
}
