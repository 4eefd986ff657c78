//! Tables of profiles and verdicts. The comparison with libseccomp is in runtime-tools-tests/seccomp-differential.

use super::arch::{self, Arch};
use super::interpret::{Call, check, run};
use super::{Filter, compile, compile_for, table};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0;
const X32: u32 = arch::X32_BIT;

fn profile(value: &Value) -> LinuxSeccomp {
    serde_json::from_value(value.clone()).expect("a profile")
}

fn filter(value: &Value, native: &'static Arch) -> Filter {
    let filter = compile_for(&profile(value), native).expect("compiles").expect("a filter");
    assert!(check(&filter.program), "{value}");
    filter
}

fn verdict(value: &Value, audit: u32, number: u32, args: [u64; 6]) -> u32 {
    run(&filter(value, &arch::X86_64).program, &Call { number, arch: audit, args }).0
}

/// On x86_64 with the first arguments given.
fn on_x86_64(value: &Value, number: u32, first: &[u64]) -> u32 {
    verdict(value, arch::X86_64.audit, number, std::array::from_fn(|n| first.get(n).copied().unwrap_or(0)))
}

fn on_x86(value: &Value, number: u32, first: &[u64]) -> u32 {
    verdict(value, arch::X86.audit, number, std::array::from_fn(|n| first.get(n).copied().unwrap_or(0)))
}

fn entry(names: &[&str], action: &str, args: Value) -> Value {
    json!({"names": names, "action": action, "args": args})
}

fn arg(index: u32, op: &str, value: u64) -> Value {
    json!({"index": index, "op": format!("SCMP_CMP_{op}"), "value": value})
}

#[test]
fn what_a_filter_permits_is_known() {
    let rule = |names: &[&str], action: &str| json!({"names": names, "action": action});
    for (default, rules, permitted) in [
        ("SCMP_ACT_ALLOW", json!([rule(&["getpid"], "SCMP_ACT_ERRNO")]), true),
        ("SCMP_ACT_LOG", json!([rule(&["getpid"], "SCMP_ACT_ERRNO")]), true),
        ("SCMP_ACT_ALLOW", json!([rule(&["accept4"], "SCMP_ACT_ERRNO")]), false),
        ("SCMP_ACT_ERRNO", json!([rule(&["accept4", "read"], "SCMP_ACT_ALLOW")]), true),
        ("SCMP_ACT_KILL_PROCESS", json!([rule(&["read"], "SCMP_ACT_ALLOW")]), false),
    ] {
        let profile = json!({"defaultAction": default, "syscalls": rules});
        let filter = compile(&serde_json::from_value(profile).unwrap()).unwrap().unwrap();
        assert_eq!(filter.permits(libc::SYS_accept4), permitted, "{default} {rules}");
    }
    assert!(!Filter::from_bytes(&[0; 12]).unwrap().permits(0), "no end");
}

#[test]
fn errors_name_the_field() {
    let call = |entry: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]});
    let kill = "SCMP_ACT_KILL";
    let cases = [
        (
            json!({"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}),
            "/linux/seccomp/defaultErrnoRet: SCMP_ACT_KILL returns no errno",
        ),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "/linux/seccomp/defaultAction: "),
        (
            call(json!({"names": ["read"], "action": "SCMP_ACT_LOG", "errnoRet": 5})),
            "/linux/seccomp/syscalls/0/errnoRet: SCMP_ACT_LOG ",
        ),
        (
            call(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 65536})),
            "/linux/seccomp/syscalls/0/errnoRet: 65536 ",
        ),
        (
            call(entry(&["read"], kill, json!([arg(0, "EQ", 1), arg(6, "EQ", 1)]))),
            "/linux/seccomp/syscalls/0/args/1/index: ",
        ),
        (call(entry(&["read", ""], kill, json!([]))), "/linux/seccomp/syscalls/0/names/1: "),
        (
            call(entry(&["read", "write"], "SCMP_ACT_NOTIFY", json!([]))),
            "/linux/seccomp/syscalls/0/names/1: SCMP_ACT_NOTIFY ",
        ),
        (call(entry(&["read"], "SCMP_ACT_NOTIFY", json!([]))), "/linux/seccomp/listenerPath: "),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "/linux/seccomp/listenerMetadata: ",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_KILL", "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            "/linux/seccomp/flags/1: ",
        ),
    ];
    for (value, begin) in cases {
        let error = compile(&profile(&value)).expect_err(begin).to_string();
        assert!(error.starts_with(begin), "{error}");
    }
    // 2000 calls with as many different values do not fit.
    let many: Vec<Value> =
        (0..2000).map(|n| entry(&["read"], kill, json!([arg(0, "EQ", n), arg(1, "EQ", n)]))).collect();
    let error = compile(&profile(&json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": many})))
        .expect_err("too long");
    assert!(error.to_string().starts_with("/linux/seccomp/syscalls: the filter needs "), "{error}");
}

#[test]
fn flags_are_those_of_runc() {
    let cases = [
        (Value::Null, 4),
        (json!([]), 0),
        (json!(["SECCOMP_FILTER_FLAG_TSYNC"]), 0),
        (json!(["SECCOMP_FILTER_FLAG_LOG"]), 2),
        (json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_LOG"]), 6),
        (json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), 32),
    ];
    for (flags, bits) in cases {
        let notify = bits == 32;
        let action = if notify { "SCMP_ACT_NOTIFY" } else { "SCMP_ACT_KILL" };
        let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "listenerPath": "/run/agent",
            "syscalls": [entry(&["mkdir"], action, json!([]))]});
        let filter = filter(&value, arch::NATIVE);
        assert_eq!((filter.flags, filter.agent.is_some()), (bits, notify), "{flags}");
    }
}

