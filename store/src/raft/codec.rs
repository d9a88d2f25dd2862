//! Stored and sent forms of votes, memberships and entries. Drawn in `store/README.md`.
//!
//! An entry: version (1), kind (0 blank, 1 normal, 2 membership), term (u64 LE), index (u64 LE), payload. The same bytes
//! are in the log, on the wire and in the memory of the log's cache.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};

use super::types::{Entry, Membership, Payload, Proposal, RaftLogId, StoredMembership, Vote, log_id, raft_log_id};
use crate::model::{LogId, NodeInfo};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 2 + 8 + 8;
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

#[derive(Encode, Decode)]
struct VoteRecord {
    #[n(0)]
    term: u64,
    #[n(1)]
    node: u64,
    #[n(2)]
    committed: bool,
}

#[derive(Encode, Decode)]
struct MembershipRecord {
    #[n(0)]
    configs: Vec<Vec<u64>>,
    #[n(1)]
    nodes: Vec<NodeRecord>,
    /// The entry that set it; only in stored form.
    #[n(2)]
    log_id: Option<LogId>,
}

#[derive(Encode, Decode)]
struct NodeRecord {
    #[n(0)]
    id: u64,
    #[n(1)]
    info: NodeInfo,
}

fn invalid(what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("decode {what}: {error}"))
}

/// Writing to memory cannot fail.
fn cbor(value: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory cannot fail")
}

/// A vote's bytes.
pub(super) fn encode_vote(vote: &Vote) -> Bytes {
    cbor(&VoteRecord { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }).into()
}

/// A vote from its bytes.
pub(super) fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    let record: VoteRecord = minicbor::decode(bytes).map_err(|error| invalid("vote", error))?;
    Ok(if record.committed {
        Vote::new_committed(record.term, record.node)
    } else {
        Vote::new(record.term, record.node)
    })
}

/// A log id's bytes.
pub(super) fn encode_log_id(id: &RaftLogId) -> Bytes {
    cbor(&log_id(id)).into()
}

/// A log id from its bytes.
pub(super) fn decode_log_id(bytes: &[u8]) -> io::Result<RaftLogId> {
    minicbor::decode(bytes).map(raft_log_id).map_err(|error| invalid("log id", error))
}

fn membership_record(membership: &Membership, log_id: Option<LogId>) -> MembershipRecord {
    MembershipRecord {
        configs: membership.get_joint_config().iter().map(|c| c.iter().copied().collect()).collect(),
        nodes: membership.nodes().map(|(id, info)| NodeRecord { id: *id, info: info.clone() }).collect(),
        log_id,
    }
}

fn membership_of(record: MembershipRecord) -> io::Result<Membership> {
    let configs: Vec<BTreeSet<u64>> = record.configs.into_iter().map(|c| c.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, NodeInfo> = record.nodes.into_iter().map(|node| (node.id, node.info)).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|error| invalid("membership", error))
}

/// A membership's bytes, with the entry that set it.
pub(super) fn encode_stored_membership(stored: &StoredMembership) -> Bytes {
    cbor(&membership_record(stored.membership(), stored.log_id().as_ref().map(log_id))).into()
}

/// A membership from its bytes.
pub(super) fn decode_stored_membership(bytes: &[u8]) -> io::Result<StoredMembership> {
    let record: MembershipRecord = minicbor::decode(bytes).map_err(|error| invalid("membership", error))?;
    let id = record.log_id.map(raft_log_id);
    Ok(StoredMembership::new(id, membership_of(record)?))
}

/// Appends an entry's bytes.
pub(super) fn put_entry(out: &mut BytesMut, entry: &Entry) {
    let membership;
    let (kind, payload): (u8, &[u8]) = match &entry.payload {
        Payload::Blank => (BLANK, &[]),
        Payload::Normal(proposal) => (NORMAL, &proposal.0),
        Payload::Membership(m) => {
            membership = cbor(&membership_record(m, None));
            (MEMBERSHIP, &membership)
        }
    };
    out.reserve(HEAD_BYTES + payload.len());
    out.put_u8(VERSION);
    out.put_u8(kind);
    out.put_u64_le(entry.log_id.leader_id.term);
    out.put_u64_le(entry.log_id.index);
    out.put_slice(payload);
}

