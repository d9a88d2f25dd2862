//! A real HTTP upstream that does what its path says.
//!
//! `/echo` answers the request's headers and body as JSON; `/status/N` that status; `/delay/MS` after a while; `/bytes/N` so many
//! bytes with their length; `/stream/N` so many without; `/slow/N/MS` N bytes, one every MS; `/die/N` and `/die/N/M` N of 100,000 or
//! of M bytes and then the connection is cut; `/sse/N/MS` events; `/count` takes a body and answers its length. Anything else answers `ok`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};

/// A running upstream; it ends when dropped.
#[derive(Debug)]
pub struct Upstream {
    /// `http://host:port`.
    pub url: String,
    requests: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Upstream {
    /// Starts one on a free port of loopback.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// Starts one on a free port of an address.
    pub fn start_at(ip: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the upstream");
        let requests = Arc::<AtomicU64>::default();
        let listener = runtime.block_on(TcpListener::bind((ip, 0))).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let router = router(Arc::clone(&requests));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, requests, _runtime: runtime }
    }

    /// Requests that have arrived.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

fn router(requests: Arc<AtomicU64>) -> Router {
    Router::new()
        .route("/echo", any(echo))
        .route("/count", any(count))
        .route("/status/{status}", any(status))
        .route("/delay/{ms}", any(delay))
        .route("/bytes/{count}", get(|Path(count): Path<usize>| async move { vec![b'x'; count] }))
        .route("/stream/{count}", get(stream_bytes))
        .route("/slow/{count}/{ms}", get(slow))
        .route("/die/{count}", get(|Path(count): Path<usize>| async move { die(count, 100_000) }))
        .route("/die/{count}/{of}", get(|Path((count, of)): Path<(usize, usize)>| async move { die(count, of) }))
        .route("/sse/{count}/{ms}", get(sse))
        .fallback(any(|| async { "ok" }))
        .layer(axum::middleware::from_fn_with_state(requests, counted))
        .layer(axum::extract::DefaultBodyLimit::disable())
}

async fn counted(State(requests): State<Arc<AtomicU64>>, request: Request, next: axum::middleware::Next) -> Response {
    requests.fetch_add(1, Ordering::SeqCst);
    next.run(request).await
}

async fn echo(request: Request) -> Json<Value> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut headers = serde_json::Map::new();
    for (name, value) in &head.headers {
        headers.insert(name.to_string(), json!(String::from_utf8_lossy(value.as_bytes())));
    }
    Json(json!({
        "method": head.method.as_str(),
        "uri": head.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
}

async fn count(request: Request) -> Result<String, StatusCode> {
    let (mut body, mut count) = (request.into_body(), 0);
    while let Some(frame) = body.frame().await {
        count += frame.map_err(|_| StatusCode::BAD_REQUEST)?.data_ref().map_or(0, Bytes::len);
    }
    Ok(count.to_string())
}

async fn status(Path(status): Path<u16>) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST)
}

async fn delay(Path(ms): Path<u64>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    "late"
}

async fn stream_bytes(Path(count): Path<usize>) -> Body {
    const CHUNK: usize = 64 << 10;
    let chunks = (0..count.div_ceil(CHUNK)).map(move |n| {
        let length = CHUNK.min(count - n * CHUNK);
        Ok::<_, std::convert::Infallible>(Bytes::from(vec![b'x'; length]))
    });
    Body::from_stream(stream::iter(chunks))
}

async fn slow(Path((count, ms)): Path<(usize, u64)>) -> Body {
    let bytes = stream::iter(0..count).then(move |_| async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok::<_, std::convert::Infallible>(Bytes::from_static(b"x"))
    });
    Body::from_stream(bytes)
}

fn die(count: usize, of: usize) -> Response {
    let chunks = stream::iter([Ok(Bytes::from(vec![b'x'; count])), Err(std::io::Error::other("cut"))]).then(
        |chunk| async move {
            // The bytes must have left before the connection is cut.
            tokio::time::sleep(Duration::from_millis(50)).await;
            chunk
        },
    );
    ([("content-length", of.to_string())], Body::from_stream(chunks)).into_response()
}

async fn sse(Path((count, ms)): Path<(usize, u64)>) -> Response {
    let events = stream::iter(0..count).then(move |n| async move {
        if n > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("data: {n}\n\n")))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
}
