//! Reads a bundle: config.json, once, and where the root filesystem lies.

use crate::sys::ahead::Ahead;
use crate::{json, log};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxSeccomp, Spec};
use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Largest config.json that is read, bytes.
pub const CONFIG_MAX: u64 = 16 << 20;

/// A bundle as loaded.
pub struct Bundle {
    /// Absolute path of its directory.
    pub dir: PathBuf,
    /// config.json. 3 KiB, which would otherwise be part of every frame that it is handed through.
    pub spec: Box<Spec>,
    /// Absolute path of the root filesystem.
    pub rootfs: PathBuf,
    /// The process that makes the seal, and some of the container's namespaces.
    pub ahead: Option<Ahead>,
    /// `/linux/seccomp`, which is not in `spec` then.
    late: Option<Late>,
}

/// A seccomp profile that is not parsed yet: it is most of an engine's configuration and wanted last, when the init stage
/// is at work already.
struct Late {
    config: PathBuf,
    text: Vec<u8>,
    /// Where it is in the text.
    range: Range<usize>,
}

/// A configuration that is read and not parsed yet.
pub struct Unparsed {
    dir: PathBuf,
    config: PathBuf,
    text: Vec<u8>,
    ahead: Option<Ahead>,
}

/// Reads the configuration of the bundle at `dir` (the current directory if absent), and tells `ahead` which
/// namespaces to make: that takes as long as all that follows until the init stage needs them.
pub fn open(dir: Option<&Path>, ahead: Option<Ahead>) -> Result<Unparsed> {
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
    if let Some(ahead) = &ahead {
        ahead.make(guess_ahead(&text));
    }
    Ok(Unparsed { dir, config, text, ahead })
}

impl Unparsed {
    /// Parses the configuration and finds the root filesystem.
    pub fn parse(self) -> Result<Bundle> {
        let Unparsed { dir, config, text, ahead } = self;
        let (spec, late) = match parse_without_seccomp(&text) {
            Some((spec, range)) => (check_config(&config, &text, spec)?, Some(range)),
            None => (parse_config(&config, &text)?, None),
        };
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
        let late = late.map(|range| Late { config, text, range });
        Ok(Bundle { dir, spec, rootfs, ahead, late })
    }
}

impl Bundle {
    /// The seccomp profile of the container's process, if it has one.
    pub fn seccomp(&self) -> Result<Option<Cow<'_, LinuxSeccomp>>> {
        if !self.has_seccomp() {
            return Ok(None);
        }
        let Some(Late { config, text, range }) = &self.late else {
            let linux = self.spec.linux().as_ref();
            return Ok(linux.and_then(|linux| linux.seccomp().as_ref()).map(Cow::Borrowed));
        };
        let own =
            std::str::from_utf8(&text[range.clone()]).ok().and_then(|own| serde_json::from_str(own).ok());
        if let Some(profile) = own {
            return Ok(Some(Cow::Owned(profile)));
        }
        // What is wrong with it is told as of the whole.
        let spec = parse_config(config, text)?;
        Ok(spec.linux().as_ref().and_then(|linux| linux.seccomp().clone()).map(Cow::Owned))
    }

    /// Whether there is one, parsed or not.
    pub fn has_seccomp(&self) -> bool {
        let parsed = self.spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        self.spec.process().is_some() && (parsed || self.late.is_some())
    }
}

/// The configuration without its seccomp profile, and where that is. None where that does not spare anything, and where any
/// part may be wrong.
pub fn parse_without_seccomp(text: &[u8]) -> Option<(Box<Spec>, Range<usize>)> {
    /// Bytes that are parsed in the time that it takes to leave them out.
    const WORTH_IT: usize = 1024;
    let plain = std::str::from_utf8(text).ok()?;
    let range = json::seccomp(plain).filter(|range| range.len() >= WORTH_IT)?;
    if json::list_for_object(plain).is_some() {
        return None;
    }
    let rest = [&plain[..range.start], "null", &plain[range.end..]].concat();
    Some((serde_json::from_str(&rest).ok()?, range))
}

/// The namespaces that will probably be made ahead (`Namespaces::made_ahead`), by `CLONE_NEW*` flags: a guess from the bytes of a
/// configuration. A wrong one costs time and nothing else.
fn guess_ahead(text: &[u8]) -> i32 {
    const KINDS: [(&[u8], i32); 3] = [
        (b"\"network\"", libc::CLONE_NEWNET),
        (b"\"ipc\"", libc::CLONE_NEWIPC),
        (b"\"uts\"", libc::CLONE_NEWUTS),
    ];
    let has = |text: &[u8], word: &[u8]| text.windows(word.len()).any(|window| window == word);
    // One byte first: a call for each window of Docker's configuration would be 20 us.
    let named = |window: &[u8]| window[1] == b'n' && window == b"\"namespaces\"";
    let Some(at) = text.windows(12).position(named) else { return 0 };
    let list = text[at..].split(|&byte| byte == b']').next().unwrap_or_default();
    let entries = || list.split(|&byte| byte == b'}');
    if entries().any(|entry| has(entry, b"\"user\"")) {
        return 0;
    }
    let flag = |entry: &[u8]| KINDS.iter().find(|(word, _)| has(entry, word)).map_or(0, |(_, flag)| *flag);
    let new = entries().filter(|entry| !has(entry, b"\"path\"")).fold(0, |all, entry| all | flag(entry));
    if new & libc::CLONE_NEWNET != 0 { new } else { 0 }
}

