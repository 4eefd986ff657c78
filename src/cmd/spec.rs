//! `spec`: writes a config.json to begin with. Its content and form are those of `runc spec`, so that scripts which
//! edit that file work here; the host name and the spec's version are our own.

use crate::cli::Spec as Args;
use crate::cmd::version;
use crate::exit::ExitCode;
use anyhow::{Context, Result, bail};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{getegid, geteuid};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

const CONFIG: &str = "config.json";

/// Writes `config.json` to the bundle, with tabs as runc does.
///
/// # Errors
/// The file exists (in whatever form), or cannot be written; then none is left behind.
pub fn spec(args: Args) -> Result<ExitCode> {
    let path = args.bundle.as_deref().unwrap_or(Path::new("")).join(CONFIG);
    let text = render(args.rootless, has_unified_cgroups(), geteuid().as_raw(), getegid().as_raw())?;
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("File {CONFIG} exists. Remove it first")
        }
        opened => opened.with_context(|| format!("create {}", path.display()))?,
    };
    if let Err(error) = file.write_all(&text) {
        // The error of the write is the one to tell.
        let _ = std::fs::remove_file(&path);
        return Err(error).with_context(|| format!("write {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// True if /sys/fs/cgroup is cgroup v2: only there does a container see its own root of the tree by a namespace.
fn has_unified_cgroups() -> bool {
    statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

// The keys stand in the order of runc's file, which is that of the Go types, not of the spec's crate.

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    oci_version: &'static str,
    process: Process,
    root: Root,
    hostname: &'static str,
    mounts: Vec<Mount>,
    linux: Linux,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    terminal: bool,
    user: User,
    args: [&'static str; 1],
    env: [&'static str; 2],
    cwd: &'static str,
    capabilities: Capabilities,
    rlimits: [Rlimit; 1],
    no_new_privileges: bool,
}

#[derive(Serialize)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Serialize)]
struct Capabilities {
    bounding: &'static [&'static str],
    effective: &'static [&'static str],
    permitted: &'static [&'static str],
}

#[derive(Serialize)]
struct Rlimit {
    r#type: &'static str,
    hard: u64,
    soft: u64,
}

#[derive(Serialize)]
struct Root {
    path: &'static str,
    readonly: bool,
}

#[derive(Serialize)]
struct Mount {
    destination: &'static str,
    r#type: &'static str,
    source: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid_mappings: Option<[IdMapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid_mappings: Option<[IdMapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources>,
    namespaces: Vec<Namespace>,
    masked_paths: &'static [&'static str],
    readonly_paths: &'static [&'static str],
}

#[derive(Serialize)]
struct IdMapping {
    #[serde(rename = "containerID")]
    container: u32,
    #[serde(rename = "hostID")]
    host: u32,
    size: u32,
}

#[derive(Serialize)]
struct Resources {
    devices: [DeviceRule; 1],
}

#[derive(Serialize)]
struct DeviceRule {
    allow: bool,
    access: &'static str,
}

#[derive(Serialize)]
struct Namespace {
    r#type: &'static str,
}

const CAPABILITIES: &[&str] = &["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn render(rootless: bool, unified: bool, uid: u32, gid: u32) -> Result<Vec<u8>> {
    let config = Spec {
        oci_version: version::SPEC,
        process: Process {
            terminal: true,
            user: User { uid: 0, gid: 0 },
            args: ["sh"],
            env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            cwd: "/",
            capabilities: Capabilities {
                bounding: CAPABILITIES,
                effective: CAPABILITIES,
                permitted: CAPABILITIES,
            },
            rlimits: [Rlimit { r#type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
            no_new_privileges: true,
        },
        root: Root { path: "rootfs", readonly: true },
        hostname: "naru",
        mounts: mounts(rootless),
        linux: Linux {
            uid_mappings: rootless.then_some([IdMapping { container: 0, host: uid, size: 1 }]),
            gid_mappings: rootless.then_some([IdMapping { container: 0, host: gid, size: 1 }]),
            resources: (!rootless)
                .then_some(Resources { devices: [DeviceRule { allow: false, access: "rwm" }] }),
            namespaces: namespaces(rootless, unified),
            masked_paths: MASKED_PATHS,
            readonly_paths: READONLY_PATHS,
        },
    };
    let mut text = Vec::with_capacity(4096);
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    config.serialize(&mut serde_json::Serializer::with_formatter(&mut text, tabs))?;
    Ok(text)
}

fn mounts(rootless: bool) -> Vec<Mount> {
    let mount = |destination, r#type, source, options: &[_]| Mount {
        destination,
        r#type,
        source,
        options: options.to_vec(),
    };
    let mut devpts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !rootless {
        // The group tty, which a single mapped id cannot name.
        devpts.push("gid=5");
    }
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &devpts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        if rootless {
            // A new sysfs takes a network namespace of one's own, and the host's is shared here.
            mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])
        } else {
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        },
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn namespaces(rootless: bool, unified: bool) -> Vec<Namespace> {
    [
        ("pid", true),
        ("network", !rootless),
        ("ipc", true),
        ("uts", true),
        ("mount", true),
        ("cgroup", unified),
        ("user", rootless),
    ]
    .into_iter()
    .filter_map(|(r#type, wanted)| wanted.then_some(Namespace { r#type }))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxNamespaceType, Spec as OciSpec};

    #[test]
    fn is_a_config_of_the_spec() {
        for (rootless, unified) in [(false, false), (false, true), (true, false), (true, true)] {
            let text = render(rootless, unified, 1000, 1001).unwrap();
            let spec: OciSpec = serde_json::from_slice(&text).unwrap();
            let linux = spec.linux().as_ref().unwrap();
            let has = |kind| linux.namespaces().as_ref().unwrap().iter().any(|ns| ns.typ() == kind);
            assert_eq!(has(LinuxNamespaceType::User), rootless);
            assert_eq!(has(LinuxNamespaceType::Network), !rootless);
            assert_eq!(has(LinuxNamespaceType::Cgroup), unified);
            assert_eq!(linux.resources().is_none(), rootless);
            let mapped = linux.uid_mappings().as_ref().map(|maps| maps[0].host_id());
            assert_eq!(mapped, rootless.then_some(1000));
        }
    }
}
