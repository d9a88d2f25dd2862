//! Active health checks: one core asks every target of every upstream that wants it, all cores go by what it found.
//!
//! A target is taken for healthy until as many checks in a row as the threshold says otherwise; and back again likewise.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use metrics::gauge;
use store::model::{HealthCheck, Name, Protocol, Upstream};
use tokio::task::AbortHandle;

use super::connect::Address;
use crate::{stack::Ledger, telemetry::UPSTREAM_HEALTHY, tls::Connector};

/// How often the list of upstreams is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A check is answered within its interval, and within this.
const LONGEST_CHECK: Duration = Duration::from_secs(5);

/// What is known of targets.
#[derive(Debug, Default)]
pub(crate) struct Health {
    verdicts: Mutex<HashMap<(Name, String), Arc<Verdict>>>,
}

/// What is known of one.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    unhealthy: AtomicBool,
}

impl Verdict {
    pub(super) fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::Relaxed)
    }
}

impl Health {
    /// What is known of an upstream's target; healthy when nothing is.
    pub(super) fn verdict(&self, upstream: &Name, url: &str) -> Arc<Verdict> {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.entry((upstream.clone(), url.to_owned())).or_default().clone()
    }

    /// Nobody checks an upstream any more, or not as before. What a pool holds on to stays the same verdict: it may be checked
    /// again in a moment.
    fn forget(&self, upstream: &Name) {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.retain(|(name, _), verdict| {
            if name == upstream {
                verdict.unhealthy.store(false, Ordering::Relaxed);
            }
            name != upstream || Arc::strong_count(verdict) > 1
        });
    }
}

/// Checks what is configured, as it is configured, for ever.
pub(crate) async fn run<L: Ledger>(health: Arc<Health>, ledger: Arc<L>, tls: Option<Arc<Connector>>) {
    let mut running: HashMap<Name, (Upstream, Checks)> = HashMap::new();
    loop {
        let upstreams = ledger.upstreams();
        running.retain(|name, (config, _)| {
            let stays = upstreams.iter().any(|view| view.upstream == *config);
            if !stays {
                health.forget(name);
            }
            stays
        });
        for view in upstreams {
            let upstream = &view.upstream;
            if let Some(check) = &upstream.health_check
                && !running.contains_key(&upstream.name)
            {
                let checks = checks(&health, upstream.clone(), check.clone(), tls.clone());
                let task = Checks(tokio::spawn(checks).abort_handle());
                running.insert(upstream.name.clone(), (upstream.clone(), task));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A task that ends with this.
struct Checks(AbortHandle);

impl Drop for Checks {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A target and what its last checks said.
struct Target {
    url: String,
    address: Address,
    verdict: Arc<Verdict>,
    /// Checks in a row that spoke against the verdict.
    against: u8,
}

fn checks(
    health: &Health,
    upstream: Upstream,
    check: HealthCheck,
    tls: Option<Arc<Connector>>,
) -> impl Future<Output = ()> + use<> {
    let target = |url: &String| {
        let verdict = health.verdict(&upstream.name, url);
        Some(Target { address: Address::parse(url)?, verdict, url: url.clone(), against: 0 })
    };
    let mut targets: Vec<Target> = upstream.targets.iter().filter_map(|t| target(&t.url)).collect();
    async move {
        let interval = Duration::from_millis(check.interval_ms);
        let http2 = upstream.protocol == Some(Protocol::Http2);
        loop {
            let asked = targets.iter().map(|target| {
                let asking = ask(&target.address, &check.path, http2, tls.as_ref());
                async { tokio::time::timeout(interval.min(LONGEST_CHECK), asking).await.unwrap_or(false) }
            });
            let found = join_all(asked).await;
            for (target, healthy) in targets.iter_mut().zip(found) {
                judge(&upstream.name, target, healthy, check.threshold);
            }
            tokio::time::sleep(interval).await;
        }
    }
}

fn judge(upstream: &Name, target: &mut Target, healthy: bool, threshold: u8) {
    let was = target.verdict.is_healthy();
    if healthy == was {
        target.against = 0;
    } else {
        target.against = target.against.saturating_add(1);
        if target.against >= threshold {
            target.against = 0;
            target.verdict.unhealthy.store(!healthy, Ordering::Relaxed);
            if healthy {
                tracing::info!(%upstream, target = target.url, "target is healthy again");
            } else {
                tracing::warn!(%upstream, target = target.url, "target is not healthy: it gets no requests");
            }
        }
    }
    let now = if target.verdict.is_healthy() { 1.0 } else { 0.0 };
    gauge!(UPSTREAM_HEALTHY, "upstream" => upstream.to_string(), "target" => target.url.clone()).set(now);
}

/// Whether a target answers with a 2xx.
async fn ask(address: &Address, path: &str, http2: bool, tls: Option<&Arc<Connector>>) -> bool {
    let Ok(stream) = address.connect(tls, http2).await else { return false };
    let io = TokioIo::new(stream);
    let request = Request::get(if http2 { address.absolute(path) } else { path.to_owned() })
        .header(header::USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")));
    let status = if http2 {
        let Ok(request) = request.body(Empty::<Bytes>::new()) else { return false };
        let Ok((mut sender, connection)) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await else {
            return false;
        };
        let _connection = Checks(tokio::spawn(connection).abort_handle());
        sender.send_request(request).await.map(|response| response.status())
    } else {
        let request = request.header(header::HOST, address.authority.clone()).body(Empty::<Bytes>::new());
        let Ok(request) = request else { return false };
        let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(io).await else { return false };
        let _connection = Checks(tokio::spawn(connection).abort_handle());
        sender.send_request(request).await.map(|response| response.status())
    };
    status.is_ok_and(|status| status.is_success())
}
