//! What does deciding over one request cost, before any byte goes out?
//!
//! Back of the envelope: one SHA-256 of 44 bytes (50 to 70 ns), one probe of an index (a cache miss), one 64-byte record and
//! beside it the account and what hangs on it (a chain of two or three more), a bucket and a slice (two locks), ten counts
//! that are locked instructions (5 to 7 ns each): under 0.3 us when hot, under 1 us among a million keys, where a read of
//! memory takes 100 to 200 ns.
//!
//! It holds 1,000,000 keys of 10,000 accounts in a tier with one rate limit a key and route and one daily quota, on the node
//! that leads, and decides one request after the other on one thread: no queue, so no offered load. Each step is measured alone
//! and all together, with keys at random ("cold") and 1,024 of them ("hot"); then again when the tier has got a concurrency
//! limit too. A round that is not counted teaches the slices how much is asked for. Last it says how long this machine takes for
//! one dependent read of memory, of which a cold decision has a chain.
//!
//! Run: `cargo bench -p tollgate-store --bench decision`

use std::{hint::black_box, sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use store::{
    Unavailable,
    lease::{Acquiring, Authority, Demand, Granted, Holder, Leadership, Leases},
    model::{
        Account, AccountId, AccountState, Dimension, Env, GroupId, Key, KeyHash, KeyState, Limit, Name, NodeId,
        Overage, Overrides, Period, Quota, Reservation, Route, Secret, SecretKind, Tier, Timestamp, Unit,
    },
    view::Directory,
};

const KEYS: usize = 1_000_000;
const ACCOUNTS: usize = 10_000;
const HOT: usize = 1_024;
const ROUNDS: usize = 1_000_000;

/// This node leads; the replicated state grants what is asked.
struct Alone;

impl Authority for Alone {
    fn now_ns(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
    }
    fn holder(&self) -> Holder {
        Holder { node: NodeId(1), incarnation: 1 }
    }
    fn group(&self, _: &AccountId) -> GroupId {
        GroupId::LEDGER
    }
    fn leading(&self, _: GroupId, _: u64) -> Option<Leadership> {
        Some(Leadership { term: 1, since_ns: 0, fresh: true })
    }
    fn peers(&self, _: GroupId) -> Vec<NodeId> {
        Vec::new()
    }
    fn ask(&self, _: GroupId, _: Bytes) -> BoxFuture<'static, Result<Bytes, Unavailable>> {
        unreachable!("this node leads")
    }
    fn reserved(&self, _: GroupId, _: &AccountId) -> Result<Vec<(i64, u64)>, Unavailable> {
        Ok(Vec::new())
    }
    fn reserve(&self, _: GroupId, all: Vec<Reservation>) -> BoxFuture<'static, Result<Vec<Granted>, Unavailable>> {
        let granted = |one: &Reservation| Granted { units: one.units.max(0).cast_unsigned(), free: Some(1 << 50) };
        let granted = all.iter().map(granted).collect();
        async move { Ok(granted) }.boxed()
    }
}

fn main() {
    let secrets: Vec<String> = (0..KEYS).map(|_| Secret::generate(SecretKind::Live).expose().to_owned()).collect();
    let keys: Vec<Key> = secrets.iter().enumerate().map(|(n, secret)| key(n, secret)).collect();

    let before = resident_bytes();
    let started = Instant::now();
    let directory = fill(&keys);
    let filled = started.elapsed();
    let bytes = resident_bytes() - before;
    println!("fill: {KEYS} keys, {ACCOUNTS} accounts: {filled:.2?}, {} bytes a key all included", bytes / KEYS);

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let leases = Leases::new(Arc::new(Alone), runtime.handle());
    let route = directory.routes().by_name(&"scan".into()).expect("it was put").clone();
    let now = Timestamp::now();
    let decide = |secret: &str| {
        let Some(found) = directory.key(&KeyHash::of(secret)) else { unreachable!("every key is there") };
        let demand = Demand { key: &found, route: &route, content_bytes: 1_000, cost: 1, now };
        match leases.begin(demand) {
            Acquiring::Decided(decided) => assert!(black_box(&decided).is_ok(), "it is within the limits"),
            // The account's first request, or one that overtook the background: it waits for a reservation.
            Acquiring::Waits(waits) => drop(runtime.block_on(waits).expect("within the limits")),
        }
    };
    let started = Instant::now();
    secrets.iter().for_each(|secret| decide(secret));
    let bytes = resident_bytes() - before - bytes;
    drop(keys);
    println!("first request of each key: {:.2?}, {} bytes a bucket", started.elapsed(), bytes / KEYS);

    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    // The texts lie in the order of use: a request brings its text along.
    let cold: Vec<String> = (0..ROUNDS).map(|_| secrets[next(KEYS)].clone()).collect();
    let hot: Vec<String> = (0..ROUNDS).map(|_| secrets[next(HOT)].clone()).collect();
    println!("{:46} {:>8} {:>8} {:>8} {:>8}", "ns", "mean", "p50", "p99", "p99.9");
    for (name, secrets) in [("cold", &cold), ("hot", &hot)] {
        measure(&format!("{name}: sha-256"), secrets, |secret| {
            black_box(KeyHash::of(secret));
        });
        measure(&format!("{name}: sha-256 and look-up"), secrets, |secret| {
            black_box(directory.key(&KeyHash::of(secret)));
        });
    }
    for (with, concurrency) in [("rate and quota", None), ("rate, quota and concurrency", Some(20))] {
        directory.edit().put_tier(tier(concurrency));
        for (name, secrets) in [("cold", &cold), ("hot", &hot)] {
            // Not counted: what is asked for a second, which the slices are made by, is known after it.
            secrets.iter().for_each(|secret| decide(secret));
            let waited = waited(&leases);
            measure(&format!("{name}: decision, {with}, grant ended"), secrets, decide);
            println!("{:46} {:>8}", "  of them waited for a reservation", self::waited(&leases) - waited);
        }
    }
    println!("clock: {:?} ns a reading", clock_ns());
    for megabytes in [1, 16, 64] {
        println!("memory: {:.1} ns a dependent read among {megabytes} MB", dependent_read_ns(megabytes << 20));
    }
}

