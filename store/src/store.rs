//! The handle.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    lease::Leases,
    model::{
        Account, AccountId, AuditRecord, CommandError, Key, KeyId, MetaWrite, Name, NodeInfo, Outcome, Profile,
        RequestId, Revision, Route, Row, Tier, Timestamp, Token, Upstream, UsageCounters,
    },
    view::Directory,
};

/// How to open a node's store.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Everything the node keeps is below it; locked while open.
    pub data_dir: PathBuf,
    /// Name, region and addresses that peers and operators are told.
    pub node: NodeInfo,
    /// Where to listen for peers.
    pub peer_listen: SocketAddr,
    /// Peers to form or join a cluster with, this node's own address among them; empty for a cluster of one.
    pub join: Vec<String>,
    /// How long a row may wait for its quorum before the answer is 503.
    pub commit_deadline: Duration,
    /// Rows that may wait for their quorum on this node; at the bound, 503.
    pub max_waiting_rows: usize,
    /// Days that rows are kept when the tier does not say.
    pub log_retention_days: u16,
    /// The bootstrap admin token's hash and role are written at cluster init when given.
    pub bootstrap_token: Option<crate::model::KeyHash>,
}

/// No quorum, no leader, draining, or at a bound: 503 `temporary-reduced-capacity`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("temporarily reduced capacity: {reason}")]
pub struct Unavailable {
    /// For logs and the answer's `detail`.
    pub reason: String,
    /// When to try again.
    pub retry_after: Duration,
}

/// Why a store could not be opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// A row's fate is not known, or it has none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row not committed: {0}")]
pub struct CommitError(pub Unavailable);

/// A write that changed nothing (or whose fate is unknown, for `Unavailable`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A condition does not hold.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// No quorum.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A read that failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No quorum for a linearizable read.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The disk or a stored form.
    #[error("read the ledger: {0}")]
    Storage(String),
    /// A cursor that this store did not make.
    #[error("the cursor is not valid: use a next_cursor as it was given")]
    Cursor,
}

/// Whether the node can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It serves.
    Ready,
    /// It does not, and this is why (waiting for a peer by name, no leader, draining, disk failure).
    NotReady(String),
}

/// Which rows; all conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct RowQuery {
    /// Of this account.
    pub account: Option<AccountId>,
    /// With this key.
    pub key: Option<KeyId>,
    /// On this route.
    pub route: Option<Name>,
    /// With this status.
    pub status: Option<u16>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// Arrived at or after.
    pub since: Option<Timestamp>,
    /// Arrived before.
    pub until: Option<Timestamp>,
    /// At most so many (1 to 1,000).
    pub limit: usize,
    /// Go on from a page's `next_cursor`.
    pub cursor: Option<String>,
}

/// A page of rows, newest first.
#[derive(Debug, Clone, Default)]
pub struct RowPage {
    /// The rows, joined with their settling records.
    pub rows: Vec<Row>,
    /// Where the next page starts; none at the end.
    pub next_cursor: Option<String>,
}

/// Width of a usage point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is its name")]
pub enum UsageStep {
    Minute,
    Hour,
    Day,
}

/// What usage is split by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is its name")]
pub enum UsageBy {
    Route,
    Key,
    Status,
}

/// Which usage.
#[derive(Debug, Clone)]
pub struct UsageQuery {
    /// Of this account.
    pub account: AccountId,
    /// From this time, rounded down to the step.
    pub since: Timestamp,
    /// To this time.
    pub until: Timestamp,
    /// Width of a point.
    pub step: UsageStep,
    /// Split by.
    pub by: Option<UsageBy>,
}

/// Usage of one step (and one value of the split).
#[derive(Debug, Clone)]
pub struct UsagePoint {
    /// Start of the step.
    pub start: Timestamp,
    /// Route, key id or status; none without a split.
    pub group: Option<String>,
    /// The sums.
    pub counters: UsageCounters,
    /// Latency quantiles in microseconds.
    pub p50_us: u64,
    /// 95 %.
    pub p95_us: u64,
    /// 99 %.
    pub p99_us: u64,
}

