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
            Verb::Create { name, role, expires } => {
                let mut body = json!({ "name": name, "role": role });
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
