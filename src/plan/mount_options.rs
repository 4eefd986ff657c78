//! The `options` of a mount: words of the spec → flags and changes; any other word is a parameter of the filesystem.
//!
//! No system calls. `plan/mounts.rs` makes mounts of them, `features` prints the words.

use super::c_string;
use crate::sys::mount::{MountAttr, attr};
use anyhow::Result;
use std::ffi::{CStr, CString};

/// The options of one mount.
#[derive(Debug, Default)]
pub struct Options {
    /// Attributes of the mount itself, as named.
    pub attr: MountAttr,
    /// Some word names a flag, even if only to take it back: the flags of a bind mount are then replaced as a whole.
    pub names_flags: bool,
    /// Attributes for the mount and all below it (`rro`, `rnosuid`, ..).
    pub recursive: Option<MountAttr>,
    /// Propagation changes in the order given: `MS_*` type, whole tree.
    pub propagation: Vec<(u64, bool)>,
    /// `bind` (false) or `rbind` (true).
    pub bind: Option<bool>,
    /// `remount`.
    pub remount: bool,
    /// `tmpcopyup`.
    pub copy_up: bool,
    /// `idmap` (false) or `ridmap` (true).
    pub idmap: Option<bool>,
    /// Flags of the superblock and parameters of the filesystem; flags have no value.
    pub parameters: Vec<(CString, Option<CString>)>,
}

impl Options {
    /// The access times that the words ask for, if they do: every other choice goes. As mount(2) reads its flags:
    /// strictatime wins over noatime, and relatime is what nodiratime alone goes with.
    fn access_times(words: u8) -> MountAttr {
        let choice = match words {
            0 => return MountAttr::default(),
            _ if words & STRICTATIME != 0 => attr::STRICTATIME,
            _ if words & NOATIME != 0 => attr::NOATIME,
            _ => 0,
        };
        let directories = if words & NODIRATIME != 0 { attr::NODIRATIME } else { 0 };
        MountAttr { set: choice | directories, clear: attr::ATIME | attr::NODIRATIME, ..Default::default() }
    }
}

/// Reads the list; where words contradict each other the last one counts.
pub fn read<'a>(list: impl Iterator<Item = &'a str>) -> Result<Options> {
    let mut options = Options::default();
    let mut access_times = 0;
    for option in list {
        let word = word(option);
        options.names_flags |= matches!(
            word,
            Some(Word::Attr { .. } | Word::Atime { .. } | Word::Superblock(_) | Word::Ignored)
        );
        match word {
            Some(&Word::Attr { set, clear }) => apply(&mut options.attr, set, clear),
            Some(&Word::Atime { flag, on: true }) => access_times |= flag,
            Some(&Word::Atime { flag, on: false }) => access_times &= !flag,
            Some(&Word::Recursive { set, clear }) => {
                apply(options.recursive.get_or_insert_default(), set, clear);
            }
            Some(&Word::Superblock(flag)) => options.parameters.push((flag.to_owned(), None)),
            Some(&Word::Propagation(kind, recursive)) => options.propagation.push((kind, recursive)),
            Some(&Word::Bind(recursive)) => options.bind = Some(options.bind == Some(true) || recursive),
            Some(&Word::Idmap(recursive)) => options.idmap = Some(recursive),
            Some(Word::CopyUp) => options.copy_up = true,
            Some(Word::Ignored | Word::Default) => {}
            Some(Word::Remount) => options.remount = true,
            None => {
                for part in split(option) {
                    options.parameters.push(parameter(part)?);
                }
            }
        }
    }
    let access_times = Options::access_times(access_times);
    options.attr.set |= access_times.set;
    options.attr.clear |= access_times.clear;
    Ok(options)
}

fn word(option: &str) -> Option<&'static Word> {
    WORDS.binary_search_by_key(&option, |(key, _)| key).ok().map(|at| &WORDS[at].1)
}

fn apply(attr: &mut MountAttr, set: u64, clear: u64) {
    attr.set = attr.set & !clear | set;
    attr.clear = attr.clear & !set | clear;
}

/// One string may hold several parameters, as in mount(8): commas separate them, but for those in quotes (contexts of
/// SELinux) and behind a backslash (directories of overlay).
fn split(option: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    option
        .split(move |c: char| {
            let separates = c == ',' && !quoted && !escaped;
            quoted ^= c == '"';
            escaped = c == '\\' && !escaped;
            separates
        })
        // A value without a name: mount(2) passes over it (vfs_parse_monolithic_sep), fsconfig(2) would refuse it.
        .filter(|part| !part.is_empty() && !part.starts_with('='))
}

fn parameter(option: &str) -> Result<(CString, Option<CString>)> {
    Ok(match option.split_once('=') {
        Some((key, value)) => {
            let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            (c_string(key, "options")?, Some(c_string(bare, "options")?))
        }
        None => (c_string(option, "options")?, None),
    })
}

/// `MS_*` flags of a propagation word.
pub fn propagation(name: &str) -> Option<u64> {
    match word(name) {
        Some(&Word::Propagation(kind, recursive)) => Some(kind | if recursive { libc::MS_REC } else { 0 }),
        _ => None,
    }
}

/// The words for access times as bits: the kernel of mount(2) takes them so, and their order does not count.
const NOATIME: u8 = 1;
const RELATIME: u8 = 2;
const STRICTATIME: u8 = 4;
const NODIRATIME: u8 = 8;

