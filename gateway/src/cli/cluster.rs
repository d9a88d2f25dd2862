//! `tollgate cluster`

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use store::model::MAX_LEDGER_GROUPS;

use super::{
    client::segment,
    failure::Result,
    output::{Column, rows},
    remote::Remote,
};

const NODES: &[Column] = &[
    ("node", "/name"),
    ("id", "/id"),
    ("role", "/role"),
    ("live", "/live"),
    ("silent_ms", "/silent_ms"),
    ("draining", "/draining"),
    ("version", "/version"),
    ("applied", "/applied"),
    ("region", "/region"),
    ("peers", "/peer_addr"),
    ("admin", "/admin_addr"),
    ("data", "/data_addr"),
];
const GROUPS: &[Column] = &[
    ("group", "/group"),
    ("kind", "/kind"),
    ("slots", "/slots"),
    ("leader", "/leader"),
    ("term", "/term"),
    ("last", "/last_index"),
    ("committed", "/committed_index"),
    ("applied", "/applied_index"),
    ("lag", "/lag"),
];

/// Between two looks whether accounts are where they belong.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `cluster`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate cluster status
  tollgate cluster status -o json
  tollgate cluster drain node-2
  tollgate cluster transfer --to node-3
  tollgate cluster split --ledger-groups 2 --wait
  tollgate cluster remove node-5
  tollgate cluster join 10.0.0.7:8082")]
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
    /// Takes in a node that runs empty and waits for peers of its own --join that are gone; others come by themselves
    Join {
        /// Where it listens for peers
        #[arg(value_name = "HOST:PORT")]
        peer_addr: String,
    },
    /// Takes a node out, dead or alive: it is drained, what it may hold runs out (some 8 s), and it votes no more
    Remove {
        /// Its name or id
        node: String,
    },
    /// Before a node is taken down: its leadership goes elsewhere and it says that it is not ready; it goes on serving
    Drain {
        /// Its name or id
        node: String,
        /// Ends it
        #[arg(long)]
        undo: bool,
    },
    /// Hands leadership over
    Transfer {
        /// The group, 0 for the metadata; all when not said
        #[arg(long)]
        group: Option<u32>,
        /// The next leader, by name or id; whoever is fit when not said
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
    },
    /// Adds ledger groups, each with its own leader, and spreads the accounts over them while the cluster serves
    Split {
        /// How many there are to be in the end; groups are never taken away
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=i64::from(MAX_LEDGER_GROUPS)))]
        ledger_groups: u32,
        /// Waits until all accounts are where they belong
        #[arg(long)]
        wait: bool,
    },
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let client = self.remote.client()?;
        let status = match self.verb {
            // Also a node without a quorum says what it sees.
            Verb::Status => client.read("/v1/cluster?consistency=stale")?.body,
            Verb::Join { peer_addr } => client.post("/v1/cluster/nodes", &json!({ "peer_addr": peer_addr }))?.body,
            Verb::Remove { node } => {
                client.delete(&format!("/v1/cluster/nodes/{}", segment(&node)))?;
                eprintln!("node {node} has left the cluster: stop it");
                return Ok(());
            }
            Verb::Drain { node, undo } => {
                let body = json!({ "draining": !undo });
                client.post(&format!("/v1/cluster/nodes/{}/drain", segment(&node)), &body)?.body
            }
            Verb::Transfer { group, to } => {
                client.post("/v1/cluster/transfer-leader", &json!({ "group": group, "to": to }))?.body
            }
            Verb::Split { ledger_groups, wait } => {
                let mut status = client.post("/v1/cluster/split", &json!({ "ledger_groups": ledger_groups }))?.body;
                let mut told = String::new();
                while wait && !status["split"].is_null() {
                    let now = progress(&status["split"]);
                    if now != told {
                        eprintln!("{now}");
                        told = now;
                    }
                    std::thread::sleep(LOOK_EVERY);
                    status = client.read("/v1/cluster")?.body;
                }
                status
            }
        };
        self.remote.output.print(&status, || {
            let of = |key: &str| status[key].as_array().cloned().unwrap_or_default();
            let asked = status["node"].as_str().unwrap_or("-");
            let state = match status["reason"].as_str() {
                Some(reason) => format!("{asked} is not ready: {reason}"),
                None => format!("{asked} is ready"),
            };
            let (nodes, groups): (Vec<Value>, Vec<Value>) = (of("nodes"), of("groups"));
            let split = match status["split"]["ledger_groups"].as_u64() {
                Some(groups) => {
                    let progress = progress(&status["split"]);
                    format!("\n\naccounts are being spread over {groups} ledger groups: {progress}")
                }
                None => String::new(),
            };
            format!("{state}\n\n{}\n\n{}{split}", rows(&nodes, NODES), rows(&groups, GROUPS))
        })
    }
}

/// How far a split is, and what it waits for.
fn progress(split: &Value) -> String {
    let number = |of: &Value| of.as_u64().unwrap_or(0);
    let (all, to_move) = (number(&split["slots"]), number(&split["slots_to_move"]));
    let mut text = format!("{} of {all} slots are where they belong", all.saturating_sub(to_move));
    let moving = &split["moving"];
    if !moving.is_null() {
        let (slots, from, to) = (number(&moving["slots"]), number(&moving["from"]), number(&moving["to"]));
        text += &format!("; {slots} are moving from group {from} to group {to}");
    }
    if let Some(why) = split["waits_for"].as_str() {
        text += &format!("; waits: {why}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_says_how_far_it_is_and_what_it_waits_for() {
        let mut split = json!({ "ledger_groups": 2, "slots": 1_024, "slots_to_move": 384, "moving": null });
        assert_eq!(progress(&split), "640 of 1024 slots are where they belong");
        split["moving"] = json!({ "first_slot": 896, "slots": 128, "from": 1, "to": 2 });
        split["waits_for"] = json!("c does not answer");
        let told = progress(&split);
        assert!(told.ends_with("; 128 are moving from group 1 to group 2; waits: c does not answer"), "{told}");
    }
}
