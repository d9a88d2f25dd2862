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
    time::{Duration, Instant},
};

use super::{group::Group, machine::WaitDurable};
use crate::wal::Wal;

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

/// A checkpoint that the log may be purged up to, one day.
struct Mark {
    at: Instant,
    written: u64,
    index: u64,
}

/// Runs until `stopping`; a failed checkpoint fails the node.
pub(super) fn start(
    group: Arc<Group>,
    wal: Wal,
    wait_durable: WaitDurable,
    stopping: Arc<AtomicBool>,
    failed: Arc<dyn Fn(String) + Send + Sync>,
) -> io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new().name(format!("checkpoint-{}", group.id())).spawn(move || {
        let mut marks: VecDeque<Mark> = VecDeque::new();
        let (mut last, mut last_written) = (Instant::now(), wal.stats().synced_bytes);
        loop {
            let stop = stopping.load(Ordering::Acquire);
            let written = wal.stats().synced_bytes;
            let due = last.elapsed() >= INTERVAL || written - last_written >= INTERVAL_BYTES;
            if !due && !stop {
                std::thread::sleep(TICK);
                continue;
            }
            (last, last_written) = (Instant::now(), written);
            match group.state().checkpoint(&mut |index| wait_durable(index)) {
                Ok(Some(at)) => {
                    if marks.back().is_none_or(|mark| mark.index < at.index) {
                        marks.push_back(Mark { at: Instant::now(), written, index: at.index });
                        // Raft is told at most once a checkpoint; it asks for it by itself when a follower needs it.
                        let _ = runtime.block_on(group.raft().trigger().snapshot());
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    failed(format!("checkpoint of group {}: {error}", group.id()));
                    return;
                }
            }
            let mut purge = None;
            while marks.front().is_some_and(|m| written - m.written >= KEEP_BYTES || m.at.elapsed() >= KEEP_TIME) {
                purge = marks.pop_front();
            }
            if let Some(mark) = purge {
                let _ = runtime.block_on(group.raft().trigger().purge_log(mark.index));
            }
            if stop {
                return;
            }
        }
    })
}
