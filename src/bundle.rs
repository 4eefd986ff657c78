//! Reads a bundle: config.json, once, and where the root filesystem lies.

use crate::{json, log};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest config.json that is read, bytes.
const CONFIG_MAX: u64 = 16 << 20;

/// A bundle as loaded.
pub struct Bundle {
    /// Absolute path of its directory.
    pub dir: PathBuf,
    /// config.json.
    pub spec: Spec,
    /// Absolute path of the root filesystem.
    pub rootfs: PathBuf,
}

/// Loads the bundle at `dir` (the current directory if absent).
pub fn load(dir: Option<&Path>) -> Result<Bundle> {
    let here = std::env::current_dir().context("find the current directory")?;
    let dir = match dir {
        Some(dir) => normal(&here.join(dir)),
        None => here,
    };
    let config = dir.join("config.json");
    let text = read(&config).map_err(|error| {
        match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::NotFound) => {
                anyhow::anyhow!("JSON specification file config.json not found: {}", config.display())
            }
            _ => error,
        }
    })?;
    let mut spec: Spec = parse(&config, &text)?;
    check_version(spec.version())?;
    // The crate oci-spec has a default for what the spec requires.
    if spec.process().as_ref().is_some_and(|process| process.io_priority().is_some())
        && parse::<serde_json::Value>(&config, &text)?.pointer("/process/ioPriority/class").is_none()
    {
        bail!("/process/ioPriority/class: is required");
    }
    if let Some(resources) = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut())
        && json::has_unclear_limit(resources)
    {
        json::set_explicit_limit(resources, &parse(&config, &text)?, "/linux/resources/pids/limit");
    }
    let rootfs = match spec.root() {
        Some(root) if !root.path().as_os_str().is_empty() => normal(&dir.join(root.path())),
        _ => bail!("/root: root must be specified"),
    };
    let kind = std::fs::symlink_metadata(&rootfs)
        .with_context(|| format!("/root/path: invalid rootfs: {}", rootfs.display()))?
        .file_type();
    if !kind.is_dir() {
        bail!("/root/path: invalid rootfs: {}: not a directory", rootfs.display());
    }
    Ok(Bundle { dir, spec, rootfs })
}

/// Reads and parses a JSON file of bounded size.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    parse(path, &read(path)?)
}

/// Reads a file of bounded size.
fn read(path: &Path) -> Result<Vec<u8>> {
    let name = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("open {name}"))?;
    let size = file.metadata().with_context(|| format!("stat {name}"))?.len();
    if size > CONFIG_MAX {
        bail!("{name}: {size} bytes are more than {CONFIG_MAX}");
    }
    let mut text = Vec::with_capacity(size as usize + 1);
    file.take(CONFIG_MAX).read_to_end(&mut text).with_context(|| format!("read {name}"))?;
    Ok(text)
}

/// Parses what `path` holds. An error names the field by JSON pointer, and line and column.
fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T> {
    let name = path.display();
    if let Some(offset) = json::list_for_object(text) {
        bail!("{name}: {}: a list where an object belongs", json::pointer_at(text, offset));
    }
    let error = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if let Some((known, dropped)) = json::adapted(text)
        && let Ok(value) = serde_json::from_slice(&known)
    {
        if !dropped.is_empty() {
            log::warn(format_args!("ignoring unknown or unavailable capabilities: {}", dropped.join(", ")));
        }
        return Ok(value);
    }
    let offset = json::offset_of(text, error.line(), error.column());
    let pointer = json::pointer_at(text, offset);
    let field = if pointer.is_empty() { String::new() } else { format!("{pointer}: ") };
    Err(anyhow::anyhow!("{name}: {field}{error}"))
}

/// `ociVersion` must be a SemVer; which one is not held against anybody (newer minors only add).
fn check_version(version: &str) -> Result<()> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() != 3 || !parts.iter().all(number) {
        bail!("/ociVersion: {version:?} is not a valid version");
    }
    Ok(())
}

/// Takes `.` and doubled or trailing slashes out of a path.
pub fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}
