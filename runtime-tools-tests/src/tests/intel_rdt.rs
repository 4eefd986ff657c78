//! linux.intelRdt. No machine of the tests has the hardware: here stand the refusals; what is written to a group is tested in
//! the runtime's own unit tests on a directory that looks like resctrl.

use super::tests;
use crate::cx::{Cx, skip};
use anyhow::Result;
use serde_json::json;

tests!["intel_rdt":
    needs_resctrl deviates ["runc" = "runs without"],
    on_a_real_machine,
    update_needs_it deviates ["crun" = "has other flags"],
];

fn has_resctrl() -> Result<bool> {
    Ok(std::fs::read_to_string("/proc/self/mountinfo")?.contains(" - resctrl "))
}

/// "If no mounted resctrl pseudo-filesystem is available, the runtime MUST generate an error."
fn needs_resctrl(cx: &Cx) -> Result<()> {
    if has_resctrl()? {
        return skip("resctrl is mounted");
    }
    for rdt in [json!({}), json!({"closID": "x"}), json!({"l3CacheSchema": "L3:0=f"}), json!({"closID": "/"})]
    {
        let mut b = cx.bundle()?;
        b.set("/linux/intelRdt", rdt).save()?;
        let before = cx.snapshot()?;
        b.run()?.fails_any(&["/linux/intelRdt", "Intel RDT is not enabled", "resctrl"])?;
        cx.nothing_left(&before)?;
    }
    Ok(())
}

fn on_a_real_machine(cx: &Cx) -> Result<()> {
    if !has_resctrl()? {
        return skip("no resctrl: needs a processor with resource control (RDT, QoS)");
    }
    let mut b = cx.bundle()?;
    b.set("/linux/intelRdt", json!({})).probe(&["sleep"]);
    let c = b.start()?;
    let tasks = std::fs::read_to_string(format!("/sys/fs/resctrl/{}/tasks", c.id))?;
    anyhow::ensure!(
        tasks.lines().any(|line| line == c.pid().map_or(String::new(), |p| p.to_string())),
        "{tasks}"
    );
    c.end()?;
    anyhow::ensure!(
        !std::path::Path::new(&format!("/sys/fs/resctrl/{}", c.id)).exists(),
        "its group is left"
    );
    Ok(())
}

fn update_needs_it(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    cx.rt(&["update", "--l3-cache-schema", "L3:0=f", &c.id])?.fails_any(&["RDT"])?;
    c.end()
}
