//! The process section: user, groups, capabilities, limits, environment, directory, program lookup, names, scheduling.

use super::tests;
use crate::cx::{Cx, eq, same, skip};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

tests!["process":
    arguments_arrive_unchanged,
    environment_is_exactly_given,
    environment_duplicates,
    environment_malformed deviates ["crun" = "passes it on"],
    home_from_passwd,
    home_given_or_empty deviates ["crun" = "leaves an empty one"],
    home_without_passwd,
    passwd_hostile,
    passwd_is_a_fifo deviates ["runc" = "hangs", "crun" = "hangs"],
    program_by_path_variable,
    program_relative,
    program_through_link,
    program_script,
    cwd,
    cwd_is_made,
    cwd_through_link,
    cwd_of_the_user_only,
    cwd_through_proc_fd,
    user_and_groups,
    user_number_named_in_passwd,
    groups_dropped_when_none,
    umask,
    umask_default,
    capabilities_of_root,
    capabilities_absent deviates ["runc" = "keeps all"],
    capabilities_empty,
    capabilities_of_user,
    capabilities_ambient,
    capabilities_inheritable,
    capabilities_bounding_only,
    capability_unknown,
    no_new_privs_on,
    no_new_privs_off_or_absent,
    rlimits,
    rlimits_absent,
    rlimits_duplicate deviates ["runc" = "takes the last", "crun" = "takes the last"],
    oom_score_adj,
    oom_score_adj_zero_and_absent,
    oom_score_adj_below_own,
    hostname,
    domainname,
    hostname_of_host_kept_outside,
    sysctl_of_namespaces,
    sysctl_written_with_slashes,
    personality,
    scheduler,
    io_priority,
    session_keyring,
    session_keyring_not_new,
    affinity_is_all,
    apparmor_profile_needs_apparmor deviates ["crun" = "runs without"],
];

fn environ(v: &Value) -> Vec<String> {
    v["environ"].as_array().map(|a| a.iter().filter_map(|s| s.as_str().map(String::from)).collect()).unwrap_or_default()
}

fn arguments_arrive_unchanged(cx: &Cx) -> Result<()> {
    let odd = ["", " ", "a b", "--", "-x", "$HOME", "`id`", "a\nb", "\u{e9}\u{20ac}", "\"'\\", "*"];
    let mut b = cx.bundle()?;
    let mut args = vec!["args"];
    args.extend(odd);
    let lines = b.lines(&args)?;
    let got: Value = serde_json::from_str(&lines[0])?;
    same("args", &got, json!(odd))
}

fn environment_is_exactly_given(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let wanted = ["PATH=/bin", "HOME=/x", "EMPTY=", "EQ=a=b", "SPACE=a b", "NL=a\nb", "U=\u{e9}"];
    b.set("/process/env", json!(wanted)).probe(&["json"]).save()?;
    let out = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).env("OUTSIDE", "1").env("LD_PRELOAD", "/x").run()?.ok()?;
    eq("environ", environ(&out.json()?), wanted.to_vec())
}

/// The last one counts and stands alone.
fn environment_duplicates(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/env", json!(["PATH=/bin", "A=1", "B=1", "A=2", "HOME=/x"]));
    let mut got = environ(&b.inside()?);
    got.sort();
    eq("environ", got, vec!["A=2", "B=1", "HOME=/x", "PATH=/bin"])
}

fn environment_malformed(cx: &Cx) -> Result<()> {
    for bad in ["NOVALUE", "=x", ""] {
        let mut b = cx.bundle()?;
        b.set("/process/env", json!(["PATH=/bin", bad]));
        let out = b.run()?;
        ensure!(out.code == 1, "env {bad:?}: exit {} {}", out.code, out.stderr);
    }
    Ok(())
}

fn home_of(cx: &Cx, uid: u32, env: Value) -> Result<Vec<String>> {
    let mut b = cx.bundle()?;
    b.set("/process/user", json!({"uid": uid, "gid": 0})).set("/process/env", env);
    Ok(environ(&b.inside()?).into_iter().filter(|v| v.starts_with("HOME=")).collect())
}

