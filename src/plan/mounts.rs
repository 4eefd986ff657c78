//! `mounts` → what to mount where, with each option turned into the flags that the kernel's mount calls take.

use super::devices::Devices;
use super::ids::Maps;
use super::namespaces::Namespaces;
use super::{c_path, c_string, mount_options};
use crate::sys::mount::{MountAttr, attr};
use anyhow::{Result, anyhow, bail};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// One entry of `mounts`.
pub struct Mount {
    /// Cleaned absolute path inside the container.
    pub destination: CString,
    /// Index in `/mounts`, for errors.
    pub index: usize,
    /// What is mounted.
    pub kind: Kind,
    /// Attributes of the mount itself; for a bind mount `clear` holds what the options turn off.
    pub attr: MountAttr,
    /// Attributes for the mount and all below it (`rro`, `rnosuid`, ..).
    pub recursive: Option<MountAttr>,
    /// Propagation changes in the order given: `MS_*` type, whole tree.
    pub propagation: Vec<(u64, bool)>,
    /// Turn read-only only when everything else is mounted, because later steps put files in it.
    pub readonly_last: bool,
}

impl Mount {
    /// Its destination as a path.
    fn path(&self) -> &Path {
        path_of(&self.destination)
    }

    /// Is that its destination?
    fn is_at(&self, path: &str) -> bool {
        self.path() == Path::new(path)
    }

    /// Is it a filesystem that shows one of these namespaces of the process that mounts it, by `CLONE_NEW*` flags?
    pub fn shows(&self, namespaces: i32) -> bool {
        namespaces & libc::CLONE_NEWNET != 0 && self.is_new(&SYSFS)
            || namespaces & libc::CLONE_NEWIPC != 0 && self.is_new(&MQUEUE)
    }

    /// Is it a new filesystem of one of these types?
    fn is_new(&self, types: &[&[u8]]) -> bool {
        matches!(&self.kind, Kind::Filesystem(fs) if types.contains(&fs.fstype.to_bytes()))
    }
}

fn path_of(text: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(text.to_bytes()))
}

/// What a mount shows.
pub enum Kind {
    /// A file or directory of the runtime's mount namespace.
    Bind(Bind),
    /// A new filesystem instance.
    Filesystem(Filesystem),
    /// A mount that is there already, with other flags, and its filesystem with other parameters if there is a list.
    Remount(Option<Vec<Parameter>>),
    /// The container's view of its cgroups, in the form that fits the host.
    Cgroup {
        /// The type is `cgroup2`, which a host with v1 may have, too.
        named_version_2: bool,
        /// Parameters of a new cgroup2 filesystem.
        parameters: Vec<Parameter>,
    },
}

/// A file or directory to show elsewhere.
pub struct Bind {
    /// Absolute path.
    pub source: CString,
    /// With everything mounted below it.
    pub recursive: bool,
    /// The attributes that options clear by name: locked ones may stay only if nobody asks for them to go.
    pub cleared: u64,
    /// Its files' owners appear as others.
    pub idmap: Option<Box<Idmap>>,
}

/// An idmapped mount.
pub struct Idmap {
    /// By these maps; absent: by those of the container's user namespace.
    pub maps: Option<Maps>,
    /// Everything mounted below it, too (`ridmap`).
    pub recursive: bool,
}

/// A parameter of a filesystem; flags have no value.
pub type Parameter = (CString, Option<CString>);

/// A filesystem to make.
pub struct Filesystem {
    /// Type, for example `tmpfs`.
    pub fstype: CString,
    /// Source as mountinfo shows it.
    pub source: CString,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// Copy what the destination held into the new tmpfs (`tmpcopyup`).
    pub copy_up: bool,
}

/// The attributes that a bind mount's flags replace as a whole, as a remount does.
const BIND_ATTRS: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;

/// A mount is a bind mount by its options, whatever its type says.
pub fn is_bind(mount: &oci_spec::runtime::Mount) -> bool {
    mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind")
}

