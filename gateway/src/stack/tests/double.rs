//! A ledger of one node in memory, that refuses and fails on demand.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use store::{
    CommitError, Unavailable, View,
    lease::{Acquiring, Demand, Denied, Policy, Refusal, Standing},
    model::{
        Account, AccountId, AccountState, Charge, Env, GroupId, Key, KeyHash, KeyState, Name, Outcome, Overrides,
        Route, Row, Secret, SecretKind, Tier, Timestamp, Upstream,
    },
    view::{Directory, FoundKey, RouteView, UpstreamView},
};

use crate::stack::ledger::{Grant, Ledger, Permit};

#[derive(Debug, Clone, Default)]
pub(super) struct Double(pub(super) Arc<Inner>);

#[derive(Debug, Default)]
pub(super) struct Inner {
    directory: Directory,
    keys: Mutex<HashMap<KeyHash, Key>>,
    pub(super) rows: Mutex<Vec<Row>>,
    pub(super) denied: Mutex<Option<Denied>>,
    pub(super) no_quorum: AtomicBool,
    pub(super) lapsed: AtomicBool,
    /// A key that is revoked while the next request waits for its units.
    pub(super) revoked_in_wait: Mutex<Option<String>>,
    pub(super) commits_fail: AtomicBool,
    pub(super) in_use: AtomicUsize,
    pub(super) refunded: AtomicUsize,
    pub(super) demanded_bytes: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct TestPermit(Double);

#[derive(Debug)]
pub(super) struct TestGrant {
    double: Double,
    standings: Vec<Standing>,
}

pub(super) fn unavailable() -> Unavailable {
    Unavailable {
        reason: "no quorum: node-2 (10.0.0.7:8082) does not answer".to_owned(),
        retry_after: Duration::from_millis(1_500),
    }
}

impl Double {
    /// A key of an account of its own (the first: `acme`) in the tier `free`, changed as the test wants it.
    pub(super) fn add_key(&self, change: impl FnOnce(&mut Key, &mut Account)) -> String {
        let secret = Secret::generate(SecretKind::Live);
        let number = self.0.directory.len();
        let account = if number == 0 { "acme".to_owned() } else { format!("acme-{number}") };
        let mut account = Account {
            id: AccountId::from(account),
            tier: "free".into(),
            state: AccountState::Active,
            region: Name::default(),
            overrides: Overrides::default(),
            created_at: Timestamp::default(),
            profile: String::new(),
            revision: 1,
            resets: Vec::new(),
        };
        let mut key = Key {
            id: format!("key_{number}").into(),
            account: account.id.clone(),
            hash: secret.hash(),
            name: Name::default(),
            env: Env::Live,
            last4: secret.last4().to_owned(),
            scopes: Vec::new(),
            allowed_ips: Vec::new(),
            expires_at: None,
            state: KeyState::Active,
            created_at: Timestamp::default(),
            revoked_at: None,
            rotated_from: None,
            revision: 1,
            overrides: Default::default(),
        };
        change(&mut key, &mut account);
        let mut edit = self.0.directory.edit();
        for (name, routes) in [("free", None), ("reports-only", Some(vec!["reports".into()]))] {
            edit.put_tier(Tier { name: name.into(), concurrency: Some(20), routes, ..Tier::default() });
        }
        edit.put_account(account);
        edit.put_key(&key);
        self.0.keys.lock().expect("no panic").insert(secret.hash(), key);
        drop(edit);
        secret.expose().to_owned()
    }

    pub(super) fn set_state(&self, secret: &str, state: KeyState) {
        let mut keys = self.0.keys.lock().expect("no panic");
        let key = keys.get_mut(&KeyHash::of(secret)).expect("a key");
        key.state = state;
        self.0.directory.edit().put_key(key);
    }

    pub(super) fn add_route(&self, route: Route, upstream: Upstream) {
        let mut edit = self.0.directory.edit();
        edit.put_upstream(upstream);
        edit.put_route(route);
    }

    pub(super) fn deny(&self, policy: Policy) {
        let refusal = Refusal {
            policy,
            violated: vec![Name::from("per-second")],
            retry_after: Duration::from_millis(200),
            standings: standings(0),
        };
        *self.0.denied.lock().expect("no panic") = Some(Denied::Refused(Box::new(refusal)));
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        self.0.rows.lock().expect("no panic").clone()
    }

