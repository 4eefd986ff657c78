//! Descriptors of the program: exactly 0 to 2 unless asked for more, their ownership, and data through them.

use super::tests;
use crate::container::reap;
use crate::cx::{Cx, eq, same};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

tests!["stdio":
    only_three_descriptors,
    callers_descriptors_do_not_leak,
    output_to_files,
    output_to_pipes,
    input_from_pipe,
    input_closed,
    owned_by_the_user deviates ["crun" = "leaves files as they are"],
    dev_null_is_the_containers,
    dev_null_keeps_its_owner,
    read_only_files_are_fine,
    preserve_fds,
    preserve_fds_with_gaps deviates ["runc" = "hands on descriptors of its own"],
    preserve_fds_with_high_gaps deviates ["runc" = "hands on descriptors of its own"],
    preserve_fds_not_open deviates ["runc" = "leaves the state directory", "crun" = "does not look"],
    preserve_fds_negative_or_text deviates ["crun" = "takes some of them"],
    listen_fds deviates ["crun" = "passes them whatever LISTEN_PID says"],
    listen_fds_of_another_process deviates ["crun" = "passes them whatever LISTEN_PID says"],
    descriptors_of_created_container deviates ["crun" = "holds its empty directory"],
    session_and_group,
    signal_state_is_clean,
];

fn numbers(v: &Value) -> Vec<String> {
    v["fds"].as_object().map(|o| o.keys().cloned().collect()).unwrap_or_default()
}

fn file_fd(cx: &Cx, name: &str, text: &str) -> Result<OwnedFd> {
    let path = cx.path(name);
    fs::write(&path, text)?;
    Ok(File::open(path)?.into())
}

fn only_three_descriptors(cx: &Cx) -> Result<()> {
    let v = cx.bundle()?.inside()?;
    eq(&v["fds"].to_string(), numbers(&v), vec!["0", "1", "2"])
}

fn callers_descriptors_do_not_leak(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["json"]).save()?;
    let dir: OwnedFd = File::open("/")?.into();
    let fds = vec![
        (file_fd(cx, "a", "a")?, 3),
        (dir, 4),
        (file_fd(cx, "b", "b")?, 9),
        (file_fd(cx, "c", "c")?, 100),
    ];
    let v = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).fds(fds)?.run()?.ok()?.json()?;
    eq(&v["fds"].to_string(), numbers(&v), vec!["0", "1", "2"])
}

fn output_to_files(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["seq", "say", "to stdout", "---", "err", "to stderr"]);
    let out = b.run()?.ok()?;
    eq("stdout", out.stdout, "to stdout\n")?;
    eq("stderr", out.stderr, "to stderr\n")
}

fn output_to_pipes(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["seq", "say", "to stdout", "---", "err", "to stderr", "---", "exit", "4"]).save()?;
    let mut cmd = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]);
    let out = cmd.command().stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    eq("exit code", out.status.code(), Some(4))?;
    eq("stdout", String::from_utf8_lossy(&out.stdout).into_owned(), "to stdout\n")?;
    eq("stderr", String::from_utf8_lossy(&out.stderr).into_owned(), "to stderr\n")
}

fn input_from_pipe(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["stdin"]).save()?;
    let data = "0123456789abcdef".repeat(30_000);
    let out = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).input(data.as_bytes()).run()?.ok()?;
    ensure!(out.stdout == data, "{} bytes came back of {}", out.stdout.len(), data.len());
    Ok(())
}

fn input_closed(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["stdin"]);
    eq("stdout", b.run()?.ok()?.stdout, "")
}

/// So that the program may open /proc/self/fd/1 again.
fn owned_by_the_user(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/user", json!({"uid": 1000, "gid": 1000})).probe(&["true"]).save()?;
    let path = cx.path("given");
    let given = File::create(&path)?;
    let mut cmd = cx.cmd(&["create", "--bundle", &b.path(), &cx.id()]);
    cmd.command().stdout(given);
    eq("exit", cmd.command().status()?.code(), Some(0))?;
    let meta = fs::metadata(&path)?;
    cx.rt(&["delete", "--force", &format!("{}-{}", cx.mark, cx.count.get())])?.ok()?;
    eq("owner", (meta.uid(), meta.gid()), (1000, 0))
}

