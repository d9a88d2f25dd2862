//! The OpenAPI 3.1 document.

#![allow(clippy::needless_pass_by_value, reason = "schemas are put together from fresh parts")]

use http::Method;
use serde_json::{Map, Value, json};

use super::{
    Answer, Call, Paths, Takes, Text,
    schema::{about, list, name, object, one_of, or_null, pattern, slug, text, time, whole},
    views::{self, View},
};

/// Refusals that every call can meet, and the words for them.
const REFUSALS: [(u16, &str); 11] = [
    (400, "Malformed: the query, a header, or a body that is not JSON"),
    (401, "No token, or one that is not known or has expired"),
    (403, "The token's role is too low, or it is limited to other accounts"),
    (404, "Not there"),
    (409, "In the way: it exists, is in use, or is being changed"),
    (412, "The object is not as If-Match or If-None-Match says"),
    (413, "The body is larger than admin_body_bytes"),
    (422, "The body does not fit; `errors` has every place"),
    (429, "Too many tokens that are not known came from this address: try again after Retry-After"),
    (500, "The ledger could not be read"),
    (503, "No quorum, or at a bound: try again after Retry-After"),
];

/// The whole document.
pub(crate) fn complete(paths: Paths) -> Value {
    let paths: Map<String, Value> =
        paths.into_iter().map(|(path, item)| (format!("/v1{path}"), Value::Object(item))).collect();
    let schemas: Map<String, Value> =
        View::ALL.into_iter().map(|view| (view.name(), view.schema())).chain([("Problem".into(), problem())]).collect();
    let responses: Map<String, Value> = REFUSALS
        .into_iter()
        .map(|(status, words)| {
            let body = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
            (
                format!("Refused{status}"),
                json!({ "description": words, "content": { "application/problem+json": body } }),
            )
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Accounts, keys, tiers, routes and upstreams of a Tollgate cluster; its request log, usage and audit. \
                            A write that was answered is in force on every node. Reads are linearizable unless they say \
                            `?consistency=stale`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "tags": [
            { "name": "accounts" }, { "name": "keys" }, { "name": "tiers" }, { "name": "routes" }, { "name": "upstreams" },
            { "name": "requests" }, { "name": "cluster" }, { "name": "tokens" }, { "name": "audit" }, { "name": "batch" },
            { "name": "explain" }, { "name": "apply" }, { "name": "export" },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "An admin token, `tga_…`." },
            },
        },
    })
}

