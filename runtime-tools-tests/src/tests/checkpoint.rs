//! Checkpoint and restore through CRIU: what ran goes on where it was, in a container that is whole in every respect.
//! Where no CRIU works, only what needs none is tested.

use super::namespaces::Holder;
use super::tests;
use crate::bundle::Bundle;
use crate::container::{Container, finish, reap};
use crate::cx::{Cx, Out, eq, same, skip, wait_for};
use crate::terminal::{ConsoleSocket, read_until};
use anyhow::{Context, Result, ensure};

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

tests!["checkpoint":
    the_count_goes_on,
    several_times,
    saved_container_is_gone,
    leave_running,
    of_a_paused_container,
    of_what_does_not_run,
    without_criu,
    stdio_pipes,
    inner_pipes_stay_inside,
    terminal,
    binds,
    mount_points_are_made_again,
    masks_and_read_only_paths,
    network_of_somebody_else,
    pre_dump,
    lazy_pages,
    bad_parent_path,
    bad_flags,
    configuration_file,
    failed_dump_leaves_it_running,
    failed_restore_leaves_nothing,
    hooks_of_restore,
    failing_hook_of_restore,
    new_cgroup,
    no_cgroup_namespace,
    file_locks,
    foreground_restore,
    seccomp_and_exec,
    session_keyring deviates ["runc" = "hands on that of its caller"],
    hostile_descriptors deviates ["runc" = "believes them"],
    killed_restore_can_be_deleted deviates ["runc" = "leaves the mount"],
];

/// Else CRIU walks all cgroups of those hierarchies in whose root the container is, those of other tests included.
pub const IGNORE: &str = "--manage-cgroups-mode=ignore";

/// A container that counts in /tmp/count, with stdio on /dev/null: CRIU cannot save files of the host.
pub struct Counting<'a> {
    pub c: Container<'a>,
    pub file: PathBuf,
    pub images: String,
    pub work: String,
}

pub fn need_criu() -> Result<()> {
    let criu = Command::new("criu").arg("check").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match criu {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => skip("criu check says that this kernel cannot do it"),
        Err(_) => skip("no criu in PATH"),
    }
}

/// A command whose standard streams are /dev/null; its log comes back as the error.
fn quiet(cx: &Cx, args: &[&str]) -> Result<()> {
    let log = cx.path(&format!("quiet.{}", cx.next()));
    let (root, log_name) = (cx.root.display().to_string(), log.display().to_string());
    let mut all = vec!["--root", &root, "--log", &log_name];
    all.extend(args);
    let mut cmd = cx.bare(&all);
    cmd.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let code = finish(cmd.spawn()?)?;
    ensure!(code == 0, "exit {code}: {}: {}", args.join(" "), fs::read_to_string(&log).unwrap_or_default());
    Ok(())
}

pub fn start<'a>(b: &mut Bundle<'a>) -> Result<Counting<'a>> {
    b.probe(&["count", "/tmp/count"]);
    started(b)
}

/// The same with a program of the bundle's own, which comes to count in the end.
pub fn started<'a>(b: &mut Bundle<'a>) -> Result<Counting<'a>> {
    need_criu()?;
    let cx = b.cx;
    b.save()?;
    let c = b.container();
    quiet(cx, &["run", "--detach", "--bundle", &b.path(), &c.id])?;
    Counting::of(c, b)
}

impl<'a> Counting<'a> {
    /// A container that runs already.
    pub fn of(c: Container<'a>, b: &Bundle<'a>) -> Result<Counting<'a>> {
        let cx = b.cx;
        let dir = cx.path(&format!("saved.{}", cx.next()));
        let counting = Counting {
            c,
            file: b.rootfs().join("tmp/count"),
            images: dir.join("images").display().to_string(),
            work: dir.join("work").display().to_string(),
        };
        fs::create_dir(&dir)?;
        counting.passes(0)?;
        Ok(counting)
    }
}

