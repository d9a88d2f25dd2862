//! TLS towards clients and upstreams.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use store::model::Outcome;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::harness::{Rig, body, header, ok, request, rig_with, status};
use crate::tls::{Connector, HTTP1, HTTP2, Listener, Watch, tests::Authority};

async fn secure_rig(ca: &Authority) -> (Rig, Watch) {
    let pair = ca.issue("gateway", &["api.test"]);
    let (listener, certificates) = Listener::new("data", ca.listener_files(&[pair]), &[HTTP2, HTTP1]).expect("files");
    let mut watch = Watch::default();
    watch.listener(listener.clone(), certificates);
    (rig_with(ok("done"), |settings| settings.tls = Some(listener), |_, _| {}).await, watch)
}

async fn send(rig: &Rig, client: &Connector, text: &str) -> std::io::Result<String> {
    let stream = rig.connect().await;
    let mut stream = client.connect(ServerName::try_from("api.test").expect("a name"), stream, false).await?;
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn requests_come_over_tls_as_http_1_and_the_upstream_is_told() {
    let ca = Authority::new();
    let (mut rig, _watch) = secure_rig(&ca).await;
    let text = request("GET", "/v3/scan", &rig.key, "Connection: close\r\n", "");
    let answer = send(&rig, &ca.client(None), &text).await.expect("an answer");
    assert_eq!((status(&answer), body(&answer)), (200, "done"));
    assert_eq!(rig.got().await.header("x-forwarded-proto"), Some("https"));
    assert_eq!(rig.ledger.row().await.outcome, Outcome::Admitted);

    // Who speaks no TLS gets no answer, and nothing is logged of it.
    let plain = rig.send(&text).await;
    assert!(!plain.contains("HTTP/1.1"), "{plain:?}");
    let stranger = Authority::new();
    send(&rig, &stranger.client(None), &text).await.expect_err("another authority's");
}

#[tokio::test]
async fn http_2_is_chosen_by_alpn() {
    let ca = Authority::new();
    let (mut rig, _watch) = secure_rig(&ca).await;
    let stream = TcpStream::connect(rig.addr).await.expect("connect");
    let stream = ca.h2_client(stream, "api.test").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(HTTP2));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    let request = Request::builder()
        .uri("https://api.test/v3/scan")
        .header("x-api-key", &rig.key)
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "done");
    let got = rig.got().await;
    assert_eq!((got.header("x-forwarded-host"), got.header("via")), (Some("api.test"), Some("2.0 tollgate")));
}

#[tokio::test]
async fn certificates_change_under_load_and_no_request_fails() {
    let ca = Authority::new();
    let (rig, mut watch) = secure_rig(&ca).await;
    let (rig, client) = (Arc::new(rig), ca.client(None));
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = Vec::new();
    for n in 0..4 {
        let (rig, client, stop, answered) = (rig.clone(), client.clone(), stop.clone(), answered.clone());
        clients.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // Half of them on one connection for many requests, the others on a new one each time.
                let stream = rig.connect().await;
                let name = ServerName::try_from("api.test").expect("a name");
                let stream = client.connect(name, stream, false).await.expect("a handshake");
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
                tokio::spawn(connection);
                loop {
                    let request = Request::builder()
                        .uri("/v3/scan")
                        .header("host", "api.test")
                        .header("x-api-key", &rig.key)
                        .body(Empty::<Bytes>::new())
                        .expect("a request");
                    let answer = sender.send_request(request).await.expect("an answer");
                    assert_eq!(answer.status(), 200);
                    answer.into_body().collect().await.expect("a whole body");
                    answered.fetch_add(1, Ordering::Relaxed);
                    if n % 2 == 0 || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    sender.ready().await.expect("the connection goes on");
                }
            }
        }));
    }
    // Each new certificate comes once some requests were answered with the one before, however slow the machine is.
    for round in 1..=5 {
        while answered.load(Ordering::Relaxed) < round * 20 {
            tokio::task::yield_now().await;
        }
        ca.issue("gateway", &["api.test", &format!("round-{round}.test")]);
        watch.look(true);
        assert_eq!(watch.certificates().all()[0].names[1], format!("round-{round}.test"));
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no request of it failed");
    }
}

/// An upstream that answers one request a connection over TLS.
async fn secure_upstream(ca: &Authority, name: &str) -> std::net::SocketAddr {
    let pair = ca.issue("upstream", &[name]);
    let (listener, _) = Listener::new("upstream", ca.listener_files(&[pair]), &[HTTP1]).expect("files");
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = tcp.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (stream, _) = tcp.accept().await.expect("accept");
            let Ok(mut stream) = listener.accept(stream).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a head"));
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecure";
            stream.write_all(answer).await.expect("write");
            stream.shutdown().await.expect("shut down");
        }
    });
    addr
}

#[tokio::test]
async fn upstreams_are_called_over_tls_and_their_certificates_looked_at() {
    let (ca, stranger) = (Authority::new(), Authority::new());
    for (name, trusted, expected) in
        [("localhost", &ca, 200), ("another.test", &ca, 502), ("localhost", &stranger, 502)]
    {
        let addr = secure_upstream(&ca, name).await;
        let connector = trusted.client(None);
        let rig = rig_with(
            ok("plain"),
            |settings| settings.upstream_tls = Some(connector),
            |_, upstream| upstream.targets[0].url = format!("https://localhost:{}", addr.port()),
        )
        .await;
        let answer = rig.get("/v3/scan", "").await;
        assert_eq!(status(&answer), expected, "{name}: {answer}");
        if expected == 200 {
            assert_eq!(body(&answer), "secure");
        } else {
            assert_eq!(header(&answer, "content-type"), Some("application/problem+json"));
            assert!(answer.contains("TLS with the upstream failed"), "{answer}");
        }
    }
}
