//! Why a request is refused, and requests as they come.

use std::io::{BufRead, BufReader};

use super::*;

impl Rig {
    /// An upstream that answers 200, a route to it, a tier with a limit of two a day each key, an account and a key.
    async fn serve(&self) -> (String, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let upstream = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(async || "fine")).await });
        let tier = json!({
            "limits": [{ "name": "per-day", "per": ["key", "route"], "rate": "2/d", "burst": 2 }],
            "quotas": [{ "name": "monthly", "limit": 100, "period": "month" }],
            "concurrency": 5,
        });
        assert_eq!(self.put("/v1/tiers/free", tier).await.status, 201);
        assert_eq!(self.put("/v1/upstreams/up", json!({ "targets": [{ "url": upstream }] })).await.status, 201);
        let route = json!({ "match": { "path_prefix": "/v3" }, "upstream": "up", "scopes": ["scan"] });
        assert_eq!(self.put("/v1/routes/scan", route).await.status, 201);
        let account = json!({ "id": "acme", "tier": "free" });
        assert_eq!(self.call(Method::POST, "/v1/accounts", Some(account)).await.status, 201);
        let key = json!({ "scopes": ["scan"], "allowed_ips": ["127.0.0.0/8"] });
        let key = self.call(Method::POST, "/v1/accounts/acme/keys", Some(key)).await.body;
        let text = |name: &str| key[name].as_str().expect("a text").to_owned();
        (text("id"), text("secret"))
    }

    async fn request(&self, key: &str, path: &str) -> u16 {
        let (agent, url) = (self.agent.clone(), format!("http://{}{path}", self.node.info.data_addr));
        let key = format!("Bearer {key}");
        let asked = move || agent.get(&url).header("authorization", key).call().expect("an answer").status().as_u16();
        tokio::task::spawn_blocking(asked).await.expect("no panic")
    }

    /// What the newest row of a kind is told of.
    async fn trace(&self, which: &str) -> Value {
        // Its answer is released at the commit, and a row is found once it is applied.
        let id = loop {
            let rows = self.get(&format!("/v1/requests?account=acme&limit=1&{which}")).await["data"].clone();
            if let Some(id) = rows[0]["request_id"].as_str() {
                break id.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let row = self.get(&format!("/v1/requests/{id}")).await;
        self.fit("RequestTrace", [&row]).await;
        row["trace"].clone()
    }

    async fn explain(&self, question: Value) -> Value {
        let said = self.call(Method::POST, "/v1/explain", Some(question)).await;
        assert_eq!(said.status, 200, "{}", said.body);
        said.body
    }
}

fn policy<'a>(view: &'a Value, name: &str) -> &'a Value {
    let found = view["policies"].as_array().expect("policies").iter().find(|policy| policy["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {view}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_a_request_meets_and_who_set_it_and_consumes_nothing() {
    let rig = Rig::start().await;
    let (id, secret) = rig.serve().await;
    let question = json!({ "key_id": id, "path": "/v3/scan", "ip": "127.0.0.1" });
    for _ in 0..20 {
        let view = rig.explain(question.clone()).await;
        assert_eq!((&view["outcome"], &view["decided_by"]), (&json!("admitted"), &Value::Null), "{view}");
    }
    let by_secret = rig.explain(json!({ "key": secret, "path": "/v3/scan", "ip": "127.0.0.1" })).await;
    assert_eq!((&by_secret["key_id"], &by_secret["route"]), (&json!(id), &json!("scan")));
    assert_eq!(policy(&by_secret, "per-day")["remaining"], 2);
    assert_eq!([rig.request(&secret, "/v3/a").await, rig.request(&secret, "/v3/b").await], [200, 200]);
    // A row is charged when it is applied, which is after its answer.
    let view = loop {
        let view = rig.explain(question.clone()).await;
        if policy(&view, "monthly")["used"] == 2 {
            break view;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let (limit, quota) = (policy(&view, "per-day"), policy(&view, "monthly"));
    assert_eq!((&view["outcome"], &view["decided_by"]), (&json!("rate-limited"), &json!("per-day")));
    assert_eq!((&limit["remaining"], &limit["needed"], &limit["passes"]), (&json!(0), &json!(1), &json!(false)));
    assert_eq!((&limit["set_by"], &limit["limit"]), (&json!("/v1/tiers/free"), &json!(2)));
    assert_eq!((&quota["passes"], &policy(&view, "concurrency")["limit"]), (&json!(true), &json!(5)));
    assert_eq!(rig.request(&secret, "/v3/c").await, 429, "as it was explained");
    let trace = rig.trace("status=429").await;
    for name in ["per-day", "monthly", "concurrency"] {
        let (then, told) = (policy(&trace, name), policy(&view, name));
        for field in ["kind", "unit", "limit", "used", "remaining", "needed", "passes", "shadow", "set_by"] {
            // A quota that nobody has asked for in a few seconds is forgotten, and a slow machine takes as long.
            let forgotten = name == "monthly" && ["used", "remaining"].contains(&field) && then[field].is_null();
            let same = then[field] == told[field] || forgotten;
            assert!(same, "{field} of {name} is not as it was explained: {trace} after {view}");
        }
    }
    assert_eq!(policy(&trace, "monthly")["resets_at"], policy(&view, "monthly")["resets_at"]);
    assert_eq!(trace["step"], "rate");
    let names = |told: &Value| {
        told["steps"].as_array().expect("steps").iter().map(|step| step["step"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&trace), names(&view), "the steps of explain, in their order");

    // An override for the account: raised at once, and it says so.
    let overrides = json!({ "limits": [{ "name": "per-day", "per": ["key", "route"], "rate": "9/d", "burst": 9 }] });
    let patched = rig.call(Method::PATCH, "/v1/accounts/acme", Some(json!({ "overrides": overrides }))).await;
    assert_eq!(patched.status, 200);
    let view = rig.explain(question).await;
    assert_eq!(
        (&view["outcome"], &policy(&view, "per-day")["set_by"]),
        (&json!("admitted"), &json!("/v1/accounts/acme"))
    );
    assert_eq!(rig.request(&secret, "/v3/d").await, 200, "as it was explained");
    // Who let it through is not kept, what it was charged to is.
    let trace = rig.trace("status=200").await;
    assert_eq!((&trace["step"], trace["policies"].as_array().map(Vec::len)), (&Value::Null, Some(1)), "{trace}");
    let charged = policy(&trace, "monthly");
    assert_eq!((&charged["needed"], &charged["passes"], &charged["used"]), (&json!(1), &json!(true), &Value::Null));
    assert_eq!((rig.request(&secret, "/other").await, names(&trace).len()), (404, 8));
    let trace = rig.trace("status=404").await;
    let last = trace["steps"].as_array().and_then(|steps| steps.last()).expect("a step");
    assert_eq!((&last["step"], &last["outcome"]), (&json!("route"), &json!("no-route")), "{trace}");
    assert_eq!((names(&trace).len(), &trace["policies"]), (5, &json!([])));

    let deny = async |question: Value| rig.explain(question).await["outcome"].as_str().expect("one").to_owned();
    assert_eq!(deny(json!({ "key_id": id, "path": "/v3/scan", "ip": "10.0.0.1" })).await, "ip-not-allowed");
    assert_eq!(deny(json!({ "key_id": id, "path": "/other", "ip": "127.0.0.1" })).await, "no-route");
    let unknown = Secret::generate(SecretKind::Live);
    assert_eq!(deny(json!({ "key": unknown.expose(), "path": "/v3" })).await, "unknown-key");
    assert_eq!(deny(json!({ "key": "tg_live_x", "path": "/v3" })).await, "malformed-key");
    assert_eq!(rig.call(Method::DELETE, &format!("/v1/keys/{id}"), None).await.status, 204);
    assert_eq!(deny(json!({ "key_id": id, "path": "/v3", "ip": "127.0.0.1" })).await, "revoked-key");
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_followed_as_it_comes_and_taken_up_where_it_broke_off() {
    let rig = Rig::start().await;
    let (_, secret) = rig.serve().await;
    assert_eq!(rig.request(&secret, "/v3/before").await, 200);
    let follow = |query: &'static str, last: Option<String>, count: usize| {
        let (agent, token) = (rig.agent.clone(), rig.token.clone());
        let url = format!("http://{}/v1/requests/tail{query}", rig.node.info.admin_addr);
        let (ready, started) = tokio::sync::oneshot::channel();
        let task = tokio::task::spawn_blocking(move || {
            let mut request = agent.get(&url).header("authorization", format!("Bearer {token}"));
            if let Some(last) = last {
                request = request.header("last-event-id", last);
            }
            let mut lines = BufReader::new(request.call().expect("an answer").into_body().into_reader()).lines();
            assert_eq!(lines.next().expect("a line").expect("text"), ": following");
            // Nobody waits for one that goes on where another broke off.
            let _ = ready.send(());
            let (mut rows, mut ids) = (Vec::<Value>::new(), Vec::new());
            while rows.len() < count {
                let line = lines.next().expect("a line").expect("text");
                if let Some(id) = line.strip_prefix("id: ") {
                    ids.push(id.to_owned());
                } else if let Some(data) = line.strip_prefix("data: ") {
                    rows.push(serde_json::from_str(data).expect("JSON"));
                }
            }
            (rows, ids)
        });
        (task, started)
    };
    let (all, started) = follow("", None, 2);
    started.await.expect("follows");
    let (refused, started) = follow("?status=429&account=acme", None, 1);
    started.await.expect("follows");
    assert_eq!(rig.request(&secret, "/v3/one").await, 200);
    assert_eq!(rig.request(&secret, "/v3/two").await, 429);
    let paths =
        |rows: &[Value]| rows.iter().map(|row| row["path"].as_str().expect("a path").to_owned()).collect::<Vec<_>>();
    let (rows, ids) = tokio::time::timeout(Duration::from_secs(10), all).await.expect("in time").expect("no panic");
    assert_eq!(paths(&rows), ["/v3/one", "/v3/two"], "from now on, in order");
    let (rows, _) = tokio::time::timeout(Duration::from_secs(10), refused).await.expect("in time").expect("no panic");
    assert_eq!(paths(&rows), ["/v3/two"]);
    assert_eq!(rig.request(&secret, "/v3/three").await, 429);
    let (missed, _) = follow("", ids.last().cloned(), 1);
    let (rows, _) = tokio::time::timeout(Duration::from_secs(10), missed).await.expect("in time").expect("no panic");
    assert_eq!(paths(&rows), ["/v3/three"]);
    rig.node.drain(Duration::from_secs(1)).await;
}
