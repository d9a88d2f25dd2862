//! Does things to the service at set times: `kill leader @20s; start node-2 @40s`.
//!
//! ```text
//! kill|stop|start NODE @TIME    NODE is a name, `leader` (of the ledger), or `follower` (a node that is not)
//! exec COMMAND @TIME            a shell command; TOLLGATE_LEADER is in its environment
//! ```
//! How a node is reached: `--chaos-control URL` names something that takes `POST /nodes/{name}/{verb}`, as
//! `tollgate demo --nodes 3 --processes` offers it. There each node is a process of its own and `kill` is SIGKILL.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{admin::Admin, client::Control, shape};

/// What to do.
#[derive(Debug, Clone, PartialEq)]
enum Act {
    /// A verb and a node.
    Node(&'static str, String),
    /// A command.
    Exec(String),
}

/// A step at its time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    at: f64,
    act: Act,
}

/// Something was done.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// Seconds since the start.
    pub(crate) at: f64,
    /// Microseconds since 1970.
    pub(crate) at_us: i64,
    /// In words.
    pub(crate) what: String,
    /// Where clients reached the node, when one was killed.
    pub(crate) killed: Option<String>,
}

const VERBS: [&str; 3] = ["kill", "stop", "start"];

/// Reads the steps, in order of their times.
pub(crate) fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let form = || {
            format!("{part:?}: expected one like \"kill leader @20s\", \"start node-2 @40s\" or \"exec ./x.sh @30s\"")
        };
        let (what, at) = part.rsplit_once('@').ok_or_else(form)?;
        let at = shape::duration(at.trim())?;
        let (verb, rest) = what.trim().split_once(' ').ok_or_else(form)?;
        let rest = rest.trim().to_owned();
        let act = match VERBS.iter().find(|known| **known == verb) {
            Some(verb) if !rest.is_empty() && !rest.contains(' ') => Act::Node(verb, rest),
            None if verb == "exec" && !rest.is_empty() => Act::Exec(rest),
            _ => return Err(form()),
        };
        steps.push(Step { at, act });
    }
    steps.sort_by(|a, b| a.at.total_cmp(&b.at));
    Ok(steps)
}

/// Where nodes can be reached.
#[derive(Debug)]
pub(crate) struct Hands {
    /// Something that kills and starts nodes.
    pub(crate) control: Option<String>,
    /// The cluster's admin API, to find the leader.
    pub(crate) admin: Option<Arc<Admin>>,
}

/// Runs the steps on a thread of their own; what was done comes through the channel.
pub(crate) fn start(steps: Vec<Step>, hands: Hands, control: Arc<Control>) -> mpsc::Receiver<Done> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for step in steps {
            let at = control.start() + Duration::from_secs_f64(step.at);
            while let Some(wait) = at.checked_duration_since(std::time::Instant::now()) {
                if control.is_draining() {
                    return;
                }
                std::thread::sleep(wait.min(Duration::from_millis(100)));
            }
            let now = std::time::Instant::now();
            let done = act(&step.act, &hands);
            let (what, killed) = done.unwrap_or_else(|error| (format!("chaos failed: {error:#}"), None));
            let at = now.saturating_duration_since(control.start()).as_secs_f64();
            if sender.send(Done { at, at_us: control.unix_us(now), what, killed }).is_err() {
                return;
            }
        }
    });
    receiver
}

fn act(act: &Act, hands: &Hands) -> Result<(String, Option<String>)> {
    match act {
        Act::Exec(command) => {
            let mut shell = std::process::Command::new("sh");
            shell.arg("-c").arg(command);
            if let Some(admin) = &hands.admin
                && let Ok(cluster) = admin.cluster()
            {
                shell.env("TOLLGATE_LEADER", leader(&cluster).unwrap_or_default());
            }
            let status = shell.status().with_context(|| format!("run {command:?}"))?;
            ensure!(status.success(), "{command:?}: {status}");
            Ok((format!("ran {command}"), None))
        }
        Act::Node(verb, who) => {
            let control = hands.control.as_deref().context("nothing to reach nodes with: give --chaos-control URL")?;
            let cluster = hands.admin.as_ref().map(|admin| admin.cluster()).transpose()?;
            let name = match (who.as_str(), &cluster) {
                ("leader", Some(cluster)) => leader(cluster)?,
                ("follower", Some(cluster)) => {
                    let leader = leader(cluster)?;
                    let names = nodes(cluster).filter_map(|node| node["name"].as_str());
                    names.map(str::to_owned).find(|name| *name != leader).context("no node besides the leader")?
                }
                ("leader" | "follower", None) => bail!("who is {who} is asked of the admin API: give --admin"),
                (name, _) => name.to_owned(),
            };
            let url = format!("{}/nodes/{name}/{verb}", control.trim_end_matches('/'));
            ureq::post(&url).send_empty().with_context(|| format!("POST {url}"))?;
            let data_addr = cluster.as_ref().and_then(|cluster| {
                let node = nodes(cluster).find(|node| node["name"] == name.as_str())?;
                node["data_addr"].as_str().map(str::to_owned)
            });
            let role = if *who == name { name } else { format!("{who} ({name})") };
            let killed = if *verb == "kill" { Some(data_addr.unwrap_or_default()) } else { None };
            Ok((format!("{verb} {role}"), killed))
        }
    }
}

fn nodes(cluster: &Value) -> impl Iterator<Item = &Value> {
    cluster["nodes"].as_array().into_iter().flatten()
}

/// The ledger's leader, by name.
fn leader(cluster: &Value) -> Result<String> {
    let groups = cluster["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ledger = groups.iter().find(|group| group["kind"] == "ledger").or_else(|| groups.first());
    let leader = ledger.map(|group| &group["leader"]).context("the cluster shows no groups")?;
    if let Some(name) = leader.as_str() {
        // Some versions show ids; a name is what nodes are told apart by.
        let by_id = nodes(cluster).find(|node| node["id"] == name).and_then(|node| node["name"].as_str());
        return Ok(by_id.unwrap_or(name).to_owned());
    }
    let by_id = nodes(cluster).find(|node| !leader.is_null() && node["id"] == *leader);
    by_id.and_then(|node| node["name"].as_str()).map(str::to_owned).context("the ledger has no leader right now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_in_the_order_of_their_times() {
        let steps = parse("start node-2 @40s; kill leader @20s; exec ./cut.sh a b @30s").expect("steps");
        let acts: Vec<_> = steps.into_iter().map(|step| (step.at, step.act)).collect();
        assert_eq!(
            acts,
            [
                (20.0, Act::Node("kill", "leader".into())),
                (30.0, Act::Exec("./cut.sh a b".into())),
                (40.0, Act::Node("start", "node-2".into())),
            ]
        );
        for wrong in ["kill leader", "kil leader @3s", "kill @3s", "kill a b @3s", "kill leader @soon"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_ledgers_leader_is_found_by_name_or_id() {
        let cluster = |leader: Value| {
            serde_json::json!({
                "nodes": [{ "id": "1f", "name": "node-1" }, { "id": "2f", "name": "node-2" }],
                "groups": [{ "kind": "meta", "leader": "node-1" }, { "kind": "ledger", "leader": leader }],
            })
        };
        assert_eq!(leader(&cluster("node-2".into())).expect("by name"), "node-2");
        assert_eq!(leader(&cluster("2f".into())).expect("by id"), "node-2");
        assert!(leader(&cluster(Value::Null)).is_err());
    }
}
