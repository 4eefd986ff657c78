//! Hooks of all six kinds: order, what they get, where they run, timeouts, and what a failing one does.

use super::tests;
use crate::bundle::Bundle;
use crate::container::reap;
use crate::cx::{Cx, eq, same, wait_for};
use crate::sys;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

tests!["hooks":
    order deviates ["runc" = "1.3 runs poststart hooks at create", "crun" = "poststart hooks race with startContainer hooks"],
    state_on_stdin deviates ["runc" = "1.3 runs poststart hooks at create", "crun" = "tells createContainer hooks pid 0"],
    statuses deviates ["runc" = "1.3 runs poststart hooks at create", "crun" = "tells `created` to the first three kinds"],
    several_of_one_kind_in_order,
    arguments_and_environment,
    arguments_absent,
    namespaces_of_runtime_hooks,
    namespaces_of_container_hooks,
    create_runtime_sees_the_new_process,
    create_container_before_read_only_root,
    create_container_acts_for_the_runtime deviates ["crun" = "runs in the bundle, without the runtime's umask"],
    start_container_has_the_environment_of_the_program,
    start_container_under_the_filter deviates ["runc" = "1.3 ends with 255 then", "crun" = "loads it after the hooks"],
    start_container_runs_in_the_container,
    start_container_waits_for_start,
    poststart_before_start_returns deviates ["runc" = "1.3 runs poststart hooks at create"],
    poststop_after_delete,
    poststop_after_run_and_force,
    descriptors deviates ["runc" = "gives createContainer hooks those of its init"],
    hook_that_never_reads,
    hook_while_the_group_is_stopped deviates ["runc" = "its own stage stops, and it waits for that"],
    big_state,
    timeout,
    timeout_of_one_that_prints_without_end,
    timeout_of_one_that_leaves_its_group deviates ["runc" = "waits until nobody holds the pipes"],
    timeout_not_reached,
    timeout_beyond_the_clock deviates ["runc" = "takes it for one that is over", "crun" = "refuses it"],
    directory_of_runtime_hooks,
    prestart_fails,
    create_runtime_fails,
    create_container_fails,
    start_container_fails,
    poststart_fails deviates ["runc" = "1.3 runs poststart hooks at create", "crun" = "only warns"],
    poststop_fails deviates ["runc" = "does not run the rest"],
    failure_tells_output_of_hook deviates ["crun" = "does not collect it"],
    failing_create_runs_poststop deviates ["crun" = "does not"],
    failing_create_ends_what_hooks_have_left,
    background_child_does_not_hold_create deviates ["runc" = "waits until nobody holds the pipes"],
    background_child_that_prints_without_end deviates ["runc" = "waits until nobody holds the pipes", "crun" = "ends with 255"],
];

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The records a hook wrote.
fn records(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| format!("no record {}", file.display()))?;
    text.lines().map(|l| Ok(serde_json::from_str(l)?)).collect()
}

fn record(file: &Path) -> Result<Value> {
    let all = records(file)?;
    ensure!(all.len() == 1, "{} calls of a hook", all.len());
    Ok(all[0].clone())
}

fn stdin_of(record: &Value) -> Result<Value> {
    let text = record["stdin"].as_str().unwrap_or_default();
    serde_json::from_str(text).with_context(|| format!("stdin of the hook: {text:?}"))
}

/// A hook of every kind that writes to one file; startContainer's is in the root filesystem.
fn all_kinds(b: &mut Bundle) -> std::path::PathBuf {
    let file = b.rootfs().join("hooks");
    for kind in KINDS {
        let (path, target) = if kind == "startContainer" {
            ("/bin/probe".to_string(), "/hooks".to_string())
        } else {
            (b.cx.probe.display().to_string(), file.display().to_string())
        };
        b.push(
            &format!("/hooks/{kind}"),
            json!({"path": path, "args": ["probe", "hook", target, "kind", kind]}),
        );
    }
    file
}

fn kinds(records: &[Value]) -> Vec<String> {
    records
        .iter()
        .map(|r| r["args"].as_array().and_then(|a| a.last()).and_then(Value::as_str).unwrap_or("?").into())
        .collect()
}

