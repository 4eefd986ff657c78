//! `linux.namespaces` → which namespaces are made, joined or shared.

use anyhow::{Result, bail};
use oci_spec::runtime::{Linux, LinuxNamespaceType};
use std::path::PathBuf;

/// A namespace to join: its `CLONE_NEW*` flag, its file, and its place in `/linux/namespaces`.
pub struct Join {
    /// `CLONE_NEW*`.
    pub flag: i32,
    /// Absolute path of the namespace file.
    pub path: PathBuf,
    /// Index in the configuration, for errors.
    pub index: usize,
}

/// The namespaces of a container, by `CLONE_NEW*` flags.
#[derive(Default)]
pub struct Namespaces {
    /// To make.
    pub new: i32,
    /// To join, in the order in which they must be joined.
    pub join: Vec<Join>,
}

impl Namespaces {
    /// Is the namespace of `flag` a new one?
    pub fn makes(&self, flag: i32) -> bool {
        self.new & flag != 0
    }

    /// Is the namespace of `flag` configured at all: new or joined?
    pub fn private(&self, flag: i32) -> bool {
        self.makes(flag) || self.join.iter().any(|join| join.flag == flag)
    }

    /// Every configured namespace.
    pub fn all(&self) -> i32 {
        self.join.iter().fold(self.new, |all, join| all | join.flag)
    }
}

/// The `CLONE_NEW*` flag of a type.
pub fn flag(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => crate::sys::process::CLONE_NEWTIME,
    }
}

/// The name under `/proc/PID/ns` of a flag.
pub fn file(flag: i32) -> &'static str {
    match flag {
        libc::CLONE_NEWNS => "mnt",
        libc::CLONE_NEWCGROUP => "cgroup",
        libc::CLONE_NEWUTS => "uts",
        libc::CLONE_NEWIPC => "ipc",
        libc::CLONE_NEWUSER => "user",
        libc::CLONE_NEWPID => "pid",
        libc::CLONE_NEWNET => "net",
        _ => "time",
    }
}

/// Reads the list. A type that stands twice is an error (spec, config-linux "Namespaces"), and so is a relative path.
pub fn compile(linux: &Linux) -> Result<Namespaces> {
    let mut namespaces = Namespaces::default();
    for (index, entry) in linux.namespaces().iter().flatten().enumerate() {
        let flag = flag(entry.typ());
        if namespaces.private(flag) {
            bail!("/linux/namespaces/{index}/type: namespace {} is listed twice", file(flag));
        }
        match entry.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => namespaces.new |= flag,
            Some(path) if path.is_absolute() => {
                namespaces.join.push(Join { flag, path: path.clone(), index });
            }
            Some(path) => bail!("/linux/namespaces/{index}/path: {} is not an absolute path", path.display()),
        }
    }
    if namespaces.private(libc::CLONE_NEWUSER) {
        bail!("/linux/namespaces: user namespaces are not supported yet");
    }
    if namespaces.private(crate::sys::process::CLONE_NEWTIME) {
        bail!("/linux/namespaces: time namespaces are not supported yet");
    }
    if !namespaces.private(libc::CLONE_NEWNS) {
        bail!("/linux/namespaces: a container without a mount namespace is not supported");
    }
    // The mount namespace last of the joined ones: the paths of the others are looked up in the runtime's own.
    namespaces.join.sort_by_key(|join| (join.flag == libc::CLONE_NEWNS, join.index));
    Ok(namespaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Namespaces, String> {
        let linux: Linux =
            serde_json::from_str(&format!("{{\"namespaces\":{json}}}")).map_err(|e| e.to_string())?;
        compile(&linux).map_err(|e| e.to_string())
    }

    #[test]
    fn new_joined_and_shared() {
        let n = parse(
            r#"[{"type":"mount"},{"type":"network","path":"/proc/1/ns/net"},{"type":"pid","path":""}]"#,
        );
        let n = n.unwrap();
        assert_eq!(n.new, libc::CLONE_NEWNS | libc::CLONE_NEWPID);
        assert_eq!(n.join.len(), 1);
        assert!(
            n.private(libc::CLONE_NEWNET) && !n.makes(libc::CLONE_NEWNET) && !n.private(libc::CLONE_NEWIPC)
        );
    }

    #[test]
    fn refusals_name_the_entry() {
        let error = |json| parse(json).err().unwrap_or_default();
        assert!(error(r#"[{"type":"mount"},{"type":"mount"}]"#).starts_with("/linux/namespaces/1/type"));
        assert!(
            error(r#"[{"type":"mount"},{"type":"ipc","path":"x"}]"#).starts_with("/linux/namespaces/1/path")
        );
        assert!(error("[]").contains("mount namespace"));
    }
}
