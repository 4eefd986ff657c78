//! docs/spec.md against the suite: each field has a row, each row is full, each test that it names exists.

use super::{Test, all, wrong_values};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../docs/spec.md");

/// The words of the specification's table "Linux mount options" (config.md).
const MOUNT_OPTIONS: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
    nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev \
    rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro \
    rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime \
    suid symfollow sync tmpcopyup unbindable idmap ridmap";

/// The cells of every row of every table, without the headings.
fn rows() -> Vec<Vec<&'static str>> {
    let cells =
        |line: &'static str| line.trim().trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let rows = DOCUMENT.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    rows.map(cells).filter(|cells| cells[0] != "field").collect()
}

fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Is this word in the document, with nothing of a word around it?
fn says(word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    DOCUMENT
        .match_indices(word)
        .any(|(at, _)| !DOCUMENT[..at].ends_with(part) && !DOCUMENT[at + word.len()..].starts_with(part))
}

fn leaves<'a>(value: &'a Value, pointer: &str, out: &mut Vec<(String, &'a str)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let pointer = format!("{pointer}/{key}");
                // Names that the user chooses are no fields.
                if !["annotations", "sysctl", "netDevices", "rdma", "unified"]
                    .iter()
                    .any(|map| pointer.ends_with(&format!("/{map}/{key}")))
                {
                    out.push((pointer.clone(), key));
                }
                leaves(value, &pointer, out);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| leaves(value, pointer, out)),
        _ => {}
    }
}

#[test]
fn every_row_is_full() {
    assert!(rows().len() > 60);
    for row in rows() {
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn every_field_and_option_is_there() {
    let everything = wrong_values::everything();
    let mut fields = vec![];
    leaves(&everything, "", &mut fields);
    assert!(fields.len() > 200, "{}", fields.len());
    let missing: Vec<_> = fields.iter().filter(|(_, name)| !says(name)).map(|(pointer, _)| pointer).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let missing: Vec<_> = MOUNT_OPTIONS.split_whitespace().filter(|word| !says(word)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_test_exists() {
    let tests: Vec<Test> = all();
    let exists = |pattern: &str| match pattern.split_once('*') {
        Some((start, end)) => tests.iter().any(|t| t.name.starts_with(start) && t.name.ends_with(end)),
        None => tests.iter().any(|t| t.name == pattern),
    };
    for row in rows() {
        let mut group = String::new();
        let mut found = 0;
        for name in quoted(row[2]) {
            // Beside the suite: files with unit tests, and the seccomp compiler's own.
            if name.ends_with(".rs") || name == "cgroup/" || name.starts_with("seccomp-differential") {
                found += 1;
                continue;
            }
            if !name.contains('/') && tests.iter().any(|t| t.name.starts_with(&format!("{name}/"))) {
                group = name.into();
                found += 1;
                continue;
            }
            let full = match name.split_once('/') {
                Some((of, _)) => {
                    group = of.into();
                    name.to_string()
                }
                None => format!("{group}/{name}"),
            };
            assert!(exists(&full), "{full}: no such test, in {row:?}");
            found += 1;
        }
        assert!(found > 0 || row[2].contains("unit"), "no test in {row:?}");
    }
}