fn order(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let file = all_kinds(&mut b);
    b.probe(&["append", "/program", "x"]);
    let c = b.create()?;
    eq("after create", kinds(&records(&file)?), KINDS[..3].to_vec())?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    eq("after start", kinds(&records(&file)?), KINDS[..5].to_vec())?;
    c.delete()?.ok()?;
    eq("after delete", kinds(&records(&file)?), KINDS.to_vec())
}

fn state_on_stdin(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/annotations", json!({"org.example.hook": "a b\"c"}));
    let file = all_kinds(&mut b);
    let c = b.create()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    c.delete()?.ok()?;
    for (kind, r) in KINDS.iter().zip(records(&file)?) {
        let s = stdin_of(&r)?;
        let check = || -> Result<()> {
            same("id", &s["id"], json!(c.id))?;
            same("bundle", &s["bundle"], json!(b.path()))?;
            same("annotations", &s["annotations"], json!({"org.example.hook": "a b\"c"}))?;
            ensure!(
                s["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")),
                "ociVersion {}",
                s["ociVersion"]
            );
            match *kind {
                "createContainer" | "startContainer" => {
                    ensure!(s["pid"].as_i64().unwrap_or(0) > 0, "pid {}", s["pid"])
                }
                "poststop" => ensure!(s["pid"].as_i64().unwrap_or(0) == 0, "pid {}", s["pid"]),
                _ => same("pid", &s["pid"], json!(pid))?,
            }
            Ok(())
        };
        check().with_context(|| kind.to_string())?;
    }
    Ok(())
}

fn statuses(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let file = all_kinds(&mut b);
    b.run()?.ok()?;
    let got: Vec<String> = records(&file)?
        .iter()
        .map(|r| Ok(stdin_of(r)?["status"].as_str().unwrap_or_default().to_string()))
        .collect::<Result<_>>()?;
    eq("statuses", got, vec!["creating", "creating", "creating", "created", "running", "stopped"])
}

fn several_of_one_kind_in_order(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let file = cx.path("several");
    let probe = cx.probe.display().to_string();
    for kind in ["createRuntime", "poststop"] {
        for n in ["1", "2", "3"] {
            let args = json!(["probe", "hook", file.display().to_string(), "n", n]);
            b.push(&format!("/hooks/{kind}"), json!({"path": probe, "args": args}));
        }
    }
    b.run()?.ok()?;
    eq("order", kinds(&records(&file)?), vec!["1", "2", "3", "1", "2", "3"])
}

fn arguments_and_environment(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let file = cx.path("hook");
    let probe = cx.probe.display().to_string();
    b.push(
        "/hooks/createRuntime",
        json!({"path": probe, "args": ["other name", "hook", file.display().to_string(), "", "a b"], "env": ["A=1", "B=x y=z", "E="]}),
    );
    b.run()?.ok()?;
    let r = record(&file)?;
    same("args", &r["args"], json!(["other name", "hook", file.display().to_string(), "", "a b"]))?;
    same("environ", &r["environ"], json!(["A=1", "B=x y=z", "E="]))
}

/// `args` is optional: the program is then called with its path or nothing as name.
fn arguments_absent(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.push("/hooks/createRuntime", json!({"path": cx.probe.display().to_string()}));
    b.run()?.ok()?;
    Ok(())
}

fn own_namespaces() -> Result<Value> {
    let mut v = json!({});
    for entry in fs::read_dir("/proc/self/ns")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        v[&name] = json!(fs::read_link(entry.path())?.display().to_string());
    }
    Ok(v)
}

fn namespaces_of_runtime_hooks(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let files: Vec<_> = ["prestart", "createRuntime", "poststart", "poststop"]
        .map(|k| (k, b.hook(k, &[])))
        .into_iter()
        .collect();
    b.run()?.ok()?;
    let own = own_namespaces()?;
    for (kind, file) in files {
        let r = record(&file)?;
        for name in ["mnt", "net", "ipc", "uts", "pid", "cgroup", "user"] {
            same(&format!("{kind}: {name}"), &r["ns"][name], own[name].clone())?;
        }
    }
    Ok(())
}

