//! Terminals: by console socket for create and exec, and in the foreground on the caller's own.

use super::tests;
use crate::bundle::Bundle;
use crate::container::{finish, reap};
use crate::cx::{Cx, eq, exit_code, same};
use crate::sys;
use crate::terminal::{ConsoleSocket, read_all, read_until};
use anyhow::{Context, Result, bail, ensure};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::process::Child;
use std::time::{Duration, Instant};

tests!["terminal":
    create_with_console_socket,
    console_size,
    console_node deviates ["crun" = "makes it a link to the terminal"],
    console_over_image_files,
    owner_of_the_terminal,
    input_and_signals,
    resize_of_the_master,
    create_failure_after_handover,
    foreground deviates ["crun" = "does not hand the size on"],
    foreground_line_ends deviates ["crun" = "needs a terminal for its output, too"],
    foreground_resize,
    foreground_restores_settings,
    foreground_interrupt_key,
    exec_with_console_socket,
    exec_process_file_with_console_size deviates ["crun" = "sets it late"],
    exec_foreground,
    exec_foreground_opens_nothing_inside deviates ["runc" = "makes no container without a procfs"],
    exec_foreground_ends_before_its_background deviates ["runc" = "reads on while there is something"],
    exec_foreground_signal_while_others_write deviates ["runc" = "reads on while there is something"],
    exec_without_terminal_in_a_container_with_one,
    exec_flag_decides,
    long_socket_path deviates ["runc" = "cannot take it"],
    no_terminal_leaves_no_console,
];

/// A bundle with `terminal: true`.
pub fn with_terminal<'a>(cx: &'a Cx, probe: &[&str]) -> Result<Bundle<'a>> {
    let mut b = cx.bundle()?;
    b.set("/process/terminal", json!(true)).probe(probe).save()?;
    Ok(b)
}

/// Creates and starts with a console socket; the master and the pid.
fn started<'a>(b: &Bundle<'a>) -> Result<(crate::container::Container<'a>, File, i32)> {
    let socket = ConsoleSocket::new(&b.cx.path(&format!("console.{}", b.cx.next())))?;
    let c = b.container();
    c.create(&["--console-socket", &socket.path.display().to_string()])?.ok()?;
    let master = socket.receive()?.master;
    ensure!(socket.silent()?, "a second connection to the console socket");
    let pid = c.pid()?;
    c.start()?.ok()?;
    Ok((c, master, pid))
}

fn answer(text: &str) -> Result<Value> {
    let from = text.find("{\"").with_context(|| format!("no answer in {text:?}"))?;
    let mut all = serde_json::Deserializer::from_str(&text[from..]).into_iter();
    all.next().context("no answer")?.with_context(|| text.to_string())
}

fn is_terminal(v: &Value) -> Result<()> {
    for fd in 0..3 {
        same(&format!("fd {fd} is a terminal"), &v["stdio"][fd]["isatty"], json!(true))?;
        let target = v["stdio"][fd]["target"].as_str().unwrap_or_default();
        ensure!(target.starts_with("/dev/pts/") || target == "/dev/console", "fd {fd} is {target}");
    }
    same("/dev/tty", &v["dev_tty"], json!("ok"))?;
    same("leader of its session", &v["sid"], v["pid"].clone())
}

fn create_with_console_socket(cx: &Cx) -> Result<()> {
    let b = with_terminal(cx, &["tty"])?;
    let (c, master, pid) = started(&b)?;
    let v = answer(&read_all(&master)?)?;
    eq("exit", reap(pid)?, 0)?;
    c.delete()?.ok()?;
    is_terminal(&v)
}

fn console_size(cx: &Cx) -> Result<()> {
    let mut b = with_terminal(cx, &["tty"])?;
    b.set("/process/consoleSize", json!({"height": 33, "width": 120})).save()?;
    let (c, master, pid) = started(&b)?;
    let v = answer(&read_all(&master)?)?;
    reap(pid)?;
    c.delete()?.ok()?;
    same("columns and rows", &v["stdio"][0]["size"], json!([120, 33]))
}

fn console_node(cx: &Cx) -> Result<()> {
    let b = with_terminal(cx, &["tty"])?;
    let (c, master, pid) = started(&b)?;
    let v = answer(&read_all(&master)?)?;
    reap(pid)?;
    c.delete()?.ok()?;
    same("type", &v["console"]["type"], json!("c"))?;
    let rdev = v["console"]["rdev"].as_str().unwrap_or_default();
    ensure!(rdev.starts_with("136:"), "/dev/console is {rdev}");
    Ok(())
}