/// What may be bound over a file of procfs: what lxcfs provides, and nothing that runtimes or programs trust.
const PROC_FILES: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// Compiles the list; errors name the field by JSON pointer.
pub fn compile(
    list: &[oci_spec::runtime::Mount],
    bundle: &Path,
    rootfs: &Path,
    namespaces: &Namespaces,
) -> Result<Vec<Mount>> {
    list.iter()
        .enumerate()
        .map(|(index, mount)| {
            // They begin with the field.
            compile_one(mount, index, bundle, rootfs, namespaces)
                .map_err(|error| anyhow!("/mounts/{index}/{}", format!("{error:#}").trim_start_matches('/')))
        })
        .collect()
}

/// Annotation by which Podman names the mount option that takes the label (mount(8), "context").
pub const CONTEXT_TYPE: &str = "run.oci.mount_context_type";

/// Gives the filesystems `linux.mountLabel`, SELinux' label for everything in them. procfs, sysfs and cgroups take none,
/// and that of mqueue is the kernel's.
pub fn set_label(mounts: &mut [Mount], label: &str, option: Option<&str>) -> Result<()> {
    let label = c_string(label, "/linux/mountLabel")?;
    let option = match option {
        None | Some("context") => c"context",
        Some("fscontext") => c"fscontext",
        Some("defcontext") => c"defcontext",
        Some("rootcontext") => c"rootcontext",
        Some(other) => bail!("/annotations/{CONTEXT_TYPE}: {other:?} is no option for a label"),
    };
    for mount in mounts {
        if let Kind::Filesystem(fs) = &mut mount.kind
            && !matches!(fs.fstype.to_bytes(), b"proc" | b"sysfs" | b"mqueue")
        {
            fs.parameters.push((option.into(), Some(label.clone())));
        }
    }
    Ok(())
}

/// Filesystems that the kernel makes of nothing, whose source is but a word.
const OF_NOTHING: [&[u8]; 5] = [b"proc", b"tmpfs", b"devpts", b"sysfs", b"mqueue"];
/// Of these what shows the network, and the IPC namespace of who mounts it.
const SYSFS: [&[u8]; 1] = [b"sysfs"];
const MQUEUE: [&[u8]; 1] = [b"mqueue"];
/// Where engines mount message queues.
const MQUEUE_DIR: &str = "/dev/mqueue";

/// The order of the list, but for one thing: a sysfs that shows a namespace which is made `ahead` (`CLONE_NEW*` flags), and what
/// follows below it, waits until the plain filesystems below `/dev` after it are mounted, and so do message queues in a new
/// `/dev`, where no process can tell the difference. The namespaces are made meanwhile, which takes longer than all of them. Bind
/// mounts are never overtaken: their destinations may lead anywhere through links of the image.
pub fn order(mounts: &[Mount], ahead: i32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..mounts.len()).collect();
    let plain = |mount: &Mount| {
        let below_dev = mount.destination.to_bytes().starts_with(b"/dev/");
        below_dev && mount.is_new(&OF_NOTHING) && !mount.shows(ahead)
    };
    let sysfs = |mount: &Mount| mount.is_new(&SYSFS) && mount.shows(ahead);
    let Some(sysfs) = mounts.iter().position(sysfs) else { return order };
    let waits = |at: usize, mount: &Mount| {
        mount.shows(ahead) && mount.is_at(MQUEUE_DIR) && is_dev_new(mounts[..at].iter())
    };
    let related = |a: &Mount, b: &Mount| a.path().starts_with(b.path()) || b.path().starts_with(a.path());
    /// More than any configuration has below sysfs.
    const WAITING_MAX: usize = 64;
    let mut waiting = vec![sysfs];
    let mut now = Vec::new();
    let mut end = sysfs + 1;
    for (at, mount) in mounts.iter().enumerate().skip(sysfs + 1) {
        let free = waiting.iter().all(|&other| !related(mount, &mounts[other]));
        match &mount.kind {
            _ if free && plain(mount) => now.push(at),
            // Each mount is compared with all that wait.
            Kind::Cgroup { .. } | Kind::Filesystem(_)
                if (!free || waits(at, mount)) && waiting.len() < WAITING_MAX =>
            {
                waiting.push(at)
            }
            _ => break,
        }
        end = at + 1;
    }
    now.append(&mut waiting);
    order.splice(sysfs..end, now);
    order
}

