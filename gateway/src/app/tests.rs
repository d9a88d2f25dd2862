//! The admin API of a real node, over a socket.

mod audit;
mod declared;
mod explain;
mod metrics;
mod openapi;
mod references;
mod tiers;
mod writes;

use std::path::Path;

use http::{Method, Request, header};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use store::model::{Secret, SecretKind};

use super::*;
use crate::config::{self, Entries};

/// A node of one, and a caller of its admin API.
struct Rig {
    node: Node,
    agent: ureq::Agent,
    token: String,
    _directory: tempfile::TempDir,
}

/// An answer.
struct Said {
    status: u16,
    etag: Option<String>,
    replayed: bool,
    retry_after: Option<u64>,
    body: Value,
}

impl Rig {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let token = Secret::generate(SecretKind::Admin);
        let any = Some("127.0.0.1:0".parse().expect("an address"));
        let settings = config::assemble(Entries {
            data_dir: Some(directory.path().join("node")),
            data_addr: any,
            admin_addr: any,
            peer_addr: any,
            workers: Some(1),
            ..Entries::default()
        })
        .expect("settings");
        let bootstrap = Bootstrap::find(Path::new(""), Some(token.expose().to_owned())).expect("a token");
        let metrics = Prometheus(PrometheusBuilder::new().build_recorder().handle());
        let node = Box::pin(Node::start(&settings, bootstrap, metrics, LogLevel::new("info", |_| Ok(()))))
            .await
            .expect("started");
        node.ready().await;
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        Self { node, agent, token: token.expose().to_owned(), _directory: directory }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Said {
        self.call_as(&self.token, method, path, body, &[]).await
    }

