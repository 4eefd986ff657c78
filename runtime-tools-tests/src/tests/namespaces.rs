//! Namespaces: new, joined by path, inherited; user and time namespaces where the runtime has them.

use super::tests;
use crate::container::reap;
use crate::cx::{Cx, eq, same, skip};
use anyhow::{Context, Result, ensure};
use nix::mqueue::{MQ_OFlag, mq_open, mq_unlink};
use nix::sys::stat::Mode;
use serde_json::{Value, json};
use std::fs;
use std::process::{Child, Command, Stdio};

tests!["namespaces":
    new_ones,
    inherited,
    inherited_all_but_mount,
    inherited_mount,
    inherited_mount_is_cleaned_up deviates ["runc" = "leaves the mounts", "crun" = "leaves the mounts"],
    inherited_mount_and_exec deviates ["runc" = "leaves the mounts, and exec sees the host's root", "crun" = "leaves the mounts"],
    inherited_mount_refusals deviates ["crun" = "takes them", "runc" = "takes some of them"],
    joined_network,
    joined_ipc,
    joined_uts,
    joined_pid,
    joined_cgroup,
    joined_mount,
    joined_of_another_container,
    empty_path_is_new deviates ["crun" = "opens it"],
    pid_new_makes_process_one,
    network_new_has_loopback_only,
    ipc_new_is_empty,
    uts_joined_keeps_its_name,
    host_untouched,
    orphans_go_to_process_one,
    user_with_mappings,
    user_root_is_mapped,
    time_offsets,
    cgroup_new_hides_the_path,
];

const KINDS: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
];

fn own(name: &str) -> Result<String> {
    Ok(fs::read_link(format!("/proc/self/ns/{name}"))?.display().to_string())
}

fn new_ones(cx: &Cx) -> Result<()> {
    let v = cx.bundle()?.inside()?;
    for (kind, name) in KINDS.iter().take(6) {
        ensure!(v["ns"][name] != json!(own(name)?), "{kind} is the runtime's");
    }
    same("user", &v["ns"]["user"], json!(own("user")?))
}

/// One of them missing in the config means the runtime's own.
fn inherited(cx: &Cx) -> Result<()> {
    for (kind, name) in
        [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")]
    {
        let mut b = cx.bundle()?;
        b.without_namespace(kind);
        match kind {
            "network" => _ = b.without_mount("/sys").without_mount("/sys/fs/cgroup"),
            "ipc" => _ = b.without_mount("/dev/mqueue"),
            "uts" => _ = b.remove("/hostname"),
            _ => {}
        }
        let v = b.inside().with_context(|| kind.to_string())?;
        for (other, file) in KINDS.iter().take(6) {
            let inherits = v["ns"][file] == json!(own(file)?);
            ensure!(inherits == (*file == name), "without {kind}: {other} inherited: {inherits}");
        }
    }
    Ok(())
}

fn inherited_all_but_mount(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/namespaces", json!([{"type": "mount"}])).remove("/hostname");
    b.without_mount("/sys")
        .without_mount("/sys/fs/cgroup")
        .without_mount("/dev/mqueue")
        .remove("/linux/maskedPaths");
    let v = b.inside()?;
    for (kind, name) in KINDS {
        let inherits = v["ns"][name] == json!(own(name)?);
        ensure!(inherits == (kind != "mount"), "{kind} inherited: {inherits}");
    }
    Ok(())
}

/// No mount namespace: what the runtime mounts stays in the caller's. Upstream's programs ask for it.
fn inherited_mount(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/namespaces", json!([]))
        .remove("/hostname")
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths");
    b.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]));
    let seen = b.inside();
    // Whatever is mounted there now is ours to take away.
    let root = b.rootfs();
    for target in [root.join("proc"), root.join("dev"), root.clone()] {
        while nix::mount::umount2(&target, nix::mount::MntFlags::MNT_DETACH).is_ok() {}
    }
    same("mnt", &seen?["ns"]["mnt"], json!(own("mnt")?))
}

