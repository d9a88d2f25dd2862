//! What can be asked of a ledger, and the shape of its answers.

use crate::model::{AccountId, KeyId, Name, Outcome, Row, Timestamp, UsageCounters};

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

/// A page of rows, newest arrival first.
#[derive(Debug, Clone, Default)]
pub struct RowPage {
    /// The rows, joined with their settling records. A page may be short, even empty, and still have a next one.
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
    /// To this time (the step that it falls into is not whole).
    pub until: Timestamp,
    /// Width of a point.
    pub step: UsageStep,
    /// Split by.
    pub by: Option<UsageBy>,
}

/// Usage of one step (and one value of the split). Steps without any are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A quota's period as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuotaNow {
    /// The quota's name.
    pub quota: Name,
    /// Start of the period, seconds since 1970.
    pub period_start: i64,
    /// Units of rows.
    pub used: u64,
    /// Units that live incarnations hold.
    pub reserved: u64,
    /// Units that incarnations held which are gone: used, as far as anyone knows.
    pub unsettled: u64,
}

/// Sizes, for `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all state files.
    pub file_bytes: u64,
    /// Files of rows.
    pub row_files: u64,
    /// Row blocks.
    pub blocks: u64,
    /// Row blocks that wait for sealing.
    pub unsealed_blocks: u64,
    /// Rows (records: a settled one is two).
    pub rows: u64,
    /// Bytes of the row blocks.
    pub block_bytes: u64,
    /// Bytes of entries that no checkpoint holds yet, about.
    pub pending_bytes: u64,
    /// Checkpoints made since opening.
    pub checkpoints: u64,
}
