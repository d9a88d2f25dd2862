//! The caller's side of a peer connection: questions and answers over one pipelined connection a peer.
//!
//! Every call has a deadline. A connection that fails answers all its open calls with [`CallError::Lost`]; the next call
//! connects anew. Open calls are bounded by [`MAX_OPEN_CALLS`]; at the bound a call fails at once.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, oneshot},
};

use super::{
    frame::{self, Frame},
    lane::{self, PeerTls, Stream},
    peers::Moved,
    version::Own,
    wire::{self, Fault, Kind, Lane},
};
use crate::model::NodeId;

/// Calls that may be open on a connection.
const MAX_OPEN_CALLS: usize = 4_096;
/// A member's connection that brings nothing for so long, with a question open for as long, is given up: the packets of a
/// link that was cut are sent again more and more seldom, long after it works. Heartbeats, or asks for leases on views, are
/// answered all the time wherever an answer may take longer.
const SILENCE: Duration = Duration::from_secs(2);
/// Time to connect and be greeted.
const CONNECT_DEADLINE: Duration = Duration::from_millis(800);
/// Frames are gathered into writes of at most this size.
const WRITE_BYTES: usize = 1 << 20;

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    /// The peer was not reached: nothing was sent.
    #[error("peer {addr}: {error}")]
    Unreachable { addr: String, error: String },
    /// It was sent, and then the connection or the deadline was lost: it may have been done.
    #[error("peer {addr}: {error}")]
    Lost { addr: String, error: String },
    /// The peer said why not.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl CallError {
    /// Whether the peer may have done what it was asked.
    pub(super) fn may_have_happened(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Fault(Fault::Unknown(_)))
    }
}

/// Connects a lane to a peer and exchanges greetings.
async fn connect(own: &Own, to: Option<NodeId>, addr: &str, lane: Lane, tls: Option<&PeerTls>) -> io::Result<Stream> {
    let connecting = async {
        let mut stream = lane::connect(addr, tls).await?;
        wire::write_greeting(&mut stream, &own.greeting(to, lane, None)).await?;
        let answer = wire::read_greeting(&mut stream).await?;
        // An older build does not look at what we speak: so both sides do.
        match answer.refused.clone().or_else(|| own.refusal(&answer)) {
            Some(reason) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, reason)),
            None => Ok(stream),
        }
    };
    tokio::time::timeout(CONNECT_DEADLINE, connecting).await?
}

type Answer = Result<Bytes, CallError>;
/// By number: who waits, and since when.
type Open = HashMap<u64, (oneshot::Sender<Answer>, tokio::time::Instant)>;

struct Question {
    kind: Kind,
    parts: [Bytes; 2],
    answer: oneshot::Sender<Answer>,
}

/// A peer to ask.
#[derive(Clone)]
pub(super) struct Peer(Arc<Inner>);

struct Inner {
    own: Arc<Own>,
    to: Option<NodeId>,
    addr: String,
    tls: Option<Arc<PeerTls>>,
    moved: Moved,
    /// The live connection, if any.
    lane: Mutex<Option<mpsc::Sender<Question>>>,
    /// One attempt to connect at a time.
    connecting: tokio::sync::Mutex<()>,
    /// Since when it cannot be connected to.
    away: Mutex<Option<Instant>>,
}

