//! What a runtime makes before the program runs: mounts, hooks, namespaces, devices, and what it reads for it.

use super::capabilities;
use super::process::limited;
use crate::canary::Canary;
use crate::cx::{Cx, skip};
use crate::variant::{sane, spent};
use anyhow::{Context, Result, ensure};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

/// Is this field taken by the runtime at all? Some features come one by one.
fn refused_as_missing(out: &crate::cx::Out) -> bool {
    out.code != 0 && out.stderr.contains("not supported yet")
}

/// T21: what an image has where a tmpfs is filled from.
pub fn tmpcopyup_hostile(cx: &Cx) -> Result<String> {
    let canary = Canary::new(&cx.path("canary"))?;
    let mut b = cx.bundle()?;
    let source = b.rootfs().join("full");
    fs::create_dir(&source)?;
    nix::unistd::mkfifo(&source.join("fifo"), Mode::from_bits_retain(0o666))?;
    mknod(&source.join("zero"), SFlag::S_IFCHR, Mode::from_bits_retain(0o666), makedev(1, 5))?;
    symlink(canary.dir.join("file"), source.join("out"))?;
    symlink(&canary.dir, source.join("outdir"))?;
    fs::write(source.join("setuid"), "x")?;
    fs::set_permissions(source.join("setuid"), fs::Permissions::from_mode(0o4755))?;
    for n in 0..20 {
        fs::create_dir(source.join(format!("d{n}")))?;
        for m in 0..1000 {
            fs::File::create(source.join(format!("d{n}/{m}")))?;
        }
    }
    b.mount("/full", "tmpfs", "tmpfs", &["tmpcopyup", "rw", "mode=755"]);
    b.probe(&["seq", "readlink", "/full/out", "---", "stat", "/full/outdir", "---", "stat", "/full/setuid"])
        .save()?;
    let start = Instant::now();
    let out = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).limit(Duration::from_secs(14)).run()?;
    sane(&out)?;
    canary.same()?;
    if out.code == 0 {
        let said = out.lines();
        ensure!(said[0] == format!("ok {}", canary.dir.join("file").display()), "a link became {}", said[0]);
        ensure!(said[1].contains("\"type\":\"l\""), "a link became {}", said[1]);
    }
    Ok(format!("20,000 files in {} ms, exit {}", start.elapsed().as_millis(), out.code))
}

/// T27: where memory must not be executed, the runtime still works and is still protected.
pub fn memfd_noexec(cx: &Cx) -> Result<String> {
    // The setting is that of our own pid namespace.
    if fs::write("/proc/sys/vm/memfd_noexec", "2").is_err() {
        return skip("no vm.memfd_noexec here");
    }
    let mut b = cx.bundle()?;
    let out = b.probe(&["say", "ran"]).run()?;
    sane(&out)?;
    ensure!(out.code == 0 || !out.stderr.trim().is_empty(), "refused without a word");
    Ok(if out.code == 0 { "works".into() } else { format!("refused: {}", out.stderr.trim_end()) })
}

/// T34: every kind of hook has 0, 1, 2 only, also when more are handed to the program.
pub fn hook_fds(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let files: Vec<_> = kinds.iter().map(|kind| (*kind, b.hook(kind, &[]))).collect();
    // In the container: by its own path there.
    b.push("/hooks/startContainer", json!({"path": "/bin/probe", "args": ["probe", "hook", "/hooked"]}));
    b.probe(&["true"]).save()?;
    let fd = fs::File::open("/dev/null")?.into();
    let out = cx
        .cmd(&["run", "--preserve-fds", "1", "--bundle", &b.path(), &cx.id()])
        .fds(vec![(fd, 3)])?
        .run()?
        .ok()?;
    sane(&out)?;
    let inside = ("startContainer", b.rootfs().join("hooked"));
    for (kind, file) in files.iter().chain([&inside]) {
        let text = fs::read_to_string(file).with_context(|| format!("the {kind} hook's report"))?;
        let seen: Value = serde_json::from_str(text.lines().next().unwrap_or_default())?;
        let fds = seen["fds"].as_object().cloned().unwrap_or_default();
        let more: Vec<String> = fds
            .iter()
            .filter(|(n, link)| {
                n.parse::<u32>().is_ok_and(|n| n > 2) && !link.as_str().is_some_and(|l| l.ends_with("/fd"))
            })
            .map(|(n, link)| format!("{n}={link}"))
            .collect();
        ensure!(more.is_empty(), "{kind} has {more:?}");
    }
    Ok(String::new())
}

