//! `list`: all containers of a root.

use super::state::{Shown, shown};
use crate::cli::{Global, OutputFormat};
use crate::exit::ExitCode;
use crate::log;
use crate::state::{Dir, State, Store};
use anyhow::Result;

/// Prints a table, a JSON array (`null` when there are none, as runc prints it), or ids alone.
pub fn list(global: &Global, format: OutputFormat, quiet: bool) -> Result<ExitCode> {
    let store = Store::new(global.root.as_deref())?;
    let ids = store.ids()?;
    let mut loaded: Vec<(Dir, State)> = Vec::new();
    for id in &ids {
        match store.load(id) {
            Ok(entry) => loaded.push(entry),
            // Deleted meanwhile, or not finished yet.
            Err(error) if error.to_string() == crate::state::DOES_NOT_EXIST => {}
            Err(error) => log::warn(format_args!("load container {id}: {error:#}")),
        }
    }
    let mut rows: Vec<Shown> = Vec::new();
    for (dir, state) in &loaded {
        match shown(state, dir) {
            Ok(mut row) => {
                row.owner = owner(state.owner);
                rows.push(row);
            }
            Err(error) => log::warn(format_args!("load container {}: {error:#}", state.id)),
        }
    }
    if quiet {
        return crate::print(&rows.iter().map(|row| format!("{}\n", row.id)).collect::<String>());
    }
    if format == OutputFormat::Json {
        let text = if rows.is_empty() { "null".into() } else { serde_json::to_string(&rows)? };
        return crate::print(&text);
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

/// The user's name in /etc/passwd, else `#uid`. Read here because the C library's look-up brings a resolver along.
fn owner(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
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
