//! What tiers, routes and upstreams have in common: a name that the caller chooses, and a whole that is put.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    client::{Client, OnlyIf, segment},
    document,
    failure::{Failure, Result},
    output::{Column, Format},
};

/// What can be done with them.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb<F: Args> {
    /// Makes a new one; refused when the name is taken
    Create(Change<F>),
    /// Lists all of them
    List(Listing),
    /// Shows one
    Get {
        /// Its name
        name: String,
    },
    /// Changes what the flags say; with -f replaces the whole (or makes it)
    Set(Change<F>),
    /// Deletes one; refused while something uses it
    Delete {
        /// Its name
        name: String,
    },
}

/// A new one, or a change.
#[derive(Debug, Args)]
pub(crate) struct Change<F: Args> {
    /// Its name
    name: String,
    /// YAML or JSON file with all of it; - for stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    form: F,
}

impl<F: Form> Change<F> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What an object would be after it.
    pub(crate) fn over(&self, before: Value) -> Result<Value> {
        let mut body = self.file.as_deref().map_or(Ok(before), document::read)?;
        self.form.lay(&mut body)?;
        Ok(body)
    }
}

/// A part of a list.
#[derive(Debug, Clone, Args)]
pub(crate) struct Listing {
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value = "50", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Where the part before has ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

impl Listing {
    /// As query parameters.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, Option<String>)> {
        vec![("limit", Some(self.limit.to_string())), ("cursor", self.cursor.clone())]
    }
}

/// A kind of them.
#[derive(Debug)]
pub(crate) struct Kind {
    /// `/v1/tiers`
    pub(crate) path: &'static str,
    /// `tier`
    pub(crate) noun: &'static str,
    /// What a list shows.
    pub(crate) columns: &'static [Column],
}

/// The flags of a kind.
pub(crate) trait Form: Args {
    /// Lays what the flags say over an object.
    fn lay(&self, over: &mut Value) -> Result<()>;
}

impl Kind {
    pub(crate) fn run<F: Form>(&self, verb: Verb<F>, client: &Client, format: Format) -> Result<()> {
        match verb {
            Verb::Create(change) => {
                let mut body = change.file.as_deref().map_or(Ok(json!({})), document::read)?;
                change.form.lay(&mut body)?;
                let answer =
                    client.put(&self.of(&change.name), &body, &OnlyIf::Absent).map_err(|failure| match failure {
                        Failure::Failed(reason) if reason.contains("precondition-failed") => Failure::Failed(format!(
                            "the {} {} exists already: change it with `tollgate {} set`",
                            self.noun, change.name, self.noun
                        )),
                        other => other,
                    })?;
                format.object(&answer.body)
            }
            Verb::Set(change) => {
                let (mut body, only_if) = match &change.file {
                    Some(file) => (document::read(file)?, OnlyIf::Always),
                    None => {
                        let answer = client.read(&self.of(&change.name))?;
                        let only_if = answer.etag.map_or(OnlyIf::Always, OnlyIf::Unchanged);
                        (answer.body, only_if)
                    }
                };
                change.form.lay(&mut body)?;
                let answer = client.put(&self.of(&change.name), &body, &only_if)?;
                format.object(&answer.body)
            }
            Verb::List(listing) => {
                let query = super::client::query(&listing.pairs());
                format.list(&client.read(&format!("{}{query}", self.path))?.body, self.columns)
            }
            Verb::Get { name } => format.object(&client.read(&self.of(&name))?.body),
            Verb::Delete { name } => {
                client.delete(&self.of(&name))?;
                eprintln!("{} {name} deleted", self.noun);
                Ok(())
            }
        }
    }

    fn of(&self, name: &str) -> String {
        format!("{}/{}", self.path, segment(name))
    }
}

/// Sets a field when a flag was given.
pub(crate) fn set(over: &mut Value, key: &str, value: Option<impl Into<Value>>) {
    if let (Some(value), Some(map)) = (value, over.as_object_mut()) {
        map.insert(key.to_owned(), value.into());
    }
}
