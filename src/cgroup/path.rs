//! `linux.cgroupsPath` and the process's own cgroup → paths below the mount points.
//!
//! Pure: text in, text out. A result has no leading slash, no `.` and no `..`, so that joined to a mount point it
//! stays inside. Called by `cgroup::plan`.

use anyhow::{Context, Result, bail};

/// Where a container's cgroup stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// This path below the root of each hierarchy.
    Root(String),
    /// This path below the runtime's own cgroup (v1) or its parent (v2).
    Own(String),
}

/// The place that a configuration asks for; without a path the id, relative.
pub fn place(cgroups_path: Option<&str>, id: &str) -> Result<Place> {
    let path = match cgroups_path {
        None | Some("") => id,
        Some(path) => path,
    };
    if path.contains('\0') {
        bail!("/linux/cgroupsPath: contains a NUL byte");
    }
    let clean = clean(path);
    if clean.is_empty() {
        bail!("/linux/cgroupsPath: {path:?} names the root of the hierarchy");
    }
    Ok(if path.starts_with('/') { Place::Root(clean) } else { Place::Own(clean) })
}

/// Resolves `.`, `..` and doubled slashes by text alone; `..` stops at the root.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Joins two clean paths.
pub fn join(a: &str, b: &str) -> String {
    match (a, b) {
        ("", path) | (path, "") => path.to_string(),
        (a, b) => format!("{a}/{b}"),
    }
}

/// The path on the cgroup2 tree. A relative one starts at the parent of the runtime's own cgroup, because that one
/// has processes and so cannot hand controllers down.
pub fn unified(place: &Place, own: &str) -> String {
    match place {
        Place::Root(path) => path.clone(),
        Place::Own(path) => {
            let own = clean(own);
            join(own.rsplit_once('/').map_or("", |(parent, _)| parent), path)
        }
    }
}

/// The path in a v1 hierarchy in which the runtime itself is at `own`.
pub fn hierarchy(place: &Place, own: &str) -> String {
    match place {
        Place::Root(path) => path.clone(),
        Place::Own(path) => join(&clean(own), path),
    }
}

/// One line of `/proc/PID/cgroup`.
#[derive(Debug, PartialEq, Eq)]
pub struct Membership<'a> {
    /// `cpu,cpuacct`, `name=systemd`; empty for cgroup2.
    pub controllers: &'a str,
    /// Path of the process's cgroup, with a leading slash.
    pub path: &'a str,
}

/// The lines of `/proc/PID/cgroup`.
pub fn memberships(text: &str) -> impl Iterator<Item = Membership<'_>> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some(Membership { controllers, path })
    })
}

/// A process's path on the cgroup2 tree, from its `/proc/PID/cgroup`.
pub fn own_unified(text: &str) -> Result<&str> {
    let line = memberships(text).find(|line| line.controllers.is_empty());
    Ok(line.context("/proc/PID/cgroup: no line of the cgroup2 tree")?.path)
}

/// A mount of a v1 hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Mount point.
    pub point: String,
    /// Which directory of the hierarchy is mounted there: not `/` inside a container without a cgroup namespace.
    pub root: String,
}

/// Finds the first mount point of the hierarchy with these controllers (in any order) in the text of `mountinfo`, and
/// what is mounted on top there.
pub fn find_mount(mountinfo: &str, controllers: &str) -> Option<Mounted> {
    let wanted: Vec<&str> = controllers.split(',').collect();
    let mut found: Option<Mounted> = None;
    for line in mountinfo.lines() {
        if let Some(mounted) = v1_mount(line, &wanted)
            && found.as_ref().is_none_or(|below| below.point == mounted.point)
        {
            found = Some(mounted);
        }
    }
    found
}