/// A bundle that shares the mount namespace, with a mount point of its own as the root filesystem.
fn sharing_mounts(cx: &Cx) -> Result<crate::bundle::Bundle<'_>> {
    let mut b = cx.bundle()?;
    b.without_namespace("mount").remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    b.without_mount("/sys").without_mount("/sys/fs/cgroup");
    Ok(b)
}

fn inherited_mount_is_cleaned_up(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let mut b = sharing_mounts(cx)?;
    // The root filesystem is a mount already, as an engine's: it stays.
    let root = b.rootfs();
    nix::mount::mount(Some(&root), &root, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)?;
    let mounted = cx.snapshot()?;
    let mut tested = || -> Result<()> {
        same("pid", &b.inside()?["pid"], json!(1))?;
        cx.nothing_left(&mounted)?;
        b.set("/process/args", json!(["/missing"])).run()?.code(1)?;
        cx.nothing_left(&mounted)?;
        b.mount("/x", "tmpfs", "tmpfs", &["size=nonsense"]).run()?.code(1)?;
        cx.nothing_left(&mounted)
    };
    let tested = tested();
    while nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH).is_ok() {}
    tested?;
    cx.nothing_left(&before)
}

fn inherited_mount_and_exec(cx: &Cx) -> Result<()> {
    let mut b = sharing_mounts(cx)?;
    b.probe(&["sleep"]);
    let root = b.rootfs();
    let tested = || -> Result<()> {
        let c = b.start()?;
        let v = c.exec_inside(&[])?;
        same("mnt", &v["ns"]["mnt"], json!(own("mnt")?))?;
        let names = v["root"].to_string();
        c.end()?;
        ensure!(names.contains("mnt") && !names.contains("boot"), "the root shows {names}");
        Ok(())
    }();
    if cx.kind != "naru" {
        for target in [root.join("proc"), root.join("dev"), root.clone()] {
            while nix::mount::umount2(&target, nix::mount::MntFlags::MNT_DETACH).is_ok() {}
        }
    }
    tested
}