/// Is what is mounted at `/dev` new, and followed by nothing but filesystems without anything of the image's in them? Then no link
/// leads what is mounted right below it elsewhere.
fn is_dev_new<'m>(before: impl Iterator<Item = &'m Mount>) -> bool {
    let empty = |mount: &Mount| match &mount.kind {
        Kind::Filesystem(fs) => mount.is_new(&OF_NOTHING) && !fs.copy_up,
        Kind::Cgroup { .. } => true,
        _ => false,
    };
    let mut before = before.skip_while(|mount| !mount.is_at("/dev"));
    before.next().is_some_and(|dev| dev.is_new(&[b"tmpfs"]) && empty(dev)) && before.all(empty)
}

/// May devices be made before what shows a namespace that is made `ahead`? They all lie in `/dev`, and neither that nor anything
/// mounted after it in `order` is on or below `/dev`, but message queues at their usual place where no device is. A link of the
/// image that leads a later mount there only covers what is in `/dev`, in either order.
pub fn leaves_dev_alone(mounts: &[Mount], order: &[usize], ahead: i32, devices: Option<&Devices>) -> bool {
    let Some(first) = order.iter().position(|&at| mounts[at].shows(ahead)) else { return false };
    let nodes = || devices.iter().flat_map(|all| &all.nodes).map(|node| path_of(&node.path));
    let device_there = nodes().any(|path| path.starts_with(MQUEUE_DIR));
    nodes().all(|path| path.starts_with("/dev"))
        && order[first..].iter().map(|&at| &mounts[at]).all(|mount| {
            let queues = mount.is_new(&MQUEUE) && mount.is_at(MQUEUE_DIR) && !device_there;
            (queues || !mount.path().starts_with("/dev"))
                && matches!(&mount.kind, Kind::Cgroup { .. } | Kind::Filesystem(_) | Kind::Bind(_))
        })
}

/// Parameters of these filesystems and of cgroup2 that neither name a file, as `pidns` of procfs does, nor are a flag of the
/// superblock but `ro`.
const PLAIN_PARAMETERS: [&[u8]; 19] = [
    b"ro",
    b"hidepid",
    b"subset",
    b"gid",
    b"uid",
    b"mode",
    b"size",
    b"nr_blocks",
    b"nr_inodes",
    b"huge",
    b"mpol",
    b"newinstance",
    b"ptmxmode",
    b"max",
    b"nsdelegate",
    b"favordynmods",
    b"memory_localevents",
    b"memory_recursiveprot",
    b"context",
];

/// Has no filesystem of the list a file as its source or among its parameters?
pub fn name_no_file(mounts: &[Mount]) -> bool {
    let plain = |parameters: &[Parameter]| {
        parameters.iter().all(|(key, _)| PLAIN_PARAMETERS.contains(&key.to_bytes()))
    };
    mounts.iter().all(|mount| match &mount.kind {
        Kind::Filesystem(fs) => mount.is_new(&OF_NOTHING) && plain(&fs.parameters),
        Kind::Cgroup { parameters, .. } => plain(parameters),
        Kind::Remount(parameters) => parameters.as_deref().is_none_or(plain),
        Kind::Bind(_) => true,
    })
}

