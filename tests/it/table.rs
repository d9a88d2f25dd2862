//! The contract's table of answers, from outside: status, problem, row.

use serde_json::{Value, json};
use tests::{Admin, Answer, Cluster, Upstream, client, free_addr, get, post};

/// A problem of the contract, and its row where the key is known.
fn refused(answer: &Answer, status: u16, code: &str, admin: Option<&Admin>) {
    assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/problem+json", "{code}");
    assert_eq!(answer.body["status"].as_u64(), Some(u64::from(status)), "{code}");
    for field in ["type", "title", "detail", "request_id"] {
        assert!(answer.body[field].is_string(), "{code} without {field}: {}", answer.text);
    }
    assert_eq!(answer.body["request_id"].as_str(), Some(answer.header("x-request-id")), "{code}");
    assert_eq!(status == 401, !answer.header("www-authenticate").is_empty(), "{code}");
    if let Some(admin) = admin {
        let row = admin.row(answer.header("x-request-id"));
        assert_eq!((row["status"].as_u64(), row["outcome"].as_str()), (Some(u64::from(status)), Some(code)));
    }
}

struct World {
    cluster: Cluster,
    admin: Admin,
    _upstream: Upstream,
}

impl World {
    fn new() -> Self {
        let (upstream, cluster) = (Upstream::start(), Cluster::start(1));
        let admin = cluster.nodes[0].admin();
        admin.put_route(&upstream.url);
        admin.put_tier("open", &json!({}));
        admin.create_account("acme", "open");
        Self { cluster, admin, _upstream: upstream }
    }

    fn get(&self, path: &str, key: &str) -> Answer {
        get(&client(), &self.cluster.nodes[0].url(path), key).expect("an answer")
    }

    fn key(&self, fields: &Value) -> (String, String) {
        self.admin.create_key("acme", fields)
    }
}

#[test]
fn keys_that_are_missing_malformed_or_unknown_are_401_without_a_row() {
    let world = World::new();
    refused(&world.get("/", ""), 401, "missing-key", None);
    refused(&world.get("/", "tg_live_short"), 401, "malformed-key", None);
    let unknown = store::model::Secret::generate(store::model::SecretKind::Live);
    refused(&world.get("/", unknown.expose()), 401, "unknown-key", None);
    assert!(world.admin.rows("").is_empty(), "an attacker must not fill the log");
}

#[test]
fn the_state_of_key_and_account_decides_on_the_very_next_request() {
    let world = World::new();
    let (id, key) = world.key(&json!({ "name": "a" }));
    let path = format!("/v1/keys/{id}");
    assert_eq!(world.get("/", &key).status, 200);
    world.admin.write("PATCH", &path, &json!({ "state": "disabled" }));
    refused(&world.get("/", &key), 403, "key-disabled", Some(&world.admin));
    world.admin.write("PATCH", &path, &json!({ "state": "active" }));
    assert_eq!(world.get("/", &key).status, 200);
    world.admin.write("PATCH", "/v1/accounts/acme", &json!({ "state": "suspended" }));
    refused(&world.get("/", &key), 403, "account-suspended", Some(&world.admin));
    world.admin.write("PATCH", "/v1/accounts/acme", &json!({ "state": "active" }));
    assert!((200..300).contains(&world.admin.call("DELETE", &path, None).status));
    refused(&world.get("/", &key), 401, "revoked-key", Some(&world.admin));
    let (_, expired) = world.key(&json!({ "name": "b", "expires_at": "2031-01-01T00:00:00Z" }));
    assert_eq!(world.get("/", &expired).status, 200);
    let (_, elsewhere) = world.key(&json!({ "name": "c", "allowed_ips": ["192.0.2.0/24"] }));
    refused(&world.get("/", &elsewhere), 403, "ip-not-allowed", Some(&world.admin));
}