fn home_from_passwd(cx: &Cx) -> Result<()> {
    eq("root", home_of(cx, 0, json!(["PATH=/bin"]))?, vec!["HOME=/root"])?;
    eq("user", home_of(cx, 1000, json!(["PATH=/bin"]))?, vec!["HOME=/home/user"])?;
    eq("nobody there", home_of(cx, 4321, json!(["PATH=/bin"]))?, vec!["HOME=/"])
}

fn home_given_or_empty(cx: &Cx) -> Result<()> {
    eq("given", home_of(cx, 0, json!(["HOME=/given"]))?, vec!["HOME=/given"])?;
    eq("empty", home_of(cx, 1000, json!(["HOME="]))?, vec!["HOME=/home/user"])
}

fn home_without_passwd(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::remove_file(b.rootfs().join("etc/passwd"))?;
    b.set("/process/env", json!([]));
    eq("environ", environ(&b.inside()?), vec!["HOME=/"])
}

/// A link out of the root, a line without end, a directory: never the host's file.
fn passwd_hostile(cx: &Cx) -> Result<()> {
    for case in ["link", "long", "directory"] {
        let mut b = cx.bundle()?;
        let file = b.rootfs().join("etc/passwd");
        fs::remove_file(&file)?;
        match case {
            "link" => {
                fs::write(cx.path("outside"), "root:x:0:0::/outside:/bin/sh\n")?;
                symlink(cx.path("outside"), &file)?;
            }
            "long" => fs::write(&file, "x".repeat(3 << 20))?,
            _ => fs::create_dir(&file)?,
        }
        b.set("/process/env", json!(["PATH=/bin"]));
        let out = b.probe(&["json"]).run().with_context(|| case.to_string())?;
        if out.code == 0 {
            let home: Vec<String> = environ(&out.json()?).into_iter().filter(|v| v.starts_with("HOME=")).collect();
            eq(case, home, vec!["HOME=/"])?;
        }
    }
    Ok(())
}

fn passwd_is_a_fifo(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let file = b.rootfs().join("etc/passwd");
    fs::remove_file(&file)?;
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::from_bits_retain(0o666))?;
    b.set("/process/env", json!(["PATH=/bin"])).save()?;
    // An error is as good as a program with HOME=/.
    cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).limit(Duration::from_secs(2)).run()?;
    Ok(())
}

fn program_by_path_variable(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    for dir in ["one", "two", "three"] {
        fs::create_dir(b.rootfs().join(dir))?;
    }
    // Not executable in the first, a directory in the second: the third is taken.
    fs::write(b.rootfs().join("one/tool"), "data")?;
    fs::create_dir(b.rootfs().join("two/tool"))?;
    fs::copy(&cx.probe, b.rootfs().join("three/tool"))?;
    b.set("/process/env", json!(["PATH=/one:/two:/three"])).set("/process/args", json!(["tool", "exit", "8"]));
    b.run()?.code(8)?;
    Ok(())
}

fn program_relative(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/cwd", json!("/bin")).set("/process/args", json!(["./probe", "exit", "8"]));
    b.run()?.code(8)?;
    b.set("/process/cwd", json!("/")).set("/process/args", json!(["bin/probe", "exit", "9"]));
    b.run()?.code(9)?;
    Ok(())
}

fn program_through_link(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    symlink("/bin/probe", b.rootfs().join("tool"))?;
    b.set("/process/args", json!(["/tool", "exit", "8"]));
    b.run()?.code(8)?;
    Ok(())
}

fn program_script(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::write(b.rootfs().join("bin/script"), "#!/bin/probe args\n")?;
    fs::set_permissions(b.rootfs().join("bin/script"), fs::Permissions::from_mode(0o755))?;
    b.set("/process/args", json!(["/bin/script", "more"]));
    eq("output", b.run()?.ok()?.stdout, "[\"/bin/script\",\"more\"]\n")
}

fn cwd(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/cwd", json!("/home/user"));
    same("cwd", &b.inside()?["cwd"], json!("/home/user"))
}

fn cwd_is_made(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/cwd", json!("/made/by/runtime"));
    same("cwd", &b.inside()?["cwd"], json!("/made/by/runtime"))?;
    let meta = fs::metadata(b.rootfs().join("made/by"))?;
    eq("mode and owner", (meta.mode() & 0o7777, meta.uid()), (0o755, 0))
}

