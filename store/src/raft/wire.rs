//! What peers say to each other: framing, greeting, and the kinds of message. Drawn in `store/README.md`.
//!
//! A connection begins with a greeting each way (who I am, whom I mean, which lane). Then frames: length (u32 LE), kind
//! (u8), number (u64 LE), body. On the call lane a frame's number pairs an answer with its question; on the append lane
//! answers come in the order of the requests.

use std::{io, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::model::{GroupId, LogId, NodeId, NodeInfo};

/// First bytes of every connection.
const MAGIC: &[u8; 8] = b"tollgate";
/// Version of the frames below. A peer of another version is refused by name.
pub(super) const WIRE_VERSION: u16 = 1;
/// Largest frame that is accepted: an append of `READ_BYTES` and one entry beyond it.
pub(super) const MAX_FRAME_BYTES: usize = 64 << 20;
/// kind and number.
const FRAME_HEAD_BYTES: usize = 1 + 8;
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
}

/// A node's answer to [`Kind::Status`].
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Status {
    #[n(0)]
    pub(super) id: NodeId,
    #[n(1)]
    pub(super) info: NodeInfo,
    /// Whether it belongs to a cluster already.
    #[n(2)]
    pub(super) member: bool,
    /// The groups' leaders, where they are known.
    #[n(3)]
    pub(super) leaders: Vec<Leader>,
}

/// Who leads a group.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Leader {
    #[n(0)]
    pub(super) group: GroupId,
    #[n(1)]
    pub(super) info: NodeInfo,
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

/// A frame as it was received.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) number: u64,
    pub(super) body: Bytes,
}

/// Appends something with its length (u32 LE) before it.
pub(super) fn put_part(out: &mut BytesMut, put: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u32_le(0);
    put(out);
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Takes what [`put_part`] has put off the front of a body.
pub(super) fn take_part(body: &mut Bytes) -> Result<Bytes, Fault> {
    let cut = || Fault::Failed("message is cut".into());
    let head = body.first_chunk::<4>().ok_or_else(cut)?;
    let length = u32::from_le_bytes(*head) as usize;
    if body.len() - 4 < length {
        return Err(cut());
    }
    body.advance(4);
    Ok(body.split_to(length))
}

/// Appends a frame to a buffer.
pub(super) fn put_frame(out: &mut BytesMut, kind: u8, number: u64, body: impl FnOnce(&mut BytesMut)) {
    put_part(out, |out| {
        out.put_u8(kind);
        out.put_u64_le(number);
        body(out);
    });
}

/// Takes a whole frame off the front of a buffer, if there is one.
///
/// # Errors
/// A length beyond [`MAX_FRAME_BYTES`] or below the head's: the connection is of no use any more.
pub(super) fn take_frame(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if !(FRAME_HEAD_BYTES..=MAX_FRAME_BYTES).contains(&length) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("frame of {length} bytes, expected {FRAME_HEAD_BYTES} to {MAX_FRAME_BYTES}"),
        ));
    }
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(4);
    let mut frame = buffer.split_to(length).freeze();
    let kind = frame.get_u8();
    let number = frame.get_u64_le();
    Ok(Some(Frame { kind, number, body: frame }))
}

/// Reads the next frame; none at the end of the stream.
pub(super) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Option<Frame>> {
    loop {
        if let Some(frame) = take_frame(buffer)? {
            return Ok(Some(frame));
        }
        buffer.reserve(16 << 10);
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// Says who we are.
pub(super) async fn write_greeting(stream: &mut (impl AsyncWrite + Unpin), greeting: &Greeting) -> io::Result<()> {
    let body = minicbor::to_vec(greeting).expect("writing to memory cannot fail");
    let mut out = BytesMut::with_capacity(MAGIC.len() + 4 + body.len());
    out.put_slice(MAGIC);
    out.put_u16_le(WIRE_VERSION);
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
    if version != WIRE_VERSION {
        return Err(invalid(format!("peer speaks wire version {version}, this build speaks {WIRE_VERSION}")));
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

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let mut bytes = BytesMut::new();
        put_frame(&mut bytes, 6, 42, |out| out.put_slice(b"hello"));
        put_frame(&mut bytes, 1, 43, |_| {});
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            let mut frames = Vec::new();
            while let Some(frame) = take_frame(&mut buffer).expect("valid") {
                frames.push(frame);
            }
            buffer.extend_from_slice(&bytes[cut..]);
            while let Some(frame) = take_frame(&mut buffer).expect("valid") {
                frames.push(frame);
            }
            assert_eq!(frames.len(), 2);
            assert_eq!((frames[0].kind, frames[0].number, &frames[0].body[..]), (6, 42, &b"hello"[..]));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_nor_ask_for_much_memory(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take_frame(&mut buffer) {}
            prop_assert!(buffer.capacity() <= MAX_FRAME_BYTES + 128);
            let _ = from_cbor::<Greeting>(&bytes);
            let _ = from_cbor::<AppendHead>(&bytes);
            let _ = from_cbor::<Ballot>(&bytes);
            let _ = from_cbor::<Status>(&bytes);
        }
    }
}
