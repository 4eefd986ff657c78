//! `mounts` → what to mount where, with each option turned into the flags that the kernel's mount calls take.

use super::namespaces::Namespaces;
use super::{c_path, c_string};
use crate::sys::mount::{MountAttr, attr};
use anyhow::{Context, Result, bail};
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

/// What a mount shows.
pub enum Kind {
    /// A file or directory of the runtime's mount namespace.
    Bind {
        /// Absolute path.
        source: CString,
        /// With everything mounted below it.
        recursive: bool,
    },
    /// A new filesystem instance.
    Filesystem(Filesystem),
    /// A mount that is there already, with other flags.
    Remount,
    /// The container's view of its cgroups, in the form that fits the host.
    Cgroup,
}

/// A filesystem to make.
pub struct Filesystem {
    /// Type, for example `tmpfs`.
    pub fstype: CString,
    /// Source as mountinfo shows it.
    pub source: CString,
    /// Parameters: flags have no value.
    pub parameters: Vec<(CString, Option<CString>)>,
    /// Copy what the destination held into the new tmpfs (`tmpcopyup`).
    pub copy_up: bool,
}

/// What one option word does.
enum Word {
    /// Set and clear mount attributes (a change of access time clears the whole choice).
    Attr { set: u64, clear: u64 },
    /// The same for the whole tree.
    Recursive { set: u64, clear: u64 },
    /// A superblock flag in fsconfig's spelling.
    Superblock(&'static CStr),
    /// Propagation type, whole tree.
    Propagation(u64, bool),
    /// bind: whole tree.
    Bind(bool),
    /// Copy the destination's content into a tmpfs.
    CopyUp,
    /// Accepted, with nothing to do on current kernels.
    Nothing,
    /// Change an existing mount.
    Remount,
}

/// Every option word of the spec (config.md "Linux mount options"); any other word is a parameter of the filesystem.
/// `features` prints the keys.
const WORDS: &[(&str, Word)] = {
    use Word::*;
    const fn set(set: u64) -> Word {
        Attr { set, clear: 0 }
    }
    const fn clear(clear: u64) -> Word {
        Attr { set: 0, clear }
    }
    const fn atime(set: u64) -> Word {
        Attr { set, clear: attr::ATIME }
    }
    &[
        ("async", Nothing),
        ("atime", clear(attr::ATIME)),
        ("bind", Bind(false)),
        ("defaults", Nothing),
        ("dev", clear(attr::NODEV)),
        ("diratime", clear(attr::NODIRATIME)),
        ("dirsync", Superblock(c"dirsync")),
        ("exec", clear(attr::NOEXEC)),
        ("iversion", Nothing),
        ("lazytime", Superblock(c"lazytime")),
        ("loud", Nothing),
        ("mand", Nothing),
        ("noatime", atime(attr::NOATIME)),
        ("nodev", set(attr::NODEV)),
        ("nodiratime", set(attr::NODIRATIME)),
        ("noexec", set(attr::NOEXEC)),
        ("noiversion", Nothing),
        ("nolazytime", Nothing),
        ("nomand", Nothing),
        ("norelatime", clear(attr::ATIME)),
        ("nostrictatime", clear(attr::ATIME)),
        ("nosuid", set(attr::NOSUID)),
        ("nosymfollow", set(attr::NOSYMFOLLOW)),
        ("private", Propagation(libc::MS_PRIVATE, false)),
        ("ratime", Recursive { set: 0, clear: attr::ATIME }),
        ("rbind", Bind(true)),
        ("rdev", Recursive { set: 0, clear: attr::NODEV }),
        ("rdiratime", Recursive { set: 0, clear: attr::NODIRATIME }),
        ("relatime", atime(0)),
        ("remount", Remount),
        ("rexec", Recursive { set: 0, clear: attr::NOEXEC }),
        ("rnoatime", Recursive { set: attr::NOATIME, clear: attr::ATIME }),
        ("rnodev", Recursive { set: attr::NODEV, clear: 0 }),
        ("rnodiratime", Recursive { set: attr::NODIRATIME, clear: 0 }),
        ("rnoexec", Recursive { set: attr::NOEXEC, clear: 0 }),
        ("rnorelatime", Recursive { set: 0, clear: attr::ATIME }),
        ("rnostrictatime", Recursive { set: 0, clear: attr::ATIME }),
        ("rnosuid", Recursive { set: attr::NOSUID, clear: 0 }),
        ("rnosymfollow", Recursive { set: attr::NOSYMFOLLOW, clear: 0 }),
        ("ro", set(attr::RDONLY)),
        ("rprivate", Propagation(libc::MS_PRIVATE, true)),
        ("rrelatime", Recursive { set: 0, clear: attr::ATIME }),
        ("rro", Recursive { set: attr::RDONLY, clear: 0 }),
        ("rrw", Recursive { set: 0, clear: attr::RDONLY }),
        ("rshared", Propagation(libc::MS_SHARED, true)),
        ("rslave", Propagation(libc::MS_SLAVE, true)),
        ("rstrictatime", Recursive { set: attr::STRICTATIME, clear: attr::ATIME }),
        ("rsuid", Recursive { set: 0, clear: attr::NOSUID }),
        ("rsymfollow", Recursive { set: 0, clear: attr::NOSYMFOLLOW }),
        ("runbindable", Propagation(libc::MS_UNBINDABLE, true)),
        ("rw", clear(attr::RDONLY)),
        ("shared", Propagation(libc::MS_SHARED, false)),
        ("silent", Nothing),
        ("slave", Propagation(libc::MS_SLAVE, false)),
        ("strictatime", atime(attr::STRICTATIME)),
        ("suid", clear(attr::NOSUID)),
        ("symfollow", clear(attr::NOSYMFOLLOW)),
        ("sync", Superblock(c"sync")),
        ("tmpcopyup", CopyUp),
        ("unbindable", Propagation(libc::MS_UNBINDABLE, false)),
    ]
};

/// The option words that are acted on, sorted, for `features`.
pub fn option_names() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(name, _)| *name)
}

