//! `tollgate requests`

use clap::{Args, Subcommand};
use store::model::Timestamp;

use super::{
    client::{query, segment},
    failure::Result,
    named::Listing,
    output::Column,
    remote::Remote,
    time,
};

const COLUMNS: &[Column] = &[
    ("ts", "/ts"),
    ("request id", "/request_id"),
    ("account", "/account"),
    ("route", "/route"),
    ("method", "/method"),
    ("path", "/path"),
    ("status", "/status"),
    ("outcome", "/outcome"),
    ("us", "/duration_us"),
    ("node", "/node"),
    ("count", "/count"),
];

/// `requests`
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists request rows, newest first
    List(Filter),
    /// Shows a request's row
    Get {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Args)]
struct Filter {
    /// Of this account
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// With this key
    #[arg(long, value_name = "KEY ID")]
    key: Option<String>,
    /// On this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// With this status
    #[arg(long, value_name = "STATUS")]
    status: Option<u16>,
    /// With this outcome (admitted, rate-limited, ...)
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// From this time: RFC 3339, or how long ago, like 15m
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    since: Option<Timestamp>,
    /// To this time
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    until: Option<Timestamp>,
    #[command(flatten)]
    listing: Listing,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let (client, format) = (self.remote.client()?, self.remote.output);
        match self.verb {
            Verb::List(filter) => {
                let mut pairs = vec![
                    ("account", filter.account),
                    ("key", filter.key),
                    ("route", filter.route),
                    ("status", filter.status.map(|status| status.to_string())),
                    ("outcome", filter.outcome),
                    ("since", filter.since.map(|time| time.to_string())),
                    ("until", filter.until.map(|time| time.to_string())),
                ];
                pairs.extend(filter.listing.pairs());
                format.list(&client.read(&format!("/v1/requests{}", query(&pairs)))?.body, COLUMNS)
            }
            Verb::Get { id } => format.object(&client.read(&format!("/v1/requests/{}", segment(&id)))?.body),
        }
    }
}
