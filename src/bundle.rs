//! Reads a bundle: config.json, once, and where the root filesystem lies.

use crate::sys::ahead::Ahead;
use crate::sys::process;
use crate::{json, log};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest config.json that is read, bytes.
pub const CONFIG_MAX: u64 = 16 << 20;

/// A bundle as loaded.
pub struct Bundle {
    /// Absolute path of its directory.
    pub dir: PathBuf,
    /// config.json.
    pub spec: Spec,
    /// Absolute path of the root filesystem.
    pub rootfs: PathBuf,
    /// The container's network namespace, in the making.
    pub network: Option<Ahead>,
}

/// A configuration that is read and not parsed yet.
pub struct Unparsed {
    dir: PathBuf,
    config: PathBuf,
    text: Vec<u8>,
    network: Option<Ahead>,
}

/// Reads the configuration of the bundle at `dir` (the current directory if absent), and begins with its network namespace:
/// that takes as long as all that follows until the init stage wants it.
pub fn open(dir: Option<&Path>) -> Result<Unparsed> {
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
    let network = if process::is_root() && asks_for_network(&text) { Ahead::network() } else { None };
    Ok(Unparsed { dir, config, text, network })
}

impl Unparsed {
    /// Parses the configuration and finds the root filesystem.
    pub fn parse(self) -> Result<Bundle> {
        let Unparsed { dir, config, text, network } = self;
        let spec = parse_config(&config, &text)?;
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
        Ok(Bundle { dir, spec, rootfs, network })
    }
}

/// Does the configuration look as if the runtime will make a network namespace (`Namespaces::network_by_runtime`)? A guess
/// from its bytes: a wrong one costs time and nothing else.
fn asks_for_network(text: &[u8]) -> bool {
    let has = |text: &[u8], word: &[u8]| text.windows(word.len()).any(|window| window == word);
    let Some(at) = text.windows(12).position(|window| window == b"\"namespaces\"") else { return false };
    let list = text[at..].split(|&byte| byte == b']').next().unwrap_or_default();
    let of_type = |word: &[u8]| list.split(|&byte| byte == b'}').find(|entry| has(entry, word));
    of_type(b"\"user\"").is_none() && of_type(b"\"network\"").is_some_and(|entry| !has(entry, b"\"path\""))
}

/// The configuration that `path` holds.
pub fn parse_config(path: &Path, text: &[u8]) -> Result<Spec> {
    let mut spec: Spec = parse(path, text)?;
    check_version(spec.version())?;
    // The crate oci-spec has a default for what the spec requires.
    if spec.process().as_ref().is_some_and(|process| process.io_priority().is_some())
        && parse::<serde_json::Value>(path, text)?.pointer("/process/ioPriority/class").is_none()
    {
        bail!("/process/ioPriority/class: is required");
    }
    if let Some(resources) = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut())
        && json::has_unclear_limit(resources)
    {
        json::set_explicit_limit(resources, &parse(path, text)?, "/linux/resources/pids/limit");
    }
    Ok(spec)
}

/// Reads and parses a JSON file of bounded size.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    parse(path, &read(path)?)
}

/// Reads a file of bounded size, whatever kind of file it is.
fn read(path: &Path) -> Result<Vec<u8>> {
    let name = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("open {name}"))?;
    let size = file.metadata().with_context(|| format!("stat {name}"))?.len();
    let mut text = Vec::with_capacity(size.min(CONFIG_MAX) as usize + 1);
    file.take(CONFIG_MAX + 1).read_to_end(&mut text).with_context(|| format!("read {name}"))?;
    if text.len() as u64 > CONFIG_MAX {
        bail!("{name}: is larger than {CONFIG_MAX} bytes");
    }
    Ok(text)
}

/// Parses what `path` holds. An error names the field by JSON pointer, and line and column.
fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T> {
    let name = path.display();
    // Looked at once, and not again for each string.
    let plain = match std::str::from_utf8(text) {
        Ok(plain) => plain,
        Err(error) => {
            let field = json::pointer_at(text, error.valid_up_to());
            bail!("{name}: {field}: invalid unicode code point: {error}");
        }
    };
    if let Some(offset) = json::list_for_object(plain) {
        bail!("{name}: {}: a list where an object belongs", json::pointer_at(text, offset));
    }
    let error = match serde_json::from_str(plain) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if let Some((known, dropped)) = json::adapted(text) {
        match serde_json::from_str(&String::from_utf8_lossy(&known)) {
            Ok(value) => {
                if !dropped.is_empty() {
                    let dropped = dropped.join(", ");
                    log::warn(format_args!("ignoring unknown or unavailable capabilities: {dropped}"));
                }
                return Ok(value);
            }
            // What could be adapted is no mistake: another field is. Its place is one in a text that nobody has seen.
            Err(error) => {
                let words = error.to_string();
                let words = words.rsplit_once(" at line ").map_or(&*words, |(words, _)| words);
                bail!("{name}: {}{words}", place(&known, &error));
            }
        }
    }
    Err(anyhow::anyhow!("{name}: {}{error}", place(text, &error)))
}

/// The field that a parse error is about, with a colon behind, and what runc says there; nothing where there is none.
fn place(text: &[u8], error: &serde_json::Error) -> String {
    let pointer = json::pointer_at(text, json::offset_of(text, error.line(), error.column()));
    let words = json::runc_words(&pointer, &error.to_string());
    let field = if pointer.is_empty() { pointer } else { pointer + ": " };
    format!("{field}{words}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_network_namespace_is_guessed() {
        for (namespaces, guess) in [
            (r#""namespaces": [{"type": "pid"}, {"type": "network"}]"#, true),
            (r#""namespaces":[{"type":"pid"},{"type":"network"}],"x":{"path":"/x","y":"user"}"#, true),
            (r#""namespaces": [{"type": "network"}, {"type": "mount", "path": "/x"}]"#, true),
            (r#""namespaces": [{"type": "network", "path": "/x"}, {"type": "mount"}]"#, false),
            (r#""namespaces": [{"path": "/x", "type": "network"}]"#, false),
            (r#""namespaces": [{"type": "user"}, {"type": "network"}]"#, false),
            (r#""namespaces": [{"type": "pid"}], "x": "network""#, false),
            (r#""namespaces": "#, false),
            (r#""x": [{"type": "network"}]"#, false),
        ] {
            assert_eq!(asks_for_network(namespaces.as_bytes()), guess, "{namespaces}");
        }
    }

    #[test]
    fn files_are_bounded() {
        let dir = std::env::temp_dir().join(format!("naru-bundle-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("config.json");
        let file = std::fs::File::create(&path).unwrap();
        let error = |path: &Path| read_json::<serde_json::Value>(path).unwrap_err().to_string();
        // The file says how large it is, or does not.
        file.set_len(CONFIG_MAX + 1).unwrap();
        assert_eq!(error(&path), format!("{}: is larger than 16777216 bytes", path.display()));
        assert_eq!(error(Path::new("/dev/zero")), "/dev/zero: is larger than 16777216 bytes");
        let mut text = b"{}".to_vec();
        text.resize(CONFIG_MAX as usize, b' ');
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read_json::<serde_json::Value>(&path).unwrap(), serde_json::json!({}));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
