//! Bad input: each case must end `create` and `run` with exit 1 and one line that names the field or path, and leave
//! no process, mount, cgroup or state behind.

use super::tests;
use crate::bundle::Bundle;
use crate::cx::{Cx, eq};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

tests!["errors":
    config_missing deviates ["crun" = "has words of its own"],
    config_broken deviates ["runc" = "does not name the file", "crun" = "does not name the file"],
    config_is_a_directory,
    bundle_missing,
    rootfs_missing deviates ["crun" = "does not name an absolute one"],
    rootfs_is_a_file deviates ["runc" = "says only that it is no directory"],
    root_unset,
    rootfs_empty,
    program_missing,
    program_not_in_path deviates ["crun" = "has words of its own"],
    program_not_executable,
    program_is_a_directory deviates ["crun" = "has words of its own"],
    program_without_interpreter deviates ["crun" = "has words of its own"],
    program_not_a_binary deviates ["crun" = "has words of its own"],
    args_empty deviates ["crun" = "creates it"],
    cwd_relative deviates ["crun" = "has words of its own"],
    cwd_is_a_file,
    wrong_types deviates ["crun" = "takes most for absent"],
    wrong_types_in_linux deviates ["crun" = "takes most for absent"],
    numbers_out_of_range,
    oom_score_out_of_range deviates ["runc" = "prints two lines", "crun" = "does not name the number"],
    unknown_words deviates ["crun" = "ignores some of them"],
    namespaces deviates ["crun" = "leaves the cgroup behind on v2", "runc" = "does not name the path of a namespace of the wrong type"],
    names_without_uts_namespace,
    sysctls,
    mounts,
    mount_type_unknown deviates ["crun" = "names it without the slash"],
    mount_over_proc deviates ["crun" = "allows it"],
    cgroup_cannot_be_made,
    cgroup_value_refused deviates ["crun" = "leaves the cgroup behind"],
    cgroup_not_empty deviates ["crun" = "does not look"],
    hook_missing deviates ["crun" = "exits with 255"],
    hook_relative deviates ["crun" = "exits with 255"],
    devices deviates ["crun" = "takes some of them"],
    device_access deviates ["runc" = "ignores the letter", "crun" = "ignores the letter"],
    seccomp deviates ["crun" = "cuts the name of an architecture"],
    seccomp_in_a_large_profile deviates ["crun" = "takes what is wrong in it for absent"],
    console_socket_misuse deviates ["crun" = "has words of its own"],
    state_root_unusable,
    exec_failures,
];

/// One bad configuration: what is changed, and words of which one must be in the message.
type Case<'a> = (&'a str, Value, &'a [&'a str]);

/// Runs `create` and `run`: exit 1, one line with one of the words, nothing left.
fn refused(b: &Bundle, what: &str, words: &[&str]) -> Result<()> {
    b.save()?;
    refused_as_is(b, what, words)
}

fn refused_as_is(b: &Bundle, what: &str, words: &[&str]) -> Result<()> {
    let before = b.cx.snapshot()?;
    for command in ["create", "run"] {
        let check = || -> Result<()> {
            let out = b.cx.rt(&[command, "--bundle", &b.path(), &b.cx.id()])?;
            out.fails_any(words)?.one_line()?;
            b.cx.nothing_left(&before)
        };
        check().with_context(|| format!("{what}: {command}"))?;
    }
    Ok(())
}

