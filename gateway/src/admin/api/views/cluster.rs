//! The cluster, and what was done to it.

use serde_json::Value;

use crate::admin::api::schema::{
    about, any_object, boolean, count, list, object, one_of, or_null, pattern, text, time,
};

pub(super) fn cluster() -> Value {
    // Nodes and groups may come to tell more.
    let open = |fields| {
        let mut schema = object(fields);
        if let Some(map) = schema.as_object_mut() {
            map.shift_remove("additionalProperties");
        }
        schema
    };
    open(vec![
        ("node", text()),
        ("version", text()),
        ("ready", boolean()),
        ("reason", or_null(text())),
        (
            "nodes",
            list(open(vec![
                ("id", text()),
                ("name", text()),
                ("role", one_of(&["voter", "learner"])),
                ("voter", boolean()),
                ("this", boolean()),
                ("live", boolean()),
                ("silent_ms", or_null(count())),
                ("draining", boolean()),
                ("version", or_null(text())),
                ("applied", any_object()),
            ])),
        ),
        ("groups", list(open(vec![("group", count()), ("kind", one_of(&["meta", "ledger"])), ("term", count())]))),
        (
            "split",
            about(
                or_null(open(vec![
                    ("ledger_groups", count()),
                    ("slots", count()),
                    ("slots_to_move", about(count(), "Of all slots, those that are not where they belong yet.")),
                    ("moving", or_null(any_object())),
                    ("waits_for", about(or_null(text()), "What was in the way of the last try; it is tried again.")),
                ])),
                "Accounts are being spread over so many ledger groups; the slots that move now are closed for a moment.",
            ),
        ),
        (
            "certificates",
            about(
                list(open(vec![
                    ("listener", one_of(&["data", "admin", "peer", "upstream"])),
                    ("names", list(text())),
                    ("not_before", time()),
                    ("not_after", time()),
                ])),
                "What the node that answers uses for TLS.",
            ),
        ),
    ])
}

pub(super) fn audit() -> Vec<(&'static str, Value)> {
    vec![
        ("revision", count()),
        ("line", count()),
        ("at", time()),
        ("actor", text()),
        ("role", or_null(one_of(&["viewer", "operator", "admin"]))),
        ("source", or_null(text())),
        ("request_id", or_null(text())),
        ("action", text()),
        ("kind", text()),
        ("id", text()),
        ("result", about(text(), "`done`, or the code of the refusal.")),
        ("count", about(count(), "How many requests it stands for.")),
        ("before", or_null(any_object())),
        ("after", or_null(any_object())),
        (
            "changed",
            about(list(text()), "Pointers to what differs; of an account's name and metadata nothing else is told."),
        ),
        ("previous", or_null(pattern("^[0-9a-f]{64}$"))),
    ]
}
