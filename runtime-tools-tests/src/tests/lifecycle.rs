//! create, start, run, and what is refused in which state (runtime-spec: runtime.md, lifecycle and operations).

use super::tests;
use crate::container::{finish, reap};
use crate::cx::{Cx, eq, wait_for};
use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;

tests!["lifecycle":
    walk,
    create_does_not_run_the_program,
    config_changes_after_create_have_no_effect,
    create_rejects_existing_id,
    create_rejects_bad_ids deviates ["crun" = "accepts some of them with words of its own"],
    create_accepts_all_id_characters,
    create_without_id,
    create_in_current_directory,
    create_relative_bundle deviates ["crun" = "takes a relative --pid-file from the bundle"],
    start_without_id,
    start_unknown,
    start_running_fails deviates ["crun" = "says `is not in the created state`"],
    start_stopped_fails deviates ["crun" = "says `is not in the created state`"],
    start_without_process deviates ["crun" = "starts it"],
    start_after_init_died,
    init_reparents_to_the_caller,
    start_returns_before_the_program_ends,
    run_exit_codes,
    run_exit_code_of_signal,
    run_deletes,
    run_keep,
    run_detach,
    run_failure_is_one,
    run_forwards_signals,
    run_two_of_one_bundle,
    id_can_be_used_again,
    no_file_left_in_the_bundle,
    umask_of_the_caller_does_not_matter deviates ["runc" = "applies it to directories it makes", "crun" = "makes it 1755"],
    caller_stdio_closed deviates ["crun" = "dies of a signal"],
    unknown_properties_are_ignored,
    version_is_checked_loosely,
    not_entered_while_it_is_made,
    caller_ignores_ends_of_children deviates ["crun" = "cannot wait for its children then"],
    caller_without_ptrace,
    invalid_version_fails deviates ["crun" = "does not look at ociVersion", "runc" = "does not look at ociVersion"],
];

fn walk(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.create()?;
    let s = c.state()?;
    eq("id", s["id"].as_str(), Some(c.id.as_str()))?;
    eq("status", s["status"].as_str(), Some("created"))?;
    let pid = c.pid()?;
    ensure!(fs::exists(format!("/proc/{pid}"))?, "no process {pid} while created");
    c.start()?.ok()?;
    c.is("running")?;
    eq("pid after start", c.pid()?, pid)?;
    c.kill("KILL")?.ok()?;
    eq("exit of init", reap(pid)?, 137)?;
    c.is("stopped")?;
    c.delete()?.ok()?;
    cx.rt(&["state", &c.id])?.fails(&["does not exist"]).map(drop).or_else(|e| {
        // crun says which file is missing instead.
        if cx.kind == "crun" { Ok(()) } else { Err(e) }
    })
}

fn create_does_not_run_the_program(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["create", "/ran", "x"]);
    let c = b.create()?;
    std::thread::sleep(std::time::Duration::from_millis(30));
    ensure!(!b.rootfs().join("ran").exists(), "the program ran before start");
    let pid = c.pid()?;
    c.start()?.ok()?;
    eq("exit", reap(pid)?, 0)?;
    ensure!(b.rootfs().join("ran").exists(), "the program did not run");
    c.delete()?.ok()?;
    Ok(())
}

fn config_changes_after_create_have_no_effect(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["create", "/first", "x"]);
    let c = b.create()?;
    b.probe(&["create", "/second", "x"]);
    b.set("/hostname", json!("other")).save()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    eq("exit", reap(pid)?, 0)?;
    ensure!(
        b.rootfs().join("first").exists() && !b.rootfs().join("second").exists(),
        "the later config was used"
    );
    c.delete()?.ok()?;
    Ok(())
}

fn create_rejects_existing_id(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let pid = c.pid()?;
    let before = cx.snapshot()?;
    c.create(&[])?.fails(&["exist"])?;
    cx.nothing_left(&before)?;
    c.is("running")?;
    eq("pid", c.pid()?, pid)?;
    c.end()
}

fn create_rejects_bad_ids(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let before = cx.snapshot()?;
    for id in ["a/b", "../x", ".", "..", "a b", "a\nb", "é", "a*", "/abs", "a:b", "a,b"] {
        cx.rt(&["create", "--bundle", &b.path(), id])?.fails(&["invalid container ID format"])?;
        cx.nothing_left(&before)?;
    }
    cx.rt(&["create", "--bundle", &b.path(), ""])?.fails(&["container id cannot be empty"])?;
    Ok(())
}

