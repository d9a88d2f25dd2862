//! What the API answers, as schemas. A test holds each against what is really answered.

mod cluster;
mod requests;

use std::collections::BTreeSet;

use serde_json::{Value, json};

pub(super) use self::requests::outcome;
use self::{
    cluster::{audit, cluster},
    requests::{explanation, preview, request, trace},
};
use super::schema::{
    about, any_object, boolean, count, label, list, name, object, one_of, or_null, pattern, scope, slug, text, time,
    whole,
};

/// Something that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Account,
    Key,
    NewKey,
    Tier,
    Route,
    Upstream,
    Token,
    NewToken,
    Request,
    Usage,
    LimitNow,
    Alert,
    Overage,
    Preview,
    RequestTrace,
    Explanation,
    Cluster,
    LogLevel,
    AuditLine,
    AuditExport,
    AuditVerdict,
    Batch,
    Applied,
    Document,
}

impl View {
    pub(super) const ALL: [Self; 24] = [
        Self::Account,
        Self::Key,
        Self::NewKey,
        Self::Tier,
        Self::Route,
        Self::Upstream,
        Self::Token,
        Self::NewToken,
        Self::Request,
        Self::Usage,
        Self::LimitNow,
        Self::Alert,
        Self::Overage,
        Self::Preview,
        Self::RequestTrace,
        Self::Explanation,
        Self::Cluster,
        Self::LogLevel,
        Self::AuditLine,
        Self::AuditExport,
        Self::AuditVerdict,
        Self::Batch,
        Self::Applied,
        Self::Document,
    ];

    /// Its name among the document's components.
    pub(super) fn name(self) -> String {
        format!("{self:?}")
    }

