//! `linux.netDevices` → which interfaces move into the container, and their names there.

use super::namespaces::Namespaces;
use anyhow::{Result, bail};
use oci_spec::runtime::LinuxNetDevice;
use std::collections::{HashMap, HashSet};

/// An interface to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name in the runtime's network namespace.
    pub host: String,
    /// Its name in the container; `%d` in it stands for a number that the kernel chooses.
    pub name: String,
}

impl NetDevice {
    /// Where it stands in the configuration.
    pub fn pointer(&self) -> String {
        pointer(&self.host)
    }

    /// The kernel chooses the number in the name.
    pub fn is_template(&self) -> bool {
        self.name.contains('%')
    }
}

fn pointer(host: &str) -> String {
    format!("/linux/netDevices/{}", host.replace('~', "~0").replace('/', "~1"))
}

/// Reads the map, sorted by name.
pub fn compile(
    devices: Option<&HashMap<String, LinuxNetDevice>>,
    namespaces: &Namespaces,
) -> Result<Vec<NetDevice>> {
    let mut list: Vec<NetDevice> = Vec::new();
    for (host, device) in devices.into_iter().flatten() {
        let name = device.name().as_ref().filter(|name| !name.is_empty()).unwrap_or(host);
        list.push(NetDevice { host: host.clone(), name: name.clone() });
    }
    list.sort_unstable_by(|a, b| a.host.cmp(&b.host));
    let mut names = HashSet::with_capacity(list.len());
    for device in &list {
        let pointer = device.pointer();
        if !namespaces.private(libc::CLONE_NEWNET) {
            bail!("{pointer}: unable to move network devices without a NET namespace");
        }
        if !is_name(&device.host) || device.host.contains('%') {
            bail!("{pointer}: invalid network device name {:?}", device.host);
        }
        // The kernel replaces one `%d` and refuses every other `%`.
        let rest = device.name.replacen("%d", "", 1);
        if !is_name(&device.name) || rest.contains('%') {
            bail!("{pointer}/name: invalid network device name {:?}", device.name);
        }
        if !device.is_template() && !names.insert(device.name.as_str()) {
            bail!("{pointer}/name: {:?} is the name of another device, too", device.name);
        }
    }
    Ok(list)
}

/// The kernel's rule (`dev_valid_name`): 1 to 15 bytes, no slash, colon or space, not `.` or `..`.
fn is_name(name: &str) -> bool {
    (1..libc::IFNAMSIZ).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name
            .bytes()
            .any(|byte| matches!(byte, b'/' | b':' | 0) || byte.is_ascii_whitespace() || byte == 0x0b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, new: i32) -> Result<Vec<NetDevice>, String> {
        let map: HashMap<String, LinuxNetDevice> = serde_json::from_str(json).unwrap();
        let namespaces = Namespaces { new, ..Namespaces::default() };
        compile(Some(&map), &namespaces).map_err(|error| error.to_string())
    }

    #[test]
    fn names() {
        let list = read(r#"{"b":{"name":"eth%d"},"a":{},"c":{"name":""}}"#, libc::CLONE_NEWNET).unwrap();
        let pairs: Vec<_> = list.iter().map(|d| (d.host.as_str(), d.name.as_str())).collect();
        assert_eq!(pairs, [("a", "a"), ("b", "eth%d"), ("c", "c")]);
        assert!(list[1].is_template() && !list[0].is_template());
        assert_eq!(read("{}", 0), Ok(vec![]));
    }

    #[test]
    fn many_are_compared_in_time() {
        let many: Vec<String> = (0..100_000).map(|n| format!(r#""e{n}":{{"name":"x{n}"}}"#)).collect();
        assert_eq!(read(&format!("{{{}}}", many.join(",")), libc::CLONE_NEWNET).unwrap().len(), 100_000);
    }

    #[test]
    fn refusals_name_the_device() {
        for (json, new, start) in [
            (r#"{"a":{}}"#, 0, "/linux/netDevices/a: "),
            (r#"{"a":{"name":"sixteen-letters-"}}"#, libc::CLONE_NEWNET, "/linux/netDevices/a/name: "),
            (r#"{"a/b":{}}"#, libc::CLONE_NEWNET, "/linux/netDevices/a~1b: "),
            (r#"{"a":{"name":".."}}"#, libc::CLONE_NEWNET, "/linux/netDevices/a/name: "),
            (r#"{"a":{"name":"x y"}}"#, libc::CLONE_NEWNET, "/linux/netDevices/a/name: "),
            (r#"{"a":{"name":"x%s"}}"#, libc::CLONE_NEWNET, "/linux/netDevices/a/name: "),
            (r#"{"a":{"name":"%d%d"}}"#, libc::CLONE_NEWNET, "/linux/netDevices/a/name: "),
            (r#"{"a":{"name":"x"},"b":{"name":"x"}}"#, libc::CLONE_NEWNET, "/linux/netDevices/b/name: "),
            (r#"{"":{}}"#, libc::CLONE_NEWNET, "/linux/netDevices/: "),
        ] {
            assert!(read(json, new).unwrap_err().starts_with(start), "{json}");
        }
    }
}
