//! A demand, and what became of it.

use std::time::Duration;

use crate::{
    model::{Charge, Name, Timestamp, Unit},
    view::{FoundKey, RouteView},
};

/// One request's demand.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The key, and through it the account and its policies.
    pub key: &'a FoundKey,
    /// The route.
    pub route: &'a RouteView,
    /// Bytes of the body as declared, or the most it may be when it is not declared.
    pub content_bytes: u64,
    /// Cost units.
    pub cost: u64,
    /// The time of the request.
    pub now: Timestamp,
}

/// Which kind of policy refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `rate-limited`.
    Rate,
    /// `quota-exceeded`.
    Quota,
    /// `concurrency-exceeded`.
    Concurrency,
}

/// Where a client stands with one policy, for the `RateLimit` headers (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The policy's name.
    pub name: Name,
    /// Which kind.
    pub policy: Policy,
    /// What it counts: `requests`, `content-bytes`, `cost` or `concurrent-requests`.
    pub unit: &'static str,
    /// `q`: units a window (for a rate: units a period of the rate, as configured).
    pub quota: u64,
    /// `w`: the window in seconds; none for concurrency.
    pub window_seconds: Option<u64>,
    /// `r`: units left now.
    pub remaining: u64,
    /// `t`: seconds until `remaining` grows to the whole quota (a period's end, or when a unit comes back), rounded up.
    pub reset_seconds: Option<u64>,
    /// A quota's period end.
    pub period_end: Option<Timestamp>,
}

/// A policy said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which kind.
    pub policy: Policy,
    /// The policies that refused, by name.
    pub violated: Vec<Name>,
    /// When the same demand may pass.
    pub retry_after: Duration,
    /// Where the client stands with every policy.
    pub standings: Vec<Standing>,
}

/// No grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// A policy said no.
    Refused(Box<Refusal>),
    /// Nobody could say: no leader, or no quorum for a reservation.
    Unavailable(crate::Unavailable),
}

/// Units taken. Dropping it gives the concurrency unit back and leaves everything else spent.
#[derive(Debug)]
pub struct Grant {
    /// Where the client stands with every policy, after this request.
    pub standings: Vec<Standing>,
    charges: Vec<(Unit, Charge)>,
}

impl Grant {
    /// The charges for the request's row, with the true numbers. More than was reserved is charged too (and counted);
    /// less gives the difference back.
    pub fn settle(&mut self, _content_bytes: u64, _cost: u64) -> Vec<Charge> {
        self.charges.iter().map(|(_, charge)| charge.clone()).collect()
    }

    /// The upstream was never called: rates and quotas are given back, nothing is charged.
    pub fn refund(self) {}
}
