//! The laws that the simulation holds the store to, one a file. Each is told what happened, by clients and by looking at
//! the nodes, and says what it was that broke it.

mod barrier;
mod concurrency;
mod election;
mod log;
mod quota;
mod rate;
mod read;
mod row;
mod state;
mod usage;

use std::fmt;

pub use barrier::{Barrier, Seen};
pub use concurrency::{CONCURRENCY, Concurrency};
pub use election::Elections;
pub use log::Logs;
pub use quota::{QUOTA_UNITS, Quotas};
pub use rate::{LIMITS, RateLimit, Rates};
pub use read::Reads;
pub use row::Rows;
pub use state::States;
pub use usage::usage_is_the_sum_of_the_rows;

/// A law that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub law: &'static str,
    /// By what.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

/// Every law that is told of events.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each is its type")]
pub struct Laws {
    pub rows: Rows,
    pub rates: Rates,
    pub quotas: Quotas,
    pub concurrency: Concurrency,
    pub barrier: Barrier,
    pub reads: Reads,
    pub elections: Elections,
    pub logs: Logs,
    pub states: States,
    /// The first violation that a law found at once.
    found: Option<Violation>,
}

impl Laws {
    /// The first violation so far.
    pub fn violation(&mut self) -> Option<Violation> {
        let first = self
            .rates
            .take_violation()
            .or_else(|| self.quotas.take_violation())
            .or_else(|| self.concurrency.take_violation())
            .or_else(|| self.barrier.take_violation());
        if self.found.is_none() {
            self.found = first;
        }
        self.found.clone()
    }
}

/// Where a law keeps the first thing that broke it.
#[derive(Debug, Default)]
pub(crate) struct First(Option<Violation>);

impl First {
    pub(crate) fn is(&mut self, law: &'static str, what: impl FnOnce() -> String) {
        if self.0.is_none() {
            self.0 = Some(Violation { law, what: what() });
        }
    }

    pub(crate) fn take(&mut self) -> Option<Violation> {
        self.0.take()
    }
}
