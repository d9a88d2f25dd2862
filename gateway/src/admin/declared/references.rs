//! What a document's routes and tiers have to do with each other, and with what stays of what is stored.
//!
//! Looked at as a whole, for the document's order means nothing: a route may take the place of one that goes with it, and a
//! tier may name a route that comes with it. What was wrong before and is not changed is let be.

use std::collections::{HashMap, HashSet};

use store::{
    model::{Route, Tier},
    view::{RoutePlace, are_rivals},
};

use super::plan::Plan;
use crate::admin::{
    draft::{Draft, Kind},
    problem::{FieldError, Result},
    routes::rival_of,
};

/// Notes what is wrong in the plan.
pub(super) fn check(plan: &mut Plan<'_, '_>, tiers: Option<&[Tier]>, routes: Option<&[Route]>) -> Result<()> {
    if let Some(routes) = routes {
        rivals(plan, routes);
    }
    named_routes(plan, tiers, routes)
}

/// Routes that take the same requests as another and are as specific.
fn rivals(plan: &mut Plan<'_, '_>, routes: &[Route]) {
    let store = plan.draft.store;
    let stored = store.directory().routes();
    let is_as_before =
        |route: &Route| stored.by_name(&route.name).is_some_and(|view| view.route.matches == route.matches);
    let names: HashSet<&str> = routes.iter().map(|route| route.name.as_str()).collect();
    let mut places: HashMap<RoutePlace, Vec<&Route>> = HashMap::new();
    for (n, route) in routes.iter().enumerate() {
        let as_before = is_as_before(route);
        let there = places.entry(RoutePlace::of(&route.matches)).or_default();
        let declared = there.iter().find(|other| {
            are_rivals(&other.matches, &route.matches)
                && !(as_before && is_as_before(other))
                && other.name != route.name
        });
        let stays = |name: &str| !plan.prune && !as_before && !names.contains(name);
        let rival = declared.map(|other| other.name.clone()).or_else(|| {
            let rivals = stored.rivals(&route.matches).map(|view| &view.route.name);
            rivals.filter(|name| stays(name)).min().cloned()
        });
        there.push(route);
        if let Some(rival) = rival {
            plan.wrong.push(FieldError { pointer: format!("/routes/{n}/match"), detail: rival_of(&rival) });
        }
    }
}

/// Routes that a tier names and that are not there, or go.
fn named_routes(plan: &mut Plan<'_, '_>, tiers: Option<&[Tier]>, routes: Option<&[Route]>) -> Result<()> {
    let store = plan.draft.store;
    let stored = store.directory().routes();
    let declared: Option<HashSet<&str>> = routes.map(|routes| routes.iter().map(|route| route.name.as_str()).collect());
    let is_declared = |name: &str| declared.as_ref().is_some_and(|names| names.contains(name));
    let is_stored = |name: &str| stored.by_name(&name.into()).is_some();
    let goes = |name: &str| plan.prune && declared.is_some() && is_stored(name) && !is_declared(name);
    let before: HashMap<_, Tier> = store.tiers()?.into_iter().map(|tier| (tier.name.clone(), tier)).collect();
    let mut wrong = Vec::new();
    for (n, tier) in tiers.into_iter().flatten().enumerate() {
        let named_before = before.get(&tier.name).and_then(|tier| tier.routes.as_deref()).unwrap_or_default();
        for route in tier.routes.iter().flatten() {
            let is_lost = !is_declared(route) && !is_stored(route) && !named_before.contains(route);
            if is_lost || goes(route) {
                let pointer = format!("/tiers/{n}/routes");
                wrong.push(FieldError { pointer, detail: Draft::missing(Kind::Route, route) });
            }
        }
    }
    // Of tiers that the document says nothing about, those that stay.
    let is_told =
        |tier: &Tier| tiers.is_some_and(|tiers| plan.prune || tiers.iter().any(|other| other.name == tier.name));
    let mut rest: Vec<&Tier> = before.values().filter(|tier| !is_told(tier)).collect();
    rest.sort_by(|a, b| a.name.cmp(&b.name));
    for tier in rest {
        for route in tier.routes.iter().flatten().filter(|route| goes(route)) {
            let detail = format!("lacks the route {:?}, which the tier {:?} names", route.as_str(), tier.name.as_str());
            wrong.push(FieldError { pointer: "/routes".into(), detail });
        }
    }
    plan.wrong.extend(wrong);
    Ok(())
}
