//! The document's JSON Schema, for editors: `GET /schema.json`.

use axum::Json;
use serde_json::{Value, json};

use crate::admin::{api::inputs, forms::MAX_WHOLE};

/// The schema.
pub(crate) fn document() -> Value {
    let with_name = |mut schema: Value, name: &str, form: Value| {
        schema["properties"][name] = form;
        let mut required = schema["required"].as_array().cloned().unwrap_or_default();
        required.retain(|known| known != name);
        required.push(name.into());
        schema["required"] = required.into();
        schema
    };
    let name = json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$" });
    let list = |items: Value| json!({ "type": ["array", "null"], "items": items });
    let slug = json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$" });
    let mut key = (inputs::NEW_KEY.form)();
    key["properties"]["last4"] = json!({ "type": ["string", "null"], "pattern": "^[A-Za-z0-9]{4}$" });
    let key = with_name(key, "hash", json!({ "type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$" }));
    let mut account = with_name((inputs::NEW_ACCOUNT.form)(), "id", slug);
    account["properties"]["keys"] = list(key);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tollgate configuration",
        "description": "What `tollgate apply -f` takes. A list that is left out is not touched.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "version": { "enum": [1, null] },
            "revision": { "type": ["integer", "null"], "minimum": 0, "maximum": MAX_WHOLE, "description": "The state that the document was made of; what was changed since is not overwritten." },
            "upstreams": list(with_name((inputs::UPSTREAM.form)(), "name", name.clone())),
            "tiers": list(with_name((inputs::TIER.form)(), "name", name.clone())),
            "routes": list(with_name((inputs::ROUTE.form)(), "name", name)),
            "accounts": list(account),
        },
    })
}

/// `GET /schema.json`
pub(crate) async fn get() -> Json<Value> {
    Json(document())
}
