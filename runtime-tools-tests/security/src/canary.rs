//! The canary: a small tree outside of every root filesystem that no runtime may touch. Links and swaps point there.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Files of the host that an escape through /proc would change.
const SETTINGS: [&str; 5] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/msgmax",
    "/proc/sys/net/ipv4/ip_forward",
];

/// The tree and what it looked like when it was made.
pub struct Canary {
    /// Its directory.
    pub dir: PathBuf,
    manifest: BTreeMap<PathBuf, String>,
    settings: Vec<String>,
}

impl Canary {
    /// Makes the tree at `dir`.
    pub fn new(dir: &Path) -> Result<Canary> {
        fs::create_dir(dir)?;
        for name in ["deep", "pts", "sub"] {
            fs::create_dir(dir.join(name))?;
        }
        for name in ["file", "ptmx", "null", "zero", "console", "passwd", "deep/file"] {
            fs::write(dir.join(name), format!("canary {name}\n"))?;
        }
        fs::write(dir.join("program"), "#!/bin/sh\necho canary ran\n")?;
        fs::set_permissions(dir.join("program"), fs::Permissions::from_mode(0o755))?;
        Ok(Canary { dir: dir.into(), manifest: manifest(dir)?, settings: settings() })
    }

    /// The same tree with its present look as the one to keep.
    pub fn again(self) -> Result<Canary> {
        Ok(Canary { manifest: manifest(&self.dir)?, ..self })
    }

    /// Fails when anything in it was changed: content, owner, mode, times of change, names.
    pub fn same(&self) -> Result<()> {
        let now = manifest(&self.dir)?;
        for (path, was) in &self.manifest {
            let is = now.get(path).with_context(|| format!("CANARY: {} is gone", path.display()))?;
            ensure!(is == was, "CANARY: {} was {was}, is {is}", path.display());
        }
        for path in now.keys() {
            ensure!(self.manifest.contains_key(path), "CANARY: {} was made", path.display());
        }
        unchanged(&self.settings)
    }
}

/// Fails when a setting of the host is not what it `was`, and puts it back: a hole must not outlive its test.
pub fn unchanged(was: &[String]) -> Result<()> {
    let now = settings();
    if now != *was {
        for (path, value) in SETTINGS.iter().zip(was) {
            // Some are not there, or not writable; then they were not changed either.
            let _ = fs::write(path, value);
        }
    }
    ensure!(now == *was, "CANARY: a setting of the host was changed: {now:?}, was {was:?}");
    Ok(())
}

/// The settings of the host that are watched.
pub fn settings() -> Vec<String> {
    SETTINGS.iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
}

fn manifest(dir: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut all = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(path) = todo.pop() {
        let m = fs::symlink_metadata(&path)?;
        let content = if m.is_file() { fs::read(&path)?.len().to_string() } else { String::new() };
        let text = format!(
            "inode {} mode {:o} owner {}:{} links {} changed {}.{} {content}",
            m.ino(),
            m.mode(),
            m.uid(),
            m.gid(),
            m.nlink(),
            m.ctime(),
            m.ctime_nsec()
        );
        if m.is_dir() {
            todo.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
        }
        all.insert(path, text);
    }
    Ok(all)
}
