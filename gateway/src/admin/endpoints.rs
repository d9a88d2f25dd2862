//! Every call below `/v1`. One file because it is one table.

mod accounts;
mod named;

use http::Method;

use super::{
    alerts,
    api::{Answer, Api, Body, Call, Takes, Text, View, inputs},
    audit, batch, cluster, declared, explain, log_level, requests, tail, tokens,
};

const fn call(
    id: &'static str,
    role: &'static str,
    summary: &'static str,
    takes: &'static [Takes],
    body: Option<Body>,
    answers: &'static [(u16, Answer)],
) -> Call {
    Call { id, summary, role, takes, body, answers }
}

const ROLES: &[&str] = &["viewer", "operator", "admin"];
const FLAG: &[&str] = &["true", "false"];
const IF: &[Takes] = &[Takes::Condition];
const DONE: &[(u16, Answer)] = &[(204, Answer::Empty)];

const OF_ACCOUNT: Takes = Takes::Query("account", Text::Slug, "Of this account");
const WITH_KEY: Takes = Takes::Query("key", Text::Any, "With this key");
const ON_ROUTE: Takes = Takes::Query("route", Text::Name, "On this route");
const WITH_STATUS: Takes = Takes::Query("status", Text::Status, "With this status");
const WITH_OUTCOME: Takes = Takes::Query("outcome", Text::Outcome, "With this outcome");