fn namespaces_of_container_hooks(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let first = b.hook("createContainer", &[]);
    b.push("/hooks/startContainer", json!({"path": "/bin/probe", "args": ["probe", "hook", "/started"]}));
    let inside = b.inside()?;
    for file in [first, b.rootfs().join("started")] {
        let r = record(&file)?;
        // runc and crun enter the cgroup namespace later or earlier: either is fine.
        for name in ["mnt", "net", "ipc", "uts", "pid"] {
            same(&format!("{}: {name}", file.display()), &r["ns"][name], inside["ns"][name].clone())?;
        }
    }
    Ok(())
}

/// The namespaces are there, the process is in its cgroup; an engine sets up the network from here.
fn create_runtime_sees_the_new_process(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    let mut b = cx.bundle()?;
    let files = [b.hook("prestart", &[]), b.hook("createRuntime", &[])];
    let cgroup = b.config["linux"]["cgroupsPath"].as_str().unwrap_or_default().to_string();
    let inside = b.inside()?;
    for file in files {
        let r = record(&file)?;
        let peer = &r["extra"]["peer"];
        for name in ["mnt", "net", "ipc", "uts"] {
            same(name, &peer["ns"][name], inside["ns"][name].clone())?;
        }
        let lines = peer["cgroup"].to_string();
        ensure!(lines.contains(&cgroup), "not in its cgroup {cgroup}: {lines}");
    }
    Ok(())
}

fn create_container_before_read_only_root(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/root/readonly", json!(true));
    let target = b.rootfs().join("made").display().to_string();
    let file = b.hook("createContainer", &["try", &target]);
    b.expect(&[(&["write", "/made", "y"], "EROFS")])?;
    same("write from the hook", &record(&file)?["extra"][format!("try {target}")], json!("ok"))
}

/// Its path and its files are the container's, with the container's environment unless it has its own.
fn start_container_runs_in_the_container(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::write(b.rootfs().join("only-inside"), "")?;
    b.push(
        "/hooks/startContainer",
        json!({"path": "/bin/probe", "args": ["probe", "hook", "/started"], "env": ["S=1"]}),
    );
    b.run()?.ok()?;
    let r = record(&b.rootfs().join("started"))?;
    ensure!(r["root"].to_string().contains("only-inside"), "root {}", r["root"]);
    same("environ", &r["environ"], json!(["S=1"]))
}

/// With its capabilities and umask, from the directory of the container's root; all as before for the program.
fn create_container_acts_for_the_runtime(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let first = b.hook("createRuntime", &[]);
    let file = b.hook("createContainer", &[]);
    let inside = b.inside()?;
    let (own, r) = (record(&first)?, record(&file)?);
    same("cwd", &r["cwd"], json!(b.rootfs()))?;
    same("umask", &r["umask"], own["umask"].clone())?;
    for set in ["bounding", "permitted", "effective"] {
        same(set, &r["caps"][set], own["caps"][set].clone())?;
    }
    ensure!(inside["caps"]["bounding"] != r["caps"]["bounding"], "the program has all: {}", inside["caps"]);
    same("cwd of the program", &inside["cwd"], json!("/"))
}

/// Unless it has one of its own.
fn start_container_has_the_environment_of_the_program(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/env", json!(["ONE=two=2", "PATH=/bin"]));
    b.push("/hooks/startContainer", json!({"path": "/bin/probe", "args": ["probe", "hook", "/started"]}));
    b.run()?.ok()?;
    let r = record(&b.rootfs().join("started"))?;
    for entry in ["ONE=two=2", "PATH=/bin"] {
        ensure!(r["environ"].as_array().is_some_and(|all| all.contains(&json!(entry))), "{}", r["environ"]);
    }
    Ok(())
}

/// It is the last that acts before the program and may come from the image.
fn start_container_under_the_filter(cx: &Cx) -> Result<()> {
    for no_new_privileges in [true, false] {
        let mut b = cx.bundle()?;
        b.set("/process/noNewPrivileges", json!(no_new_privileges));
        b.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]));
        b.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["getpriority"], "action": "SCMP_ACT_KILL_PROCESS"}]}),
        );
        let hook = |call: &str| json!({"path": "/bin/probe", "args": ["probe", "syscall", call]});
        b.push("/hooks/startContainer", hook("getppid"));
        b.run()?.ok()?;
        b.push("/hooks/startContainer", hook("getpriority"));
        b.run()?.fails(&["error running startContainer hook #1", "signal: bad system call"])?;
    }
    Ok(())
}

