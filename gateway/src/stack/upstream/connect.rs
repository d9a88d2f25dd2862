//! A new connection to a target.

use std::{io, net::SocketAddr};

use http::{HeaderValue, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::stack::{Inbound, Upload};

/// Bytes that a connection to an upstream may buffer; a longer head of an answer breaks it.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// Where a target is.
#[derive(Debug, Clone)]
pub(super) struct Address {
    host: String,
    port: u16,
    /// As the upstream knows itself: its `Host`.
    pub(super) authority: HeaderValue,
}

impl Address {
    /// From `http://host:port`; the admin API has checked it, an odd one is no target.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let named = authority.as_str().rsplit('@').next()?;
        Some(Self {
            host,
            port: authority.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(named).ok()?,
        })
    }

    /// Connects; names are looked up each time, and every address is tried in turn.
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let stream = match self.host.parse() {
            Ok(ip) => TcpStream::connect(SocketAddr::new(ip, self.port)).await?,
            Err(_) => TcpStream::connect((self.host.as_str(), self.port)).await?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// HTTP/1.1 on a connected stream. A task of its own drives it until either end closes.
pub(super) async fn handshake<B: Inbound>(stream: TcpStream) -> hyper::Result<http1::SendRequest<Upload<B>>> {
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
        assert!(Address::parse("https://scan.internal").is_none());
        assert!(Address::parse("scan.internal:80").is_none());
    }
}