/// One call.
pub(super) fn operation(method: &Method, path: &str, call: &Call) -> Value {
    let reads = *method == Method::GET;
    let mut parameters: Vec<Value> = in_path(path);
    for takes in call.takes {
        parameters.extend(taken(*takes, method));
    }
    if reads {
        let choices = one_of(&["linearizable", "stale"]);
        parameters.push(query("consistency", choices, "How fresh; stale says its age in Tollgate-Staleness-Ms"));
    }
    if let Some((_, Answer::Revised(view) | Answer::Plain(view) | Answer::List(view))) = call.answers.first()
        && reads
    {
        let fields: Vec<String> = view.fields().into_iter().collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let some = json!({ "type": "array", "items": one_of(&fields), "minItems": 1 });
        let mut parameter = query("fields", some, "Only these fields, by commas");
        parameter["style"] = "form".into();
        parameter["explode"] = false.into();
        parameters.push(parameter);
    }
    // These come to the same however often they are asked for.
    const REPEATABLE: [&str; 7] =
        ["explain", "apply", "previewTierAs", "joinNode", "drainNode", "transferLeader", "splitLedger"];
    if *method == Method::POST && !REPEATABLE.contains(&call.id) {
        let form = pattern("^[!-~]{1,255}$");
        parameters.push(header(
            "Idempotency-Key",
            form,
            "Makes the call happen once in 24 h, however often it is sent",
        ));
    }
    let mut responses: Map<String, Value> =
        call.answers.iter().map(|(status, answer)| (status.to_string(), answered(*answer, method))).collect();
    for (status, _) in REFUSALS {
        let refusal = json!({ "$ref": format!("#/components/responses/Refused{status}") });
        responses.insert(status.to_string(), refusal);
    }
    if let (true, Some((_, Answer::Revised(_)))) = (reads, call.answers.first()) {
        let words = "What If-None-Match names: not changed since.";
        responses.insert("304".to_owned(), json!({ "description": words }));
    }
    let tag = path.split('/').nth(1).unwrap_or_default();
    let tag = if path.ends_with("/keys") { "keys" } else { tag };
    let mut operation = json!({
        "operationId": call.id,
        "tags": [tag],
        "summary": call.summary,
        "description": format!("Needs the role `{}`.", call.role),
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = call.body {
        let example: Value = serde_json::from_str(body.example).expect("examples are JSON");
        let kind = if *method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let content = json!({ kind: { "schema": (body.form)(), "example": example } });
        operation["requestBody"] = json!({ "required": !body.may_be_empty, "content": content });
    }
    operation
}

fn in_path(path: &str) -> Vec<Value> {
    let of_path = match path.split('/').nth(1) {
        Some("accounts") => (slug(), "The account's id", "acme"),
        Some("keys") => (pattern("^key_[0-9A-HJKMNP-TV-Z]{26}$"), "The key's id", "key_01M7YCG97NQQWGSKVJ8BWS25DH"),
        Some("tokens") => (pattern("^tok_[0-9A-HJKMNP-TV-Z]{26}$"), "The token's id", "tok_01M7YCG97NQQWGSKVJ8BWS25DH"),
        Some("requests") => {
            (json!({ "type": "string", "format": "uuid" }), "The request's id", "01a1fcbf-ddfa-7afd-b03e-aa2842c0410f")
        }
        Some("tiers") => (name(), "Its name", "free"),
        Some("routes") => (name(), "Its name", "scan"),
        Some("cluster") => (slug(), "The node's name or id", "node-2"),
        _ => (name(), "Its name", "scan-api"),
    };
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|part| {
            let of_policy = (name(), "The policy's name", "per-second");
            let is_policy = part == "name" && path.starts_with("/accounts/");
            let (schema, words, example) = if is_policy { &of_policy } else { &of_path };
            json!({
                "name": part, "in": "path", "required": true, "schema": schema, "description": words, "example": example,
            })
        })
        .collect()
}

fn taken(takes: Takes, method: &Method) -> Vec<Value> {
    match takes {
        Takes::Page => page("^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"),
        Takes::AuditPage => page("^[0-9]{1,18}-[0-9]{1,9}$"),
        Takes::RequestPage => page("^[0-9a-f]{32}$"),
        Takes::Query(name, form, words) => vec![query(name, form.schema(), words)],
        Takes::Condition => {
            let mut form = pattern("^(?:[0-9]{1,18}|\"[0-9]{1,18}\"|\\*)$");
            form["examples"] = json!(["\"17\"", "*"]);
            let mut taken = vec![header(
                "If-Match",
                form,
                "Only if the object is at this revision (its ETag), or there at all (*)",
            )];
            if *method == Method::PUT {
                taken.push(header(
                    "If-None-Match",
                    one_of(&["*"]),
                    "Only if there is none; never together with If-Match",
                ));
            }
            taken
        }
        Takes::LastEvent => {
            vec![header("Last-Event-ID", pattern("^[0-9]{1,18}([.][0-9]{1,18}){0,15}$"), "Goes on after this event")]
        }
    }
}

fn page(cursor: &str) -> Vec<Value> {
    vec![
        query("limit", whole(1, 1_000), "Items of a page; 50 when not said"),
        query("cursor", pattern(cursor), "A next_cursor, as it was given"),
    ]
}

impl Text {
    fn schema(self) -> Value {
        match self {
            Self::Any => json!({ "type": "string", "minLength": 1, "maxLength": 200 }),
            Self::Name => name(),
            Self::Slug => slug(),
            Self::Time => time(),
            Self::Status => whole(100, 999),
            Self::OneOf(texts) => one_of(texts),
            Self::Outcome => views::outcome(),
            Self::Days => whole(1, 7),
            Self::AuditPlace => pattern("^[0-9]{1,18}-[0-9]{1,9}$"),
        }
    }
}

fn query(name: &str, schema: Value, words: &str) -> Value {
    json!({ "name": name, "in": "query", "required": false, "schema": schema, "description": words })
}

fn header(name: &str, schema: Value, words: &str) -> Value {
    json!({ "name": name, "in": "header", "required": false, "schema": schema, "description": words })
}

fn answered(answer: Answer, method: &Method) -> Value {
    let can_be_repeated = *method == Method::POST;
    let of = |view: View| {
        let whole = json!({ "$ref": format!("#/components/schemas/{}", view.name()) });
        if *method != Method::GET {
            return whole;
        }
        // With ?fields, what was asked for.
        let mut part = view.schema();
        if let Some(map) = part.as_object_mut() {
            map.shift_remove("required");
            map.insert("title".to_owned(), format!("Fields of {}", view.name()).into());
        }
        json!({ "anyOf": [whole, part] })
    };
    let mut headers = json!({ "X-Request-Id": { "schema": { "type": "string", "format": "uuid" } } });
    if can_be_repeated {
        let words = "Sent when the answer repeats an earlier one under the same Idempotency-Key.";
        headers["Idempotency-Replayed"] = json!({ "schema": one_of(&["true"]), "description": words });
    }
    let (words, kind, schema) = match answer {
        Answer::Empty => return json!({ "description": "Done", "headers": headers }),
        Answer::Revised(view) => {
            headers["ETag"] = json!({ "schema": pattern("^\"[0-9]+\"$"), "description": "The object's revision." });
            ("The object", "application/json", of(view))
        }
        Answer::Plain(view) => ("Done", "application/json", of(view)),
        Answer::List(view) => {
            let next = about(or_null(text()), "Where the next page starts; null on the last one.");
            ("A page", "application/json", object(vec![("data", list(of(view))), ("next_cursor", next)]))
        }
        Answer::Events(view) => (
            "Events, as they come",
            "text/event-stream",
            about(text(), &format!("`data` of each `request` event is a {}.", view.name())),
        ),
        Answer::Lines(view) => {
            ("Lines", "application/x-ndjson", about(text(), &format!("Each line is an {}.", view.name())))
        }
    };
    json!({ "description": words, "headers": headers, "content": { kind: { "schema": schema } } })
}

fn problem() -> Value {
    let error = object(vec![
        (
            "pointer",
            about(
                text(),
                "JSON pointer (RFC 6901) into the body; `?name` for a query parameter, a header by its name.",
            ),
        ),
        ("detail", text()),
    ]);
    let mut problem = object(vec![
        ("type", text()),
        ("title", text()),
        ("status", whole(400, 599)),
        ("code", about(text(), "Stable.")),
        ("detail", text()),
        ("request_id", text()),
        ("errors?", list(error)),
        ("current_revision?", json!({ "type": "integer" })),
    ]);
    problem["description"] = "RFC 9457".into();
    problem
}
