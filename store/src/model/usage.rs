//! Usage: counters and a mergeable latency sketch for a minute or more.

use sketches_ddsketch::{Config, DDSketch};

use super::Row;

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
        let count = u64::from(row.count);
        if !row.settles {
            self.requests += count;
            self.errors += if row.status >= 500 { count } else { 0 };
            self.rejected += if row.outcome.is_rejected() { count } else { 0 };
            self.bytes_in += row.bytes_in;
        }
        if row.completion != super::Completion::Open {
            self.bytes_out += row.bytes_out;
            self.cost += row.cost;
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.rejected += other.rejected;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.cost += other.cost;
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
