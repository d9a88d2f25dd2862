//! The error table of the contract, row by row, over real sockets; and what the upstream gets.

use std::{
    collections::HashSet,
    thread,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tests::{Admin, Answer, Cluster, Raw, Upstream, client, free_addr, get, post, rfc3339, send, until};

/// A node, an upstream and the account `acme` of an open tier with a route for `/`.
struct Stage {
    upstream: Upstream,
    cluster: Cluster,
    admin: Admin,
    key: String,
}

impl Stage {
    fn new() -> Self {
        let upstream = Upstream::start();
        let cluster = Cluster::start(1);
        let admin = cluster.nodes[0].admin();
        let key = admin.open_account(&upstream.url);
        Self { upstream, cluster, admin, key }
    }

    fn url(&self, path: &str) -> String {
        self.cluster.nodes[0].url(path)
    }

    fn get(&self, path: &str, key: &str) -> Answer {
        get(&client(), &self.url(path), key).expect("an answer")
    }

    /// An account of a tier of its own, and a key of it.
    fn account(&self, name: &str, tier: &Value) -> String {
        self.admin.put_tier(name, tier);
        self.admin.create_account(name, name);
        self.admin.create_key(name, &json!({})).1
    }

    /// Checks a refusal and its row.
    #[track_caller]
    fn refused(&self, answer: &Answer, status: u16, code: &str) -> Value {
        answer.assert_problem(status, code);
        let row = self.admin.get(&format!("/v1/requests/{}", answer.header("x-request-id")));
        assert_eq!(
            (&row["status"], &row["outcome"], &row["count"]),
            (&json!(status), &json!(code), &json!(1)),
            "{row}"
        );
        row
    }
}

/// A key text with the contract's checksum.
fn key_text(prefix: &str, random: &str) -> String {
    let text = format!("{prefix}{random}");
    let mut crc = u32::MAX;
    for byte in text.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    let mut rest = !crc;
    let mut sum = [b'0'; 6];
    for digit in sum.iter_mut().rev() {
        *digit = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(rest % 62) as usize];
        rest /= 62;
    }
    text + std::str::from_utf8(&sum).expect("ASCII")
}

pub(crate) fn unknown_key() -> String {
    key_text("tg_live_", &"a1".repeat(15))
}

