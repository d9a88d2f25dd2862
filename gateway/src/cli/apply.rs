//! `tollgate apply`, `tollgate diff`

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{
    client::query,
    document,
    failure::{Failure, Result},
    output,
    remote::Remote,
};

/// What both take.
#[derive(Debug, Args)]
struct File {
    /// YAML or JSON file; - for stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Also removes what the file's lists do not name
    #[arg(long)]
    prune: bool,
    /// Changes things also that others have changed since the file was exported
    #[arg(long)]
    overwrite: bool,
}

/// `apply`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate export > tollgate.yaml
  tollgate apply -f tollgate.yaml --dry-run
  tollgate apply -f tollgate.yaml --prune
A file names upstreams, tiers, routes and accounts (with their keys by SHA-256); a list that it leaves out is not touched.
All of it happens or nothing. `revision` in it is the state that it was made of: what was changed since is told and refused.")]
pub(crate) struct Apply {
    #[command(flatten)]
    file: File,
    /// Tells what would change and changes nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    remote: Remote,
}

/// `diff`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 8 when the file and the cluster differ, 0 when not; that the file was made of an older state is told on stderr.
Examples:
  tollgate diff -f tollgate.yaml
  tollgate diff -f tollgate.yaml --prune -o json"
)]
pub(crate) struct Diff {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    remote: Remote,
}

impl Apply {
    pub(crate) fn run(self) -> Result<()> {
        let answer = self.file.send(&self.remote, &self.file.read()?, self.dry_run)?;
        self.remote.output.print(&answer, || told(&answer))
    }
}

impl Diff {
    pub(crate) fn run(self) -> Result<()> {
        let mut document = self.file.read()?;
        let answer = match self.file.send(&self.remote, &document, true) {
            // What was changed since differs too, and is what is asked for; that `apply` would refuse is said beside it.
            Err(Failure::Overtaken(reason)) => {
                eprintln!("tollgate: apply would be refused: {reason}");
                without_revision(&mut document);
                self.file.send(&self.remote, &document, true)?
            }
            sent => sent?,
        };
        self.remote.output.print(&answer, || told(&answer))?;
        if answer["changes"].as_array().is_none_or(Vec::is_empty) { Ok(()) } else { Err(Failure::Differs) }
    }
}

impl File {
    fn read(&self) -> Result<Value> {
        let mut document = document::read(&self.file)?;
        if self.overwrite {
            without_revision(&mut document);
        }
        Ok(document)
    }

    fn send(&self, remote: &Remote, body: &Value, dry_run: bool) -> Result<Value> {
        let flag = |given: bool| given.then(|| "true".to_owned());
        let query = query(&[("dry_run", flag(dry_run)), ("prune", flag(self.prune))]);
        Ok(remote.client()?.post(&format!("/v1/apply{query}"), body)?.body)
    }
}

/// What was changed since the document was made is laid over too.
fn without_revision(document: &mut Value) {
    if let Some(map) = document.as_object_mut() {
        map.shift_remove("revision");
    }
}

/// A line a change, a line a field.
fn told(answer: &Value) -> String {
    let mut text = String::new();
    let mut counts = [0; 3];
    for change in answer["changes"].as_array().into_iter().flatten() {
        let action = change["action"].as_str().unwrap_or_default();
        let (sign, count) = match action {
            "create" => ('+', 0),
            "change" => ('~', 1),
            _ => ('-', 2),
        };
        counts[count] += 1;
        let (kind, id) = (change["kind"].as_str().unwrap_or_default(), change["id"].as_str().unwrap_or_default());
        text.push_str(&format!("{sign} {kind} {id}\n"));
        for field in change["fields"].as_array().into_iter().flatten() {
            let name = field["field"].as_str().unwrap_or_default();
            let (before, after) = (output::cell(&field["before"]), output::cell(&field["after"]));
            match action {
                "create" => text.push_str(&format!("    {name}: {after}\n")),
                _ => text.push_str(&format!("    {name}: {before} -> {after}\n")),
            }
        }
    }
    let [created, changed, removed] = counts;
    let done = if answer["dry_run"] == true { "would be " } else { "" };
    let unchanged = &answer["unchanged"];
    text.push_str(&format!("{done}created {created}, changed {changed}, removed {removed}; unchanged {unchanged}"));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_told_a_line_each() {
        let answer = json!({ "dry_run": true, "unchanged": 4, "changes": [
            { "action": "change", "kind": "tier", "id": "free", "fields": [{ "field": "concurrency", "before": null, "after": 5 }] },
            { "action": "revoke", "kind": "key", "id": "key_1", "fields": [] },
        ] });
        assert_eq!(
            told(&answer),
            "~ tier free\n    concurrency: - -> 5\n- key key_1\nwould be created 0, changed 1, removed 1; unchanged 4"
        );
    }
}