impl Peer {
    pub(super) fn new(
        own: Arc<Own>,
        to: Option<NodeId>,
        addr: String,
        tls: Option<Arc<PeerTls>>,
        moved: Moved,
    ) -> Self {
        let (lane, connecting, away) = (Mutex::default(), tokio::sync::Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { own, to, addr, tls, moved, lane, connecting, away }))
    }

    /// A connection of its own to this peer, for a lane that is not for calls.
    pub(super) async fn open(&self, lane: Lane) -> io::Result<Stream> {
        let moved = self.moved_to();
        let mut opened = Err(io::ErrorKind::NotFound.into());
        for addr in moved.iter().chain([&self.0.addr]) {
            opened = connect(&self.0.own, self.0.to, addr, lane, self.0.tls.as_deref()).await;
            if opened.is_ok() {
                break;
            }
        }
        opened
    }

    /// Where it has said that it is, when that is not where this node looks for it.
    fn moved_to(&self) -> Option<String> {
        let moved = self.0.moved.lock().expect("no holder of this lock panics");
        moved.get(&self.0.to?).filter(|addr| **addr != self.0.addr).cloned()
    }

    /// For how long it could not be connected to; none when it could, or was not tried.
    pub(super) fn away(&self) -> Option<Duration> {
        self.0.away.lock().expect("no holder of this lock panics").map(|since| since.elapsed())
    }

    /// Asks, and waits at most until the deadline.
    pub(super) async fn call(&self, kind: Kind, body: Bytes, deadline: Duration) -> Answer {
        self.call_parts(kind, [body, Bytes::new()], deadline).await
    }

    /// As [`Peer::call`], with a body in two parts, so that a large one need not be copied behind a small one.
    pub(super) async fn call_parts(&self, kind: Kind, parts: [Bytes; 2], deadline: Duration) -> Answer {
        let mut sent = false;
        let calling = async {
            let lane = self.lane().await?;
            let (answer, answered) = oneshot::channel();
            lane.try_send(Question { kind, parts, answer }).map_err(|error| CallError::Unreachable {
                addr: self.0.addr.clone(),
                error: match error {
                    mpsc::error::TrySendError::Full(_) => format!("{MAX_OPEN_CALLS} calls wait already"),
                    mpsc::error::TrySendError::Closed(_) => "the connection was just lost".into(),
                },
            })?;
            sent = true;
            answered.await.unwrap_or_else(|_| Err(self.lost("connection lost")))
        };
        match tokio::time::timeout(deadline, calling).await {
            Ok(answer) => answer,
            Err(_) if sent => Err(self.lost(&format!("no answer within {deadline:?}"))),
            Err(_) => Err(self.unreachable(&format!("not connected within {deadline:?}"))),
        }
    }

    fn lost(&self, error: &str) -> CallError {
        CallError::Lost { addr: self.0.addr.clone(), error: error.into() }
    }

    fn unreachable(&self, error: &str) -> CallError {
        CallError::Unreachable { addr: self.0.addr.clone(), error: error.into() }
    }

    fn live(&self) -> Option<mpsc::Sender<Question>> {
        let lane = self.0.lane.lock().expect("no holder of this lock panics");
        lane.as_ref().filter(|lane| !lane.is_closed()).cloned()
    }

    /// Says once that a member cannot be connected to, and once that it can be again.
    fn note(&self, connected: &io::Result<Stream>) {
        let Some(to) = self.0.to else { return };
        let mut away = self.0.away.lock().expect("no holder of this lock panics");
        match (connected, *away) {
            (Err(error), None) => {
                *away = Some(Instant::now());
                tracing::warn!(peer = %self.0.addr, id = %to, %error, "a peer cannot be connected to; it is tried again");
            }
            (Ok(_), Some(since)) => {
                *away = None;
                tracing::info!(peer = %self.0.addr, id = %to, away = ?since.elapsed(), "the peer is back");
            }
            (Err(_), Some(_)) | (Ok(_), None) => {}
        }
    }

    async fn lane(&self) -> Result<mpsc::Sender<Question>, CallError> {
        if let Some(lane) = self.live() {
            return Ok(lane);
        }
        let _one = self.0.connecting.lock().await;
        if let Some(lane) = self.live() {
            return Ok(lane);
        }
        let connected = self.open(Lane::Call).await;
        self.note(&connected);
        let stream = connected.map_err(|error| self.unreachable(&error.to_string()))?;
        let (lane, questions) = mpsc::channel(MAX_OPEN_CALLS);
        let silence = self.0.to.map(|_| SILENCE);
        tokio::spawn(converse(stream, questions, self.0.addr.clone(), silence));
        *self.0.lane.lock().expect("no holder of this lock panics") = Some(lane.clone());
        Ok(lane)
    }
}

/// Carries questions out and answers back until either side ends.
async fn converse(stream: Stream, mut questions: mpsc::Receiver<Question>, addr: String, silence: Option<Duration>) {
    let (mut reader, mut writer) = stream.into_split();
    let open: Arc<Mutex<Open>> = Arc::default();
    let asked = Arc::clone(&open);
    let ask = async move {
        let (mut number, mut out) = (0u64, BytesMut::new());
        while let Some(question) = questions.recv().await {
            let mut next = Some(question);
            while let Some(Question { kind, parts, answer }) = next.take() {
                number += 1;
                {
                    let mut open = asked.lock().expect("no holder of this lock panics");
                    // Callers that gave up are forgotten here, so that the map stays bounded.
                    if open.len() >= MAX_OPEN_CALLS {
                        open.retain(|_, (answer, _)| !answer.is_closed());
                    }
                    open.insert(number, (answer, tokio::time::Instant::now()));
                }
                frame::put_frame(&mut out, kind as u8, number, |out| {
                    out.extend_from_slice(&parts[0]);
                    out.extend_from_slice(&parts[1]);
                });
                if out.len() < WRITE_BYTES {
                    next = questions.try_recv().ok();
                }
            }
            writer.write_all(&out).await?;
            writer.flush().await?;
            out.clear();
        }
        io::Result::Ok(())
    };
    let answered = Arc::clone(&open);
    let listen = async move {
        let mut buffer = BytesMut::new();
        loop {
            let frame = frame::read_frame(&mut reader, &mut buffer);
            let frame = match silence {
                None => frame.await?,
                Some(silence) => match tokio::time::timeout(silence, frame).await {
                    Ok(frame) => frame?,
                    Err(_) => {
                        let open = answered.lock().expect("no holder of this lock panics");
                        let is_old = |(_, asked): &(_, tokio::time::Instant)| asked.elapsed() >= silence;
                        if open.values().any(is_old) {
                            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("silent for {silence:?}")));
                        }
                        continue;
                    }
                },
            };
            let Some(Frame { kind, number, body }) = frame else { break };
            let answer = answered.lock().expect("no holder of this lock panics").remove(&number);
            let Some((answer, _)) = answer else { continue };
            let _ = answer.send(match Kind::from_u8(kind) {
                Some(Kind::Error) => Err(wire::from_cbor::<Fault>(&body).unwrap_or_else(|fault| fault).into()),
                _ => Ok(body),
            });
        }
        io::Result::Ok(())
    };
    let ended = tokio::select! {
        ended = ask => ended,
        ended = listen => ended,
    };
    let error = ended.err().map_or_else(|| "connection closed".to_owned(), |error| error.to_string());
    for (_, (answer, _)) in open.lock().expect("no holder of this lock panics").drain() {
        let _ = answer.send(Err(CallError::Lost { addr: addr.clone(), error: error.clone() }));
    }
}
