//! Where a container goes in the trees of cgroups, that exec joins it, and frozen ones.

use super::tests;
use crate::cgroup;
use crate::container::{Container, reap};
use crate::cx::{Cx, eq, skip, wait_for};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

tests!["cgroups":
    path_absolute,
    path_relative deviates ["runc" = "takes it from the top of the hybrid's cgroup2 tree"],
    path_absent deviates ["crun" = "has a directory of its own below the scope"],
    path_with_dots deviates ["crun" = "does not clean it"],
    every_tree_is_joined,
    hybrid_has_both,
    hybrid_frozen_above deviates ["runc" = "waits for ever"],
    hybrid_limits_are_those_of_v1,
    cpuset_of_parents_v1,
    exec_joins,
    killed_by_cgroup_kill,
    frozen_is_paused,
    frozen_kill_and_delete deviates ["crun" = "does not thaw on v1"],
    frozen_at_create deviates ["crun" = "does not look"],
];

/// The path of a process in each tree, as the kernel tells it.
fn paths(pid: i32) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(text
        .lines()
        .filter_map(|l| {
            let mut parts = l.splitn(3, ':');
            let id = parts.next()?;
            let names = parts.next()?;
            let name = if id == "0" { "unified" } else { names };
            Some((name.to_string(), parts.next()?.to_string()))
        })
        .collect())
}

/// Whether this view shows the tree: the kernel tells of all that exist.
fn shown(cx: &Cx, tree: &str) -> bool {
    match tree {
        "unified" => cx.unified() || cgroup::hybrid(),
        _ => !cx.unified(),
    }
}

fn path_absolute(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    let mut b = cx.bundle()?;
    let wanted = format!("{}/a/b", cx.cgroup);
    b.set("/linux/cgroupsPath", json!(wanted));
    let c = b.create()?;
    for (tree, path) in paths(c.pid()?)? {
        if shown(cx, &tree) {
            eq(&tree, path, wanted.clone())?;
        }
    }
    c.delete_force()?;
    cgroup::remove(&format!("{}/a", cx.cgroup))
}

/// v1: below the runtime's own cgroup. v2: beside it, as a cgroup with processes cannot have children with controllers.
fn path_relative(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    if cx.kind == "crun" {
        return skip("crun takes it from the top of the tree");
    }
    let mut b = cx.bundle()?;
    b.set("/linux/cgroupsPath", json!("relative/c"));
    let c = b.create()?;
    let own = if cx.unified() { cx.cgroup.clone() } else { format!("{}/self", cx.cgroup) };
    for (tree, path) in paths(c.pid()?)? {
        if shown(cx, &tree) {
            eq(&tree, path, format!("{own}/relative/c"))?;
        }
    }
    c.delete_force()?;
    cgroup::remove(&format!("{own}/relative"))
}

fn path_absent(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.remove("/linux/cgroupsPath");
    let c = b.create()?;
    for (tree, path) in paths(c.pid()?)? {
        if shown(cx, &tree) {
            ensure!(path.rsplit('/').next().is_some_and(|n| n.contains(&c.id)), "{tree}: {path}");
        }
    }
    c.delete_force()?;
    Ok(())
}

/// Never above the tree's root, nor outside of it.
fn path_with_dots(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    let mut b = cx.bundle()?;
    b.set("/linux/cgroupsPath", json!(format!("/../..{}/x/../dots", cx.cgroup)));
    let c = b.create()?;
    for (tree, path) in paths(c.pid()?)? {
        if shown(cx, &tree) {
            eq(&tree, path, format!("{}/dots", cx.cgroup))?;
        }
    }
    c.delete_force()?;
    Ok(())
}

fn every_tree_is_joined(cx: &Cx) -> Result<()> {
    cx.need_systemd(false)?;
    let c = cx.bundle()?.create()?;
    let pid = c.pid()?;
    for tree in cgroup::trees()? {
        let first = tree.controllers.first().filter(|_| !tree.v2);
        let controller = first.cloned().unwrap_or_default();
        let dir = cgroup::directory_of(pid, &controller)?;
        ensure!(
            dir.starts_with(tree.mount.join(cx.cgroup.trim_start_matches('/'))),
            "{controller}: {}",
            dir.display()
        );
        ensure!(!dir.ends_with("self"), "{controller}: still in the runtime's {}", dir.display());
    }
    c.delete_force()?;
    Ok(())
}