#[test]
fn nothing_to_install() {
    let none = |value: Value| compile(&profile(&value)).expect("compiles").is_none();
    assert!(none(json!({"defaultAction": "SCMP_ACT_ALLOW"})));
    assert!(none(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "syscalls": []})));
    assert!(!none(json!({"defaultAction": "SCMP_ACT_LOG"})));
    // The list forbids the other architectures.
    assert!(!none(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]})));
}

#[test]
fn actions_and_defaults() {
    let cases = [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
        ("SCMP_ACT_TRAP", None, 0x0003_0000),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", Some(0), 0x0005_0000),
        ("SCMP_ACT_ERRNO", Some(38), ENOSYS),
        ("SCMP_ACT_TRACE", None, 0x7ff0_0001),
        ("SCMP_ACT_TRACE", Some(7), 0x7ff0_0007),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
        ("SCMP_ACT_NOTIFY", None, 0x7fc0_0000),
        ("SCMP_ACT_ALLOW", None, ALLOW),
    ];
    for (action, errno, ret) in cases {
        let value = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 9, "listenerPath": "/run/agent",
            "syscalls": [{"names": ["mkdir"], "action": action, "errnoRet": errno}]});
        assert_eq!(on_x86_64(&value, 83, &[]), ret, "{action}");
        assert_eq!(on_x86_64(&value, 82, &[]), 0x0005_0009, "{action}");
    }
}

#[test]
fn calls_newer_than_the_profile() {
    let value = |default: &str| {
        json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [entry(&["mkdir", "no_such_call"], "SCMP_ACT_ALLOW", json!([]))]})
    };
    for (default, below, above) in [
        ("SCMP_ACT_ERRNO", EPERM, ENOSYS),
        ("SCMP_ACT_KILL", KILL, ENOSYS),
        ("SCMP_ACT_TRAP", 0x0003_0000, ENOSYS),
        ("SCMP_ACT_LOG", 0x7ffc_0000, 0x7ffc_0000),
        ("SCMP_ACT_TRACE", 0x7ff0_0001, 0x7ff0_0001),
    ] {
        let value = value(default);
        // mkdir is 83 on x86_64, listed or not, and 39 on x86.
        let got = [82, 83, 84, 500, X32 - 1].map(|number| on_x86_64(&value, number, &[]));
        assert_eq!(got, [below, ALLOW, above, above, above], "{default}");
        let got = [38, 39, 40, X32, u32::MAX].map(|number| on_x86(&value, number, &[]));
        assert_eq!(got, [below, ALLOW, above, above, above], "{default}");
        // x32 is not listed; -1 is no x32 call.
        let got =
            [X32, X32 + 83, X32 * 2 - 1, X32 * 3, u32::MAX - 1].map(|number| on_x86_64(&value, number, &[]));
        assert_eq!(got, [KILL; 5], "{default}");
        assert_eq!(on_x86_64(&value, u32::MAX, &[]), below);
        assert_eq!(verdict(&value, arch::ARM.audit, 83, [0; 6]), KILL, "a wrong architecture");
    }
    // A rule that says the same as the default is no rule, but its calls are known to the profile.
    let value = json!({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [entry(&["mkdir"], "SCMP_ACT_ALLOW", json!([])), entry(&["openat2"], "SCMP_ACT_ERRNO", json!([]))]});
    assert_eq!([437, 438].map(|number| on_x86_64(&value, number, &[])), [EPERM, ENOSYS]);
    // Number 0 is not newer than anything.
    let value = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [entry(&["read"], "SCMP_ACT_ALLOW", json!([]))]});
    assert_eq!([0, 1, 999].map(|number| on_x86_64(&value, number, &[])), [ALLOW, EPERM, EPERM]);
}

