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

/// Refuses a new object that lacks a field, by the name of its flag: whoever types the command knows no field.
pub(crate) fn required(body: &Value, fields: &[(&str, &str)]) -> Result<()> {
    let missing = fields.iter().filter(|(field, _)| body.get(field).is_none_or(Value::is_null));
    let told: Vec<String> = missing.map(|(field, flag)| format!("{flag} (or {field} in the file)")).collect();
    if told.is_empty() { Ok(()) } else { Err(Failure::Usage(format!("required: {}", told.join(", ")))) }
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
    /// Fields that a new one must have, and the flags that say them.
    const REQUIRED: &'static [(&'static str, &'static str)] = &[];

    /// Lays what the flags say over an object.
    fn lay(&self, over: &mut Value) -> Result<()>;
}

impl Kind {
    pub(crate) fn run<F: Form>(&self, verb: Verb<F>, client: &Client, format: Format) -> Result<()> {
        match verb {
            Verb::Create(change) => {
                let mut body = change.file.as_deref().map_or(Ok(json!({})), document::read)?;
                change.form.lay(&mut body)?;
                required(&body, F::REQUIRED)?;
                let answer =
                    client.put(&self.of(&change.name), &body, &OnlyIf::Absent).map_err(|failure| match failure {
                        // The only condition was that it is not there.
                        Failure::Overtaken(_) => Failure::Failed(format!(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_new_object_lacks_is_told_by_its_flag() {
        let fields = [("upstream", "--upstream"), ("name", "--name")];
        assert_eq!(required(&json!({ "upstream": "up", "name": "" }), &fields), Ok(()));
        let told = required(&json!({ "upstream": null }), &fields).expect_err("refused");
        assert_eq!(told.to_string(), "required: --upstream (or upstream in the file), --name (or name in the file)");
        assert_eq!(told.code(), 2);
    }
}
