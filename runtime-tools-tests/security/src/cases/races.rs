//! Races on what a container shares with others: a swapper changes names while the runtime makes containers.

use super::mounts_of;
use crate::canary::Canary;
use crate::container::Container;
use crate::cx::Cx;
use crate::swapper::Swapper;
use crate::variant::sane;
use anyhow::{Result, ensure};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;

/// Makes a container of a bundle; nothing when the runtime refused, which it may.
fn created(c: &Container) -> Result<Option<i32>> {
    let out = c.create(&[])?;
    sane(&out)?;
    if out.code != 0 {
        return Ok(None);
    }
    Ok(Some(c.pid()?))
}

/// T14: the destination is a directory and a link out of the root by turns. A mount that succeeded must show inside.
pub fn dest_exchange_race(cx: &Cx, attempts: u32) -> Result<String> {
    let canary = Canary::new(&cx.path("canary"))?;
    let volume = cx.path("volume");
    fs::create_dir_all(volume.join("dir"))?;
    symlink(format!("{}{}", "../".repeat(24), canary.dir.display()), volume.join("link"))?;
    let mut b = cx.bundle()?;
    b.mount("/shared", "bind", &volume, &["rbind"]);
    b.mount("/shared/dir", "tmpfs", "marker", &["size=64k"]);
    b.mount("/shared/dir/below", "tmpfs", "marker", &["size=64k"]);
    b.save()?;
    let swapper = Swapper::exchange(volume.join("dir"), volume.join("link"));
    let (mut made, mut refused, mut hits) = (0u32, 0u32, 0u32);
    for _ in 0..attempts {
        let c = b.container();
        match created(&c)? {
            Some(pid) => {
                made += 1;
                let shown = mounts_of(pid)?.lines().filter(|line| line.contains(" - tmpfs marker ")).count();
                hits += u32::from(shown < 2);
            }
            None => refused += 1,
        }
        c.delete_force()?;
    }
    let swaps = swapper.stop();
    canary.same()?;
    ensure!(hits == 0, "{hits} hits in {attempts} attempts: a mount landed outside of the root");
    Ok(format!("{attempts} attempts, 0 hits ({made} made, {refused} refused, {swaps} swaps)"))
}

/// T15: missing mount points below such a name: none may be made outside.
pub fn mkdir_race(cx: &Cx, attempts: u32) -> Result<String> {
    let canary = Canary::new(&cx.path("canary"))?;
    let volume = cx.path("volume");
    fs::create_dir_all(volume.join("dir"))?;
    symlink(&canary.dir, volume.join("link"))?;
    let mut b = cx.bundle()?;
    b.mount("/shared", "bind", &volume, &["rbind"]);
    b.mount("/shared/dir/x", "tmpfs", "tmpfs", &["size=64k"]);
    b.mount("/shared/dir/y", "bind", &cx.probe, &["bind", "ro"]);
    let places = b.config["mounts"].as_array().map_or(0, Vec::len);
    let swapper = Swapper::exchange(volume.join("dir"), volume.join("link"));
    let (mut made, mut refused) = (0u32, 0u32);
    for n in 0..attempts {
        b.set(&format!("/mounts/{}/destination", places - 2), json!(format!("/shared/dir/d{n}/deep")));
        b.set(&format!("/mounts/{}/destination", places - 1), json!(format!("/shared/dir/f{n}")));
        b.save()?;
        let c = b.container();
        match created(&c)? {
            Some(_) => made += 1,
            None => refused += 1,
        }
        c.delete_force()?;
    }
    let swaps = swapper.stop();
    canary.same()?;
    Ok(format!("{attempts} attempts, 0 hits ({made} made, {refused} refused, {swaps} swaps)"))
}

