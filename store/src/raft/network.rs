//! openraft's network over peer lanes.
//!
//! Votes, heartbeats and leadership transfers are calls. Log entries stream over an append lane of their own, pipelined: the
//! next request does not wait for the answer to the last. A snapshot has a lane of its own, so it delays neither.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use openraft::{
    OptionalSend,
    alias::SnapshotOf,
    base::BoxFuture,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use tokio::io::AsyncWriteExt;

use super::{
    codec, frame,
    lane::{ReadHalf, WriteHalf},
    machine::SnapshotData,
    peer::{CallError, Peer},
    peers::Peers,
    snapshot,
    types::{TypeConfig, Vote, log_id, raft_log_id},
    wire::{self, AppendAnswer, AppendHead, Ballot, Kind, Lane},
};
use crate::{
    model::{GroupId, NodeId, NodeInfo},
    platform::planted,
    state::State,
};

/// Silence on an append lane with requests open: longer means the follower is stuck, and the lane is made anew.
/// Far above a slow disk's flush, so that slowness alone costs no reconnection.
const APPEND_SILENCE: Duration = Duration::from_secs(3);
/// A vote or heartbeat is answered within this, or counts as lost.
const CALL_DEADLINE: Duration = Duration::from_secs(1);
/// Pauses between two attempts at a peer that cannot be reached: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Buffer that an append lane keeps between requests.
const KEEP_BYTES: usize = 1 << 20;

/// Makes the connections of one group's replicas.
pub(super) struct Network {
    pub(super) group: GroupId,
    pub(super) peers: Arc<Peers>,
    pub(super) state: Arc<State>,
}

/// Connections of one group to one peer.
pub(super) struct Connection {
    /// Heartbeats are calls: one is sent each time, so a lane of its own would be a connection each time.
    heartbeat: bool,
    group: GroupId,
    peer: Peer,
    state: Arc<State>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeInfo) -> Connection {
        Connection { heartbeat: true, ..self.new_client(target, node).await }
    }

    async fn new_client(&mut self, target: u64, node: &NodeInfo) -> Connection {
        Connection {
            heartbeat: false,
            group: self.group,
            peer: self.peers.peer(NodeId(target), &node.peer_addr),
            state: Arc::clone(&self.state),
        }
    }
}

fn rpc_error(error: &CallError) -> RPCError<TypeConfig> {
    match error {
        CallError::Unreachable { .. } => RPCError::Unreachable(Unreachable::from_string(error)),
        CallError::Lost { .. } | CallError::Fault(_) => network_error(error),
    }
}

fn network_error(error: &impl ToString) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string(error.to_string()))
}

fn unreachable(error: &impl ToString) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(error.to_string()))
}

/// Head and entries of an append.
fn put_append(out: &mut BytesMut, group: GroupId, request: &AppendEntriesRequest<TypeConfig>) {
    let head = wire::cbor(&AppendHead {
        group,
        vote: codec::encode_vote(&request.vote).to_vec(),
        previous: request.prev_log_id.as_ref().map(log_id),
        committed: request.leader_commit.as_ref().map(log_id),
        entries: u32::try_from(request.entries.len()).unwrap_or(u32::MAX),
    });
    frame::put_part(out, |out| out.extend_from_slice(&head));
    for entry in &request.entries {
        frame::put_part(out, |out| codec::put_entry(out, entry));
        if planted!(ChangesEntries) && entry.log_id.index % 40 == 11 {
            let last = out.len() - 1;
            out[last] ^= 1;
        }
    }
}

/// What a follower answered, in openraft's form.
fn append_result(body: &[u8]) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
    match wire::from_cbor(body).map_err(|fault| network_error(&fault))? {
        AppendAnswer::Matched(id) => Ok(Ok(id.map(raft_log_id))),
        AppendAnswer::Conflict(Some(id)) => Ok(Err(StreamAppendError::Conflict(raft_log_id(id)))),
        AppendAnswer::Conflict(None) => Err(network_error(&"a conflict without a log id")),
        AppendAnswer::HigherVote(vote) => {
            let vote = codec::decode_vote(&vote).map_err(|error| network_error(&error))?;
            Ok(Err(StreamAppendError::HigherVote(vote)))
        }
    }
}

