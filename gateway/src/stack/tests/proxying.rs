//! What the upstream gets, and how its connections are used.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use store::model::{Outcome, Target};
use tokio::io::AsyncWriteExt;

use super::harness::{Act, body, header, ok, problem, read_until, request, rig, rig_with, status, write};
use crate::stack::{Client, CompatHeaders, Rejections, Settings, Stack};

#[tokio::test]
async fn upstream_gets_who_asks_and_never_the_key() {
    let mut rig = rig_with(
        vec![write(
            "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nX-End: 2\r\n\
             X-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n",
        )],
        |_| {},
        |route, _| route.strip_prefix = Some("/v3".into()),
    )
    .await;
    let answer = rig
        .get(
            "/v3/scan?a=b%20c",
            &format!(
                "Authorization: Bearer {}\r\nConnection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: 5\r\n\
                 Proxy-Connection: keep-alive\r\nTE: trailers, deflate\r\nUpgrade: h2c\r\nX-Tollgate-Tier: gold\r\n\
                 X-Tollgate-Spoof: 1\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Host: evil\r\nX-Request-Id: mine\r\n\
                 Accept: */*\r\n",
                rig.key
            ),
        )
        .await;
    let got = rig.got().await;
    assert!(got.head.starts_with("GET /scan?a=b%20c HTTP/1.1\r\n"), "{}", got.head);
    assert!(!got.head.contains(&rig.key), "{}", got.head);
    for gone in
        ["x-api-key", "authorization", "x-private", "keep-alive", "proxy-connection", "upgrade", "x-tollgate-spoof"]
    {
        assert_eq!(got.header(gone), None, "{gone}: {}", got.head);
    }
    let upstream = rig.upstream.targets[0].url.trim_start_matches("http://");
    for (name, value) in [
        ("host", upstream),
        ("te", "trailers"),
        ("connection", "te"),
        ("x-tollgate-account", "acme"),
        ("x-tollgate-tier", "free"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "api.test:8080"),
        ("accept", "*/*"),
        ("via", "1.1 tollgate"),
    ] {
        assert_eq!(got.header(name), Some(value), "{name}: {}", got.head);
    }
    let id = rig.ledger.row().await.request_id.to_string();
    assert_eq!(got.header("x-request-id"), Some(id.as_str()));
    assert_eq!(header(&answer, "x-request-id"), Some(id.as_str()));
    let trace = format!("00-{:032x}-", rig.ledger.row().await.trace_id);
    assert!(got.header("traceparent").is_some_and(|value| value.starts_with(&trace)));
    assert_eq!((header(&answer, "x-hop"), header(&answer, "keep-alive")), (None, None));
    assert_eq!(header(&answer, "x-end"), Some("2"));
}

#[tokio::test]
async fn another_scheme_of_authorization_is_the_upstreams() {
    let mut rig = rig(ok("")).await;
    rig.get("/", "Authorization: Basic dTpw\r\n").await;
    assert_eq!(rig.got().await.header("authorization"), Some("Basic dTpw"));
}

#[tokio::test]
async fn compatibility_headers_are_sent_when_asked_for() {
    let compat = CompatHeaders::parse(["x-rate-limit", "x-quota"]).expect("known");
    let rig = rig_with(ok(""), |settings| settings.compat_headers = compat, |_, _| {}).await;
    assert_eq!(header(&rig.get("/", "").await, "x-rate-limit-remaining"), Some("4"));
    assert!(CompatHeaders::parse(["x-rate"]).is_err());
}

#[tokio::test]
async fn connections_to_the_upstream_are_used_again() {
    let rig = rig(ok("hi")).await;
    let mut stream = rig.connect().await;
    for _ in 0..20 {
        stream.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
        assert_eq!(status(&read_until(&mut stream, "hi").await), 200);
    }
    for _ in 0..5 {
        assert_eq!(body(&rig.get("/", "").await), "hi");
    }
    assert_eq!(rig.accepted(), 1);
    assert_eq!(rig.ledger.rows().len(), 25);
}

