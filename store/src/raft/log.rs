//! openraft's log storage over the node's write-ahead log.
//!
//! `append` returns as soon as the entries are readable; the flush callback comes from the log's writer thread after its
//! `fdatasync`. Votes go through the same queue, so vote and entries never reorder.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    path::Path,
    sync::Arc,
    time::Duration,
};

use openraft::{
    OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use tokio::sync::oneshot;

use super::{
    codec,
    types::{Entry, RaftLogId, TypeConfig, Vote},
};
use crate::{
    model::GroupId,
    platform::planted,
    wal::{self, Record, Wal},
};

/// Bytes of one replication message at most (at least one entry is always sent).
const READ_BYTES: usize = 4 << 20;
/// Bytes that wait for the disk before an append waits too; a quarter of the log's own bound, for what comes at once.
pub(super) const QUEUE_BYTES: u64 = 64 << 20;
/// How long an append waits before it looks again.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// A state that is ahead of the node's own log waits for it at most this long at a checkpoint.
const WAIT_DURABLE: Duration = Duration::from_secs(30);

/// The node's log, and what writes it.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) wal: Wal,
    /// Without a thread, a simulation's task writes.
    #[cfg(feature = "simulation")]
    stepper: Option<Arc<std::sync::Mutex<wal::Stepper>>>,
}

/// Opens the node's log.
#[cfg(not(feature = "simulation"))]
pub(super) fn open(disk: Arc<dyn wal::Disk>, dir: &Path, options: wal::Options) -> Result<Log, wal::OpenError> {
    Ok(Log { wal: Wal::open_on(disk, dir, options)? })
}

/// Opens the node's log.
#[cfg(feature = "simulation")]
pub(super) fn open(disk: Arc<dyn wal::Disk>, dir: &Path, mut options: wal::Options) -> Result<Log, wal::OpenError> {
    if !crate::platform::simulated() {
        return Ok(Log { wal: Wal::open_on(disk, dir, options)?, stepper: None });
    }
    // Small, so that segments are filled, purged and used again.
    options.segment_bytes = 256 << 10;
    let (wal, stepper) = Wal::open_stepped(disk, dir, options)?;
    Ok(Log { wal, stepper: Some(Arc::new(std::sync::Mutex::new(stepper))) })
}

impl Log {
    /// Blocks until a group's log is durable up to an index.
    pub(super) fn wait_durable(&self, group: GroupId, index: u64) -> io::Result<()> {
        #[cfg(feature = "simulation")]
        self.flush();
        match self.wal.wait_durable(group, index, WAIT_DURABLE) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::other(format!("the log is not durable up to entry {index}"))),
            Err(error) => Err(error),
        }
    }

    /// In a simulation: writes all that waits.
    #[cfg(feature = "simulation")]
    fn flush(&self) {
        if let Some(stepper) = &self.stepper {
            let mut stepper = stepper.lock().expect("no holder of this lock panics");
            while stepper.step() {}
        }
    }

    /// In a simulation: what the log's thread does, as a task. A flush takes as long as the disk says.
    #[cfg(feature = "simulation")]
    pub(super) async fn run(self, disk: Arc<dyn wal::Disk>) {
        let Some(stepper) = self.stepper else { return };
        let mut idle = 0;
        while self.wal.is_poisoned().is_none() {
            tokio::time::sleep(disk.latency()).await;
            let mut stepper = stepper.lock().expect("no holder of this lock panics");
            if stepper.step() {
                idle = 0;
            } else {
                idle += 1;
                if idle == 10 {
                    stepper.idle();
                }
            }
        }
    }
}

/// One group's part of the node's log.
#[derive(Clone)]
pub(crate) struct LogStore {
    wal: Wal,
    group: GroupId,
}

impl LogStore {
    pub(super) fn new(wal: Wal, group: GroupId) -> Self {
        Self { wal, group }
    }

    /// Queues records and waits for the disk. Only votes, truncations and purges wait; entries have their callback.
    async fn sync(&self, records: Vec<Record>) -> io::Result<()> {
        let (done, synced) = oneshot::channel();
        self.wal
            .append(
                self.group,
                records,
                Box::new(move |result| {
                    let _ = done.send(result);
                }),
            )
            .map_err(io::Error::other)?;
        synced.await.map_err(|_| io::Error::other("the log is closed"))?
    }

    fn read(&self, range: impl RangeBounds<u64>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        // Raft asks for ranges that begin below what is there (after a purge, or before the first entry).
        let from = from.max(self.wal.group(self.group).first_index);
        let entries = self.wal.read(self.group, from, to, max_bytes)?;
        entries.iter().map(|(_, bytes)| codec::decode_entry(bytes)).collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.read(range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, READ_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.wal.group(self.group).vote.map(|bytes| codec::decode_vote(&bytes)).transpose()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.wal.group(self.group);
        let purged = state.purged.map(|(_, mark)| codec::decode_log_id(&mark)).transpose()?;
        let last = match state.last_index {
            Some(index) => self.read(index..=index, usize::MAX)?.pop().map(|entry| entry.log_id),
            None => None,
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if planted!(ForgetsVote) {
            return Ok(());
        }
        self.sync(vec![Record::Vote(codec::encode_vote(vote))]).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.wal.set_committed(self.group, codec::encode_log_id(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        let state = self.wal.group(self.group);
        // It is written lazily, so it can be older than what was purged since; then it says nothing.
        let committed = state.committed.map(|mark| codec::decode_log_id(&mark)).transpose()?;
        Ok(committed.filter(|id| state.last_index.is_some_and(|last| id.index <= last)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries
            .into_iter()
            .map(|entry| Record::Entry { index: entry.log_id.index, bytes: codec::encode_entry(&entry) })
            .collect();
        // At the bound, Raft waits here and slows its callers, so that memory stays bounded while the disk is slow.
        while self.wal.stats().queue_bytes >= QUEUE_BYTES {
            tokio::time::sleep(FULL_PAUSE).await;
        }
        self.wal
            .append(self.group, records, Box::new(move |result| callback.io_completed(result)))
            .map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> io::Result<()> {
        let index = last.map_or(0, |id| id.index + 1);
        self.sync(vec![Record::TruncateFrom { index }]).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> io::Result<()> {
        self.sync(vec![Record::PurgeUpTo { index: upto.index, mark: codec::encode_log_id(&upto) }]).await
    }
}
