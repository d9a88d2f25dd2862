//! The bytes of a peer connection: plain TCP, or mutual TLS where the node has been given certificates.
//!
//! Both ends show a certificate of the peers' authority. The caller also checks that the address it calls is one of the
//! certificate's names, so that a certificate that was stolen serves only where it was issued for. A connection keeps the
//! certificates it began with; new ones count for the next.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::platform::net::{OwnedReadHalf, OwnedWriteHalf, TcpStream};

/// A peer that does not finish its TLS handshake by then is hung up on.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Refused handshakes are told in the log at most so often; those in between are counted.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The certificates that peers show each other. They can be replaced while connections are open.
pub struct PeerTls {
    accept: ArcSwap<ServerConfig>,
    connect: ArcSwap<ClientConfig>,
    refused: AtomicU64,
    told: std::sync::Mutex<Option<(Instant, u64)>>,
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls").finish_non_exhaustive()
    }
}

impl PeerTls {
    /// How a node takes peers' connections and makes its own. `accept` must ask for client certificates.
    pub fn new(accept: Arc<ServerConfig>, connect: Arc<ClientConfig>) -> Self {
        Self {
            accept: ArcSwap::new(accept),
            connect: ArcSwap::new(connect),
            refused: AtomicU64::new(0),
            told: std::sync::Mutex::default(),
        }
    }

    /// What counts for connections from now on; open ones go on.
    pub fn replace(&self, accept: Arc<ServerConfig>, connect: Arc<ClientConfig>) {
        self.accept.store(accept);
        self.connect.store(connect);
    }

    /// Connections that were refused because their handshake failed, since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Tells of a refused peer. A stranger cannot fill the log with it.
    fn tell_refused(&self, from: SocketAddr, error: &io::Error) {
        let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = self.told.lock().expect("no holder of this lock panics");
        let since = match *told {
            Some((at, _)) if at.elapsed() < TELL_EVERY => return,
            Some((_, before)) => count - before,
            None => count,
        };
        *told = Some((Instant::now(), count));
        tracing::warn!(
            %from, %error, refused = since,
            "refused a peer: its TLS handshake failed; both nodes need a certificate of the same authority (peer_tls_cert, \
             peer_tls_key, peer_tls_ca)"
        );
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to `host:port`.
pub(super) async fn connect(addr: &str, tls: Option<&PeerTls>) -> io::Result<Stream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Stream::Plain(stream)) };
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no name for TLS: {error}"))
    })?;
    let connector = TlsConnector::from(tls.connect.load_full());
    let stream = connector.connect(name, stream).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!(
                "TLS: {error} (peer_tls_ca says whom to trust, and {host} must be a name of \
                                              the peer's certificate)"
            ),
        )
    })?;
    Ok(Stream::Tls(Box::new(stream.into())))
}

/// Greets a peer that has connected.
pub(super) async fn accept(stream: TcpStream, from: SocketAddr, tls: Option<&PeerTls>) -> io::Result<Stream> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Stream::Plain(stream)) };
    let acceptor = TlsAcceptor::from(tls.accept.load_full());
    let shaken = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await;
    match shaken.unwrap_or_else(|late| Err(late.into())) {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream.into()))),
        Err(error) => {
            tls.tell_refused(from, &error);
            Err(error)
        }
    }
}

impl Stream {
    /// The two directions, each to be owned by a task.
    pub(super) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Plain(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Self::Tls(stream) => {
                let (read, write) = tokio::io::split(*stream);
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
        }
    }
}

/// What is read.
#[derive(Debug)]
pub(super) enum ReadHalf {
    Plain(OwnedReadHalf),
    Tls(tokio::io::ReadHalf<TlsStream<TcpStream>>),
}

/// What is written. TLS keeps what does not fill a record until it is flushed: whoever writes must flush.
#[derive(Debug)]
pub(super) enum WriteHalf {
    Plain(OwnedWriteHalf),
    Tls(tokio::io::WriteHalf<TlsStream<TcpStream>>),
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Self::Tls($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
        }
    };
}

macro_rules! reads {
    ($($type:ty),+) => {$(
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                either!(self, stream => stream.poll_read(cx, buf))
            }
        }
    )+};
}

macro_rules! writes {
    ($($type:ty),+) => {$(
        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                either!(self, stream => stream.poll_write(cx, buf))
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!(self, stream => stream.poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!(self, stream => stream.poll_shutdown(cx))
            }
        }
    )+};
}

reads!(Stream, ReadHalf);
writes!(Stream, WriteHalf);
