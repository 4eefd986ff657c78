//! Options of mounts: lists of words against a plain reading of mount(8), and whole entries of `/mounts`.

use crate::input::Input;
use crate::plan::mount_options;
use crate::plan::mounts::{self, Kind};
use crate::plan::namespaces::Namespaces;
use crate::sys::mount::attr;
use serde_json::json;
use std::path::Path;

/// Pairs of words that take each other back, with the flag of the first.
const PAIRS: [(&str, &str, u64); 5] = [
    ("ro", "rw", attr::RDONLY),
    ("nosuid", "suid", attr::NOSUID),
    ("nodev", "dev", attr::NODEV),
    ("noexec", "exec", attr::NOEXEC),
    ("nosymfollow", "symfollow", attr::NOSYMFOLLOW),
];

const DESTINATIONS: [&str; 12] = [
    "/a",
    "/",
    "/dev",
    "/dev/pts",
    "/proc",
    "/proc/stat",
    "/proc/self",
    "/sys",
    "a/../..",
    "/bundle/rootfs/x",
    "..",
    "/a/./b",
];
const TYPES: [&str; 9] = ["", "tmpfs", "proc", "sysfs", "cgroup", "cgroup2", "bind", "mqueue", "overlay"];

pub fn run(data: &[u8]) {
    let names: Vec<&str> = mount_options::option_names().collect();
    let mut input = Input(data);
    let mut entries = Vec::new();
    while !input.is_empty() && entries.len() < 16 {
        let words: Vec<String> = (0..input.below(24)).map(|_| input.text(&names)).collect();
        check_words(&words);
        let mut entry = json!({
            "destination": input.text(&DESTINATIONS), "type": input.text(&TYPES), "source": input.text(&DESTINATIONS),
            "options": words,
        });
        if input.one_in(8) {
            let map = json!([{"containerID": input.number() as u32, "hostID": input.number() as u32, "size": input.number() as u32}]);
            entry["uidMappings"] = map.clone();
            entry["gidMappings"] = map;
        }
        entries.push(entry);
    }
    let list: Vec<oci_spec::runtime::Mount> = serde_json::from_value(entries.into()).expect("mounts");
    let namespaces = Namespaces { new: libc::CLONE_NEWNET | libc::CLONE_NEWNS, ..Namespaces::default() };
    match mounts::compile(&list, Path::new("/bundle"), Path::new("/bundle/rootfs"), &namespaces) {
        Ok(mut all) => {
            mounts::set_label(&mut all, "system_u:object_r:a_t:s0:c1,c2", None).expect("a label");
            check_mounts(&all);
        }
        Err(error) => super::names_field(&error),
    }
}

fn check_words(words: &[String]) {
    let Ok(options) = mount_options::read(words.iter().map(String::as_str)) else {
        assert!(words.iter().any(|word| word.contains('\0')), "refused without a reason: {words:?}");
        return;
    };
    for (set, clear, flag) in PAIRS {
        let last = words.iter().rfind(|word| [set, clear].contains(&word.as_str()));
        let expected = (last.is_some_and(|word| word == set), last.is_some_and(|word| word == clear));
        let got = (options.attr.set & flag != 0, options.attr.clear & flag != 0);
        assert_eq!(got, expected, "{set} in {words:?}");
        let last = words.iter().rfind(|word| {
            word.strip_prefix('r').is_some_and(|word| [set, clear].contains(&word)) && word.as_str() != "ro"
        });
        let recursive = options.recursive.unwrap_or_default();
        let expected = last.map(|word| &word[1..] == set);
        assert_eq!(recursive.set & flag != 0, expected == Some(true), "r{set} in {words:?}");
        assert_eq!(recursive.clear & flag != 0, expected == Some(false), "r{clear} in {words:?}");
    }
    assert_eq!(options.bind.is_some(), words.iter().any(|word| word == "bind" || word == "rbind"));
    assert_eq!(options.bind == Some(true), words.iter().any(|word| word == "rbind"));
    assert_eq!(options.remount, words.iter().any(|word| word == "remount"));
    // mount_setattr(2) wants one choice of access time, and the whole mask cleared for it.
    for attributes in std::iter::once(&options.attr).chain(&options.recursive) {
        let choice = attributes.set & attr::ATIME;
        assert!([0, attr::NOATIME, attr::STRICTATIME].contains(&choice), "{words:?}");
        assert!(choice == 0 || attributes.clear & attr::ATIME == attr::ATIME, "{words:?}");
    }
    for (key, _) in &options.parameters {
        assert!(!key.is_empty(), "a parameter without a name: {words:?}");
    }
}

fn check_mounts(all: &[mounts::Mount]) {
    for ahead in [0, libc::CLONE_NEWNET, libc::CLONE_NEWNET | libc::CLONE_NEWIPC] {
        let order = mounts::order(all, ahead);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..all.len()), "each mount once");
        // What stands below another mount still comes after it.
        for (at, &later) in order.iter().enumerate() {
            for &earlier in &order[at + 1..] {
                let (early, late) = (&all[earlier], &all[later]);
                let below = |a: &mounts::Mount, b: &mounts::Mount| {
                    Path::new(a.destination.to_str().expect("text"))
                        .starts_with(b.destination.to_str().expect("text"))
                };
                assert!(
                    earlier > later || !(below(early, late) || below(late, early)),
                    "{earlier} and {later} exchanged"
                );
            }
        }
        mounts::leaves_dev_alone(all, &order, ahead, None);
        mounts::leaves_proc_alone(all, &order, ahead);
    }
    for mount in all {
        if let Kind::Bind(bind) = &mount.kind {
            assert!(bind.source.to_bytes().starts_with(b"/"));
        }
    }
}
