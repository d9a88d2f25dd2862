//! Clusters with several ledger groups.

use super::*;
use crate::model::{CommandError, FirstVoter, NodeId, Placement, Reply};

const WANTED: u32 = 3;

fn wanting(dir: &std::path::Path, name: &str, addr: &str, join: &[String]) -> NodeSettings {
    NodeSettings { ledger_groups: WANTED, ..settings(dir, name, addr, join) }
}

async fn start(dir: &std::path::Path, name: &str, addr: &str, join: &[String]) -> Arc<Node> {
    Node::start(wanting(dir, name, addr, join), |_, _, _| Ok(())).await.expect("starts")
}

fn ids(node: &Node) -> Vec<u32> {
    node.groups().iter().map(|group| group.id().0).collect()
}

/// How many ledger groups each node leads.
fn led(nodes: &[Arc<Node>]) -> Vec<usize> {
    nodes.iter().map(|node| node.ledgers().iter().filter(|group| group.is_leader()).count()).collect()
}

async fn propose_everywhere(nodes: &[Arc<Node>], n: u64) {
    for node in nodes {
        for group in node.ledgers() {
            group.propose(&command(n), Wait::Applied, true, PATIENCE).await.expect("commits");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_is_made_with_several_groups_whose_leaders_spread_and_which_survive_a_loss_and_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(4);
    let mut nodes = Vec::new();
    for (name, addr) in ["a", "b", "c"].iter().zip(&addrs) {
        nodes.push(start(dir.path(), name, addr, &addrs[..3]).await);
    }
    for node in &nodes {
        until("readiness", || node.not_ready().is_none()).await;
        assert_eq!(ids(node), [0, 1, 2, 3]);
    }
    propose_everywhere(&nodes, 1).await;
    until("a leader on each node", || led(&nodes) == [1, 1, 1]).await;
    propose_everywhere(&nodes, 2).await;

    // Who joins opens all groups and becomes a member of each.
    let late = start(dir.path(), "d", &addrs[3], &[addrs[0].clone(), addrs[3].clone()]).await;
    until("readiness", || late.not_ready().is_none()).await;
    assert_eq!(ids(&late), [0, 1, 2, 3]);
    until("a member of all", || late.groups().iter().all(|group| group.members().contains_key(&late.me().0))).await;
    propose_everywhere(std::slice::from_ref(&late), 3).await;
    for (ours, theirs) in nodes[0].groups().iter().zip(late.groups().iter()) {
        ours.barrier(PATIENCE).await.expect("reads");
        theirs.barrier(PATIENCE).await.expect("reads");
        let same = || ours.state().applied().last == theirs.state().applied().last;
        until("the same entries", same).await;
        assert_eq!(ours.state().digest().expect("a digest"), theirs.state().digest().expect("a digest"));
    }
    late.shutdown().await;

    // One goes: the others lead all groups, and the one that comes back finds them on its disk.
    nodes.remove(0).shutdown().await;
    propose_everywhere(&nodes, 4).await;
    until("two lead three groups", || led(&nodes).iter().sum::<usize>() == WANTED as usize).await;
    let again = free_addrs(1).remove(0);
    nodes.push(start(dir.path(), "a", &again, &addrs[..3]).await);
    assert_eq!(ids(&nodes[2]), [0, 1, 2, 3], "before it has heard of anybody");
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_in_use_keeps_its_one_group() {
    let dir = tempfile::tempdir().expect("a directory");
    let addr = free_addrs(1).remove(0);
    let node = super::start(dir.path(), "a", &addr, &[]).await;
    until("readiness", || node.not_ready().is_none()).await;
    let write = MetaWrite {
        ops: vec![MetaOp::PutTier { tier: Tier { name: "free".into(), ..Tier::default() }, expect: Expect::Absent }],
        ..MetaWrite::default()
    };
    let write = Command::from(ColdCommand::Meta(write)).encode();
    let written = node.meta().propose(&write, Wait::Applied, true, PATIENCE).await.expect("commits");
    assert!(matches!(written, Reply::Written(_)), "{written:?}");
    node.shutdown().await;
    drop(node);
    let addr = free_addrs(1).remove(0);
    let node = start(dir.path(), "a", &addr, &[]).await;
    until("readiness", || node.not_ready().is_none()).await;
    assert_eq!(ids(&node), [0, 1]);
    let voters = [FirstVoter { id: NodeId(1), info: NodeInfo::default() }];
    for (expect, why) in [(0, "is in use"), (7, "epoch 0")] {
        let place = ColdCommand::Place { expect, placement: Placement::even(2, &voters) };
        let place = Command::from(place).encode();
        let reply = node.meta().propose(&place, Wait::Applied, true, PATIENCE).await.expect("commits");
        assert!(matches!(&reply, Reply::Refused(CommandError::Placement(what)) if what.contains(why)), "{reply:?}");
    }
    node.shutdown().await;
}
