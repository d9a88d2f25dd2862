//! Checkpoints and what follows from them: snapshots known to Raft, and the purge of the log.
//!
//! One thread a group, off the proposal path. The log keeps at least [`KEEP_BYTES`] or [`KEEP_TIME`] below a checkpoint, so
//! that a node that was away shortly needs no snapshot.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{group::Group, machine::WaitDurable, node::Fail};
use crate::{platform, wal::Wal};

/// Time between two checkpoints of a group that changes.
const INTERVAL: Duration = Duration::from_millis(500);
/// Bytes of log that start a checkpoint before its time.
const INTERVAL_BYTES: u64 = 64 << 20;
/// How often the bytes are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Log kept below a checkpoint, by size …
const KEEP_BYTES: u64 = 1 << 30;
/// … or by age.
const KEEP_TIME: Duration = Duration::from_secs(600);
/// The same in a simulation, where nodes are away for seconds, and snapshots shall be needed.
const SIMULATED_KEEP_TIME: Duration = Duration::from_secs(4);

/// A checkpoint that the log may be purged up to, one day.
struct Mark {
    at: Instant,
    written: u64,
    index: u64,
}

/// A group's checkpoints.
pub(super) struct Checkpointer {
    group: Arc<Group>,
    wal: Wal,
    wait_durable: WaitDurable,
    stopping: Arc<AtomicBool>,
    failed: Fail,
    marks: VecDeque<Mark>,
    last: Instant,
    last_written: u64,
}

impl Checkpointer {
    pub(super) fn new(
        group: Arc<Group>,
        wal: Wal,
        wait_durable: WaitDurable,
        stopping: Arc<AtomicBool>,
        failed: Fail,
    ) -> Self {
        let last_written = wal.stats().synced_bytes;
        let (marks, last) = (VecDeque::new(), Instant::now());
        Self { group, wal, wait_durable, stopping, failed, marks, last, last_written }
    }

    /// Starts the thread: it runs until `stopping`; a failed checkpoint fails the node.
    pub(super) fn start(mut self) -> io::Result<std::thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new().name(format!("checkpoint-{}", self.group.id())).spawn(move || {
            loop {
                let stop = self.stopping.load(Ordering::Acquire);
                if !self.is_due() && !stop {
                    std::thread::sleep(TICK);
                } else if !runtime.block_on(self.round()) || stop {
                    return;
                }
            }
        })
    }

    /// As the thread does it, without one.
    #[cfg(feature = "simulation")]
    pub(super) async fn run(mut self) {
        loop {
            tokio::time::sleep(TICK).await;
            if self.is_due() && !self.round().await {
                return;
            }
        }
    }

    fn is_due(&self) -> bool {
        self.last.elapsed() >= INTERVAL || self.wal.stats().synced_bytes - self.last_written >= INTERVAL_BYTES
    }

    /// A checkpoint, which blocks, and what follows from it; whether to go on.
    async fn round(&mut self) -> bool {
        let written = self.wal.stats().synced_bytes;
        (self.last, self.last_written) = (Instant::now(), written);
        match self.group.state().checkpoint(&mut |index| (self.wait_durable)(index)) {
            Ok(Some(at)) => {
                if self.marks.back().is_none_or(|mark| mark.index < at.index) {
                    self.marks.push_back(Mark { at: Instant::now(), written, index: at.index });
                    // Raft is told at most once a checkpoint; it asks for it by itself when a follower needs it.
                    let _ = self.group.raft().trigger().snapshot().await;
                }
            }
            Ok(None) => {}
            Err(error) => {
                (self.failed)(format!("checkpoint of group {}: {error}", self.group.id()));
                return false;
            }
        }
        let keep_time = if platform::simulated() { SIMULATED_KEEP_TIME } else { KEEP_TIME };
        let mut purge = None;
        while self.marks.front().is_some_and(|m| written - m.written >= KEEP_BYTES || m.at.elapsed() >= keep_time) {
            purge = self.marks.pop_front();
        }
        if let Some(mark) = purge {
            let _ = self.group.raft().trigger().purge_log(mark.index).await;
        }
        true
    }
}
