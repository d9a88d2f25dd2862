//! Settings from a TOML file, with line and column of what is wrong.

use std::path::{Path, PathBuf};

use super::{Entries, Error, table};

/// A file that was read.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    text: String,
    pub(super) entries: Entries,
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<File, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::from(format!("read {}: {error}: give a readable file to --config", path.display())))?;
    let entries = parse(&text).map_err(|reason| Error::from(format!("{}:{reason}", path.display())))?;
    Ok(File { path: path.to_owned(), text, entries })
}

impl File {
    /// `path:line:column` of a setting's value; none when the file does not set it.
    pub(super) fn place(&self, key: &str) -> Option<String> {
        if !self.entries.has(key) {
            return None;
        }
        let mut start = 0;
        for (line, text) in (1..).zip(self.text.split_inclusive('\n')) {
            if key_at(&self.text, start) == Some(key) {
                let value = text.find('=').map_or(0, |at| at + 1);
                let blank = text[value..].len() - text[value..].trim_start().len();
                let column = text[..value + blank].chars().count() + 1;
                return Some(format!("{}:{line}:{column}", self.path.display()));
            }
            start += text.len();
        }
        Some(self.path.display().to_string())
    }
}

/// `line:column: key: what is wrong: what was expected`.
pub(super) fn parse(text: &str) -> Result<Entries, String> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[..at].matches('\n').count() + 1;
        let column = text[line_start..at].chars().count() + 1;
        format!("{line}:{column}: {}", explain(error.message(), key_at(text, line_start)))
    })
}

/// The key of the line that an error points at; `None` on a table's head or within a longer value.
fn key_at(text: &str, line_start: usize) -> Option<&str> {
    let line = text[line_start..].lines().next()?;
    let key = line.split_once('=')?.0.trim();
    (!key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).then_some(key)
}

fn explain(message: &str, key: Option<&str>) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let name = rest.split('`').next().unwrap_or_default();
        let hint = table::nearest(name).map_or(String::new(), |near| format!(", did you mean {near}?"));
        return format!("{name} is not a setting{hint} (`tollgate serve --help` lists all of them)");
    }
    match key.and_then(|key| table::known().into_iter().find(|known| known.key == key)) {
        Some(known) => format!("{}: {message}: expected {}", known.key, known.form),
        None => message.replace('\n', ": "),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn refused(text: &str) -> String {
        parse(text).expect_err("refused")
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        assert_eq!(
            refused("voters = 3\ndata_adr = \"127.0.0.1:1\"\n"),
            "2:1: data_adr is not a setting, did you mean data_addr? (`tollgate serve --help` lists all of them)"
        );
    }

    #[test]
    fn an_ill_typed_value_is_named_with_its_place_and_the_expected_form() {
        let reason = refused("# a comment\n  commit_deadline_ms = \"2s\"\n");
        assert!(reason.starts_with("2:24: commit_deadline_ms: "), "{reason}");
        assert!(reason.ends_with("expected a whole number of milliseconds, like 2000"), "{reason}");
        let reason = refused("data_addr = 8080\n");
        assert!(reason.starts_with("1:13: data_addr: "), "{reason}");
        assert!(reason.ends_with("expected an IP address and a port, like 127.0.0.1:8080"), "{reason}");
        let reason = refused("join = \"a:1,b:2\"");
        assert!(reason.starts_with("1:8: join: ") && reason.contains("expected a list of texts"), "{reason}");
        let reason = refused("log_format = \"xml\"");
        assert!(reason.starts_with("1:14: log_format: ") && reason.contains("\"text\" or \"json\""), "{reason}");
    }

    #[test]
    fn broken_toml_has_line_and_column() {
        assert!(refused("voters = 3\nvoters 5\n").starts_with("2:"));
        assert!(refused("é = \"\n").starts_with("1:"));
        assert!(refused("[tls]\ncert = 1").contains("tls is not a setting"));
    }
}
