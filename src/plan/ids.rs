//! `uidMappings` and `gidMappings`, of a user namespace or of one mount → [`Maps`], checked by the kernel's rules
//! (user_namespaces(7)), so that a wrong one is refused before anything is made.
//!
//! No system calls here; who writes maps is `idmap.rs`.

use super::namespaces::Namespaces;
use anyhow::{Result, bail};
use oci_spec::runtime::{Linux, LinuxIdMapping, Process};

/// Lines that a map may have (Linux 4.15).
const LINES_MAX: usize = 340;

/// One line of a map: `count` ids from `inside` on are those from `outside` on in the parent user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// First id in the user namespace (`containerID`).
    pub inside: u32,
    /// First id in its parent (`hostID`).
    pub outside: u32,
    /// Number of ids, at least 1 (`size`).
    pub count: u32,
}

/// Both maps of a user namespace; empty where none is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    /// `uidMappings`.
    pub uids: Vec<Range>,
    /// `gidMappings`.
    pub gids: Vec<Range>,
}

impl Maps {
    /// Checks both lists; `pointer` is the object that holds them, for example `/linux` or `/mounts/3`.
    pub fn compile(
        uids: Option<&Vec<LinuxIdMapping>>,
        gids: Option<&Vec<LinuxIdMapping>>,
        pointer: &str,
    ) -> Result<Maps> {
        let list = |list: Option<&Vec<LinuxIdMapping>>, field: &str| match list {
            Some(list) if !list.is_empty() => ranges(list, &format!("{pointer}/{field}")),
            _ => Ok(Vec::new()),
        };
        Ok(Maps { uids: list(uids, "uidMappings")?, gids: list(gids, "gidMappings")? })
    }

    /// The maps of the container's user namespace. A joined one has maps already, which are known only to who looks:
    /// then these are what the configuration says about them.
    pub fn of_container(linux: &Linux, namespaces: &Namespaces) -> Result<Maps> {
        let maps = Maps::compile(linux.uid_mappings().as_ref(), linux.gid_mappings().as_ref(), "/linux")?;
        if !namespaces.private(libc::CLONE_NEWUSER) {
            if !maps.is_empty() {
                let field = if maps.uids.is_empty() { "gidMappings" } else { "uidMappings" };
                bail!(
                    "/linux/{field}: user namespace mappings specified, but user namespace isn't enabled in the config"
                );
            }
        } else if namespaces.makes(libc::CLONE_NEWUSER) && maps.is_empty() {
            bail!(
                "/linux/uidMappings: user namespaces enabled, but no namespace path to join nor mappings to apply \
                 specified"
            );
        }
        Ok(maps)
    }

    /// The container's root must be mapped, because it does the init stage's work, and so must be the program's user.
    pub fn check_users(&self, process: &Process) -> Result<()> {
        let user = process.user();
        for (list, map, kind, id) in
            [(&self.uids, "uidMappings", "uid", user.uid()), (&self.gids, "gidMappings", "gid", user.gid())]
        {
            if list.is_empty() {
                bail!("/linux/{map}: user namespaces enabled, but no {kind} mappings found");
            }
            if outside(list, 0).is_none() {
                bail!("/linux/{map}: user namespaces enabled, but no mapping found for {kind} 0");
            }
            if outside(list, id).is_none() {
                bail!(
                    "/process/user/{kind}: cannot set{kind} to unmapped {kind} {id} in user namespace (/linux/{map})"
                );
            }
        }
        Ok(())
    }

    /// Neither map has a line.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// Do both mean the same, whatever the order of their lines?
    pub fn same_as(&self, other: &Maps) -> bool {
        let sorted = |list: &[Range]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list
        };
        sorted(&self.uids) == sorted(&other.uids) && sorted(&self.gids) == sorted(&other.gids)
    }
}

