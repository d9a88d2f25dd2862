//! The admin listener: hyper with bounds of its own, in front of the API's router.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{Router, body::Body, extract::ConnectInfo};
use futures_util::{StreamExt, stream};
use http::Request;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinHandle, JoinSet},
};
use tower::ServiceExt;

use crate::{
    error::TOO_MANY_CONNECTIONS,
    tls::{Listener, Stream},
};

/// Bounds of the admin listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at once; one more is told 503 and closed.
    pub(super) connections: usize,
    /// A connection that has sent no whole head for so long is closed; also one that rests between two requests.
    pub(super) head: Duration,
    /// Silence in a request's body after which it counts as broken off.
    pub(super) body: Duration,
}

/// Longest head, bytes, and most fields of it; hyper answers 431 to more.
const MAX_HEAD_BYTES: usize = 32 * 1024;
const MAX_HEAD_FIELDS: usize = 100;
/// Pause after `accept` failed for want of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(50);

/// A running admin listener.
#[derive(Debug)]
pub(super) struct Server {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `router` on a bound listener, over TLS where it is given.
    pub(super) fn start(
        listener: TcpListener,
        tls: Option<Arc<Listener>>,
        router: Router,
        bounds: Bounds,
    ) -> anyhow::Result<Self> {
        listener.set_nonblocking(true).context("set up the admin listener")?;
        let listener = tokio::net::TcpListener::from_std(listener).context("set up the admin listener")?;
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(accept(listener, tls, router, bounds, stopping));
        Ok(Self { stop, task })
    }

    /// Stops listening and waits for requests in flight, `grace` at most.
    pub(super) async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        let task = self.task;
        let abort = task.abort_handle();
        if tokio::time::timeout(grace, task).await.is_err() {
            abort.abort();
        }
    }
}

/// Until it is told to stop; then until the last connection has ended.
async fn accept(
    listener: tokio::net::TcpListener,
    tls: Option<Arc<Listener>>,
    router: Router,
    bounds: Bounds,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Also when the sender is dropped.
            _ = stopping.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let (tls, router, stopping) = (tls.clone(), router.clone(), stopping.clone());
                    connections.spawn(serve(stream, tls, peer, router, bounds, stopping, place));
                }
                Err(_) if tls.is_none() => refuse(stream),
                Err(_) => {}
            },
            Err(error) => {
                tracing::warn!(%error, "accept an admin connection");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Says 503 in one write that does not wait, and closes.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(TOO_MANY_CONNECTIONS);
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<Arc<Listener>>,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    mut stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let stream = match tls {
        None => Stream::Plain(stream),
        Some(tls) => {
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(bounds.head, Box::pin(tls.accept(stream))) => shaken,
                _ = stopping.changed() => return,
            };
            match shaken {
                Ok(Ok(stream)) => Stream::Tls(Box::new(stream.into())),
                Ok(Err(_)) | Err(_) => return,
            }
        }
    };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| within(body, bounds.body));
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Its errors are the client's: it went away, was too slow, or sent what is not HTTP and was told so.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// A body that breaks off after `silence`.
fn within(body: Incoming, silence: Duration) -> Body {
    if hyper::body::Body::is_end_stream(&body) {
        return Body::empty();
    }
    let chunks = Body::new(body).into_data_stream();
    Body::from_stream(stream::unfold(Some(chunks), move |chunks| async move {
        let mut chunks = chunks?;
        match tokio::time::timeout(silence, chunks.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(chunks))),
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(_) => Some((Err(axum::Error::new(format!("nothing of the body came for {silence:?}"))), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BOUNDS: Bounds =
        Bounds { connections: 2, head: Duration::from_millis(300), body: Duration::from_millis(300) };
    const PATIENCE: Duration = Duration::from_secs(10);

    fn start() -> (Server, SocketAddr) {
        let router = Router::new()
            .route("/quick", get(async || "done"))
            .route("/slow", get(async || tokio::time::sleep(Duration::from_millis(600)).await))
            .route("/body", post(async |body: bytes::Bytes| body.len().to_string()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        (Server::start(listener, None, router, BOUNDS).expect("starts"), addr)
    }

    /// Sends a text and reads to the end of the connection.
    async fn say(addr: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("connect");
        stream.write_all(text.as_bytes()).await.expect("send");
        let mut said = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        let _ = read.expect("it is closed in time");
        String::from_utf8_lossy(&said).into_owned()
    }

    #[tokio::test]
    async fn a_connection_without_a_whole_head_or_at_rest_is_closed() {
        let (server, addr) = start();
        assert_eq!(say(addr, "GET /quick HTTP/1.1\r\nhost: x\r\nx-slow: ").await, "");
        assert_eq!(say(addr, "").await, "");
        let said = say(addr, "GET /quick HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("done"), "{said}");
        let long = format!("GET /quick HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(4 * MAX_HEAD_BYTES));
        let said = say(addr, &long).await;
        assert!(said.starts_with("HTTP/1.1 431"), "{said}");
        server.stop(PATIENCE).await;
    }

    #[tokio::test]
    async fn a_body_that_stalls_breaks_off() {
        let (server, addr) = start();
        let said = say(addr, "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf").await;
        assert!(said.starts_with("HTTP/1.1 400"), "{said}");
        let said = say(addr, "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nhalf").await;
        assert!(said.starts_with("HTTP/1.1 200") && said.ends_with('4'), "{said}");
        server.stop(PATIENCE).await;
    }

    #[tokio::test]
    async fn a_connection_beyond_the_bound_is_told_503() {
        let (server, addr) = start();
        let slow = "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
        let first = tokio::spawn(say(addr, slow));
        let second = tokio::spawn(say(addr, slow));
        tokio::time::sleep(Duration::from_millis(200)).await;
        let said = say(addr, "").await;
        assert!(said.starts_with("HTTP/1.1 503") && said.contains("temporary-reduced-capacity"), "{said}");
        for slow in [first, second] {
            assert!(slow.await.expect("no panic").starts_with("HTTP/1.1 200"));
        }
        server.stop(PATIENCE).await;
    }

    #[tokio::test]
    async fn what_is_in_flight_when_it_stops_is_answered() {
        let (server, addr) = start();
        let slow = tokio::spawn(say(addr, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"));
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.stop(PATIENCE).await;
        let said = slow.await.expect("no panic");
        assert!(said.starts_with("HTTP/1.1 200") && said.contains("connection: close"), "{said}");
        assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
    }
}
