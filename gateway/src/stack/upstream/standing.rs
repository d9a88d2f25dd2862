//! How a target stands with one core: passed over after a connection that failed, ejected for what it answered, unhealthy by
//! its checks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use store::model::Outlier;

use super::health::Verdict;

/// A target that could not be connected to is passed over for this long, while another is there.
const PASSED_OVER: Duration = Duration::from_secs(1);
/// A target that is ejected again and again is so for at most so many times as long.
const LONGEST_EJECTIONS: u32 = 10;

/// One target's.
#[derive(Debug)]
pub(super) struct Standing {
    born: Instant,
    /// Milliseconds after `born`; 0 for never.
    passed_over_until: AtomicU64,
    ejected_until: AtomicU64,
    /// Failures in a row.
    failures: AtomicU32,
    /// Ejections in a row.
    ejections: AtomicU32,
    verdict: Arc<Verdict>,
}

impl Standing {
    pub(super) fn new(verdict: Arc<Verdict>) -> Self {
        Self {
            born: Instant::now(),
            passed_over_until: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            verdict,
        }
    }

    /// May get requests; whether a connection to it failed a moment ago does not matter.
    pub(super) fn is_fit(&self) -> bool {
        self.verdict.is_healthy() && !self.is_ejected()
    }

    /// May get requests, and nothing speaks against it.
    pub(super) fn is_open(&self) -> bool {
        self.is_fit() && !self.is_within(&self.passed_over_until)
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.is_within(&self.ejected_until)
    }

    fn is_within(&self, until: &AtomicU64) -> bool {
        let until = until.load(Ordering::Relaxed);
        until > 0 && until > self.now_ms()
    }

    pub(super) fn connected(&self) {
        self.passed_over_until.store(0, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        let until = self.now_ms() + u64::try_from(PASSED_OVER.as_millis()).unwrap_or(u64::MAX);
        self.passed_over_until.store(until, Ordering::Relaxed);
    }

    /// It answered, and not with a failure.
    pub(super) fn succeeded(&self) {
        // Most of the time there is nothing to forget: a load costs less than a store.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.ejections.store(0, Ordering::Relaxed);
        }
    }

    /// It failed; true when it has done so too often in a row.
    pub(super) fn failed(&self, outlier: &Outlier) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= u32::from(outlier.failures)
    }

    /// It gets no requests for a while. Afterwards one more failure ejects it again.
    pub(super) fn eject(&self, outlier: &Outlier) {
        let times = (self.ejections.fetch_add(1, Ordering::Relaxed) + 1).min(LONGEST_EJECTIONS);
        let until = self.now_ms().saturating_add(outlier.eject_ms.saturating_mul(u64::from(times)));
        self.ejected_until.store(until.max(1), Ordering::Relaxed);
        self.failures.store(u32::from(outlier.failures.saturating_sub(1)), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
