//! What the program of a container is and has: directory, descriptors, ids, capabilities, filters, keys.

use super::attack::tool_path;
use super::tool;
use crate::canary::Canary;
use crate::container::reap;
use crate::cx::{Cx, Out, skip};
use crate::kernel;
use crate::variant::{sane, spent};
use anyhow::{Context, Result, ensure};
use nix::sys::stat::Mode;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// A runtime that a script starts: `before` stands in front of its path.
pub fn wrapped(cx: &Cx, before: &str) -> Result<PathBuf> {
    let script = cx.path(&format!("wrapped.{}", cx.next()));
    fs::write(&script, format!("#!/bin/sh\n{before} {} \"$@\"\n", cx.runtime.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

/// Runs a command of the runtime by another path.
fn by(cx: &Cx, runtime: &std::path::Path, args: &[&str]) -> Result<Out> {
    crate::matrix::apart(cx, runtime)?.rt(args)
}

/// Fails when a program that ran says that it stands outside of its root.
fn stays_inside(what: &str, out: &Out) -> Result<()> {
    sane(out)?;
    if out.code == 0 {
        let seen = out.json()?;
        let cwd = seen["cwd"].as_str().unwrap_or_default();
        ensure!(cwd.starts_with('/'), "{what}: the working directory is {cwd:?}");
        let root = seen["root"].as_array().map_or(0, Vec::len);
        ensure!(root < 40, "{what}: / has {root} names");
    }
    Ok(())
}

/// T22: no descriptor of the runtime is a way out by the working directory.
pub fn cwd_procfd(cx: &Cx) -> Result<String> {
    let mut tried = 0;
    let mut b = cx.bundle()?;
    for n in 0..33 {
        symlink(format!("/proc/self/fd/{n}"), b.rootfs().join(format!("w{n}")))?;
    }
    for n in 0..33 {
        let forms = [format!("/proc/self/fd/{n}"), format!("/proc/self/fd/{n}/../../.."), format!("/w{n}")];
        for cwd in &forms[..if n % 4 == 3 || n < 14 { 3 } else { 1 }] {
            b.set("/process/cwd", json!(cwd));
            b.probe(&["json"]).save()?;
            stays_inside(cwd, &b.run()?)?;
            tried += 1;
        }
    }
    b.set("/process/cwd", json!("/")).probe(&["sleep"]);
    let c = b.start()?;
    for n in 0..33 {
        for cwd in [format!("/proc/self/fd/{n}"), format!("/proc/self/fd/{n}/../.."), format!("/w{n}")] {
            stays_inside(&format!("exec --cwd {cwd}"), &c.exec(&["--cwd", &cwd], &["json"])?)?;
            tried += 1;
        }
    }
    c.delete_force()?;
    Ok(format!("{tried} directories"))
}

/// T23: nor by the program's path or its interpreter line.
pub fn argv0_procfd(cx: &Cx) -> Result<String> {
    let canary = Canary::new(&cx.path("canary"))?;
    let program = canary.dir.join("program").display().to_string();
    let mut b = cx.bundle()?;
    let mut tried = 0;
    let check = |what: &str, out: &Out| -> Result<()> {
        sane(out)?;
        ensure!(out.code != 0 && !out.stdout.contains("canary"), "{what} ran: {:?}", out.stdout);
        Ok(())
    };
    for n in 3..20 {
        for form in
            [format!("/proc/self/fd/{n}{program}"), format!("/proc/self/fd/{n}/../../../../../..{program}")]
        {
            b.set("/process/args", json!([form])).save()?;
            check(&form, &b.run()?)?;
            tried += 1;
        }
        let script = b.rootfs().join("bin/script");
        fs::write(&script, format!("#!/proc/self/fd/{n}/bin/sh\n"))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        b.set("/process/args", json!(["/bin/script"])).save()?;
        check("an interpreter line", &b.run()?)?;
        tried += 1;
    }
    b.probe(&["sleep"]);
    let c = b.start()?;
    for n in 3..20 {
        let form = format!("/proc/self/fd/{n}{program}");
        check(&form, &cx.rt(&["exec", &c.id, &form])?)?;
        tried += 1;
    }
    c.delete_force()?;
    canary.same()?;
    Ok(format!("{tried} programs"))
}

/// T30: run, exec and exec -t hand on 0, 1, 2 only.
pub fn payload_fds(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    tool(&b, "attacker")?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    for flags in [&["exec"][..], &["exec", "-e", "A=b"]] {
        let mut args = flags.to_vec();
        args.extend([c.id.as_str(), "/bin/attacker", "open-fds", "256"]);
        let said = cx.rt(&args)?.ok()?.stdout;
        ensure!(said.starts_with("0 "), "open after exec: {said}");
    }
    c.delete_force()?;
    b.set("/process/args", json!(["/bin/attacker", "open-fds", "256"]));
    let said = b.run()?.ok()?.stdout;
    ensure!(said.starts_with("0 "), "open after run: {said}");
    Ok(String::new())
}

/// T31: what a created container's process holds, seen from the host: no directory.
pub fn created_fds(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    b.probe(&["true"]);
    let c = b.create()?;
    let pid = c.pid()?;
    let mut held = vec![];
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let path = entry.path();
        let link = fs::read_link(&path)?.display().to_string();
        // Its own procfs is not the host's.
        let procfs = nix::sys::statfs::statfs(&path)
            .is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC);
        let directory = !procfs && fs::metadata(&path).is_ok_and(|m| m.is_dir());
        ensure!(!directory, "it holds the directory {link}");
        held.push(
            link.split(':')
                .next()
                .unwrap_or_default()
                .trim_end_matches(|c: char| c.is_ascii_digit())
                .to_string(),
        );
    }
    c.delete_force()?;
    held.sort();
    Ok(format!("held: {}", held.len()))
}

/// T33: nonsense in LISTEN_FDS is refused or ignored.
pub fn listen_fds_junk(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    tool(&b, "attacker")?;
    b.set("/process/args", json!(["/bin/attacker", "open-fds", "256"])).save()?;
    for value in ["-1", "1000000000", "4294967297", "abc", "3"] {
        let out = cx.cmd(&["run", "--bundle", &b.path(), &cx.id()]).env("LISTEN_FDS", value).run()?;
        sane(&out)?;
        ensure!(out.code != 0 || out.stdout.starts_with("0 "), "LISTEN_FDS={value}: {}", out.stdout);
    }
    Ok(String::new())
}

/// T37: exact ids or a usage error.
pub fn user_strings(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    for (text, wanted) in [
        ("1", Some((1, 0))),
        ("1:2", Some((1, 2))),
        ("0", Some((0, 0))),
        ("0x1", None),
        ("-1", None),
        ("+1", None),
        ("4294967295", None),
        ("4294967296", None),
        ("4294967297", None),
        ("1:", None),
        (":1", None),
        ("1:2:3", None),
        ("1 ", None),
        (" 1", None),
        ("1:4294967296", None),
        ("root", None),
    ] {
        let out = c.exec(&["--user", text], &["json"])?;
        sane(&out)?;
        match wanted {
            Some((uid, gid)) => {
                let seen = out.ok()?.json()?;
                let got = (seen["uid"][0].as_u64(), seen["gid"][0].as_u64());
                ensure!(got == (Some(uid), Some(gid)), "{text:?} became {got:?}");
            }
            // Some runtimes read a missing half as 0 or as unset; what counts is that no user becomes root.
            None if out.code == 0 => {
                let seen = out.json()?;
                ensure!(false, "{text:?} was taken, as uid {} gid {}", seen["uid"][0], seen["gid"][0]);
            }
            None => {}
        }
    }
    c.delete_force()?;
    Ok(String::new())
}

/// T38: a number is an id whatever the image's passwd calls by it.
pub fn passwd_numeric_name(cx: &Cx) -> Result<String> {
    let mut b = cx.bundle()?;
    fs::write(b.rootfs().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/root:/bin/sh\n")?;
    b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let seen = b.inside()?;
    ensure!(seen["uid"] == json!([1000, 1000, 1000]), "uid {}", seen["uid"]);
    b.probe(&["sleep"]);
    let c = b.start()?;
    let seen = c.exec_inside(&["--user", "1000"])?;
    ensure!(seen["uid"] == json!([1000, 1000, 1000]), "exec: uid {}", seen["uid"]);
    c.delete_force()?;
    Ok(String::new())
}

/// T39: the image's passwd neither holds the runtime up nor eats memory.
pub fn passwd_hostile(cx: &Cx) -> Result<String> {
    let canary = Canary::new(&cx.path("canary"))?;
    for kind in ["fifo", "zero", "huge", "directory", "out"] {
        let mut b = cx.bundle()?;
        let passwd = b.rootfs().join("etc/passwd");
        fs::remove_file(&passwd)?;
        match kind {
            "fifo" => nix::unistd::mkfifo(&passwd, Mode::from_bits_retain(0o666))?,
            "zero" => symlink("/dev/zero", &passwd)?,
            "huge" => fs::File::create(&passwd)?.set_len(1 << 30)?,
            "directory" => fs::create_dir(&passwd)?,
            _ => symlink(canary.dir.join("passwd"), &passwd)?,
        }
        b.set("/process/env", json!(["PATH=/bin"])).probe(&["environ"]).save()?;
        let id = cx.id();
        let before = spent()?;
        let out = cx.cmd(&["run", "--bundle", &b.path(), &id]).limit(Duration::from_secs(4)).run()?;
        sane(&out)?;
        if out.code == 0 {
            ensure!(out.stdout.contains("HOME=/\""), "{kind}: {}", out.stdout.trim_end());
        }
        let cost = spent()? - before;
        ensure!(cost < Duration::from_secs(2), "{kind}: took {cost:?} of a processor");
    }
    canary.same()?;
    Ok(String::new())
}

/// T40: the five sets, by a table; no inheritable and no ambient ones by default.
pub fn caps_exact(cx: &Cx) -> Result<String> {
    let zero = |seen: &Value, what: &str| -> Result<()> {
        for set in ["inheritable", "ambient"] {
            let bits = seen["caps"][set].as_str().unwrap_or("?");
            ensure!(bits.trim_start_matches('0').is_empty(), "{what}: {set} is {bits}");
        }
        Ok(())
    };
    let mut b = cx.bundle()?;
    zero(&b.inside()?, "run")?;
    let kill = json!(["CAP_KILL"]);
    for (sets, wanted) in [
        (json!({"bounding": kill, "effective": kill, "permitted": kill}), ["0", "20", "20", "20", "0"]),
        (json!({"bounding": kill}), ["0", "0", "0", "20", "0"]),
        (
            json!({"bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": []}),
            ["0"; 5],
        ),
    ] {
        b.set("/process/capabilities", sets.clone()).set("/process/user", json!({"uid": 7, "gid": 7}));
        let seen = b.inside()?;
        let names = ["inheritable", "permitted", "effective", "bounding", "ambient"];
        for (name, wanted) in names.iter().zip(wanted) {
            let got = seen["caps"][name].as_str().unwrap_or("?").trim_start_matches('0');
            // The user's program gets nothing by execve but what is ambient.
            let wanted = if matches!(*name, "permitted" | "effective") { "0" } else { wanted };
            ensure!(got == wanted.trim_start_matches('0'), "{sets}: {name} is {got}, not {wanted}");
        }
    }
    b.set("/process/user", json!({"uid": 0, "gid": 0})).probe(&["sleep"]);
    let c = b.start()?;
    zero(&c.exec_inside(&[])?, "exec")?;
    zero(&c.exec_inside(&["--cap", "CAP_NET_RAW"])?, "exec --cap")?;
    c.delete_force()?;
    let spec = cx.path("spec");
    fs::create_dir(&spec)?;
    cx.bare(&["spec", "--bundle", &spec.display().to_string()]).run()?.ok()?;
    let made: Value = serde_json::from_slice(&fs::read(spec.join("config.json"))?)?;
    for set in ["inheritable", "ambient"] {
        let list = made["process"]["capabilities"][set].as_array().map_or(0, Vec::len);
        ensure!(list == 0, "spec: {set} is not empty");
    }
    Ok(String::new())
}

/// T41: the caller's groups are not the container's.
pub fn groups_cleared(cx: &Cx) -> Result<String> {
    nix::unistd::setgroups(&[7.into(), 8.into(), 4242.into()]).context("setgroups")?;
    let mut b = cx.bundle()?;
    let seen = b.inside()?;
    ensure!(seen["groups"] == json!([]), "run: {}", seen["groups"]);
    b.probe(&["sleep"]);
    let c = b.start()?;
    let seen = c.exec_inside(&[])?;
    ensure!(seen["groups"] == json!([]), "exec: {}", seen["groups"]);
    c.delete_force()?;
    Ok(String::new())
}

/// T42: where no_new_privs cannot be set, there is no container.
pub fn nnp_failure(cx: &Cx) -> Result<String> {
    let absent = tool_path(cx, "absent")?;
    // PR_SET_NO_NEW_PRIVS is 38.
    let runtime = wrapped(cx, &format!("exec {absent} prctl=38 EPERM"))?;
    let mut b = cx.bundle()?;
    b.set("/process/noNewPrivileges", json!(true)).probe(&["say", "ran"]).save()?;
    let out = by(cx, &runtime, &["run", "--bundle", &b.path(), &cx.id()])?;
    sane(&out)?;
    ensure!(out.code != 0 && !out.stdout.contains("ran"), "it ran: {}", out.stdout);
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let out = by(cx, &runtime, &["exec", &c.id, "/bin/probe", "say", "ran"])?;
    ensure!(out.code != 0 && !out.stdout.contains("ran"), "exec ran: {}", out.stdout);
    c.delete_force()?;
    Ok(String::new())
}

/// T43: a profile that forbids what a runtime itself does late.
pub fn seccomp_order(cx: &Cx) -> Result<String> {
    let mut notes = vec![];
    for no_new_privs in [None, Some(false), Some(true)] {
        for call in ["setuid", "close_range", "sendmsg", "write"] {
            let mut b = cx.bundle()?;
            match no_new_privs {
                Some(value) => b.set("/process/noNewPrivileges", json!(value)),
                None => b.remove("/process/noNewPrivileges"),
            };
            b.set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                       "syscalls": [{"names": [call, "acct"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}),
            );
            // The exit status says whether the filter is there: acct answers 95 and not EPERM.
            b.probe(&["exit", "42"]).save()?;
            let out = b.run()?;
            sane(&out)?;
            if call == "write" && no_new_privs != Some(true) && out.code != 42 {
                // Loaded before the rights go, a filter must let the runtime's own last words through.
                notes.push("without no_new_privs a profile that forbids write is refused".to_string());
                continue;
            }
            ensure!(
                out.code == 42,
                "{call} forbidden, no_new_privs {no_new_privs:?}: exit {}: {}",
                out.code,
                out.stderr
            );
        }
    }
    notes.dedup();
    Ok(notes.join(", "))
}

/// T45: the caller's session keyring stays the caller's.
pub fn keyring(cx: &Cx) -> Result<String> {
    let name = format!("of-the-caller-{}", cx.mark);
    if kernel::join_session_keyring(&name).is_err() {
        return skip("this kernel has no keyrings");
    }
    let mut b = cx.bundle()?;
    let seen = b.inside()?;
    let inside = seen["session_keyring"].as_str().unwrap_or_default().to_string();
    ensure!(!inside.contains(&name), "the program has {inside}");
    b.probe(&["sleep"]);
    let c = b.start()?;
    let seen = c.exec_inside(&[])?;
    let inside = seen["session_keyring"].as_str().unwrap_or_default();
    ensure!(!inside.contains(&name), "exec has {inside}");
    c.delete_force()?;
    Ok(String::new())
}

/// For T67: a runtime under limits of a shell.
pub fn limited(cx: &Cx, limits: &str, args: &[&str]) -> Result<Out> {
    by(cx, &wrapped(cx, &format!("{limits}; exec"))?, args)
}

/// Starts a command of the runtime without waiting for it; its output is not kept.
pub fn spawned(cx: &Cx, args: &[&str]) -> Result<std::process::Child> {
    let mut cmd = cx.cmd(args);
    cmd.command().stdout(Stdio::null()).stderr(Stdio::null());
    cmd.spawn()
}

/// Waits for a process that is ours or has already gone.
pub fn gone(pid: i32) {
    // Somebody else may have reaped it.
    let _ = reap(pid);
}
