//! What tells two views of an object apart.

use serde_json::{Value, json};

/// Fields that nobody declares.
const ANSWERED: [&str; 6] = ["revision", "created_at", "last_used_at", "revoked_at", "rotated_from", "prefix"];

/// `create`, with all fields; `change`, with those that differ; none when they are the same.
pub(super) fn between(kind: &str, id: &str, before: Option<&Value>, after: &Value) -> Option<Value> {
    let empty = serde_json::Map::new();
    let (old, new) = (before.and_then(Value::as_object).unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let mut fields = Vec::new();
    for name in new.keys().chain(old.keys().filter(|name| !new.contains_key(*name))) {
        let of = |map: &serde_json::Map<String, Value>| map.get(name).filter(|value| !is_nothing(value)).cloned();
        let (was, is) = (of(old), of(new));
        if was != is && !ANSWERED.contains(&name.as_str()) {
            fields.push(json!({ "field": name, "before": was, "after": is }));
        }
    }
    let action = if before.is_some() { "change" } else { "create" };
    let told = before.is_none() || !fields.is_empty();
    told.then(|| json!({ "action": action, "kind": kind, "id": id, "fields": fields }))
}

/// `delete`, or `revoke` of a key.
pub(super) fn removal(action: &str, kind: &str, id: &str) -> Value {
    json!({ "action": action, "kind": kind, "id": id, "fields": [] })
}

/// An empty list, object or text is as good as none.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let before = json!({ "name": "free", "concurrency": 5, "quotas": [], "revision": 3 });
        assert_eq!(
            between("tier", "free", Some(&before), &json!({ "name": "free", "concurrency": 5, "revision": 0 })),
            None
        );
        let changed =
            between("tier", "free", Some(&before), &json!({ "name": "free", "concurrency": 6 })).expect("one");
        assert_eq!(changed["fields"], json!([{ "field": "concurrency", "before": 5, "after": 6 }]));
        let gone = between("tier", "free", Some(&before), &json!({ "name": "free" })).expect("one");
        assert_eq!(gone["fields"], json!([{ "field": "concurrency", "before": 5, "after": null }]));
        assert_eq!(between("tier", "x", None, &json!({})).expect("one")["action"], "create");
    }
}
