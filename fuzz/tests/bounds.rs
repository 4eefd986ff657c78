//! Configurations with very much of one thing: each is accepted or refused in time that grows with its size, not with
//! the square of it. What took minutes at the largest size that is read (16 MiB) once is in this list.

use std::time::Duration;

/// Bytes of each configuration here.
const SIZE: usize = 1 << 20;
/// Processor time for one, in a build without optimisation. Comparing each with all takes several times as much.
const LIMIT: Duration = Duration::from_secs(10);

/// `item` as often as it fits, with a comma between.
fn many(item: impl Fn(usize) -> String) -> String {
    let mut text = String::with_capacity(SIZE);
    for n in 0.. {
        let next = item(n);
        if text.len() + next.len() > SIZE - 1000 {
            break;
        }
        if n > 0 {
            text.push(',');
        }
        text.push_str(&next);
    }
    text
}

fn used() -> Duration {
    // SAFETY: a structure of numbers, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    Duration::from_secs(usage.ru_utime.tv_sec as u64) + Duration::from_micros(usage.ru_utime.tv_usec as u64)
}

#[test]
fn size_costs_no_more_than_its_share() {
    let seccomp = |calls: String| {
        format!(r#""linux":{{"seccomp":{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{calls}]}}}}"#)
    };
    let linux = |fields: String| {
        format!(r#""linux":{{"namespaces":[{{"type":"mount"}},{{"type":"network"}}],{fields}}}"#)
    };
    let dots = |n: usize| ["ALLOW", "TRAP", "LOG"][n % 3];
    let cases: [(&str, String); 17] = [
        (
            "devices",
            linux(format!(r#""devices":[{}]"#, many(|n| format!(r#"{{"path":"/dev/{n}","type":"p"}}"#)))),
        ),
        (
            "device rules",
            linux(format!(
                r#""resources":{{"devices":[{}]}}"#,
                many(|n| format!(
                    r#"{{"allow":true,"type":"c","major":{},"minor":{},"access":"r"}}"#,
                    n >> 8,
                    n & 255
                ))
            )),
        ),
        (
            "seccomp: entries with conditions",
            seccomp(many(|n| {
                format!(
                    r#"{{"names":["socket"],"action":"SCMP_ACT_{}","args":[{{"index":{},"value":{n},"op":"SCMP_CMP_GE"}}]}}"#,
                    dots(n),
                    n % 6
                )
            })),
        ),
        (
            "seccomp: conditions of one entry",
            seccomp(format!(
                r#"{{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{}]}}"#,
                many(|n| format!(r#"{{"index":{},"value":{n},"op":"SCMP_CMP_NE"}}"#, n % 6))
            )),
        ),
        (
            "seccomp: names",
            seccomp(format!(
                r#"{{"names":[{}],"action":"SCMP_ACT_ALLOW","args":[{{"index":1,"value":1,"op":"SCMP_CMP_NE"}}]}}"#,
                many(|_| r#""bpf""#.into())
            )),
        ),
        (
            "nodes",
            linux(format!(
                r#""memoryPolicy":{{"mode":"MPOL_BIND","nodes":"{}"}}"#,
                many(|_| "0-65536".into())
            )),
        ),
        (
            "processors",
            linux(format!(r#""resources":{{"cpu":{{"cpus":"{}"}}}}"#, many(|_| "0-65535".into()))),
        ),
        (
            "mounts",
            format!(r#""mounts":[{}]"#, many(|n| format!(r#"{{"destination":"/{n}","type":"tmpfs"}}"#))),
        ),
        (
            "mounts below sysfs and in /dev",
            format!(
                r#""mounts":[{{"destination":"/sys","type":"sysfs"}},{}]"#,
                many(|n| format!(
                    r#"{{"destination":"/{}/{n}","type":"tmpfs"}}"#,
                    if n % 2 == 0 { "sys" } else { "dev" }
                ))
            ),
        ),
        (
            "mount options",
            format!(
                r#""mounts":[{{"destination":"/a","type":"tmpfs","options":[{}]}}]"#,
                many(|_| r#""a""#.into())
            ),
        ),
        (
            "interfaces",
            linux(format!(r#""netDevices":{{{}}}"#, many(|n| format!(r#""e{n}":{{"name":"x{n}"}}"#)))),
        ),
        ("annotations", format!(r#""annotations":{{{}}}"#, many(|n| format!(r#""{n}":"""#)))),
        (
            "property",
            format!(r#""annotations":{{"org.systemd.property.After":"[{}]"}}"#, many(|_| "1".into())),
        ),
        (
            "lists behind a long text",
            format!(r#""x":"{}","y":[{}]"#, "x".repeat(SIZE - 20_000), vec!["[]"; 5000].join(",")),
        ),
        ("sysctl", linux(format!(r#""sysctl":{{{}}}"#, many(|n| format!(r#""net.{n}":"""#))))),
        ("masks", linux(format!(r#""maskedPaths":[{}]"#, many(|n| format!(r#""/{n}""#))))),
        ("lists in lists", format!(r#""x":{}{}"#, "[".repeat(SIZE / 2 - 100), "]".repeat(SIZE / 2 - 100))),
    ];
    for (name, fields) in cases {
        let with = |process: &str| {
            format!(
                r#"{{"ociVersion":"1.2.0","root":{{"path":"r"}},"process":{{"cwd":"/","user":{{"uid":0,"gid":0}},{process}}},{fields}}}"#
            )
        };
        let text = with(r#""args":["x"]"#);
        let before = used();
        naru_fuzz::targets::config::run(text.as_bytes());
        let took = used() - before;
        println!("{name}: {took:.1?}");
        assert!(took < LIMIT, "{name}: {took:?} for {} bytes", text.len());
    }
}