fn cwd_through_link(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::create_dir(cx.path("outside"))?;
    symlink("/home/user", b.rootfs().join("link"))?;
    symlink("../../../../../../../..", b.rootfs().join("up"))?;
    b.set("/process/cwd", json!("/link"));
    same("cwd", &b.inside()?["cwd"], json!("/home/user"))?;
    b.set("/process/cwd", json!("/up"));
    same("cwd", &b.inside()?["cwd"], json!("/"))
}

/// Only the user of the process may enter it: chdir comes before the user changes, or again after.
fn cwd_of_the_user_only(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let dir = b.rootfs().join("private");
    fs::create_dir(&dir)?;
    std::os::unix::fs::chown(&dir, Some(1000), Some(1000))?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    b.set("/process/user", json!({"uid": 1000, "gid": 1000})).set("/process/cwd", json!("/private"));
    b.set("/process/capabilities", json!({}));
    same("cwd", &b.inside()?["cwd"], json!("/private"))
}

/// A descriptor of the host as working directory (CVE-2024-21626).
fn cwd_through_proc_fd(cx: &Cx) -> Result<()> {
    for n in 3..16 {
        let mut b = cx.bundle()?;
        b.set("/process/cwd", json!(format!("/proc/self/fd/{n}"))).probe(&["json"]);
        let out = b.run()?;
        if out.code == 0 {
            let v = out.json()?;
            let cwd = v["cwd"].as_str().unwrap_or_default().to_string();
            ensure!(cwd.starts_with('/'), "cwd {cwd:?} is outside of the root");
        }
    }
    Ok(())
}

fn user_and_groups(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/user", json!({"uid": 10, "gid": 11, "additionalGids": [5, 12, 5, 4294967294u64]}));
    let v = b.inside()?;
    same("uid", &v["uid"], json!([10, 10, 10]))?;
    same("gid", &v["gid"], json!([11, 11, 11]))?;
    let mut groups: Vec<u64> =
        v["groups"].as_array().context("groups")?.iter().filter_map(Value::as_u64).collect();
    groups.sort();
    groups.dedup();
    eq("groups", groups, vec![5, 12, 4294967294])
}

/// The image's passwd file has a user *named* 1001 with uid 0 (CVE-2016-3697).
fn user_number_named_in_passwd(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/user", json!({"uid": 1001, "gid": 1001}));
    same("uid", &b.inside()?["uid"], json!([1001, 1001, 1001]))
}

/// Groups of the caller must not stay.
fn groups_dropped_when_none(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(4), nix::unistd::Gid::from_raw(27)])?;
    same("groups", &b.inside()?["groups"], json!([]))
}

fn umask(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/user/umask", json!(0o02));
    same("umask", &b.inside()?["umask"], json!(0o02))?;
    b.set("/process/user/umask", json!(0));
    same("umask", &b.inside()?["umask"], json!(0))
}

fn umask_default(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["json"]).save()?;
    let out = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).umask(0o077).run()?.ok()?;
    same("umask", &out.json()?["umask"], json!(0o22))
}

const NONE: &str = "0000000000000000";

fn caps(cx: &Cx, uid: u32, caps: Value) -> Result<Value> {
    let mut b = cx.bundle()?;
    b.set("/process/user", json!({"uid": uid, "gid": uid})).set("/process/capabilities", caps);
    Ok(b.inside()?["caps"].clone())
}

fn sets(v: &Value, table: &[(&str, &str)]) -> Result<()> {
    for (set, bits) in table {
        same(set, &v[set], json!(bits))?;
    }
    Ok(())
}

fn capabilities_of_root(cx: &Cx) -> Result<()> {
    let list = json!(["CAP_CHOWN", "CAP_NET_ADMIN", "CAP_AUDIT_READ"]);
    let v = caps(cx, 0, json!({"bounding": list, "permitted": list, "effective": ["CAP_CHOWN"]}))?;
    // The execve of a root process gives it all of the bounding set.
    let bits = "0000002000001001";
    sets(&v, &[("bounding", bits), ("permitted", bits), ("effective", bits), ("inheritable", NONE), ("ambient", NONE)])
}

fn capabilities_absent(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.remove("/process/capabilities");
    let v = b.inside()?["caps"].clone();
    sets(&v, &[("bounding", NONE), ("permitted", NONE), ("effective", NONE), ("inheritable", NONE), ("ambient", NONE)])
}

