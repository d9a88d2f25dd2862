//! A cluster of lease rooms in one process: manual clock, messages delivered by call, the replicated state a map.

mod concurrency;
mod escrow;
mod lent;
mod quota;
mod rate;
mod remote;
mod slow;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures_util::{FutureExt, future::BoxFuture};

use super::*;
use crate::{
    model::{
        Account, AccountId, Dimension, Key, KeyHash, Limit, NodeId, Overage, Period, Quota, Reservation, Route, Tier,
        Timestamp, Unit,
    },
    view::{Directory, FoundKey, RouteView},
};

pub(super) const SECOND: u64 = 1_000_000_000;
/// A new leader decides over rates so long after it began.
pub(super) const OPENS: u64 = SECOND / 2 + SECOND / 200;
const START_NS: u64 = 1_000 * SECOND;
/// 2026-01-01T00:00:00Z.
const START_UNIX: i64 = 1_767_225_600;

/// What the nodes share.
pub(super) struct World {
    now_ns: AtomicU64,
    /// The lease clock goes with tokio's, which a test has paused.
    pub(super) began: Mutex<Option<tokio::time::Instant>>,
    pub(super) chaos: Mutex<Option<escrow::Chaos>>,
    leader: Mutex<Option<(NodeId, Leadership)>>,
    nodes: Mutex<HashMap<NodeId, Leases>>,
    /// Nodes that reach nobody.
    cut: Mutex<HashSet<NodeId>>,
    /// Messages arrive and their answers do not.
    lose_answers: AtomicBool,
    /// No quorum for reservations.
    no_quorum: AtomicBool,
    /// Slots have moved, and all came to their group then; 0: none ever has.
    pub(super) moved_ns: AtomicU64,
    /// The state does not say what is free.
    pub(super) silent: AtomicBool,
    pub(super) ledger: Mutex<BTreeMap<(AccountId, Name, i64), Book>>,
    pub(super) asks: AtomicU64,
    pub(super) reserves: AtomicU64,
}

use crate::model::Name;

/// A quota's period in the replicated state.
#[derive(Debug, Default, Clone)]
pub(super) struct Book {
    pub(super) used: u64,
    pub(super) reserved: BTreeMap<(NodeId, u64), u64>,
}

impl Book {
    pub(super) fn taken(&self) -> u64 {
        self.used + self.reserved.values().sum::<u64>()
    }
}

struct Peer {
    world: Arc<World>,
    holder: Holder,
}

impl Authority for Peer {
    fn now_ns(&self) -> u64 {
        self.world.now_ns()
    }
    fn holder(&self) -> Holder {
        self.holder
    }
    fn group(&self, _: &AccountId) -> GroupId {
        GroupId::LEDGER
    }
    fn decides(&self, _: GroupId, slot: Option<u16>) -> Option<u64> {
        match self.world.moved_ns.load(Ordering::Relaxed) {
            0 => Some(0),
            moved_ns => slot.map(|_| moved_ns),
        }
    }
    fn leading(&self, _: GroupId, _: u64) -> Option<Leadership> {
        let leader = *self.world.leader.lock().expect("whole");
        leader.filter(|(node, _)| *node == self.holder.node).map(|(_, leadership)| leadership)
    }
    fn peers(&self, _: GroupId) -> Vec<NodeId> {
        let nodes = self.world.nodes.lock().expect("whole");
        nodes.keys().copied().filter(|node| *node != self.holder.node).collect()
    }
    fn ask(&self, _: GroupId, body: Bytes) -> BoxFuture<'static, Result<Bytes, Unavailable>> {
        let (world, node) = (self.world.clone(), self.holder.node);
        async move {
            world.asks.fetch_add(1, Ordering::Relaxed);
            let leader = *world.leader.lock().expect("whole");
            let cut = world.cut.lock().expect("whole").clone();
            let leader =
                leader.map(|(leader, _)| leader).filter(|leader| !cut.contains(leader) && !cut.contains(&node));
            let Some(leader) = leader else { return Err(unavailable("no leader")) };
            tokio::task::yield_now().await;
            let fate = world.chaos.lock().expect("whole").as_mut().map(escrow::Chaos::fate).unwrap_or_default();
            tokio::time::sleep(fate.there).await;
            let leases = world.nodes.lock().expect("whole")[&leader].clone();
            if fate.lost {
                return Err(unavailable("lost"));
            }
            let answer = leases.answer(&body);
            if let Some(later) = fate.again {
                tokio::spawn(async move {
                    tokio::time::sleep(later).await;
                    leases.answer(&body);
                });
            }
            tokio::time::sleep(fate.back).await;
            if fate.answer_lost {
                return Err(unavailable("lost"));
            }
            if world.lose_answers.load(Ordering::Relaxed) { Err(unavailable("lost")) } else { Ok(answer) }
        }
        .boxed()
    }
    fn reserved(&self, _: GroupId, account: &AccountId) -> Result<Vec<(i64, u64)>, Unavailable> {
        let ledger = self.world.ledger.lock().expect("whole");
        Ok(ledger
            .iter()
            .filter(|((of, ..), _)| of == account)
            .map(|((.., start), book)| (*start, book.taken()))
            .collect())
    }
    fn reserve(&self, _: GroupId, all: Vec<Reservation>) -> BoxFuture<'static, Result<Vec<Granted>, Unavailable>> {
        let world = self.world.clone();
        async move {
            world.reserves.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            if world.no_quorum.load(Ordering::Relaxed) {
                return Err(unavailable("no quorum"));
            }
            let mut ledger = world.ledger.lock().expect("whole");
            let silent = world.silent.load(Ordering::Relaxed);
            let heard = |granted: Granted| Granted { free: granted.free.filter(|_| !silent), ..granted };
            Ok(all.iter().map(|reservation| heard(reserve(&mut ledger, reservation))).collect())
        }
        .boxed()
    }
}