/// What an image has at /dev/console must not be followed (CVE-2025-52565).
fn console_over_image_files(cx: &Cx) -> Result<()> {
    let mut b = with_terminal(cx, &["tty"])?;
    let canary = cx.path("canary");
    std::fs::write(&canary, "untouched")?;
    b.without_mount("/dev/shm").without_mount("/dev/mqueue").without_mount("/dev").save()?;
    std::os::unix::fs::symlink(&canary, b.rootfs().join("dev/console"))?;
    std::os::unix::fs::symlink("../etc/plain", b.rootfs().join("dev/ptmx"))?;
    let socket = ConsoleSocket::new(&cx.path("console"))?;
    let c = b.container();
    let out = c.create(&["--console-socket", &socket.path.display().to_string()])?;
    if out.code == 0 {
        c.delete_force()?;
    }
    eq("the file outside", std::fs::read_to_string(&canary)?, "untouched")?;
    eq("the file inside", std::fs::read_to_string(b.rootfs().join("etc/plain"))?, "plain\n")
}

fn owner_of_the_terminal(cx: &Cx) -> Result<()> {
    let mut b = with_terminal(cx, &["seq", "stat", "/dev/pts/0", "---", "tty"])?;
    b.set("/process/user", json!({"uid": 1000, "gid": 1000})).save()?;
    let (c, master, pid) = started(&b)?;
    let text = read_all(&master)?;
    reap(pid)?;
    c.delete()?.ok()?;
    let v = answer(&text)?;
    same("owner", &v["uid"], json!(1000))?;
    let v = answer(text.split_once('\n').map_or("", |(_, rest)| rest))?;
    is_terminal(&v)
}

fn input_and_signals(cx: &Cx) -> Result<()> {
    let b = with_terminal(cx, &["signals"])?;
    let (c, master, pid) = started(&b)?;
    read_until(&master, |t| t.contains("ready"))?;
    (&master).write_all(b"\x03")?;
    read_until(&master, |t| t.contains("got SIGINT"))?;
    c.kill("TERM")?.ok()?;
    eq("exit", reap(pid)?, 42)?;
    c.delete()?.ok()?;
    Ok(())
}

fn resize_of_the_master(cx: &Cx) -> Result<()> {
    let b = with_terminal(cx, &["signals"])?;
    let (c, master, pid) = started(&b)?;
    read_until(&master, |t| t.contains("ready"))?;
    sys::set_window_size(&master, 77, 11)?;
    read_until(&master, |t| t.contains("size Some((77, 11))"))?;
    c.kill("KILL")?.ok()?;
    reap(pid)?;
    c.delete()?.ok()?;
    Ok(())
}

/// The lookup of the program comes after the terminal was handed over, else conmon reports the terminal.
fn create_failure_after_handover(cx: &Cx) -> Result<()> {
    let mut b = with_terminal(cx, &["tty"])?;
    b.set("/process/args", json!(["/bin/absent"])).save()?;
    let before = cx.snapshot()?;
    let socket = ConsoleSocket::new(&cx.path("console"))?;
    let out = b.container().create(&["--console-socket", &socket.path.display().to_string()])?;
    out.fails_any(&["no such file or directory", "not found"])?;
    ensure!(!socket.silent()?, "nobody connected to the console socket");
    cx.nothing_left(&before)
}

/// Runs the runtime on a terminal of ours; master, child.
pub fn on_terminal(cx: &Cx, args: &[&str]) -> Result<(File, nix::pty::OpenptyResult, std::process::Child)> {
    let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).context("openpty")?;
    let mut cmd = cx.cmd(args).stdin(pty.slave.try_clone()?);
    sys::own_terminal(cmd.command());
    cmd.command().stdout(pty.slave.try_clone()?).stderr(pty.slave.try_clone()?);
    let child = cmd.spawn()?;
    Ok((File::from(pty.master.try_clone()?), pty, child))
}

fn foreground(cx: &Cx) -> Result<()> {
    // The size may come a moment after the program started.
    let b = with_terminal(cx, &["seq", "sleep", "200", "---", "tty", "---", "exit", "7"])?;
    let (master, pty, child) = on_terminal(cx, &["run", "--bundle", &b.path(), &cx.id()])?;
    let text = read_until(&master, |t| t.contains("\"termios\":") && t.contains('\n'))?;
    eq("exit code", finish(child)?, 7)?;
    drop(pty);
    let v = answer(&text)?;
    is_terminal(&v)?;
    same("columns and rows of the caller", &v["stdio"][0]["size"], json!([100, 30]))
}

/// The caller's terminal alone turns a line end into two characters, from the very first line on.
fn foreground_line_ends(cx: &Cx) -> Result<()> {
    let b = with_terminal(cx, &["seq", "say", "first", "---", "say", "second"])?;
    for _ in 0..5 {
        let out = cx.path(&format!("out.{}", cx.next()));
        let mut cmd = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]);
        let pty = openpty(None, None)?;
        cmd = cmd.stdin(pty.slave.try_clone()?);
        sys::own_terminal(cmd.command());
        cmd.command().stdout(File::create(&out)?).stderr(File::create(cx.path("unused"))?);
        eq("exit code", finish(cmd.spawn()?)?, 0)?;
        eq("output", std::fs::read_to_string(&out)?, "first\nsecond\n".to_string())?;
    }
    Ok(())
}

