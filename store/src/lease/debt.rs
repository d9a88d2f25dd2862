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
/// Two numbers are so far apart that the state forgets all but the newest two.
const STEP_BITS: u32 = 18;
/// More than an earlier leader can have under way of one bucket.
const JUMP: u64 = 1_024;

/// The newest debt that the replicated state has of a bucket: its number and nanoseconds.
pub(super) type Source = Arc<dyn Fn(u64) -> (u64, u64) + Send + Sync>;

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
    pub(super) debt_ns: u64,
    /// What the bucket's TAT may reach once it is written.
    bound_ns: u64,
}

/// The newest debt that the replicated state has of a bucket: its number and nanoseconds. One that cannot be read is more
/// than can ever be paid.
pub(super) fn newest(authority: &dyn Authority, group: GroupId, bucket: u64) -> (u64, u64) {
    match authority.reserved(group, &Debt::account(bucket)) {
        Ok(periods) => {
            let newest = periods.into_iter().max_by_key(|(start, _)| *start);
            newest.map_or((0, 0), |(start, units)| (start.cast_unsigned() >> STEP_BITS, units.saturating_sub(1)))
        }
        Err(_) => (0, MOST_NS),
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
    pub(super) fn read(source: &Source, bucket: u64) -> Self {
        let (number, written_ns) = source(bucket);
        Self { written_ns, number: number + JUMP, ..Self::default() }
    }

    /// After the limit changed: the numbers go on, and nothing may be spent before a reservation in the new terms.
    pub(super) fn changed(before: Option<&Self>, source: &Source, bucket: u64) -> Self {
        let number = before.map_or_else(|| Self::read(source, bucket).number, |before| before.number);
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
        (self.number << STEP_BITS).cast_signed()
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
    pub(super) fn written(&self, buckets: &Buckets, landed: bool) {
        buckets.change(self.bucket, |bucket| {
            let Some(slow) = bucket.slow.as_mut().filter(|slow| slow.number == self.number) else { return };
            slow.asking = false;
            if landed {
                (slow.bound_ns, slow.written_ns) = (self.bound_ns, self.debt_ns);
            }
        });
    }
}

impl Buckets {
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
    let slow = bucket.slow.as_mut().expect("only slow buckets owe");
    slow.asking = true;
    slow.number += 1;
    // Whether it lands or not, no TAT may pass what the state says.
    slow.bound_ns = slow.bound_ns.min(bound_ns);
    Debt { bucket: name, number: slow.number, debt_ns: bound_ns - now_ns, bound_ns }
}

fn slice(gcra: Gcra) -> u64 {
    (gcra.capacity_ns / gcra.emission_ns / SLICES).max(1)
}