/// Standard input from the host's /dev/null becomes the container's: its mount is one that the container sees.
fn dev_null_is_the_containers(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["seq", "cat", "/proc/self/fdinfo/0", "---", "cat", "/proc/self/mountinfo", "---", "fd", "0"])
        .save()?;
    let c = b.container();
    let out = c.create(&[])?.ok()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    c.delete()?.ok()?;
    let out = out.again()?;
    let text = |n: usize| -> Result<String> {
        Ok(serde_json::from_str(out.lines().get(n).context("no answer")?.trim_start_matches("ok "))?)
    };
    let info = text(0)?;
    let id = info.lines().find_map(|l| l.strip_prefix("mnt_id:")).map(str::trim).context("no mnt_id")?;
    let mounts = text(1)?;
    ensure!(
        mounts.lines().any(|l| l.split(' ').next() == Some(id)),
        "mount {id} of descriptor 0 is not among those of the container"
    );
    eq("descriptor 0", out.lines()[2], "ok /dev/null")
}

fn dev_null_keeps_its_owner(cx: &Cx) -> Result<()> {
    let before = fs::metadata("/dev/null")?;
    let mut b = cx.bundle()?;
    b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    b.run()?.ok()?;
    let after = fs::metadata("/dev/null")?;
    eq(
        "owner and mode",
        (after.uid(), after.gid(), after.mode()),
        (before.uid(), before.gid(), before.mode()),
    )
}

/// A file on a read-only mount cannot change its owner.
fn read_only_files_are_fine(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/user", json!({"uid": 1000, "gid": 1000})).probe(&["stdin"]).save()?;
    let dir = cx.path("frozen");
    fs::create_dir(&dir)?;
    use nix::mount::{MsFlags, mount, umount};
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    fs::write(dir.join("in"), "frozen")?;
    let remount = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, &dir, None::<&str>, remount, None::<&str>)?;
    let out = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).stdin(File::open(dir.join("in"))?).run();
    umount(&dir)?;
    eq("stdout", out?.ok()?.stdout, "frozen")
}

fn preserve_fds(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["seq", "json", "---", "read-fd", "3", "---", "read-fd", "4"]).save()?;
    let fds =
        vec![(file_fd(cx, "a", "first")?, 3), (file_fd(cx, "b", "second")?, 4), (file_fd(cx, "c", "c")?, 5)];
    let out =
        cx.cmd(&["run", "--preserve-fds", "2", "--bundle", &b.path(), &cx.id()]).fds(fds)?.run()?.ok()?;
    let v: Value = serde_json::from_str(out.lines()[0])?;
    eq(&v["fds"].to_string(), numbers(&v), vec!["0", "1", "2", "3", "4"])?;
    eq("content", out.lines()[1..].to_vec(), vec!["ok \"first\"", "ok \"second\""])
}

/// `podman run --preserve-fd 5` counts from 3, where nothing is: only the last has to be there, and none of the runtime's own
/// takes the others' places.
fn preserve_fds_with_gaps(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["seq", "json", "---", "read-fd", "5"]).save()?;
    let log = cx.path("log").display().to_string();
    let fds = vec![(file_fd(cx, "a", "fifth")?, 5)];
    let line = ["--log", &log, "run", "--preserve-fds", "3", "--bundle", &b.path(), &cx.id()];
    let out = cx.cmd(&line).fds(fds)?.run()?.ok()?;
    let v: Value = serde_json::from_str(out.lines()[0])?;
    eq("content", out.lines()[1..].to_vec(), vec!["ok \"fifth\""])?;
    eq(&v["fds"].to_string(), numbers(&v), vec!["0", "1", "2", "5"])
}

/// With the caller's in all the low numbers, the runtime's own are born between those that are left.
fn preserve_fds_with_high_gaps(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["json"]).save()?;
    let low = 3..64;
    let mut fds = vec![(file_fd(cx, "last", "last")?, 90)];
    for fd in low.clone() {
        fds.push((file_fd(cx, "low", "low")?, fd));
    }
    let log = cx.path("log").display().to_string();
    let line = ["--log", &log, "run", "--preserve-fds", "88", "--bundle", &b.path(), &cx.id()];
    let v: Value = cx.cmd(&line).fds(fds)?.run()?.ok()?.json()?;
    let wanted: BTreeSet<String> = (0..3).chain(low).chain([90]).map(|fd| fd.to_string()).collect();
    eq(&v["fds"].to_string(), numbers(&v).into_iter().collect::<BTreeSet<_>>(), wanted)
}

