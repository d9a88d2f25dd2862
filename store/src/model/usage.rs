//! Usage: counters and a mergeable latency sketch for a minute or more.

use sketches_ddsketch::{Config, DDSketch};

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

/// Latency distribution in microseconds: DDSketch with 1 % relative error (Masson, Rim, Lee 2019), at most 2,048 bins.
#[derive(Clone)]
pub struct Sketch(pub DDSketch);

impl Sketch {
    /// An empty one; all sketches share these parameters, so that any two merge.
    pub fn new() -> Self {
        Self(DDSketch::new(Config::new(0.01, 2_048, 1.0)))
    }

    /// Adds one duration.
    pub fn add(&mut self, duration_us: u64) {
        self.0.add(duration_us as f64);
    }

    /// Adds another's durations.
    pub fn merge(&mut self, other: &Self) {
        // Only differing parameters fail, and all sketches have the same.
        let _ = self.0.merge(&other.0);
    }

    /// The duration at quantile `q` in microseconds; 0 when empty.
    pub fn quantile(&self, q: f64) -> u64 {
        self.0.quantile(q).ok().flatten().unwrap_or(0.0).max(0.0) as u64
    }
}

impl Default for Sketch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Sketch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sketch({} values)", self.0.count())
    }
}
