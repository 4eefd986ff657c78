//! create, start, run and what is refused in which state (runtime-spec "Lifecycle" and "Operations").

use super::tests;
use crate::cx::{Cx, eq};
use anyhow::Result;

tests!["lifecycle":
    run_true,
];

fn run_true(cx: &Cx) -> Result<()> {
    let out = cx.bundle()?.run()?.ok()?;
    eq("output", out.stdout, "")?;
    Ok(())
}
