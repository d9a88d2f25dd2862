//! Connections that are the kernel's outside a simulation and turmoil's inside.
//!
//! turmoil loses what is sent over a cut link and never sends it again, as TCP would; so when a link heals, its connections
//! are broken ([`break_connections`]), as a kernel's keep-alive or a reset does it.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::platform;

/// One end of a simulated connection.
#[derive(Debug)]
pub(crate) struct End {
    local: IpAddr,
    remote: IpAddr,
    broken: AtomicBool,
    reader: AtomicWaker,
}

impl End {
    fn check(&self) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

thread_local! {
    static ENDS: RefCell<Vec<Weak<End>>> = const { RefCell::new(Vec::new()) };
}

/// Resets all connections between two addresses.
pub fn break_connections(a: IpAddr, b: IpAddr) {
    ENDS.with_borrow_mut(|ends| {
        ends.retain(|end| {
            let Some(end) = end.upgrade() else { return false };
            let hit = (end.local, end.remote) == (a, b) || (end.local, end.remote) == (b, a);
            if hit {
                end.broken.store(true, Ordering::Relaxed);
                end.reader.wake();
            }
            !hit
        });
    });
}

#[derive(Debug)]
pub(crate) enum TcpStream {
    Real(tokio::net::TcpStream),
    Simulated(turmoil::net::TcpStream, Arc<End>),
}

#[derive(Debug)]
pub(crate) enum OwnedReadHalf {
    Real(tokio::net::tcp::OwnedReadHalf),
    Simulated(turmoil::net::tcp::OwnedReadHalf, Arc<End>),
}

#[derive(Debug)]
pub(crate) enum OwnedWriteHalf {
    Real(tokio::net::tcp::OwnedWriteHalf),
    Simulated(turmoil::net::tcp::OwnedWriteHalf, Arc<End>),
}

pub(crate) enum TcpListener {
    Real(tokio::net::TcpListener),
    Simulated(turmoil::net::TcpListener),
}

impl TcpStream {
    pub(crate) async fn connect(addr: &str) -> io::Result<Self> {
        if platform::simulated() {
            return Self::simulated(turmoil::net::TcpStream::connect(addr).await?);
        }
        tokio::net::TcpStream::connect(addr).await.map(Self::Real)
    }

    fn simulated(stream: turmoil::net::TcpStream) -> io::Result<Self> {
        let (local, remote) = (stream.local_addr()?.ip(), stream.peer_addr()?.ip());
        let end = Arc::new(End { local, remote, broken: AtomicBool::new(false), reader: AtomicWaker::new() });
        ENDS.with_borrow_mut(|ends| ends.push(Arc::downgrade(&end)));
        Ok(Self::Simulated(stream, end))
    }

    pub(crate) fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match self {
            Self::Real(stream) => stream.set_nodelay(nodelay),
            Self::Simulated(..) => Ok(()),
        }
    }

    pub(crate) fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        match self {
            Self::Real(stream) => {
                let (reader, writer) = stream.into_split();
                (OwnedReadHalf::Real(reader), OwnedWriteHalf::Real(writer))
            }
            Self::Simulated(stream, end) => {
                let (reader, writer) = stream.into_split();
                (OwnedReadHalf::Simulated(reader, Arc::clone(&end)), OwnedWriteHalf::Simulated(writer, end))
            }
        }
    }
}

impl TcpListener {
    pub(crate) async fn bind(addr: SocketAddr) -> io::Result<Self> {
        if platform::simulated() {
            return turmoil::net::TcpListener::bind(addr).await.map(Self::Simulated);
        }
        tokio::net::TcpListener::bind(addr).await.map(Self::Real)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Real(listener) => listener.local_addr(),
            Self::Simulated(listener) => listener.local_addr(),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Real(listener) => listener.accept().await.map(|(stream, from)| (TcpStream::Real(stream), from)),
            Self::Simulated(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((TcpStream::simulated(stream)?, from))
            }
        }
    }
}

macro_rules! reads {
    ($type:ty) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Real(stream) => Pin::new(stream).poll_read(context, buffer),
                    Self::Simulated(stream, end) => {
                        end.reader.register(context.waker());
                        end.check()?;
                        Pin::new(stream).poll_read(context, buffer)
                    }
                }
            }
        }
    };
}

macro_rules! writes {
    ($type:ty) => {
        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Real(stream) => Pin::new(stream).poll_write(context, bytes),
                    Self::Simulated(stream, end) => {
                        end.check()?;
                        Pin::new(stream).poll_write(context, bytes)
                    }
                }
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Real(stream) => Pin::new(stream).poll_flush(context),
                    Self::Simulated(stream, _) => Pin::new(stream).poll_flush(context),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Real(stream) => Pin::new(stream).poll_shutdown(context),
                    Self::Simulated(stream, _) => Pin::new(stream).poll_shutdown(context),
                }
            }
        }
    };
}

reads!(TcpStream);
reads!(OwnedReadHalf);
writes!(TcpStream);
writes!(OwnedWriteHalf);
