//! What the API takes, as schemas: never narrower than the readers of each resource, for editors and generated clients refuse
//! what a schema refuses. Where a reader's rule is no regular expression the schema takes more and gives examples.

use serde_json::{Value, json};
use store::model::MAX_LEDGER_GROUPS;

use super::{
    Body,
    schema::{
        about, anything, boolean, header_name, header_value, host, ignored, label, like, list_of, method, moment, name,
        object, one_of, or_null, path, pattern, scope, slug, text, whole,
    },
};
use crate::admin::{batch::MAX_OPERATIONS, forms::MAX_WHOLE};

const HOUR_MS: u64 = 3_600_000;

/// A body with an example.
pub(super) const fn body(form: fn() -> Value, example: &'static str) -> Body {
    Body { form, example, may_be_empty: false }
}

macro_rules! bodies {
    ($($name:ident: $form:ident, $example:literal;)*) => {
        $(pub(crate) const $name: Body = body($form, $example);)*
    };
}

bodies! {
    NEW_ACCOUNT: new_account, r#"{"id": "acme", "name": "ACME", "tier": "free", "metadata": {"crm": 5}}"#;
    CHANGED_ACCOUNT: changed_account, r#"{"name": "ACME Ltd", "metadata": {"crm": null, "vip": true}}"#;
    CHANGED_KEY: changed_key, r#"{"scopes": ["scan"], "allowed_ips": ["10.0.0.0/8"]}"#;
    TIER: tier, r#"{"limits": [{"name": "per-second", "per": ["key", "route"], "rate": "5/s", "burst": 15}], "quotas": [{"name": "daily", "limit": 10000, "period": "day"}], "concurrency": 20}"#;
    ROUTE: route, r#"{"match": {"path_prefix": "/v3", "methods": ["POST"]}, "upstream": "scan-api", "scopes": ["scan"]}"#;
    UPSTREAM: upstream, r#"{"targets": [{"url": "http://127.0.0.1:9000"}, {"url": "http://127.0.0.1:9001", "weight": 3}]}"#;
    NEW_TOKEN: new_token, r#"{"name": "ci", "role": "operator", "accounts": ["eu-*"]}"#;
    LOG_LEVEL: log_level, r#"{"level": "info,store=debug"}"#;
    PREVIEWED: tier, r#"{"limits": [{"name": "per-second", "rate": "1/s", "burst": 5}], "quotas": [{"name": "daily", "limit": 100, "period": "day"}]}"#;
    QUESTION: question, r#"{"key_id": "key_01M7YCG97NQQWGSKVJ8BWS25DH", "method": "POST", "path": "/v3/scan"}"#;
    BATCH: batch, r#"{"operations": [{"method": "PUT", "path": "/v1/tiers/gold", "body": {"concurrency": 50}}, {"method": "PATCH", "path": "/v1/accounts/acme", "body": {"tier": "gold"}}]}"#;
}

/// A document of `apply`.
pub(crate) const DOCUMENT: Body = Body {
    form: document,
    example: r#"{"version": 1, "tiers": [{"name": "silver", "concurrency": 10}], "accounts": [{"id": "umbrella", "tier": "silver"}]}"#,
    may_be_empty: false,
};

fn document() -> Value {
    json!({ "$ref": "#/components/schemas/Document" })
}

