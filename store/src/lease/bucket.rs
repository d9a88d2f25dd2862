//! The leader's rate buckets: names to theoretical arrival times, and the units that other nodes hold of each.
//!
//! A bucket's TAT counts the units that are known to be spent, each at its instant or a later one; `out` counts those that
//! nodes may still spend. A unit is spent here, or lent, only while `out` and it fit in what the TAT leaves, so level and
//! units out never exceed the burst, and each spend, however late, is one that the bucket would have let through then (P2).
//!
//! A bucket that is not in the table is in the state that all unknown buckets are in: full when nobody can have taken from
//! it before this table began, else empty at that instant (or at the later one at which its account came to this group); a slow one ([`super::debt`]) as the replicated state says. So a
//! table can forget a bucket as soon as it is full again.
//!
//! The tables are a group's, for all its reigns: each shard says of which reign it is, and is emptied when a later one first
//! looks into it. So a request finds its reign with nothing but its term, and a shard with one lock.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Mutex, MutexGuard},
};

use minicbor::{Decode, Encode};

use super::{
    debt::{self, Slow},
    few::Few,
};
use crate::{
    model::{Gcra, Refused},
    platform::planted,
};

const SHARDS: usize = 64;
/// A shard is swept for full buckets when it has grown to this, and then when it has doubled.
const SWEEP_AT: usize = 128;

/// The buckets of a group, of whichever reign.
pub(super) struct Shards {
    all: Box<[Shard]>,
    debts: debt::Source,
}

/// Buckets as one reign sees them.
#[derive(Clone, Copy)]
pub(super) struct Buckets<'g> {
    shards: &'g Shards,
    began: Began,
}

/// How the buckets of a reign began.
#[derive(Debug, Clone, Copy, Default)]
struct Began {
    /// The reign's term, greater than those before; none before the first.
    term: Option<u64>,
    /// When they began, empty; none when they began full.
    empty_at_ns: Option<u64>,
}

/// On a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<Table>);

#[derive(Default)]
struct Table {
    began: Began,
    /// When full buckets were forgotten last: whoever comes with an earlier reading of the clock takes at this instant.
    swept_ns: u64,
    buckets: NumberMap<Bucket>,
    sweep_at: usize,
}

pub(super) struct Bucket {
    pub(super) gcra: Gcra,
    /// Of the policies that set `gcra`.
    revision: u64,
    pub(super) tat_ns: u64,
    /// Units that other nodes hold.
    pub(super) out: u64,
    /// Of one that refills slowly.
    pub(super) slow: Option<Box<Slow>>,
}

/// A bucket as a request names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Wanted {
    #[n(0)]
    pub(super) name: u64,
    #[n(1)]
    pub(super) emission_ns: u64,
    #[n(2)]
    pub(super) capacity_ns: u64,
    /// Revision of the policies: an older one never changes a bucket.
    #[n(3)]
    pub(super) revision: u64,
    /// On the leader: since when the account is its group's; before that another group may have let requests through.
    #[cbor(skip)]
    pub(super) since_ns: u64,
}

impl Wanted {
    pub(super) fn gcra(&self) -> Gcra {
        Gcra { emission_ns: self.emission_ns.max(1), capacity_ns: self.capacity_ns }
    }
}

/// Why no unit was taken; nothing was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// At least one of the buckets has none. [`Buckets::look`] says which, and for how long.
    Refused,
    /// There may be one once the replicated state has let this reign go on spending: [`Buckets::debt`].
    Bound,
}

/// A bucket as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level {
    /// Counts the units out as spent.
    pub(super) tat_ns: u64,
    /// When one unit would be there, if all units out were spent now; none when it is.
    pub(super) refused: Option<Refused>,
    /// So long certainly no unit is there, whatever comes back.
    pub(super) none_for_ns: u64,
}

impl Shards {
    pub(super) fn new(debts: debt::Source) -> Self {
        Self { all: (0..SHARDS).map(|_| Shard::default()).collect(), debts }
    }

    /// Of the reign of this term, whose buckets began empty at that instant, or full.
    pub(super) fn of(&self, term: u64, empty_at_ns: Option<u64>) -> Buckets<'_> {
        Buckets { shards: self, began: Began { term: Some(term), empty_at_ns } }
    }

    /// Buckets remembered.
    pub(super) fn len(&self) -> usize {
        self.all.iter().map(|shard| shard.lock().buckets.len()).sum()
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("no holder panics")
    }
}

