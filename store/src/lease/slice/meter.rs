//! How much is asked of a slice: it decides how large the next one is.

const SECOND_NS: u64 = 1_000_000_000;

/// Recent demand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meter {
    since_ns: u64,
    units: u64,
    requests: u32,
    /// Units of the second before; after a pause, what is left of its pace.
    before: u64,
}

impl Meter {
    /// A request came that wants so many units.
    pub(super) fn count(&mut self, units: u64, now_ns: u64) {
        let age_ns = now_ns.saturating_sub(self.since_ns);
        if age_ns >= SECOND_NS {
            // After a pause, half of what it was for every two seconds of it: who comes back is not met with slices of one.
            let halves = u32::try_from(age_ns / (2 * SECOND_NS)).unwrap_or(u32::MAX);
            let before =
                if halves == 0 { self.units } else { self.units.max(self.before).checked_shr(halves).unwrap_or(0) };
            *self = Self { since_ns: now_ns, units: 0, requests: 0, before };
        }
        self.units = self.units.saturating_add(units);
        self.requests = self.requests.saturating_add(1);
    }

    /// Whether [`Meter::per_second`] is that much, or more; without its division, as each request asks.
    pub(super) fn reaches(&self, units: u64, now_ns: u64) -> bool {
        if self.units.max(self.before).max(1) >= units {
            return true;
        }
        let age_ns = self.age_ns(now_ns);
        self.has_pace(age_ns)
            && u128::from(self.units) * u128::from(SECOND_NS) >= u128::from(units.min(super::MOST)) * u128::from(age_ns)
    }

    /// Units a second: of the second before, or of this one so far; from 16 requests on, at this one's pace.
    pub(super) fn per_second(&self, now_ns: u64) -> u64 {
        let age_ns = self.age_ns(now_ns);
        let now = if self.has_pace(age_ns) {
            u64::try_from(u128::from(self.units) * u128::from(SECOND_NS) / u128::from(age_ns)).unwrap_or(super::MOST)
        } else {
            self.units
        };
        now.max(self.before).max(1)
    }

    fn age_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.since_ns).max(SECOND_NS / 100)
    }

    fn has_pace(&self, age_ns: u64) -> bool {
        self.requests >= 16 && age_ns < SECOND_NS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_reaches_what_it_says_a_second(
            steps in prop::collection::vec((0u64..2_000, 0u64..300_000_000), 1..40),
            wanted in 0u64..200_000,
        ) {
            let (mut meter, mut now_ns) = (Meter::default(), SECOND_NS);
            for (units, after_ns) in steps {
                now_ns += after_ns;
                meter.count(units, now_ns);
                let told = meter.per_second(now_ns);
                prop_assert_eq!(meter.reaches(wanted, now_ns), told >= wanted);
                prop_assert!(meter.reaches(told, now_ns) && !meter.reaches(told + 1, now_ns));
            }
        }
    }
}