#[test]
fn x32_has_its_own_numbers() {
    let value = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        "syscalls": [entry(&["rt_sigaction", "mkdir"], "SCMP_ACT_ALLOW", json!([arg(0, "EQ", 1 << 32 | 5)]))]});
    // rt_sigaction: 13, and 512 for x32. x32 arguments have 32 bits.
    let whole = [1 << 32 | 5];
    assert_eq!([13, 83, 84].map(|number| on_x86_64(&value, number, &whole)), [ALLOW, ALLOW, ENOSYS]);
    assert_eq!([13, 83].map(|number| on_x86_64(&value, number, &[5])), [EPERM, EPERM]);
    let got = [13, 83, 84, 512, 513].map(|number| on_x86_64(&value, X32 + number, &[5]));
    assert_eq!(got, [EPERM, ALLOW, EPERM, ALLOW, ENOSYS]);
    assert_eq!([X32 * 2, u32::MAX].map(|number| on_x86_64(&value, number, &[5])), [ENOSYS, ENOSYS]);
}

#[test]
fn operators() {
    let high = 7 << 32;
    let cases: [(&str, u64, &[u64], &[u64]); 13] = [
        ("EQ", 5, &[5], &[4, 6, high | 5, u64::MAX]),
        ("NE", 5, &[4, 6, high | 5, u64::MAX], &[5]),
        ("GE", 5, &[5, 6, high, u64::MAX], &[0, 4]),
        ("GT", 5, &[6, high, u64::MAX], &[0, 4, 5]),
        ("LE", 5, &[0, 5], &[6, high, u64::MAX]),
        ("LT", 5, &[0, 4], &[5, high, u64::MAX]),
        ("GE", high | 5, &[high | 5, high | 6, 8 << 32, u64::MAX], &[0, 5, 6, high | 4, 6 << 32 | 9]),
        ("LT", high | 5, &[0, 5, 6, high | 4, 6 << 32 | 9], &[high | 5, high | 6, 8 << 32, u64::MAX]),
        ("LE", high, &[0, high, 0xffff_ffff], &[high | 1, 8 << 32]),
        ("GT", u64::MAX, &[], &[0, u64::MAX]),
        ("LE", u64::MAX, &[0, u64::MAX], &[]),
        ("GE", 0, &[0, u64::MAX], &[]),
        ("LT", 0, &[], &[0, u64::MAX]),
    ];
    for index in [0, 5] {
        for (op, value, matching, others) in cases {
            let value = json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [entry(&["mkdir"], "SCMP_ACT_ERRNO", json!([arg(index, op, value)]))]});
            let got = |actual: u64| {
                let mut args = [0; 6];
                args[index as usize] = actual;
                on_x86_64(&value, 83, &args)
            };
            assert!(matching.iter().all(|actual| got(*actual) == EPERM), "{value}");
            assert!(others.iter().all(|actual| got(*actual) == ALLOW), "{value}");
        }
    }
    // value is the mask; what valueTwo has beside it does not count.
    for (mask, two, matching, others) in [
        (0xff00_u64, 0x1234_u64, 0xffff_12ff_u64, 0x1300_u64),
        (0x7e02_0000, 0, 0x0100_0011, 0x1002_0000),
        (high, 3 << 32, 3 << 32 | 1, 7 << 32),
        (high | 1, 1, 1, high | 1),
    ] {
        let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry(&["mkdir"], "SCMP_ACT_ERRNO",
            json!([{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": two}]))]});
        assert_eq!(
            [matching, others].map(|actual| on_x86_64(&value, 83, &[actual])),
            [EPERM, ALLOW],
            "{value}"
        );
    }
}

#[test]
fn several_conditions_and_rules() {
    let rules = |entries: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": entries});
    let allow = "SCMP_ACT_ALLOW";
    // Different arguments: all must hold, in whatever order they stand.
    let value = rules(json!([entry(&["mkdir"], allow, json!([arg(2, "EQ", 3), arg(0, "GT", 1)]))]));
    let got = [[2, 0, 3], [2, 0, 4], [1, 0, 3]].map(|args| on_x86_64(&value, 83, &args));
    assert_eq!(got, [ALLOW, EPERM, EPERM]);
    // One argument twice: every condition is a rule.
    let value =
        rules(json!([entry(&["mkdir"], allow, json!([arg(0, "EQ", 1), arg(0, "EQ", 2), arg(1, "EQ", 9)]))]));
    let got = [[1, 0], [2, 0], [3, 9], [3, 0]].map(|args| on_x86_64(&value, 83, &args));
    assert_eq!(got, [ALLOW, ALLOW, ALLOW, EPERM]);
    // Several rules: any may hold.
    let value = rules(json!([
        entry(&["personality"], allow, json!([arg(0, "EQ", 0)])),
        entry(&["personality"], allow, json!([arg(0, "EQ", 8)])),
        entry(&["personality"], allow, json!([arg(0, "EQ", 0xffff_ffff_u64)])),
    ]));
    let got = [0, 8, 0xffff_ffff, 1, 1 << 32, u64::MAX].map(|value_0| on_x86_64(&value, 135, &[value_0]));
    assert_eq!(got, [ALLOW, ALLOW, ALLOW, EPERM, EPERM, EPERM]);
    // The first rule without conditions decides, wherever it stands.
    let value = rules(json!([
        entry(&["mkdir"], "SCMP_ACT_TRAP", json!([arg(0, "EQ", 1)])),
        entry(&["mkdir"], allow, json!([])),
        entry(&["mkdir"], "SCMP_ACT_KILL", json!([])),
    ]));
    assert_eq!([0, 1].map(|value_0| on_x86_64(&value, 83, &[value_0])), [ALLOW, ALLOW]);
    // Podman's: the larger value of one argument goes first, whatever the profile's order.
    let mut entries = vec![
        entry(&["socket"], allow, json!([arg(0, "NE", 16)])),
        entry(&["socket"], allow, json!([arg(0, "EQ", 16), arg(2, "NE", 9)])),
        json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": [arg(0, "EQ", 16), arg(2, "EQ", 9)]}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": [arg(0, "EQ", 40)]}),
    ];
    for _ in 0..entries.len() {
        entries.rotate_left(1);
        let value = rules(json!(entries));
        let got = [[2, 0, 0], [16, 0, 9], [16, 0, 8], [40, 0, 0]].map(|args| on_x86_64(&value, 41, &args));
        assert_eq!(got, [ALLOW, 0x0005_0016, ALLOW, 0x0005_000d], "{value}");
    }
}

#[test]
fn calls_within_calls() {
    let value = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": [
        entry(&["socket"], "SCMP_ACT_ALLOW", json!([arg(0, "NE", 40), arg(1, "EQ", 1)])),
        entry(&["accept", "shmat", "openat2"], "SCMP_ACT_ALLOW", json!([])),
    ]});
    // Directly, 359 on x86.
    assert_eq!([[2, 1], [40, 1], [2, 2]].map(|args| on_x86(&value, 359, &args)), [ALLOW, EPERM, EPERM]);
    // socketcall: the condition on argument 0 gives way to the number inside.
    assert_eq!(
        [[1, 1], [1, 2], [2, 1], [5, 0]].map(|args| on_x86(&value, 102, &args)),
        [ALLOW, EPERM, EPERM, ALLOW]
    );
    // ipc: shmat is 21.
    assert_eq!([21, 22].map(|call| on_x86(&value, 117, &[call])), [ALLOW, EPERM]);
    assert_eq!([[2, 1], [40, 1]].map(|args| on_x86_64(&value, 41, &args)), [ALLOW, EPERM]);
    // A call with a carrier counts not among the newest: 359 is beyond chmod.
    let value = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [entry(&["socket", "chmod"], "SCMP_ACT_ALLOW", json!([]))]});
    assert_eq!(
        [15, 16, 102, 359].map(|number| on_x86(&value, number, &[1])),
        [ALLOW, ENOSYS, ENOSYS, ENOSYS]
    );
}