fn start_container_waits_for_start(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.push("/hooks/startContainer", json!({"path": "/bin/probe", "args": ["probe", "hook", "/started"]}));
    let c = b.create()?;
    std::thread::sleep(std::time::Duration::from_millis(20));
    ensure!(!b.rootfs().join("started").exists(), "it ran before start");
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    ensure!(b.rootfs().join("started").exists(), "it did not run");
    c.delete()?.ok()?;
    Ok(())
}

fn poststart_before_start_returns(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let file = b.hook("poststart", &["sleep", "100"]);
    let c = b.create()?;
    ensure!(!file.exists(), "it ran before start");
    let out = c.start()?.ok()?;
    ensure!(out.took.as_millis() >= 100, "start did not wait for it");
    record(&file)?;
    c.end()
}

fn poststop_after_delete(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let state = cx.root.display().to_string();
    let file = b.hook("poststop", &["stat", &state]);
    let c = b.create()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    ensure!(!file.exists(), "it ran before delete");
    c.delete()?.ok()?;
    same("status", &stdin_of(&record(&file)?)?["status"], json!("stopped"))
}

fn poststop_after_run_and_force(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let file = b.hook("poststop", &[]);
    b.run()?.ok()?;
    record(&file)?;
    fs::remove_file(&file)?;
    b.probe(&["sleep"]);
    b.start()?.delete_force()?;
    record(&file)?;
    Ok(())
}

fn descriptors(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let files: Vec<_> = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
        .map(|k| (k, b.hook(k, &[])))
        .into_iter()
        .collect();
    b.run()?.ok()?;
    for (kind, file) in files {
        let r = record(&file)?;
        let numbers: Vec<&String> = r["fds"].as_object().map(|o| o.keys().collect()).unwrap_or_default();
        eq(&format!("descriptors of {kind}: {}", r["fds"]), numbers, vec!["0", "1", "2"])?;
    }
    Ok(())
}

fn hook_that_never_reads(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/annotations", json!({"big": "x".repeat(300_000)}));
    let probe = cx.probe.display().to_string();
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        b.push(&format!("/hooks/{kind}"), json!({"path": probe, "args": ["probe", "true"]}));
    }
    b.run()?.ok()?;
    Ok(())
}

/// ^Z is for the program, not for what the runtime has started beside itself.
fn hook_while_the_group_is_stopped(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let line = "kill -s TSTP -- -$PPID";
    b.push("/hooks/createRuntime", json!({"path": "/bin/sh", "args": ["sh", "-c", line]}));
    b.save()?;
    let mut run = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]);
    run.command().process_group(0);
    run.limit(Duration::from_secs(10)).run()?.ok()?;
    Ok(())
}

/// More than a pipe holds.
fn big_state(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/annotations", json!({"big": "x".repeat(300_000)}));
    let file = b.hook("createRuntime", &[]);
    b.run()?.ok()?;
    eq("size", stdin_of(&record(&file)?)?["annotations"]["big"].as_str().map(str::len), Some(300_000))
}

fn timeout(cx: &Cx) -> Result<()> {
    for kind in ["createRuntime", "createContainer"] {
        let mut b = cx.bundle()?;
        let args = json!(["probe", "sleep", "20000"]);
        b.push(
            &format!("/hooks/{kind}"),
            json!({"path": cx.probe.display().to_string(), "args": args, "timeout": 1}),
        );
        b.save()?;
        let before = cx.snapshot()?;
        let out = b.container().create(&[])?;
        ensure!(out.code != 0, "{kind}: create succeeded");
        let ms = out.took.as_millis();
        ensure!((900..4000).contains(&ms), "{kind}: create took {ms} ms with a timeout of 1 s");
        cx.nothing_left(&before)?;
    }
    Ok(())
}

/// startContainer hooks lie in the image.
fn timeout_of_one_that_prints_without_end(cx: &Cx) -> Result<()> {
    let outside = cx.probe.display().to_string();
    for (kind, path) in
        [("createRuntime", &outside[..]), ("createContainer", &outside), ("startContainer", "/bin/probe")]
    {
        let mut b = cx.bundle()?;
        b.push(&format!("/hooks/{kind}"), json!({"path": path, "args": ["probe", "flood"], "timeout": 1}));
        b.may_come_first().save()?;
        let before = cx.snapshot()?;
        let mut run = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).limit(Duration::from_secs(5));
        sys::on_one_processor(run.command())?;
        let run = run.run()?;
        ensure!(run.code != 0, "{kind}: run succeeded");
        let ms = run.took.as_millis();
        ensure!((900..4000).contains(&ms), "{kind}: run took {ms} ms with a timeout of 1 s");
        cx.nothing_left(&before)?;
    }
    Ok(())
}

