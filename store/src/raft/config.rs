//! What openraft is told: its defaults are wrong for two busy cores at our rates.

use openraft::SnapshotPolicy;

use crate::model::GroupId;

/// Heartbeats of a leader.
const HEARTBEAT_MS: u64 = 75;
/// A follower asks for votes when the leader's lease has run out and so long again (at random between the two) has passed: a
/// dead leader is followed after 0.7 to 1 s.
const ELECTION_MIN_MS: u64 = 200;
/// See [`ELECTION_MIN_MS`]; also the leader lease: for this long after its last heartbeat a voter elects nobody else.
pub(super) const ELECTION_MAX_MS: u64 = 500;
/// Entries of one replication message.
const PAYLOAD_ENTRIES: u64 = 256;

/// The settings of a group.
pub(super) fn of(group: GroupId) -> openraft::Config {
    openraft::Config {
        cluster_name: format!("tollgate-{group}"),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        max_payload_entries: PAYLOAD_ENTRIES,
        // Lag alone never causes a snapshot: only entries that are gone do.
        replication_lag_threshold: u64::MAX / 2,
        // The checkpointer makes snapshots and purges by its own rules.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX / 2,
        purge_batch_size: 1,
        install_snapshot_timeout: 3_600_000,
        enable_pre_vote: Some(true),
        // A restarted leader must not go on as if nothing had been: what it granted is unknown.
        enable_leader_restore: Some(false),
        backoff: "100ms".into(),
        ..openraft::Config::default()
    }
}
