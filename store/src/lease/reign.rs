//! A term of this node's leadership of a ledger group.

use std::{
    ops::Deref,
    sync::{Arc, atomic::AtomicBool},
};

use arc_swap::Guard;

use super::{
    authority::Leadership,
    bucket::Buckets,
    group::Wants,
    wire::{Decision, RateLevel, Verdict},
};

/// A term of this node's leadership.
pub(super) struct Reign {
    pub(super) leadership: Leadership,
    pub(super) buckets: Buckets,
    /// Rate units lent by an earlier leader may be spent until then.
    pub(super) opens_ns: u64,
    /// Every other node has said what it holds, or its units have lapsed.
    pub(super) settled: AtomicBool,
}

/// A reign that is acted with.
pub(super) struct Reigning(pub(super) Guard<Option<Arc<Reign>>>);

impl Deref for Reigning {
    type Target = Reign;

    fn deref(&self) -> &Reign {
        self.0.as_ref().expect("made of a reign alone")
    }
}

impl Reign {
    pub(super) fn term(&self) -> u64 {
        self.leadership.term
    }

    /// Whether all rate units that an earlier leader has lent have ended.
    pub(super) fn is_open(&self, now_ns: u64) -> bool {
        now_ns >= self.opens_ns
    }

    /// The verdict that a demand would get, taking nothing.
    pub(super) fn look(&self, demand: &Wants, in_use: u64, now_ns: u64) -> Verdict {
        let mut verdict = self.refusal(demand, Decision::Granted, in_use, now_ns);
        if demand.concurrency.is_some_and(|limit| in_use >= u64::from(limit)) {
            verdict.decision = Decision::Concurrency;
        } else if verdict.rates.iter().any(|rate| rate.retry_after_ns.is_some()) {
            verdict.decision = Decision::Rate;
        }
        verdict
    }

    /// Whether a demand that was short of units lacks none but of buckets that began empty and refill: that a leader was lost
    /// is no reason for a 429, so it waits.
    pub(super) fn refills(&self, demand: &Wants, now_ns: u64) -> bool {
        let has_or_refills =
            |wanted| self.buckets.refills(wanted, now_ns) || self.buckets.look(wanted, now_ns).refused.is_none();
        demand.rates.iter().any(|wanted| self.buckets.refills(wanted, now_ns))
            && demand.rates.iter().all(has_or_refills)
    }

    /// A verdict with the levels as they are.
    pub(super) fn refusal(&self, demand: &Wants, decision: Decision, in_use: u64, now_ns: u64) -> Verdict {
        let level = |wanted| {
            let level = self.buckets.look(wanted, now_ns);
            RateLevel {
                tat_ns: level.tat_ns,
                retry_after_ns: level.refused.map(|refused| refused.retry_after_ns),
                none_for_ns: level.none_for_ns,
            }
        };
        Verdict { decision, in_use, rates: demand.rates.iter().map(level).collect() }
    }
}
