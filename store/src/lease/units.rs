//! Concurrency units by account: those of this node's requests under way, those it may keep for its next ones, and (on the
//! leader) those of other nodes.

use std::sync::{
    Arc, Mutex, RwLock,
    atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering},
};

use super::bucket::NumberMap;
use crate::{model::SLOTS, platform::planted};

const SHARDS: usize = 64;
const SWEEP_AT: usize = 1_024;
/// Parts of an entry's packed count: requests of this node under way, units that it keeps idle, units of other nodes.
const SPARE: u64 = 1 << 24;
const REMOTE: u64 = 1 << 40;
/// No more than fits its part.
const MOST_OWN: u64 = SPARE - 1;
const MOST_REMOTE: u64 = (1 << 24) - 1;

/// The units of a ledger group's accounts.
#[derive(Debug)]
pub(super) struct Units {
    shards: Box<[RwLock<NumberMap<Arc<Entry>>>]>,
    /// Accounts of which this node holds more or fewer than the leader was told.
    changed: Mutex<Vec<Arc<Entry>>>,
}

/// One account's.
#[derive(Debug)]
pub(super) struct Entry {
    account: u64,
    /// All parts in one, so that one compare-and-swap decides over them.
    count: AtomicU64,
    /// So many may be kept idle: the leader's last word.
    keep: AtomicU32,
    /// Units of other nodes, as the leader last said (while another node leads): for headers.
    others: AtomicU32,
    changed: AtomicBool,
    /// Of the account; none ([`SLOTS`]) until a request of this node's knew it.
    slot: AtomicU16,
}

impl Entry {
    /// The account's slot.
    pub(super) fn set_slot(&self, slot: u16) {
        self.slot.store(slot, Ordering::Release);
    }

    /// The account's number.
    pub(super) fn account(&self) -> u64 {
        self.account
    }

    /// All units that somebody holds, as far as this node knows.
    pub(super) fn in_use(&self) -> u64 {
        total(self.count.load(Ordering::Acquire)) + u64::from(self.others.load(Ordering::Relaxed))
    }

    /// The leader's word on how many units somebody holds.
    pub(super) fn learn(&self, in_use: u64) {
        let others = in_use.saturating_sub(total(self.count.load(Ordering::Acquire)));
        self.others.store(u32::try_from(others).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn take(&self, limit: u32, unit: u64) -> Result<u64, u64> {
        self.count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                let fits = own(count) < MOST_OWN && remote(count) < MOST_REMOTE;
                (fits && total(count) < u64::from(limit) + u64::from(planted!(AllowsOneMoreAtOnce)))
                    .then_some(count + unit)
            })
            .map(|before| total(before) + 1)
            .map_err(total)
    }

    /// Takes a unit for a request of this node, which leads; how many are held then.
    ///
    /// # Errors
    /// How many are held: the limit or more.
    pub(super) fn take_own(&self, limit: u32) -> Result<u64, u64> {
        self.take(limit, 1)
    }

    /// Takes a unit for another node.
    ///
    /// # Errors
    /// As [`Entry::take_own`].
    pub(super) fn take_remote(&self, limit: u32) -> Result<u64, u64> {
        self.take(limit, REMOTE)
    }

    /// Takes one of the units that this node has kept; how many it holds. The leader counts it already.
    pub(super) fn take_spare(&self) -> Option<u64> {
        let moved = self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            (spare(count) > 0 && own(count) < MOST_OWN).then(|| count - SPARE + 1)
        });
        moved.ok().map(total)
    }

    /// Counts a unit of this node that the leader has granted.
    pub(super) fn add_own(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Other nodes hold this many more or fewer.
    pub(super) fn adjust_remote(&self, before: u32, after: u32) {
        let change = (u64::from(after).wrapping_sub(u64::from(before))).wrapping_mul(REMOTE);
        self.count.fetch_add(change, Ordering::AcqRel);
    }

    /// What this node holds, under way or idle: what the leader must count.
    pub(super) fn held(&self) -> u32 {
        let count = self.count.load(Ordering::Acquire);
        (own(count) + spare(count)) as u32
    }

    /// Ends a request; whether its unit is kept, so that the leader need not be told.
    fn end(&self) -> bool {
        let keep = u64::from(self.keep.load(Ordering::Acquire));
        let ended = self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            Some(if spare(count) < keep { count - 1 + SPARE } else { count - 1 })
        });
        ended.is_ok_and(|before| spare(before) < keep)
    }

    /// The leader's word on how many may be kept idle; whether some must go back.
    fn keep(&self, most: u32) -> bool {
        let most = u64::from(most).min((REMOTE / SPARE) - 1);
        self.keep.store(most as u32, Ordering::Release);
        let dropped = self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            (spare(count) > most).then(|| count - (spare(count) - most) * SPARE)
        });
        dropped.is_ok()
    }
}

