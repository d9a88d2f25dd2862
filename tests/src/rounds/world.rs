//! Three nodes, each in its own namespace, the accounts that clients use, and what is between them.

use std::time::Duration;

use serde_json::json;

use super::Random;
use crate::{Admin, Cluster, Net, Node, Options, SmallDisk, Upstream, until};

/// Nodes of a cluster.
pub(super) const NODES: usize = 3;
/// The node whose disk is small.
pub(super) const SMALL: usize = 2;

/// A cluster in a network of its own.
#[derive(Debug)]
pub struct World {
    /// The nodes.
    pub cluster: Cluster,
    /// What joins them.
    pub net: Net,
    /// The disk of the node `SMALL`.
    pub disk: SmallDisk,
    /// Behind all routes.
    pub upstream: Upstream,
}

impl World {
    /// Starts one, with a route to the upstream and the account `acme`, which has no limits. Its key.
    pub fn start() -> (Self, String) {
        let net = Net::new(NODES);
        let upstream = Upstream::start_at(net.hub());
        let mut cluster = Cluster::new(NODES, &Options::default());
        for (n, node) in cluster.nodes.iter_mut().enumerate() {
            node.move_to(&Net::addr(n));
            node.set_options(Options {
                wrapper: Net::wrapper(n),
                args: vec!["--insecure".to_owned()],
                ..Options::default()
            });
        }
        let peers: Vec<String> = cluster.nodes.iter().map(|node| node.peer_addr.clone()).collect();
        cluster.nodes.iter_mut().for_each(|node| node.join(&peers));
        let disk = SmallDisk::mount(&cluster.nodes[SMALL].data_dir);
        cluster.start_all();
        let world = Self { cluster, net, disk, upstream };
        let upstream = json!({ "targets": [{ "url": world.upstream.url }] });
        let route = json!({ "match": { "path_prefix": "/" }, "upstream": "scan" });
        for (path, body) in [("/v1/upstreams/scan", &upstream), ("/v1/routes/scan", &route)] {
            world.retried(|admin| admin.try_call("PUT", path, Some(body)).filter(|answer| answer.status < 300));
        }
        let key = world.account("acme", &json!({}));
        (world, key)
    }

    /// The data plane's addresses with a path.
    pub fn urls(&self, path: &str) -> Vec<String> {
        self.cluster.nodes.iter().map(|node| node.url(path)).collect()
    }

    /// An account of a tier of its own, of the same name, and a key.
    pub fn account(&self, name: &str, tier: &serde_json::Value) -> String {
        self.retried(|admin| {
            let answer = admin.try_call("PUT", &format!("/v1/tiers/{name}"), Some(tier))?;
            (answer.status < 300).then_some(())
        });
        self.retried(|admin| {
            let account = json!({ "id": name, "name": name, "tier": name });
            let answer = admin.try_call("POST", "/v1/accounts", Some(&account))?;
            // 409: it was made, and the answer was lost.
            (answer.status < 300 || answer.status == 409).then_some(())
        });
        self.key(name).1
    }

    /// A new key of an account: its id and its text.
    pub fn key(&self, account: &str) -> (String, String) {
        self.retried(|admin| {
            let answer = admin.try_call("POST", &format!("/v1/accounts/{account}/keys"), Some(&json!({})))?;
            let text = |field: &str| answer.body[field].as_str().map(str::to_owned);
            Some((text("id")?, text("secret")?))
        })
    }

    /// Asks one node after the other until one has done it.
    fn retried<T>(&self, mut act: impl FnMut(&Admin) -> Option<T>) -> T {
        let mut tries = 0;
        until("a write", || {
            tries += 1;
            act(&self.cluster.nodes[tries % NODES].admin())
        })
    }

    /// The node that leads the ledger.
    pub fn leader(&self) -> usize {
        self.cluster.leader(1)
    }

    /// The leader, or one of the others.
    pub fn victim(&self, leader: bool, random: &mut Random) -> usize {
        let leads = self.leader();
        if leader { leads } else { (leads + 1 + random.below(NODES - 1)) % NODES }
    }

    /// Links work, disks have room, and all nodes run and serve.
    pub fn heal(&mut self) {
        self.net.heal();
        self.disk.free();
        for node in &mut self.cluster.nodes {
            if !node.is_running() {
                // Takes note of the process that has ended.
                node.kill();
                node.start();
            }
        }
        for node in &mut self.cluster.nodes {
            wait_ready(node);
        }
    }
}

/// As `Node::wait_ready`, for a node that may end of itself once more: its disk was full a moment ago.
fn wait_ready(node: &mut Node) {
    until(&format!("{} serves", node.name), || {
        if !node.is_running() {
            node.kill();
            node.start();
        }
        if node.is_ready() {
            return Some(());
        }
        std::thread::sleep(Duration::from_millis(20));
        None
    });
}
