//! What routes and settings change at the edges: proxies in front, headers, paths, pages of other origins.

use std::time::Duration;

use store::model::{Cors, HeaderEdits, Outcome};

use super::harness::{Act, body, header, ok, request, rig, rig_with, status, write};

#[tokio::test]
async fn proxies_in_front_are_believed_only_where_they_are_named() {
    let headers = "X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\n\
                   Forwarded: for=1.1.1.1\r\n";
    let mut stranger = rig(ok("")).await;
    assert_eq!(status(&stranger.get("/", headers).await), 200);
    let got = stranger.got().await;
    assert_eq!(got.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(got.header("x-forwarded-proto"), Some("http"));
    assert_eq!(got.header("x-forwarded-host"), Some("api.test:8080"));
    assert_eq!(got.header("forwarded"), None);
    assert_eq!(stranger.ledger.row().await.client_ip.map(|ip| ip.to_string()).as_deref(), Some("127.0.0.1"));

    let trusted = |settings: &mut crate::stack::Settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    };
    let mut known = rig_with(ok(""), trusted, |_, _| {}).await;
    assert_eq!(status(&known.get("/", headers).await), 200);
    let got = known.got().await;
    assert_eq!(got.header("x-forwarded-for"), Some("6.6.6.6, 203.0.113.9, 127.0.0.1"));
    assert_eq!(got.header("x-forwarded-proto"), Some("https"));
    assert_eq!(got.header("x-forwarded-host"), Some("shop.test"));
    let row = known.ledger.row().await;
    assert_eq!(row.client_ip.map(|ip| ip.to_string()).as_deref(), Some("203.0.113.9"), "what is before it is hearsay");

    // A key's networks are held against the client, not against the proxy.
    let key = known.ledger.add_key(|key, _| key.allowed_ips = vec!["203.0.113.0/24".parse().expect("a network")]);
    for (from, expected) in [("203.0.113.9", 200), ("198.51.100.1", 403), ("203.0.113.9, 198.51.100.1", 403)] {
        let headers = format!("Connection: close\r\nX-Forwarded-For: {from}\r\n");
        assert_eq!(status(&known.send(&request("GET", "/", &key, &headers, "")).await), expected, "{from}");
    }
}

#[tokio::test]
async fn routes_change_paths_and_headers() {
    let answer = "HTTP/1.1 200 OK\r\nServer: old/1.0\r\nX-Keep: 1\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n";
    let mut rig = rig_with(
        vec![write(answer)],
        |_| {},
        |route, _| {
            route.strip_prefix = Some("/v3".into());
            route.add_prefix = Some("/internal".into());
            let set = [("x-env".into(), "live".into()), ("authorization".into(), "Bearer upstream".into())].into();
            route.request_headers = Some(Box::new(HeaderEdits { set, remove: vec!["cookie".into()] }));
            let set = [("strict-transport-security".into(), "max-age=60".into())].into();
            route.response_headers = Some(Box::new(HeaderEdits { set, remove: vec!["server".into()] }));
        },
    )
    .await;
    let answer = rig.get("/v3/scan?q=1", "Cookie: a=b\r\nX-Env: test\r\n").await;
    let got = rig.got().await;
    assert!(got.head.starts_with("GET /internal/scan?q=1 HTTP/1.1\r\n"), "{}", got.head);
    assert_eq!((got.header("x-env"), got.header("cookie")), (Some("live"), None));
    assert_eq!(got.header("authorization"), Some("Bearer upstream"));
    assert_eq!(header(&answer, "server"), None);
    assert_eq!(header(&answer, "x-keep"), Some("1"));
    assert_eq!(header(&answer, "strict-transport-security"), Some("max-age=60"));
    assert_ne!(header(&answer, "x-request-id"), Some("theirs"));
}

fn cors() -> Cors {
    Cors {
        origins: vec!["https://app.test".into()],
        headers: vec!["x-api-key".into(), "content-type".into()],
        expose: vec!["x-request-id".into()],
        max_age_seconds: Some(60),
        ..Cors::default()
    }
}

