//! `state`, pid files, `list` and `ps`.

use super::tests;
use crate::container::reap;
use crate::cx::{Cx, eq, same, skip};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;

tests!["state":
    fields deviates ["crun" = "tells rootfs as the config has it"],
    fields_when_stopped,
    annotations,
    without_id,
    unknown_id,
    is_pretty_json,
    root_flag_forms,
    default_root,
    pid_file,
    pid_file_absent_after_failure,
    pid_file_in_absent_directory,
    list_table,
    list_quiet,
    list_json,
    list_default_root_absent deviates ["runc" = "1.3 takes the default for one given"],
    list_nothing deviates ["crun" = "prints [] and makes the directory"],
    list_missing_root deviates ["crun" = "makes the directory"],
    list_skips_broken_entries deviates ["crun" = "fails at the first broken entry"],
    ps_json,
    ps_table,
    ps_of_stopped deviates ["crun" = "refuses a stopped container"],
    ps_bad_format deviates ["crun" = "has words of its own"],
];

/// RFC 3339 in UTC, with or without a fraction.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = "dddd-dd-ddTdd:dd:dd";
    bytes.len() >= 20
        && shape.bytes().zip(bytes).all(|(s, b)| if s == b'd' { b.is_ascii_digit() } else { s == *b })
        && text.ends_with('Z')
        && text[19..text.len() - 1].chars().all(|c| c == '.' || c.is_ascii_digit())
}

fn fields(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.create()?;
    for status in ["created", "running"] {
        let s = c.state()?;
        ensure!(
            s["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")),
            "ociVersion {}",
            s["ociVersion"]
        );
        same("id", &s["id"], json!(c.id))?;
        same("status", &s["status"], json!(status))?;
        same("bundle", &s["bundle"], json!(b.path()))?;
        same("rootfs", &s["rootfs"], json!(b.rootfs().display().to_string()))?;
        ensure!(s["pid"].as_i64().is_some_and(|p| p > 1), "pid {}", s["pid"]);
        ensure!(s["created"].as_str().is_some_and(is_time), "created {}", s["created"]);
        ensure!(s["owner"].is_string(), "owner {}", s["owner"]);
        if status == "created" {
            c.start()?.ok()?;
        }
    }
    c.end()
}

fn fields_when_stopped(cx: &Cx) -> Result<()> {
    let c = cx.bundle()?.create()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    let s = c.state()?;
    same("status", &s["status"], json!("stopped"))?;
    same("pid", &s["pid"], json!(0))?;
    same("id", &s["id"], json!(c.id))?;
    c.delete()?.ok()?;
    Ok(())
}

fn annotations(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    let wanted = json!({"org.example.a": "1", "org.example.empty": "", "org.example.quote": "\"<&>\u{e9}\\"});
    b.set("/annotations", wanted.clone());
    let c = b.create()?;
    same("annotations", &c.state()?["annotations"], wanted)?;
    c.delete_force()?;
    Ok(())
}

fn without_id(cx: &Cx) -> Result<()> {
    ensure!(cx.rt(&["state"])?.code != 0, "state without an id succeeded");
    ensure!(cx.rt(&["state", ""])?.code != 0, "state of an empty id succeeded");
    Ok(())
}

fn unknown_id(cx: &Cx) -> Result<()> {
    let out = cx.rt(&["state", &cx.id()])?.fails(&["does not exist"])?;
    eq("stdout", out.stdout, "")
}

fn is_pretty_json(cx: &Cx) -> Result<()> {
    let c = cx.bundle()?.create()?;
    let text = cx.rt(&["state", &c.id])?.ok()?.stdout;
    ensure!(text.starts_with("{\n  \"ociVersion\""), "not indented by two: {text}");
    c.delete_force()?;
    Ok(())
}

fn root_flag_forms(cx: &Cx) -> Result<()> {
    let c = cx.bundle()?.create()?;
    let root = cx.root.display().to_string();
    cx.bare(&["--root", &root, "state", &c.id]).run()?.ok()?;
    cx.bare(&[format!("--root={root}").as_str(), "state", &c.id]).run()?.ok()?;
    cx.bare(&["--root", "root", "state", &c.id]).cwd(&cx.dir).run()?.ok()?;
    c.delete_force()?;
    Ok(())
}

