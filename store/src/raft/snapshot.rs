//! A snapshot on its way to a follower that the log no longer reaches.
//!
//! The leader exports its state as it is then (at or after the checkpoint that Raft knows of), straight onto the wire; the
//! follower writes it to a file and installs it only when it is whole. Frames: [`VOTE`] once, [`DATA`] many, [`END`] once;
//! the answer is one frame with the follower's vote.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use openraft::{alias::SnapshotOf, storage::Snapshot};
use tokio::{
    io::AsyncWriteExt,
    sync::{Semaphore, mpsc},
};

use super::{
    codec, frame,
    lane::Stream,
    machine::SnapshotData,
    types::{SnapshotMeta, StoredMembership, TypeConfig, Vote, raft_log_id},
};
use crate::{model::GroupId, platform, state::State};

const VOTE: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const ANSWER: u8 = 4;
/// Bytes of one frame.
const CHUNK_BYTES: usize = 256 << 10;
/// Frames between the exporting thread and the socket.
const CHUNKS_AHEAD: usize = 8;
/// Silence after which the other side is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Sends the group's state, and answers with the follower's vote.
pub(super) async fn send(mut stream: Stream, vote: &Vote, state: Arc<State>) -> io::Result<Vote> {
    let mut out = BytesMut::new();
    frame::put_frame(&mut out, VOTE, 0, |out| out.put_slice(&codec::encode_vote(vote)));
    stream.write_all(&out).await?;
    // In a simulation the export is done before the first chunk is sent.
    let ahead = if platform::simulated() { Semaphore::MAX_PERMITS } else { CHUNKS_AHEAD };
    let (chunks, mut ready) = mpsc::channel::<Bytes>(ahead);
    let exporting = tokio::spawn(platform::blocking(move || {
        let mut sink = io::BufWriter::with_capacity(CHUNK_BYTES, Chunks(chunks));
        let applied = state.export(&mut sink).map_err(io::Error::other)?;
        sink.flush()?;
        io::Result::Ok(applied)
    }));
    while let Some(chunk) = ready.recv().await {
        out.clear();
        frame::put_frame(&mut out, DATA, 0, |out| out.put_slice(&chunk));
        tokio::time::timeout(SILENCE, stream.write_all(&out)).await??;
    }
    let applied = exporting.await.map_err(io::Error::other)???;
    out.clear();
    frame::put_frame(&mut out, END, 0, |out| {
        let last = applied.last.map(raft_log_id).map(|id| codec::encode_log_id(&id)).unwrap_or_default();
        frame::put_part(out, |out| out.put_slice(&last));
        frame::put_part(out, |out| out.put_slice(&applied.membership.unwrap_or_default()));
    });
    stream.write_all(&out).await?;
    stream.flush().await?;
    let mut buffer = BytesMut::new();
    let answer = tokio::time::timeout(SILENCE, frame::read_frame(&mut stream, &mut buffer)).await??;
    match answer {
        Some(frame) if frame.kind == ANSWER => codec::decode_vote(&frame.body),
        _ => Err(io::Error::other("the follower did not take the snapshot")),
    }
}

/// Hands written bytes to the sending task.
struct Chunks(mpsc::Sender<Bytes>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = Bytes::copy_from_slice(bytes);
        let sent = match self.0.try_send(chunk) {
            Err(mpsc::error::TrySendError::Full(chunk)) => self.0.blocking_send(chunk).is_ok(),
            sent => sent.is_ok(),
        };
        if !sent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Receives a whole snapshot into a file below `dir`. It is answered with [`answer`] once it is installed.
pub(super) async fn receive(
    stream: &mut Stream,
    dir: &Path,
    group: GroupId,
) -> io::Result<(Vote, SnapshotOf<TypeConfig, SnapshotData>)> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let path = dir.join(format!("incoming-{group}.snapshot"));
    let mut file = File::create(&path)?;
    let (mut buffer, mut vote) = (BytesMut::new(), None);
    loop {
        let frame = tokio::time::timeout(SILENCE, frame::read_frame(stream, &mut buffer)).await??.ok_or_else(cut)?;
        match frame.kind {
            VOTE => vote = Some(codec::decode_vote(&frame.body)?),
            DATA => {
                file = platform::blocking(move || file.write_all(&frame.body).map(|()| file)).await??;
            }
            END => {
                let mut body = frame.body;
                let last = frame::take_part(&mut body).map_err(io::Error::other)?;
                let membership = frame::take_part(&mut body).map_err(io::Error::other)?;
                platform::blocking(move || file.sync_all()).await??;
                let meta = SnapshotMeta {
                    last_log_id: (!last.is_empty()).then(|| codec::decode_log_id(&last)).transpose()?,
                    last_membership: if membership.is_empty() {
                        StoredMembership::default()
                    } else {
                        codec::decode_stored_membership(&membership)?
                    },
                };
                let vote = vote.ok_or_else(|| io::Error::other("a snapshot without a vote"))?;
                return Ok((vote, Snapshot { meta, snapshot: SnapshotData::Received(path) }));
            }
            kind => return Err(io::Error::other(format!("unexpected frame {kind} in a snapshot"))),
        }
    }
}

/// Tells the leader that the snapshot is installed, and our vote.
pub(super) async fn answer(stream: &mut Stream, vote: &Vote) -> io::Result<()> {
    let mut out = BytesMut::new();
    frame::put_frame(&mut out, ANSWER, 0, |out| out.put_slice(&codec::encode_vote(vote)));
    stream.write_all(&out).await?;
    stream.flush().await
}
