//! `--version`. dockerd reads the first line with the word `version` and the line `commit:`, go-runc wants the first
//! line to begin with `runc version ` and so sees something only where the program is called by that name.

/// Version of the runtime spec that is implemented.
pub const SPEC: &str = "1.3.0";
/// Commit the program was built from, if the build was told.
pub const COMMIT: Option<&str> = option_env!("NARU_COMMIT");

/// The text of `--version` for a program called `program`.
pub fn text(program: &str) -> String {
    let commit = COMMIT.filter(|commit| !commit.is_empty());
    let commit = commit.map(|commit| format!("commit: {commit}\n")).unwrap_or_default();
    format!("{program} version {}\n{commit}spec: {SPEC}\n", env!("CARGO_PKG_VERSION"))
}
