//! `/v1/routes`.

mod cors;
mod edits;

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde_json::{Value, json};
use store::model::{CostHeader, MetaOp, Role, Route, RouteMatch};

use super::{
    Shared,
    access::Visitor,
    answer, change,
    draft::{Draft, Effect, Kind},
    etag::Condition,
    forms,
    input::{self, Field, Object},
    params::Params,
    problem::{Code, Problem, Result},
};

/// Methods of a route.
const MAX_METHODS: usize = 16;
/// Most tries after a connection that failed.
const MAX_RETRIES: u64 = 10;
/// Statuses after which a request is tried again.
const MAX_STATUSES: usize = 20;
/// Most units that a request, or a KiB of it, can cost.
const MAX_COST: u64 = 1_000_000_000;
/// An hour.
const MAX_TIMEOUT_MS: u64 = 3_600_000;

/// `GET /v1/routes`
pub(crate) async fn list(visitor: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    visitor.require_staff()?;
    let page = params.page();
    let name_prefix = params.name("name_prefix").unwrap_or_default();
    let upstream = params.name("upstream");
    params.finish()?;
    let all = admin.store.routes()?.into_iter();
    let all = all
        .filter(|route| route.name.starts_with(name_prefix.as_str()))
        .filter(|route| upstream.as_ref().is_none_or(|upstream| *route.upstream == **upstream))
        .collect();
    let (some, next) = page.of(all, |route: &Route| route.name.clone());
    Ok(answer::list(some, next))
}

/// `GET /v1/routes/{name}`
pub(crate) async fn get(
    visitor: Visitor,
    State(admin): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response> {
    visitor.require_staff()?;
    params.finish()?;
    let route = admin.store.route(&name)?.ok_or_else(|| Problem::not_found("route", &name))?;
    Ok(answer::object(StatusCode::OK, route.revision, &route))
}

/// `PUT /v1/routes/{name}`: makes or replaces it; in force everywhere when this answers.
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
    // An empty body is not as good as `{}` here: one that got lost on the way would empty the route.
    let value = input::required(&body)?;
    change::one(&admin, &writer, &body, |draft| draft_put(draft, &name, condition, value.clone())).await
}

/// A route, new or in the place of the one of its name.
pub(crate) fn draft_put(draft: &mut Draft<'_>, name: &str, condition: Condition, body: Value) -> Result<Effect> {
    draft.require_everywhere(Role::Admin)?;
    let route = input::read(body, |object| {
        let route = read(object, name)?;
        if draft.upstream(&route.upstream).is_ok_and(|slot| slot.value.is_none()) {
            Draft::tell_missing(object, "upstream", Kind::Upstream, &route.upstream);
        }
        // One that was a rival already may be changed in all else.
        let is_as_before = draft
            .route(name)
            .is_ok_and(|slot| slot.value.as_ref().is_some_and(|before| before.matches == route.matches));
        if let (false, Some(rival)) = (is_as_before, draft.rival(&route)) {
            object.tell("match", rival_of(&rival));
        }
        Some(route)
    })?;
    let slot = draft.route(name)?;
    let (expect, is_new) = (slot.put(condition)?, slot.value.is_none());
    draft.op(condition, MetaOp::PutRoute { route: route.clone(), expect });
    let view = json!(route);
    draft.set_route(name, Some(route));
    Ok(if is_new { Effect::created(Kind::Route, name, view) } else { Effect::changed(Kind::Route, name, view) })
}

/// What is said of a route's match when another route takes the same requests.
pub(crate) fn rival_of(other: &str) -> String {
    format!(
        "takes the same requests as the route {other:?}, and neither is the more specific: let host, path or methods differ"
    )
}

/// `DELETE /v1/routes/{name}`: refused while a tier names it.
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

/// A route that goes.
pub(crate) fn draft_delete(draft: &mut Draft<'_>, name: &str, condition: Condition) -> Result<Effect> {
    draft.require_everywhere(Role::Admin)?;
    let expect = draft.route(name)?.remove(Kind::Route, name, condition)?;
    if let Some(tier) = draft.tier_naming(name)? {
        let detail = format!("route {name:?} is in use by the tier {tier:?}: take it out of the tier's routes first");
        return Err(Problem::new(Code::InUse, detail));
    }
    draft.op(condition, MetaOp::DeleteRoute { name: name.into(), expect });
    draft.set_route(name, None);
    Ok(Effect::gone(Kind::Route, name))
}

