//! `/v1/tiers`.

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde_json::{Value, json};
use store::model::{MetaOp, Role, Tier};

use super::{
    Shared,
    access::Visitor,
    answer, change,
    draft::{Draft, Effect, Kind},
    etag::Condition,
    forms::{self, Expiry},
    input::{self, Object},
    params::Params,
    problem::{Problem, Result},
};

/// `GET /v1/tiers`
pub(crate) async fn list(visitor: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    visitor.require_staff()?;
    let page = params.page();
    let name_prefix = params.name("name_prefix").unwrap_or_default();
    params.finish()?;
    let all = admin.store.tiers()?.into_iter();
    let all = all.filter(|tier| tier.name.starts_with(name_prefix.as_str())).collect();
    let (some, next) = page.of(all, |tier: &Tier| tier.name.clone());
    Ok(answer::list(some, next))
}

/// `GET /v1/tiers/{name}`
pub(crate) async fn get(
    visitor: Visitor,
    State(admin): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response> {
    visitor.require_staff()?;
    params.finish()?;
    let tier = admin.store.tier(&name)?.ok_or_else(|| Problem::not_found("tier", &name))?;
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
    // An empty body is not as good as `{}` here: one that got lost on the way would empty the tier.
    let value = input::required(&body)?;
    change::one(&admin, &writer, &body, |draft| draft_put(draft, &name, condition, value.clone())).await
}

/// A tier, new or in the place of the one of its name.
pub(crate) fn draft_put(draft: &mut Draft<'_>, name: &str, condition: Condition, body: Value) -> Result<Effect> {
    draft.require_everywhere(Role::Admin)?;
    let given = body["routes"].clone();
    let tier = input::read(body, |object| {
        let tier = read(object, name)?;
        // What it names already may be of a time when that was not looked at.
        let before = draft.tier(name).ok().and_then(|slot| slot.value.as_ref()?.routes.clone()).unwrap_or_default();
        for route in tier.routes.iter().flatten().filter(|route| !before.contains(route)) {
            if draft.route(route).is_ok_and(|slot| slot.value.is_none()) {
                let place = given.as_array().and_then(|all| all.iter().position(|one| *one == **route));
                object.tell_item("routes", place.unwrap_or_default(), Draft::missing(Kind::Route, route));
            }
        }
        Some(tier)
    })?;
    let slot = draft.tier(name)?;
    let (expect, is_new) = (slot.put(condition)?, slot.value.is_none());
    draft.op(condition, MetaOp::PutTier { tier: tier.clone(), expect });
    let view = json!(tier);
    draft.set_tier(name, Some(tier));
    Ok(if is_new { Effect::created(Kind::Tier, name, view) } else { Effect::changed(Kind::Tier, name, view) })
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
    change::one(&admin, &writer, &[], |draft| draft_delete(draft, &name, condition)).await
}

/// A tier that goes.
pub(crate) fn draft_delete(draft: &mut Draft<'_>, name: &str, condition: Condition) -> Result<Effect> {
    draft.require_everywhere(Role::Admin)?;
    let expect = draft.tier(name)?.remove(Kind::Tier, name, condition)?;
    draft.op(condition, MetaOp::DeleteTier { name: name.into(), expect });
    draft.set_tier(name, None);
    Ok(Effect::gone(Kind::Tier, name))
}

/// A tier from a body; the name is the path's.
pub(crate) fn read(object: &mut Object<'_>, path_name: &str) -> Option<Tier> {
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
