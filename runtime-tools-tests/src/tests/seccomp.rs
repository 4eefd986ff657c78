//! Seccomp: actions, error numbers, argument conditions, architectures, and when the filter is loaded.

use super::tests;
use crate::cx::{Cx, eq, same, skip};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

tests!["seccomp":
    absent_means_off,
    default_allow_without_rules,
    errno_is_eperm_by_default,
    errno_given,
    errno_zero,
    default_errno,
    default_errno_given,
    default_kill_process,
    kill_thread_and_kill_mean_death,
    trap,
    log_allows,
    trace_without_tracer,
    several_names_and_rules,
    unknown_names_are_skipped,
    first_rule_or_later,
    argument_operators,
    argument_masked,
    argument_high_bits,
    arguments_are_and_ed,
    rules_are_or_ed,
    same_argument_twice,
    all_six_arguments,
    other_architecture_dies,
    architecture_x86_listed,
    architectures_absent_means_native,
    newer_than_the_profile_is_enosys deviates ["crun" = "gives the default action"],
    flags,
    loaded_without_no_new_privs,
    loaded_with_no_new_privs,
    setup_calls_may_be_forbidden,
    with_user_and_few_calls,
    old_profile_without_no_new_privs,
    getcwd_may_be_forbidden deviates ["runc" = "calls it after the filter is loaded"],
    nothing_is_permitted,
    few_calls deviates ["crun" = "calls others"],
    few_calls_and_no_program deviates ["crun" = "calls others", "runc" = "start does not see it"],
    every_call_is_interrupted deviates ["crun" = "waits for ever"],
    big_profile,
    exec_gets_it_too,
    notify_without_listener deviates ["crun" = "has words of its own"],
];

fn rule(names: &[&str], action: &str) -> Value {
    json!({"names": names, "action": action})
}

fn filter<'a>(cx: &'a Cx, default: &str, rules: Value) -> Result<crate::bundle::Bundle<'a>> {
    let mut b = cx.bundle()?;
    b.set("/linux/seccomp", json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": rules}));
    Ok(b)
}

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";

fn absent_means_off(cx: &Cx) -> Result<()> {
    same("mode", &cx.bundle()?.inside()?["seccomp"], json!("0"))
}

fn default_allow_without_rules(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/linux/seccomp", json!({"defaultAction": ALLOW}));
    b.expect(&[(&["syscall", "getpid"], "ok"), (&["syscall", "getppid"], "ok")])
}

fn errno_is_eperm_by_default(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ALLOW, json!([rule(&["getppid"], ERRNO)]))?;
    b.expect(&[(&["syscall", "getppid"], "EPERM"), (&["syscall", "getpid"], "ok")])
}

fn errno_given(cx: &Cx) -> Result<()> {
    let mut rules = vec![];
    for (name, number) in [("getppid", 2), ("kcmp", 38), ("sched_yield", 131)] {
        let mut r = rule(&[name], ERRNO);
        r["errnoRet"] = json!(number);
        rules.push(r);
    }
    let mut b = filter(cx, ALLOW, json!(rules))?;
    b.expect(&[
        (&["syscall", "getppid"], "ENOENT"),
        (&["syscall", "kcmp"], "ENOSYS"),
        (&["syscall", "sched_yield"], "ENOTRECOVERABLE"),
    ])
}

/// Success without the call.
fn errno_zero(cx: &Cx) -> Result<()> {
    let mut r = rule(&["sethostname"], ERRNO);
    r["errnoRet"] = json!(0);
    let mut b = filter(cx, ALLOW, json!([r]))?;
    b.expect(&[(&["syscall", "sethostname", "0", "5"], "ok")])
}

/// All the calls that a runtime's own last steps and the probe may need.
fn permitted() -> Vec<&'static str> {
    include_str!("seccomp_permitted.txt").split_whitespace().collect()
}

fn default_errno(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ERRNO, json!([rule(&permitted(), ALLOW)]))?;
    b.expect(&[
        (&["syscall", "getpid"], "ok"),
        (&["syscall", "getpriority"], "EPERM"),
        (&["syscall", "kcmp"], "EPERM"),
    ])
}