/// An entry's bytes.
pub(super) fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = BytesMut::new();
    put_entry(&mut out, entry);
    out.freeze()
}

/// An entry from its bytes; a command is a slice of them.
pub(super) fn decode_entry(bytes: &Bytes) -> io::Result<Entry> {
    let head = bytes
        .first_chunk::<HEAD_BYTES>()
        .ok_or_else(|| invalid("entry", format!("{} bytes, at least {HEAD_BYTES} expected", bytes.len())))?;
    if head[0] != VERSION {
        return Err(invalid(
            "entry",
            format!("format version {} is not known to this build (knows {VERSION}): upgrade this node", head[0]),
        ));
    }
    let term = u64::from_le_bytes(head[2..10].try_into().expect("eight bytes of a fixed head"));
    let index = u64::from_le_bytes(head[10..18].try_into().expect("eight bytes of a fixed head"));
    let payload = match head[1] {
        BLANK => Payload::Blank,
        NORMAL => Payload::Normal(Proposal(bytes.slice(HEAD_BYTES..))),
        MEMBERSHIP => {
            let record = minicbor::decode(&bytes[HEAD_BYTES..]).map_err(|error| invalid("membership", error))?;
            Payload::Membership(membership_of(record)?)
        }
        kind => return Err(invalid("entry", format!("kind {kind} is not known to this build: upgrade this node"))),
    };
    Ok(Entry { log_id: raft_log_id(LogId { term, index }), payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeInfo {
        NodeInfo { name: name.into(), peer_addr: format!("{name}:1"), ..NodeInfo::default() }
    }

    fn entries() -> Vec<Entry> {
        let id = |index| raft_log_id(LogId { term: 3, index });
        let membership = Membership::new(
            vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])],
            BTreeMap::from([(1, node("a")), (2, node("b")), (3, node("c")), (4, node("d"))]),
        )
        .expect("every voter has a node");
        vec![
            Entry { log_id: id(7), payload: Payload::Blank },
            Entry { log_id: id(8), payload: Payload::Normal(Proposal(Bytes::from_static(b"command"))) },
            Entry { log_id: id(9), payload: Payload::Membership(membership) },
        ]
    }

    #[test]
    fn entries_survive_their_bytes() {
        for entry in entries() {
            assert_eq!(decode_entry(&encode_entry(&entry)).expect("decodes"), entry);
        }
    }

    #[test]
    fn cut_or_unknown_entries_are_errors() {
        for entry in entries() {
            let bytes = encode_entry(&entry);
            for cut in 0..HEAD_BYTES {
                assert!(decode_entry(&bytes.slice(..cut)).is_err());
            }
            let mut newer = bytes.to_vec();
            newer[0] = VERSION + 1;
            let error = decode_entry(&newer.into()).expect_err("a newer version");
            assert!(error.to_string().contains("upgrade this node"), "{error}");
        }
    }

    #[test]
    fn votes_and_stored_memberships_survive_their_bytes() {
        for vote in [Vote::new(4, 9), Vote::new_committed(5, 1)] {
            assert_eq!(decode_vote(&encode_vote(&vote)).expect("decodes"), vote);
        }
        let Payload::Membership(membership) = entries().remove(2).payload else { panic!("a membership") };
        let stored = StoredMembership::new(Some(raft_log_id(LogId { term: 1, index: 2 })), membership);
        assert_eq!(decode_stored_membership(&encode_stored_membership(&stored)).expect("decodes"), stored);
        let empty = StoredMembership::default();
        assert_eq!(decode_stored_membership(&encode_stored_membership(&empty)).expect("decodes"), empty);
    }
}
