//! `tollgate usage`

use clap::Args;
use store::model::Timestamp;

use super::{
    client::{query, segment},
    failure::Result,
    output::Column,
    remote::Remote,
    time,
};

const COLUMNS: [Column; 10] = [
    ("start", "/start"),
    ("requests", "/requests"),
    ("errors", "/errors"),
    ("rejected", "/rejected"),
    ("bytes in", "/bytes_in"),
    ("bytes out", "/bytes_out"),
    ("cost", "/cost"),
    ("p50 us", "/latency_us/p50"),
    ("p95 us", "/latency_us/p95"),
    ("p99 us", "/latency_us/p99"),
];

/// `usage`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate usage acme --step hour --by route
  tollgate usage acme --since 7d --step day -o json")]
pub(crate) struct Arguments {
    /// The account's id
    account: String,
    /// From this time: RFC 3339, or how long ago; 24h ago when not said
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    since: Option<Timestamp>,
    /// To this time; now when not said
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    until: Option<Timestamp>,
    /// Width of a line
    #[arg(long, value_parser = ["minute", "hour", "day"])]
    step: Option<String>,
    /// Split by
    #[arg(long, value_parser = ["route", "key", "status"])]
    by: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let pairs = query(&[
            ("since", self.since.map(|time| time.to_string())),
            ("until", self.until.map(|time| time.to_string())),
            ("step", self.step),
            ("by", self.by.clone()),
        ]);
        let path = format!("/v1/accounts/{}/usage{pairs}", segment(&self.account));
        let split: Option<Column> = match self.by.as_deref() {
            Some("route") => Some(("route", "/route")),
            Some("key") => Some(("key", "/key")),
            Some(_) => Some(("status", "/status")),
            None => None,
        };
        let columns: Vec<Column> =
            COLUMNS[..1].iter().copied().chain(split).chain(COLUMNS[1..].iter().copied()).collect();
        self.remote.output.list(&self.remote.client()?.read(&path)?.body, &columns)
    }
}