impl Counting<'_> {
    pub fn count(&self) -> Result<u64> {
        wait_for("a count", || Ok(fs::read_to_string(&self.file)?.trim().parse().ok()))
    }

    /// Waits for a higher count.
    pub fn passes(&self, from: u64) -> Result<()> {
        wait_for(&format!("a count above {from}"), || {
            let text = fs::read_to_string(&self.file).unwrap_or_default();
            Ok(text.trim().parse::<u64>().is_ok_and(|count| count > from).then_some(()))
        })
    }

    pub fn try_save(&self, flags: &[&str]) -> Result<Out> {
        let mut args = vec!["checkpoint", IGNORE, "--image-path", &self.images, "--work-path", &self.work];
        args.extend(flags);
        args.push(&self.c.id);
        self.c.cx.rt(&args)
    }

    /// Saves it; the count it has then.
    pub fn save(&self, flags: &[&str]) -> Result<u64> {
        let pid = self.c.pid()?;
        let out = self.try_save(flags)?.ok()?;
        eq("output", out.stdout.as_str(), "")?;
        if !flags.contains(&"--leave-running") {
            reap(pid)?;
        }
        self.count()
    }

    pub fn try_restore(&self, flags: &[&str]) -> Result<Out> {
        let bundle = self.c.bundle.display().to_string();
        let mut args = vec!["restore", IGNORE, "--detach", "--bundle", &bundle];
        args.extend(["--image-path", &self.images, "--work-path", &self.work]);
        args.extend(flags);
        args.push(&self.c.id);
        self.c.cx.rt(&args)
    }

    /// Restores it, and sees that it goes on from `count`.
    pub fn restore(&self, count: u64, flags: &[&str]) -> Result<()> {
        eq("a count between", self.count()?, count)?;
        let out = self.try_restore(flags)?.ok()?;
        eq("output", out.stdout.as_str(), "")?;
        self.c.is("running")?;
        self.passes(count)?;
        let now = self.count()?;
        ensure!(now < count + 1000, "the count was {count} and is {now}");
        Ok(())
    }
}

fn the_count_goes_on(cx: &Cx) -> Result<()> {
    let s = start(&mut cx.bundle()?)?;
    let before = s.c.state()?;
    let count = s.save(&[])?;
    let pid_file = cx.path("pid");
    s.restore(count, &["--pid-file", &pid_file.display().to_string()])?;
    let after = s.c.state()?;
    eq("pid file", fs::read_to_string(pid_file)?, after["pid"].to_string())?;
    for key in ["id", "bundle", "rootfs", "annotations", "ociVersion"] {
        same(key, &after[key], before[key].clone())?;
    }
    let inside = s.c.exec_inside(&[])?;
    ensure!(inside["pid"] != 1, "exec is process 1");
    let own = |name: &str| Ok::<_, anyhow::Error>(fs::read_link(format!("/proc/{}/ns/{name}", s.c.pid()?))?);
    for name in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        same(name, &inside["ns"][name], json!(own(name)?))?;
    }
    s.c.end()
}

fn several_times(cx: &Cx) -> Result<()> {
    let s = start(&mut cx.bundle()?)?;
    for _ in 0..3 {
        let count = s.save(&[])?;
        s.restore(count, &[])?;
    }
    s.c.end()
}

fn saved_container_is_gone(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let mut b = cx.bundle()?;
    let stopped = b.hook("poststop", &[]);
    let s = start(&mut b)?;
    s.save(&[])?;
    cx.rt(&["state", &s.c.id])?.fails(&["container does not exist"])?;
    let text = fs::read_to_string(&stopped).context("the poststop hook did not run")?;
    let state: Value =
        serde_json::from_str(serde_json::from_str::<Value>(&text)?["stdin"].as_str().unwrap_or(""))?;
    same("its state", &state["status"], json!("stopped"))?;
    ensure!(PathBuf::from(&s.images).join("inventory.img").exists(), "no images");
    ensure!(PathBuf::from(&s.work).join("dump.log").exists(), "no log in the work directory");
    cx.nothing_left(&before)
}

fn leave_running(cx: &Cx) -> Result<()> {
    let s = start(&mut cx.bundle()?)?;
    let pid = s.c.pid()?;
    let count = s.save(&["--leave-running", "--leave-running"])?;
    eq("pid", s.c.pid()?, pid)?;
    s.passes(count)?;
    s.c.is("running")?;
    s.c.end()
}

fn of_a_paused_container(cx: &Cx) -> Result<()> {
    if !cx.unified() {
        cx.need_controller("freezer")?;
    }
    let s = start(&mut cx.bundle()?)?;
    cx.rt(&["pause", &s.c.id])?.ok()?;
    let count = s.save(&[])?;
    s.restore(count, &[])?;
    s.c.end()
}

