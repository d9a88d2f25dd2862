//! `/v1/requests`: the log.

mod trace;

use std::net::IpAddr;

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde::Serialize;
use store::{
    RowQuery,
    model::{AccountId, Completion, Decided, KeyId, Name, Outcome, Part, RequestId, Row, Timestamp},
};

use super::{
    Shared,
    access::Visitor,
    answer,
    params::Params,
    problem::{Problem, Result},
};
use crate::operator::Caller;

/// A row with what decided.
#[derive(Debug, Serialize)]
struct Traced {
    #[serde(flatten)]
    row: View,
    trace: trace::Trace,
}

/// A row as the API shows it; what a row does not have is `null`.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    request_id: Option<RequestId>,
    ts: Timestamp,
    account: AccountId,
    key_id: KeyId,
    tier: Name,
    route: Option<Name>,
    method: Name,
    path: Name,
    status: u16,
    outcome: Outcome,
    cost: u64,
    bytes_in: u64,
    bytes_out: u64,
    upstream_us: u64,
    duration_us: u64,
    client_ip: Option<IpAddr>,
    client_request_id: Option<Box<str>>,
    trace_id: Option<String>,
    node: Name,
    region: Option<Name>,
    completion: Completion,
    count: u32,
    decided_by: Vec<DecidedBy>,
}

/// A policy that refused it, or would have.
#[derive(Debug, Serialize)]
struct DecidedBy {
    policy: Name,
    setting: Name,
    shadow: bool,
}

impl DecidedBy {
    fn of(decided: Decided) -> Option<Self> {
        let shadow = match decided.part {
            Part::Refused => false,
            Part::WouldRefuse => true,
            Part::Passed => return None,
        };
        Some(Self { policy: decided.policy, setting: decided.setting, shadow })
    }
}

impl From<Row> for View {
    fn from(row: Row) -> Self {
        let some = |name: Name| Some(name).filter(|name| !name.is_empty());
        Self {
            request_id: Some(row.request_id).filter(|id| *id != RequestId::default()),
            ts: row.ts,
            account: row.account,
            key_id: row.key_id,
            tier: row.tier,
            route: some(row.route),
            method: row.method,
            path: row.path,
            status: row.status,
            outcome: row.outcome,
            cost: row.cost,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            upstream_us: row.upstream_us,
            duration_us: row.duration_us,
            client_ip: row.client_ip,
            client_request_id: row.client_request_id,
            trace_id: (row.trace_id != 0).then(|| format!("{:032x}", row.trace_id)),
            node: row.node,
            region: some(row.region),
            completion: row.completion,
            count: row.count,
            decided_by: Decided::read(&row.decided_by).into_iter().filter_map(DecidedBy::of).collect(),
        }
    }
}

/// `GET /v1/requests`: newest first.
pub(crate) async fn list(visitor: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    let mut query = query(&mut params);
    limit_to(visitor.caller(), &mut query, &mut params);
    params.finish()?;
    if let Some(account) = &query.account {
        visitor.require_account(account)?;
    }
    let page = admin.store.requests(query).await?;
    let views: Vec<View> = page.rows.into_iter().map(View::from).collect();
    Ok(answer::list(views, page.next_cursor))
}

/// A caller who may see some accounts only says which one; an account's own token need not.
fn limit_to(caller: &Caller, query: &mut RowQuery, params: &mut Params) {
    if query.account.is_none() && caller.is_limited() {
        query.account.clone_from(&caller.account);
        if query.account.is_none() {
            params.refuse("account", "is required: this token is limited to some accounts");
        }
    }
}

fn query(params: &mut Params) -> RowQuery {
    let query = RowQuery {
        since: params.time("since"),
        until: params.time("until"),
        limit: params.limit(),
        cursor: params.text("cursor"),
        ..filter(params)
    };
    if query.since.zip(query.until).is_some_and(|(since, until)| since > until) {
        params.refuse_meaning("until", "is before since");
    }
    query
}

fn filter(params: &mut Params) -> RowQuery {
    let outcomes = Outcome::ALL.map(|outcome| (outcome.as_str(), outcome));
    let status = params.parsed("status", "an HTTP status from 100 to 999");
    if status.is_some_and(|status| !(100..=999).contains(&status)) {
        params.refuse("status", "does not fit; expected an HTTP status from 100 to 999");
    }
    RowQuery {
        account: params.slug("account").map(AccountId::from),
        key: params.short("key").map(KeyId::from),
        route: params.name("route").map(Name::from),
        status,
        outcome: params.choice("outcome", &outcomes),
        ..RowQuery::default()
    }
}

/// Which rows a follower wants: of those to come, so there is no time and no page.
pub(crate) fn query_of_tail(caller: &Caller, params: &mut Params) -> RowQuery {
    let mut query = filter(params);
    limit_to(caller, &mut query, params);
    query
}

/// `GET /v1/requests/{id}`
pub(crate) async fn get(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response> {
    params.finish()?;
    let unknown = || Problem::not_found("request", &id);
    let row = admin.store.request(id.parse().map_err(|_| unknown())?).await?;
    let row = row.filter(|row| visitor.caller().covers(&row.account)).ok_or_else(unknown)?;
    let trace = trace::Trace::of(&admin.store, &row);
    Ok(answer::plain(&Traced { row: View::from(row), trace }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_row_has_the_contracts_fields_and_null_for_what_it_lacks() {
        let row = Row {
            request_id: RequestId::default(),
            ts: Timestamp(1_700_000_000_123_456),
            account: "acme".into(),
            key_id: "key_1".into(),
            tier: "free".into(),
            route: Name::default(),
            method: "POST".into(),
            path: "/v3/scan".into(),
            status: 404,
            outcome: Outcome::NoRoute,
            cost: 0,
            bytes_in: 1,
            bytes_out: 2,
            upstream_us: 3,
            duration_us: 4,
            client_ip: "::1".parse().ok(),
            client_request_id: None,
            trace_id: 0xab,
            node: "n1".into(),
            region: Name::default(),
            completion: Completion::Complete,
            count: 7,
            settles: false,
            charges: Vec::new(),
            decided_by: Default::default(),
            retention_days: 0,
        };
        let Value::Object(view) = json!(View::from(row)) else { panic!("an object") };
        let names: Vec<&str> = view.keys().map(String::as_str).collect();
        let contract = [
            "request_id",
            "ts",
            "account",
            "key_id",
            "tier",
            "route",
            "method",
            "path",
            "status",
            "outcome",
            "cost",
            "bytes_in",
            "bytes_out",
            "upstream_us",
            "duration_us",
            "client_ip",
            "client_request_id",
            "trace_id",
            "node",
            "region",
            "completion",
            "count",
            "decided_by",
        ];
        assert_eq!(names, contract);
        assert_eq!(view["ts"], "2023-11-14T22:13:20.123456Z");
        assert_eq!((&view["request_id"], &view["route"]), (&Value::Null, &Value::Null));
        assert_eq!((&view["outcome"], &view["trace_id"]), (&json!("no-route"), &json!(format!("{:032x}", 0xab))));
    }
}
