//! Objects that must fit together: routes that only their names would tell apart, tiers that name routes.

use super::*;

fn route(path: &str, methods: &[&str]) -> Value {
    json!({ "match": { "path_prefix": path, "methods": methods }, "upstream": "up" })
}

fn pointer(said: &Said) -> (u16, &str, &str) {
    let first = &said.body["errors"][0];
    (said.status, first["pointer"].as_str().unwrap_or_default(), first["detail"].as_str().unwrap_or_default())
}

impl Rig {
    async fn good(&self, path: &str, body: Value) {
        let said = self.put(path, body).await;
        assert!(said.status < 300, "{path}: {}", said.body);
    }

    async fn upstream(&self) {
        self.good("/v1/upstreams/up", json!({ "targets": [{ "url": "http://127.0.0.1:9000" }] })).await;
    }

    async fn whole(&self, path: &str, body: Value) -> Said {
        self.call(Method::POST, path, Some(body)).await
    }
}

/// Of two such routes the first by name took all requests, and nobody was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_route_for_the_same_requests_is_refused_with_the_name_of_the_first() {
    let rig = Rig::start().await;
    rig.upstream().await;
    rig.good("/v1/routes/scan", route("/v3", &["POST", "PUT"])).await;
    // Elsewhere, with other methods, or for any of them: one is the more specific.
    rig.good("/v1/routes/other", route("/v4", &["POST"])).await;
    rig.good("/v1/routes/read", route("/v3", &["GET"])).await;
    rig.good("/v1/routes/any", route("/v3", &[])).await;
    let mut elsewhere = route("/v3", &["POST"]);
    elsewhere["match"]["host"] = "api.example.com".into();
    rig.good("/v1/routes/host", elsewhere).await;

    let twin = || route("/%763", &["POST"]);
    let said = rig.put("/v1/routes/twin", twin()).await;
    let (status, place, detail) = pointer(&said);
    assert_eq!((status, place), (422, "/match"), "{}", said.body);
    assert!(detail.contains("the route \"scan\""), "{detail}");
    assert_eq!(rig.call(Method::GET, "/v1/routes/twin", None).await.status, 404);
    // The first may be changed in all else, and moved out of the way.
    let mut slower = route("/v3", &["POST", "PUT"]);
    slower["timeout_ms"] = 900.into();
    rig.good("/v1/routes/scan", slower).await;
    let said = rig.put("/v1/routes/read", route("/v3", &["GET", "PUT"])).await;
    assert_eq!(pointer(&said).1, "/match", "{}", said.body);

    let put = |name: &str, body: Value| json!({ "method": "PUT", "path": format!("/v1/routes/{name}"), "body": body });
    let gone = json!({ "method": "DELETE", "path": "/v1/routes/scan" });
    let said = rig
        .whole("/v1/batch", json!({ "operations": [put("a", route("/v9", &[])), put("b", route("/v9", &[]))] }))
        .await;
    assert_eq!(pointer(&said).1, "/operations/1/body/match", "{}", said.body);
    let said = rig.whole("/v1/batch", json!({ "operations": [gone, put("twin", twin())] })).await;
    assert_eq!(said.status, 200, "{}", said.body);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_with_two_routes_for_the_same_requests_is_refused() {
    let rig = Rig::start().await;
    rig.upstream().await;
    rig.good("/v1/routes/scan", route("/v3", &[])).await;
    let named = |name: &str, path: &str| {
        let mut route = route(path, &[]);
        route["name"] = name.into();
        route
    };
    let apply =
        async |query: &str, routes: Value| rig.whole(&format!("/v1/apply{query}"), json!({ "routes": routes })).await;
    let two = apply("", json!([named("a", "/v9"), named("b", "/v8"), named("c", "/v9")])).await;
    let (status, place, detail) = pointer(&two);
    assert_eq!((status, place), (422, "/routes/2/match"), "{}", two.body);
    assert!(detail.contains("the route \"a\""), "{detail}");
    let beside = apply("", json!([named("scan-2", "/v3")])).await;
    assert_eq!(pointer(&beside).1, "/routes/0/match", "{}", beside.body);
    // In the place of the one that goes.
    let instead = apply("?prune=true", json!([named("scan-2", "/v3")])).await;
    assert_eq!(instead.status, 200, "{}", instead.body);
    assert_eq!(rig.call(Method::GET, "/v1/routes/scan", None).await.status, 404);
    rig.node.drain(Duration::from_secs(1)).await;
}