/// T35: nothing of the image's environment reaches a hook.
pub fn hook_env(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let files: Vec<_> = kinds.iter().map(|kind| (*kind, b.hook(kind, &[]))).collect();
    b.set("/process/env", json!(["PATH=/evil", "LD_PRELOAD=/evil.so", "EVIL=1"])).save()?;
    b.run()?.ok()?;
    for (kind, file) in &files {
        let text = fs::read_to_string(file).with_context(|| format!("the {kind} hook's report"))?;
        let seen: Value = serde_json::from_str(text.lines().next().unwrap_or_default())?;
        let env = seen["environ"].to_string();
        ensure!(!env.contains("evil") && !env.contains("EVIL"), "{kind} has {env}");
    }
    Ok(String::new())
}

/// T36: a hook that takes too long goes, and all that it started.
pub fn hook_timeout_tree(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    let script = cx.path("hook.sh");
    fs::write(&script, "#!/bin/sh\nsleep 60 &\n(sleep 60) &\nsleep 60\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    b.push("/hooks/createRuntime", json!({"path": script, "timeout": 1})).save()?;
    let before = cx.snapshot()?;
    let out = b.container().create(&[])?;
    sane(&out)?;
    ensure!(out.code != 0, "it was made");
    ensure!(out.took < Duration::from_secs(5), "took {:?}", out.took);
    cx.nothing_left(&before)?;
    Ok(String::new())
}

/// T52: exec --cgroup stays below the container's.
pub fn exec_subcgroup(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let mut tried = 0;
    for path in ["../..", "/../..", "a/../../..", "..", "./../.", "cpu:../..", "missing/../.."] {
        let out = c.exec(&["--cgroup", path], &["true"])?;
        sane(&out)?;
        ensure!(out.code != 0, "{path} was taken");
        tried += 1;
    }
    c.delete_force()?;
    Ok(format!("{tried} paths"))
}

/// T54: no rules means no devices but the default ones.
pub fn dev_default_deny(cx: &Cx) -> Result<String> {
    for resources in [
        None,
        Some(json!({})),
        Some(json!({"devices": []})),
        Some(json!({"devices": [{"allow": false, "access": "rwm"}]})),
    ] {
        let mut b = cx.bundle()?;
        match &resources {
            Some(value) => b.set("/linux/resources", value.clone()),
            None => b.remove("/linux/resources"),
        };
        capabilities(&mut b, &["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYS_RAWIO"]);
        let mut args = vec!["seq"];
        for (path, kind, major, minor) in [
            ("/dev/d1", "b", "8", "0"),
            ("/dev/d2", "c", "1", "1"),
            ("/dev/d3", "c", "10", "232"),
            ("/dev/d4", "b", "254", "0"),
        ] {
            args.extend(["mknod", path, kind, major, minor, "---", "open", path, "rw", "---"]);
        }
        args.extend(["open", "/dev/null", "rw"]);
        let said = b.probe(&args).run()?.ok()?.stdout;
        let lines: Vec<&str> = said.lines().collect();
        for (n, line) in lines.iter().enumerate().filter(|(n, _)| n % 2 == 1) {
            // Not there at all when mknod was forbidden, which is as good.
            ensure!(matches!(*line, "EPERM" | "ENOENT"), "{resources:?}: device {} says {line}", n / 2);
        }
        ensure!(lines.last() == Some(&"ok"), "{resources:?}: /dev/null says {:?}", lines.last());
    }
    Ok(String::new())
}

/// T56: sizes that once overflowed what the parent told its child.
pub fn big_bootstrap(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    let long = format!("/{}", "x".repeat(70 << 10));
    b.set(
        "/linux/namespaces",
        json!([{"type": "pid"}, {"type": "mount"}, {"type": "network", "path": long}]),
    )
    .save()?;
    let out = b.run()?;
    sane(&out)?;
    ensure!(out.code != 0, "a namespace path of 70 KiB was taken");
    let mut b = cx.bundle()?;
    let big = format!("BIG={}", "x".repeat(70 << 10));
    b.push("/process/env", json!(big));
    let seen = b.inside()?;
    for (name, link) in seen["ns"].as_object().context("no namespaces")? {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
        let same = link.as_str() == own.to_str();
        ensure!(!same || name.starts_with("user") || name.starts_with("time"), "{name} is the host's");
    }
    let mut b = cx.bundle()?;
    for n in 0..1500 {
        fs::create_dir_all(b.rootfs().join(format!("m/{n}")))?;
        b.mount(&format!("/m/{n}"), "bind", cx.path("canary"), &["bind"]);
    }
    fs::create_dir(cx.path("canary"))?;
    b.probe(&["true"]).save()?;
    let out = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).limit(Duration::from_secs(14)).run()?;
    sane(&out)?;
    Ok(format!("1,500 mounts in {} ms, exit {}", out.took.as_millis(), out.code))
}

