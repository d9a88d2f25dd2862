//! `/v1/tiers`.

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde_json::json;
use store::{
    Store,
    model::{Expect, MetaOp, Role, Tier},
};

use super::{
    Shared,
    access::Visitor,
    answer,
    etag::Condition,
    forms::{self, Expiry},
    input::{self, Object},
    params::Params,
    problem::{Code, Problem, Result},
};

/// `GET /v1/tiers`
pub(crate) async fn list(_: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    let page = params.page();
    params.finish()?;
    let (tiers, next) = page.of(admin.store.tiers()?, |tier| tier.name.clone());
    Ok(answer::list(tiers, next))
}

/// `GET /v1/tiers/{name}`
pub(crate) async fn get(
    _: Visitor,
    State(admin): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response> {
    params.finish()?;
    let tier = find(&admin.store, &name)?.ok_or_else(|| Problem::not_found("tier", &name))?;
    Ok(answer::object(StatusCode::OK, tier.revision, &tier))
}

/// `PUT /v1/tiers/{name}`: makes or replaces it; in force everywhere when this answers.
pub(crate) async fn put(
    visitor: Visitor,
    State(admin): Shared,
    Path(name): Path<String>,
    condition: Condition,
    params: Params,
    body: Bytes,
) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    params.finish()?;
    if body.trim_ascii().is_empty() {
        // Elsewhere as good as `{}`; here it would lift all limits of a tier whose body got lost on the way.
        return Err(Problem::new(Code::MalformedBody, "a body is required; {} is a tier without limits"));
    }
    let mut tier = input::read(input::parse(&body)?, |object| read(object, &name))?;
    let before = find(&admin.store, &name)?.map(|tier| tier.revision);
    let op = MetaOp::PutTier { tier: tier.clone(), expect: condition.expect() };
    tier.revision = writer.write(&admin.store, vec![op]).await.map_err(|problem| condition.refused(problem, before))?;
    let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    Ok(answer::object(status, tier.revision, &tier))
}

/// `DELETE /v1/tiers/{name}`: refused while an account uses it.
pub(crate) async fn delete(
    visitor: Visitor,
    State(admin): Shared,
    Path(name): Path<String>,
    condition: Condition,
    params: Params,
) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    params.finish()?;
    let expect = if condition == Condition::None { Expect::Present } else { condition.expect() };
    let op = MetaOp::DeleteTier { name: name.into(), expect };
    writer.write(&admin.store, vec![op]).await.map_err(|problem| condition.refused(problem, None))?;
    Ok(answer::gone())
}

fn find(store: &Store, name: &str) -> Result<Option<Tier>> {
    Ok(store.tiers()?.into_iter().find(|tier| &*tier.name == name))
}

/// A tier from a body; the name is the path's.
fn read(object: &mut Object<'_>, path_name: &str) -> Option<Tier> {
    object.fixed("name", &json!(path_name));
    object.answered("revision");
    let name = object.name(path_name, forms::is_name);
    let policies = forms::policies(object, Expiry::Never);
    let concurrency = object.optional("concurrency").map_or(Some(None), |field| field.whole(1..=1_000_000).map(Some));
    let max_body_bytes =
        object.optional("max_body_bytes").map_or(Some(None), |field| field.whole(0..=forms::MAX_WHOLE).map(Some));
    let routes = object.optional("routes").map_or(Some(None), |field| forms::names(field).map(Some));
    let log_retention_days =
        object.optional("log_retention_days").map_or(Some(None), |field| field.whole(1..=3_650).map(Some));
    let (limits, quotas) = policies?;
    Some(Tier {
        name: name?,
        limits,
        quotas,
        concurrency: concurrency?,
        max_body_bytes: max_body_bytes?,
        routes: routes?,
        log_retention_days: log_retention_days?,
        revision: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_tier_reads_and_what_is_shown_reads_back() {
        let body = json!({
            "name": "free",
            "limits": [{ "name": "per-second", "per": ["key", "route"], "rate": "5/s", "burst": 15 }],
            "quotas": [{ "name": "daily", "unit": "requests", "limit": 10_000, "period": "day", "timezone": "UTC", "overage": "block" }],
            "concurrency": 20, "max_body_bytes": 500_000, "routes": ["scan"], "log_retention_days": 7,
        });
        let tier = input::read(body, |object| read(object, "free")).expect("reads");
        assert_eq!(
            (tier.concurrency, tier.max_body_bytes, tier.log_retention_days),
            (Some(20), Some(500_000), Some(7))
        );
        let again = input::read(json!(tier), |object| read(object, "free")).expect("reads back");
        assert_eq!(again, tier);
    }

    #[test]
    fn another_name_an_unknown_field_and_a_bad_name_are_refused() {
        let refused = |body, name: &str| {
            let problem = input::read(body, |object| read(object, name)).expect_err("refused");
            problem.errors().iter().map(|error| error.pointer.clone()).collect::<Vec<_>>()
        };
        assert_eq!(refused(json!({ "name": "pro", "burst": 3 }), "free"), ["/name", "/burst"]);
        assert_eq!(refused(json!({}), "Not A Name"), ["/name"]);
        assert_eq!(refused(json!({ "concurrency": 0, "log_retention_days": 0 }), "free").len(), 2);
    }
}
