//! One replica's state machine of one group: what the log's entries have made, on disk and in memory.
//!
//! Group 0 (meta) is accounts, keys, tiers, routes, upstreams, tokens and their audit; groups 1 and above (ledger) are rows,
//! usage, quotas and profiles. Apply is a pure function of state and entry: no clock, no randomness, nothing that depends
//! on the order of a hash map, so that replicas at the same index hold the same ([`State::digest`]).
//!
//! Between two checkpoints the changes live in memory, in layers over the files: the write-ahead log makes them durable,
//! and after a crash it is replayed from the last checkpoint. A checkpoint writes the layers down and is, besides an
//! import, the only thing that changes a state file. Formats are drawn in `store/README.md`.
//!
//! Never: reads a clock, talks to a peer, holds the lock that readers need while the disk works.

pub mod block;

mod alerts;
mod apply;
mod carried;
mod change;
mod checkpoint;
mod codec;
mod counting;
mod dedup;
mod disk;
mod error;
mod flat;
mod follow;
pub(crate) mod fuzz;
mod hash;
mod index;
mod latency;
mod layer;
mod ledger;
mod meta;
mod open;
mod page;
mod query;
mod quota;
mod read;
mod replica;
mod rollup;
mod seal;
mod settled;
mod snapshot;
mod storage;
mod tables;
mod tally;
mod usage;
mod vars;
mod view;

#[cfg(test)]
mod tests;

pub use change::Change;
pub use disk::{Disk, Files};
pub use error::{OpenError, ReadError, StateError};
pub use follow::Followed;
pub use page::{PAGE_ROWS, PlacedPage, RowPlace, cursor, parse_cursor};
pub use query::{QuotaNow, RowPage, RowQuery, Stats, UsageBy, UsagePoint, UsageQuery, UsageStep};
pub use replica::State;
pub use rollup::usage_over;

use std::sync::Arc;

use bytes::Bytes;

use crate::model::LogId;

/// How to open a state.
#[derive(Debug, Clone)]
pub struct Options {
    /// Days that rows are kept when the tier does not say: [`State::droppable`] tells the leader what to propose.
    pub retention_days: u16,
    /// Bytes of the main file that redb may keep in memory; each file of rows gets an eighth.
    pub cache_bytes: usize,
    /// Where the files are.
    pub files: Arc<dyn Files>,
}

impl Default for Options {
    fn default() -> Self {
        Self { retention_days: 30, cache_bytes: 128 << 20, files: Arc::new(Disk) }
    }
}

/// What an entry carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// The group's members; not read here, only kept.
    Membership(Bytes),
    /// An encoded [`crate::model::Command`].
    Command(Bytes),
}

/// A committed entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place in the log.
    pub id: LogId,
    /// What it carries.
    pub payload: Payload,
}

/// How far a state is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry applied.
    pub last: Option<LogId>,
    /// The newest membership applied.
    pub membership: Option<Bytes>,
}
