//! Bad input to every call of the admin API, driven by its own OpenAPI document: a 4xx problem with a pointer, nothing
//! changed, memory flat. A call that is added is asked too.

use serde_json::{Map, Value, json};
use tests::{Admin, Answer, Cluster, Upstream};

const JSON: (&str, &str) = ("content-type", "application/json");
const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");

struct World {
    admin: Admin,
    key: String,
    token: String,
}

/// One call of the document.
struct Call<'d> {
    method: String,
    path: String,
    operation: &'d Value,
}

impl Call<'_> {
    /// The schema of its body, and the example.
    fn body(&self) -> Option<(&Value, &Value)> {
        let content = self.operation["requestBody"]["content"].as_object()?.values().next()?;
        Some((&content["schema"], &content["example"]))
    }

    fn parameters(&self) -> impl Iterator<Item = &Value> {
        self.operation["parameters"].as_array().into_iter().flatten()
    }

    fn takes(&self, name: &str) -> bool {
        self.parameters().any(|parameter| parameter["name"] == name && parameter["in"] == "query")
    }
}

fn furnish(upstream: &Upstream, admin: Admin) -> World {
    admin.put_route(&upstream.url);
    let tier = json!({
        "limits": [{ "name": "per-second", "rate": "5/s", "burst": 15 }],
        "quotas": [{ "name": "daily", "limit": 100, "period": "day" }],
    });
    admin.put_tier("free", &tier);
    admin.create_account("acme", "free");
    let key = admin.create_key("acme", &json!({ "name": "main" })).0;
    let token = admin.write("POST", "/v1/tokens", &json!({ "name": "ci", "role": "viewer" }));
    World { key, token: token["id"].as_str().expect("an id").to_owned(), admin }
}

fn calls<'d>(document: &'d Value, world: &World) -> Vec<Call<'d>> {
    let mut calls = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        if !path.starts_with("/v1/") {
            continue;
        }
        for (method, operation) in operations.as_object().expect("operations") {
            if !["get", "post", "put", "patch", "delete"].contains(&method.as_str()) {
                continue;
            }
            let id = match path.split('/').nth(2).expect("a resource") {
                "accounts" => "acme",
                "keys" => &world.key,
                "tokens" => &world.token,
                "requests" => "01a1fcbf-ddfa-7afd-b03e-aa2842c0410f",
                _ => "scan",
            };
            let name = match path.split('/').nth(2) {
                Some("tiers") => "free",
                Some("accounts") => "per-second",
                _ => "scan",
            };
            let path = path.replace("{id}", id).replace("{name}", name);
            assert!(!path.contains('{'), "{path}: a parameter that this test does not know");
            calls.push(Call { method: method.to_uppercase(), path, operation });
        }
    }
    calls
}

/// Everything that a refused write could have changed.
fn all(admin: &Admin) -> Vec<Value> {
    let lists = ["accounts", "tiers", "routes", "upstreams", "tokens", "accounts/acme/keys"];
    lists.iter().map(|list| admin.get(&format!("/v1/{list}"))).collect()
}

fn refused(call: &Call<'_>, what: &str, answer: &Answer) {
    let at = || format!("{} {} with {what}: {} {}", call.method, call.path, answer.status, answer.text);
    assert!((400..500).contains(&answer.status), "{}", at());
    assert!(![401, 403, 404, 409].contains(&answer.status), "it never came to the input: {}", at());
    answer.assert_problem(answer.status, answer.body["code"].as_str().unwrap_or_default());
}

fn pointers(answer: &Answer) -> Vec<&str> {
    let errors = answer.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(|error| error["pointer"].as_str()).collect()
}

/// A value that no field of this schema takes; none for one that takes anything.
fn wrong(schema: &Value) -> Option<Value> {
    let mut types = Vec::new();
    gather(schema, &mut types)?;
    let candidates = [("object", json!({ "nobody": [] })), ("array", json!([[]])), ("boolean", json!(true))];
    candidates.into_iter().find(|(kind, _)| !types.contains(kind)).map(|(_, value)| value)
}

fn gather<'s>(schema: &'s Value, types: &mut Vec<&'s str>) -> Option<()> {
    if let Some(some) = schema["anyOf"].as_array() {
        return some.iter().try_for_each(|one| gather(one, types));
    }
    if schema.get("enum").is_some() && schema.get("type").is_none() {
        return Some(());
    }
    match &schema["type"] {
        Value::String(kind) => types.push(kind),
        Value::Array(kinds) => types.extend(kinds.iter().filter_map(Value::as_str)),
        _ => return None,
    }
    Some(())
}

