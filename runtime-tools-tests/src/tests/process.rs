//! The program of the process section: arguments, environment, home, look-up, working directory.

use super::tests;
use crate::cx::{Cx, eq, same};
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
    cwd_is_made_in_a_read_only_root,
    cwd_through_link,
    cwd_of_the_user_only,
    cwd_through_proc_fd,
];

fn environ(v: &Value) -> Vec<String> {
    v["environ"]
        .as_array()
        .map(|a| a.iter().filter_map(|s| s.as_str().map(String::from)).collect())
        .unwrap_or_default()
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
    let out = cx
        .cmd(&["run", "--bundle", &b.path(), &cx.id()])
        .env("OUTSIDE", "1")
        .env("LD_PRELOAD", "/x")
        .run()?
        .ok()?;
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
            let home: Vec<String> =
                environ(&out.json()?).into_iter().filter(|v| v.starts_with("HOME=")).collect();
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
    b.set("/process/env", json!(["PATH=/one:/two:/three"]))
        .set("/process/args", json!(["tool", "exit", "8"]));
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

fn cwd_is_made_in_a_read_only_root(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/root/readonly", json!(true)).set("/process/cwd", json!("/made/by/runtime"));
    same("cwd", &b.inside()?["cwd"], json!("/made/by/runtime"))?;
    ensure!(b.rootfs().join("made/by/runtime").is_dir(), "it is not in the root");
    b.set("/process/cwd", json!("/home/user"));
    same("cwd", &b.inside()?["cwd"], json!("/home/user"))
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
