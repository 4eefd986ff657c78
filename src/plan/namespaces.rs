//! `linux.namespaces` → which namespaces are made, joined or shared.

use crate::sys::process::CLONE_NEWTIME;
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
    /// The runtime could not come back from a pid namespace that is joined: it is root of a user namespace only.
    pub no_way_back: bool,
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

    /// The entry that joins the namespace of `flag`.
    pub fn joined(&self, flag: i32) -> Option<&Join> {
        self.join.iter().find(|join| join.flag == flag)
    }

    /// Those that a second process of the runtime makes (`sys::ahead`), by `CLONE_NEW*` flags, while the init stage mounts: a
    /// new network namespace, and with that others that take long. Not with a user namespace, which must own them: there they
    /// are made together with it.
    pub fn made_ahead(&self) -> i32 {
        const WITH_NETWORK: i32 = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        let ahead = self.makes(libc::CLONE_NEWNET) && !self.private(libc::CLONE_NEWUSER);
        if ahead { self.new & WITH_NETWORK } else { 0 }
    }

    /// A process between the runtime and the init process joins namespaces: those that are joined with the runtime's
    /// privileges come before a user namespace, and those that are made come after it. Also where the runtime itself could
    /// enter a pid namespace and not leave it again.
    pub fn needs_middle(&self) -> bool {
        self.no_way_back
            || self.joined(libc::CLONE_NEWUSER).is_some()
            || self.makes(libc::CLONE_NEWUSER) && !self.join.is_empty()
    }

    /// What the init process is cloned with. It makes itself its cgroup namespace once it is in its cgroup, its time
    /// namespace whose offsets are fixed as soon as somebody is in it, and in a user namespace that of IPC as its root; those that
    /// are made ahead it enters.
    pub fn clone_flags(&self) -> i32 {
        let later = libc::CLONE_NEWCGROUP | CLONE_NEWTIME;
        // What the kernel makes with an IPC namespace belongs to whom makes it.
        let ipc = if self.makes(libc::CLONE_NEWUSER) { libc::CLONE_NEWIPC } else { 0 };
        self.new & !later & !ipc & !self.made_ahead()
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
        LinuxNamespaceType::Time => CLONE_NEWTIME,
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
    if !namespaces.private(libc::CLONE_NEWNS) {
        check_without_mount(linux, &namespaces)?;
    }
    // The mount namespace last of the joined ones: the paths of the others are looked up in the runtime's own.
    namespaces.join.sort_by_key(|join| (join.flag == libc::CLONE_NEWNS, join.index));
    Ok(namespaces)
}

/// Without a mount namespace the root is mounted in the runtime's, where nothing may be hidden from all and a user
/// namespace has no right to mount.
fn check_without_mount(linux: &Linux, namespaces: &Namespaces) -> Result<()> {
    for (paths, field) in [(linux.masked_paths(), "maskedPaths"), (linux.readonly_paths(), "readonlyPaths")] {
        if paths.as_ref().is_some_and(|paths| !paths.is_empty()) {
            bail!("/linux/{field}: unable to restrict sys entries without a private MNT namespace");
        }
    }
    if namespaces.private(libc::CLONE_NEWUSER) {
        bail!("/linux/namespaces: a container with a user namespace needs a mount namespace as well");
    }
    Ok(())
}

/// `linux.timeOffsets` as `/proc/self/timens_offsets` takes them; empty without any.
pub fn time_offsets(linux: &Linux, namespaces: &Namespaces) -> Result<String> {
    let Some(offsets) = linux.time_offsets().as_ref() else { return Ok(String::new()) };
    if !offsets.is_empty() && !namespaces.private(CLONE_NEWTIME) {
        bail!(
            "/linux/timeOffsets: time namespace offsets specified, but time namespace isn't enabled in the config"
        );
    }
    if !offsets.is_empty() && !namespaces.makes(CLONE_NEWTIME) {
        bail!(
            "/linux/timeOffsets: time namespace enabled, but both namespace path and time offsets specified -- \
             you may only provide one"
        );
    }
    let mut lines = Vec::new();
    for (clock, offset) in offsets {
        if clock != "monotonic" && clock != "boottime" {
            bail!("/linux/timeOffsets/{clock}: is not a clock that has an offset (monotonic, boottime)");
        }
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= 1_000_000_000 {
            bail!("/linux/timeOffsets/{clock}/nanosecs: {nanoseconds} is a second or more");
        }
        lines.push(format!("{clock} {} {nanoseconds}\n", offset.secs().unwrap_or(0)));
    }
    lines.sort_unstable();
    Ok(lines.concat())
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
        assert!(parse("[]").is_ok());
        assert!(error(r#"[{"type":"user"}]"#).contains("mount namespace"));
    }
}
