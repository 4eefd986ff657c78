//! The same bundle under two runtimes: what a process inside sees, brought to a form in which nothing differs by
//! chance. `suite compare` prints what remains. Also makes the bundles of the real configs, for `tests/configs.rs`.

use crate::bundle::Bundle;
use crate::cgroup;
use crate::cx::Cx;
use crate::tests::configs::see;
use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// A bundle from one of the files in `configs/`. Changed are the cgroup's parent (our own), and on trees that lack a
/// controller its section of the resources; the binds the config names are made.
pub fn real_bundle<'a>(cx: &'a Cx, name: &str) -> Result<Bundle<'a>> {
    let text =
        fs::read_to_string(cx.configs.join(format!("{name}.json"))).with_context(|| name.to_string())?;
    let mut b = cx.bundle()?;
    b.config = serde_json::from_str(&text).with_context(|| name.to_string())?;
    let path = b.config["linux"]["cgroupsPath"].as_str().unwrap_or("/c").to_string();
    b.set(
        "/linux/cgroupsPath",
        json!(format!("{}/{}", cx.cgroup, path.trim_start_matches('/').replace('/', "-"))),
    );
    for (section, controller) in [
        ("memory", "memory"),
        ("cpu", "cpu"),
        ("pids", "pids"),
        ("blockIO", if cx.unified() { "io" } else { "blkio" }),
    ] {
        // Empty sections stay: engines write them whatever the host has.
        let empty = b.config["linux"]["resources"][section]
            .as_object()
            .is_some_and(|o| o.values().all(|v| *v == json!(false)));
        if !cgroup::has(controller) && !empty {
            b.remove(&format!("/linux/resources/{section}"));
        }
    }
    lower_limits(&mut b.config["process"]["rlimits"])?;
    for mount in b.config["mounts"].as_array().cloned().unwrap_or_default() {
        let Some(source) = mount["source"].as_str().filter(|s| s.starts_with("binds/")) else { continue };
        let path = b.dir.join(source);
        fs::create_dir_all(path.parent().context("no parent")?)?;
        if matches!(source, "binds/vol" | "binds/shm") {
            fs::create_dir_all(&path)?;
        } else {
            fs::write(&path, "bound\n")?;
        }
    }
    Ok(b)
}

/// They are those of the machine that the config is from. Who has no CAP_SYS_RESOURCE can only lower his own.
fn lower_limits(limits: &mut Value) -> Result<()> {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("no CapEff")?;
    if u64::from_str_radix(effective.trim(), 16)? & CAP_SYS_RESOURCE != 0 {
        return Ok(());
    }
    for limit in limits.as_array_mut().into_iter().flatten() {
        let resource = match limit["type"].as_str() {
            Some("RLIMIT_NOFILE") => Resource::RLIMIT_NOFILE,
            Some("RLIMIT_NPROC") => Resource::RLIMIT_NPROC,
            other => bail!("{other:?} is in none of the configs"),
        };
        let (_, own) = getrlimit(resource)?;
        for which in ["soft", "hard"] {
            let asked = limit[which].as_u64().context("no number")?;
            limit[which] = json!(asked.min(own));
        }
    }
    Ok(())
}

/// Ids, inode numbers, device numbers of anonymous file systems, our own names.
fn normal(cx: &Cx, mut v: Value) -> Value {
    let mounts: Vec<Value> = v["mountinfo"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|line| {
            let (left, right) = line.split_once(" - ").unwrap_or((line, ""));
            let words: Vec<&str> = left.split(' ').collect();
            let tags: Vec<&str> = words.iter().skip(6).map(|t| t.split(':').next().unwrap_or(t)).collect();
            let root = if words[3].starts_with(&cx.cgroup) { "CGROUP" } else { words[3] };
            let text = format!("{root} {} [{}] {right}", words[4..6].join(" "), tags.join(" "));
            json!(text.replace(&cx.dir.display().to_string(), "DIR"))
        })
        .collect();
    let order: Vec<String> =
        mounts.iter().filter_map(|m| m.as_str()?.split(' ').nth(1).map(String::from)).collect();
    v["mount_order"] = json!(order.join(" "));
    v["mountinfo"] = json!(mounts);
    if let Some(ns) = v["ns"].as_object_mut() {
        for (name, link) in ns.iter_mut() {
            let own = fs::read_link(format!("/proc/self/ns/{name}"))
                .map(|l| l.display().to_string())
                .unwrap_or_default();
            *link = json!(if *link == json!(own) { "inherited" } else { "new" });
        }
    }
    // Numbers in the host's pid namespace differ; being leader of session and group must not.
    let pid = v["pid"].clone();
    for key in ["sid", "pgrp"] {
        v[key] = json!(v[key] == pid);
    }
    if v["ns"]["pid"] == "inherited" {
        v["pid"] = Value::Null;
    }
    for key in ["session_keyring", "fds", "args"] {
        if let Some(o) = v.as_object_mut() {
            o.remove(key);
        }
    }
    strip(cx, &mut v);
    v
}