/// A limit or quota as it stands.
#[derive(Debug, Clone)]
pub struct PolicyNow {
    /// `rate`, `quota` or `concurrency`.
    pub kind: &'static str,
    /// Its name.
    pub name: Name,
    /// What it counts.
    pub unit: &'static str,
    /// For a limit counted per key or route: which one (`key=key_…,route=scan`); empty for the account.
    pub scope: String,
    /// Units a period, or the burst of a rate.
    pub limit: u64,
    /// Units used.
    pub used: u64,
    /// Units left.
    pub remaining: u64,
    /// Reserved by nodes and not yet used (quotas).
    pub reserved: u64,
    /// Reserved by incarnations that are gone; counted as used for the period.
    pub unsettled: u64,
    /// When it is whole again.
    pub resets_at: Option<Timestamp>,
}

/// All of an account's.
pub type LimitsNow = Vec<PolicyNow>;

/// A member of the cluster.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    /// Raft id, in hexadecimal.
    pub id: String,
    /// What peers know of it.
    pub info: NodeInfo,
    /// Votes in group 0.
    pub voter: bool,
    /// Is this node.
    pub this: bool,
}

/// A Raft group as this node sees it.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// 0 is meta.
    pub group: u32,
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

/// The cluster as this node sees it.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// This node's name.
    pub node: Name,
    /// Members.
    pub members: Vec<MemberStatus>,
    /// Groups.
    pub groups: Vec<GroupStatus>,
}

/// A node's store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {}

/// A place in the commit queue, taken before the upstream is called (P5). Dropping it gives the place back.
#[derive(Debug)]
pub struct RowPermit {}

impl RowPermit {
    /// Hands the row in and waits until it is on a quorum's disks, at most the commit deadline.
    /// The row still lands (exactly once) when the waiter gives up, if it was proposed.
    ///
    /// # Errors
    /// [`CommitError`]: the deadline passed or the quorum is lost; the row may land or not.
    pub async fn commit(self, _row: Row) -> Result<(), CommitError> {
        todo!()
    }
}

impl Store {
    /// Opens the data directory, recovers, listens for peers, and starts to form, join or resume the cluster.
    ///
    /// # Errors
    /// [`OpenError`], with what to do about it.
    pub async fn open(_settings: Settings) -> Result<Self, OpenError> {
        todo!()
    }

    /// Whether the node can serve, and why not.
    pub fn readiness(&self) -> Readiness {
        todo!()
    }

    /// Keys, accounts, routes, tokens: memory only.
    pub fn directory(&self) -> &Directory {
        todo!()
    }

    /// What the node may spend.
    pub fn leases(&self) -> &Leases {
        todo!()
    }

    /// Makes sure that a row can be committed: fresh contact with the quorum and a place in the queue.
    ///
    /// # Errors
    /// [`Unavailable`]; the upstream must not be called.
    pub fn permit(&self, _account: &AccountId) -> Result<RowPermit, Unavailable> {
        todo!()
    }

    /// Hands in a row that nobody waits for (a settling record); it is tried until it lands or the node stops.
    /// At the queue's bound it is dropped and counted, and the open row stays `open`.
    pub fn record(&self, _row: Row) {
        todo!()
    }

    /// One atomic change of metadata, forwarded to the leader.
    ///
    /// # Errors
    /// A condition that does not hold, or no quorum.
    pub async fn write(&self, _write: MetaWrite) -> Result<Revision, WriteError> {
        todo!()
    }

    /// Stages an account's profile in its ledger group; publish it by writing the account with this stage id.
    ///
    /// # Errors
    /// No quorum.
    pub async fn stage_profile(
        &self,
        _account: &AccountId,
        _published: &str,
        _profile: Profile,
    ) -> Result<String, WriteError> {
        todo!()
    }

    /// Waits until this node's replica of the metadata (and the ledger) has everything that was answered before this call
    /// (ReadIndex): after it, reads are linearizable.
    ///
    /// # Errors
    /// No quorum.
    pub async fn barrier(&self) -> Result<(), Unavailable> {
        todo!()
    }