fn default_errno_given(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ERRNO, json!([rule(&permitted(), ALLOW)]))?;
    b.set("/linux/seccomp/defaultErrnoRet", json!(38));
    b.expect(&[
        (&["syscall", "getpriority"], "ENOSYS"),
        (&["syscall", "kcmp"], "ENOSYS"),
        (&["syscall", "getpid"], "ok"),
    ])
}

fn default_kill_process(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, "SCMP_ACT_KILL_PROCESS", json!([rule(&permitted(), ALLOW)]))?;
    b.expect(&[(&["syscall", "getpid"], "ok")])?;
    b.probe(&["syscall", "getpriority"]).run()?.code(128 + 31)?;
    Ok(())
}

fn kill_thread_and_kill_mean_death(cx: &Cx) -> Result<()> {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS"] {
        let mut b = filter(cx, ALLOW, json!([rule(&["getppid"], action)]))?;
        b.probe(&["syscall", "getppid"]).run()?.code(128 + 31)?;
    }
    Ok(())
}

fn trap(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ALLOW, json!([rule(&["getppid"], "SCMP_ACT_TRAP")]))?;
    b.probe(&["syscall", "getppid"]).run()?.code(128 + 31)?;
    Ok(())
}

fn log_allows(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ALLOW, json!([rule(&["getppid"], "SCMP_ACT_LOG")]))?;
    b.expect(&[(&["syscall", "getppid"], "ok")])
}

/// Nobody traces: the kernel answers ENOSYS.
fn trace_without_tracer(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ALLOW, json!([rule(&["getppid"], "SCMP_ACT_TRACE")]))?;
    b.expect(&[(&["syscall", "getppid"], "ENOSYS"), (&["syscall", "getpid"], "ok")])
}

fn several_names_and_rules(cx: &Cx) -> Result<()> {
    let mut second = rule(&["kcmp"], ERRNO);
    second["errnoRet"] = json!(13);
    let mut b = filter(cx, ALLOW, json!([rule(&["getppid", "sched_yield"], ERRNO), second]))?;
    b.expect(&[
        (&["syscall", "getppid"], "EPERM"),
        (&["syscall", "sched_yield"], "EPERM"),
        (&["syscall", "kcmp"], "EACCES"),
        (&["syscall", "getuid"], "ok"),
    ])
}

fn unknown_names_are_skipped(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ALLOW, json!([rule(&["no_such_call", "getppid", "another_one"], ERRNO)]))?;
    b.expect(&[(&["syscall", "getppid"], "EPERM")])
}

