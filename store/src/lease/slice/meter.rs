//! How much is asked of a slice: it decides how large the next one is.

const SECOND_NS: u64 = 1_000_000_000;

/// Recent demand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meter {
    since_ns: u64,
    units: u64,
    requests: u64,
    /// Units of the second before.
    before: u64,
}

impl Meter {
    /// A request came that wants so many units.
    pub(super) fn count(&mut self, units: u64, now_ns: u64) {
        let age_ns = now_ns.saturating_sub(self.since_ns);
        if age_ns >= SECOND_NS {
            let before = if age_ns < 2 * SECOND_NS { self.units } else { 0 };
            *self = Self { since_ns: now_ns, units: 0, requests: 0, before };
        }
        self.units = self.units.saturating_add(units);
        self.requests += 1;
    }

    /// Units a second: of the second before, or of this one so far; from 16 requests on, at this one's pace.
    pub(super) fn per_second(&self, now_ns: u64) -> u64 {
        let age_ns = now_ns.saturating_sub(self.since_ns).max(SECOND_NS / 100);
        let now = if self.requests >= 16 && age_ns < SECOND_NS {
            u64::try_from(u128::from(self.units) * u128::from(SECOND_NS) / u128::from(age_ns)).unwrap_or(super::MOST)
        } else {
            self.units
        };
        now.max(self.before).max(1)
    }
}
