//! Routes and upstreams.

use std::collections::BTreeMap;

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

/// Changes of a message's headers.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderEdits {
    /// Headers and their values, in the place of any that are there; names in lower case.
    #[n(0)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Headers that are taken out; names in lower case.
    #[n(1)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// What pages of other origins may do (the Fetch standard's CORS protocol).
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins like `https://app.example.com`; `*` alone is any.
    #[n(0)]
    pub origins: Vec<String>,
    /// Methods that a preflight allows; those of the route when empty.
    #[n(1)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Request headers that a preflight allows; those that it asks for when empty.
    #[n(2)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Response headers that a page may read.
    #[n(3)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// Whether pages may send cookies and the like.
    #[n(4)]
    #[cbor(default)]
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may keep a preflight's answer, seconds; 600 when not said.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
}

/// What an answer of the upstream says that a request cost.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostHeader {
    /// The response header: a whole number of units.
    #[n(0)]
    pub name: String,
    /// Units that are reserved before the upstream is called, and the most that are charged.
    #[n(1)]
    pub max: u64,
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
    /// Tries after a connection that failed before the request was sent, and of requests that may be sent twice (idempotent, no
    /// body) also after one that broke or a status of `retry_statuses`; 0 when not said.
    #[n(5)]
    #[cbor(default)]
    #[serde(default)]
    pub retries: u8,
    /// Scopes that a key needs, all of them.
    #[n(6)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Name>,
    /// Units of a `cost` quota a request; 1 when no cost is said at all.
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
    /// Put before the path, after `strip_prefix`.
    #[n(10)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_prefix: Option<String>,
    /// From the upstream call to the end of its answer, milliseconds; without bound when not said.
    #[n(11)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_timeout_ms: Option<u64>,
    /// Statuses of the upstream after which a request that may be sent twice is tried again.
    #[n(12)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_statuses: Option<Vec<u16>>,
    /// Changes of the request's headers on its way up.
    #[n(13)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<Box<HeaderEdits>>,
    /// Changes of the answer's headers on its way down.
    #[n(14)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<Box<HeaderEdits>>,
    /// What pages of other origins may do; nothing when not said.
    #[n(15)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Box<Cors>>,
    /// Units for each KiB of the request's body, a begun one counts; on top of `cost`.
    #[n(16)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_kib: Option<u64>,
    /// The upstream says what a request cost.
    #[n(17)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_header: Option<CostHeader>,
}

impl Route {
    /// Units to be reserved for a request with a body of so many bytes, or at most so many.
    pub fn reserved_cost(&self, body_bytes: u64) -> u64 {
        let known = self.known_cost(body_bytes);
        self.cost_header.as_ref().map_or(known, |header| header.max.max(known))
    }

    /// What a request came to: as the upstream's header says, at most the stated maximum. An answer that does not say costs
    /// what the route itself says; without an answer (`said` is none) nobody knows, and the reservation stands.
    pub fn settled_cost(&self, body_bytes: u64, said: Option<SaidCost>) -> u64 {
        match (&self.cost_header, said) {
            (None, _) | (Some(_), Some(SaidCost::Nothing)) => self.known_cost(body_bytes),
            (Some(header), Some(SaidCost::Units(units))) => units.min(header.max.max(self.known_cost(body_bytes))),
            (Some(_), None) => self.reserved_cost(body_bytes),
        }
    }

    fn known_cost(&self, body_bytes: u64) -> u64 {
        let constant = self.cost.unwrap_or(u64::from(self.cost_per_kib.is_none()));
        constant.saturating_add(body_bytes.div_ceil(1_024).saturating_mul(self.cost_per_kib.unwrap_or(0)))
    }
}

/// What an upstream's answer says of its cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidCost {
    /// Nothing that is a whole number.
    Nothing,
    /// So many units.
    Units(u64),
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

/// When a target is left out for what it answers, and for how long.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outlier {
    /// Failures in a row (5xx, no answer in time, a broken connection or none to be had) after which a target is ejected.
    #[n(0)]
    pub failures: u16,
    /// How long it is ejected the first time; each further time in a row as much longer, up to ten times this.
    #[n(1)]
    pub eject_ms: u64,
    /// Most targets of 100 that may be ejected at once. With 100 nothing is left when all fail: 502 at once, a circuit breaker.
    #[n(2)]
    pub max_percent: u8,
}

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[n(0)]
    #[default]
    Http1,
    /// HTTP/2, over TLS or by prior knowledge (gRPC).
    #[n(1)]
    Http2,
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
    /// When targets are left out for what they answer; never when not said.
    #[n(7)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier: Option<Outlier>,
    /// Retries that may be made of 100 requests that may be retried; 20 when not said.
    #[n(8)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget_percent: Option<u8>,
    /// What it speaks; HTTP/1.1 when not said.
    #[n(9)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

#[cfg(test)]
mod tests {
    use super::{CostHeader, PathMatch, Route, SaidCost};

    #[test]
    fn cost_is_reserved_at_its_maximum_and_settled_from_the_answer() {
        let plain = Route::default();
        assert_eq!((plain.reserved_cost(5_000), plain.settled_cost(5_000, None)), (1, 1));
        let by_size = Route { cost_per_kib: Some(2), ..Route::default() };
        for (bytes, units) in [(0, 0), (1, 2), (1_024, 2), (1_025, 4), (u64::MAX, u64::MAX >> 10 << 1 | 2)] {
            assert!(by_size.settled_cost(bytes, None).abs_diff(units) <= 2, "{bytes}");
        }
        assert_eq!(Route { cost: Some(3), ..by_size }.reserved_cost(1_025), 7);
        let header = CostHeader { name: "x-units".into(), max: 100 };
        let said = Route { cost: Some(5), cost_header: Some(header), ..Route::default() };
        assert_eq!(said.reserved_cost(0), 100);
        for (answer, units) in [
            (Some(SaidCost::Units(0)), 0),
            (Some(SaidCost::Units(42)), 42),
            (Some(SaidCost::Units(1_000)), 100),
            (Some(SaidCost::Nothing), 5),
            (None, 100),
        ] {
            assert_eq!(said.settled_cost(0, answer), units, "{answer:?}");
        }
    }

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
