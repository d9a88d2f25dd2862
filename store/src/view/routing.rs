//! The routes in force, ordered for matching.
//!
//! A look-up tries few keys of a hash map and no route twice: the exact path, then every prefix of the path that ends on
//! a segment boundary, the longest first. So it costs the same for three routes and for ten thousand.

mod plain;
mod rival;

pub use rival::{RoutePlace, are_rivals};

use std::{
    borrow::Cow,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use super::number;
use crate::model::{Name, PathMatch, Route, Upstream};

/// A route with its upstream.
#[derive(Debug)]
pub struct RouteView {
    /// As configured.
    pub route: Route,
    /// Its upstream; none when the name dangles (refused by apply, so only while replaying).
    pub upstream: Option<Arc<UpstreamView>>,
    /// Stable number of the route's name on this node while it runs.
    pub slot: u32,
    /// Number made of the name alone, the same on every node; names its buckets.
    pub number: u64,
}

/// An upstream.
#[derive(Debug)]
pub struct UpstreamView {
    /// As configured.
    pub upstream: Upstream,
}

/// The method that has a server say back what it was asked, headers of the gateway's own among it: only a route that names
/// it takes it.
const TRACE: &str = "TRACE";

/// All routes.
#[derive(Debug, Default)]
pub struct RouteTable {
    hosts: Map<Paths>,
    any_host: Paths,
    by_name: HashMap<Name, Arc<RouteView>>,
    upstreams: Vec<Arc<UpstreamView>>,
}

/// Routes of one host, or of any.
#[derive(Debug, Default)]
struct Paths {
    exact: Map<Vec<Arc<RouteView>>>,
    prefix: Map<Vec<Arc<RouteView>>>,
    /// Longest prefix in bytes: a longer part of a path needs no look-up.
    longest: usize,
}

type Map<T> = HashMap<Box<str>, T, BuildHasherDefault<Fnv>>;

impl RouteTable {
    pub(super) fn new<'a>(
        routes: impl Iterator<Item = &'a Route>,
        upstreams: impl Iterator<Item = &'a Upstream>,
        slots: &HashMap<Name, u32>,
    ) -> Self {
        let mut table = Self::default();
        let upstreams: HashMap<_, _> = upstreams
            .map(|upstream| (upstream.name.clone(), Arc::new(UpstreamView { upstream: upstream.clone() })))
            .collect();
        for route in routes {
            let view = Arc::new(RouteView {
                route: route.clone(),
                upstream: upstreams.get(&route.upstream).cloned(),
                slot: slots[&route.name],
                number: number::of_text("route", &route.name),
            });
            let paths = match &route.matches.host {
                Some(host) => table.hosts.entry(host.to_ascii_lowercase().into()).or_default(),
                None => &mut table.any_host,
            };
            let (map, path) = match route.matches.path_match() {
                PathMatch::Exact(path) => (&mut paths.exact, path),
                PathMatch::Prefix(prefix) => {
                    paths.longest = paths.longest.max(prefix.len());
                    (&mut paths.prefix, prefix)
                }
            };
            map.entry(plain::plain(path).into()).or_default().push(view.clone());
            table.by_name.insert(route.name.clone(), view);
        }
        for paths in table.hosts.values_mut().chain([&mut table.any_host]) {
            for routes in paths.exact.values_mut().chain(paths.prefix.values_mut()) {
                // One that names its methods is more specific than one that takes any; names settle the rest.
                routes.sort_by(|a, b| {
                    let key = |view: &RouteView| (view.route.matches.methods.is_empty(), view.route.name.clone());
                    key(a).cmp(&key(b))
                });
            }
        }
        table.upstreams = upstreams.into_values().collect();
        table.upstreams.sort_by(|a, b| a.upstream.name.cmp(&b.upstream.name));
        table
    }

    /// The most specific route for a request: a host before any host, an exact path before a prefix, the longest prefix,
    /// a named method before any. A route whose path fits and whose methods do not is passed over; `TRACE` has to be named.
    ///
    /// `host` may have a port and capitals, as clients send them; `path` is without query string, and read as an upstream
    /// may read it: `/v3//%61dmin;x=1` is `/v3/admin`.
    pub fn find(&self, host: Option<&str>, path: &str, method: &str) -> Option<&Arc<RouteView>> {
        let path = &*plain::plain(path);
        let of_host = match host {
            Some(host) if !self.hosts.is_empty() => self.hosts.get(&*bare_host(host)),
            _ => None,
        };
        of_host.and_then(|paths| paths.find(path, method)).or_else(|| self.any_host.find(path, method))
    }

    /// A route by name.
    pub fn by_name(&self, name: &Name) -> Option<&Arc<RouteView>> {
        self.by_name.get(name)
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteView>> {
        self.by_name.values()
    }

    /// All upstreams, by name (for the gateway's connection pools).
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<UpstreamView>> {
        self.upstreams.iter()
    }
}

impl Paths {
    fn find(&self, path: &str, method: &str) -> Option<&Arc<RouteView>> {
        let takes = |routes: &'_ Vec<Arc<RouteView>>| {
            routes.iter().position(|view| {
                let methods = &view.route.matches.methods;
                methods.is_empty() && method != TRACE || methods.iter().any(|m| m == method)
            })
        };
        let pick = |map: &'_ Map<Vec<Arc<RouteView>>>, path: &str| map.get(path).and_then(takes);
        if let Some(at) = pick(&self.exact, path) {
            return self.exact[path].get(at);
        }
        for prefix in boundaries(path, self.longest) {
            if let Some(at) = pick(&self.prefix, prefix) {
                return self.prefix[prefix].get(at);
            }
        }
        None
    }
}

/// The prefixes of a path that a rule can be, the longest first: the path itself, and up to and without each `/`.
fn boundaries(path: &str, longest: usize) -> impl Iterator<Item = &str> {
    let slashes = path.bytes().enumerate().rev().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
    let inner = slashes.flat_map(|at| [at + 1, at]).filter(|end| *end < path.len());
    std::iter::once(path.len()).chain(inner).filter(move |end| *end <= longest).map(|end| &path[..end])
}

/// Lower case, without port; borrowed when it is that already.
fn bare_host(host: &str) -> Cow<'_, str> {
    let bare = match host.rsplit_once(':') {
        // An IPv6 address is in brackets, and its colons are not a port's.
        Some((name, port)) if !port.ends_with(']') && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    if bare.bytes().any(|byte| byte.is_ascii_uppercase()) { bare.to_ascii_lowercase().into() } else { bare.into() }
}

/// FNV-1a: short keys, all of them ours, so nobody can choose them to collide.
#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests;
