//! `state`: prints one container as JSON (runtime.md "State").

use crate::cli::Global;
use crate::exit::ExitCode;
use crate::state::{Dir, State, Status, Store};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;

/// The state as `state` and `list` print it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    oci_version: &'static str,
    /// Container id.
    pub id: &'a str,
    /// Init process in the caller's pid namespace, 0 if it has ended.
    pub pid: i32,
    /// Status word.
    pub status: &'static str,
    /// Absolute path of the bundle.
    pub bundle: String,
    rootfs: String,
    /// RFC 3339.
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
    /// User name; only `list` fills it.
    pub owner: String,
}

/// The status, and the pid of the init process if it lives.
pub fn now(state: &State, dir: &Dir) -> Result<(Status, i32)> {
    let (status, init) = state.status(dir)?;
    Ok((status, if init.is_some() { state.pid } else { 0 }))
}

/// Derives what is shown from what is stored and what [`now`] said.
pub fn shown(state: &State, (status, pid): (Status, i32)) -> Shown<'_> {
    Shown {
        oci_version: super::version::SPEC,
        id: &state.id,
        pid,
        status: status.word(),
        bundle: state.bundle.to_string_lossy().into_owned(),
        rootfs: state.rootfs.to_string_lossy().into_owned(),
        created: &state.created,
        annotations: state.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        owner: String::new(),
    }
}

/// Prints the state.
pub fn state(global: &Global, id: &str) -> Result<ExitCode> {
    let store = Store::new(global.root.as_deref())?;
    let (dir, state) = store.load(id)?;
    let text = serde_json::to_string_pretty(&shown(&state, now(&state, &dir)?))?;
    crate::print(&text)
}
