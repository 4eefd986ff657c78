//! `exec`: exit codes, refusals, what it joins, detaching, pid files, streams, many at once.

use super::tests;
use crate::container::{Container, reap};
use crate::cx::{Cx, eq, same, wait_for};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;

tests!["exec":
    exit_codes,
    signal_is_128_plus,
    flags_after_the_id_are_arguments,
    no_command,
    program_missing deviates ["crun" = "exits with 127 or 1"],
    program_not_in_path deviates ["crun" = "has words of its own"],
    unknown_container deviates ["crun" = "exits with 1"],
    stopped_container deviates ["crun" = "has words of its own"],
    created_container,
    same_namespaces,
    same_namespaces_when_shared,
    same_cgroups,
    root_is_the_container_root,
    detach,
    detach_pid_file,
    pid_file_in_foreground,
    pid_file_absent_after_failure,
    detached_reparents_to_the_caller,
    stdin_and_stdout,
    many_at_once,
    signals_forwarded,
    init_is_not_touched,
    preserve_fds,
    dies_with_the_container,
    no_descriptor_leaks,
];

pub fn sleeping(cx: &Cx) -> Result<Container<'_>> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    b.start()
}

fn exit_codes(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for code in ["0", "1", "42", "254"] {
        c.exec(&[], &["exit", code])?.code(code.parse()?)?;
    }
    c.end()
}

fn signal_is_128_plus(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for signal in [9, 15, 10] {
        c.exec(&[], &["raise", &signal.to_string()])?.code(128 + signal)?;
    }
    c.end()
}

