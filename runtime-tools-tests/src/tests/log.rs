//! `--log`, `--log-format`, `--debug`: engines read the file to tell why a command failed.

use super::tests;
use crate::cx::{Cx, eq};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

tests!["log":
    json_one_object_per_failure,
    json_is_appended,
    json_of_init_failure,
    json_of_exec_failure,
    json_nothing_on_success,
    same_text_on_stderr,
    text_on_stderr deviates ["crun" = "prints plain text"],
    text_in_file deviates ["crun" = "has a form of its own"],
    file_mode_and_relative_path,
    invalid_format deviates ["crun" = "has words of its own"],
    unwritable,
    debug_is_not_error,
    debug_tells_the_stages deviates ["crun" = "has words of its own"],
    debug_false deviates ["crun" = "takes no value for it"],
    message_with_quotes_and_newlines,
];

/// The objects in a log file; each must have level, msg and a time.
fn objects(path: &std::path::Path) -> Result<Vec<Value>> {
    let mut all = vec![];
    let text = fs::read_to_string(path).context("read the log")?;
    for v in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let v = v.with_context(|| format!("not JSON: {text}"))?;
        ensure!(v["msg"].is_string() && v["level"].is_string(), "keys: {v}");
        let level = v["level"].as_str().unwrap_or_default();
        ensure!(["debug", "info", "warning", "error", "fatal"].contains(&level), "level: {v}");
        let time = v["time"].as_str().unwrap_or_default();
        ensure!(
            time.len() >= 20
                && time.as_bytes()[10] == b'T'
                && (time.ends_with('Z') || time.contains('+') || time.rfind('-') > Some(10)),
            "time: {v}"
        );
        all.push(v);
    }
    Ok(all)
}

fn errors(path: &std::path::Path) -> Result<Vec<Value>> {
    Ok(objects(path)?.into_iter().filter(|o| o["level"] == "error").collect())
}

fn fail(cx: &Cx, log: &str) -> Result<crate::cx::Out> {
    cx.bare(&[
        "--log",
        log,
        "--log-format",
        "json",
        "--root",
        &cx.root.display().to_string(),
        "state",
        "absent",
    ])
    .run()?
    .code(1)
}

fn json_one_object_per_failure(cx: &Cx) -> Result<()> {
    let log = cx.path("log.json");
    fail(cx, &log.display().to_string())?;
    let all = objects(&log)?;
    eq("objects", all.len(), 1)?;
    eq("level", all[0]["level"].as_str(), Some("error"))?;
    // podman parses the whole file as one object.
    let _: Value = serde_json::from_str(&fs::read_to_string(&log)?)?;
    Ok(())
}

fn json_is_appended(cx: &Cx) -> Result<()> {
    let log = cx.path("log.json");
    fs::write(&log, "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"2026-01-01T00:00:00Z\"}\n")?;
    for _ in 0..2 {
        fail(cx, &log.display().to_string())?;
    }
    let all = objects(&log)?;
    eq("objects", all.len(), 3)?;
    eq("first", all[0]["msg"].as_str(), Some("first"))
}

fn json_of_init_failure(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/args", json!(["/bin/absent"])).save()?;
    let log = cx.path("log.json");
    let flags = [
        "--log",
        &log.display().to_string(),
        "--log-format",
        "json",
        "create",
        "--bundle",
        &b.path(),
        &cx.id(),
    ];
    cx.cmd(&flags).run()?.code(1)?;
    let errors = errors(&log)?;
    eq("error objects", errors.len(), 1)?;
    let text = errors[0]["msg"].as_str().unwrap_or_default();
    ensure!(text.contains("/bin/absent"), "msg {text}");
    Ok(())
}

fn json_of_exec_failure(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let log = cx.path("log.json");
    let log_name = log.display().to_string();
    let out = cx.cmd(&["--log", &log_name, "--log-format", "json", "exec", &c.id, "/bin/absent"]).run()?;
    ensure!(out.code != 0, "exec of an absent program");
    let errors = errors(&log)?;
    eq("error objects", errors.len(), 1)?;
    ensure!(errors[0]["msg"].as_str().unwrap_or_default().contains("/bin/absent"), "msg {}", errors[0]);
    c.end()
}

/// An error line of a command that succeeded would be reported with the next failure.
fn json_nothing_on_success(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let log = cx.path("log.json");
    let flags =
        ["--log", &log.display().to_string(), "--log-format", "json", "run", "--bundle", &b.path(), &cx.id()];
    let out = cx.cmd(&flags).run()?.ok()?;
    eq("stderr", out.stderr, "")?;
    if log.exists() {
        eq("log", fs::read_to_string(&log)?, "")?;
    }
    Ok(())
}

