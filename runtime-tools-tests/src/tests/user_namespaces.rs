//! Containers in user namespaces: ids, who owns what, namespaces joined before and after, exec, errors.

use super::tests;
use crate::bundle::Bundle;
use crate::container::reap;
use crate::cx::{Cx, eq, same, skip};
use crate::terminal::ConsoleSocket;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

tests!["user_namespaces":
    root_inside_is_mapped,
    loopback_is_on,
    several_ranges,
    owners_of_what_is_mounted deviates ["runc" = "leaves the group of message queues to nobody"],
    devices_are_bound deviates ["runc" = "binds a fifo of the host"],
    device_that_is_another deviates ["runc" = "binds whatever is there", "crun" = "binds whatever is there"],
    other_namespaces_belong_to_it,
    program_of_another_user,
    additional_groups deviates ["crun" = "leaves the cgroup behind on v2"],
    standard_streams,
    terminal,
    sysctl_of_the_network,
    cgroup_mounts,
    hidden_and_readonly_paths,
    source_only_root_can_reach,
    hooks_see_the_namespaces,
    oom_score,
    limits_above_the_own deviates ["crun" = "sets none for exec"],
    keyring,
    exec,
    exec_of_another_user,
    exec_of_unmapped_user deviates ["crun" = "has words of its own"],
    exec_with_terminal,
    exec_oom_score deviates ["runc" = "leaves that of the runtime", "crun" = "leaves that of the runtime"],
    created_and_killed,
    shared_pid_namespace,
    joined,
    joined_by_a_file,
    joined_with_the_same_maps deviates ["crun" = "maps again"],
    joined_with_other_maps deviates ["crun" = "does not look", "runc" = "does not name the field"],
    joined_of_another_container,
    joined_with_a_network_of_the_host,
    new_with_joined_network,
    new_with_joined_pid,
    nested,
    delegated_cgroup deviates ["runc" = "only with the systemd driver"],
    own_binary_is_out_of_reach,
    own_binary_closed_to_others,
    errors deviates ["crun" = "takes some of them", "runc" = "takes an unmapped user for a failure of the init process"],
    nothing_is_left_of_a_failure deviates ["crun" = "has words of its own"],
];

pub const UID: u32 = 100_000;
pub const GID: u32 = 200_000;

/// Gives the root filesystem to the container's root.
fn own(path: &Path) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(UID), Some(GID))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path())?;
        }
    }
    Ok(())
}

/// A bundle in a user namespace of its own, with 65536 ids each.
pub fn bundle<'a>(cx: &'a Cx) -> Result<Bundle<'a>> {
    let mut b = cx.bundle()?;
    b.push("/linux/namespaces", json!({"type": "user"}))
        .set("/linux/uidMappings", json!([{"containerID": 0, "hostID": UID, "size": 65536}]))
        .set("/linux/gidMappings", json!([{"containerID": 0, "hostID": GID, "size": 65536}]));
    own(&b.rootfs())?;
    Ok(b)
}

/// lo is on in a network namespace that belongs to the user namespace, too.
fn loopback_is_on(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.expect(&[(&["cat", "/sys/class/net/lo/flags"], "ok \"0x9\\n\"")])
}

fn namespace(pid: i32, name: &str) -> Result<String> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/{name}"))?.display().to_string())
}

fn words(path: &str) -> Result<Vec<String>> {
    Ok(fs::read_to_string(path)?.split_whitespace().map(String::from).collect())
}

fn root_inside_is_mapped(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let pid = c.pid()?;
    eq("uid_map", words(&format!("/proc/{pid}/uid_map"))?, ["0", "100000", "65536"])?;
    eq("gid_map", words(&format!("/proc/{pid}/gid_map"))?, ["0", "200000", "65536"])?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(status.contains("Uid:\t100000\t100000\t100000\t100000"), "{status}");
    ensure!(status.contains("Gid:\t200000\t200000\t200000\t200000"), "{status}");
    eq("setgroups", words(&format!("/proc/{pid}/setgroups"))?, ["allow"])?;
    c.end()
}

