//! Calls of accounts and keys.

use http::Method;

use super::{DONE, IF, call};
use crate::admin::{
    accounts, alerts,
    api::{Answer, Api, Takes, Text, View, inputs},
    keys, limits, usage,
};

const SPLITS: &[&str] = &["route", "key", "status"];
const STEPS: &[&str] = &["minute", "hour", "day"];
const ENVS: &[&str] = &["live", "test"];
const KEY_STATES: &[&str] = &["active", "disabled", "revoked"];
const STATES: &[&str] = &["active", "suspended"];

/// Accounts, and what lies below them; keys.
pub(super) fn and_keys(api: Api, get: &Method, post: &Method, patch: &Method, delete: &Method) -> Api {
    api.call(
        get,
        "/accounts",
        accounts::list,
        call(
            "listAccounts",
            "viewer",
            "Accounts, by id",
            &[
                Takes::Page,
                Takes::Query("id_prefix", Text::Slug, "Whose id begins so"),
                Takes::Query("name_prefix", Text::Any, "Whose name begins so, without regard to case"),
                Takes::Query("tier", Text::Name, "In this tier"),
                Takes::Query("state", Text::OneOf(STATES), "In this state"),
                Takes::Query("region", Text::Name, "Pinned to this region"),
            ],
            None,
            &[(200, Answer::List(View::Account))],
        ),
    )
    .call(
        post,
        "/accounts",
        accounts::create,
        call(
            "createAccount",
            "operator",
            "Makes an account",
            &[],
            Some(inputs::NEW_ACCOUNT),
            &[(201, Answer::Revised(View::Account))],
        ),
    )
    .call(
        get,
        "/accounts/{id}",
        accounts::get,
        call("getAccount", "viewer", "An account", &[], None, &[(200, Answer::Revised(View::Account))]),
    )
    .call(
        patch,
        "/accounts/{id}",
        accounts::patch,
        call(
            "changeAccount",
            "operator",
            "Changes an account by a JSON merge patch (RFC 7396)",
            IF,
            Some(inputs::CHANGED_ACCOUNT),
            &[(200, Answer::Revised(View::Account))],
        ),
    )
    .call(
        delete,
        "/accounts/{id}",
        accounts::delete,
        call("deleteAccount", "operator", "Deletes an account whose keys are all revoked", IF, None, DONE),
    )
    .call(
        get,
        "/accounts/{id}/keys",
        keys::list,
        call(
            "listKeys",
            "viewer",
            "An account's keys, by id",
            &[
                Takes::Page,
                Takes::Query("name_prefix", Text::Any, "Whose name begins so, without regard to case"),
                Takes::Query("state", Text::OneOf(KEY_STATES), "In this state"),
                Takes::Query("env", Text::OneOf(ENVS), "Of this environment"),
            ],
            None,
            &[(200, Answer::List(View::Key))],
        ),
    )
    .call(
        post,
        "/accounts/{id}/keys",
        keys::create,
        call(
            "createKey",
            "operator",
            "Makes a key; its secret is in this answer alone",
            &[],
            Some(inputs::NEW_KEY),
            &[(201, Answer::Revised(View::NewKey))],
        ),
    )
    .call(
        get,
        "/accounts/{id}/usage",
        usage::get,
        call(
            "getUsage",
            "viewer",
            "An account's usage over time",
            &[
                Takes::Query("since", Text::Time, "From; a day before until when not said"),
                Takes::Query("until", Text::Time, "To; now when not said"),
                Takes::Query("step", Text::OneOf(STEPS), "Width of a point"),
                Takes::Query("by", Text::OneOf(SPLITS), "Split by"),
            ],
            None,
            &[(200, Answer::List(View::Usage))],
        ),
    )
    .call(
        get,
        "/accounts/{id}/limits",
        limits::get,
        call(
            "getLimits",
            "viewer",
            "Where an account stands with each limit and quota",
            &[],
            None,
            &[(200, Answer::List(View::LimitNow))],
        ),
    )
    .call(
        post,
        "/accounts/{id}/limits/{name}/reset",
        limits::reset,
        call(
            "resetLimit",
            "operator",
            "Sets a limit or quota of an account back to its beginning; in force everywhere when answered",
            IF,
            Some(inputs::RESET),
            &[(200, Answer::Revised(View::Account))],
        ),
    )
    .call(
        get,
        "/accounts/{id}/overages",
        alerts::overages,
        call(
            "listOverages",
            "viewer",
            "Units used beyond quotas that allow it, by period",
            &[
                Takes::Query("since", Text::Time, "Of periods that end after"),
                Takes::Query("until", Text::Time, "Of periods that begin before"),
            ],
            None,
            &[(200, Answer::List(View::Overage))],
        ),
    )
    .call(
        get,
        "/keys/{id}",
        keys::get,
        call("getKey", "viewer", "A key", &[], None, &[(200, Answer::Revised(View::Key))]),
    )
    .call(
        patch,
        "/keys/{id}",
        keys::patch,
        call(
            "changeKey",
            "operator",
            "Changes a key by a JSON merge patch (RFC 7396)",
            IF,
            Some(inputs::CHANGED_KEY),
            &[(200, Answer::Revised(View::Key))],
        ),
    )
    .call(
        delete,
        "/keys/{id}",
        keys::revoke,
        call("revokeKey", "operator", "Revokes a key, for ever; a tombstone stays", IF, None, DONE),
    )
    .call(
        post,
        "/keys/{id}/rotate",
        keys::rotate,
        call(
            "rotateKey",
            "operator",
            "A new key beside the old one, which works a while longer",
            IF,
            Some(inputs::ROTATION),
            &[(201, Answer::Revised(View::NewKey))],
        ),
    )
}
