//! Settings of the data plane, with their defaults.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderName, header};
use ipnet::IpNet;
use store::model::Name;

use super::upstream::Health;
use crate::{
    otlp::Tracer,
    tls::{Connector, Listener},
};

/// Largest request body where neither route nor tier says, bytes.
const DEFAULT_MAX_BODY_BYTES: u64 = 1 << 30;
/// Client connections a node; one more is told 503 and closed.
const DEFAULT_MAX_CONNECTIONS: usize = 16_384;

/// How the data plane listens and serves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Threads, each with its own runtime, listener and upstream connections.
    pub cores: usize,
    /// This node's name in the rows.
    pub node: Name,
    /// Its region; empty for none.
    pub region: Name,
    /// Client connections at once.
    pub max_connections: usize,
    /// Of them those that one address may have (IPv6: a /64), trusted proxies left out; no bound for 0.
    pub max_connections_per_address: usize,
    /// Headers that may carry the key, the first present decides. `authorization` as `Bearer <key>`, others bare.
    pub key_headers: Vec<HeaderName>,
    /// Which compatibility headers to send.
    pub compat_headers: CompatHeaders,
    /// Networks of proxies in front: what they say of whom they serve is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Largest request body where neither route nor tier says.
    pub max_body_bytes: u64,
    /// TLS towards API clients; none for plain connections.
    pub tls: Option<Arc<Listener>>,
    /// TLS towards upstreams whose targets are `https://`; without it they cannot be called.
    pub upstream_tls: Option<Arc<Connector>>,
    /// Where the spans of requests go; none for no traces.
    pub tracer: Option<Arc<Tracer>>,
    /// What the health checks of upstreams say; all cores go by it.
    pub(crate) health: Arc<Health>,
    /// How long to wait for whom.
    pub timeouts: Timeouts,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            node: Name::from("node"),
            region: Name::default(),
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_connections_per_address: 0,
            key_headers: vec![HeaderName::from_static("x-api-key"), header::AUTHORIZATION],
            compat_headers: CompatHeaders::default(),
            trusted_proxies: Vec::new(),
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            tls: None,
            upstream_tls: None,
            tracer: None,
            health: Arc::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// Headers that the scan APIs behind the gateway have always sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompatHeaders {
    /// `X-Rate-Limit-Remaining`.
    pub rate_limit: bool,
    /// `X-Quota-Remaining` and `X-Quota-Period-End`.
    pub quota: bool,
}

impl CompatHeaders {
    /// From the setting's texts, `x-rate-limit` and `x-quota`.
    ///
    /// # Errors
    /// The first text that is neither.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut set = Self::default();
        for text in texts {
            match text {
                "x-rate-limit" => set.rate_limit = true,
                "x-quota" => set.quota = true,
                other => {
                    return Err(format!("{other:?} is not a set of headers: expected \"x-rate-limit\" or \"x-quota\""));
                }
            }
        }
        Ok(set)
    }
}

/// Timeouts, each of one phase.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// A request's head, from its first byte; then the connection is closed. Kept to the second.
    pub header_read: Duration,
    /// Between two requests of a connection. Kept to the second.
    pub keep_alive: Duration,
    /// Silence in the middle of a request's body: 408.
    pub body_read: Duration,
    /// A client that takes nothing of its answer; then the connection is closed. Kept to the second.
    pub write_stall: Duration,
    /// From the upstream call to the first byte of its answer, where the route does not say: 504.
    pub upstream_first_byte: Duration,
    /// How often a request that takes long looks whether its key still works (P3) and its unit of concurrency is still
    /// its own: the ledger's lease time.
    pub recheck: Duration,
    /// When the server has stopped listening, how long a client that is connected may take to send what it was about to.
    pub last_requests: Duration,
    /// When a connection's end was sent, how long its client may go on to send before the socket is closed. Kept to the second.
    pub linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header_read: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body_read: Duration::from_secs(30),
            write_stall: Duration::from_secs(60),
            upstream_first_byte: Duration::from_secs(30),
            recheck: Duration::from_millis(500),
            last_requests: Duration::from_secs(2),
            linger: Duration::from_secs(1),
        }
    }
}
