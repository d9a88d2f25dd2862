//! The admin API: REST over JSON below `/v1`, and the probes and metrics beside it.
//!
//! Every request passes the same layers: an id, the caller's token and role, and (unless it says `?consistency=stale`) a
//! linearizable view of the metadata. Bad input changes nothing and is told completely. One file a resource.

mod access;
mod accounts;
mod answer;
mod audit;
mod batch;
mod change;
mod cluster;
mod draft;
mod etag;
mod forms;
mod freshness;
mod in_force;
mod input;
mod keys;
mod limits;
mod once;
mod params;
mod probes;
mod problem;
mod request_id;
mod requests;
mod routes;
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
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use store::Store;

use self::problem::{Code, Problem};
use crate::operator::Operator;

/// What the handlers share.
#[derive(Debug)]
pub struct Admin {
    pub(crate) store: Store,
    pub(crate) operator: Operator,
    pub(crate) prometheus: Prometheus,
    draining: AtomicBool,
    under_way: once::UnderWay,
    trail: trail::Trail,
}

/// The process's metrics.
#[derive(Clone)]
pub struct Prometheus(pub PrometheusHandle);

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prometheus")
    }
}

type Shared = axum::extract::State<Arc<Admin>>;

impl Admin {
    /// The API over a store. Its background work runs on the runtime that this is called from.
    pub fn new(store: Store, operator: Operator, prometheus: Prometheus) -> Arc<Self> {
        let trail = trail::Trail::start(store.clone());
        let (draining, under_way) = (AtomicBool::new(false), once::UnderWay::default());
        Arc::new(Self { store, operator, prometheus, draining, under_way, trail })
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
        let v1 = Router::new()
            .route("/accounts", get(accounts::list).post(accounts::create))
            .route("/accounts/{id}", get(accounts::get).patch(accounts::patch).delete(accounts::delete))
            .route("/accounts/{id}/keys", get(keys::list).post(keys::create))
            .route("/accounts/{id}/usage", get(usage::get))
            .route("/accounts/{id}/limits", get(limits::get))
            .route("/keys/{id}", get(keys::get).patch(keys::patch).delete(keys::revoke))
            .route("/keys/{id}/rotate", post(keys::rotate))
            .route("/tiers", get(tiers::list))
            .route("/tiers/{name}", get(tiers::get).put(tiers::put).delete(tiers::delete))
            .route("/routes", get(routes::list))
            .route("/routes/{name}", get(routes::get).put(routes::put).delete(routes::delete))
            .route("/upstreams", get(upstreams::list))
            .route("/upstreams/{name}", get(upstreams::get).put(upstreams::put).delete(upstreams::delete))
            .route("/requests", get(requests::list))
            .route("/requests/{id}", get(requests::get))
            .route("/cluster", get(cluster::get))
            .route("/tokens", get(tokens::list).post(tokens::create))
            .route("/tokens/{id}", get(tokens::get).delete(tokens::delete))
            .route("/tokens/{id}/rotate", post(tokens::rotate))
            .route("/audit", get(audit::list))
            .route("/audit/export", get(audit::export))
            .route("/audit/verify", get(audit::verify))
            .route("/batch", post(batch::create))
            .fallback(async || Problem::new(Code::NotFound, "there is nothing at this path"))
            .layer(from_fn(in_force::layer))
            .layer(from_fn_with_state(self.clone(), freshness::layer))
            .layer(from_fn_with_state(self.clone(), trail::layer))
            .layer(from_fn_with_state(self.clone(), access::layer));
        Router::new()
            .nest("/v1", v1)
            .route("/livez", get(probes::live))
            .route("/readyz", get(probes::ready))
            .route("/metrics", get(probes::metrics))
            .layer(DefaultBodyLimit::max(body_bytes))
            .layer(from_fn(request_id::layer))
            .with_state(self)
    }
}
