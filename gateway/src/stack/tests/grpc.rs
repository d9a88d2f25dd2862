//! gRPC calls that the gateway refuses: its clients read `grpc-status`, and no problem details.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use store::{
    lease::Policy,
    model::{Completion, KeyState, Outcome, Secret, SecretKind},
};
use tokio::net::TcpStream;

use super::harness::{Act, Rig, ok, problem, request, rig, rig_with, status};

/// A call over HTTP/2, as a gRPC client makes it.
async fn call(rig: &Rig, path: &str, key: Option<&str>, kind: &str, message: &'static [u8]) -> Response<Incoming> {
    let stream = TcpStream::connect(rig.addr).await.expect("connect");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://api.test{path}")).header("content-type", kind);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    sender.send_request(request.body(Full::new(Bytes::from_static(message))).expect("a request")).await.expect("one")
}

/// Status and message of an answer that is all in its head.
async fn refused(answer: Response<Incoming>) -> (String, String) {
    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().expect("ASCII").to_owned());
    assert_eq!(header("content-type").as_deref(), Some("application/grpc"));
    assert!(header("x-request-id").is_some());
    let told = (header("grpc-status").expect("a status"), header("grpc-message").expect("a message"));
    let body = answer.into_body().collect().await.expect("an end");
    assert!(body.trailers().is_none() && body.to_bytes().is_empty(), "trailers only");
    told
}

#[tokio::test]
async fn refused_calls_have_a_status_that_their_clients_know_and_rows_that_count_them_as_refused() {
    let rig = rig_with(
        ok(""),
        |_| {},
        |route, _| {
            route.matches.path_prefix = Some("/scan.Scanner".into());
            route.max_body_bytes = Some(4);
        },
    )
    .await;
    let revoked = rig.ledger.add_key(|key, _| key.state = KeyState::Revoked);
    let disabled = rig.ledger.add_key(|key, _| key.state = KeyState::Disabled);
    let unknown = Secret::generate(SecretKind::Live).expose().to_owned();
    const GRPC: &str = "application/grpc+proto";
    for (path, key, message, expected, code) in [
        ("/scan.Scanner/Scan", None, b"" as &[u8], "16", "missing-key: "),
        ("/scan.Scanner/Scan", Some(&unknown), b"", "16", "unknown-key: "),
        ("/scan.Scanner/Scan", Some(&revoked), b"", "16", "revoked-key: "),
        ("/scan.Scanner/Scan", Some(&disabled), b"", "7", "key-disabled: "),
        ("/other.Service/Do", Some(&rig.key), b"", "12", "no-route: "),
        ("/scan.Scanner/Scan", Some(&rig.key), b"hello", "8", "body-too-large: "),
        ("/scan.Scanner/%2e%2e/x", Some(&rig.key), b"", "13", "bad-request: "),
    ] {
        let (grpc, said) = refused(call(&rig, path, key.map(String::as_str), GRPC, message).await).await;
        assert_eq!(grpc, expected, "{said}");
        assert!(said.starts_with(code), "{said}");
    }
    rig.ledger.deny(Policy::Rate);
    let answer = call(&rig, "/scan.Scanner/Scan", Some(&rig.key), "application/grpc", b"").await;
    assert_eq!(answer.headers()["grpc-retry-pushback-ms"], "200");
    assert!(answer.headers().contains_key("ratelimit"));
    let (grpc, said) = refused(answer).await;
    assert_eq!((grpc.as_str(), said.as_str()), ("8", "rate-limited: the rate limit per-second is used up"));

    let rows = rig.ledger.rows();
    let last = rows.last().expect("rows");
    assert_eq!((last.status, last.outcome, last.bytes_out), (429, Outcome::RateLimited, 0));
    assert_eq!(rows.len(), 5, "of known keys, refused after their key was found");
    assert_eq!(rig.accepted(), 0);
}

#[tokio::test]
async fn calls_whose_upstream_fails_are_unavailable_and_say_whether_they_were_made() {
    let rig = rig(vec![Act::Close]).await;
    let answer = call(&rig, "/scan.Scanner/Scan", Some(&rig.key), "application/grpc", b"x").await;
    assert!(!answer.headers().contains_key("grpc-retry-pushback-ms"));
    let (grpc, said) = refused(answer).await;
    assert_eq!(grpc, "14");
    assert!(said.starts_with("upstream-unreachable: ") && said.ends_with(" (the upstream was called)"), "{said}");
    let row = rig.ledger.row().await;
    assert_eq!((row.status, row.completion), (502, Completion::UpstreamAbort));
}

#[tokio::test]
async fn all_other_requests_are_told_problems_as_ever() {
    let rig = rig(ok("")).await;
    let answer = call(&rig, "/x", None, "application/json", b"").await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"].to_str().expect("ASCII")),
        (401, &"application/problem+json")
    );
    let answer = call(&rig, "/x", None, "application/grpc-web+proto", b"").await;
    assert_eq!(answer.status(), 401);
    let answer =
        rig.send(&request("GET", "/x", "none", "Connection: close\r\nContent-Type: application/grpc\r\n", "")).await;
    assert_eq!((status(&answer), &problem(&answer)["code"]), (401, &"malformed-key".into()));
}