fn several_ranges(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.set(
        "/linux/uidMappings",
        json!([{"containerID": 0, "hostID": UID, "size": 10}, {"containerID": 10, "hostID": 7000, "size": 1},
               {"containerID": 11, "hostID": UID + 11, "size": 100}]),
    )
    .set("/process/user/uid", json!(10))
    .probe(&["sleep"]);
    let c = b.start()?;
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid()?))?;
    ensure!(status.contains("Uid:\t7000\t7000\t7000\t7000"), "{status}");
    c.end()
}

fn owners_of_what_is_mounted(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    let paths = ["/", "/proc/1", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/ptmx"];
    let asked: Vec<Vec<&str>> = paths.iter().map(|path| vec!["stat", path]).collect();
    let asked: Vec<&[&str]> = asked.iter().map(Vec::as_slice).collect();
    for (path, answer) in paths.iter().zip(b.answers(&asked)?) {
        let node: Value = serde_json::from_str(&answer)?;
        same(&format!("uid of {path}"), &node["uid"], json!(0))?;
        same(&format!("gid of {path}"), &node["gid"], json!(0))?;
    }
    Ok(())
}

fn devices_are_bound(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.push("/linux/devices", json!({"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}));
    b.push(
        "/linux/devices",
        json!({"path": "/dev/a-fifo", "type": "p", "fileMode": 0o622, "uid": 5, "gid": 6}),
    );
    let v = b.inside()?;
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
        ("kmsg", 1, 11),
    ] {
        same(&format!("type of {name}"), &v["dev"][name]["type"], json!("c"))?;
        same(&format!("device {name}"), &v["dev"][name]["rdev"], json!(format!("{major}:{minor}")))?;
    }
    same("fifo", &v["dev"]["a-fifo"]["type"], json!("p"))?;
    b.expect(&[(&["write", "/dev/null", "x"], "ok"), (&["open", "/dev/zero", "r"], "ok")])
}

/// Nothing but the device that is asked for is ever bound.
fn device_that_is_another(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.push("/linux/devices", json!({"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 12}));
    b.run()?.fails(&["/linux/devices/0"])?;
    Ok(())
}

/// Who owns a namespace decides who has power over it: a name of one's own can only be set where it does.
fn other_namespaces_belong_to_it(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    let caps = json!(["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    for set in ["bounding", "effective", "permitted"] {
        b.set(&format!("/process/capabilities/{set}"), caps.clone());
    }
    b.expect(&[
        (&["sethostname", "mine"], "ok"),
        (&["mount", "none", "/tmp", "tmpfs", "0"], "ok"),
        (&["mount", "none", "/mnt", "sysfs", "1"], "ok"),
        (&["mknod", "/tmp/x", "c", "1", "3"], "EPERM"),
    ])?;
    let v = b.inside()?;
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        ensure!(
            v["ns"][name] != json!(namespace(std::process::id() as i32, name)?),
            "{name} is the runtime's"
        );
    }
    Ok(())
}

fn program_of_another_user(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.set("/process/user", json!({"uid": 1000, "gid": 1001}));
    let v = b.inside()?;
    same("uid", &v["uid"], json!([1000, 1000, 1000]))?;
    same("gid", &v["gid"], json!([1001, 1001, 1001]))?;
    same("groups", &v["groups"], json!([]))?;
    same("capabilities", &v["caps"]["effective"], json!("0000000000000000"))
}

fn additional_groups(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [5, 70]}));
    same("groups", &b.inside()?["groups"], json!([5, 70]))?;
    b.set("/process/user/additionalGids", json!([70_000]));
    b.run()?.code(1)?;
    Ok(())
}

/// They are given to the user, as the host counts.
fn standard_streams(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let file = fs::File::create(cx.path("mine"))?;
    chown(cx.path("mine"), Some(UID), Some(GID))?;
    b.probe(&["sleep"]).save()?;
    let c = b.container();
    let mut create = cx.cmd(&["create", "--bundle", &b.path(), &c.id]);
    let status = create.command().stdout(file).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "create: {status}");
    eq("owner of stdout", fs::metadata(cx.path("mine"))?.uid(), UID + 1000)?;
    c.delete_force()?;
    Ok(())
}

fn terminal(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.set("/process/terminal", json!(true))
        .set("/process/user", json!({"uid": 1000, "gid": 0}))
        .probe(&["sleep"]);
    b.save()?;
    let socket = ConsoleSocket::new(&cx.path("console"))?;
    let c = b.container();
    c.create(&["--console-socket", &socket.path.display().to_string()])?.ok()?;
    let _master = socket.receive()?.master;
    c.start()?.ok()?;
    let pid = c.pid()?;
    let tty = fs::metadata(format!("/proc/{pid}/root/dev/pts/0"))?;
    eq("owner of the terminal", (tty.uid(), tty.gid()), (UID + 1000, GID + 5))?;
    if cx.kind != "crun" {
        eq("console", fs::metadata(format!("/proc/{pid}/root/dev/console"))?.rdev(), tty.rdev())?;
    }
    c.end()
}

fn sysctl_of_the_network(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.set("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "77"}));
    b.expect(&[(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"], "ok \"77\\n\"")])
}

fn cgroup_mounts(cx: &Cx) -> Result<()> {
    for namespace in [true, false] {
        let mut b = bundle(cx)?;
        if !namespace {
            b.without_namespace("cgroup");
        }
        let v = b.inside().with_context(|| format!("cgroup namespace: {namespace}"))?;
        let lines = v["mountinfo"].to_string();
        ensure!(lines.contains("/sys/fs/cgroup"), "{lines}");
        let file =
            if cx.unified() { "/sys/fs/cgroup/cgroup.procs" } else { "/sys/fs/cgroup/pids/cgroup.procs" };
        b.probe(&["open", file, "r"]).run()?.ok()?;
        b.probe(&["mkdir", &format!("{}/x", Path::new(file).parent().context("no parent")?.display())]);
        ensure!(!b.run()?.stdout.starts_with("ok"), "made a cgroup in a read-only mount");
    }
    Ok(())
}

fn hidden_and_readonly_paths(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.expect(&[(&["ls", "/sys/firmware"], "[]"), (&["cat", "/proc/timer_list"], "ok \"\"")])?;
    let mounts = b.inside()?["mountinfo"].to_string();
    ensure!(mounts.contains(" /proc/sys ro"), "{mounts}");
    Ok(())
}

/// runc's bats: the source lies in a directory that is closed to the container's root.
fn source_only_root_can_reach(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    let closed = cx.path("closed");
    fs::create_dir_all(closed.join("dir"))?;
    fs::write(closed.join("dir/file"), "text")?;
    fs::write(closed.join("one"), "one")?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    b.mount("/mnt", "bind", closed.join("dir"), &["rbind", "ro"]);
    b.mount("/tmp/one", "bind", closed.join("one"), &["bind"]);
    b.expect(&[
        (&["cat", "/mnt/file"], "ok \"text\""),
        (&["create", "/mnt/new", "x"], "EROFS"),
        (&["cat", "/tmp/one"], "ok \"one\""),
    ])
}

fn hooks_see_the_namespaces(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.probe(&["sleep"]);
    let log = cx.path("hooked");
    for kind in ["prestart", "createRuntime"] {
        let script = format!(
            "pid=$(tr -d ' \\n' | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); for n in user net mnt; do readlink /proc/$pid/ns/$n; done >> {}",
            log.display()
        );
        b.push(&format!("/hooks/{kind}"), json!({"path": "/bin/sh", "args": ["sh", "-c", script]}));
    }
    let c = b.start()?;
    let pid = c.pid()?;
    let wanted =
        ["user", "net", "mnt"].map(|name| namespace(pid, name)).into_iter().collect::<Result<Vec<_>>>()?;
    let seen: Vec<String> = fs::read_to_string(&log)?.lines().map(String::from).collect();
    eq("namespaces", seen, [wanted.clone(), wanted].concat())?;
    c.end()
}

fn oom_score(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.set("/process/oomScoreAdj", json!(300));
    same("oom_score_adj", &b.inside()?["oom_score_adj"], json!("300"))
}

/// The root of a user namespace may not raise them, who starts it may.
fn limits_above_the_own(cx: &Cx) -> Result<()> {
    const HARD: u64 = 7_000_001;
    let limits = json!([{"type": "RLIMIT_SIGPENDING", "soft": HARD, "hard": HARD}]);
    let plain = cx.bundle()?.set("/process/rlimits", limits.clone()).probe(&["json"]).run()?;
    if plain.code != 0 {
        return skip("no CAP_SYS_RESOURCE: cannot raise a limit");
    }
    let mut b = bundle(cx)?;
    b.set("/process/rlimits", limits);
    same("limit", &b.inside()?["rlimits"]["RLIMIT_SIGPENDING"], json!([HARD, HARD]))?;
    let c = b.probe(&["sleep"]).start()?;
    same("limit of exec", &c.exec_inside(&[])?["rlimits"]["RLIMIT_SIGPENDING"], json!([HARD, HARD]))?;
    c.end()
}

fn keyring(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.set("/process/user", json!({"uid": 1000, "gid": 1000})).probe(&["sleep"]);
    let c = b.start()?;
    let one = c.exec_inside(&[])?["session_keyring"].clone();
    let two = c.exec_inside(&[])?["session_keyring"].clone();
    ensure!(one == two && one != json!(null), "keyrings {one} and {two}");
    c.end()
}

fn exec(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let v = c.exec_inside(&[])?;
    same("uid", &v["uid"], json!([0, 0, 0]))?;
    same("gid", &v["gid"], json!([0, 0, 0]))?;
    same("groups", &v["groups"], json!([]))?;
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        same(name, &v["ns"][name], json!(namespace(c.pid()?, name)?))?;
    }
    let same_cgroup = v["cgroup"].to_string();
    ensure!(same_cgroup.contains("/\""), "{same_cgroup}");
    let out = c.exec(&[], &["create", "/by-exec", "x"])?.ok()?;
    ensure!(out.stdout.starts_with("ok"), "{}", out.stdout);
    eq("owner of a new file", fs::metadata(b.rootfs().join("by-exec"))?.uid(), UID)?;
    eq("exit code", c.exec(&[], &["exit", "7"])?.code, 7)?;
    c.end()
}

fn exec_of_another_user(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let v = c.exec_inside(&["--user", "1000:1001"])?;
    same("uid", &v["uid"], json!([1000, 1000, 1000]))?;
    if cx.kind != "crun" {
        same("gid", &v["gid"], json!([1001, 1001, 1001]))?;
        let groups = c.exec_inside(&["--additional-gids", "7"])?["groups"].clone();
        ensure!(groups == json!([7]) || groups == json!([7, 7]), "groups {groups}");
    }
    c.end()
}

fn exec_of_unmapped_user(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    c.exec(&["--user", "70000"], &["true"])?
        .fails_with(255, &["cannot setuid to unmapped uid 70000 in user namespace"])?;
    c.end()
}

fn exec_with_terminal(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let socket = ConsoleSocket::new(&cx.path("console"))?;
    let flags = ["--tty", "--detach", "--console-socket", &socket.path.display().to_string()];
    c.exec(&flags, &["sleep"])?.ok()?;
    let _master = socket.receive()?.master;
    let tty = fs::metadata(format!("/proc/{}/root/dev/pts/0", c.pid()?))?;
    eq("owner of the terminal", (tty.uid(), tty.gid()), (UID, GID + 5))?;
    c.end()
}

/// As every process's, above and below that of the runtime, as far as there is a right to that.
fn exec_oom_score(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let own = fs::read_to_string("/proc/self/oom_score_adj")?;
    let lower = fs::write("/proc/self/oom_score_adj", "-300").is_ok();
    fs::write("/proc/self/oom_score_adj", own.trim())?;
    for score in [300, -300].into_iter().filter(|&score| score > 0 || lower) {
        b.set("/process/oomScoreAdj", json!(score)).save()?;
        let v = c.exec_inside(&[]);
        same("oom_score_adj", &v?["oom_score_adj"], json!(score.to_string()))?;
    }
    c.end()
}

fn created_and_killed(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let b = bundle(cx)?;
    let c = b.create()?;
    c.is("created")?;
    same("uid of exec", &c.exec_inside(&[])?["uid"], json!([0, 0, 0]))?;
    c.start()?.ok()?;
    c.becomes("stopped")?;
    c.delete()?.ok()?;
    let mut b = bundle(cx)?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    c.is("running")?;
    let listed = cx.rt(&["ps", "--format", "json", &c.id])?.ok()?.json()?;
    same("ps", &listed, json!([c.pid()?]))?;
    let pid = c.pid()?;
    c.kill("TERM")?.ok()?;
    c.kill("KILL")?.ok()?;
    eq("exit code", reap(pid)?, 137)?;
    c.delete()?.ok()?;
    cx.nothing_left(&before)
}

fn shared_pid_namespace(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.without_namespace("pid").without_mount("/proc");
    b.mount("/proc", "bind", "/proc", &["rbind"]);
    b.remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    b.probe(&["sleep"]);
    let c = b.start()?;
    eq("pid namespace", namespace(c.pid()?, "pid")?, namespace(std::process::id() as i32, "pid")?)?;
    c.exec(&[], &["true"])?.ok()?;
    c.end()
}

/// A process in a user namespace with the ids of `bundle`.
pub struct Holder(Child);

impl Holder {
    pub fn new(cx: &Cx) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.arg("--user").arg(&cx.probe).args(["seq", "say", "ready", "---", "sleep"]);
        Ok(Holder(mapped(command, false)?))
    }

    pub fn path(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }

    fn link(&self, name: &str) -> Result<String> {
        Ok(fs::read_link(self.path(name))?.display().to_string())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It is our own child; a failure means that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts unshare(1), whose program says a first line, and maps the ids of `bundle`. With `answer` the program goes on
/// when it gets a line.
fn mapped(mut command: Command, answer: bool) -> Result<Child> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let ready = child.stdout.as_ref().context("no pipe")?;
    ensure!(crate::sys::readable(ready, std::time::Duration::from_secs(3))?, "unshare did not start");
    for (file, first) in [("uid_map", UID), ("gid_map", GID)] {
        fs::write(format!("/proc/{}/{file}", child.id()), format!("0 {first} 65536"))?;
    }
    if answer {
        use std::io::Write;
        child.stdin.take().context("no pipe")?.write_all(b"go\n")?;
    }
    Ok(child)
}

/// Makes the bundle join a user namespace.
pub fn join<'b, 'a>(b: &'b mut Bundle<'a>, path: &str) -> &'b mut Bundle<'a> {
    b.without_namespace("user").push("/linux/namespaces", json!({"type": "user", "path": path}));
    b.remove("/linux/uidMappings").remove("/linux/gidMappings")
}

fn joined(cx: &Cx) -> Result<()> {
    let holder = Holder::new(cx)?;
    let mut b = bundle(cx)?;
    join(&mut b, &holder.path("user")).probe(&["sleep"]);
    let c = b.start()?;
    let pid = c.pid()?;
    eq("user namespace", namespace(pid, "user")?, holder.link("user")?)?;
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        ensure!(namespace(pid, name)? != holder.link(name)?, "{name} is the holder's");
    }
    let v = c.exec_inside(&[])?;
    same("uid", &v["uid"], json!([0, 0, 0]))?;
    same("user namespace of exec", &v["ns"]["user"], json!(holder.link("user")?))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(status.contains("Uid:\t100000\t") && status.contains("Gid:\t200000\t"), "{status}");
    ensure!(
        status.contains("NSpid:") && status.lines().any(|l| l.starts_with("NSpid:") && l.ends_with("\t1")),
        "{status}"
    );
    c.end()
}

/// The namespace lives on in a bind mount alone.
fn joined_by_a_file(cx: &Cx) -> Result<()> {
    let holder = Holder::new(cx)?;
    let file = cx.path("namespace");
    fs::write(&file, "")?;
    nix::mount::mount(
        Some(holder.path("user").as_str()),
        &file,
        None::<&str>,
        nix::mount::MsFlags::MS_BIND,
        None::<&str>,
    )?;
    let wanted = holder.link("user")?;
    drop(holder);
    let mut b = bundle(cx)?;
    join(&mut b, &file.display().to_string());
    let seen = b.inside();
    nix::mount::umount2(&file, nix::mount::MntFlags::MNT_DETACH)?;
    same("user namespace", &seen?["ns"]["user"], json!(wanted))
}

/// containerd and CRI-O send both.
fn joined_with_the_same_maps(cx: &Cx) -> Result<()> {
    let holder = Holder::new(cx)?;
    let mut b = bundle(cx)?;
    b.without_namespace("user")
        .push("/linux/namespaces", json!({"type": "user", "path": holder.path("user")}));
    same("user namespace", &b.inside()?["ns"]["user"], json!(holder.link("user")?))
}

fn joined_with_other_maps(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    {
        let holder = Holder::new(cx)?;
        let mut b = bundle(cx)?;
        b.without_namespace("user")
            .push("/linux/namespaces", json!({"type": "user", "path": holder.path("user")}));
        b.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": UID, "size": 65535}]));
        b.run()?.fails(&["/linux/uidMappings", "both namespace path and non-matching mapping specified"])?;
    }
    cx.nothing_left(&before)
}

/// A pod: the second container joins the user namespace of the first, and its network.
fn joined_of_another_container(cx: &Cx) -> Result<()> {
    let mut b = bundle(cx)?;
    b.probe(&["sleep"]);
    let first = b.start()?;
    let pid = first.pid()?;
    let mut b = bundle(cx)?;
    join(&mut b, &format!("/proc/{pid}/ns/user"));
    b.remove("/hostname");
    for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        b.without_namespace(kind);
        b.push("/linux/namespaces", json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")}));
    }
    b.probe(&["sleep"]);
    let second = b.start()?;
    for name in ["user", "net", "ipc", "uts"] {
        eq(name, namespace(second.pid()?, name)?, namespace(pid, name)?)?;
    }
    let v = second.exec_inside(&[])?;
    same("user namespace of exec", &v["ns"]["user"], json!(namespace(pid, "user")?))?;
    second.end()?;
    first.end()
}

/// runc#4390: a network namespace that the user namespace does not own is joined with the host's privileges.
fn joined_with_a_network_of_the_host(cx: &Cx) -> Result<()> {
    let holder = Holder::new(cx)?;
    let mut other = Command::new("unshare").args(["--net", "sleep", "60"]).stdin(Stdio::null()).spawn()?;
    let path = format!("/proc/{}/ns/net", other.id());
    let own_net = namespace(std::process::id() as i32, "net")?;
    crate::cx::wait_for("a network namespace", || {
        Ok((fs::read_link(&path)?.display().to_string() != own_net).then_some(()))
    })?;
    let wanted = fs::read_link(&path)?.display().to_string();
    let mut b = bundle(cx)?;
    join(&mut b, &holder.path("user"));
    b.without_namespace("network").push("/linux/namespaces", json!({"type": "network", "path": path}));
    b.without_mount("/sys").without_mount("/sys/fs/cgroup").mount("/sys", "bind", "/sys", &["rbind"]);
    b.remove("/linux/maskedPaths").probe(&["sleep"]);
    let c = b.start();
    let seen = c.as_ref().ok().map(|c| c.exec_inside(&[]));
    other.kill()?;
    other.wait()?;
    let c = c?;
    let v = seen.context("not asked")??;
    same("network", &v["ns"]["net"], json!(wanted))?;
    same("user", &v["ns"]["user"], json!(holder.link("user")?))?;
    c.end()
}

/// What engines do that make the network themselves.
fn new_with_joined_network(cx: &Cx) -> Result<()> {
    let mut other = cx.bundle()?;
    other.probe(&["sleep"]);
    let first = other.start()?;
    let path = format!("/proc/{}/ns/net", first.pid()?);
    let wanted = fs::read_link(&path)?.display().to_string();
    let mut b = bundle(cx)?;
    b.without_namespace("network").push("/linux/namespaces", json!({"type": "network", "path": path}));
    b.without_mount("/sys").without_mount("/sys/fs/cgroup").mount("/sys", "bind", "/sys", &["rbind"]);
    b.remove("/linux/maskedPaths").probe(&["sleep"]);
    let c = b.start()?;
    eq("network", namespace(c.pid()?, "net")?, wanted.clone())?;
    same("network of exec", &c.exec_inside(&[])?["ns"]["net"], json!(wanted))?;
    ensure!(namespace(c.pid()?, "user")? != namespace(first.pid()?, "user")?, "no user namespace");
    c.end()?;
    first.end()
}

fn new_with_joined_pid(cx: &Cx) -> Result<()> {
    let mut other = cx.bundle()?;
    other.probe(&["sleep"]);
    let first = other.start()?;
    let path = format!("/proc/{}/ns/pid", first.pid()?);
    let wanted = fs::read_link(&path)?.display().to_string();
    let mut b = bundle(cx)?;
    b.without_namespace("pid").push("/linux/namespaces", json!({"type": "pid", "path": path}));
    b.without_mount("/proc").mount("/proc", "bind", "/proc", &["rbind"]);
    b.remove("/linux/maskedPaths").remove("/linux/readonlyPaths").probe(&["sleep"]);
    let c = b.start()?;
    eq("pid namespace", namespace(c.pid()?, "pid")?, wanted)?;
    c.end()?;
    first.end()
}

/// The runtime itself is root of a user namespace, with mounts of its own: as in Podman without root.
fn nested(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    own(&b.rootfs())?;
    chown(&b.dir, Some(UID), Some(GID))?;
    b.push("/linux/namespaces", json!({"type": "user"}))
        .set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 500}]))
        .set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 2000, "size": 500}]));
    own(&b.rootfs())?;
    b.remove("/linux/cgroupsPath").remove("/linux/resources").without_mount("/sys/fs/cgroup");
    b.probe(&["seq", "json", "---", "cat", "/proc/self/uid_map"]).save()?;
    // The container's root: 100000 + 1000.
    for entry in ["", "dev", "proc", "sys", "tmp", "mnt", "etc", "bin"] {
        chown(b.rootfs().join(entry), Some(UID + 1000), Some(GID + 2000))?;
    }
    let state = cx.path("nested-state");
    fs::create_dir(&state)?;
    chown(&state, Some(UID), Some(GID))?;
    let script = format!(
        "echo; read go; exec setpriv --reuid 0 --regid 0 --clear-groups {} --root {} run --bundle {} {}",
        cx.runtime.display(),
        state.display(),
        b.path(),
        cx.id()
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--mount", "--keep-caps", "sh", "-c", &script]);
    command.env_clear().env("PATH", crate::cx::PATH);
    let out = mapped(command, true)?.wait_with_output()?;
    let text = String::from_utf8_lossy(&out.stdout).trim_start().to_string();
    ensure!(out.status.success(), "{:?} {text} {}", out.status, String::from_utf8_lossy(&out.stderr));
    let v: Value = serde_json::from_str(text.lines().next().context("no answer")?)?;
    same("uid", &v["uid"], json!([0, 0, 0]))?;
    ensure!(text.contains("1000        500"), "{text}");
    eq("states left", fs::read_dir(&state)?.count(), 0)
}

