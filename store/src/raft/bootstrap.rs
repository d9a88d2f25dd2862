//! How a node comes into a cluster, by itself: resume, form, or join.
//!
//! Decided from the disk and the peers, never from a setting that must be changed between the first start and the second:
//! - it has been a member: it resumes;
//! - no peers are listed: a cluster of one;
//! - a listed peer is in a cluster: it asks to be taken in (as a learner that is promoted while voters are missing; in the
//!   place of a member of the same name, if there is one);
//! - every listed peer answers "empty": the first of the list makes the cluster with all of them as voters;
//! - one does not answer: it waits, naming it. (Two halves must never form a cluster each.)

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use minicbor::{Decode, Encode};
use openraft::ChangeMembers;

use super::{
    group::Group,
    node::Node,
    wire::{self, Fault, Kind, Status},
};
use crate::model::{GroupId, NodeId, NodeInfo};

const PAUSE: Duration = Duration::from_millis(200);
const CALL_DEADLINE: Duration = Duration::from_secs(1);
/// A joining node must have caught up by then; else it asks again.
const JOIN_DEADLINE: Duration = Duration::from_secs(9);

/// A request to be taken in.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct Join {
    #[n(0)]
    id: NodeId,
    #[n(1)]
    info: NodeInfo,
    #[n(2)]
    group: GroupId,
}

/// Runs once; ends when the node is a member that has a leader.
pub(super) async fn run(node: Arc<Node>) {
    if !node.meta().is_initialized().await || !node.ledger().is_initialized().await {
        if node.join().is_empty() {
            let own = BTreeMap::from([(node.me().0, node.info().clone())]);
            initialize(&node, own).await;
        } else {
            enter(&node).await;
        }
    }
    node.set_progress("waiting for a leader");
    while node.groups().iter().any(|group| group.leader().is_none() || !group.is_in_contact()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.set_progress("catching up with the log");
    for group in node.groups() {
        while group.barrier(CALL_DEADLINE).await.is_err() {}
    }
    while let Err(error) = node.announce().await {
        tracing::debug!(%error, "announce this start to the ledger");
    }
    node.set_progress("");
}

/// Makes the cluster. Every group is made by the same node with the same voters.
async fn initialize(node: &Node, voters: BTreeMap<u64, NodeInfo>) {
    for group in node.groups() {
        while !group.is_initialized().await {
            if let Err(error) = group.raft().initialize(voters.clone()).await {
                node.set_progress(format!("make raft group {}: {error}", group.id()));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    node.initialized_cluster.store(true, Ordering::Release);
}

/// Forms or joins a cluster with the listed peers.
async fn enter(node: &Arc<Node>) {
    let own = &node.info().peer_addr;
    loop {
        // Somebody may have taken this node in meanwhile.
        if node.meta().is_initialized().await && node.ledger().is_initialized().await {
            return;
        }
        let (mut empty, mut silent, mut members): (Vec<Status>, Vec<&String>, Vec<Status>) = Default::default();
        for addr in node.join() {
            if addr == own {
                empty.push(node.status().await);
                continue;
            }
            let answer = node.peers().anyone(addr).call(Kind::Status, wire::cbor(&()), CALL_DEADLINE).await;
            match answer.ok().and_then(|body| wire::from_cbor::<Status>(&body).ok()) {
                Some(status) if status.id == node.me() => empty.push(node.status().await),
                Some(status) if status.member => members.push(status),
                Some(status) => empty.push(status),
                None => silent.push(addr),
            }
        }
        if let Some(member) = members.first() {
            node.set_progress(format!("joining the cluster through {}", member.info));
            if let Err(error) = join(node, member).await {
                node.set_progress(format!("joining the cluster through {}: {error}", member.info));
            }
        } else if !silent.is_empty() {
            let names: Vec<&str> = silent.iter().map(|addr| addr.as_str()).collect();
            node.set_progress(format!("waiting for peers that do not answer: {}", names.join(", ")));
        } else {
            let voters: BTreeMap<u64, NodeInfo> =
                empty.iter().map(|status| (status.id.0, status.info.clone())).collect();
            let listed: BTreeSet<&String> = node.join().iter().collect();
            if voters.len() < listed.len() {
                node.set_progress("two addresses of --join lead to the same node: list each node once");
            } else if empty.first().is_some_and(|first| first.id == node.me()) {
                node.set_progress(format!("forming a cluster of {} nodes", voters.len()));
                return initialize(node, voters).await;
            } else {
                node.set_progress("waiting for the first of --join to form the cluster");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks the leader of each group to take this node in.
async fn join(node: &Node, member: &Status) -> Result<(), String> {
    for group in node.groups() {
        let leader = member.leaders.iter().find(|leader| leader.group == group.id());
        let leader = &leader.ok_or_else(|| format!("it knows no leader of group {}", group.id()))?.info;
        let join = Join { id: node.me(), info: node.info().clone(), group: group.id() };
        let peer = node.peers().anyone(&leader.peer_addr);
        let asked = peer.call(Kind::Join, wire::cbor(&join), JOIN_DEADLINE + CALL_DEADLINE).await;
        asked.map_err(|error| error.to_string())?;
    }
    Ok(())
}

impl Node {
    /// Takes a node into a group, on its leader: a learner first, then a voter while voters are missing or in the place of the
    /// member whose name it has.
    pub(super) async fn take_in(&self, join: Join) -> Result<(), Fault> {
        let _one = self.membership.lock().await;
        let group = self.group(join.group)?;
        if !group.is_leader() {
            return Err(Fault::NotLeader(group.leader().map(|(id, _)| id.0)));
        }
        tokio::time::timeout(JOIN_DEADLINE, admit(&group, &join, self.voters()))
            .await
            .map_err(|_| Fault::Failed("it has not caught up yet: ask again".into()))?
    }
}

async fn admit(group: &Group, join: &Join, voters_wanted: usize) -> Result<(), Fault> {
    let failed = |error: String| Fault::Failed(format!("take node {} in: {error}", join.info));
    let members = group.members();
    if !members.contains_key(&join.id.0) {
        group
            .raft()
            .add_learner(join.id.0, join.info.clone(), true)
            .await
            .map_err(|error| failed(error.to_string()))?;
    }
    let replaced: BTreeSet<u64> = members
        .iter()
        .filter(|(id, (info, _))| **id != join.id.0 && info.name == join.info.name)
        .map(|(id, _)| *id)
        .collect();
    let mut voters: BTreeSet<u64> = members.iter().filter(|(_, (_, votes))| *votes).map(|(id, _)| *id).collect();
    let before = voters.clone();
    let replaces_a_voter = voters.intersection(&replaced).next().is_some();
    voters.retain(|id| !replaced.contains(id));
    if replaces_a_voter || voters.len() < voters_wanted {
        voters.insert(join.id.0);
    }
    if voters != before {
        group.raft().change_membership(voters, false).await.map_err(|error| failed(error.to_string()))?;
    }
    let left: BTreeSet<u64> = replaced.iter().copied().filter(|id| group.members().contains_key(id)).collect();
    if !left.is_empty() {
        group
            .raft()
            .change_membership(ChangeMembers::RemoveNodes(left), false)
            .await
            .map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}
