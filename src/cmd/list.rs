//! `list`: all containers of a root.

use super::state::{Shown, now, shown};
use crate::cli::{Global, OutputFormat};
use crate::exit::ExitCode;
use crate::log;
use crate::state::{State, Status, Store};
use crate::sys::Errno;
use anyhow::Result;

/// Prints a table, a JSON array (`null` when there are none, as runc prints it), or ids alone.
pub fn list(global: &Global, format: OutputFormat, quiet: bool) -> Result<ExitCode> {
    let store = Store::new(global.root.as_deref())?;
    let ids = store.ids()?;
    // One after the other: there may be more containers than this process may have descriptors.
    let mut loaded: Vec<(State, (Status, i32))> = Vec::new();
    for id in &ids {
        let looked = store.load(id).and_then(|(dir, state)| now(&state, &dir).map(|now| (state, now)));
        match looked {
            Ok(entry) => loaded.push(entry),
            // Deleted meanwhile, or not finished yet.
            Err(error) if error.to_string() == crate::state::DOES_NOT_EXIST => {}
            // A list that lacks containers because this process could not look would be a lie.
            Err(error) if is_exhaustion(&error) => {
                return Err(error.context(format!("load container {id}")));
            }
            Err(error) => log::warn(format_args!("load container {id}: {error:#}")),
        }
    }
    if quiet {
        return crate::print(&loaded.iter().map(|(state, _)| format!("{}\n", state.id)).collect::<String>());
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut rows: Vec<Shown> = Vec::new();
    for (state, now) in &loaded {
        let mut row = shown(state, *now);
        row.owner = owner(&passwd, state.owner);
        rows.push(row);
    }
    if format == OutputFormat::Json {
        let text = if rows.is_empty() { "null".into() } else { serde_json::to_string(&rows)? };
        return crate::print(&format!("{text}\n"));
    }
    let mut table = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    table.extend(rows.iter().map(|row| {
        [
            row.id.to_string(),
            row.pid.to_string(),
            row.status.to_string(),
            row.bundle.clone(),
            row.created.to_string(),
            row.owner.clone(),
        ]
    }));
    crate::print(&columns(&table))
}

/// Is it not the container's fault, but a lack of descriptors or memory?
fn is_exhaustion(error: &anyhow::Error) -> bool {
    let lacks = |errno: &Errno| matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM);
    error.chain().any(|cause| cause.downcast_ref().is_some_and(lacks))
}

/// Columns at least 12 wide and 3 apart, the last one as it is: the shape of runc's table.
fn columns(table: &[[String; 6]]) -> String {
    let width =
        |column: usize| table.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in table {
        for (cell, &width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

/// The user's name in the text of /etc/passwd, else `#uid`. The C library's look-up would bring a resolver along.
fn owner(passwd: &str, uid: u32) -> String {
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| format!("#{uid}"), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |id: &str| [id, "0", "stopped", "/b", "t", "root"].map(String::from);
        let text = columns(&[row("short"), row("a-rather-long-id")]);
        assert_eq!(
            text,
            "short              0           stopped     /b          t           root\n\
             a-rather-long-id   0           stopped     /b          t           root\n"
        );
    }
}
