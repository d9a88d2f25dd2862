//! Bad input to the admin API: told with its place, and nothing changed.

use serde_json::{Value, json};
use tests::{Admin, Cluster, Upstream};

/// Tier `free`, account `acme`, a key of it, route and upstream `scan`: the key's id.
fn furnish(admin: &Admin, upstream: &Upstream) -> String {
    admin.put_route(&upstream.url);
    admin.put_tier("free", &json!({ "limits": [{ "name": "per-second", "rate": "5/s", "burst": 15 }] }));
    admin.create_account("acme", "free");
    admin.create_key("acme", &json!({ "name": "main" })).0
}

/// Everything that a refused write could have changed.
fn all(admin: &Admin) -> Vec<Value> {
    let lists = ["accounts", "tiers", "routes", "upstreams", "tokens", "accounts/acme/keys"];
    lists.iter().map(|list| admin.get(&format!("/v1/{list}"))).collect()
}

#[test]
fn wrong_fields_are_told_with_their_places_and_change_nothing() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    let key = format!("/v1/keys/{}", furnish(&admin, &upstream));
    let key = key.as_str();
    let before = all(&admin);
    let limit = |field: &str, value: Value| {
        let mut limit = json!({ "name": "x", "rate": "5/s", "burst": 15 });
        limit[field] = value;
        json!({ "limits": [limit] })
    };
    let quota = |field: &str, value: Value| {
        let mut quota = json!({ "name": "x", "unit": "requests", "limit": 10, "period": "day" });
        quota[field] = value;
        json!({ "quotas": [quota] })
    };
    let route = |field: &str, value: Value| {
        let mut route = json!({ "match": { "path_prefix": "/" }, "upstream": "scan" });
        route[field] = value;
        route
    };
    let free = "/v1/tiers/free";
    let scan = "/v1/routes/scan";
    let targets = |url: &str| json!({ "targets": [{ "url": url }] });
    let cases = [
        ("PUT", free, json!({ "brust": 1 }), "/brust"),
        ("PUT", free, limit("brust", json!(1)), "/limits/0/brust"),
        ("PUT", free, limit("rate", json!(5)), "/limits/0/rate"),
        ("PUT", free, limit("rate", json!("5/fortnight")), "/limits/0/rate"),
        ("PUT", free, limit("rate", json!("0/s")), "/limits/0/rate"),
        ("PUT", free, limit("burst", json!(0)), "/limits/0/burst"),
        ("PUT", free, limit("burst", json!(1.5)), "/limits/0/burst"),
        ("PUT", free, limit("burst", json!("15")), "/limits/0/burst"),
        ("PUT", free, limit("per", json!(["planet"])), "/limits/0/per/0"),
        ("PUT", free, quota("limit", json!(-1)), "/quotas/0/limit"),
        ("PUT", free, quota("unit", json!("bytes")), "/quotas/0/unit"),
        ("PUT", free, quota("period", json!("year")), "/quotas/0/period"),
        ("PUT", free, quota("timezone", json!("Mars/Olympus")), "/quotas/0/timezone"),
        ("PUT", free, quota("overage", json!("maybe")), "/quotas/0/overage"),
        ("PUT", free, json!({ "concurrency": "20" }), "/concurrency"),
        ("PUT", free, json!({ "max_body_bytes": -5 }), "/max_body_bytes"),
        ("PUT", free, json!({ "routes": "scan" }), "/routes"),
        ("PUT", free, json!({ "name": "enterprise" }), "/name"),
        ("PUT", free, json!([]), ""),
        ("PUT", scan, route("methods", json!(["GET"])), "/methods"),
        ("PUT", scan, route("match", json!({ "path_prefix": "v3" })), "/match/path_prefix"),
        ("PUT", scan, route("match", json!("/v3")), "/match"),
        ("PUT", scan, route("upstream", json!(null)), "/upstream"),
        ("PUT", scan, route("upstream", json!("nowhere")), "/upstream"),
        ("PUT", scan, route("timeout_ms", json!("1s")), "/timeout_ms"),
        ("PUT", scan, route("retries", json!(-1)), "/retries"),
        ("PUT", scan, route("cost", json!(0.5)), "/cost"),
        ("PUT", "/v1/upstreams/scan", json!({}), "/targets"),
        ("PUT", "/v1/upstreams/scan", targets("ftp://x"), "/targets/0/url"),
        ("PUT", "/v1/upstreams/scan", json!({ "targets": [] }), "/targets"),
        ("POST", "/v1/accounts", json!({ "id": "new" }), "/tier"),
        ("POST", "/v1/accounts", json!({ "id": "new", "tier": "nowhere" }), "/tier"),
        ("POST", "/v1/accounts", json!({ "id": "a b", "tier": "free" }), "/id"),
        ("POST", "/v1/accounts", json!({ "id": "new", "tier": "free", "colour": "red" }), "/colour"),
        ("POST", "/v1/accounts", json!({ "id": "new", "tier": "free", "metadata": [] }), "/metadata"),
        ("PATCH", "/v1/accounts/acme", json!({ "state": "asleep" }), "/state"),
        ("PATCH", "/v1/accounts/acme", json!({ "tier": 5 }), "/tier"),
        ("PATCH", "/v1/accounts/acme", json!({ "colour": "red" }), "/colour"),
        ("PATCH", "/v1/accounts/acme", json!({ "id": "other" }), "/id"),
        ("POST", "/v1/accounts/acme/keys", json!({ "allowed_ips": ["10.0.0.0/33"] }), "/allowed_ips/0"),
        ("POST", "/v1/accounts/acme/keys", json!({ "expires_at": "tomorrow" }), "/expires_at"),
        ("POST", "/v1/accounts/acme/keys", json!({ "expires_at": "2020-01-01T00:00:00Z" }), "/expires_at"),
        ("POST", "/v1/accounts/acme/keys", json!({ "env": "staging" }), "/env"),
        ("POST", "/v1/accounts/acme/keys", json!({ "secret": "mine" }), "/secret"),
        ("PATCH", key, json!({ "state": "revoked" }), "/state"),
        ("PATCH", key, json!({ "scopes": ["a b"] }), "/scopes/0"),
        ("PATCH", key, json!({ "env": "test" }), "/env"),
    ];
    for (method, path, body, pointer) in cases {
        let answer = admin.call(method, path, Some(&body));
        assert!(matches!(answer.status, 400 | 422), "{method} {path} {body}: {} {}", answer.status, answer.text);
        answer.assert_problem(answer.status, answer.body["code"].as_str().unwrap_or_default());
        let errors = answer.body["errors"].as_array().unwrap_or_else(|| panic!("{body}: {}", answer.text));
        let pointers: Vec<&str> = errors.iter().filter_map(|error| error["pointer"].as_str()).collect();
        assert_eq!(pointers, [pointer], "{method} {path} {body}: {}", answer.text);
        assert!(errors[0]["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", answer.text);
    }
    // All that is wrong at once.
    let answer = admin.call("PUT", free, Some(&json!({ "concurrency": 0, "limits": [{}], "x": 1 })));
    let count = answer.body["errors"].as_array().map(Vec::len);
    assert!(count >= Some(4), "{}", answer.text);
    assert_eq!(all(&admin), before);
}

