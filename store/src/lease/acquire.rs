//! One request's way through concurrency, rates and quotas.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc::error::TrySendError, oneshot},
    time::{Instant, timeout},
};

use super::{
    Leases,
    ask::{AskError, Asked, Told},
    bucket::Wanted,
    grant::{Demand, Denied, Grant, Standing},
    group::{Group, NoUnits, Wants},
    held::Held,
    slice::{QuotaTake, Short, Step},
    standing, unavailable,
    wire::{Decision, RateLevel, Verdict, WireDemand},
};
use crate::{Unavailable, view::QuotaPolicy};

/// How long a request waits for somebody who may decide (an election, a new leader that has not heard of all nodes).
const DECIDE_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long a request waits for a reservation.
const RESERVE_WITHIN: Duration = Duration::from_secs(2);

/// A decision over concurrency and rates, and the deciding clock.
struct Ruling {
    clock_ns: u64,
    outcome: Outcome,
}

enum Outcome {
    /// Units taken, and the account's requests under way.
    Granted(Box<Held>, u64),
    /// Nothing taken: refused, or only looked at.
    Seen(Verdict),
}

impl Leases {
    /// Takes one unit of every rate limit and of the concurrency, and the demanded units of every quota; all or none.
    ///
    /// Answers from memory when this node leads the account's group and holds quota units; else it waits for the leader.
    ///
    /// # Errors
    /// [`Denied::Refused`] by a policy, or [`Denied::Unavailable`] without a leader within the commit deadline.
    pub async fn acquire(&self, demand: Demand<'_>) -> Result<Grant, Denied> {
        let group = self.inner.group(self.inner.authority.group(&demand.key.account.id));
        let wants = wants(&demand);
        let (ruling, group) = match lead(group, &wants) {
            Ok(ruling) => ruling,
            Err(group) => Box::pin(find_ruling(group, Some(&demand), &wants)).await?,
        };
        let Ruling { clock_ns, outcome } = ruling;
        let (mut held, in_use) = match outcome {
            Outcome::Granted(held, in_use) => (held, in_use),
            Outcome::Seen(verdict) => {
                let group = group.expect("a refusal holds nothing");
                return Err(Denied::Refused(Box::new(standing::refusal(&group, &demand, &verdict, clock_ns))));
            }
        };
        for policy in demand.key.account.policies.quotas_at(demand.now) {
            let now_ns = if held.by_this_node() { clock_ns } else { held.group.authority.now_ns() };
            match take_quota(&held.group, &demand, policy, now_ns) {
                Ok(take) => held.quotas.push(take),
                Err(None) => return Err(no_quota(held, &demand, policy, in_use, clock_ns)),
                Err(Some(wait)) => match timeout(RESERVE_WITHIN, wait).await {
                    Ok(Ok(Ok(take))) => held.quotas.push(take),
                    Ok(Ok(Err(Short::Exhausted))) => return Err(no_quota(held, &demand, policy, in_use, clock_ns)),
                    Ok(Ok(Err(Short::Unavailable(error)))) => return Err(nobody(&held.group, error)),
                    _ => return Err(nobody(&held.group, unavailable("no quota reservation within the deadline"))),
                },
            }
        }
        Ok(Grant::new(standing::granted(&demand, &held, in_use, clock_ns), held))
    }

    /// The decision that [`Leases::acquire`] would take, consuming nothing: where the client stands, or the refusal. Over
    /// quotas it is this node's knowledge, which is none before the account's first request here.
    ///
    /// # Errors
    /// As `acquire`.
    pub async fn peek(&self, demand: Demand<'_>) -> Result<Vec<Standing>, Denied> {
        let group = self.inner.group(self.inner.authority.group(&demand.key.account.id));
        let (verdict, clock_ns) =
            Box::pin(look(&group, &wants(&demand))).await.map_err(|error| nobody(&group, error))?;
        if verdict.decision != Decision::Granted {
            return Err(Denied::Refused(Box::new(standing::refusal(&group, &demand, &verdict, clock_ns))));
        }
        let refused = standing::refusing(&group, &demand, group.authority.now_ns());
        if refused.is_empty() {
            return Ok(standing::standings(&group, &demand, &verdict, clock_ns));
        }
        let refusal = standing::quota_refusal(&group, &demand, &refused, &verdict, clock_ns);
        Err(Denied::Refused(Box::new(refusal)))
    }
}

