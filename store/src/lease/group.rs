//! One ledger group as this node takes part in it: as its leader, who decides from memory, or as one who asks.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, Semaphore, mpsc};

use super::{
    ask::Asked,
    authority::{Authority, Leadership},
    bucket::{NumberMap, Shards, Wanted},
    debt,
    few::Few,
    lend,
    purse::Purses,
    reign::Reign,
    reserve::Want,
    slice::Slice,
    stats::Counters,
    units::{Entry, Units},
    wire::Verdict,
};
use crate::{
    model::{AccountId, GroupId, Name, NodeId, slot_of},
    view::number,
};

/// A node that the leader has not heard of for so long has ended its requests (see [`super::Grant::has_lapsed`]); its
/// concurrency units are free again.
pub(super) const UNITS_LEASE_NS: u64 = 2_000_000_000;
/// Rate units are lent for so long; unreported, they are spent then.
pub(super) const LENT_FOR_NS: u64 = 500_000_000;
/// Two clocks of elapsed time differ by at most one part in so many.
pub(super) const DRIFT: u64 = 100;
const SLICE_SHARDS: usize = 64;
/// See [`Group::refilling`]: each looks again, or asks the leader again, every 10 ms.
pub(super) const MOST_REFILLING: usize = 4_096;

pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) authority: Arc<dyn Authority>,
    /// One more than the newest term that this node has begun to reign in; 0 before the first.
    begun: AtomicU64,
    /// That leadership's beginning as it was when the reign began: one that was given up and taken again in its term is the same.
    since_ns: AtomicU64,
    /// The same of the newest reign that knows all concurrency units under way: see [`Reign::is_settled`].
    pub(super) settled: AtomicU64,
    /// Of the newest reign.
    pub(super) buckets: Shards,
    remote: Mutex<Remote>,
    /// Lease clock when the first of the units that other nodes hold ends; looked at without the lock.
    next_end_ns: AtomicU64,
    pub(super) units: Units,
    /// What this node holds on lease, while another leads.
    pub(super) purses: Purses,
    /// Accounts that the leader said are at their concurrency, until when (lease clock).
    pub(super) crowded: Mutex<NumberMap<u64>>,
    slices: Box<[RwLock<NumberMap<Arc<Slice>>>]>,
    pub(super) asks: mpsc::Sender<Asked>,
    pub(super) reserves: mpsc::UnboundedSender<Want>,
    /// A reservation that somebody waits for was sent.
    pub(super) urgent: Notify,
    pub(super) nudge: Notify,
    /// Requests that may wait at once for buckets that refill; another is told so at once.
    pub(super) refilling: Semaphore,
    /// When this node's concurrency units were last known to be known to the leader.
    pub(super) renewed_ns: AtomicU64,
    /// How often all units of this node have lapsed.
    lapses: AtomicU64,
    pub(super) counters: Arc<Counters>,
}

/// What other nodes hold, as the leader of this term knows.
#[derive(Debug, Default)]
pub(super) struct Remote {
    leadership: Option<Leadership>,
    pub(super) nodes: HashMap<NodeId, RemoteNode>,
    /// Nodes that the reign has not heard of.
    unheard: HashSet<NodeId>,
    expire_ns: u64,
    /// When leases end, in order; renewed ones stand in it again.
    pub(super) ends: VecDeque<lend::End>,
    pub(super) last_lease: u64,
}