pub(crate) const NEW_KEY: Body =
    Body { form: new_key, example: r#"{"name": "ci", "env": "test", "scopes": ["scan"]}"#, may_be_empty: true };
pub(crate) const NEW_NODE: Body = body(new_node, r#"{"peer_addr": "10.0.0.7:8082"}"#);
pub(crate) const DRAIN: Body = Body { form: drain, example: r#"{"draining": true}"#, may_be_empty: true };
pub(crate) const TRANSFER: Body = Body { form: transfer, example: r#"{"to": "node-2"}"#, may_be_empty: true };
pub(crate) const SPLIT: Body = body(split, r#"{"ledger_groups": 2}"#);

fn split() -> Value {
    object(vec![("ledger_groups", whole(2, MAX_LEDGER_GROUPS.into()))])
}

fn new_node() -> Value {
    let addr = pattern("^[A-Za-z0-9._:\\[\\]-]{1,250}:\\+?[0-9]{1,}$");
    object(vec![("peer_addr", like(addr, &["10.0.0.7:8082", "node-2:18082", "[2001:db8::7]:8082"]))])
}

fn drain() -> Value {
    object(vec![("draining?", or_null(json!({ "type": "boolean" })))])
}

fn transfer() -> Value {
    object(vec![("group?", or_null(whole(0, u32::MAX.into()))), ("to?", or_null(slug()))])
}

pub(crate) const RESET: Body = Body { form: reset, example: "{}", may_be_empty: true };
pub(crate) const ROTATION: Body = Body { form: rotation, example: r#"{"grace_seconds": 3600}"#, may_be_empty: true };

fn scopes() -> Value {
    or_null(list_of(scope(), 100))
}

fn limit() -> Value {
    object(vec![
        ("name", name()),
        ("per?", or_null(list_of(one_of(&["account", "key", "route"]), 3))),
        (
            "rate",
            about(
                like(pattern("^\\s*\\+?[0-9]+\\s*/\\s*[smhd]\\s*$"), &["5/s", "300/m"]),
                "Units a second, minute, hour or day.",
            ),
        ),
        ("burst", whole(1, 100_000_000)),
        ("expires_at?", or_null(moment())),
        ("shadow?", shadow()),
    ])
}

fn quota() -> Value {
    object(vec![
        ("name", name()),
        ("unit?", or_null(one_of(&["requests", "content-bytes", "cost"]))),
        ("limit", whole(0, MAX_WHOLE)),
        ("period", one_of(&["hour", "day", "week", "month"])),
        ("timezone?", about(or_null(json!({ "type": "string" })), "An IANA name like Europe/Berlin.")),
        ("overage?", or_null(one_of(&["block", "allow"]))),
        ("expires_at?", or_null(moment())),
        ("anchor_day?", about(or_null(whole(1, 31)), "Day that weeks (1 Monday to 7 Sunday) or months begin on.")),
        (
            "thresholds?",
            about(or_null(list_of(whole(1, 1_000), 10)), "Percentages that raise an alert; 80 and 100 when not said."),
        ),
        ("shadow?", shadow()),
    ])
}

fn shadow() -> Value {
    about(or_null(boolean()), "Evaluated and reported, never refusing.")
}

/// A tier's policies do not end.
fn of_tier(mut policy: Value) -> Value {
    policy["properties"]["expires_at"] = json!({ "type": "null" });
    policy
}

fn overrides() -> Value {
    or_null(object(vec![("limits?", or_null(list_of(limit(), 16))), ("quotas?", or_null(list_of(quota(), 16)))]))
}

fn of_key() -> Value {
    about(
        overrides(),
        "Each stands in the place of the account's policy of the same name, for this key: what the key uses counts for the \
         account's quota no more. Under a name of its own it is a cap beside the account's.",
    )
}

fn new_account() -> Value {
    account(vec![("id?", or_null(slug())), ("tier", name())])
}

/// A merge patch: what is null is removed.
fn changed_account() -> Value {
    account(vec![("id?", slug()), ("tier?", name())])
}

fn account(mut fields: Vec<(&str, Value)>) -> Value {
    fields.extend([
        ("name?", or_null(label())),
        ("state?", or_null(one_of(&["active", "suspended"]))),
        ("region?", or_null(name())),
        (
            "overrides?",
            about(overrides(), "Each stands in the place of the tier's policy of the same name, or beside them under a name of its own."),
        ),
        ("resets?", ignored()),
        ("metadata?", or_null(json!({ "type": "object", "maxProperties": 64 }))),
        ("created_at?", ignored()),
        ("revision?", ignored()),
    ]);
    object(fields)
}

fn networks() -> Value {
    // IPv4 or IPv6, alone or with a length.
    let network = pattern("^[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?$");
    let network = like(network, &["10.0.0.0/8", "192.168.0.0/16", "203.0.113.7", "2001:db8::/32", "2001:db8::1"]);
    or_null(list_of(network, 100))
}

fn new_key() -> Value {
    object(vec![
        ("env?", or_null(one_of(&["live", "test"]))),
        ("name?", or_null(label())),
        ("scopes?", scopes()),
        ("allowed_ips?", networks()),
        ("expires_at?", or_null(moment())),
        ("state?", or_null(one_of(&["active", "disabled"]))),
        ("overrides?", of_key()),
    ])
}

fn changed_key() -> Value {
    object(vec![
        ("name?", or_null(label())),
        ("scopes?", scopes()),
        ("allowed_ips?", networks()),
        ("expires_at?", or_null(moment())),
        ("state?", or_null(one_of(&["active", "disabled"]))),
        ("overrides?", of_key()),
        ("last_used_at?", ignored()),
        ("created_at?", ignored()),
        ("revoked_at?", ignored()),
        ("revision?", ignored()),
    ])
}

fn rotation() -> Value {
    object(vec![("grace_seconds?", or_null(whole(0, 366 * 86_400)))])
}

/// The name is the path's; a body that was read has it too.
fn same_name() -> Value {
    about(text(), "The path's, when it is said.")
}

fn tier() -> Value {
    object(vec![
        ("name?", same_name()),
        ("limits?", or_null(list_of(of_tier(limit()), 16))),
        ("quotas?", or_null(list_of(of_tier(quota()), 16))),
        ("concurrency?", or_null(whole(1, 1_000_000))),
        ("max_body_bytes?", or_null(whole(0, MAX_WHOLE))),
        ("routes?", or_null(list_of(name(), 100))),
        ("log_retention_days?", or_null(whole(1, 3_650))),
        ("revision?", ignored()),
    ])
}

fn route() -> Value {
    object(vec![
        ("name?", same_name()),
        (
            "match",
            object(vec![
                ("host?", or_null(host())),
                ("path_prefix?", or_null(path())),
                ("path?", or_null(path())),
                ("methods?", or_null(list_of(method(), 16))),
            ]),
        ),
        ("upstream", name()),
        ("strip_prefix?", or_null(path())),
        ("timeout_ms?", or_null(whole(1, HOUR_MS))),
        ("retries?", or_null(whole(0, 10))),
        ("scopes?", scopes()),
        ("cost?", or_null(whole(0, 1_000_000_000))),
        (
            "cost_per_kib?",
            about(or_null(whole(0, 1_000_000_000)), "Units for each begun KiB of the body, on top of cost."),
        ),
        (
            "cost_header?",
            about(
                or_null(object(vec![("name", pattern("^[a-z0-9_-]{1,64}$")), ("max", whole(1, 1_000_000_000))])),
                "The upstream's response header that says the cost; max is reserved before the call.",
            ),
        ),
        ("max_body_bytes?", or_null(whole(0, MAX_WHOLE))),
        ("add_prefix?", or_null(path())),
        ("total_timeout_ms?", or_null(whole(1, HOUR_MS))),
        ("retry_statuses?", or_null(list_of(whole(500, 599), 20))),
        ("request_headers?", or_null(header_edits())),
        ("response_headers?", or_null(header_edits())),
        ("cors?", or_null(cors())),
        ("revision?", ignored()),
    ])
}

fn header_edits() -> Value {
    let set = json!({
        "type": "object",
        "propertyNames": header_name(),
        "additionalProperties": header_value(),
        "maxProperties": 32,
    });
    object(vec![("set?", or_null(set)), ("remove?", or_null(list_of(header_name(), 32)))])
}

fn cors() -> Value {
    let origin = pattern("^(?:\\*|https?://[^/?#@A-Z]+)$");
    let origin = like(origin, &["https://app.example.com", "http://localhost:28999", "*"]);
    object(vec![
        ("origins", list_of(origin, 64)),
        ("methods?", or_null(list_of(method(), 64))),
        ("headers?", or_null(list_of(header_name(), 64))),
        ("expose?", or_null(list_of(header_name(), 64))),
        ("credentials?", or_null(json!({ "type": "boolean" }))),
        ("max_age_seconds?", or_null(whole(0, 86_400))),
    ])
}

fn upstream() -> Value {
    let url = pattern("^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+/?$");
    let url = like(url, &["http://127.0.0.1:28999", "https://api.example.com", "http://[::1]:9000"]);
    let target = object(vec![("url", url), ("weight?", or_null(whole(0, 10_000)))]);
    let mut targets = list_of(target, 64);
    targets["minItems"] = 1.into();
    object(vec![
        ("name?", same_name()),
        ("targets", targets),
        (
            "health_check?",
            or_null(object(vec![
                ("path", path()),
                ("interval_ms", whole(100, HOUR_MS)),
                ("threshold?", or_null(whole(1, 100))),
            ])),
        ),
        ("connect_timeout_ms?", or_null(whole(1, HOUR_MS))),
        ("idle_timeout_ms?", or_null(whole(1, HOUR_MS))),
        ("max_connections?", or_null(whole(1, 1_000_000))),
        (
            "outlier?",
            or_null(object(vec![
                ("failures?", or_null(whole(1, 10_000))),
                ("eject_ms?", or_null(whole(100, HOUR_MS))),
                ("max_percent?", or_null(whole(1, 100))),
            ])),
        ),
        ("retry_budget_percent?", or_null(whole(0, 100))),
        ("protocol?", or_null(one_of(&["http1", "http2"]))),
        ("revision?", ignored()),
    ])
}

fn new_token() -> Value {
    let selector = pattern("^[A-Za-z0-9][A-Za-z0-9._-]{0,61}\\*?$");
    object(vec![
        ("name", label()),
        ("role", one_of(&["viewer", "operator", "admin"])),
        ("accounts?", about(or_null(list_of(selector, 100)), "Accounts that it is limited to.")),
        ("account?", about(or_null(slug()), "Makes it this account's own token.")),
        ("expires_at?", or_null(moment())),
    ])
}

fn log_level() -> Value {
    let level = "(?:[A-Za-z0-9_:]+=)?(?:off|error|warn|info|debug|trace)";
    let levels = like(pattern(&format!("^{level}(?:,{level})*$")), &["info", "warn,store=debug", "info,access=info"]);
    object(vec![("level", about(levels, "A level, also by module."))])
}

fn reset() -> Value {
    object(Vec::new())
}

fn question() -> Value {
    let mut question = object(vec![
        ("key?", about(or_null(json!({ "type": "string", "maxLength": 256 })), "A key's text.")),
        ("key_id?", or_null(json!({ "type": "string", "maxLength": 64 }))),
        ("method?", or_null(method())),
        ("path", path()),
        ("host?", or_null(json!({ "type": "string", "minLength": 1, "maxLength": 253 }))),
        ("ip?", or_null(like(pattern("^[0-9A-Fa-f:.]+$"), &["203.0.113.7", "2001:db8::1"]))),
        ("body_bytes?", or_null(whole(0, MAX_WHOLE))),
    ]);
    // One of them; the other may be null.
    question["anyOf"] = json!([{ "required": ["key"] }, { "required": ["key_id"] }]);
    question
}

fn batch() -> Value {
    let operation = object(vec![
        ("method", one_of(&["POST", "PUT", "PATCH", "DELETE"])),
        ("path", like(pattern("^/v1/"), &["/v1/accounts/acme", "/v1/accounts/acme/limits/per-second/reset"])),
        ("body?", about(anything(), "As the call's own.")),
        ("if_match?", or_null(pattern("^(?:[0-9]{1,20}|\"[0-9]{1,20}\"|\\*)$"))),
        ("if_none_match?", or_null(one_of(&["*"]))),
    ]);
    let mut operations = list_of(operation, MAX_OPERATIONS as u64);
    operations["minItems"] = 1.into();
    object(vec![("operations", operations)])
}

#[cfg(test)]
mod tests;
