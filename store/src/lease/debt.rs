//! Slow rates: what a bucket that takes long to refill owes is kept in the replicated state, so that a change of leader
//! neither empties nor fills it.
//!
//! Before the leader spends or lends units of such a bucket it has reserved them: the state holds the bucket's debt (how
//! far its TAT may be ahead, in nanoseconds) at the time of the reservation, with a slice of units to come. The TAT never
//! passes that bound, so a later leader that begins with the newest debt, counted from the instant at which it begins,
//! admits no unit too many: it loses the slice, and what has refilled since the reservation. A debt that has mostly been
//! refilled is written anew.
//!
//! A debt is a reservation (`ColdCommand::Reserve`) of a made-up account; its number stands where a quota's has the period,
//! of which the state takes none that is older than the newest. A leader goes on far above the newest number that it has
//! read, so that what an earlier one had under way is refused once a debt of its own has landed; before that it spends
//! nothing.

use std::sync::Arc;

use super::{
    authority::{Authority, Granted},
    bucket::{Bucket, Buckets},
    group::LENT_FOR_NS,
};
use crate::model::{AccountId, Gcra, GroupId, Name};

/// A bucket that refills within this lives in the leader's memory alone: a new leader starts it empty.
pub(super) const FAST_NS: u64 = 2_000_000_000;
/// A slice is this part of the burst, at least a unit.
const SLICES: u64 = 16;
/// A debt is written anew when so large a part of the burst has refilled since.
const REFRESH_PART: u64 = 8;
/// Debts travel as `i64`.
const MOST_NS: u64 = 1 << 62;
/// Two numbers are so far apart that the state forgets all but the newest few. The bits between say what a unit costs.
const STEP_BITS: u32 = 18;
/// A unit's cost is written with so many bits, and by how many it is shifted with the others.
const COST_BITS: u32 = 12;
/// More than an earlier leader can have under way of one bucket.
const JUMP: u64 = 1_024;

/// What the replicated state has newest of a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Newest {
    number: u64,
    debt_ns: u64,
    /// What a unit cost then ([`cost_of`]); 0 where it was not written.
    cost: u64,
}

/// Looks the newest debt of a bucket up.
pub(super) type Source = Arc<dyn Fn(u64) -> Newest + Send + Sync>;

/// What a slow bucket may spend.
#[derive(Debug, Default)]
pub(super) struct Slow {
    /// No TAT may pass it.
    pub(super) bound_ns: u64,
    /// The newest debt that the state may have.
    pub(super) written_ns: u64,
    /// A reservation is under way; at most one.
    pub(super) asking: bool,
    /// Of the newest reservation.
    number: u64,
}

/// A debt to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Debt {
    pub(super) bucket: u64,
    number: u64,
    emission_ns: u64,
    pub(super) debt_ns: u64,
    /// What the bucket's TAT may reach once it is written.
    bound_ns: u64,
}

/// The newest debt that the replicated state has of a bucket. One that cannot be read is more than can ever be paid.
pub(super) fn newest(authority: &dyn Authority, group: GroupId, bucket: u64) -> Newest {
    match authority.reserved(group, &Debt::account(bucket)) {
        Ok(periods) => {
            let newest = periods.into_iter().max_by_key(|(start, _)| *start);
            newest.map_or_else(Newest::default, |(start, units)| Newest {
                number: start.cast_unsigned() >> STEP_BITS,
                debt_ns: units.saturating_sub(1),
                cost: start.cast_unsigned() & ((1 << STEP_BITS) - 1),
            })
        }
        Err(_) => Newest { debt_ns: MOST_NS, ..Newest::default() },
    }
}

/// What a unit costs in few bits, rounded down: as many leading ones, and the shift above them.
fn cost_of(emission_ns: u64) -> u64 {
    let shift = u64::from((u64::BITS - emission_ns.leading_zeros()).saturating_sub(COST_BITS));
    (shift << COST_BITS) | (emission_ns >> shift)
}

impl Newest {
    /// The debt in the terms of a limit: as many units, at most all of its burst, when a unit cost another time when it was
    /// written. Rounded up.
    fn debt_ns(&self, gcra: Gcra) -> u64 {
        if self.cost == 0 || self.cost == cost_of(gcra.emission_ns) {
            return self.debt_ns;
        }
        let then_ns = (self.cost & ((1 << COST_BITS) - 1)) << (self.cost >> COST_BITS).min(63);
        let scaled = (u128::from(self.debt_ns) * u128::from(gcra.emission_ns)).div_ceil(u128::from(then_ns.max(1)));
        u64::try_from(scaled).unwrap_or(u64::MAX).min(gcra.capacity_ns)
    }
}

/// Whether a bucket's debt is kept in the replicated state.
pub(super) fn is_slow(gcra: Gcra) -> bool {
    gcra.capacity_ns > FAST_NS
}

/// The TAT if all units out and these were spent at the end of a lease that begins now.
pub(super) fn latest_tat_ns(bucket: &Bucket, units: u64, now_ns: u64) -> u64 {
    let cost_ns = bucket.gcra.emission_ns.saturating_mul(bucket.out.saturating_add(units));
    bucket.tat_ns.max(now_ns + LENT_FOR_NS).saturating_add(cost_ns)
}

impl Slow {
    pub(super) fn read(source: &Source, bucket: u64, gcra: Gcra) -> Self {
        let newest = source(bucket);
        Self { written_ns: newest.debt_ns(gcra), number: newest.number + JUMP, ..Self::default() }
    }

