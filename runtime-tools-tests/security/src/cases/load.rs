//! Many commands at once, and commands that are killed: one winner each, nothing left.

use super::process::spawned;
use crate::container::finish;
use crate::cx::Cx;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::time::Duration;

/// T68: all verbs on one id and on others at the same time. Each round ends with a forced deletion that leaves nothing.
pub fn parallel_verbs(cx: &Cx, attempts: u32) -> Result<String> {
    let before = cx.snapshot()?;
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]).save()?;
    let bundle = b.path();
    let rounds = (attempts / 64).max(3);
    let (mut commands, mut winners) = (0u32, 0u32);
    for _ in 0..rounds {
        let ids = [cx.id(), cx.id()];
        let mut children = vec![];
        for n in 0..64usize {
            let id = ids[n % 2].as_str();
            let args: Vec<&str> = match n % 8 {
                0..=3 => vec!["create", "--bundle", &bundle, id],
                4 => vec!["start", id],
                5 => vec!["kill", id, "KILL"],
                6 => vec!["delete", id],
                _ => vec!["state", id],
            };
            children.push((n % 8 < 4, spawned(cx, &args)?));
            commands += 1;
        }
        for (create, child) in children {
            let code = finish(child)?;
            winners += u32::from(create && code == 0);
        }
        for id in &ids {
            let out = cx.rt(&["delete", "--force", id])?;
            ensure!(out.code == 0, "delete --force: {}", out.stderr);
        }
        cx.nothing_left(&before)?;
    }
    Ok(format!("{commands} commands, {winners} creates won, nothing left"))
}

/// T69: the mounts of the host stay as they are, also when the runtime is killed at a random moment.
pub fn mount_leak(cx: &Cx, attempts: u32) -> Result<String> {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").context("read mountinfo");
    let before = mounts()?;
    let mut b = cx.bundle()?;
    b.mount("/mnt", "bind", cx.path("shared"), &["rbind", "rshared"]);
    fs::create_dir(cx.path("shared"))?;
    b.probe(&["true"]).save()?;
    let bundle = b.path();
    let (mut killed, mut failed) = (0u32, 0u32);
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..attempts {
        let id = cx.id();
        let mut child = spawned(cx, &["run", "--bundle", &bundle, &id])?;
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        if seed.is_multiple_of(3) {
            std::thread::sleep(Duration::from_micros(seed % 7000));
            child.kill()?;
            child.wait()?;
            killed += 1;
            let out = cx.rt(&["delete", "--force", &id])?;
            ensure!(out.code == 0, "delete --force after a kill: {}", out.stderr);
        } else {
            failed += u32::from(finish(child)? != 0);
        }
    }
    let after = mounts()?;
    ensure!(before == after, "the host's mounts differ:\n{after}");
    Ok(format!("{attempts} attempts, 0 hits ({killed} killed, {failed} failed)"))
}