#[test]
fn bodies_that_cannot_be_read_are_refused() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    furnish(&admin, &upstream);
    let before = all(&admin);
    let json_type = [("content-type", "application/json")];
    for body in ["{", "{\"concurrency\": 5,}", "\u{feff}{}x", "null"] {
        let answer = admin.send("PUT", "/v1/tiers/free", &json_type, body.as_bytes());
        assert!(matches!(answer.status, 400 | 422), "{body:?}: {} {}", answer.status, answer.text);
        answer.assert_problem(answer.status, answer.body["code"].as_str().unwrap_or_default());
    }
    let deep = "[".repeat(100_000);
    let answer = admin.send("PUT", "/v1/tiers/free", &json_type, deep.as_bytes());
    answer.assert_problem(400, "malformed-body");
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20));
    let answer = admin.send("PUT", "/v1/tiers/free", &json_type, long.as_bytes());
    answer.assert_problem(413, "body-too-large");
    assert_eq!(all(&admin), before);
    assert!(cluster.nodes[0].is_ready());
}

#[test]
fn if_match_is_honoured_and_answers_the_current_revision() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    let key = furnish(&admin, &upstream);
    for (method, path, body) in [
        ("PUT", "/v1/tiers/free".to_owned(), json!({ "concurrency": 5 })),
        ("PATCH", "/v1/accounts/acme".to_owned(), json!({ "name": "Acme Inc." })),
        ("PATCH", format!("/v1/keys/{key}"), json!({ "name": "renamed" })),
        ("PUT", "/v1/routes/scan".to_owned(), json!({ "match": { "path_prefix": "/v3" }, "upstream": "scan" })),
        ("PUT", "/v1/upstreams/scan".to_owned(), json!({ "targets": [{ "url": upstream.url }], "max_connections": 5 })),
    ] {
        let first = admin.call("GET", &path, None);
        let tag = first.header("etag").to_owned();
        assert!(!tag.is_empty(), "{path}: {:?}", first.headers);
        let text = body.to_string();
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let write =
            |tag: &str| admin.send(method, &path, &[("content-type", kind), ("if-match", tag)], text.as_bytes());
        let written = write(&tag);
        assert_eq!(written.status, 200, "{path}: {}", written.text);
        let now = admin.call("GET", &path, None);
        assert_ne!(now.header("etag"), tag, "{path}");
        assert_eq!(now.header("etag"), written.header("etag"), "{path}");
        let stale = write(&tag);
        stale.assert_problem(412, "precondition-failed");
        assert_eq!(stale.header("etag"), now.header("etag"), "{path}: the current one is answered");
        assert_eq!(admin.get(&path), now.body, "{path}: nothing changed");
        let bad = write("seventeen");
        assert_eq!(bad.status, 400, "{path}: {}", bad.text);
        let gone = admin.send("DELETE", &path, &[("if-match", &tag)], b"");
        gone.assert_problem(412, "precondition-failed");
        assert_eq!(admin.get(&path), now.body, "{path}: nothing changed");
    }
    let create = [("content-type", "application/json"), ("if-none-match", "*")];
    admin.send("PUT", "/v1/tiers/free", &create, b"{}").assert_problem(412, "precondition-failed");
    assert_eq!(admin.send("PUT", "/v1/tiers/new", &create, b"{}").status, 201);
}

