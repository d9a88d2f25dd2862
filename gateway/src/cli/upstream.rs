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
    /// An address, http://host:port; may be given more than once, and replaces all that there were
    #[arg(long, value_name = "URL")]
    target: Vec<String>,
    /// Time to connect
    #[arg(long, value_name = "MILLISECONDS")]
    connect_timeout_ms: Option<u64>,
    /// Longest silence in the middle of a body
    #[arg(long, value_name = "MILLISECONDS")]
    idle_timeout_ms: Option<u64>,
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
    fn lay(&self, over: &mut Value) -> Result<()> {
        if !self.target.is_empty() {
            let targets: Value = self.target.iter().map(|url| json!({ "url": url })).collect();
            set(over, "targets", Some(targets));
        }
        set(over, "connect_timeout_ms", self.connect_timeout_ms);
        set(over, "idle_timeout_ms", self.idle_timeout_ms);
        set(over, "max_connections", self.max_connections);
        Ok(())
    }
}