/// Is a procfs at `/proc` when something comes that shows a namespace which is made `ahead`, and from there on nothing but sysfs at
/// `/sys`, cgroups below that, and message queues in a `/dev` that is new? No link of the image leads those elsewhere.
pub fn leaves_proc_alone(mounts: &[Mount], order: &[usize], ahead: i32) -> bool {
    let Some(first) = order.iter().position(|&at| mounts[at].shows(ahead)) else { return false };
    let (before, after) = order.split_at(first);
    let before = || before.iter().map(|&at| &mounts[at]);
    let (queues, rest): (Vec<&Mount>, Vec<&Mount>) =
        after.iter().map(|&at| &mounts[at]).partition(|mount| mount.is_new(&MQUEUE));
    let kernels = |mount: &Mount| mount.is_new(&SYSFS) || matches!(mount.kind, Kind::Cgroup { .. });
    before().any(|mount| mount.is_new(&[b"proc"]) && mount.is_at("/proc"))
        && (queues.is_empty() || is_dev_new(before()))
        && queues.iter().all(|mount| mount.is_at(MQUEUE_DIR))
        && rest.first().is_none_or(|mount| mount.is_new(&SYSFS) && mount.is_at("/sys"))
        && rest.iter().all(|mount| mount.path().starts_with("/sys") && kernels(mount))
}

fn compile_one(
    mount: &oci_spec::runtime::Mount,
    index: usize,
    bundle: &Path,
    rootfs: &Path,
    namespaces: &Namespaces,
) -> Result<Mount> {
    let mut destination = clean(mount.destination());
    // Some callers name the place on the host (runc takes it, too).
    if let Ok(inside) = destination.strip_prefix(rootfs)
        && rootfs != Path::new("/")
    {
        destination = Path::new("/").join(inside);
    }
    if destination == Path::new("/") {
        bail!("destination: {:?} is the root of the container", mount.destination());
    }
    let mut options = mount_options::read(mount.options().iter().flatten().map(String::as_str))?;
    let mut result = Mount {
        destination: c_path(&destination, "destination")?,
        index,
        kind: Kind::Remount(None),
        attr: options.attr,
        recursive: options.recursive,
        propagation: std::mem::take(&mut options.propagation),
        readonly_last: false,
    };
    let fstype = mount.typ().as_deref().unwrap_or_default();
    let source = mount.source().clone().unwrap_or_default();
    let below_proc = destination.strip_prefix("/proc").ok();
    let idmap = idmap(mount, options.idmap, namespaces)?;
    if idmap.is_some() && (options.bind.is_none() || options.remount) {
        bail!("uidMappings: id-mapped mounts are only supported for bind-mounts");
    }
    if options.remount {
        result.attr.clear |= BIND_ATTRS & !result.attr.set;
        // With `bind` the mount alone changes, without it the filesystem behind it, too.
        result.kind = Kind::Remount(match options.bind {
            Some(_) => None,
            None => {
                let readonly = result.attr.set & attr::RDONLY != 0;
                options.parameters.push((if readonly { c"ro".into() } else { c"rw".into() }, None));
                Some(options.parameters)
            }
        });
        return Ok(result);
    }
    if let Some(recursive) = options.bind {
        // Parameters of a filesystem mean nothing to a bind mount: the kernel ignores them, and so do we (spec, crun;
        // runc refuses them since 1.2).
        if let Some(rest) = below_proc
            && rest != Path::new("")
            && !PROC_FILES.iter().any(|file| rest == Path::new(file))
        {
            bail!("destination: {} cannot be mounted because it is inside /proc", destination.display());
        }
        if source.as_os_str().is_empty() {
            bail!("source: a bind mount needs one");
        }
        let cleared = result.attr.clear;
        // A remount replaces all flags; so does a bind mount here as soon as an option names one.
        if options.names_flags {
            result.attr.clear |= BIND_ATTRS & !result.attr.set;
        }
        let source = c_path(&bundle.join(source), "source")?;
        result.kind = Kind::Bind(Bind { source, recursive, cleared, idmap });
        return Ok(result);
    }
    if below_proc.is_some_and(|rest| rest != Path::new("") || fstype != "proc") {
        bail!("destination: {} cannot be mounted because it is inside /proc", destination.display());
    }
    if fstype == "cgroup" || fstype == "cgroup2" {
        result.kind = Kind::Cgroup { named_version_2: fstype == "cgroup2", parameters: options.parameters };
        return Ok(result);
    }
    if fstype.is_empty() {
        bail!("type: a mount that is not a bind mount needs one");
    }
    if options.copy_up && fstype != "tmpfs" {
        bail!("options: tmpcopyup is for tmpfs, not {fstype}");
    }
    let fstype = c_string(fstype, "type")?;
    // Later steps put mount points and device nodes in a tmpfs and in /dev, so those turn read-only at the end.
    result.readonly_last = result.attr.set & attr::RDONLY != 0
        && (fstype.as_c_str() == c"tmpfs" || result.destination.as_c_str() == c"/dev");
    if result.attr.set & attr::RDONLY != 0 && !result.readonly_last {
        options.parameters.push((c"ro".into(), None));
    }
    if result.readonly_last {
        result.attr.set &= !attr::RDONLY;
    }
    let source = if source.as_os_str().is_empty() { fstype.clone() } else { c_path(&source, "source")? };
    let parameters = options.parameters;
    result.kind = Kind::Filesystem(Filesystem { fstype, source, parameters, copy_up: options.copy_up });
    Ok(result)
}

