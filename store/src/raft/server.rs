//! The peer listener: greets, then serves one lane a connection.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest,
};
use tokio::{
    io::AsyncWriteExt,
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    codec,
    frame::{self, Frame},
    group::Group,
    lane::{self, ReadHalf, Stream, WriteHalf},
    node::Node,
    snapshot,
    types::{TypeConfig, log_id, raft_log_id},
    view_lease::ViewAsk,
    wait::Wait,
    wire::{self, AppendAnswer, AppendHead, Ballot, Fault, Kind, Lane, WaitApplied},
};
use crate::{
    model::{Command, GroupId, NodeId},
    platform::{
        net::{TcpListener, TcpStream},
        planted,
    },
};

/// Peer connections at once; more are closed at once.
const MAX_CONNECTIONS: usize = 1_024;
/// Questions of one connection that are worked on at once; more wait in the socket.
const MAX_OPEN_QUESTIONS: usize = 1_024;
/// Appends of one lane that are read ahead of Raft.
const APPENDS_AHEAD: usize = 32;
/// Longest that a question may keep its place.
const QUESTION_DEADLINE: Duration = Duration::from_secs(10);

/// Accepts peers until the node stops.
pub(super) async fn serve(listener: TcpListener, node: Arc<Node>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Connections end with this task.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let node = Arc::clone(&node);
                connections.spawn(async move {
                    let _place = place;
                    if let Err(error) = connection(stream, from, node).await {
                        tracing::debug!(%from, %error, "peer connection ended");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: others will be closed.
                tracing::warn!(%error, "accept a peer connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, node: Arc<Node>) -> io::Result<()> {
    let mut stream = lane::accept(stream, from, node.peers().tls()).await?;
    let greeting = wire::read_greeting(&mut stream).await?;
    let refused = match greeting.to {
        Some(to) if to != node.me() => Some(format!("node {} is not here; this is node {}", to, node.me())),
        _ => None,
    };
    let own = node.peers().own();
    let refused = refused.or_else(|| own.refusal(&greeting));
    let answer = own.greeting(Some(greeting.from), greeting.lane, refused);
    wire::write_greeting(&mut stream, &answer).await?;
    if answer.refused.is_some() {
        return Ok(());
    }
    match greeting.lane {
        Lane::Call => calls(stream, greeting.from, node).await,
        Lane::Append(group) => {
            let group = node.group(group).map_err(io::Error::other)?;
            let (reader, writer) = stream.into_split();
            appends(reader, writer, group).await
        }
        Lane::Snapshot(group) => take_snapshot(stream, &node, group).await,
    }
}

async fn calls(stream: Stream, from: NodeId, node: Arc<Node>) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let (answers, mut answered) = mpsc::channel::<(u8, u64, Bytes)>(MAX_OPEN_QUESTIONS);
    let writing = tokio::spawn(async move {
        let mut out = BytesMut::new();
        while let Some(answer) = answered.recv().await {
            let mut next = Some(answer);
            while let Some((kind, number, body)) = next.take() {
                frame::put_frame(&mut out, kind, number, |out| out.extend_from_slice(&body));
                if out.len() < 1 << 20 {
                    next = answered.try_recv().ok();
                }
            }
            if writer.write_all(&out).await.is_err() || writer.flush().await.is_err() {
                return;
            }
            out.clear();
        }
    });
    let places = Arc::new(Semaphore::new(MAX_OPEN_QUESTIONS));
    let (mut buffer, mut questions) = (BytesMut::new(), JoinSet::new());
    let ended = loop {
        while questions.try_join_next().is_some() {}
        let frame = match frame::read_frame(&mut reader, &mut buffer).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break Ok(()) };
        let (node, answers) = (Arc::clone(&node), answers.clone());
        questions.spawn(async move {
            let _place = place;
            let Frame { kind, number, body } = frame;
            let answer = tokio::time::timeout(QUESTION_DEADLINE, question(&node, from, kind, body)).await;
            let (kind, body) = match answer.unwrap_or_else(|_| Err(Fault::Unknown("took too long".into()))) {
                Ok(body) => (kind, body),
                Err(fault) => (Kind::Error as u8, wire::cbor(&fault)),
            };
            let _ = answers.send((kind, number, body)).await;
        });
    };
    while questions.join_next().await.is_some() {}
    drop(answers);
    let _ = writing.await;
    ended
}

async fn question(node: &Arc<Node>, from: NodeId, kind: u8, mut body: Bytes) -> Result<Bytes, Fault> {
    let kind = Kind::from_u8(kind)
        .ok_or_else(|| Fault::Failed(format!("question {kind} is not known to this build: upgrade this node")))?;
    match kind {
        Kind::Error => Err(Fault::Failed("an answer is not a question".into())),
        Kind::Status => Ok(wire::cbor(&node.status().await)),
        Kind::Append => {
            let (group, request) = take_append(&mut body)?;
            let group = node.group(group)?;
            let (previous, last) = (request.prev_log_id, request.entries.last().map(|entry| entry.log_id));
            let response = group.raft().append_entries(request).await.map_err(failed)?;
            let answer = match response {
                AppendEntriesResponse::Success => {
                    group.heard();
                    AppendAnswer::Matched(last.or(previous).as_ref().map(log_id))
                }
                AppendEntriesResponse::PartialSuccess(id) => {
                    group.heard();
                    AppendAnswer::Matched(id.as_ref().map(log_id))
                }
                AppendEntriesResponse::Conflict => AppendAnswer::Conflict(previous.as_ref().map(log_id)),
                AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote(codec::encode_vote(&vote).to_vec()),
            };
            Ok(wire::cbor(&answer))
        }
        Kind::Vote | Kind::PreVote => {
            let ballot: Ballot = wire::from_cbor(&body)?;
            let group = node.group(ballot.group)?;
            if ballot.flag {
                group.handed();
            } else if !group.may_vote(group.voters()) {
                return Err(Fault::Failed("a promise of this node to a leader may still hold".into()));
            }
            let request = VoteRequest {
                vote: codec::decode_vote(&ballot.vote).map_err(failed)?,
                last_log_id: ballot.last.map(raft_log_id),
                leadership_transfer: ballot.flag,
            };
            let response = if kind == Kind::Vote {
                group.raft().vote(request).await
            } else {
                group.raft().pre_vote(request).await
            }
            .map_err(failed)?;
            let mut answer = Ballot {
                group: ballot.group,
                vote: codec::encode_vote(&response.vote).to_vec(),
                last: response.last_log_id.as_ref().map(log_id),
                flag: response.vote_granted,
                to: None,
            };
            if planted!(GrantsEveryVote) {
                (answer.vote, answer.flag) = (ballot.vote, true);
            }
            Ok(wire::cbor(&answer))
        }
        Kind::TransferLeader => {
            let ballot: Ballot = wire::from_cbor(&body)?;
            let group = node.group(ballot.group)?;
            let from = codec::decode_vote(&ballot.vote).map_err(failed)?;
            let to = ballot.to.ok_or_else(|| Fault::Failed("a transfer to nobody".into()))?;
            group.handed();
            let request = TransferLeaderRequest::new(from, to, ballot.last.map(raft_log_id));
            group.raft().handle_transfer_leader(request).await.map_err(failed)?.map_err(failed)?;
            Ok(Bytes::new())
        }
        Kind::Propose => {
            let (group, wait, command) = wire::decode_propose(body)?;
            let wait = Wait::from_u8(wait)
                .ok_or_else(|| Fault::Failed(format!("wait {wait} is not known to this build: upgrade this node")))?;
            let group = node.group(group)?;
            // A node that was let go may still bring in rows of requests that it had admitted before.
            if !Command::is_rows(&command) {
                group.require_member(from)?;
            }
            Ok(group.propose_here(command, wait).await?.encode())
        }
        Kind::ReadIndex => {
            let group = node.group(wire::from_cbor::<GroupId>(&body)?)?;
            group.require_member(from)?;
            Ok(wire::cbor(&group.read_index_here().await?))
        }
        Kind::WaitApplied => {
            let WaitApplied { group, index, wait_ms } = wire::from_cbor(&body)?;
            let wait = Duration::from_millis(wait_ms).min(QUESTION_DEADLINE);
            node.group(group)?.wait_applied(index, wait).await.map_err(failed)?;
            Ok(Bytes::new())
        }
        Kind::ViewLease => {
            let ask: ViewAsk = wire::from_cbor(&body)?;
            Ok(wire::cbor(&node.group(ask.group)?.grant_view_lease(&ask)?))
        }
        Kind::Lease => {
            node.require_lessee(from)?;
            node.answer_lease(body).await
        }
        Kind::Join => node.take_in(from, wire::from_cbor(&body)?).await.map(|()| Bytes::new()),
        Kind::Drain => {
            node.set_drain(wire::from_cbor(&body)?);
            Ok(Bytes::new())
        }
        Kind::Remove => Ok(wire::cbor(&node.let_go(&wire::from_cbor(&body)?)?)),
        Kind::HandOver => node.hand_over(&wire::from_cbor(&body)?).await.map(|to| wire::cbor(&to)),
        Kind::Quiet => Ok(wire::cbor(&node.is_quiet(wire::from_cbor(&body)?).await)),
    }
}

fn failed(error: impl std::fmt::Display) -> Fault {
    Fault::Failed(error.to_string())
}

fn take_append(body: &mut Bytes) -> Result<(GroupId, AppendEntriesRequest<TypeConfig>), Fault> {
    let head: AppendHead = wire::from_cbor(&frame::take_part(body)?)?;
    // Each entry needs its length: a count beyond the body is found out before memory is asked for.
    if head.entries as usize > body.len() / 4 {
        return Err(Fault::Failed(format!("{} entries in {} bytes", head.entries, body.len())));
    }
    let mut entries = Vec::with_capacity(head.entries as usize);
    for _ in 0..head.entries {
        entries.push(codec::decode_entry(&frame::take_part(body)?).map_err(failed)?);
    }
    let request = AppendEntriesRequest {
        vote: codec::decode_vote(&head.vote).map_err(failed)?,
        prev_log_id: head.previous.map(raft_log_id),
        leader_commit: head.committed.map(raft_log_id),
        entries,
    };
    Ok((head.group, request))
}

/// Feeds a leader's appends to Raft in order and answers in order; ends after the first that is not a success.
async fn appends(mut reader: ReadHalf, mut writer: WriteHalf, group: Arc<Group>) -> io::Result<()> {
    let (requests, mut queue) = mpsc::channel(APPENDS_AHEAD);
    let input = futures_util::stream::poll_fn(move |context| queue.poll_recv(context));
    let mut results = Box::pin(group.raft().stream_append(input));
    let reading = tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        while let Some(mut frame) = frame::read_frame(&mut reader, &mut buffer).await? {
            let (_, request) = take_append(&mut frame.body).map_err(io::Error::other)?;
            if requests.send(request).await.is_err() {
                break;
            }
        }
        io::Result::Ok(())
    });
    let (mut number, mut out) = (0, BytesMut::new());
    while let Some(result) = results.next().await {
        let result: StreamAppendResult<TypeConfig> = result.map_err(io::Error::other)?;
        let answer = match &result {
            Ok(id) => {
                group.heard();
                AppendAnswer::Matched(id.as_ref().map(log_id))
            }
            Err(StreamAppendError::Conflict(id)) => AppendAnswer::Conflict(Some(log_id(id))),
            Err(StreamAppendError::HigherVote(vote)) => AppendAnswer::HigherVote(codec::encode_vote(vote).to_vec()),
        };
        number += 1;
        frame::put_frame(&mut out, Kind::Append as u8, number, |out| out.extend_from_slice(&wire::cbor(&answer)));
        writer.write_all(&out).await?;
        writer.flush().await?;
        out.clear();
        if result.is_err() {
            break;
        }
    }
    writer.shutdown().await?;
    reading.abort();
    match reading.await {
        Ok(ended) => ended,
        Err(_) => Ok(()),
    }
}

async fn take_snapshot(mut stream: Stream, node: &Node, group: GroupId) -> io::Result<()> {
    let group = node.group(group).map_err(io::Error::other)?;
    let (vote, snapshot) = snapshot::receive(&mut stream, node.data_dir(), group.id()).await?;
    let response = group.raft().install_full_snapshot(vote, snapshot).await.map_err(io::Error::other)?;
    group.heard();
    snapshot::answer(&mut stream, &response.vote).await
}
