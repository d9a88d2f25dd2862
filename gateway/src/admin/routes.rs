//! `/v1/routes`.

mod cors;
mod edits;

use serde_json::{Value, json};
use store::model::{CostHeader, Route, RouteMatch};

use super::{
    draft::{Draft, Kind},
    forms,
    input::{self, Field, Object},
    named::Named,
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

impl Named for Route {
    fn checked(draft: &mut Draft<'_>, name: &str, body: Value) -> Result<Self> {
        input::read(body, |object| {
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
        })
    }

    fn wanted(params: &mut Params) -> impl Fn(&Self) -> bool + use<> {
        let upstream = params.name("upstream");
        move |route: &Self| upstream.as_ref().is_none_or(|upstream| *route.upstream == **upstream)
    }

    fn may_go(draft: &Draft<'_>, name: &str) -> Result<()> {
        let Some(tier) = draft.tier_naming(name)? else { return Ok(()) };
        let detail = format!("route {name:?} is in use by the tier {tier:?}: take it out of the tier's routes first");
        Err(Problem::new(Code::InUse, detail))
    }
}

/// What is said of a route's match when another route takes the same requests.
pub(crate) fn rival_of(other: &str) -> String {
    format!(
        "takes the same requests as the route {other:?}, and neither is the more specific: let host, path or methods differ"
    )
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