fn inherited_mount_refusals(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    let mut b = sharing_mounts(cx)?;
    for field in ["maskedPaths", "readonlyPaths"] {
        let mut b = sharing_mounts(cx)?;
        b.set(&format!("/linux/{field}"), json!(["/proc/x"]));
        b.run()?.fails(&["unable to restrict sys entries without a private MNT namespace"])?;
    }
    b.push("/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    b.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    b.run()?.fails(&["/linux/namespaces"])?;
    cx.nothing_left(&before)
}

/// A process in namespaces of its own, made with unshare(1).
pub struct Holder(Child);

impl Holder {
    /// Makes the namespaces of these flags of unshare(1).
    pub fn new(cx: &Cx, flags: &[&str]) -> Result<Self> {
        let mut cmd = Command::new("unshare");
        cmd.args(flags).arg(&cx.probe).args(["seq", "say", "ready", "---", "sleep"]);
        let mut child = cmd.stdout(Stdio::piped()).spawn().context("run unshare")?;
        let out = child.stdout.take().context("no pipe")?;
        ensure!(crate::sys::readable(&out, std::time::Duration::from_secs(3))?, "unshare did not start");
        Ok(Holder(child))
    }

    /// A namespace's file.
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

fn joined(cx: &Cx, kind: &str, name: &str, flag: &str) -> Result<Value> {
    let holder = Holder::new(cx, &[flag])?;
    let mut b = cx.bundle()?;
    b.without_namespace(kind).push("/linux/namespaces", json!({"type": kind, "path": holder.path(name)}));
    if kind == "uts" {
        b.remove("/hostname");
    }
    let v = b.inside()?;
    same(kind, &v["ns"][name], json!(holder.link(name)?))?;
    for (other, file) in KINDS.iter().take(6).filter(|(k, _)| *k != kind) {
        ensure!(v["ns"][file] != json!(own(file)?), "{other} is the runtime's");
    }
    Ok(v)
}

fn joined_network(cx: &Cx) -> Result<()> {
    joined(cx, "network", "net", "--net").map(drop)
}

fn joined_ipc(cx: &Cx) -> Result<()> {
    joined(cx, "ipc", "ipc", "--ipc").map(drop)
}

fn joined_uts(cx: &Cx) -> Result<()> {
    joined(cx, "uts", "uts", "--uts").map(drop)
}

fn joined_cgroup(cx: &Cx) -> Result<()> {
    joined(cx, "cgroup", "cgroup", "--cgroup").map(drop)
}

/// Joining a pid namespace takes a fork: the program is a child in it, not process 1.
fn joined_pid(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let host = b.start()?;
    let path = format!("/proc/{}/ns/pid", host.pid()?);
    let wanted = fs::read_link(&path)?.display().to_string();
    let mut b = cx.bundle()?;
    b.without_namespace("pid").push("/linux/namespaces", json!({"type": "pid", "path": path}));
    let v = b.inside()?;
    same("pid", &v["ns"]["pid"], json!(wanted))?;
    ensure!(v["pid"].as_i64() > Some(1), "pid {}", v["pid"]);
    host.end()
}

fn joined_mount(cx: &Cx) -> Result<()> {
    let holder = Holder::new(cx, &["--mount", "--propagation", "private"])?;
    let mut b = cx.bundle()?;
    b.without_namespace("mount")
        .push("/linux/namespaces", json!({"type": "mount", "path": holder.path("mnt")}));
    b.save()?;
    let out = cx.rt(&["run", "--bundle", &b.path(), &cx.id()])?;
    if out.code != 0 {
        return skip(format!("refused: {}", out.stderr.trim()));
    }
    Ok(())
}

/// What a pod's second container does.
fn joined_of_another_container(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let first = b.start()?;
    let pid = first.pid()?;
    let mut b = cx.bundle()?;
    b.remove("/hostname");
    for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        b.without_namespace(kind);
        b.push("/linux/namespaces", json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")}));
    }
    let v = b.inside()?;
    for name in ["net", "ipc", "uts"] {
        same(
            name,
            &v["ns"][name],
            json!(fs::read_link(format!("/proc/{pid}/ns/{name}"))?.display().to_string()),
        )?;
    }
    same("hostname", &v["hostname"], json!("suite"))?;
    first.end()
}

fn empty_path_is_new(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.without_namespace("ipc").push("/linux/namespaces", json!({"type": "ipc", "path": ""}));
    ensure!(b.inside()?["ns"]["ipc"] != json!(own("ipc")?), "ipc is the runtime's");
    Ok(())
}

fn pid_new_makes_process_one(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    same("pid", &b.inside()?["pid"], json!(1))?;
    eq("processes", b.lines(&["pids"])?, vec!["[1]"])
}

fn network_new_has_loopback_only(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    // And it is on: IFF_UP with IFF_LOOPBACK.
    b.expect(&[
        (&["ls", "/sys/class/net"], "[\"lo\"]"),
        (&["cat", "/sys/class/net/lo/flags"], "ok \"0x9\\n\""),
    ])
}

/// Message queues are those of the namespace that was mounted from: in the container there is none, wherever in the list the mount
/// stands.
fn ipc_new_is_empty(cx: &Cx) -> Result<()> {
    let name = format!("/{}", cx.id());
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_RDWR;
    let _queue = mq_open(name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR, None)?;
    let empty = |last: bool| {
        let mut b = cx.bundle()?;
        if last {
            let queues = json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"});
            b.without_mount("/dev/mqueue").push("/mounts", queues);
        }
        b.expect(&[(&["ls", "/dev/mqueue"], "[]"), (&["ls", "/dev/shm"], "[]")])
    };
    let seen = empty(false).and_then(|()| empty(true));
    mq_unlink(name.as_str())?;
    seen
}

fn uts_joined_keeps_its_name(cx: &Cx) -> Result<()> {
    let v = joined(cx, "uts", "uts", "--uts")?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_string();
    same("hostname", &v["hostname"], json!(host))
}

fn host_untouched(cx: &Cx) -> Result<()> {
    let links = || -> Result<Vec<String>> { KINDS.iter().map(|(_, n)| own(n)).collect() };
    let before = links()?;
    cx.bundle()?.run()?.ok()?;
    eq("namespaces", links()?, before)
}

/// In a new pid namespace the program is the reaper.
fn orphans_go_to_process_one(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    c.exec(&[], &["orphan", "/orphan"])?.ok()?;
    let text = crate::cx::wait_for("the orphan", || {
        Ok(fs::read_to_string(b.rootfs().join("orphan")).ok().filter(|t| !t.is_empty()))
    })?;
    ensure!(text.split_whitespace().nth(1) == Some("1"), "new parent: {text}");
    c.end()
}

fn user_bundle<'a>(cx: &'a Cx) -> Result<crate::bundle::Bundle<'a>> {
    let mut b = cx.bundle()?;
    b.push("/linux/namespaces", json!({"type": "user"}))
        .set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 2000}]))
        .set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 3000, "size": 2000}]));
    // The new root owns its root filesystem, and may walk to it.
    for entry in ["", "bin", "dev", "etc", "proc", "sys", "tmp", "mnt"] {
        std::os::unix::fs::chown(b.rootfs().join(entry), Some(1000), Some(3000))?;
    }
    Ok(b)
}

