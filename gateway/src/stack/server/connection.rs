//! One client's connection: HTTP/1.1, or HTTP/2 by ALPN or prior knowledge, served until it ends, is drained or is overdue.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::{Counter, Gauge};
use tokio::net::TcpStream;

use super::{
    addresses::Place,
    registry::{Order, Registry},
    watch::{MAX_HEAD_BYTES, Watch, Watched},
};
use crate::{
    stack::{BoxError, Client, Download, Ledger, Stack},
    telemetry::Telemetry,
    tls::{HTTP2, Listener, Stream},
};

/// Header fields of a request; hyper answers more with 431.
const MAX_HEADERS: usize = 100;
/// Bytes that an HTTP/1 connection buffers a direction: bounds what a slow reader holds.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// Requests at once on an HTTP/2 connection; further ones wait in the client.
const MAX_STREAMS: u32 = 128;
/// Bytes of bodies that an HTTP/2 client may send before they are taken, a stream and a connection.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2 pings: so often, answered in so long, else the connection is closed.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks at a preface of which only a part has come.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);

/// Serves a connection on a task of its own.
pub(super) fn spawn<L: Ledger>(
    stack: Arc<Stack<L, Incoming>>,
    stream: TcpStream,
    peer: SocketAddr,
    registry: &Arc<Registry>,
    counted: Counted,
) {
    let watch = Watch::new(registry.add(), counted);
    tokio::spawn(async move {
        let patience = stack.settings().timeouts.header_read;
        if stream.set_nodelay(true).is_err() {
            return;
        }
        // A connection that is dropped here is a client's that said nothing, or whose handshake failed.
        let tls = stack.settings().tls.clone();
        let secure = tls.is_some();
        let (stream, http2) = tokio::select! {
            begun = tokio::time::timeout(patience, begin(stream, tls)) => match begun {
                Ok(Ok(begun)) => begun,
                Ok(Err(_)) | Err(_) => return,
            },
            () = watch.member.told_to_end() => return,
        };
        let io = TokioIo::new(Watched::new(stream, watch.clone()));
        let heads_refused = stack.telemetry().heads_refused.clone();
        let service = {
            let (watch, client) = (watch.clone(), Client::new(peer.ip()).secure(secure));
            service_fn(move |request| serve(stack.clone(), watch.clone(), client.clone(), request))
        };
        if http2 {
            watch.is_http2();
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEAD_BYTES as u32)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_send_buf_size(MAX_BUFFER_BYTES)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_WITHIN)
                .serve_connection(io, service);
            drive(connection, &watch, &heads_refused, http2::Connection::graceful_shutdown).await;
        } else {
            let connection = http1::Builder::new()
                .max_header_size(MAX_HEAD_BYTES)
                .max_headers(MAX_HEADERS)
                .max_buf_size(MAX_BUFFER_BYTES)
                // The registry looks after slow heads.
                .header_read_timeout(None)
                .serve_connection(io, service)
                .with_upgrades();
            drive(connection, &watch, &heads_refused, http1::UpgradeableConnection::graceful_shutdown).await;
        }
    });
}

/// The connection as HTTP is spoken on it, and whether that is HTTP/2.
async fn begin(stream: TcpStream, tls: Option<Arc<Listener>>) -> std::io::Result<(Stream, bool)> {
    let Some(tls) = tls else {
        let http2 = speaks_http2(&stream).await?;
        return Ok((Stream::Plain(stream), http2));
    };
    // Boxed: the handshake's state is large, and connections without TLS share this task's size.
    let stream = Box::pin(tls.accept(stream)).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    Ok((Stream::Tls(Box::new(stream.into())), http2))
}

/// Whether the first bytes are an HTTP/2 preface; `PRI` begins no method (RFC 9113 §11.6). They stay where they are.
async fn speaks_http2(stream: &TcpStream) -> std::io::Result<bool> {
    const START: &[u8; 3] = b"PRI";
    let mut first = [0; START.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == 0 || first[..seen] != START[..seen] {
            return Ok(false);
        }
        if seen == START.len() {
            return Ok(true);
        }
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

/// Polls a connection to its end, or to the order to close it.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    watch: &Watch,
    heads_refused: &Counter,
    shut_down: fn(Pin<&mut C>),
) {
    let mut connection = pin!(connection);
    let (mut registered, mut draining) = (false, false);
    poll_fn(|cx| {
        if !registered {
            // A task's waker stays the same.
            watch.member.woken_by(cx.waker());
            registered = true;
        }
        let order = watch.member.ordered();
        // Its errors are the client's: it went away, or sent what is not HTTP and was told so, which no request counts.
        let end = |ended: hyper::Result<()>| {
            if ended.is_err_and(|error| error.is_parse()) {
                heads_refused.increment(1);
            }
        };
        if order == Order::Close {
            // One that only waits for its client's end is over: hyper says how.
            if watch.member.is_lingering() {
                let _ = connection.as_mut().poll(cx).map(end);
            }
            return Poll::Ready(());
        }
        let polled = connection.as_mut().poll(cx).map(end);
        // hyper closes a connection that is asked to end before its next head is complete, whatever it has read of it. So
        // first all is read that has come, and what has begun to come may come: the registry looks after slow heads.
        if polled.is_ready() || order != Order::Drain || draining || watch.member.is_reading() {
            return polled;
        }
        draining = true;
        shut_down(connection.as_mut());
        connection.as_mut().poll(cx).map(end)
    })
    .await;
}

async fn serve<L: Ledger>(
    stack: Arc<Stack<L, Incoming>>,
    watch: Arc<Watch>,
    client: Client,
    mut request: Request<Incoming>,
) -> Result<Response<Watching<Download<L, Incoming>>>, Infallible> {
    if request.headers().contains_key(header::TRANSFER_ENCODING) && watch.declares_length(request.method()) {
        // Put back what hyper took out, for the chain to refuse.
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    watch.request_begins(!request.body().is_end_stream());
    let in_flight = InFlight(watch);
    let mut response = stack.serve(client, request).await;
    in_flight.0.turn_away(&mut response);
    Ok(response.map(|body| Watching { body, _in_flight: in_flight }))
}

/// A request from its head to the end of its answer.
#[derive(Debug)]
struct InFlight(Arc<Watch>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_ends();
    }
}

/// An answer's body; the request is in flight until it is dropped.
#[derive(Debug)]
struct Watching<D> {
    body: D,
    _in_flight: InFlight,
}

impl<D: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Watching<D> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection, counted as long as its socket is open.
#[derive(Debug)]
pub(super) struct Counted {
    counts: [Arc<AtomicUsize>; 2],
    gauge: Gauge,
    /// Among those of its address, where they are bounded.
    _place: Option<Place>,
}

impl Counted {
    pub(super) fn new(counts: [Arc<AtomicUsize>; 2], place: Option<Place>, telemetry: &Telemetry) -> Self {
        for count in &counts {
            count.fetch_add(1, Ordering::Relaxed);
        }
        telemetry.connections.increment(1.0);
        Self { counts, gauge: telemetry.connections.clone(), _place: place }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for count in &self.counts {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        self.gauge.decrement(1.0);
    }
}
