//! `tollgate limits`

use clap::Args;
use serde_json::json;

use super::{client::segment, failure::Result, output::Column, remote::Remote};

const COLUMNS: &[Column] = &[
    ("name", "/name"),
    ("kind", "/kind"),
    ("unit", "/unit"),
    ("scope", "/scope"),
    ("limit", "/limit"),
    ("used", "/used"),
    ("remaining", "/remaining"),
    ("reserved", "/reserved"),
    ("unsettled", "/unsettled"),
    ("overage", "/overage"),
    ("shadow", "/shadow"),
    ("resets at", "/resets_at"),
];

/// `limits`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate limits acme
  tollgate limits acme -o json
  tollgate limits acme --reset daily")]
pub(crate) struct Arguments {
    /// The account's id
    account: String,
    /// Sets this limit or quota back to its beginning, at once and everywhere
    #[arg(long, value_name = "NAME")]
    reset: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let path = format!("/v1/accounts/{}/limits", segment(&self.account));
        let client = self.remote.client()?;
        if let Some(name) = &self.reset {
            client.post(&format!("{path}/{}/reset", segment(name)), &json!({}))?;
            eprintln!("{name} of account {} begins anew", self.account);
        }
        self.remote.output.list(&client.read(&path)?.body, COLUMNS)
    }
}