/// A rule without conditions beats one with, in either order.
fn first_rule_or_later(cx: &Cx) -> Result<()> {
    let with = json!({"names": ["personality"], "action": ERRNO, "errnoRet": 13, "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]});
    let mut b = filter(cx, ALLOW, json!([with]))?;
    b.expect(&[
        (&["syscall", "personality", "7"], "EACCES"),
        (&["syscall", "personality", "0xffffffff"], "ok"),
    ])
}

fn condition(op: &str, index: u32, value: u64) -> Value {
    json!({"names": ["getpriority"], "action": ERRNO, "errnoRet": 13, "args": [{"index": index, "value": value, "op": op}]})
}

/// getpriority(which, who): EINVAL from the kernel tells that no rule matched, EACCES that one did.
fn argument_operators(cx: &Cx) -> Result<()> {
    let table: [(&str, [bool; 3]); 6] = [
        ("SCMP_CMP_EQ", [false, true, false]),
        ("SCMP_CMP_NE", [true, false, true]),
        ("SCMP_CMP_LT", [true, false, false]),
        ("SCMP_CMP_LE", [true, true, false]),
        ("SCMP_CMP_GT", [false, false, true]),
        ("SCMP_CMP_GE", [false, true, true]),
    ];
    for (op, matches) in table {
        let mut b = filter(cx, ALLOW, json!([condition(op, 0, 100)]))?;
        let lines = b.answers(&[
            &["syscall", "getpriority", "99"],
            &["syscall", "getpriority", "100"],
            &["syscall", "getpriority", "101"],
        ])?;
        let wanted: Vec<&str> = matches.iter().map(|m| if *m { "EACCES" } else { "EINVAL" }).collect();
        eq(op, lines, wanted)?;
    }
    Ok(())
}

fn argument_masked(cx: &Cx) -> Result<()> {
    let mut r = condition("SCMP_CMP_MASKED_EQ", 0, 0xf0);
    r["args"][0]["valueTwo"] = json!(0x50);
    let mut b = filter(cx, ALLOW, json!([r]))?;
    b.expect(&[
        (&["syscall", "getpriority", "0x50"], "EACCES"),
        (&["syscall", "getpriority", "0x155"], "EACCES"),
        (&["syscall", "getpriority", "0x60"], "EINVAL"),
        (&["syscall", "getpriority", "0x5"], "EINVAL"),
    ])
}

/// Comparisons are of 64 bits, unsigned.
fn argument_high_bits(cx: &Cx) -> Result<()> {
    let big = 0x1_0000_0005u64;
    let mut b = filter(cx, ALLOW, json!([condition("SCMP_CMP_EQ", 1, big)]))?;
    b.expect(&[
        (&["syscall", "getpriority", "9", "0x100000005"], "EACCES"),
        (&["syscall", "getpriority", "9", "5"], "EINVAL"),
        (&["syscall", "getpriority", "9", "0x200000005"], "EINVAL"),
    ])?;
    let mut b = filter(cx, ALLOW, json!([condition("SCMP_CMP_GT", 1, big)]))?;
    b.expect(&[
        (&["syscall", "getpriority", "9", "0x100000006"], "EACCES"),
        (&["syscall", "getpriority", "9", "0x100000005"], "EINVAL"),
        (&["syscall", "getpriority", "9", "0x200000000"], "EACCES"),
        (&["syscall", "getpriority", "9", "0xffffffff"], "EINVAL"),
        (&["syscall", "getpriority", "9", "-1"], "EACCES"),
    ])?;
    let mut b = filter(cx, ALLOW, json!([condition("SCMP_CMP_LE", 1, big)]))?;
    b.expect(&[
        (&["syscall", "getpriority", "9", "0x100000005"], "EACCES"),
        (&["syscall", "getpriority", "9", "0xffffffff"], "EACCES"),
        (&["syscall", "getpriority", "9", "0x100000006"], "EINVAL"),
        (&["syscall", "getpriority", "9", "0x200000000"], "EINVAL"),
    ])
}

fn arguments_are_and_ed(cx: &Cx) -> Result<()> {
    let r = json!({"names": ["getpriority"], "action": ERRNO, "errnoRet": 13, "args": [
        {"index": 0, "value": 50, "op": "SCMP_CMP_GE"}, {"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}]});
    let mut b = filter(cx, ALLOW, json!([r]))?;
    b.expect(&[
        (&["syscall", "getpriority", "50", "7"], "EACCES"),
        (&["syscall", "getpriority", "50", "8"], "EINVAL"),
        (&["syscall", "getpriority", "49", "7"], "EINVAL"),
    ])
}

fn rules_are_or_ed(cx: &Cx) -> Result<()> {
    let mut b = filter(
        cx,
        ALLOW,
        json!([
            condition("SCMP_CMP_EQ", 0, 50),
            condition("SCMP_CMP_EQ", 0, 60),
            condition("SCMP_CMP_EQ", 1, 9)
        ]),
    )?;
    b.expect(&[
        (&["syscall", "getpriority", "50"], "EACCES"),
        (&["syscall", "getpriority", "60"], "EACCES"),
        (&["syscall", "getpriority", "70", "9"], "EACCES"),
        (&["syscall", "getpriority", "70"], "EINVAL"),
    ])
}

/// Two conditions on one argument of one rule: libseccomp cannot AND them, peers take either.
fn same_argument_twice(cx: &Cx) -> Result<()> {
    let r = json!({"names": ["getpriority"], "action": ERRNO, "errnoRet": 13, "args": [
        {"index": 0, "value": 50, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 60, "op": "SCMP_CMP_EQ"}]});
    let mut b = filter(cx, ALLOW, json!([r]))?;
    b.expect(&[
        (&["syscall", "getpriority", "50"], "EACCES"),
        (&["syscall", "getpriority", "60"], "EACCES"),
        (&["syscall", "getpriority", "70"], "EINVAL"),
    ])
}

fn all_six_arguments(cx: &Cx) -> Result<()> {
    let args: Vec<Value> =
        (0..6).map(|i| json!({"index": i, "value": 100 + i, "op": "SCMP_CMP_EQ"})).collect();
    let r = json!({"names": ["kcmp"], "action": ERRNO, "errnoRet": 13, "args": args});
    let mut b = filter(cx, ALLOW, json!([r]))?;
    let lines = b.answers(&[
        &["syscall", "kcmp", "100", "101", "102", "103", "104", "105"],
        &["syscall", "kcmp", "100", "101", "102", "103", "104", "106"],
    ])?;
    eq("all", lines[0].as_str(), "EACCES")?;
    ensure!(lines[1] != "EACCES", "one argument differs and the rule still matched");
    Ok(())
}

fn x86(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    if cfg!(not(target_arch = "x86_64")) || b.lines(&["int80", "20"])? != ["ok"] {
        return skip("no 32-bit calls here");
    }
    Ok(())
}

/// A call of an architecture that is not listed must not get past the rules.
fn other_architecture_dies(cx: &Cx) -> Result<()> {
    x86(cx)?;
    let mut b = filter(cx, ALLOW, json!([rule(&["getppid"], ERRNO)]))?;
    b.set("/linux/seccomp/architectures", json!(["SCMP_ARCH_X86_64"]));
    // 20 is getpid there.
    let out = b.probe(&["int80", "20"]).run()?;
    ensure!(out.code == 128 + 31 || out.stdout != "ok\n", "a 32-bit call passed: {}", out.stdout);
    Ok(())
}

/// The numbers differ: 64 is getppid in 32-bit programs, 110 in others.
fn architecture_x86_listed(cx: &Cx) -> Result<()> {
    x86(cx)?;
    let mut r = rule(&["getppid"], ERRNO);
    r["errnoRet"] = json!(13);
    let mut b = filter(cx, ALLOW, json!([r]))?;
    b.expect(&[
        (&["int80", "64"], "EACCES"),
        (&["int80", "20"], "ok"),
        (&["syscall", "getppid"], "EACCES"),
        (&["syscall", "getpid"], "ok"),
    ])
}

fn architectures_absent_means_native(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ALLOW, json!([rule(&["getppid"], ERRNO)]))?;
    b.remove("/linux/seccomp/architectures");
    b.expect(&[(&["syscall", "getppid"], "EPERM"), (&["syscall", "getpid"], "ok")])?;
    b.set("/linux/seccomp/architectures", json!([]));
    b.expect(&[(&["syscall", "getppid"], "EPERM")])
}

/// A program that probes for a call newer than the profile must be told that it is not there, not that it may not.
fn newer_than_the_profile_is_enosys(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ERRNO, json!([rule(&permitted(), ALLOW)]))?;
    b.expect(&[
        (&["syscall", "600"], "ENOSYS"),
        (&["syscall", "999"], "ENOSYS"),
        (&["syscall", "kcmp"], "EPERM"),
    ])
}

fn flags(cx: &Cx) -> Result<()> {
    for flags in [
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC"]),
    ] {
        let mut b = filter(cx, ALLOW, json!([rule(&["getppid"], ERRNO)]))?;
        b.set("/linux/seccomp/flags", flags);
        b.expect(&[(&["syscall", "getppid"], "EPERM")])?;
    }
    Ok(())
}

fn loaded_without_no_new_privs(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ALLOW, json!([rule(&["kcmp"], ERRNO)]))?;
    b.set("/process/noNewPrivileges", json!(false)).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let v = b.inside()?;
    same("mode", &v["seccomp"], json!("2"))?;
    same("no_new_privs", &v["no_new_privs"], json!("0"))
}

fn loaded_with_no_new_privs(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ALLOW, json!([rule(&["getppid"], ERRNO)]))?;
    b.set("/process/noNewPrivileges", json!(true)).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let v = b.inside()?;
    same("mode", &v["seccomp"], json!("2"))?;
    same("no_new_privs", &v["no_new_privs"], json!("1"))
}

/// With no_new_privs the filter comes last: the calls that set the container up may all be forbidden by it.
fn setup_calls_may_be_forbidden(cx: &Cx) -> Result<()> {
    let names = [
        "mount",
        "umount2",
        "pivot_root",
        "setns",
        "unshare",
        "clone3",
        "mknod",
        "mknodat",
        "sethostname",
        "setgroups",
        "setresuid",
        "setresgid",
        "setuid",
        "setgid",
        "capset",
        "chroot",
        "open_tree",
        "move_mount",
        "fsopen",
        "mount_setattr",
    ];
    let mut b = filter(cx, ALLOW, json!([rule(&names, ERRNO)]))?;
    b.set("/process/noNewPrivileges", json!(true)).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    b.expect(&[(&["syscall", "unshare"], "EPERM"), (&["syscall", "getpid"], "ok")])
}

fn with_user_and_few_calls(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ERRNO, json!([rule(&permitted(), ALLOW)]))?;
    b.set("/process/user", json!({"uid": 1000, "gid": 1000})).set("/process/noNewPrivileges", json!(true));
    b.expect(&[(&["syscall", "getpid"], "ok"), (&["syscall", "unshare"], "EPERM")])
}

/// Without no_new_privs the filter is loaded before the user changes and the program is looked up: a profile written
/// for older kernels must not keep those steps from working.
fn old_profile_without_no_new_privs(cx: &Cx) -> Result<()> {
    let newer = "cachestat clone3 close_range epoll_pwait2 faccessat2 fchmodat2 fsconfig fsmount fsopen futex_requeue \
        futex_wait futex_waitv futex_wake getxattrat landlock_create_ruleset landlock_restrict_self listmount \
        listxattrat map_shadow_stack membarrier memfd_secret mount_setattr move_mount mseal name_to_handle_at open_tree \
        openat2 pidfd_getfd pidfd_open pidfd_send_signal pkey_alloc pkey_free pkey_mprotect preadv2 process_mrelease \
        pwritev2 rseq statmount";
    let newer: Vec<&str> = newer.split_whitespace().collect();
    let old: Vec<&str> = permitted().into_iter().filter(|n| !newer.contains(n)).collect();
    for uid in [0, 1000] {
        for program in ["probe", "/bin/probe"] {
            let mut b = filter(cx, ERRNO, json!([rule(&old, ALLOW)]))?;
            b.remove("/process/noNewPrivileges").set("/process/user", json!({"uid": uid, "gid": uid}));
            b.set("/process/env", json!(["PATH=/absent:/bin"])).set("/process/cwd", json!("/tmp"));
            b.set("/process/args", json!([program, "say", "ran"]));
            let out = b.run().with_context(|| format!("uid {uid}, {program}"))?.ok()?;
            eq("output", out.stdout, "ran\n")?;
        }
    }
    Ok(())
}

/// Whether the working directory is inside is to be asked before.
fn getcwd_may_be_forbidden(cx: &Cx) -> Result<()> {
    for uid in [0, 1000] {
        let mut b = filter(cx, ALLOW, json!([rule(&["getcwd"], ERRNO)]))?;
        b.remove("/process/noNewPrivileges").set("/process/user", json!({"uid": uid, "gid": uid}));
        b.expect(&[(&["syscall", "getcwd"], "EPERM")])?;
    }
    Ok(())
}

/// What refuses every call refuses also the end of the process that has loaded it. Nobody waits for that for ever.
fn nothing_is_permitted(cx: &Cx) -> Result<()> {
    for no_new_privileges in [true, false] {
        let mut b = filter(cx, ERRNO, json!([]))?;
        b.set("/process/noNewPrivileges", json!(no_new_privileges));
        let out = b.probe(&["true"]).run()?;
        ensure!(out.code != 0, "it ran");
    }
    Ok(())
}

/// All that runc 1.5 calls between its filter and the program.
const FEW: [&str; 22] = [
    "capget",
    "capset",
    "chdir",
    "close",
    "close_range",
    "execve",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getppid",
    "newfstatat",
    "openat",
    "openat2",
    "prctl",
    "read",
    "setgid",
    "setgroups",
    "setuid",
    "statx",
    "write",
];

/// What it does not depend on.
const MORE: [&str; 12] = [
    "epoll_ctl",
    "exit_group",
    "faccessat2",
    "fchown",
    "fcntl",
    "getgid",
    "getpid",
    "getrandom",
    "getuid",
    "prlimit64",
    "readlinkat",
    "tgkill",
];

/// What Go's own threads call now and then.
const OF_GO: [&str; 10] = [
    "clone",
    "gettid",
    "madvise",
    "mmap",
    "nanosleep",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "sigaltstack",
];

/// A profile that was made by watching a program under runc has not more than it and runc call. Without no_new_privs the filter
/// is in force while the container waits for `start`. The program itself may end as it likes.
fn few_calls(cx: &Cx) -> Result<()> {
    for default in [ERRNO, "SCMP_ACT_KILL_PROCESS"] {
        for uid in [0, 1000] {
            let more: &[&str] = if default == ERRNO { &[] } else { &MORE };
            let go: &[&str] = if cx.kind == "runc" { &OF_GO } else { &[] };
            let mut b = filter(cx, default, json!([rule(&[&FEW, more, go].concat(), ALLOW)]))?;
            b.remove("/process/noNewPrivileges");
            b.set("/process/user", json!({"uid": uid, "gid": uid, "additionalGids": [5, 7]}));
            let c = b.create()?;
            c.is("created")?;
            c.start()?.ok()?;
            c.becomes("stopped")?;
            c.start()?.code(1)?;
            c.delete()?;
        }
    }
    Ok(())
}

/// What can be told of a program that the filter or the image keeps from running is told by `start`.
fn few_calls_and_no_program(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ERRNO, json!([rule(&FEW, ALLOW)]))?;
    std::fs::write(b.rootfs().join("broken"), "no program")?;
    std::fs::set_permissions(b.rootfs().join("broken"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    b.remove("/process/noNewPrivileges").set("/process/args", json!(["/broken"]));
    let c = b.create()?;
    c.start()?.fails(&["exec format error"])?;
    c.becomes("stopped")?;
    c.delete()?;
    Ok(())
}

/// Nor for what claims that every call was interrupted, and may be made again.
fn every_call_is_interrupted(cx: &Cx) -> Result<()> {
    for no_new_privileges in [true, false] {
        let mut b = filter(cx, ERRNO, json!([]))?;
        b.set("/linux/seccomp/defaultErrnoRet", json!(4));
        b.set("/process/noNewPrivileges", json!(no_new_privileges));
        b.probe(&["true"]).save()?;
        let before = cx.snapshot()?;
        let limit = std::time::Duration::from_secs(20);
        for command in ["create", "run"] {
            let id = cx.id();
            let out = cx.cmd(&[command, "--bundle", &b.path(), &id]).limit(limit).run()?;
            if out.code == 0 {
                eq("command", command, "create")?;
                cx.cmd(&["start", &id]).limit(limit).run()?;
            }
            cx.rt(&["delete", "--force", &id])?;
        }
        cx.nothing_left(&before)?;
    }
    Ok(())
}

/// Docker's own: its rules and conditions as an engine writes them.
fn big_profile(cx: &Cx) -> Result<()> {
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(cx.configs.join("docker-default.json"))?)?;
    let mut b = cx.bundle()?;
    b.set("/linux/seccomp", config["linux"]["seccomp"].clone());
    b.expect(&[
        (&["syscall", "getpid"], "ok"),
        (&["syscall", "unshare", "0x10000000"], "EPERM"),
        (&["syscall", "mount"], "EPERM"),
        (&["syscall", "keyctl"], "EPERM"),
        (&["syscall", "clone3"], "ENOSYS"),
        (&["syscall", "personality", "0xffffffff"], "ok"),
        (&["syscall", "personality", "0x0400000"], "EPERM"),
        (&["syscall", "socket", "40", "1", "0"], "EPERM"),
        (&["syscall", "bpf"], "EPERM"),
        (&["syscall", "600"], "ENOSYS"),
    ])
    .or_else(|e| {
        // crun gives the default action to a call that it does not know.
        if cx.kind == "crun" && e.to_string().starts_with("syscall 600") { Ok(()) } else { Err(e) }
    })
}

fn exec_gets_it_too(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ALLOW, json!([rule(&["getppid"], ERRNO)]))?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let out = c.exec(&[], &["seq", "syscall", "getppid", "---", "syscall", "getpid"])?.ok()?;
    eq("answers", out.lines(), vec!["EPERM", "ok"])?;
    c.end()
}

fn notify_without_listener(cx: &Cx) -> Result<()> {
    let mut b = filter(cx, ALLOW, json!([rule(&["getppid"], "SCMP_ACT_NOTIFY")]))?;
    b.save()?;
    let before = cx.snapshot()?;
    b.run()?.code(1)?;
    cx.nothing_left(&before)?;
    b.set("/linux/seccomp/listenerPath", json!("/absent/socket")).save()?;
    b.run()?.code(1)?;
    cx.nothing_left(&before)
}
