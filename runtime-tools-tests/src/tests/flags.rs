//! Flags that no other file is about: each one does what it says, and only that.

use super::exec::sleeping;
use super::tests;
use crate::cgroup;
use crate::container::{finish, reap};
use crate::cx::{Cx, eq, wait_for};
use crate::terminal::ConsoleSocket;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

tests!["flags":
    pidfd_socket deviates ["crun" = "has no such flag"],
    pidfd_socket_of_exec deviates ["crun" = "has no such flag"],
    exec_ignore_paused deviates ["crun" = "has no such flag"],
    exec_cgroup_v2 deviates ["crun" = "exits with 1"],
    exec_cgroup_v1 deviates ["crun" = "joins by itself"],
    exec_cgroup_outside deviates ["crun" = "takes it"],
    exec_has_no_listen_fds deviates ["crun" = "passes them, too"],
    exec_process_label_needs_selinux deviates ["crun" = "runs without"],
    run_is_the_subreaper,
    run_no_subreaper deviates ["crun" = "stays one"],
    delete_force_again deviates ["crun" = "has words of its own"],
    list_more_than_descriptors,
    pid_file_comes_last,
    restore_has_no_preserve_fds,
];

/// The process that a received pidfd is of.
fn pid_of(pidfd: &File) -> Result<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).context("not a pidfd")?;
    Ok(pid.trim().parse()?)
}

fn pidfd_socket(cx: &Cx) -> Result<()> {
    let socket = ConsoleSocket::new(&cx.path("pidfd"))?;
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]).save()?;
    let path = socket.path.display().to_string();
    let c = b.container();
    c.create(&["--pidfd-socket", &path])?.ok()?;
    let received = socket.receive()?;
    eq("the process", pid_of(&received.master)?, c.pid()?)?;
    eq("payload", received.payload.as_str(), "standard")?;
    c.start()?.ok()?;
    c.end()?;
    let c = b.container();
    cx.rt(&["run", "--detach", "--pidfd-socket", &path, "--bundle", &b.path(), &c.id])?.ok()?;
    eq("the process of run", pid_of(&socket.receive()?.master)?, c.pid()?)?;
    c.end()
}

fn pidfd_socket_of_exec(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let socket = ConsoleSocket::new(&cx.path("pidfd"))?;
    let (path, file) = (socket.path.display().to_string(), cx.path("pid").display().to_string());
    c.exec(&["--detach", "--pidfd-socket", &path, "--pid-file", &file], &["sleep"])?.ok()?;
    let received = socket.receive()?;
    eq("the process", pid_of(&received.master)?.to_string(), fs::read_to_string(&file)?)?;
    eq("payload", received.payload.as_str(), "setns")?;
    c.end()
}

/// It begins at once, and goes on when the container does.
fn exec_ignore_paused(cx: &Cx) -> Result<()> {
    if !cx.unified() {
        cx.need_controller("freezer")?;
    }
    let c = sleeping(cx)?;
    cx.rt(&["pause", &c.id])?.ok()?;
    c.exec(&[], &["true"])?
        .fails_with(255, &["cannot exec in a paused container (use --ignore-paused to override)"])?;
    let mut child = cx.cmd(&["exec", "--ignore-paused", &c.id, "/bin/probe", "exit", "6"]).spawn()?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(child.try_wait()?.is_none(), "a process of a paused container has ended");
    cx.rt(&["resume", &c.id])?.ok()?;
    eq("exit code", finish(child)?, 6)?;
    c.exec(&["--ignore-paused"], &["exit", "7"])?.code(7)?;
    c.end()
}

fn exec_cgroup_v2(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    let c = sleeping(cx)?;
    let own = cgroup::directory_of(c.pid()?, "")?;
    fs::create_dir(own.join("sub"))?;
    let cgroups = |v: serde_json::Value| v["cgroup"].to_string();
    for name in ["sub", "/sub", "./sub/"] {
        let shown = cgroups(c.exec_inside(&["--cgroup", name])?);
        ensure!(shown.contains("0::/sub\""), "--cgroup {name}: {shown}");
    }
    let shown = cgroups(c.exec_inside(&["--cgroup", "/"])?);
    ensure!(shown.contains("0::/\""), "--cgroup /: {shown}");
    c.exec(&["--cgroup", "absent"], &["true"])?.code(255)?;
    c.end()
}

/// Of one hierarchy, by a controller's name; the others as without the flag.
fn exec_cgroup_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("pids")?;
    cx.need_controller("cpu")?;
    let c = sleeping(cx)?;
    let own = cgroup::directory_of(c.pid()?, "pids")?;
    fs::create_dir(own.join("sub"))?;
    let shown = c.exec_inside(&["--cgroup", "pids:sub"])?["cgroup"].to_string();
    ensure!(shown.contains(":pids:/sub\""), "{shown}");
    ensure!(!shown.contains(":cpu:/sub\"") && !shown.contains(":memory:/sub\""), "{shown}");
    c.exec(&["--cgroup", "pids:absent"], &["true"])?.code(255)?;
    c.exec(&["--cgroup", "nosuch:sub"], &["true"])?.code(255)?;
    c.end()
}

