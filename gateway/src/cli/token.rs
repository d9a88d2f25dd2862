//! `tollgate token`

use clap::{Args, Subcommand};
use serde_json::json;
use store::model::{Secret, SecretKind, Timestamp};

use super::{
    client::{query, segment},
    failure::Result,
    named::{Listing, set},
    output::{self, Column},
    remote::Remote,
    time,
};

const COLUMNS: &[Column] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("role", "/role"),
    ("created at", "/created_at"),
    ("expires at", "/expires_at"),
];

/// `token`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate token create ci --role operator --expires 30d --accounts eu-*
  tollgate token create portal --role viewer --account acme
  tollgate token rotate tok_01M7YCG97NQQWGSKVJ8BWS25DH --grace 1h
  tollgate token generate > admin-token")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes an admin token; its secret is in the answer and nowhere else
    Create {
        /// What people call it
        name: String,
        /// What it may do: read; write accounts and keys; write everything
        #[arg(long, value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// When it stops working: a time, or a span from now, like 30d
        #[arg(long, value_name = "TIME", value_parser = time::future)]
        expires: Option<Timestamp>,
        /// Accounts that it is limited to: ids, or the beginnings of ids and *
        #[arg(long, value_name = "ID,...", value_delimiter = ',')]
        accounts: Vec<String>,
        /// Makes it this account's own: it reads the account, its keys, limits, usage and requests
        #[arg(long, value_name = "ID", conflicts_with = "accounts")]
        account: Option<String>,
    },
    /// A new token beside the old one, which works a while longer; the secret is in the answer and nowhere else
    Rotate {
        /// Its id
        id: String,
        /// How long the old one goes on working
        #[arg(long, value_name = "SPAN", value_parser = time::span, default_value = "1d")]
        grace: i64,
    },
    /// Lists admin tokens, without their secrets
    List(Listing),
    /// Deletes an admin token: it works nowhere any more
    Delete {
        /// Its id
        id: String,
    },
    /// Prints a fresh admin token for --admin-token-file of a new cluster; asks no node
    Generate,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        if matches!(self.verb, Verb::Generate) {
            return output::print(Secret::generate(SecretKind::Admin).expose());
        }
        let (client, format) = (self.remote.client()?, self.remote.output);
        match self.verb {
            Verb::Rotate { id, grace } => {
                let body = json!({ "grace_seconds": grace });
                let answer = client.post(&format!("/v1/tokens/{}/rotate", segment(&id)), &body)?;
                eprintln!("the secret is shown this once and kept nowhere");
                format.object(&answer.body)
            }
            Verb::Create { name, role, expires, accounts, account } => {
                let mut body = json!({ "name": name, "role": role });
                if !accounts.is_empty() {
                    set(&mut body, "accounts", Some(accounts));
                }
                set(&mut body, "account", account);
                set(&mut body, "expires_at", expires.map(|at| at.to_string()));
                let answer = client.post("/v1/tokens", &body)?;
                eprintln!("the secret is shown this once and kept nowhere");
                format.object(&answer.body)
            }
            Verb::List(listing) => {
                format.list(&client.read(&format!("/v1/tokens{}", query(&listing.pairs())))?.body, COLUMNS)
            }
            Verb::Delete { id } => {
                client.delete(&format!("/v1/tokens/{}", segment(&id)))?;
                eprintln!("token {id} deleted");
                Ok(())
            }
            Verb::Generate => Ok(()),
        }
    }
}