    /// Age of this replica's metadata, for `?consistency=stale`.
    pub fn staleness(&self) -> Duration {
        todo!()
    }

    /// An account.
    ///
    /// # Errors
    /// The disk.
    pub fn account(&self, _id: &AccountId) -> Result<Option<Account>, ReadError> {
        todo!()
    }
    /// Accounts in order of id, after `after`.
    ///
    /// # Errors
    /// The disk.
    pub fn accounts(&self, _after: Option<&str>, _limit: usize) -> Result<Vec<Account>, ReadError> {
        todo!()
    }
    /// Published profiles of accounts, in the order asked.
    ///
    /// # Errors
    /// The disk.
    pub fn profiles(&self, _accounts: &[(AccountId, String)]) -> Result<Vec<Profile>, ReadError> {
        todo!()
    }
    /// A key.
    ///
    /// # Errors
    /// The disk.
    pub fn key(&self, _id: &KeyId) -> Result<Option<Key>, ReadError> {
        todo!()
    }
    /// An account's keys in order of id, after `after`.
    ///
    /// # Errors
    /// The disk.
    pub fn keys(&self, _account: &AccountId, _after: Option<&str>, _limit: usize) -> Result<Vec<Key>, ReadError> {
        todo!()
    }
    /// When a key was last used (to the minute), from the rollups.
    ///
    /// # Errors
    /// The disk.
    pub fn key_last_used(&self, _account: &AccountId, _key: &KeyId) -> Result<Option<Timestamp>, ReadError> {
        todo!()
    }
    /// All tiers, by name.
    ///
    /// # Errors
    /// The disk.
    pub fn tiers(&self) -> Result<Vec<Tier>, ReadError> {
        todo!()
    }
    /// All routes, by name.
    ///
    /// # Errors
    /// The disk.
    pub fn routes(&self) -> Result<Vec<Route>, ReadError> {
        todo!()
    }
    /// All upstreams, by name.
    ///
    /// # Errors
    /// The disk.
    pub fn upstreams(&self) -> Result<Vec<Upstream>, ReadError> {
        todo!()
    }
    /// All admin tokens, by id.
    ///
    /// # Errors
    /// The disk.
    pub fn tokens(&self) -> Result<Vec<Token>, ReadError> {
        todo!()
    }
    /// The audit log, newest first, before revision `before`.
    ///
    /// # Errors
    /// The disk.
    pub fn audit(&self, _before: Option<Revision>, _limit: usize) -> Result<Vec<AuditRecord>, ReadError> {
        todo!()
    }
    /// Rows, newest first.
    ///
    /// # Errors
    /// The disk, or a bad cursor.
    pub async fn requests(&self, _query: RowQuery) -> Result<RowPage, ReadError> {
        todo!()
    }
    /// One row, joined.
    ///
    /// # Errors
    /// The disk.
    pub async fn request(&self, _id: RequestId) -> Result<Option<Row>, ReadError> {
        todo!()
    }
    /// Usage of an account.
    ///
    /// # Errors
    /// The disk.
    pub async fn usage(&self, _query: UsageQuery) -> Result<Vec<UsagePoint>, ReadError> {
        todo!()
    }
    /// An account's limits and quotas as they stand, cluster-wide.
    ///
    /// # Errors
    /// No leader to ask.
    pub async fn limits_now(&self, _account: &AccountId) -> Result<LimitsNow, ReadError> {
        todo!()
    }
    /// The cluster as this node sees it.
    pub fn cluster(&self) -> ClusterStatus {
        todo!()
    }
    /// Stops granting and hands leadership over; the node still serves what is in flight.
    pub async fn drain(&self) {
        todo!()
    }
    /// Flushes and closes. Rows handed in before are committed or refused first.
    pub async fn shutdown(&self) {
        todo!()
    }
    /// Numbers for `/metrics`: name (Prometheus, with unit), help, value.
    pub fn stats(&self) -> Vec<(&'static str, &'static str, f64)> {
        todo!()
    }
}