fn v1_mount(line: &str, wanted: &[&str]) -> Option<Mounted> {
    // proc(5): id, parent, device, root, mount point, options, optional fields, "-", type, source, super options.
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    if filesystem.next()? != "cgroup" {
        return None;
    }
    let options: Vec<&str> = filesystem.nth(1)?.split(',').collect();
    if !wanted.iter().all(|name| options.contains(name)) {
        return None;
    }
    let mut mount = mount.split(' ').skip(3);
    Some(Mounted { root: unescape(mount.next()?), point: unescape(mount.next()?) })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                text.push(byte as char);
                rest = &after[3..];
            }
            None => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_stays_inside() {
        for (path, expected) in [
            ("", ""),
            ("/", ""),
            ("a", "a"),
            ("/a/b/", "a/b"),
            ("//a///b", "a/b"),
            ("./a/./b/.", "a/b"),
            ("a/../b", "b"),
            ("../../../a", "a"),
            ("/../a/../../b/..", ""),
            ("..a/...", "..a/..."),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    /// What runc 1.3.6 did with the same path on the same host, the runtime being at `/own/x` of memory and cgroup2
    /// and at `/` elsewhere.
    #[test]
    fn places() {
        for (path, v2, memory, pids) in [
            (None, "own/c1", "own/x/c1", "c1"),
            (Some(""), "own/c1", "own/x/c1", "c1"),
            (Some("rel/x"), "own/rel/x", "own/x/rel/x", "rel/x"),
            (Some("../../rel2/y"), "own/rel2/y", "own/x/rel2/y", "rel2/y"),
            (Some("./a//b/."), "own/a/b", "own/x/a/b", "a/b"),
            (Some("/abs"), "abs", "abs", "abs"),
            (Some("/../../abs/../abs2/z"), "abs2/z", "abs2/z", "abs2/z"),
        ] {
            let place = place(path, "c1").unwrap();
            assert_eq!(unified(&place, "/own/x"), v2, "{path:?}");
            assert_eq!(hierarchy(&place, "/own/x"), memory, "{path:?}");
            assert_eq!(hierarchy(&place, "/"), pids, "{path:?}");
        }
        assert_eq!(unified(&place(None, "c1").unwrap(), "/"), "c1");
        assert_eq!(unified(&place(None, "c1").unwrap(), "/one"), "c1");
        // Seen in a cgroup namespace whose root is not an ancestor.
        assert_eq!(unified(&place(None, "c1").unwrap(), "/../other/x"), "other/c1");
    }

    #[test]
    fn the_root_is_refused() {
        for path in ["/", "/..", ".", "a/.."] {
            let error = place(Some(path), "c1").unwrap_err().to_string();
            assert_eq!(error, format!("/linux/cgroupsPath: {path:?} names the root of the hierarchy"));
        }
    }

    #[test]
    fn own_cgroups() {
        let text = "9:name=systemd:/\n2:cpu,cpuacct:/a:b\n0::/user.slice/x.scope\n";
        let expected = [
            Membership { controllers: "name=systemd", path: "/" },
            Membership { controllers: "cpu,cpuacct", path: "/a:b" },
            Membership { controllers: "", path: "/user.slice/x.scope" },
        ];
        assert_eq!(memberships(text).collect::<Vec<_>>(), expected);
        assert_eq!(own_unified(text).unwrap(), "/user.slice/x.scope");
        assert!(own_unified("2:cpu:/\n").is_err());
    }

    #[test]
    fn mounts_of_hierarchies() {
        let text = "\
            25 30 0:23 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
            33 25 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw shared:15 master:2 - cgroup cgroup rw,cpu,cpuacct\n\
            34 25 0:31 / /odd\\040name/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            35 25 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,cpu\n\
            36 25 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
            37 25 0:33 /copy /elsewhere rw - cgroup cgroup rw,pids\n\
            38 36 0:33 /a /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let cpu = Mounted { point: "/sys/fs/cgroup/cpu,cpuacct".into(), root: "/docker/abc".into() };
        assert_eq!(find_mount(text, "cpuacct,cpu"), Some(cpu));
        let systemd = Mounted { point: "/odd name/systemd".into(), root: "/".into() };
        assert_eq!(find_mount(text, "name=systemd"), Some(systemd));
        let pids = Mounted { point: "/sys/fs/cgroup/pids".into(), root: "/a".into() };
        assert_eq!(find_mount(text, "pids"), Some(pids));
        assert_eq!(find_mount(text, "memory"), None);
        assert_eq!(unescape("a\\134b\\0"), "a\\b\\0");
    }
}
