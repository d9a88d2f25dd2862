//! What a simulation gives the store instead of the operating system. Only with the feature `simulation`, which no
//! production build has.

use std::{cell::Cell, time::Duration};

pub use super::net::simulated::break_connections;

/// The clocks of the node that is running now.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// The lease clock, with the node's drift.
    pub lease_ns: fn() -> u64,
    /// Time since 1970.
    pub wall: fn() -> Duration,
}

thread_local! {
    static CLOCKS: Cell<Option<Clocks>> = const { Cell::new(None) };
    static DEFECT: Cell<Option<Defect>> = const { Cell::new(None) };
}

/// From now on all store code on this thread is simulated; `defect` is what it does wrong, to check the checkers.
pub fn enter(clocks: Clocks, defect: Option<Defect>) {
    CLOCKS.set(Some(clocks));
    DEFECT.set(defect);
}

pub(crate) fn clocks() -> Option<Clocks> {
    CLOCKS.get()
}

pub(crate) fn is_planted(defect: Defect) -> bool {
    DEFECT.get() == Some(defect)
}

/// Something wrong on purpose, in the code that it names. Each breaks one law that the simulation checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The log answers before its frame is flushed.
    SkipsFsync,
    /// The state takes a repeated batch for a new one.
    ForgetsDedup,
    /// A bucket of rates grants one unit more than it has.
    GrantsOneTooMany,
    /// A new leader's buckets start full, also when a predecessor may have granted.
    StartsLeaderFull,
    /// What is given back is put into the bucket twice.
    RefundsTwice,
    /// Units that other nodes hold are not counted.
    ForgetsLent,
    /// A reservation of quota is granted beyond the limit.
    OverReserves,
    /// One request more at once than the bound.
    AllowsOneMoreAtOnce,
    /// A metadata write is answered when it is applied on the leader, not everywhere.
    AnswersBeforeBarrier,
    /// A read does not ask for the newest index.
    ReadsWithoutIndex,
    /// A vote is granted without being written down.
    ForgetsVote,
    /// A vote is granted to whoever asks for it.
    GrantsEveryVote,
    /// Entries reach followers changed.
    ChangesEntries,
    /// Apply depends on which node it runs on.
    AppliesUnevenly,
    /// One row in a while is not counted.
    MiscountsUsage,
    /// Slots come to another group without what their quotas have used.
    MovesWithoutCounters,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::SkipsFsync,
        Self::ForgetsDedup,
        Self::GrantsOneTooMany,
        Self::StartsLeaderFull,
        Self::RefundsTwice,
        Self::ForgetsLent,
        Self::OverReserves,
        Self::AllowsOneMoreAtOnce,
        Self::AnswersBeforeBarrier,
        Self::ReadsWithoutIndex,
        Self::ForgetsVote,
        Self::GrantsEveryVote,
        Self::ChangesEntries,
        Self::AppliesUnevenly,
        Self::MiscountsUsage,
        Self::MovesWithoutCounters,
    ];
}