/// Numbers that the harness gives to bundles and containers.
fn strip(cx: &Cx, v: &mut Value) {
    match v {
        Value::String(s) => {
            for part in ["/bundle.", &format!("{}-", cx.mark)] {
                while let Some(at) = s.find(part) {
                    let tail =
                        s[at + part.len()..].trim_start_matches(|c: char| c.is_ascii_digit()).to_string();
                    *s = format!("{}N{tail}", &s[..at]);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| strip(cx, v)),
        Value::Object(map) => map.values_mut().for_each(|v| strip(cx, v)),
        _ => {}
    }
}

fn walk(path: &str, one: &Value, two: &Value, out: &mut Vec<String>) {
    match (one, two) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let none = Value::Null;
                walk(&format!("{path}/{key}"), a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a != b => {
            // As sets first: a different order is one difference.
            let only = |x: &[Value], y: &[Value]| -> Vec<String> {
                x.iter().filter(|v| !y.contains(v)).map(|v| v.to_string()).collect()
            };
            for line in only(a, b) {
                out.push(format!("{path}: only here: {line}"));
            }
            for line in only(b, a) {
                out.push(format!("{path}: only in the reference: {line}"));
            }
            if only(a, b).is_empty() && only(b, a).is_empty() {
                out.push(format!("{path}: another order or number"));
            }
        }
        _ if one != two => out.push(format!("{path}: {one}, in the reference {two}")),
        _ => {}
    }
}

/// Runs a bundle under the runtime and the reference; the differences.
pub fn differences(cx: &Cx, make: impl Fn(&Cx) -> Result<PathOrBundle>) -> Result<Vec<String>> {
    let mut seen = vec![];
    let reference = cx.reference.clone().context("no REFERENCE")?;
    for runtime in [cx.runtime.clone(), reference] {
        let other = Cx {
            systemd: cx.systemd,
            dir: cx.dir.clone(),
            root: cx.path(&format!("root.{}", seen.len())),
            runtime,
            kind: cx.kind.clone(),
            reference: None,
            view: cx.view,
            cgroup: cx.cgroup.clone(),
            mark: cx.mark.clone(),
            probe: cx.probe.clone(),
            configs: cx.configs.clone(),
            count: std::cell::Cell::new(cx.next() + 100 * (seen.len() as u32 + 1)),
        };
        let PathOrBundle { name, spec } = make(&other)?;
        let mut b = match name {
            Some(name) => real_bundle(&other, &name)?,
            None => other.bundle()?,
        };
        if let Some(spec) = spec {
            b.config = spec;
            b.set("/process/terminal", json!(false));
            b.set("/linux/cgroupsPath", json!(format!("{}/spec", cx.cgroup)));
        }
        seen.push(normal(&other, see(&other, &mut b)?));
    }
    let mut out = vec![];
    walk("", &seen[0], &seen[1], &mut out);
    Ok(out)
}

/// Which bundle to compare: a real config, or a given configuration, or the suite's default.
pub struct PathOrBundle {
    /// File name in `configs/` without its end.
    pub name: Option<String>,
    /// A whole configuration.
    pub spec: Option<Value>,
}

/// What `spec` writes.
pub fn default_spec(cx: &Cx, runtime: &PathBuf) -> Result<Value> {
    let dir = cx.path(&format!("spec.{}", cx.next()));
    fs::create_dir(&dir)?;
    let out = std::process::Command::new(runtime).arg("spec").current_dir(&dir).output()?;
    if !out.status.success() {
        bail!("spec: {out:?}");
    }
    serde_json::from_slice(&fs::read(dir.join("config.json"))?).context("the written config.json")
}

/// The difference between what two runtimes write as `spec`.
pub fn spec_differences(cx: &Cx) -> Result<Vec<String>> {
    let reference = cx.reference.clone().context("no REFERENCE")?;
    let mut out = vec![];
    walk("", &default_spec(cx, &cx.runtime)?, &default_spec(cx, &reference)?, &mut out);
    Ok(out)
}
