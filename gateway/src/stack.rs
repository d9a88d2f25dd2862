//! The data plane's outside, until it lands.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderName;
use store::{Store, model::Name};

/// How the data plane listens and serves.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "replaced by the data plane's own")]
pub struct Settings {
    pub listen: SocketAddr,
    pub cores: usize,
    pub node: Name,
    pub region: Name,
    pub max_connections: usize,
    pub key_headers: Vec<HeaderName>,
    pub compat_headers: CompatHeaders,
    pub max_body_bytes: u64,
    pub timeouts: Timeouts,
}

/// See the data plane.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompatHeaders;

impl CompatHeaders {
    /// See the data plane.
    ///
    /// # Errors
    /// The first text that is neither.
    pub fn parse<'a>(_texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        Ok(Self)
    }
}

/// See the data plane.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "replaced by the data plane's own")]
pub struct Timeouts {
    pub header_read: Duration,
    pub keep_alive: Duration,
    pub body_read: Duration,
    pub write_stall: Duration,
    pub upstream_first_byte: Duration,
    pub recheck: Duration,
}

/// See the data plane.
#[derive(Debug)]
pub struct Server;

/// See the data plane.
#[derive(Debug)]
pub struct Handle(SocketAddr);

impl Server {
    /// See the data plane.
    ///
    /// # Errors
    /// Cannot listen.
    pub async fn start(settings: Settings, _store: Arc<Store>) -> std::io::Result<Handle> {
        Ok(Handle(settings.listen))
    }
}

impl Handle {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.0
    }

    /// Refuses new requests and waits for those in flight.
    pub async fn drain(self, _grace: Duration) {}
}
