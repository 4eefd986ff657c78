//! `exec`: a further process in a running container.

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
    environment,
    environment_with_newline_and_commas,
    cwd deviates ["crun" = "starts in /"],
    cwd_missing,
    user deviates ["crun" = "takes no group from the config"],
    user_bad deviates ["runc" = "4294967296 is user 0", "crun" = "exits with 1"],
    additional_gids deviates ["crun" = "has no such flag"],
    home,
    capabilities_like_config,
    capabilities_added deviates ["crun" = "takes none from the config then"],
    no_new_privs deviates ["crun" = "takes nothing from the config"],
    seccomp_like_config,
    umask_and_rlimits_like_config deviates ["crun" = "takes no limits from the config"],
    process_file,
    process_file_does_not_inherit,
    process_file_all_fields,
    process_file_umask deviates ["runc" = "takes the one of the config"],
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
    path_from_environment,
    dies_with_the_container,
    no_descriptor_leaks,
];

fn sleeping(cx: &Cx) -> Result<Container<'_>> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    b.start()
}

fn process(args: &[&str]) -> Value {
    let mut all = vec!["/bin/probe"];
    all.extend(args);
    json!({"args": all, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]})
}

/// Runs `exec --process` with this object.
fn with_file(c: &Container, process: &Value, flags: &[&str]) -> Result<crate::cx::Out> {
    let file = c.cx.path(&format!("process.{}", c.cx.next()));
    fs::write(&file, process.to_string())?;
    let file = file.display().to_string();
    let mut args = vec!["exec", "--process", &file];
    args.extend(flags);
    args.push(&c.id);
    c.cx.rt(&args)
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
        v[entry.file_name().to_string_lossy().into_owned()] = json!(fs::read_link(entry.path())?.display().to_string());
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
    let mut got: Vec<String> =
        inside["cgroup"].as_array().context("cgroup")?.iter().filter_map(|l| l.as_str().map(String::from)).collect();
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

fn environ(v: &Value) -> Vec<String> {
    v["environ"].as_array().map(|a| a.iter().filter_map(|s| s.as_str().map(String::from)).collect()).unwrap_or_default()
}

/// The config's variables and those of the command line; the last of equal names wins.
fn environment(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/env", json!(["PATH=/bin", "FROM=config", "SAME=config"])).probe(&["sleep"]);
    let c = b.start()?;
    let got = environ(&c.exec_inside(&["-e", "ADDED=1", "-e", "SAME=2", "-e", "TWICE=1", "-e", "TWICE=2"])?);
    for wanted in ["PATH=/bin", "FROM=config", "ADDED=1", "SAME=2", "TWICE=2"] {
        ensure!(got.iter().any(|v| v == wanted), "no {wanted} in {got:?}");
    }
    let last = |name: &str| got.iter().rfind(|v| v.starts_with(name)).cloned();
    eq("the last of SAME", last("SAME="), Some("SAME=2".into()))?;
    eq("the last of TWICE", last("TWICE="), Some("TWICE=2".into()))?;
    let got = environ(&c.exec_inside(&["--env", "A=1", "--env=B=2"])?);
    ensure!(got.contains(&"A=1".into()) && got.contains(&"B=2".into()), "{got:?}");
    c.end()
}

fn environment_with_newline_and_commas(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let got = environ(&c.exec_inside(&["-e", "N=a\nb", "-e", "C=1,2,3", "-e", "E=", "-e", "Q==="])?);
    for wanted in ["N=a\nb", "C=1,2,3", "E=", "Q==="] {
        ensure!(got.iter().any(|v| v == wanted), "no {wanted:?} in {got:?}");
    }
    c.end()
}

fn cwd(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/cwd", json!("/home")).probe(&["sleep"]);
    let c = b.start()?;
    same("default", &c.exec_inside(&[])?["cwd"], json!("/home"))?;
    same("--cwd", &c.exec_inside(&["--cwd", "/tmp"])?["cwd"], json!("/tmp"))?;
    c.end()
}

fn cwd_missing(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let out = c.exec(&["--cwd", "/absent"], &["json"])?;
    // Creating it, as at create, is allowed; running elsewhere is not.
    if out.code == 0 {
        same("cwd", &out.json()?["cwd"], json!("/absent"))?;
    } else {
        ensure!(out.stderr.contains("/absent"), "stderr {}", out.stderr);
    }
    c.end()
}

fn user(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7]})).probe(&["sleep"]);
    let c = b.start()?;
    for (flag, value, uid, gid) in
        [("--user", "1000:2000", 1000, 2000), ("-u", "1000", 1000, 6), ("--user", "0:0", 0, 0)]
    {
        let v = c.exec_inside(&[flag, value])?;
        same("uid", &v["uid"], json!([uid, uid, uid]))?;
        same("gid", &v["gid"], json!([gid, gid, gid]))?;
    }
    let v = c.exec_inside(&[])?;
    same("uid", &v["uid"], json!([5, 5, 5]))?;
    same("groups", &v["groups"], json!([7]))?;
    c.end()
}

