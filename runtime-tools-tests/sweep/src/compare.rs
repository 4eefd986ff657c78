//! Comparing what a command said with what it should have said. Pure; called by `verdict`.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kernel::Pid;
use crate::plan::{Act, Case, Role};
use crate::trace::{End, Hit};

/// State JSON without what differs between equal containers.
pub fn plain_state(text: &str) -> Result<Value> {
    let mut v: Value = serde_json::from_str(text).context("state is no JSON")?;
    if let Some(map) = v.as_object_mut() {
        map.remove("created");
        map.remove("pid");
    }
    Ok(v)
}

/// The pid in a state JSON.
pub fn pid_of(text: &str) -> Option<Pid> {
    serde_json::from_str::<Value>(text).ok()?["pid"].as_i64().map(|p| p as Pid)
}

/// The fields in which two states differ.
pub fn state_difference(wanted: &Value, got: &Value) -> String {
    let keys = |v: &Value| v.as_object().map(|m| m.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut all = keys(wanted);
    all.extend(keys(got));
    all.sort();
    all.dedup();
    let differing = all.iter().filter(|k| wanted[k.as_str()] != got[k.as_str()]);
    let parts: Vec<String> =
        differing.map(|k| format!("{k} is {}, wanted {}", got[k.as_str()], wanted[k.as_str()])).collect();
    parts.join(", ")
}

/// The first lines in which two reports differ.
pub fn first_difference(wanted: &str, got: &str) -> String {
    let missing = wanted.lines().find(|l| !got.lines().any(|g| g == *l));
    let extra = got.lines().find(|l| !wanted.lines().any(|w| w == *l));
    let cut = |l: Option<&str>| l.map_or("nothing".into(), |l| l.chars().take(120).collect::<String>());
    format!("wanted `{}`, got `{}`", cut(missing), cut(extra))
}

/// The rule for stderr of a failed command: exactly one line that says something.
pub fn message_fault(err: &str) -> Option<String> {
    let lines: Vec<&str> = err.lines().collect();
    match lines.as_slice() {
        [one] if one.trim().len() >= 3 => None,
        [] => Some("no message on stderr".to_string()),
        [one] => Some(format!("an empty message on stderr: {one:?}")),
        many => Some(format!("{} lines on stderr: {:?}", many.len(), many.join(" | "))),
    }
}

/// The exit of a command that passes on its payload's end by SIGKILL.
pub const KILLED: End = End::Code(128 + libc::SIGKILL);

/// Whether a failed command owes no message: its write to stderr was the fault, or it passes on the end by
/// SIGKILL of a process that it waited for.
pub fn is_silent(end: End, case: &Case, hit: &Hit) -> bool {
    let on_stderr = matches!(hit.call.number, libc::SYS_write | libc::SYS_writev) && hit.call.args[0] == 2;
    on_stderr || (case.act == Act::KillRole && end == KILLED && case.role != Role::main())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;

    #[test]
    fn one_line_that_says_something() {
        assert!(message_fault("naru: create c1: no\n").is_none());
        for bad in ["", "\n", "  \n", "a line\nanother\n", "x\n"] {
            assert!(message_fault(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn differences_show_both_sides() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), "wanted `b`, got `c`");
        assert_eq!(first_difference("a\nb\n", "a\n"), "wanted `b`, got `nothing`");
    }

    #[test]
    fn states_compare_without_pid_and_time() {
        let a = plain_state(r#"{"id":"x","pid":4,"status":"created","created":"2024"}"#).unwrap();
        let b = plain_state(r#"{"id":"x","pid":9,"status":"created","created":"2025"}"#).unwrap();
        assert_eq!(a, b);
        assert!(plain_state("{").is_err());
        assert_eq!(pid_of(r#"{"pid":4}"#), Some(4));
        let c = plain_state(r#"{"id":"y","status":"created"}"#).unwrap();
        assert_eq!(state_difference(&a, &c), r#"id is "y", wanted "x""#);
    }

    #[test]
    fn the_fault_may_be_the_message_itself() {
        let case = |act| Case { role: Role::main().child(1), n: 0, act, last: false };
        let hit = |fd| Hit {
            call: kernel::Call { number: libc::SYS_write, args: [fd, 0, 0, 0, 0, 0] },
            text: String::new(),
        };
        assert!(is_silent(End::Code(1), &case(Act::Fail(5)), &hit(2)));
        assert!(!is_silent(End::Code(1), &case(Act::Fail(5)), &hit(3)));
        assert!(is_silent(End::Code(137), &case(Act::KillRole), &hit(3)));
        assert!(!is_silent(End::Code(1), &case(Act::KillRole), &hit(3)));
    }
}
