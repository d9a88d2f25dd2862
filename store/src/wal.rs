//! The node's write-ahead log, shared by all its Raft groups.
//!
//! A directory of pre-zeroed, recycled segment files. One writer thread takes everything that waits, of all groups, writes it
//! as one crc32c-framed frame, syncs once, and then tells every waiter; so a hundred appends that arrive together cost one
//! `fdatasync`, and votes, entries and truncations reach the disk in the order of the calls. The format is drawn, and the
//! rules of recovery are stated, in the store's README, section "The write-ahead log".
//!
//! What it never does: reorder, retry a failed write or sync (the log is *poisoned* and everything after fails), drop bytes
//! silently that a frontier says were synced, or know anything of Raft. The caller holds the lock on the data directory.

mod disk;
mod error;
mod frame;
mod index;
mod read;
mod record;
mod recovery;
mod segment;
mod shared;
mod spares;
mod stats;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;

use crate::model::GroupId;

pub use self::{
    disk::{Disk, DiskFile, RealDisk},
    error::{AppendError, OpenError},
    recovery::decode_segment_for_fuzz,
    stats::{SYNC_BUCKETS, Stats, sync_bucket_bound},
    writer::Stepper,
};
use self::{shared::Shared, writer::Writer};

/// The most bytes one append may carry, records' heads included. A larger one is refused with [`AppendError::TooLarge`].
pub const MAX_APPEND_BYTES: usize = 256 << 20;

/// The log's limits. `Default` gives the values in brackets.
#[derive(Debug, Clone)]
pub struct Options {
    /// Length of a segment file, rounded up to whole 4 KiB pages, at most 1 GiB (64 MiB). A frame that is larger gets a
    /// segment of its own size.
    pub segment_bytes: u64,
    /// How many purged segments are kept for use again (2); those beyond are removed. Unless it is 0, one segment is also
    /// made ahead of need, so that a full one is followed without waiting for zeros to be written.
    pub spare_segments: usize,
    /// Newest entries kept in memory, of all groups together (64 MiB). Beyond it the oldest are read from the files.
    /// Entries that are not durable yet are always in memory and are bounded by `queue_bytes`. Counted are the entries'
    /// own lengths: a `Bytes` that is a slice of a larger buffer holds all of that buffer.
    pub cache_bytes: usize,
    /// How long after its last sync an idle log records that everything was synced (10 ms).
    pub frontier_interval: Duration,
    /// Bytes accepted and not yet durable (64 MiB). Beyond it [`Wal::append`] answers [`AppendError::Full`].
    pub queue_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            spare_segments: 2,
            cache_bytes: 64 << 20,
            frontier_interval: Duration::from_millis(10),
            queue_bytes: 64 << 20,
        }
    }
}

/// One thing that happens to a group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The entry at `index`: the one after the group's last, or any in a group that has neither entries nor a purge mark.
    Entry {
        /// Its place in the group's log.
        index: u64,
        /// What the caller wants back.
        bytes: Bytes,
    },
    /// Entries at `index` and above are gone.
    TruncateFrom {
        /// The first entry that is gone.
        index: u64,
    },
    /// Entries up to and with `index` are gone; the next one is `index + 1`, also when the log never reached `index`
    /// (a snapshot was installed).
    PurgeUpTo {
        /// The last entry that is gone.
        index: u64,
        /// The caller's bytes about it (its log id), given back as [`GroupState::purged`].
        mark: Bytes,
    },
    /// The group's vote, replacing the one before.
    Vote(Bytes),
}

/// Called once, on the writer's thread, after the sync that made an append durable, or with the error that poisoned the log.
/// All appends wait for it: wake someone and return.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What the log knows of one group, appends that are not durable yet included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The newest vote.
    pub vote: Option<Bytes>,
    /// The newest mark of [`Wal::set_committed`]; after a crash, an older one.
    pub committed: Option<Bytes>,
    /// The last purged index and its mark.
    pub purged: Option<(u64, Bytes)>,
    /// The first entry's index; without entries, where the next one goes (0 in an empty group).
    pub first_index: u64,
    /// The last entry's index, if there are entries.
    pub last_index: Option<u64>,
}

/// The log's handle; clones share one log. Dropping the last one closes it.
#[derive(Clone)]
pub struct Wal {
    handle: Arc<Handle>,
}

