//! Upstreams that speak HTTP/2: many requests on one connection, trailers as gRPC needs them.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use store::model::{Outlier, Protocol, Target};
use tokio::net::{TcpListener, TcpStream};

use super::harness::{Rig, ok, rig_with, status};

/// Answers as a gRPC service does: what it got, and its status in trailers. Counts connections.
async fn service() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let connections = Arc::<AtomicUsize>::default();
    let counted = connections.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            counted.fetch_add(1, Ordering::SeqCst);
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(connection);
        }
    });
    (url, connections)
}

async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let told = |name: &str| request.headers().get(name).cloned().unwrap_or_else(|| HeaderValue::from_static("-"));
    let (te, authority) = (told("te"), request.uri().authority().map(ToString::to_string).unwrap_or_default());
    assert_eq!(request.version(), Version::HTTP_2);
    assert!(!request.headers().contains_key("connection") && !request.headers().contains_key("host"));
    let body = request.into_body().collect().await.expect("a whole body");
    let mut names: Vec<_> =
        body.trailers().map(|all| all.keys().map(ToString::to_string).collect()).unwrap_or_default();
    names.sort_unstable();
    let body = body.to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-te", te)
        .header("x-authority", authority)
        .header("x-trailers", names.join(","))
        .body(BodyExt::boxed(body));
    Ok(response.expect("a response"))
}

async fn rig(url: &str) -> Rig {
    rig_with(
        ok("never"),
        |_| {},
        |_, upstream| {
            upstream.protocol = Some(Protocol::Http2);
            upstream.targets = vec![Target { url: url.to_owned(), weight: 1 }];
        },
    )
    .await
}

#[tokio::test]
async fn a_requests_trailers_pass_but_for_what_only_its_head_may_say() {
    let (url, _) = service().await;
    let rig = rig(&url).await;
    let stream = TcpStream::connect(rig.addr).await.expect("connect");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    for name in ["x-checksum", "x-tollgate-account", "x-api-key", "x-forwarded-for", "x-request-id"] {
        trailers.insert(name, HeaderValue::from_static("victim"));
    }
    let body = BodyExt::with_trailers(Full::new(Bytes::from_static(b"hi")), async move { Some(Ok(trailers)) }).boxed();
    let request = Request::post("http://api.test/v3/scan").header("x-api-key", &rig.key).body(body).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(
        (response.status(), &response.headers()["x-trailers"]),
        (StatusCode::OK, &HeaderValue::from_static("x-checksum"))
    );
}

/// A listener whose queue is full: connections to it neither succeed nor fail.
fn silent() -> (socket2::Socket, Vec<std::net::TcpStream>, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(0).expect("listens");
    let addr = socket.local_addr().expect("bound").as_socket().expect("an address");
    let mut queue = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        queue.push(stream);
    }
    (socket, queue, format!("http://{addr}"))
}

#[tokio::test]
async fn many_that_wait_for_one_connection_share_its_failure_and_it_counts_against_the_target() {
    let (_socket, _queue, url) = silent();
    let rig = rig_with(
        ok("never"),
        |_| {},
        |_, upstream| {
            upstream.protocol = Some(Protocol::Http2);
            upstream.targets = vec![Target { url: url.clone(), weight: 1 }];
            upstream.connect_timeout_ms = Some(1_000);
            upstream.outlier = Some(Outlier { failures: 1, eject_ms: 60_000, max_percent: 100 });
        },
    )
    .await;
    let began = Instant::now();
    let answers = futures_util::future::join_all((0..10).map(|_| rig.get("/", ""))).await;
    assert!(answers.iter().all(|answer| status(answer) == 502), "{answers:?}");
    // One after the other they would take ten times the timeout.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let answer = rig.get("/", "").await;
    assert!(status(&answer) == 502 && answer.contains("no target of the upstream is healthy"), "{answer}");
}

#[tokio::test]
async fn calls_with_trailers_pass_through_on_one_connection() {
    let (url, connections) = service().await;
    let rig = rig(&url).await;
    let stream = TcpStream::connect(rig.addr).await.expect("connect");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    let calls = (0..20).map(|n| {
        let (mut sender, key) = (sender.clone(), rig.key.clone());
        async move {
            let message = format!("message {n}");
            let request = Request::builder()
                .method("POST")
                .uri("http://api.test/scan.Scanner/Scan")
                .header("x-api-key", key)
                .header("te", "trailers")
                .header("content-type", "application/grpc")
                .body(Full::new(Bytes::from(message.clone())))
                .expect("a request");
            let response = sender.send_request(request).await.expect("an answer");
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["x-te"], "trailers");
            let body = response.into_body().collect().await.expect("a whole body");
            assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
            assert_eq!(body.to_bytes(), message);
        }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(connections.load(Ordering::SeqCst), 1, "all of them share it");
    assert_eq!(rig.ledger.wait_for_rows(20).await.len(), 20);
}

#[tokio::test]
async fn clients_of_http_1_may_call_them_too_and_a_lost_connection_is_made_anew() {
    let (url, connections) = service().await;
    let rig = rig(&url).await;
    let answer = rig.get("/v3/scan", "TE: trailers\r\n").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains(&format!("x-authority: {}", url.trim_start_matches("http://"))), "{answer}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);

    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let unreachable = format!("http://{}", gone.local_addr().expect("bound"));
    drop(gone);
    let rig = self::rig(&unreachable).await;
    assert_eq!(status(&rig.get("/", "").await), 502);
}

/// A gRPC stream whose first message comes at once and whose second when the client has answered: it must not be held.
#[tokio::test]
async fn the_first_message_of_a_grpc_stream_waits_for_no_second() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(talk));
            tokio::spawn(connection);
        }
    });
    let rig = rig(&url).await;
    // A busy machine is slow now and then; held for its end it would take 250 ms each time.
    let mut tries = 0;
    loop {
        let stream = TcpStream::connect(rig.addr).await.expect("connect");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("a handshake");
        tokio::spawn(connection);
        let (say, said) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let said = futures_util::stream::unfold(said, |mut said| async move {
            Some((Ok::<_, Infallible>(Frame::data(said.recv().await?)), said))
        });
        let request = Request::builder()
            .method("POST")
            .uri("http://api.test/scan.Scanner/Talk")
            .header("x-api-key", &rig.key)
            .header("content-type", "application/grpc+proto")
            .body(StreamBody::new(Box::pin(said)))
            .expect("a request");
        let start = std::time::Instant::now();
        say.send(Bytes::from_static(b"hello")).expect("sent");
        let mut body = sender.send_request(request).await.expect("an answer").into_body();
        let first = body.frame().await.expect("a frame").expect("a message").into_data().expect("data");
        let took = start.elapsed();
        assert_eq!(first, "hello");
        say.send(Bytes::from_static(b"again")).expect("sent");
        let second = body.frame().await.expect("a frame").expect("a message").into_data().expect("data");
        assert_eq!(second, "again");
        drop(say);
        let last = body.frame().await.expect("a frame").expect("trailers").into_trailers().expect("trailers");
        assert_eq!(last["grpc-status"], "0");
        if took < std::time::Duration::from_millis(200) {
            break;
        }
        tries += 1;
        assert!(tries < 20, "{took:?}");
    }
}

/// Says each message again, and its status at the end.
async fn talk(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = BodyExt::with_trailers(request.into_body(), async move { Some(Ok(trailers)) });
    let response = Response::builder().header("content-type", "application/grpc+proto").body(BodyExt::boxed(body));
    Ok(response.expect("a response"))
}
