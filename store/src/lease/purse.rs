//! The rate units that this node holds on lease from a group's leader, and what it remembers of buckets without any.
//!
//! A lease has a number that the leader gave it. The node says what it has spent of it in all and what it has left; both
//! are said again until an answer comes, so a message that is lost, doubled or late counts once. Its lifetime begins before
//! the message that the leader acted on was sent, and is looked at with each unit.

mod one;

use std::sync::{Mutex, MutexGuard};

use super::{
    bucket::{NumberMap, Wanted},
    few::Few,
    group::{DRIFT, LENT_FOR_NS, with_drift},
    wire::{Ahead, Lent, RateLevel, Report},
};
use one::Purse;

const SHARDS: usize = 64;
/// A lease with less left is renewed.
const RENEW_NS: u64 = LENT_FOR_NS * 3 / 5;
/// After the leader lent nothing ahead, it is not asked to for so long.
const NOT_AHEAD_NS: u64 = 50_000_000;
/// "None" may be void any moment when other nodes hold the units: it is remembered this long.
const SHARED_NS: u64 = 2_000_000;
/// Units asked for ahead at once, at most.
const MOST_AHEAD: u64 = 1 << 20;

/// What a node's lease is worth to itself: its clock may be slower than the leader's.
const LIFETIME_NS: u64 = LENT_FOR_NS - LENT_FOR_NS / DRIFT;

/// The purses of a group.
pub(super) struct Purses {
    shards: Box<[Shard]>,
    /// Of which something is to be said.
    dirty: Mutex<Vec<u64>>,
    /// Of which units are wanted ahead of demand.
    wanting: Mutex<Vec<u64>>,
}

#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<NumberMap<Purse>>);

/// What memory says of a demand.
pub(super) enum Found {
    /// Spent; the levels after, and the leases that the units were of.
    Spent(Few<u64>, Few<u64>),
    /// The leader must be asked.
    Ask,
    /// The leader has said that there is none for a while.
    None,
}

/// A unit that the leader granted for one request, kept for it until it is told.
pub(super) struct Promise {
    pub(super) name: u64,
    pub(super) lease: u64,
    /// Of the policies that it was granted under.
    pub(super) revision: u64,
}

