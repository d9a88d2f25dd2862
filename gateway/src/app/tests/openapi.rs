//! The OpenAPI document against the node that serves it: every example runs, every answer is as it says.

use super::*;

/// What does not fit a schema: the part of JSON Schema that the document uses.
pub(super) fn misfits(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).expect("a reference leads somewhere");
        return misfits(document, target, value, at, found);
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[choice].as_array().filter(|all| all.iter().any(|one| one.get("type").is_some())) {
            let fits = |one: &Value| {
                let mut inner = Vec::new();
                misfits(document, one, value, at, &mut inner);
                inner.is_empty()
            };
            if !choices.iter().any(fits) {
                found.push(format!("{at}: {value} fits none of {choice}"));
            }
        }
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.contains(&kind) {
        found.push(format!("{at}: is {kind}, not {}", kinds.join(" or ")));
    }
    if let Some(choices) = schema["enum"].as_array().filter(|choices| !choices.contains(value)) {
        found.push(format!("{at}: {value} is none of {choices:?}"));
    }
    if let (Some(map), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                found.push(format!("{at}/{name}: is missing"));
            }
        }
        for (name, value) in map {
            match properties.get(name) {
                Some(schema) => misfits(document, schema, value, &format!("{at}/{name}"), found),
                None if schema["additionalProperties"] == false => found.push(format!("{at}/{name}: is not told")),
                None => {}
            }
        }
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        misfits(document, &schema["items"], item, &format!("{at}/{n}"), found);
    }
}

/// Calls in the order in which their examples can be run: what others need comes first, what takes away last.
fn order(method: &str, path: &str) -> (usize, usize, String) {
    let turn = ["put", "post", "patch", "get", "delete"].iter().position(|turn| *turn == method).expect("a method");
    let nouns = ["upstreams", "tiers", "routes", "accounts", "keys", "tokens", "batch"];
    let noun = nouns.iter().position(|noun| path.split('/').nth(2) == Some(*noun)).unwrap_or(nouns.len());
    let (turn, noun) = if method == "delete" { (turn, nouns.len() - noun) } else { (turn, noun) };
    (turn, noun, path.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_runs_and_every_answer_is_as_the_document_says() {
    let rig = Rig::start().await;
    let document = rig.call_as("none", Method::GET, "/openapi.json", None, &[]).await.body;
    assert_eq!(document["openapi"], "3.1.0");
    let mut calls: Vec<(String, String, Value)> = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            calls.push((method.clone(), path.clone(), operation.clone()));
        }
    }
    calls.sort_by_key(|(method, path, _)| order(method, path));
    assert_eq!(calls.len(), 53, "a call came or went");
    let (mut key, mut token) = (String::new(), String::new());
    for (method, path, operation) in calls {
        if path.ends_with("/tail") || path.ends_with("/requests/{id}") {
            // Has no end; needs a request that was served. Both have tests of their own.
            continue;
        }
        if path.starts_with("/v1/cluster/") {
            // Needs more nodes than this one: tests/it/membership.rs.
            continue;
        }
        let mut target = path.clone();
        for parameter in operation["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] == "path") {
            let example = match path.split('/').nth(2) {
                Some("keys") => key.as_str(),
                Some("tokens") => token.as_str(),
                _ => parameter["example"].as_str().expect("an example"),
            };
            target = target.replace(&format!("{{{}}}", parameter["name"].as_str().expect("a name")), example);
        }
        let content = operation["requestBody"]["content"].as_object().and_then(|content| content.values().next());
        let mut body = content.map(|content| content["example"].clone());
        if operation["operationId"] == "explain" {
            body.as_mut().expect("a body")["key_id"] = key.clone().into();
        }
        if operation["operationId"] == "deleteAccount" {
            // Only without keys, as it says.
            let keys = rig.call(Method::GET, "/v1/accounts/acme/keys", None).await.body;
            for key in keys["data"].as_array().expect("keys") {
                let path = format!("/v1/keys/{}", key["id"].as_str().expect("an id"));
                assert_eq!(rig.call(Method::DELETE, &path, None).await.status, 204);
            }
        }
        if operation["operationId"] == "deleteRoute" || operation["operationId"] == "deleteTier" {
            // The batch's example has moved the account to a tier of its own.
            let _ = rig.call(Method::DELETE, "/v1/tiers/gold", None).await;
        }
        let name = method.to_uppercase();
        let said = rig.call(Method::from_bytes(name.as_bytes()).expect("a method"), &target, body).await;
        let answer = &operation["responses"][said.status.to_string()];
        assert!(
            (200..300).contains(&said.status) && answer.is_object(),
            "{name} {target}: {} {}",
            said.status,
            said.body
        );
        if let Some(schema) = answer["content"].get("application/json").map(|content| &content["schema"]) {
            let mut found = Vec::new();
            misfits(&document, schema, &said.body, "", &mut found);
            assert!(found.is_empty(), "{name} {target}: {found:#?}");
        }
        assert_eq!(said.etag.is_some(), answer["headers"]["ETag"].is_object(), "{name} {target}");
        let id = said.body["id"].as_str().map(str::to_owned);
        match operation["operationId"].as_str() {
            Some("createKey") => key = id.expect("an id"),
            Some("createToken") => token = id.expect("an id"),
            // What is rotated once cannot be again.
            Some("rotateKey") => key = id.expect("an id"),
            _ => {}
        }
    }
    let refused = rig.put("/v1/tiers/free", json!({ "x": 1 })).await;
    let mut found = Vec::new();
    misfits(&document, &document["components"]["schemas"]["Problem"], &refused.body, "", &mut found);
    assert!(found.is_empty(), "{found:#?}");
    for (path, kind) in [
        ("/docs/", "swagger-ui"),
        ("/docs/swagger-ui-bundle.js", "function"),
        ("/docs/swagger-initializer.js", "/openapi.json"),
    ] {
        let page = rig.call_as("none", Method::GET, path, None, &[]).await;
        assert!(
            page.status == 200 && page.body.as_str().is_some_and(|text| text.contains(kind)),
            "{path}: {}",
            page.status
        );
        assert!(!page.body.as_str().is_some_and(|text| text.contains("src=\"http")), "{path} asks others");
    }
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_cut_to_the_fields_that_are_asked_for() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let one = rig.call(Method::GET, "/v1/accounts/acme?fields=id,tier", None).await;
    assert_eq!((&one.body, one.etag.is_some()), (&json!({ "id": "acme", "tier": "free" }), true));
    let page = rig.call(Method::GET, "/v1/accounts?fields=name&limit=1", None).await;
    assert_eq!(page.body, json!({ "data": [{ "name": "Acme" }], "next_cursor": null }));
    let tier = rig.call(Method::GET, "/v1/tiers/free?fields=concurrency", None).await;
    assert_eq!((tier.status, tier.body), (200, json!({})), "a field that it does not have now");
    for bad in [
        "/v1/accounts?fields=nme",
        "/v1/accounts?fields=",
        "/v1/accounts?fields=id&fields=name",
        "/v1/audit/export?fields=id",
    ] {
        let said = rig.call(Method::GET, bad, None).await;
        assert_eq!((said.status, &said.body["errors"][0]["pointer"]), (400, &json!("?fields")), "{bad}");
    }
    assert_eq!(rig.call(Method::GET, "/v1/accounts/none?fields=id", None).await.status, 404);
    rig.node.drain(Duration::from_secs(1)).await;
}