impl Connection {
    async fn ballot(
        &self,
        kind: Kind,
        rpc: &VoteRequest<TypeConfig>,
        deadline: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let ballot = Ballot {
            group: self.group,
            vote: codec::encode_vote(&rpc.vote).to_vec(),
            last: rpc.last_log_id.as_ref().map(log_id),
            flag: rpc.leadership_transfer,
            to: None,
        };
        let body = self.peer.call(kind, wire::cbor(&ballot), deadline).await.map_err(|error| rpc_error(&error))?;
        let answer: Ballot = wire::from_cbor(&body).map_err(|fault| network_error(&fault))?;
        let vote = codec::decode_vote(&answer.vote).map_err(|error| network_error(&error))?;
        Ok(VoteResponse { vote, vote_granted: answer.flag, last_log_id: answer.last.map(raft_log_id) })
    }
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut body = BytesMut::new();
        put_append(&mut body, self.group, &rpc);
        let body =
            self.peer.call(Kind::Append, body.freeze(), CALL_DEADLINE).await.map_err(|error| rpc_error(&error))?;
        append_result(&body).map(AppendEntriesResponse::from)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.heartbeat {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let dial = Dial { group: self.group, peer: self.peer.clone(), input };
            let answers = futures_util::stream::unfold(Some(Exchange::Begins(dial)), |exchange| async move {
                let answers = match exchange? {
                    Exchange::Open(answers) => answers,
                    Exchange::Begins(dial) => match dial.open().await {
                        Ok(Some(answers)) => answers,
                        Ok(None) => return None,
                        Err(error) => return Some((Err(error), None)),
                    },
                };
                let (item, answers) = answers.next().await?;
                Some((item, answers.map(Exchange::Open)))
            });
            Ok(answers.boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(Kind::Vote, &rpc, option.hard_ttl().min(CALL_DEADLINE)).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(Kind::PreVote, &rpc, option.hard_ttl().min(CALL_DEADLINE)).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        _: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let lane = Lane::Snapshot(self.group);
        let sending = async {
            let stream = self.peer.open(lane).await.map_err(|error| unreachable(&error))?;
            snapshot::send(stream, &vote, Arc::clone(&self.state)).await.map_err(|error| network_error(&error))
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => sent.map(SnapshotResponse::new).map_err(StreamingError::from),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let longer = |pause: &Duration| Some((*pause * 2).min(LONGEST_PAUSE));
        Some(Backoff::new(std::iter::successors(Some(FIRST_PAUSE), longer)))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let ballot = Ballot {
            group: self.group,
            vote: codec::encode_vote(req.from_leader()).to_vec(),
            last: req.last_log_id().map(log_id),
            flag: true,
            to: Some(*req.to_node_id()),
        };
        self.peer
            .call(Kind::TransferLeader, wire::cbor(&ballot), CALL_DEADLINE)
            .await
            .map_err(|error| rpc_error(&error))?;
        Ok(Ok(()))
    }
}

/// An append lane from its beginning on.
enum Exchange<S> {
    Begins(Dial<S>),
    Open(Answers),
}

/// A lane that is to be opened.
struct Dial<S> {
    group: GroupId,
    peer: Peer,
    input: S,
}

impl<S> Dial<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    /// Connects once there is something to send. openraft pauses inside its requests ([`Backoff`]): connecting before the
    /// first would be tried again without any pause, some ten thousand times a second while a peer is down.
    async fn open(mut self) -> Result<Option<Answers>, RPCError<TypeConfig>> {
        let Some(first) = self.input.next().await else { return Ok(None) };
        let connected = self.peer.open(Lane::Append(self.group)).await;
        let (reader, writer) = connected.map_err(|error| unreachable(&error))?.into_split();
        let open = Arc::new(AtomicU64::new(0));
        let sending = send_appends(self.group, writer, first, self.input, Arc::clone(&open));
        let sender = AbortOnDrop(tokio::spawn(sending));
        Ok(Some(Answers { reader, buffer: BytesMut::new(), open, _sender: sender }))
    }
}

/// The follower's answers, in the order of the requests.
struct Answers {
    reader: ReadHalf,
    buffer: BytesMut,
    /// Requests sent and not answered.
    open: Arc<AtomicU64>,
    /// The sender ends with this stream.
    _sender: AbortOnDrop<io::Result<()>>,
}

type AppendItem = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

impl Answers {
    /// The next answer, and the rest; no rest after anything but success.
    async fn next(mut self) -> Option<(AppendItem, Option<Self>)> {
        let frame = loop {
            let frame = frame::read_frame(&mut self.reader, &mut self.buffer);
            match tokio::time::timeout(APPEND_SILENCE, frame).await {
                // Nothing is open: silence is rest.
                Err(_) if self.open.load(Ordering::Acquire) == 0 => {}
                Err(_) => {
                    let error = format!("no answer to an append within {APPEND_SILENCE:?}");
                    return Some((Err(network_error(&error)), None));
                }
                Ok(Ok(Some(frame))) => break frame,
                // The follower ends the lane after the last answer to an input that ended.
                Ok(Ok(None)) => return None,
                Ok(Err(error)) => return Some((Err(network_error(&error)), None)),
            }
        };
        self.open.fetch_sub(1, Ordering::AcqRel);
        let item = append_result(&frame.body);
        let rest = matches!(item, Ok(Ok(_))).then_some(self);
        Some((item, rest))
    }
}

/// Writes requests as they come.
async fn send_appends<S>(
    group: GroupId,
    mut writer: WriteHalf,
    first: AppendEntriesRequest<TypeConfig>,
    mut input: S,
    open: Arc<AtomicU64>,
) -> io::Result<()>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let (mut number, mut out, mut next) = (0, BytesMut::new(), Some(first));
    while let Some(request) = next.take() {
        number += 1;
        open.fetch_add(1, Ordering::AcqRel);
        frame::put_frame(&mut out, Kind::Append as u8, number, |out| put_append(out, group, &request));
        writer.write_all(&out).await?;
        writer.flush().await?;
        out.clear();
        // A burst's large buffer is not kept for ever.
        if out.capacity() > KEEP_BYTES {
            out = BytesMut::new();
        }
        next = input.next().await;
    }
    writer.shutdown().await
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
