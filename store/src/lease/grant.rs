//! A demand, and what became of it.

use std::time::Duration;

use super::{few::Few, held::Held, standing};
use crate::{
    model::{Charge, GroupId, Name, Timestamp, Unit},
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
///
/// A rate of 5 a second with a burst of 5 is `"per-second";q=5;w=1`, and after one request `"per-second";r=4;t=1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The policy's name; `concurrency` for the concurrency.
    pub name: Name,
    /// Which kind.
    pub policy: Policy,
    /// What it counts: `requests`, `content-bytes`, `cost` or `concurrent-requests`.
    pub unit: &'static str,
    /// `q`: units a window (for a rate: units a period of the rate, as configured; its burst is not in the headers).
    pub quota: u64,
    /// `w`: the window in seconds; none for concurrency.
    pub window_seconds: Option<u64>,
    /// `r`: units that could be taken now. Of a rate with a burst above its units this can be more than `quota`. Of a quota
    /// it is exact while one node serves the account and the replicated state says what is free; units that other nodes
    /// have reserved count as used.
    pub remaining: u64,
    /// Whether `remaining` was looked at; if not (a quota that this node has not asked for in its period) it is what a
    /// whole period has.
    pub is_known: bool,
    /// `t`: seconds, rounded up, until `remaining` grows: for a rate until one more unit is there (none when it is full),
    /// for a quota until its period ends.
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
    /// When the same demand may pass, if no other comes between: whole seconds, rounded up, at least one.
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
    Unavailable(crate::model::Unavailable),
}

/// A request that is let through.
#[derive(Debug)]
pub(super) struct Decided {
    /// Each rate's TAT after it.
    pub(super) rates: Few<u64>,
    /// The account's concurrency units that somebody holds, with this one.
    pub(super) in_use: u64,
    /// The lease clock at that instant.
    pub(super) clock_ns: u64,
}

/// Units taken. Dropping it gives the concurrency unit back and leaves everything else spent.
#[derive(Debug)]
pub struct Grant {
    pub(super) held: Held,
    decided: Decided,
    /// Limits that would have refused.
    pub(super) shadows: Vec<Name>,
    settled: bool,
    refunded: bool,
}

impl Grant {
    pub(super) fn new(held: Held, decided: Decided) -> Self {
        Self { held, decided, shadows: Vec::new(), settled: false, refunded: false }
    }

    /// The ledger group that gave them: the request's row goes there.
    pub fn group(&self) -> GroupId {
        self.held.group().id
    }

    /// Where the client stands with every policy, after this request.
    pub fn standings(&self) -> Vec<Standing> {
        standing::granted(&self.held, &self.decided)
    }

    /// Policies that would have refused this request if they were no shadows: limits that had no unit, and quotas that have
    /// no more.
    pub fn shadows(&self) -> Vec<Name> {
        let quotas = self.held.handle.quotas(self.held.now).zip(self.held.quotas.iter());
        let over = quotas.filter(|((policy, _), take)| policy.shadow && take.is_over);
        let all: Vec<Name> =
            self.shadows.iter().cloned().chain(over.map(|((policy, _), _)| policy.name.clone())).collect();
        if !all.is_empty() {
            self.held.group().counters.shadowed.add(1);
        }
        all
    }

    /// The charges for the request's row, with the true numbers. More than was reserved is charged too (and counted);
    /// less gives the difference back.
    ///
    /// Called again (a streamed answer's second record), it gives what is to be added: a row's charge never shrinks.
    pub fn settle(&mut self, content_bytes: u64, cost: u64) -> Vec<Charge> {
        let settled = std::mem::replace(&mut self.settled, true);
        let mut charges = Vec::with_capacity(1);
        let Held { handle, quotas, .. } = &mut self.held;
        for take in quotas {
            let slice = handle.slice(take.place);
            let units = match take.unit {
                Unit::Requests => take.units,
                Unit::ContentBytes => content_bytes,
                Unit::Cost => cost,
            };
            let charged = if settled { take.units } else { 0 };
            if settled && units <= charged {
                continue;
            }
            handle.group.counters.overdrawn.add(slice.adjust(take, units));
            if units > charged {
                let units = units - charged;
                charges.push(Charge { quota: slice.quota.clone(), period_start: take.period_start, units });
            }
        }
        charges
    }

    /// The upstream was never called: quotas are given back, nothing is charged. (What a row has been charged by
    /// [`Grant::settle`] stays charged.) Rates stay spent: the request was admitted, whether or not an answer followed, and
    /// a unit that came back would let a window have one more.
    pub fn refund(mut self) {
        if self.settled {
            self.held.keep_quotas();
        }
        self.refunded = true;
    }

    /// Whether this node could not renew its concurrency units with the leader for so long that the leader counts them as
    /// free. A request that still runs must be ended then: look when [`Grant::lapses_after`] is over. What has lapsed once stays
    /// so, whatever the leader says later: it may have given the unit to another meanwhile.
    pub fn has_lapsed(&self) -> bool {
        self.lapses_after().is_some_and(|left| left.is_zero())
    }

    /// How long [`Grant::has_lapsed`] stays false if no word of the leader comes; none without a concurrency unit.
    pub fn lapses_after(&self) -> Option<Duration> {
        let Held { handle, unit, .. } = &self.held;
        if !unit.is_held {
            return None;
        }
        let group = &handle.group;
        let left_ns = if unit.lapses == group.lapses() { group.units_last_ns(group.authority.now_ns()) } else { 0 };
        Some(Duration::from_nanos(left_ns))
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        // What is not spent goes back as `held` is dropped.
        if !self.refunded {
            self.held.keep_quotas();
        }
    }
}
