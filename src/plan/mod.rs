//! config.json → [`Plan`]: plain, kernel-ready data (C strings, masks, flags), made before the clone.
//!
//! Pure: no system call here or below, so everything can be tested without root. What the init stage does with a
//! plan is in `init/`; it only walks it.

pub mod check;
pub mod devices;
pub mod ids;
pub mod intel_rdt;
pub mod list;
pub mod memory_policy;
pub mod mount_options;
pub mod mounts;
pub mod namespaces;
pub mod net_devices;
pub mod process;
pub mod rootless;
pub mod seccomp;

use anyhow::{Context, Result, bail};
use intel_rdt::IntelRdt;
use mounts::Mount;
use namespaces::Namespaces;
use net_devices::NetDevice;
use oci_spec::runtime::{Hook, Spec};
use process::Process;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Everything the init stage of a container needs to know.
pub struct Plan {
    /// Namespaces to make, to join and to share.
    pub namespaces: Namespaces,
    /// The ids of a user namespace; empty without one.
    pub maps: ids::Maps,
    /// `linux.timeOffsets`, in the kernel's form.
    pub time_offsets: String,
    /// Absolute path of the root filesystem in the runtime's mount namespace.
    pub rootfs: CString,
    /// `root.readonly`.
    pub root_readonly: bool,
    /// Propagation of the host's tree before anything is mounted (`MS_SLAVE | MS_REC` unless configured).
    pub isolation: u64,
    /// `linux.rootfsPropagation` as `MS_*` flags for the container's `/` after the pivot.
    pub root_propagation: Option<u64>,
    /// Attach the root by pivot_root(2) (the rule) or by a move and chroot(2) (`--no-pivot`).
    pub pivot: bool,
    /// `mounts`, in order.
    pub mounts: Vec<Mount>,
    /// The order in which they are made: see [`mounts::order`].
    pub mount_order: Vec<usize>,
    /// The devices can be made while namespaces are being made, before what shows those is mounted.
    pub devices_early: bool,
    /// Paths below `/proc` can be masked while namespaces are being made, before what shows those is mounted.
    pub masks_early: bool,
    /// No filesystem to be mounted has a file as its source or among its parameters, which could be named from the working
    /// directory: see [`mounts::name_no_file`].
    pub mounts_name_no_file: bool,
    /// Device nodes and links to make in `/dev`; absent when `/dev` is a bind mount.
    pub devices: Option<devices::Devices>,
    /// `linux.intelRdt`.
    pub intel_rdt: Option<IntelRdt>,
    /// `linux.netDevices`.
    pub net_devices: Vec<NetDevice>,
    /// `linux.maskedPaths`.
    pub masked_paths: Vec<CString>,
    /// `linux.readonlyPaths`.
    pub readonly_paths: Vec<CString>,
    /// `linux.sysctl`: path below `/proc/sys`, value.
    pub sysctl: Vec<(CString, CString)>,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `domainname`.
    pub domainname: Option<String>,
    /// Name of the session keyring; absent with `--no-new-keyring`.
    pub keyring: Option<CString>,
    /// The container's program.
    pub process: Process,
    /// Hooks that the init stage runs: before the pivot, and before the program.
    pub create_container: Vec<Hook>,
    /// See `create_container`.
    pub start_container: Vec<Hook>,
    /// The runtime runs prestart or createRuntime hooks while the init stage waits.
    pub runtime_hooks: bool,
}

impl Plan {
    /// May this path be masked, or made read-only, while namespaces are being made? Only a name directly in procfs:
    /// what lies below some shows the namespaces of whoever looks, so that a mask would be on another's file. Nor a process.
    pub fn covers_early(&self, path: &CStr) -> bool {
        let is_common = |name: &[u8]| {
            !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name[0].is_ascii_digit()
        };
        self.masks_early && path.to_bytes().strip_prefix(b"/proc/").is_some_and(is_common)
    }
}

