//! `linux.intelRdt`: the container's group in the resctrl filesystem (config-linux.md "IntelRdt").
//!
//! The runtime finds the filesystem through mountinfo, makes or checks the group before anything is cloned, puts the
//! container's processes in it and, on delete, removes what it has made. Without the field nothing here runs.

use crate::plan::intel_rdt::IntelRdt;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const POINTER: &str = "/linux/intelRdt";

/// A container's place in the filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The root of the filesystem.
    root: PathBuf,
    /// The group's directory.
    dir: PathBuf,
    /// It goes with the container: named by its id, and not there before.
    remove: bool,
    /// `enableMonitoring`: the container's own monitoring group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<PathBuf>,
    /// What this process has made and has to undo on an error.
    #[serde(skip)]
    made: Vec<PathBuf>,
}

impl Group {
    /// Finds the filesystem and the group's place in it, and checks what is there. Makes nothing yet.
    pub fn find(rdt: &IntelRdt, id: &str) -> Result<Group> {
        let mounts = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        let Some(root) = mount_point(&mounts) else {
            bail!(
                "{POINTER}: intelRdt is specified in config, but Intel RDT is not enabled: no resctrl is mounted"
            );
        };
        Group::find_in(root, rdt, id)
    }

    fn find_in(root: PathBuf, rdt: &IntelRdt, id: &str) -> Result<Group> {
        for (schema, field, names) in [
            (&rdt.l3, "l3CacheSchema", &["L3", "L3CODE"][..]),
            (&rdt.memory_bandwidth, "memBwSchema", &["MB"]),
        ] {
            if schema.is_some() && !names.iter().any(|name| root.join("info").join(name).exists()) {
                bail!("{POINTER}/{field}: is specified in config, but this machine cannot control it");
            }
        }
        let dir = match rdt.clos.as_deref() {
            Some("/") => root.clone(),
            name => root.join(name.unwrap_or(id)),
        };
        let exists = dir.is_dir();
        if !exists && rdt.clos.is_some() && rdt.lines().is_empty() {
            bail!("{POINTER}/closID: {} does not exist and no schema says what to make of it", dir.display());
        }
        if exists && rdt.clos.is_some() {
            check_schemata(&dir, rdt)?;
        }
        let monitor = rdt.monitoring.then(|| dir.join("mon_groups").join(id));
        Ok(Group { root, remove: rdt.clos.is_none() && !exists, dir, monitor, made: Vec::new() })
    }

    /// Makes the group and writes its limits.
    pub fn create(&mut self, rdt: &IntelRdt) -> Result<()> {
        let dir = self.dir.clone();
        self.make(&dir)?;
        let lines = rdt.lines();
        if !lines.is_empty() {
            self.write_lines(&lines)?;
        }
        if let Some(monitor) = self.monitor.clone() {
            self.make(&monitor)?;
        }
        Ok(())
    }

    fn make(&mut self, dir: &Path) -> Result<()> {
        match std::fs::create_dir(dir) {
            Ok(()) => self.made.push(dir.to_path_buf()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("{POINTER}: make the group {}{}", dir.display(), self.last_status())
                });
            }
        }
        Ok(())
    }

    /// All lines in one write, which the kernel takes as a whole.
    fn write_lines(&self, lines: &[&str]) -> Result<()> {
        let text = lines.join("\n") + "\n";
        write(&self.dir.join("schemata"), &text)
            .with_context(|| format!("{POINTER}: write {text:?} to schemata{}", self.last_status()))
    }

    /// Puts a process in.
    pub fn enter(&self, pid: i32) -> Result<()> {
        for file in self.open_tasks()? {
            join(&file, pid).with_context(|| {
                format!("{POINTER}: put process {pid} in the group{}", self.last_status())
            })?;
        }
        Ok(())
    }

    /// The files that take a process, opened while their paths can be seen.
    pub fn open_tasks(&self) -> Result<Vec<File>> {
        let open = |dir: &PathBuf| {
            let tasks = dir.join("tasks");
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&tasks)
                .with_context(|| format!("{POINTER}: open {}", tasks.display()))
        };
        std::iter::once(&self.dir).chain(&self.monitor).map(open).collect()
    }

    /// `update`: new limits for caches and memory bandwidth.
    pub fn update(&self, l3: Option<&str>, memory_bandwidth: Option<&str>) -> Result<()> {
        let lines: Vec<&str> = l3.into_iter().chain(memory_bandwidth).collect();
        if lines.is_empty() { Ok(()) } else { self.write_lines(&lines) }
    }

    /// Undoes `create` after an error.
    pub fn undo(&self) {
        for dir in self.made.iter().rev() {
            // The error that led here is the one to tell.
            let _ = std::fs::remove_dir(dir);
        }
    }

    /// Removes what goes with the container; gone is as good.
    pub fn remove(&self) -> Result<()> {
        for dir in self.monitor.iter().chain(self.remove.then_some(&self.dir)) {
            match std::fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("remove the group {}", dir.display()));
                }
            }
        }
        Ok(())
    }

    /// What the kernel says of the last mistake, for an error's end.
    fn last_status(&self) -> String {
        match std::fs::read_to_string(self.root.join("info/last_cmd_status")) {
            Ok(text) if !matches!(text.trim(), "" | "ok") => format!(" (last_cmd_status: {})", text.trim()),
            _ => String::new(),
        }
    }
}