/// A route from a body; the name is the path's.
pub(crate) fn read(object: &mut Object<'_>, path_name: &str) -> Option<Route> {
    object.fixed("name", &json!(path_name));
    object.answered("revision");
    let name = object.name(path_name, forms::is_name);
    let matches = object.required("match").and_then(read_match);
    let upstream = object.required("upstream").and_then(forms::name);
    let strip_prefix = object.optional("strip_prefix").map_or(Some(None), |field| forms::path(field).map(Some));
    let timeout_ms =
        object.optional("timeout_ms").map_or(Some(None), |field| field.whole(1..=MAX_TIMEOUT_MS).map(Some));
    let retries = object.optional("retries").map_or(Some(0), |field| field.whole(0..=MAX_RETRIES));
    let scopes = object.optional("scopes").map_or(Some(Vec::new()), forms::scopes);
    let cost = object.optional("cost").map_or(Some(None), |field| field.whole(0..=MAX_COST).map(Some));
    let cost_per_kib = object.optional("cost_per_kib").map_or(Some(None), |field| field.whole(0..=MAX_COST).map(Some));
    let cost_header = object.optional("cost_header").map_or(Some(None), |field| read_cost_header(field).map(Some));
    let max_body_bytes =
        object.optional("max_body_bytes").map_or(Some(None), |field| field.whole(0..=forms::MAX_WHOLE).map(Some));
    let add_prefix = object.optional("add_prefix").map_or(Some(None), |field| forms::path(field).map(Some));
    let total_timeout_ms =
        object.optional("total_timeout_ms").map_or(Some(None), |field| field.whole(1..=MAX_TIMEOUT_MS).map(Some));
    let retry_statuses = object
        .optional("retry_statuses")
        .map_or(Some(None), |field| field.list(MAX_STATUSES, |item| item.whole(500..=599)).map(Some));
    let request_headers =
        object.optional("request_headers").map_or(Some(None), |field| edits::read(field).map(Box::new).map(Some));
    let response_headers =
        object.optional("response_headers").map_or(Some(None), |field| edits::read(field).map(Box::new).map(Some));
    let cors = object.optional("cors").map_or(Some(None), |field| cors::read(field).map(Box::new).map(Some));
    if let (Some(matches), Some(Some(prefix))) = (&matches, &strip_prefix) {
        let path = matches.path.as_ref().or(matches.path_prefix.as_ref());
        if !path.is_some_and(|path| path.starts_with(prefix.as_str())) {
            object.tell(
                "strip_prefix",
                format!("{prefix:?} is not how the matched path begins: nothing could be taken off"),
            );
        }
    }
    Some(Route {
        name: name?,
        matches: matches?,
        upstream: upstream?,
        strip_prefix: strip_prefix?,
        timeout_ms: timeout_ms?,
        retries: retries?,
        scopes: scopes?,
        cost: cost?,
        max_body_bytes: max_body_bytes?,
        revision: 0,
        add_prefix: add_prefix?,
        total_timeout_ms: total_timeout_ms?,
        retry_statuses: retry_statuses?,
        request_headers: request_headers?,
        response_headers: response_headers?,
        cors: cors?,
        cost_per_kib: cost_per_kib?,
        cost_header: cost_header?,
    })
}

fn read_cost_header(field: Field<'_>) -> Option<CostHeader> {
    let mut object = field.object()?;
    let name = object.required("name").and_then(|field| {
        field.text("a response header's name in lower case, like x-units", |text| {
            (1..=64).contains(&text.len())
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
        })
    });
    let max = object.required("max").and_then(|field| field.whole(1..=MAX_COST));
    Some(CostHeader { name: name?, max: max? })
}

