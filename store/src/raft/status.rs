//! What a node says of itself to any peer that asks.

use std::sync::PoisonError;

use minicbor::{Decode, Encode};

use super::{node::Node, version::Spoken};
use crate::model::{GroupId, NodeId, NodeInfo};

/// A node's answer to `Kind::Status`.
#[derive(Debug, Default, Clone, PartialEq, Encode, Decode)]
pub(crate) struct Status {
    #[n(0)]
    pub(crate) id: NodeId,
    #[n(1)]
    pub(crate) info: NodeInfo,
    /// Whether it belongs to a cluster already.
    #[n(2)]
    pub(crate) member: bool,
    /// The groups' leaders, where they are known.
    #[n(3)]
    pub(crate) leaders: Vec<Leader>,
    /// Its build's version.
    #[n(4)]
    #[cbor(default)]
    pub(crate) build: String,
    #[n(5)]
    pub(crate) spoken: Option<Spoken>,
    /// Voters that the cluster is to have, by its settings.
    #[n(6)]
    #[cbor(default)]
    pub(crate) voters: u8,
    /// It gives leadership away and is not ready.
    #[n(7)]
    #[cbor(default)]
    pub(crate) draining: bool,
    /// Requests that it has let through and whose rows are not committed yet.
    #[n(8)]
    #[cbor(default)]
    pub(crate) in_flight: u64,
    /// How far its replicas are.
    #[n(9)]
    #[cbor(default)]
    pub(crate) applied: Vec<Applied>,
    /// Groups that it leads, as far as it knows.
    #[n(10)]
    #[cbor(default)]
    pub(crate) leading: Vec<GroupId>,
    /// Members of group 0, as far as it knows.
    #[n(11)]
    #[cbor(default)]
    pub(crate) members: Vec<Member>,
    /// It leads group 0, as a quorum confirmed a moment ago: its `members` are the members.
    #[n(12)]
    #[cbor(default)]
    pub(crate) confirmed: bool,
    /// It leads group 0, and this is why slots on their way to other ledger groups wait.
    #[n(13)]
    pub(crate) slots_wait_for: Option<String>,
}

/// Who leads a group.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct Leader {
    #[n(0)]
    pub(crate) group: GroupId,
    #[n(1)]
    pub(crate) info: NodeInfo,
}

/// How far a replica is.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct Applied {
    #[n(0)]
    pub(crate) group: GroupId,
    #[n(1)]
    pub(crate) index: u64,
}

/// A member of group 0.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct Member {
    #[n(0)]
    pub(crate) id: NodeId,
    #[n(1)]
    pub(crate) info: NodeInfo,
    #[n(2)]
    pub(crate) voter: bool,
}

impl Node {
    /// What this node says of itself.
    pub(crate) async fn status(&self) -> Status {
        let own = self.peers().own();
        let groups = self.groups();
        let members = self.meta().members().into_iter();
        Status {
            id: self.me(),
            info: self.info().clone(),
            member: self.meta().is_initialized().await,
            leaders: groups
                .iter()
                .filter_map(|group| Some(Leader { group: group.id(), info: group.leader()?.1 }))
                .collect(),
            build: own.build.clone(),
            spoken: Some(own.spoken),
            voters: u8::try_from(self.voters()).unwrap_or(u8::MAX),
            draining: self.is_draining(),
            in_flight: self.in_flight(),
            applied: groups
                .iter()
                .map(|group| Applied { group: group.id(), index: group.progress().applied })
                .collect(),
            leading: groups.iter().filter(|group| group.is_leader()).map(|group| group.id()).collect(),
            members: members.map(|(id, (info, voter))| Member { id: NodeId(id), info, voter }).collect(),
            confirmed: self.meta().leads().is_some(),
            slots_wait_for: self.slots_wait_for.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
