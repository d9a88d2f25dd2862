//! JSON Schema (2020-12, as OpenAPI 3.1 has it), in few words.

#![allow(clippy::needless_pass_by_value, reason = "schemas are put together from fresh parts")]

use serde_json::{Map, Value, json};

/// A text; the pattern holds for all of it.
pub(super) fn pattern(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

/// The name of a tier, route, upstream, limit, quota, scope or region.
pub(super) fn name() -> Value {
    pattern("^[a-z0-9][a-z0-9._-]{0,62}$")
}

/// What a key may do: a name, or several that colons part. At most 63 characters in all.
pub(super) fn scope() -> Value {
    json!({ "type": "string", "maxLength": 63, "pattern": "^[a-z0-9][a-z0-9._-]*(?::[a-z0-9][a-z0-9._-]*)*$" })
}

/// The id of an account.
pub(super) fn slug() -> Value {
    pattern("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
}

/// What people call something.
pub(super) fn label() -> Value {
    json!({ "type": "string", "maxLength": 200, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$" })
}

/// A time as it is taken: RFC 3339, also with a space for the `T` or without seconds.
pub(super) fn moment() -> Value {
    json!({ "anyOf": [time(), { "type": "string", "pattern": "^[+-]?[0-9]{4}", "examples": ["2026-01-31 12:00:00Z"] }] })
}

/// A time as it is answered.
pub(super) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// A path of a route.
pub(super) fn path() -> Value {
    json!({ "type": "string", "maxLength": 1024, "pattern": "^/[^?# \\x00-\\x1f\\x7f]*$" })
}

/// The host of a route, without port.
pub(super) fn host() -> Value {
    pattern("^[a-z0-9._:\\[\\]-]{1,253}$")
}

pub(super) fn method() -> Value {
    pattern("^[A-Z-]{1,32}$")
}

/// A header's name: a token (RFC 9110 §5.6.2).
pub(super) fn header_name() -> Value {
    like(pattern("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"), &["cache-control", "x-thing"])
}

/// What a header can be set to.
pub(super) fn header_value() -> Value {
    pattern("^[\\t -~]{0,4096}$")
}

/// With examples: what generators and readers begin with where the schema itself says little.
pub(super) fn like(mut schema: Value, examples: &[&str]) -> Value {
    schema["examples"] = json!(examples);
    schema
}

/// Any JSON at all.
pub(super) fn anything() -> Value {
    json!({})
}

pub(super) fn boolean() -> Value {
    json!({ "type": "boolean" })
}

pub(super) fn whole(least: u64, most: u64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

/// Any whole number that is not negative.
pub(super) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

pub(super) fn one_of(texts: &[&str]) -> Value {
    json!({ "type": "string", "enum": texts })
}

pub(super) fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

pub(super) fn list_of(items: Value, most: u64) -> Value {
    json!({ "type": "array", "items": items, "maxItems": most })
}

/// A JSON object of the caller's own.
pub(super) fn any_object() -> Value {
    json!({ "type": "object" })
}

/// The same, or null.
pub(super) fn or_null(schema: Value) -> Value {
    match schema {
        Value::Object(mut map) if map.contains_key("type") && !map.contains_key("enum") => {
            map["type"] = json!([map["type"], "null"]);
            Value::Object(map)
        }
        schema => json!({ "anyOf": [schema, { "type": "null" }] }),
    }
}

/// Anything; what the caller sends is not looked at.
pub(super) fn ignored() -> Value {
    json!({ "description": "As answered; not looked at." })
}

/// An object; a field whose name ends in `?` may be left out.
pub(super) fn object(fields: Vec<(&str, Value)>) -> Value {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('?')).collect();
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| (name.trim_end_matches('?').to_owned(), schema.clone())).collect();
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// With words.
pub(super) fn about(mut schema: Value, words: &str) -> Value {
    schema["description"] = words.into();
    schema
}