fn capabilities_empty(cx: &Cx) -> Result<()> {
    let v = caps(cx, 0, json!({}))?;
    sets(&v, &[("bounding", NONE), ("permitted", NONE), ("effective", NONE), ("inheritable", NONE), ("ambient", NONE)])
}

fn capabilities_of_user(cx: &Cx) -> Result<()> {
    let list = json!(["CAP_CHOWN", "CAP_KILL"]);
    let v = caps(cx, 1000, json!({"bounding": list, "permitted": list, "effective": list}))?;
    sets(&v, &[("bounding", "0000000000000021"), ("permitted", NONE), ("effective", NONE), ("ambient", NONE)])
}

fn capabilities_ambient(cx: &Cx) -> Result<()> {
    let list = json!(["CAP_CHOWN", "CAP_KILL"]);
    let all = json!({"bounding": list, "permitted": list, "effective": list, "inheritable": list, "ambient": ["CAP_KILL"]});
    let v = caps(cx, 1000, all)?;
    sets(
        &v,
        &[
            ("bounding", "0000000000000021"),
            ("inheritable", "0000000000000021"),
            ("ambient", "0000000000000020"),
            ("permitted", "0000000000000020"),
            ("effective", "0000000000000020"),
        ],
    )
}

fn capabilities_inheritable(cx: &Cx) -> Result<()> {
    let list = json!(["CAP_CHOWN", "CAP_KILL"]);
    let v = caps(cx, 0, json!({"bounding": list, "permitted": list, "effective": list, "inheritable": ["CAP_KILL"]}))?;
    sets(&v, &[("inheritable", "0000000000000020"), ("ambient", NONE), ("bounding", "0000000000000021")])
}

fn capabilities_bounding_only(cx: &Cx) -> Result<()> {
    let v = caps(cx, 1000, json!({"bounding": ["CAP_CHOWN"]}))?;
    sets(&v, &[("bounding", "0000000000000001"), ("permitted", NONE), ("effective", NONE)])
}

/// A warning, not an error: the config may come from a newer kernel's list.
fn capability_unknown(cx: &Cx) -> Result<()> {
    let list = json!(["CAP_CHOWN", "CAP_FROM_THE_FUTURE"]);
    let v = caps(cx, 0, json!({"bounding": list, "permitted": list, "effective": list}))?;
    sets(&v, &[("bounding", "0000000000000001")])
}

fn no_new_privs_on(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/noNewPrivileges", json!(true));
    same("no_new_privs", &b.inside()?["no_new_privs"], json!("1"))
}

fn no_new_privs_off_or_absent(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/noNewPrivileges", json!(false));
    same("off", &b.inside()?["no_new_privs"], json!("0"))?;
    b.remove("/process/noNewPrivileges");
    same("absent", &b.inside()?["no_new_privs"], json!("0"))?;
    // With a filter and without the flag: the filter is loaded while still privileged.
    b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kcmp"], "action": "SCMP_ACT_ERRNO"}]}));
    let v = b.inside()?;
    same("with a filter", &v["no_new_privs"], json!("0"))?;
    same("filter", &v["seccomp"], json!("2"))
}

fn rlimits(cx: &Cx) -> Result<()> {
    let table = [
        ("RLIMIT_AS", 4_000_000_000u64, 5_000_000_000u64),
        ("RLIMIT_CORE", 0, 1000),
        ("RLIMIT_CPU", 50, 60),
        ("RLIMIT_DATA", 3_000_000_000, 3_000_000_001),
        ("RLIMIT_FSIZE", 1 << 40, 1 << 41),
        ("RLIMIT_LOCKS", 10, 20),
        ("RLIMIT_MEMLOCK", 4096, 8192),
        ("RLIMIT_MSGQUEUE", 1000, 2000),
        ("RLIMIT_NICE", 0, 0),
        ("RLIMIT_NOFILE", 64, 128),
        ("RLIMIT_NPROC", 500, 600),
        ("RLIMIT_RSS", 1 << 30, 1 << 31),
        ("RLIMIT_RTPRIO", 0, 0),
        ("RLIMIT_RTTIME", 1000, 2000),
        ("RLIMIT_SIGPENDING", 100, 200),
        ("RLIMIT_STACK", 1 << 20, 1 << 21),
    ];
    let list: Vec<Value> = table.iter().map(|(t, s, h)| json!({"type": t, "soft": s, "hard": h})).collect();
    let mut b = cx.bundle()?;
    b.set("/process/rlimits", json!(list));
    let v = b.inside()?;
    for (name, soft, hard) in table {
        same(name, &v["rlimits"][name], json!([soft, hard]))?;
    }
    Ok(())
}

