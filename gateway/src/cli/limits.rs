//! `tollgate limits`

use clap::Args;

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
    ("resets at", "/resets_at"),
];

/// `limits`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate limits acme
  tollgate limits acme -o json")]
pub(crate) struct Arguments {
    /// The account's id
    account: String,
    #[command(flatten)]
    remote: Remote,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let path = format!("/v1/accounts/{}/limits", segment(&self.account));
        self.remote.output.list(&self.remote.client()?.read(&path)?.body, COLUMNS)
    }
}
