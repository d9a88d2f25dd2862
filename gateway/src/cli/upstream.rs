//! `tollgate upstream`

use clap::Args;
use serde_json::{Value, json};

use super::{
    failure::Result,
    named::{Form, Kind, Verb, set},
    remote::Remote,
};

const KIND: Kind = Kind {
    path: "/v1/upstreams",
    noun: "upstream",
    columns: &[
        ("name", "/name"),
        ("targets", "/targets"),
        ("health check", "/health_check"),
        ("revision", "/revision"),
    ],
};

/// `upstream`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate upstream create files --target http://127.0.0.1:9000
  tollgate upstream list -o json")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb<Flags>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
struct Flags {
    /// An address, http://host:port or https://host:port; may be given more than once, and replaces all that there were
    #[arg(long, value_name = "URL")]
    target: Vec<String>,
    /// Time to connect
    #[arg(long, value_name = "MILLISECONDS")]
    connect_timeout_ms: Option<u64>,
    /// Longest silence in the middle of a body
    #[arg(long, value_name = "MILLISECONDS")]
    idle_timeout_ms: Option<u64>,
    /// What it speaks: http1 or http2 (gRPC)
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// Path that each target is asked for every --health-interval-ms; a 2xx is healthy
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// Time between two checks; 5000 when not said
    #[arg(long, value_name = "MILLISECONDS", requires = "health_path")]
    health_interval_ms: Option<u64>,
    /// Failures in a row after which a target is left out for a while
    #[arg(long, value_name = "COUNT")]
    eject_after: Option<u16>,
    /// Connections at once a node
    #[arg(long, value_name = "COUNT")]
    max_connections: Option<u32>,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        KIND.run(self.verb, &self.remote.client()?, self.remote.output)
    }
}

impl Form for Flags {
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("targets", "--target")];

    fn lay(&self, over: &mut Value) -> Result<()> {
        if !self.target.is_empty() {
            let targets: Value = self.target.iter().map(|url| json!({ "url": url })).collect();
            set(over, "targets", Some(targets));
        }
        set(over, "connect_timeout_ms", self.connect_timeout_ms);
        set(over, "idle_timeout_ms", self.idle_timeout_ms);
        set(over, "protocol", self.protocol.clone());
        if let Some(path) = &self.health_path {
            let interval_ms = self.health_interval_ms.unwrap_or(5_000);
            set(over, "health_check", Some(json!({ "path": path, "interval_ms": interval_ms })));
        }
        if let Some(failures) = self.eject_after {
            set(over, "outlier", Some(json!({ "failures": failures })));
        }
        set(over, "max_connections", self.max_connections);
        Ok(())
    }
}
