//! Where a client stands: verdicts and slices as the `RateLimit` headers want them.

use std::time::Duration;

use super::{
    grant::{Demand, Policy, Refusal, Standing},
    group::Group,
    held::Held,
    slice::until_ns,
    wire::{Decision, Verdict},
};
use crate::{
    model::{Gcra, Name, Overage, Unit},
    view::{LimitPolicy, QuotaPolicy},
};

/// The name that the concurrency limit has in headers and answers.
pub(super) const CONCURRENCY: &str = "concurrency";

const SECOND_NS: u64 = 1_000_000_000;

/// Where the client stands with every policy, after its request was granted.
pub(super) fn granted(demand: &Demand<'_>, held: &Held, in_use: u64, clock_ns: u64) -> Vec<Standing> {
    let policies = &demand.key.account.policies;
    let mut out = Vec::with_capacity(policies.limits.len() + policies.quotas.len() + 1);
    let rates = policies.limits_at(demand.now).zip(held.rates.iter());
    out.extend(rates.map(|(policy, unit)| of_rate(policy, unit.after_ns, clock_ns)));
    let quotas = policies.quotas_at(demand.now).zip(held.quotas.iter());
    out.extend(quotas.map(|(policy, take)| of_quota(policy, Some(take.remaining), demand)));
    out.extend(policies.concurrency.map(|limit| of_concurrency(limit, in_use)));
    out
}

/// Where the client stands with every policy.
pub(super) fn standings(group: &Group, demand: &Demand<'_>, verdict: &Verdict, clock_ns: u64) -> Vec<Standing> {
    let account = &demand.key.account;
    let policies = &account.policies;
    let mut out = Vec::with_capacity(policies.limits.len() + policies.quotas.len() + 1);
    let rates = policies.limits_at(demand.now).zip(&verdict.rates);
    out.extend(rates.map(|(policy, level)| of_rate(policy, level.tat_ns, clock_ns)));
    for policy in policies.quotas_at(demand.now) {
        let slice = group.slice((&account.id, account.number), (&policy.name, policy.number));
        out.push(of_quota(policy, slice.remaining(policy.bounds(demand.now).start.unix_seconds()), demand));
    }
    out.extend(policies.concurrency.map(|limit| of_concurrency(limit, verdict.in_use)));
    out
}

fn of_rate(policy: &LimitPolicy, tat_ns: u64, clock_ns: u64) -> Standing {
    Standing {
        name: policy.limit.name.clone(),
        policy: Policy::Rate,
        unit: "requests",
        quota: policy.limit.rate.units,
        window_seconds: Some(u64::from(policy.limit.rate.period_seconds)),
        remaining: policy.gcra.remaining(tat_ns, clock_ns),
        reset_seconds: next_unit_ns(policy.gcra, tat_ns, clock_ns).map(|ns| ns.div_ceil(SECOND_NS)),
        period_end: None,
    }
}

/// Nanoseconds until one more unit could be taken; none when the bucket is full.
fn next_unit_ns(gcra: Gcra, tat_ns: u64, now_ns: u64) -> Option<u64> {
    let ahead = tat_ns.saturating_sub(now_ns);
    let more = gcra.remaining(tat_ns, now_ns) + 1;
    let ahead_then = gcra.capacity_ns.checked_sub(more.checked_mul(gcra.emission_ns)?)?;
    (ahead > ahead_then).then(|| ahead - ahead_then)
}

fn of_quota(policy: &QuotaPolicy, remaining: Option<u64>, demand: &Demand<'_>) -> Standing {
    let bounds = policy.bounds(demand.now);
    Standing {
        name: policy.name.clone(),
        policy: Policy::Quota,
        unit: policy.unit.as_str(),
        quota: policy.limit,
        window_seconds: Some((bounds.end.unix_seconds() - bounds.start.unix_seconds()).unsigned_abs()),
        remaining: remaining.unwrap_or(policy.limit).min(policy.limit),
        reset_seconds: Some(until_ns(bounds.end, demand.now).div_ceil(SECOND_NS)),
        period_end: Some(bounds.end),
    }
}

