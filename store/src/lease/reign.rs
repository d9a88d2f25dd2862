//! A term of this node's leadership of a ledger group.

use std::sync::atomic::Ordering;

use super::{
    authority::Leadership,
    bucket::Buckets,
    group::{Group, LENT_FOR_NS, UNITS_LEASE_NS, Wants, with_drift},
    wire::{Decision, RateLevel, Verdict},
};
use crate::platform::planted;

/// A term of this node's leadership: all of it follows from the leadership and from what the group keeps.
#[derive(Clone, Copy)]
pub(super) struct Reign<'g> {
    pub(super) leadership: Leadership,
    pub(super) buckets: Buckets<'g>,
    group: &'g Group,
    /// Rate units lent by an earlier leader may be spent until then.
    opens_ns: u64,
}

impl<'g> Reign<'g> {
    /// Of a leadership that has begun in the group.
    pub(super) fn of(group: &'g Group, leadership: Leadership) -> Self {
        let starts_full = leadership.fresh || planted!(StartsLeaderFull);
        let opens_ns = if starts_full { 0 } else { leadership.since_ns.saturating_add(with_drift(LENT_FOR_NS)) };
        let buckets = group.buckets.of(leadership.term, (!starts_full).then_some(opens_ns));
        Self { leadership, buckets, group, opens_ns }
    }

    /// Whether every other node has said what concurrency units it holds, or they have lapsed: the leader knows all that are
    /// under way.
    pub(super) fn is_settled(&self, now_ns: u64) -> bool {
        if self.group.settled.load(Ordering::Acquire) == settled_in(self.term()) {
            return true;
        }
        let lapsed = now_ns >= self.leadership.since_ns.saturating_add(with_drift(UNITS_LEASE_NS));
        if lapsed {
            self.settle();
        }
        lapsed
    }

    /// Every other node has said what it holds.
    pub(super) fn settle(&self) {
        self.group.settled.fetch_max(settled_in(self.term()), Ordering::AcqRel);
    }

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

/// What [`Group::settled`] says when a term's reign is; 0 is none's.
fn settled_in(term: u64) -> u64 {
    term.saturating_add(1)
}
