//! One ledger group as this node takes part in it: as its leader, who decides from memory, or as one who asks.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, mpsc};

use super::{
    ask::Asked,
    authority::{Authority, Leadership},
    bucket::{AnyRefused, Buckets, NumberMap, Taken, Wanted},
    few::Few,
    slice::{Slice, Want},
    stats::Counters,
    units::{Entry, Units},
    wire::{Decision, RateLevel, Returned, Verdict},
};
use crate::{
    model::{AccountId, GroupId, Name, NodeId},
    view::number,
};

/// A node that the leader has not heard of for so long has ended its requests (see [`super::Grant::has_lapsed`]); its
/// concurrency units are free again.
pub(super) const UNITS_LEASE_NS: u64 = 2_000_000_000;
/// Two clocks of elapsed time differ by at most one part in so many.
const DRIFT: u64 = 100;
/// Returns that wait to be sent; at the bound they stay spent.
const RETURNS_WAITING: usize = 65_536;
const SLICE_SHARDS: usize = 64;

pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) authority: Arc<dyn Authority>,
    reign: ArcSwapOption<Reign>,
    remote: Mutex<Remote>,
    pub(super) units: Units,
    /// What the leader's buckets were when it last answered: they can only have less now, so what they refuse is refused
    /// without asking.
    pub(super) hints: Buckets,
    /// Accounts that the leader said are at their concurrency, until when (lease clock).
    pub(super) crowded: Mutex<NumberMap<u64>>,
    slices: Box<[RwLock<NumberMap<Arc<Slice>>>]>,
    pub(super) asks: mpsc::Sender<Asked>,
    pub(super) reserves: mpsc::UnboundedSender<Want>,
    pub(super) returns: Mutex<Vec<Returned>>,
    pub(super) nudge: Notify,
    /// When this node's concurrency units were last known to be known to the leader.
    pub(super) renewed_ns: AtomicU64,
    pub(super) counters: Arc<Counters>,
}

/// A term of this node's leadership.
#[derive(Debug)]
pub(super) struct Reign {
    leadership: Leadership,
    pub(super) buckets: Buckets,
    /// Every other node has said what it holds, or its units have lapsed.
    settled: AtomicBool,
}

/// What other nodes hold, as the leader of this term knows.
#[derive(Debug, Default)]
pub(super) struct Remote {
    term: u64,
    pub(super) nodes: HashMap<NodeId, RemoteNode>,
    /// Nodes that the reign has not heard of.
    unheard: HashSet<NodeId>,
    expire_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct RemoteNode {
    pub(super) incarnation: u64,
    /// Of its newest message.
    pub(super) number: u64,
    pub(super) heard_ns: u64,
    pub(super) held: NumberMap<u32>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("id", &self.id).field("reign", &self.reign).finish_non_exhaustive()
    }
}

/// What a request wants of the leader.
#[derive(Debug, Clone)]
pub(super) struct Wants {
    pub(super) account: u64,
    /// The concurrency limit.
    pub(super) concurrency: Option<u32>,
    pub(super) rates: Few<Wanted>,
}

/// Units of a request of this node, decided in its memory.
#[derive(Debug)]
pub(super) struct Granted {
    /// The account's requests under way, with this one.
    pub(super) in_use: u64,
    pub(super) unit: Option<Arc<Entry>>,
    pub(super) rates: Few<Taken>,
}

/// No units.
#[derive(Debug)]
pub(super) struct NoUnits {
    pub(super) decision: Decision,
    pub(super) in_use: u64,
}