/// What the runtime raised for itself must not leak.
fn rlimits_absent(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["json"]).save()?;
    let line = format!(
        "ulimit -Sn 321; ulimit -c 0; exec \"$0\" --root {} run --bundle {} {}",
        cx.root.display(),
        b.path(),
        cx.id()
    );
    let out = std::process::Command::new("/bin/sh").args(["-c", &line]).arg(&cx.runtime).output()?;
    let v: Value = serde_json::from_slice(&out.stdout).with_context(|| format!("{out:?}"))?;
    same("soft NOFILE", &v["rlimits"]["RLIMIT_NOFILE"][0], json!(321))?;
    same("CORE", &v["rlimits"]["RLIMIT_CORE"], json!([0, 0]))
}

fn rlimits_duplicate(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let one = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
    b.set("/process/rlimits", json!([one, one])).save()?;
    let before = cx.snapshot()?;
    let out = b.run()?;
    ensure!(out.code != 0, "duplicate entries were taken");
    cx.nothing_left(&before)
}

fn oom_score_adj(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    for value in [500, 1000, 1] {
        b.set("/process/oomScoreAdj", json!(value));
        same("oom_score_adj", &b.inside()?["oom_score_adj"], json!(value.to_string()))?;
    }
    Ok(())
}

fn oom_score_adj_zero_and_absent(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    fs::write("/proc/self/oom_score_adj", "77")?;
    b.remove("/process/oomScoreAdj");
    same("absent", &b.inside()?["oom_score_adj"], json!("77"))?;
    b.set("/process/oomScoreAdj", json!(0));
    let out = b.probe(&["json"]).run()?;
    if out.code != 0 && fs::write("/proc/self/oom_score_adj", "0").is_err() {
        return skip("no CAP_SYS_RESOURCE: cannot lower oom_score_adj");
    }
    same("zero", &out.ok()?.json()?["oom_score_adj"], json!("0"))
}

fn oom_score_adj_below_own(cx: &Cx) -> Result<()> {
    if fs::write("/proc/self/oom_score_adj", "-1").is_err() {
        return skip("no CAP_SYS_RESOURCE: cannot lower oom_score_adj");
    }
    fs::write("/proc/self/oom_score_adj", "0")?;
    let mut b = cx.bundle()?;
    b.set("/process/oomScoreAdj", json!(-500));
    same("oom_score_adj", &b.inside()?["oom_score_adj"], json!("-500"))
}

fn hostname(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    for name in ["hostname-specific", "a.b.c", "x"] {
        b.set("/hostname", json!(name));
        same("hostname", &b.inside()?["hostname"], json!(name))?;
    }
    b.remove("/hostname");
    let own = fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_string();
    same("inherited", &b.inside()?["hostname"], json!(own))
}

fn domainname(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/domainname", json!("example.org"));
    same("domainname", &b.inside()?["domainname"], json!("example.org"))
}

fn hostname_of_host_kept_outside(cx: &Cx) -> Result<()> {
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut b = cx.bundle()?;
    b.set("/hostname", json!("other")).set("/domainname", json!("other.org"));
    b.run()?.ok()?;
    eq("hostname", fs::read_to_string("/proc/sys/kernel/hostname")?, before)
}