/// The hybrid's cgroup2 tree knows the container's processes as the hierarchies of v1 do, from the first to the last.
fn hybrid_has_both(cx: &Cx) -> Result<()> {
    cx.need_hybrid()?;
    let before = cx.snapshot()?;
    let mut b = cx.bundle()?;
    let name = cx.id();
    let path = match cx.systemd {
        true => format!("system.slice:both:{name}"),
        false => format!("{}/{name}", cx.cgroup),
    };
    b.probe(&["sleep"]).set("/linux/cgroupsPath", json!(path));
    let c = b.start()?;
    let file = cx.path("pid");
    c.exec(&["--detach", "--pid-file", &file.display().to_string()], &["sleep"])?.ok()?;
    let second: i32 = fs::read_to_string(&file)?.parse()?;
    for pid in [c.pid()?, second] {
        for tree in cgroup::trees()? {
            let controller = tree.controllers.first().filter(|_| !tree.v2);
            let dir = cgroup::directory_of(pid, controller.map_or("", String::as_str))?;
            ensure!(dir.starts_with(&tree.mount), "{}: not in {}", dir.display(), tree.mount.display());
            ensure!(dir.to_string_lossy().contains(&name), "{pid} is in {}", dir.display());
        }
    }
    // Processes below, in one tree alone, belong to it as well.
    let below = cgroup::directory_of(second, "")?.join("below");
    fs::create_dir(&below)?;
    fs::write(below.join("cgroup.procs"), second.to_string())?;
    c.end()?;
    cx.nothing_left(&before)
}

/// Nobody freezes that tree, but what somebody has frozen must not be waited for without end.
fn hybrid_frozen_above(cx: &Cx) -> Result<()> {
    cx.need_hybrid()?;
    cx.need_systemd(false)?;
    let above = format!("{}/above", cx.cgroup);
    cgroup::make(&above)?;
    let tree = cgroup::trees()?.into_iter().find(|tree| tree.v2).context("no cgroup2 tree")?;
    let file = tree.mount.join(&above[1..]).join("cgroup.freeze");
    fs::write(&file, "1")?;
    let before = cx.snapshot()?;
    let mut b = cx.bundle()?;
    b.set("/linux/cgroupsPath", json!(format!("{above}/c"))).save()?;
    let limit = std::time::Duration::from_secs(22);
    let out = cx.cmd(&["create", "--bundle", &b.path(), &cx.id()]).limit(limit).run();
    fs::write(&file, "0")?;
    out?.code(1)?.one_line()?;
    cx.nothing_left(&before)?;
    cgroup::remove(&above)
}

/// A controller that only the cgroup2 tree has is none for the container: refused, not passed over.
fn hybrid_limits_are_those_of_v1(cx: &Cx) -> Result<()> {
    cx.need_hybrid()?;
    let trees = cgroup::trees()?;
    let only_v2 = trees.iter().any(|tree| tree.v2 && tree.controllers.iter().any(|c| c == "hugetlb"));
    if !only_v2 {
        return skip("hugetlb is not in the cgroup2 tree here");
    }
    let before = cx.snapshot()?;
    let mut b = cx.bundle()?;
    b.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 4_194_304}])).save()?;
    b.container().create(&[])?.fails(&["hugetlb"])?;
    cx.nothing_left(&before)
}

/// New directories above must be given processors first, or nothing can be in them.
fn cpuset_of_parents_v1(cx: &Cx) -> Result<()> {
    cx.need_unified(false)?;
    cx.need_controller("cpuset")?;
    let mut b = cx.bundle()?;
    b.set("/linux/cgroupsPath", json!(format!("{}/p/q/c", cx.cgroup)));
    let c = b.create()?;
    let dir = cgroup::directory_of(c.pid()?, "cpuset")?;
    for dir in dir.ancestors().take(3) {
        let text = fs::read_to_string(dir.join("cpuset.cpus"))?;
        ensure!(!text.trim().is_empty(), "{} has no processors", dir.display());
    }
    c.delete_force()?;
    cgroup::remove(&format!("{}/p", cx.cgroup))
}