    /// Waits until there are so many rows.
    pub(super) async fn wait_for_rows(&self, count: usize) -> Vec<Row> {
        for _ in 0..1_000 {
            let rows = self.rows();
            if rows.len() >= count {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} rows expected: {:#?}", self.rows());
    }

    /// The only row.
    pub(super) async fn row(&self) -> Row {
        let mut rows = self.wait_for_rows(1).await;
        assert_eq!(rows.len(), 1, "{rows:#?}");
        rows.remove(0)
    }

    fn quorum(&self) -> Result<(), Unavailable> {
        if self.0.no_quorum.load(Ordering::SeqCst) { Err(unavailable()) } else { Ok(()) }
    }
}

fn standings(remaining: u64) -> Vec<Standing> {
    vec![Standing {
        name: Name::from("per-second"),
        policy: Policy::Rate,
        unit: "requests",
        quota: 5,
        window_seconds: Some(1),
        remaining,
        is_known: true,
        reset_seconds: Some(1),
        period_end: None,
    }]
}

impl Ledger for Double {
    type Permit = TestPermit;
    type Grant = TestGrant;

    fn key(&self, hash: &KeyHash) -> Option<FoundKey> {
        self.0.directory.key(hash)
    }

    fn route(&self, host: Option<&str>, path: &str, method: &str) -> Option<Arc<RouteView>> {
        self.0.directory.routes().find(host, path, method).cloned()
    }

    fn upstreams(&self) -> Vec<Arc<UpstreamView>> {
        self.0.directory.routes().upstreams().cloned().collect()
    }

    fn view(&self) -> View {
        View { until_ns: u64::MAX }
    }

    fn is_in_force(&self, _view: View) -> bool {
        self.quorum().is_ok()
    }

    fn check(&self, _view: View) -> Result<(), Unavailable> {
        self.quorum()
    }

    fn permit(&self, _account: &AccountId, _view: View) -> Result<TestPermit, Unavailable> {
        self.quorum().map(|()| TestPermit(self.clone()))
    }

    fn acquire<'a>(&'a self, demand: Demand<'a>) -> Acquiring<'a, TestGrant> {
        let bytes = usize::try_from(demand.content_bytes).unwrap_or(usize::MAX);
        self.0.demanded_bytes.store(bytes, Ordering::SeqCst);
        if let Some(denied) = self.0.denied.lock().expect("no panic").clone() {
            return Acquiring::Decided(Err(denied));
        }
        let grant = || {
            self.0.in_use.fetch_add(1, Ordering::SeqCst);
            Ok(TestGrant { double: self.clone(), standings: standings(4) })
        };
        match self.0.revoked_in_wait.lock().expect("no panic").take() {
            None => Acquiring::Decided(grant()),
            Some(secret) => Acquiring::Waits(Box::pin(async move {
                tokio::task::yield_now().await;
                self.set_state(&secret, KeyState::Revoked);
                grant()
            })),
        }
    }

    fn standings(&self, _demand: Demand<'_>) -> Vec<Standing> {
        Vec::new()
    }

    fn bind(&self, _permit: &mut TestPermit, _grant: &TestGrant) -> Result<GroupId, Unavailable> {
        Ok(GroupId::LEDGER)
    }

    fn record(&self, row: Row, _group: Option<GroupId>) {
        self.0.rows.lock().expect("no panic").push(row);
    }
}

impl Permit for TestPermit {
    async fn commit(self, row: Row) -> Result<(), CommitError> {
        if self.0.0.commits_fail.load(Ordering::SeqCst) {
            return Err(CommitError(unavailable()));
        }
        // Takes a moment, as a quorum does.
        self.0.record(row, None);
        tokio::task::yield_now().await;
        Ok(())
    }
}

impl Grant for TestGrant {
    fn standings(&self) -> Vec<Standing> {
        self.standings.clone()
    }

    fn shadows(&self) -> Vec<Name> {
        Vec::new()
    }

    fn settle(&mut self, content_bytes: u64, cost: u64) -> Vec<Charge> {
        let charge = |quota: &str, units| Charge { quota: quota.into(), period_start: 0, units };
        vec![charge("bytes", content_bytes), charge("cost", cost)]
    }

    fn has_lapsed(&self) -> bool {
        self.double.0.lapsed.load(Ordering::SeqCst)
    }

    fn lapses_after(&self) -> Option<Duration> {
        self.double.0.lapsed.load(Ordering::SeqCst).then_some(Duration::ZERO)
    }

    fn refund(self) {
        self.double.0.refunded.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for TestGrant {
    fn drop(&mut self) {
        self.double.0.in_use.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the rows say, short.
pub(super) fn outcomes(rows: &[Row]) -> Vec<(Outcome, u16)> {
    rows.iter().map(|row| (row.outcome, row.status)).collect()
}
