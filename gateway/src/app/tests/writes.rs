//! Trustworthy writes: once under an Idempotency-Key, all or nothing in a batch, no lost update.

use super::*;

fn pointers(said: &Said) -> Vec<&str> {
    said.body["errors"].as_array().expect("errors").iter().filter_map(|error| error["pointer"].as_str()).collect()
}

impl Rig {
    async fn post_once(&self, path: &str, key: &str, body: Value) -> Said {
        self.call_as(&self.token, Method::POST, path, Some(body), &[("idempotency-key", key)]).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_with_an_idempotency_key_happens_once_and_its_secret_is_shown_once() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let made = rig.post_once("/v1/accounts/acme/keys", "k-1", json!({ "name": "ci" })).await;
    assert!(made.status == 201 && !made.replayed && made.body["secret"].is_string());
    let again = rig.post_once("/v1/accounts/acme/keys", "k-1", json!({ "name": "ci" })).await;
    assert_eq!((again.status, again.replayed, &again.body["id"]), (201, true, &made.body["id"]));
    assert!(again.body.get("secret").is_none(), "secrets are shown once");
    assert_eq!(again.etag, made.etag);
    let other = rig.post_once("/v1/accounts/acme/keys", "k-1", json!({ "name": "other" })).await;
    assert_eq!((other.status, &other.body["code"]), (422, &json!("idempotency-key-reused")));
    let keys = rig.call(Method::GET, "/v1/accounts/acme/keys", None).await;
    assert_eq!(keys.body["data"].as_array().map(Vec::len), Some(1));

    let refused = rig.post_once("/v1/accounts", "k-2", json!({ "id": "b", "tier": "none" })).await;
    assert_eq!((refused.status, pointers(&refused)), (422, vec!["/tier"]));
    let fixed = rig.post_once("/v1/accounts", "k-2", json!({ "id": "b", "tier": "free", "name": "B" })).await;
    assert_eq!((fixed.status, fixed.replayed), (201, false), "a refusal is not kept");
    let patched = rig.call(Method::PATCH, "/v1/accounts/b", Some(json!({ "name": "Bee" }))).await;
    assert_eq!(patched.status, 200);
    let again = rig.post_once("/v1/accounts", "k-2", json!({ "id": "b", "tier": "free", "name": "B" })).await;
    assert_eq!((again.status, &again.body["name"]), (201, &json!("Bee")), "as it is now");
    assert_eq!(rig.call(Method::DELETE, "/v1/accounts/b", None).await.status, 204);
    let gone = rig.post_once("/v1/accounts", "k-2", json!({ "id": "b", "tier": "free", "name": "B" })).await;
    assert_eq!((gone.status, &gone.body["code"]), (404, &json!("not-found")));

    // Many at once: those that overlap are told so, all others get the one that was made.
    let tries = (0..16).map(|_| rig.post_once("/v1/accounts", "k-3", json!({ "tier": "free" })));
    let mut ids = std::collections::BTreeSet::new();
    for said in futures_util::future::join_all(tries).await {
        match said.status {
            201 => drop(ids.insert(said.body["id"].as_str().expect("an id").to_owned())),
            _ => assert_eq!(said.body["code"], "idempotency-key-in-progress"),
        }
    }
    assert_eq!(ids.len(), 1);
    let bad = rig.post_once("/v1/accounts", &"x".repeat(300), json!({ "tier": "free" })).await;
    assert_eq!((bad.status, &bad.body["code"]), (400, &json!("malformed-header")));
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_happens_as_a_whole_or_not_at_all() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let good = json!({ "operations": [
        { "method": "PUT", "path": "/v1/tiers/gold", "body": { "concurrency": 7 } },
        { "method": "POST", "path": "/v1/accounts", "body": { "id": "b", "name": "B", "tier": "gold" } },
        { "method": "PATCH", "path": "/v1/accounts/b", "body": { "metadata": { "n": 1 } } },
        { "method": "POST", "path": "/v1/accounts/b/keys", "body": { "name": "one" } },
        { "method": "PATCH", "path": "/v1/accounts/acme", "body": { "tier": "gold" } },
        { "method": "DELETE", "path": "/v1/tiers/free" },
    ] });
    let done = rig.post_once("/v1/batch", "batch-1", good.clone()).await;
    let statuses: Vec<_> =
        done.body["data"].as_array().expect("data").iter().map(|one| one["status"].clone()).collect();
    assert_eq!(statuses, [201, 201, 200, 201, 200, 204].map(|status| json!(status)));
    let account = rig.call(Method::GET, "/v1/accounts/b", None).await;
    assert_eq!((&account.body["name"], &account.body["metadata"]), (&json!("B"), &json!({ "n": 1 })));
    assert_eq!(account.body["revision"], done.body["revision"]);
    assert_eq!(rig.call(Method::GET, "/v1/tiers/free", None).await.status, 404);
    let again = rig.post_once("/v1/batch", "batch-1", good).await;
    assert!(again.replayed && again.body["data"][3]["body"].get("secret").is_none());
    assert_eq!(again.body["data"][3]["id"], done.body["data"][3]["id"]);

    let bad = json!({ "operations": [
        { "method": "POST", "path": "/v1/accounts", "body": { "id": "c", "tier": "gold" } },
        { "method": "POST", "path": "/v1/accounts", "body": { "id": "d", "tier": "none", "stat": 1 } },
        { "method": "PATCH", "path": "/v1/accounts/nobody", "body": {} },
    ] });
    let refused = rig.call(Method::POST, "/v1/batch", Some(bad)).await;
    assert_eq!(refused.status, 422);
    assert_eq!(pointers(&refused), ["/operations/1/body/tier", "/operations/1/body/stat", "/operations/2"]);
    assert_eq!(rig.call(Method::GET, "/v1/accounts/c", None).await.status, 404, "nothing was changed");
    let stale = json!({ "operations": [
        { "method": "PATCH", "path": "/v1/accounts/b", "body": { "name": "X" } },
        { "method": "PATCH", "path": "/v1/accounts/acme", "body": { "name": "X" }, "if_match": "\"1\"" },
    ] });
    let refused = rig.call(Method::POST, "/v1/batch", Some(stale)).await;
    assert_eq!((refused.status, pointers(&refused)), (412, vec!["/operations/1"]));
    let in_use = json!({ "operations": [
        { "method": "PUT", "path": "/v1/tiers/other", "body": {} },
        { "method": "DELETE", "path": "/v1/tiers/gold" },
    ] });
    let refused = rig.call(Method::POST, "/v1/batch", Some(in_use)).await;
    assert_eq!((refused.status, pointers(&refused)), (409, vec!["/operations/1"]));
    assert_eq!(rig.call(Method::GET, "/v1/tiers/other", None).await.status, 404);
    let many: Vec<Value> =
        (0..1_000).map(|_| json!({ "method": "POST", "path": "/v1/accounts/b/keys", "body": {} })).collect();
    let made = rig.call(Method::POST, "/v1/batch", Some(json!({ "operations": many }))).await;
    assert_eq!((made.status, made.body["data"].as_array().map(Vec::len)), (200, Some(1_000)));
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_writers_lose_no_update() {
    let rig = Rig::start().await;
    rig.furnish().await;
    // With If-Match: each adds its own entry to what it has read, and tries again when it came too late.
    let writers = (0..32).map(|n| {
        let rig = &rig;
        async move {
            loop {
                let read = rig.call(Method::GET, "/v1/accounts/acme", None).await;
                let mut metadata = read.body["metadata"].clone();
                metadata[format!("w{n}")] = n.into();
                let etag = read.etag.expect("an ETag");
                let patch = Some(json!({ "metadata": metadata }));
                let said =
                    rig.call_as(&rig.token, Method::PATCH, "/v1/accounts/acme", patch, &[("if-match", &etag)]).await;
                match said.status {
                    200 => return,
                    status => assert_eq!(status, 412, "{}", said.body),
                }
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let read = rig.call(Method::GET, "/v1/accounts/acme", None).await;
    assert_eq!(read.body["metadata"].as_object().map(serde_json::Map::len), Some(33), "{}", read.body);
    assert_eq!(read.body["name"], "Acme");
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_pages_keep_their_place_under_writes() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let operations: Vec<Value> = (0..250)
        .map(|n| {
            let body = json!({ "id": format!("a{n:03}"), "name": format!("Team {}", n % 10), "tier": "free" });
            json!({ "method": "POST", "path": "/v1/accounts", "body": body })
        })
        .collect();
    assert_eq!(rig.call(Method::POST, "/v1/batch", Some(json!({ "operations": operations }))).await.status, 200);
    let others = std::sync::atomic::AtomicUsize::new(0);
    let ids = async |query: &str| {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = rig.call(Method::GET, &format!("/v1/accounts?{query}{cursor}"), None).await.body;
            ids.extend(
                page["data"].as_array().expect("a list").iter().map(|a| a["id"].as_str().expect("an id").to_owned()),
            );
            let Some(next) = page["next_cursor"].as_str() else { return ids };
            cursor = format!("&cursor={next}");
            // Others come and go before and after the place that the cursor names.
            let other = others.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (before, after) = (format!("a000-{other}"), format!("zz-{other}"));
            for id in [&before, &after] {
                let account = json!({ "id": id, "tier": "free" });
                assert_eq!(rig.call(Method::POST, "/v1/accounts", Some(account)).await.status, 201);
            }
        }
    };
    let team: Vec<String> = (0..25).map(|n| format!("a{:03}", n * 10 + 3)).collect();
    assert_eq!(ids("limit=10&name_prefix=team%203").await, team);
    assert_eq!(ids("limit=500&id_prefix=a24").await.len(), 10);
    let whole = ids("limit=100").await;
    let mut once = whole.clone();
    once.dedup();
    assert!(once == whole && whole.iter().filter(|id| id.len() == 4 && id.starts_with('a')).count() == 251);
    assert_eq!(ids("state=suspended").await, [""; 0]);
    rig.node.drain(Duration::from_secs(1)).await;
}

/// A pod listens on 0.0.0.0, where nobody finds it: `tollgate doctor` asked itself for every member.
#[test]
fn a_listener_on_all_addresses_is_found_by_the_name_that_peers_know() {
    let found = |listener: &str, peers_see| crate::app::reachable(listener.parse().expect("an address"), peers_see);
    assert_eq!(found("0.0.0.0:8081", "t-0.peers:8082"), "t-0.peers:8081");
    assert_eq!(found("[::]:8081", "[2001:db8::1]:8082"), "[2001:db8::1]:8081");
    assert_eq!(found("10.0.0.7:8081", "t-0.peers:8082"), "10.0.0.7:8081");
    assert_eq!(found("127.0.0.1:8081", "127.0.0.1:8082"), "127.0.0.1:8081");
}
