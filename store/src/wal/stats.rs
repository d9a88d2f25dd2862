//! What the log counts.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Buckets of [`Stats::sync_histogram`].
pub const SYNC_BUCKETS: usize = 16;

/// The upper bound of a bucket of [`Stats::sync_histogram`]: 32 us, doubling; the last one has none.
pub fn sync_bucket_bound(bucket: usize) -> Option<Duration> {
    (bucket + 1 < SYNC_BUCKETS).then(|| Duration::from_micros(32 << bucket))
}

/// Counters since the log was opened, and gauges of now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segment files in use.
    pub segments: u64,
    /// Empty segment files kept ready.
    pub spare_segments: u64,
    /// Length of the segment files in use.
    pub bytes: u64,
    /// Appends accepted.
    pub appends: u64,
    /// Bytes accepted and not yet durable.
    pub queue_bytes: u64,
    /// Bytes of entries in memory, those that are not durable included.
    pub cache_bytes: u64,
    /// Frames written, frontier frames included.
    pub frames: u64,
    /// Frames that only record that everything was synced.
    pub frontier_frames: u64,
    /// Syncs of frames.
    pub syncs: u64,
    /// Bytes of frames, headers included, that were synced.
    pub synced_bytes: u64,
    /// Segments begun.
    pub rolls: u64,
    /// Segments whose entries were all purged: kept as spares or removed.
    pub recycled: u64,
    /// Segment files created, that is, filled with zeros.
    pub created: u64,
    /// The newest write and sync of a frame.
    pub last_sync_ns: u64,
    /// The longest one.
    pub max_sync_ns: u64,
    /// The sum of all.
    pub total_sync_ns: u64,
    /// How many took how long: see [`sync_bucket_bound`].
    pub sync_histogram: [u64; SYNC_BUCKETS],
}

/// The same as atomics.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) segments: AtomicU64,
    pub(super) spare_segments: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) appends: AtomicU64,
    pub(super) frames: AtomicU64,
    pub(super) frontier_frames: AtomicU64,
    pub(super) synced_bytes: AtomicU64,
    pub(super) rolls: AtomicU64,
    pub(super) recycled: AtomicU64,
    pub(super) created: AtomicU64,
    syncs: AtomicU64,
    last_sync_ns: AtomicU64,
    max_sync_ns: AtomicU64,
    total_sync_ns: AtomicU64,
    sync_histogram: [AtomicU64; SYNC_BUCKETS],
}

impl Counters {
    pub(super) fn synced(&self, took: Duration, bytes: usize) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Relaxed);
        self.synced_bytes.fetch_add(bytes as u64, Relaxed);
        self.last_sync_ns.store(ns, Relaxed);
        self.max_sync_ns.fetch_max(ns, Relaxed);
        self.total_sync_ns.fetch_add(ns, Relaxed);
        let bucket = (0..SYNC_BUCKETS).find(|bucket| sync_bucket_bound(*bucket).is_none_or(|bound| took < bound));
        self.sync_histogram[bucket.unwrap_or(SYNC_BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self, queue_bytes: usize, cache_bytes: usize) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Stats {
            segments: read(&self.segments),
            spare_segments: read(&self.spare_segments),
            bytes: read(&self.bytes),
            appends: read(&self.appends),
            queue_bytes: queue_bytes as u64,
            cache_bytes: cache_bytes as u64,
            frames: read(&self.frames),
            frontier_frames: read(&self.frontier_frames),
            syncs: read(&self.syncs),
            synced_bytes: read(&self.synced_bytes),
            rolls: read(&self.rolls),
            recycled: read(&self.recycled),
            created: read(&self.created),
            last_sync_ns: read(&self.last_sync_ns),
            max_sync_ns: read(&self.max_sync_ns),
            total_sync_ns: read(&self.total_sync_ns),
            sync_histogram: self.sync_histogram.each_ref().map(read),
        }
    }
}
