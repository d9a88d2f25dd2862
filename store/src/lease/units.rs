//! Concurrency units under way, by account: those of this node's own requests, and (on the leader) those of other nodes.

use std::sync::{
    Arc, Mutex, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::bucket::NumberMap;

const SHARDS: usize = 64;
const SWEEP_AT: usize = 1_024;
/// One of another node's, in an entry's packed count; the low half is this node's own.
const REMOTE: u64 = 1 << 32;

/// The units of a ledger group's accounts.
#[derive(Debug)]
pub(super) struct Units {
    shards: Box<[RwLock<NumberMap<Arc<Entry>>>]>,
    /// Accounts whose own count has changed since the leader was told.
    changed: Mutex<Vec<Arc<Entry>>>,
}

/// One account's.
#[derive(Debug)]
pub(super) struct Entry {
    account: u64,
    /// Own in the low half, other nodes' in the high one, so that one compare-and-swap decides over both.
    count: AtomicU64,
    changed: AtomicBool,
}

impl Entry {
    /// The account's number.
    pub(super) fn account(&self) -> u64 {
        self.account
    }

    /// All units under way.
    pub(super) fn in_use(&self) -> u64 {
        total(self.count.load(Ordering::Acquire))
    }

    fn take(&self, limit: u32, unit: u64) -> Result<u64, u64> {
        self.count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (total(count) < u64::from(limit)).then_some(count + unit)
            })
            .map(|before| total(before) + 1)
            .map_err(total)
    }

    /// Takes a unit for a request of this node; how many are under way then.
    ///
    /// # Errors
    /// How many are under way: the limit or more.
    pub(super) fn take_own(&self, limit: u32) -> Result<u64, u64> {
        self.take(limit, 1)
    }

    /// Takes a unit for a request of another node.
    ///
    /// # Errors
    /// As [`Entry::take_own`].
    pub(super) fn take_remote(&self, limit: u32) -> Result<u64, u64> {
        self.take(limit, REMOTE)
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

    pub(super) fn own(&self) -> u32 {
        self.count.load(Ordering::Acquire) as u32
    }
}

fn total(count: u64) -> u64 {
    (count & (REMOTE - 1)) + (count >> 32)
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
        let new = || Entry { account, count: AtomicU64::new(0), changed: AtomicBool::new(false) };
        shard.entry(account).or_insert_with(|| Arc::new(new())).clone()
    }

    /// Gives one of this node's units back.
    pub(super) fn give_back(&self, entry: &Arc<Entry>) {
        entry.count.fetch_sub(1, Ordering::AcqRel);
        self.mark_changed(entry);
    }

    /// The leader must be told about this account's own count.
    pub(super) fn mark_changed(&self, entry: &Arc<Entry>) {
        if !entry.changed.load(Ordering::Acquire) && !entry.changed.swap(true, Ordering::AcqRel) {
            self.changed.lock().expect("no holder panics").push(entry.clone());
        }
    }

    /// Own counts that have changed since they were last asked for.
    pub(super) fn changes(&self) -> Vec<(u64, u32)> {
        let changed = std::mem::take(&mut *self.changed.lock().expect("no holder panics"));
        changed
            .iter()
            .map(|entry| {
                // Cleared before the count is read, so that a change in between is told again.
                entry.changed.store(false, Ordering::Release);
                (entry.account, entry.own())
            })
            .collect()
    }

    /// All own counts that are not zero.
    pub(super) fn all_own(&self) -> Vec<(u64, u32)> {
        self.changes();
        self.fold(|entry| Some((entry.account, entry.own())).filter(|(_, own)| *own > 0))
    }

    /// Forgets what other nodes hold: a new reign hears it from them.
    pub(super) fn forget_remote(&self) {
        self.fold(|entry| {
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