fn reserve(ledger: &mut BTreeMap<(AccountId, Name, i64), Book>, one: &Reservation) -> Granted {
    let newest = ledger.keys().filter(|(a, q, _)| (a, q) == (&one.account, &one.quota)).map(|key| key.2).max();
    if newest.is_some_and(|newest| one.period_start < newest) {
        return Granted::default();
    }
    let book = ledger.entry((one.account.clone(), one.quota.clone(), one.period_start)).or_default();
    let free = one.limit.saturating_sub(book.taken());
    let reserved = book.reserved.entry((one.node, one.incarnation)).or_default();
    let units = if one.units < 0 {
        *reserved = reserved.checked_sub(one.units.unsigned_abs()).expect("no more comes back than was reserved");
        0
    } else {
        let units = free.min(one.units.unsigned_abs());
        *reserved += units;
        units
    };
    Granted { units, free: Some(one.limit.saturating_sub(book.taken())) }
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            now_ns: AtomicU64::new(START_NS),
            began: Mutex::default(),
            chaos: Mutex::default(),
            leader: Mutex::default(),
            nodes: Mutex::default(),
            cut: Mutex::default(),
            lose_answers: AtomicBool::new(false),
            no_quorum: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            ledger: Mutex::default(),
            moved_ns: AtomicU64::new(0),
            asks: AtomicU64::new(0),
            reserves: AtomicU64::new(0),
        })
    }

    /// Starts a node, or starts it again.
    pub(super) fn start(self: &Arc<Self>, node: u64, incarnation: u64) -> Leases {
        let holder = Holder { node: NodeId(node), incarnation };
        let leases = Leases::new(Arc::new(Peer { world: self.clone(), holder }), &Handle::current());
        self.nodes.lock().expect("whole").insert(holder.node, leases.clone());
        leases
    }

    /// Whether this is still the node's process.
    pub(super) fn runs(&self, node: u64, leases: &Leases) -> bool {
        Arc::ptr_eq(&self.nodes.lock().expect("whole")[&NodeId(node)].inner, &leases.inner)
    }

    /// Node 1 leads a fresh group.
    pub(super) fn alone() -> (Arc<Self>, Leases) {
        let world = Self::new();
        let leases = world.start(1, 1);
        world.elect(1, 1, true);
        (world, leases)
    }

    pub(super) fn elect(&self, node: u64, term: u64, fresh: bool) {
        let since_ns = self.now_ns();
        *self.leader.lock().expect("whole") = Some((NodeId(node), Leadership { term, since_ns, fresh }));
    }

    pub(super) fn depose(&self) {
        *self.leader.lock().expect("whole") = None;
    }

    pub(super) fn cut(&self, node: u64) {
        self.cut.lock().expect("whole").insert(NodeId(node));
    }

    pub(super) fn heal(&self) {
        self.cut.lock().expect("whole").clear();
    }

    pub(super) fn now_ns(&self) -> u64 {
        let passed = self.began.lock().expect("whole").map_or(0, |began| began.elapsed().as_nanos() as u64);
        self.now_ns.load(Ordering::Acquire) + passed
    }

    pub(super) fn wait_ns(&self, ns: u64) {
        self.now_ns.fetch_add(ns, Ordering::AcqRel);
    }

    /// The wall clock: it goes with the lease clock.
    pub(super) fn wall(&self) -> Timestamp {
        Timestamp(START_UNIX * 1_000_000 + ((self.now_ns() - START_NS) / 1_000).cast_signed())
    }

    pub(super) fn taken(&self) -> u64 {
        self.ledger.lock().expect("whole").values().map(Book::taken).sum()
    }

    /// A row's charges, as applying it counts them.
    pub(super) fn charge(&self, node: u64, incarnation: u64, account: &AccountId, charges: &[crate::model::Charge]) {
        let mut ledger = self.ledger.lock().expect("whole");
        for charge in charges {
            let book = ledger.entry((account.clone(), charge.quota.clone(), charge.period_start)).or_default();
            let reserved = book.reserved.entry((NodeId(node), incarnation)).or_default();
            *reserved = reserved.saturating_sub(charge.units);
            book.used += charge.units;
        }
    }
}

