//! `tollgate key`

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use store::model::Timestamp;

use super::{
    client::{query, segment},
    failure::Result,
    named::{Listing, set},
    output::Column,
    remote::Remote,
    time,
};

const COLUMNS: &[Column] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("env", "/env"),
    ("last4", "/last4"),
    ("state", "/state"),
    ("scopes", "/scopes"),
    ("expires at", "/expires_at"),
    ("last used at", "/last_used_at"),
];

/// `key`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate key create acme --name ci --scopes scan --expires 90d
  tollgate key rotate key_01M7YCG97NQQWGSKVJ8BWS25DH --grace 12h
  tollgate key revoke key_01M7YCG97NQQWGSKVJ8BWS25DH")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes a key; its secret is in the answer and nowhere else
    Create {
        /// The account's id
        account: String,
        /// Live or test
        #[arg(long, value_parser = ["live", "test"])]
        env: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Lists an account's keys
    List {
        /// The account's id
        account: String,
        #[command(flatten)]
        listing: Listing,
    },
    /// Shows a key, without its secret
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
        /// Whether it works
        #[arg(long, value_parser = ["active", "disabled"])]
        state: Option<String>,
    },
    /// Makes a new key in its place; both work during the grace
    Rotate {
        /// Its id
        id: String,
        /// How long the old one still works, like 12h; 0s revokes it at once
        #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = time::span)]
        grace: i64,
    },
    /// Revokes it for ever, at once and everywhere
    #[command(alias = "delete")]
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Args)]
struct Form {
    /// What people call it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// What it may do
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// Networks that it may be used from
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
    allowed_ips: Option<Vec<String>>,
    /// When it stops working: a time, or a span from now, like 30d
    #[arg(long, value_name = "TIME", value_parser = time::future)]
    expires: Option<Timestamp>,
}

impl Form {
    fn body(self) -> Value {
        let mut body = json!({});
        set(&mut body, "name", self.name);
        set(&mut body, "scopes", self.scopes);
        set(&mut body, "allowed_ips", self.allowed_ips);
        set(&mut body, "expires_at", self.expires.map(|at| at.to_string()));
        body
    }
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let (client, format) = (self.remote.client()?, self.remote.output);
        let of = |id: &str| format!("/v1/keys/{}", segment(id));
        let of_account = |id: &str| format!("/v1/accounts/{}/keys", segment(id));
        match self.verb {
            Verb::Create { account, env, form } => {
                let mut body = form.body();
                set(&mut body, "env", env);
                let answer = client.post(&of_account(&account), &body)?;
                eprintln!("the secret is shown this once and kept nowhere");
                format.object(&answer.body)
            }
            Verb::List { account, listing } => {
                let path = format!("{}{}", of_account(&account), query(&listing.pairs()));
                format.list(&client.read(&path)?.body, COLUMNS)
            }
            Verb::Get { id } => format.object(&client.read(&of(&id))?.body),
            Verb::Set { id, form, state } => {
                let mut body = form.body();
                set(&mut body, "state", state);
                format.object(&client.patch(&of(&id), &body)?.body)
            }
            Verb::Rotate { id, grace } => {
                let answer = client.post(&format!("{}/rotate", of(&id)), &json!({ "grace_seconds": grace }))?;
                eprintln!("the new key's secret is shown this once and kept nowhere");
                format.object(&answer.body)
            }
            Verb::Revoke { id } => {
                client.delete(&of(&id))?;
                eprintln!("key {id} revoked");
                Ok(())
            }
        }
    }
}