#[test]
fn rules_and_conditions_are_bounded() {
    let refused = |value: &Value| compile(&profile(value)).expect_err("refused").to_string();
    let ge = |n: u64| json!({"index": n % 6, "op": "SCMP_CMP_GE", "value": n});
    let conditions: Vec<Value> = (0..5000).map(ge).collect();
    let error = refused(&json!({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [entry(&["socket"], "SCMP_ACT_ALLOW", json!(conditions))]}));
    assert!(
        error.starts_with("/linux/seccomp/syscalls/0/args: the profile has more than 4096 conditions"),
        "{error}"
    );
    let error = refused(&json!({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [entry(&["bpf"; 20_000], "SCMP_ACT_ALLOW", json!([]))]}));
    assert!(
        error.starts_with("/linux/seccomp/syscalls/0/names/16384: the profile has more than 16384 rules"),
        "{error}"
    );
}

#[test]
fn every_architecture_is_accepted() {
    let names = [
        "X86",
        "X86_64",
        "X32",
        "ARM",
        "AARCH64",
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PPC",
        "PPC64",
        "PPC64LE",
        "S390",
        "S390X",
        "PARISC",
        "PARISC64",
        "RISCV64",
        "LOONGARCH64",
        "M68K",
        "SH",
        "SHEB",
    ];
    let listed: Vec<String> = names.iter().map(|name| format!("SCMP_ARCH_{name}")).collect();
    let value = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": listed,
        "syscalls": [entry(&["mkdirat"], "SCMP_ACT_ALLOW", json!([]))]});
    for native in arch::ALL {
        let filter = filter(&value, native);
        for arch in std::iter::once(native).chain(native.compat.iter().copied()) {
            let number = arch::id("mkdirat").and_then(|id| arch.number(id)).expect("mkdirat");
            let got = [number - 1, number]
                .map(|number| run(&filter.program, &Call { number, arch: arch.audit, args: [0; 6] }).0);
            assert_eq!(got, [EPERM, ALLOW], "{}", arch.name);
        }
    }
}

