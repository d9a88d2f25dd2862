//! Requests that were made, that would be, and that would have been.

use serde_json::{Value, json};
use store::model::Outcome;

use super::unit;
use crate::admin::api::schema::{about, boolean, count, list, name, object, one_of, or_null, slug, text, time};

pub(super) fn request() -> Vec<(&'static str, Value)> {
    vec![
        ("request_id", or_null(text())),
        ("ts", time()),
        ("account", slug()),
        ("key_id", text()),
        ("tier", name()),
        ("route", or_null(name())),
        ("method", text()),
        ("path", text()),
        ("status", count()),
        ("outcome", outcome()),
        ("cost", count()),
        ("bytes_in", count()),
        ("bytes_out", count()),
        ("upstream_us", count()),
        ("duration_us", count()),
        ("client_ip", or_null(text())),
        ("client_request_id", or_null(text())),
        ("trace_id", or_null(text())),
        ("node", text()),
        ("region", or_null(text())),
        ("completion", one_of(&["complete", "open", "client-abort", "upstream-abort", "unknown"])),
        ("count", count()),
        ("decided_by", list(object(decided()))),
    ]
}

/// A policy that refused, or would have.
fn decided() -> Vec<(&'static str, Value)> {
    vec![
        ("policy", name()),
        ("setting", about(text(), "What it said then.")),
        ("shadow", about(boolean(), "It would have refused if it were no shadow.")),
    ]
}

pub(super) fn trace() -> Value {
    let then = |schema, what| about(or_null(schema), what);
    object(vec![
        ("step", about(or_null(text()), "The step that decided; null for a request that was let through.")),
        ("detail", text()),
        ("steps", steps()),
        (
            "policies",
            list(object(vec![
                ("name", name()),
                ("kind", or_null(kind())),
                ("unit", or_null(unit())),
                ("limit", then(count(), "At that instant, as all numbers here; null where nobody kept it.")),
                ("used", or_null(count())),
                ("remaining", then(count(), "Null also where the node that decided had not asked.")),
                (
                    "needed",
                    then(count(), "Units that the request would have taken; of one that was let through, took."),
                ),
                ("passes", boolean()),
                ("shadow", about(boolean(), "It would have refused if it were no shadow.")),
                ("resets_at", or_null(time())),
                ("set_by", then(text(), "The resource that had set it.")),
                ("setting", then(text(), "What it said then.")),
                ("setting_now", then(text(), "What the policy of that name says now; null when there is none.")),
            ])),
        ),
    ])
}

fn kind() -> Value {
    one_of(&["rate", "quota", "concurrency"])
}

/// What a request has to pass besides policies.
fn steps() -> Value {
    list(object(vec![
        ("step", text()),
        ("passes", boolean()),
        ("outcome", or_null(outcome())),
        ("detail", text()),
        ("set_by", or_null(text())),
    ]))
}

pub(super) fn preview() -> Value {
    let by_policy = || json!({ "type": "object", "additionalProperties": { "type": "integer", "minimum": 0 } });
    let counts = || {
        vec![
            ("requests", about(count(), "Requests that these policies would have decided.")),
            ("refused", about(count(), "Of those, refused at that time.")),
            ("would_be_refused", count()),
            ("by_policy", by_policy()),
            ("by_shadow", by_policy()),
        ]
    };
    let mut account = vec![("account", slug())];
    account.extend(counts());
    let mut all = vec![
        ("tier", name()),
        ("since", time()),
        ("until", time()),
        ("complete", about(boolean(), "Every row of that time was looked at.")),
        ("accounts_in_all", count()),
    ];
    all.extend(counts());
    all.push(("accounts", list(object(account))));
    object(all)
}

pub(in crate::admin::api) fn outcome() -> Value {
    one_of(&Outcome::ALL.map(Outcome::as_str))
}

pub(super) fn explanation() -> Value {
    object(vec![
        ("outcome", outcome()),
        ("admitted", boolean()),
        ("decided_by", or_null(text())),
        ("account", or_null(slug())),
        ("key_id", or_null(text())),
        ("tier", or_null(name())),
        ("route", or_null(name())),
        ("upstream", or_null(name())),
        ("steps", steps()),
        (
            "policies",
            list(object(vec![
                ("name", name()),
                ("kind", kind()),
                ("unit", unit()),
                ("scope", or_null(text())),
                ("limit", count()),
                ("used", count()),
                ("remaining", count()),
                ("needed", count()),
                ("passes", boolean()),
                ("shadow", boolean()),
                ("resets_at", or_null(time())),
                ("set_by", text()),
            ])),
        ),
        ("at", time()),
    ])
}
