//! `/v1/accounts/{id}/usage`.

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::{Map, Value, json};
use store::{
    UsageBy, UsagePoint, UsageQuery, UsageStep,
    model::{AccountId, Timestamp},
};

use super::{Shared, access::Visitor, accounts, answer, params::Params, problem::Result};

/// Most steps of an answer.
const MAX_STEPS: i64 = 10_000;
/// How far an answer goes back when the caller does not say.
const DEFAULT_SPAN_SECONDS: i64 = 86_400;

/// `GET /v1/accounts/{id}/usage`
pub(crate) async fn get(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Response> {
    let query = query(&mut params, &id, Timestamp::now());
    params.finish()?;
    accounts::existing(&visitor, &admin.store, &id)?;
    let by = query.by;
    let points = admin.store.usage(query).await?;
    let views: Vec<Value> = points.into_iter().map(|point| view(point, by)).collect();
    Ok(answer::list(views, None))
}

fn query(params: &mut Params, account: &str, now: Timestamp) -> UsageQuery {
    let steps = [("minute", UsageStep::Minute), ("hour", UsageStep::Hour), ("day", UsageStep::Day)];
    let splits = [("route", UsageBy::Route), ("key", UsageBy::Key), ("status", UsageBy::Status)];
    let step = params.choice("step", &steps).unwrap_or(UsageStep::Hour);
    let until = params.time("until").unwrap_or(now);
    let since = params.time("since").unwrap_or_else(|| until.plus_seconds(-DEFAULT_SPAN_SECONDS));
    let by = params.choice("by", &splits);
    let step_seconds = match step {
        UsageStep::Minute => 60,
        UsageStep::Hour => 3_600,
        UsageStep::Day => 86_400,
    };
    if since > until {
        params.refuse_meaning("until", "is before since");
    } else if (until.unix_seconds() - since.unix_seconds()) / step_seconds > MAX_STEPS {
        params.refuse_meaning("step", format!("the time from since to until has more than {MAX_STEPS} of these steps"));
    }
    UsageQuery { account: AccountId::from(account), since, until, step, by }
}

fn view(point: UsagePoint, by: Option<UsageBy>) -> Value {
    let mut view = Map::new();
    view.insert("start".into(), json!(point.start));
    if let Some(by) = by {
        let name = match by {
            UsageBy::Route => "route",
            UsageBy::Key => "key",
            UsageBy::Status => "status",
        };
        let group = point.group.unwrap_or_default();
        let value = match by {
            UsageBy::Status => group.parse::<u16>().map_or_else(|_| json!(group), |status| json!(status)),
            _ => json!(group),
        };
        view.insert(name.into(), value);
    }
    for (name, value) in [
        ("requests", point.counters.requests),
        ("errors", point.counters.errors),
        ("rejected", point.counters.rejected),
        ("bytes_in", point.counters.bytes_in),
        ("bytes_out", point.counters.bytes_out),
        ("cost", point.counters.cost),
    ] {
        view.insert(name.into(), value.into());
    }
    view.insert("latency_us".into(), json!({ "p50": point.p50_us, "p95": point.p95_us, "p99": point.p99_us }));
    Value::Object(view)
}
