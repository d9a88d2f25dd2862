//! A node: the only place where the rooms meet.
//!
//! The store's tasks and the admin listener live on the multi-thread runtime that [`Node::start`] is called from; the data
//! plane brings its own threads.

mod admin_server;
mod certificates;
mod collector;
mod data_plane;
mod listen;
mod logging;
mod serve;

use std::{io::Write, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use store::{
    Readiness, Store,
    model::{NodeInfo, Secret},
};
use tokio::{sync::Notify, task::AbortHandle};

pub use logging::{log_to_stderr, metrics};
pub use serve::{serve, stop_signal};

use crate::{
    admin::{Admin, LogLevel, Prometheus},
    config::{self, Settings},
    operator::{
        Bootstrap, Operator,
        sign_in::{Grant, Provider, SignIn},
    },
    otlp::Exporter,
    stack,
};

/// How often a node that waits looks whether it is ready.
const READINESS_POLL: Duration = Duration::from_millis(50);
/// Connections of operators, dashboards and scrapers at once; one more is told 503.
const ADMIN_CONNECTIONS: usize = 1_024;
/// An admin connection without a whole request's head for so long is closed. Longer than clients keep one for reuse.
const ADMIN_REST: Duration = Duration::from_secs(30);
/// How long admin requests may go on after the data plane is drained.
const ADMIN_GRACE: Duration = Duration::from_secs(5);

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Its addresses, with the ports that the kernel chose where the settings say 0.
    pub info: NodeInfo,
    /// Its store.
    pub store: Store,
    admin: Arc<Admin>,
    admin_server: admin_server::Server,
    data_plane: stack::Handle,
    exporter: Option<Exporter>,
    reload: Arc<Notify>,
    watch: AbortHandle,
}

impl Node {
    /// Opens the data directory and listens. The node is not ready yet when this returns: see [`Node::ready`].
    ///
    /// # Errors
    /// A listener's address is taken, or the data directory cannot be used; nothing listens any more then.
    pub async fn start(
        settings: &Settings,
        bootstrap: Bootstrap,
        prometheus: Prometheus,
        log_level: LogLevel,
    ) -> anyhow::Result<Self> {
        // Bound before the store is opened: a port in use is told before anything is touched.
        let admin_listener = listen::bind("admin_addr", settings.admin_addr)?;
        let admin_addr = admin_listener.local_addr().context("read the admin listener's address")?;
        let data_addr = listen::probe("data_addr", settings.data_addr)?;
        let peer_addr = listen::probe("peer_addr", settings.peer_addr)?;
        let tls = certificates::read(settings)?;
        let peers_see =
            if settings.peer_addr.port() == 0 { peer_addr.to_string() } else { settings.peer_advertise.clone() };
        let info = NodeInfo {
            name: settings.node_name.as_str().into(),
            admin_addr: reachable(admin_addr, &peers_see),
            data_addr: reachable(data_addr, &peers_see),
            peer_addr: peers_see,
            region: settings.region.as_str().into(),
        };
        let sign_in = sign_in(settings)?;
        let operator = Operator::new(&bootstrap);
        let store = Store::open(store::Settings {
            data_dir: settings.data_dir.clone(),
            node: info.clone(),
            peer_listen: peer_addr,
            peer_tls: tls.peer,
            join: settings.join.0.clone(),
            voters: settings.voters.into(),
            ledger_groups: settings.ledger_groups.into(),
            commit_deadline: Duration::from_millis(settings.commit_deadline_ms),
            max_waiting_rows: settings.max_waiting_rows,
            log_retention_days: settings.log_retention_days,
            first_token: Some(bootstrap.first_token(show)),
        })
        .await
        .with_context(|| format!("open data_dir {}", settings.data_dir.display()))?;
        let started = collector::start(settings, &prometheus, &store).and_then(|collector| {
            let (tracer, exporter) = collector.unzip();
            let data_plane = data_plane::start(settings, data_addr, tls.data, tls.upstream, tracer, store.clone())?;
            Ok((data_plane, exporter))
        });
        let (data_plane, exporter) = match started {
            Ok(started) => started,
            Err(error) => {
                store.shutdown().await;
                return Err(error);
            }
        };
        let admin =
            Admin::new(store.clone(), operator.with_sign_in(sign_in), prometheus, tls.watch.certificates(), log_level);
        let router = admin.clone().router(settings.admin_body_bytes);
        let admin_server = admin_server::Server::start(
            admin_listener,
            tls.admin,
            router,
            admin_server::Bounds {
                connections: ADMIN_CONNECTIONS,
                head: ADMIN_REST,
                body: Duration::from_millis(settings.body_timeout_ms),
            },
        )?;
        tracing::info!(node = %info.name, data = %info.data_addr, admin = %info.admin_addr, peers = %info.peer_addr, "listening");
        let reload = tls.watch.asked();
        let watch = tokio::spawn(tls.watch.run(Duration::from_millis(settings.tls_reload_ms))).abort_handle();
        Ok(Self { info, store, admin, admin_server, data_plane, exporter, reload, watch })
    }