/// Only numbers: a name from the image must not decide (CVE-2016-3697).
fn user_bad(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for value in ["root", ":", "1:", "1:x", "-1", "4294967296", "1 ", "0x1", "1:2:3"] {
        let out = c.exec(&["--user", value], &["json"])?;
        ensure!(out.code == 255, "--user {value:?}: exit {} {}{}", out.code, out.stdout, out.stderr);
    }
    c.end()
}

fn additional_gids(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for flag in ["--additional-gids", "-g"] {
        let v = c.exec_inside(&[flag, "100", flag, "65534", "--user", "1000"])?;
        let mut groups: Vec<i64> =
            v["groups"].as_array().context("groups")?.iter().filter_map(Value::as_i64).filter(|g| *g != 0).collect();
        groups.sort();
        eq("groups", groups, vec![100, 65534])?;
    }
    c.end()
}

/// From the container's passwd file by number, not by name; `/` when it is not there.
fn home(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for (user, home) in [("0", "HOME=/root"), ("1000", "HOME=/home/user"), ("1001", "HOME=/"), ("4000", "HOME=/")] {
        let got = environ(&c.exec_inside(&["--user", user])?);
        let homes: Vec<&String> = got.iter().filter(|v| v.starts_with("HOME=")).collect();
        eq(&format!("home of {user}"), homes, vec![home])?;
    }
    let got = environ(&c.exec_inside(&["--user", "1000", "-e", "HOME=/mine"])?);
    ensure!(got.contains(&"HOME=/mine".to_string()), "{got:?}");
    c.end()
}

fn capabilities_like_config(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let v = c.exec_inside(&[])?;
    let bits = "0000000020000420";
    for set in ["permitted", "effective", "bounding"] {
        same(set, &v["caps"][set], json!(bits))?;
    }
    same("inheritable", &v["caps"]["inheritable"], json!("0000000000000000"))?;
    same("ambient", &v["caps"]["ambient"], json!("0000000000000000"))?;
    c.end()
}

/// `--cap` goes to bounding, permitted and effective; inheritable stays as it was (CVE-2022-27650).
fn capabilities_added(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for flag in ["--cap", "-c"] {
        let v = c.exec_inside(&[flag, "CAP_SYS_CHROOT"])?;
        let bits = "0000000020040420";
        for set in ["permitted", "effective", "bounding"] {
            same(set, &v["caps"][set], json!(bits))?;
        }
        same("inheritable", &v["caps"]["inheritable"], json!("0000000000000000"))?;
    }
    c.end()
}

fn no_new_privs(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/noNewPrivileges", json!(false)).probe(&["sleep"]);
    let c = b.start()?;
    same("off", &c.exec_inside(&[])?["no_new_privs"], json!("0"))?;
    same("on", &c.exec_inside(&["--no-new-privs"])?["no_new_privs"], json!("1"))?;
    c.end()?;
    let c = sleeping(cx)?;
    same("of the config", &c.exec_inside(&[])?["no_new_privs"], json!("1"))?;
    c.end()
}

