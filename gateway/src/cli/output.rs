//! Answers on stdout: as a table, JSON or YAML.

use std::io::{Write, stdout};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::failure::{Failure, Result};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// As the admin API answers
    Json,
    /// The same as YAML
    Yaml,
}

/// A table's column: its head, and where its cells are in each object.
pub(crate) type Column = (&'static str, &'static str);

impl Format {
    /// An object; a table has one line a field.
    pub(crate) fn object(self, value: &Value) -> Result<()> {
        self.print(value, || fields(value))
    }

    /// A list as the API answers it (`data`, `next_cursor`); that there is more goes to stderr.
    pub(crate) fn list(self, value: &Value, columns: &[Column]) -> Result<()> {
        self.print(value, || rows(value["data"].as_array().map_or(&[], Vec::as_slice), columns))?;
        if let (Self::Table, Some(cursor)) = (self, value["next_cursor"].as_str()) {
            eprintln!("there is more: --cursor {cursor}");
        }
        Ok(())
    }

    /// Anything, with its own table.
    pub(crate) fn print(self, value: &Value, table: impl FnOnce() -> String) -> Result<()> {
        let text = match self {
            Self::Table => table(),
            Self::Json => format!("{value:#}"),
            Self::Yaml => {
                serde_saphyr::to_string(value).map_err(|error| Failure::Failed(format!("write YAML: {error}")))?
            }
        };
        print(text.trim_end())
    }
}

/// A line or more on stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// A table of objects.
pub(crate) fn rows(items: &[Value], columns: &[Column]) -> String {
    let mut table = plain();
    table.set_header(columns.iter().map(|(head, _)| head.to_uppercase()));
    for item in items {
        table.add_row(columns.iter().map(|(_, pointer)| cell(item.pointer(pointer).unwrap_or(&Value::Null))));
    }
    lines(&table)
}

/// An object, a line a field.
pub(crate) fn fields(value: &Value) -> String {
    let mut table = plain();
    for (key, value) in value.as_object().into_iter().flatten() {
        table.add_row([key.clone(), cell(value)]);
    }
    lines(&table)
}

/// Columns apart by blanks, nothing drawn: easy to read, to grep and to cut.
fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().trim_start().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A value in a cell. Control characters of other people's texts never reach the terminal.
pub(crate) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().map(cell).collect::<Vec<_>>().join("; ")
        }
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(map) if map.is_empty() => "-".to_owned(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| format!("{key}={}", cell(value))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_columns_apart_by_blanks() {
        let items = [json!({ "id": "a", "n": 1, "in": { "x": [1, 2] } }), json!({ "id": "long-one", "n": null })];
        assert_eq!(
            rows(&items, &[("id", "/id"), ("n", "/n"), ("x", "/in/x")]),
            "ID        N  X\na         1  1,2\nlong-one  -  -"
        );
    }

    #[test]
    fn objects_are_a_line_a_field_and_escape_sequences_are_defused() {
        let value = json!({ "name": "x\u{1b}[31m", "limits": [{ "name": "s", "rate": "5/s" }] });
        assert_eq!(fields(&value), "name    x\u{fffd}[31m\nlimits  name=s rate=5/s");
    }

    #[test]
    fn yaml_reads_back_as_the_same() {
        let value = json!({ "a": [1, "2", null, true, "yes", "1.0"], "b": { "c": "x: y\n" }, "d": 1.5 });
        let text = serde_saphyr::to_string(&value).expect("written");
        assert_eq!(super::super::document::parse(&text), Ok(value), "{text}");
    }
}
