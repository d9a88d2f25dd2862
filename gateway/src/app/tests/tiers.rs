//! Tiers that say what people mean: shadows, thresholds, overage, own policies of keys, resets, costs, and what would have
//! been.

use super::*;

impl Rig {
    /// An upstream that answers `x-units` with the last part of the path, a route to it, this tier, an account and a key.
    async fn sell(&self, tier: Value, route: Value) -> (String, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let upstream = format!("http://{}", listener.local_addr().expect("an address"));
        let answer = async |uri: http::Uri| {
            let units = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
            ([("x-units", units)], "fine")
        };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        let put = async |path: &str, body: Value| {
            let said = self.put(path, body).await;
            assert!(said.status < 300, "{path}: {}", said.body);
        };
        put("/v1/tiers/free", tier).await;
        put("/v1/upstreams/up", json!({ "targets": [{ "url": upstream }] })).await;
        let mut whole = json!({ "match": { "path_prefix": "/v3" }, "upstream": "up" });
        whole.as_object_mut().expect("an object").extend(route.as_object().expect("an object").clone());
        put("/v1/routes/scan", whole).await;
        let account = json!({ "id": "acme", "tier": "free" });
        assert_eq!(self.call(Method::POST, "/v1/accounts", Some(account)).await.status, 201);
        self.another_key().await
    }

    async fn another_key(&self) -> (String, String) {
        let key = self.call(Method::POST, "/v1/accounts/acme/keys", None).await.body;
        let text = |name: &str| key[name].as_str().expect("a text").to_owned();
        (text("id"), text("secret"))
    }

    /// Statuses of some requests, one after the other, and the ids of the last.
    async fn ask(&self, key: &str, path: &str, times: usize) -> (Vec<u16>, String) {
        let (mut statuses, mut id) = (Vec::new(), String::new());
        for _ in 0..times {
            let (agent, url) = (self.agent.clone(), format!("http://{}{path}", self.node.info.data_addr));
            let key = format!("Bearer {key}");
            let asked = move || agent.get(&url).header("authorization", key).call().expect("an answer");
            let answer = tokio::task::spawn_blocking(asked).await.expect("no panic");
            statuses.push(answer.status().as_u16());
            id = answer.headers()["x-request-id"].to_str().expect("text").to_owned();
        }
        (statuses, id)
    }