fn sysctl_of_namespaces(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set(
        "/linux/sysctl",
        json!({"net.ipv4.ip_forward": "1", "net.core.somaxconn": "256", "kernel.shmmax": "123456789",
               "kernel.msgmax": "4096", "fs.mqueue.msg_max": "20", "net.ipv4.ping_group_range": "0 2147483647",
               "kernel.sem": "100 200 30 40"}),
    );
    b.expect(&[
        (&["cat", "/proc/sys/net/ipv4/ip_forward"], "ok \"1\\n\""),
        (&["cat", "/proc/sys/net/core/somaxconn"], "ok \"256\\n\""),
        (&["cat", "/proc/sys/kernel/shmmax"], "ok \"123456789\\n\""),
        (&["cat", "/proc/sys/kernel/msgmax"], "ok \"4096\\n\""),
        (&["cat", "/proc/sys/fs/mqueue/msg_max"], "ok \"20\\n\""),
        (&["cat", "/proc/sys/net/ipv4/ping_group_range"], "ok \"0\\t2147483647\\n\""),
        (&["cat", "/proc/sys/kernel/sem"], "ok \"100\\t200\\t30\\t40\\n\""),
    ])
}

fn sysctl_written_with_slashes(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/sysctl", json!({"net/ipv4/ip_forward": "1", "net/ipv4/conf/lo/rp_filter": "2"}));
    b.expect(&[
        (&["cat", "/proc/sys/net/ipv4/conf/lo/rp_filter"], "ok \"2\\n\""),
        (&["cat", "/proc/sys/net/ipv4/conf/all/forwarding"], "ok \"1\\n\""),
    ])
}

fn personality(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/personality", json!({"domain": "LINUX32"}));
    same("personality", &b.inside()?["personality"], json!(8))?;
    b.set("/linux/personality", json!({"domain": "LINUX"}));
    same("personality", &b.inside()?["personality"], json!(0))
}

fn scheduler(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    for (policy, number, nice) in [("SCHED_BATCH", 3, 5), ("SCHED_IDLE", 5, 0), ("SCHED_OTHER", 0, 7)] {
        b.set("/process/scheduler", json!({"policy": policy, "nice": nice}));
        let v = b.inside()?;
        same(policy, &v["sched_policy"], json!(number))?;
        if policy != "SCHED_IDLE" {
            same("nice", &v["nice"], json!(nice))?;
        }
    }
    Ok(())
}

fn io_priority(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    for (class, number, priority) in [("IOPRIO_CLASS_BE", 2, 6), ("IOPRIO_CLASS_IDLE", 3, 0)] {
        b.set("/process/ioPriority", json!({"class": class, "priority": priority}));
        same(class, &b.inside()?["ioprio"], json!((number << 13) | priority))?;
    }
    Ok(())
}

fn session_keyring(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["json"]).save()?;
    let id = cx.id();
    let v = cx.rt(&["run", "--bundle", &b.path(), &id])?.ok()?.json()?;
    let Some(text) = v["session_keyring"].as_str() else { return skip("no keyrings here") };
    ensure!(text.ends_with(&format!(";_ses.{id}")) || cx.kind == "crun", "session keyring {text}");
    Ok(())
}

fn session_keyring_not_new(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["json"]).save()?;
    let id = cx.id();
    let v = cx.rt(&["run", "--no-new-keyring", "--bundle", &b.path(), &id])?.ok()?.json()?;
    ensure!(!v["session_keyring"].as_str().unwrap_or_default().contains(&id), "keyring {}", v["session_keyring"]);
    Ok(())
}

/// An engine bound to one processor does not bind its containers: the cgroup decides.
fn affinity_is_all(cx: &Cx) -> Result<()> {
    use nix::sched::{CpuSet, sched_setaffinity};
    let own = fs::read_to_string("/proc/self/status")?;
    let all = own.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).map(str::trim).unwrap_or_default();
    if all == "0" {
        return skip("one processor");
    }
    let mut one = CpuSet::new();
    one.set(0)?;
    sched_setaffinity(nix::unistd::Pid::from_raw(0), &one)?;
    let mut b = cx.bundle()?;
    same("processors", &b.inside()?["cpus_allowed"], json!(all))
}

/// Where the kernel has no AppArmor a profile cannot be had: an error, never a program without it.
fn apparmor_profile_needs_apparmor(cx: &Cx) -> Result<()> {
    if std::path::Path::new("/sys/kernel/security/apparmor").exists()
        || fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y'))
    {
        return skip("AppArmor is here: needs a loaded profile");
    }
    let mut b = cx.bundle()?;
    b.set("/process/apparmorProfile", json!("acme_secure_profile"));
    b.save()?;
    let before = cx.snapshot()?;
    let out = b.run()?;
    ensure!(out.code != 0, "ran without its profile");
    cx.nothing_left(&before)
}
