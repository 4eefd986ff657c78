//! `linux.devices` and the default devices (spec, config-linux "Default Devices") → nodes and links in `/dev`.

use super::{c_path, mounts};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{Linux, LinuxDeviceType, Mount};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::path::{Component, Path};

/// A device node to make.
pub struct Node {
    /// Path inside the container.
    pub path: CString,
    /// The same without its leading `/dev/`, when it lies directly there.
    pub name: Option<CString>,
    /// File type and permission bits.
    pub mode: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Index in `/linux/devices`; absent for a default device.
    pub index: Option<usize>,
}

/// What to make in `/dev`.
pub struct Devices {
    /// Nodes; each path once.
    pub nodes: Vec<Node>,
}

/// The nodes every container has: path, name below /dev, major, minor.
const DEFAULT: [(&CStr, &CStr, u32, u32); 6] = [
    (c"/dev/null", c"null", 1, 3),
    (c"/dev/random", c"random", 1, 8),
    (c"/dev/full", c"full", 1, 7),
    (c"/dev/tty", c"tty", 5, 0),
    (c"/dev/zero", c"zero", 1, 5),
    (c"/dev/urandom", c"urandom", 1, 9),
];

/// The links every container has; `init/devices.rs` adds `ptmx`, and `core` where the host has `/proc/kcore`.
pub const LINKS: [(&CStr, &CStr); 4] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
];

/// Lists the nodes to make, or nothing when `/dev` is a bind mount and therefore somebody else's.
/// A configured device replaces the default one of the same path.
pub fn compile(linux: &Linux, mount_list: &[Mount]) -> Result<Option<Devices>> {
    let is_dev = |mount: &&Mount| mount.destination().components().eq(Path::new("/dev").components());
    if mount_list.iter().rfind(is_dev).is_some_and(mounts::is_bind) {
        return Ok(None);
    }
    let mut nodes: Vec<Node> = DEFAULT
        .iter()
        .map(|&(path, name, major, minor)| Node {
            path: path.into(),
            name: Some(name.into()),
            mode: libc::S_IFCHR | 0o666,
            major,
            minor,
            uid: 0,
            gid: 0,
            index: None,
        })
        .collect();
    let list = linux.devices().as_deref().unwrap_or_default();
    let mut places: Option<HashMap<&str, usize>> = (list.len() > 64).then(HashMap::new);
    if let Some(places) = &mut places {
        places.extend(DEFAULT.iter().enumerate().filter_map(|(at, one)| Some((one.0.to_str().ok()?, at))));
    }
    for (index, device) in list.iter().enumerate() {
        let pointer = format!("/linux/devices/{index}");
        let path = device.path();
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            bail!("{pointer}/path: {} is not an absolute path without ..", path.display());
        }
        // The link to the container's own pts/ptmx always wins: a host ptmx would hand out host terminals.
        if path == Path::new("/dev/ptmx") {
            continue;
        }
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => bail!("{pointer}/type: \"a\" is not a device type"),
        };
        // The kernel has 12 bits for one and 20 for the other, and cuts off the rest.
        let number = |value: i64, field: &str| {
            let max = if field == "major" { 0xfff } else { 0xf_ffff };
            let number = u32::try_from(value).ok().filter(|&number| number <= max);
            number.with_context(|| format!("{pointer}/{field}: {value} is not a device number"))
        };
        // With the type's bits, as stat(2) gives it: Docker has sent those.
        if device.file_mode().is_some_and(|mode| mode > 0xffff) {
            bail!("{pointer}/fileMode: {} is not a mode", device.file_mode().unwrap_or_default());
        }
        let fifo = kind == libc::S_IFIFO;
        let node = Node {
            path: c_path(path, &format!("{pointer}/path"))?,
            name: path
                .strip_prefix("/dev")
                .ok()
                .filter(|rest| rest.components().count() == 1)
                .map(|rest| c_path(rest, &pointer))
                .transpose()?,
            mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
            major: if fifo { 0 } else { number(device.major(), "major")? },
            minor: if fifo { 0 } else { number(device.minor(), "minor")? },
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            index: Some(index),
        };
        // Comparing with all is the fastest for a few; a privileged container may list all devices of a large host.
        let place = match (&mut places, path.to_str()) {
            (Some(places), Some(text)) => *places.entry(text).or_insert(nodes.len()),
            _ => nodes.iter().position(|other| other.path == node.path).unwrap_or(nodes.len()),
        };
        match nodes.get_mut(place) {
            Some(same) => *same = node,
            None => nodes.push(node),
        }
    }
    Ok(Some(Devices { nodes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(devices: &str, mounts: &str) -> Result<Option<Devices>> {
        let linux: Linux = serde_json::from_str(&format!("{{\"devices\":{devices}}}")).unwrap();
        compile(&linux, &serde_json::from_str::<Vec<Mount>>(mounts).unwrap())
    }

    #[test]
    fn a_configured_device_replaces_the_default_one() {
        let list = nodes(
            r#"[{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":256,"uid":7},
                {"path":"/dev/ptmx","type":"c","major":5,"minor":2},{"path":"/dev/a/b","type":"p"}]"#,
            "[]",
        )
        .unwrap()
        .unwrap()
        .nodes;
        assert_eq!(list.len(), 7);
        let null = list.iter().find(|n| n.path.as_c_str() == c"/dev/null").unwrap();
        assert_eq!((null.mode, null.uid, null.index), (libc::S_IFCHR | 0o400, 7, Some(0)));
        let many: Vec<String> =
            (0..100).map(|n| format!(r#"{{"path":"/dev/{}","type":"p"}}"#, n % 80)).collect();
        let null = r#"{"path":"/dev/null","type":"c","major":9}"#;
        let many = nodes(&format!("[{null},{},{null}]", many.join(",")), "[]").unwrap().unwrap().nodes;
        assert_eq!(many.len(), 86);
        assert_eq!(many.iter().find(|n| n.path.as_c_str() == c"/dev/null").unwrap().index, Some(101));
        assert_eq!(many.iter().find(|n| n.path.as_c_str() == c"/dev/5").unwrap().index, Some(86));
        let fifo = &list[6];
        assert_eq!((fifo.mode, fifo.name.is_none()), (libc::S_IFIFO | 0o666, true));
    }

    #[test]
    fn a_bind_mounted_dev_is_left_alone() {
        assert!(
            nodes("[]", r#"[{"destination":"/dev/","source":"/dev","options":["rbind"]}]"#)
                .unwrap()
                .is_none()
        );
        assert!(
            nodes("[]", r#"[{"destination":"/dev","type":"tmpfs","source":"tmpfs"}]"#).unwrap().is_some()
        );
    }

    #[test]
    fn refusals_name_the_field() {
        let error = |json: &str| nodes(json, "[]").err().unwrap().to_string();
        assert!(error(r#"[{"path":"x","type":"c"}]"#).starts_with("/linux/devices/0/path"));
        assert!(error(r#"[{"path":"/dev/../x","type":"c"}]"#).starts_with("/linux/devices/0/path"));
        assert!(error(r#"[{"path":"/dev/x","type":"c","major":-1}]"#).starts_with("/linux/devices/0/major"));
    }
}