fn ranges(list: &[LinuxIdMapping], pointer: &str) -> Result<Vec<Range>> {
    if list.len() > LINES_MAX {
        bail!("{pointer}: {} lines are more than {LINES_MAX}", list.len());
    }
    let mut result: Vec<Range> = Vec::with_capacity(list.len());
    for (index, map) in list.iter().enumerate() {
        let range = Range { inside: map.container_id(), outside: map.host_id(), count: map.size() };
        if range.count == 0 {
            bail!("{pointer}/{index}/size: 0 maps nothing");
        }
        for (first, field) in [(range.inside, "containerID"), (range.outside, "hostID")] {
            // The last id of all means "no id".
            if first.checked_add(range.count).is_none() {
                bail!("{pointer}/{index}/{field}: {first} and size {} go beyond the last id", range.count);
            }
        }
        for (other, earlier) in result.iter().enumerate() {
            let meet = |a: u32, b: u32| a < b + earlier.count && b < a + range.count;
            for (clash, field) in [
                (meet(range.inside, earlier.inside), "containerID"),
                (meet(range.outside, earlier.outside), "hostID"),
            ] {
                if clash {
                    bail!("{pointer}/{index}/{field}: maps ids that {pointer}/{other} maps already");
                }
            }
        }
        result.push(range);
    }
    Ok(result)
}

/// The id outside that `id` stands for; none where it is not mapped.
pub fn outside(list: &[Range], id: u32) -> Option<u32> {
    list.iter().find_map(|range| {
        let offset = id.checked_sub(range.inside).filter(|&offset| offset < range.count)?;
        Some(range.outside + offset)
    })
}

/// The text of `/proc/PID/uid_map` or `gid_map`.
pub fn text(list: &[Range]) -> String {
    list.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count)).collect()
}

/// Reads such a text back, as the kernel prints it.
pub fn parse(text: &str) -> Option<Vec<Range>> {
    text.lines()
        .map(|line| {
            let mut words = line.split_whitespace().map(str::parse);
            let mut word = || words.next()?.ok();
            Some(Range { inside: word()?, outside: word()?, count: word()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(uids: &str) -> Result<Maps, String> {
        let list: Vec<LinuxIdMapping> = serde_json::from_str(uids).unwrap();
        Maps::compile(Some(&list), None, "/linux").map_err(|error| error.to_string())
    }

    #[test]
    fn ids_are_translated() {
        let maps = maps(
            r#"[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":100000,"size":65535}]"#,
        )
        .unwrap();
        for (id, expected) in [(0, Some(1000)), (1, Some(100_000)), (65_535, Some(165_534)), (65_536, None)] {
            assert_eq!(outside(&maps.uids, id), expected, "{id}");
        }
        assert_eq!(text(&maps.uids), "0 1000 1\n1 100000 65535\n");
        assert_eq!(parse("         0       1000          1\n 1 100000 65535\n"), Some(maps.uids.clone()));
        assert_eq!(parse("0 x 1\n"), None);
        let other = Maps { uids: maps.uids.iter().rev().copied().collect(), gids: vec![] };
        assert!(maps.same_as(&other) && !maps.same_as(&Maps::default()) && !maps.is_empty());
    }

    #[test]
    fn wrong_maps_name_the_field() {
        for (json, expected) in [
            (r#"[{"containerID":0,"hostID":0,"size":0}]"#, "/linux/uidMappings/0/size: "),
            (r#"[{"containerID":4294967295,"hostID":0,"size":1}]"#, "/linux/uidMappings/0/containerID: "),
            (r#"[{"containerID":0,"hostID":1,"size":4294967295}]"#, "/linux/uidMappings/0/hostID: "),
            (
                r#"[{"containerID":0,"hostID":0,"size":5},{"containerID":4,"hostID":9,"size":1}]"#,
                "/linux/uidMappings/1/containerID: ",
            ),
            (
                r#"[{"containerID":0,"hostID":8,"size":5},{"containerID":9,"hostID":7,"size":2}]"#,
                "/linux/uidMappings/1/hostID: ",
            ),
        ] {
            let error = maps(json).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(maps(r#"[{"containerID":0,"hostID":0,"size":4294967295}]"#).is_ok());
    }
}