/// A number of `/metrics`, all labels added up.
fn metric(stage: &Stage, name: &str) -> f64 {
    let answer = stage.admin.call("GET", "/metrics", None);
    let lines = answer.text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn keys_that_are_no_keys_are_401_without_a_row() {
    let stage = Stage::new();
    let name = "tollgate_unknown_key_requests_total";
    let before = metric(&stage, name);
    let mistyped = format!("{}x", &stage.key[..stage.key.len() - 1]);
    let mistyped = if mistyped == stage.key { format!("{}y", &stage.key[..stage.key.len() - 1]) } else { mistyped };
    let cases = [
        (String::new(), "missing-key"),
        (mistyped, "malformed-key"),
        (format!("{}0", stage.key), "malformed-key"),
        (stage.admin.token().to_owned(), "malformed-key"),
        ("x".repeat(5_000), "malformed-key"),
        (unknown_key(), "unknown-key"),
    ];
    for (key, code) in &cases {
        let answer = stage.get("/", key);
        answer.assert_problem(401, code);
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{:?}", answer.headers);
        assert!(key.is_empty() || !answer.text.contains(key.as_str()), "{}", answer.text);
        let id = answer.header("x-request-id");
        assert_eq!(stage.admin.call("GET", &format!("/v1/requests/{id}"), None).status, 404);
    }
    let agent = client();
    let answer = send(&agent, "GET", &stage.url("/"), &[("x-api-key", &unknown_key())], &[]).expect("an answer");
    answer.assert_problem(401, "unknown-key");
    // In the query it is no key.
    stage.get(&format!("/?api_key={}", stage.key), "").assert_problem(401, "missing-key");
    assert!(metric(&stage, name) > before, "{}", stage.admin.call("GET", "/metrics", None).text);
    assert_eq!(stage.admin.rows("").len(), 0);
    assert_eq!(stage.upstream.requests(), 0);
    assert_eq!(send(&agent, "GET", &stage.url("/"), &[("x-api-key", &stage.key)], &[]).expect("an answer").status, 200);
}

#[test]
fn keys_have_the_contracts_text() {
    let stage = Stage::new();
    for env in ["live", "test"] {
        let (_, secret) = stage.admin.create_key("acme", &json!({ "env": env }));
        let prefix = format!("tg_{env}_");
        let random = secret.strip_prefix(&prefix).and_then(|rest| rest.get(..30)).expect("prefix and 30 characters");
        assert_eq!(secret, key_text(&prefix, random));
    }
}

#[test]
fn keys_in_a_wrong_state_are_refused_with_a_row() {
    let stage = Stage::new();
    let admin = &stage.admin;
    let soon = rfc3339(SystemTime::now() + Duration::from_millis(1_500));
    let (_, expiring) = admin.create_key("acme", &json!({ "expires_at": soon }));
    let (id, revoked) = admin.create_key("acme", &json!({}));
    admin.call("DELETE", &format!("/v1/keys/{id}"), None);
    let answer = stage.get("/", &revoked);
    let row = stage.refused(&answer, 401, "revoked-key");
    assert_eq!((&row["key_id"], &row["account"]), (&json!(id), &json!("acme")));
    let (id, disabled) = admin.create_key("acme", &json!({}));
    admin.write("PATCH", &format!("/v1/keys/{id}"), &json!({ "state": "disabled" }));
    stage.refused(&stage.get("/", &disabled), 403, "key-disabled");
    let (_, elsewhere) = admin.create_key("acme", &json!({ "allowed_ips": ["10.0.0.0/8", "2001:db8::/32"] }));
    stage.refused(&stage.get("/", &elsewhere), 403, "ip-not-allowed");
    let (_, here) = admin.create_key("acme", &json!({ "allowed_ips": ["10.0.0.0/8", "127.0.0.0/8"] }));
    assert_eq!(stage.get("/", &here).status, 200);
    let suspended = stage.account("bad", &json!({}));
    assert_eq!(stage.get("/", &suspended).status, 200);
    admin.write("PATCH", "/v1/accounts/bad", &json!({ "state": "suspended" }));
    stage.refused(&stage.get("/", &suspended), 403, "account-suspended");
    let answer = until("the key's end", || Some(stage.get("/", &expiring)).filter(|answer| answer.status != 200));
    stage.refused(&answer, 401, "expired-key");
    assert_eq!(stage.upstream.requests(), admin.rows("status=200").len() as u64);
}

#[test]
fn routes_decide_by_path_scope_and_tier() {
    let stage = Stage::new();
    let admin = &stage.admin;
    admin.write(
        "PUT",
        "/v1/routes/scan",
        &json!({ "match": { "path_prefix": "/v3", "methods": ["GET"] }, "upstream": "scan" }),
    );
    let scoped = json!({ "match": { "path_prefix": "/scoped" }, "upstream": "scan", "scopes": ["read"] });
    admin.write("PUT", "/v1/routes/scoped", &scoped);
    let narrow = stage.account("narrow", &json!({ "routes": ["scoped"] }));
    stage.refused(&stage.get("/v4", &stage.key), 404, "no-route");
    stage.refused(&stage.get("/v30", &stage.key), 404, "no-route");
    stage.refused(&post(&client(), &stage.url("/v3"), &stage.key, b"{}").expect("an answer"), 404, "no-route");
    stage.refused(&stage.get("/v3/x", &narrow), 403, "route-not-in-tier");
    stage.refused(&stage.get("/scoped", &stage.key), 403, "scope-missing");
    let (_, reader) = admin.create_key("acme", &json!({ "scopes": ["read"] }));
    assert_eq!(stage.get("/scoped/x", &reader).status, 200);
    assert_eq!(stage.upstream.requests(), 1);
}

#[test]
fn bodies_beyond_the_limit_are_413_declared_or_chunked() {
    let stage = Stage::new();
    let key = stage.account("small", &json!({ "max_body_bytes": 1_000 }));
    let addr = &stage.cluster.nodes[0].data_addr;
    let full = post(&client(), &stage.url("/count"), &key, &[b'x'; 1_000]).expect("an answer");
    assert_eq!((full.status, full.text.as_str()), (200, "1000"));
    let declared = Raw::request(addr, "POST /count", &key, "content-length: 1001\r\n").answer().expect("an answer");
    stage.refused(&declared, 413, "body-too-large");
    // Where nothing says how much, the node's own bound does.
    let length = format!("content-length: {}\r\n", i64::MAX);
    let endless = Raw::request(addr, "POST /count", &stage.key, &length).answer().expect("an answer");
    stage.refused(&endless, 413, "body-too-large");
    assert_eq!(stage.upstream.requests(), 1, "refused before the upstream");
    let mut chunked = Raw::request(addr, "POST /count", &key, "transfer-encoding: chunked\r\n");
    chunked.send_chunk(&[b'x'; 600]).expect("send");
    chunked.send_chunk(&[b'x'; 600]).expect("send");
    stage.refused(&chunked.answer().expect("an answer"), 413, "body-too-large");
    // A route's own limit is the one that counts.
    let wide = json!({ "match": { "path": "/count" }, "upstream": "scan", "max_body_bytes": 10 });
    stage.admin.write("PUT", "/v1/routes/narrow", &wide);
    let answer = post(&client(), &stage.url("/count"), &key, &[b'x'; 11]).expect("an answer");
    stage.refused(&answer, 413, "body-too-large");
}

#[test]
fn policies_refuse_with_429_and_their_names() {
    let stage = Stage::new();
    let limit = json!([{ "name": "slowly", "rate": "1/h", "burst": 1 }]);
    let quota = json!([{ "name": "daily", "unit": "requests", "limit": 1, "period": "day" }]);
    for (name, tier, code, policy) in [
        ("rate", json!({ "limits": limit }), "rate-limited", "slowly"),
        ("quota", json!({ "quotas": quota }), "quota-exceeded", "daily"),
    ] {
        let key = stage.account(name, &tier);
        let first = until("the first unit", || Some(stage.get("/", &key)).filter(|answer| answer.status != 429));
        assert_eq!(first.status, 200, "{}", first.text);
        let answer = stage.get("/", &key);
        stage.refused(&answer, 429, code);
        assert_eq!(answer.body["violated-policies"], json!([policy]));
        assert!(answer.header("ratelimit").contains(&format!("\"{policy}\";r=0;t=")), "{:?}", answer.headers);
        assert!(answer.header("ratelimit-policy").contains(&format!("\"{policy}\";q=1")), "{:?}", answer.headers);
    }
    let key = stage.account("one", &json!({ "concurrency": 1 }));
    let before = stage.upstream.requests();
    thread::scope(|scope| {
        let slow = scope.spawn(|| stage.get("/delay/2000", &key));
        until("the first one at the upstream", || (stage.upstream.requests() > before).then_some(()));
        stage.refused(&stage.get("/", &key), 429, "concurrency-exceeded");
        assert_eq!(slow.join().expect("joins").status, 200);
    });
    assert_eq!(stage.get("/", &key).status, 200);
}

#[test]
fn upstreams_that_fail_are_502_and_504() {
    let stage = Stage::new();
    let admin = &stage.admin;
    admin.write("PUT", "/v1/upstreams/dead", &json!({ "targets": [{ "url": format!("http://{}", free_addr()) }] }));
    admin.write("PUT", "/v1/routes/dead", &json!({ "match": { "path_prefix": "/dead" }, "upstream": "dead" }));
    let slow = json!({ "match": { "path_prefix": "/delay" }, "upstream": "scan", "timeout_ms": 200 });
    admin.write("PUT", "/v1/routes/slow", &slow);
    let answer = stage.get("/dead", &stage.key);
    stage.refused(&answer, 502, "upstream-unreachable");
    assert!(!answer.text.contains("127.0.0.1"), "no internal address: {}", answer.text);
    let row = stage.refused(&stage.get("/delay/5000", &stage.key), 504, "upstream-timeout");
    assert!(row["duration_us"].as_u64().is_some_and(|us| (200_000..5_000_000).contains(&us)), "{row}");
    // Answers of the upstream are its own, errors too.
    let answer = stage.get("/status/503", &stage.key);
    assert_eq!((answer.status, answer.text.as_str()), (503, ""));
    let row = admin.row(answer.header("x-request-id"));
    assert_eq!((&row["status"], &row["outcome"]), (&json!(503), &json!("admitted")));
}

#[test]
fn without_a_quorum_every_answer_is_503() {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(3);
    let admin = cluster.nodes[0].admin();
    let key = admin.open_account(&upstream.url);
    let (id, disabled) = admin.create_key("acme", &json!({}));
    admin.write("PATCH", &format!("/v1/keys/{id}"), &json!({ "state": "disabled" }));
    let (id, revoked) = admin.create_key("acme", &json!({}));
    admin.call("DELETE", &format!("/v1/keys/{id}"), None);
    admin.put_tier("used-up", &json!({ "limits": [{ "name": "hourly", "rate": "1/h", "burst": 1 }] }));
    admin.create_account("limited", "used-up");
    let (_, limited) = admin.create_key("limited", &json!({}));
    let agent = client();
    let url = cluster.nodes[0].url("/");
    until("the limit is used up", || (get(&agent, &url, &limited).ok()?.status == 429).then_some(()));
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    // From the kill on nothing can be committed; what the node says of keys alone, it may say until its view's lease ends.
    get(&agent, &url, &key).expect("an answer").assert_problem(503, "temporary-reduced-capacity");
    until("the end of the view's lease", || (get(&agent, &url, &unknown_key()).ok()?.status == 503).then_some(()));
    for key in [&key, &disabled, &revoked, &limited, &unknown_key()] {
        // More than have rows of their own in a second.
        for _ in 0..30 {
            get(&agent, &url, key).expect("an answer").assert_problem(503, "temporary-reduced-capacity");
        }
    }
    // Read when the quorum is back: nothing of this was admitted.
    let before = upstream.requests();
    cluster.nodes[1].start();
    until("the quorum", || (get(&agent, &url, &key).ok()?.status == 200).then_some(()));
    assert_eq!(upstream.requests(), before + 1);
    assert_eq!(get(&agent, &url, &disabled).expect("an answer").status, 403);
    assert_eq!(get(&agent, &url, &unknown_key()).expect("an answer").status, 401);
}

#[test]
fn an_answer_that_cannot_be_logged_is_not_released_and_says_that_the_upstream_was_called() {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader(1);
    let key = cluster.nodes[leader].admin().open_account(&upstream.url);
    let url = cluster.nodes[leader].url("/delay/2000");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| get(&client(), &url, &key).expect("an answer"));
        until("the request at the upstream", || (upstream.requests() > 0).then_some(()));
        for (n, node) in cluster.nodes.iter_mut().enumerate() {
            if n != leader {
                node.kill();
            }
        }
        let answer = waiting.join().expect("joins");
        answer.assert_problem(503, "temporary-reduced-capacity");
        assert_eq!(answer.body["upstream_executed"], true, "{}", answer.text);
        assert!(!answer.text.contains("late"), "{}", answer.text);
        // Refused before the upstream, it does not say so.
        let answer = get(&client(), &url, &key).expect("an answer");
        answer.assert_problem(503, "temporary-reduced-capacity");
        assert!(answer.body.get("upstream_executed").is_none(), "{}", answer.text);
    });
    assert_eq!(upstream.requests(), 1, "never tried again");
}

