//! A member whose address, name or region has changed since its last start: its cluster is told.
//!
//! Whoever leads writes it into the membership. All members are told, for a leader must reach this node before it can commit
//! anything when its quorum needs it; and peers of `--join` are asked who they are, for they may have moved as well.

use std::time::Duration;

use super::{CALL_DEADLINE, JOIN_DEADLINE, Join};
use crate::{
    model::{GroupId, NodeId, NodeInfo},
    raft::{
        node::Node,
        peer::CallError,
        status::Status,
        wire::{self, Fault, Kind},
    },
};

/// Pause before members are told again.
const TELL_AGAIN: Duration = Duration::from_millis(500);

/// Ends when the leader has taken note (one of an older build takes none), this node is no member any more, or another
/// process answers as this node: two that vote as one would break every promise, so the one that came later stops.
pub(super) async fn tell(node: &Node) {
    let mut told = false;
    loop {
        let members = node.meta().members();
        let Some((known, _)) = members.get(&node.me().0) else { return };
        if known == node.info() {
            return;
        }
        if let Some(owner) = answers_as(node, node.me(), node.info(), known).await {
            return node.fail(format!(
                "{owner} answers as this node does, {}: this data directory is a copy of its. Start this one with an empty \
                 directory and a --node-name of its own; to try a copy, start it where it does not reach the owner",
                node.me()
            ));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!(now = ?node.info(), before = ?known, "this node tells its cluster where and what it is now");
        }
        let join = Join { id: node.me(), info: node.info().clone(), group: GroupId::META };
        let answers = if node.meta().leads().is_some() {
            vec![node.take_in(node.me(), join).await.map_err(CallError::from)]
        } else {
            find(node).await;
            let others = members.iter().filter(|(id, _)| **id != node.me().0);
            let asked = others.map(|(id, (info, _))| {
                let (peer, join) = (node.peers().peer(NodeId(*id), &info.peer_addr), wire::cbor(&join));
                async move { peer.call(Kind::Join, join, JOIN_DEADLINE).await.map(drop) }
            });
            futures_util::future::join_all(asked).await
        };
        for answer in answers {
            match answer {
                Ok(()) => return,
                Err(CallError::Fault(Fault::Failed(why))) => {
                    node.set_progress(format!("the cluster does not take this node as it is now: {why}"));
                }
                // It does not lead, or is not reached.
                Err(_) => {}
            }
        }
        tokio::time::sleep(TELL_AGAIN).await;
    }
}

/// Members that listed peers turn out to be, and are not where the membership says.
async fn find(node: &Node) {
    let members = node.meta().members();
    let is_known = |addr: &String| members.values().any(|(info, _)| info.peer_addr == *addr);
    let asked =
        node.join().iter().filter(|addr| **addr != node.info().peer_addr && !is_known(addr)).map(|addr| async move {
            let answer = node.peers().anyone(addr).call(Kind::Status, wire::cbor(&()), CALL_DEADLINE).await;
            Some((addr, wire::from_cbor::<Status>(&answer.ok()?).ok()?.id))
        });
    for (addr, id) in futures_util::future::join_all(asked).await.into_iter().flatten() {
        if members.contains_key(&id.0) && id != node.me() {
            node.peers().moved(id, addr);
        }
    }
}

/// Who else answers as `id` where the membership has it. An old address may lead to the process that is at the new one.
async fn answers_as(node: &Node, id: NodeId, now: &NodeInfo, known: &NodeInfo) -> Option<NodeInfo> {
    let there = node.peers().anyone(&known.peer_addr).call(Kind::Status, wire::cbor(&()), CALL_DEADLINE).await;
    let there = wire::from_cbor::<Status>(&there.ok()?).ok()?;
    (there.id == id && there.info != *now).then_some(there.info)
}

impl Node {
    /// A member says that it is not what the membership has. Noted wherever it says so.
    pub(super) async fn note_move(&self, known: &NodeInfo, join: &Join) -> Result<(), Fault> {
        if known.peer_addr == join.info.peer_addr {
            return Ok(());
        }
        if answers_as(self, join.id, &join.info, known).await.is_some() {
            return Err(Fault::Failed(format!(
                "{known} answers as well, with the same data directory: one of the two is a copy; stop it, and start it with \
                 an empty directory and a --node-name of its own"
            )));
        }
        self.peers().moved(join.id, &join.info.peer_addr);
        Ok(())
    }
}
