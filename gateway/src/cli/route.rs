//! `tollgate route`

use clap::Args;
use serde_json::{Value, json};

use super::{
    failure::Result,
    named::{Form, Kind, Verb, set},
    remote::Remote,
};

const KIND: Kind = Kind {
    path: "/v1/routes",
    noun: "route",
    columns: &[
        ("name", "/name"),
        ("match", "/match"),
        ("upstream", "/upstream"),
        ("strip prefix", "/strip_prefix"),
        ("scopes", "/scopes"),
        ("cost", "/cost"),
        ("revision", "/revision"),
    ],
};

/// `route`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate route create files --path-prefix /v4 --upstream files
  tollgate route set files --methods GET,POST
  tollgate route list")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb<Flags>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
struct Flags {
    /// The upstream's name
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Host that requests are for; any when not said
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// How their paths begin
    #[arg(long, value_name = "PATH", conflicts_with = "path")]
    path_prefix: Option<String>,
    /// Their whole path
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Their methods; any when not said
    #[arg(long, value_name = "METHOD,...", value_delimiter = ',')]
    methods: Option<Vec<String>>,
    /// Taken off the front of the path
    #[arg(long, value_name = "PATH")]
    strip_prefix: Option<String>,
    /// To the first byte of the upstream's answer
    #[arg(long, value_name = "MILLISECONDS")]
    timeout_ms: Option<u64>,
    /// Tries after a connection that failed
    #[arg(long, value_name = "COUNT")]
    retries: Option<u8>,
    /// Put before the path, after --strip-prefix
    #[arg(long, value_name = "PATH")]
    add_prefix: Option<String>,
    /// From the upstream call to the end of its answer
    #[arg(long, value_name = "MILLISECONDS")]
    total_timeout_ms: Option<u64>,
    /// Statuses of the upstream after which a request that may be sent twice is tried again
    #[arg(long, value_name = "STATUS,...", value_delimiter = ',')]
    retry_statuses: Option<Vec<u16>>,
    /// Origins whose pages may call, like https://app.example.com; more of CORS with `tollgate apply`
    #[arg(long, value_name = "ORIGIN,...", value_delimiter = ',')]
    cors_origins: Option<Vec<String>>,
    /// Scopes that a key needs
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// Units of a cost quota a request
    #[arg(long, value_name = "UNITS")]
    cost: Option<u64>,
    /// Units of a cost quota for each begun KiB of the body, on top
    #[arg(long, value_name = "UNITS")]
    cost_per_kib: Option<u64>,
    /// Response header by which the upstream says the cost, and the most that it can say
    #[arg(long, value_name = "NAME=MAX", value_parser = cost_header)]
    cost_header: Option<Value>,
    /// Largest request body
    #[arg(long, value_name = "BYTES")]
    max_body_bytes: Option<u64>,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        KIND.run(self.verb, &self.remote.client()?, self.remote.output)
    }
}

fn cost_header(text: &str) -> std::result::Result<Value, String> {
    let form = || format!("{text:?} is not a header and its maximum: expected one like x-units=100");
    let (name, max) = text.split_once('=').ok_or_else(form)?;
    let max: u64 = max.parse().map_err(|_| form())?;
    Ok(json!({ "name": name.to_lowercase(), "max": max }))
}

impl Form for Flags {
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("upstream", "--upstream")];

    fn lay(&self, over: &mut Value) -> Result<()> {
        let mut matches = over.get("match").cloned().unwrap_or_else(|| json!({}));
        if let Some(map) = matches.as_object_mut() {
            // One of the two takes the other's place.
            if self.path.is_some() {
                map.remove("path_prefix");
            } else if self.path_prefix.is_some() {
                map.remove("path");
            }
        }
        set(&mut matches, "host", self.host.clone());
        set(&mut matches, "path_prefix", self.path_prefix.clone());
        set(&mut matches, "path", self.path.clone());
        set(&mut matches, "methods", self.methods.clone());
        set(over, "match", Some(matches));
        set(over, "upstream", self.upstream.clone());
        set(over, "strip_prefix", self.strip_prefix.clone());
        set(over, "timeout_ms", self.timeout_ms);
        set(over, "retries", self.retries);
        set(over, "add_prefix", self.add_prefix.clone());
        set(over, "total_timeout_ms", self.total_timeout_ms);
        set(over, "retry_statuses", self.retry_statuses.clone());
        if let Some(origins) = &self.cors_origins {
            let mut cors = over.get("cors").filter(|cors| cors.is_object()).cloned().unwrap_or_else(|| json!({}));
            set(&mut cors, "origins", Some(origins.clone()));
            set(over, "cors", Some(cors));
        }
        set(over, "scopes", self.scopes.clone());
        set(over, "cost", self.cost);
        set(over, "cost_per_kib", self.cost_per_kib);
        set(over, "cost_header", self.cost_header.clone());
        set(over, "max_body_bytes", self.max_body_bytes);
        Ok(())
    }
}
