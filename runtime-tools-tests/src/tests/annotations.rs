//! Annotations that runtimes act upon, and that `features` lists as such.

use super::tests;
use crate::cx::{Cx, same};
use anyhow::{Result, ensure};
use nix::unistd::{Gid, setgroups};
use serde_json::{Value, json};

tests!["annotations":
    groups_of_the_caller deviates ["runc" = "does not know it"],
    groups_of_the_caller_are_gone,
    listed_as_unsafe deviates ["runc" = "does not know those of crun"],
];

const KEEP: &str = "run.oci.keep_original_groups";

/// Podman's `--group-add keep-groups`, for create and for exec.
fn groups_of_the_caller(cx: &Cx) -> Result<()> {
    setgroups(&[Gid::from_raw(77)])?;
    let mut b = cx.bundle()?;
    b.set("/annotations", json!({KEEP: "1"})).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    same("groups", &b.inside()?["groups"], json!([77]))?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    same("groups of exec", &c.exec_inside(&[])?["groups"], json!([77]))?;
    c.end()
}

fn groups_of_the_caller_are_gone(cx: &Cx) -> Result<()> {
    setgroups(&[Gid::from_raw(77)])?;
    for annotations in [json!({}), json!({KEEP: "0"}), json!({"run.oci.other": "1"})] {
        let mut b = cx.bundle()?;
        b.set("/annotations", annotations.clone());
        let v = b.inside()?;
        let kept = v["groups"].as_array().is_some_and(|groups| groups.contains(&json!(77)));
        ensure!(!kept || cx.kind == "crun", "{annotations}: groups {}", v["groups"]);
    }
    Ok(())
}

fn listed_as_unsafe(cx: &Cx) -> Result<()> {
    let v = cx.bare(&["features"]).run()?.ok()?.json()?;
    let list: Vec<&str> = v["potentiallyUnsafeConfigAnnotations"]
        .as_array()
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let covered = |name: &str| list.iter().any(|l| *l == name || l.ends_with('.') && name.starts_with(l));
    for name in ["org.criu.config", KEEP] {
        ensure!(covered(name), "{name} is not in {list:?}");
    }
    Ok(())
}
