//! `suite compare`: the real configs, the default of `spec` and the suite's own under RUNTIME and under REFERENCE.
//! A difference is a failure; each is printed on a line of its own.

use super::tests;
use crate::compare::{PathOrBundle, default_spec, differences, spec_differences};
use crate::cx::Cx;
use anyhow::{Result, bail};

tests!["compare":
    containerd_ctr,
    docker_default,
    docker_limits_tty,
    docker_privileged,
    docker_volumes,
    podman_default,
    suite_default,
    spec_inside,
    spec_text,
];

fn none(found: Vec<String>) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} differences:\n  {}", found.len(), found.join("\n  "))
}

fn real(cx: &Cx, name: &str) -> Result<()> {
    none(differences(cx, |_| Ok(PathOrBundle { name: Some(name.into()), spec: None }))?)
}

fn containerd_ctr(cx: &Cx) -> Result<()> {
    real(cx, "containerd-ctr")
}

fn docker_default(cx: &Cx) -> Result<()> {
    real(cx, "docker-default")
}

fn docker_limits_tty(cx: &Cx) -> Result<()> {
    real(cx, "docker-limits-tty")
}

fn docker_privileged(cx: &Cx) -> Result<()> {
    real(cx, "docker-privileged")
}

fn docker_volumes(cx: &Cx) -> Result<()> {
    real(cx, "docker-volumes")
}

fn podman_default(cx: &Cx) -> Result<()> {
    real(cx, "podman-default")
}

fn suite_default(cx: &Cx) -> Result<()> {
    none(differences(cx, |_| Ok(PathOrBundle { name: None, spec: None }))?)
}

fn spec_inside(cx: &Cx) -> Result<()> {
    let reference = cx.reference.clone().unwrap_or_default();
    let spec = default_spec(cx, &reference)?;
    none(differences(cx, |_| Ok(PathOrBundle { name: None, spec: Some(spec.clone()) }))?)
}

fn spec_text(cx: &Cx) -> Result<()> {
    none(spec_differences(cx)?)
}
