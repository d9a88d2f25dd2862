//! What the lease room counts.

use std::{
    iter,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) decided: Striped,
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

/// A count that every request adds to: each thread has a cache line of it for its own, which it adds to without a locked
/// instruction, and which no other core takes away.
#[derive(Debug)]
pub(super) struct Striped {
    own: Box<[Stripe]>,
    /// Of the threads that came too late for one of their own.
    shared: Counter,
}

const STRIPES: usize = 64;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

impl Default for Striped {
    fn default() -> Self {
        Self { own: (0..STRIPES).map(|_| Stripe::default()).collect(), shared: Counter::default() }
    }
}

impl Striped {
    pub(super) fn add_one(&self) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! { static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed); }
        match self.own.get(THREAD.with(|thread| *thread)) {
            // Nobody else writes it: numbers of threads are not given twice.
            Some(Stripe(own)) => own.store(own.load(Ordering::Relaxed) + 1, Ordering::Relaxed),
            None => self.shared.add(1),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.own.iter().fold(self.shared.count(), |all, Stripe(own)| all + own.load(Ordering::Relaxed))
    }
}

impl Counters {
    pub(super) fn list(&self) -> Vec<(&'static str, &'static str, f64)> {
        let granted = ("tollgate_lease_granted_total", "Requests that were let through.", self.decided.count() as f64);
        let others = [
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
        .map(|(name, help, counter)| (name, help, counter.count() as f64));
        iter::once(granted).chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_threads_count_is_lost() {
        let count = Striped::default();
        // More threads than stripes, at once.
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| (0..1_000).for_each(|_| count.add_one()));
            }
        });
        assert_eq!(count.count(), 2_000 * STRIPES as u64);
    }
}
