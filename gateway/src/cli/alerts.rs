//! `tollgate alerts` and `tollgate overages`

use clap::Args;
use store::model::Timestamp;

use super::{
    client::{query, segment},
    failure::Result,
    named::Listing,
    output::Column,
    remote::Remote,
    time,
};

const ALERTS: &[Column] = &[
    ("at", "/at"),
    ("account", "/account"),
    ("quota", "/quota"),
    ("key", "/key_id"),
    ("threshold %", "/threshold"),
    ("used", "/used"),
    ("limit", "/limit"),
    ("shadow", "/shadow"),
    ("period ends", "/period_end"),
];

const OVERAGES: &[Column] = &[
    ("period starts", "/period_start"),
    ("period ends", "/period_end"),
    ("quota", "/quota"),
    ("key", "/key_id"),
    ("limit", "/limit"),
    ("used", "/used"),
    ("overage", "/overage"),
    ("shadow", "/shadow"),
];

/// `alerts`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate alerts --since 24h
  tollgate alerts --account acme -o json")]
pub(crate) struct Alerts {
    /// Of this account
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// From this time: RFC 3339, or how long ago
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    since: Option<Timestamp>,
    /// To this time
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    until: Option<Timestamp>,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    remote: Remote,
}

/// `overages`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate overages acme --since 30d
  tollgate overages acme -o json")]
pub(crate) struct Overages {
    /// The account's id
    account: String,
    /// Of periods that end after this time: RFC 3339, or how long ago
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    since: Option<Timestamp>,
    /// Of periods that begin before this time
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    until: Option<Timestamp>,
    #[command(flatten)]
    remote: Remote,
}

impl Alerts {
    pub(crate) fn run(self) -> Result<()> {
        let mut pairs = self.listing.pairs();
        pairs.push(("account", self.account));
        pairs.push(("since", self.since.map(|time| time.to_string())));
        pairs.push(("until", self.until.map(|time| time.to_string())));
        let path = format!("/v1/alerts{}", query(&pairs));
        self.remote.output.list(&self.remote.client()?.read(&path)?.body, ALERTS)
    }
}

impl Overages {
    pub(crate) fn run(self) -> Result<()> {
        let pairs =
            [("since", self.since.map(|time| time.to_string())), ("until", self.until.map(|time| time.to_string()))];
        let path = format!("/v1/accounts/{}/overages{}", segment(&self.account), query(&pairs));
        self.remote.output.list(&self.remote.client()?.read(&path)?.body, OVERAGES)
    }
}