fn create_accepts_all_id_characters(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let id = format!("{}_A+b.c-9", cx.id());
    cx.rt(&["create", "--bundle", &b.path(), &id])?.ok()?;
    cx.rt(&["delete", "--force", &id])?.ok()?;
    Ok(())
}

fn create_without_id(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    ensure!(cx.rt(&["create", "--bundle", &b.path()])?.code != 0, "create without an id succeeded");
    Ok(())
}

fn create_in_current_directory(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let c = b.container();
    cx.cmd(&["create", &c.id]).cwd(&b.dir).run()?.ok()?;
    eq("bundle", c.state()?["bundle"].as_str(), Some(b.path().as_str()))?;
    c.delete_force()?;
    Ok(())
}

fn create_relative_bundle(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let c = b.container();
    let name = b.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    cx.cmd(&["create", "-b", &name, "--pid-file", "pid", &c.id]).cwd(&cx.dir).run()?.ok()?;
    eq("bundle", c.state()?["bundle"].as_str(), Some(b.path().as_str()))?;
    eq("pid file", fs::read_to_string(cx.path("pid"))?, c.pid()?.to_string())?;
    c.delete_force()?;
    Ok(())
}

fn start_without_id(cx: &Cx) -> Result<()> {
    ensure!(cx.rt(&["start"])?.code != 0, "start without an id succeeded");
    Ok(())
}

fn start_unknown(cx: &Cx) -> Result<()> {
    cx.rt(&["start", &cx.id()])?.fails(&["does not exist"])?;
    Ok(())
}

fn start_running_fails(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["seq", "append", "/ran", "x", "---", "sleep"]);
    let c = b.start()?;
    wait_for("the program", || Ok(b.rootfs().join("ran").exists().then_some(())))?;
    c.start()?.fails(&["cannot start an already running container"])?;
    c.is("running")?;
    eq("runs", fs::read_to_string(b.rootfs().join("ran"))?, "x")?;
    c.end()
}

fn start_stopped_fails(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["append", "/ran", "x"]);
    let c = b.create()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    c.start()?.fails(&["cannot start a container that has stopped"])?;
    c.is("stopped")?;
    eq("runs", fs::read_to_string(b.rootfs().join("ran"))?, "x")?;
    c.delete()?.ok()?;
    Ok(())
}

/// The spec lets `create` take a config without process and `start` refuse it; the peers refuse at create.
fn start_without_process(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.remove("/process").save()?;
    let before = cx.snapshot()?;
    let c = b.container();
    let created = c.create(&[])?;
    if created.code == 0 {
        ensure!(c.start()?.code != 0, "start without process succeeded");
        c.delete_force()?;
    }
    cx.nothing_left(&before)
}

fn start_after_init_died(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    let c = b.create()?;
    let pid = c.pid()?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    // Not reaped yet: a zombie init is a stopped container.
    c.becomes("stopped")?;
    let out = c.start()?;
    ensure!(out.code == 1 && !out.stderr.is_empty(), "start of a dead container: {out:?}");
    ensure!(out.took.as_secs() < 3, "start of a dead container took {:?}", out.took);
    reap(pid)?;
    c.is("stopped")?;
    c.delete()?.ok()?;
    Ok(())
}

fn init_reparents_to_the_caller(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.create()?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", c.pid()?))?;
    let parent = stat.rsplit(") ").next().and_then(|s| s.split(' ').nth(1)).map(String::from);
    eq("parent of init", parent, Some(std::process::id().to_string()))?;
    c.start()?.ok()?;
    let mut children = vec![];
    for entry in fs::read_dir("/proc")?.flatten() {
        if let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() {
            children.push(pid);
        }
    }
    // Process 1 of this namespace, this test, the container: no monitor or zombie of the runtime.
    crate::leaks::reap();
    eq("processes", children.len(), 3)?;
    c.end()
}

fn start_returns_before_the_program_ends(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep", "1000"]);
    let c = b.create()?;
    let out = c.start()?.ok()?;
    ensure!(out.took.as_millis() < 900, "start took {:?}", out.took);
    c.end()
}

