//! What the simulation's checkers see of a node besides what it answers: its logs and its states.

pub use crate::platform::simulation::{Clocks, Defect, break_connections, enter};
use crate::{
    model::{GroupId, LogId, NodeId},
    state::State,
    store::Store,
};

/// One group on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// Which.
    pub group: GroupId,
    /// Term of the node's vote.
    pub term: u64,
    /// It leads in that term.
    pub is_leader: bool,
    /// The log's first index (or where the next entry goes).
    pub first: u64,
    /// The log's last index.
    pub last: Option<u64>,
    /// Up to where the node knows the log to be committed.
    pub committed: u64,
    /// The last entry applied.
    pub applied: Option<LogId>,
}

impl Store {
    /// This node's Raft id.
    pub fn node_id(&self) -> NodeId {
        self.0.node.me()
    }

    /// Every group as it is on this node.
    pub fn group_views(&self) -> Vec<GroupView> {
        let node = &self.0.node;
        let view = |group: &std::sync::Arc<crate::raft::Group>| {
            let (progress, log) = (group.progress(), node.wal().group(group.id()));
            GroupView {
                group: group.id(),
                term: progress.term,
                is_leader: group.is_leader(),
                first: log.first_index,
                last: log.last_index,
                committed: progress.committed,
                applied: group.state().applied().last,
            }
        };
        node.groups().iter().map(view).collect()
    }

    /// Entries of a group's log from `from` to before `to`, as stored.
    ///
    /// # Errors
    /// The disk.
    pub fn log_entries(&self, group: GroupId, from: u64, to: u64) -> std::io::Result<Vec<(u64, bytes::Bytes)>> {
        self.0.node.wal().read(group, from, to, usize::MAX)
    }

    /// A group's state at its last applied entry.
    pub fn group_state(&self, group: GroupId) -> Option<std::sync::Arc<State>> {
        Some(self.0.node.replica(group)?.state().clone())
    }

    /// Whether each member has a vote, as this node knows.
    pub fn votes(&self) -> Vec<bool> {
        self.0.node.meta().members().into_values().map(|(_, votes)| votes).collect()
    }

    /// Hands the leadership of every group on.
    pub async fn hand_over(&self) {
        self.0.node.drain().await;
    }
}