fn table(cx: &Cx, cases: &[Case]) -> Result<()> {
    let mut wrong = vec![];
    for (pointer, value, words) in cases {
        let mut b = cx.bundle()?;
        b.set(pointer, value.clone());
        if let Err(e) = refused(&b, &format!("{pointer} = {value}"), words) {
            wrong.push(format!("{e:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} cases:\n  {}", wrong.len(), cases.len(), wrong.join("\n  "));
    Ok(())
}

fn config_missing(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    refused_as_is(&b, "no config.json", &["JSON specification file config.json not found"])
}

fn config_broken(cx: &Cx) -> Result<()> {
    for text in ["", "{", "{\"ociVersion\":", "[]", "null", "no", "{\"ociVersion\": \"1.0.0\",}", "\u{0}"] {
        let b = cx.bundle()?;
        fs::write(b.dir.join("config.json"), text)?;
        refused_as_is(&b, text, &["config.json"])?;
    }
    Ok(())
}

fn config_is_a_directory(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    fs::create_dir(b.dir.join("config.json"))?;
    refused_as_is(&b, "a directory", &["config.json"])
}

fn bundle_missing(cx: &Cx) -> Result<()> {
    let before = cx.snapshot()?;
    for command in ["create", "run"] {
        cx.rt(&[command, "--bundle", "/absent/bundle", &cx.id()])?.fails(&["/absent/bundle"])?.one_line()?;
    }
    cx.nothing_left(&before)
}

fn rootfs_missing(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/root/path", json!("nowhere"));
    refused(&b, "missing", &["nowhere"])?;
    let root = cx.path("absent").display().to_string();
    b.set("/root/path", json!(root));
    refused(&b, "missing", &[&root])
}

fn rootfs_is_a_file(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::write(b.dir.join("a-file"), "")?;
    b.set("/root/path", json!("a-file"));
    refused(&b, "a file", &["a-file"])
}

fn root_unset(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.remove("/root");
    refused(&b, "unset", &["root"])
}

fn rootfs_empty(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    fs::remove_dir_all(b.rootfs())?;
    fs::create_dir(b.rootfs())?;
    refused(&b, "empty", &["/bin/probe"])
}

fn program_missing(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/args", json!(["/bin/absent"]));
    refused(&b, "missing", &["/bin/absent"])?;
    for command in ["create", "run"] {
        cx.rt(&[command, "--bundle", &b.path(), &cx.id()])?
            .fails(&["no such file or directory"])
            .map(drop)
            .or_else(|e| if cx.kind == "crun" { Ok(()) } else { Err(e) })?;
    }
    Ok(())
}

fn program_not_in_path(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/args", json!(["absent"]));
    refused(&b, "not in PATH", &["exec: \"absent\": executable file not found in $PATH"])?;
    b.set("/process/env", json!([])).set("/process/args", json!(["probe"]));
    refused(&b, "no PATH", &["executable file not found in $PATH"])
}

fn program_not_executable(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::write(b.rootfs().join("bin/data"), "data")?;
    b.set("/process/args", json!(["/bin/data"]));
    refused(&b, "mode 644", &["/bin/data", "permission denied", "Permission denied"])
}

fn program_is_a_directory(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/args", json!(["/etc"]));
    refused(&b, "a directory", &["is a directory"])
}

/// These two only execve can find out: `start` has gone by then, so the line comes from the init process.
fn program_without_interpreter(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::write(b.rootfs().join("bin/script"), "#!/absent/interpreter\n")?;
    fs::set_permissions(b.rootfs().join("bin/script"), fs::Permissions::from_mode(0o755))?;
    b.set("/process/args", json!(["/bin/script"]));
    let out = b.run()?;
    ensure!(out.code != 0, "exit 0");
    ensure!(out.said().contains("exec /bin/script: no such file or directory"), "stderr {}", out.stderr);
    // As the program's own last word, in no log's form.
    eq("stderr", out.stderr.as_str(), "exec /bin/script: no such file or directory\n")
}

fn program_not_a_binary(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::write(b.rootfs().join("bin/data"), "data")?;
    fs::set_permissions(b.rootfs().join("bin/data"), fs::Permissions::from_mode(0o755))?;
    b.set("/process/args", json!(["/bin/data"]));
    let out = b.run()?;
    ensure!(out.code != 0, "exit 0");
    ensure!(out.said().to_lowercase().contains("exec /bin/data: exec format error"), "stderr {}", out.stderr);
    Ok(())
}

fn args_empty(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/args", json!([]));
    refused(&b, "empty", &["args must not be empty"])?;
    b.remove("/process/args");
    refused(&b, "unset", &["args must not be empty"])
}

fn cwd_relative(cx: &Cx) -> Result<()> {
    table(
        cx,
        &[
            ("/process/cwd", json!("tmp"), &["Cwd must be an absolute path"]),
            ("/process/cwd", json!(""), &["Cwd"]),
        ],
    )
}

fn cwd_is_a_file(cx: &Cx) -> Result<()> {
    table(cx, &[("/process/cwd", json!("/etc/passwd"), &["/etc/passwd"])])
}

fn wrong_types(cx: &Cx) -> Result<()> {
    table(
        cx,
        &[
            ("/process", json!([]), &["process"]),
            ("/process/args", json!("sh"), &["args"]),
            ("/process/args", json!([1]), &["args"]),
            ("/process/env", json!({"A": "1"}), &["env"]),
            ("/process/cwd", json!(1), &["cwd"]),
            ("/process/terminal", json!("yes"), &["terminal"]),
            ("/process/user", json!("root"), &["user"]),
            ("/process/user/uid", json!("0"), &["uid"]),
            ("/process/capabilities", json!(["CAP_KILL"]), &["capabilities"]),
            ("/process/rlimits", json!({"type": "RLIMIT_CORE"}), &["rlimits"]),
            ("/process/noNewPrivileges", json!(1), &["noNewPrivileges"]),
            ("/process/oomScoreAdj", json!("1"), &["oomScoreAdj"]),
            ("/root", json!("rootfs"), &["root"]),
            ("/root/readonly", json!("true"), &["readonly"]),
            ("/hostname", json!(1), &["hostname"]),
            ("/mounts", json!({}), &["mounts"]),
            ("/mounts/0/destination", json!(1), &["destination"]),
            ("/mounts/0/options", json!("ro"), &["options"]),
            ("/hooks", json!([]), &["hooks"]),
            ("/hooks/prestart", json!({}), &["prestart"]),
            ("/annotations", json!({"a": 1}), &["annotations"]),
        ],
    )
}

fn wrong_types_in_linux(cx: &Cx) -> Result<()> {
    table(
        cx,
        &[
            ("/linux", json!("x"), &["linux"]),
            ("/linux/namespaces", json!(["pid"]), &["namespaces"]),
            ("/linux/cgroupsPath", json!(1), &["cgroupsPath"]),
            ("/linux/sysctl", json!({"net.ipv4.ip_forward": 1}), &["sysctl"]),
            ("/linux/resources", json!([]), &["resources"]),
            ("/linux/resources/memory/limit", json!("64M"), &["limit"]),
            ("/linux/resources/pids/limit", json!("5"), &["limit"]),
            ("/linux/resources/cpu/shares", json!(-1), &["shares"]),
            (
                "/linux/devices",
                json!([{"path": "/dev/x", "type": "c", "major": "1", "minor": 3}]),
                &["major"],
            ),
            ("/linux/maskedPaths", json!("/proc"), &["maskedPaths"]),
            ("/linux/seccomp", json!("x"), &["seccomp"]),
            ("/linux/seccomp", json!({"defaultAction": 1}), &["defaultAction"]),
            ("/linux/rootfsPropagation", json!(1), &["rootfsPropagation"]),
        ],
    )
}

fn numbers_out_of_range(cx: &Cx) -> Result<()> {
    table(
        cx,
        &[
            ("/process/user/uid", json!(-1), &["uid"]),
            ("/process/user/uid", json!(4294967296u64), &["uid"]),
            ("/process/user/gid", json!(1.5), &["gid"]),
        ],
    )
}

fn oom_score_out_of_range(cx: &Cx) -> Result<()> {
    table(cx, &[("/process/oomScoreAdj", json!(1001), &["oom", "1001"])])
}

fn unknown_words(cx: &Cx) -> Result<()> {
    table(
        cx,
        &[
            ("/process/rlimits", json!([{"type": "RLIMIT_TEST", "soft": 1, "hard": 1}]), &["RLIMIT_TEST"]),
            ("/process/rlimits", json!([{"type": "NOFILE", "soft": 1, "hard": 1}]), &["NOFILE"]),
            ("/linux/rootfsPropagation", json!("shard"), &["shard", "rootfsPropagation"]),
            ("/linux/namespaces", json!([{"type": "mount"}, {"type": "nope"}]), &["nope"]),
        ],
    )
}

fn namespaces(cx: &Cx) -> Result<()> {
    let cases: [(Value, &[&str]); 4] = [
        (json!([{"type": "mount"}, {"type": "ipc"}, {"type": "ipc"}]), &["ipc", "duplicate"]),
        (json!([{"type": "mount"}, {"type": "network", "path": "/absent/ns"}]), &["/absent/ns"]),
        (
            json!([{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/ipc"}]),
            &["/proc/self/ns/ipc", "network"],
        ),
        (json!([{"type": "mount"}, {"type": "ipc", "path": "/etc/passwd"}]), &["/etc/passwd"]),
    ];
    for (list, words) in cases {
        let mut b = cx.bundle()?;
        b.remove("/hostname").set("/linux/namespaces", list.clone());
        refused(&b, &list.to_string(), words)?;
    }
    Ok(())
}

fn names_without_uts_namespace(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.without_namespace("uts");
    refused(&b, "hostname", &["hostname", "UTS", "uts"])?;
    b.remove("/hostname").set("/domainname", json!("example.org"));
    refused(&b, "domainname", &["domainname", "UTS", "uts"])
}

fn sysctls(cx: &Cx) -> Result<()> {
    table(
        cx,
        &[
            ("/linux/sysctl", json!({"kernel.panic": "1"}), &["kernel.panic"]),
            ("/linux/sysctl", json!({"vm.swappiness": "1"}), &["vm.swappiness"]),
            ("/linux/sysctl", json!({"kernel.hostname": "x"}), &["kernel.hostname"]),
            ("/linux/sysctl", json!({"net.no.such.key": "1"}), &["net.no.such.key", "net/no/such/key"]),
            ("/linux/sysctl", json!({"net.ipv4.ip_forward": "maybe"}), &["ip_forward"]),
            ("/linux/sysctl", json!({"net/../kernel/panic": "1"}), &["kernel/panic"]),
        ],
    )?;
    let mut b = cx.bundle()?;
    b.without_namespace("network").set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    refused(&b, "host network", &["net.ipv4.ip_forward"])?;
    let mut b = cx.bundle()?;
    b.without_namespace("ipc").set("/linux/sysctl", json!({"kernel.shmmax": "1"}));
    refused(&b, "host ipc", &["kernel.shmmax"])
}

fn mounts(cx: &Cx) -> Result<()> {
    let bind =
        |source: &str, options: Value| json!({"destination": "/mnt", "source": source, "options": options});
    for (mount, words) in [
        (bind("/absent/source", json!(["bind"])), ["/absent/source", "/absent/source"]),
        (
            json!({"destination": "/mnt", "type": "tmpfs", "source": "t", "options": ["size=many"]}),
            ["/mnt", "size"],
        ),
        (
            json!({"destination": "/etc/passwd/x", "type": "tmpfs", "source": "t"}),
            ["/etc/passwd", "/etc/passwd"],
        ),
        (json!({"destination": "/", "type": "tmpfs", "source": "t"}), ["/", "/"]),
    ] {
        let mut b = cx.bundle()?;
        b.push("/mounts", mount.clone());
        refused(&b, &mount.to_string(), &words).or_else(|e| {
            // crun mounts a tmpfs over / and then misses the program.
            if cx.kind == "crun" { Ok(()) } else { Err(e) }
        })?;
    }
    Ok(())
}

fn mount_type_unknown(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.mount("/mnt", "nosuchfs", "x", &[]);
    refused(&b, "type", &["nosuchfs", "/mnt"])
}

fn mount_over_proc(cx: &Cx) -> Result<()> {
    for destination in ["/proc/self", "/proc/1", "/proc/sys"] {
        let mut b = cx.bundle()?;
        b.mount(destination, "tmpfs", "tmpfs", &[]);
        refused(&b, destination, &[destination])?;
    }
    let mut b = cx.bundle()?;
    b.without_mount("/proc").mount("/proc", "tmpfs", "tmpfs", &[]);
    refused(&b, "a tmpfs as /proc", &["/proc"])
}

fn cgroup_cannot_be_made(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let path = format!("{}/cgroup.procs/c", cx.cgroup);
    b.set("/linux/cgroupsPath", json!(path));
    refused(&b, "below a file", &["cgroup.procs/c", "cgroup.procs: not a directory"])
}

fn cgroup_value_refused(cx: &Cx) -> Result<()> {
    cx.need_controller("cpu")?;
    let mut b = cx.bundle()?;
    b.set("/linux/resources/cpu", json!({"quota": 1, "period": 100000}));
    refused(&b, "a quota below 1 ms", &["cpu"])
}

fn cgroup_not_empty(cx: &Cx) -> Result<()> {
    let path = format!("{}/busy", cx.cgroup);
    crate::cgroup::make(&path)?;
    let mut child = std::process::Command::new(&cx.probe).arg("sleep").spawn()?;
    for tree in crate::cgroup::trees()? {
        fs::write(
            tree.mount.join(path.trim_start_matches('/')).join("cgroup.procs"),
            child.id().to_string(),
        )?;
    }
    let mut b = cx.bundle()?;
    b.set("/linux/cgroupsPath", json!(path)).save()?;
    let out = b.container().create(&[])?;
    let alive = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    out.fails(&["container's cgroup is not empty"])?;
    ensure!(alive, "the process that was there first was killed");
    crate::cgroup::remove(&path)
}

fn hook_missing(cx: &Cx) -> Result<()> {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut b = cx.bundle()?;
        b.push(&format!("/hooks/{kind}"), json!({"path": "/absent/hook"}));
        refused(&b, kind, &["/absent/hook"])?;
    }
    Ok(())
}

fn hook_relative(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.push("/hooks/createRuntime", json!({"path": "bin/true"}));
    refused(&b, "relative", &["hooks", "absolute", "bin/true"])
}

fn devices(cx: &Cx) -> Result<()> {
    table(
        cx,
        &[
            (
                "/linux/devices",
                json!([{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}]),
                &["z", "/dev/x"],
            ),
            (
                "/linux/resources/devices",
                json!([{"allow": true, "type": "q", "access": "r"}]),
                &["type", "q"],
            ),
        ],
    )
}

fn device_access(cx: &Cx) -> Result<()> {
    table(
        cx,
        &[(
            "/linux/resources/devices",
            json!([{"allow": true, "type": "c", "access": "q"}]),
            &["access", "q"],
        )],
    )
}

fn seccomp(cx: &Cx) -> Result<()> {
    let rule = |name: &str, action: &str| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [name], "action": action}]});
    table(
        cx,
        &[
            ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOPE"}), &["SCMP_ACT_NOPE"]),
            (
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"]}),
                &["SCMP_ARCH_NOPE"],
            ),
            ("/linux/seccomp", rule("getpid", "SCMP_ACT_NOPE"), &["SCMP_ACT_NOPE"]),
        ],
    )
}

/// An engine's profile, of which the last rule is wrong: large enough that a runtime may look at it late.
fn seccomp_in_a_large_profile(cx: &Cx) -> Result<()> {
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(cx.configs.join("docker-default.json"))?)?;
    let with_rule = |rule: Value| {
        let mut profile = config["linux"]["seccomp"].clone();
        if let Some(rules) = profile["syscalls"].as_array_mut() {
            rules.push(rule);
        }
        profile
    };
    table(
        cx,
        &[
            (
                "/linux/seccomp",
                with_rule(json!({"names": ["getpid"], "action": "SCMP_ACT_NOPE"})),
                &["SCMP_ACT_NOPE"],
            ),
            ("/linux/seccomp", with_rule(json!({"names": [1], "action": "SCMP_ACT_LOG"})), &["names"]),
            (
                "/linux/seccomp",
                with_rule(json!({"names": ["getpid"], "action": "SCMP_ACT_NOTIFY"})),
                &["listener", "SCMP_ACT_NOTIFY"],
            ),
        ],
    )
}

