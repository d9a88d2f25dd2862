//! Clients: each plays the gateway of its node over the store's handle, and tells the checkers what it was told.

use std::{rc::Rc, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use store::{
    Store,
    lease::{Demand, Denied, Grant},
    model::{
        Account, AccountId, AccountState, Dimension, Expect, Key, KeyHash, KeyState, Limit, MetaOp, MetaWrite, Outcome,
        Overage, Period, Quota, Rate, RequestId, Role, Route, RouteMatch, Row, Tier, Timestamp, Token, Unit, Upstream,
    },
};

use super::{
    clock,
    cluster::{KnownKey, Shared},
};
use crate::invariants::{CONCURRENCY, LIMITS, QUOTA_UNITS, RateLimit, Seen};

/// Clients of each kind on each node.
const REQUESTERS: usize = 4;
/// How often a long request looks whether its concurrency unit has lapsed.
const LAPSE_CHECK: Duration = Duration::from_millis(100);
/// Accounts; each has the limits of its number.
const ACCOUNTS: usize = LIMITS.len();
/// Operations on one register; then the next one is used, so that histories stay small enough to be judged.
const REGISTER_OPS: u64 = 12;

/// Ledger groups that are added while clients are at work.
const MORE_GROUPS: u32 = 2;
/// The account with a quota, and its number: its slot is one of those that move first.
const QUOTA_ACCOUNT: usize = 1;
const QUOTA_ACCOUNT_NUMBER: usize = 26;

/// Starts a node's clients; they end with the node.
pub(super) fn start(shared: &Rc<Shared>, at: usize, life: u32, store: &Store) {
    let node = shared.slots.borrow()[at].name.clone();
    for n in 0..=REQUESTERS {
        let rng = SmallRng::seed_from_u64(shared.plan.seed ^ ((at as u64) << 8) ^ (u64::from(life) << 16) ^ n as u64);
        let client = Client {
            shared: Rc::clone(shared),
            store: store.clone(),
            node: node.clone(),
            at,
            life,
            n,
            rng,
            requests: 0,
        };
        tokio::task::spawn_local(async move {
            if n == REQUESTERS { client.administer().await } else { client.send().await }
        });
    }
    if at == 0 && shared.plan.splits {
        let rng = SmallRng::seed_from_u64(shared.plan.seed ^ (u64::from(life) << 16) ^ 0x5b117);
        let (shared, store) = (Rc::clone(shared), store.clone());
        let client = Client { shared, store, node, at, life, n: REQUESTERS + 1, rng, requests: 0 };
        tokio::task::spawn_local(client.split());
    }
}

struct Client {
    shared: Rc<Shared>,
    store: Store,
    node: String,
    at: usize,
    life: u32,
    n: usize,
    rng: SmallRng,
    requests: u64,
}

impl Client {
    async fn think(&mut self, most_ms: u64) {
        let ms = self.rng.random_range(1..=most_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn send(mut self) {
        loop {
            self.think(120).await;
            if self.shared.load.get() && self.shared.is_set_up.get() {
                self.request().await;
            }
        }
    }

    async fn request(&mut self) {
        let Some(key) = self.shared.keys.borrow().choose(&mut self.rng).cloned() else { return };
        let begun = clock::elapsed();
        // No await between the check and the decision about the key: that is the moment which P3 speaks of.
        let view = self.store.view();
        let found = self.store.directory().key(&key.hash);
        if self.store.check(view).is_err() {
            return self.shared.count("requests refused: no quorum");
        }
        let seen = match &found {
            None => Seen::Unknown,
            Some(found) if found.state == KeyState::Active => Seen::Active,
            Some(_) => Seen::Revoked,
        };
        self.shared.laws.borrow_mut().barrier.seen(key.number, seen, &self.node, begun);
        let (Some(found), Seen::Active) = (found, seen) else { return };
        let Ok(mut permit) = self.store.permit(&key.account, view) else { return };
        let Some(route) = self.store.directory().routes().by_name(&"scan".into()).cloned() else { return };
        let demand = Demand { key: &found, route: &route, content_bytes: 0, cost: 0, now: Timestamp::now() };
        let mut grant = match self.store.leases().acquire(demand).await {
            Ok(grant) => grant,
            Err(Denied::Refused(_)) => return self.shared.count("requests refused: by a policy"),
            Err(Denied::Unavailable(_)) => return self.shared.count("requests refused: nobody could decide"),
        };
        if permit.follow(&grant).is_err() {
            grant.refund();
            return self.shared.count("requests refused: no quorum");
        }
        let account = key.account.as_str().to_owned();
        self.shared.laws.borrow_mut().rates.admitted(&account, clock::elapsed());
        // The wait for the grant may have been long: the key is looked up again. This instant is the one at which the request
        // is admitted.
        let view = self.store.view();
        let works = self.store.directory().key(&key.hash).is_some_and(|found| found.state == KeyState::Active);
        if !works || !self.store.is_in_force(view) {
            grant.refund();
            return self.shared.count("requests refused: the key ended while they waited");
        }
        self.shared.laws.borrow_mut().barrier.seen(key.number, Seen::Active, &self.node, clock::elapsed());
        self.shared.count("requests admitted");
        if self.rng.random_ratio(1, 12) {
            self.think(20).await;
            grant.refund();
            return self.shared.count("requests refunded");
        }
        let held = self.shared.laws.borrow_mut().concurrency.begun(&account, self.at);
        let went = self.upstream(&grant).await;
        self.shared.laws.borrow_mut().concurrency.ended(held);
        let charges = grant.settle(0, 0);
        for charge in &charges {
            self.shared.laws.borrow_mut().quotas.charged(&account, &charge.quota, charge.period_start, charge.units);
        }
        drop(grant);
        if !went {
            self.shared.count("requests ended: their concurrency lapsed");
        }
        self.requests += 1;
        let ms = u128::try_from(Timestamp::now().0 / 1_000).unwrap_or_default();
        let unique =
            u128::from(self.requests) | (self.n as u128) << 24 | u128::from(self.life) << 32 | (self.at as u128) << 48;
        let row = Row {
            request_id: RequestId(ms << 80 | 7 << 76 | 2 << 62 | unique),
            ts: Timestamp::now(),
            account: key.account.clone(),
            key_id: key.id.clone(),
            tier: found.account.tier.clone(),
            route: "scan".into(),
            method: "POST".into(),
            path: "/v3/scan".into(),
            status: 200,
            outcome: Outcome::Admitted,
            cost: 0,
            bytes_in: 10,
            bytes_out: 20,
            upstream_us: 1_000,
            duration_us: 2_000,
            client_ip: None,
            client_request_id: None,
            trace_id: 0,
            decided_by: "".into(),
            node: self.node.as_str().into(),
            region: "".into(),
            completion: store::model::Completion::Complete,
            count: 1,
            settles: false,
            retention_days: 0,
            charges,
        };
        let id = row.request_id;
        self.shared.laws.borrow_mut().rows.tried(id);
        match permit.commit(row).await {
            Ok(()) => {
                self.shared.laws.borrow_mut().rows.acknowledged(id);
                self.shared.count("rows acknowledged");
            }
            Err(_) => self.shared.count("rows without an answer"),
        }
    }

    /// The upstream's time; whether it was not cut short.
    async fn upstream(&mut self, grant: &Grant) -> bool {
        let ms =
            if self.rng.random_ratio(1, 20) { self.rng.random_range(500..3_000) } else { self.rng.random_range(1..60) };
        let until = tokio::time::Instant::now() + Duration::from_millis(ms);
        while tokio::time::Instant::now() < until {
            let left = until - tokio::time::Instant::now();
            tokio::time::sleep(left.min(LAPSE_CHECK)).await;
            if grant.has_lapsed() {
                return false;
            }
        }
        true
    }

    async fn administer(mut self) {
        loop {
            self.think(250).await;
            if !self.shared.load.get() {
                continue;
            }
            if !self.shared.is_set_up.get() {
                self.set_up().await;
                continue;
            }
            match self.rng.random_range(0..10) {
                0 => self.create_key().await,
                1 => self.revoke_key().await,
                2..=4 => self.write_register().await,
                _ => self.read_register().await,
            }
        }
    }

    /// Adds a ledger group now and then, and has slots spread over it, as long as some are to come. Not at once: when slots
    /// move, something is to have been used of what their accounts have.
    async fn split(mut self) {
        let most = self.shared.plan.groups + MORE_GROUPS;
        loop {
            self.think(500).await;
            let used = self.shared.laws.borrow().quotas.newest(account_id(QUOTA_ACCOUNT).as_str());
            // Where nothing goes wrong there is time to wait for that; else a moment with all members there is to be caught.
            let is_early =
                clock::elapsed() < self.shared.plan.length / 4 || !self.shared.plan.faults && used < QUOTA_UNITS / 2;
            if is_early || !self.shared.load.get() || !self.shared.is_set_up.get() {
                continue;
            }
            let status = self.store.cluster().await;
            let groups = u32::try_from(status.groups.len()).unwrap_or(u32::MAX).saturating_sub(1);
            if status.split.is_none() && groups < most && self.store.split(groups + 1).await.is_ok() {
                self.shared.count("fault: ledger groups added");
            }
        }
    }

    async fn write(&self, ops: Vec<MetaOp>) -> bool {
        let write = MetaWrite { at: Timestamp::now(), actor: "simulation".into(), ops, ..MetaWrite::default() };
        self.store.write(write).await.is_ok()
    }

    /// Tiers, accounts, a route; by the first node, again until it is answered.
    async fn set_up(&self) {
        if self.at != 0 {
            return;
        }
        let mut ops = vec![
            MetaOp::PutUpstream {
                upstream: Upstream { name: "up".into(), targets: Vec::new(), ..Upstream::default() },
                expect: Expect::Any,
            },
            MetaOp::PutRoute {
                route: Route {
                    name: "scan".into(),
                    matches: RouteMatch::default(),
                    upstream: "up".into(),
                    ..Route::default()
                },
                expect: Expect::Any,
            },
        ];
        for n in 0..ACCOUNTS {
            ops.push(MetaOp::PutTier { tier: tier(n), expect: Expect::Any });
            let account = Account {
                id: account_id(n),
                tier: format!("tier-{n}").as_str().into(),
                state: AccountState::Active,
                region: "".into(),
                overrides: Default::default(),
                resets: Vec::new(),
                created_at: Timestamp::now(),
                profile: String::new(),
                revision: 0,
            };
            ops.push(MetaOp::PutAccount { account, expect: Expect::Any });
        }
        if self.write(ops).await {
            self.shared.is_set_up.set(true);
            self.shared.note("set up");
        }
    }

    async fn create_key(&mut self) {
        let account = account_id(self.rng.random_range(0..ACCOUNTS));
        let number = self.shared.laws.borrow_mut().barrier.new_key();
        let text = format!("key-{number}");
        let known = KnownKey { id: text.as_str().into(), hash: KeyHash::of(&text), account: account.clone(), number };
        self.shared.keys.borrow_mut().push(known.clone());
        let answered =
            self.write(vec![MetaOp::PutKey { key: key(&known, KeyState::Active), expect: Expect::Absent }]).await;
        if answered {
            self.shared.laws.borrow_mut().barrier.created(number, clock::elapsed());
            self.shared.count("keys created");
        }
    }

    async fn revoke_key(&mut self) {
        let known = {
            let mut keys = self.shared.keys.borrow_mut();
            // The first ones stay, so that there is always somebody to serve.
            if keys.len() <= 2 * ACCOUNTS {
                return;
            }
            let at = self.rng.random_range(0..keys.len());
            if self.rng.random_ratio(1, 2) { keys.remove(at) } else { keys[at].clone() }
        };
        self.shared.laws.borrow_mut().barrier.revoking(known.number);
        if self.write(vec![MetaOp::PutKey { key: key(&known, KeyState::Revoked), expect: Expect::Any }]).await {
            self.shared.laws.borrow_mut().barrier.revoked(known.number, clock::elapsed());
            self.shared.count("keys revoked");
        }
    }

    fn register(&self) -> (u64, u64) {
        let sequence = self.shared.next();
        (sequence, self.shared.laws.borrow_mut().reads.register(REGISTER_OPS))
    }

    async fn write_register(&mut self) {
        let (value, register) = self.register();
        let name = format!("register-{register}");
        let token = Token {
            id: name.as_str().into(),
            name: value.to_string().as_str().into(),
            hash: KeyHash::of(&name),
            role: Role::Viewer,
            created_at: Timestamp::now(),
            expires_at: None,
            ..Token::default()
        };
        let op = self.shared.laws.borrow_mut().reads.write_begun(register, value, self.shared.next());
        if self.write(vec![MetaOp::PutToken { token, expect: Expect::Any }]).await {
            self.shared.laws.borrow_mut().reads.write_ended(op, self.shared.next());
            self.shared.count("registers written");
        }
    }

    async fn read_register(&mut self) {
        let (_, register) = self.register();
        let op = self.shared.laws.borrow_mut().reads.read_begun(register, self.shared.next());
        if self.store.barrier().await.is_err() {
            return self.shared.count("reads refused: no quorum");
        }
        let name = format!("register-{register}");
        let Ok(tokens) = self.store.tokens() else { return };
        let value =
            tokens.iter().find(|token| token.id.as_str() == name).and_then(|token| token.name.as_str().parse().ok());
        self.shared.laws.borrow_mut().reads.read_ended(op, value.unwrap_or(0), self.shared.next());
        self.shared.count("registers read");
    }
}

fn account_id(n: usize) -> AccountId {
    let number = if n == QUOTA_ACCOUNT { QUOTA_ACCOUNT_NUMBER } else { n };
    format!("acct-{number}").as_str().into()
}

/// Account `n` has the `n`th rate limits (its number gives the same ones); the second one a quota besides, the third a bound on requests at once.
fn tier(n: usize) -> Tier {
    let limit = |(at, limit): (usize, &RateLimit)| Limit {
        name: format!("rate-{at}").as_str().into(),
        per: vec![Dimension::Account],
        rate: Rate { units: limit.units, period_seconds: limit.period_seconds },
        burst: limit.burst,
        expires_at: None,
        shadow: false,
    };
    let limits = LIMITS[n % LIMITS.len()].iter().enumerate().map(limit).collect();
    let quota = Quota {
        name: "hourly".into(),
        unit: Unit::Requests,
        limit: QUOTA_UNITS,
        period: Period::Hour,
        timezone: "UTC".into(),
        overage: Overage::Block,
        expires_at: None,
        anchor_day: None,
        thresholds: None,
        shadow: false,
    };
    Tier {
        name: format!("tier-{n}").as_str().into(),
        limits,
        quotas: if n == QUOTA_ACCOUNT { vec![quota] } else { Vec::new() },
        concurrency: (n == 2).then_some(CONCURRENCY),
        ..Tier::default()
    }
}

fn key(known: &KnownKey, state: KeyState) -> Key {
    Key {
        id: known.id.clone(),
        account: known.account.clone(),
        hash: known.hash,
        name: "".into(),
        env: Default::default(),
        last4: String::new(),
        scopes: Vec::new(),
        allowed_ips: Vec::new(),
        overrides: Default::default(),
        expires_at: None,
        state,
        created_at: Timestamp::now(),
        revoked_at: None,
        rotated_from: None,
        revision: 0,
    }
}
