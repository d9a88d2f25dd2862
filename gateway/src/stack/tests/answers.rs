//! Every row of the contract's table, and what each answer and row carries.

use std::{sync::atomic::Ordering, time::Duration};

use store::{
    lease::{Denied, Policy},
    model::{AccountState, Completion, KeyState, Outcome, RequestId, Secret, SecretKind, Timestamp},
};
use tokio::io::AsyncWriteExt;

use super::{
    double::{outcomes, unavailable},
    harness::{Act, header, ok, problem, read_all, request, rig, rig_with, status, write},
};

#[tokio::test]
async fn good_request_is_proxied_and_its_row_is_whole() {
    let rig = rig(ok("found")).await;
    let answer = rig.get("/v3/scan?secret=1", "X-Request-Id: mine-1\r\n").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.ends_with("found"));
    assert_eq!(header(&answer, "x-from"), Some("upstream"));
    assert_eq!(header(&answer, "ratelimit-policy"), Some(r#""per-second";q=5;w=1"#));
    assert_eq!(header(&answer, "ratelimit"), Some(r#""per-second";r=4;t=1"#));
    let row = rig.ledger.row().await;
    let id: RequestId = header(&answer, "x-request-id").expect("an id").parse().expect("a UUID");
    assert_eq!(row.request_id, id);
    assert_eq!(
        (row.account.as_str(), row.key_id.as_str(), row.tier.as_str(), row.route.as_str()),
        ("acme", "key_0", "free", "scan")
    );
    assert_eq!((row.method.as_str(), row.path.as_str(), row.status), ("GET", "/v3/scan", 200));
    assert_eq!((row.outcome, row.completion, row.settles), (Outcome::Admitted, Completion::Complete, false));
    assert_eq!((row.cost, row.bytes_in, row.bytes_out, row.count), (1, 0, 5, 1));
    assert!(row.upstream_us > 0 && row.duration_us >= row.upstream_us);
    assert_eq!(row.client_ip, Some([127, 0, 0, 1].into()));
    assert_eq!(row.client_request_id.as_deref(), Some("mine-1"));
    assert_ne!(row.trace_id, 0);
    assert_eq!((row.node.as_str(), row.region.as_str()), ("n1", "eu"));
    assert_eq!(row.charges.len(), 2);
    assert_eq!(rig.ledger.0.in_use.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn keys_that_are_not_known_are_401_without_a_row() {
    let rig = rig(ok("")).await;
    let unknown = Secret::generate(SecretKind::Live);
    let admin = Secret::generate(SecretKind::Admin);
    let cut = &rig.key[..rig.key.len() - 1];
    for (headers, code) in [
        (String::new(), "missing-key"),
        ("Authorization: Basic dTpw\r\n".to_owned(), "missing-key"),
        (format!("X-API-Key: {}\r\n", unknown.expose()), "unknown-key"),
        (format!("Authorization: Bearer {}\r\n", unknown.expose()), "unknown-key"),
        (format!("X-API-Key: {}\r\n", admin.expose()), "malformed-key"),
        (format!("X-API-Key: {cut}\r\n"), "malformed-key"),
        ("X-API-Key: \r\n".to_owned(), "malformed-key"),
    ] {
        let answer = rig.send(&format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n")).await;
        assert_eq!(status(&answer), 401, "{answer}");
        assert!(header(&answer, "www-authenticate").expect("a challenge").starts_with("Bearer"));
        assert_eq!(header(&answer, "ratelimit-policy"), None);
        let problem = problem(&answer);
        assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &401.into()), "{answer}");
        for field in ["type", "title", "detail", "request_id"] {
            assert!(problem[field].is_string(), "{field}: {answer}");
        }
        assert_eq!(problem["request_id"], header(&answer, "x-request-id").expect("an id"));
    }
    assert_eq!(rig.ledger.rows(), []);
    assert_eq!(rig.accepted(), 0);
}

#[tokio::test]
async fn known_keys_that_may_not_are_told_why_and_have_rows() {
    let rig = rig_with(
        ok(""),
        |_| {},
        |route, _| {
            route.scopes = vec!["scan".into()];
            route.matches.path_prefix = Some("/v3".into());
        },
    )
    .await;
    let scan = vec!["scan".into()];
    let ledger = &rig.ledger;
    let revoked = ledger.add_key(|key, _| key.state = KeyState::Revoked);
    let disabled = ledger.add_key(|key, _| key.state = KeyState::Disabled);
    let suspended = ledger.add_key(|_, account| account.state = AccountState::Suspended);
    let expired = ledger.add_key(|key, _| key.expires_at = Some(Timestamp::now()));
    let elsewhere = ledger.add_key(|key, _| key.allowed_ips = vec!["10.0.0.0/8".parse().expect("a net")]);
    let unscoped = ledger.add_key(|_, _| {});
    let other_tier = ledger.add_key(|key, account| {
        key.scopes = scan.clone();
        account.tier = "reports-only".into();
    });
    let good = ledger.add_key(|key, _| {
        key.scopes = scan.clone();
        key.allowed_ips = vec!["127.0.0.0/8".parse().expect("a net")];
        key.expires_at = Some(Timestamp::now().plus_seconds(60));
    });
    let cases = [
        (&revoked, "/v3", 401, Outcome::RevokedKey),
        (&disabled, "/v3", 403, Outcome::KeyDisabled),
        (&suspended, "/v3", 403, Outcome::AccountSuspended),
        (&expired, "/v3", 401, Outcome::ExpiredKey),
        (&elsewhere, "/v3", 403, Outcome::IpNotAllowed),
        (&good, "/v4", 404, Outcome::NoRoute),
        (&other_tier, "/v3", 403, Outcome::RouteNotInTier),
        (&unscoped, "/v3", 403, Outcome::ScopeMissing),
    ];
    for (key, path, expected, outcome) in cases {
        let answer = rig.send(&request("GET", path, key, "Connection: close\r\n", "")).await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert_eq!(problem(&answer)["code"], outcome.as_str());
        assert_eq!(header(&answer, "www-authenticate").is_some(), expected == 401, "{answer}");
        assert!(header(&answer, "ratelimit-policy").is_some(), "{answer}");
    }
    let rows = ledger.rows();
    assert_eq!(outcomes(&rows), cases.map(|(_, _, status, outcome)| (outcome, status)));
    assert!(rows.iter().all(|row| row.bytes_out > 0 && row.cost == 0 && row.charges.is_empty()));
    assert_eq!(rig.accepted(), 0);
    let answer = rig.send(&request("GET", "/v3", &good, "Connection: close\r\n", "")).await;
    assert_eq!(status(&answer), 200, "{answer}");
}

#[tokio::test]
async fn trace_is_for_routes_that_name_it() {
    let rig = rig(ok("what you sent")).await;
    let trace = request("TRACE", "/", &rig.key, "Connection: close\r\n", "");
    let answer = rig.send(&trace).await;
    assert_eq!((status(&answer), &problem(&answer)["code"]), (404, &"no-route".into()), "{answer}");
    assert_eq!(rig.accepted(), 0);
    let named = rig_with(ok(""), |_| {}, |route, _| route.matches.methods = vec!["TRACE".into()]).await;
    let answer = named.send(&request("TRACE", "/", &named.key, "Connection: close\r\n", "")).await;
    assert_eq!(status(&answer), 200, "{answer}");
}

#[tokio::test]
async fn a_key_that_is_revoked_while_its_request_waits_for_units_is_refused() {
    let rig = rig(ok("")).await;
    *rig.ledger.0.revoked_in_wait.lock().expect("no panic") = Some(rig.key.clone());
    let answer = rig.get("/", "").await;
    assert_eq!(status(&answer), 401, "{answer}");
    assert_eq!(problem(&answer)["code"], "revoked-key");
    assert_eq!(rig.accepted(), 0);
    assert_eq!(outcomes(&rig.ledger.rows()), [(Outcome::RevokedKey, 401)]);
    assert_eq!(rig.ledger.0.refunded.load(Ordering::SeqCst), 1);
    assert_eq!(rig.ledger.0.in_use.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn policies_that_refuse_are_429_with_the_problem_type_of_the_registry() {
    let rig = rig(ok("")).await;
    for (policy, outcome) in [
        (Policy::Rate, Outcome::RateLimited),
        (Policy::Quota, Outcome::QuotaExceeded),
        (Policy::Concurrency, Outcome::ConcurrencyExceeded),
    ] {
        rig.ledger.deny(policy);
        let answer = rig.get("/", "").await;
        assert_eq!(status(&answer), 429, "{answer}");
        assert_eq!(header(&answer, "retry-after"), Some("1"));
        assert_eq!(header(&answer, "ratelimit"), Some(r#""per-second";r=0;t=1"#));
        let problem = problem(&answer);
        assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
        assert_eq!(problem["code"], outcome.as_str());
        assert_eq!(problem["violated-policies"], serde_json::json!(["per-second"]));
    }
    assert_eq!(rig.accepted(), 0);
    assert_eq!(rig.ledger.rows().len(), 3);
}

#[tokio::test]
async fn without_a_quorum_it_is_503_before_the_upstream_and_never_401() {
    let rig = rig(ok("")).await;
    rig.ledger.0.no_quorum.store(true, Ordering::SeqCst);
    let unknown = Secret::generate(SecretKind::Live);
    let disabled = rig.ledger.add_key(|key, _| key.state = KeyState::Disabled);
    for key in [&rig.key, unknown.expose(), &disabled] {
        let answer = rig.send(&request("GET", "/", key, "Connection: close\r\n", "")).await;
        assert_eq!(status(&answer), 503, "{answer}");
        assert_eq!(header(&answer, "retry-after"), Some("2"));
        let problem = problem(&answer);
        assert_eq!(problem["code"], "temporary-reduced-capacity");
        assert_eq!(problem.get("upstream_executed"), None);
        // Which nodes there are is nothing for clients.
        assert!(!answer.contains("node-2") && !answer.contains("10.0.0.7"), "{answer}");
    }
    rig.ledger.0.no_quorum.store(false, Ordering::SeqCst);
    *rig.ledger.0.denied.lock().expect("no panic") = Some(Denied::Unavailable(unavailable()));
    assert_eq!(status(&rig.get("/", "").await), 503);
    assert_eq!(rig.accepted(), 0);
}

#[tokio::test]
async fn failed_commit_is_503_that_says_the_upstream_was_called() {
    let rig = rig(ok("secret answer")).await;
    rig.ledger.0.commits_fail.store(true, Ordering::SeqCst);
    let answer = rig.get("/", "").await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert_eq!(problem(&answer)["upstream_executed"], true);
    assert!(!answer.contains("secret answer"));
    assert_eq!((rig.accepted(), rig.ledger.0.refunded.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn request_whose_unit_of_concurrency_lapses_is_ended() {
    let rig = rig(vec![Act::Wait(Duration::from_secs(60))]).await;
    rig.ledger.0.lapsed.store(true, Ordering::SeqCst);
    let answer = rig.get("/", "").await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert_eq!(problem(&answer)["upstream_executed"], true);
    let row = rig.ledger.row().await;
    assert_eq!((row.outcome, row.status, row.charges.len()), (Outcome::TemporaryReducedCapacity, 503, 2));
}

#[tokio::test]
async fn unit_that_lapses_while_a_short_answer_comes_ends_it_too() {
    let mut rig = rig(vec![write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), Act::Hold]).await;
    let mut stream = rig.connect().await;
    stream.write_all(request("GET", "/", &rig.key, "Connection: close\r\n", "").as_bytes()).await.expect("write");
    rig.got().await;
    // Its head and beginning are here by then, and it is read on.
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.ledger.0.lapsed.store(true, Ordering::SeqCst);
    let answer = tokio::time::timeout(Duration::from_secs(10), read_all(&mut stream)).await.expect("it ends");
    assert_eq!(status(&answer), 503, "{answer}");
    let row = rig.ledger.row().await;
    assert_eq!((row.outcome, row.status), (Outcome::TemporaryReducedCapacity, 503));
}

#[tokio::test]
async fn upstream_that_cannot_be_reached_is_502_and_units_are_given_back() {
    let rig = rig_with(
        ok(""),
        |_| {},
        |_, upstream| {
            // A port that was free a moment ago.
            let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
            upstream.targets[0].url = format!("http://{closed}");
        },
    )
    .await;
    let answer = rig.get("/", "").await;
    assert_eq!(status(&answer), 502, "{answer}");
    assert_eq!(problem(&answer)["code"], "upstream-unreachable");
    assert!(header(&answer, "ratelimit").is_some());
    let row = rig.ledger.row().await;
    assert_eq!((row.outcome, row.upstream_us, row.cost), (Outcome::UpstreamUnreachable, 0, 0));
    assert_eq!(row.charges, []);
    assert_eq!(rig.ledger.0.refunded.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn slow_upstream_is_504_and_charged() {
    let rig = rig_with(vec![Act::Wait(Duration::from_secs(5))], |_| {}, |route, _| route.timeout_ms = Some(100)).await;
    let answer = rig.get("/", "").await;
    assert_eq!(status(&answer), 504, "{answer}");
    assert_eq!(problem(&answer)["code"], "upstream-timeout");
    let row = rig.ledger.row().await;
    assert!((100_000..1_000_000).contains(&row.upstream_us), "{}", row.upstream_us);
    assert_eq!((row.cost, row.charges.len()), (1, 2));
}

#[tokio::test]
async fn body_too_large_is_413_declared_or_chunked() {
    let mut rig = rig_with(ok(""), |_| {}, |route, _| route.max_body_bytes = Some(10)).await;
    let declared = request("POST", "/", &rig.key, "Connection: close\r\nContent-Length: 11\r\n", "hello world");
    let answer = rig.send(&declared).await;
    assert_eq!((status(&answer), rig.accepted()), (413, 0), "{answer}");
    assert_eq!(problem(&answer)["code"], "body-too-large");
    let chunked = "Connection: close\r\nTransfer-Encoding: chunked\r\n";
    let answer = rig.send(&request("POST", "/", &rig.key, chunked, "6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n")).await;
    assert_eq!(status(&answer), 413, "{answer}");
    let answer = rig.send(&request("POST", "/", &rig.key, chunked, "5\r\nhello\r\n0\r\n\r\n")).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(rig.got().await.body, b"hello");
    assert_eq!(rig.ledger.0.demanded_bytes.load(Ordering::SeqCst), 10);
    let rows = rig.ledger.rows();
    assert_eq!(outcomes(&rows), [(Outcome::BodyTooLarge, 413), (Outcome::BodyTooLarge, 413), (Outcome::Admitted, 200)]);
    assert_eq!(rows[2].bytes_in, 5);
    // No more is charged than was reserved, however much came in one piece.
    assert!(rows[1].bytes_in <= 10, "{}", rows[1].bytes_in);
}

#[tokio::test]
async fn rejections_past_ten_a_second_share_a_row() {
    let rig = rig(ok("")).await;
    rig.ledger.deny(Policy::Rate);
    let mut sent = 0;
    // Within one second of the clock, whenever the test starts.
    let second = Timestamp::now().unix_seconds();
    while Timestamp::now().unix_seconds() == second {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..50 {
        assert_eq!(status(&rig.get("/", "").await), 429);
        sent += 1;
    }
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let rows = rig.ledger.rows();
    let (shared, own): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.request_id == RequestId::default());
    assert!(own.len() >= 10 && !shared.is_empty(), "{} own, {} shared", own.len(), shared.len());
    assert_eq!(rows.iter().map(|row| row.count).sum::<u32>(), sent);
}