fn run_exit_codes(cx: &Cx) -> Result<()> {
    for code in ["0", "1", "7", "255"] {
        let mut b = cx.bundle()?;
        b.probe(&["exit", code]);
        b.run()?.code(code.parse()?)?;
    }
    Ok(())
}

/// Process 1 of a pid namespace cannot kill itself: no pid namespace here.
fn run_exit_code_of_signal(cx: &Cx) -> Result<()> {
    for signal in [15, 9, 6] {
        let mut b = cx.bundle()?;
        b.without_namespace("pid").remove("/linux/maskedPaths");
        b.probe(&["raise", &signal.to_string()]);
        b.run()?.code(128 + signal)?;
    }
    Ok(())
}

fn run_deletes(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let before = cx.snapshot()?;
    let id = cx.id();
    cx.rt(&["run", "--bundle", &b.path(), &id])?.ok()?;
    cx.nothing_left(&before)?;
    cx.rt(&["state", &id])?.code(1)?;
    Ok(())
}

fn run_keep(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["exit", "3"]).save()?;
    let c = b.container();
    cx.rt(&["run", "--keep", "--bundle", &b.path(), &c.id])?.code(3)?;
    c.is("stopped")?;
    c.delete()?.ok()?;
    Ok(())
}

fn run_detach(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]).save()?;
    let c = b.container();
    let file = cx.path("pid").display().to_string();
    for flag in ["--detach", "-d"] {
        cx.rt(&["run", flag, "--pid-file", &file, "--bundle", &b.path(), &c.id])?.ok()?;
        c.is("running")?;
        eq("pid file", fs::read_to_string(&file)?, c.pid()?.to_string())?;
        c.end()?;
    }
    Ok(())
}

fn run_failure_is_one(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/args", json!(["/bin/absent"])).save()?;
    let before = cx.snapshot()?;
    b.run()?.fails_any(&["no such file or directory", "not found"])?;
    cx.nothing_left(&before)
}

fn run_forwards_signals(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["signals"]).save()?;
    let c = b.container();
    let out = fs::File::create(cx.path("forwarded"))?;
    let mut cmd = cx.cmd(&["run", "--bundle", &b.path(), &c.id]);
    cmd.command().stdout(out);
    let child = cmd.spawn()?;
    let pid = Pid::from_raw(child.id() as i32);
    let text = || fs::read_to_string(cx.path("forwarded"));
    wait_for("ready", || Ok(text()?.contains("ready").then_some(())))?;
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTERM] {
        kill(pid, signal)?;
        wait_for(signal.as_str(), || {
            Ok(text()?.contains(&format!("got {}", signal.as_str())).then_some(()))
        })?;
    }
    eq("exit code", finish(child)?, 42)
}

fn run_two_of_one_bundle(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let first = b.start()?;
    let other = format!("{}/other", cx.cgroup);
    b.set("/linux/cgroupsPath", json!(other));
    let second = b.start()?;
    first.is("running")?;
    second.is("running")?;
    first.end()?;
    second.is("running")?;
    second.end()?;
    cx.nothing_left(&cx.snapshot()?)
}

fn id_can_be_used_again(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let c = b.container();
    for _ in 0..3 {
        c.create(&[])?.ok()?;
        let pid = c.pid()?;
        c.start()?.ok()?;
        eq("exit", reap(pid)?, 0)?;
        c.delete()?.ok()?;
    }
    Ok(())
}

fn no_file_left_in_the_bundle(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.run()?.ok()?;
    let mut names: Vec<_> = fs::read_dir(&b.dir)?.flatten().map(|e| e.file_name()).collect();
    names.sort();
    eq("bundle", names, vec!["config.json", "rootfs"])
}

fn umask_of_the_caller_does_not_matter(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/made/dir", "tmpfs", "tmpfs", &[]).probe(&["stat", "/made"]).save()?;
    for mask in [0o777, 0] {
        let out = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).umask(mask).run()?.ok()?;
        eq("mode of a made directory", out.json()?["mode"].as_str(), Some("755"))?;
        fs::remove_dir_all(b.rootfs().join("made"))?;
    }
    Ok(())
}

/// With 0, 1 and 2 closed the runtime's own files must not land there.
fn caller_stdio_closed(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["append", "/ran", "x"]).save()?;
    let line = format!(
        "exec \"$0\" --root {} run --bundle {} {} <&- >&- 2>&-",
        cx.root.display(),
        b.path(),
        cx.id()
    );
    let status = std::process::Command::new("/bin/sh").args(["-c", &line]).arg(&cx.runtime).status()?;
    eq("exit", status.code(), Some(0))?;
    eq("ran", fs::read_to_string(b.rootfs().join("ran"))?, "x")
}

