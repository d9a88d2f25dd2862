//! What peers say to each other: the greeting and the kinds of message. Drawn in `store/README.md`.
//!
//! A connection begins with a greeting each way (who I am, whom I mean, which lane, what I speak). Then frames
//! (`frame`). On the call lane a frame's number pairs an answer with its question; on the append lane
//! answers come in the order of the requests.

use std::{io, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::version::Spoken;
use crate::model::{GroupId, LogId, Name, NodeId};

/// First bytes of every connection.
const MAGIC: &[u8; 8] = b"tollgate";
/// Version of the greeting's own frame. It stays, so that builds that understand nothing else of each other can say so.
const GREETING_VERSION: u16 = 1;
/// A greeting must be there by then.
pub(super) const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// Largest greeting.
const MAX_GREETING_BYTES: usize = 4 << 10;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum Lane {
    /// Questions and answers, in any order.
    #[n(0)]
    Call,
    /// Log entries of one group, in order.
    #[n(1)]
    Append(#[n(0)] GroupId),
    /// One snapshot of one group.
    #[n(2)]
    Snapshot(#[n(0)] GroupId),
}

/// The first thing that each side says.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Greeting {
    #[n(0)]
    pub(super) from: NodeId,
    /// Whom the caller means; none when it only knows an address. A node refuses to be somebody else.
    #[n(1)]
    pub(super) to: Option<NodeId>,
    #[n(2)]
    pub(super) lane: Lane,
    /// Set in an answer that refuses.
    #[n(3)]
    pub(super) refused: Option<String>,
    /// Name of who says it.
    #[n(4)]
    #[cbor(default)]
    pub(super) name: Name,
    /// Its build's version.
    #[n(5)]
    #[cbor(default)]
    pub(super) build: String,
    /// What it speaks; [`Spoken::FIRST`] when it does not say.
    #[n(6)]
    pub(super) spoken: Option<Spoken>,
}

/// Kinds of question on the call lane; an answer has the kind of its question, or [`Kind::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Answer: a [`Fault`].
    Error = 0,
    /// Who are you, and have you a cluster?
    Status = 1,
    /// Raft: heartbeat or single append.
    Append = 2,
    /// Raft: vote.
    Vote = 3,
    /// Raft: would you vote?
    PreVote = 4,
    /// Raft: take over.
    TransferLeader = 5,
    /// Propose a command here, on the leader.
    Propose = 6,
    /// Where must a linearizable read be?
    ReadIndex = 7,
    /// Tell me when you have applied this index.
    WaitApplied = 8,
    /// A demand for units (lease room).
    Lease = 9,
    /// Take me in.
    Join = 10,
    /// How long may I trust my view?
    ViewLease = 11,
    /// Give leadership away and do not take it (or do again).
    Drain = 12,
    /// On the leader of the metadata: let this node go. Answer: whether it has gone.
    Remove = 13,
    /// On a leader: hand your leadership over.
    HandOver = 14,
    /// Do you hold nothing more of these slots, which are closed? Answer: whether.
    Quiet = 15,
}

impl Kind {
    pub(super) fn from_u8(kind: u8) -> Option<Self> {
        Some(match kind {
            0 => Self::Error,
            1 => Self::Status,
            2 => Self::Append,
            3 => Self::Vote,
            4 => Self::PreVote,
            5 => Self::TransferLeader,
            6 => Self::Propose,
            7 => Self::ReadIndex,
            8 => Self::WaitApplied,
            9 => Self::Lease,
            10 => Self::Join,
            11 => Self::ViewLease,
            12 => Self::Drain,
            13 => Self::Remove,
            14 => Self::HandOver,
            15 => Self::Quiet,
            _ => return None,
        })
    }
}

/// A question that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub(super) enum Fault {
    /// Not the leader; here is who may be.
    #[n(0)]
    #[error("not the leader")]
    NotLeader(#[n(0)] Option<u64>),
    /// It could not be done, and it is certain that it was not.
    #[n(1)]
    #[error("{0}")]
    Failed(#[n(0)] String),
    /// It is not known whether it was done.
    #[n(2)]
    #[error("outcome unknown: {0}")]
    Unknown(#[n(0)] String),
    /// Whoever asks is no member of the group, as its confirmed leader knows.
    #[n(3)]
    #[error("this node is no member of the cluster")]
    NotMember,
}

/// Head of an append; entries follow, each with its length (u32 LE).
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct AppendHead {
    #[n(0)]
    pub(super) group: GroupId,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) vote: Vec<u8>,
    #[n(2)]
    pub(super) previous: Option<LogId>,
    #[n(3)]
    pub(super) committed: Option<LogId>,
    #[n(4)]
    pub(super) entries: u32,
}

/// Answer to an append.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) enum AppendAnswer {
    /// Flushed up to here.
    #[n(0)]
    Matched(#[n(0)] Option<LogId>),
    /// The entry before the first does not match.
    #[n(1)]
    Conflict(#[n(0)] Option<LogId>),
    /// There is a newer vote.
    #[n(2)]
    HigherVote(
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        Vec<u8>,
    ),
}

/// A request for a vote, and its answer.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct Ballot {
    #[n(0)]
    pub(super) group: GroupId,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) vote: Vec<u8>,
    #[n(2)]
    pub(super) last: Option<LogId>,
    /// Question: part of a leadership transfer. Answer: granted.
    #[n(3)]
    pub(super) flag: bool,
    /// Leadership transfer only: the node that is to lead.
    #[n(4)]
    pub(super) to: Option<u64>,
}

/// A question of [`Kind::WaitApplied`].
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(super) struct WaitApplied {
    #[n(0)]
    pub(super) group: GroupId,
    #[n(1)]
    pub(super) index: u64,
    /// Longest wait for the answer.
    #[n(2)]
    pub(super) wait_ms: u64,
}

/// Head of a [`Kind::Propose`], before the command: group, and how long to wait (a `wait::Wait`).
pub(super) fn propose_head(group: GroupId, wait: u8) -> Bytes {
    let mut out = BytesMut::with_capacity(5);
    out.put_u32_le(group.0);
    out.put_u8(wait);
    out.freeze()
}

/// The parts of a [`Kind::Propose`].
pub(super) fn decode_propose(mut body: Bytes) -> Result<(GroupId, u8, Bytes), Fault> {
    if body.len() < 5 {
        return Err(Fault::Failed(format!("proposal of {} bytes", body.len())));
    }
    let group = GroupId(body.get_u32_le());
    let wait = body.get_u8();
    Ok((group, wait, body))
}

/// Says who we are.
pub(super) async fn write_greeting(stream: &mut (impl AsyncWrite + Unpin), greeting: &Greeting) -> io::Result<()> {
    let body = minicbor::to_vec(greeting).expect("writing to memory cannot fail");
    let mut out = BytesMut::with_capacity(MAGIC.len() + 4 + body.len());
    out.put_slice(MAGIC);
    out.put_u16_le(GREETING_VERSION);
    out.put_u16_le(u16::try_from(body.len()).map_err(io::Error::other)?);
    out.put_slice(&body);
    stream.write_all(&out).await?;
    stream.flush().await
}

/// Hears who they are.
pub(super) async fn read_greeting(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Greeting> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut head = [0; MAGIC.len() + 4];
    tokio::time::timeout(GREETING_DEADLINE, stream.read_exact(&mut head)).await??;
    if &head[..8] != MAGIC {
        return Err(invalid("not a Tollgate peer".into()));
    }
    let version = u16::from_le_bytes([head[8], head[9]]);
    if version != GREETING_VERSION {
        return Err(invalid(format!(
            "the peer greets in version {version}, this build reads version {GREETING_VERSION}: upgrade this node"
        )));
    }
    let length = usize::from(u16::from_le_bytes([head[10], head[11]]));
    if length > MAX_GREETING_BYTES {
        return Err(invalid(format!("greeting of {length} bytes")));
    }
    let mut body = vec![0; length];
    tokio::time::timeout(GREETING_DEADLINE, stream.read_exact(&mut body)).await??;
    minicbor::decode(&body).map_err(|error| invalid(format!("greeting: {error}")))
}

/// A value of the general encoding.
pub(super) fn cbor(value: &impl Encode<()>) -> Bytes {
    minicbor::to_vec(value).expect("writing to memory cannot fail").into()
}

/// A value from the general encoding.
pub(super) fn from_cbor<'b, T: Decode<'b, ()>>(body: &'b [u8]) -> Result<T, Fault> {
    minicbor::decode(body).map_err(|error| Fault::Failed(format!("message cannot be decoded: {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::NodeInfo,
        raft::{
            status::{Leader, Status},
            view_lease::{ViewAsk, ViewGrant},
        },
    };

    /// The same message as a later build may send it: with fields behind those that this build knows.
    fn of_tomorrow(bytes: &[u8]) -> Vec<u8> {
        const FIELDS: u8 = 40;
        let known = bytes[0] & 0x1f;
        assert!(bytes[0] >> 5 == 4 && known < 24, "an array of few fields: {bytes:?}");
        let mut more = vec![0x98, FIELDS];
        more.extend_from_slice(&bytes[1..]);
        more.extend(std::iter::repeat_n(0xf6, usize::from(FIELDS - known - 1)));
        more.extend_from_slice(b"\x63new");
        more
    }

    #[test]
    fn fields_that_are_not_known_yet_are_skipped() {
        fn check<T: Encode<()> + for<'b> Decode<'b, ()>>(message: &T) {
            let bytes = cbor(message);
            let read: T = from_cbor(&of_tomorrow(&bytes)).expect("reads");
            assert_eq!(cbor(&read), bytes);
        }
        let (group, id) = (GroupId::LEDGER, NodeId(7));
        check(&Greeting {
            from: id,
            to: None,
            lane: Lane::Append(group),
            refused: None,
            name: "a".into(),
            build: "1".into(),
            spoken: Some(Spoken::OURS),
        });
        check(&AppendHead { group, vote: vec![1], previous: None, committed: None, entries: 3 });
        check(&Ballot { group, vote: vec![1], last: None, flag: true, to: Some(2) });
        check(&WaitApplied { group, index: 5, wait_ms: 6 });
        check(&ViewAsk { group, node: id, in_force: 9 });
        check(&ViewGrant { index: Some(9), lease_ms: 3_000, decides: true });
        check(&Leader { group, info: NodeInfo { name: "a".into(), ..NodeInfo::default() } });
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = from_cbor::<Greeting>(&bytes);
            let _ = from_cbor::<AppendHead>(&bytes);
            let _ = from_cbor::<Ballot>(&bytes);
            let _ = from_cbor::<Status>(&bytes);
        }
    }
}