/// T18: the masked path is a file, then a directory, then a link: some object there must be masked, and nothing outside.
pub fn mask_target_race(cx: &Cx, attempts: u32) -> Result<String> {
    let canary = Canary::new(&cx.path("canary"))?;
    let volume = cx.path("volume");
    fs::create_dir_all(volume.join("dir"))?;
    fs::write(volume.join("secret"), "secret")?;
    symlink("/etc/plain", volume.join("link"))?;
    symlink(&canary.dir, volume.join("out"))?;
    let mut b = cx.bundle()?;
    b.mount("/shared", "bind", &volume, &["rbind"]);
    b.set("/linux/maskedPaths", json!(["/shared/secret"])).set("/linux/readonlyPaths", json!([]));
    b.save()?;
    let swappers = [
        Swapper::exchange(volume.join("secret"), volume.join("dir")),
        Swapper::exchange(volume.join("dir"), volume.join("link")),
    ];
    let (mut made, mut refused, mut hits) = (0u32, 0u32, 0u32);
    for _ in 0..attempts {
        let c = b.container();
        match created(&c)? {
            Some(pid) => {
                made += 1;
                let all = mounts_of(pid)?;
                let masks = all.lines().filter(|line| {
                    let target = line.split(' ').nth(4).unwrap_or_default();
                    target.starts_with("/shared/") || target == "/etc/plain"
                });
                hits += u32::from(masks.count() == 0);
            }
            None => refused += 1,
        }
        c.delete_force()?;
    }
    let swaps: u64 = swappers.into_iter().map(Swapper::stop).sum();
    canary.same()?;
    ensure!(hits == 0, "{hits} hits in {attempts} attempts: nothing was masked");
    Ok(format!("{attempts} attempts, 0 hits ({made} made, {refused} refused, {swaps} swaps)"))
}

/// T48: somebody binds other files over the places that settings are written to, in a tree that propagates.
pub fn sysctl_redirect(cx: &Cx, attempts: u32) -> Result<String> {
    let canary = Canary::new(&cx.path("canary"))?;
    let mut b = cx.bundle()?;
    let fake = cx.path("fake");
    fs::create_dir_all(fake.join("sys/kernel"))?;
    for name in ["msgmax", "msgmni"] {
        fs::write(fake.join("sys/kernel").join(name), "untouched")?;
    }
    // The whole of /proc of the root filesystem, and the file of a neighbour that shares its mounts with us.
    let volume = cx.path("volume");
    fs::create_dir(&volume)?;
    b.mount("/shared", "bind", &volume, &["rbind", "rshared"]);
    b.set("/linux/sysctl", json!({"kernel.msgmax": "9001", "kernel.msgmni": "99"}));
    b.save()?;
    let swappers = [Swapper::bind(&fake, &b.rootfs().join("proc")), Swapper::bind(&fake, &volume)];
    let (mut made, mut refused, mut hits) = (0u32, 0u32, 0u32);

    for _ in 0..attempts {
        let c = b.container();
        match created(&c)? {
            Some(pid) => {
                made += 1;
                // Read in the container's own ipc namespace: the file shows that of whoever opens it.

                let pid = pid.to_string();
                let said = std::process::Command::new("nsenter")
                    .args(["-t", &pid, "-i", "cat", "/proc/sys/kernel/msgmax", "/proc/sys/kernel/msgmni"])
                    .output()?;
                hits += u32::from(said.stdout != b"9001\n99\n");
            }
            None => refused += 1,
        }
        c.delete_force()?;
    }
    let rounds: u64 = swappers.into_iter().map(Swapper::stop).sum();
    canary.same()?;
    for name in ["msgmax", "msgmni"] {
        ensure!(
            fs::read(fake.join("sys/kernel").join(name))? == b"untouched",
            "the fake {name} was written to"
        );
    }
    ensure!(hits == 0, "{hits} hits in {attempts} attempts: a setting went elsewhere");
    ensure!(made > 0, "all {refused} attempts were refused");
    Ok(format!("{attempts} attempts, 0 hits ({made} made, {refused} refused, {rounds} mounts)"))
}