fn exec_cgroup_outside(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for name in ["..", "../..", "sub/../.."] {
        c.exec(&["--cgroup", name], &["true"])?.code(255)?;
    }
    c.end()
}

/// Socket activation is for the program of the container: nothing tells that of exec.
fn exec_has_no_listen_fds(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    fs::write(cx.path("passed"), "through")?;
    let fds: Vec<(OwnedFd, i32)> = vec![(File::open(cx.path("passed"))?.into(), 3)];
    let line = format!(
        "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" --root {} exec {} /bin/probe json",
        cx.root.display(),
        c.id
    );
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &line]).arg(&cx.runtime).stderr(Stdio::inherit());
    crate::sys::pass_fds(&mut shell, &fds)?;
    let out = shell.output()?;
    eq("exit", out.status.code(), Some(0))?;
    let v: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    ensure!(v["fds"].get("3").is_none(), "descriptors {}", v["fds"]);
    ensure!(!v["environ"].to_string().contains("LISTEN_"), "environ {}", v["environ"]);
    c.end()
}

fn exec_process_label_needs_selinux(cx: &Cx) -> Result<()> {
    if fs::read("/proc/self/attr/current").is_ok_and(|label| label.contains(&b':')) {
        return crate::cx::skip("SELinux is here: needs a policy with a type for containers");
    }
    let c = sleeping(cx)?;
    c.exec(&["--process-label", "system_u:system_r:container_t:s0"], &["true"])?.fails_with(
        255,
        &["selinux label is specified in config, but selinux is disabled or not supported"],
    )?;
    c.end()
}

/// Runs in the foreground a program that leaves an orphan and waits; the runtime's pid, and the orphan's new parent.
fn parent_of_an_orphan(cx: &Cx, flags: &[&str]) -> Result<(i32, i32)> {
    let mut b = cx.bundle()?;
    // With a pid namespace of its own orphans are the init process's.
    b.without_namespace("pid").remove("/linux/maskedPaths");
    b.probe(&["seq", "spawn", "orphan", "/tmp/parent", "---", "sleep", "60000"]).save()?;
    let c = b.container();
    let mut args = vec!["run"];
    args.extend(flags);
    let path = b.path();
    args.extend(["--bundle", &path, &c.id]);
    let child = cx.cmd(&args).spawn()?;
    let runtime = child.id() as i32;
    let file = b.rootfs().join("tmp/parent");
    let text =
        wait_for("the orphan", || Ok(fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))))?;
    c.kill("KILL")?.ok()?;
    eq("exit code", finish(child)?, 137)?;
    let parent = text.split_whitespace().nth(1).context("no parent")?.parse()?;
    Ok((runtime, parent))
}

fn run_is_the_subreaper(cx: &Cx) -> Result<()> {
    let (runtime, parent) = parent_of_an_orphan(cx, &[])?;
    eq("parent", parent, runtime)
}

fn run_no_subreaper(cx: &Cx) -> Result<()> {
    let (_, parent) = parent_of_an_orphan(cx, &["--no-subreaper"])?;
    eq("parent", parent, std::process::id() as i32)
}

fn delete_force_again(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let pid = c.pid()?;
    for _ in 0..3 {
        let out = cx.rt(&["delete", "--force", &c.id])?.ok()?;
        eq("output", (out.stdout.as_str(), out.stderr.as_str()), ("", ""))?;
    }
    reap(pid)?;
    c.delete()?.fails(&["container does not exist"]).map(drop)
}

fn list_more_than_descriptors(cx: &Cx) -> Result<()> {
    let all: Vec<_> = (0..14).map(|_| cx.bundle()?.create()).collect::<Result<_>>()?;
    let line = format!("ulimit -n 20; exec \"$0\" --root {} list -q", cx.root.display());
    let out = Command::new("/bin/sh").args(["-c", &line]).arg(&cx.runtime).output()?;
    let shown = String::from_utf8_lossy(&out.stdout).lines().count();
    for c in &all {
        c.delete_force()?;
    }
    eq("containers", shown, all.len())?;
    eq("errors", String::from_utf8_lossy(&out.stderr).as_ref(), "")
}

/// Callers that wait for the file go on with whatever it says.
fn pid_file_comes_last(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]).save()?;
    for n in 0..5 {
        let c = b.container();
        let file = cx.path(&format!("pid.{n}"));
        let name = file.display().to_string();
        let child = cx.cmd(&["create", "--pid-file", &name, "--bundle", &b.path(), &c.id]).spawn()?;
        let end = std::time::Instant::now() + Duration::from_secs(5);
        let text = loop {
            if let Ok(text) = fs::read_to_string(&file) {
                break text;
            }
            ensure!(std::time::Instant::now() < end, "no pid file");
        };
        let pid: i32 = text.parse().with_context(|| format!("half a pid file: {text:?}"))?;
        c.is("created")?;
        eq("pid", c.pid()?, pid)?;
        c.start()?.ok()?;
        eq("exit code of create", finish(child)?, 0)?;
        c.end()?;
    }
    Ok(())
}

/// What a checkpoint has is what comes back.
fn restore_has_no_preserve_fds(cx: &Cx) -> Result<()> {
    ensure!(cx.rt(&["restore", "--preserve-fds", "1", &cx.id()])?.code != 0, "it was taken");
    Ok(())
}
