//! The node and its groups, for operators.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use super::Store;
use crate::{
    model::{GroupId, Name, SLOTS},
    raft::Progress,
    state::Stats,
    wal::sync_bucket_bound,
};

/// Whether the node can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It serves.
    Ready,
    /// It does not, and this is why (waiting for a peer by name, no leader, draining, disk failure).
    NotReady(String),
}

/// A Raft group as this node sees it.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// 0 is meta.
    pub group: u32,
    /// Slots of accounts that are placed in it; none in meta.
    pub slots: u32,
    /// Name of the leading node.
    pub leader: Option<Name>,
    /// Current term.
    pub term: u64,
    /// Index of the last entry here.
    pub last_index: u64,
    /// Newest index known to be committed.
    pub committed_index: u64,
    /// Newest index applied here.
    pub applied_index: u64,
    /// By node name: how many entries its log is behind the leader's (only on the leader).
    pub lag: BTreeMap<Name, u64>,
}

/// How many of something took how long.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Name (Prometheus, with unit).
    pub name: &'static str,
    /// A sentence.
    pub help: &'static str,
    /// Upper bounds, rising, and how many are at most so large and larger than the bound before; the last has no bound.
    pub buckets: Vec<(Option<f64>, u64)>,
    /// Of all.
    pub sum: f64,
}

impl Store {
    /// Whether the node can serve, and why not.
    pub fn readiness(&self) -> Readiness {
        self.0.node.not_ready().map_or(Readiness::Ready, Readiness::NotReady)
    }

    /// The Raft groups as this node sees them.
    pub fn groups(&self) -> Vec<GroupStatus> {
        let node = &self.0.node;
        let members = node.meta().members();
        let placement = node.meta().state().placement();
        let slots = |group: GroupId| match (&placement, group) {
            (_, GroupId::META) => 0,
            (None, _) => u32::from(SLOTS),
            (Some(placement), group) => placement.slots_of(group),
        };
        let all = node.groups();
        let groups = all.iter().map(|group| {
            let progress = group.progress();
            let lag = |(id, matched): (&u64, &u64)| {
                Some((members.get(id)?.0.name.clone(), progress.last.saturating_sub(*matched)))
            };
            GroupStatus {
                group: group.id().0,
                slots: slots(group.id()),
                leader: group.leader().map(|(_, info)| info.name),
                term: progress.term,
                last_index: progress.last,
                committed_index: progress.committed,
                applied_index: progress.applied,
                lag: progress.matched.iter().filter_map(lag).collect(),
            }
        });
        groups.collect()
    }

    /// Histograms for `/metrics`.
    pub fn distributions(&self) -> Vec<Distribution> {
        let wal = self.0.node.wal().stats();
        let bound = |bucket| sync_bucket_bound(bucket).map(|bound| bound.as_secs_f64());
        vec![Distribution {
            name: "tollgate_wal_sync_duration_seconds",
            help: "A write and flush of the log: what each commit waits for.",
            buckets: wal.sync_histogram.iter().enumerate().map(|(bucket, count)| (bound(bucket), *count)).collect(),
            sum: wal.total_sync_ns as f64 / 1e9,
        }]
    }

    /// Numbers for `/metrics`: name (Prometheus, with unit), help, value.
    pub fn stats(&self) -> Vec<(&'static str, &'static str, f64)> {
        let node = &self.0.node;
        let wal = node.wal().stats();
        let seconds = |ns: u64| ns as f64 / 1e9;
        let rows = self.0.lanes.counters();
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let ledgers = node.ledgers();
        let progress: Vec<_> = ledgers.iter().map(|group| group.progress()).collect();
        let newest = |of: fn(&Progress) -> u64| progress.iter().map(of).max().unwrap_or(0) as f64;
        let leads = ledgers.iter().filter(|group| group.is_leader()).count();
        let states: Vec<_> = ledgers.iter().map(|group| group.state().stats()).collect();
        let sum = |of: fn(&Stats) -> u64| states.iter().map(of).sum::<u64>() as f64;
        let mut all = vec![
            ("tollgate_wal_syncs_total", "Flushes of the write-ahead log.", wal.syncs as f64),
            ("tollgate_wal_sync_seconds_total", "Time in writes and flushes of the log.", seconds(wal.total_sync_ns)),
            ("tollgate_wal_sync_max_seconds", "Longest write and flush of the log.", seconds(wal.max_sync_ns)),
            ("tollgate_wal_written_bytes_total", "Bytes written to the log.", wal.synced_bytes as f64),
            ("tollgate_wal_bytes", "Length of the log's segments in use.", wal.bytes as f64),
            ("tollgate_wal_queue_bytes", "Bytes that wait for the log's disk.", wal.queue_bytes as f64),
            ("tollgate_rows_total", "Rows handed to the ledger by this node.", load(&rows.rows)),
            ("tollgate_row_batches_total", "Batches that these rows made.", load(&rows.batches)),
            ("tollgate_row_block_bytes_total", "Bytes of these batches' blocks.", load(&rows.block_bytes)),
            ("tollgate_row_commit_seconds_total", "Time of batches until their commit.", load(&rows.commit_ns) / 1e9),
            (
                "tollgate_rows_dropped_total",
                "Rows of requests that nobody waits for, dropped at the bound.",
                load(&rows.dropped),
            ),
            ("tollgate_rows_waiting", "Rows that wait for their quorum.", self.0.lanes.waiting() as f64),
            ("tollgate_ledger_term", "Raft term of the ledger groups, the newest.", newest(|group| group.term)),
            (
                "tollgate_ledger_leader_changes_total",
                "Leaderships of ledger groups that this node has seen begin.",
                ledgers.iter().map(|group| group.leaderships()).sum::<u64>() as f64,
            ),
            (
                "tollgate_meta_leader_changes_total",
                "Leaderships of the metadata group that this node has seen begin.",
                node.meta().leaderships() as f64,
            ),
            (
                "tollgate_ledger_last_index",
                "Last log index of the ledger groups, the greatest.",
                newest(|group| group.last),
            ),
            (
                "tollgate_ledger_applied_index",
                "Applied index of the ledger groups, the greatest.",
                newest(|group| group.applied),
            ),
            ("tollgate_ledger_is_leader", "Ledger groups that this node leads.", leads as f64),
            ("tollgate_ledger_rows", "Records kept.", sum(|state| state.rows)),
            ("tollgate_ledger_blocks", "Row blocks kept.", sum(|state| state.blocks)),
            ("tollgate_ledger_block_bytes", "Bytes of these blocks.", sum(|state| state.block_bytes)),
            ("tollgate_ledger_file_bytes", "Bytes of the ledger's state files.", sum(|state| state.file_bytes)),
            ("tollgate_ledger_checkpoints_total", "Checkpoints made.", sum(|state| state.checkpoints)),
            ("tollgate_keys", "Keys in the directory.", self.directory().len() as f64),
        ];
        all.extend(self.leases().stats());
        all.extend(self.gauges());
        all
    }
}