    /// After the limit changed: the numbers go on, and nothing may be spent before a reservation in the new terms.
    pub(super) fn changed(before: Option<&Self>, source: &Source, bucket: u64) -> Self {
        let number = before.map_or_else(|| source(bucket).number + JUMP, |before| before.number);
        Self { written_ns: MOST_NS, number, ..Self::default() }
    }
}

impl Debt {
    /// The made-up account of a bucket.
    pub(super) fn account(bucket: u64) -> AccountId {
        format!("rate/{bucket:016x}").as_str().into()
    }

    /// The made-up quota's name.
    pub(super) fn quota() -> Name {
        "debt".into()
    }

    /// What stands where a quota's reservation has the period.
    pub(super) fn start(&self) -> i64 {
        ((self.number << STEP_BITS) | cost_of(self.emission_ns)).cast_signed()
    }

    /// What is reserved: a unit more than the debt, so that none at all is a refusal.
    pub(super) fn units(&self) -> i64 {
        i64::try_from(self.debt_ns.min(MOST_NS)).expect("bounded") + 1
    }

    /// Whether a reservation of it was made.
    pub(super) fn has_landed(&self, granted: Granted) -> bool {
        granted.units == self.units().unsigned_abs()
    }

    /// The answer to its reservation.
    pub(super) fn written(&self, buckets: Buckets<'_>, landed: bool) {
        buckets.change(self.bucket, |bucket| {
            let Some(slow) = bucket.slow.as_mut().filter(|slow| slow.number == self.number) else { return };
            slow.asking = false;
            if landed {
                (slow.bound_ns, slow.written_ns) = (self.bound_ns, self.debt_ns);
            }
        });
    }
}

impl Buckets<'_> {
    /// The reservation that a bucket needs now to go on spending, if none is under way.
    pub(super) fn debt(&self, bucket: u64, now_ns: u64) -> Option<Debt> {
        self.change(bucket, |state| {
            let latest_ns = latest_tat_ns(state, 1, now_ns);
            let slow = state.slow.as_ref()?;
            let full_ns = now_ns.saturating_add(state.gcra.capacity_ns).saturating_add(LENT_FOR_NS);
            if slow.asking || latest_ns > full_ns {
                // No unit is there to be spent.
                return None;
            }
            // A moment longer than needed: the reservation takes time to land, and the clock goes on.
            let most_ns = full_ns.saturating_add(LENT_FOR_NS).min(now_ns + MOST_NS);
            let slice = slice(state.gcra);
            let needed_ns = latest_ns.saturating_add(slice / 2 * state.gcra.emission_ns).min(full_ns);
            (slow.bound_ns < needed_ns).then(|| {
                let bound_ns = latest_ns.saturating_add(slice * state.gcra.emission_ns).min(most_ns);
                write(state, bucket, bound_ns, now_ns)
            })
        })?
    }

    /// Debts that have mostly been refilled since they were written.
    pub(super) fn stale_debts(&self, now_ns: u64) -> Vec<Debt> {
        let mut debts = Vec::new();
        self.each(|name, bucket| {
            let Some(slow) = bucket.slow.as_ref().filter(|slow| !slow.asking && slow.written_ns > 0) else { return };
            let owed_ns =
                if bucket.out == 0 && bucket.tat_ns <= now_ns { 0 } else { latest_tat_ns(bucket, 0, now_ns) - now_ns };
            if owed_ns.saturating_add(bucket.gcra.capacity_ns / REFRESH_PART) < slow.written_ns || owed_ns == 0 {
                let bound_ns = now_ns + owed_ns.min(MOST_NS);
                debts.push(write(bucket, name, bound_ns, now_ns));
            }
        });
        debts
    }
}

/// Counts a reservation of this bound as under way.
fn write(bucket: &mut Bucket, name: u64, bound_ns: u64, now_ns: u64) -> Debt {
    let emission_ns = bucket.gcra.emission_ns;
    let slow = bucket.slow.as_mut().expect("only slow buckets owe");
    slow.asking = true;
    slow.number += 1;
    // Whether it lands or not, no TAT may pass what the state says.
    slow.bound_ns = slow.bound_ns.min(bound_ns);
    Debt { bucket: name, number: slow.number, emission_ns, debt_ns: bound_ns - now_ns, bound_ns }
}

fn slice(gcra: Gcra) -> u64 {
    (gcra.capacity_ns / gcra.emission_ns / SLICES).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_as_many_units_under_another_limit_and_never_fewer() {
        for emission_ns in [1, 2, 4_095, 4_096, 999_983, 864_000_000_000, 31_536_000_000_000_000, u64::MAX >> 1] {
            let cost = cost_of(emission_ns);
            assert!(cost < 1 << STEP_BITS, "{emission_ns}");
            let newest = |units: u64| Newest { number: 1, debt_ns: units.saturating_mul(emission_ns), cost };
            let same = Gcra { emission_ns, capacity_ns: u64::MAX };
            assert_eq!(newest(3).debt_ns(same), newest(3).debt_ns);
            let slower = Gcra { emission_ns: 10_000_000_000, capacity_ns: 100_000_000_000 };
            let units = newest(3).debt_ns(slower) as f64 / 1e10;
            let exact = newest(3).debt_ns as f64 / emission_ns as f64;
            assert!(units >= exact.min(10.0) && units <= exact * 1.001, "{emission_ns}: {units} for {exact}");
        }
        // Written by a version that did not say.
        let unknown = Newest { number: 1, debt_ns: 7, cost: 0 };
        assert_eq!(unknown.debt_ns(Gcra { emission_ns: 1_000, capacity_ns: 1_000_000 }), 7);
    }
}
