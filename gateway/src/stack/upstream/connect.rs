//! A new connection to a target.

use std::{io, net::SocketAddr, sync::Arc};

use http::{HeaderValue, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::{
    stack::{Inbound, Upload},
    tls::{Connector, Stream},
};

/// Bytes that a connection to an upstream may buffer; a longer head of an answer breaks it.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

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

    /// Connects; names are looked up each time, and every address is tried in turn.
    pub(super) async fn connect(&self, tls: Option<&Arc<Connector>>) -> io::Result<Stream> {
        let stream = match self.host.parse() {
            Ok(ip) => TcpStream::connect(SocketAddr::new(ip, self.port)).await?,
            Err(_) => TcpStream::connect((self.host.as_str(), self.port)).await?,
        };
        stream.set_nodelay(true)?;
        let Some(name) = &self.secure else { return Ok(Stream::Plain(stream)) };
        let Some(tls) = tls else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no TLS to upstreams is set up"));
        };
        // Boxed: the handshake's state would be part of every request's future.
        let stream = Box::pin(tls.connect(name.clone(), stream)).await.inspect_err(|error| {
            tracing::warn!(upstream = ?self.authority, %error, "TLS with an upstream failed (upstream_ca says whom to trust)");
        })?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

/// HTTP/1.1 on a connected stream. A task of its own drives it until either end closes.
pub(super) async fn handshake<B: Inbound>(stream: Stream) -> hyper::Result<http1::SendRequest<Upload<B>>> {
    let (sender, connection) =
        http1::Builder::new().max_buf_size(MAX_BUFFER_BYTES).handshake(TokioIo::new(stream)).await?;
    // Its errors come out of the request that meets them.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(sender)
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