impl Buckets<'_> {
    /// Spends one unit of each now, or of none; the levels after.
    ///
    /// # Errors
    /// [`Short`].
    pub(super) fn take_all<'a>(
        &self,
        wanted: impl Iterator<Item = &'a Wanted> + Clone,
        now_ns: u64,
    ) -> Result<Few<u64>, Short> {
        let undo = |bucket: &mut Bucket, wanted: &Wanted| bucket.unspend(wanted, now_ns, now_ns);
        self.all(wanted, now_ns, |bucket, now_ns| bucket.spend(1, now_ns), undo)
    }

    /// Lends one unit of each, or of none; the levels after.
    ///
    /// # Errors
    /// [`Short`].
    pub(super) fn lend_all<'a>(
        &self,
        wanted: impl Iterator<Item = &'a Wanted> + Clone,
        now_ns: u64,
    ) -> Result<Few<u64>, Short> {
        self.all(wanted, now_ns, |bucket, _| bucket.out += 1, |bucket, _| bucket.out -= 1)
    }

    fn all<'a>(
        &self,
        wanted: impl Iterator<Item = &'a Wanted> + Clone,
        now_ns: u64,
        act: impl Fn(&mut Bucket, u64),
        undo: impl Fn(&mut Bucket, &Wanted),
    ) -> Result<Few<u64>, Short> {
        let mut levels = Few::default();
        for (taken, one) in wanted.clone().enumerate() {
            let level = self.with(one, now_ns, |bucket, now_ns| {
                bucket.check(1, now_ns).map(|()| {
                    act(bucket, now_ns);
                    bucket.shown_tat_ns(now_ns)
                })
            });
            match level {
                Ok(level) => levels.push(level),
                Err(short) => {
                    for before in wanted.take(taken) {
                        self.change(before.name, |bucket| undo(bucket, before));
                    }
                    return Err(short);
                }
            }
        }
        Ok(levels)
    }

    /// Lends up to `units` more of a bucket, ahead of demand; never below half of its burst, which is for those who wait.
    pub(super) fn lend_ahead(&self, wanted: &Wanted, units: u64, now_ns: u64) -> u64 {
        self.with(wanted, now_ns, |bucket, now_ns| {
            let (free, burst) = (bucket.free(now_ns), bucket.gcra.capacity_ns / bucket.gcra.emission_ns);
            let units = units.min(free.saturating_sub(burst.div_ceil(2)));
            if units == 0 || bucket.check(units, now_ns).is_err() {
                return 0;
            }
            bucket.out += units;
            units
        })
    }

    /// Gives back a unit that was spent here at `taken_ns` by a request that nobody let through. The part of its time that
    /// has passed since would have refilled anyway and stays spent.
    pub(super) fn give_back(&self, wanted: &Wanted, taken_ns: u64, now_ns: u64) {
        self.change(wanted.name, |bucket| bucket.unspend(wanted, taken_ns, now_ns));
    }

    /// Units lent are no longer out: `spent` of them were spent, at `at_ns` or before.
    pub(super) fn settle(&self, name: u64, spent: u64, returned: u64, at_ns: u64) {
        self.change(name, |bucket| {
            bucket.out = bucket.out.saturating_sub(spent.saturating_add(returned));
            if spent > 0 {
                let cost_ns = bucket.gcra.emission_ns.saturating_mul(spent);
                bucket.tat_ns = bucket.tat_ns.max(at_ns).saturating_add(cost_ns);
            }
        });
    }

    /// A bucket as it stands; takes nothing and remembers nothing.
    pub(super) fn look(&self, wanted: &Wanted, now_ns: u64) -> Level {
        let table = self.table(wanted.name);
        let (gcra, began) = (wanted.gcra(), table.began);
        let (tat_ns, out, gcra) = match table.buckets.get(&wanted.name) {
            Some(bucket) if bucket.gcra == gcra || bucket.revision > wanted.revision => {
                (bucket.tat_ns, bucket.out, bucket.gcra)
            }
            Some(bucket) => (converted(bucket, gcra, now_ns), bucket.out, gcra),
            None => (self.unknown(began, wanted).0, 0, gcra),
        };
        drop(table);
        let shown_ns = tat_ns.max(now_ns).saturating_add(out.saturating_mul(gcra.emission_ns));
        Level {
            tat_ns: if out == 0 { tat_ns } else { shown_ns },
            refused: gcra.take(shown_ns, now_ns, 1).err(),
            none_for_ns: gcra.take(tat_ns, now_ns, 1).map_or_else(|refused| refused.retry_after_ns, |_| 0),
        }
    }

    /// Whether a bucket of this table's memory alone began empty so short a time ago that its burst has not come back: what it
    /// lacks, whoever decided before may have spent or not.
    pub(super) fn refills(&self, wanted: &Wanted, now_ns: u64) -> bool {
        let gcra = wanted.gcra();
        !debt::is_slow(gcra)
            && self.table(wanted.name).began.empty(wanted).is_some_and(|at_ns| now_ns < gcra.empty_at(at_ns))
    }

    /// Units that nobody has taken and nobody holds are fewer than half of the burst: who holds some reports soon.
    pub(super) fn is_tight(&self, name: u64, now_ns: u64) -> bool {
        let table = self.table(name);
        table.buckets.get(&name).is_some_and(|bucket| {
            bucket.free(now_ns).saturating_mul(2) < bucket.gcra.capacity_ns / bucket.gcra.emission_ns
        })
    }

    /// Whether a bucket is in the table.
    pub(super) fn knows(&self, name: u64) -> bool {
        self.table(name).buckets.contains_key(&name)
    }

    /// Acts on a bucket that is known, of this reign and no later one.
    pub(super) fn change<T>(&self, name: u64, act: impl FnOnce(&mut Bucket) -> T) -> Option<T> {
        let mut table = self.table(name);
        if table.began.term != self.began.term {
            return None;
        }
        table.buckets.get_mut(&name).map(act)
    }

    /// Acts on all buckets of this reign, a shard at a time.
    pub(super) fn each(&self, mut act: impl FnMut(u64, &mut Bucket)) {
        for shard in &self.shards.all {
            let mut table = shard.lock();
            if table.began.term == self.began.term {
                table.buckets.iter_mut().for_each(|(name, bucket)| act(*name, bucket));
            }
        }
    }

    /// Calls `act` with the bucket, made or converted if need be, and the instant at which it acts.
    fn with<T>(&self, wanted: &Wanted, now_ns: u64, act: impl FnOnce(&mut Bucket, u64) -> T) -> T {
        let gcra = wanted.gcra();
        let mut table = self.table(wanted.name);
        if let Some(bucket) = table.buckets.get_mut(&wanted.name) {
            if bucket.gcra != gcra && wanted.revision >= bucket.revision {
                bucket.tat_ns = converted(bucket, gcra, now_ns);
                bucket.gcra = gcra;
                // A bound in units of the old rate says nothing: the state is asked anew.
                let changed = || Slow::changed(bucket.slow.as_deref(), &self.shards.debts, wanted.name);
                bucket.slow = debt::is_slow(gcra).then(|| Box::new(changed()));
            }
            bucket.revision = bucket.revision.max(wanted.revision);
            return act(bucket, now_ns);
        }
        let began = table.began;
        if table.buckets.len() >= table.sweep_at.max(SWEEP_AT) {
            table.buckets.retain(|_, bucket| !began.may_be_forgotten(bucket, now_ns));
            table.sweep_at = table.buckets.len() * 2;
            table.swept_ns = table.swept_ns.max(now_ns);
        }
        let now_ns = now_ns.max(table.swept_ns);
        let (tat_ns, slow) = self.unknown(began, wanted);
        let new = Bucket { gcra, revision: wanted.revision, tat_ns, out: 0, slow };
        act(table.buckets.entry(wanted.name).or_insert(new), now_ns)
    }

    /// The table of this reign; of a later one, if that has begun: it began empty after this one, so what it lets through
    /// may be let through.
    #[inline]
    fn table(&self, name: u64) -> MutexGuard<'_, Table> {
        // Names are hashes; the map inside uses the other bits.
        let mut table = self.shards.all[(name >> 56) as usize % SHARDS].lock();
        if table.began.term < self.began.term {
            *table = Table { began: self.began, ..Table::default() };
        }
        table
    }

    /// The TAT of a bucket that is not in a table that began so, and what a slow one may spend.
    fn unknown(&self, began: Began, wanted: &Wanted) -> (u64, Option<Box<Slow>>) {
        let gcra = wanted.gcra();
        let empty_at_ns = began.empty(wanted);
        if debt::is_slow(gcra) {
            let slow = Slow::read(&self.shards.debts, wanted.name, gcra);
            let tat_ns = match slow.written_ns {
                0 => 0,
                debt_ns => empty_at_ns.unwrap_or(0).saturating_add(debt_ns),
            };
            return (tat_ns, Some(Box::new(slow)));
        }
        (empty_at_ns.map_or(0, |at| gcra.empty_at(at)), None)
    }
}