/// What one option word does.
enum Word {
    /// Set and clear mount attributes.
    Attr { set: u64, clear: u64 },
    /// Name a way to keep access times, or take such a word back.
    Atime { flag: u8, on: bool },
    /// Set and clear mount attributes of the whole tree.
    Recursive { set: u64, clear: u64 },
    /// A superblock flag in fsconfig's spelling.
    Superblock(&'static CStr),
    /// Propagation type, whole tree.
    Propagation(u64, bool),
    /// bind: whole tree.
    Bind(bool),
    /// Idmapped: whole tree.
    Idmap(bool),
    /// Copy the destination's content into a tmpfs.
    CopyUp,
    /// A flag with nothing to do on current kernels.
    Ignored,
    /// `defaults`: no flag at all.
    Default,
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
    &[
        ("async", Superblock(c"async")),
        ("atime", Atime { flag: NOATIME, on: false }),
        ("bind", Bind(false)),
        ("defaults", Default),
        ("dev", clear(attr::NODEV)),
        ("diratime", Atime { flag: NODIRATIME, on: false }),
        ("dirsync", Superblock(c"dirsync")),
        ("exec", clear(attr::NOEXEC)),
        ("idmap", Idmap(false)),
        ("iversion", Ignored),
        ("lazytime", Superblock(c"lazytime")),
        ("loud", Ignored),
        ("mand", Superblock(c"mand")),
        ("noatime", Atime { flag: NOATIME, on: true }),
        ("nodev", set(attr::NODEV)),
        ("nodiratime", Atime { flag: NODIRATIME, on: true }),
        ("noexec", set(attr::NOEXEC)),
        ("noiversion", Ignored),
        ("nolazytime", Superblock(c"nolazytime")),
        ("nomand", Superblock(c"nomand")),
        ("norelatime", Atime { flag: RELATIME, on: false }),
        ("nostrictatime", Atime { flag: STRICTATIME, on: false }),
        ("nosuid", set(attr::NOSUID)),
        ("nosymfollow", set(attr::NOSYMFOLLOW)),
        ("private", Propagation(libc::MS_PRIVATE, false)),
        ("ratime", Recursive { set: 0, clear: attr::ATIME }),
        ("rbind", Bind(true)),
        ("rdev", Recursive { set: 0, clear: attr::NODEV }),
        ("rdiratime", Recursive { set: 0, clear: attr::NODIRATIME }),
        ("relatime", Atime { flag: RELATIME, on: true }),
        ("remount", Remount),
        ("rexec", Recursive { set: 0, clear: attr::NOEXEC }),
        ("ridmap", Idmap(true)),
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
        ("silent", Ignored),
        ("slave", Propagation(libc::MS_SLAVE, false)),
        ("strictatime", Atime { flag: STRICTATIME, on: true }),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Options {
        read(list.iter().copied()).unwrap()
    }

    #[test]
    fn words_are_sorted() {
        assert!(WORDS.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn recursive_access_time_clears_the_whole_choice() {
        for (word, set) in [
            ("rnoatime", attr::NOATIME),
            ("rrelatime", 0),
            ("rstrictatime", attr::STRICTATIME),
            ("ratime", 0),
            ("rnostrictatime", 0),
        ] {
            let r = options(&[word, "rro"]).recursive.unwrap();
            assert_eq!((r.set, r.clear), (set | attr::RDONLY, attr::ATIME), "{word}");
        }
    }

    #[test]
    fn the_last_word_counts() {
        assert_eq!(options(&["ro", "rw"]).attr.set, 0);
        assert_eq!(options(&["rro", "rrw"]).recursive.unwrap().set, 0);
        assert_eq!(options(&["bind", "rbind"]).bind, Some(true));
        assert_eq!(options(&["rbind", "bind"]).bind, Some(true), "the flags add up");
    }

    /// As runc's mount(2): a word that takes back what nobody has named leaves the source's access times alone.
    #[test]
    fn access_times() {
        for (words, set, clear) in [
            (&["noatime"][..], attr::NOATIME, attr::ATIME | attr::NODIRATIME),
            (&["relatime"], 0, attr::ATIME | attr::NODIRATIME),
            (&["nodiratime"], attr::NODIRATIME, attr::ATIME | attr::NODIRATIME),
            (
                &["nodiratime", "strictatime"],
                attr::NODIRATIME | attr::STRICTATIME,
                attr::ATIME | attr::NODIRATIME,
            ),
            (&["noatime", "strictatime"], attr::STRICTATIME, attr::ATIME | attr::NODIRATIME),
            (&["noatime", "norelatime"], attr::NOATIME, attr::ATIME | attr::NODIRATIME),
            (&["noatime", "atime"], 0, 0),
            (&["atime"], 0, 0),
            (&["diratime"], 0, 0),
        ] {
            let options = options(words);
            assert_eq!((options.attr.set, options.attr.clear), (set, clear), "{words:?}");
            assert!(options.names_flags);
        }
        assert!(!options(&["bind", "rprivate", "rro", "defaults"]).names_flags);
    }

    #[test]
    fn other_words_are_parameters() {
        let list =
            options(&["size=1k,mode=755", "", "=x,=", "context=\"a:b:c1,c2\"", "lowerdir=/a\\,b:/c", "huge"]);
        let text = |(key, value): &(CString, Option<CString>)| {
            let value = value.as_ref().map_or("-".into(), |value| value.to_string_lossy());
            format!("{} {value}", key.to_string_lossy())
        };
        let list: Vec<String> = list.parameters.iter().map(text).collect();
        assert_eq!(list, ["size 1k", "mode 755", "context a:b:c1,c2", "lowerdir /a\\,b:/c", "huge -"]);
        assert!(read(["a\0b"].into_iter()).is_err());
    }

    #[test]
    fn propagation_words() {
        assert_eq!(propagation("rslave"), Some(libc::MS_SLAVE | libc::MS_REC));
        assert_eq!((propagation("unbindable"), propagation("ro")), (Some(libc::MS_UNBINDABLE), None));
    }
}
