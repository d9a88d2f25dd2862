//! What the callers' threads and the writer share: the index and the queue, under one mutex that nobody holds across I/O.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Condvar, Mutex, MutexGuard, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    AppendError, Done, MAX_APPEND_BYTES, Options, Record, Stats,
    index::{Index, Ticket},
    record,
    segment::Segment,
    stats::Counters,
};
use crate::model::GroupId;

/// One append on its way to the disk.
pub(super) struct Item {
    pub(super) group: GroupId,
    pub(super) records: Vec<Record>,
    /// Of its first entry.
    pub(super) ticket: Ticket,
    /// Its records' length in a frame.
    pub(super) bytes: usize,
    pub(super) done: Done,
}

/// Why the log takes nothing more.
#[derive(Debug, Clone)]
pub(super) struct Poison {
    kind: io::ErrorKind,
    pub(super) message: String,
}

impl Poison {
    pub(super) fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.message.clone())
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) queue: Vec<Item>,
    /// Bytes accepted and not yet durable.
    pub(super) queued_bytes: usize,
    /// The files by generation, for readers.
    pub(super) segments: BTreeMap<u32, Segment>,
    pub(super) poison: Option<Poison>,
    pub(super) closing: bool,
    /// The writer waits on `work`: only then is a wake-up (a system call) due.
    pub(super) writer_sleeps: bool,
    pub(super) durable_waiters: usize,
}

pub(super) struct Shared {
    state: Mutex<State>,
    work: Condvar,
    durable: Condvar,
    pub(super) counters: Counters,
    pub(super) options: Options,
}

/// Why the writer woke.
pub(super) enum Wake {
    Work,
    /// The deadline passed and nothing waits.
    Idle,
    /// Nothing waits and nothing more will come.
    Close,
}

impl Shared {
    pub(super) fn new(options: Options, state: State) -> Self {
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            durable: Condvar::new(),
            counters: Counters::default(),
            options,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the log's state")
    }

    pub(super) fn append(&self, group: GroupId, records: Vec<Record>, done: Done) -> Result<(), AppendError> {
        let bytes = records.iter().map(record::encoded_bytes).fold(0, usize::saturating_add);
        if bytes > MAX_APPEND_BYTES {
            return Err(AppendError::TooLarge { bytes, limit: MAX_APPEND_BYTES });
        }
        let mut state = self.lock();
        if let Some(poison) = &state.poison {
            return Err(AppendError::Poisoned { reason: poison.message.clone() });
        }
        if state.closing {
            return Err(AppendError::Closed);
        }
        // An append larger than the whole queue is taken when the queue is empty: it could never be written otherwise.
        if state.queued_bytes > 0 && state.queued_bytes + bytes > self.options.queue_bytes {
            return Err(AppendError::Full { queued: state.queued_bytes, limit: self.options.queue_bytes });
        }
        state.index.check(group, &records)?;
        let ticket = state.index.next_ticket();
        for record in &records {
            state.index.apply(group, record);
        }
        state.queued_bytes += bytes;
        state.queue.push(Item { group, records, ticket, bytes, done });
        let wake = std::mem::take(&mut state.writer_sleeps);
        drop(state);
        self.counters.appends.fetch_add(1, Relaxed);
        if wake {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Blocks the writer until there is something to do; `deadline` is when an idle log wants to hear of it.
    pub(super) fn next_work(&self, deadline: Option<Instant>) -> Wake {
        let mut state = self.lock();
        loop {
            if !state.queue.is_empty() {
                return Wake::Work;
            }
            if state.closing {
                return Wake::Close;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Wake::Idle;
            }
            state.writer_sleeps = true;
            state = match left {
                Some(left) => self.work.wait_timeout(state, left).map(|(state, _)| state).map_err(|_| ()),
                None => self.work.wait(state).map_err(|_| ()),
            }
            .expect("nothing panics while it holds the log's state");
            state.writer_sleeps = false;
        }
    }

    /// Nothing was kept that was not durable before: every append from now on, and everyone who waits, gets this error.
    pub(super) fn poison(&self, error: &io::Error, message: String) {
        let mut state = self.lock();
        if state.poison.is_none() {
            tracing::error!(error = %error, "the write-ahead log takes nothing more: {message}");
            state.poison = Some(Poison { kind: error.kind(), message });
        }
        drop(state);
        self.durable.notify_all();
    }

    /// Tells those who wait for a durable index that it may have changed.
    pub(super) fn wake_durable_waiters(&self, state: MutexGuard<'_, State>) {
        let waiters = state.durable_waiters;
        drop(state);
        if waiters > 0 {
            self.durable.notify_all();
        }
    }

    pub(super) fn wait_durable(&self, group: GroupId, index: u64, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if state.index.durable_index(group) >= Some(index) {
                return Ok(true);
            }
            if let Some(poison) = &state.poison {
                return Err(poison.error());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            state.durable_waiters += 1;
            state = self.durable.wait_timeout(state, left).expect("nothing panics while it holds the log's state").0;
            state.durable_waiters -= 1;
        }
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    pub(super) fn stats(&self) -> Stats {
        let state = self.lock();
        self.counters.read(state.queued_bytes, state.index.cached_bytes)
    }

    /// Moves the queue into `backlog`. If there is anything to write then, returns the committed marks that go with it.
    pub(super) fn take(&self, backlog: &mut VecDeque<Item>) -> Vec<(GroupId, Bytes)> {
        let mut state = self.lock();
        backlog.extend(state.queue.drain(..));
        if backlog.is_empty() { Vec::new() } else { state.index.take_committed() }
    }
}