/// Puts a process in by an open file.
pub fn join(mut tasks: &File, pid: i32) -> Result<()> {
    Ok(tasks.write_all(pid.to_string().as_bytes())?)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)?.write_all(text.as_bytes())
}

/// Where mountinfo has a resctrl filesystem (proc_pid_mountinfo(5): field 5, escaped; the type behind ` - `).
pub fn mount_point(mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo.split(|&byte| byte == b'\n').find_map(|line| {
        let separator = line.windows(3).position(|part| part == b" - ")?;
        if !line[separator + 3..].starts_with(b"resctrl ") {
            return None;
        }
        let field = line.split(|&byte| byte == b' ').nth(4)?;
        let mut path = Vec::with_capacity(field.len());
        let mut rest = field;
        while let Some((&byte, after)) = rest.split_first() {
            let code =
                after.get(..3).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
            match (byte, code) {
                (b'\\', Some(code)) => {
                    path.push(code);
                    rest = &after[3..];
                }
                _ => {
                    path.push(byte);
                    rest = after;
                }
            }
        }
        Some(std::ffi::OsString::from_vec(path).into())
    })
}

/// A group that is there already must have the limits that the configuration says.
fn check_schemata(dir: &Path, rdt: &IntelRdt) -> Result<()> {
    if rdt.l3.is_none() && rdt.memory_bandwidth.is_none() {
        return Ok(());
    }
    let path = dir.join("schemata");
    let present =
        std::fs::read_to_string(&path).with_context(|| format!("{POINTER}: read {}", path.display()))?;
    for (wanted, field) in [(&rdt.l3, "l3CacheSchema"), (&rdt.memory_bandwidth, "memBwSchema")] {
        if let Some(wanted) = wanted
            && !is_in(wanted, &present)
        {
            bail!(
                "{POINTER}/{field}: {wanted:?} does not match the schemata of the existing {}",
                dir.display()
            );
        }
    }
    Ok(())
}

/// Does the file say the same of every cache that `wanted` names? The kernel pads names and numbers.
pub fn is_in(wanted: &str, present: &str) -> bool {
    fn parts(line: &str) -> Option<(&str, Vec<(&str, String)>)> {
        let (name, values) = line.split_once(':')?;
        let values = values.split(';').filter_map(|pair| pair.split_once('=')).map(|(id, value)| {
            let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
            (id.trim(), value)
        });
        Some((name.trim(), values.collect()))
    }
    let Some((name, wanted)) = parts(wanted) else { return false };
    let Some((_, present)) = present.lines().filter_map(parts).find(|(other, _)| *other == name) else {
        return false;
    };
    !wanted.is_empty() && wanted.iter().all(|pair| present.contains(pair))
}