#[test]
fn names_are_found() {
    assert!(table::NAMES.is_sorted());
    for (id, name) in table::NAMES.iter().enumerate() {
        assert_eq!(arch::id(name), Some(id as u16));
    }
    assert_eq!([arch::id(""), arch::id("no_such_call"), arch::id("reads")], [None; 3]);
    for (name, x86_64, aarch64) in
        [("read", Some(0), Some(63)), ("file_getattr", Some(468), Some(468)), ("open", Some(2), None)]
    {
        let id = arch::id(name).expect(name);
        assert_eq!([arch::X86_64.number(id), arch::AARCH64.number(id)], [x86_64, aarch64], "{name}");
    }
    assert_eq!(arch::number(arch::ARM.name as u32, "set_tls"), Some(0x0f_0005));
    assert_eq!(arch::number(arch::X32.name as u32, "execve"), Some(X32 + 520));
}

/// An allow-list like that of the engines: every call but administrators' ones.
fn allow_list() -> LinuxSeccomp {
    let denied = [
        "acct",
        "bpf",
        "fsopen",
        "init_module",
        "kexec_load",
        "mount",
        "ptrace",
        "reboot",
        "setns",
        "swapon",
        "unshare",
    ];
    let names: Vec<&str> = table::NAMES.iter().copied().filter(|name| !denied.contains(name)).collect();
    let clone = json!([{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 2114060288, "valueTwo": 0}]);
    let names: Vec<&str> = names.into_iter().filter(|name| !["clone", "socket"].contains(name)).collect();
    profile(
        &json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            entry(&names, "SCMP_ACT_ALLOW", json!([])),
            entry(&["clone"], "SCMP_ACT_ALLOW", clone),
            entry(&["socket"], "SCMP_ACT_ALLOW", json!([arg(0, "NE", 40)])),
        ]}),
    )
}

#[test]
fn the_way_is_short() {
    let filter = compile_for(&allow_list(), &arch::X86_64).expect("compiles").expect("a filter");
    assert!(filter.program.len() < 250, "{} instructions", filter.program.len());
    for arch in [&arch::X86_64, &arch::X86] {
        let steps = |number: u32| run(&filter.program, &Call { number, arch: arch.audit, args: [0; 6] }).1;
        let all: usize = (0..470).map(steps).sum();
        assert!(all < 470 * 12, "{} instructions on average on {}", all / 470, arch.name);
    }
}

/// `cargo test --release -- --ignored --nocapture compiling` prints the time.
#[test]
#[ignore = "prints a time"]
fn compiling_takes() {
    let profile = allow_list();
    let times = (0..1000).map(|_| {
        let start = std::time::Instant::now();
        std::hint::black_box(compile(std::hint::black_box(&profile)).expect("compiles"));
        start.elapsed()
    });
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    println!("min {:?} median {:?} max {:?}", times[0], times[500], times[999]);
}
