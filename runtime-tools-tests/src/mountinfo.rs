//! Lines of /proc/self/mountinfo as a container sees them. Called by the tests of mounts.

use crate::bundle::Bundle;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

/// One line of mountinfo.
#[derive(Debug)]
pub struct Mount {
    pub target: String,
    pub options: BTreeSet<String>,
    pub tags: String,
    pub kind: String,
    pub super_options: BTreeSet<String>,
    pub root: String,
}

pub fn parse(v: &Value) -> Vec<Mount> {
    let lines = v["mountinfo"].as_array().cloned().unwrap_or_default();
    let set = |s: &str| s.split(',').map(String::from).collect();
    lines
        .iter()
        .filter_map(|l| {
            let (left, right) = l.as_str()?.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            Some(Mount {
                root: left.get(3)?.to_string(),
                target: left.get(4)?.to_string(),
                options: set(left.get(5)?),
                tags: left.get(6..).map(|t| t.join(" ")).unwrap_or_default(),
                kind: right.first()?.to_string(),
                super_options: set(right.get(2)?),
            })
        })
        .collect()
}

pub fn mounts_of(b: &mut Bundle) -> Result<Vec<Mount>> {
    Ok(parse(&b.inside()?))
}

/// The topmost mount at a place.
pub fn at<'m>(all: &'m [Mount], target: &str) -> Result<&'m Mount> {
    all.iter().rfind(|m| m.target == target).with_context(|| format!("no mount at {target}"))
}

pub fn has(m: &Mount, yes: &[&str], no: &[&str]) -> Result<()> {
    for o in yes {
        ensure!(m.options.contains(*o), "{}: no {o} in {:?}", m.target, m.options);
    }
    for o in no {
        ensure!(!m.options.contains(*o), "{}: {o} in {:?}", m.target, m.options);
    }
    Ok(())
}
