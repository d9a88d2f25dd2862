//! Routes between which only their names would decide: those that are as specific as each other and share a request.

use std::sync::Arc;

use super::{RouteTable, RouteView, plain};
use crate::model::{PathMatch, RouteMatch};

/// How specific a route is, and about what. Two of one place that share a method are rivals.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoutePlace {
    host: Option<String>,
    is_exact: bool,
    path: String,
    names_methods: bool,
}

impl RoutePlace {
    /// Where a match stands.
    pub fn of(matches: &RouteMatch) -> Self {
        let (is_exact, path) = match matches.path_match() {
            PathMatch::Exact(path) => (true, path),
            PathMatch::Prefix(prefix) => (false, prefix),
        };
        Self {
            host: matches.host.as_ref().map(|host| host.to_ascii_lowercase()),
            is_exact,
            path: plain::plain(path).into_owned(),
            names_methods: !matches.methods.is_empty(),
        }
    }
}

/// Whether some request fits both, and neither is the more specific.
pub fn are_rivals(one: &RouteMatch, other: &RouteMatch) -> bool {
    let any = one.methods.is_empty() && other.methods.is_empty();
    let share = any || one.methods.iter().any(|method| other.methods.contains(method));
    share && RoutePlace::of(one) == RoutePlace::of(other)
}

impl RouteTable {
    /// The routes in force that are rivals of one with this match; the one itself among them, if it is in force.
    pub fn rivals<'t>(&'t self, matches: &'t RouteMatch) -> impl Iterator<Item = &'t Arc<RouteView>> {
        let place = RoutePlace::of(matches);
        let paths = match &place.host {
            Some(host) => self.hosts.get(host.as_str()),
            None => Some(&self.any_host),
        };
        let map = paths.map(|paths| if place.is_exact { &paths.exact } else { &paths.prefix });
        let there = map.and_then(|map| map.get(place.path.as_str())).into_iter().flatten();
        there.filter(|view| are_rivals(&view.route.matches, matches))
    }
}
