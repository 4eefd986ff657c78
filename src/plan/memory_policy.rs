//! `linux.memoryPolicy` → what set_mempolicy(2) takes.

use super::list;
use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};
use serde::{Deserialize, Serialize};

/// A NUMA memory policy (linux/mempolicy.h).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*`, with `MPOL_F_*`.
    pub mode: u32,
    /// Bit N for node N.
    pub nodes: Vec<u64>,
}

/// Compiles it; which flags go with which mode is left to the kernel, whose versions differ.
pub fn compile(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    const POINTER: &str = "/linux/memoryPolicy";
    let text = policy.nodes().as_deref().unwrap_or_default();
    // runc's words here and below.
    let nodes = list::mask(text, &format!("{POINTER}/nodes: invalid memory policy nodes"))?;
    let mode = match policy.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    match (policy.mode(), &nodes) {
        (Mode::MpolDefault | Mode::MpolLocal, Some(nodes)) => {
            let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
            bail!("{POINTER}/nodes: {}: memory policy mode requires 0 nodes but got {count}", policy.mode())
        }
        (Mode::MpolDefault | Mode::MpolLocal | Mode::MpolPreferred, _) | (_, Some(_)) => {}
        (_, None) => bail!(
            "{POINTER}/nodes: {}: memory policy mode requires at least one node but got 0",
            policy.mode()
        ),
    }
    let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                Flag::MpolFNumaBalancing => 1 << 13,
                Flag::MpolFRelativeNodes => 1 << 14,
                Flag::MpolFStaticNodes => 1 << 15,
            }
    });
    if flags & 3 << 14 == 3 << 14 {
        bail!("{POINTER}/flags: MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES exclude each other");
    }
    Ok(MemoryPolicy { mode: mode | flags, nodes: nodes.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_flags_and_nodes() {
        let one =
            |json: &str| compile(&serde_json::from_str(json).unwrap()).map_err(|error| error.to_string());
        let policy = |mode, nodes: &[u64]| Ok(MemoryPolicy { mode, nodes: nodes.to_vec() });
        for (json, wanted) in [
            (r#"{"mode":"MPOL_DEFAULT"}"#, policy(0, &[])),
            (r#"{"mode":"MPOL_PREFERRED","nodes":""}"#, policy(1, &[])),
            (r#"{"mode":"MPOL_PREFERRED","nodes":"1"}"#, policy(1, &[2])),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0,2-3","flags":["MPOL_F_STATIC_NODES"]}"#,
                policy(1 << 15 | 2, &[13]),
            ),
            (
                r#"{"mode":"MPOL_INTERLEAVE","nodes":"0","flags":["MPOL_F_RELATIVE_NODES"]}"#,
                policy(1 << 14 | 3, &[1]),
            ),
            (r#"{"mode":"MPOL_LOCAL","flags":[]}"#, policy(4, &[])),
            (r#"{"mode":"MPOL_PREFERRED_MANY","nodes":"0"}"#, policy(5, &[1])),
            (r#"{"mode":"MPOL_WEIGHTED_INTERLEAVE","nodes":"0"}"#, policy(6, &[1])),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_NUMA_BALANCING"]}"#,
                policy(1 << 13 | 2, &[1]),
            ),
        ] {
            assert_eq!(one(json), wanted, "{json}");
        }
        for (json, field) in [
            (r#"{"mode":"MPOL_DEFAULT","nodes":"0"}"#, "nodes"),
            (r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#, "nodes"),
            (r#"{"mode":"MPOL_BIND"}"#, "nodes"),
            (r#"{"mode":"MPOL_BIND","nodes":"x"}"#, "nodes"),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}"#,
                "flags",
            ),
        ] {
            assert!(one(json).unwrap_err().starts_with(&format!("/linux/memoryPolicy/{field}: ")), "{json}");
        }
    }
}
