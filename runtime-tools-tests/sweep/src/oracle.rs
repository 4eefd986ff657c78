//! What there is on the host: a snapshot, and the difference of two.
//!
//! It looks at the mount table, cgroup directories of the sweep's containers in every hierarchy, processes with
//! their namespaces, all names under /run and /tmp (state root, bundles, rootfs), the host's names and sysctls,
//! the sweep's own descriptors with their flags (a runtime shares them), keyrings, and the BPF programs that are attached
//! to cgroups of the sweep. Programs that are attached nowhere and held by nobody are looked for in `programs`. /run, /tmp, /proc and the namespaces are private to the sweep (see `world`),
//! so that nobody else's doings show. Called by `verdict`; the difference is pure.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::programs;

/// One look at the host. Equal texts mean an equal host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    sections: [String; 8],
}

const SECTIONS: [&str; 8] =
    ["mount", "cgroup", "process", "file", "host", "descriptor", "key", "BPF program"];

/// Sysctls of the host's namespaces that the bundle sets for its own.
const CANARIES: [&str; 3] =
    ["/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/msgmax"];

/// Looks. `hierarchies` are the mounted cgroup roots, `tag` is in the name of each cgroup of the sweep.
pub fn look(hierarchies: &[String], tag: &str) -> Snapshot {
    let mut s = Snapshot::default();
    let [mounts, cgroups, processes, files, host, descriptors, keys, attached] = &mut s.sections;
    *mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for root in hierarchies {
        for name in names(root, true).iter().filter(|n| n.contains(tag)) {
            let top = format!("{root}/{name}");
            let from = cgroups.len();
            tree(cgroups, &top, true);
            for dir in cgroups[from..].lines() {
                let ids = programs::attached(dir);
                if !ids.is_empty() {
                    let _ = writeln!(attached, "{} of them at {dir}", ids.len());
                }
            }
        }
    }
    for pid in names("/proc", true).iter().filter(|n| n.bytes().all(|b| b.is_ascii_digit()) && *n != "1") {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let _ = write!(processes, "{pid} ({})", comm.trim_end());
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
            let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default();
            let _ = write!(processes, " {}", link.display());
        }
        processes.push('\n');
    }
    tree(files, "/run", false);
    tree(files, "/tmp", false);
    for path in CANARIES {
        let _ = write!(host, "{path}={}", fs::read_to_string(path).unwrap_or_default());
    }
    for fd in names("/proc/self/fd", false) {
        // One of them is the listing itself, always with the same number.
        let link = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find(|l| l.starts_with("flags:")).unwrap_or_default();
        let _ = writeln!(descriptors, "{fd} {} {flags}", link.display());
    }
    *keys = keyrings(&fs::read_to_string("/proc/keys").unwrap_or_default(), tag);
    s
}

impl Snapshot {
    /// The paths of files that are here and not in `other`, deepest first.
    pub fn files_beyond(&self, other: &Self) -> Vec<String> {
        let old: std::collections::HashSet<&str> = other.sections[3].lines().collect();
        let new = self.sections[3].lines().filter(|l| !old.contains(l));
        let mut all: Vec<String> = new.map(|l| l.trim_end_matches('/').to_string()).collect();
        all.reverse();
        all
    }

    /// Whether both saw the same processes and keys: what else differs then, nobody is there to tidy up. The credentials of
    /// a process, which hold its keys, go some time after it.
    pub fn same_processes(&self, other: &Self) -> bool {
        self.sections[2] == other.sections[2] && self.sections[6] == other.sections[6]
    }

    /// Whether both saw the same but for keys.
    pub fn differs_by_keys(&self, other: &Self) -> bool {
        self.sections[..6] == other.sections[..6] && self.sections[7..] == other.sections[7..]
    }

    /// Whether there is any key.
    pub fn has_keys(&self) -> bool {
        !self.sections[6].is_empty()
    }
}

/// The serial number and description of each key that has the tag in its name, from the text of /proc/keys. What else
/// stands there (uses, time left) changes by itself.
fn keyrings(text: &str, tag: &str) -> String {
    let ours = text.lines().filter(|line| line.contains(tag));
    ours.map(|line| line.split_whitespace().collect::<Vec<_>>())
        // Used by nobody any more: it waits to be collected.
        .filter(|words| words.get(2) != Some(&"0"))
        .map(|words| {
            let name = words.get(7..).unwrap_or_default().join(" ");
            format!("{} {name}\n", words.first().unwrap_or(&""))
        })
        .collect()
}

/// Sorted names in a directory; only directories when asked.
fn names(dir: &str, dirs: bool) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|e| !dirs || e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    all.sort_unstable();
    all
}

/// Adds a directory and all below it, a line each.
fn tree(out: &mut String, dir: &str, dirs: bool) {
    let _ = writeln!(out, "{dir}/");
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).collect();
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    for e in entries {
        let path = e.path();
        match e.file_type() {
            Ok(t) if t.is_dir() => tree(out, &path.to_string_lossy(), dirs),
            Ok(_) if !dirs => {
                let _ = writeln!(out, "{}", path.display());
            }
            _ => {}
        }
    }
}

