//! openraft's state machine over one group's replicated state.
//!
//! Apply collects what is ready, up to a bound, into one transaction. Snapshots are the checkpoints that the state makes by
//! itself; their bytes are made only when a follower needs them (see `snapshot`).

use std::{
    io,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use futures_util::{Stream, StreamExt};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    alias::SnapshotOf,
    storage::{EntryResponder, RaftStateMachine, Snapshot},
};

use tokio::runtime::{Handle, RuntimeFlavor};

use super::{
    codec,
    node::Fail,
    types::{Payload, RaftLogId, SnapshotMeta, StoredMembership, TypeConfig, log_id, raft_log_id},
};
use crate::{
    model::Command,
    platform,
    state::{self, State},
};

/// Entries applied in one transaction at most.
const APPLY_ENTRIES: usize = 256;

/// Where a snapshot's bytes are.
pub(crate) enum SnapshotData {
    /// In the state itself, at its last checkpoint or later; exported when it is sent.
    Checkpoint(Arc<State>),
    /// Received whole into this file, which is removed once installed.
    Received(PathBuf),
}

/// Waits until the node's own log is durable up to an index.
pub(super) type WaitDurable = Arc<dyn Fn(u64) -> io::Result<()> + Send + Sync>;

/// The state machine of one group.
pub(crate) struct Machine {
    state: Arc<State>,
    /// Newest entry that is applied and that all who listen have been told of.
    in_force: Arc<AtomicU64>,
    wait_durable: WaitDurable,
    /// Told when a replica cannot go on.
    failed: Fail,
}

impl Machine {
    pub(super) fn new(state: Arc<State>, in_force: Arc<AtomicU64>, wait_durable: WaitDurable, failed: Fail) -> Self {
        Self { state, in_force, wait_durable, failed }
    }

    fn fail(&self, what: &str, error: impl std::fmt::Display) -> io::Error {
        let message = format!("{what}: {error}");
        (self.failed)(message.clone());
        io::Error::other(message)
    }
}

/// Applies; where that may take long (a seal joins many rows), other tasks of this thread go to another one meanwhile.
fn apart<T>(entries: &[state::Entry], apply: impl FnOnce() -> T) -> T {
    let is_hot = |entry: &state::Entry| match &entry.payload {
        state::Payload::Command(command) => Command::is_rows(command),
        state::Payload::Blank | state::Payload::Membership(_) => true,
    };
    let has_threads = || Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if entries.iter().all(is_hot) || !has_threads() { apply() } else { tokio::task::block_in_place(apply) }
}

fn membership(bytes: Option<bytes::Bytes>) -> io::Result<StoredMembership> {
    bytes.map_or_else(|| Ok(StoredMembership::default()), |bytes| codec::decode_stored_membership(&bytes))
}

fn checkpoint_meta(state: &State) -> io::Result<Option<SnapshotMeta>> {
    let Some((last, bytes)) = state.checkpointed() else { return Ok(None) };
    Ok(Some(SnapshotMeta { last_log_id: Some(raft_log_id(last)), last_membership: membership(bytes)? }))
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, StoredMembership)> {
        let applied = self.state.applied();
        Ok((applied.last.map(raft_log_id), membership(applied.membership)?))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut entries = pin!(entries);
        let mut ended = false;
        while !ended {
            let (mut batch, mut waiters) = (Vec::new(), Vec::new());
            while batch.len() < APPLY_ENTRIES && !ended {
                // The first is waited for; the rest is what is there already. The stream is not polled after its end.
                let next = if batch.is_empty() {
                    Poll::Ready(entries.next().await)
                } else {
                    futures_util::poll!(entries.next())
                };
                match next {
                    Poll::Pending => break,
                    Poll::Ready(None) => ended = true,
                    Poll::Ready(Some(item)) => {
                        let (entry, waiter) = item?;
                        let id = log_id(&entry.log_id);
                        let payload = match entry.payload {
                            Payload::Blank => state::Payload::Blank,
                            Payload::Normal(proposal) => state::Payload::Command(proposal.0),
                            Payload::Membership(set) => state::Payload::Membership(codec::encode_stored_membership(
                                &StoredMembership::new(Some(entry.log_id), set),
                            )),
                        };
                        batch.push(state::Entry { id, payload });
                        waiters.push(waiter);
                    }
                }
            }
            if batch.is_empty() {
                continue;
            }
            let replies =
                apart(&batch, || self.state.apply(&batch)).map_err(|error| self.fail("apply entries", error))?;
            if let Some(last) = batch.last() {
                self.in_force.store(last.id.index, Ordering::SeqCst);
            }
            for (waiter, reply) in waiters.into_iter().zip(replies) {
                if let Some(waiter) = waiter {
                    waiter.send(reply);
                }
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        // Asked for by the checkpointer, the newest checkpoint is the snapshot; forced, it must be of now.
        let (state, wait_durable) = (Arc::clone(&self.state), Arc::clone(&self.wait_durable));
        Some(Builder { state, wait_durable, force })
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { state: Arc::clone(&self.state), wait_durable: Arc::clone(&self.wait_durable), force: true }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let state = Arc::clone(&self.state);
        let imported = platform::blocking(move || match snapshot {
            SnapshotData::Received(path) => {
                let mut source = io::BufReader::new(std::fs::File::open(&path)?);
                let imported = state.import(&mut source).map_err(io::Error::other);
                let _ = std::fs::remove_file(&path);
                imported
            }
            // Its own: there is nothing to do. Another replica's in this process (as in tests): by way of memory.
            SnapshotData::Checkpoint(from) if Arc::ptr_eq(&from, &state) => Ok(state.applied()),
            SnapshotData::Checkpoint(from) => {
                let mut bytes = Vec::new();
                from.export(&mut bytes).map_err(io::Error::other)?;
                state.import(&mut bytes.as_slice()).map_err(io::Error::other)
            }
        })
        .await?;
        let applied = imported.map_err(|error| self.fail("install snapshot", error))?;
        self.in_force.store(applied.last.map_or(0, |last| last.index), Ordering::SeqCst);
        tracing::info!(
            last = ?applied.last, expected = ?meta.last_log_id, "installed a snapshot from the leader"
        );
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotData>>> {
        let snapshot = |meta| Snapshot { meta, snapshot: SnapshotData::Checkpoint(Arc::clone(&self.state)) };
        Ok(checkpoint_meta(&self.state)?.map(snapshot))
    }
}

/// Names the newest checkpoint as the group's snapshot.
pub(crate) struct Builder {
    state: Arc<State>,
    wait_durable: WaitDurable,
    force: bool,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotData>> {
        if self.force || self.state.checkpointed().is_none() {
            let (state, wait) = (Arc::clone(&self.state), Arc::clone(&self.wait_durable));
            platform::blocking(move || state.checkpoint(&mut |index| wait(index))).await?.map_err(io::Error::other)?;
        }
        let meta = checkpoint_meta(&self.state)?.unwrap_or_default();
        Ok(Snapshot { meta, snapshot: SnapshotData::Checkpoint(Arc::clone(&self.state)) })
    }
}