fn seccomp_like_config(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
               "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}),
    );
    b.probe(&["sleep"]);
    let c = b.start()?;
    let out = c.exec(&[], &["seq", "syscall", "getcwd", "---", "syscall", "getpid"])?.ok()?;
    eq("calls", out.lines(), vec!["EACCES", "ok"])?;
    same("mode", &c.exec_inside(&[])?["seccomp"], json!("2"))?;
    c.end()
}

fn umask_and_rlimits_like_config(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/user/umask", json!(0o27))
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]))
        .set("/process/oomScoreAdj", json!(321))
        .probe(&["sleep"]);
    let c = b.start()?;
    let v = c.exec_inside(&[])?;
    same("umask", &v["umask"], json!(0o27))?;
    same("nofile", &v["rlimits"]["RLIMIT_NOFILE"], json!([100, 200]))?;
    same("oom_score_adj", &v["oom_score_adj"], json!("321"))?;
    c.end()
}

fn process_file(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    for flag in ["--process", "-p"] {
        let file = cx.path("process.json");
        let mut p = process(&["json"]);
        p["env"] = json!(["A=1", "PATH=/nowhere"]);
        p["cwd"] = json!("/tmp");
        p["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [4, 5]});
        fs::write(&file, p.to_string())?;
        let v = cx.rt(&["exec", flag, &file.display().to_string(), &c.id])?.ok()?.json()?;
        same("uid", &v["uid"], json!([1000, 1000, 1000]))?;
        same("groups", &v["groups"], json!([4, 5]))?;
        same("cwd", &v["cwd"], json!("/tmp"))?;
        let env = environ(&v);
        ensure!(env.contains(&"A=1".into()) && env.contains(&"HOME=/home/user".into()), "env {env:?}");
    }
    c.end()
}

/// What the file leaves out is off, not taken from the config.
fn process_file_does_not_inherit(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/env", json!(["PATH=/bin", "FROM=config"])).set("/process/cwd", json!("/tmp")).probe(&["sleep"]);
    b.set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7]}));
    let c = b.start()?;
    let v = with_file(&c, &process(&["json"]), &[])?.ok()?.json()?;
    ensure!(!environ(&v).iter().any(|e| e.starts_with("FROM=")), "env {:?}", environ(&v));
    same("cwd", &v["cwd"], json!("/"))?;
    same("uid", &v["uid"], json!([0, 0, 0]))?;
    same("groups", &v["groups"], json!([]))?;
    c.end()
}

fn process_file_all_fields(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let mut p = process(&["json"]);
    p["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"], "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]});
    p["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
    p["noNewPrivileges"] = json!(true);
    let v = with_file(&c, &p, &[])?.ok()?.json()?;
    for (set, bits) in [
        ("bounding", "0000000000000021"),
        ("permitted", "0000000000000021"),
        ("inheritable", "0000000000000001"),
        ("ambient", "0000000000000001"),
    ] {
        same(set, &v["caps"][set], json!(bits))?;
    }
    same("core", &v["rlimits"]["RLIMIT_CORE"], json!([0, 0]))?;
    same("no_new_privs", &v["no_new_privs"], json!("1"))?;
    c.end()
}

fn process_file_umask(cx: &Cx) -> Result<()> {
    let c = sleeping(cx)?;
    let mut p = process(&["json"]);
    p["user"]["umask"] = json!(0o77);
    same("umask", &with_file(&c, &p, &[])?.ok()?.json()?["umask"], json!(0o77))?;
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
    let out = cx.cmd(&["exec", "--preserve-fds", "1", &c.id, "/bin/probe", "read-fd", "3"]).fds(vec![(fd, 3)])?.run()?.ok()?;
    eq("content", out.stdout.trim(), "ok \"through\"")?;
    c.end()
}

fn path_from_environment(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::create_dir(b.rootfs().join("opt"))?;
    fs::copy(&cx.probe, b.rootfs().join("opt/tool"))?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    cx.rt(&["exec", "-e", "PATH=/absent:/opt", &c.id, "tool", "exit", "6"])?.code(6)?;
    ensure!(cx.rt(&["exec", &c.id, "tool", "exit", "6"])?.code != 6, "found outside of PATH");
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