fn preserve_fds_not_open(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let before = cx.snapshot()?;
    let out = cx.cmd(&["run", "--preserve-fds", "50", "--bundle", &b.path(), &cx.id()]).run()?;
    out.fails(&["unable to stat preserved-fd"])?;
    cx.nothing_left(&before)
}

fn preserve_fds_negative_or_text(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    for value in ["x", "", "1.5", "99999999999999999999"] {
        let out = cx.rt(&["run", "--preserve-fds", value, "--bundle", &b.path(), &cx.id()])?;
        ensure!(out.code != 0, "--preserve-fds {value:?} was taken");
    }
    Ok(())
}

/// Socket activation: descriptors 3.. are passed when LISTEN_PID is the runtime, and the program is told LISTEN_PID=1.
fn listen_fds(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["seq", "json", "---", "read-fd", "3", "---", "read-fd", "4"]).save()?;
    let fds = vec![(file_fd(cx, "a", "first")?, 3), (file_fd(cx, "b", "second")?, 4)];
    let line = format!(
        "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$0\" --root {} run --preserve-fds 1 --bundle {} {}",
        cx.root.display(),
        b.path(),
        cx.id()
    );
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &line]).arg(&cx.runtime).stderr(Stdio::inherit());
    crate::sys::pass_fds(&mut shell, &fds)?;
    let out = shell.output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    eq("exit", out.status.code(), Some(0))?;
    let lines: Vec<&str> = text.lines().collect();
    let v: Value = serde_json::from_str(lines.first().context("no answer")?)?;
    let env = v["environ"].to_string();
    ensure!(env.contains("\"LISTEN_FDS=1\"") && env.contains("\"LISTEN_PID=1\""), "environ {env}");
    eq("content", lines[1..].to_vec(), vec!["ok \"first\"", "ok \"second\""])
}

fn listen_fds_of_another_process(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["json"]).save()?;
    let fds = vec![(file_fd(cx, "a", "first")?, 3)];
    let cmd =
        cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).env("LISTEN_FDS", "1").env("LISTEN_PID", "99999");
    let v = cmd.fds(fds)?.run()?.ok()?.json()?;
    eq(&v["fds"].to_string(), numbers(&v), vec!["0", "1", "2"])?;
    ensure!(!v["environ"].to_string().contains("LISTEN_"), "environ {}", v["environ"]);
    Ok(())
}

/// Between create and start too, init must hold nothing of the host but its standard streams and the gate.
fn descriptors_of_created_container(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    let c = b.create()?;
    let pid = c.pid()?;
    let devices = [fs::metadata("/")?.dev(), fs::metadata(&cx.dir)?.dev()];
    let root = fs::metadata(b.rootfs())?;
    let mut held = vec![];
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        // Through the link: the file itself, whatever its name is in the other namespace.
        if let Ok(meta) = fs::metadata(entry.path())
            && meta.is_dir()
            && devices.contains(&meta.dev())
            && meta.ino() != root.ino()
        {
            held.push(fs::read_link(entry.path())?.display().to_string());
        }
    }
    c.delete_force()?;
    ensure!(held.is_empty(), "directories of the host held open: {held:?}");
    Ok(())
}

fn session_and_group(cx: &Cx) -> Result<()> {
    let v = cx.bundle()?.inside()?;
    same("pid", &v["pid"], json!(1))?;
    same("session", &v["sid"], json!(1))?;
    same("parent", &v["ppid"], json!(0))
}

/// The program starts with nothing blocked or ignored, whatever the runtime did for itself.
fn signal_state_is_clean(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["json"]);
    let c = b.create()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    c.delete()?.ok()?;
    let v = b.inside()?;
    same("blocked", &v["sig_blocked"], json!("0000000000000000"))?;
    // The probe's own language runtime ignores SIGPIPE; posix_spawn of the C library that started the tests leaves its own
    // two signals (32 and 33) ignored, which no runtime changes.
    let ignored = u64::from_str_radix(v["sig_ignored"].as_str().unwrap_or("x"), 16)?;
    ensure!(ignored & !0x1_8000_1000 == 0, "ignored {}", v["sig_ignored"]);
    same("death signal", &v["pdeathsig"], json!(0))
}