#[cfg(test)]
mod tests {
    //! On a directory that looks like the filesystem: what the kernel does by itself (files of a new group, limits that
    //! are refused) is not there. The calls that naru makes are.
    use super::*;

    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str) -> Fake {
            let root = std::env::temp_dir().join(format!("naru-resctrl-{name}-{}", std::process::id()));
            for dir in ["info/L3", "info/MB", "mon_groups"] {
                std::fs::create_dir_all(root.join(dir)).unwrap();
            }
            std::fs::write(root.join("schemata"), "    MB:0=100;1=100\n    L3:0=fff;1=fff\n").unwrap();
            std::fs::write(root.join("tasks"), "").unwrap();
            Fake(root)
        }

        fn group(&self, name: &str, schemata: &str) {
            std::fs::create_dir_all(self.0.join(name).join("mon_groups")).unwrap();
            std::fs::write(self.0.join(name).join("schemata"), schemata).unwrap();
        }

        fn find(&self, rdt: &IntelRdt) -> Result<Group, String> {
            Group::find_in(self.0.clone(), rdt, "c1").map_err(|error| error.to_string())
        }

        fn text(&self, path: &str) -> String {
            std::fs::read_to_string(self.0.join(path)).unwrap_or_default()
        }

        /// What the kernel does when a group is removed.
        fn empty(&self, name: &str) {
            for file in ["tasks", "schemata"] {
                let _ = std::fs::remove_file(self.0.join(name).join(file));
            }
            let _ = std::fs::remove_dir(self.0.join(name).join("mon_groups"));
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn rdt(clos: &str, l3: &str, memory: &str) -> IntelRdt {
        let some = |text: &str| Some(text.to_string()).filter(|text| !text.is_empty());
        IntelRdt { clos: some(clos), l3: some(l3), memory_bandwidth: some(memory), ..IntelRdt::default() }
    }

    #[test]
    fn a_group_of_its_own_goes_with_the_container() {
        let fake = Fake::new("own");
        let wanted = IntelRdt { schemata: vec!["L2:0=f".into()], ..rdt("", "L3:0=f", "MB:0=20") };
        let mut group = fake.find(&wanted).unwrap();
        group.create(&wanted).unwrap();
        assert_eq!(fake.text("c1/schemata"), "L3:0=f\nMB:0=20\nL2:0=f\n");
        group.enter(42).unwrap();
        assert_eq!(fake.text("c1/tasks"), "42");
        let stored = serde_json::to_string(&group).unwrap();
        let group: Group = serde_json::from_str(&stored).unwrap();
        group.update(Some("L3:0=7"), None).unwrap();
        assert_eq!(fake.text("c1/schemata"), "L3:0=7\n");
        fake.empty("c1");
        group.remove().unwrap();
        group.remove().unwrap();
        assert!(!fake.0.join("c1").exists());
    }

    #[test]
    fn a_named_group_stays() {
        let fake = Fake::new("named");
        let wanted = rdt("gold", "L3:0=f", "");
        let mut group = fake.find(&wanted).unwrap();
        group.create(&wanted).unwrap();
        group.remove().unwrap();
        assert!(fake.0.join("gold").exists());
        // But an error takes back what it has made.
        fake.empty("gold");
        group.undo();
        assert!(!fake.0.join("gold").exists());
        // Without any schema it must be there.
        assert!(fake.find(&rdt("gold", "", "")).unwrap_err().starts_with("/linux/intelRdt/closID: "));
        fake.group("gold", "L3:0=fff\n");
        let mut group = fake.find(&rdt("gold", "", "")).unwrap();
        group.create(&rdt("gold", "", "")).unwrap();
        group.undo();
        assert_eq!(fake.text("gold/schemata"), "L3:0=fff\n");
    }

    #[test]
    fn a_group_that_is_there_must_match() {
        let fake = Fake::new("match");
        fake.group("gold", "    MB:0= 20;1=100\n    L3:0=00f;1=fff\n");
        for (l3, memory, field) in [
            ("L3:0=f;1=fff", "MB:0=20", ""),
            ("L3:1=FFF;0=0f", "", ""),
            ("L3:0=7", "", "l3CacheSchema"),
            ("L3:2=f", "", "l3CacheSchema"),
            ("L3", "", "l3CacheSchema"),
            ("L2:0=f", "", "l3CacheSchema"),
            ("", "MB:0=30", "memBwSchema"),
        ] {
            let found = fake.find(&rdt("gold", l3, memory)).map(drop);
            match field {
                "" => assert_eq!(found, Ok(()), "{l3} {memory}"),
                _ => assert!(
                    found.unwrap_err().starts_with(&format!("/linux/intelRdt/{field}: ")),
                    "{l3} {memory}"
                ),
            }
        }
    }

    #[test]
    fn the_root_is_a_group_as_well() {
        let fake = Fake::new("root");
        let wanted = IntelRdt { monitoring: true, ..rdt("/", "", "") };
        let mut group = fake.find(&wanted).unwrap();
        group.create(&wanted).unwrap();
        group.enter(7).unwrap();
        assert_eq!((fake.text("tasks"), fake.text("mon_groups/c1/tasks")), ("7".into(), "7".into()));
        fake.empty("mon_groups/c1");
        group.remove().unwrap();
        assert!(fake.0.exists() && !fake.0.join("mon_groups/c1").exists());
    }

    #[test]
    fn what_the_machine_cannot_do_is_refused() {
        let fake = Fake::new("cannot");
        std::fs::remove_dir(fake.0.join("info/MB")).unwrap();
        let found = fake.find(&rdt("", "", "MB:0=20"));
        assert!(found.unwrap_err().starts_with("/linux/intelRdt/memBwSchema: "));
        std::fs::remove_dir(fake.0.join("mon_groups")).unwrap();
        let wanted = IntelRdt { monitoring: true, ..rdt("/", "", "") };
        let mut group = fake.find(&wanted).unwrap();
        std::fs::write(fake.0.join("info/last_cmd_status"), "Out of RMIDs\n").unwrap();
        let error = group.create(&wanted).unwrap_err();
        assert!(error.to_string().ends_with("(last_cmd_status: Out of RMIDs)"), "{error}");
    }

    #[test]
    fn the_mount_is_found() {
        let text = b"22 1 0:21 / /proc rw shared:1 - proc proc rw\n\
            40 22 0:35 / /sys/fs/my\\040resctrl rw,nosuid shared:9 - resctrl resctrl rw\n";
        assert_eq!(mount_point(text), Some(PathBuf::from("/sys/fs/my resctrl")));
        assert_eq!(mount_point(b"22 1 0:21 / /resctrl rw - proc resctrl rw\n\nrubbish"), None);
    }
}
