//! What a request that is not let through is told, and that it holds nothing any more.

use super::{
    grant::{Demand, Denied},
    group::{Group, Wants},
    held::Held,
    standing,
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
    let taken = held.quotas.take().count();
    held.release_unit();
    let (group, handle) = (&held.group, &held.handle);
    let now_ns = group.authority.now_ns();
    let mut refused = standing::refusing(handle, demand, now_ns);
    let this = handle.quotas(demand.now).nth(taken).map(|(policy, _)| policy);
    refused.extend(this.filter(|policy| !refused.iter().any(|other| other.name == policy.name)));
    let verdict = match group.authority.leading(group.id, now_ns) {
        Some(leadership) => group.with_reign(leadership, |reign| group.look(reign, wants, now_ns)),
        None => remembered(group, wants, Decision::Granted, handle.units.in_use(), now_ns),
    };
    Denied::Refused(Box::new(standing::quota_refusal(handle, demand, &refused, &verdict, now_ns)))
}

pub(super) fn nobody(group: &Group, error: Unavailable) -> Denied {
    group.counters.unavailable.add(1);
    Denied::Unavailable(error)
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
