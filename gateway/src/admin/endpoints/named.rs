//! Calls of tiers, routes and upstreams.

use http::Method;

use super::{DONE, IF, call};
use crate::admin::{
    api::{Answer, Api, Takes, Text, View, inputs},
    preview, routes, tiers, upstreams,
};

const NAME: Takes = Takes::Query("name_prefix", Text::Name, "Whose name begins so");
const NAMES: &[Takes] = &[Takes::Page, NAME];

/// What is called by a name that its maker chose.
pub(super) fn tiers_routes_and_upstreams(api: Api, get: &Method, put: &Method, delete: &Method) -> Api {
    api.call(
        get,
        "/tiers",
        tiers::list,
        call("listTiers", "viewer", "Tiers, by name", NAMES, None, &[(200, Answer::List(View::Tier))]),
    )
    .call(
        get,
        "/tiers/{name}",
        tiers::get,
        call("getTier", "viewer", "A tier", &[], None, &[(200, Answer::Revised(View::Tier))]),
    )
    .call(
        put,
        "/tiers/{name}",
        tiers::put,
        call(
            "putTier",
            "admin",
            "Makes or replaces a tier; in force everywhere when answered",
            IF,
            Some(inputs::TIER),
            &[(200, Answer::Revised(View::Tier)), (201, Answer::Revised(View::Tier))],
        ),
    )
    .call(
        delete,
        "/tiers/{name}",
        tiers::delete,
        call("deleteTier", "admin", "Deletes a tier that no account uses", IF, None, DONE),
    )
    .call(
        get,
        "/tiers/{name}/preview",
        preview::get,
        call(
            "previewTier",
            "viewer",
            "How many of the last days' requests of its accounts the tier would have refused",
            &[Takes::Query("days", Text::Days, "Days to look back; 7 when not said")],
            None,
            &[(200, Answer::Plain(View::Preview))],
        ),
    )
    .call(
        &Method::POST,
        "/tiers/{name}/preview",
        preview::create,
        call(
            "previewTierAs",
            "viewer",
            "The same, if the tier were as the body says; nothing is changed",
            &[Takes::Query("days", Text::Days, "Days to look back; 7 when not said")],
            Some(inputs::PREVIEWED),
            &[(200, Answer::Plain(View::Preview))],
        ),
    )
    .call(
        get,
        "/routes",
        routes::list,
        call(
            "listRoutes",
            "viewer",
            "Routes, by name",
            &[Takes::Page, NAME, Takes::Query("upstream", Text::Name, "To this upstream")],
            None,
            &[(200, Answer::List(View::Route))],
        ),
    )
    .call(
        get,
        "/routes/{name}",
        routes::get,
        call("getRoute", "viewer", "A route", &[], None, &[(200, Answer::Revised(View::Route))]),
    )
    .call(
        put,
        "/routes/{name}",
        routes::put,
        call(
            "putRoute",
            "admin",
            "Makes or replaces a route; in force everywhere when answered",
            IF,
            Some(inputs::ROUTE),
            &[(200, Answer::Revised(View::Route)), (201, Answer::Revised(View::Route))],
        ),
    )
    .call(
        delete,
        "/routes/{name}",
        routes::delete,
        call("deleteRoute", "admin", "Deletes a route that no tier names", IF, None, DONE),
    )
    .call(
        get,
        "/upstreams",
        upstreams::list,
        call("listUpstreams", "viewer", "Upstreams, by name", NAMES, None, &[(200, Answer::List(View::Upstream))]),
    )
    .call(
        get,
        "/upstreams/{name}",
        upstreams::get,
        call("getUpstream", "viewer", "An upstream", &[], None, &[(200, Answer::Revised(View::Upstream))]),
    )
    .call(
        put,
        "/upstreams/{name}",
        upstreams::put,
        call(
            "putUpstream",
            "admin",
            "Makes or replaces an upstream; in force everywhere when answered",
            IF,
            Some(inputs::UPSTREAM),
            &[(200, Answer::Revised(View::Upstream)), (201, Answer::Revised(View::Upstream))],
        ),
    )
    .call(
        delete,
        "/upstreams/{name}",
        upstreams::delete,
        call("deleteUpstream", "admin", "Deletes an upstream that no route uses", IF, None, DONE),
    )
}