fn running(cx: &Cx) -> Result<Container<'_>> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    b.start()
}

fn exec_joins(cx: &Cx) -> Result<()> {
    let c = running(cx)?;
    let file = cx.path("pid");
    c.exec(&["--detach", "--pid-file", &file.display().to_string()], &["sleep"])?.ok()?;
    let pid: i32 = fs::read_to_string(&file)?.parse()?;
    eq("cgroups", paths(pid)?, paths(c.pid()?)?)?;
    c.end()
}

fn killed_by_cgroup_kill(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    let c = running(cx)?;
    let pid = c.pid()?;
    fs::write(cgroup::directory_of(pid, "")?.join("cgroup.kill"), "1")?;
    eq("exit", reap(pid)?, 137)?;
    c.is("stopped")?;
    c.delete()?.ok()?;
    Ok(())
}

/// Freezes by hand as `pause` would.
fn freeze(pid: i32, on: bool) -> Result<()> {
    if cgroup::unified() {
        let dir = cgroup::directory_of(pid, "")?;
        fs::write(dir.join("cgroup.freeze"), if on { "1" } else { "0" })?;
        return wait_for("the freezer", || {
            let text = fs::read_to_string(dir.join("cgroup.events"))?;
            Ok(text.contains(if on { "frozen 1" } else { "frozen 0" }).then_some(()))
        });
    }
    let dir = cgroup::directory_of(pid, "freezer")?;
    let word = if on { "FROZEN" } else { "THAWED" };
    fs::write(dir.join("freezer.state"), word)?;
    wait_for("the freezer", || {
        Ok((fs::read_to_string(dir.join("freezer.state"))?.trim() == word).then_some(()))
    })
}

fn frozen_is_paused(cx: &Cx) -> Result<()> {
    if !cgroup::unified() {
        cx.need_controller("freezer")?;
    }
    let c = running(cx)?;
    let pid = c.pid()?;
    freeze(pid, true)?;
    c.is("paused")?;
    let out = c.exec(&[], &["true"])?;
    ensure!(out.code != 0, "exec in a frozen container");
    if cx.kind != "crun" {
        out.fails_with(255, &["cannot exec in a paused container"])?;
        c.start()?.fails(&["cannot start"])?;
        c.delete()?.fails(&["that is not stopped: paused"])?;
    }
    freeze(pid, false)?;
    c.is("running")?;
    c.end()
}

fn frozen_kill_and_delete(cx: &Cx) -> Result<()> {
    if !cgroup::unified() {
        cx.need_controller("freezer")?;
    }
    let c = running(cx)?;
    let pid = c.pid()?;
    freeze(pid, true)?;
    c.kill("KILL")?.ok()?;
    eq("exit", reap(pid)?, 137)?;
    c.delete()?.ok()?;
    let c = running(cx)?;
    let pid = c.pid()?;
    freeze(pid, true)?;
    c.delete_force()?;
    reap(pid).context("delete --force of a frozen container")?;
    Ok(())
}

fn frozen_at_create(cx: &Cx) -> Result<()> {
    let path = format!("{}/frozen", cx.cgroup);
    cgroup::make(&path)?;
    let file = if cx.unified() {
        PathBuf::from("/sys/fs/cgroup").join(path.trim_start_matches('/')).join("cgroup.freeze")
    } else {
        cx.need_controller("freezer")?;
        PathBuf::from("/sys/fs/cgroup/freezer").join(path.trim_start_matches('/')).join("freezer.state")
    };
    fs::write(&file, if cx.unified() { "1" } else { "FROZEN" })?;
    let mut b = cx.bundle()?;
    b.set("/linux/cgroupsPath", json!(path)).save()?;
    let out =
        cx.cmd(&["create", "--bundle", &b.path(), &cx.id()]).limit(std::time::Duration::from_secs(3)).run();
    fs::write(&file, if cx.unified() { "0" } else { "THAWED" })?;
    out?.fails(&["frozen"])?;
    cgroup::remove(&path)
}