/// A client of one account with one key on one route.
pub(super) struct Client {
    pub(super) key: FoundKey,
    pub(super) route: Arc<RouteView>,
    pub(super) bytes: u64,
}

pub(super) fn rate(name: &str, rate: &str, burst: u64) -> Limit {
    let rate = rate.parse().expect("a rate");
    Limit { name: name.into(), per: vec![Dimension::Account], rate, burst, expires_at: None, shadow: false }
}

pub(super) fn quota(name: &str, limit: u64) -> Quota {
    let timezone = "UTC".into();
    Quota {
        name: name.into(),
        unit: Unit::Requests,
        limit,
        period: Period::Day,
        timezone,
        overage: Overage::Block,
        expires_at: None,
        anchor_day: None,
        thresholds: None,
        shadow: false,
    }
}

pub(super) fn tier(limits: Vec<Limit>, quotas: Vec<Quota>, concurrency: Option<u32>) -> Tier {
    Tier { name: "free".into(), limits, quotas, concurrency, revision: 1, ..Tier::default() }
}

/// A directory with one account of this tier, and its client.
pub(super) fn client(tier: Tier) -> Client {
    let directory = Directory::default();
    let key = {
        let mut edit = directory.edit();
        edit.put_account(account("acme", &tier));
        edit.put_tier(tier);
        let key = key("acme", 1);
        edit.put_key(&key);
        edit.put_route(Route { name: "scan".into(), ..Route::default() });
        key
    };
    let route = directory.routes().by_name(&"scan".into()).expect("it was put").clone();
    Client { key: directory.key(&key.hash).expect("it was put"), route, bytes: 0 }
}

fn account(id: &str, tier: &Tier) -> Account {
    Account {
        id: id.into(),
        tier: tier.name.clone(),
        state: crate::model::AccountState::Active,
        region: Name::default(),
        overrides: crate::model::Overrides::default(),
        created_at: Timestamp(0),
        profile: String::new(),
        revision: 1,
        resets: Vec::new(),
    }
}

fn key(account: &str, n: u128) -> Key {
    Key {
        id: format!("key_{}", ulid::Ulid(n)).into(),
        account: account.into(),
        hash: KeyHash::of(&format!("secret {n}")),
        name: Name::default(),
        env: crate::model::Env::Live,
        last4: String::new(),
        scopes: Vec::new(),
        allowed_ips: Vec::new(),
        expires_at: None,
        state: crate::model::KeyState::Active,
        created_at: Timestamp(0),
        revoked_at: None,
        rotated_from: None,
        revision: 1,
        overrides: Default::default(),
    }
}

impl Client {
    pub(super) fn demand(&self, world: &World) -> Demand<'_> {
        Demand { key: &self.key, route: &self.route, content_bytes: self.bytes, cost: 1, now: world.wall() }
    }

    pub(super) async fn ask(&self, world: &World, leases: &Leases) -> Result<Grant, Denied> {
        leases.acquire(self.demand(world)).await
    }

    /// On the leader without a quota to reserve: the answer is there at once.
    pub(super) fn now(&self, world: &World, leases: &Leases) -> Result<Grant, Denied> {
        leases.acquire(self.demand(world)).now_or_never().expect("decided in memory")
    }
}

pub(super) fn refusal<T: fmt::Debug>(result: Result<T, Denied>) -> Refusal {
    match result {
        Err(Denied::Refused(refusal)) => *refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Lets background work happen until a condition holds.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("not within three seconds: {what}");
}

/// Data planes may move a request between threads.
#[allow(dead_code, reason = "compiled, not run")]
fn acquiring_can_be_sent(leases: &Leases, demand: Demand<'_>) {
    fn is_send(_: impl Send) {}
    is_send(leases.acquire(demand));
    is_send(leases.peek(demand));
}

#[tokio::test]
async fn bytes_that_make_no_sense_get_an_answer() {
    let (_world, leases) = World::alone();
    for body in [&b""[..], b"\x01", b"\x02\x00", b"\x01\xff\xff", &[1; 300]] {
        let answer = wire::decode(&leases.answer(&Bytes::copy_from_slice(body)));
        assert!(matches!(answer, Ok(wire::Answer::Unreadable(_))), "{answer:?}");
    }
}