impl Purses {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            dirty: Mutex::default(),
            wanting: Mutex::default(),
        }
    }

    /// Spends one unit of each or of none; and whether the leader is to be sent a message soon.
    pub(super) fn take_all(&self, all: &Few<Wanted>, now_ns: u64) -> (Found, bool) {
        let (mut levels, mut leases, mut soon, mut found) = (Few::default(), Few::default(), false, None);
        for wanted in all.iter() {
            let mut shard = self.shard(wanted.name);
            let purse = shard.entry(wanted.name).or_insert_with(|| Purse::new(*wanted, now_ns));
            purse.demand(wanted, now_ns);
            if found.is_none() && purse.left > 0 && now_ns < purse.until_ns {
                purse.left -= 1;
                levels.push(purse.spend(now_ns));
                leases.push(purse.lease);
                soon |= self.after(purse, now_ns);
                continue;
            }
            soon |= self.want_ahead(purse, now_ns);
            found = match found {
                Some(Found::None) => found,
                _ if now_ns < purse.none_until_ns => Some(Found::None),
                _ => Some(Found::Ask),
            };
            drop(shard);
            if !levels.is_empty() {
                levels = Few::default();
                self.give_back(all.iter().zip(leases.iter()));
                leases = Few::default();
            }
        }
        (found.unwrap_or(Found::Spent(levels, leases)), soon)
    }

    /// Gives units of these leases back that were spent a moment ago for a request that nobody let through. What has been
    /// said to be spent by now stays so, and so does what is of a lease that has ended, or of policies that have changed since:
    /// it would be a unit more of another's.
    pub(super) fn give_back<'a>(&self, all: impl Iterator<Item = (&'a Wanted, &'a u64)>) {
        for (wanted, lease) in all {
            if let Some(purse) = self.shard(wanted.name).get_mut(&wanted.name)
                && purse.lease == *lease
                && purse.wanted.revision <= wanted.revision
                && purse.spent > purse.said
            {
                purse.spent -= 1;
                purse.left += 1;
            }
        }
    }

    /// Spends a unit that was promised, if its lease still runs; the level after, and whether to send a message soon.
    pub(super) fn keep_promise(&self, promise: &Promise, now_ns: u64) -> (Option<u64>, bool) {
        let mut shard = self.shard(promise.name);
        let Some(purse) = shard.get_mut(&promise.name).filter(|purse| purse.lease == promise.lease) else {
            return (None, false);
        };
        purse.promised -= 1;
        if now_ns >= purse.until_ns {
            return (None, false);
        }
        let level = purse.spend(now_ns);
        let soon = self.after(purse, now_ns);
        (Some(level), soon)
    }

    /// Whether units of all are there; not when the leader has said that one has none; else it must be asked.
    pub(super) fn has_all(&self, all: &Few<Wanted>, now_ns: u64) -> Option<bool> {
        let mut has = Some(true);
        for wanted in all.iter() {
            let shard = self.shard(wanted.name);
            match shard.get(&wanted.name).filter(|purse| purse.wanted.revision >= wanted.revision) {
                Some(purse) if purse.left > 0 && now_ns < purse.until_ns => {}
                Some(purse) if now_ns < purse.none_until_ns => return Some(false),
                _ => has = None,
            }
        }
        has
    }

    /// As [`Purses::give_back`], of a promise that was kept.
    pub(super) fn give_back_to(&self, promise: &Promise) {
        if let Some(purse) = self.shard(promise.name).get_mut(&promise.name)
            && purse.lease == promise.lease
            && purse.wanted.revision <= promise.revision
            && purse.spent > purse.said
        {
            purse.spent -= 1;
            purse.left += 1;
        }
    }

    /// A promised unit is nobody's: whoever comes next may spend it.
    pub(super) fn break_promise(&self, promise: &Promise) {
        let mut shard = self.shard(promise.name);
        if let Some(purse) = shard.get_mut(&promise.name).filter(|purse| purse.lease == promise.lease) {
            purse.promised -= 1;
            if promise.revision >= purse.wanted.revision {
                purse.left += 1;
            } else {
                // Of older policies than this node's: back to the leader.
                self.mark(purse);
            }
        }
    }

    /// What this node knows of a bucket, for headers.
    pub(super) fn look(&self, wanted: &Wanted, now_ns: u64) -> RateLevel {
        let shard = self.shard(wanted.name);
        let Some(purse) = shard.get(&wanted.name) else { return RateLevel::default() };
        let none = purse.left == 0 && now_ns < purse.none_until_ns;
        let refused = || wanted.gcra().take(purse.tat_ns, now_ns, 1).err().map_or(1, |refused| refused.retry_after_ns);
        RateLevel { tat_ns: purse.tat_ns, retry_after_ns: none.then(refused), none_for_ns: 0 }
    }

    /// Takes over what the leader has lent at `leader_ns` of its clock, with the answer to a message sent at `sent_ns`; each
    /// lease's units that are promised to requests are kept apart.
    pub(super) fn lent(&self, lent: &Lent, promised: u64, term: u64, sent_ns: u64, leader_ns: u64) {
        let mut shard = self.shard(lent.name);
        let purse = shard.entry(lent.name).or_insert_with(|| {
            let wanted = Wanted { name: lent.name, emission_ns: 1, capacity_ns: 1, revision: 0, since_ns: 0 };
            Purse::new(wanted, sent_ns)
        });
        if purse.lease != lent.lease || purse.term != term {
            (purse.lease, purse.term, purse.left, purse.promised, purse.spent, purse.said) =
                (lent.lease, term, 0, 0, 0, 0);
        }
        (purse.until_ns, purse.ends_ns) = (sent_ns + LIFETIME_NS, leader_ns + with_drift(LENT_FOR_NS));
        // A grant under older policies than this node's is thrown away: nobody will spend it, and the next message says so.
        if lent.revision >= purse.wanted.revision {
            purse.left += lent.units.saturating_sub(promised);
        }
        purse.promised += promised;
        purse.prompt = lent.prompt;
        if purse.wanting {
            purse.wanting = false;
            if lent.units == promised {
                purse.not_ahead_until_ns = sent_ns + NOT_AHEAD_NS;
            }
        }
        self.mark(purse);
    }

    /// The leader's word on a bucket, `ago` on its clock having begun when the message was sent.
    pub(super) fn learn(&self, wanted: &Wanted, level: &RateLevel, leader_ns: u64, sent_ns: u64, now_ns: u64) {
        let mut shard = self.shard(wanted.name);
        let purse = shard.entry(wanted.name).or_insert_with(|| Purse::new(*wanted, sent_ns));
        if wanted.revision < purse.wanted.revision {
            return;
        }
        // As old as the question: "none" must not last longer than the truth.
        purse.tat_ns = sent_ns.saturating_add(level.tat_ns.saturating_sub(leader_ns));
        if level.retry_after_ns.is_some() {
            purse.none_until_ns = match level.none_for_ns {
                0 => now_ns + SHARED_NS,
                none_for_ns => sent_ns.saturating_add(none_for_ns),
            };
            purse.wanting = false;
        }
    }

    /// What is to be said to the leader of `term`: of all leases, or of those that changed or must be renewed.
    pub(super) fn reports(&self, term: u64, all: bool, sweep: bool, now_ns: u64) -> Vec<Report> {
        let mut dirty = std::mem::take(&mut *self.dirty.lock().expect("no holder panics"));
        let mut reports = Vec::new();
        if all || sweep {
            for shard in &self.shards {
                shard.0.lock().expect("no holder panics").retain(|_, purse| {
                    purse.tidy(term, now_ns);
                    let renew = purse.lease != 0 && purse.until_ns < now_ns + RENEW_NS;
                    if purse.dirty || renew || (all && purse.lease != 0) {
                        reports.extend(purse.report(now_ns));
                    }
                    purse.is_used(now_ns)
                });
            }
            return reports;
        }
        for name in dirty.drain(..) {
            if let Some(purse) = self.shard(name).get_mut(&name) {
                purse.tidy(term, now_ns);
                reports.extend(purse.report(now_ns));
            }
        }
        reports
    }

    /// The leader has acted on these reports at `leader_ns` of its clock, of a message sent at `sent_ns`. One that came when
    /// the lease had ended there (it was long under way) renews nothing: its units are counted as spent by now.
    pub(super) fn reported(&self, reports: &[Report], term: u64, sent_ns: u64, leader_ns: u64) {
        for report in reports {
            let mut shard = self.shard(report.name);
            let Some(purse) = shard.get_mut(&report.name) else { continue };
            if purse.lease != report.lease || purse.term != term {
                continue;
            }
            if report.left == 0 {
                // The leader has ended it.
                purse.end();
            } else if leader_ns < purse.ends_ns {
                purse.until_ns = purse.until_ns.max(sent_ns + LIFETIME_NS);
                purse.ends_ns = leader_ns + with_drift(LENT_FOR_NS);
            }
        }
    }

    /// What is wanted ahead of demand.
    pub(super) fn ahead(&self, now_ns: u64) -> Vec<Ahead> {
        let names = std::mem::take(&mut *self.wanting.lock().expect("no holder panics"));
        let ahead = names.iter().filter_map(|name| {
            let mut shard = self.shard(*name);
            let purse = shard.get_mut(name)?;
            let units = purse.target(now_ns).saturating_sub(purse.left).min(MOST_AHEAD);
            purse.wanting = units > 0;
            (units > 0).then_some(Ahead { wanted: purse.wanted, units })
        });
        ahead.collect()
    }

    /// A message came to nothing: what was wanted with it is wanted no more.
    pub(super) fn not_ahead(&self, ahead: &[Ahead]) {
        for wish in ahead {
            if let Some(purse) = self.shard(wish.wanted.name).get_mut(&wish.wanted.name) {
                purse.wanting = false;
            }
        }
    }

    /// Whether this node holds any lease.
    pub(super) fn any(&self) -> bool {
        self.shards.iter().any(|shard| {
            let shard = shard.0.lock().expect("no holder panics");
            shard.values().any(|purse| purse.lease != 0)
        })
    }

    /// Gives up everything: this node decides as the leader from now on.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            shard.0.lock().expect("no holder panics").clear();
        }
    }

    /// Units unspent, for tests and metrics.
    pub(super) fn units(&self) -> u64 {
        let of = |shard: &Shard| {
            shard.0.lock().expect("no holder panics").values().map(|purse| purse.left + purse.promised).sum::<u64>()
        };
        self.shards.iter().map(of).sum()
    }

    fn after(&self, purse: &mut Purse, now_ns: u64) -> bool {
        self.mark(purse);
        let soon = self.want_ahead(purse, now_ns);
        purse.prompt || soon
    }

    fn want_ahead(&self, purse: &mut Purse, now_ns: u64) -> bool {
        let target = purse.target(now_ns);
        let low = target >= 2 && purse.left < target / 2;
        if !low || purse.wanting || now_ns < purse.not_ahead_until_ns {
            return false;
        }
        purse.wanting = true;
        self.wanting.lock().expect("no holder panics").push(purse.wanted.name);
        true
    }

    fn mark(&self, purse: &mut Purse) {
        if !purse.dirty {
            purse.dirty = true;
            self.dirty.lock().expect("no holder panics").push(purse.wanted.name);
        }
    }

    fn shard(&self, name: u64) -> MutexGuard<'_, NumberMap<Purse>> {
        self.shards[(name >> 56) as usize % SHARDS].0.lock().expect("no holder panics")
    }
}