    /// Reads the files of certificates anew, also those that seem not to have changed.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Waits until the node serves; logs each new reason why it does not yet.
    pub async fn ready(&self) {
        let mut last = String::new();
        loop {
            match self.store.readiness() {
                Readiness::Ready => return,
                Readiness::NotReady(reason) => {
                    if reason != last {
                        tracing::info!(%reason, "waiting");
                        last = reason;
                    }
                }
            }
            tokio::time::sleep(READINESS_POLL).await;
        }
    }

    /// Goes on to serve for `delay`, while `/readyz` says 503 and other nodes lead: what routes clients here (a load
    /// balancer, a Service) finds out before the listeners close, and connections that clients keep end between two requests. Ends early when the store fails.
    pub async fn step_back(&self, delay: Duration) {
        if delay.is_zero() {
            return;
        }
        self.admin.drain();
        tracing::info!(delay_seconds = delay.as_secs(), "not ready any more, serving on");
        self.store.drain().await;
        self.data_plane.leave(delay);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = self.store.failed() => {}
        }
    }

    /// Ends the node: `/readyz` says 503, leadership goes to another node, what is in flight finishes within `grace`.
    pub async fn drain(self, grace: Duration) {
        self.admin.drain();
        tracing::info!(grace_seconds = grace.as_secs(), "draining");
        self.store.drain().await;
        let data_plane = self.data_plane;
        let exporter = self.exporter;
        let drained = move || {
            data_plane.drain(grace);
            // The last requests' spans, and the last numbers.
            exporter.map(Exporter::stop)
        };
        let _ = tokio::task::spawn_blocking(drained).await;
        self.admin_server.stop(ADMIN_GRACE).await;
        self.watch.abort();
        self.store.shutdown().await;
        tracing::info!("stopped");
    }

    /// Ends a node whose store has failed: what is in flight gets its answer within `grace`, and nothing is written any more.
    pub async fn abandon(self, grace: Duration) {
        self.admin.drain();
        let data_plane = self.data_plane;
        let _ = tokio::task::spawn_blocking(move || data_plane.drain(grace)).await;
    }
}

/// Where others find a listener of this node: at its own address, or, when it listens on all that the machine has, at the host
/// by which peers know the node.
fn reachable(listener: SocketAddr, peers_see: &str) -> String {
    match peers_see.rsplit_once(':') {
        Some((host, _)) if listener.ip().is_unspecified() => format!("{host}:{}", listener.port()),
        _ => listener.to_string(),
    }
}

/// The one time that a minted token is shown; on stderr, beside the log and never in it.
fn show(token: &Secret) {
    let text = format!(
        "\nThis cluster is new. Its first admin token, shown this once and kept nowhere:\n\n    {}\n\n\
         Use it as TOLLGATE_ADMIN_TOKEN, or make others with `tollgate token create`.\n\n",
        token.expose()
    );
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// How people sign in, if there is a provider.
fn sign_in(settings: &Settings) -> anyhow::Result<Option<SignIn>> {
    if settings.oidc_issuer.is_empty() {
        return Ok(None);
    }
    let roles = config::oidc_roles(&settings.oidc_roles).map_err(anyhow::Error::msg)?;
    let provider = Provider {
        issuer: settings.oidc_issuer.clone(),
        client_id: settings.oidc_client_id.clone(),
        client_secret_file: settings.oidc_client_secret_file.clone(),
        redirect_url: settings.oidc_redirect_url.clone(),
        scopes: settings.oidc_scopes.0.clone(),
        groups_claim: settings.oidc_groups_claim.clone(),
        roles: roles.into_iter().map(|(group, role, accounts)| Grant { group, role, accounts }).collect(),
        ca_file: settings.oidc_ca.clone(),
        session: Duration::from_secs(60 * settings.oidc_session_minutes),
        visits_per_minute: settings.oidc_visits_per_minute,
    };
    SignIn::new(provider).map(Some).map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests;