fn console_socket_misuse(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.save()?;
    let before = cx.snapshot()?;
    let socket = cx.path("socket").display().to_string();
    b.container()
        .create(&["--console-socket", &socket])?
        .fails(&["cannot use console socket if runc will not detach or allocate tty"])?;
    b.set("/process/terminal", json!(true)).save()?;
    b.container()
        .create(&[])?
        .fails(&["cannot allocate tty if runc will detach without setting console socket"])?;
    // Nobody listens there.
    b.container().create(&["--console-socket", &socket])?.code(1)?;
    cx.nothing_left(&before)
}

fn state_root_unusable(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    fs::write(cx.path("a-file"), "")?;
    symlink("/absent", cx.path("dangling"))?;
    let before = cx.snapshot()?;
    let root = cx.path("a-file").display().to_string();
    let out = cx.bare(&["--root", &root, "create", "--bundle", &b.path(), &cx.id()]).run()?;
    out.fails(&["a-file"])?.one_line()?;
    eq("the file", fs::read_to_string(&root)?, "")?;
    cx.nothing_left(&before)
}

fn exec_failures(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let before = cx.snapshot()?;
    let file = cx.path("process.json").display().to_string();
    let good = json!({"args": ["/bin/probe", "true"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    for (change, value) in [
        ("args", json!(["/bin/absent"])),
        ("args", json!(["absent"])),
        ("args", json!([])),
        ("args", json!("x")),
        ("cwd", json!("relative")),
        ("rlimits", json!([{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}])),
    ] {
        let mut process = good.clone();
        process[change] = value.clone();
        fs::write(&file, process.to_string())?;
        let out = cx.rt(&["exec", "--process", &file, &c.id])?;
        // crun answers some of these with other codes.
        let right =
            out.code == 255 || (cx.kind == "crun" && out.code != 0) || (cx.kind == "runc" && out.code == 1);
        ensure!(right, "{change} = {value}: exit {} {}", out.code, out.stderr);
        ensure!(!out.stderr.is_empty(), "{change} = {value}: no message");
    }
    fs::write(&file, "{")?;
    ensure!(cx.rt(&["exec", "--process", &file, &c.id])?.code != 0, "broken JSON was taken");
    ensure!(
        cx.rt(&["exec", "--process", "/absent/process.json", &c.id])?.code != 0,
        "an absent file was taken"
    );
    cx.nothing_left(&before)?;
    c.end()
}
