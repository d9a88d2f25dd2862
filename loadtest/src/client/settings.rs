//! What all clients of a run have in common.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;

use super::{Behaviours, Retry};
use crate::secure::Tls;

/// Where requests go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// host:port, as given.
    pub(crate) authority: String,
    /// Looked up once, before the start.
    pub(crate) addr: SocketAddr,
    /// The `Host` header.
    pub(crate) host: HeaderValue,
    /// The name that its certificate must have, over TLS.
    pub(crate) secure: Option<ServerName<'static>>,
}

impl Target {
    /// From `http://host:port/…` or `https://…`; what follows the port is not the target's.
    pub(crate) fn new(uri: &Uri) -> Result<Self> {
        let is_secure = match uri.scheme_str() {
            Some("http") | None => false,
            Some("https") => true,
            Some(scheme) => bail!("{uri}: {scheme} is not spoken here; give http://host:port or https://host:port"),
        };
        let authority = uri.authority().with_context(|| format!("{uri}: expected http://host:port/path"))?;
        // A port that is none must not become the usual one: the load would meet somebody else.
        let text = authority.as_str();
        let host_and_port = text.rsplit_once('@').map_or(text, |(_, after)| after);
        let has_port = host_and_port.len() > authority.host().len();
        let port = match authority.port_u16() {
            Some(0) | None if has_port => bail!("{uri}: expected a port from 1 to 65535"),
            port => port.unwrap_or(if is_secure { 443 } else { 80 }),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let found = std::net::ToSocketAddrs::to_socket_addrs(&(host, port));
        let addr = found.with_context(|| format!("look up {host}"))?.next();
        let name = || ServerName::try_from(host.to_owned()).with_context(|| format!("{host} is no name for TLS"));
        Ok(Self {
            secure: is_secure.then(name).transpose()?,
            authority: authority.as_str().to_owned(),
            addr: addr.with_context(|| format!("{host} has no address"))?,
            host: HeaderValue::from_str(authority.as_str()).context("make the host header")?,
        })
    }
}

/// Settings of the clients.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// In turn.
    pub(crate) targets: Vec<Target>,
    /// TLS, where a target has it.
    pub(crate) tls: Option<Tls>,
    /// HTTP/2, by ALPN or by prior knowledge; HTTP/1.1 without.
    pub(crate) http2: bool,
    /// Longest time from a send to the end of its answer.
    pub(crate) timeout: Duration,
    /// A request that the generator gets to later than this is counted as unsent.
    pub(crate) send_within: Duration,
    /// Requests waiting for their answers, all threads together; a further one is counted as unsent.
    pub(crate) max_in_flight: usize,
    /// Connections, all threads together; a request that finds all of them busy waits for one, and the wait is part of its
    /// corrected latency. Without a bound a send never waits.
    pub(crate) connections: Option<usize>,
    /// Threads of clients.
    pub(crate) threads: usize,
    /// A target that refuses connections is left out for so long while there are others, as a load balancer does.
    pub(crate) eject: Duration,
    /// How clients behave.
    pub(crate) behaviours: Behaviours,
    /// What they do with a refusal.
    pub(crate) retry: Retry,
    /// Seed of all chance.
    pub(crate) seed: u64,
    /// Names this run in the requests' ids.
    pub(crate) run: u32,
    /// The generator sleeps so long before every 64th send: only for the self-test of the verdict INVALID.
    pub(crate) handicap: Duration,
}

impl Settings {
    /// Whether they fit together.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.targets.is_empty(), "no target: give http://host:port");
        ensure!(self.max_in_flight > 0, "--max-in-flight must be at least 1");
        ensure!(!self.timeout.is_zero(), "--timeout must be longer than 0");
        Ok(())
    }
}