/// config-linux.md "Cgroup ownership".
fn delegated_cgroup(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    let mut b = bundle(cx)?;
    b.without_mount("/sys/fs/cgroup").mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev"],
    );
    b.probe(&["sleep"]);
    let c = b.start()?;
    let path = fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?;
    let path = path.lines().find_map(|l| l.strip_prefix("0::")).context("no cgroup")?;
    let dir = format!("/sys/fs/cgroup{path}");
    for file in ["", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"] {
        eq(&format!("owner of {file:?}"), fs::metadata(format!("{dir}{file}"))?.uid(), UID)?;
    }
    eq("owner of cgroup.events", fs::metadata(format!("{dir}/cgroup.events"))?.uid(), 0)?;
    ensure!(
        c.exec(&[], &["mkdir", "/sys/fs/cgroup/inner"])?.ok()?.stdout.starts_with("ok"),
        "no cgroup made"
    );
    c.end()
}

/// CVE-2019-5736 with all of the user namespace's power, and a file that others may execute but not write.
fn own_binary_is_out_of_reach(cx: &Cx) -> Result<()> {
    let copy = cx.path("the-runtime");
    fs::copy(&cx.runtime, &copy)?;
    // As dangerous as can be: it belongs to the container's root.
    chown(&copy, Some(UID), Some(GID))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let mut b = bundle(cx)?;
    let caps =
        json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_SYS_ADMIN"]);
    for set in ["bounding", "effective", "permitted"] {
        b.set(&format!("/process/capabilities/{set}"), caps.clone());
    }
    b.without_namespace("pid").without_mount("/proc").mount("/proc", "bind", "/proc", &["rbind"]);
    b.remove("/linux/maskedPaths").remove("/linux/readonlyPaths").save()?;
    let c = b.container();
    let status = Command::new(&copy)
        .arg("--root")
        .arg(&cx.root)
        .args(["create", "--bundle", &b.path(), &c.id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "create: {status}");
    let exe = format!("/proc/{}/exe", c.pid()?);
    let written = fs::OpenOptions::new().write(true).open(&exe);
    c.delete_force()?;
    ensure!(written.is_err(), "the runtime's file can be opened for writing");
    Ok(())
}

/// The container's root may not even execute the runtime.
fn own_binary_closed_to_others(cx: &Cx) -> Result<()> {
    let copy = cx.path("the-runtime");
    fs::copy(&cx.runtime, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700))?;
    let holder = Holder::new(cx)?;
    let mut b = bundle(cx)?;
    for joins in [false, true] {
        if joins {
            join(&mut b, &holder.path("user"));
        }
        b.probe(&["say", "fine"]).save()?;
        let run = ["run", "--bundle", &b.path(), &cx.id()];
        let out = Command::new(&copy).arg("--root").arg(&cx.root).args(run).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        eq("output", (String::from_utf8_lossy(&out.stdout).trim(), said.as_str()), ("fine", ""))?;
    }
    Ok(())
}