impl Began {
    /// When an unknown bucket was empty; none when it began full.
    fn empty(&self, wanted: &Wanted) -> Option<u64> {
        match (self.empty_at_ns, wanted.since_ns) {
            (None, 0) => None,
            (at_ns, since_ns) => Some(at_ns.unwrap_or(0).max(since_ns)),
        }
    }

    /// Full, and an unknown bucket would be full too.
    fn may_be_forgotten(&self, bucket: &Bucket, now_ns: u64) -> bool {
        bucket.out == 0
            && bucket.tat_ns <= now_ns
            && match &bucket.slow {
                Some(slow) => slow.written_ns == 0 && !slow.asking,
                None => self.empty_at_ns.map_or(0, |at| bucket.gcra.empty_at(at)) <= now_ns,
            }
    }
}

impl Bucket {
    /// Whether so many units are there that nobody holds, and may be spent.
    fn check(&self, units: u64, now_ns: u64) -> Result<(), Short> {
        let units = if planted!(GrantsOneTooMany) { units - 1 } else { units };
        let out = if planted!(ForgetsLent) { 0 } else { self.out };
        let cost_ns = self.gcra.emission_ns.saturating_mul(out.saturating_add(units));
        let after_ns = self.tat_ns.max(now_ns).saturating_add(cost_ns);
        if after_ns > now_ns.saturating_add(self.gcra.capacity_ns) {
            return Err(Short::Refused);
        }
        match &self.slow {
            // As if all were spent at the end of a lease that begins now.
            Some(slow) if debt::latest_tat_ns(self, units, now_ns) > slow.bound_ns => Err(Short::Bound),
            _ => Ok(()),
        }
    }

