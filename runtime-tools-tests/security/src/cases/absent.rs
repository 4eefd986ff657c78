//! T66: kernels and filters without a system call: the same results by another way, or a clear refusal.

use super::attack::tool_path;
use super::process::wrapped;
use crate::cx::Cx;
use crate::matrix::apart;
use crate::tests;
use crate::variant::sane;
use anyhow::{Context, Result, ensure};

const CALLS: [&str; 10] = [
    "openat2",
    "clone3",
    "close_range",
    "open_tree",
    "fsopen",
    "mount_setattr",
    "pidfd_open",
    "pidfd_send_signal",
    "memfd_create",
    "fchmodat2",
];

/// Tests of the suite that reach each of them, one or two an area. `absent.sh` takes all.
const SAMPLE: [&str; 14] = [
    "lifecycle/walk",
    "lifecycle/run_exit_codes",
    "exec/capabilities_added",
    "exec/user",
    "terminal/create_with_console_socket",
    "terminal/exec_with_console_socket",
    "hooks/timeout",
    "hooks/background_child_does_not_hold_create",
    "destinations/destination_through",
    "paths/masked_in_proc_and_sys",
    "stdio/callers_descriptors_do_not_leak",
    "stdio/preserve_fds",
    "own_binary/as_program",
    "credentials/user_and_groups",
];

/// Each call missing in both ways.
pub fn enosys_sweep(cx: &Cx) -> Result<String> {
    let absent = tool_path(cx, "absent")?;
    let sample: Vec<_> =
        tests::all().into_iter().filter(|t| SAMPLE.iter().any(|wanted| t.name.starts_with(wanted))).collect();
    // What does not hold with everything there does not count. Behind a script here, too: a shell may leave its own open.
    let mut holds = vec![];
    let plain = wrapped(cx, "exec")?;
    for test in sample {
        if (test.run)(&apart(cx, &plain)?).is_ok() {
            holds.push(test);
        }
    }
    let (mut same, mut refused, mut wrong) = (vec![], vec![], vec![]);
    for call in CALLS {
        for errno in ["ENOSYS", "EPERM"] {
            let what = format!("{call} {errno}");
            let wrapper = wrapped(cx, &format!("exec {absent} {call} {errno}"))?;
            let before = cx.snapshot()?;
            let without = apart(cx, &wrapper)?;
            let mut b = without.bundle()?;
            let out = b.probe(&["say", "ran"]).run()?;
            sane(&out)?;
            if out.code == 0 {
                for test in &holds {
                    if let Err(error) = (test.run)(&apart(cx, &wrapper)?) {
                        wrong.push(format!("{what}: {}: {error:#}", test.name));
                    }
                }
                same.push(what);
            } else {
                let said = out.one_line().with_context(|| what.clone())?.stderr;
                let why = [
                    "function not implemented",
                    "operation not permitted",
                    "not supported",
                    "ENOSYS",
                    "EPERM",
                ];
                let clear = why.iter().any(|words| said.to_lowercase().contains(&words.to_lowercase()));
                ensure!(clear, "{what}: refused without a reason: {said}");
                cx.nothing_left(&before).with_context(|| what.clone())?;
                refused.push(what);
            }
        }
    }
    ensure!(wrong.is_empty(), "{} differ: {}", wrong.len(), wrong.join("; "));
    Ok(format!("{} tests with each: {} the same, refused: {}", holds.len(), same.len(), refused.join(", ")))
}
