//! The sweep against a runtime that is spoiled on purpose: each kind of leftover must be seen.
//!
//! `RUNTIME=/path/of/a/runtime` names a working one; a shell script around it does the harm after a failed
//! command. Needs root; without either the test says SKIP.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// A script that runs the real runtime and then `harm` when it failed.
fn spoiled(name: &str, runtime: &str, harm: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("spoiled-{name}"));
    let script = format!("#!/bin/sh\n{runtime} \"$@\"\nrc=$?\nif [ $rc != 0 ]; then\n{harm}\nfi\nexit $rc\n");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn sweep(runtime: &PathBuf, options: &str) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_sweep"))
        .arg(runtime)
        .args(options.split_whitespace())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap_or(-1), text)
}

fn runtime() -> Option<String> {
    // SAFETY: geteuid takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    match std::env::var("RUNTIME") {
        Ok(path) if root => Some(path),
        _ => {
            println!("SKIP: needs root and RUNTIME=/path/of/a/runtime");
            None
        }
    }
}

/// The runtime is the script's child, hence role p.1; two faults that make it fail early.
const WHERE: &str =
    "--command create --view v2 --role p.1 --errno EIO --from 0 --to 100 --every 9 --deadline 1";

#[test]
fn every_kind_of_leftover_is_seen() {
    let Some(runtime) = runtime() else { return };
    let cases = [
        ("file", "mkdir /run/leftover", "file left: /run/leftover/"),
        ("state", "mkdir -p /run/sweep/state/x", "file left: /run/sweep/state/x/"),
        ("rootfs", "rmdir /run/sweep/rootfs/data", "file gone: /run/sweep/rootfs/data/"),
        ("mount", "mount -t tmpfs left /mnt", "mount left: "),
        ("process", "sleep 1000 </dev/null >/dev/null 2>&1 &", "process left: "),
        // The id is the last argument; a cgroup is looked for by it.
        (
            "cgroup",
            "for id; do :; done; mkdir /sys/fs/cgroup/left-$id",
            "cgroup left: /sys/fs/cgroup/left-ID/",
        ),
        ("hostname", "hostname elsewhere", "host left: /proc/sys/kernel/hostname=elsewhere"),
        ("line", "echo and another line >&2", "2 lines on stderr"),
        ("panic", "echo thread main panicked at x >&2", "panic: "),
        ("hang", "sleep 1000", "hang"),
        ("lie", "rc=0", "after create: state"),
    ];
    let harmless = spoiled("not", &runtime, ":");
    let (_, plain) = sweep(&harmless, WHERE);
    for (name, harm, wanted) in cases {
        let (code, text) = sweep(&spoiled(name, &runtime, harm), WHERE);
        assert!(!plain.contains(wanted), "{name}: the plain runtime does it too: {plain}");
        assert!(text.contains(wanted) && code == 1, "{name}: code {code}: {text}");
    }
}

#[test]
fn a_leak_without_a_fault_ends_the_sweep() {
    let Some(runtime) = runtime() else { return };
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("spoiled-always");
    fs::write(
        &path,
        format!("#!/bin/sh\necho >>/run/n; mkdir /run/$(wc -l </run/n)\nexec {runtime} \"$@\"\n"),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, text) = sweep(&path, "--command create --view v2");
    assert!(text.contains("a life without faults leaves something: file left: /run/") && code == 2, "{text}");
}
