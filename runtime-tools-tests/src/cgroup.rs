//! The cgroup trees as this mount namespace shows them: a directory of our own for each test in every tree, reading
//! what a runtime wrote, and the list of directories for the leak check.

use anyhow::{Context, Result, anyhow, bail};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One mounted tree.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// v1: controllers (or `name=systemd`); v2: those in cgroup.controllers.
    pub controllers: Vec<String>,
    /// True for cgroup2.
    pub v2: bool,
}

/// All trees mounted under /sys/fs/cgroup that can be seen.
pub fn trees() -> Result<Vec<Tree>> {
    let info = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mut found: Vec<Tree> = vec![];
    for line in info.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mount = PathBuf::from(left.split(' ').nth(4).unwrap_or_default());
        let mut right = right.split(' ');
        let kind = right.next().unwrap_or_default();
        if !mount.starts_with("/sys/fs/cgroup") || !matches!(kind, "cgroup" | "cgroup2") {
            continue;
        }
        let options = right.nth(1).unwrap_or_default();
        let controllers = if kind == "cgroup2" {
            let all = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
            all.split_whitespace().map(String::from).collect()
        } else {
            options
                .split(',')
                .filter(|o| !matches!(*o, "rw" | "ro" | "clone_children" | "xattr"))
                .map(String::from)
                .collect()
        };
        found.retain(|t| t.mount != mount);
        found.push(Tree { mount, controllers, v2: kind == "cgroup2" });
    }
    Ok(found)
}

/// True when cgroup2 itself sits at /sys/fs/cgroup.
pub fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// True when cgroup2 is mounted beside hierarchies of v1.
pub fn hybrid() -> bool {
    !unified() && trees().is_ok_and(|trees| trees.iter().any(|tree| tree.v2))
}

/// Makes `path` (absolute, below the root of each tree) in every tree, usable for a process on v1.
pub fn make(path: &str) -> Result<()> {
    for tree in trees()? {
        let mut dir = tree.mount.clone();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            dir.push(part);
            match fs::create_dir(&dir) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                r => r.with_context(|| format!("create {}", dir.display()))?,
            }
            if tree.controllers.iter().any(|c| c == "cpuset") && !tree.v2 {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let value = fs::read_to_string(dir.parent().unwrap_or(&tree.mount).join(file))?;
                    fs::write(dir.join(file), value).with_context(|| format!("write {file}"))?;
                }
            }
        }
    }
    Ok(())
}

/// Moves this process into `path` of every tree.
pub fn enter(path: &str) -> Result<()> {
    for tree in trees()? {
        let file = tree.mount.join(path.trim_start_matches('/')).join("cgroup.procs");
        fs::write(&file, "0").with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// Thaws everything under `path`: frozen tasks of v1 do not even die.
pub fn thaw(path: &str) -> Result<()> {
    for tree in trees()? {
        let top = tree.mount.join(path.trim_start_matches('/'));
        let mut all = vec![top.clone()];
        directories(&top, &mut all);
        for dir in all {
            let (file, word) = if tree.v2 { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
            if dir.join(file).exists() {
                // It may be going away at this moment, with nobody in it.
                let _ = fs::write(dir.join(file), word);
            }
        }
    }
    Ok(())
}

/// Removes `path` and everything under it from every tree; waits up to 2 s for dying members.
pub fn remove(path: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(2);
    for tree in trees()? {
        let top = tree.mount.join(path.trim_start_matches('/'));
        while top.exists() {
            if let Err(e) = remove_below(&top).and_then(|()| fs::remove_dir(&top)) {
                if Instant::now() > end {
                    bail!("remove {}: {e}", top.display());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    Ok(())
}

/// Tries to remove all below `top`, however long the paths are: with a handle of one directory, and `..` to go back.
fn remove_below(top: &Path) -> std::io::Result<()> {
    let names = |dir: &File| -> Vec<OsString> {
        let entries = fs::read_dir(at(dir)).into_iter().flatten().flatten();
        entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.file_name()).collect()
    };
    let mut here = File::open(top)?;
    let mut left = names(&here);
    let mut above = vec![];
    loop {
        if let Some(name) = left.pop() {
            let dir = at(&here).join(&name);
            // What is busy or gone shows at the top.
            if fs::remove_dir(&dir).is_err()
                && let Ok(below) = File::open(&dir)
            {
                above.push((name, std::mem::replace(&mut left, names(&below))));
                here = below;
            }
        } else if let Some((name, beside)) = above.pop() {
            here = File::open(at(&here).join(".."))?;
            left = beside;
            let _ = fs::remove_dir(at(&here).join(name));
        } else {
            return Ok(());
        }
    }
}

/// A path of an open directory that is short wherever it is.
fn at(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

/// Makes directories of this name, each in the one before; the path of the last, while its handle is open.
pub fn nest(dir: &Path, name: &OsStr, depth: usize) -> Result<(PathBuf, File)> {
    let mut here = File::open(dir)?;
    for _ in 0..depth {
        let below = at(&here).join(name);
        fs::create_dir(&below).with_context(|| format!("make a directory below {}", dir.display()))?;
        here = File::open(&below)?;
    }
    Ok((at(&here), here))
}

fn directories(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            out.push(entry.path());
            directories(&entry.path(), out);
        }
    }
}

/// Every directory under `path` in every tree, and every directory anywhere at the top whose name contains `mark`.
pub fn list(path: Option<&str>, mark: &str) -> Result<Vec<PathBuf>> {
    let mut out = vec![];
    for tree in trees()? {
        if let Some(path) = path {
            directories(&tree.mount.join(path.trim_start_matches('/')), &mut out);
        }
        // Scopes of the systemd driver are in a slice, mostly.
        let slice = fs::read_dir(tree.mount.join("system.slice"));
        for entry in fs::read_dir(&tree.mount).into_iter().chain(slice).flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().contains(mark) && entry.file_type().is_ok_and(|t| t.is_dir()) {
                out.push(entry.path());
            }
        }
    }
    out.sort();
    Ok(out)
}

/// The directory of a process in the tree of one controller (any name on v2). Without a name: in that of cgroup2.
pub fn directory_of(pid: i32, controller: &str) -> Result<PathBuf> {
    let lines =
        fs::read_to_string(format!("/proc/{pid}/cgroup")).with_context(|| format!("cgroups of {pid}"))?;
    let unified = unified();
    for tree in trees()? {
        let wanted = match tree.v2 {
            true => unified || controller.is_empty(),
            false => tree.controllers.iter().any(|c| c == controller),
        };
        if !wanted {
            continue;
        }
        for line in lines.lines() {
            let mut parts = line.splitn(3, ':');
            let (id, names, path) =
                (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            let ours = if tree.v2 { id == "0" } else { names.split(',').any(|n| n == controller) };
            if ours {
                return Ok(tree.mount.join(path.trim_start_matches('/')));
            }
        }
    }
    Err(anyhow!("process {pid} is in no tree of {controller}: {lines}"))
}

/// A file of the cgroup a process is in, trimmed.
pub fn value_of(pid: i32, controller: &str, file: &str) -> Result<String> {
    let path = directory_of(pid, controller)?.join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_string())
}

/// True when some tree offers the controller. What the hybrid's cgroup2 has, runtimes do not use.
pub fn has(controller: &str) -> bool {
    let unified = unified();
    trees().is_ok_and(|t| t.iter().any(|t| t.v2 == unified && t.controllers.iter().any(|c| c == controller)))
}
