//! Linearizable reads: what was committed before one is in force here before it is answered (P4).

use std::{sync::atomic::Ordering, time::Duration};

use openraft::{
    ReadPolicy,
    errors::{LinearizableReadError, RaftError},
};
use tokio::time::Instant;

use super::{Group, READ_ATTEMPT, RETRY_PAUSE};
use crate::{
    platform::planted,
    raft::wire::{self, Fault, Kind},
};

impl Group {
    /// The index that a linearizable read must see, confirmed by a quorum; on the leader only.
    pub(in crate::raft) async fn read_index_here(&self) -> Result<u64, Fault> {
        // Asking for it sends heartbeats.
        if self.quiet.load(Ordering::Relaxed) {
            return Err(Fault::NotLeader(None));
        }
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().log_id().index),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => Err(Fault::NotLeader(to.leader_id)),
            Err(error) => Err(Fault::Failed(error.to_string())),
        }
    }

    /// Waits until this replica has everything that was committed before the call (ReadIndex, Raft dissertation 6.4).
    pub(crate) async fn barrier(&self, deadline: Duration) -> Result<(), String> {
        if planted!(ReadsWithoutIndex) {
            return Ok(());
        }
        let until = Instant::now() + deadline;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("no leader confirmed a read in time".into());
            }
            let index = match self.leader() {
                Some((id, _)) if id == self.me => {
                    tokio::time::timeout(left, self.read_index_here()).await.ok().and_then(Result::ok)
                }
                Some((id, info)) => {
                    let peer = self.peers.peer(id, &info.peer_addr);
                    let body = peer.call(Kind::ReadIndex, wire::cbor(&self.id), left.min(READ_ATTEMPT)).await;
                    body.ok().and_then(|body| wire::from_cbor(&body).ok())
                }
                None => None,
            };
            if let Some(index) = index {
                return self.wait_applied(index, left).await;
            }
            tokio::time::sleep(RETRY_PAUSE.min(left)).await;
        }
    }

    /// Waits until this node has applied an index and acts on it.
    pub(crate) async fn wait_applied(&self, index: u64, deadline: Duration) -> Result<(), String> {
        if self.in_force() >= index {
            return Ok(());
        }
        let applied = self.raft.wait(Some(deadline)).applied_index_at_least(Some(index), "read").await;
        applied.map(|_| ()).map_err(|error| error.to_string())
    }
}