#[test]
fn queries_that_make_no_sense_are_refused() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    furnish(&admin, &upstream);
    for path in ["/v1/requests", "/v1/accounts", "/v1/tiers", "/v1/accounts/acme/keys", "/v1/audit"] {
        for query in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=ten",
            "limit=",
            "cursor=%21%21",
            "colour=red",
            "limit=5&limit=6",
        ] {
            let answer = admin.call("GET", &format!("{path}?{query}"), None);
            assert_eq!(answer.status, 400, "{path}?{query}: {}", answer.text);
            answer.assert_problem(400, "malformed-query");
            let name = query.split('=').next().expect("a name");
            assert_eq!(answer.body["errors"][0]["pointer"], format!("?{name}"), "{}", answer.text);
        }
        for query in ["limit=1", "limit=1000"] {
            assert_eq!(admin.call("GET", &format!("{path}?{query}"), None).status, 200, "{path}?{query}");
        }
    }
    for query in ["status=ok", "since=yesterday", "until=2026-13-01T00:00:00Z", "status=99999"] {
        let answer = admin.call("GET", &format!("/v1/requests?{query}"), None);
        answer.assert_problem(400, "malformed-query");
    }
    for query in ["step=week", "by=colour"] {
        admin.call("GET", &format!("/v1/accounts/acme/usage?{query}"), None).assert_problem(400, "malformed-query");
    }
    // It can be read and makes no sense.
    let backwards = "since=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z";
    let answer = admin.call("GET", &format!("/v1/accounts/acme/usage?{backwards}"), None);
    answer.assert_problem(422, "invalid-query");
    admin.call("GET", "/v1/requests/not-an-id", None).assert_problem(404, "not-found");
    admin.call("GET", "/v1/accounts/nobody", None).assert_problem(404, "not-found");
    admin.call("GET", "/v1/nothing", None).assert_problem(404, "not-found");
    admin.call("PUT", "/v1/accounts", Some(&json!({}))).assert_problem(405, "method-not-allowed");
}

#[test]
fn who_may_not_is_refused() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    furnish(&admin, &upstream);
    let addr = &cluster.nodes[0].admin_addr;
    Admin::new(addr, "tga_nothing").call("GET", "/v1/tiers", None).assert_problem(401, "malformed-token");
    let made = admin.write("POST", "/v1/tokens", &json!({ "name": "eyes", "role": "viewer" }));
    let viewer = Admin::new(addr, made["secret"].as_str().expect("a secret"));
    viewer.get("/v1/tiers");
    let before = all(&admin);
    for (method, path, body) in [
        ("PUT", "/v1/tiers/free", json!({})),
        ("POST", "/v1/accounts/acme/keys", json!({})),
        ("PATCH", "/v1/accounts/acme", json!({ "state": "suspended" })),
        ("DELETE", "/v1/tiers/free", Value::Null),
    ] {
        let answer = viewer.call(method, path, Some(&body));
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text);
    }
    assert_eq!(all(&admin), before);
}
