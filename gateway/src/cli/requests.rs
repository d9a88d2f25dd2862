//! `tollgate requests`

use clap::{Args, Subcommand};
use serde_json::Value;
use store::model::Timestamp;

use super::{
    client::{query, segment},
    explain,
    failure::Result,
    named::Listing,
    output::{self, Column},
    remote::Remote,
    tail, time,
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
#[command(after_help = "Examples:
  tollgate requests list --account acme --status 429 --since 15m
  tollgate requests tail --account acme
  tollgate requests get 01a1fcbf-ddfa-7afd-b03e-aa2842c0410f")]
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
    /// Shows rows as they are committed; Return pauses and goes on, Ctrl-C ends
    #[command(after_help = "Examples:
  tollgate requests tail
  tollgate requests tail --account acme --status 429
  tollgate requests tail --outcome admitted -o json | jq .path")]
    Tail {
        #[command(flatten)]
        which: Which,
        /// End after so many rows
        #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// Shows a request's row, and what decided it step by step
    Get {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Args)]
struct Filter {
    #[command(flatten)]
    which: Which,
    /// From this time: RFC 3339, or how long ago, like 15m
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    since: Option<Timestamp>,
    /// To this time
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    until: Option<Timestamp>,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Debug, Args)]
struct Which {
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
}

impl Which {
    fn pairs(self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("account", self.account),
            ("key", self.key),
            ("route", self.route),
            ("status", self.status.map(|status| status.to_string())),
            ("outcome", self.outcome),
        ]
    }
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let (client, format) = (self.remote.client()?, self.remote.output);
        match self.verb {
            Verb::List(filter) => {
                let mut pairs = filter.which.pairs();
                pairs.push(("since", filter.since.map(|time| time.to_string())));
                pairs.push(("until", filter.until.map(|time| time.to_string())));
                pairs.extend(filter.listing.pairs());
                format.list(&client.read(&format!("/v1/requests{}", query(&pairs)))?.body, COLUMNS)
            }
            Verb::Tail { which, count } => tail::run(&client, format, &which.pairs(), count),
            Verb::Get { id } => {
                let row = client.read(&format!("/v1/requests/{}", segment(&id)))?.body;
                format.print(&row, || traced(&row))
            }
        }
    }
}

/// The row, and below it what `explain` tells of a request.
fn traced(row: &Value) -> String {
    let mut fields = row.clone();
    let trace = fields.as_object_mut().and_then(|fields| fields.remove("trace"));
    let mut text = output::fields(&fields);
    if let Some(trace) = trace {
        let detail = output::cell(&trace["detail"]);
        text.push_str(&format!("\n\n{detail}\n\n{}", explain::met(&trace)));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rows_trace_stands_below_it_as_explain_tells_it() {
        let row = json!({
            "request_id": "01a1", "outcome": "rate-limited",
            "trace": {
                "step": "rate", "detail": "per-second had no unit",
                "steps": [{ "step": "key-state", "passes": true, "detail": "the key was active", "set_by": "/v1/keys/k" }],
                "policies": [{ "name": "per-second", "limit": 15, "remaining": 0, "setting": "5/s burst 15", "passes": false }],
            },
        });
        let text = traced(&row);
        assert!(text.starts_with("request_id  01a1") || text.starts_with("outcome"), "{text}");
        assert!(!text.contains("trace") && text.contains("\nper-second had no unit\n"), "{text}");
        assert!(text.contains("key-state  true") && text.contains("5/s burst 15"), "{text}");
    }
}