/// The configuration that `path` holds.
pub fn parse_config(path: &Path, text: &[u8]) -> Result<Box<Spec>> {
    check_config(path, text, parse(path, text)?)
}

/// What the types of the configuration do not tell. `text` is all of it.
fn check_config(path: &Path, text: &[u8], mut spec: Box<Spec>) -> Result<Box<Spec>> {
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
    fn new_namespaces_are_guessed() {
        const NETWORK: i32 = libc::CLONE_NEWNET;
        for (namespaces, guess) in [
            (r#""namespaces": [{"type": "pid"}, {"type": "network"}]"#, NETWORK),
            (r#""namespaces":[{"type":"pid"},{"type":"network"}],"x":{"path":"/x","y":"user"}"#, NETWORK),
            (r#""namespaces": [{"type": "network"}, {"type": "uts", "path": "/x"}]"#, NETWORK),
            (
                r#""namespaces": [{"type":"uts"}, {"type": "ipc"}, {"type":"network"}, {"type":"mount"}]"#,
                NETWORK | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS,
            ),
            (r#""namespaces": [{"type": "network", "path": "/x"}, {"type": "ipc"}]"#, 0),
            (r#""namespaces": [{"path": "/x", "type": "network"}]"#, 0),
            (r#""namespaces": [{"type": "user"}, {"type": "network"}]"#, 0),
            (r#""namespaces": [{"type": "pid"}], "x": "network""#, 0),
            (r#""namespaces": "#, 0),
            (r#""x": [{"type": "network"}]"#, 0),
        ] {
            assert_eq!(guess_ahead(namespaces.as_bytes()), guess, "{namespaces}");
        }
    }

    fn unparsed(text: &str) -> Unparsed {
        // Any directory is a root filesystem here.
        Unparsed { dir: "/".into(), config: "/config.json".into(), text: text.into(), ahead: None }
    }

    /// A profile that is worth being left for later, in a configuration that needs nothing else.
    fn with_profile(profile: &str, rest: &str) -> String {
        let calls = vec![r#"{"names":["getpid"],"action":"SCMP_ACT_ALLOW"}"#; 40].join(",");
        let process = r#""process":{"cwd":"/","args":["sh"],"user":{"uid":0,"gid":0}}"#;
        format!(
            r#"{{"ociVersion":"1.0.0","root":{{"path":"/"}},{process},"linux":{{"seccomp":{{"defaultAction":"SCMP_ACT_ERRNO",
            "syscalls":[{calls}{profile}]}}}}{rest}}}"#
        )
    }

    #[test]
    fn a_profile_that_is_parsed_late_is_the_same() {
        for entry in
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/runtime-tools-tests/configs")).unwrap()
        {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let whole = parse_config(Path::new("config.json"), text.as_bytes()).unwrap();
            let profile = whole.linux().as_ref().and_then(|linux| linux.seccomp().clone());
            let Some((mut spec, range)) = parse_without_seccomp(text.as_bytes()) else {
                assert!(profile.is_none(), "a real one is large");
                continue;
            };
            assert!(spec.linux().as_ref().unwrap().seccomp().is_none());
            let late = Late { config: "config.json".into(), text: text.into(), range };
            let (dir, rootfs) = ("/".into(), "/".into());
            let bundle = Bundle { dir, spec: spec.clone(), rootfs, ahead: None, late: Some(late) };
            assert!(bundle.has_seccomp());
            assert_eq!(bundle.seccomp().unwrap().as_deref(), profile.as_ref());
            spec.linux_mut().as_mut().unwrap().set_seccomp(profile);
            assert_eq!(spec, whole);
        }
    }

    #[test]
    fn what_is_wrong_with_a_late_profile_is_told_as_of_the_whole() {
        for (profile, error) in [
            (r#",{"names":["x"],"action":1}"#, "/linux/seccomp/syscalls/40/action"),
            (r#",{"names":["x"]}"#, "/linux/seccomp/syscalls/40"),
        ] {
            let text = with_profile(profile, "");
            let bundle = unparsed(&text).parse().unwrap();
            assert!(bundle.late.is_some() && bundle.has_seccomp());
            let late = bundle.seccomp().unwrap_err().to_string();
            assert!(late.contains(&format!(" {error}")), "{late}");
            assert_eq!(
                late,
                parse_config(Path::new("/config.json"), text.as_bytes()).unwrap_err().to_string()
            );
        }
        // Anything else that is wrong is found at once, with its place in the whole text.
        let text = with_profile("", ",\n\"hostname\":1");
        let error = unparsed(&text).parse().err().unwrap().to_string();
        assert!(error.contains("/hostname: ") && error.contains("line 3"), "{error}");
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