fn of_concurrency(limit: u32, in_use: u64) -> Standing {
    Standing {
        name: concurrency_name(),
        policy: Policy::Concurrency,
        unit: "concurrent-requests",
        quota: u64::from(limit),
        window_seconds: None,
        remaining: u64::from(limit).saturating_sub(in_use),
        reset_seconds: None,
        period_end: None,
    }
}

/// The refusal that a verdict is.
pub(super) fn refusal(group: &Group, demand: &Demand<'_>, verdict: &Verdict, clock_ns: u64) -> Refusal {
    let standings = standings(group, demand, verdict, clock_ns);
    if verdict.decision == Decision::Concurrency {
        // Nobody knows when a request ends.
        let violated = vec![concurrency_name()];
        return Refusal { policy: Policy::Concurrency, violated, retry_after: whole_seconds(0), standings };
    }
    let policies = demand.key.account.policies.limits_at(demand.now);
    let refused: Vec<_> = policies
        .zip(&verdict.rates)
        .filter_map(|(policy, level)| Some((policy.limit.name.clone(), level.retry_after_ns?)))
        .collect();
    Refusal {
        policy: Policy::Rate,
        retry_after: whole_seconds(refused.iter().map(|(_, ns)| *ns).max().unwrap_or(0)),
        violated: refused.into_iter().map(|(name, _)| name).collect(),
        standings,
    }
}

/// The refusal by quotas. All that refuse are named; they may pass when the last of their periods ends.
pub(super) fn quota_refusal(
    group: &Group,
    demand: &Demand<'_>,
    refused: &[&QuotaPolicy],
    verdict: &Verdict,
    clock_ns: u64,
) -> Refusal {
    let wait_ns = refused.iter().map(|policy| until_ns(policy.bounds(demand.now).end, demand.now)).max().unwrap_or(0);
    Refusal {
        policy: Policy::Quota,
        violated: refused.iter().map(|policy| policy.name.clone()).collect(),
        retry_after: whole_seconds(wait_ns),
        standings: standings(group, demand, verdict, clock_ns),
    }
}

/// Quotas that would refuse the demand, as far as this node's memory knows.
pub(super) fn refusing<'a>(group: &Group, demand: &Demand<'a>, now_ns: u64) -> Vec<&'a QuotaPolicy> {
    let account = &demand.key.account;
    account
        .policies
        .quotas_at(demand.now)
        .filter(|policy| {
            let units = units_of(demand, policy.unit);
            let slice = group.slice((&account.id, account.number), (&policy.name, policy.number));
            let above = units > policy.limit && policy.overage == Overage::Block;
            above || !slice.would_pass(policy.bounds(demand.now).start.unix_seconds(), units, now_ns)
        })
        .collect()
}

/// Quotas that this node would refuse without asking the replicated state.
pub(super) fn exhausted<'a>(group: &Group, demand: &Demand<'a>, now_ns: u64) -> Vec<&'a QuotaPolicy> {
    let account = &demand.key.account;
    account
        .policies
        .quotas_at(demand.now)
        .filter(|policy| {
            let slice = group.slice((&account.id, account.number), (&policy.name, policy.number));
            slice.refuses(policy, policy.bounds(demand.now), units_of(demand, policy.unit), now_ns)
        })
        .collect()
}

/// Units that a demand takes from a quota of this unit.
pub(super) fn units_of(demand: &Demand<'_>, unit: Unit) -> u64 {
    match unit {
        Unit::Requests => 1,
        Unit::ContentBytes => demand.content_bytes,
        Unit::Cost => demand.cost,
    }
}

/// Rounded up, at least one second: what `Retry-After` can say and keep. A demand that never passes waits a day.
fn whole_seconds(ns: u64) -> Duration {
    let seconds = if ns == u64::MAX { 86_400 } else { ns.div_ceil(SECOND_NS) };
    Duration::from_secs(seconds.max(1))
}

fn concurrency_name() -> Name {
    thread_local! { static NAME: Name = CONCURRENCY.into(); }
    NAME.with(Clone::clone)
}