fn unknown_properties_are_ignored(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/unknown", json!({"a": [1]}))
        .set("/process/unknown", json!("x"))
        .set("/linux/unknown", json!(1))
        .set("/linux/resources/unknown", json!(true))
        .set("/windows", json!({"layerFolders": ["C:\\a"]}))
        .set("/annotations", json!({"org.example.key": "", "bundle": "/nowhere"}));
    b.run()?.ok()?;
    Ok(())
}

fn version_is_checked_loosely(cx: &Cx) -> Result<()> {
    for version in ["1.0.0", "1.2.1", "1.99.3", "1.0.2-dev"] {
        let mut b = cx.bundle()?;
        b.set("/ociVersion", json!(version));
        b.run()?.ok()?;
    }
    Ok(())
}

fn invalid_version_fails(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/ociVersion", json!("invalid"));
    b.run()?.fails(&["ersion"])?;
    Ok(())
}

/// Before its mounts are done the first process has the host's root: nothing may be run beside it yet.
fn not_entered_while_it_is_made(cx: &Cx) -> Result<()> {
    for kind in ["createRuntime", "createContainer"] {
        let mut b = cx.bundle()?;
        let (reached, go) = (cx.path(&format!("reached.{kind}")), cx.path(&format!("go.{kind}")));
        let (r, g) = (reached.display(), go.display());
        let line = format!("touch {r}; until test -e {g}; do sleep 0.05; done");
        b.push(&format!("/hooks/{kind}"), json!({"path": "/bin/sh", "args": ["sh", "-c", line]}));
        b.probe(&["sleep"]).save()?;
        let c = b.container();
        let run = cx.cmd(&["run", "--detach", "--bundle", &b.path(), &c.id]).spawn()?;
        wait_for("the hook", || Ok(reached.exists().then_some(())))?;
        let state = cx.rt(&["state", &c.id])?;
        let creating = state.code != 0 || state.json()?["status"] == "creating";
        let entered = c.exec(&[], &["say", "entered"])?;
        fs::write(&go, "")?;
        eq("exit of run", finish(run)?, 0)?;
        ensure!(creating, "{kind}: state says {}", state.said());
        ensure!(entered.code != 0 && !entered.stdout.contains("entered"), "{kind}: {}", entered.said());
        c.becomes("running")?;
        c.exec(&[], &["say", "entered"])?.ok()?;
        c.end()?;
    }
    Ok(())
}

/// A shell's `trap '' CHLD`, or a daemon that does not want to reap, hands that on.
fn caller_ignores_ends_of_children(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.hook("createRuntime", &[]);
    b.probe(&["seq", "sleep", "100", "---", "exit", "7"]).save()?;
    let mut run = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]);
    crate::sys::with_ignored(run.command(), Signal::SIGCHLD);
    run.limit(std::time::Duration::from_secs(10)).run()?.code(7)?;
    Ok(())
}

/// As in a container that was given CAP_SYS_ADMIN for running others.
fn caller_without_ptrace(cx: &Cx) -> Result<()> {
    const CAP_SYS_PTRACE: i32 = 19;
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]).save()?;
    let c = b.container();
    let without = |args: &[&str]| {
        let mut cmd = cx.cmd(args);
        crate::sys::without_capability(cmd.command(), CAP_SYS_PTRACE);
        cmd.run()
    };
    without(&["create", "--bundle", &b.path(), &c.id])?.ok()?;
    without(&["start", &c.id])?.ok()?;
    let up = without(&["exec", &c.id, "/bin/probe", "cat", "/sys/class/net/lo/operstate"])?;
    ensure!(up.code == 0 || up.code == 1, "{}", up.said());
    without(&["exec", &c.id, "/bin/probe", "say", "entered"])?.ok()?;
    let (own, pid) = (fs::read_link("/proc/self/ns/net")?, c.pid()?);
    ensure!(own != fs::read_link(format!("/proc/{pid}/ns/net"))?, "the host's network namespace");
    without(&["kill", &c.id, "KILL"])?.ok()?;
    reap(pid)?;
    without(&["delete", &c.id])?.ok()?;
    Ok(())
}
