//! What the lease room counts.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) decided: Counter,
    pub(super) waited: Counter,
    pub(super) asks: Counter,
    pub(super) asked_demands: Counter,
    pub(super) reserves: Counter,
    pub(super) from_memory: Counter,
    pub(super) overdrawn: Counter,
    pub(super) unavailable: Counter,
    pub(super) shadowed: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(super) fn list(&self) -> Vec<(&'static str, &'static str, f64)> {
        [
            ("tollgate_lease_granted_total", "Requests that were let through.", &self.decided),
            (
                "tollgate_lease_waited_total",
                "Requests that were not decided from memory: they waited for the leader or the replicated state.",
                &self.waited,
            ),
            ("tollgate_lease_asks_total", "Messages sent to leaders of ledger groups.", &self.asks),
            ("tollgate_lease_asked_demands_total", "Demands of requests in these messages.", &self.asked_demands),
            ("tollgate_lease_reservations_total", "Quota reservations made or given back.", &self.reserves),
            (
                "tollgate_lease_refused_from_memory_total",
                "Requests refused without asking the leader or the replicated state.",
                &self.from_memory,
            ),
            ("tollgate_lease_overdrawn_units_total", "Quota units charged beyond what was reserved.", &self.overdrawn),
            (
                "tollgate_lease_shadow_refusals_total",
                "Requests let through that a policy would have refused if it were no shadow.",
                &self.shadowed,
            ),
            ("tollgate_lease_unavailable_total", "Requests for which nobody could decide.", &self.unavailable),
        ]
        .map(|(name, help, counter)| (name, help, counter.count() as f64))
        .into()
    }
}
