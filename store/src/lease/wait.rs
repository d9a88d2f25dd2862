//! What a request waits for between its rounds: the leader's word, a reservation, somebody who may decide.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc::error::TrySendError, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    acquire::{Round, Stop, round, wants},
    ask::{AskError, Asked, Told},
    deny::{after_refilling, lacks_fast, no_quota, nobody, still_refills, with_all_rates},
    grant::{Demand, Denied, Grant},
    group::{Group, Wants},
    held::Held,
    slice, standing, unavailable,
    wire::{Decision, WireDemand},
};
use crate::model::Unavailable;

/// How long a request waits for somebody who may decide (an election, a new leader that has not heard of all nodes), or
/// for a reservation.
pub(super) const DECIDE_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks for a leader: the first, and the longest.
pub(super) const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(10));

/// Rounds, with what each lacked waited for in between.
pub(super) async fn wait(
    mut held: Held,
    mut has_quotas: bool,
    mut lacking: Round,
    demand: Demand<'_>,
) -> Result<Grant, Stop> {
    let until = Instant::now() + DECIDE_WITHIN;
    let mut pause = LOOK_AGAIN.0;
    let group = held.group().clone();
    group.counters.waited.add(1);
    // Its place among those that wait for buckets that refill; and whether it has waited for such a bucket, here or there.
    let (mut place, mut refills) = (None, false);
    loop {
        let mut promises = None;
        match lacking {
            Round::Granted(decided) => {
                group.counters.decided.add_one();
                return Ok(Grant::new(held, decided));
            }
            Round::Refused(denied) if refills => return Err(Stop::Denied(after_refilling(&group, &demand, denied))),
            Round::Refused(denied) => return Err(Stop::Denied(denied)),
            Round::Moved => return Err(Stop::Moved),
            Round::NotYet => again(&mut pause, until).await.map_err(|error| Stop::Denied(nobody(&group, error)))?,
            Round::Refills => {
                refills = true;
                place = place.or_else(|| group.refilling.try_acquire().ok());
                let waited = if place.is_some() { again(&mut pause, until).await } else { Err(still_refills()) };
                waited.map_err(|error| Stop::Denied(nobody(&group, error)))?;
            }
            Round::Reserve(wait) => match timeout_at(until, wait).await {
                Ok(Ok(Ok(take))) => held.quotas.push(take.take()),
                Ok(Ok(Err(slice::Short::Exhausted))) => {
                    return Err(Stop::Denied(no_quota(&mut held, &wants(&demand), &demand)));
                }
                Ok(Ok(Err(slice::Short::Unavailable(error)))) => return Err(Stop::Denied(nobody(&group, error))),
                _ => return Err(Stop::Denied(nobody(&group, unavailable("no quota reservation within the deadline")))),
            },
            Round::Ask(lacks) => {
                let spare = Held::new(held.handle.clone(), demand.now);
                match ask(&group, &lacks, Some(spare), until).await {
                    Ok(Told { verdict, leader_ns, .. })
                        if matches!(verdict.decision, Decision::Concurrency | Decision::Rate) =>
                    {
                        held.release_unit();
                        let wants = wants(&demand);
                        let verdict = with_all_rates(&group, &wants, &lacks, verdict, leader_ns);
                        let refusal = standing::refusal(&held.handle, &demand, &verdict, leader_ns);
                        let denied = Denied::Refused(Box::new(refusal));
                        let denied = if refills { after_refilling(&group, &demand, denied) } else { denied };
                        return Err(Stop::Denied(denied));
                    }
                    Ok(Told { verdict, held: granted, promises: promised, .. })
                        if verdict.decision == Decision::Granted =>
                    {
                        if let Some(granted) = granted {
                            held.take_unit(granted);
                        }
                        promises = promised;
                    }
                    told @ (Ok(_) | Err(AskError::Moved)) => {
                        if told.is_ok_and(|told| lacks_fast(&lacks, &told.verdict)) {
                            refills = true;
                            place = place.or_else(|| group.refilling.try_acquire().ok());
                            if place.is_none() {
                                return Err(Stop::Denied(nobody(&group, still_refills())));
                            }
                        }
                        again(&mut pause, until).await.map_err(|error| Stop::Denied(nobody(&group, error)))?;
                    }
                    Err(AskError::Unavailable(error)) => return Err(Stop::Denied(nobody(&group, error))),
                }
            }
        }
        if Instant::now() >= until {
            return Err(Stop::Denied(nobody(&group, unavailable("no decision within the deadline"))));
        }
        lacking = round(&mut held, &mut promises, &mut has_quotas, &demand);
    }
}

pub(super) async fn again(pause: &mut Duration, until: Instant) -> Result<(), Unavailable> {
    if Instant::now() + *pause > until {
        return Err(unavailable("no leader can decide yet"));
    }
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(LOOK_AGAIN.1);
    Ok(())
}

pub(super) async fn ask(
    group: &Arc<Group>,
    wants: &Wants,
    held: Option<Held>,
    until: Instant,
) -> Result<Told, AskError> {
    let (answer, told) = oneshot::channel();
    let rates = wants.rates.iter().copied().collect();
    let demand = WireDemand {
        account: wants.account,
        concurrency: wants.concurrency,
        rates,
        look: held.is_none(),
        slot: wants.slot,
    };
    group.asks.try_send(Asked { demand, held, answer }).map_err(|error| {
        AskError::Unavailable(match error {
            TrySendError::Full(_) => unavailable("too many requests wait for the leader"),
            TrySendError::Closed(_) => unavailable("the node is stopping"),
        })
    })?;
    match timeout_at(until, told).await {
        Ok(Ok(told)) => told,
        _ => Err(AskError::Unavailable(unavailable("no answer from the leader within the deadline"))),
    }
}
