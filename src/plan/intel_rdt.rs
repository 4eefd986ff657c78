//! `linux.intelRdt` → which resource control group the container gets, and what is written there.

use anyhow::{Result, bail};
use oci_spec::runtime::LinuxIntelRdt;

const POINTER: &str = "/linux/intelRdt";
/// What resctrl has in its root besides groups.
const RESERVED: [&str; 5] = [".", "..", "info", "mon_groups", "mon_data"];

/// A container's share of caches and memory bandwidth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntelRdt {
    /// `closID`: the group; `/` is the root. Without one it has the container's id for a name.
    pub clos: Option<String>,
    /// `l3CacheSchema`.
    pub l3: Option<String>,
    /// `memBwSchema`.
    pub memory_bandwidth: Option<String>,
    /// `schemata`, line by line.
    pub schemata: Vec<String>,
    /// `enableMonitoring`.
    pub monitoring: bool,
}

impl IntelRdt {
    /// Everything for the file `schemata`, in the spec's order.
    pub fn lines(&self) -> Vec<&str> {
        let pair = self.l3.iter().chain(&self.memory_bandwidth);
        pair.chain(&self.schemata).map(String::as_str).collect()
    }
}

/// Reads it. `enableCMT` and `enableMBM` have had no meaning before 1.3 and none since.
pub fn compile(rdt: &LinuxIntelRdt, id: &str) -> Result<IntelRdt> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let clos = given(rdt.clos_id());
    if let Some(name) = clos.as_deref().filter(|name| *name != "/")
        && (RESERVED.contains(&name) || name.contains(['/', '\0', '\n']))
    {
        bail!("{POINTER}/closID: invalid intelRdt.ClosID {name:?}");
    }
    if clos.is_none() && RESERVED.contains(&id) {
        bail!("{POINTER}: {id:?} cannot be the name of a group");
    }
    let l3 = given(rdt.l3_cache_schema());
    if l3.as_ref().is_some_and(|text| text.contains(['\n', '\0'])) {
        bail!("{POINTER}/l3CacheSchema: is not one line");
    }
    let memory_bandwidth = given(rdt.mem_bw_schema());
    if let Some(text) = &memory_bandwidth
        && (!text.starts_with("MB:") || text.contains(['\n', '\0']))
    {
        bail!("{POINTER}/memBwSchema: {text:?} is not one line that starts with MB:");
    }
    let schemata = rdt.schemata().clone().unwrap_or_default();
    if let Some(index) = schemata.iter().position(|line| line.is_empty() || line.contains(['\n', '\0'])) {
        bail!("{POINTER}/schemata/{index}: {:?} is not one line", schemata[index]);
    }
    Ok(IntelRdt {
        clos,
        l3,
        memory_bandwidth,
        schemata,
        monitoring: rdt.enable_monitoring().unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<IntelRdt, String> {
        compile(&serde_json::from_str(json).unwrap(), "c1").map_err(|error| error.to_string())
    }

    #[test]
    fn lines_have_the_order_of_the_spec() {
        let rdt = read(
            r#"{"closID":"g","schemata":["L2:0=f"],"memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=7f0;1=1f",
                "enableMonitoring":true,"enableCMT":true}"#,
        )
        .unwrap();
        assert_eq!(rdt.lines(), ["L3:0=7f0;1=1f", "MB:0=20", "L2:0=f"]);
        assert!(rdt.monitoring);
        assert_eq!(read(r#"{"closID":"","l3CacheSchema":""}"#), Ok(IntelRdt::default()));
        assert_eq!(read(r#"{"closID":"/"}"#).unwrap().clos.as_deref(), Some("/"));
    }

    #[test]
    fn refusals_name_the_field() {
        for (json, field) in [
            (r#"{"closID":".."}"#, "closID"),
            (r#"{"closID":"a/b"}"#, "closID"),
            (r#"{"closID":"info"}"#, "closID"),
            (r#"{"memBwSchema":"0=20"}"#, "memBwSchema"),
            (r#"{"memBwSchema":"MB:0=20\nL3:0=1"}"#, "memBwSchema"),
            (r#"{"l3CacheSchema":"L3:0=1\n"}"#, "l3CacheSchema"),
            (r#"{"schemata":["L3:0=1","a\nb"]}"#, "schemata/1"),
        ] {
            assert!(read(json).unwrap_err().starts_with(&format!("/linux/intelRdt/{field}: ")), "{json}");
        }
    }
}