/// Annotation by which Podman leaves a process the groups of whoever calls the runtime (`--group-add keep-groups`).
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// What the command line adds to the configuration.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// Descriptors for socket activation, sd_listen_fds(3).
    pub listen_fds: u32,
    /// The caller is not root in its user namespace.
    pub unprivileged: bool,
}

/// Compiles the plan of a validated configuration. Errors name the field by JSON pointer.
pub fn compile(spec: &Spec, id: &str, bundle: &Path, rootfs: &Path, options: Options) -> Result<Plan> {
    let linux = spec.linux().as_ref().context("/linux: is required")?;
    let namespaces = namespaces::compile(linux)?;
    let maps = ids::Maps::of_container(linux, &namespaces)?;
    if options.unprivileged {
        rootless::check(spec, &namespaces, &maps)?;
    }
    if namespaces.makes(libc::CLONE_NEWUSER)
        && let Some(process) = spec.process()
    {
        maps.check_users(process)?;
    }
    check::name(spec.hostname().as_deref(), "/hostname")?;
    check::name(spec.domainname().as_deref(), "/domainname")?;
    check::name(linux.mount_label().as_deref(), "/linux/mountLabel")?;
    if let Some(resources) = linux.resources() {
        check::resources(resources)?;
    }
    if let Some(hooks) = spec.hooks() {
        check::hooks(hooks)?;
    }
    let has_name = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
    if !namespaces.private(libc::CLONE_NEWUTS) {
        if has_name(spec.hostname()) {
            bail!("/hostname: unable to set hostname without a private UTS namespace");
        }
        if has_name(spec.domainname()) {
            bail!("/domainname: unable to set domainname without a private UTS namespace");
        }
    }
    let hooks = spec.hooks().as_ref();
    let list = |hooks: Option<&Vec<Hook>>| hooks.cloned().unwrap_or_default();
    let own_devices = devices::compile(linux, spec.mounts().as_deref().unwrap_or_default())?;
    let root_propagation = match linux.rootfs_propagation().as_deref() {
        None | Some("") => None,
        Some(name) => Some(mount_options::propagation(name).with_context(|| {
            format!("/linux/rootfsPropagation: rootfsPropagation={name} is not supported")
        })?),
    };
    if options.no_pivot && root_propagation.is_some_and(|flags| flags & libc::MS_PRIVATE != 0) {
        bail!("/linux/rootfsPropagation: rootfsPropagation of [r]private is not safe without pivot_root");
    }
    let mounts = mounts::compile(spec.mounts().as_deref().unwrap_or_default(), bundle, rootfs, &namespaces)?;
    let ahead = namespaces.made_ahead();
    let mount_order = mounts::order(&mounts, ahead);
    let devices_early = mounts::leaves_dev_alone(&mounts, &mount_order, ahead, own_devices.as_ref());
    let create_container = list(hooks.and_then(|h| h.create_container().as_ref()));
    #[allow(deprecated)]
    let runtime_hooks = hooks.is_some_and(|h| {
        !h.prestart().as_deref().unwrap_or_default().is_empty()
            || !h.create_runtime().as_deref().unwrap_or_default().is_empty()
    });
    Ok(Plan {
        // A mask is made of the container's null device as it will be, and hooks may still change what is there.
        masks_early: devices_early
            && create_container.is_empty()
            && !runtime_hooks
            && !mounts.iter().any(|mount| mount.readonly_last)
            && mounts::leaves_proc_alone(&mounts, &mount_order, ahead),
        devices_early,
        mounts_name_no_file: mounts::name_no_file(&mounts),
        mount_order,
        mounts,
        maps,
        time_offsets: namespaces::time_offsets(linux, &namespaces)?,
        rootfs: c_path(rootfs, "/root/path")?,
        root_readonly: spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)),
        isolation: match root_propagation.unwrap_or(libc::MS_SLAVE | libc::MS_REC) {
            // What cannot be copied could be no source of a bind mount; the root turns so after the pivot.
            flags if flags & libc::MS_UNBINDABLE != 0 => flags & !libc::MS_UNBINDABLE | libc::MS_PRIVATE,
            flags => flags,
        },
        root_propagation,
        pivot: !options.no_pivot,
        devices: own_devices,
        intel_rdt: linux.intel_rdt().as_ref().map(|rdt| intel_rdt::compile(rdt, id)).transpose()?,
        net_devices: net_devices::compile(linux.net_devices().as_ref(), &namespaces)?,
        masked_paths: once(paths(linux.masked_paths().as_deref().unwrap_or_default(), "/linux/maskedPaths")?),
        readonly_paths: paths(linux.readonly_paths().as_deref().unwrap_or_default(), "/linux/readonlyPaths")?,
        sysctl: sysctl(linux.sysctl().as_ref(), &namespaces)?,
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        keyring: if options.no_new_keyring { None } else { Some(CString::new(format!("_ses.{id}"))?) },
        process: {
            let mut process = match spec.process() {
                Some(process) => process::compile(process, linux, "/process")?,
                // Such a container can be made and entered by exec, not started (runtime.md "Create", "Start").
                None => process::absent(),
            };
            process.keep_groups =
                spec.annotations().as_ref().is_some_and(|all| all.get(KEEP_GROUPS).is_some_and(|v| v == "1"));
            if options.listen_fds > 0 {
                process.env.push(CString::new(format!("LISTEN_FDS={}", options.listen_fds))?);
                process.env.push(c"LISTEN_PID=1".into());
            }
            process
        },
        create_container,
        start_container: list(hooks.and_then(|h| h.start_container().as_ref())),
        runtime_hooks,
        namespaces,
    })
}