fn preflight(origin: &str, method: &str) -> String {
    format!(
        "OPTIONS /v3/scan HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\nOrigin: {origin}\r\n\
         Access-Control-Request-Method: {method}\r\nAccess-Control-Request-Headers: x-api-key\r\n\r\n"
    )
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_and_preflights_need_no_key() {
    let rig = rig_with(
        ok("done"),
        |_| {},
        |route, _| {
            route.matches.methods = vec!["POST".into(), "GET".into()];
            route.cors = Some(Box::new(cors()));
        },
    )
    .await;
    let answer = rig.send(&preflight("https://app.test", "POST")).await;
    assert_eq!(status(&answer), 204, "{answer}");
    for (name, value) in [
        ("access-control-allow-origin", "https://app.test"),
        ("access-control-allow-methods", "POST, GET"),
        ("access-control-allow-headers", "x-api-key, content-type"),
        ("access-control-max-age", "60"),
        ("vary", "origin"),
    ] {
        assert_eq!(header(&answer, name), Some(value), "{name}: {answer}");
    }
    assert_eq!((rig.accepted(), rig.ledger.rows().len()), (0, 0), "it goes nowhere and has no row");

    let answer = rig.get("/v3/scan", "Origin: https://app.test\r\n").await;
    assert_eq!((status(&answer), header(&answer, "access-control-allow-origin")), (200, Some("https://app.test")));
    assert_eq!(header(&answer, "access-control-expose-headers"), Some("x-request-id"));
    // Also a refusal can be read by the page.
    let refused = "GET /v3/scan HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\nOrigin: https://app.test\r\n\r\n";
    let answer = rig.send(refused).await;
    assert_eq!((status(&answer), header(&answer, "access-control-allow-origin")), (401, Some("https://app.test")));

    // Others are answered as if there were no such thing.
    for (origin, method) in [("https://evil.test", "POST"), ("https://app.test.evil.test", "POST"), ("null", "POST")] {
        let answer = rig.send(&preflight(origin, method)).await;
        assert_eq!((status(&answer), header(&answer, "access-control-allow-origin")), (401, None), "{origin}");
    }
    // No route takes this method.
    assert_eq!(status(&rig.send(&preflight("https://app.test", "DELETE")).await), 401);
    let answer = rig.get("/v3/scan", "Origin: https://evil.test\r\n").await;
    assert_eq!((status(&answer), header(&answer, "access-control-allow-origin")), (200, None));
    // A cache must not give these to a page that may read them.
    assert_eq!(header(&answer, "vary"), Some("origin"));
    assert_eq!(header(&rig.get("/v3/scan", "").await, "vary"), Some("origin"));
}

#[tokio::test]
async fn an_answer_that_takes_too_long_altogether_is_ended() {
    let total = Duration::from_millis(400);
    // Each piece comes in time, the whole does not.
    let mut acts = vec![write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")];
    for _ in 0..100 {
        acts.extend([write("x"), Act::Wait(Duration::from_millis(50))]);
    }
    let slow = rig_with(
        acts,
        |_| {},
        |route, _| route.total_timeout_ms = Some(u64::try_from(total.as_millis()).expect("small")),
    )
    .await;
    let answer = slow.get("/", "").await;
    assert_eq!(status(&answer), 504, "{answer}");
    let row = slow.ledger.row().await;
    assert_eq!((row.status, row.outcome), (504, Outcome::UpstreamTimeout));

    let late = rig_with(
        vec![Act::Wait(Duration::from_secs(20))],
        |_| {},
        |route, _| {
            route.timeout_ms = Some(15_000);
            route.total_timeout_ms = Some(200);
        },
    )
    .await;
    assert_eq!(status(&late.get("/", "").await), 504);

    let quick = rig_with(ok("done"), |_| {}, |route, _| route.total_timeout_ms = Some(60_000)).await;
    assert_eq!(body(&quick.get("/", "").await), "done");
}
