//! Routes and upstreams.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{Name, Revision};

/// Which requests a route takes. The most specific wins: exact path, then longest prefix; a host before any host.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteMatch {
    /// `Host` without port, lower case; none for any.
    #[n(0)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path is this prefix, or goes on after it with `/` (or the prefix ends in `/`).
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// The path is exactly this.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Methods in upper case; empty for any.
    #[n(3)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
}

/// How a path is matched; see [`RouteMatch::path_match`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMatch<'a> {
    /// The whole path.
    Exact(&'a str),
    /// A prefix, on a segment boundary.
    Prefix(&'a str),
}

impl RouteMatch {
    /// The path rule; `path` wins where both are given, and the prefix `/` where none is.
    pub fn path_match(&self) -> PathMatch<'_> {
        match (&self.path, &self.path_prefix) {
            (Some(path), _) => PathMatch::Exact(path),
            (None, Some(prefix)) => PathMatch::Prefix(prefix),
            (None, None) => PathMatch::Prefix("/"),
        }
    }
}

impl PathMatch<'_> {
    /// Whether a path (without query) matches.
    pub fn matches(self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')),
        }
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name.
    #[n(0)]
    #[serde(default)]
    pub name: Name,
    /// Which requests it takes.
    #[n(1)]
    #[serde(rename = "match")]
    pub matches: RouteMatch,
    /// The upstream's name.
    #[n(2)]
    pub upstream: Name,
    /// Taken off the front of the path before the request goes on.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<String>,
    /// From the upstream call to the first byte of its answer, milliseconds.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Tries after a connection that failed before the request was sent; 0 when not said.
    #[n(5)]
    #[cbor(default)]
    #[serde(default)]
    pub retries: u8,
    /// Scopes that a key needs, all of them.
    #[n(6)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Name>,
    /// Units of a `cost` quota a request; 1 when not said.
    #[n(7)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<u64>,
    /// Largest request body in bytes; the smaller of this and the tier's counts.
    #[n(8)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// Set by apply: the entry that last changed it.
    #[n(9)]
    #[cbor(default)]
    #[serde(default, skip_deserializing)]
    pub revision: Revision,
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `http://host:port` or `https://host:port`, without a path.
    #[n(0)]
    pub url: String,
    /// Its share of the requests; 1 when not said, 0 takes it out.
    #[n(1)]
    #[cbor(default)]
    #[serde(default = "one")]
    pub weight: u16,
}

fn one() -> u16 {
    1
}

/// An active health check.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Path to ask; a 2xx is healthy.
    #[n(0)]
    pub path: String,
    /// Time between two checks, milliseconds.
    #[n(1)]
    pub interval_ms: u64,
    /// Checks in a row that change the verdict.
    #[n(2)]
    pub threshold: u8,
}

/// A service behind the gateway.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Its name.
    #[n(0)]
    #[serde(default)]
    pub name: Name,
    /// Its addresses; at least one.
    #[n(1)]
    pub targets: Vec<Target>,
    /// Active health check, if any.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Time to connect, milliseconds; 2,000 when not said.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout_ms: Option<u64>,
    /// Longest silence in the middle of a body, milliseconds; 60,000 when not said.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// Connections at once a node; 1,024 when not said.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Set by apply: the entry that last changed it.
    #[n(6)]
    #[cbor(default)]
    #[serde(default, skip_deserializing)]
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::PathMatch;

    #[test]
    fn prefixes_end_on_a_segment_boundary() {
        for (prefix, path, matches) in [
            ("/", "/anything", true),
            ("/v3", "/v3", true),
            ("/v3", "/v3/scan", true),
            ("/v3", "/v30", false),
            ("/v3/", "/v3", false),
            ("/v3/", "/v3/scan", true),
        ] {
            assert_eq!(PathMatch::Prefix(prefix).matches(path), matches, "{prefix} {path}");
        }
    }
}
