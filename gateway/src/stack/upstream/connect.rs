//! A new connection to a target.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, Uri};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use super::sender::Sender;
use crate::{
    stack::{Inbound, alive},
    tls::{Connector, Stream},
};

/// Bytes that a connection to an upstream may buffer; a longer head of an answer breaks it.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of answers that an HTTP/2 upstream may send before they are taken, a stream and a connection.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// HTTP/2 pings: so often, answered in so long, else the connection is closed.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(20);

/// Where a target is.
#[derive(Debug, Clone)]
pub(super) struct Address {
    host: String,
    port: u16,
    /// The name that its certificate must have; none for plain connections.
    secure: Option<ServerName<'static>>,
    /// As the upstream knows itself: its `Host`.
    pub(super) authority: HeaderValue,
}

impl Address {
    /// From `http://host:port` or `https://host:port`; the admin API has checked it, an odd one is no target.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let (authority, secure) = (uri.authority()?, uri.scheme_str() == Some("https"));
        if !secure && uri.scheme_str() != Some("http") {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let secure = if secure { Some(ServerName::try_from(host.clone()).ok()?) } else { None };
        let named = authority.as_str().rsplit('@').next()?;
        Some(Self { host, port, secure, authority: HeaderValue::from_str(named).ok()? })
    }

    /// A name, that may be another address tomorrow.
    pub(super) fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }

    /// A path of it as a whole URI.
    pub(super) fn absolute(&self, path: &str) -> String {
        let scheme = if self.secure.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.authority.to_str().unwrap_or_default())
    }

    /// Connects; names are looked up each time, and every address is tried in turn.
    pub(super) async fn connect(&self, tls: Option<&Arc<Connector>>, http2: bool) -> io::Result<Stream> {
        let stream = match self.host.parse() {
            Ok(ip) => TcpStream::connect(SocketAddr::new(ip, self.port)).await?,
            Err(_) => TcpStream::connect((self.host.as_str(), self.port)).await?,
        };
        stream.set_nodelay(true)?;
        alive::ends_when_gone(&(&stream).into())?;
        let Some(name) = &self.secure else { return Ok(Stream::Plain(stream)) };
        let Some(tls) = tls else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no TLS to upstreams is set up"));
        };
        // Boxed: the handshake's state would be part of every request's future.
        let stream = Box::pin(tls.connect(name.clone(), stream, http2)).await.inspect_err(|error| {
            tracing::warn!(upstream = ?self.authority, %error, "TLS with an upstream failed (upstream_ca says whom to trust)");
        })?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

/// HTTP on a connected stream. A task of its own drives it until either end closes.
pub(super) async fn handshake<B: Inbound>(stream: Stream, http2: bool) -> hyper::Result<Sender<B>> {
    if http2 {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(MAX_BUFFER_BYTES)
            .max_header_list_size(MAX_BUFFER_BYTES as u32)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move { drop(connection.await) });
        return Ok(Sender::Http2(sender));
    }
    let (sender, connection) =
        http1::Builder::new().max_buf_size(MAX_BUFFER_BYTES).handshake(TokioIo::new(stream)).await?;
    // Its errors come out of the request that meets them.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(Sender::Http1(sender))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_targets() {
        let address = Address::parse("http://scan.internal:9000").expect("a target");
        assert_eq!((address.host.as_str(), address.port), ("scan.internal", 9000));
        assert_eq!(address.authority, "scan.internal:9000");
        let address = Address::parse("http://[::1]/").expect("a target");
        assert_eq!((address.host.as_str(), address.port), ("::1", 80));
        assert!(address.secure.is_none());
        let address = Address::parse("https://scan.internal").expect("a target");
        assert_eq!((address.port, address.secure.is_some()), (443, true));
        assert!(Address::parse("ftp://scan.internal").is_none());
        assert!(Address::parse("scan.internal:80").is_none());
    }
}
