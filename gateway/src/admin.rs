//! The admin API: REST over JSON below `/v1`, and the probes and metrics beside it.
//!
//! Every request passes the same layers: an id, the caller's token and role, and (unless it says `?consistency=stale`) a
//! linearizable view of the metadata. Bad input changes nothing and is told completely. One file a resource.

mod access;
mod accounts;
mod alerts;
mod answer;
mod api;
mod audit;
mod batch;
mod change;
mod cluster;
mod declared;
mod docs;
mod draft;
mod endpoints;
mod etag;
mod explain;
mod fields;
mod forms;
mod freshness;
pub(crate) mod fuzz;
mod in_force;
mod input;
mod keys;
mod limits;
mod log_level;
mod named;
mod once;
mod params;
mod preview;
mod probes;
mod problem;
mod request_id;
mod requests;
mod routes;
mod sign_in;
mod tail;
mod tiers;
mod tokens;
mod trail;
mod upstreams;
mod usage;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use store::Store;

pub use self::log_level::LogLevel;
use self::problem::{Code, Problem};
use crate::{operator::Operator, tls::Certificates};

/// People who sign in at once; one more is told to try again.
const SIGNING_IN_AT_ONCE: usize = 8;

/// What the handlers share.
#[derive(Debug)]
pub struct Admin {
    pub(crate) store: Store,
    pub(crate) operator: Operator,
    pub(crate) prometheus: Prometheus,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) log_level: LogLevel,
    draining: AtomicBool,
    under_way: once::UnderWay,
    trail: trail::Trail,
    followers: tail::Followers,
    /// Each waits for the identity provider.
    signing_in: Arc<tokio::sync::Semaphore>,
    docs: docs::Docs,
}

/// The process's metrics.
#[derive(Clone)]
pub struct Prometheus(pub PrometheusHandle);

impl Prometheus {
    /// What `/metrics` says: the process's metrics and a store's numbers.
    pub fn text(&self, store: &Store) -> String {
        probes::text_of(self, store)
    }
}

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prometheus")
    }
}

/// The API's OpenAPI 3.1 document.
pub fn openapi() -> serde_json::Value {
    let (_, paths, _) = endpoints::all().into_parts();
    api::complete(paths)
}

type Shared = axum::extract::State<Arc<Admin>>;

impl Admin {
    /// The API over a store. Its background work runs on the runtime that this is called from.
    pub fn new(
        store: Store,
        operator: Operator,
        prometheus: Prometheus,
        certificates: Arc<Certificates>,
        log_level: LogLevel,
    ) -> Arc<Self> {
        let trail = trail::Trail::start(store.clone());
        let (draining, under_way) = (AtomicBool::new(false), once::UnderWay::default());
        let followers = tail::Followers::default();
        let signing_in = Arc::new(tokio::sync::Semaphore::new(SIGNING_IN_AT_ONCE));
        let docs = docs::Docs::new(&openapi());
        Arc::new(Self {
            store,
            operator,
            prometheus,
            certificates,
            log_level,
            draining,
            under_way,
            trail,
            followers,
            signing_in,
            docs,
        })
    }

    /// From now on `/readyz` answers 503.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The routes. A body longer than `body_bytes` is answered 413.
    pub fn router(self: Arc<Self>, body_bytes: usize) -> Router {
        let (v1, _, fields) = endpoints::all().into_parts();
        let v1 = v1
            .fallback(async || Problem::new(Code::NotFound, "there is nothing at this path"))
            .layer(from_fn(in_force::layer))
            .layer(from_fn(etag::layer))
            .layer(from_fn_with_state(fields, fields::layer))
            .layer(from_fn_with_state(self.clone(), freshness::layer))
            .layer(from_fn_with_state(self.clone(), trail::layer))
            .layer(from_fn_with_state(self.clone(), access::layer));
        Router::new()
            .nest("/v1", v1)
            .route("/openapi.json", get(docs::document))
            .route("/schema.json", get(declared::get_schema))
            .route("/docs", get(docs::index))
            .route("/docs/", get(docs::page))
            .route("/docs/{*path}", get(docs::asset))
            .route("/sign-in", get(sign_in::begin))
            .route("/sign-in/callback", get(sign_in::finish))
            .route("/livez", get(probes::live))
            .route("/readyz", get(probes::ready))
            .route("/metrics", get(probes::metrics))
            .layer(DefaultBodyLimit::max(body_bytes))
            .layer(from_fn(request_id::layer))
            .with_state(self)
    }
}