#[test]
fn the_upstream_gets_ids_and_names_and_never_the_key() {
    let stage = Stage::new();
    let key = stage.key.as_str();
    let client_id = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";
    let bearer = format!("Bearer {key}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-api-key", key),
        ("x-request-id", client_id),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-tollgate-account", "somebody-else"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    let answer = send(&client(), "GET", &stage.url("/echo?card=4111&x=1"), &headers, &[]).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(!answer.text.contains(key), "{}", answer.text);
    let echo = &answer.body;
    assert_eq!(echo["uri"], "/echo?card=4111&x=1");
    let header = |name: &str| echo["headers"][name].as_str().unwrap_or_default();
    let id = answer.header("x-request-id");
    assert_eq!(header("x-request-id"), id);
    assert!(id != client_id && id.len() == 36 && id.as_bytes()[14] == b'7', "{id}");
    assert!(header("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{echo}");
    assert_eq!((header("x-tollgate-account"), header("x-tollgate-tier")), ("acme", "open"));
    assert_eq!(header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(header("x-forwarded-proto"), "http");
    assert_eq!(header("x-forwarded-host"), stage.cluster.nodes[0].data_addr);
    let row = stage.admin.row(id);
    for (field, value) in [
        ("client_request_id", client_id),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ("path", "/echo"),
        ("method", "GET"),
        ("route", "scan"),
        ("tier", "open"),
        ("client_ip", "127.0.0.1"),
        ("node", "node-1"),
        ("completion", "complete"),
        ("outcome", "admitted"),
    ] {
        assert_eq!(row[field], value, "{field} of {row}");
    }
    assert_eq!(row["bytes_out"], answer.text.len());
    assert!(!row.to_string().contains("4111") && !row.to_string().contains(key), "{row}");

    // Without one of the client's own there is a trace all the same; an id that is none is not kept.
    let headers = [("authorization", bearer.as_str()), ("x-request-id", "not an id \"at all\"")];
    let answer = send(&client(), "GET", &stage.url("/echo"), &headers, &[]).expect("an answer");
    let trace = answer.body["headers"]["traceparent"].as_str().expect("a traceparent").to_owned();
    let row = stage.admin.row(answer.header("x-request-id"));
    assert_eq!(trace.split('-').nth(1), row["trace_id"].as_str(), "{trace} {row}");
    assert!(row["client_request_id"].is_null(), "{row}");
}

#[test]
fn ambiguous_requests_are_400_and_never_reach_the_upstream() {
    let stage = Stage::new();
    let addr = &stage.cluster.nodes[0].data_addr;
    for (start, more) in [
        ("POST /count", "content-length: 3\r\ntransfer-encoding: chunked\r\n"),
        ("POST /count", "content-length: 3\r\ncontent-length: 4\r\n"),
        ("POST /count", "content-length: +3\r\n"),
        ("POST /count", "content-length: 18446744073709551616\r\n"),
        ("POST /count", "transfer-encoding: chunked, identity\r\n"),
        ("GET /", "host: other\r\n"),
        ("GET /v3/../admin", ""),
        ("GET /v3/%2e%2e/admin", ""),
    ] {
        let mut raw = Raw::request(addr, start, &stage.key, more);
        let head = raw.head().unwrap_or_else(|error| panic!("{start} {more:?}: {error}"));
        assert_eq!(head.status, 400, "{start} {more:?}");
    }
    assert_eq!(stage.upstream.requests(), 0);
}

#[test]
fn every_answer_has_an_id_of_its_own_and_one_row() {
    let stage = Stage::new();
    let agent = client();
    let mut ids = HashSet::new();
    for path in ["/", "/status/404", "/status/500", "/bytes/100000", "/echo"].into_iter().cycle().take(100) {
        let answer = get(&agent, &stage.url(path), &stage.key).expect("an answer");
        assert!(ids.insert(answer.header("x-request-id").to_owned()));
    }
    let rows = stage.admin.rows("account=acme");
    let logged: HashSet<String> = rows.iter().filter_map(|row| Some(row["request_id"].as_str()?.to_owned())).collect();
    assert_eq!((rows.len(), logged), (100, ids));
}