    async fn call_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
        heads: &[(&str, &str)],
    ) -> Said {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.node.info.admin_addr))
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        for (name, value) in heads {
            request = request.header(*name, *value);
        }
        let agent = self.agent.clone();
        tokio::task::spawn_blocking(move || {
            let answered = match body {
                Some(body) => agent.run(request.body(body.to_string()).expect("a request")),
                None => agent.run(request.body(()).expect("a request")),
            };
            let mut response = answered.expect("an answer");
            assert!(response.headers().contains_key("x-request-id"));
            let text = response.body_mut().read_to_string().expect("a body");
            let retry_after = response.headers().get(header::RETRY_AFTER);
            Said {
                retry_after: retry_after.and_then(|value| value.to_str().ok()?.parse().ok()),
                status: response.status().as_u16(),
                replayed: response.headers().contains_key("idempotency-replayed"),
                etag: response.headers().get(header::ETAG).map(|tag| tag.to_str().expect("text").to_owned()),
                body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
            }
        })
        .await
        .expect("no panic")
    }

    async fn put(&self, path: &str, body: Value) -> Said {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// Puts a tier and an account in it.
    async fn furnish(&self) {
        let tier = json!({ "limits": [{ "name": "per-second", "rate": "5/s", "burst": 15 }] });
        assert_eq!(self.put("/v1/tiers/free", tier).await.status, 201);
        let account = json!({ "id": "acme", "name": "Acme", "tier": "free", "metadata": { "crm": [1] } });
        assert_eq!(self.call(Method::POST, "/v1/accounts", Some(account)).await.status, 201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_made_read_patched_under_a_condition_and_deleted() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let read = rig.call(Method::GET, "/v1/accounts/acme", None).await;
    assert_eq!((&read.body["name"], &read.body["metadata"]), (&json!("Acme"), &json!({ "crm": [1] })));
    let etag = read.etag.expect("an ETag");
    let patch = json!({ "state": "suspended", "metadata": { "crm": null, "vip": true } });
    let patched =
        rig.call_as(&rig.token, Method::PATCH, "/v1/accounts/acme", Some(patch.clone()), &[("if-match", &etag)]).await;
    assert_eq!((patched.status, &patched.body["metadata"]), (200, &json!({ "vip": true })));
    let stale = rig.call_as(&rig.token, Method::PATCH, "/v1/accounts/acme", Some(patch), &[("if-match", &etag)]).await;
    assert_eq!((stale.status, &stale.body["code"]), (412, &json!("precondition-failed")));
    assert_eq!(stale.etag, patched.etag);
    let taken = rig.call(Method::POST, "/v1/accounts", Some(json!({ "id": "acme", "tier": "free" }))).await;
    assert_eq!((taken.status, &taken.body["code"]), (409, &json!("already-exists")));
    let in_use = rig.call(Method::DELETE, "/v1/tiers/free", None).await;
    assert_eq!((in_use.status, &in_use.body["code"]), (409, &json!("in-use")));
    assert_eq!(rig.call(Method::DELETE, "/v1/accounts/acme", None).await.status, 204);
    assert_eq!(rig.call(Method::GET, "/v1/accounts/acme", None).await.status, 404);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_shows_its_secret_once_rotates_and_is_revoked_for_ever() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let made =
        rig.call(Method::POST, "/v1/accounts/acme/keys", Some(json!({ "env": "test", "scopes": ["scan"] }))).await;
    let secret = made.body["secret"].as_str().expect("a secret").to_owned();
    assert!(made.status == 201 && Secret::check(&secret) == Ok(SecretKind::Test));
    let path = format!("/v1/keys/{}", made.body["id"].as_str().expect("an id"));
    let read = rig.call(Method::GET, &path, None).await;
    assert_eq!((read.body.get("secret"), &read.body["prefix"]), (None, &json!("tg_test_")));
    assert!(rig.node.store.directory().key(&store::model::KeyHash::of(&secret)).is_some());

    let rotated = rig.call(Method::POST, &format!("{path}/rotate"), Some(json!({ "grace_seconds": 60 }))).await;
    assert_eq!((rotated.status, &rotated.body["rotated_from"]), (201, &made.body["id"]));
    assert_eq!(rotated.body["scopes"], json!(["scan"]));
    assert!(rig.call(Method::GET, &path, None).await.body["expires_at"].is_string());
    let again = rig.call(Method::POST, &format!("{path}/rotate"), None).await;
    assert_eq!((again.status, &again.body["code"]), (409, &json!("not-possible")));

    for _ in 0..2 {
        assert_eq!(rig.call(Method::DELETE, &path, None).await.status, 204);
    }
    assert_eq!(rig.call(Method::GET, &path, None).await.body["state"], "revoked");
    assert_eq!(rig.call(Method::PATCH, &path, Some(json!({ "state": "active" }))).await.status, 409);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_completely_and_changes_nothing() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let before = rig.call(Method::GET, "/v1/tiers/free", None).await;
    let bad =
        rig.put("/v1/tiers/free", json!({ "limits": [{ "name": "x", "rate": 5, "burst": 0 }], "concurency": 1 })).await;
    let pointers: Vec<&str> =
        bad.body["errors"].as_array().expect("errors").iter().filter_map(|e| e["pointer"].as_str()).collect();
    assert_eq!((bad.status, pointers), (422, vec!["/limits/0/rate", "/limits/0/burst", "/concurency"]));
    assert_eq!(rig.call(Method::GET, "/v1/tiers/free", None).await.etag, before.etag);
    let dangling = rig.put("/v1/routes/r", json!({ "match": { "path": "/x" }, "upstream": "nowhere" })).await;
    assert_eq!((dangling.status, &dangling.body["errors"][0]["pointer"]), (422, &json!("/upstream")));
    let query = rig.call(Method::GET, "/v1/requests?acount=acme&limit=0", None).await;
    assert_eq!((query.status, &query.body["code"]), (400, &json!("malformed-query")));
    assert_eq!(rig.call(Method::GET, "/v1/requests?cursor=zzz", None).await.status, 400);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_tokens_decide_who_may_do_what() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let made = rig.call(Method::POST, "/v1/tokens", Some(json!({ "name": "ci", "role": "operator" }))).await;
    let operator = made.body["secret"].as_str().expect("a secret").to_owned();
    let call = async |token: &str, method, path: &str, body| rig.call_as(token, method, path, body, &[]).await.status;
    assert_eq!(call(&operator, Method::GET, "/v1/accounts", None).await, 200);
    assert_eq!(call(&operator, Method::POST, "/v1/accounts/acme/keys", Some(json!({}))).await, 201);
    assert_eq!(call(&operator, Method::PUT, "/v1/tiers/free", Some(json!({}))).await, 403);
    assert_eq!(call(&operator, Method::GET, "/v1/tokens", None).await, 403);
    let unknown = Secret::generate(SecretKind::Admin);
    assert_eq!(call(unknown.expose(), Method::GET, "/v1/accounts", None).await, 401);
    assert_eq!(call("tga_nonsense", Method::GET, "/v1/accounts", None).await, 401);
    let path = format!("/v1/tokens/{}", made.body["id"].as_str().expect("an id"));
    assert_eq!(rig.call(Method::DELETE, &path, None).await.status, 204);
    assert_eq!(call(&operator, Method::GET, "/v1/accounts", None).await, 401);
    let audit = rig.call(Method::GET, "/v1/audit", None).await;
    assert_eq!((&audit.body["data"][0]["action"], &audit.body["data"][0]["kind"]), (&json!("delete"), &json!("token")));
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_lists_and_views_answer() {
    let rig = Rig::start().await;
    rig.furnish().await;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(rig.call_as("none", Method::GET, path, None, &[]).await.status, 200, "{path}");
    }
    for path in [
        "/v1/requests",
        "/v1/accounts/acme/usage?step=minute&by=route",
        "/v1/accounts/acme/limits",
        "/v1/cluster",
        "/v1/tokens",
        "/v1/upstreams?consistency=stale",
        "/v1/accounts/acme/keys",
    ] {
        assert_eq!(rig.call(Method::GET, path, None).await.status, 200, "{path}");
    }
    for id in ["b", "c", "d"] {
        let account = json!({ "id": id, "tier": "free" });
        assert_eq!(rig.call(Method::POST, "/v1/accounts", Some(account)).await.status, 201);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = rig.call(Method::GET, &format!("/v1/accounts?limit=3{cursor}"), None).await.body;
        seen.extend(
            page["data"].as_array().expect("a list").iter().map(|a| a["id"].as_str().expect("an id").to_owned()),
        );
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ["acme", "b", "c", "d"]);
    let admin = rig.node.admin.clone();
    admin.drain();
    let draining = rig.call(Method::GET, "/readyz", None).await;
    assert_eq!((draining.status, &draining.body["reason"]), (503, &json!("draining")));
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_steps_back_is_not_ready_and_serves_on() {
    let rig = Rig::start().await;
    let serving_on = async {
        loop {
            let probe = rig.call(Method::GET, "/readyz", None).await;
            if probe.status == 503 {
                break assert_eq!(probe.body["reason"], json!("draining"));
            }
        }
        // Both listeners answer, and a write is still committed.
        let tier = rig.call(Method::PUT, "/v1/tiers/late", Some(json!({ "concurrency": 2 }))).await;
        assert_eq!(tier.status, 201, "{}", tier.body);
        let called = rig.agent.get(format!("http://{}/x", rig.node.info.data_addr)).call().expect("it answers");
        assert_eq!(called.status(), 401);
    };
    // It ends long before the delay does: what is awaited is the assertions, not the time.
    tokio::select! {
        () = serving_on => {}
        () = rig.node.step_back(Duration::from_secs(600)) => panic!("the delay was not kept"),
    }
    rig.node.drain(Duration::from_secs(1)).await;
}