    /// The names of its fields.
    pub(super) fn fields(self) -> BTreeSet<String> {
        let schema = self.schema();
        schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn schema(self) -> Value {
        match self {
            Self::Account => object(vec![
                ("id", slug()),
                ("name", label()),
                ("tier", name()),
                ("state", one_of(&["active", "suspended"])),
                ("region", or_null(name())),
                ("overrides", overrides()),
                ("resets", list(object(vec![("policy", name()), ("count", count()), ("at", time())]))),
                ("metadata", any_object()),
                ("created_at", time()),
                ("revision", count()),
            ]),
            Self::Key => object(key()),
            Self::NewKey => {
                let mut fields = key();
                // Missing where an answer is repeated under an Idempotency-Key.
                fields.push(("secret?", about(text(), "The key's text: shown in this answer and nowhere else.")));
                object(fields)
            }
            Self::Tier => object(vec![
                ("name", name()),
                ("limits", list(limit())),
                ("quotas", list(quota())),
                ("concurrency?", count()),
                ("max_body_bytes?", count()),
                ("routes?", list(name())),
                ("log_retention_days?", count()),
                ("revision", count()),
            ]),
            Self::Route => object(vec![
                ("name", name()),
                (
                    "match",
                    object(vec![
                        ("host?", text()),
                        ("path_prefix?", text()),
                        ("path?", text()),
                        ("methods?", list(text())),
                    ]),
                ),
                ("upstream", name()),
                ("strip_prefix?", text()),
                ("timeout_ms?", count()),
                ("retries", count()),
                ("scopes?", list(scope())),
                ("cost?", count()),
                ("cost_per_kib?", count()),
                ("cost_header?", object(vec![("name", text()), ("max", count())])),
                ("max_body_bytes?", count()),
                ("add_prefix?", text()),
                ("total_timeout_ms?", count()),
                ("retry_statuses?", list(count())),
                ("request_headers?", header_edits()),
                ("response_headers?", header_edits()),
                (
                    "cors?",
                    object(vec![
                        ("origins", list(text())),
                        ("methods?", list(text())),
                        ("headers?", list(text())),
                        ("expose?", list(text())),
                        ("credentials", boolean()),
                        ("max_age_seconds?", count()),
                    ]),
                ),
                ("revision", count()),
            ]),
            Self::Upstream => object(vec![
                ("name", name()),
                ("targets", list(object(vec![("url", text()), ("weight", count())]))),
                ("health_check?", object(vec![("path", text()), ("interval_ms", count()), ("threshold", count())])),
                ("connect_timeout_ms?", count()),
                ("idle_timeout_ms?", count()),
                ("max_connections?", count()),
                ("outlier?", object(vec![("failures", count()), ("eject_ms", count()), ("max_percent", count())])),
                ("retry_budget_percent?", count()),
                ("protocol?", one_of(&["http1", "http2"])),
                ("revision", count()),
            ]),
            Self::Token => object(token()),
            Self::NewToken => {
                let mut fields = token();
                fields.push(("secret?", about(text(), "The token's text: shown in this answer and nowhere else.")));
                object(fields)
            }
            Self::Request => object(request()),
            Self::RequestTrace => {
                let mut fields = request();
                fields.push(("trace", trace()));
                object(fields)
            }
            Self::Usage => object(vec![
                ("start", time()),
                ("route?", text()),
                ("key?", text()),
                ("status?", json!({ "type": ["integer", "string"] })),
                ("requests", count()),
                ("errors", count()),
                ("rejected", count()),
                ("bytes_in", count()),
                ("bytes_out", count()),
                ("cost", count()),
                ("latency_us", object(vec![("p50", count()), ("p95", count()), ("p99", count())])),
            ]),
            Self::LimitNow => object(vec![
                ("name", name()),
                ("kind", one_of(&["rate", "quota", "concurrency"])),
                ("unit", unit()),
                ("scope", or_null(text())),
                ("limit", count()),
                ("used", count()),
                ("remaining", count()),
                ("reserved", count()),
                ("unsettled", count()),
                ("overage", count()),
                ("shadow", boolean()),
                ("resets_at", or_null(time())),
            ]),
            Self::Alert => object(vec![
                ("id", text()),
                ("at", time()),
                ("account", slug()),
                ("key_id", or_null(text())),
                ("quota", name()),
                ("threshold", about(count(), "Percentage of the limit.")),
                ("limit", count()),
                ("used", count()),
                ("shadow", boolean()),
                ("period_start", time()),
                ("period_end", time()),
            ]),
            Self::Overage => object(vec![
                ("quota", name()),
                ("key_id", or_null(text())),
                ("limit", count()),
                ("used", count()),
                ("overage", about(count(), "Units used beyond the limit: what is billed apart.")),
                ("shadow", boolean()),
                ("period_start", time()),
                ("period_end", time()),
            ]),
            Self::Preview => preview(),
            Self::Explanation => explanation(),
            Self::Cluster => cluster(),
            Self::LogLevel => object(vec![("level", text())]),
            Self::AuditLine => object(audit()),
            Self::AuditExport => {
                let mut fields = audit();
                fields.push(("entry", about(text(), "The line as it is stored, base64.")));
                fields.push(("sha256", pattern("^[0-9a-f]{64}$")));
                object(fields)
            }
            Self::AuditVerdict => object(vec![
                ("whole", boolean()),
                ("lines", count()),
                ("revision", count()),
                ("head", or_null(pattern("^[0-9a-f]{64}$"))),
                ("broken", or_null(text())),
                ("starts_at", or_null(about(text(), "The first line, as revision-line."))),
                ("anchor", or_null(about(pattern("^[0-9a-f]{64}$"), "SHA-256 of the line before the first."))),
            ]),
            Self::Document => {
                // As the schema for editors says, without its own head.
                let mut schema = crate::admin::declared::schema();
                if let Some(map) = schema.as_object_mut() {
                    map.shift_remove("$schema");
                }
                schema
            }
            Self::Applied => object(vec![
                ("dry_run", boolean()),
                ("revision", or_null(count())),
                ("unchanged", count()),
                (
                    "changes",
                    list(object(vec![
                        ("action", one_of(&["create", "change", "delete", "revoke"])),
                        ("kind", text()),
                        ("id", text()),
                        ("fields", list(object(vec![("field", text()), ("before", json!({})), ("after", json!({}))]))),
                    ])),
                ),
            ]),
            Self::Batch => object(vec![
                ("revision", or_null(count())),
                (
                    "data",
                    list(object(vec![
                        ("status", whole(200, 299)),
                        ("path", text()),
                        ("id", text()),
                        ("body", or_null(any_object())),
                    ])),
                ),
            ]),
        }
    }
}

fn unit() -> Value {
    one_of(&["requests", "content-bytes", "cost", "concurrent-requests"])
}

fn limit() -> Value {
    object(vec![
        ("name", name()),
        ("per", list(one_of(&["account", "key", "route"]))),
        ("rate", text()),
        ("burst", count()),
        ("expires_at?", time()),
        ("shadow?", boolean()),
    ])
}

fn quota() -> Value {
    object(vec![
        ("name", name()),
        ("unit", one_of(&["requests", "content-bytes", "cost"])),
        ("limit", count()),
        ("period", one_of(&["hour", "day", "week", "month"])),
        ("timezone", text()),
        ("overage", one_of(&["block", "allow"])),
        ("expires_at?", time()),
        ("anchor_day?", count()),
        ("thresholds?", list(count())),
        ("shadow?", boolean()),
    ])
}

fn key() -> Vec<(&'static str, Value)> {
    vec![
        ("id", text()),
        ("account", slug()),
        ("name", label()),
        ("prefix", one_of(&["tg_live_", "tg_test_"])),
        ("last4", text()),
        ("env", one_of(&["live", "test"])),
        ("scopes", list(scope())),
        ("allowed_ips", list(text())),
        ("expires_at", or_null(time())),
        ("state", one_of(&["active", "disabled", "revoked"])),
        ("overrides", overrides()),
        ("last_used_at", or_null(time())),
        ("created_at", time()),
        ("revoked_at", or_null(time())),
        ("rotated_from", or_null(text())),
        ("revision", count()),
    ]
}

fn token() -> Vec<(&'static str, Value)> {
    vec![
        ("id", text()),
        ("name", label()),
        ("role", one_of(&["viewer", "operator", "admin"])),
        ("created_at", time()),
        ("expires_at", or_null(time())),
        ("accounts", list(text())),
        ("account", or_null(slug())),
        ("rotated_from", or_null(text())),
        ("subject", or_null(text())),
        ("revision", count()),
    ]
}

fn overrides() -> Value {
    object(vec![("limits", list(limit())), ("quotas", list(quota()))])
}

fn header_edits() -> Value {
    let set = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    object(vec![("set?", set), ("remove?", list(text()))])
}