/// The attributes that a bind mount's flags replace as a whole, as a remount does.
const BIND_ATTRS: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;

/// `MS_*` flags of a propagation word.
pub fn propagation(name: &str) -> Option<u64> {
    match WORDS.binary_search_by_key(&name, |(key, _)| key).ok().map(|at| &WORDS[at].1) {
        Some(&Word::Propagation(kind, recursive)) => Some(kind | if recursive { libc::MS_REC } else { 0 }),
        _ => None,
    }
}

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
    namespaces: &Namespaces,
) -> Result<Vec<Mount>> {
    list.iter()
        .enumerate()
        .map(|(index, mount)| {
            compile_one(mount, index, bundle, namespaces).with_context(|| format!("/mounts/{index}"))
        })
        .collect()
}

/// The order of the list, but for one thing: with a new network namespace a sysfs, and what follows below it, waits
/// until the plain filesystems below `/dev` after it are mounted, where no process can tell the difference. The runtime makes that namespace meanwhile, which takes longer than
/// all of them. Bind mounts are never overtaken: their destinations may lead anywhere through links of the image.
pub fn order(mounts: &[Mount], new_network: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..mounts.len()).collect();
    let plain = |mount: &Mount| {
        let names = [&b"proc"[..], b"tmpfs", b"devpts", b"mqueue"];
        mount.destination.to_bytes().starts_with(b"/dev/")
            && matches!(&mount.kind, Kind::Filesystem(fs) if names.contains(&fs.fstype.to_bytes()))
    };
    let Some(sysfs) = mounts
        .iter()
        .position(|mount| matches!(&mount.kind, Kind::Filesystem(fs) if fs.fstype.as_c_str() == c"sysfs"))
        .filter(|_| new_network)
    else {
        return order;
    };
    let related = |a: &Mount, b: &Mount| {
        let (a, b) = (
            Path::new(OsStr::from_bytes(a.destination.to_bytes())),
            Path::new(OsStr::from_bytes(b.destination.to_bytes())),
        );
        a.starts_with(b) || b.starts_with(a)
    };
    let mut waiting = vec![sysfs];
    let mut now = Vec::new();
    let mut end = sysfs + 1;
    for (at, mount) in mounts.iter().enumerate().skip(sysfs + 1) {
        let free = waiting.iter().all(|&other| !related(mount, &mounts[other]));
        match &mount.kind {
            _ if free && plain(mount) => now.push(at),
            Kind::Cgroup | Kind::Filesystem(_) if !free => waiting.push(at),
            _ => break,
        }
        end = at + 1;
    }
    now.append(&mut waiting);
    order.splice(sysfs..end, now);
    order
}