fn of_what_does_not_run(cx: &Cx) -> Result<()> {
    need_criu()?;
    let b = cx.bundle()?;
    let c = b.create()?;
    let images = cx.path("images").display().to_string();
    let save = || cx.rt(&["checkpoint", IGNORE, "--image-path", &images, &c.id]);
    save()?.fails(&["cannot be checkpointed in created state"])?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    save()?.fails(&["cannot be checkpointed in stopped state"])?;
    c.delete()?.ok()?;
    save()?.fails(&["container does not exist"]).map(drop)
}

fn without_criu(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let before = cx.snapshot()?;
    let images = cx.path("images");
    fs::create_dir(&images)?;
    fs::write(images.join("descriptors.json"), r#"["","",""]"#)?;
    let images = images.display().to_string();
    let none = |args: &[&str]| cx.cmd(args).env("PATH", "/nowhere").run();
    none(&["checkpoint", IGNORE, "--image-path", &images, &c.id])?
        .fails(&["\"criu\": executable file not found in $PATH"])?;
    c.is("running")?;
    let (other, mut b) = (cx.id(), cx.bundle()?);
    b.probe(&["sleep"]).save()?;
    none(&["restore", "--detach", "--bundle", &b.path(), "--image-path", &images, &other])?
        .fails(&["\"criu\": executable file not found in $PATH"])?;
    cx.rt(&["state", &other])?.fails(&["container does not exist"])?;
    cx.nothing_left(&before)?;
    c.end()
}

/// What was a pipe of the caller's before is one of the restoring caller's after.
fn stdio_pipes(cx: &Cx) -> Result<()> {
    need_criu()?;
    let mut b = cx.bundle()?;
    b.probe(&["stdin"]).save()?;
    let c = b.container();
    let with_pipes = |args: &[&str]| {
        let mut cmd = cx.cmd(args);
        let (input, to) = nix::unistd::pipe()?;
        let (from, output) = nix::unistd::pipe()?;
        let (errors, error) = nix::unistd::pipe()?;
        cmd.command().stdin(input).stdout(output).stderr(error);
        let code = finish(cmd.spawn()?)?;
        let mut said = String::new();
        if code != 0 {
            File::from(errors).read_to_string(&mut said)?;
            anyhow::bail!("exit {code}: {}: {said}", args.join(" "));
        }
        Ok::<_, anyhow::Error>((File::from(to), File::from(from), File::from(errors)))
    };
    let (mut to, mut from, errors) = with_pipes(&["run", "--detach", "--bundle", &b.path(), &c.id])?;
    let exchange = |to: &mut File, from: &mut File, text: &str| {
        to.write_all(text.as_bytes())?;
        let mut back = vec![0; text.len()];
        ensure!(crate::sys::readable(&*from, crate::cx::COMMAND_LIMIT)?, "no answer");
        from.read_exact(&mut back)?;
        eq("answer", String::from_utf8_lossy(&back).into_owned().as_str(), text)
    };
    exchange(&mut to, &mut from, "before")?;
    let images = cx.path("images").display().to_string();
    let pid = c.pid()?;
    cx.rt(&["checkpoint", IGNORE, "--image-path", &images, &c.id])?.ok()?;
    reap(pid)?;
    drop((to, from, errors));
    let (mut to, mut from, errors) =
        with_pipes(&["restore", IGNORE, "--detach", "--bundle", &b.path(), "--image-path", &images, &c.id])?;
    exchange(&mut to, &mut from, "after")?;
    let pid = c.pid()?;
    drop(to);
    eq("exit code", reap(pid)?, 0)?;
    let mut rest = String::new();
    from.read_to_string(&mut rest)?;
    eq("rest of the output", rest.as_str(), "")?;
    let mut errors = errors;
    errors.read_to_string(&mut rest)?;
    eq("errors", rest.as_str(), "")?;
    c.delete()?.ok().map(drop)
}

/// A pipe between two processes of the container that is a standard stream of the first one is not the caller's.
fn inner_pipes_stay_inside(cx: &Cx) -> Result<()> {
    need_criu()?;
    let mut b = cx.bundle()?;
    b.probe(&["piped", "/tmp/count"]).save()?;
    let c = b.container();
    quiet(cx, &["run", "--detach", "--bundle", &b.path(), &c.id])?;
    let dir = cx.path("saved");
    fs::create_dir(&dir)?;
    let s = Counting {
        c,
        file: b.rootfs().join("tmp/count"),
        images: dir.join("images").display().to_string(),
        work: dir.join("work").display().to_string(),
    };
    s.passes(0)?;
    let count = s.save(&[])?;
    let names: Vec<String> =
        serde_json::from_str(&fs::read_to_string(PathBuf::from(&s.images).join("descriptors.json"))?)?;
    ensure!(names.len() == 3 && names.iter().all(|name| !name.starts_with("pipe:")), "descriptors {names:?}");
    s.restore(count, &[])?;
    s.c.end()
}

fn terminal(cx: &Cx) -> Result<()> {
    need_criu()?;
    let mut b = cx.bundle()?;
    b.set("/process/terminal", json!(true)).probe(&["stdin"]).save()?;
    let c = b.container();
    let open = |args: &[&str]| {
        let socket = ConsoleSocket::new(&cx.path(&format!("console.{}", cx.next())))?;
        let path = socket.path.display().to_string();
        let bundle = b.path();
        let mut all = args.to_vec();
        all.extend(["--bundle", &bundle, "--console-socket", &path, &c.id]);
        cx.rt(&all)?.ok()?;
        Ok::<_, anyhow::Error>(socket.receive()?.master)
    };
    let says = |mut master: &File, word: &str| {
        master.write_all(format!("{word}\n").as_bytes())?;
        // Once for the echo, once from the program.
        read_until(master, |text| text.matches(word).count() == 2).map(drop)
    };
    let master = open(&["run", "--detach"])?;
    says(&master, "before")?;
    let images = cx.path("images").display().to_string();
    let pid = c.pid()?;
    cx.rt(&["checkpoint", IGNORE, "--image-path", &images, &c.id])?.ok()?;
    reap(pid)?;
    let master = open(&["restore", IGNORE, "--detach", "--image-path", &images])?;
    says(&master, "after")?;
    let inside = c.exec(&[], &["fd", "0"])?.ok()?;
    ensure!(inside.code == 0, "exec: {inside:?}");
    c.end()
}

fn binds(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let dir = cx.path("dir");
    fs::create_dir(&dir)?;
    fs::write(dir.join("in-it"), "in the directory\n")?;
    let file = cx.path("file");
    fs::write(&file, "the file\n")?;
    fs::create_dir_all(b.rootfs().join("real/conf"))?;
    symlink("/real/conf", b.rootfs().join("conf"))?;
    b.mount("/mnt/dir", "bind", &dir, &["rbind", "rw"])
        .mount("/mnt/file", "bind", &file, &["bind", "ro"])
        .mount("/conf", "bind", &dir, &["bind"])
        .mount("/run", "tmpfs", "tmpfs", &["mode=755"])
        .mount("/run/secrets/one", "bind", &file, &["bind"]);
    let s = start(&mut b)?;
    let look = || {
        for (path, wanted) in [
            ("/mnt/dir/in-it", "in the directory\n"),
            ("/mnt/file", "the file\n"),
            ("/real/conf/in-it", "in the directory\n"),
            ("/run/secrets/one", "the file\n"),
        ] {
            let said = s.c.exec(&[], &["cat", path])?.ok()?.stdout;
            ensure!(said.contains(wanted.trim()), "{path}: {said}");
        }
        let said = s.c.exec(&[], &["write", "/mnt/file", "x"])?.stdout;
        ensure!(said.contains("EROFS"), "the read-only file: {said}");
        Ok(())
    };
    look()?;
    let count = s.save(&[])?;
    s.restore(count, &[])?;
    look()?;
    s.c.end()
}

/// A mount point in a bind source that was removed meanwhile.
fn mount_points_are_made_again(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let (outer, inner) = (cx.path("outer"), cx.path("inner"));
    fs::create_dir(&outer)?;
    fs::create_dir(&inner)?;
    fs::write(inner.join("here"), "here\n")?;
    b.mount("/test", "bind", &outer, &["bind", "rw"]).mount(
        "/test/for/nested",
        "bind",
        &inner,
        &["bind", "rw"],
    );
    let s = start(&mut b)?;
    let before = crate::leaks::snapshot(&cx.cgroup, "none", &cx.path("none"), cx.systemd)?;
    let count = s.save(&[])?;
    fs::remove_dir_all(outer.join("for"))?;
    fs::remove_dir(b.rootfs().join("test"))?;
    s.restore(count, &[])?;
    let said = s.c.exec(&[], &["cat", "/test/for/nested/here"])?.ok()?.stdout;
    ensure!(said.contains("here"), "{said}");
    let after = crate::leaks::snapshot(&cx.cgroup, "none", &cx.path("none"), cx.systemd)?;
    let mounts: Vec<String> =
        crate::leaks::difference(&before, &after).into_iter().filter(|d| d.starts_with("mount")).collect();
    eq("mounts on the host", mounts, Vec::<String>::new())?;
    s.c.end()
}

fn masks_and_read_only_paths(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::write(b.rootfs().join("etc/hidden"), "hidden\n")?;
    fs::create_dir(b.rootfs().join("etc/dir"))?;
    fs::write(b.rootfs().join("etc/dir/hidden"), "hidden\n")?;
    b.push("/linux/maskedPaths", json!("/etc/hidden"))
        .push("/linux/maskedPaths", json!("/etc/dir"))
        .push("/linux/readonlyPaths", json!("/home"));
    let s = start(&mut b)?;
    let look = || {
        let said = s.c.exec(&[], &["cat", "/etc/hidden"])?.stdout;
        eq("a masked file", said.trim(), "ok \"\"")?;
        eq("a masked directory", s.c.exec(&[], &["ls", "/etc/dir"])?.stdout.trim(), "[]")?;
        let said = s.c.exec(&[], &["create", "/home/x", "x"])?.stdout;
        ensure!(said.contains("EROFS"), "a read-only path: {said}");
        let said = s.c.exec(&[], &["cat", "/proc/keys"])?.stdout;
        eq("/proc/keys", said.trim(), "ok \"\"")
    };
    look()?;
    let count = s.save(&[])?;
    s.restore(count, &[])?;
    look()?;
    s.c.end()
}

fn network_of_somebody_else(cx: &Cx) -> Result<()> {
    let holder = Holder::new(cx, &["--net"])?;
    let mut b = cx.bundle()?;
    b.without_namespace("network")
        .push("/linux/namespaces", json!({"type": "network", "path": holder.path("net")}));
    let s = start(&mut b)?;
    let network = || Ok::<_, anyhow::Error>(fs::read_link(format!("/proc/{}/ns/net", s.c.pid()?))?);
    let wanted = fs::read_link(holder.path("net"))?;
    eq("network", network()?, wanted.clone())?;
    let count = s.save(&[])?;
    s.restore(count, &[])?;
    eq("network after", network()?, wanted)?;
    s.c.end()
}

fn pre_dump(cx: &Cx) -> Result<()> {
    let s = start(&mut cx.bundle()?)?;
    let parent = cx.path("parent").display().to_string();
    let out = cx.rt(&["checkpoint", IGNORE, "--pre-dump", "--image-path", &parent, &s.c.id])?;
    if out.code != 0 && out.stderr.contains("MemTrack") {
        s.c.end()?;
        return skip("this kernel does not track changed memory");
    }
    out.ok()?;
    s.c.is("running")?;
    s.passes(s.count()?)?;
    let count = s.save(&["--parent-path", "../../parent"])?;
    ensure!(PathBuf::from(&s.images).join("parent").exists(), "no link to the parent");
    s.restore(count, &[])?;
    s.c.end()
}

/// The saved container serves its memory over TCP to one that is restored beside it.
fn lazy_pages(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let s = start(&mut b)?;
    let mut check = Command::new("criu");
    check.args(["check", "--feature", "uffd-noncoop"]).stderr(Stdio::null()).stdout(Stdio::null());
    if !check.status()?.success() {
        s.c.end()?;
        return skip("this kernel cannot serve memory lazily");
    }
    let pid = s.c.pid()?;
    let (mut ready, tell) = {
        let (read, write) = nix::unistd::pipe()?;
        (File::from(read), write)
    };
    let log = cx.path("log");
    let (root, log_name) = (cx.root.display().to_string(), log.display().to_string());
    let mut save = cx
        .bare(&[
            "--root",
            &root,
            "--log",
            &log_name,
            "checkpoint",
            "--lazy-pages",
            "--page-server",
            "127.0.0.1:27277",
            "--status-fd",
            "7",
            "--manage-cgroups-mode",
            "ignore",
            "--image-path",
            &s.images,
            "--work-path",
            &s.work,
            &s.c.id,
        ])
        .fds(vec![(tell, 7)])?;
    save.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let saving = save.spawn()?;
    ensure!(crate::sys::readable(&ready, crate::cx::COMMAND_LIMIT)?, "--status-fd stays silent");
    let mut told = [1u8; 2];
    eq("bytes on --status-fd", ready.read(&mut told)?, 1)?;
    eq("the byte", told[0], 0)?;
    let count = s.count()?;
    let mut server = Command::new("criu");
    server.args([
        "lazy-pages",
        "--page-server",
        "--address",
        "127.0.0.1",
        "--port",
        "27277",
        "-D",
        &s.images,
    ]);
    let server = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait_for("the lazy pages server", || {
        Ok(PathBuf::from(&s.images).join("lazy-pages.socket").exists().then_some(()))
    })?;
    let other = Container { cx, id: cx.id(), bundle: s.c.bundle.clone() };
    b.set("/linux/cgroupsPath", json!(format!("{}/{}", cx.cgroup, other.id))).save()?;
    let restored = cx.rt(&[
        "restore",
        "--detach",
        "--lazy-pages",
        "--manage-cgroups-mode",
        "ignore",
        "--bundle",
        &b.path(),
        "--image-path",
        &s.images,
        "--work-path",
        &s.images,
        &other.id,
    ])?;
    restored.ok()?;
    s.passes(count)?;
    let (code, said) = (finish(saving)?, fs::read_to_string(&log)?);
    let served = finish(server)?;
    if said.contains("page-pipe: splice: -1: Bad file descriptor") {
        // The first one runs on then, and the second has lost its memory.
        s.c.end()?;
        other.delete_force()?;
        return skip("this CRIU fails to serve its own pages");
    }
    ensure!(code == 0, "exit {code} of checkpoint: {said}");
    eq("exit of the server", served, 0)?;
    reap(pid)?;
    cx.rt(&["state", &s.c.id])?.fails(&["container does not exist"])?;
    other.is("running")?;
    other.end()
}

fn bad_parent_path(cx: &Cx) -> Result<()> {
    let s = start(&mut cx.bundle()?)?;
    s.try_save(&["--parent-path", "/tmp"])?.fails(&["--parent-path must be relative"])?;
    s.try_save(&["--parent-path", "../missing"])?.fails(&["invalid --parent-path"])?;
    s.c.is("running")?;
    s.c.end()
}

fn bad_flags(cx: &Cx) -> Result<()> {
    let s = start(&mut cx.bundle()?)?;
    for (flags, said) in [
        (&["--manage-cgroups-mode", "hard"][..], "invalid manage-cgroups-mode value"),
        (&["--empty-ns", "pid"], "\"pid\" is not supported"),
        (&["--page-server", "nowhere"], "Use --page-server ADDRESS:PORT to specify page server"),
        (&["--page-server", "1.2.3.4:http"], "Invalid port number"),
        (
            &["--lazy-pages", "--page-server", "127.0.0.1:27333", "--status-fd", "77"],
            "invalid --status-fd argument 77",
        ),
        (&["--no-such-flag"], "flag provided but not defined: -no-such-flag"),
    ] {
        s.try_save(flags)?.fails(&[said])?;
    }
    cx.rt(&["restore", "--lsm-mount-context"])?.fails(&["flag needs an argument"])?;
    s.c.is("running")?;
    s.c.end()
}

fn configuration_file(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let file = cx.path("criu.conf");
    fs::write(&file, "log-file=other.log\n")?;
    b.set("/annotations", json!({"org.criu.config": file.display().to_string()}));
    let s = start(&mut b)?;
    let log = PathBuf::from(&s.work).join("other.log");
    let count = s.save(&[])?;
    ensure!(log.exists(), "the dump did not use the configuration file");
    fs::remove_file(&log)?;
    s.restore(count, &[])?;
    ensure!(log.exists(), "the restore did not use the configuration file");
    s.c.end()
}

/// A file of the host as standard output cannot be saved.
fn failed_dump_leaves_it_running(cx: &Cx) -> Result<()> {
    need_criu()?;
    let mut b = cx.bundle()?;
    b.probe(&["signals"]);
    let c = b.start()?;
    let images = cx.path("images").display().to_string();
    let out = cx.rt(&["checkpoint", IGNORE, "--image-path", &images, &c.id])?;
    out.fails(&["criu failed: type DUMP", "dump.log", "Error (", "Can't lookup mount"])?.one_line()?;
    c.is("running")?;
    let pid = c.pid()?;
    c.kill("TERM")?.ok()?;
    eq("exit code", reap(pid)?, 42)?;
    c.delete()?.ok().map(drop)
}

fn failed_restore_leaves_nothing(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let s = start(&mut cx.bundle()?)?;
    s.save(&[])?;
    for entry in fs::read_dir(&s.images)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("core-") {
            fs::remove_file(entry.path())?;
        }
    }
    let out = s.try_restore(&[])?;
    out.fails(&["criu failed: type RESTORE", "restore.log", "Error ("])?.one_line()?;
    cx.rt(&["state", &s.c.id])?.fails(&["container does not exist"])?;
    fs::remove_dir_all(&s.images)?;
    s.try_restore(&[])?.code(1)?;
    cx.nothing_left(&before)
}