/// A cluster of a time when nobody looked: it starts, serves the first by name, and what is not about the match can be changed.
#[tokio::test(flavor = "multi_thread")]
async fn rivals_that_are_stored_are_let_be() {
    let rig = Rig::start().await;
    rig.upstream().await;
    let stored = |name: &str| store::model::Route {
        name: name.into(),
        upstream: "up".into(),
        matches: store::model::RouteMatch { path_prefix: Some("/v3".into()), ..Default::default() },
        ..Default::default()
    };
    let write = store::model::MetaWrite {
        at: store::model::Timestamp::now(),
        ops: ["one", "two"]
            .map(|name| store::model::MetaOp::PutRoute { route: stored(name), expect: store::model::Expect::Absent })
            .to_vec(),
        ..Default::default()
    };
    rig.node.store.write(write).await.expect("written");
    let mut slower = json!({ "match": { "path_prefix": "/v3" }, "upstream": "up", "timeout_ms": 900 });
    rig.good("/v1/routes/two", slower.clone()).await;
    slower["name"] = "two".into();
    let whole = json!({ "routes": [{ "name": "one", "match": { "path_prefix": "/v3" }, "upstream": "up" }, slower] });
    let said = rig.whole("/v1/apply", whole).await;
    assert_eq!(said.status, 200, "{}", said.body);
    let third = rig.put("/v1/routes/three", route("/v3", &[])).await;
    assert!(pointer(&third).2.contains("the route \"one\""), "{}", third.body);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_names_routes_that_are_there_and_keeps_them_there() {
    let rig = Rig::start().await;
    rig.upstream().await;
    rig.good("/v1/routes/scan", route("/v3", &[])).await;
    let said = rig.put("/v1/tiers/free", json!({ "routes": ["scan", "scan", "nope"] })).await;
    let (status, place, detail) = pointer(&said);
    assert_eq!((status, place), (422, "/routes/2"), "{}", said.body);
    assert!(detail.contains("the route \"nope\""), "{detail}");
    rig.good("/v1/tiers/free", json!({ "routes": ["scan"] })).await;
    let said = rig.call(Method::DELETE, "/v1/routes/scan", None).await;
    assert_eq!((said.status, &said.body["code"]), (409, &json!("in-use")), "{}", said.body);
    assert!(said.body["detail"].as_str().is_some_and(|detail| detail.contains("tier \"free\"")), "{}", said.body);
    // One after the other in a batch, and at once in a document.
    let operations = json!([
        { "method": "PUT", "path": "/v1/tiers/free", "body": {} },
        { "method": "DELETE", "path": "/v1/routes/scan" },
    ]);
    let said = rig.whole("/v1/batch", json!({ "operations": operations })).await;
    assert_eq!(said.status, 200, "{}", said.body);

    let scan = json!({ "name": "scan", "match": { "path_prefix": "/v3" }, "upstream": "up" });
    let free = |routes: Value| json!([{ "name": "free", "routes": routes }]);
    let said = rig.whole("/v1/apply", json!({ "tiers": free(json!(["nope"])), "routes": [scan] })).await;
    assert_eq!(pointer(&said).1, "/tiers/0/routes", "{}", said.body);
    let said = rig.whole("/v1/apply", json!({ "tiers": free(json!(["scan"])), "routes": [scan] })).await;
    assert_eq!(said.status, 200, "{}", said.body);
    for (document, place) in [
        (json!({ "routes": [] }), "/routes"),
        (json!({ "tiers": free(json!(["scan"])), "routes": [] }), "/tiers/0/routes"),
    ] {
        let said = rig.whole("/v1/apply?prune=true", document).await;
        assert_eq!((said.status, pointer(&said).1), (422, place), "{}", said.body);
    }
    let said = rig.whole("/v1/apply?prune=true", json!({ "tiers": free(json!(null)), "routes": [] })).await;
    assert_eq!(said.status, 200, "{}", said.body);
    rig.node.drain(Duration::from_secs(1)).await;
}

/// A key that had used nothing yet was not there, as if it had no limit.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_keys_and_routes_are_listed_also_when_nothing_was_used() {
    let rig = Rig::start().await;
    rig.upstream().await;
    rig.good("/v1/routes/scan", route("/v3", &[])).await;
    let limits = json!([
        { "name": "of-key", "per": ["key"], "rate": "5/s", "burst": 15 },
        { "name": "of-both", "per": ["key", "route"], "rate": "5/s", "burst": 15 },
    ]);
    rig.good("/v1/tiers/free", json!({ "limits": limits })).await;
    let account = json!({ "id": "acme", "tier": "free" });
    assert_eq!(rig.call(Method::POST, "/v1/accounts", Some(account)).await.status, 201);
    let key = rig.call(Method::POST, "/v1/accounts/acme/keys", None).await.body;
    let key = key["id"].as_str().expect("an id");
    let said = rig.call(Method::GET, "/v1/accounts/acme/limits", None).await;
    let listed: Vec<(&str, &str, u64)> = said.body["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|now| {
            let text = |name: &str| now[name].as_str().expect("a text");
            (text("name"), text("scope"), now["remaining"].as_u64().expect("a number"))
        })
        .collect();
    let (of_key, of_both) = (format!("key={key}"), format!("key={key},route=scan"));
    assert_eq!(listed, [("of-key", of_key.as_str(), 15), ("of-both", of_both.as_str(), 15)], "{}", said.body);
    rig.node.drain(Duration::from_secs(1)).await;
}