/// What a demand would meet, and the clock of it.
///
/// # Errors
/// Nobody can say.
pub(super) async fn look(group: &Arc<Group>, wants: &Wants) -> Result<(Verdict, u64), Unavailable> {
    let now_ns = group.authority.now_ns();
    if let Some(leadership) = group.authority.leading(group.id, now_ns) {
        return Ok((group.with_reign(leadership, |reign| group.look(reign, wants, now_ns)), now_ns));
    }
    match find_ruling(group.clone(), None, wants).await {
        Ok((Ruling { clock_ns, outcome: Outcome::Seen(verdict) }, _)) => Ok((verdict, clock_ns)),
        Ok(_) | Err(Denied::Refused(_)) => unreachable!("looking takes nothing and asks no memory of a demand"),
        Err(Denied::Unavailable(error)) => Err(error),
    }
}

/// What the leader needs to know of a demand.
fn wants(demand: &Demand<'_>) -> Wants {
    let account = &*demand.key.account;
    let revision = account.policy_revision();
    let rates = account.policies.limits_at(demand.now).map(|policy| Wanted {
        name: policy.bucket(account.number, demand.key.number, demand.route.number),
        emission_ns: policy.gcra.emission_ns,
        capacity_ns: policy.gcra.capacity_ns,
        revision,
    });
    Wants { account: account.number, concurrency: account.policies.concurrency, rates: rates.collect() }
}

/// The ruling of this node, if it leads the group and may decide; else the group again. With a refusal too: a grant has it.
fn lead(group: Arc<Group>, wants: &Wants) -> Result<(Ruling, Option<Arc<Group>>), Arc<Group>> {
    let now_ns = group.authority.now_ns();
    let Some(leadership) = group.authority.leading(group.id, now_ns) else { return Err(group) };
    let taken = group.with_reign(leadership, |reign| {
        group.take(reign, wants, now_ns).map(|granted| (granted, reign.term())).map_err(|no| match no {
            NoUnits { decision: Decision::NotYet, .. } => None,
            NoUnits { decision, in_use } => Some(reign.refusal(wants, decision, in_use, now_ns)),
        })
    });
    match taken {
        Ok((granted, term)) => {
            let held = Box::new(Held::new(group, granted.unit, term, true, granted.rates));
            Ok((Ruling { clock_ns: now_ns, outcome: Outcome::Granted(held, granted.in_use) }, None))
        }
        Err(Some(verdict)) => Ok((Ruling { clock_ns: now_ns, outcome: Outcome::Seen(verdict) }, Some(group))),
        Err(None) => Err(group),
    }
}