#[derive(Debug, Default)]
pub(super) struct RemoteNode {
    pub(super) incarnation: u64,
    /// Of its newest message.
    pub(super) number: u64,
    pub(super) heard_ns: u64,
    pub(super) held: NumberMap<u32>,
    pub(super) keeps: NumberMap<u32>,
    pub(super) leases: NumberMap<lend::Lease>,
    /// What it held was let go: it must say all that it holds.
    pub(super) lapsed: bool,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a request wants of the leader.
#[derive(Debug, Clone)]
pub(super) struct Wants {
    pub(super) account: u64,
    /// The account's slot; none where there is one ledger group.
    pub(super) slot: Option<u16>,
    /// The concurrency limit.
    pub(super) concurrency: Option<u32>,
    pub(super) rates: Few<Wanted>,
}

impl Wants {
    /// The account is the group's since then.
    pub(super) fn begin_at(&mut self, since_ns: u64) {
        if since_ns > 0 {
            self.rates.iter_mut().for_each(|wanted| wanted.since_ns = since_ns);
        }
    }
}

impl Group {
    pub(super) fn new(
        id: GroupId,
        authority: Arc<dyn Authority>,
        asks: mpsc::Sender<Asked>,
        reserves: mpsc::UnboundedSender<Want>,
        counters: Arc<Counters>,
    ) -> Self {
        let debts: debt::Source = {
            let authority = authority.clone();
            Arc::new(move |bucket| debt::newest(&*authority, id, bucket))
        };
        Self {
            id,
            authority,
            begun: AtomicU64::new(0),
            since_ns: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            buckets: Shards::new(debts),
            remote: Mutex::default(),
            next_end_ns: AtomicU64::new(u64::MAX),
            units: Units::new(),
            purses: Purses::new(),
            crowded: Mutex::default(),
            slices: (0..SLICE_SHARDS).map(|_| RwLock::default()).collect(),
            asks,
            reserves,
            urgent: Notify::new(),
            nudge: Notify::new(),
            refilling: Semaphore::new(MOST_REFILLING),
            renewed_ns: AtomicU64::new(0),
            lapses: AtomicU64::new(0),
            counters,
        }
    }

    /// The reign of this leadership, which is begun if this is its first use; a later one, if that has begun.
    pub(super) fn reign(&self, leadership: Leadership) -> Reign<'_> {
        self.newest_reign(leadership).unwrap_or_else(|| Reign::of(self, self.begin(leadership)))
    }