/// Is there a sysfs, and neither it nor anything mounted after it in `order` on or below `/dev`? A link of the image that
/// leads a later mount there only covers what is in `/dev`, in either order.
pub fn leaves_dev_alone_from_sysfs(mounts: &[Mount], order: &[usize]) -> bool {
    let is_sysfs =
        |at: &usize| matches!(&mounts[*at].kind, Kind::Filesystem(fs) if fs.fstype.as_c_str() == c"sysfs");
    let Some(sysfs) = order.iter().position(is_sysfs) else { return false };
    order[sysfs..].iter().all(|&at| {
        let destination = Path::new(OsStr::from_bytes(mounts[at].destination.to_bytes()));
        !destination.starts_with("/dev")
            && matches!(&mounts[at].kind, Kind::Cgroup | Kind::Filesystem(_) | Kind::Bind { .. })
    })
}

fn compile_one(
    mount: &oci_spec::runtime::Mount,
    index: usize,
    bundle: &Path,
    namespaces: &Namespaces,
) -> Result<Mount> {
    let destination = clean(mount.destination());
    if destination == Path::new("/") {
        bail!("destination: {:?} is the root of the container", mount.destination());
    }
    if !mount.uid_mappings().as_deref().unwrap_or_default().is_empty()
        || !mount.gid_mappings().as_deref().unwrap_or_default().is_empty()
    {
        bail!("uidMappings: idmapped mounts are not supported yet");
    }
    let mut result = Mount {
        destination: c_path(&destination, "destination")?,
        index,
        kind: Kind::Cgroup,
        attr: MountAttr::default(),
        recursive: None,
        propagation: Vec::new(),
        readonly_last: false,
    };
    let mut parameters = Vec::new();
    let mut bind = None;
    let mut copy_up = false;
    let mut remount = false;
    for option in mount.options().iter().flatten() {
        let word = WORDS.binary_search_by_key(&option.as_str(), |(key, _)| key).ok().map(|at| &WORDS[at].1);
        match word {
            Some(&Word::Attr { set, clear }) => apply(&mut result.attr, set, clear),
            Some(&Word::Recursive { set, clear }) => {
                apply(result.recursive.get_or_insert_default(), set, clear);
            }
            Some(&Word::Superblock(flag)) => parameters.push((flag.to_owned(), None)),
            Some(&Word::Propagation(kind, recursive)) => result.propagation.push((kind, recursive)),
            Some(&Word::Bind(recursive)) => bind = Some(recursive),
            Some(Word::CopyUp) => copy_up = true,
            Some(Word::Nothing) => {}
            Some(Word::Remount) => remount = true,
            None if option == "idmap" || option == "ridmap" => {
                bail!("options: {option} is not supported yet")
            }
            None if option.is_empty() => {}
            None => parameters.push(parameter(option)?),
        }
    }
    if remount {
        result.attr.clear |= BIND_ATTRS & !result.attr.set;
        result.kind = Kind::Remount;
        return Ok(result);
    }
    let fstype = mount.typ().as_deref().unwrap_or_default();
    let source = mount.source().clone().unwrap_or_default();
    let below_proc = destination.strip_prefix("/proc").ok();
    if let Some(recursive) = bind {
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
        // A remount replaces all flags; so does a bind mount here as soon as an option names one.
        if result.attr.set != 0 || result.attr.clear != 0 {
            result.attr.clear |= BIND_ATTRS & !result.attr.set;
        }
        result.kind = Kind::Bind { source: c_path(&bundle.join(source), "source")?, recursive };
        return Ok(result);
    }
    if below_proc.is_some_and(|rest| rest != Path::new("") || fstype != "proc") {
        bail!("destination: {} cannot be mounted because it is inside /proc", destination.display());
    }
    if fstype == "cgroup" || fstype == "cgroup2" {
        return Ok(result);
    }
    if fstype.is_empty() {
        bail!("type: a mount that is not a bind mount needs one");
    }
    if copy_up && fstype != "tmpfs" {
        bail!("options: tmpcopyup is for tmpfs, not {fstype}");
    }
    if fstype == "sysfs" && !namespaces.private(libc::CLONE_NEWNET) {
        // Allowed for a runtime with privilege in the first user namespace; the kernel refuses it elsewhere.
    }
    let fstype = c_string(fstype, "type")?;
    // Later steps put mount points and device nodes in a tmpfs, so it turns read-only at the end.
    result.readonly_last = fstype.as_c_str() == c"tmpfs" && result.attr.set & attr::RDONLY != 0;
    if result.attr.set & attr::RDONLY != 0 && !result.readonly_last {
        parameters.push((c"ro".into(), None));
    }
    if result.readonly_last {
        result.attr.set &= !attr::RDONLY;
    }
    let source = if source.as_os_str().is_empty() { fstype.clone() } else { c_path(&source, "source")? };
    result.kind = Kind::Filesystem(Filesystem { fstype, source, parameters, copy_up });
    Ok(result)
}