    fn spend(&mut self, units: u64, now_ns: u64) {
        self.tat_ns = self.tat_ns.max(now_ns).saturating_add(self.gcra.emission_ns.saturating_mul(units));
    }

    /// Not when the limit has changed since: what was taken under the old one may be cut to the new burst by now, and all of
    /// that is somebody's.
    fn unspend(&mut self, wanted: &Wanted, taken_ns: u64, now_ns: u64) {
        if self.gcra != wanted.gcra() {
            return;
        }
        let passed_ns = now_ns.saturating_sub(taken_ns);
        if planted!(RefundsTwice) {
            self.tat_ns = self.tat_ns.saturating_sub(self.gcra.emission_ns);
        }
        self.tat_ns = self.tat_ns.saturating_sub(self.gcra.emission_ns.saturating_sub(passed_ns));
    }

    /// Units that nobody has taken and nobody holds.
    fn free(&self, now_ns: u64) -> u64 {
        self.gcra.remaining(self.tat_ns, now_ns).saturating_sub(self.out)
    }

    fn shown_tat_ns(&self, now_ns: u64) -> u64 {
        match self.out {
            0 => self.tat_ns,
            out => self.tat_ns.max(now_ns).saturating_add(self.gcra.emission_ns.saturating_mul(out)),
        }
    }
}

/// The TAT of a bucket under another rate and burst: as many units stay taken, at most all of the new burst.
fn converted(bucket: &Bucket, gcra: Gcra, now_ns: u64) -> u64 {
    let ahead_ns = bucket.tat_ns.saturating_sub(now_ns);
    let scaled = (u128::from(ahead_ns) * u128::from(gcra.emission_ns)).div_ceil(u128::from(bucket.gcra.emission_ns));
    now_ns.saturating_add(u64::try_from(scaled).unwrap_or(u64::MAX).min(gcra.capacity_ns))
}

/// A map whose keys are hashes already.
pub(super) type NumberMap<T> = HashMap<u64, T, BuildHasherDefault<AsItIs>>;

#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed");
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests;