fn waited(leases: &Leases) -> f64 {
    leases.stats().iter().find(|(name, _, _)| *name == "tollgate_lease_waited_total").expect("it is counted").2
}

/// Mean over a run without timers; the quantiles from a second run, each request timed, less the timer.
fn measure(name: &str, secrets: &[String], mut each: impl FnMut(&str)) {
    let started = Instant::now();
    secrets.iter().for_each(|secret| each(secret));
    let mean = started.elapsed().as_nanos() / secrets.len() as u128;
    let timer = clock_ns();
    let mut all: Vec<u64> = secrets
        .iter()
        .map(|secret| {
            let started = Instant::now();
            each(secret);
            (started.elapsed().as_nanos() as u64).saturating_sub(timer)
        })
        .collect();
    all.sort_unstable();
    let at = |per_mille: usize| all[all.len() * per_mille / 1_000];
    println!("{name:46} {mean:>8} {:>8} {:>8} {:>8}", at(500), at(990), at(999));
}

/// Each read says where the next one is: one cycle through all cache lines, in no order (Sattolo 1986).
fn dependent_read_ns(bytes: usize) -> f64 {
    const READS: u32 = 1_000_000;
    let mut lines: Vec<[u32; 16]> = (0..(bytes / 64) as u32).map(|n| [n; 16]).collect();
    for n in (1..lines.len()).rev() {
        let other = mixed(n) as usize % n;
        lines.swap(n, other);
    }
    let (mut at, started) = (0, Instant::now());
    for _ in 0..READS {
        at = lines[at as usize][0];
    }
    black_box(at);
    started.elapsed().as_nanos() as f64 / f64::from(READS)
}

fn clock_ns() -> u64 {
    let mut readings: Vec<u64> = (0..10_001).map(|_| Instant::now().elapsed().as_nanos() as u64).collect();
    readings.sort_unstable();
    readings[5_000]
}

fn fill(keys: &[Key]) -> Directory {
    let directory = Directory::default();
    let mut edit = directory.edit();
    edit.put_tier(tier(None));
    for n in 0..ACCOUNTS {
        edit.put_account(account(n));
    }
    for key in keys {
        edit.put_key(key);
    }
    edit.put_route(Route { name: "scan".into(), ..Route::default() });
    drop(edit);
    directory
}

fn tier(concurrency: Option<u32>) -> Tier {
    let limit = Limit {
        name: "per-second".into(),
        per: vec![Dimension::Key, Dimension::Route],
        rate: "1000000/s".parse().expect("a rate"),
        burst: 1_000_000,
        expires_at: None,
        shadow: false,
    };
    let quota = Quota {
        name: "daily".into(),
        unit: Unit::Requests,
        limit: 1 << 50,
        period: Period::Day,
        timezone: "UTC".into(),
        overage: Overage::Block,
        expires_at: None,
        anchor_day: None,
        thresholds: None,
        shadow: false,
    };
    Tier { name: "free".into(), limits: vec![limit], quotas: vec![quota], concurrency, ..Tier::default() }
}

fn account(n: usize) -> Account {
    Account {
        id: format!("acct_{:026}", n % ACCOUNTS).into(),
        tier: "free".into(),
        state: AccountState::Active,
        region: Name::default(),
        overrides: Overrides::default(),
        created_at: Timestamp(0),
        profile: String::new(),
        revision: 1,
        resets: Vec::new(),
    }
}

fn key(n: usize, secret: &str) -> Key {
    Key {
        // As minted: a millisecond and 80 random bits.
        id: format!("key_{}", ulid::Ulid::from_parts(1_767_225_600_000 + n as u64, mixed(n))).into(),
        account: account(n).id,
        hash: KeyHash::of(secret),
        name: Name::default(),
        env: Env::Live,
        last4: String::new(),
        scopes: Vec::new(),
        allowed_ips: Vec::new(),
        expires_at: None,
        state: KeyState::Active,
        created_at: Timestamp(0),
        revoked_at: None,
        rotated_from: None,
        revision: 1,
        overrides: Default::default(),
    }
}

fn mixed(n: usize) -> u128 {
    (n as u128 + 1).wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645) >> 20
}

/// Freed memory that the allocator keeps would count: nothing large is freed between two readings.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells a process its size");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident size");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of kilobytes") * 1_024
}