fn apply(attr: &mut MountAttr, set: u64, clear: u64) {
    attr.set = attr.set & !clear | set;
    attr.clear = attr.clear & !set | clear;
}

fn parameter(option: &str) -> Result<(CString, Option<CString>)> {
    Ok(match option.split_once('=') {
        Some((key, value)) => (c_string(key, "options")?, Some(c_string(value, "options")?)),
        None => (c_string(option, "options")?, None),
    })
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
        compile(&[mount], Path::new("/bundle"), &Namespaces::default())
            .map(|mut list| list.remove(0))
            .map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn words_are_sorted() {
        assert!(WORDS.is_sorted_by_key(|(name, _)| *name));
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
        let Kind::Bind { source, recursive } = m.kind else { panic!() };
        assert!(recursive && source.as_c_str() == c"/bundle/binds/x");
        let plain = one(r#"{"destination":"/x","source":"/y","options":["bind"]}"#).unwrap();
        assert_eq!((plain.attr.set, plain.attr.clear), (0, 0));
        let last_wins = one(r#"{"destination":"/x","source":"/y","options":["bind","ro","rw"]}"#).unwrap();
        assert_eq!(last_wins.attr.set, 0);
    }

    #[test]
    fn recursive_access_time_clears_the_whole_choice() {
        let m = one(r#"{"destination":"/x","source":"/y","options":["rbind","rnoatime","rro"]}"#).unwrap();
        let r = m.recursive.unwrap();
        assert_eq!((r.set, r.clear), (attr::NOATIME | attr::RDONLY, attr::ATIME));
    }

    #[test]
    fn only_plain_filesystems_overtake_sysfs() {
        let list = |entries: &[(&str, &str)]| {
            let json: Vec<String> = entries
                .iter()
                .map(|(destination, kind)| match *kind {
                    "bind" => {
                        format!(r#"{{"destination":"{destination}","source":"/x","options":["bind"]}}"#)
                    }
                    _ => format!(r#"{{"destination":"{destination}","type":"{kind}","source":"x"}}"#),
                })
                .collect();
            let mounts: Vec<oci_spec::runtime::Mount> =
                serde_json::from_str(&format!("[{}]", json.join(","))).unwrap();
            compile(&mounts, Path::new("/"), &Namespaces::default()).unwrap()
        };
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
        assert_eq!(order(&docker, true), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(order(&docker, false), [0, 1, 2, 3, 4, 5, 6, 7]);
        let below =
            list(&[("/sys", "sysfs"), ("/sys/x", "tmpfs"), ("/dev/a", "tmpfs"), ("/sys/x/y", "bind")]);
        assert_eq!(order(&below, true), [2, 0, 1, 3]);
        let elsewhere = list(&[("/sys", "sysfs"), ("/a", "tmpfs"), ("/dev/b", "tmpfs")]);
        assert_eq!(order(&elsewhere, true), [0, 1, 2]);
    }

    #[test]
    fn refusals_name_the_field() {
        let error = |json| one(json).err().unwrap();
        assert!(error(r#"{"destination":"/../","type":"tmpfs"}"#).starts_with("/mounts/0: destination"));
        assert!(error(r#"{"destination":"/proc/x","type":"tmpfs"}"#).contains("inside /proc"));
        assert!(
            error(r#"{"destination":"/proc/self/attr","source":"/x","options":["bind"]}"#).contains("inside")
        );
        assert!(one(r#"{"destination":"/x","source":"/y","options":["bind","size=1"]}"#).is_ok());
        assert!(error(r#"{"destination":"/x"}"#).contains("type"));
        assert!(one(r#"{"destination":"/proc/uptime","source":"/y","options":["bind"]}"#).is_ok());
    }
}