#[test]
fn every_call_refuses_bad_bodies_with_their_places_and_changes_nothing() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let world = furnish(&upstream, cluster.nodes[0].admin());
    let admin = &world.admin;
    let document = admin.get("/openapi.json");
    let before = all(admin);
    let calls = calls(&document, &world);
    let (mut bodies, mut fields) = (0, 0);
    for call in &calls {
        let Some((schema, example)) = call.body() else { continue };
        bodies += 1;
        let schema = match schema["$ref"].as_str() {
            Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("it is there"),
            None => schema,
        };
        let head = [if call.method == "PATCH" { MERGE } else { JSON }];
        let send = |body: &[u8]| admin.send(&call.method, &call.path, &head, body);
        for bad in ["{", "[]", "5", "\"x\"", "{\"a\": 1,}", "{\"a\": \u{1}}", &"[".repeat(100_000)] {
            refused(call, &bad[..bad.len().min(20)], &send(bad.as_bytes()));
        }
        refused(call, "invalid UTF-8", &send(b"{\"name\": \"\xff\xfe\"}"));
        let mut unknown = example.clone();
        unknown["nobody_knows"] = json!(1);
        let answer = send(unknown.to_string().as_bytes());
        refused(call, "an unknown field", &answer);
        assert!(pointers(&answer).contains(&"/nobody_knows"), "{} {}: {}", call.method, call.path, answer.text);
        for (name, form) in schema["properties"].as_object().unwrap_or(&Map::new()) {
            let Some(value) = wrong(form) else { continue };
            let mut body = example.clone();
            body[name] = value.clone();
            let answer = send(body.to_string().as_bytes());
            refused(call, &format!("{name}: {value}"), &answer);
            let place = format!("/{name}");
            let told = pointers(&answer).iter().any(|pointer| pointer.starts_with(&place));
            assert!(told, "{} {} with {name}: {value}: {}", call.method, call.path, answer.text);
            fields += 1;
        }
    }
    assert!(bodies >= 15 && fields >= 60, "{bodies} bodies, {fields} fields: the document has lost some");
    assert_eq!(all(admin), before);
}

#[test]
fn every_call_refuses_bad_queries_and_bodies_without_bounds_and_memory_stays_flat() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let world = furnish(&upstream, cluster.nodes[0].admin());
    let admin = &world.admin;
    let document = admin.get("/openapi.json");
    let calls = calls(&document, &world);
    let before = all(admin);
    for call in calls.iter().filter(|call| call.method == "GET") {
        let get = |query: &str| admin.call("GET", &format!("{}?{query}", call.path), None);
        let answer = get("nobody_knows=1");
        if !call.path.ends_with("/requests/01a1fcbf-ddfa-7afd-b03e-aa2842c0410f") {
            refused(call, "an unknown parameter", &answer);
        }
        assert_eq!(pointers(&answer), ["?nobody_knows"], "{}: {}", call.path, answer.text);
        refused(call, "consistency=perhaps", &get("consistency=perhaps"));
        for name in ["since", "until"].into_iter().filter(|name| call.takes(name)) {
            let answer = get(&format!("{name}=yesterday"));
            refused(call, name, &answer);
            assert_eq!(pointers(&answer), [format!("?{name}")]);
        }
        if call.takes("limit") {
            for limit in ["0", "1001", "1000000000", "99999999999999999999999", "-1", "x", "1.5", ""] {
                let answer = get(&format!("limit={limit}"));
                refused(call, limit, &answer);
                assert_eq!(pointers(&answer), ["?limit"], "{}: {}", call.path, answer.text);
            }
            let cursor = format!("cursor={}", "x".repeat(5_000));
            refused(call, "a long cursor", &get(&cursor));
        }
    }
    let resident = || cluster.nodes[0].resident_bytes();
    let large = format!("{{\"nobody_knows\": \"{}\"}}", "x".repeat(10 << 20));
    let with_bodies: Vec<&Call<'_>> = calls.iter().filter(|call| call.body().is_some()).collect();
    let answered = std::cell::Cell::new(0);
    let send_all = || {
        for call in &with_bodies {
            let head = [if call.method == "PATCH" { MERGE } else { JSON }];
            // The node answers before it has read all, and closes: a client that still writes may see only that.
            if let Ok(answer) = admin.try_send(&call.method, &call.path, &head, large.as_bytes()) {
                refused(call, "10 MB", &answer);
                answered.set(answered.get() + 1);
            }
        }
    };
    send_all();
    let once = resident();
    for _ in 0..4 {
        send_all();
    }
    let grown = resident().saturating_sub(once);
    assert!(grown < 32 << 20, "{} bodies of 10 MB more, {} MiB more memory", 4 * with_bodies.len(), grown >> 20);
    assert!(answered.get() > 0);
    assert_eq!(all(admin), before);
    assert!(cluster.nodes[0].is_ready());
}
