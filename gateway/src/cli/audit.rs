//! `tollgate audit`

use std::{
    io::{BufRead, BufReader, IsTerminal, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use store::model::{AuditChain, AuditRecord, Timestamp};

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
    ("count", "/count"),
    ("request id", "/request_id"),
];

/// Characters of a SHA-256 that name a line.
const MIN_HASH_CHARS: usize = 8;

/// `audit`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  tollgate audit --kind key --since 1d
  tollgate audit --result role-too-low -o json
  tollgate audit export > audit.ndjson
  tollgate audit verify
  tollgate audit verify --file audit.ndjson \\
    --head 6dcd4ce23d88e2ee9568ba546c007c63d9131c1b6f0ed92f4b5d0b3e1f6a2c47
  tollgate audit verify --file since-june.ndjson --from 8123-0"
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
        /// The file is meant to begin later than the audit: its first line, as revision-line, or the SHA-256 of the line before
        #[arg(long, value_name = "LINE", requires = "file")]
        from: Option<String>,
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
            Some(Verb::Verify { file, head, from }) => {
                let head = head.as_deref();
                let found = match file {
                    Some(file) => verify(open(&file)?, head, Begins::Here(from.as_deref())),
                    None => {
                        let lines = self.remote.client()?.stream("/v1/audit/export", None)?;
                        verify(lines, head, Begins::WhereTimeIsOver(Timestamp::now()))
                    }
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

/// Where lines may begin that do not begin with the very first.
#[derive(Debug, Clone, Copy)]
enum Begins<'a> {
    /// A file: where the caller says.
    Here(Option<&'a str>),
    /// A node's own: at a line that is so old that those before it are kept no more.
    WhereTimeIsOver(Timestamp),
}

impl Begins<'_> {
    fn check(self, chain: &AuditChain) -> Result<()> {
        let Some((revision, line, at)) = chain.first.filter(|_| !chain.anchor.is_empty()) else { return Ok(()) };
        let place = format!("{revision}-{line}");
        let before = hex(&chain.anchor);
        let meant = match self {
            Self::Here(from) => from.is_some_and(|from| {
                from == place || from.len() >= MIN_HASH_CHARS && before.starts_with(&from.to_lowercase())
            }),
            Self::WhereTimeIsOver(now) => AuditRecord::is_over(at, now),
        };
        if meant {
            return Ok(());
        }
        Err(Failure::Failed(format!(
            "the lines start at {place} of {at}, and this one follows a line that is not there (SHA-256 {before}): the beginning \
             is missing; of a file, --from {place} says that it is meant to"
        )))
    }
}

/// Follows the chain by the lines' own bytes; what the line says beside them has to be the same.
fn verify(lines: impl BufRead, head: Option<&str>, begins: Begins<'_>) -> Result<Value> {
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
        if n == 0 {
            begins.check(&chain)?;
        }
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
    let starts_at = chain.first.map(|(revision, line, _)| format!("{revision}-{line}"));
    let (lines, revision, head) = (chain.lines, chain.revision, hex(&chain.head));
    Ok(json!({ "whole": true, "lines": lines, "revision": revision, "head": head, "starts_at": starts_at }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two lines: an entry that nothing comes before, and one that names its SHA-256.
    fn export() -> Vec<String> {
        use store::model::audit_link;
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

    fn verify(lines: &[u8], head: Option<&str>) -> Result<Value> {
        super::verify(lines, head, Begins::Here(None))
    }

    #[test]
    fn a_file_whose_beginning_is_missing_is_whole_only_from_where_it_is_meant_to_begin() {
        let rest = export()[1..].join("\n");
        let from = |from| super::verify(rest.as_bytes(), None, from);
        let told = from(Begins::Here(None)).expect_err("cut").to_string();
        assert!(told.contains("start at 2-0") && told.contains("--from 2-0"), "{told}");
        assert_eq!(from(Begins::Here(Some("2-0"))).expect("meant")["starts_at"], "2-0");
        let before: String = told.split("SHA-256 ").nth(1).expect("a hash").chars().take(64).collect();
        let shouted = before.to_uppercase();
        assert!(from(Begins::Here(Some(&shouted))).is_ok() && from(Begins::Here(Some(&before[..8]))).is_ok());
        for wrong in ["3-0", "2", "", "00000000"] {
            assert!(from(Begins::Here(Some(wrong))).is_err(), "{wrong}");
        }
        // A node's own may begin late when the lines before were old enough to go.
        assert!(from(Begins::WhereTimeIsOver(Timestamp(0))).is_err());
        let later = Timestamp(0).plus_seconds(AuditRecord::KEPT_DAYS * 86_400);
        assert!(from(Begins::WhereTimeIsOver(later)).is_ok());
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
