//! One bucket's purse.

use super::super::{bucket::Wanted, wire::Report};

/// Demand is counted in windows of this length; a lease ahead of demand is what one of them spends.
const WINDOW_NS: u64 = 250_000_000;
/// Units that nobody asked for so long go back.
const IDLE_NS: u64 = 250_000_000;
/// A purse that holds nothing is forgotten after so long without demand.
const FORGET_NS: u64 = 1_000_000_000;

/// What this node holds of one bucket, and remembers of it.
pub(super) struct Purse {
    pub(super) wanted: Wanted,
    /// The lease's number, and the term of the leader that gave it; 0: none.
    pub(super) lease: u64,
    pub(super) term: u64,
    pub(super) until_ns: u64,
    /// When the leader ends the lease unless it hears more of it, on the leader's clock; at the earliest.
    pub(super) ends_ns: u64,
    /// Unspent, besides those promised to requests that are about to be told.
    pub(super) left: u64,
    pub(super) promised: u64,
    /// Of this lease, in all.
    pub(super) spent: u64,
    /// Of these, said in the newest message.
    pub(super) said: u64,
    pub(super) last_spent_ns: u64,
    /// The bucket as the leader last told, on this node's clock, with what was spent here since.
    pub(super) tat_ns: u64,
    pub(super) none_until_ns: u64,
    /// The leader waits for reports.
    pub(super) prompt: bool,
    pub(super) dirty: bool,
    pub(super) wanting: bool,
    pub(super) not_ahead_until_ns: u64,
    pub(super) window_ns: u64,
    pub(super) window: u64,
    pub(super) before: u64,
    pub(super) demand_ns: u64,
}

impl Purse {
    pub(super) fn new(wanted: Wanted, now_ns: u64) -> Self {
        Self {
            wanted,
            lease: 0,
            term: 0,
            until_ns: 0,
            ends_ns: 0,
            left: 0,
            promised: 0,
            spent: 0,
            said: 0,
            last_spent_ns: 0,
            tat_ns: 0,
            none_until_ns: 0,
            prompt: false,
            dirty: false,
            wanting: false,
            not_ahead_until_ns: 0,
            window_ns: now_ns,
            window: 0,
            before: 0,
            demand_ns: now_ns,
        }
    }

    /// Counts a demand. Units of older policies than its own are thrown away, and so is what the leader said under them.
    pub(super) fn demand(&mut self, wanted: &Wanted, now_ns: u64) {
        if wanted.revision > self.wanted.revision {
            self.wanted = *wanted;
            (self.left, self.none_until_ns) = (0, 0);
        }
        let age_ns = now_ns.saturating_sub(self.window_ns);
        if age_ns >= WINDOW_NS {
            self.before = if age_ns < 2 * WINDOW_NS { self.window } else { 0 };
            (self.window_ns, self.window) = (now_ns, 0);
        }
        self.window += 1;
        self.demand_ns = now_ns;
    }

    /// What a window of demand spends.
    pub(super) fn target(&self, now_ns: u64) -> u64 {
        let fresh = now_ns.saturating_sub(self.window_ns) < 2 * WINDOW_NS;
        if fresh { self.before.max(self.window) } else { 0 }
    }

    pub(super) fn spend(&mut self, now_ns: u64) -> u64 {
        self.spent += 1;
        self.last_spent_ns = self.last_spent_ns.max(now_ns);
        self.tat_ns = self.tat_ns.max(now_ns).saturating_add(self.wanted.emission_ns);
        self.tat_ns
    }

    /// What is of no use goes back with the next report.
    pub(super) fn tidy(&mut self, term: u64, now_ns: u64) {
        if self.term != term && self.lease != 0 {
            // Another leader's: spent until it ends, reported to nobody.
            if now_ns >= self.until_ns {
                self.end();
            }
            return;
        }
        let idle = now_ns.saturating_sub(self.demand_ns) >= IDLE_NS;
        if self.left > 0 && (idle || now_ns >= self.until_ns) {
            self.left = 0;
            self.dirty = true;
        }
    }

    pub(super) fn report(&mut self, now_ns: u64) -> Option<Report> {
        self.dirty = false;
        if self.lease == 0 {
            return None;
        }
        self.said = self.spent;
        Some(Report {
            name: self.wanted.name,
            lease: self.lease,
            term: self.term,
            spent: self.spent,
            left: self.left + self.promised,
            age_ns: now_ns.saturating_sub(self.last_spent_ns),
        })
    }

    pub(super) fn end(&mut self) {
        (self.lease, self.left, self.promised, self.spent, self.said) = (0, 0, 0, 0, 0);
    }

    pub(super) fn is_used(&self, now_ns: u64) -> bool {
        self.lease != 0 || now_ns < self.none_until_ns || now_ns.saturating_sub(self.demand_ns) < FORGET_NS
    }
}