impl Wal {
    /// Opens, and if need be creates, the log in `dir`, and starts its writer.
    ///
    /// Returns when all that was recovered is durable. Refuses, naming file, offset and reason, what a crash cannot have done.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(RealDisk), dir, options)
    }

    /// As [`Wal::open`], on another disk.
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<Self, OpenError> {
        let (writer, shared) = Writer::open(disk, dir, options, true)?;
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::io("start the writer thread of", dir, source))?;
        Ok(Self { handle: Arc::new(Handle { shared, thread: Mutex::new(Some(thread)) }) })
    }

    /// As [`Wal::open_on`], without threads: nothing is written but by calls of the [`Stepper`]. For deterministic tests.
    pub fn open_stepped(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<(Self, Stepper), OpenError> {
        let (writer, shared) = Writer::open(disk, dir, options, false)?;
        Ok((Self { handle: Arc::new(Handle { shared, thread: Mutex::new(None) }) }, Stepper::new(writer)))
    }

    /// Hands `records` to the writer and returns at once; they are readable at once, all of them or, on an error, none.
    ///
    /// The order of calls is the order on disk, for the whole log. `done` runs when the records, and all that was appended
    /// before, are durable; on an `Err` of this function it is dropped uncalled. An append without records is a barrier.
    pub fn append(&self, group: GroupId, records: Vec<Record>, done: Done) -> Result<(), AppendError> {
        self.handle.shared.append(group, records, done)
    }

    /// Notes how far the group is committed. Written with the next frame that is written anyway, so it never costs a sync
    /// and after a crash an older mark may be found.
    pub fn set_committed(&self, group: GroupId, mark: Bytes) {
        self.handle.shared.lock().index.set_committed(group, mark);
    }

    /// What the log knows of `group`; the default if nothing.
    pub fn group(&self, group: GroupId) -> GroupState {
        self.handle.shared.lock().index.state(group)
    }

    /// All groups that the log knows, in order.
    pub fn groups(&self) -> Vec<GroupId> {
        self.handle.shared.lock().index.groups()
    }

    /// The entries from `from` to before `to`, without a gap, until their lengths sum up to more than `max_bytes`; at least
    /// one if `from` is there, none if it is not. From memory, or from the files and then checked against their crc32c.
    ///
    /// Errors: the file cannot be read, or its bytes are not what was written (`InvalidData`).
    pub fn read(&self, group: GroupId, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<(u64, Bytes)>> {
        read::read(&self.handle.shared, group, from, to, max_bytes)
    }

    /// The group's last entry, if it has entries. Errors as [`Wal::read`].
    pub fn last_entry(&self, group: GroupId) -> io::Result<Option<(u64, Bytes)>> {
        loop {
            let Some(last) = self.group(group).last_index else { return Ok(None) };
            // Truncated in between: look again.
            if let Some(entry) = self.read(group, last, last + 1, usize::MAX)?.pop() {
                return Ok(Some(entry));
            }
        }
    }

    /// Up to which index the group's log is durable (purged entries count once the purge is durable).
    pub fn durable_index(&self, group: GroupId) -> Option<u64> {
        self.handle.shared.lock().index.durable_index(group)
    }

    /// Blocks until [`Wal::durable_index`] has reached `index`; `Ok(false)` when `timeout` passed first. For a checkpoint's
    /// thread, never for an async task.
    pub fn wait_durable(&self, group: GroupId, index: u64, timeout: Duration) -> io::Result<bool> {
        self.handle.shared.wait_durable(group, index, timeout)
    }

    /// Counters and gauges since the log was opened.
    pub fn stats(&self) -> Stats {
        self.handle.shared.stats()
    }

    /// Why the log takes nothing more, if so.
    pub fn is_poisoned(&self) -> Option<String> {
        self.handle.shared.lock().poison.as_ref().map(|poison| poison.message.clone())
    }

    /// Writes all that waits, records the frontier, and joins the writer. Later appends get [`AppendError::Closed`]; reads
    /// still work. Called from a [`Done`] it does not wait.
    pub fn close(&self) {
        self.handle.close();
    }
}

struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    fn close(&self) {
        self.shared.close();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let own = thread.as_ref().is_some_and(|thread| thread.thread().id() == std::thread::current().id());
        if !own
            && let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the write-ahead log's thread panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}
