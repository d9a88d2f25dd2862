//! How a node comes into a cluster, by itself: resume, form, or join.
//!
//! Decided from the disk and the peers, never from a setting that must be changed between the first start and the second:
//! - it has been a member: it resumes, and tells its cluster where it is now ([`moved`]), unless `--join` names another cluster
//!   ([`other_cluster`]);
//! - no peers are listed: a cluster of one;
//! - a listed peer is in a cluster: it asks to be taken in as a learner (what becomes of it then is `membership`'s);
//! - every listed peer answers "empty": the first of the list makes the cluster, with the first of them as voters, as many as
//!   `--voters` says, and the others join it;
//! - one does not answer: it waits, naming it. (Two halves must never form a cluster each.)

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use minicbor::{Decode, Encode};

mod moved;
mod other_cluster;

use super::{
    membership,
    node::Node,
    peer::CallError,
    placing,
    status::Status,
    wire::{self, Fault, Kind},
};
use crate::model::{GroupId, NodeId, NodeInfo};

const PAUSE: Duration = Duration::from_millis(200);
const CALL_DEADLINE: Duration = Duration::from_secs(1);
/// Taking a learner in is one entry's commit; longer means that it is asked again.
const JOIN_DEADLINE: Duration = Duration::from_secs(6);

/// A request to be taken in.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct Join {
    #[n(0)]
    pub(super) id: NodeId,
    #[n(1)]
    pub(super) info: NodeInfo,
    #[n(2)]
    pub(super) group: GroupId,
}

/// Runs once; ends when the node is a member that has a leader.
pub(super) async fn run(node: Arc<Node>) {
    if node.meta().is_initialized().await && node.ledger().is_initialized().await {
        tokio::join!(moved::tell(&node), other_cluster::check(&node), until_it_serves(&node));
    } else {
        if node.join().is_empty() {
            let own = BTreeMap::from([(node.me().0, node.info().clone())]);
            initialize(&node, own).await;
        } else {
            enter(&node).await;
        }
        until_it_serves(&node).await;
    }
    node.set_progress("");
}

