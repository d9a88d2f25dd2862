//! `tollgate audit`

use std::{
    io::{BufRead, BufReader, IsTerminal, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use store::model::{AuditChain, Timestamp};

use super::{
    client::{Client, query},
    failure::{Failure, Result},
    named::Listing,
    output::{Column, Format},
    progress::Progress,
    remote::Remote,
    time,
};

const COLUMNS: &[Column] = &[
    ("revision", "/revision"),
    ("at", "/at"),
    ("actor", "/actor"),
    ("role", "/role"),
    ("source", "/source"),
    ("action", "/action"),
    ("kind", "/kind"),
    ("id", "/id"),
    ("result", "/result"),
    ("request id", "/request_id"),
];

/// `audit`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  tollgate audit --kind key --since 1d
  tollgate audit --result role-too-low -o json
  tollgate audit export > audit.ndjson
  tollgate audit verify
  tollgate audit verify --file audit.ndjson --head 6dcd4ce23d88e2ee9568ba546c007c63d9131c1b"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists lines, newest first (as `tollgate audit` alone)
    List(Filter),
    /// Writes every line as NDJSON, oldest first
    Export,
    /// Follows the chain over every line: was one changed, left out or put in? Exit code 1 when so
    Verify {
        /// Of a file that was exported, without asking a node
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// SHA-256 of a line, or its beginning, that was noted earlier: it has to be there
        #[arg(long, value_name = "HEX")]
        head: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Filter {
    /// By this actor: a token's id, bootstrap or system
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Of this kind: account, key, tier, route, upstream, token, request
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Of the object with this id; of refused ones the path
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// With this result: done, or the code of a refusal
    #[arg(long, value_name = "RESULT")]
    result: Option<String>,
    /// From this time: RFC 3339, or how long ago, like 15m
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    since: Option<Timestamp>,
    /// To this time
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    until: Option<Timestamp>,
    #[command(flatten)]
    listing: Listing,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let format = self.remote.output;
        match self.verb {
            None => list(&self.remote.client()?, format, self.filter),
            Some(Verb::List(filter)) => list(&self.remote.client()?, format, filter),
            Some(Verb::Export) => {
                let lines = self.remote.client()?.stream("/v1/audit/export", None)?;
                let mut out = std::io::stdout().lock();
                // On a terminal the lines themselves show how far it is.
                let progress = (!out.is_terminal()).then(|| Progress::of("audit export", "lines"));
                for line in lines.lines() {
                    let line = line.map_err(|error| Failure::Failed(format!("read the export: {error}")))?;
                    writeln!(out, "{line}")?;
                    progress.iter().for_each(Progress::count);
                }
                Ok(out.flush()?)
            }
            Some(Verb::Verify { file, head }) => {
                let found = match file {
                    Some(file) => verify(open(&file)?, head.as_deref()),
                    None => verify(self.remote.client()?.stream("/v1/audit/export", None)?, head.as_deref()),
                }?;
                format.object(&found)
            }
        }
    }
}

fn list(client: &Client, format: Format, filter: Filter) -> Result<()> {
    let mut pairs = vec![
        ("actor", filter.actor),
        ("kind", filter.kind),
        ("id", filter.id),
        ("result", filter.result),
        ("since", filter.since.map(|time| time.to_string())),
        ("until", filter.until.map(|time| time.to_string())),
    ];
    pairs.extend(filter.listing.pairs());
    format.list(&client.read(&format!("/v1/audit{}", query(&pairs)))?.body, COLUMNS)
}

fn open(file: &Path) -> Result<impl BufRead + use<>> {
    let opened = std::fs::File::open(file);
    Ok(BufReader::new(opened.map_err(|error| Failure::Failed(format!("open {}: {error}", file.display())))?))
}

/// Follows the chain by the lines' own bytes; what the line says beside them has to be the same.
fn verify(lines: impl BufRead, head: Option<&str>) -> Result<Value> {
    let mut chain = AuditChain::default();
    let mut seen = head.is_none();
    let progress = Progress::of("audit verify", "lines");
    for (n, line) in lines.lines().enumerate() {
        progress.count();
        let wrong = |what: String| Failure::Failed(format!("line {} of the export: {what}", n + 1));
        let line = line.map_err(|error| wrong(error.to_string()))?;
        let view: Value = serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
        let entry = view["entry"].as_str().and_then(|text| STANDARD.decode(text).ok());
        let entry = entry.ok_or_else(|| wrong("it has no entry".into()))?;
        let record = chain.follow(&entry).map_err(|error| wrong(error.to_string()))?;
        let told = [
            ("actor", json!(record.actor)),
            ("at", json!(record.at)),
            ("action", json!(record.action)),
            ("kind", json!(record.kind)),
            ("id", json!(record.id)),
            ("result", json!(if record.result.is_empty() { "done" } else { &record.result })),
        ];
        if let Some((field, kept)) = told.iter().find(|(field, kept)| view[field] != *kept) {
            return Err(wrong(format!("{field} says {}, its entry {kept}", view[field])));
        }
        seen |= head.is_some_and(|head| hex(&chain.head).starts_with(&head.to_lowercase()));
    }
    if !seen {
        return Err(Failure::Failed(format!(
            "no line has the SHA-256 {}: lines up to it were changed or are missing",
            head.unwrap_or_default()
        )));
    }
    Ok(json!({ "whole": true, "lines": chain.lines, "revision": chain.revision, "head": hex(&chain.head) }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two lines: an entry that nothing comes before, and one that names its SHA-256.
    fn export() -> Vec<String> {
        use store::model::{AuditRecord, audit_link};
        let mut previous = Vec::new();
        (1..=3u64)
            .map(|revision| {
                let record =
                    AuditRecord { revision, actor: "a".into(), previous: previous.clone(), ..AuditRecord::default() };
                let stored = record.stored();
                previous = audit_link(&stored);
                let view = json!({
                    "actor": record.actor, "at": record.at, "action": "", "kind": "", "id": "", "result": "done",
                    "entry": STANDARD.encode(&stored),
                });
                view.to_string()
            })
            .collect()
    }

    #[test]
    fn an_export_is_verified_by_its_own_bytes() {
        let whole = export();
        let found = verify(whole.join("\n").as_bytes(), None).expect("whole");
        assert_eq!((&found["lines"], &found["revision"]), (&json!(3), &json!(3)));
        let head = found["head"].as_str().expect("a head").to_uppercase();
        assert!(verify(whole.join("\n").as_bytes(), Some(&head[..12])).is_ok());
        let cut = whole[..2].join("\n");
        assert!(verify(cut.as_bytes(), None).is_ok() && verify(cut.as_bytes(), Some(&head)).is_err());
        let without = [whole[0].as_str(), &whole[2]].join("\n");
        assert!(verify(without.as_bytes(), None).expect_err("broken").to_string().contains("line 2"));
        let told = whole.join("\n").replacen("\"actor\":\"a\"", "\"actor\":\"b\"", 1);
        assert!(verify(told.as_bytes(), None).expect_err("broken").to_string().contains("actor"));
    }
}