fn timeout_of_one_that_leaves_its_group(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let args = json!(["probe", "seq", "leave-group", "---", "sleep", "20000"]);
    b.push("/hooks/startContainer", json!({"path": "/bin/probe", "args": args, "timeout": 1}));
    b.save()?;
    let before = cx.snapshot()?;
    let run = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).limit(Duration::from_secs(5)).run()?;
    ensure!(run.code != 0, "run succeeded");
    cx.nothing_left(&before)
}

fn timeout_not_reached(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let args = json!(["probe", "sleep", "10"]);
    b.push(
        "/hooks/createRuntime",
        json!({"path": cx.probe.display().to_string(), "args": args, "timeout": 30}),
    );
    let out = b.run()?.ok()?;
    ensure!(out.took.as_millis() < 5000, "waited for the timeout: {:?}", out.took);
    Ok(())
}

/// A failing hook at create: an error that names it, nothing left, the program never ran, later hooks neither.
fn fails_at_create(cx: &Cx, kind: &str) -> Result<()> {
    for command in ["create", "run"] {
        let mut b = cx.bundle()?;
        b.probe(&["append", "/ran", "x"]);
        let failing = b.hook(kind, &["exit", "3"]);
        let later = b.hook(kind, &[]);
        b.save()?;
        let before = cx.snapshot()?;
        let out = cx.rt(&[command, "--bundle", &b.path(), &cx.id()])?;
        ensure!(out.code != 0, "{command} succeeded");
        if cx.kind != "crun" {
            out.fails(&[&format!("error running {kind} hook #0")])?.one_line()?;
        }
        record(&failing)?;
        ensure!(!later.exists(), "the next hook ran");
        ensure!(!b.rootfs().join("ran").exists(), "the program ran");
        cx.nothing_left(&before)?;
    }
    Ok(())
}

fn prestart_fails(cx: &Cx) -> Result<()> {
    fails_at_create(cx, "prestart")
}

fn create_runtime_fails(cx: &Cx) -> Result<()> {
    fails_at_create(cx, "createRuntime")
}

fn create_container_fails(cx: &Cx) -> Result<()> {
    fails_at_create(cx, "createContainer")
}

/// The error comes from the init process; the program must not run and delete must work.
fn start_container_fails(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["append", "/ran", "x"]);
    b.push(
        "/hooks/startContainer",
        json!({"path": "/bin/probe", "args": ["probe", "hook", "/started", "exit", "1"]}),
    );
    b.push("/hooks/startContainer", json!({"path": "/bin/probe", "args": ["probe", "hook", "/later"]}));
    let c = b.create()?;
    let pid = c.pid()?;
    c.start()?;
    ensure!(reap(pid)? != 0, "init ended with 0");
    ensure!(b.rootfs().join("started").exists(), "the hook did not run");
    ensure!(!b.rootfs().join("later").exists(), "the next hook ran");
    ensure!(!b.rootfs().join("ran").exists(), "the program ran");
    c.delete_force()?;
    ensure!(b.run()?.code != 0, "run ended with 0");
    ensure!(!b.rootfs().join("ran").exists(), "the program ran");
    Ok(())
}

/// runtime-spec 1.3: an error, and the container is stopped and destroyed.
fn poststart_fails(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    b.hook("poststart", &["exit", "1"]);
    let c = b.create()?;
    let pid = c.pid()?;
    c.start()?.fails(&["error running poststart hook #0"])?;
    ensure!(reap(pid)? == 137, "init was not killed");
    c.delete_force()?;
    Ok(())
}

/// A failing one must not keep the others from running nor the container from going.
fn poststop_fails(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.save()?;
    let before = cx.snapshot()?;
    b.hook("poststop", &["exit", "1"]);
    let later = b.hook("poststop", &[]);
    let c = b.create()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    let out = c.delete()?;
    cx.nothing_left(&before)?;
    ensure!(later.exists(), "the next hook did not run");
    out.ok()?;
    Ok(())
}

