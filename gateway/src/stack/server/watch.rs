//! A client's socket as hyper reads it: heads are kept for a second look, progress is told to the registry.
//!
//! hyper serves a request that has both `Content-Length` and `Transfer-Encoding` by the latter and drops the former, so the
//! chain cannot see that there were two framings (RFC 9112 §6.1 allows it; smuggling feeds on it). The bytes of the head
//! tell.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Method, Response, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    connection::Counted,
    registry::{Member, Order},
};
use crate::{error::SWITCHING_PROTOCOLS, tls::Stream};

/// Longest head, bytes: hyper answers a longer one with 431.
pub(super) const MAX_HEAD_BYTES: usize = 32 * 1024;
/// What is read of a client that still sends after its connection's end, bytes.
const MAX_LATE_BYTES: usize = 4 * 1024 * 1024;
/// Reads of it before others have their turn.
const LATE_READS: usize = 16;

/// What a connection's socket and its requests share.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) member: Member,
    head: Mutex<Head>,
    /// No HTTP connection any more.
    upgraded: AtomicBool,
    _counted: Counted,
}

/// Bytes read since the last request's end.
#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
    /// In the middle of a body, or in HTTP/2: nothing is kept.
    paused: bool,
    http2: bool,
}

impl Watch {
    pub(super) fn new(member: Member, counted: Counted) -> Arc<Self> {
        Arc::new(Self { member, head: Mutex::default(), upgraded: AtomicBool::new(false), _counted: counted })
    }

    /// The connection speaks HTTP/2, whose framing cannot be ambiguous.
    pub(super) fn is_http2(&self) {
        self.member.is_http2();
        let mut head = self.head();
        (head.http2, head.paused) = (true, true);
    }

    /// The client shall send its next request elsewhere. An upgraded connection is no HTTP connection any more.
    pub(super) fn turn_away<B>(&self, response: &mut Response<B>) {
        if response.status() == SWITCHING_PROTOCOLS {
            self.upgraded.store(true, Ordering::Release);
            return;
        }
        if !self.member.is_leaving() {
            return;
        }
        if self.head().http2 {
            // A GOAWAY; `Connection` has no place there.
            self.member.leave();
        } else {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Whether the head that was just read declares a length; asked only for a request that is chunked.
    ///
    /// A client that pipelines can hide it among the bytes before: then the request is served by its chunks, and the
    /// connection closed (RFC 9112 §6.1).
    pub(super) fn declares_length(&self, method: &Method) -> bool {
        let head = self.head();
        let bytes = head.bytes.trim_ascii_start();
        if !bytes.starts_with(method.as_str().as_bytes()) {
            return false;
        }
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(bytes.len());
        bytes[..end].split(|byte| *byte == b'\n').any(|line| {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(b"content-length")
        })
    }

    /// A request's head was read. Its body, if it has one, is not kept.
    pub(super) fn request_begins(&self, has_body: bool) {
        self.member.request_begins();
        let mut head = self.head();
        head.bytes.clear();
        head.paused |= has_body;
    }

    /// A request ended: what comes now is the next one's head.
    pub(super) fn request_ends(&self) {
        let mut head = self.head();
        head.paused = head.http2;
        drop(head);
        self.member.request_ends();
    }

    fn has_read(&self, bytes: &[u8]) {
        let mut head = self.head();
        if head.http2 {
            return;
        }
        self.member.has_read();
        if !head.paused {
            let room = MAX_HEAD_BYTES.saturating_sub(head.bytes.len());
            head.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Stream,
    watch: Arc<Watch>,
    /// Bytes that came after our end was sent.
    late: Option<usize>,
}

impl Watched {
    pub(super) fn new(stream: Stream, watch: Arc<Watch>) -> Self {
        Self { stream, watch, late: None }
    }

    fn wrote<T>(&self, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.watch.member.write_is_stalled(wrote.is_pending());
        wrote
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = &buf.filled()[before..];
        if !bytes.is_empty() {
            self.watch.has_read(bytes);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Sends our end, and then waits a moment for the client's: a socket that is closed while the client still sends is answered
    /// by a reset, which can overtake the last answer and destroy it (RFC 9112 §9.6). The registry ends the wait.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut late = match this.late {
            Some(late) => late,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                if this.watch.upgraded.load(Ordering::Acquire) {
                    // A tunnel whose other direction goes on.
                    return Poll::Ready(Ok(()));
                }
                this.watch.member.lingers();
                0
            }
        };
        if this.watch.member.ordered() == Order::Close {
            return Poll::Ready(Ok(()));
        }
        let mut dropped = [0; 4096];
        for _ in 0..LATE_READS {
            let mut buf = ReadBuf::new(&mut dropped);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && late < MAX_LATE_BYTES => late += buf.filled().len(),
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    this.late = Some(late);
                    return Poll::Pending;
                }
            }
        }
        this.late = Some(late);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