/// T57: configurations that are no configurations, with 256 MiB to read them in.
pub fn json_bombs(cx: &Cx) -> Result<String> {
    let good = crate::bundle::default_config().to_string();
    let inner = &good[1..good.len() - 1];
    let many = |item: &str, n: usize| vec![item; n].join(",");
    let bombs: Vec<(&str, Vec<u8>, bool)> = vec![
        ("depth in a known field", format!("{{{inner},\"annotations\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)).into(), true),
        ("depth in an unknown field", format!("{{{inner},\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)).into(), false),
        ("objects", format!("{{{inner},\"x\":{}1{}}}", "{\"a\":".repeat(100_000), "}".repeat(100_000)).into(), false),
        ("trailing bytes", format!("{good} {{}}").into(), true),
        ("cut off", good.as_bytes()[..good.len() - 2].to_vec(), true),
        ("NaN", format!("{{{inner},\"x\":NaN}}").into(), true),
        ("lone surrogate", format!("{{{inner},\"hostname\":\"\\ud800\"}}").into(), false),
        ("not UTF-8", [good.as_bytes(), b"\xff\xfe"].concat(), true),
        ("a number too large", good.replace("\"uid\":0", "\"uid\":4294967296").into(), true),
        ("a negative id", good.replace("\"uid\":0", "\"uid\":-1").into(), true),
        ("a float id", good.replace("\"uid\":0", "\"uid\":1e3").into(), true),
        ("a duplicate field", format!("{{{inner},\"root\":{{\"path\":\"other\"}}}}").into(), false),
        ("200,000 variables", format!("{{{inner},\"process\":{{\"cwd\":\"/\",\"user\":{{\"uid\":0,\"gid\":0}},\"args\":[\"/bin/probe\",\"true\"],\"env\":[{}]}}}}", many("\"A=b\"", 200_000)).into(), false),
        ("empty", vec![], true),
        ("null", b"null".to_vec(), true),
        ("a list", b"[]".to_vec(), true),
    ];
    let mut accepted = vec![];
    for (name, text, must_fail) in &bombs {
        let b = cx.bundle()?;
        fs::write(b.dir.join("config.json"), text)?;
        let before = spent()?;
        let out = limited(cx, "ulimit -v 262144", &["create", "--bundle", &b.path(), &cx.id()])?;
        sane(&out)?;
        let cost = spent()? - before;
        ensure!(cost < Duration::from_secs(2), "{name}: took {cost:?} of a processor");
        if out.code == 0 {
            let id = out.line.rsplit(' ').next().unwrap_or_default().to_string();
            cx.rt(&["delete", "--force", &id])?.ok()?;
            ensure!(!must_fail, "{name}: was taken");
            accepted.push(*name);
        }
    }
    let b = cx.bundle()?;
    // A GiB that costs no disk: a hole.
    let mut file = fs::File::create(b.dir.join("config.json"))?;
    file.write_all(b"{\"x\":\"")?;
    file.set_len(1 << 30)?;
    let before = spent()?;
    let out = limited(cx, "ulimit -v 262144", &["create", "--bundle", &b.path(), &cx.id()])?;
    sane(&out)?;
    let cost = spent()? - before;
    ensure!(
        out.code != 0 && cost < Duration::from_secs(2),
        "1 GiB: exit {} after {cost:?} of a processor",
        out.code
    );
    Ok(format!(
        "{} files, taken: {}",
        bombs.len() + 1,
        if accepted.is_empty() { "none".into() } else { accepted.join(", ") }
    ))
}

/// T46: a volume at /proc must not catch what is written as a label.
pub fn lsm_fake_proc(cx: &Cx) -> Result<String> {
    let Some((field, label)) = lsm() else { return skip("neither AppArmor nor SELinux on this kernel") };
    let fake = cx.path("fake");
    fs::create_dir_all(fake.join("self/attr/apparmor"))?;
    for name in ["exec", "current", "apparmor/exec"] {
        fs::write(fake.join("self/attr").join(name), "untouched")?;
    }
    for kind in ["bind", "tmpfs"] {
        let mut b = cx.bundle()?;
        b.without_mount("/proc").set(field, json!(label));
        b.mount("/proc", kind, &fake, if kind == "bind" { &["bind"] } else { &[] });
        b.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([])).save()?;
        let out = b.run()?;
        sane(&out)?;
        ensure!(out.code != 0, "a {kind} mount at /proc was taken with a label");
    }
    ensure!(fs::read(fake.join("self/attr/exec"))? == b"untouched", "the label went to the fake");
    Ok(String::new())
}

/// T47: the label that is configured is the label that is there.
pub fn lsm_label_real(cx: &Cx) -> Result<String> {
    let Some((field, label)) = lsm() else { return skip("neither AppArmor nor SELinux on this kernel") };
    let mut b = cx.bundle()?;
    b.set(field, json!(label)).probe(&["json"]);
    let out = b.run()?;
    if refused_as_missing(&out) {
        return skip("labels are not there yet");
    }
    let seen = out.ok()?.json()?;
    ensure!(seen["lsm"].as_str().is_some_and(|l| l.contains(label)), "the label is {}", seen["lsm"]);
    Ok(String::new())
}

/// The field and a label that the kernel's security module would take.
fn lsm() -> Option<(&'static str, &'static str)> {
    if Path::new("/sys/kernel/security/apparmor/profiles").exists()
        || Path::new("/sys/module/apparmor").exists()
    {
        return Some(("/process/apparmorProfile", "unconfined"));
    }
    Path::new("/sys/fs/selinux/enforce")
        .exists()
        .then_some(("/process/selinuxLabel", "system_u:system_r:container_t:s0"))
}

/// A bundle whose root is an ordinary user outside; skips where the runtime does not have that yet.
fn with_user_namespace<'a>(cx: &'a Cx) -> Result<crate::bundle::Bundle<'a>> {
    let mut b = cx.bundle()?;
    b.push("/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    b.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    // The mapped root owns its files, and can reach them.
    let mut todo = vec![b.rootfs()];
    while let Some(path) = todo.pop() {
        std::os::unix::fs::lchown(&path, Some(100_000), Some(100_000))?;
        if path.symlink_metadata()?.is_dir() {
            todo.extend(fs::read_dir(&path)?.flatten().map(|e| e.path()));
        }
    }
    b.save()?;
    let c = b.container();
    let out = c.create(&[])?;
    if refused_as_missing(&out) {
        return skip("user namespaces are not there yet");
    }
    out.ok()?;
    c.delete_force()?;
    Ok(b)
}

/// T51: without a cgroup namespace, a user namespace's root must not write to the cgroups of the host.
pub fn rootless_cgroup_ro(cx: &Cx) -> Result<String> {
    let mut b = with_user_namespace(cx)?;
    b.without_namespace("cgroup");
    // On v1 the top is a tmpfs of the container's own.
    let dir = if cx.unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let (procs, made) = (format!("{dir}/cgroup.procs"), format!("{dir}/made"));
    let said = b.answers(&[&["write", &procs, "1"], &["create", &made, "x"], &["mkdir", &made]])?.join(" ");
    ensure!(!said.split(' ').any(|answer| answer == "ok"), "it could write: {said}");
    Ok(said)
}

/// T53: what a user namespace's root gets of its cgroup is the kernel's list for delegation, no more.
pub fn delegation_owner(cx: &Cx) -> Result<String> {
    let mut b = with_user_namespace(cx)?;
    b.probe(&["sleep"]);
    let list = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_default();
    let c = b.start()?;
    let pid = c.pid()?;
    let dir = crate::cgroup::directory_of(pid, "pids")?;
    let mut foreign = vec![];
    for entry in fs::read_dir(&dir)?.flatten() {
        use std::os::unix::fs::MetadataExt;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.metadata()?.uid() == 100_000 && !list.lines().any(|l| l == name) {
            foreign.push(name);
        }
    }
    c.delete_force()?;
    ensure!(foreign.is_empty(), "also given away: {foreign:?}");
    Ok(String::new())
}

/// T70: a checkpoint is data, not a configuration.
pub fn restore_hostile(cx: &Cx) -> Result<String> {
    let b = cx.bundle()?;
    b.save()?;
    let out = cx.bare(&["restore", "--help"]).run()?;
    if out.code != 0 || !out.stdout.contains("image-path") {
        return skip("no restore yet");
    }
    if !["/usr/sbin/criu", "/usr/bin/criu", "/usr/local/sbin/criu"]
        .iter()
        .any(|path| Path::new(path).exists())
    {
        return skip("no criu");
    }
    let canary = Canary::new(&cx.path("canary"))?;
    let before = cx.snapshot()?;
    // What an image directory from elsewhere may hold where files are read, and where some are written.
    let hostile: [(&str, &[&str], &str); 4] = [
        ("links", &["descriptors.json", "inventory.img", "config.json", "stats-restore", "restore.log"], ""),
        ("logs", &["stats-restore", "restore.log"], ""),
        ("descriptors", &[], "[\"/dev/null\",\"/proc/1/root\",\"/etc/passwd\",\"pipe:[1]\"]"),
        ("rubbish", &[], "{\"a\":[[[[1"),
    ];
    for (name, links, descriptors) in hostile {
        let image = cx.path(name);
        fs::create_dir(&image)?;
        for link in links {
            symlink(canary.dir.join("file"), image.join(link))?;
        }
        if !descriptors.is_empty() {
            fs::write(image.join("descriptors.json"), descriptors)?;
        }
        let image_name = image.display().to_string();
        let out = cx.rt(&["restore", "--image-path", &image_name, "--bundle", &b.path(), &cx.id()])?;
        sane(&out)?;
        ensure!(out.code != 0, "{name}: it was restored");
        canary.same().with_context(|| format!("image {name}"))?;
        cx.nothing_left(&before).with_context(|| format!("image {name}"))?;
    }
    Ok(String::new())
}