/// Without `--root` the states live below /run; the caller's HOME or TMPDIR do not matter.
fn default_root(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let id = cx.id();
    cx.bare(&["create", "--bundle", &b.path(), &id]).run()?.ok()?;
    let found: Vec<_> = fs::read_dir("/run")?.flatten().filter(|d| d.path().join(&id).exists()).collect();
    eq("directories below /run with the state", found.len(), 1)?;
    cx.bare(&["state", &id]).run()?.ok()?;
    cx.bare(&["delete", "--force", &id]).run()?.ok()?;
    ensure!(!found[0].path().join(&id).exists(), "state left");
    Ok(())
}

/// Decimal without newline: engines parse it without trimming.
fn pid_file(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let c = b.container();
    let file = cx.path("pid");
    fs::write(&file, "an old and longer content")?;
    c.create(&["--pid-file", &file.display().to_string()])?.ok()?;
    eq("pid file", fs::read_to_string(&file)?, c.pid()?.to_string())?;
    let left: Vec<_> = fs::read_dir(&cx.dir)?
        .flatten()
        .map(|e| e.file_name())
        .filter(|n| n.to_string_lossy().contains("pid"))
        .collect();
    eq("files named pid", left.len(), 1)?;
    c.delete_force()?;
    Ok(())
}

fn pid_file_absent_after_failure(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/args", json!(["/bin/absent"])).save()?;
    let file = cx.path("pid");
    for command in ["create", "run"] {
        let id = cx.id();
        cx.rt(&[command, "--bundle", &b.path(), "--pid-file", &file.display().to_string(), &id])?.code(1)?;
        ensure!(!file.exists(), "a pid file after a failed {command}");
    }
    Ok(())
}

fn pid_file_in_absent_directory(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let before = cx.snapshot()?;
    b.container()
        .create(&["--pid-file", "/absent/dir/pid"])?
        .fails(&["no such file or directory"])
        .map(drop)
        .or_else(|e| if cx.kind == "crun" { Ok(()) } else { Err(e) })?;
    cx.nothing_left(&before)
}