fn hooks_of_restore(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let before: Vec<PathBuf> = ["prestart", "createRuntime"].iter().map(|kind| b.hook(kind, &[])).collect();
    let stopped = b.hook("poststop", &[]);
    let s = start(&mut b)?;
    let count = s.save(&[])?;
    for file in before.iter().chain([&stopped]) {
        fs::remove_file(file)?;
    }
    s.restore(count, &[])?;
    for file in &before {
        let told: Value = serde_json::from_str(&fs::read_to_string(file).context("a hook did not run")?)?;
        let state: Value = serde_json::from_str(told["stdin"].as_str().unwrap_or(""))?;
        same("id", &state["id"], json!(s.c.id))?;
        same("pid", &state["pid"], json!(s.c.pid()?))?;
    }
    s.c.end()?;
    ensure!(stopped.exists(), "the poststop hook did not run");
    Ok(())
}

fn failing_hook_of_restore(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let mut b = cx.bundle()?;
    let s = start(&mut b)?;
    s.save(&[])?;
    b.push("/hooks/createRuntime", json!({"path": "/bin/false", "args": ["false"]})).save()?;
    s.try_restore(&[])?.fails(&["createRuntime hook #0", "exit status 1"])?;
    cx.rt(&["state", &s.c.id])?.fails(&["container does not exist"])?;
    cx.nothing_left(&before)
}