fn own(count: u64) -> u64 {
    count & MOST_OWN
}

fn spare(count: u64) -> u64 {
    (count % REMOTE) / SPARE
}

fn remote(count: u64) -> u64 {
    count / REMOTE
}

fn total(count: u64) -> u64 {
    own(count) + spare(count) + remote(count)
}

impl Units {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), changed: Mutex::default() }
    }

    /// The account's entry, if it has any.
    pub(super) fn look(&self, account: u64) -> Option<Arc<Entry>> {
        self.shard(account).read().expect("no holder panics").get(&account).cloned()
    }

    /// The account's entry.
    pub(super) fn entry(&self, account: u64) -> Arc<Entry> {
        if let Some(entry) = self.look(account) {
            return entry;
        }
        let mut shard = self.shard(account).write().expect("no holder panics");
        if shard.len() >= SWEEP_AT && shard.len().is_power_of_two() {
            // Nobody can get hold of an entry while the shard is locked.
            shard.retain(|_, entry| Arc::strong_count(entry) > 1 || entry.count.load(Ordering::Acquire) > 0);
        }
        let new = || Entry {
            account,
            count: AtomicU64::new(0),
            keep: AtomicU32::new(0),
            others: AtomicU32::new(0),
            changed: AtomicBool::new(false),
            slot: AtomicU16::new(SLOTS),
        };
        shard.entry(account).or_insert_with(|| Arc::new(new())).clone()
    }

    /// A request of this node has ended; whether the leader must be told.
    pub(super) fn give_back(&self, entry: &Arc<Entry>) -> bool {
        let kept = entry.end();
        if !kept {
            self.mark_changed(entry);
        }
        !kept
    }

    /// The leader's word on how many units of an account this node may keep idle; whether some must go back.
    pub(super) fn keep(&self, entry: &Arc<Entry>, most: u32) -> bool {
        let dropped = entry.keep(most);
        if dropped {
            self.mark_changed(entry);
        }
        dropped
    }

    /// The leader must be told about this account.
    pub(super) fn mark_changed(&self, entry: &Arc<Entry>) {
        if !entry.changed.load(Ordering::Acquire) && !entry.changed.swap(true, Ordering::AcqRel) {
            self.changed.lock().expect("no holder panics").push(entry.clone());
        }
    }

    /// What this node holds of the accounts that have changed since they were last asked for.
    pub(super) fn changes(&self) -> Vec<(u64, u32)> {
        let changed = std::mem::take(&mut *self.changed.lock().expect("no holder panics"));
        changed
            .iter()
            .map(|entry| {
                // Cleared before the count is read, so that a change in between is told again.
                entry.changed.store(false, Ordering::Release);
                (entry.account, entry.held())
            })
            .collect()
    }

    /// All that this node holds.
    pub(super) fn all_held(&self) -> Vec<(u64, u32)> {
        self.changes();
        self.fold(|entry| Some((entry.account, entry.held())).filter(|(_, held)| *held > 0))
    }

    /// This node keeps nothing idle, also not what ends now, until the leader allows it anew.
    pub(super) fn drop_spares(&self) {
        self.fold(|entry| {
            entry.keep(0);
            None::<()>
        });
    }

    /// Whether requests of this node hold units of accounts in these slots. Nothing of theirs is kept idle any more.
    pub(super) fn are_busy(&self, slots: &std::ops::Range<u16>) -> bool {
        let busy = self.fold(|entry| {
            if !slots.contains(&entry.slot.load(Ordering::Acquire)) {
                return None;
            }
            entry.keep(0);
            (own(entry.count.load(Ordering::SeqCst)) > 0).then_some(())
        });
        !busy.is_empty()
    }

    /// A reign of this node begins: it hears what others hold from them, and keeps nothing idle itself.
    pub(super) fn begin_reign(&self) {
        self.fold(|entry| {
            entry.keep(0);
            entry.others.store(0, Ordering::Relaxed);
            entry.count.fetch_and(REMOTE - 1, Ordering::AcqRel);
            None::<()>
        });
    }

    fn fold<T>(&self, mut each: impl FnMut(&Entry) -> Option<T>) -> Vec<T> {
        let mut out = Vec::new();
        for shard in &self.shards {
            out.extend(shard.read().expect("no holder panics").values().filter_map(|entry| each(entry)));
        }
        out
    }

    fn shard(&self, account: u64) -> &RwLock<NumberMap<Arc<Entry>>> {
        &self.shards[(account >> 56) as usize % SHARDS]
    }
}