fn errors(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    type Change = fn(&mut Bundle);
    let table: [(&str, Change, &[&str]); 9] = [
        (
            "no maps",
            |b| _ = b.remove("/linux/uidMappings").remove("/linux/gidMappings"),
            &["/linux/uidMappings", "no namespace path to join nor mappings to apply specified"],
        ),
        (
            "no gid map",
            |b| _ = b.remove("/linux/gidMappings"),
            &["/linux/gidMappings", "no gid mappings found"],
        ),
        (
            "maps without namespace",
            |b| _ = b.without_namespace("user"),
            &[
                "/linux/uidMappings",
                "user namespace mappings specified, but user namespace isn't enabled in the config",
            ],
        ),
        (
            "root is not mapped",
            |b| _ = b.set("/linux/uidMappings/0/containerID", json!(1)),
            &["/linux/uidMappings", "no mapping found for uid 0"],
        ),
        ("empty range", |b| _ = b.set("/linux/gidMappings/0/size", json!(0)), &["/linux/gidMappings/0/size"]),
        (
            "overlap",
            |b| _ = b.push("/linux/uidMappings", json!({"containerID": 5, "hostID": 5, "size": 1})),
            &["/linux/uidMappings/1/containerID"],
        ),
        (
            "overflow",
            |b| _ = b.set("/linux/uidMappings/0/hostID", json!(4_294_967_000u32)),
            &["/linux/uidMappings/0/hostID"],
        ),
        (
            "user is not mapped",
            |b| _ = b.set("/process/user/uid", json!(65536)),
            &["/process/user/uid", "cannot setuid to unmapped uid 65536 in user namespace"],
        ),
        (
            "wrong type",
            |b| _ = b.set("/linux/uidMappings/0/size", json!("1")),
            &["/linux/uidMappings/0/size"],
        ),
    ];
    for (what, change, phrases) in table {
        let mut b = bundle(cx)?;
        change(&mut b);
        let phrases: Vec<&str> =
            phrases.iter().copied().filter(|p| cx.kind == "naru" || !p.starts_with("/linux")).collect();
        b.run()?.fails(&phrases).with_context(|| what.to_string())?.one_line()?;
    }
    cx.nothing_left(&before)
}

fn nothing_is_left_of_a_failure(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let mut b = bundle(cx)?;
    b.set("/process/args", json!(["/missing"]));
    b.run()?.fails(&["no such file or directory"])?;
    b.probe(&["true"]).set("/process/cwd", json!("/"));
    b.mount("/x", "tmpfs", "tmpfs", &["size=nonsense"]);
    b.run()?.code(1)?;
    {
        let holder = Holder::new(cx)?;
        join(&mut b, &holder.path("user"));
        b.run()?.code(1)?;
    }
    cx.nothing_left(&before)
}
