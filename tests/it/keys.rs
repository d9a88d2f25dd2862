//! The life of a key, and P3: what the admin API has answered is in force on every node.

use std::time::Duration;

use serde_json::json;
use tests::{Cluster, Raw, Upstream, client, get, until};

#[test]
fn a_secret_is_shown_once() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    admin.open_account(&upstream.url);
    let fields = json!({ "name": "ci", "env": "test", "scopes": ["read"], "allowed_ips": ["127.0.0.1"] });
    let (id, secret) = admin.create_key("acme", &fields);
    let answer = get(&client(), &cluster.nodes[0].url("/"), &secret).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text);
    let shown = admin.get(&format!("/v1/keys/{id}"));
    assert_eq!((&shown["name"], &shown["env"], &shown["state"]), (&json!("ci"), &json!("test"), &json!("active")));
    assert_eq!((&shown["prefix"], &shown["last4"]), (&json!("tg_test_"), &json!(secret[secret.len() - 4..])));
    assert!(shown.get("secret").is_none(), "{shown}");
    until("last_used_at", || admin.get(&format!("/v1/keys/{id}"))["last_used_at"].as_str().map(str::to_owned));
    let rotated = admin.write("POST", &format!("/v1/keys/{id}/rotate"), &json!({ "grace_seconds": 60 }));
    let second = rotated["secret"].as_str().expect("a secret").to_owned();
    for path in ["/v1/accounts/acme/keys", "/v1/requests", "/v1/audit", "/v1/accounts/acme"] {
        let text = admin.get(path).to_string();
        for secret in [&secret, &second] {
            assert!(!text.contains(secret.as_str()) && !text.contains(&secret[8..38]), "{path}: {text}");
        }
    }
    let log = std::fs::read_to_string(&cluster.nodes[0].log).expect("read the log");
    assert!(!log.contains(&secret) && !log.contains(&second) && !log.contains(admin.token()), "{log}");
}

#[test]
fn rotation_overlaps_for_its_grace() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    admin.open_account(&upstream.url);
    let agent = client();
    let ask = |key: &str| get(&agent, &cluster.nodes[0].url("/"), key).expect("an answer");
    let (id, first) = admin.create_key("acme", &json!({ "name": "main", "scopes": ["read"] }));
    let rotated = admin.write("POST", &format!("/v1/keys/{id}/rotate"), &json!({ "grace_seconds": 2 }));
    let (second_id, second) = (rotated["id"].as_str().expect("an id"), rotated["secret"].as_str().expect("a secret"));
    assert_eq!((&rotated["name"], &rotated["scopes"]), (&json!("main"), &json!(["read"])));
    assert_eq!((ask(&first).status, ask(second).status), (200, 200), "both work in the grace");
    let over = until("the end of the grace", || Some(ask(&first)).filter(|answer| answer.status != 200));
    over.assert_problem(401, "expired-key");
    assert_eq!(ask(second).status, 200);
    let third = admin.write("POST", &format!("/v1/keys/{second_id}/rotate"), &json!({ "grace_seconds": 0 }));
    let refused = ask(second);
    assert_eq!(refused.status, 401, "{}", refused.text);
    assert_eq!(ask(third["secret"].as_str().expect("a secret")).status, 200);
    assert_eq!(ask(&first).status, 401);
}

#[test]
fn states_are_in_force_on_the_very_next_request() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    admin.open_account(&upstream.url);
    let agent = client();
    let ask = |key: &str| get(&agent, &cluster.nodes[0].url("/"), key).expect("an answer");
    for _ in 0..20 {
        let (id, key) = admin.create_key("acme", &json!({}));
        let path = format!("/v1/keys/{id}");
        assert_eq!(ask(&key).status, 200);
        admin.write("PATCH", &path, &json!({ "state": "disabled" }));
        ask(&key).assert_problem(403, "key-disabled");
        admin.write("PATCH", &path, &json!({ "state": "active" }));
        assert_eq!(ask(&key).status, 200);
        assert!((200..300).contains(&admin.call("DELETE", &path, None).status));
        ask(&key).assert_problem(401, "revoked-key");
        let tombstone = admin.get(&path);
        assert_eq!(tombstone["state"], "revoked");
        let back = admin.call("PATCH", &path, Some(&json!({ "state": "active" })));
        assert!((400..500).contains(&back.status), "a revoked key stays revoked: {}", back.text);
        ask(&key).assert_problem(401, "revoked-key");
    }
}

#[test]
fn writes_are_in_force_on_every_node_when_they_are_answered() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    cluster.nodes[0].admin().open_account(&upstream.url);
    let agent = client();
    let admins: Vec<_> = cluster.nodes.iter().map(tests::Node::admin).collect();
    let statuses = |key: &str| -> Vec<u16> {
        cluster.nodes.iter().map(|node| get(&agent, &node.url("/"), key).expect("an answer").status).collect()
    };
    for turn in 0..15 {
        // Each node takes writes for all.
        let admin = &admins[turn % 3];
        let (id, key) = admin.create_key("acme", &json!({}));
        assert_eq!(statuses(&key), [200; 3], "a fresh key works everywhere (turn {turn})");
        let path = format!("/v1/keys/{id}");
        let admin = &admins[(turn + 1) % 3];
        admin.write("PATCH", &path, &json!({ "state": "disabled" }));
        assert_eq!(statuses(&key), [403; 3], "a disabled key works nowhere (turn {turn})");
        admin.write("PATCH", &path, &json!({ "state": "active" }));
        assert_eq!(statuses(&key), [200; 3], "an enabled key works everywhere (turn {turn})");
        assert!((200..300).contains(&admins[(turn + 2) % 3].call("DELETE", &path, None).status));
        assert_eq!(statuses(&key), [401; 3], "a revoked key works nowhere (turn {turn})");
    }
    let (_, key) = admins[0].create_key("acme", &json!({}));
    admins[1].write("PATCH", "/v1/accounts/acme", &json!({ "state": "suspended" }));
    assert_eq!(statuses(&key), [403; 3]);
    admins[2].write("PATCH", "/v1/accounts/acme", &json!({ "state": "active" }));
    assert_eq!(statuses(&key), [200; 3]);
    admins[1].write("PUT", "/v1/tiers/open", &json!({ "routes": [] }));
    assert_eq!(statuses(&key), [403; 3]);
    admins[2].write("PUT", "/v1/tiers/open", &json!({}));
    assert_eq!(statuses(&key), [200; 3]);
    admins[0].write("PUT", "/v1/routes/scan", &json!({ "match": { "path_prefix": "/v3" }, "upstream": "scan" }));
    assert_eq!(statuses(&key), [404; 3]);
}

#[test]
fn a_stream_ends_when_its_key_is_revoked() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    admin.open_account(&upstream.url);
    let (id, key) = admin.create_key("acme", &json!({}));
    let mut stream = Raw::request(&cluster.nodes[0].data_addr, "GET /sse/100000/50", &key, "");
    assert_eq!(stream.head().expect("a head").status, 200);
    assert!(!stream.chunk().expect("an event").is_empty());
    assert!((200..300).contains(&admin.call("DELETE", &format!("/v1/keys/{id}"), None).status));
    let start = std::time::Instant::now();
    while stream.chunk().is_ok_and(|chunk| !chunk.is_empty()) {
        assert!(start.elapsed() < Duration::from_secs(10), "the stream goes on");
    }
}