/// `linux.mountLabel`, which only a kernel with SELinux in force can give to mounts: whether it has is asked by the caller.
pub fn mount_label(linux: &oci_spec::runtime::Linux) -> Option<&str> {
    linux.mount_label().as_deref().filter(|label| !label.is_empty())
}

/// A string without NUL as the kernel takes it.
pub fn c_string(text: &str, pointer: &str) -> Result<CString> {
    CString::new(text).with_context(|| format!("{pointer}: contains a NUL byte"))
}

/// A path without NUL as the kernel takes it.
pub fn c_path(path: &Path, pointer: &str) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{pointer}: contains a NUL byte"))
}

/// Absolute paths inside the container.
fn paths(list: &[String], pointer: &str) -> Result<Vec<CString>> {
    list.iter()
        .enumerate()
        .map(|(i, text)| {
            if !text.starts_with('/') {
                bail!("{pointer}/{i}: {text:?} is not an absolute path");
            }
            CString::new(text.as_str()).with_context(|| format!("{pointer}/{i}: contains a NUL byte"))
        })
        .collect()
}

/// Each path at its first place only: a mask over a mask is a mount for nothing, and engines do list paths twice.
fn once(list: Vec<CString>) -> Vec<CString> {
    let mut seen = std::collections::HashSet::with_capacity(list.len());
    let new: Vec<bool> = list.iter().map(|path| seen.insert(path.as_c_str())).collect();
    if seen.len() == list.len() {
        return list;
    }
    list.into_iter().zip(new).filter_map(|(path, new)| new.then_some(path)).collect()
}

/// Kernel settings that are per IPC namespace.
const IPC_SYSCTLS: [&str; 9] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
    "kernel/msg_next_id",
];

/// Checks each setting against the list of namespaced ones: any other would change the host.
fn sysctl(
    settings: Option<&std::collections::HashMap<String, String>>,
    namespaces: &Namespaces,
) -> Result<Vec<(CString, CString)>> {
    let mut list = Vec::new();
    for (key, value) in settings.into_iter().flatten() {
        let pointer = format!("/linux/sysctl/{key}");
        let path = sysctl_path(key);
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            bail!("{pointer}: sysctl {key:?} is not a valid name");
        }
        if path == "kernel/hostname" {
            bail!("{pointer}: sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field");
        }
        let Some(needs) = sysctl_namespace(&path) else {
            bail!("{pointer}: sysctl {key:?} is not in a separate kernel namespace");
        };
        if !namespaces.private(needs.0) {
            bail!("{pointer}: sysctl {key:?} is not allowed in the host {} namespace", needs.1);
        }
        list.push((c_string(&path, &pointer)?, c_string(value, &pointer)?));
    }
    list.sort_unstable();
    Ok(list)
}

