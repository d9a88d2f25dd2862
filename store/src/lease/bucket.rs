//! Rate buckets in memory: names to theoretical arrival times.
//!
//! A bucket that is not in the table is in the state that all unknown buckets are in: full when nobody can have taken from
//! it before this table began, else empty at that instant. So a table can forget a bucket as soon as it is full again.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use minicbor::{Decode, Encode};

use super::few::Few;
use crate::model::{Gcra, Refused};

const SHARDS: usize = 64;
/// A shard is swept for full buckets when it has grown to this, and then when it has doubled.
const SWEEP_AT: usize = 1_024;

/// Buckets of one reign (or of hints).
#[derive(Debug)]
pub(super) struct Buckets {
    shards: Box<[RwLock<Shard>]>,
    /// When they began, empty; none when they began full.
    empty_at_ns: Option<u64>,
}

#[derive(Debug, Default)]
struct Shard {
    buckets: NumberMap<Bucket>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Bucket {
    gcra: Gcra,
    /// Of the policies that set `gcra`.
    revision: u64,
    /// How often `gcra` changed: a unit taken before cannot be given back after.
    era: u32,
    tat_ns: AtomicU64,
    /// All that was ever given back, in nanoseconds: see [`Taken`].
    returned_ns: AtomicU64,
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
}

impl Wanted {
    pub(super) fn gcra(&self) -> Gcra {
        Gcra { emission_ns: self.emission_ns.max(1), capacity_ns: self.capacity_ns }
    }
}

/// A unit taken, and what must be known to give it back.
///
/// Giving back is `TAT - cost` only while the unit's place in the virtual schedule, `after - cost .. after`, lies ahead: the
/// part that has passed would have refilled anyway, and returning it would admit twice. Units given back since then have
/// moved the place forward; `returned_ns` says how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Taken {
    #[n(0)]
    pub(super) name: u64,
    #[n(1)]
    pub(super) cost_ns: u64,
    /// The bucket's TAT right after.
    #[n(2)]
    pub(super) after_ns: u64,
    #[n(3)]
    pub(super) returned_ns: u64,
    #[n(4)]
    pub(super) era: u32,
}

/// At least one of the buckets has no unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AnyRefused;