fn failure_tells_output_of_hook(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.hook("createRuntime", &["say", "words on stdout", "err", "words on stderr", "exit", "1"]);
    b.save()?;
    b.container().create(&[])?.fails(&["words on stderr"])?;
    Ok(())
}

fn failing_create_runs_poststop(cx: &Cx) -> Result<()> {
    for kind in ["createRuntime", "createContainer"] {
        let mut b = cx.bundle()?;
        b.hook(kind, &["exit", "1"]);
        let after = b.hook("poststop", &[]);
        b.save()?;
        ensure!(b.container().create(&[])?.code != 0, "{kind}: create succeeded");
        ensure!(after.exists(), "{kind}: the poststop hook did not run");
    }
    let mut b = cx.bundle()?;
    b.push("/hooks/startContainer", json!({"path": "/bin/probe", "args": ["probe", "exit", "1"]}));
    let after = b.hook("poststop", &[]);
    ensure!(b.run()?.code != 0, "run succeeded");
    ensure!(after.exists(), "startContainer: the poststop hook did not run");
    Ok(())
}

/// A process of a hook that ran inside is in the container's cgroup; in a pid namespace with others nothing else ends it.
fn failing_create_ends_what_hooks_have_left(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.without_namespace("pid").remove("/linux/maskedPaths");
    let line = format!("{} sleep 20000 >/dev/null 2>&1 & exit 0", cx.probe.display());
    b.push("/hooks/createContainer", json!({"path": "/bin/sh", "args": ["sh", "-c", line]}));
    b.set("/process/args", json!(["/bin/absent"])).save()?;
    let before = cx.snapshot()?;
    ensure!(b.container().create(&[])?.code != 0, "create succeeded");
    cx.nothing_left(&before)
}

/// Longer than any clock shows is no limit.
fn timeout_beyond_the_clock(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let file = b.hook("createRuntime", &[]);
    b.set("/hooks/createRuntime/0/timeout", json!(i64::MAX)).save()?;
    b.run()?.ok()?;
    record(&file).map(drop)
}

/// Their configuration may name files of the bundle.
fn directory_of_runtime_hooks(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let file = b.hook("createRuntime", &[]);
    b.save()?;
    let run = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).cwd("/");
    run.run()?.ok()?;
    same("cwd", &record(&file)?["cwd"], json!(b.path()))
}

/// A daemon that a hook leaves behind keeps its copies of the pipes open.
fn background_child_does_not_hold_create(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let line = format!("{} sleep 3000 & exit 0", cx.probe.display());
    b.push("/hooks/createRuntime", json!({"path": "/bin/sh", "args": ["sh", "-c", line]}));
    b.save()?;
    let c = b.container();
    let out = c.create(&[])?.ok()?;
    ensure!(out.took.as_millis() < 2500, "create waited for the child of a hook: {:?}", out.took);
    c.delete_force()?;
    // It may not have become the probe yet.
    let left = wait_for("the child of the hook", || {
        let mut found = None;
        for entry in fs::read_dir("/proc")?.flatten() {
            let text = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if text.contains("sleep\x003000") {
                found = entry.file_name().to_string_lossy().parse::<i32>().ok();
            }
        }
        Ok(found)
    })?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(left), nix::sys::signal::Signal::SIGKILL)?;
    Ok(())
}

/// Whoever prints on does not hide the hook's own end.
fn background_child_that_prints_without_end(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let probe = cx.probe.display().to_string();
    let hook = |code: i32| {
        let line = format!("probe seq say words --- background flood --- sleep 50 --- exit {code}");
        json!({"path": probe, "args": line.split(' ').collect::<Vec<_>>()})
    };
    let create = |b: &Bundle, id: &str| {
        b.save()?;
        let mut create = cx.cmd(&["create", "--bundle", &b.path(), id]).limit(Duration::from_secs(4));
        sys::on_one_processor(create.command())?;
        create.run()
    };
    b.set("/hooks/createRuntime", json!([hook(0)]));
    let c = b.container();
    create(&b, &c.id)?.ok()?;
    c.delete_force()?;
    b.set("/hooks/createRuntime", json!([hook(3)]));
    create(&b, &cx.id())?.fails(&["exit status 3", "words"])?;
    Ok(())
}