#[tokio::test]
async fn upstream_that_closes_after_each_answer_fails_no_request() {
    let mut acts = ok("hi");
    acts.push(Act::Close);
    let rig = rig(acts).await;
    for _ in 0..30 {
        let answer = rig.get("/", "").await;
        assert_eq!(status(&answer), 200, "{answer}");
    }
    assert_eq!(rig.accepted(), 30);
}

/// Its version went through to the client, whose connection was then of no use either.
#[tokio::test]
async fn an_upstream_of_http_1_0_is_answered_for_in_the_clients_version_and_asked_on_new_connections() {
    let rig = rig(vec![write("HTTP/1.0 200 OK\r\nX-From: old\r\n\r\nhi"), Act::Close]).await;
    let mut stream = rig.connect().await;
    for _ in 0..3 {
        stream.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
        let answer = read_until(&mut stream, "hi").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!((header(&answer, "content-length"), header(&answer, "x-from")), (Some("2"), Some("old")));
    }
    assert_eq!(rig.accepted(), 3, "each answer ended with its connection");
    let rows = rig.ledger.rows();
    assert!(rows.iter().all(|row| (row.status, row.bytes_out) == (200, 2)), "{rows:?}");
}

#[tokio::test]
async fn an_upstream_of_http_1_0_that_keeps_its_connection_unasked_is_not_asked_on_it_again() {
    let rig = rig(vec![write("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi")]).await;
    for _ in 0..3 {
        let answer = rig.get("/", "").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && body(&answer) == "hi", "{answer}");
    }
    assert_eq!(rig.accepted(), 3);
}

#[tokio::test]
async fn target_that_refuses_is_passed_over_within_the_retries() {
    let rig = rig_with(
        ok("hi"),
        |_| {},
        |route, upstream| {
            route.retries = 1;
            let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
            upstream.targets.push(Target { url: format!("http://{closed}"), weight: 1 });
        },
    )
    .await;
    for _ in 0..10 {
        assert_eq!(status(&rig.get("/", "").await), 200);
    }
    assert_eq!(rig.ledger.0.refunded.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn names_of_upstreams_are_looked_up() {
    let mut rig = rig_with(
        ok("hi"),
        |_| {},
        |_, upstream| upstream.targets[0].url = upstream.targets[0].url.replace("127.0.0.1", "localhost"),
    )
    .await;
    assert_eq!(status(&rig.get("/", "").await), 200);
    assert!(rig.got().await.header("host").is_some_and(|host| host.starts_with("localhost:")));
}

#[tokio::test]
async fn upstream_at_its_bound_of_connections_is_503_before_it_is_called() {
    let rig = rig_with(
        vec![Act::Hold, ok("hi").remove(0)],
        |_| {},
        |_, upstream| (upstream.max_connections, upstream.connect_timeout_ms) = (Some(1), Some(100)),
    )
    .await;
    let mut first = rig.connect().await;
    first.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
    while rig.accepted() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status(&rig.get("/", "").await), 503);
    assert_eq!(rig.ledger.0.refunded.load(Ordering::SeqCst), 1);
    rig.go_on.notify_one();
    assert_eq!(status(&read_until(&mut first, "hi").await), 200);
}

#[tokio::test]
async fn http2_by_prior_knowledge_is_served_on_the_same_port() {
    let mut rig = rig(ok("found")).await;
    let stream = rig.connect().await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("h2");
    tokio::spawn(connection);
    for _ in 0..10 {
        let request = Request::builder()
            .method("POST")
            .version(Version::HTTP_2)
            .uri("http://api.test/v3/scan")
            .header("x-api-key", &rig.key)
            .body(Full::new(Bytes::from_static(b"hello")))
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert!(response.headers().contains_key("ratelimit"));
        assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "found");
        let got = rig.got().await;
        assert_eq!((got.body.as_slice(), got.header("x-forwarded-host")), (b"hello".as_slice(), Some("api.test")));
    }
    assert_eq!(rig.accepted(), 1);
    let unknown = Request::get("http://api.test/").body(Full::new(Bytes::new())).expect("a request");
    assert_eq!(sender.send_request(unknown).await.expect("an answer").status(), 401);
}