fn same_text_on_stderr(cx: &Cx) -> Result<()> {
    let log = cx.path("log.json");
    let out = fail(cx, &log.display().to_string())?;
    let all = objects(&log)?;
    let text = all[0]["msg"].as_str().unwrap_or_default();
    ensure!(out.said().contains(text), "stderr {:?}, log {text:?}", out.stderr);
    eq("stdout", out.stdout, "")
}

fn text_on_stderr(cx: &Cx) -> Result<()> {
    let out = cx.rt(&["state", "absent"])?.code(1)?.one_line()?;
    ensure!(
        out.stderr.contains("level=error msg=") && out.stderr.starts_with("time=\""),
        "stderr {}",
        out.stderr
    );
    ensure!(!out.stderr.contains('\u{1b}'), "colour in a file: {:?}", out.stderr);
    Ok(())
}

fn text_in_file(cx: &Cx) -> Result<()> {
    let log = cx.path("log.txt");
    let out = cx.cmd(&["--log", &log.display().to_string(), "state", "absent"]).run()?.code(1)?;
    let text = fs::read_to_string(&log)?;
    eq("lines", text.lines().count(), 1)?;
    ensure!(text.starts_with("time=\"") && text.contains(" level=error msg="), "log {text}");
    ensure!(out.stderr.contains("does not exist") && !out.stderr.contains("level="), "stderr {}", out.stderr);
    Ok(())
}

fn file_mode_and_relative_path(cx: &Cx) -> Result<()> {
    let root = cx.root.display().to_string();
    cx.bare(&["--log", "here.json", "--log-format=json", "--root", &root, "state", "absent"])
        .cwd(&cx.dir)
        .run()?
        .code(1)?;
    let mode = fs::metadata(cx.path("here.json"))?.permissions().mode() & 0o777;
    eq("mode", mode, 0o644)?;
    eq("objects", objects(&cx.path("here.json"))?.len(), 1)
}

fn invalid_format(cx: &Cx) -> Result<()> {
    cx.cmd(&["--log-format", "xml", "state", "absent"]).run()?.fails(&["invalid log-format"])?;
    Ok(())
}

fn unwritable(cx: &Cx) -> Result<()> {
    cx.cmd(&["--log", "/absent/dir/log", "state", "absent"]).run()?.fails(&["/absent/dir/log"])?;
    Ok(())
}

fn debug_is_not_error(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let log = cx.path("log.json");
    let flags = [
        "--debug",
        "--log",
        &log.display().to_string(),
        "--log-format",
        "json",
        "run",
        "--bundle",
        &b.path(),
        &cx.id(),
    ];
    let out = cx.cmd(&flags).run()?.ok()?;
    eq("stdout", out.stdout, "")?;
    if log.exists() {
        let wrong = errors(&log)?;
        ensure!(wrong.is_empty(), "errors in a debug log: {wrong:?}");
    }
    Ok(())
}

/// What people look for in bug reports, in this order; the log file alone has it.
fn debug_tells_the_stages(cx: &Cx) -> Result<()> {
    let in_order = |text: &str, phrases: &[&str]| -> Result<()> {
        let mut rest = text;
        for phrase in phrases {
            let at = rest.find(phrase).with_context(|| format!("no {phrase:?} in {text}"))?;
            rest = &rest[at..];
        }
        Ok(())
    };
    let mut b = cx.bundle()?;
    b.save()?;
    let out = cx.cmd(&["--debug", "run", "--bundle", &b.path(), &cx.id()]).run()?.ok()?;
    let stages = ["level=debug", "nsexec container setup", "child process in init()"];
    in_order(&out.stderr, &[&stages[..], &["init: closing the pipe to signal completion"]].concat())?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    let log = cx.path("exec.log");
    let out = cx.cmd(&["--debug", "--log", &log.display().to_string(), "exec", &c.id, "/bin/probe", "true"]);
    eq("stderr", out.run()?.ok()?.stderr, "")?;
    let text = fs::read_to_string(&log).context("read the log")?;
    in_order(&text, &[&stages[..], &["setns_init: about to exec"]].concat())?;
    c.end()
}

fn debug_false(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let out = cx.cmd(&["--debug=false", "run", "--bundle", &b.path(), &cx.id()]).run()?.ok()?;
    eq("stderr", out.stderr, "")
}

fn message_with_quotes_and_newlines(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.set("/process/args", json!(["/bin/\"a\nb\\\u{1}"])).save()?;
    let log = cx.path("log.json");
    let flags = [
        "--log",
        &log.display().to_string(),
        "--log-format",
        "json",
        "create",
        "--bundle",
        &b.path(),
        &cx.id(),
    ];
    cx.cmd(&flags).run()?.code(1)?;
    eq("error objects", errors(&log)?.len(), 1)
}
