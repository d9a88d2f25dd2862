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
    CommitError, Unavailable,
    lease::{Demand, Denied, Policy, Refusal, Standing},
    model::{
        AccountId, AccountState, Charge, Env, KeyHash, KeyState, Name, Outcome, Row, Secret, SecretKind, Upstream,
    },
    view::{AccountView, FoundKey, Policies, RouteView, UpstreamView},
};

use crate::stack::ledger::{Grant, Ledger, Permit};

#[derive(Debug, Clone, Default)]
pub(super) struct Double(pub(super) Arc<Inner>);

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) keys: Mutex<HashMap<KeyHash, FoundKey>>,
    pub(super) routes: Mutex<Vec<Arc<RouteView>>>,
    pub(super) rows: Mutex<Vec<Row>>,
    pub(super) denied: Mutex<Option<Denied>>,
    pub(super) no_quorum: AtomicBool,
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
    Unavailable { reason: "no quorum".to_owned(), retry_after: Duration::from_millis(1_500) }
}

pub(super) fn policies() -> Policies {
    Policies {
        limits: Vec::new(),
        quotas: Vec::new(),
        concurrency: Some(20),
        max_body_bytes: None,
        routes: None,
        log_retention_days: None,
        revision: 1,
    }
}

impl Double {
    /// A key of the account `acme`, changed as the test wants it.
    pub(super) fn add_key(&self, change: impl FnOnce(&mut FoundKey, &mut AccountView)) -> String {
        let secret = Secret::generate(SecretKind::Live);
        let mut keys = self.0.keys.lock().expect("no panic");
        let slot = u32::try_from(keys.len()).expect("few");
        let mut account = AccountView {
            id: AccountId::from("acme"),
            state: AccountState::Active,
            tier: Name::from("free"),
            region: Name::default(),
            policies: Arc::new(policies()),
            slot: 0,
        };
        let mut key = FoundKey {
            id: format!("key_{slot}").into(),
            env: Env::Live,
            state: KeyState::Active,
            expires_at: None,
            scopes: Arc::new([]),
            allowed_ips: Arc::new([]),
            account: Arc::new(AccountView {
                id: account.id.clone(),
                state: account.state,
                tier: account.tier.clone(),
                region: Name::default(),
                policies: account.policies.clone(),
                slot: 0,
            }),
            slot,
        };
        change(&mut key, &mut account);
        key.account = Arc::new(account);
        keys.insert(secret.hash(), key);
        secret.expose().to_owned()
    }

    pub(super) fn set_state(&self, secret: &str, state: KeyState) {
        self.0.keys.lock().expect("no panic").get_mut(&KeyHash::of(secret)).expect("a key").state = state;
    }

    pub(super) fn add_route(&self, route: store::model::Route, upstream: Option<Upstream>) {
        let upstream = upstream.map(|upstream| Arc::new(UpstreamView { upstream }));
        self.0.routes.lock().expect("no panic").push(Arc::new(RouteView { route, upstream, slot: 0 }));
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
        reset_seconds: Some(1),
        period_end: None,
    }]
}

impl Ledger for Double {
    type Permit = TestPermit;
    type Grant = TestGrant;

    fn key(&self, hash: &KeyHash) -> Option<FoundKey> {
        self.0.keys.lock().expect("no panic").get(hash).cloned()
    }

    fn route(&self, _host: Option<&str>, path: &str, method: &str) -> Option<Arc<RouteView>> {
        let routes = self.0.routes.lock().expect("no panic");
        let matches = |view: &&Arc<RouteView>| {
            let rule = &view.route.matches;
            rule.path_match().matches(path) && (rule.methods.is_empty() || rule.methods.iter().any(|m| m == method))
        };
        routes.iter().find(matches).cloned()
    }

    fn ready(&self) -> Result<(), Unavailable> {
        self.quorum()
    }

    fn permit(&self, _account: &AccountId) -> Result<TestPermit, Unavailable> {
        self.quorum().map(|()| TestPermit(self.clone()))
    }

    async fn acquire(&self, demand: Demand<'_>) -> Result<TestGrant, Denied> {
        let bytes = usize::try_from(demand.content_bytes).unwrap_or(usize::MAX);
        self.0.demanded_bytes.store(bytes, Ordering::SeqCst);
        if let Some(denied) = self.0.denied.lock().expect("no panic").clone() {
            return Err(denied);
        }
        self.0.in_use.fetch_add(1, Ordering::SeqCst);
        Ok(TestGrant { double: self.clone(), standings: standings(4) })
    }

    fn record(&self, row: Row) {
        self.0.rows.lock().expect("no panic").push(row);
    }
}

impl Permit for TestPermit {
    async fn commit(self, row: Row) -> Result<(), CommitError> {
        if self.0.0.commits_fail.load(Ordering::SeqCst) {
            return Err(CommitError(unavailable()));
        }
        // Takes a moment, as a quorum does.
        self.0.record(row);
        tokio::task::yield_now().await;
        Ok(())
    }
}

impl Grant for TestGrant {
    fn standings(&self) -> &[Standing] {
        &self.standings
    }

    fn settle(&mut self, content_bytes: u64, cost: u64) -> Vec<Charge> {
        let charge = |quota: &str, units| Charge { quota: quota.into(), period_start: 0, units };
        vec![charge("bytes", content_bytes), charge("cost", cost)]
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