/// The namespace that a setting (a path below /proc/sys) belongs to, by flag and name; none for the host's own.
pub fn sysctl_namespace(path: &str) -> Option<(i32, &'static str)> {
    if IPC_SYSCTLS.contains(&path) || path.starts_with("fs/mqueue/") {
        Some((libc::CLONE_NEWIPC, "ipc"))
    } else if path.starts_with("net/") {
        Some((libc::CLONE_NEWNET, "network"))
    } else if path == "kernel/domainname" {
        Some((libc::CLONE_NEWUTS, "uts"))
    } else if path.starts_with("user/") {
        Some((libc::CLONE_NEWUSER, "user"))
    } else {
        None
    }
}

/// `net.ipv4.ip_forward` and `net/ipv4/ip_forward` name the same setting; whichever separator comes first is the one
/// that separates (sysctl(8)), so that interface names may hold dots in the slash form.
fn sysctl_path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => key.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_directly_in_procfs_are_covered_early() {
        let json = r#"{"ociVersion":"1.0.0","root":{"path":"rootfs"},"mounts":[{"destination":"/proc","type":"proc"},
            {"destination":"/dev","type":"tmpfs"},{"destination":"/sys","type":"sysfs"}],"linux":{"namespaces":
            [{"type":"mount"},{"type":"pid"},{"type":"network"}]}}"#;
        let mut spec: Spec = serde_json::from_str(json).unwrap();
        let compiled = |spec: &Spec| {
            compile(spec, "c", Path::new("/b"), Path::new("/b/rootfs"), Options::default()).unwrap()
        };
        let plan = compiled(&spec);
        for (path, early) in [
            (c"/proc/keys", true),
            (c"/proc/sys", true),
            (c"/proc/sys/net", false),
            (c"/proc/1", false),
            (c"/proc/.", false),
            (c"/proc/..", false),
            (c"/proc/", false),
            (c"/proc", false),
            (c"/sys/firmware", false),
        ] {
            assert_eq!(plan.covers_early(path), early, "{path:?}");
        }
        let hook = serde_json::from_str(r#"{"createContainer":[{"path":"/x"}]}"#).unwrap();
        spec.set_hooks(Some(hook));
        assert!(!compiled(&spec).covers_early(c"/proc/keys"));
    }

    #[test]
    fn sysctl_names_follow_their_first_separator() {
        for (key, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/x", "net/ipv4/conf/eth0.1/x"),
            ("net.ipv4.conf.eth0/1.x", "net/ipv4/conf/eth0.1/x"),
            ("kernel", "kernel"),
        ] {
            assert_eq!(sysctl_path(key), path);
        }
    }

    #[test]
    fn only_namespaced_sysctls_pass() {
        let own = Namespaces { new: libc::CLONE_NEWIPC | libc::CLONE_NEWNET, ..Namespaces::default() };
        let check = |key: &str, namespaces: &Namespaces| {
            let settings = [(key.to_string(), "1".to_string())].into();
            sysctl(Some(&settings), namespaces).map(|list| list.len()).map_err(|e| e.to_string())
        };
        assert_eq!(check("net.ipv4.ip_forward", &own), Ok(1));
        assert_eq!(check("kernel.shmmax", &own), Ok(1));
        assert_eq!(check("fs.mqueue.msg_max", &own), Ok(1));
        for bad in [
            "kernel.core_pattern",
            "kernel.hostname",
            "kernel.domainname",
            "user.max_user_namespaces",
            "vm.swappiness",
        ] {
            assert!(check(bad, &own).is_err(), "{bad}");
        }
        assert!(check("net/../kernel/core_pattern", &own).is_err());
        assert!(check("net.ipv4.ip_forward", &Namespaces::default()).is_err());
    }
}
