//! `tollgate cluster`

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    failure::Result,
    output::{Column, rows},
    remote::Remote,
};

const NODES: &[Column] = &[
    ("node", "/name"),
    ("id", "/id"),
    ("voter", "/voter"),
    ("region", "/region"),
    ("peers", "/peer_addr"),
    ("admin", "/admin_addr"),
    ("data", "/data_addr"),
];
const GROUPS: &[Column] = &[
    ("group", "/group"),
    ("kind", "/kind"),
    ("leader", "/leader"),
    ("term", "/term"),
    ("last", "/last_index"),
    ("committed", "/committed_index"),
    ("applied", "/applied_index"),
    ("lag", "/lag"),
];

/// `cluster`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate cluster status
  tollgate cluster status -o json")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows nodes, groups, leaders, terms, indexes and lag, as the asked node sees them
    Status,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let Verb::Status = self.verb;
        // Also a node without a quorum says what it sees.
        let status = self.remote.client()?.read("/v1/cluster?consistency=stale")?.body;
        self.remote.output.print(&status, || {
            let of = |key: &str| status[key].as_array().cloned().unwrap_or_default();
            let asked = status["node"].as_str().unwrap_or("-");
            let state = match status["reason"].as_str() {
                Some(reason) => format!("{asked} is not ready: {reason}"),
                None => format!("{asked} is ready"),
            };
            let (nodes, groups): (Vec<Value>, Vec<Value>) = (of("nodes"), of("groups"));
            format!("{state}\n\n{}\n\n{}", rows(&nodes, NODES), rows(&groups, GROUPS))
        })
    }
}