/// Asks the leader, or becomes it, until somebody has decided. With a demand, what memory refuses is not asked; without
/// one it only looks.
async fn find_ruling(
    mut group: Arc<Group>,
    demand: Option<&Demand<'_>>,
    wants: &Wants,
) -> Result<(Ruling, Option<Arc<Group>>), Denied> {
    let give_up = Instant::now() + DECIDE_WITHIN;
    loop {
        if demand.is_some() {
            match lead(group, wants) {
                Ok(ruling) => return Ok(ruling),
                Err(again) => group = again,
            }
        }
        let now_ns = group.authority.now_ns();
        if let Some(leadership) = group.authority.leading(group.id, now_ns) {
            if demand.is_none() {
                let verdict = group.with_reign(leadership, |reign| group.look(reign, wants, now_ns));
                return Ok((Ruling { clock_ns: now_ns, outcome: Outcome::Seen(verdict) }, Some(group)));
            }
        } else {
            if let Some(demand) = demand
                && let Some(verdict) = from_memory(&group, demand, wants, now_ns)?
            {
                return Ok((Ruling { clock_ns: now_ns, outcome: Outcome::Seen(verdict) }, Some(group)));
            }
            match ask(&group, wants, demand.is_none(), give_up).await {
                Ok(Told { verdict, leader_ns, held }) if verdict.decision != Decision::NotYet => {
                    let outcome = match held {
                        Some(held) => Outcome::Granted(held, verdict.in_use),
                        None => Outcome::Seen(verdict),
                    };
                    return Ok((Ruling { clock_ns: leader_ns, outcome }, Some(group)));
                }
                Ok(_) | Err(AskError::Moved) => {}
                Err(AskError::Unavailable(error)) => return Err(nobody(&group, error)),
            }
        }
        if Instant::now() + LOOK_AGAIN > give_up {
            return Err(nobody(&group, unavailable("no leader can decide yet")));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn ask(group: &Arc<Group>, wants: &Wants, look: bool, give_up: Instant) -> Result<Told, AskError> {
    let (answer, told) = oneshot::channel();
    let rates = wants.rates.iter().copied().collect();
    let demand = WireDemand { account: wants.account, concurrency: wants.concurrency, rates, look };
    group.asks.try_send(Asked { demand, answer }).map_err(|error| {
        AskError::Unavailable(match error {
            TrySendError::Full(_) => unavailable("too many requests wait for the leader"),
            TrySendError::Closed(_) => unavailable("the node is stopping"),
        })
    })?;
    match tokio::time::timeout_at(give_up, told).await {
        Ok(Ok(told)) => told,
        _ => Err(AskError::Unavailable(unavailable("no answer from the leader within the deadline"))),
    }
}

/// What this node knows to be refused without asking: the leader's last word on the concurrency and the rates, and its own
/// exhausted quotas. A quota comes last, as in the decision.
///
/// # Errors
/// The refusal by a quota.
fn from_memory(group: &Group, demand: &Demand<'_>, wants: &Wants, now_ns: u64) -> Result<Option<Verdict>, Denied> {
    let crowded = wants.concurrency.is_some()
        && group.crowded.lock().expect("no holder panics").get(&wants.account).is_some_and(|until| now_ns < *until);
    let level = |wanted: &Wanted| {
        let (tat_ns, refused) = group.hints.look(wanted, now_ns);
        RateLevel { tat_ns, retry_after_ns: refused.map(|refused| refused.retry_after_ns), taken: None }
    };
    let rates: Vec<_> = wants.rates.iter().map(level).collect();
    let decision = match () {
        () if crowded => Decision::Concurrency,
        () if rates.iter().any(|level| level.retry_after_ns.is_some()) => Decision::Rate,
        () => Decision::Granted,
    };
    let in_use = if crowded { u64::from(wants.concurrency.unwrap_or(0)) } else { 0 };
    let verdict = Verdict { decision, in_use, rates };
    if decision != Decision::Granted {
        group.counters.from_memory.add(1);
        return Ok(Some(verdict));
    }
    // Only quotas that are certain to refuse: the others are asked for after the rates.
    let refused = standing::exhausted(group, demand, now_ns);
    if refused.is_empty() {
        return Ok(None);
    }
    group.counters.from_memory.add(1);
    Err(Denied::Refused(Box::new(standing::quota_refusal(group, demand, &refused, &verdict, now_ns))))
}

/// Takes what the demand needs of a quota.
///
/// # Errors
/// None: there is no more. Some: the reservation to wait for.
fn take_quota(
    group: &Group,
    demand: &Demand<'_>,
    policy: &QuotaPolicy,
    now_ns: u64,
) -> Result<QuotaTake, Option<oneshot::Receiver<Result<QuotaTake, Short>>>> {
    let account = &*demand.key.account;
    let units = standing::units_of(demand, policy.unit);
    let (step, wants) = group.with_slice((&account.id, account.number), (&policy.name, policy.number), |slice| {
        slice.take(policy, policy.bounds(demand.now), units, now_ns)
    });
    for want in wants {
        // Fails only when the group is going away; then nobody answers, which is unavailable.
        let _ = group.reserves.send(want);
    }
    match step {
        Step::Taken(take) => Ok(take),
        Step::Wait(wait) => Err(Some(wait)),
        Step::Exhausted => {
            group.counters.from_memory.add(1);
            Err(None)
        }
    }
}

/// The refusal by a quota, after everything that was taken has been given back.
fn no_quota(held: Box<Held>, demand: &Demand<'_>, policy: &QuotaPolicy, in_use: u64, clock_ns: u64) -> Denied {
    let group = held.group.clone();
    let level = |tat_ns| RateLevel { tat_ns, retry_after_ns: None, taken: None };
    let rates = held.rates.iter().map(|unit| level(unit.after_ns.saturating_sub(unit.cost_ns))).collect();
    let verdict = Verdict { decision: Decision::Granted, in_use: in_use.saturating_sub(1), rates };
    drop(held);
    let mut refused = standing::refusing(&group, demand, group.authority.now_ns());
    if !refused.iter().any(|other| other.name == policy.name) {
        refused.push(policy);
    }
    Denied::Refused(Box::new(standing::quota_refusal(&group, demand, &refused, &verdict, clock_ns)))
}

fn nobody(group: &Group, error: Unavailable) -> Denied {
    group.counters.unavailable.add(1);
    Denied::Unavailable(error)
}