    /// Holds each of some answers against what the document says of them.
    pub(super) async fn fit<'v>(&self, view: &str, values: impl IntoIterator<Item = &'v Value>) {
        let document = self.get("/openapi.json").await;
        let schema = json!({ "$ref": format!("#/components/schemas/{view}") });
        let (mut found, mut count) = (Vec::new(), 0);
        for value in values {
            super::openapi::misfits(&document, &schema, value, view, &mut found);
            count += 1;
        }
        assert!(found.is_empty() && count > 0, "{count}: {found:#?}");
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let said = self.call(Method::GET, path, None).await;
        assert_eq!(said.status, 200, "{path}: {}", said.body);
        said.body
    }
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().expect("a list").iter().find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_policies_of_its_own_that_count_it_alone() {
    let rig = Rig::start().await;
    let tier = json!({
        "limits": [{ "name": "per-day", "rate": "3/d", "burst": 3 }],
        "quotas": [{ "name": "monthly", "limit": 100, "period": "month" }],
    });
    let (id, secret) = rig.sell(tier, json!({})).await;
    let (_, other) = rig.another_key().await;
    let own = json!({ "overrides": {
        "limits": [{ "name": "per-day", "rate": "5/d", "burst": 5 }],
        "quotas": [{ "name": "monthly", "limit": 4, "period": "month" }],
    } });
    let path = format!("/v1/keys/{id}");
    let patched = rig.call(Method::PATCH, &path, Some(own)).await;
    assert_eq!(
        (patched.status, &patched.body["overrides"]["quotas"][0]["limit"]),
        (200, &json!(4)),
        "{}",
        patched.body
    );
    assert_eq!(rig.ask(&secret, "/v3/a", 5).await.0, [200, 200, 200, 200, 429], "its own quota is the narrowest");
    assert_eq!(rig.ask(&other, "/v3/a", 4).await.0, [200, 200, 200, 429], "the account's has lost nothing to it");
    let explained = rig.call(Method::POST, "/v1/explain", Some(json!({ "key_id": id, "path": "/v3" }))).await.body;
    assert_eq!(explained["outcome"], "quota-exceeded", "{explained}");
    for name in ["per-day", "monthly"] {
        assert_eq!(named(&explained["policies"], name)["set_by"], path);
    }
    let limits = rig.get("/v1/accounts/acme/limits").await["data"].clone();
    rig.fit("LimitNow", limits.as_array().expect("a list")).await;
    let of_key: Vec<&Value> =
        limits.as_array().expect("a list").iter().filter(|now| now["scope"] == format!("key={id}")).collect();
    assert!(of_key.iter().any(|now| now["name"] == "monthly" && now["used"] == 4), "{limits}");
    // Without them it is one of the account's keys again, and the account has no more.
    let none = json!({ "overrides": null });
    assert_eq!(rig.call(Method::PATCH, &path, Some(none)).await.status, 200);
    assert_eq!(rig.ask(&secret, "/v3/a", 1).await.0, [429]);
    let bad = json!({ "overrides": { "quotas": [{ "name": "x", "limit": -1, "period": "day" }] } });
    let refused = rig.call(Method::PATCH, &path, Some(bad)).await;
    assert_eq!((refused.status, &refused.body["errors"][0]["pointer"]), (422, &json!("/overrides/quotas/0/limit")));
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_own_policies_end_at_their_time() {
    let rig = Rig::start().await;
    let tier = json!({ "quotas": [{ "name": "monthly", "limit": 1, "period": "month" }] });
    let (id, secret) = rig.sell(tier, json!({})).await;
    let quota = |limit: u64, ends: &str| json!({ "overrides": { "quotas": [{ "name": "monthly", "limit": limit, "period": "month", "expires_at": ends }] } });
    let path = format!("/v1/keys/{id}");
    let patched = rig.call(Method::PATCH, &path, Some(quota(3, "2199-01-01T00:00:00Z"))).await;
    assert_eq!(patched.status, 200, "{}", patched.body);
    assert_eq!(rig.ask(&secret, "/v3/a", 4).await.0, [200, 200, 200, 429]);
    // One that has ended is as good as none: the account's own counter, which nobody has used.
    assert_eq!(rig.call(Method::PATCH, &path, Some(quota(9, "2020-01-01T00:00:00Z"))).await.status, 200);
    assert_eq!(rig.ask(&secret, "/v3/a", 2).await.0, [200, 429]);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_raise_alerts_and_overage_is_counted_apart() {
    let rig = Rig::start().await;
    let tier = json!({ "quotas": [
        { "name": "monthly", "limit": 5, "period": "month", "overage": "allow" },
        { "name": "weekly", "limit": 100, "period": "week", "thresholds": [7] },
        { "name": "silent", "limit": 1, "period": "day", "overage": "allow", "thresholds": [] },
    ] });
    let (_, secret) = rig.sell(tier, json!({})).await;
    assert_eq!(rig.ask(&secret, "/v3/a", 3).await.0, [200; 3]);
    assert_eq!(rig.get("/v1/alerts").await["data"], json!([]), "nothing was passed yet");
    assert_eq!(rig.ask(&secret, "/v3/a", 4).await.0, [200; 4]);
    let alerts = rig.get("/v1/alerts?account=acme").await["data"].clone();
    let told: Vec<(&str, u64, u64)> = alerts
        .as_array()
        .expect("a list")
        .iter()
        .map(|alert| {
            let number = |name: &str| alert[name].as_u64().expect("a number");
            (alert["quota"].as_str().expect("a name"), number("threshold"), number("used"))
        })
        .collect();
    assert_eq!(told, [("weekly", 7, 7), ("monthly", 100, 5), ("monthly", 80, 4)], "newest first, each once");
    let first = rig.get("/v1/alerts?limit=2").await;
    let cursor = first["next_cursor"].as_str().expect("there is more").to_owned();
    let rest = rig.get(&format!("/v1/alerts?limit=2&cursor={cursor}")).await;
    assert_eq!((&rest["data"][0]["id"], &rest["next_cursor"]), (&alerts[2]["id"], &Value::Null));
    assert_eq!(rig.call(Method::GET, "/v1/alerts?cursor=x", None).await.status, 400);
    assert_eq!(rig.get("/v1/alerts?account=acme&until=2020-01-01T00:00:00Z").await["data"], json!([]));
    let overages = rig.get("/v1/accounts/acme/overages").await["data"].clone();
    rig.fit("Alert", alerts.as_array().expect("a list")).await;
    rig.fit("Overage", overages.as_array().expect("a list")).await;
    let over: Vec<(&Value, &Value)> =
        overages.as_array().expect("a list").iter().map(|one| (&one["quota"], &one["overage"])).collect();
    assert_eq!(over.len(), 2, "{overages}");
    assert!(over.contains(&(&json!("monthly"), &json!(2))) && over.contains(&(&json!("silent"), &json!(6))));
    let limits = rig.get("/v1/accounts/acme/limits").await["data"].clone();
    assert_eq!((&named(&limits, "monthly")["overage"], &named(&limits, "weekly")["overage"]), (&json!(2), &json!(0)));
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_begins_anew_everywhere_and_is_audited() {
    let rig = Rig::start().await;
    let tier = json!({
        "limits": [{ "name": "per-day", "rate": "3/d", "burst": 3 }],
        "quotas": [{ "name": "monthly", "limit": 2, "period": "month" }],
    });
    let (_, secret) = rig.sell(tier, json!({})).await;
    assert_eq!(rig.ask(&secret, "/v3/a", 3).await.0, [200, 200, 429]);
    let reset =
        async |name: &str, body| rig.call(Method::POST, &format!("/v1/accounts/acme/limits/{name}/reset"), body).await;
    let said = reset("monthly", None).await;
    assert_eq!((said.status, &said.body["resets"][0]["policy"]), (200, &json!("monthly")), "{}", said.body);
    // The quota has two again; of the rate one was left.
    assert_eq!(rig.ask(&secret, "/v3/a", 2).await.0, [200, 429]);
    assert_eq!(reset("per-day", Some(json!({}))).await.status, 200);
    assert_eq!(rig.ask(&secret, "/v3/a", 2).await.0, [200, 429], "now the quota ends it");
    let limits = rig.get("/v1/accounts/acme/limits").await["data"].clone();
    assert_eq!((&named(&limits, "monthly")["used"], &named(&limits, "monthly")["remaining"]), (&json!(2), &json!(0)));
    let audit = rig.get("/v1/audit?kind=account&id=acme").await["data"][0].clone();
    assert_eq!((&audit["action"], audit["before"]["resets"].as_array().map(Vec::len)), (&json!("put"), Some(1)));
    assert_eq!(audit["after"]["resets"][1]["policy"], "per-day", "{audit}");
    assert_eq!(reset("nothing", None).await.status, 404);
    assert_eq!(reset("monthly", Some(json!({ "x": 1 }))).await.status, 422);
    let batch = json!({ "operations": [{ "method": "POST", "path": "/v1/accounts/acme/limits/monthly/reset" }] });
    let said = rig.call(Method::POST, "/v1/batch", Some(batch)).await;
    assert_eq!((said.status, &said.body["data"][0]["body"]["resets"][0]["count"]), (200, &json!(2)), "{}", said.body);
    let viewer = rig.call(Method::POST, "/v1/tokens", Some(json!({ "name": "v", "role": "viewer" }))).await;
    let viewer = viewer.body["secret"].as_str().expect("a secret").to_owned();
    let path = "/v1/accounts/acme/limits/monthly/reset";
    assert_eq!(rig.call_as(&viewer, Method::POST, path, None, &[]).await.status, 403);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_tells_what_it_would_refuse_and_refuses_nothing() {
    let rig = Rig::start().await;
    let tier = json!({
        "limits": [
            { "name": "per-day", "rate": "2/d", "burst": 2, "shadow": true },
            { "name": "real", "rate": "4/d", "burst": 4 },
        ],
        "quotas": [{ "name": "monthly", "limit": 3, "period": "month", "shadow": true }],
    });
    let (id, secret) = rig.sell(tier, json!({})).await;
    let (statuses, refused) = rig.ask(&secret, "/v3/a", 5).await;
    assert_eq!(statuses, [200, 200, 200, 200, 429]);
    let rows = rig.get("/v1/requests?account=acme").await["data"].clone();
    let decided: Vec<Vec<(String, bool)>> = rows
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| {
            let of = |one: &Value| (one["policy"].as_str().expect("a name").to_owned(), one["shadow"] == true);
            row["decided_by"].as_array().expect("a list").iter().map(of).collect()
        })
        .collect();
    let shadow = |name: &str| (name.to_owned(), true);
    let expected = [
        vec![("real".to_owned(), false)],
        vec![shadow("per-day"), shadow("monthly")],
        vec![shadow("per-day")],
        vec![],
        vec![],
    ];
    assert_eq!(decided, expected, "newest first: {rows}");
    let explained = rig.call(Method::POST, "/v1/explain", Some(json!({ "key_id": id, "path": "/v3" }))).await.body;
    let policy = |name| named(&explained["policies"], name);
    assert_eq!((&explained["outcome"], &explained["decided_by"]), (&json!("rate-limited"), &json!("real")));
    assert_eq!((&policy("per-day")["shadow"], &policy("per-day")["passes"]), (&json!(true), &json!(false)));
    assert_eq!((&policy("monthly")["shadow"], &policy("monthly")["passes"]), (&json!(true), &json!(false)));

    let whole = rig.get(&format!("/v1/requests/{refused}")).await;
    rig.fit("RequestTrace", [&whole]).await;
    rig.fit("Request", rows.as_array().expect("a list")).await;
    rig.fit("Explanation", [&explained]).await;
    let traced = whole["trace"].clone();
    assert_eq!(
        (&traced["step"], &traced["policies"][0]["set_by"]),
        (&json!("rate"), &json!("/v1/tiers/free")),
        "{traced}"
    );
    let policy = |name| named(&traced["policies"], name);
    let numbers = |policy: &Value| {
        ["kind", "unit", "limit", "used", "remaining", "needed", "passes", "shadow"].map(|field| policy[field].clone())
    };
    // As the row was written, with the numbers of that instant.
    assert_eq!(
        numbers(policy("real")),
        [json!("rate"), json!("requests"), json!(4), json!(4), json!(0), json!(1), json!(false), json!(false)],
        "{traced}"
    );
    assert_eq!(&policy("real")["setting"], "4/d burst 4");
    let steps = traced["steps"].as_array().expect("steps");
    assert_eq!(
        (steps.len(), steps.iter().all(|step| step["passes"] == true)),
        (8, true),
        "it met the policies: {traced}"
    );
    // Changed since: the row still tells what was then.
    assert_eq!(
        rig.put("/v1/tiers/free", json!({ "limits": [{ "name": "real", "rate": "9/d", "burst": 9 }] })).await.status,
        200
    );
    let traced = rig.get(&format!("/v1/requests/{refused}")).await["trace"]["policies"][0].clone();
    assert_eq!((&traced["setting"], &traced["setting_now"]), (&json!("4/d burst 4"), &json!("9/d burst 9")));
    assert_eq!((&traced["limit"], &traced["remaining"]), (&json!(4), &json!(0)));
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cost_is_reserved_at_its_maximum_and_settled_by_the_upstreams_word() {
    let rig = Rig::start().await;
    let tier = json!({ "quotas": [{ "name": "units", "unit": "cost", "limit": 100, "period": "month" }] });
    let header = json!({ "cost_header": { "name": "x-units", "max": 60 } });
    let (_, secret) = rig.sell(tier, header).await;
    let used = async || rig.get("/v1/accounts/acme/limits").await["data"][0]["used"].clone();
    assert_eq!(rig.ask(&secret, "/v3/7", 1).await.0, [200]);
    assert_eq!(used().await, 7);
    assert_eq!(rig.ask(&secret, "/v3/word", 1).await.0, [200]);
    assert_eq!(used().await, 8, "an answer that does not say costs what the route itself says");
    assert_eq!(rig.ask(&secret, "/v3/1000", 1).await.0, [200]);
    assert_eq!(used().await, 68, "never more than the stated maximum");
    // 32 are left, and nobody knows what the next one costs.
    assert_eq!(rig.ask(&secret, "/v3/1", 1).await.0, [429]);
    let rows = rig.get("/v1/requests?account=acme&status=200").await["data"].clone();
    let costs: Vec<&Value> = rows.as_array().expect("a list").iter().map(|row| &row["cost"]).collect();
    assert_eq!(costs, [&json!(60), &json!(1), &json!(7)]);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_tells_what_another_tier_would_have_refused() {
    let rig = Rig::start().await;
    let tier = json!({ "quotas": [{ "name": "monthly", "limit": 6, "period": "month" }] });
    let (_, secret) = rig.sell(tier, json!({})).await;
    assert_eq!(rig.ask(&secret, "/v3/a", 8).await.0, [200, 200, 200, 200, 200, 200, 429, 429]);
    let path = "/v1/tiers/free/preview";
    let now = rig.get(path).await;
    let counts =
        |view: &Value| ["requests", "refused", "would_be_refused"].map(|name| view[name].as_u64().unwrap_or(99));
    assert_eq!((counts(&now), &now["complete"]), ([8, 2, 2], &json!(true)), "{now}");
    let narrower = json!({
        "quotas": [{ "name": "monthly", "limit": 3, "period": "month" }],
        "limits": [{ "name": "per-day", "rate": "1/d", "burst": 2, "shadow": true }],
    });
    let then = rig.call(Method::POST, path, Some(narrower)).await.body;
    assert_eq!((counts(&then), &then["by_policy"]), ([8, 2, 5], &json!({ "monthly": 5 })), "{then}");
    assert_eq!(then["by_shadow"], json!({ "per-day": 1 }));
    rig.fit("Preview", [&now, &then]).await;
    assert_eq!((&then["accounts"][0]["account"], counts(&then["accounts"][0])), (&json!("acme"), [8, 2, 5]));
    assert_eq!(rig.get(path).await["would_be_refused"], 2, "nothing was changed");
    let bad = rig.call(Method::POST, path, Some(json!({ "quotas": 1 }))).await;
    assert_eq!((bad.status, &bad.body["errors"][0]["pointer"]), (422, &json!("/quotas")));
    assert_eq!(rig.call(Method::GET, "/v1/tiers/none/preview", None).await.status, 404);
    assert_eq!(rig.call(Method::GET, "/v1/tiers/free/preview?days=8", None).await.status, 400);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_deleted_account_are_forgotten() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let store = rig.node.store.clone();
    let stage = store.account(&"acme".into()).expect("reads").expect("is there").profile;
    let profile = || store.profiles(&[("acme".into(), stage.clone())]);
    assert_eq!(profile().expect("it is there")[0].name, "Acme");
    assert_eq!(rig.call(Method::DELETE, "/v1/accounts/acme", None).await.status, 204);
    assert!(matches!(profile(), Err(store::ReadError::Behind)), "nothing is left of it");
    // Made anew, it has what it is given and nothing else.
    let account = json!({ "id": "acme", "tier": "free" });
    assert_eq!(rig.call(Method::POST, "/v1/accounts", Some(account)).await.body["name"], "");
    rig.node.drain(Duration::from_secs(1)).await;
}
