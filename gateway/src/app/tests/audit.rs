//! The audit: everything that was done or refused, whole, and who may see what.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_tells_who_did_what_from_where_and_what_was_refused() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let viewer = rig.call(Method::POST, "/v1/tokens", Some(json!({ "name": "eye", "role": "viewer" }))).await;
    let secret = viewer.body["secret"].as_str().expect("a secret").to_owned();
    let forbidden =
        rig.call_as(&secret, Method::PATCH, "/v1/accounts/acme", Some(json!({ "state": "suspended" })), &[]).await;
    assert_eq!(forbidden.status, 403);
    let missing = rig.call(Method::DELETE, "/v1/accounts/nobody", None).await;
    assert_eq!(missing.status, 404);
    assert_eq!(rig.put("/v1/tiers/free", json!({ "concurrency": 3 })).await.status, 200);

    let lines = rig.call(Method::GET, "/v1/audit?limit=3", None).await.body;
    let [put, not_found, refused] = lines["data"].as_array().expect("lines").as_slice() else { panic!("three lines") };
    assert_eq!((&put["kind"], &put["id"], &put["result"]), (&json!("tier"), &json!("free"), &json!("done")));
    assert_eq!((&put["before"]["limits"][0]["burst"], &put["after"]["concurrency"]), (&json!(15), &json!(3)));
    assert_eq!(
        (&put["actor"], &put["role"], &put["source"]),
        (&json!("bootstrap"), &json!("admin"), &json!("127.0.0.1"))
    );
    assert_eq!((&not_found["action"], &not_found["result"]), (&json!("DELETE"), &json!("not-found")));
    assert_eq!((&refused["actor"], &refused["role"]), (&viewer.body["id"], &json!("viewer")));
    assert_eq!((&refused["id"], &refused["result"]), (&json!("/v1/accounts/acme"), &json!("role-too-low")));
    assert_eq!(refused["request_id"], forbidden.body["request_id"]);
    let text = rig.call(Method::GET, "/v1/audit?kind=account", None).await.body.to_string();
    assert!(!text.contains("Acme") && !text.contains("\"metadata\""), "personal data: {text}");
    assert!(text.contains("[\"/name\",\"/metadata/crm\"]"), "which fields were set is no personal data: {text}");
    let only = rig.call(Method::GET, "/v1/audit?result=role-too-low", None).await.body;
    assert_eq!(only["data"].as_array().map(Vec::len), Some(1));

    let verified = rig.call(Method::GET, "/v1/audit/verify", None).await.body;
    assert_eq!(verified["whole"], json!(true));
    let export = rig.call(Method::GET, "/v1/audit/export", None).await.body;
    let export: Vec<Value> =
        export.as_str().expect("NDJSON").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(json!(export.len()), verified["lines"]);
    assert_eq!(export.last().expect("lines")["sha256"], verified["head"]);
    for pair in export.windows(2) {
        assert_eq!(pair[1]["previous"], pair[0]["sha256"]);
    }
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_see_the_accounts_that_they_are_limited_to() {
    let rig = Rig::start().await;
    rig.furnish().await;
    for id in ["eu-1", "eu-2"] {
        let account = json!({ "id": id, "tier": "free" });
        assert_eq!(rig.call(Method::POST, "/v1/accounts", Some(account)).await.status, 201);
    }
    let token = async |body: Value| {
        let made = rig.call(Method::POST, "/v1/tokens", Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        (made.body["id"].as_str().expect("an id").to_owned(), made.body["secret"].as_str().expect("one").to_owned())
    };
    let (_, europe) = token(json!({ "name": "eu", "role": "operator", "accounts": ["eu-*"] })).await;
    let (_, own) = token(json!({ "name": "self-service", "role": "viewer", "account": "acme" })).await;
    let call = async |token: &str, method: Method, path: &str, body: Option<Value>| {
        rig.call_as(token, method, path, body, &[]).await
    };
    let listed = call(&europe, Method::GET, "/v1/accounts", None).await.body;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(2));
    for (token, method, path, body, status) in [
        (&europe, Method::GET, "/v1/accounts/eu-1", None, 200),
        (&europe, Method::GET, "/v1/accounts/acme", None, 404),
        (&europe, Method::POST, "/v1/accounts/eu-2/keys", Some(json!({})), 201),
        (&europe, Method::POST, "/v1/accounts/acme/keys", Some(json!({})), 404),
        (&europe, Method::PATCH, "/v1/accounts/acme", Some(json!({ "state": "suspended" })), 404),
        (&europe, Method::POST, "/v1/accounts", Some(json!({ "id": "us-1", "tier": "free" })), 403),
        (&europe, Method::POST, "/v1/accounts", Some(json!({ "id": "eu-3", "tier": "free" })), 201),
        (&europe, Method::GET, "/v1/requests", None, 400),
        (&europe, Method::GET, "/v1/requests?account=eu-1", None, 200),
        (&europe, Method::GET, "/v1/requests?account=acme", None, 404),
        (&europe, Method::GET, "/v1/audit", None, 403),
        (&own, Method::GET, "/v1/accounts/acme", None, 200),
        (&own, Method::GET, "/v1/accounts/acme/limits", None, 200),
        (&own, Method::GET, "/v1/accounts/acme/keys", None, 200),
        (&own, Method::GET, "/v1/requests", None, 200),
        (&own, Method::GET, "/v1/accounts/eu-1/usage", None, 404),
        (&own, Method::GET, "/v1/tiers", None, 403),
        (&own, Method::GET, "/v1/cluster", None, 403),
        (&own, Method::POST, "/v1/accounts/acme/keys", Some(json!({})), 403),
    ] {
        let said = call(token, method.clone(), path, body).await;
        assert_eq!(said.status, status, "{method} {path}: {}", said.body);
    }
    let key = rig.call(Method::POST, "/v1/accounts/acme/keys", Some(json!({}))).await.body;
    let path = format!("/v1/keys/{}", key["id"].as_str().expect("an id"));
    assert_eq!(call(&europe, Method::GET, &path, None).await.status, 404);
    assert_eq!(call(&europe, Method::DELETE, &path, None).await.status, 404);
    let bad = json!({ "name": "x", "role": "admin", "account": "acme", "accounts": ["*"] });
    let refused = rig.call(Method::POST, "/v1/tokens", Some(bad)).await;
    assert_eq!((refused.status, refused.body["errors"].as_array().map(Vec::len)), (422, Some(2)), "{}", refused.body);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_works_for_its_grace_and_no_longer() {
    let rig = Rig::start().await;
    let made = rig.call(Method::POST, "/v1/tokens", Some(json!({ "name": "ci", "role": "operator" }))).await.body;
    let path = format!("/v1/tokens/{}/rotate", made["id"].as_str().expect("an id"));
    let text = |value: &Value| value["secret"].as_str().expect("a secret").to_owned();
    let next = rig.call(Method::POST, &path, Some(json!({ "grace_seconds": 60 }))).await;
    assert_eq!((next.status, &next.body["rotated_from"], &next.body["role"]), (201, &made["id"], &json!("operator")));
    for secret in [text(&made), text(&next.body)] {
        assert_eq!(rig.call_as(&secret, Method::GET, "/v1/accounts", None, &[]).await.status, 200);
    }
    let path = format!("/v1/tokens/{}/rotate", next.body["id"].as_str().expect("an id"));
    let last = rig.call(Method::POST, &path, Some(json!({ "grace_seconds": 0 }))).await;
    assert_eq!(rig.call_as(&text(&next.body), Method::GET, "/v1/accounts", None, &[]).await.status, 401);
    assert_eq!(rig.call_as(&text(&last.body), Method::GET, "/v1/accounts", None, &[]).await.status, 200);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_too_many_wrong_tokens_waits_and_tokens_that_are_known_are_let_in() {
    let rig = Rig::start().await;
    let wrong = ["tga_mistyped".to_owned(), Secret::generate(SecretKind::Admin).expose().to_owned()];
    let mut refused = 0;
    let last = loop {
        let said = rig.call_as(&wrong[refused % 2], Method::GET, "/v1/accounts", None, &[]).await;
        if said.status != 401 {
            break said;
        }
        refused += 1;
        assert!(refused < 2_000, "it may go on for ever");
    };
    assert!(refused >= 60, "{refused}");
    assert_eq!((last.status, &last.body["code"]), (429, &json!("too-many-wrong-tokens")), "{}", last.body);
    assert!(last.retry_after >= Some(1), "{:?}", last.retry_after);
    assert_eq!(rig.call(Method::GET, "/v1/accounts", None).await.status, 200);
    // One that the cluster knows, not this node's own.
    let made = rig.call(Method::POST, "/v1/tokens", Some(json!({ "name": "ci", "role": "viewer" }))).await.body;
    let secret = made["secret"].as_str().expect("a secret");
    assert_eq!(rig.call_as(secret, Method::GET, "/v1/accounts", None, &[]).await.status, 200);
    rig.node.drain(Duration::from_secs(1)).await;
}
