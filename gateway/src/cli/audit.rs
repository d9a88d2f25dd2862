//! `tollgate audit`

use clap::Args;

use super::{client::query, failure::Result, named::Listing, output::Column, remote::Remote};

const COLUMNS: &[Column] = &[
    ("revision", "/revision"),
    ("at", "/at"),
    ("actor", "/actor"),
    ("action", "/action"),
    ("kind", "/kind"),
    ("id", "/id"),
    ("request id", "/request_id"),
];

/// `audit`
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    remote: Remote,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let path = format!("/v1/audit{}", query(&self.listing.pairs()));
        self.remote.output.list(&self.remote.client()?.read(&path)?.body, COLUMNS)
    }
}