/// What is new and what is gone, a phrase each; empty when the host is the same.
pub fn difference(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    for (kind, (old, new)) in SECTIONS.iter().zip(before.sections.iter().zip(&after.sections)) {
        if old == new {
            continue;
        }
        let mut gone: Vec<&str> = old.lines().collect();
        let mut added = Vec::new();
        for line in new.lines() {
            match gone.iter().position(|g| *g == line) {
                Some(i) => {
                    gone.remove(i);
                }
                None => added.push(line),
            }
        }
        for (word, lines) in [("left", added), ("gone", gone)] {
            if let Some(first) = lines.first() {
                let more =
                    if lines.len() > 1 { format!(" and {} more", lines.len() - 1) } else { String::new() };
                all.push(format!("{kind} {word}: {}{more}", short(kind, first)));
            }
        }
    }
    all
}

/// A line short enough to print.
fn short(kind: &str, line: &str) -> String {
    if kind == "process" {
        // The namespaces tell two apart, the reader needs the name.
        return line.split(") ").next().unwrap_or(line).to_string() + ")";
    }
    line.chars().take(160).collect()
}

/// The cgroup roots mounted under /sys/fs/cgroup.
pub fn hierarchies(mountinfo: &str) -> Vec<String> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = left.split(' ').nth(4)?;
            let kind = right.split(' ').next()?;
            (kind.starts_with("cgroup") && Path::new(point).starts_with("/sys/fs/cgroup"))
                .then(|| point.to_string())
        })
        .collect()
}

/// The control files of the container that its config sets, from outside: `root/name: value`.
pub fn limits(hierarchies: &[String], id: &str) -> String {
    let mut out = String::new();
    for root in hierarchies {
        for name in [
            "pids.max",
            "memory.limit_in_bytes",
            "memory.max",
            "cpu.shares",
            "cpu.weight",
            "devices.list",
            "cgroup.controllers",
        ] {
            if let Ok(text) = fs::read_to_string(format!("{root}/{id}/{name}")) {
                let mut lines: Vec<&str> = text.lines().collect();
                lines.sort_unstable();
                let _ = writeln!(out, "{root} {name} {lines:?}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(section: usize, text: &str) -> Snapshot {
        let mut s = Snapshot::default();
        s.sections[section] = text.to_string();
        s
    }

    #[test]
    fn difference_names_what_is_left_and_gone() {
        assert!(difference(&with(0, "a\nb\n"), &with(0, "a\nb\n")).is_empty());
        assert_eq!(difference(&with(0, "a\nb\n"), &with(0, "a\nc\n")), ["mount left: c", "mount gone: b"]);
        assert_eq!(difference(&with(1, "a\n"), &with(1, "a\na\n")), ["cgroup left: a"]);
        assert_eq!(difference(&with(1, ""), &with(1, "a\nb\nc\n")), ["cgroup left: a and 2 more"]);
        assert_eq!(difference(&with(2, ""), &with(2, "7 (x y) mnt:[1]\n")), ["process left: 7 (x y)"]);
    }

    #[test]
    fn keys_of_others_do_not_show() {
        let text = "0a1b I--Q---     2 perm 3f030000     0     0 keyring   _ses.sweep-1-0: empty\n\
                    0a1c I--Q---     1 perm 3f030000     0     0 keyring   _ses: 1\n";
        assert_eq!(keyrings(text, "sweep-1-0"), "0a1b keyring _ses.sweep-1-0: empty\n");
    }

    #[test]
    fn new_files_come_deepest_first() {
        let before = with(3, "/run/\n/run/a/\n");
        let after = with(3, "/run/\n/run/a/\n/run/a/x\n/run/b/\n/run/b/y\n");
        assert_eq!(after.files_beyond(&before), ["/run/b/y", "/run/b", "/run/a/x"]);
        assert!(before.files_beyond(&after).is_empty());
    }

    #[test]
    fn finds_hierarchies() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:4 - cgroup cgroup rw,cpu\n\
                    33 31 0:30 / /mnt/cpu rw - cgroup cgroup rw,cpu\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(hierarchies(text), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"]);
    }

    #[test]
    fn a_new_file_shows() {
        let dir = std::env::temp_dir().join(format!("sweep-oracle-{}", std::process::id()));
        fs::create_dir_all(dir.join("a")).unwrap();
        let path = dir.to_string_lossy().into_owned();
        let listing = || {
            let mut s = Snapshot::default();
            tree(&mut s.sections[3], &path, false);
            s
        };
        let before = listing();
        fs::write(dir.join("a/new"), "x").unwrap();
        assert_eq!(difference(&before, &listing()), [format!("file left: {path}/a/new")]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
