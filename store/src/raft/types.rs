//! openraft's types as this crate instantiates them. Standard Raft: one leader a term, so a log id is (term, index).

use std::fmt;

use bytes::Bytes;
use openraft::{impls::leader_id_std::LeaderId, raft::responder::Responder, vote::RaftLeaderId};
use tokio::sync::oneshot;

use crate::model::{self, NodeInfo, Reply};

/// A command's bytes (`model::Command`), opaque to Raft.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The committed form of a leader id: the term alone.
type CommittedLeaderId = <LeaderId<u64, u64> as RaftLeaderId>::Committed;

/// Tollgate's Raft types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Reply;
    type NodeId = u64;
    type Node = NodeInfo;
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, u64, NodeInfo>;
    type Entry = openraft::impls::Entry<CommittedLeaderId, Self::Payload>;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type Responder<T>
        = Waiter<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Log position in openraft's form.
pub(crate) type RaftLogId = openraft::LogId<CommittedLeaderId>;
/// Vote in openraft's form.
pub(crate) type Vote = openraft::Vote<LeaderId<u64, u64>>;
/// Log entry in openraft's form.
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
/// Entry payload in openraft's form.
pub(crate) type Payload = openraft::EntryPayload<Proposal, u64, NodeInfo>;
/// Membership in openraft's form.
pub(crate) type Membership = openraft::Membership<u64, NodeInfo>;
/// Membership with the log id that set it.
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// Snapshot description in openraft's form.
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// What a write answers.
pub(crate) type WriteResult = openraft::raft::ClientWriteResult<TypeConfig>;

/// Our log id from openraft's.
pub(crate) fn log_id(id: &RaftLogId) -> model::LogId {
    model::LogId { term: id.leader_id.term, index: id.index }
}

/// openraft's log id from ours.
pub(crate) fn raft_log_id(id: model::LogId) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(id.term), id.index)
}

/// Who waits for a proposal: for its commit, for its application, or for both.
///
/// openraft's own `ProgressResponder` warns about every receiver that is gone; here giving up is normal.
pub(crate) struct Waiter<C: openraft::RaftTypeConfig, T> {
    committed: Option<oneshot::Sender<openraft::alias::LogIdOf<C>>>,
    complete: Option<oneshot::Sender<T>>,
}

impl<C: openraft::RaftTypeConfig, T> Waiter<C, T> {
    /// A waiter, its commit, and its completion (which also tells of a failure before the commit).
    #[allow(clippy::type_complexity, reason = "a waiter and its two ends")]
    pub(crate) fn pair() -> (Self, oneshot::Receiver<openraft::alias::LogIdOf<C>>, oneshot::Receiver<T>) {
        let (committed, commit) = oneshot::channel();
        let (complete, completion) = oneshot::channel();
        (Self { committed: Some(committed), complete: Some(complete) }, commit, completion)
    }
}

impl<C: openraft::RaftTypeConfig, T: Send + 'static> Responder<C, T> for Waiter<C, T> {
    fn on_commit(&mut self, log_id: openraft::alias::LogIdOf<C>) {
        if let Some(committed) = self.committed.take() {
            let _ = committed.send(log_id);
        }
    }

    fn on_complete(mut self, result: T) {
        if let Some(complete) = self.complete.take() {
            let _ = complete.send(result);
        }
    }
}