    /// The reign of this leadership, if it is the newest.
    pub(super) fn newest_reign(&self, leadership: Leadership) -> Option<Reign<'_>> {
        let begun = self.begun.load(Ordering::Acquire) == leadership.term.saturating_add(1);
        // Of a later reign, if that begins just now: then this one opens later, and lets nothing through before.
        begun.then(|| Reign::of(self, Leadership { since_ns: self.since_ns.load(Ordering::Acquire), ..leadership }))
    }

    fn begin(&self, leadership: Leadership) -> Leadership {
        let mut remote = self.remote.lock().expect("no holder panics");
        if let Some(newest) = remote.leadership.filter(|newest| newest.term >= leadership.term) {
            // Begun by another thread; or this thread read its leadership long ago, and deciding by the newer reign, which
            // began empty after that, is safe.
            return newest;
        }
        let now_ns = self.authority.now_ns();
        self.note_lapse(now_ns);
        self.renewed_ns.fetch_max(now_ns, Ordering::AcqRel);
        self.units.begin_reign();
        // Lent by an earlier leader: the new one counts them as spent.
        self.purses.clear();
        let unheard: HashSet<_> =
            if leadership.fresh { HashSet::new() } else { self.authority.peers(self.id).into_iter().collect() };
        let is_alone = unheard.is_empty();
        *remote = Remote { leadership: Some(leadership), unheard, ..Remote::default() };
        self.next_end_ns.store(u64::MAX, Ordering::Release);
        if is_alone {
            Reign::of(self, leadership).settle();
        }
        self.since_ns.store(leadership.since_ns, Ordering::Release);
        self.begun.store(leadership.term.saturating_add(1), Ordering::Release);
        leadership
    }

    /// What a demand would meet.
    pub(super) fn look(&self, reign: Reign<'_>, demand: &Wants, now_ns: u64) -> Verdict {
        let in_use = self.units.look(demand.account).map_or(0, |entry| entry.in_use());
        reign.look(demand, in_use, now_ns)
    }

    /// Holds what other nodes hold: for a whole message, if the reign still stands.
    pub(super) fn with_remote<T>(&self, reign: Reign<'_>, act: impl FnOnce(&mut Remote) -> T) -> Option<T> {
        let mut remote = self.remote.lock().expect("no holder panics");
        let done =
            remote.leadership.is_some_and(|newest| newest.term == reign.leadership.term).then(|| act(&mut remote));
        self.next_end_ns.store(remote.ends.front().map_or(u64::MAX, |end| end.end_ns), Ordering::Release);
        done
    }

    /// Counts rate units whose lease has ended as spent; whether there may have been any.
    pub(super) fn end_leases(&self, reign: Reign<'_>, now_ns: u64) -> bool {
        if now_ns < self.next_end_ns.load(Ordering::Acquire) {
            return false;
        }
        self.with_remote(reign, |remote| lend::end(reign, remote, now_ns)).is_some()
    }

    /// A node has said all that it holds.
    pub(super) fn heard(&self, reign: Reign<'_>, remote: &mut Remote, node: NodeId) {
        remote.unheard.remove(&node);
        if remote.unheard.is_empty() {
            reign.settle();
        }
    }

    /// Frees the units of nodes that have not been heard of; whether there were any. Looks at most every tenth of a lease.
    pub(super) fn expire(&self, now_ns: u64) -> bool {
        let mut remote = self.remote.lock().expect("no holder panics");
        self.expire_in(&mut remote, now_ns)
    }

    pub(super) fn expire_in(&self, remote: &mut Remote, now_ns: u64) -> bool {
        if now_ns < remote.expire_ns {
            return false;
        }
        remote.expire_ns = now_ns + UNITS_LEASE_NS / 10;
        let mut any = false;
        for node in remote.nodes.values_mut() {
            if now_ns >= node.heard_ns.saturating_add(with_drift(UNITS_LEASE_NS)) && !node.held.is_empty() {
                self.let_go(node);
                node.lapsed = true;
                any = true;
            }
        }
        remote.nodes.retain(|_, node| {
            now_ns < node.heard_ns.saturating_add(with_drift(UNITS_LEASE_NS)) || !node.leases.is_empty()
        });
        any
    }

    /// What a node held is free.
    pub(super) fn let_go(&self, node: &mut RemoteNode) {
        for (account, count) in node.held.drain() {
            self.units.entry(account).adjust_remote(count, 0);
        }
    }

    /// A request of this node has ended, whose unit this node granted itself as the leader, or asked for.
    pub(super) fn release(&self, entry: &Arc<Entry>, asked: bool) {
        let tell = self.units.give_back(entry);
        if !asked {
            return;
        }
        let mut crowded = self.crowded.lock().expect("no holder panics");
        if !crowded.is_empty() {
            // The leader's last word is void.
            crowded.remove(&entry.account());
        }
        drop(crowded);
        if tell {
            self.nudge.notify_one();
        }
    }

    /// Whether the leader has said a moment ago that an account is at its concurrency.
    pub(super) fn is_crowded(&self, account: u64, now_ns: u64) -> bool {
        self.crowded.lock().expect("no holder panics").get(&account).is_some_and(|until_ns| now_ns < *until_ns)
    }

    /// For how long the concurrency units of this node are surely its own.
    pub(super) fn units_last_ns(&self, now_ns: u64) -> u64 {
        let until_ns = self.renewed_ns.load(Ordering::Acquire) + (UNITS_LEASE_NS - UNITS_LEASE_NS / DRIFT);
        match until_ns.saturating_sub(now_ns) {
            0 if self.authority.leading(self.id, now_ns).is_some() => UNITS_LEASE_NS,
            left_ns => left_ns,
        }
    }

    /// Whether units that the leader has granted are still this node's.
    pub(super) fn holds_renewed_units(&self, now_ns: u64) -> bool {
        now_ns < self.renewed_ns.load(Ordering::Acquire) + (UNITS_LEASE_NS - UNITS_LEASE_NS / DRIFT)
    }

    /// How often this node's units have lapsed: those of before are nobody's.
    pub(super) fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Acquire)
    }

    /// Before it is renewed: what has lapsed never comes back. The leader may have given it to others.
    pub(super) fn note_lapse(&self, now_ns: u64) {
        if !self.holds_renewed_units(now_ns) {
            self.lapses.fetch_add(1, Ordering::AcqRel);
            self.units.drop_spares();
        }
    }

    /// Has a reservation made: at once, or with others a moment later.
    pub(super) fn reserve(&self, want: Want, urgent: bool) {
        // Fails only when the group is going away; then nobody answers, which is unavailable.
        let _ = self.reserves.send(want);
        if urgent {
            self.urgent.notify_one();
        }
    }

    /// Rate buckets in memory.
    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Has the debts of slow buckets written anew that have mostly been refilled.
    pub(super) fn refresh_debts(&self, now_ns: u64) {
        let Some(leadership) = self.authority.leading(self.id, now_ns) else { return };
        let reign = self.reign(leadership);
        for debt in reign.buckets.stale_debts(now_ns) {
            self.reserve(Want::Debt { leadership: reign.leadership, debt }, false);
        }
    }

    /// Has what a slow bucket owes written, so that it may go on spending, if need be.
    pub(super) fn raise_debts(&self, reign: Reign<'_>, rates: &Few<Wanted>, now_ns: u64, urgent: bool) {
        for wanted in rates.iter() {
            if let Some(debt) = reign.buckets.debt(wanted.name, now_ns) {
                self.reserve(Want::Debt { leadership: reign.leadership, debt }, urgent);
            }
        }
    }

    /// The slice of an account's quota.
    pub(super) fn slice(&self, account: (&AccountId, u64), quota: (&Name, u64)) -> Arc<Slice> {
        let name = number::join(account.1, quota.1);
        let shard = &self.slices[(name >> 56) as usize % SLICE_SHARDS];
        if let Some(slice) = shard.read().expect("no holder panics").get(&name) {
            return slice.clone();
        }
        let new = || Arc::new(Slice::new(account.0.clone(), quota.0.clone()));
        shard.write().expect("no holder panics").entry(name).or_insert_with(new).clone()
    }

    /// Reservations that give back what is left of the slices of accounts in these slots; and whether some of them wait for a
    /// reservation still, or (where that counts) requests are under way with units of theirs.
    pub(super) fn slices_back(&self, slots: &std::ops::Range<u16>, settles: bool) -> (Vec<Want>, bool) {
        let (mut wants, mut is_waiting) = (Vec::new(), false);
        let now_ns = self.authority.now_ns();
        for shard in &self.slices {
            let shard = shard.read().expect("no holder panics");
            for slice in shard.values().filter(|slice| slots.contains(&slot_of(&slice.account))) {
                // Looked at first: what a request that ends now gives back is found below.
                is_waiting |= slice.is_waiting() || (settles && slice.is_in_use());
                wants.extend(slice.idle(now_ns, true).map(Want::Quota));
            }
        }
        (wants, is_waiting)
    }

    /// Reservations that give idle slices back (all of them, at once). Slices that nobody uses are forgotten.
    pub(super) fn idle_slices(&self, now_ns: u64, at_once: bool) -> Vec<Want> {
        let mut wants = Vec::new();
        for shard in &self.slices {
            let mut shard = shard.write().expect("no holder panics");
            shard.retain(|_, slice| {
                wants.extend(slice.idle(now_ns, at_once).map(Want::Quota));
                Arc::strong_count(slice) > 1 || !slice.is_idle(now_ns)
            });
        }
        wants
    }
}

/// As long on the fastest clock.
pub(super) fn with_drift(ns: u64) -> u64 {
    ns + ns / DRIFT
}