fn foreground_resize(cx: &Cx) -> Result<()> {
    let b = with_terminal(cx, &["signals"])?;
    let c = b.container();
    let (master, pty, child) = on_terminal(cx, &["run", "--bundle", &b.path(), &c.id])?;
    read_until(&master, |t| t.contains("ready"))?;
    sys::set_window_size(&pty.master, 55, 22)?;
    read_until(&master, |t| t.contains("size Some((55, 22))"))?;
    c.kill("TERM")?.ok()?;
    eq("exit code", finish(child)?, 42)
}

fn foreground_restores_settings(cx: &Cx) -> Result<()> {
    let b = with_terminal(cx, &["say", "hello"])?;
    let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None)?;
    let before = tcgetattr(&pty.slave)?;
    ensure!(before.local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON), "an unusual new terminal");
    let mut cmd = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).stdin(pty.slave.try_clone()?);
    sys::own_terminal(cmd.command());
    cmd.command().stdout(pty.slave.try_clone()?).stderr(pty.slave.try_clone()?);
    let child = cmd.spawn()?;
    let master = File::from(pty.master.try_clone()?);
    read_until(&master, |t| t.contains("hello"))?;
    eq("exit code", finish(child)?, 0)?;
    let after = tcgetattr(&pty.slave)?;
    eq("input flags", after.input_flags, before.input_flags)?;
    eq("output flags", after.output_flags, before.output_flags)?;
    eq("local flags", after.local_flags, before.local_flags)
}

/// The caller's terminal is raw meanwhile: the key's byte goes to the container's terminal, which makes the signal.
fn foreground_interrupt_key(cx: &Cx) -> Result<()> {
    let b = with_terminal(cx, &["signals"])?;
    let c = b.container();
    let (master, _pty, child) = on_terminal(cx, &["run", "--bundle", &b.path(), &c.id])?;
    read_until(&master, |t| t.contains("ready"))?;
    (&master).write_all(b"\x03")?;
    read_until(&master, |t| t.contains("got SIGINT"))?;
    c.kill("TERM")?.ok()?;
    eq("exit code", finish(child)?, 42)
}

fn exec_with_console_socket(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    for n in 0..2 {
        let socket = ConsoleSocket::new(&cx.path(&format!("exec-console.{n}")))?;
        let file = cx.path("pid").display().to_string();
        let path = socket.path.display().to_string();
        c.exec(&["--tty", "--detach", "--console-socket", &path, "--pid-file", &file], &["tty"])?.ok()?;
        let master = socket.receive()?.master;
        let v = answer(&read_all(&master)?)?;
        eq("exit", reap(std::fs::read_to_string(&file)?.parse()?)?, 0)?;
        is_terminal(&v)?;
    }
    c.end()
}

fn exec_process_file_with_console_size(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let socket = ConsoleSocket::new(&cx.path("console"))?;
    let (file, pid) = (cx.path("process.json"), cx.path("pid"));
    let process = json!({"terminal": true, "consoleSize": {"height": 12, "width": 34}, "args": ["/bin/probe", "tty"],
        "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": []});
    std::fs::write(&file, process.to_string())?;
    let (file, pid) = (file.display().to_string(), pid.display().to_string());
    let path = socket.path.display().to_string();
    cx.rt(&["exec", "--process", &file, "--console-socket", &path, "--detach", "--pid-file", &pid, &c.id])?
        .ok()?;
    let v = answer(&read_all(&socket.receive()?.master)?)?;
    reap(std::fs::read_to_string(&pid)?.parse()?)?;
    c.end()?;
    is_terminal(&v)?;
    same("columns and rows", &v["stdio"][0]["size"], json!([34, 12]))
}

fn exec_foreground(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let program = ["/bin/probe", "seq", "sleep", "200", "---", "tty", "---", "exit", "9"];
    let (master, pty, child) = on_terminal(cx, &[&["exec", "-t", c.id.as_str()][..], &program].concat())?;
    let text = read_until(&master, |t| t.contains("\"termios\":") && t.contains('\n'))?;
    eq("exit code", finish(child)?, 9)?;
    drop(pty);
    c.end()?;
    let v = answer(&text)?;
    is_terminal(&v)?;
    same("columns and rows of the caller", &v["stdio"][0]["size"], json!([100, 30]))
}