/// Waits until this member has a leader and all that had been committed.
async fn until_it_serves(node: &Node) {
    node.set_progress("waiting for a leader");
    while node.groups().iter().any(|group| group.leader().is_none() || !group.is_in_contact()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.set_progress("catching up with the log");
    for group in node.groups().iter() {
        while group.barrier(CALL_DEADLINE).await.is_err() {}
    }
    for group in node.ledgers() {
        while let Err(error) = node.announce(&group).await {
            tracing::debug!(%error, group = %group.id(), "announce this start to the ledger");
        }
    }
    placing::place_first(node).await;
}

/// Makes the cluster. Every group is made by the same node with the same voters.
async fn initialize(node: &Node, voters: BTreeMap<u64, NodeInfo>) {
    for group in node.groups().iter() {
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
        let (mut empty, mut silent, mut members): (Vec<Status>, Vec<String>, Vec<Status>) = Default::default();
        for addr in node.join() {
            if addr == own {
                empty.push(node.status().await);
                continue;
            }
            let answer = node.peers().anyone(addr).call(Kind::Status, wire::cbor(&()), CALL_DEADLINE).await;
            match answer.and_then(|body| wire::from_cbor::<Status>(&body).map_err(Into::into)) {
                Ok(status) if status.id == node.me() => empty.push(node.status().await),
                Ok(status) if status.member => members.push(status),
                Ok(status) => empty.push(status),
                Err(CallError::Unreachable { error, .. }) => silent.push(format!("{addr} ({error})")),
                Err(error) => silent.push(error.to_string()),
            }
        }
        // One that knows a leader, rather than one that has just started itself.
        if let Some(member) = members.iter().find(|one| !one.leaders.is_empty()).or(members.first()) {
            node.set_progress(format!("joining the cluster through {}", member.info));
            if let Err(error) = join(node, member).await {
                node.set_progress(format!("joining the cluster through {}: {error}", member.info));
            }
        } else if !silent.is_empty() {
            node.set_progress(format!("waiting for peers that do not answer: {}", silent.join(", ")));
        } else {
            let ids: BTreeSet<u64> = empty.iter().map(|status| status.id.0).collect();
            let first = empty.iter().take(node.voters().max(1));
            let voters: BTreeMap<u64, NodeInfo> = first.map(|status| (status.id.0, status.info.clone())).collect();
            let listed: BTreeSet<&String> = node.join().iter().collect();
            if ids.len() < listed.len() {
                node.set_progress("two addresses of --join lead to the same node: list each node once");
            } else if empty.first().is_some_and(|first| first.id == node.me()) {
                node.set_progress(format!("forming a cluster of {} nodes", empty.len()));
                return initialize(node, voters).await;
            } else {
                node.set_progress("waiting for the first of --join to form the cluster");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks the leader of group 0 to take this node in; the ledger groups follow.
async fn join(node: &Node, member: &Status) -> Result<(), String> {
    let asked = match member.leaders.iter().find(|leader| leader.group == GroupId::META) {
        Some(leader) => {
            let join = Join { id: node.me(), info: node.info().clone(), group: GroupId::META };
            let peer = node.peers().anyone(&leader.info.peer_addr);
            peer.call(Kind::Join, wire::cbor(&join), JOIN_DEADLINE).await
        }
        None => Err(Fault::NotLeader(None).into()),
    };
    let error = match asked {
        Ok(_) => return Ok(()),
        // The leader itself, which has a quorum, says why not.
        Err(CallError::Fault(Fault::Failed(why))) => return Err(why),
        Err(error) => error.to_string(),
    };
    // One that leads no more may not know it yet.
    let voters = member.members.iter().filter(|one| one.voter).map(|one| (one.id.0, one.info.clone())).collect();
    Err(membership::trouble(&membership::look(node, voters).await).unwrap_or(error))
}

impl Node {
    /// Takes a node in as a learner, on the leader of group 0; what becomes of it then is `membership`'s. Who asks for itself
    /// and is a member already may be elsewhere now.
    pub(super) async fn take_in(&self, from: NodeId, join: Join) -> Result<(), Fault> {
        if join.group != GroupId::META {
            // A build that asks every group: the ledger groups follow group 0 by themselves.
            return Ok(());
        }
        let group = self.meta();
        let members = group.members();
        if let Some((known, _)) = members.get(&join.id.0).filter(|(known, _)| from == join.id && *known != join.info) {
            self.note_move(known, &join).await?;
        }
        // A leader that has just lost its quorum would take it in for itself alone.
        if group.leads().is_none() || !group.is_in_contact() {
            return Err(Fault::NotLeader(group.leader().map(|(id, _)| id.0)));
        }
        let known = members.get(&join.id.0).map(|(known, _)| known);
        if known.is_some_and(|known| from != join.id || *known == join.info) {
            return Ok(());
        }
        let others = members.iter().filter(|(id, (info, _))| **id != join.id.0 && info.name == join.info.name);
        for (id, (info, _)) in others {
            let peer = self.peers().peer(NodeId(*id), &info.peer_addr);
            if peer.call(Kind::Status, wire::cbor(&()), CALL_DEADLINE).await.is_ok() {
                return Err(Fault::Failed(format!(
                    "a node called {} is a member and answers at {}: give this one another --node-name, or stop that one \
                     if this is to replace it",
                    info.name, info.peer_addr
                )));
            }
        }
        if let Some(known) = known {
            group.set_member(join.id.0, join.info.clone()).await.map_err(Fault::Unknown)?;
            tracing::info!(node = %join.info, before = %known, id = %join.id, "a member has another address, name or region");
            return Ok(());
        }
        group.add_learner(join.id.0, join.info.clone()).await.map_err(Fault::Failed)?;
        tracing::info!(node = %join.info, id = %join.id, "a node has come into the cluster as a learner");
        Ok(())
    }
}
