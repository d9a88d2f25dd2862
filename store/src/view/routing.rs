//! The routes in force, ordered for matching.

use std::sync::Arc;

use crate::model::{Name, Route, Upstream};

/// A route with its upstream.
#[derive(Debug)]
pub struct RouteView {
    /// As configured.
    pub route: Route,
    /// Its upstream; none when the name dangles (refused by apply, so only while replaying).
    pub upstream: Option<Arc<UpstreamView>>,
    /// Stable number of the route's name on this node while it runs; names its buckets.
    pub slot: u32,
}

/// An upstream.
#[derive(Debug)]
pub struct UpstreamView {
    /// As configured.
    pub upstream: Upstream,
}

/// All routes.
#[derive(Debug, Default)]
pub struct RouteTable {}

impl RouteTable {
    /// The most specific route for a request: a host before any host, an exact path before a prefix, the longest prefix.
    pub fn find(&self, _host: Option<&str>, _path: &str, _method: &str) -> Option<&Arc<RouteView>> {
        todo!()
    }
    /// A route by name.
    pub fn by_name(&self, _name: &Name) -> Option<&Arc<RouteView>> {
        todo!()
    }
    /// All upstreams (for the gateway's connection pools).
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<UpstreamView>> {
        std::iter::empty()
    }
}