#[test]
fn a_rotated_key_overlaps_for_its_grace_and_without_grace_ends_at_once() {
    let world = World::new();
    let (id, old) = world.key(&json!({ "name": "a" }));
    let made = world.admin.write("POST", &format!("/v1/keys/{id}/rotate"), &json!({ "grace_seconds": 3600 }));
    let new = made["secret"].as_str().expect("a secret");
    assert_eq!((world.get("/", &old).status, world.get("/", new).status), (200, 200));
    let id = made["id"].as_str().expect("an id");
    let made = world.admin.write("POST", &format!("/v1/keys/{id}/rotate"), &json!({ "grace_seconds": 0 }));
    assert_eq!(world.get("/", new).status, 401);
    assert_eq!(world.get("/", made["secret"].as_str().expect("a secret")).status, 200);
    assert!(world.admin.get(&format!("/v1/keys/{id}"))["secret"].is_null(), "a secret is shown once");
}

#[test]
fn routes_scopes_and_bodies_are_checked() {
    let world = World::new();
    let (_, key) = world.key(&json!({ "name": "a" }));
    let dead = format!("http://{}", free_addr());
    world.admin.write("PUT", "/v1/upstreams/dead", &json!({ "targets": [{ "url": dead }] }));
    let route = |name: &str, fields: Value| {
        let mut all = json!({ "match": { "path_prefix": format!("/{name}") }, "upstream": "scan" });
        all.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        world.admin.write("PUT", &format!("/v1/routes/{name}"), &all);
    };
    route("scoped", json!({ "scopes": ["admin"] }));
    route("dead", json!({ "upstream": "dead" }));
    route("delay", json!({ "timeout_ms": 100 }));
    refused(&world.get("/scoped", &key), 403, "scope-missing", Some(&world.admin));
    refused(&world.get("/dead", &key), 502, "upstream-unreachable", Some(&world.admin));
    refused(&world.get("/delay/2000", &key), 504, "upstream-timeout", Some(&world.admin));
    world.admin.put_tier("open", &json!({ "max_body_bytes": 10 }));
    let url = world.cluster.nodes[0].url("/");
    let large = post(&client(), &url, &key, &[b'x'; 11]).expect("an answer");
    refused(&large, 413, "body-too-large", Some(&world.admin));
    world.admin.put_tier("open", &json!({ "routes": ["scoped"] }));
    refused(&world.get("/", &key), 403, "route-not-in-tier", Some(&world.admin));
    assert_eq!(world.admin.call("DELETE", "/v1/routes/scan", None).status / 100, 2);
    refused(&world.get("/", &key), 404, "no-route", Some(&world.admin));
}

#[test]
fn a_burst_and_a_quota_admit_exactly_what_they_say() {
    let world = World::new();
    let limit = json!([{ "name": "slow", "per": ["key"], "rate": "1/m", "burst": 7 }]);
    world.admin.put_tier("open", &json!({ "limits": limit }));
    let (_, key) = world.key(&json!({ "name": "a" }));
    for left in (0..7).rev() {
        let answer = world.get("/", &key);
        assert_eq!(answer.status, 200);
        assert!(answer.header("ratelimit").contains(&format!("\"slow\";r={left}")), "{}", answer.header("ratelimit"));
        assert_eq!(answer.header("ratelimit-policy"), "\"slow\";q=1;w=60");
    }
    let answer = world.get("/", &key);
    refused(&answer, 429, "rate-limited", Some(&world.admin));
    let wait: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((50..=60).contains(&wait), "a unit comes back after a minute: {wait}");
    assert_eq!(answer.body["violated-policies"], json!(["slow"]));

    let quotas = json!([
        { "name": "daily", "unit": "requests", "limit": 20, "period": "day" },
        { "name": "bytes", "unit": "content-bytes", "limit": 1_000, "period": "month" },
    ]);
    world.admin.put_tier("open", &json!({ "quotas": quotas }));
    let url = world.cluster.nodes[0].url("/");
    let send = |bytes: usize| post(&client(), &url, &key, &vec![b'x'; bytes]).expect("an answer");
    assert_eq!(send(900).status, 200);
    let large = send(101);
    refused(&large, 429, "quota-exceeded", Some(&world.admin));
    assert_eq!(large.body["violated-policies"], json!(["bytes"]));
    assert_eq!(send(100).status, 200);
    let admitted = (0..40).filter(|_| world.get("/", &key).status == 200).count();
    assert_eq!(admitted, 18, "20 less the two that were sent");
}