fn user_with_mappings(cx: &Cx) -> Result<()> {
    let mut b = user_bundle(cx)?;
    b.probe(&["seq", "json", "---", "cat", "/proc/self/uid_map", "---", "cat", "/proc/self/gid_map"]);
    let out = b.run()?.ok()?;
    let lines = out.lines();
    let v: Value = serde_json::from_str(lines[0])?;
    ensure!(v["ns"]["user"] != json!(own("user")?), "the user namespace is the runtime's");
    same("uid", &v["uid"], json!([0, 0, 0]))?;
    let words = |l: &str| {
        l.trim_matches(['"', '\\', 'n']).split_whitespace().skip(1).map(String::from).collect::<Vec<_>>()
    };
    eq("uid_map", words(&lines[1].replace('"', " ").replace("\\n", " ")), vec!["0", "1000", "2000"])?;
    eq("gid_map", words(&lines[2].replace('"', " ").replace("\\n", " ")), vec!["0", "3000", "2000"])
}

fn user_root_is_mapped(cx: &Cx) -> Result<()> {
    let mut b = user_bundle(cx)?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid()?))?;
    let uid = status
        .lines()
        .find_map(|l| l.strip_prefix("Uid:"))
        .and_then(|l| l.split_whitespace().next())
        .map(String::from);
    eq("uid outside", uid, Some("1000".into()))?;
    same("uid of exec", &c.exec_inside(&[])?["uid"], json!([0, 0, 0]))?;
    c.end()
}

fn time_offsets(cx: &Cx) -> Result<()> {
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        return skip("no time namespaces here");
    }
    let mut b = cx.bundle()?;
    b.push("/linux/namespaces", json!({"type": "time"})).set(
        "/linux/timeOffsets",
        json!({"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 2_000_000, "nanosecs": 5}}),
    );
    let lines = b.lines(&["seq", "cat", "/proc/uptime", "---", "readlink", "/proc/self/ns/time"])?;
    let text: String = serde_json::from_str(lines[0].trim_start_matches("ok "))?;
    let seconds: f64 = text.split_whitespace().next().context("no uptime")?.parse()?;
    ensure!(seconds >= 1_000_000.0, "uptime {seconds}");
    ensure!(lines[1] != format!("ok {}", own("time")?), "the time namespace is the runtime's");
    Ok(())
}

fn cgroup_new_hides_the_path(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let v = b.inside()?;
    let lines = v["cgroup"].to_string();
    ensure!(!lines.contains(&cx.mark), "the path is visible: {lines}");
    b.without_namespace("cgroup");
    let c = b.create()?;
    let pid = c.pid()?;
    ensure!(fs::read_to_string(format!("/proc/{pid}/cgroup"))?.contains(&cx.mark), "not in its cgroup");
    c.start()?.ok()?;
    reap(pid)?;
    c.delete()?.ok()?;
    Ok(())
}