/// The runtime carries the data in the container's mounts: there `/proc/self/fd/1` may be a link to any file.
fn exec_foreground_opens_nothing_inside(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.without_mount("/proc").remove("/linux/maskedPaths").remove("/linux/readonlyPaths").probe(&["sleep"]);
    let fds = b.rootfs().join("proc/self/fd");
    std::fs::create_dir_all(&fds)?;
    std::fs::write(b.rootfs().join("trap"), "")?;
    std::os::unix::fs::symlink("/trap", fds.join("1"))?;
    let c = b.start()?;
    let (master, pty, child) = on_terminal(cx, &["exec", "-t", &c.id, "/bin/probe", "say", "to the caller"])?;
    let text = read_until(&master, |t| t.contains("to the caller"))?;
    finish(child)?;
    drop(pty);
    c.end()?;
    let trapped = std::fs::read_to_string(b.rootfs().join("trap"))?;
    ensure!(trapped.is_empty(), "the container got {trapped:?}");
    ensure!(text.contains("to the caller"), "the caller got {text:?}");
    Ok(())
}

/// Reads from a terminal until a runtime on it has ended, which it must in time; what came first, and its exit code. The
/// runtime waits for this reader, so that who floods its other side has filled that again by its next look.
fn drained(
    master: &File,
    mut child: Child,
    mut round: impl FnMut(&Child) -> Result<()>,
) -> Result<(String, i32)> {
    let end = Instant::now() + Duration::from_secs(4);
    let mut text = String::new();
    let mut master = master;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((text, exit_code(status)));
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            bail!("hang: the runtime did not end: {:?}", text.lines().next());
        }
        if sys::readable(&master, Duration::from_millis(5))? {
            std::thread::sleep(Duration::from_millis(1));
            let mut buffer = [0; 4096];
            let length = master.read(&mut buffer)?;
            if text.len() < 4096 {
                text.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        }
        round(&child)?;
    }
}

/// What the program has left behind may print for ever: the caller gets its exit code and its terminal back.
fn exec_foreground_ends_before_its_background(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let program =
        ["seq", "say", "own words", "---", "background", "flood", "---", "sleep", "50", "---", "exit", "9"];
    let args = [&["exec", "-t", c.id.as_str(), "/bin/probe"][..], &program].concat();
    let (master, pty, child) = on_terminal(cx, &args)?;
    let (text, code) = drained(&master, child, |_| Ok(()))?;
    eq("exit code", code, 9)?;
    ensure!(text.contains("own words"), "{text:?}");
    ensure!(
        tcgetattr(&pty.slave)?.local_flags.contains(LocalFlags::ECHO),
        "the caller's terminal is still raw"
    );
    c.end()
}

fn exec_foreground_signal_while_others_write(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let program = ["/bin/probe", "seq", "background", "flood", "---", "sleep", "50", "---", "signals"];
    let (master, _pty, child) = on_terminal(cx, &[&["exec", "-t", c.id.as_str()][..], &program].concat())?;
    let start = Instant::now();
    let mut sent = false;
    let (_, code) = drained(&master, child, |child| {
        if !sent && start.elapsed() > Duration::from_millis(500) {
            sent = true;
            kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
        }
        Ok(())
    })?;
    eq("exit code", code, 42)?;
    c.end()
}

fn exec_without_terminal_in_a_container_with_one(cx: &Cx) -> Result<()> {
    let b = with_terminal(cx, &["sleep"])?;
    let (c, _master, _) = started(&b)?;
    let v = c.exec(&[], &["tty"])?.ok()?.json()?;
    same("fd 0 is a terminal", &v["stdio"][0]["isatty"], json!(false))?;
    same("fd 1 is a terminal", &v["stdio"][1]["isatty"], json!(false))?;
    c.end()
}

/// Without -p, `process.terminal` of the config says nothing about exec.
fn exec_flag_decides(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let before = cx.snapshot()?;
    let out = c.exec(&["--tty", "--detach"], &["tty"])?;
    ensure!(out.code != 0, "a terminal without a console socket and detached");
    cx.nothing_left(&before)?;
    c.end()
}

/// Longer than a socket address: connecting goes through a descriptor of the directory.
fn long_socket_path(cx: &Cx) -> Result<()> {
    let dir = cx.path(&"d".repeat(120));
    std::fs::create_dir(&dir)?;
    std::env::set_current_dir(&dir)?;
    let listener = ConsoleSocket::new(std::path::Path::new("socket"))?;
    std::env::set_current_dir(&cx.dir)?;
    let b = with_terminal(cx, &["tty"])?;
    let c = b.container();
    c.create(&["--console-socket", &dir.join("socket").display().to_string()])?.ok()?;
    listener.receive()?;
    c.delete_force()?;
    Ok(())
}

fn no_terminal_leaves_no_console(cx: &Cx) -> Result<()> {
    let v = cx.bundle()?.inside()?;
    ensure!(v["dev"].get("console").is_none(), "/dev/console: {}", v["dev"]["console"]);
    Ok(())
}