impl Group {
    pub(super) fn new(
        id: GroupId,
        authority: Arc<dyn Authority>,
        asks: mpsc::Sender<Asked>,
        reserves: mpsc::UnboundedSender<Want>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            id,
            authority,
            reign: ArcSwapOption::empty(),
            remote: Mutex::default(),
            units: Units::new(),
            hints: Buckets::new(None),
            crowded: Mutex::default(),
            slices: (0..SLICE_SHARDS).map(|_| RwLock::default()).collect(),
            asks,
            reserves,
            returns: Mutex::default(),
            nudge: Notify::new(),
            renewed_ns: AtomicU64::new(0),
            counters,
        }
    }

    /// Acts with the reign of this leadership, which is begun if this is its first use.
    pub(super) fn with_reign<T>(&self, leadership: Leadership, act: impl FnOnce(&Reign) -> T) -> T {
        if let Some(reign) = &*self.reign.load()
            && reign.leadership.term == leadership.term
        {
            return act(reign);
        }
        act(&self.begin(leadership))
    }

    fn begin(&self, leadership: Leadership) -> Arc<Reign> {
        let mut remote = self.remote.lock().expect("no holder panics");
        if let Some(reign) = &*self.reign.load()
            && reign.leadership.term >= leadership.term
        {
            // Begun by another thread; or this thread read its leadership long ago, and deciding by the newer reign, which
            // began empty after that, is safe.
            return reign.clone();
        }
        self.units.forget_remote();
        let unheard: HashSet<_> =
            if leadership.fresh { HashSet::new() } else { self.authority.peers(self.id).into_iter().collect() };
        let reign = Arc::new(Reign {
            leadership,
            buckets: Buckets::new((!leadership.fresh).then_some(leadership.since_ns)),
            settled: AtomicBool::new(unheard.is_empty()),
        });
        *remote = Remote { term: leadership.term, unheard, ..Remote::default() };
        self.reign.store(Some(reign.clone()));
        reign
    }

    /// The leader's decision for a request of this node: one unit of the concurrency and of each rate, or none.
    ///
    /// # Errors
    /// Who refused.
    pub(super) fn take(&self, reign: &Reign, demand: &Wants, now_ns: u64) -> Result<Granted, NoUnits> {
        let mut in_use = 0;
        let unit = match demand.concurrency {
            None => None,
            Some(limit) => {
                if !self.is_settled(reign, now_ns) {
                    return Err(NoUnits { decision: Decision::NotYet, in_use });
                }
                let entry = self.units.entry(demand.account);
                let taken = entry.take_own(limit).or_else(|in_use| match self.expire(now_ns) {
                    true => entry.take_own(limit),
                    false => Err(in_use),
                });
                in_use = taken.map_err(|in_use| NoUnits { decision: Decision::Concurrency, in_use })?;
                Some(entry)
            }
        };
        match reign.buckets.take_all(demand.rates.iter(), now_ns) {
            Ok(rates) => Ok(Granted { in_use, unit, rates }),
            Err(AnyRefused) => {
                if let Some(entry) = &unit {
                    self.units.give_back(entry);
                }
                Err(NoUnits { decision: Decision::Rate, in_use: in_use.saturating_sub(1) })
            }
        }
    }

    /// What [`Group::take`] would meet.
    pub(super) fn look(&self, reign: &Reign, demand: &Wants, now_ns: u64) -> Verdict {
        let in_use = self.units.look(demand.account).map_or(0, |entry| entry.in_use());
        reign.look(demand, in_use, now_ns)
    }

    /// Holds what other nodes hold: for a whole message, if the reign still stands.
    pub(super) fn with_remote<T>(&self, reign: &Reign, act: impl FnOnce(&mut Remote) -> T) -> Option<T> {
        let mut remote = self.remote.lock().expect("no holder panics");
        (remote.term == reign.leadership.term).then(|| act(&mut remote))
    }

    /// A node has said all that it holds.
    pub(super) fn heard(&self, reign: &Reign, remote: &mut Remote, node: NodeId) {
        remote.unheard.remove(&node);
        if remote.unheard.is_empty() {
            reign.settled.store(true, Ordering::Release);
        }
    }

    /// Whether the leader knows all concurrency units that are under way.
    pub(super) fn is_settled(&self, reign: &Reign, now_ns: u64) -> bool {
        if reign.settled.load(Ordering::Acquire) {
            return true;
        }
        let lapsed = now_ns >= reign.leadership.since_ns.saturating_add(with_drift(UNITS_LEASE_NS));
        if lapsed {
            reign.settled.store(true, Ordering::Release);
        }
        lapsed
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
        let before = remote.nodes.len();
        remote.nodes.retain(|_, node| {
            let alive = now_ns < node.heard_ns.saturating_add(with_drift(UNITS_LEASE_NS));
            if !alive {
                self.let_go(node);
            }
            alive
        });
        remote.nodes.len() < before
    }

    /// What a node held is free.
    pub(super) fn let_go(&self, node: &RemoteNode) {
        for (account, count) in &node.held {
            self.units.entry(*account).adjust_remote(*count, 0);
        }
    }

    /// Gives rate units back to whoever decided over them.
    pub(super) fn give_back_rates(&self, term: u64, by_this_node: bool, units: &Few<Taken>) {
        if by_this_node {
            let now_ns = self.authority.now_ns();
            // Of an older term: that bucket is gone.
            if let Some(reign) = self.reign.load().as_ref().filter(|reign| reign.leadership.term == term) {
                units.iter().for_each(|unit| reign.buckets.give_back(unit, now_ns));
            }
            return;
        }
        let mut returns = self.returns.lock().expect("no holder panics");
        for unit in units.iter() {
            // The hint counts the unit as taken, and would refuse what the leader would grant.
            self.hints.forget(unit.name);
            if returns.len() < RETURNS_WAITING {
                returns.push(Returned { term, unit: *unit });
            }
        }
        drop(returns);
        self.nudge.notify_one();
    }

    /// A unit of this account has come back: the leader's last word is void.
    pub(super) fn not_crowded(&self, entry: &Entry) {
        self.crowded.lock().expect("no holder panics").remove(&entry.account());
    }

    /// Whether requests of this node that hold concurrency units may go on.
    pub(super) fn holds_units(&self, now_ns: u64) -> bool {
        self.authority.leading(self.id, now_ns).is_some()
            || now_ns < self.renewed_ns.load(Ordering::Acquire) + (UNITS_LEASE_NS - UNITS_LEASE_NS / DRIFT)
    }

    /// Rate buckets in memory.
    pub(super) fn buckets(&self) -> usize {
        self.reign.load().as_ref().map_or(0, |reign| reign.buckets.len())
    }

    /// The slice of an account's quota.
    pub(super) fn slice(&self, account: (&AccountId, u64), quota: (&Name, u64)) -> Arc<Slice> {
        self.with_slice(account, quota, Arc::clone)
    }

    /// Acts with the slice of an account's quota.
    pub(super) fn with_slice<T>(
        &self,
        account: (&AccountId, u64),
        quota: (&Name, u64),
        act: impl FnOnce(&Arc<Slice>) -> T,
    ) -> T {
        let name = number::join(account.1, quota.1);
        let shard = &self.slices[(name >> 56) as usize % SLICE_SHARDS];
        if let Some(slice) = shard.read().expect("no holder panics").get(&name) {
            return act(slice);
        }
        let new = || Arc::new(Slice::new(account.0.clone(), quota.0.clone()));
        act(shard.write().expect("no holder panics").entry(name).or_insert_with(new))
    }

    /// Reservations that give idle slices back (all of them, at once). Slices that nobody uses are forgotten.
    pub(super) fn idle_slices(&self, now_ns: u64, at_once: bool) -> Vec<Want> {
        let mut wants = Vec::new();
        for shard in &self.slices {
            let mut shard = shard.write().expect("no holder panics");
            shard.retain(|_, slice| {
                wants.extend(slice.idle(now_ns, at_once));
                Arc::strong_count(slice) > 1 || !slice.is_idle(now_ns)
            });
        }
        wants
    }
}

impl Reign {
    pub(super) fn term(&self) -> u64 {
        self.leadership.term
    }

    /// The verdict that a demand would get, taking nothing.
    pub(super) fn look(&self, demand: &Wants, in_use: u64, now_ns: u64) -> Verdict {
        let mut verdict = self.refusal(demand, Decision::Granted, in_use, now_ns);
        if demand.concurrency.is_some_and(|limit| in_use >= u64::from(limit)) {
            verdict.decision = Decision::Concurrency;
        } else if verdict.rates.iter().any(|rate| rate.retry_after_ns.is_some()) {
            verdict.decision = Decision::Rate;
        }
        verdict
    }

    /// A verdict with the levels as they are.
    pub(super) fn refusal(&self, demand: &Wants, decision: Decision, in_use: u64, now_ns: u64) -> Verdict {
        let level = |wanted| {
            let (tat_ns, refused) = self.buckets.look(wanted, now_ns);
            RateLevel { tat_ns, retry_after_ns: refused.map(|refused| refused.retry_after_ns), taken: None }
        };
        Verdict { decision, in_use, rates: demand.rates.iter().map(level).collect() }
    }
}

/// As long on the fastest clock.
fn with_drift(ns: u64) -> u64 {
    ns + ns / DRIFT
}
