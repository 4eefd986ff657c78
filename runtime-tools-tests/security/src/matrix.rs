//! Reads `matrix.json` and runs a case: its variants, the suite's tests that belong to it, its function.

use crate::cx::{Cx, Skip};
use crate::leaks::{Snapshot, difference};
use crate::{canary, cases, tests, variant};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::Path;

/// One line of the matrix.
pub struct Case {
    /// `T1` to `T70`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The design rules it checks.
    pub rules: String,
    /// What it happened to.
    pub advisories: String,
    /// Needs many attempts.
    pub race: bool,
    /// Needs minutes.
    pub slow: bool,
    variants: Vec<Value>,
    suite: Vec<String>,
    code: Option<String>,
}

/// How a case ended, if it did not fail.
pub enum Ended {
    /// All parts held; what there is to say.
    Pass(String),
    /// No part could run.
    Skip(String),
}

/// The whole matrix.
pub fn load() -> Result<Vec<Case>> {
    let file: Value = serde_json::from_str(include_str!("../matrix.json")).context("matrix.json")?;
    let cases = file["cases"].as_array().context("matrix.json: cases")?;
    cases
        .iter()
        .map(|v| {
            let text = |key: &str| v[key].as_str().unwrap_or_default().to_string();
            let list = |key: &str| v[key].as_array().cloned().unwrap_or_default();
            Ok(Case {
                id: text("id"),
                name: text("name"),
                rules: text("rules"),
                advisories: text("advisories"),
                race: v["race"] == true,
                slow: v["slow"] == true,
                variants: list("variants"),
                suite: list("suite").iter().filter_map(|s| s.as_str().map(String::from)).collect(),
                code: v["code"].as_str().map(String::from),
            })
        })
        .collect()
}

/// Runs every part of a case; each must leave nothing behind.
pub fn run(cx: &Cx, case: &Case, attempts: u32) -> Result<Ended> {
    let before = (cx.snapshot()?, canary::settings());
    let mut tally = Tally::default();
    for v in &case.variants {
        let name = v["as"].as_str().unwrap_or("variant").to_string();
        tally.add(&name, settled(cx, &before, variant::run(cx, v)).map(|()| None));
    }
    for wanted in &case.suite {
        let matching: Vec<_> =
            tests::all().into_iter().filter(|t| t.name.starts_with(wanted.as_str())).collect();
        ensure!(!matching.is_empty(), "the suite has no test {wanted}");
        for test in matching {
            tally.add(
                test.name,
                settled(cx, &before, apart(cx, &cx.runtime).and_then(|cx| (test.run)(&cx))).map(|()| None),
            );
        }
    }
    if let Some(name) = &case.code {
        tally.add(name, settled(cx, &before, cases::run(name, cx, attempts)).map(Some));
    }
    tally.end()
}

/// The same surroundings with another runtime and a directory of its own.
pub fn apart(cx: &Cx, runtime: &Path) -> Result<Cx> {
    let dir = cx.path(&format!("with.{}", cx.next()));
    std::fs::create_dir(&dir)?;
    let root = cx.root.clone();
    Ok(Cx {
        dir,
        root,
        runtime: runtime.to_path_buf(),
        kind: cx.kind.clone(),
        reference: None,
        view: cx.view,
        cgroup: cx.cgroup.clone(),
        mark: cx.mark.clone(),
        probe: cx.probe.clone(),
        configs: cx.configs.clone(),
        count: std::cell::Cell::new(cx.next() * 10_000),
    })
}

/// The result, or a failure when something was left.
fn settled<T>(cx: &Cx, before: &(Snapshot, Vec<String>), result: Result<T>) -> Result<T> {
    let kept = canary::unchanged(&before.1);
    let value = result?;
    kept?;
    let before = &before.0;
    let left = difference(before, &cx.snapshot()?);
    ensure!(left.is_empty(), "left behind: {}", left.join("; "));
    Ok(value)
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    notes: Vec<String>,
}

impl Tally {
    fn add(&mut self, name: &str, result: Result<Option<String>>) {
        match result {
            Ok(note) => {
                self.passed += 1;
                self.notes.extend(note.filter(|text| !text.is_empty()));
            }
            Err(e) => match e.downcast_ref::<Skip>() {
                Some(skip) => self.skipped.push(skip.0.clone()),
                None => self.failed.push(format!("{name}: {e:#}")),
            },
        }
    }

    fn end(self) -> Result<Ended> {
        let all = self.passed + self.failed.len() + self.skipped.len();
        if !self.failed.is_empty() {
            bail!("{} of {all}: {}", self.failed.len(), self.failed.join("; "));
        }
        if self.passed == 0 {
            return Ok(Ended::Skip(self.skipped.join("; ")));
        }
        let mut words = self.notes;
        if all > 1 {
            words.insert(0, format!("{} of {all}", self.passed));
        }
        if !self.skipped.is_empty() {
            words.push(format!("not here: {}", self.skipped.join("; ")));
        }
        Ok(Ended::Pass(words.join(", ")))
    }
}