fn list_table(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    let c = b.create()?;
    let out = cx.rt(&["list"])?.ok()?;
    let lines = out.lines();
    let header: Vec<&str> = lines.first().map(|l| l.split_whitespace().collect()).unwrap_or_default();
    let wanted: &[&str] = &["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    ensure!(header == wanted || cx.kind == "crun", "header {header:?}");
    let row: Vec<&str> = lines.get(1).map(|l| l.split_whitespace().collect()).unwrap_or_default();
    eq("row", row[..4].to_vec(), vec![c.id.as_str(), &c.pid()?.to_string(), "created", &b.path()])?;
    eq("owner", row.last(), Some(&"root"))?;
    c.delete_force()?;
    Ok(())
}

fn list_quiet(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    let (one, two) = (b.create()?, cx.bundle()?.create()?);
    for flag in ["--quiet", "-q"] {
        let out = cx.rt(&["list", flag])?.ok()?;
        let mut lines = out.lines();
        lines.sort();
        let mut wanted = vec![one.id.as_str(), two.id.as_str()];
        wanted.sort();
        eq("ids", lines, wanted)?;
    }
    one.delete_force()?;
    two.delete_force()?;
    Ok(())
}

fn list_json(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    let c = b.create()?;
    for args in [["list", "--format", "json"], ["list", "-f", "json"]] {
        let all = cx.rt(&args)?.ok()?.json()?;
        let one = all.as_array().and_then(|l| l.first()).context("an array with one object")?.clone();
        same("id", &one["id"], json!(c.id))?;
        same("status", &one["status"], json!("created"))?;
        same("pid", &one["pid"], json!(c.pid()?))?;
        same("bundle", &one["bundle"], json!(b.path()))?;
        same("owner", &one["owner"], json!("root"))?;
    }
    c.delete_force()?;
    Ok(())
}

fn list_nothing(cx: &Cx) -> Result<()> {
    eq("json", cx.rt(&["list", "-f", "json"])?.ok()?.stdout.trim(), "null")?;
    eq("quiet", cx.rt(&["list", "-q"])?.ok()?.stdout.trim(), "")?;
    Ok(())
}

fn list_default_root_absent(cx: &Cx) -> Result<()> {
    cx.bare(&["list", "-q"]).run()?.ok()?;
    Ok(())
}

fn list_missing_root(cx: &Cx) -> Result<()> {
    let root = cx.path("absent").display().to_string();
    cx.bare(&["--root", &root, "list"]).run()?.fails(&[&root])?;
    Ok(())
}

fn list_skips_broken_entries(cx: &Cx) -> Result<()> {
    let c = cx.bundle()?.create()?;
    let broken = cx.root.join("broken");
    fs::create_dir(&broken)?;
    fs::create_dir(cx.root.join("empty"))?;
    fs::write(broken.join("state.json"), "{")?;
    fs::write(cx.root.join("file"), "")?;
    let out = cx.rt(&["list", "-q"])?.ok()?;
    eq("ids", out.lines(), vec![c.id.as_str()])?;
    for name in ["broken", "empty"] {
        fs::remove_dir_all(cx.root.join(name))?;
    }
    fs::remove_file(cx.root.join("file"))?;
    c.delete_force()?;
    Ok(())
}

fn pids_of(cx: &Cx, id: &str) -> Result<Vec<i64>> {
    let v: Value = cx.rt(&["ps", "--format", "json", id])?.ok()?.json()?;
    let mut pids: Vec<i64> = v.as_array().context("an array")?.iter().filter_map(Value::as_i64).collect();
    pids.sort();
    Ok(pids)
}

fn ps_json(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["children", "2"]);
    let c = b.start()?;
    crate::cx::wait_for("three processes", || Ok((pids_of(cx, &c.id)?.len() == 3).then_some(())))?;
    let pids = pids_of(cx, &c.id)?;
    ensure!(pids.contains(&i64::from(c.pid()?)), "init {} is not in {pids:?}", c.pid()?);
    let v = cx.rt(&["ps", "-f", "json", &c.id])?.ok()?.json()?;
    eq("-f json", v.as_array().map(Vec::len), Some(3))?;
    c.end()
}

fn ps_table(cx: &Cx) -> Result<()> {
    // It fails by itself on a User-mode Linux, whose /proc/stat has no boot time.
    if !std::process::Command::new("ps").arg("-ef").output().is_ok_and(|o| o.status.success()) {
        return skip("no working ps program here");
    }
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let pid = c.pid()?.to_string();
    let out = cx.rt(&["ps", &c.id])?.ok()?;
    let lines = out.lines();
    ensure!(lines.first().is_some_and(|l| l.contains("PID")) && lines.len() == 2, "table {lines:?}");
    ensure!(lines[1].contains(&pid), "no {pid} in {lines:?}");
    if cx.kind != "crun" {
        // Flags after the id belong to ps.
        let out = cx.rt(&["ps", &c.id, "-o", "pid,comm"])?.ok()?;
        eq(
            "chosen columns",
            out.lines().get(1).map(|l| l.split_whitespace().collect()),
            Some(vec![pid.as_str(), "probe"]),
        )?;
    }
    c.end()
}

fn ps_of_stopped(cx: &Cx) -> Result<()> {
    let c = cx.bundle()?.create()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    reap(pid)?;
    eq("json", cx.rt(&["ps", "-f", "json", &c.id])?.ok()?.stdout.trim(), "null")?;
    c.delete()?.ok()?;
    Ok(())
}

fn ps_bad_format(cx: &Cx) -> Result<()> {
    let c = cx.bundle()?.create()?;
    cx.rt(&["ps", "-f", "xml", &c.id])?.fails(&["invalid format option"])?;
    c.delete_force()?;
    Ok(())
}