fn read_match(field: Field<'_>) -> Option<RouteMatch> {
    let mut object = field.object()?;
    let host = object.optional("host").map_or(Some(None), |field| {
        field.text("a host in lower case without port, like api.example.com", is_host).map(Some)
    });
    let path_prefix = object.optional("path_prefix").map_or(Some(None), |field| forms::path(field).map(Some));
    let path = object.optional("path").map_or(Some(None), |field| forms::path(field).map(Some));
    let methods = object.optional("methods").map_or(Some(Vec::new()), |field| {
        field.list(MAX_METHODS, |item| item.text("a method in upper case, like POST", is_method))
    });
    if matches!((&path, &path_prefix), (Some(Some(_)), Some(Some(_)))) {
        object.tell("path_prefix", "excludes path: give one of them");
    }
    Some(RouteMatch { host: host?, path_prefix: path_prefix?, path: path?, methods: methods? })
}

fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_[:]".contains(c))
        && (!text.contains(':') || text.starts_with('[') && text.ends_with(']'))
}

fn is_method(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.chars().all(|c| c.is_ascii_uppercase() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: Value) -> Vec<String> {
        let problem = input::read(body, |object| read(object, "scan")).expect_err("refused");
        problem.errors().iter().map(|error| error.pointer.clone()).collect()
    }

    #[test]
    fn a_route_reads_and_what_is_shown_reads_back() {
        let body = json!({
            "match": { "host": "api.example.com", "path_prefix": "/v3", "methods": ["POST"] },
            "upstream": "scan-api", "strip_prefix": "/v3", "timeout_ms": 500, "retries": 2, "scopes": ["scan"],
            "cost": 3, "max_body_bytes": 10, "add_prefix": "/internal", "total_timeout_ms": 900, "retry_statuses": [503],
            "request_headers": { "set": { "X-Env": "live" }, "remove": ["Cookie"] },
            "response_headers": { "remove": ["server"] },
            "cors": { "origins": ["https://app.example.com"], "headers": ["X-API-Key"], "max_age_seconds": 60 },
            "cost_per_kib": 2, "cost_header": { "name": "x-units", "max": 100 },
        });
        let route = input::read(body, |object| read(object, "scan")).expect("reads");
        assert_eq!(input::read(json!(route), |object| read(object, "scan")), Ok(route));
    }

    #[test]
    fn wrong_headers_and_origins_are_told_where_they_stand() {
        let with = |more: Value| {
            let mut body = json!({ "match": { "path": "/a" }, "upstream": "x" });
            input::merge(&mut body, more);
            refused(body)
        };
        assert_eq!(
            with(json!({ "request_headers": {
                "set": { "Host": "x", "x y": "1", "x-a": "line\nbreak", "x-ok": "1" }, "remove": ["Content-Length", "x-b"],
            } })),
            [
                "/request_headers/set/Host",
                "/request_headers/set/x y",
                "/request_headers/set/x-a",
                "/request_headers/remove/0",
            ]
        );
        assert_eq!(with(json!({ "cors": {} })), ["/cors/origins"]);
        assert_eq!(
            with(json!({ "cors": { "origins": ["app.example.com", "https://x/path"] } })),
            ["/cors/origins/0", "/cors/origins/1",]
        );
        assert_eq!(with(json!({ "cors": { "origins": ["*"], "credentials": true } })), ["/cors/credentials"]);
        assert_eq!(with(json!({ "retry_statuses": [404, 503] })), ["/retry_statuses/0"]);
    }

    #[test]
    fn wrong_routes_are_told_completely() {
        assert_eq!(refused(json!({})), ["/match", "/upstream"]);
        assert_eq!(
            refused(json!({
                "match": { "host": "API:80", "path": "v3", "methods": ["post", "GET"], "pathprefix": "/" },
                "upstream": "x", "timeout_ms": 0, "retries": 99, "cost_header": { "name": "X Units", "max": 0 },
            })),
            [
                "/match/host",
                "/match/path",
                "/match/methods/0",
                "/match/pathprefix",
                "/timeout_ms",
                "/retries",
                "/cost_header/name",
                "/cost_header/max",
            ]
        );
        assert_eq!(
            refused(json!({ "match": { "path": "/a", "path_prefix": "/b" }, "upstream": "x" })),
            ["/match/path_prefix"]
        );
        assert_eq!(
            refused(json!({ "match": { "path_prefix": "/v3" }, "upstream": "x", "strip_prefix": "/v4" })),
            ["/strip_prefix"]
        );
    }
}
