//! Calls of tiers, routes and upstreams.

use http::Method;
use store::model::{Route, Tier, Upstream};

use super::{DONE, IF, call};
use crate::admin::{
    api::{Answer, Api, Takes, Text, View, inputs},
    named, preview,
};

const NAME: Takes = Takes::Query("name_prefix", Text::Name, "Whose name begins so");
const NAMES: &[Takes] = &[Takes::Page, NAME];

/// What is called by a name that its maker chose.
pub(super) fn tiers_routes_and_upstreams(api: Api, get: &Method, put: &Method, delete: &Method) -> Api {
    api.call(
        get,
        "/tiers",
        named::list::<Tier>,
        call("listTiers", "viewer", "Tiers, by name", NAMES, None, &[(200, Answer::List(View::Tier))]),
    )
    .call(
        get,
        "/tiers/{name}",
        named::get::<Tier>,
        call("getTier", "viewer", "A tier", &[], None, &[(200, Answer::Revised(View::Tier))]),
    )
    .call(
        put,
        "/tiers/{name}",
        named::put::<Tier>,
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
        named::delete::<Tier>,
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
        named::list::<Route>,
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
        named::get::<Route>,
        call("getRoute", "viewer", "A route", &[], None, &[(200, Answer::Revised(View::Route))]),
    )
    .call(
        put,
        "/routes/{name}",
        named::put::<Route>,
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
        named::delete::<Route>,
        call("deleteRoute", "admin", "Deletes a route that no tier names", IF, None, DONE),
    )
    .call(
        get,
        "/upstreams",
        named::list::<Upstream>,
        call("listUpstreams", "viewer", "Upstreams, by name", NAMES, None, &[(200, Answer::List(View::Upstream))]),
    )
    .call(
        get,
        "/upstreams/{name}",
        named::get::<Upstream>,
        call("getUpstream", "viewer", "An upstream", &[], None, &[(200, Answer::Revised(View::Upstream))]),
    )
    .call(
        put,
        "/upstreams/{name}",
        named::put::<Upstream>,
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
        named::delete::<Upstream>,
        call("deleteUpstream", "admin", "Deletes an upstream that no route uses", IF, None, DONE),
    )
}