impl Buckets {
    pub(super) fn new(empty_at_ns: Option<u64>) -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), empty_at_ns }
    }

    /// Takes one unit of each or of none.
    ///
    /// # Errors
    /// A bucket refused; nothing was taken. [`Buckets::look`] says which, and for how long.
    pub(super) fn take_all<'a>(
        &self,
        wanted: impl Iterator<Item = &'a Wanted> + Clone,
        now_ns: u64,
    ) -> Result<Few<Taken>, AnyRefused> {
        let mut taken = Few::default();
        // With several, looking first keeps a refusal by one from showing as a dip in the others.
        if wanted.clone().nth(1).is_some() && wanted.clone().any(|one| self.look(one, now_ns).1.is_some()) {
            return Err(AnyRefused);
        }
        for one in wanted {
            match self.take(one, now_ns) {
                Ok(unit) => taken.push(unit),
                Err(AnyRefused) => {
                    taken.iter().for_each(|unit| self.give_back(unit, now_ns));
                    return Err(AnyRefused);
                }
            }
        }
        Ok(taken)
    }

    fn take(&self, wanted: &Wanted, now_ns: u64) -> Result<Taken, AnyRefused> {
        self.with(wanted, now_ns, |bucket| {
            // Read before the TAT: a return in between makes this unit worth less, never more.
            let returned_ns = bucket.returned_ns.load(Ordering::Acquire);
            let mut tat_ns = bucket.tat_ns.load(Ordering::Acquire);
            loop {
                let after_ns = bucket.gcra.take(tat_ns, now_ns, 1).map_err(|_| AnyRefused)?;
                match bucket.tat_ns.compare_exchange_weak(tat_ns, after_ns, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => {
                        let cost_ns = bucket.gcra.emission_ns;
                        return Ok(Taken { name: wanted.name, cost_ns, after_ns, returned_ns, era: bucket.era });
                    }
                    Err(newer) => tat_ns = newer,
                }
            }
        })
    }

    /// A bucket's TAT, and the refusal that one unit would meet; takes nothing and remembers nothing.
    pub(super) fn look(&self, wanted: &Wanted, now_ns: u64) -> (u64, Option<Refused>) {
        let gcra = wanted.gcra();
        let shard = self.shard(wanted.name).read().expect("no holder panics");
        let tat_ns = match shard.buckets.get(&wanted.name) {
            Some(bucket) if bucket.gcra == gcra || bucket.revision > wanted.revision => {
                bucket.tat_ns.load(Ordering::Acquire)
            }
            Some(bucket) => converted(bucket, gcra, now_ns),
            None => self.unknown_tat(gcra),
        };
        (tat_ns, gcra.take(tat_ns, now_ns, 1).err())
    }

    /// Gives a unit back, as far as its place in the schedule still lies ahead.
    pub(super) fn give_back(&self, unit: &Taken, now_ns: u64) {
        let shard = self.shard(unit.name).read().expect("no holder panics");
        let Some(bucket) = shard.buckets.get(&unit.name).filter(|bucket| bucket.era == unit.era) else { return };
        let mut returned_ns = bucket.returned_ns.load(Ordering::Acquire);
        let give_ns = loop {
            let place_ns = unit.after_ns.saturating_sub(returned_ns.saturating_sub(unit.returned_ns));
            let give_ns = place_ns.saturating_sub(now_ns).min(unit.cost_ns);
            if give_ns == 0 {
                return;
            }
            let next = returned_ns.saturating_add(give_ns);
            match bucket.returned_ns.compare_exchange_weak(returned_ns, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break give_ns,
                Err(newer) => returned_ns = newer,
            }
        };
        bucket.tat_ns.fetch_sub(give_ns, Ordering::AcqRel);
    }

    /// Sets what a bucket is known to be (hints).
    pub(super) fn learn(&self, wanted: &Wanted, tat_ns: u64, now_ns: u64) {
        self.with(wanted, now_ns, |bucket| bucket.tat_ns.store(tat_ns, Ordering::Release));
    }

    /// Forgets a bucket (hints).
    pub(super) fn forget(&self, name: u64) {
        self.shard(name).write().expect("no holder panics").buckets.remove(&name);
    }

    /// Buckets remembered.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().expect("no holder panics").buckets.len()).sum()
    }

    /// Calls `act` with the bucket, made or converted if need be. The shard's lock is held: no sweep can take it away.
    fn with<T>(&self, wanted: &Wanted, now_ns: u64, act: impl FnOnce(&Bucket) -> T) -> T {
        let (gcra, lock) = (wanted.gcra(), self.shard(wanted.name));
        {
            let shard = lock.read().expect("no holder panics");
            if let Some(bucket) = shard.buckets.get(&wanted.name)
                && (bucket.gcra == gcra || bucket.revision > wanted.revision)
            {
                return act(bucket);
            }
        }
        let mut shard = lock.write().expect("no holder panics");
        if shard.buckets.len() >= shard.sweep_at.max(SWEEP_AT) {
            shard.buckets.retain(|_, bucket| !self.may_be_forgotten(bucket, now_ns));
            shard.sweep_at = shard.buckets.len() * 2;
        }
        let unknown = self.unknown_tat(gcra);
        let bucket = shard.buckets.entry(wanted.name).or_insert_with(|| Bucket {
            gcra,
            revision: wanted.revision,
            era: 0,
            tat_ns: AtomicU64::new(unknown),
            returned_ns: AtomicU64::new(0),
        });
        if bucket.gcra != gcra && wanted.revision >= bucket.revision {
            *bucket.tat_ns.get_mut() = converted(bucket, gcra, now_ns);
            bucket.era += 1;
            bucket.gcra = gcra;
        }
        bucket.revision = bucket.revision.max(wanted.revision);
        act(bucket)
    }

    fn shard(&self, name: u64) -> &RwLock<Shard> {
        // Names are hashes; the map inside uses the other bits.
        &self.shards[(name >> 56) as usize % SHARDS]
    }

    fn unknown_tat(&self, gcra: Gcra) -> u64 {
        self.empty_at_ns.map_or(0, |at| gcra.empty_at(at))
    }

    /// Full, and an unknown bucket would be full too.
    fn may_be_forgotten(&self, bucket: &Bucket, now_ns: u64) -> bool {
        bucket.tat_ns.load(Ordering::Acquire) <= now_ns && self.unknown_tat(bucket.gcra) <= now_ns
    }
}

/// The TAT of a bucket under another rate and burst: as many units stay taken, at most all of the new burst.
fn converted(bucket: &Bucket, gcra: Gcra, now_ns: u64) -> u64 {
    let ahead_ns = bucket.tat_ns.load(Ordering::Acquire).saturating_sub(now_ns);
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