/// `uidMappings` and `gidMappings`, or the option that asks for those of the container's user namespace.
fn idmap(
    mount: &oci_spec::runtime::Mount,
    option: Option<bool>,
    namespaces: &Namespaces,
) -> Result<Option<Box<Idmap>>> {
    let maps = Maps::compile(mount.uid_mappings().as_ref(), mount.gid_mappings().as_ref(), "")?;
    if maps.is_empty() {
        return match option {
            None => Ok(None),
            Some(recursive) if namespaces.private(libc::CLONE_NEWUSER) => {
                Ok(Some(Box::new(Idmap { maps: None, recursive })))
            }
            Some(_) => bail!(
                "options: id-mapped mounts must have both uid and gid mappings specified, or the container a user \
                 namespace"
            ),
        };
    }
    if maps.uids.is_empty() || maps.gids.is_empty() {
        let field = if maps.uids.is_empty() { "uidMappings" } else { "gidMappings" };
        bail!("{field}: id-mapped mounts must have both uid and gid mappings specified");
    }
    Ok(Some(Box::new(Idmap { maps: Some(maps), recursive: option == Some(true) })))
}

/// Makes a destination absolute and resolves `.` and `..` by text, before any link is looked at (runc does the same).
pub fn clean(path: &Path) -> PathBuf {
    let mut result = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => result.push(name),
            Component::ParentDir => {
                result.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(json: &str) -> Result<Mount, String> {
        let mount: oci_spec::runtime::Mount = serde_json::from_str(json).unwrap();
        compile(&[mount], Path::new("/bundle"), Path::new("/bundle/rootfs"), &Namespaces::default())
            .map(|mut list| list.remove(0))
            .map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn filesystem_options() {
        let m = one(r#"{"destination":"dev/../dev/shm/","type":"tmpfs","source":"shm",
                "options":["nosuid","noexec","nodev","strictatime","mode=1777","size=65536k","ro"]}"#)
        .unwrap();
        assert_eq!(m.destination.as_c_str(), c"/dev/shm");
        assert_eq!(m.attr.set, attr::NOSUID | attr::NOEXEC | attr::NODEV | attr::STRICTATIME);
        assert!(m.readonly_last);
        let Kind::Filesystem(fs) = m.kind else { panic!() };
        assert_eq!(fs.parameters.len(), 2);
        assert_eq!(fs.parameters[1], (c"size".into(), Some(c"65536k".into())));
    }

    #[test]
    fn read_only_sysfs_is_read_only_as_a_whole() {
        let m = one(r#"{"destination":"/sys","type":"sysfs","source":"sysfs","options":["ro"]}"#).unwrap();
        let Kind::Filesystem(fs) = m.kind else { panic!() };
        assert_eq!(fs.parameters, [(c"ro".into(), None)]);
    }

    #[test]
    fn a_bind_mount_with_flags_replaces_all_flags() {
        let m = one(
            r#"{"destination":"/x","type":"none","source":"binds/x","options":["rbind","ro","rprivate"]}"#,
        );
        let m = m.unwrap();
        assert_eq!(m.attr.set, attr::RDONLY);
        assert_eq!(m.attr.clear, BIND_ATTRS & !attr::RDONLY);
        assert_eq!(m.propagation, [(libc::MS_PRIVATE, true)]);
        let Kind::Bind(bind) = m.kind else { panic!() };
        assert!(bind.recursive && bind.source.as_c_str() == c"/bundle/binds/x");
        let plain = one(r#"{"destination":"/x","source":"/y","options":["bind"]}"#).unwrap();
        assert_eq!((plain.attr.set, plain.attr.clear), (0, 0));
        let last_wins = one(r#"{"destination":"/x","source":"/y","options":["bind","ro","rw"]}"#).unwrap();
        assert_eq!(last_wins.attr.set, 0);
    }

    #[test]
    fn idmapped_mounts() {
        let map = r#"[{"containerID":0,"hostID":100000,"size":65536}]"#;
        let json = |fields: &str, options: &str| {
            format!(r#"{{"destination":"/x","source":"/y","options":["{options}"]{fields}}}"#)
        };
        let both = format!(r#","uidMappings":{map},"gidMappings":{map}"#);
        for (option, recursive) in [("bind", false), ("rbind\",\"idmap", false), ("rbind\",\"ridmap", true)] {
            let Kind::Bind(bind) = one(&json(&both, option)).unwrap().kind else { panic!() };
            let idmap = bind.idmap.unwrap();
            assert_eq!((idmap.recursive, idmap.maps.unwrap().uids.len()), (recursive, 1));
        }
        for (json, text) in [
            (json(&format!(r#","uidMappings":{map}"#), "bind"), "/mounts/0/gidMappings: "),
            (json("", "bind\",\"idmap"), "/mounts/0/options: "),
            (json(&both, "x").replace("/y\"", "/y\",\"type\":\"tmpfs\""), "only supported for bind"),
            (json(&both, "bind").replace("65536", "0"), "/mounts/0/uidMappings/0/size: "),
        ] {
            let error = one(&json).err().unwrap();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_destination_may_name_the_place_on_the_host() {
        let list =
            r#"[{"destination":"/b/rootfs/mnt","type":"tmpfs"},{"destination":"/b/rootfs2","type":"tmpfs"}]"#;
        let list: Vec<oci_spec::runtime::Mount> = serde_json::from_str(list).unwrap();
        let list = compile(&list, Path::new("/b"), Path::new("/b/rootfs"), &Namespaces::default()).unwrap();
        assert_eq!(
            [c"/mnt", c"/b/rootfs2"].map(CStr::to_bytes),
            [0, 1].map(|at: usize| list[at].destination.to_bytes())
        );
    }

    #[test]
    fn a_remount_changes_the_filesystem_unless_it_is_a_bind() {
        let m = one(r#"{"destination":"/x","type":"tmpfs","options":["remount","ro","size=1m"]}"#).unwrap();
        let Kind::Remount(Some(parameters)) = m.kind else { panic!() };
        assert_eq!(parameters, [(c"size".into(), Some(c"1m".into())), (c"ro".into(), None)]);
        let m = one(r#"{"destination":"/x","options":["remount","bind","ro"]}"#).unwrap();
        assert!(matches!(m.kind, Kind::Remount(None)));
        assert_eq!((m.attr.set, m.attr.clear), (attr::RDONLY, BIND_ATTRS & !attr::RDONLY));
    }

    /// Mounts by destination and type, or "bind".
    fn list(entries: &[(&str, &str)]) -> Vec<Mount> {
        let json: Vec<String> = entries
            .iter()
            .map(|(destination, kind)| match *kind {
                "bind" => format!(r#"{{"destination":"{destination}","source":"/x","options":["bind"]}}"#),
                _ => format!(r#"{{"destination":"{destination}","type":"{kind}","source":"x"}}"#),
            })
            .collect();
        let mounts: Vec<oci_spec::runtime::Mount> =
            serde_json::from_str(&format!("[{}]", json.join(","))).unwrap();
        compile(&mounts, Path::new("/"), Path::new("/rootfs"), &Namespaces::default()).unwrap()
    }

    const AHEAD: i32 = libc::CLONE_NEWNET | libc::CLONE_NEWIPC;

    #[test]
    fn procfs_is_left_alone_by_sysfs_cgroups_and_queues_only() {
        const DEV: (&str, &str) = ("/dev", "tmpfs");
        const QUEUES: (&str, &str) = ("/dev/mqueue", "mqueue");
        for (entries, alone) in [
            (
                &[("/proc", "proc"), ("/etc/x", "bind"), ("/sys", "sysfs"), ("/sys/fs/cgroup", "cgroup")][..],
                true,
            ),
            (&[("/proc", "proc"), ("/sys", "sysfs")], true),
            (&[("/proc", "proc"), DEV, ("/dev/pts", "devpts"), QUEUES, ("/sys", "sysfs")], true),
            (&[("/proc", "proc"), DEV, ("/sys", "sysfs"), QUEUES], true),
            (&[("/proc", "proc"), DEV, QUEUES], true),
            (&[("/proc", "proc"), QUEUES, ("/sys", "sysfs")], false),
            (&[("/proc", "proc"), DEV, ("/dev/x", "bind"), QUEUES, ("/sys", "sysfs")], false),
            (&[("/proc", "proc"), DEV, ("/x", "bind"), QUEUES, ("/sys", "sysfs")], false),
            (&[("/proc", "proc"), ("/x", "bind"), DEV, QUEUES, ("/sys", "sysfs")], true),
            (&[("/proc", "proc"), ("/dev", "bind"), QUEUES, ("/sys", "sysfs")], false),
            (&[("/proc", "proc"), DEV, ("/dev/q", "mqueue"), ("/sys", "sysfs")], false),
            (&[("/proc", "proc"), DEV, QUEUES, ("/sys/x", "sysfs")], false),
            (&[("/proc", "proc"), ("/sys", "sysfs"), ("/etc/hosts", "bind")], false),
            (&[("/proc", "proc"), ("/sys", "sysfs"), ("/cgroup", "cgroup")], false),
            (&[("/proc", "proc"), ("/sys", "sysfs"), ("/sys/x", "tmpfs")], false),
            (&[("/proc", "proc"), ("/else", "sysfs")], false),
            (&[("/proc", "proc"), ("/sys/kernel", "sysfs"), ("/sys/fs/cgroup", "cgroup")], false),
            (&[("/sys", "sysfs"), ("/proc", "proc")], false),
            (&[("/other", "proc"), ("/sys", "sysfs")], false),
            (&[("/proc", "proc")], false),
        ] {
            let mounts = list(entries);
            let order: Vec<usize> = (0..mounts.len()).collect();
            assert_eq!(leaves_proc_alone(&mounts, &order, AHEAD), alone, "{entries:?}");
        }
    }

    #[test]
    fn dev_is_left_alone_but_for_queues() {
        let node = |path: &str| {
            let device = format!(r#"{{"devices":[{{"path":"{path}","type":"c","major":1,"minor":3}}]}}"#);
            super::super::devices::compile(&serde_json::from_str(&device).unwrap(), &[]).unwrap()
        };
        let usual = [("/dev", "tmpfs"), ("/dev/mqueue", "mqueue"), ("/sys", "sysfs")];
        for (entries, device, alone) in [
            (&usual[..], "/dev/x", true),
            (&usual, "/dev/mqueue/x", false),
            (&[("/dev", "tmpfs"), ("/sys", "sysfs"), ("/x", "bind")], "/dev/x", true),
            (&[("/dev", "tmpfs"), ("/dev/q", "mqueue"), ("/sys", "sysfs")], "/dev/x", false),
            (&[("/dev", "tmpfs"), ("/sys", "sysfs"), ("/dev/x", "bind")], "/dev/x", false),
            (&[("/dev", "tmpfs"), ("/x", "bind")], "/dev/x", false),
            (&usual, "/opt/x", false),
        ] {
            let mounts = list(entries);
            let order: Vec<usize> = (0..mounts.len()).collect();
            let devices = node(device);
            assert_eq!(
                leaves_dev_alone(&mounts, &order, AHEAD, devices.as_ref()),
                alone,
                "{entries:?} {device}"
            );
        }
    }

    #[test]
    fn filesystems_of_files_are_known() {
        assert!(name_no_file(&list(&[
            ("/proc", "proc"),
            ("/x", "bind"),
            ("/dev/pts", "devpts"),
            ("/c", "cgroup")
        ])));
        assert!(!name_no_file(&list(&[("/proc", "proc"), ("/x", "overlay")])));
        let with = |options: &str| {
            one(&format!(r#"{{"destination":"/proc","type":"proc","options":[{options}]}}"#)).unwrap()
        };
        assert!(name_no_file(&[with(r#""nosuid","ro","hidepid=2""#)]));
        assert!(!name_no_file(&[with(r#""pidns=x""#)]));
    }

    #[test]
    fn only_plain_filesystems_overtake_sysfs() {
        let docker = list(&[
            ("/proc", "proc"),
            ("/dev", "tmpfs"),
            ("/sys", "sysfs"),
            ("/sys/fs/cgroup", "cgroup"),
            ("/dev/mqueue", "mqueue"),
            ("/dev/shm", "tmpfs"),
            ("/etc/hosts", "bind"),
            ("/dev/late", "tmpfs"),
        ]);
        assert_eq!(order(&docker, libc::CLONE_NEWNET), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(order(&docker, AHEAD), [0, 1, 5, 2, 3, 4, 6, 7]);
        assert_eq!(order(&docker, 0), [0, 1, 2, 3, 4, 5, 6, 7]);
        let below =
            list(&[("/sys", "sysfs"), ("/sys/x", "tmpfs"), ("/dev/a", "tmpfs"), ("/sys/x/y", "bind")]);
        assert_eq!(order(&below, AHEAD), [2, 0, 1, 3]);
        let old_dev = list(&[("/sys", "sysfs"), ("/dev/mqueue", "mqueue"), ("/dev/shm", "tmpfs")]);
        assert_eq!(order(&old_dev, AHEAD), [0, 1, 2]);
        let elsewhere = list(&[("/sys", "sysfs"), ("/a", "tmpfs"), ("/dev/b", "tmpfs")]);
        assert_eq!(order(&elsewhere, AHEAD), [0, 1, 2]);
    }

    #[test]
    fn refusals_name_the_field() {
        let error = |json| one(json).err().unwrap();
        assert!(error(r#"{"destination":"/../","type":"tmpfs"}"#).starts_with("/mounts/0/destination: "));
        assert!(error(r#"{"destination":"/proc/x","type":"tmpfs"}"#).contains("inside /proc"));
        assert!(
            error(r#"{"destination":"/proc/self/attr","source":"/x","options":["bind"]}"#).contains("inside")
        );
        assert!(one(r#"{"destination":"/x","source":"/y","options":["bind","size=1"]}"#).is_ok());
        assert!(error(r#"{"destination":"/x"}"#).contains("type"));
        assert!(one(r#"{"destination":"/proc/uptime","source":"/y","options":["bind"]}"#).is_ok());
    }
}
