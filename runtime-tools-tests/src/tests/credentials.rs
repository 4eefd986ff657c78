//! Who the process is and what it may take: user, groups, umask, capabilities, no_new_privs, limits, OOM score.

use super::tests;
use crate::cx::{Cx, eq, same, skip};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;

tests!["credentials":
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
];

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
    sets(
        &v,
        &[
            ("bounding", bits),
            ("permitted", bits),
            ("effective", bits),
            ("inheritable", NONE),
            ("ambient", NONE),
        ],
    )
}

fn capabilities_absent(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.remove("/process/capabilities");
    let v = b.inside()?["caps"].clone();
    sets(
        &v,
        &[
            ("bounding", NONE),
            ("permitted", NONE),
            ("effective", NONE),
            ("inheritable", NONE),
            ("ambient", NONE),
        ],
    )
}

fn capabilities_empty(cx: &Cx) -> Result<()> {
    let v = caps(cx, 0, json!({}))?;
    sets(
        &v,
        &[
            ("bounding", NONE),
            ("permitted", NONE),
            ("effective", NONE),
            ("inheritable", NONE),
            ("ambient", NONE),
        ],
    )
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
    let v = caps(
        cx,
        0,
        json!({"bounding": list, "permitted": list, "effective": list, "inheritable": ["CAP_KILL"]}),
    )?;
    sets(&v, &[("inheritable", "0000000000000020"), ("ambient", NONE), ("bounding", "0000000000000021")])
}

fn capabilities_bounding_only(cx: &Cx) -> Result<()> {
    let v = caps(cx, 1000, json!({"bounding": ["CAP_CHOWN"]}))?;
    sets(&v, &[("bounding", "0000000000000001"), ("permitted", NONE), ("effective", NONE)])
}

/// A warning, not an error: the config may come from a newer kernel's list.
fn capability_unknown(cx: &Cx) -> Result<()> {
    let list = json!(["CAP_CHOWN", "CAP_FROM_THE_FUTURE", "NO_CAPABILITY"]);
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
