//! Usage: counters for a minute or more.

use super::{Completion, Outcome, Row};

/// Counters of some rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageCounters {
    /// Requests, rejected ones included (a coalesced row counts as many).
    pub requests: u64,
    /// Answers with status 500 and above.
    pub errors: u64,
    /// Refused before the upstream.
    pub rejected: u64,
    /// Request bodies.
    pub bytes_in: u64,
    /// Response bodies.
    pub bytes_out: u64,
    /// Cost units.
    pub cost: u64,
}

impl UsageCounters {
    /// Adds one record. A settling record adds only what the open one lacked.
    pub fn add(&mut self, row: &Row) {
        self.add_record(
            row.count,
            (row.settles, row.status, row.outcome, row.completion),
            (row.bytes_in, row.bytes_out, row.cost),
        );
    }

    /// The same for a record that is read by columns: `count`, what became of it, and its bytes in, bytes out and cost.
    pub fn add_record(
        &mut self,
        count: u32,
        (settles, status, outcome, completion): (bool, u16, Outcome, Completion),
        (bytes_in, bytes_out, cost): (u64, u64, u64),
    ) {
        let count = u64::from(count);
        if !settles {
            self.requests = self.requests.saturating_add(count);
            self.errors = self.errors.saturating_add(if status >= 500 { count } else { 0 });
            self.rejected = self.rejected.saturating_add(if outcome.is_rejected() { count } else { 0 });
            self.bytes_in = self.bytes_in.saturating_add(bytes_in);
        }
        if completion != Completion::Open {
            self.bytes_out = self.bytes_out.saturating_add(bytes_out);
            self.cost = self.cost.saturating_add(cost);
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.rejected = self.rejected.saturating_add(other.rejected);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.cost = self.cost.saturating_add(other.cost);
    }
}