fn new_cgroup(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let s = start(&mut b)?;
    let count = s.save(&[])?;
    let path = format!("{}/{}-other", cx.cgroup, s.c.id);
    b.set("/linux/cgroupsPath", json!(path)).save()?;
    s.restore(count, &[])?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", s.c.pid()?))?;
    let tree = if cx.unified() { "0::" } else { ":devices:" };
    let line = text.lines().find(|line| line.contains(tree)).context("no such tree")?;
    ensure!(line.ends_with(&path), "restored into {line}, wanted {path}");
    let procs = cx.rt(&["ps", "--format", "json", &s.c.id])?.ok()?.json()?;
    same("ps", &procs, json!([s.c.pid()?]))?;
    s.c.end()
}

fn no_cgroup_namespace(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.without_namespace("cgroup");
    let s = start(&mut b)?;
    let count = s.save(&[])?;
    s.restore(count, &[])?;
    let names = s.c.exec(&[], &["ls", "/sys/fs/cgroup"])?.ok()?.stdout;
    ensure!(
        names.contains(if cx.unified() { "cgroup.procs" } else { "devices" }),
        "/sys/fs/cgroup has {names}"
    );
    s.c.end()
}

fn file_locks(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let s = start(&mut b)?;
    let locking = cx.rt(&["exec", "--detach", &s.c.id, "/bin/probe", "lock", "/tmp/lock"]);
    // Its standard streams would be files of the host: started again without them.
    locking?.ok()?;
    s.c.kill("KILL")?.ok()?;
    reap(s.c.pid()?)?;
    s.c.delete()?.ok()?;
    b.probe(&["lock", "/tmp/lock"]).save()?;
    quiet(cx, &["run", "--detach", "--bundle", &b.path(), &s.c.id])?;
    let locked = || {
        let file = File::open(b.rootfs().join("tmp/lock"))?;
        let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock);
        Ok::<_, anyhow::Error>(lock.is_err())
    };
    wait_for("the lock", || Ok((b.rootfs().join("tmp/lock").exists() && locked()?).then_some(())))?;
    s.try_save(&[])?.code(1)?;
    let pid = s.c.pid()?;
    s.try_save(&["--file-locks"])?.ok()?;
    reap(pid)?;
    ensure!(!locked()?, "the lock outlives the container");
    s.try_restore(&["--file-locks"])?.ok()?;
    ensure!(locked()?, "the restored container has no lock");
    s.c.end()
}

