//! Where a client stands: verdicts and slices as the `RateLimit` headers want them.

use std::time::Duration;

use super::{
    grant::{Decided, Demand, Policy, Refusal, Standing},
    handle::Handle,
    held::Held,
    slice::{Slice, until_ns},
    wire::{Decision, Verdict},
};
use crate::{
    model::{Gcra, Name, Overage, Timestamp, Unit},
    view::{LimitPolicy, QuotaPolicy},
};

/// The name that the concurrency limit has in headers and answers.
pub const CONCURRENCY: &str = "concurrency";

const SECOND_NS: u64 = 1_000_000_000;

/// Where the client stands with every policy, after its request was granted.
pub(super) fn granted(held: &Held, decided: &Decided) -> Vec<Standing> {
    let (handle, now) = (&held.handle, held.now);
    let policies = &handle.policies;
    let mut out = Vec::with_capacity(policies.limits.len() + policies.quotas.len() + 1);
    let rates = policies.limits_at(now).zip(decided.rates.iter());
    out.extend(rates.map(|(policy, tat_ns)| of_rate(policy, *tat_ns, decided.clock_ns)));
    let quotas = policies.quotas_at(now).zip(held.quotas.iter()).filter(|(policy, _)| !policy.shadow);
    out.extend(quotas.map(|(policy, take)| of_quota(policy, Some(take.remaining), now)));
    out.extend(policies.concurrency.map(|limit| of_concurrency(limit, decided.in_use)));
    out
}

/// Where the client stands with every policy.
pub(super) fn standings(handle: &Handle, demand: &Demand<'_>, verdict: &Verdict, clock_ns: u64) -> Vec<Standing> {
    let policies = &handle.policies;
    let mut out = Vec::with_capacity(policies.limits.len() + policies.quotas.len() + 1);
    let rates = policies.limits_at(demand.now).zip(&verdict.rates);
    out.extend(rates.map(|(policy, level)| of_rate(policy, level.tat_ns, clock_ns)));
    out.extend(handle.quotas(demand.now).filter(|(policy, _)| !policy.shadow).map(|(policy, slice)| {
        let remaining = slice.remaining(policy.bounds(demand.now).start.unix_seconds());
        of_quota(policy, remaining, demand.now)
    }));
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
        is_known: true,
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

fn of_quota(policy: &QuotaPolicy, remaining: Option<u64>, now: Timestamp) -> Standing {
    let bounds = policy.bounds(now);
    Standing {
        name: policy.name.clone(),
        policy: Policy::Quota,
        unit: policy.unit.as_str(),
        quota: policy.limit,
        window_seconds: Some((bounds.end.unix_seconds() - bounds.start.unix_seconds()).unsigned_abs()),
        remaining: remaining.unwrap_or(policy.limit).min(policy.limit),
        is_known: remaining.is_some(),
        reset_seconds: Some(until_ns(bounds.end, now).div_ceil(SECOND_NS)),
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
        is_known: true,
        reset_seconds: None,
        period_end: None,
    }
}

/// The refusal that a verdict is.
pub(super) fn refusal(handle: &Handle, demand: &Demand<'_>, verdict: &Verdict, clock_ns: u64) -> Refusal {
    let standings = standings(handle, demand, verdict, clock_ns);
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
    handle: &Handle,
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
        standings: standings(handle, demand, verdict, clock_ns),
    }
}

/// Quotas that would refuse the demand, as far as this node's memory knows.
pub(super) fn refusing<'h>(handle: &'h Handle, demand: &Demand<'_>, now_ns: u64) -> Vec<&'h QuotaPolicy> {
    let refuses = |policy: &QuotaPolicy, slice: &Slice| {
        let units = units_of(demand, policy.unit);
        let above = units > policy.limit && policy.overage == Overage::Block;
        above || !slice.would_pass(policy.bounds(demand.now).start.unix_seconds(), units, now_ns)
    };
    handle.quotas(demand.now).filter(|(policy, slice)| refuses(policy, slice)).map(|(policy, _)| policy).collect()
}

/// Quotas that this node would refuse without asking the replicated state.
pub(super) fn exhausted<'h>(handle: &'h Handle, demand: &Demand<'_>, now_ns: u64) -> Vec<&'h QuotaPolicy> {
    let refuses = |policy: &QuotaPolicy, slice: &Slice| {
        slice.refuses(policy, policy.bounds(demand.now), units_of(demand, policy.unit), now_ns)
    };
    handle.quotas(demand.now).filter(|(policy, slice)| refuses(policy, slice)).map(|(policy, _)| policy).collect()
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
