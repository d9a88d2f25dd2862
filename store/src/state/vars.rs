//! How far a group is, and the small things that apply needs at hand; one stored value, written by every checkpoint.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use minicbor::{Decode, Encode, bytes::ByteVec};

use super::{
    Applied, codec,
    dedup::{Landed, Runs},
    index::FileKey,
    quota::Nodes,
};
use crate::model::{LogId, NodeId, Placement};

/// The value's key in [`super::tables::Table::Vars`].
pub(super) const KEY: &[u8] = b"state";

/// Version of the value with a placement: a build that does not know placements would take all accounts for the first group's.
const PLACED_VERSION: u8 = codec::VALUE_VERSION + 1;

/// What apply has at hand, always in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Vars {
    pub(super) applied: Applied,
    /// The number of the next record.
    pub(super) next_seq: u64,
    pub(super) landed: Landed,
    pub(super) nodes: Nodes,
    /// By retention class: the first day that was not dropped.
    pub(super) floors: BTreeMap<u16, i32>,
    /// SHA-256 of the newest audit line, which the next one carries; empty before the first.
    pub(super) audit_head: Vec<u8>,
    /// Stored key of the newest audit line that was taken away; empty before the first.
    pub(super) audit_floor: Vec<u8>,
    /// Where the slots are; none while there is one ledger group.
    pub(super) placement: Option<Arc<Placement>>,
}

#[derive(Encode, Decode)]
struct Stored {
    /// The newest layer that the file holds; differences in older layers are in its cells already.
    #[n(0)]
    layer: u64,
    #[n(1)]
    last: Option<LogId>,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    membership: Option<Vec<u8>>,
    #[n(3)]
    next_seq: u64,
    #[n(4)]
    landed: Vec<(NodeId, u64, Runs)>,
    #[n(5)]
    nodes: Vec<(NodeId, u64)>,
    #[n(6)]
    floors: Vec<(u16, i32)>,
    #[n(7)]
    #[cbor(default, with = "minicbor::bytes")]
    audit_head: Vec<u8>,
    /// Left out before the first.
    #[n(8)]
    audit_floor: Option<ByteVec>,
    #[n(9)]
    placement: Option<Placement>,
}

impl Vars {
    /// The stored value, with the number of the newest layer that the file holds.
    pub(super) fn encode(&self, layer: u64) -> Vec<u8> {
        let version = if self.placement.is_some() { PLACED_VERSION } else { codec::VALUE_VERSION };
        let stored = Stored {
            layer,
            last: self.applied.last,
            membership: self.applied.membership.as_ref().map(|bytes| bytes.to_vec()),
            next_seq: self.next_seq,
            landed: self.landed.to_stored(),
            nodes: self.nodes.iter().map(|(node, incarnation)| (*node, *incarnation)).collect(),
            floors: self.floors.iter().map(|(class, day)| (*class, *day)).collect(),
            audit_head: self.audit_head.clone(),
            audit_floor: (!self.audit_floor.is_empty()).then(|| self.audit_floor.clone().into()),
            placement: self.placement.as_deref().cloned(),
        };
        codec::encode_in(version, &stored)
    }

    /// Reads it back, and the layer's number.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, u64), String> {
        let stored: Stored = codec::decode_up_to(PLACED_VERSION, bytes)?;
        let membership = stored.membership.map(Bytes::from);
        let vars = Self {
            applied: Applied { last: stored.last, membership },
            next_seq: stored.next_seq,
            landed: Landed::from_stored(stored.landed),
            nodes: stored.nodes.into_iter().collect(),
            floors: stored.floors.into_iter().collect(),
            audit_head: stored.audit_head,
            audit_floor: stored.audit_floor.map(Into::into).unwrap_or_default(),
            placement: stored.placement.map(Arc::new),
        };
        Ok((vars, stored.layer))
    }

    /// The layer's number alone.
    pub(super) fn layer(bytes: &[u8]) -> Result<u64, String> {
        #[derive(Decode)]
        struct Layer {
            #[n(0)]
            layer: u64,
        }
        codec::decode_up_to(PLACED_VERSION, bytes).map(|Layer { layer }| layer)
    }

    /// Whether a file of rows was dropped: what belongs there is kept no more.
    pub(super) fn is_dropped(&self, (day, class): FileKey) -> bool {
        self.floors.get(&class).is_some_and(|floor| day < *floor)
    }
}