fn foreground_restore(cx: &Cx) -> Result<()> {
    let s = start(&mut cx.bundle()?)?;
    let count = s.save(&[])?;
    let bundle = s.c.bundle.display().to_string();
    let mut cmd =
        cx.cmd(&["restore", "--bundle", &bundle, "--image-path", &s.images, "--work-path", &s.work, &s.c.id]);
    cmd.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = cmd.spawn()?;
    s.passes(count)?;
    s.c.kill("KILL")?.ok()?;
    eq("exit code", finish(child)?, 137)?;
    cx.rt(&["state", &s.c.id])?.fails(&["container does not exist"]).map(drop)
}

/// The filter of the program comes back with it, and exec has the same one.
fn seccomp_and_exec(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}]}),
    );
    let s = start(&mut b)?;
    let count = s.save(&[])?;
    s.restore(count, &[])?;
    let said = s.c.exec(&[], &["mkdir", "/tmp/x"])?.stdout;
    ensure!(said.contains("EADDRNOTAVAIL"), "{said}");
    let status = fs::read_to_string(format!("/proc/{}/status", s.c.pid()?))?;
    ensure!(status.contains("Seccomp:\t2"), "no filter: {status}");
    s.c.end()
}

/// The restored processes are not in the session keyring of the caller.
fn session_keyring(cx: &Cx) -> Result<()> {
    let s = start(&mut cx.bundle()?)?;
    let count = s.save(&[])?;
    s.restore(count, &[])?;
    // No exec before this look: it would make a keyring of that name.
    let keys = fs::read_to_string("/proc/keys").unwrap_or_default();
    let name = format!("_ses.{}", s.c.id);
    if !keys.contains("keyring") {
        s.c.end()?;
        return skip("this kernel shows no keys");
    }
    ensure!(keys.contains(&name), "no keyring {name} among:\n{keys}");
    s.c.end()
}