#[tokio::test]
async fn head_requests_and_empty_answers_have_no_body() {
    let rig = rig(vec![write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")]).await;
    let answer = rig.send(&request("HEAD", "/", &rig.key, "Connection: close\r\n", "")).await;
    assert_eq!((status(&answer), header(&answer, "content-length"), body(&answer)), (200, Some("10"), ""));
    let rig = super::harness::rig(vec![write("HTTP/1.1 204 No Content\r\n\r\n")]).await;
    let answer = rig.get("/", "").await;
    assert_eq!((status(&answer), body(&answer)), (204, ""));
}

#[tokio::test]
async fn stack_is_a_tower_service_of_any_body() {
    use tower::{Service, ServiceExt};
    let rig = rig(ok("found")).await;
    let settings = Arc::new(Settings::default());
    let ledger = Arc::new(rig.ledger.clone());
    let stack = Arc::new(Stack::new(ledger, settings, Arc::new(Rejections::new())));
    let mut service = stack.service();
    let mut request = Request::get("/v3/scan").header("host", "a").header("x-api-key", &rig.key);
    request = request.extension(Client::new([10, 0, 0, 1].into()));
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let response = service.ready().await.expect("ready").call(request).await.expect("infallible");
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(body, "found");
    let row = rig.ledger.row().await;
    assert_eq!((row.client_ip, row.outcome), (Some([10, 0, 0, 1].into()), Outcome::Admitted));
}

#[tokio::test]
async fn a_body_of_unknown_length_goes_up_with_any_method() {
    let mut rig = rig(ok("hi")).await;
    for method in ["GET", "HEAD", "DELETE", "POST"] {
        let headers = "Connection: close\r\nTransfer-Encoding: chunked\r\n";
        let answer = rig.send(&request(method, "/", &rig.key, headers, "5\r\nhello\r\n0\r\n\r\n")).await;
        assert_eq!(status(&answer), 200, "{method}: {answer}");
        let got = rig.got().await;
        assert_eq!(
            (got.body.as_slice(), got.header("transfer-encoding")),
            (&b"hello"[..], Some("chunked")),
            "{method}"
        );
    }
}

#[tokio::test]
async fn another_protocol_that_nobody_asked_for_and_what_is_no_http_are_502() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let rig = rig(vec![write(answer)]).await;
        let refused = rig.get("/", "").await;
        assert_eq!(status(&refused), 502, "{answer:?}: {refused}");
        assert!(problem(&refused)["detail"].as_str().is_some_and(|text| text.contains("not valid HTTP")), "{refused}");
        let row = rig.ledger.row().await;
        assert_eq!((row.status, row.outcome), (502, Outcome::UpstreamUnreachable), "{answer:?}");
    }
}

#[tokio::test]
async fn an_answers_length_is_what_was_read_of_it() {
    // RFC 9112 §6.3: of both, the chunks count. A client that believed the length would read the rest as its next answer.
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n";
    let rig = rig(vec![write(answer)]).await;
    let answer = rig.get("/", "").await;
    assert_eq!((status(&answer), body(&answer)), (200, "abcde"));
    assert_eq!(header(&answer, "content-length"), Some("5"), "{answer}");
    assert_eq!(rig.ledger.row().await.bytes_out, 5);
}

#[tokio::test]
async fn limits_of_the_upstream_are_not_the_clients() {
    let rig = rig(vec![write("HTTP/1.1 200 OK\r\nRateLimit: \"fake\";r=1\r\nContent-Length: 0\r\n\r\n")]).await;
    let answer = rig.get("/", "").await;
    assert!(status(&answer) == 200 && !answer.contains("fake"), "{answer}");
}