fn flags_after_the_id_are_arguments(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let out = c.exec(&[], &["args", "-x", "--tty", "-e", "A=1", "--", "--help"])?.ok()?;
    eq("args", out.stdout.trim(), r#"["-x","--tty","-e","A=1","--","--help"]"#)?;
    c.end()
}

fn no_command(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    ensure!(cx.rt(&["exec", &c.id])?.code != 0, "exec without a command");
    ensure!(cx.rt(&["exec"])?.code != 0, "exec without an id");
    c.end()
}

fn program_missing(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let out = cx.rt(&["exec", &c.id, "/bin/absent"])?;
    out.fails_with(255, &["exec failed", "/bin/absent", "no such file or directory"])?.one_line()?;
    c.end()
}

fn program_not_in_path(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let out = cx.rt(&["exec", &c.id, "absent"])?;
    out.fails_with(255, &["exec failed", "exec: \"absent\": executable file not found in $PATH"])?;
    c.end()
}

fn unknown_container(cx: &Cx) -> Result<()> {
    cx.rt(&["exec", &cx.id(), "true"])?.fails_with(255, &["does not exist"])?;
    Ok(())
}

fn stopped_container(cx: &Cx) -> Result<()> {
    let c = cx.bundle()?.create()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    c.exec(&[], &["true"])?.fails_with(255, &["cannot exec in a stopped container"])?;
    c.delete()?.ok()?;
    Ok(())
}

fn created_container(cx: &Cx) -> Result<()> {
    let c = cx.bundle()?.create()?;
    c.exec(&[], &["exit", "5"])?.code(5)?;
    c.is("created")?;
    c.delete_force()?;
    Ok(())
}

fn namespaces_of(pid: i32) -> Result<Value> {
    let mut v = json!({});
    for entry in fs::read_dir(format!("/proc/{pid}/ns"))?.flatten() {
        v[entry.file_name().to_string_lossy().into_owned()] =
            json!(fs::read_link(entry.path())?.display().to_string());
    }
    Ok(v)
}

fn same_namespaces(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let init = namespaces_of(c.pid()?)?;
    let inside = c.exec_inside(&[])?;
    for name in ["mnt", "net", "ipc", "uts", "pid", "cgroup", "user", "time"] {
        same(name, &inside["ns"][name], init[name].clone())?;
    }
    c.end()
}

fn same_namespaces_when_shared(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.without_namespace("pid").without_namespace("network").remove("/linux/maskedPaths");
    b.without_mount("/sys").without_mount("/sys/fs/cgroup").probe(&["sleep"]);
    let c = b.start()?;
    let init = namespaces_of(c.pid()?)?;
    let inside = c.exec_inside(&[])?;
    for name in ["mnt", "net", "ipc", "uts", "pid", "cgroup"] {
        same(name, &inside["ns"][name], init[name].clone())?;
    }
    c.end()
}

fn same_cgroups(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.without_namespace("cgroup").probe(&["sleep"]);
    let c = b.start()?;
    let lines = |text: &str| -> Vec<String> {
        let mut all: Vec<String> = text.lines().map(String::from).collect();
        all.sort();
        all
    };
    let init = lines(&fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?);
    let inside = c.exec_inside(&[])?;
    let mut got: Vec<String> = inside["cgroup"]
        .as_array()
        .context("cgroup")?
        .iter()
        .filter_map(|l| l.as_str().map(String::from))
        .collect();
    got.sort();
    eq("cgroups", got, init)?;
    c.end()
}

fn root_is_the_container_root(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::write(b.rootfs().join("only-inside"), "")?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let inside = c.exec_inside(&[])?;
    ensure!(inside["root"].to_string().contains("only-inside"), "root {}", inside["root"]);
    same("cwd", &inside["cwd"], json!("/"))?;
    c.end()
}

fn detach(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for flag in ["--detach", "-d"] {
        let file = cx.path("pid").display().to_string();
        let out = c.exec(&[flag, "--pid-file", &file], &["sleep", "1000"])?.ok()?;
        ensure!(out.took.as_millis() < 900, "it waited: {:?}", out.took);
        let pid: i32 = fs::read_to_string(&file)?.parse()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
        eq("exit", reap(pid)?, 137)?;
    }
    c.end()
}

fn detach_pid_file(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let file = cx.path("pid");
    c.exec(&["--detach", "--pid-file", &file.display().to_string()], &["exit", "9"])?.ok()?;
    let pid: i32 = fs::read_to_string(&file)?.parse().context("decimal without newline")?;
    eq("exit", reap(pid)?, 9)?;
    c.end()
}

fn pid_file_in_foreground(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let file = cx.path("pid");
    c.exec(&["--pid-file", &file.display().to_string()], &["exit", "3"])?.code(3)?;
    let _: i32 = fs::read_to_string(&file)?.parse().context("decimal without newline")?;
    c.end()
}

/// conmon tells a failed exec by the missing file.
fn pid_file_absent_after_failure(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let file = cx.path("pid");
    for flags in [vec!["--detach"], vec![]] {
        let mut args = vec!["exec", "--pid-file"];
        let name = file.display().to_string();
        args.push(&name);
        args.extend(flags);
        args.extend([c.id.as_str(), "/bin/absent"]);
        ensure!(cx.rt(&args)?.code != 0, "exec of an absent program succeeded");
        ensure!(!file.exists(), "a pid file after a failure");
    }
    c.end()
}

fn detached_reparents_to_the_caller(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let file = cx.path("pid");
    c.exec(&["--detach", "--pid-file", &file.display().to_string()], &["sleep"])?.ok()?;
    let pid = fs::read_to_string(&file)?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let parent = stat.rsplit(") ").next().and_then(|s| s.split(' ').nth(1)).map(String::from);
    eq("parent", parent, Some(std::process::id().to_string()))?;
    c.end()
}

fn stdin_and_stdout(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let data = "0123456789abcdef".repeat(20_000);
    let out = cx.cmd(&["exec", &c.id, "/bin/probe", "stdin"]).input(data.as_bytes()).run()?.ok()?;
    eq("bytes", out.stdout.len(), data.len())?;
    ensure!(out.stdout == data, "the data came back changed");
    let out = c.exec(&[], &["err", "to stderr"])?.ok()?;
    eq("stderr", out.stderr.as_str(), "to stderr\n")?;
    c.end()
}

fn many_at_once(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let mut all = vec![];
    for n in 0..10 {
        let code = n.to_string();
        all.push((n, cx.cmd(&["exec", &c.id, "/bin/probe", "exit", &code]).spawn()?));
    }
    for (n, child) in all {
        eq("exit code", crate::container::finish(child)?, n)?;
    }
    c.end()
}

fn signals_forwarded(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let out = fs::File::create(cx.path("forwarded"))?;
    let mut cmd = cx.cmd(&["exec", &c.id, "/bin/probe", "signals"]);
    cmd.command().stdout(out);
    let child = cmd.spawn()?;
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let has = |t: &str| Ok(fs::read_to_string(cx.path("forwarded"))?.contains(t).then_some(()));
    wait_for("ready", || has("ready"))?;
    for signal in [nix::sys::signal::Signal::SIGUSR1, nix::sys::signal::Signal::SIGTERM] {
        nix::sys::signal::kill(pid, signal)?;
        wait_for(signal.as_str(), || has(&format!("got {}", signal.as_str())))?;
    }
    eq("exit code", crate::container::finish(child)?, 42)?;
    c.end()
}

fn init_is_not_touched(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let before = c.state()?;
    c.exec(&[], &["true"])?.ok()?;
    eq("state", c.state()?, before)?;
    c.end()
}

fn preserve_fds(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    fs::write(cx.path("passed"), "through")?;
    let fd = fs::File::open(cx.path("passed"))?.into();
    let out = cx
        .cmd(&["exec", "--preserve-fds", "1", &c.id, "/bin/probe", "read-fd", "3"])
        .fds(vec![(fd, 3)])?
        .run()?
        .ok()?;
    eq("content", out.stdout.trim(), "ok \"through\"")?;
    c.end()
}

fn dies_with_the_container(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let pid = c.pid()?;
    let mut cmd = cx.cmd(&["exec", &c.id, "/bin/probe", "seq", "say", "ready", "---", "sleep"]);
    cmd.command().stdout(fs::File::create(cx.path("said"))?);
    let child = cmd.spawn()?;
    wait_for("the program", || Ok(fs::read_to_string(cx.path("said"))?.contains("ready").then_some(())))?;
    c.kill("KILL")?.ok()?;
    eq("exit of exec", crate::container::finish(child)?, 137)?;
    reap(pid)?;
    c.delete()?.ok()?;
    Ok(())
}

fn no_descriptor_leaks(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let extra = fs::File::open("/etc/passwd")?.into();
    let out = cx.cmd(&["exec", &c.id, "/bin/probe", "json"]).fds(vec![(extra, 9)])?.run()?.ok()?;
    let v = out.json()?;
    let numbers: Vec<&String> = v["fds"].as_object().map(|o| o.keys().collect()).unwrap_or_default();
    eq(&format!("descriptors {}", v["fds"]), numbers, vec!["0", "1", "2"])?;
    c.end()
}
