//! `tollgate account`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    client::{query, segment},
    document,
    failure::{Failure, Result},
    named::{Listing, required, set},
    output::Column,
    remote::Remote,
};

const COLUMNS: &[Column] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("tier", "/tier"),
    ("state", "/state"),
    ("region", "/region"),
    ("created at", "/created_at"),
    ("revision", "/revision"),
];

/// `account`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate account create acme --name ACME --tier free --metadata crm=5
  tollgate account list --name-prefix ac --tier free
  tollgate account set acme --state suspended")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes an account
    Create {
        /// Its id; acct_ and a ULID when not said
        id: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Lists accounts
    List {
        /// Whose id begins so
        #[arg(long, value_name = "TEXT")]
        id_prefix: Option<String>,
        /// Whose name begins so, without regard to case
        #[arg(long, value_name = "TEXT")]
        name_prefix: Option<String>,
        /// In this tier
        #[arg(long, value_name = "NAME")]
        tier: Option<String>,
        /// In this state
        #[arg(long, value_parser = ["active", "suspended"])]
        state: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Shows an account
    Get {
        /// Its id
        id: String,
    },
    /// Changes what is given
    Set {
        /// Its id
        id: String,
        #[command(flatten)]
        form: Form,
    },
    /// Deletes an account whose keys are all revoked
    Delete {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Args)]
struct Form {
    /// YAML or JSON file with the fields; - for stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Its tier
    #[arg(long, value_name = "NAME")]
    tier: Option<String>,
    /// What people call it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Whether its keys work
    #[arg(long, value_parser = ["active", "suspended"])]
    state: Option<String>,
    /// Region that its data is pinned to
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// An entry of its metadata; the value is JSON, else text; may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let (client, format) = (self.remote.client()?, self.remote.output);
        let of = |id: &str| format!("/v1/accounts/{}", segment(id));
        match self.verb {
            Verb::Create { id, form } => {
                let mut body = form.body()?;
                set(&mut body, "id", id);
                required(&body, &[("tier", "--tier")])?;
                format.object(&client.post("/v1/accounts", &body)?.body)
            }
            Verb::List { id_prefix, name_prefix, tier, state, listing } => {
                let mut pairs = listing.pairs();
                pairs.extend([
                    ("id_prefix", id_prefix),
                    ("name_prefix", name_prefix),
                    ("tier", tier),
                    ("state", state),
                ]);
                let path = format!("/v1/accounts{}", query(&pairs));
                format.list(&client.read(&path)?.body, COLUMNS)
            }
            Verb::Get { id } => format.object(&client.read(&of(&id))?.body),
            Verb::Set { id, form } => format.object(&client.patch(&of(&id), &form.body()?)?.body),
            Verb::Delete { id } => {
                client.delete(&of(&id))?;
                eprintln!("account {id} deleted");
                Ok(())
            }
        }
    }
}

impl Form {
    fn body(&self) -> Result<Value> {
        let mut body = self.file.as_deref().map_or(Ok(json!({})), document::read)?;
        set(&mut body, "tier", self.tier.clone());
        set(&mut body, "name", self.name.clone());
        set(&mut body, "state", self.state.clone());
        set(&mut body, "region", self.region.clone());
        if !self.metadata.is_empty() {
            let mut metadata = body["metadata"].as_object().cloned().unwrap_or_default();
            metadata.extend(entries(&self.metadata)?);
            set(&mut body, "metadata", Some(metadata));
        }
        Ok(body)
    }
}

fn entries(pairs: &[String]) -> Result<Map<String, Value>> {
    pairs
        .iter()
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Failure::Usage(format!("--metadata {pair:?}: expected KEY=VALUE")))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            Ok((key.to_owned(), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_values_are_json_or_text() {
        let read = entries(&["a=1".into(), "b=x=y".into(), "c=null".into(), "d={\"e\":[]}".into()]).expect("reads");
        assert_eq!(json!(read), json!({ "a": 1, "b": "x=y", "c": null, "d": { "e": [] } }));
        assert_eq!(entries(&["x".into()]).expect_err("refused").code(), 2);
    }
}