/// The table.
pub(crate) fn all() -> Api {
    let (get, post, put, patch, delete) = (Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    let api = accounts::and_keys(Api::new(), &get, &post, &patch, &delete);
    named::tiers_routes_and_upstreams(api, &get, &put, &delete)
        .call(
            &get,
            "/requests",
            requests::list,
            call(
                "listRequests",
                "viewer",
                "The request log, newest first",
                &[
                    Takes::RequestPage,
                    OF_ACCOUNT,
                    WITH_KEY,
                    ON_ROUTE,
                    WITH_STATUS,
                    WITH_OUTCOME,
                    Takes::Query("since", Text::Time, "That arrived at or after"),
                    Takes::Query("until", Text::Time, "That arrived before"),
                ],
                None,
                &[(200, Answer::List(View::Request))],
            ),
        )
        .call(
            &get,
            "/requests/tail",
            tail::get,
            call(
                "tailRequests",
                "viewer",
                "Rows as they are committed, as server-sent events",
                &[OF_ACCOUNT, WITH_KEY, ON_ROUTE, WITH_STATUS, WITH_OUTCOME, Takes::LastEvent],
                None,
                &[(200, Answer::Events(View::Request))],
            ),
        )
        .call(
            &get,
            "/requests/{id}",
            requests::get,
            call(
                "getRequest",
                "viewer",
                "A request's row, and what decided",
                &[],
                None,
                &[(200, Answer::Plain(View::RequestTrace))],
            ),
        )
        .call(
            &post,
            "/explain",
            explain::create,
            call(
                "explain",
                "viewer",
                "What a request would meet now, step by step; nothing is consumed",
                &[],
                Some(inputs::QUESTION),
                &[(200, Answer::Plain(View::Explanation))],
            ),
        )
        .call(
            &get,
            "/alerts",
            alerts::list,
            call(
                "listAlerts",
                "viewer",
                "Quotas whose use has passed a threshold, newest first",
                &[
                    Takes::AuditPage,
                    OF_ACCOUNT,
                    Takes::Query("since", Text::Time, "At or after"),
                    Takes::Query("until", Text::Time, "Before"),
                ],
                None,
                &[(200, Answer::List(View::Alert))],
            ),
        )
        .call(
            &get,
            "/cluster",
            cluster::get,
            call(
                "getCluster",
                "viewer",
                "The cluster as this node sees it",
                &[],
                None,
                &[(200, Answer::Plain(View::Cluster))],
            ),
        )
        .call(
            &post,
            "/cluster/nodes",
            cluster::join,
            call(
                "joinNode",
                "admin",
                "Takes in the empty node that listens for peers there, as a learner",
                &[],
                Some(inputs::NEW_NODE),
                &[(200, Answer::Plain(View::Cluster))],
            ),
        )
        .call(
            &delete,
            "/cluster/nodes/{id}",
            cluster::remove,
            call(
                "removeNode",
                "admin",
                "Takes a node out, dead or alive; answered when it holds no lease and no vote",
                &[],
                None,
                DONE,
            ),
        )
        .call(
            &post,
            "/cluster/nodes/{id}/drain",
            cluster::drain,
            call(
                "drainNode",
                "admin",
                "Leadership goes elsewhere and the node says that it is not ready, or no more; it goes on serving",
                &[],
                Some(inputs::DRAIN),
                &[(200, Answer::Plain(View::Cluster))],
            ),
        )
        .call(
            &post,
            "/cluster/transfer-leader",
            cluster::transfer,
            call(
                "transferLeader",
                "admin",
                "Hands the leadership of a group, or of all, to a node, or to whoever is fit",
                &[],
                Some(inputs::TRANSFER),
                &[(200, Answer::Plain(View::Cluster))],
            ),
        )
        .call(
            &post,
            "/cluster/split",
            cluster::split,
            call(
                "splitLedger",
                "admin",
                "Adds ledger groups until there are so many, and begins to spread the accounts over them; the cluster goes on serving",
                &[],
                Some(inputs::SPLIT),
                &[(200, Answer::Plain(View::Cluster))],
            ),
        )
        .call(
            &get,
            "/log-level",
            log_level::get,
            call(
                "getLogLevel",
                "viewer",
                "What the node that answers logs",
                &[],
                None,
                &[(200, Answer::Plain(View::LogLevel))],
            ),
        )
        .call(
            &put,
            "/log-level",
            log_level::put,
            call(
                "putLogLevel",
                "admin",
                "Changes what the node that answers logs, until it is started anew",
                &[],
                Some(inputs::LOG_LEVEL),
                &[(200, Answer::Plain(View::LogLevel))],
            ),
        )
        .call(
            &get,
            "/tokens",
            tokens::list,
            call(
                "listTokens",
                "admin",
                "Admin tokens, without their secrets",
                &[Takes::Page, Takes::Query("role", Text::OneOf(ROLES), "With this role")],
                None,
                &[(200, Answer::List(View::Token))],
            ),
        )
        .call(
            &post,
            "/tokens",
            tokens::create,
            call(
                "createToken",
                "admin",
                "Makes a token; its secret is in this answer alone",
                &[],
                Some(inputs::NEW_TOKEN),
                &[(201, Answer::Revised(View::NewToken))],
            ),
        )
        .call(
            &get,
            "/tokens/{id}",
            tokens::get,
            call("getToken", "admin", "A token", &[], None, &[(200, Answer::Revised(View::Token))]),
        )
        .call(
            &delete,
            "/tokens/{id}",
            tokens::delete,
            call("deleteToken", "admin", "Deletes a token: it works nowhere any more", IF, None, DONE),
        )
        .call(
            &post,
            "/tokens/{id}/rotate",
            tokens::rotate,
            call(
                "rotateToken",
                "admin",
                "A new token beside the old one, which works a while longer",
                IF,
                Some(inputs::ROTATION),
                &[(201, Answer::Revised(View::NewToken))],
            ),
        )
        .call(
            &get,
            "/audit",
            audit::list,
            call(
                "listAudit",
                "viewer",
                "Every admin write, done or refused, newest first",
                &[
                    Takes::AuditPage,
                    Takes::Query("actor", Text::Any, "By this actor"),
                    Takes::Query("kind", Text::Any, "Of this kind of object"),
                    Takes::Query("id", Text::Any, "Of the object with this id"),
                    Takes::Query("result", Text::Any, "done, or the code of a refusal"),
                    Takes::Query("since", Text::Time, "At or after"),
                    Takes::Query("until", Text::Time, "Before"),
                ],
                None,
                &[(200, Answer::List(View::AuditLine))],
            ),
        )
        .call(
            &get,
            "/audit/export",
            audit::export,
            call(
                "exportAudit",
                "viewer",
                "Every line as NDJSON, oldest first",
                &[Takes::Query("after", Text::AuditPlace, "After this line: revision-line")],
                None,
                &[(200, Answer::Lines(View::AuditExport))],
            ),
        )
        .call(
            &get,
            "/audit/verify",
            audit::verify,
            call(
                "verifyAudit",
                "viewer",
                "Follows the chain over the whole audit",
                &[],
                None,
                &[(200, Answer::Plain(View::AuditVerdict))],
            ),
        )
        .large(
            &post,
            "/apply",
            declared::apply,
            declared::MAX_BYTES,
            call(
                "apply",
                "admin",
                "Makes the cluster as a document says, as one change; or tells what that would change",
                &[
                    Takes::Query("dry_run", Text::OneOf(FLAG), "Tells what would change and changes nothing"),
                    Takes::Query("prune", Text::OneOf(FLAG), "Also removes what the document's lists do not name"),
                ],
                Some(inputs::DOCUMENT),
                &[(200, Answer::Plain(View::Applied))],
            ),
        )
        .call(
            &get,
            "/export",
            declared::export,
            call(
                "export",
                "admin",
                "The configuration as a document that apply takes",
                &[],
                None,
                &[(200, Answer::Plain(View::Document))],
            ),
        )
        .call(
            &post,
            "/batch",
            batch::create,
            call(
                "batch",
                "operator",
                "Up to 1,000 changes as one: all happen or none",
                &[],
                Some(inputs::BATCH),
                &[(200, Answer::Plain(View::Batch))],
            ),
        )
}
