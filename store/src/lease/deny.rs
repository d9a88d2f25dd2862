//! What a request that is not let through is told, and that it holds nothing any more.

use super::{
    debt::is_slow,
    grant::{Demand, Denied, Policy},
    group::{Group, Wants},
    held::Held,
    standing, unavailable,
    wire::{Decision, Verdict},
};
use crate::model::Unavailable;

/// A verdict with the levels as this node remembers them.
pub(super) fn remembered(group: &Group, wants: &Wants, decision: Decision, in_use: u64, now_ns: u64) -> Verdict {
    let rates = wants.rates.iter().map(|wanted| group.purses.look(wanted, now_ns)).collect();
    Verdict { decision, in_use, rates }
}

/// The refusal by a quota; everything that was taken is given back.
pub(super) fn no_quota(held: &mut Held, wants: &Wants, demand: &Demand<'_>) -> Denied {
    let taken = held.end_quotas();
    held.release_unit();
    let (group, handle) = (held.group(), &held.handle);
    let now_ns = group.authority.now_ns();
    let mut refused = standing::refusing(handle, demand, now_ns);
    let this = handle.quotas(demand.now).nth(taken).map(|(policy, _)| policy);
    refused.extend(this.filter(|policy| !refused.iter().any(|other| other.name == policy.name)));
    let verdict = match group.authority.leading(group.id, now_ns) {
        Some(leadership) => group.look(group.reign(leadership), wants, now_ns),
        None => remembered(group, wants, Decision::Granted, handle.units.in_use(), now_ns),
    };
    Denied::Refused(Box::new(standing::quota_refusal(handle, demand, &refused, &verdict, now_ns)))
}

pub(super) fn nobody(group: &Group, error: Unavailable) -> Denied {
    group.counters.unavailable.add(1);
    Denied::Unavailable(error)
}

/// A request that has waited for buckets that a new leader began empty, and then met one that others have used up: it is not
/// told 429, which would be for the loss of the leader.
pub(super) fn after_refilling(group: &Group, demand: &Demand<'_>, denied: Denied) -> Denied {
    let Denied::Refused(refusal) = &denied else { return denied };
    let mut limits = demand.key.account.policies.limits_at(demand.now);
    let slow = limits.any(|policy| is_slow(policy.gcra) && refusal.violated.contains(&policy.limit.name));
    if slow || refusal.policy != Policy::Rate { denied } else { nobody(group, still_refills()) }
}

/// Whether a leader that could not decide yet has no unit of a rate that it keeps in its memory alone.
pub(super) fn lacks_fast(lacks: &Wants, verdict: &Verdict) -> bool {
    lacks.rates.iter().zip(&verdict.rates).any(|(rate, level)| level.retry_after_ns.is_some() && !is_slow(rate.gcra()))
}

pub(super) fn still_refills() -> Unavailable {
    unavailable("the leader is new: a rate limit that it began with an empty bucket has no unit yet")
}

/// A refusal by the concurrency alone was asked without the rates: they are as memory knows.
pub(super) fn with_all_rates(group: &Group, wants: &Wants, lacks: &Wants, verdict: Verdict, leader_ns: u64) -> Verdict {
    if lacks.rates.iter().count() == wants.rates.iter().count() {
        return verdict;
    }
    let now_ns = group.authority.now_ns();
    let rates = wants.rates.iter().map(|wanted| {
        let mut level = group.purses.look(wanted, now_ns);
        level.tat_ns = leader_ns.saturating_add(level.tat_ns.saturating_sub(now_ns));
        level
    });
    Verdict { rates: rates.collect(), ..verdict }
}