/// `descriptors.json` comes with the images: it cannot make CRIU take other descriptors than 0 to 2.
fn hostile_descriptors(cx: &Cx) -> Result<()> {
    let s = start(&mut cx.bundle()?)?;
    let count = s.save(&[])?;
    let file = PathBuf::from(&s.images).join("descriptors.json");
    fs::write(&file, r#"["x/pipe:[1]","","","pipe:[3]","pipe:[4]"]"#)?;
    s.restore(count, &[])?;
    let count = s.save(&[])?;
    let canary = cx.path("canary");
    fs::write(&canary, "[]")?;
    fs::remove_file(&file)?;
    symlink(&canary, &file)?;
    s.try_restore(&[])?.fails(&["descriptors.json"])?;
    fs::remove_file(&file)?;
    fs::write(&file, "[")?;
    s.try_restore(&[])?.fails(&["descriptors.json"])?;
    fs::write(&file, "[]")?;
    s.restore(count, &[])?;
    s.c.end()
}

/// The runtime is killed while CRIU works: `delete --force` finds all that it has made.
fn killed_restore_can_be_deleted(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let mut b = cx.bundle()?;
    let s = start(&mut b)?;
    s.save(&[])?;
    // A hook holds the restore up until we look.

    let probe = cx.probe.display().to_string();
    let here = cx.path("never").display().to_string();
    b.push("/hooks/createRuntime", json!({"path": probe, "args": ["probe", "wait", here]})).save()?;
    let bundle = s.c.bundle.display().to_string();
    let mut cmd = cx.cmd(&["restore", "--detach", "--bundle", &bundle, "--image-path", &s.images, &s.c.id]);
    cmd.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = cmd.spawn()?;
    let hook = format!("wait\0{}\0", cx.path("never").display());
    wait_for("the hook", || {
        let running = fs::read_dir("/proc")?.flatten().any(|entry| {
            fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).ends_with(&hook))
        });
        Ok(running.then_some(()))
    })?;
    child.kill()?;
    child.wait()?;
    fs::write(cx.path("never"), "")?;
    wait_for("the end of CRIU", || {
        crate::leaks::reap();
        let criu = fs::read_dir("/proc")?.flatten().any(|entry| {
            fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with("criu"))
        });
        Ok((!criu).then_some(()))
    })?;
    cx.rt(&["delete", "--force", &s.c.id])?.ok()?;
    cx.nothing_left(&before)
}
