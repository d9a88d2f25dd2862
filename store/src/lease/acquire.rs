//! One request's way through concurrency, rates and quotas.
//!
//! In rounds: a round decides from memory, at one reading of the lease clock, or says what it lacks (the leader's word, a
//! reservation); nothing of a rate is held while a request waits, so what is spent is spent at the instant of admission.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::{
    Leases,
    authority::Leadership,
    bucket::{Short, Wanted},
    deny::{no_quota, remembered},
    few::Few,
    grant::{Decided, Demand, Denied, Grant},
    group::{Group, Wants},
    handle::Handle,
    held::{Held, Promises},
    purse::Found,
    reserve::Want,
    shadow,
    slice::{self, Awaited, Step},
    standing,
    wait::wait,
    wire::Decision,
};
use crate::view::AccountView;

type Reservation = oneshot::Receiver<Result<Awaited, slice::Short>>;

/// What a round came to.
pub(super) enum Round {
    Granted(Decided),
    /// The units of a request without this right are given back.
    Refused(Denied),
    /// The leader's word is needed.
    Ask(Box<Wants>),
    /// This node leads and may not decide yet.
    NotYet,
    /// This node leads, and a bucket has no unit that it would have, had the leadership not begun with it empty.
    Refills,
    /// A quota's slice is empty.
    Reserve(Reservation),
    /// The account's slot is closed, or another group's by now: nothing was decided.
    Moved,
}

/// Why a request's rounds ended without a grant.
pub(super) enum Stop {
    Denied(Denied),
    /// See [`Round::Moved`].
    Moved,
}

/// A decision over rates, and how to take it back.
enum Rates {
    Leading(Leadership),
    /// From these leases.
    Asked(Few<u64>),
}

/// What became of a demand at once.
#[allow(clippy::large_enum_variant, reason = "nearly always the large one, and a box costs as much as a lock")]
pub enum Acquiring<'a, G = Grant> {
    /// Decided from memory.
    Decided(Result<G, Denied>),
    /// The leader's word, or a reservation, is waited for; nothing is held by a request that no longer waits.
    Waits(BoxFuture<'a, Result<G, Denied>>),
}

impl Leases {
    /// Takes one unit of every rate limit and of the concurrency, and the demanded units of every quota; all or none.
    ///
    /// Decides at once when this node leads the account's group or has units on lease, and quota units; else the request
    /// waits for the leader. Nothing on the way of one that is decided at once is boxed, and no future is made for it.
    pub fn begin<'a>(&'a self, demand: Demand<'a>) -> Acquiring<'a> {
        let mut held = Held::new(self.handle(&demand.key.account), demand.now);
        let (mut promises, mut has_quotas) = (None, false);
        match round(&mut held, &mut promises, &mut has_quotas, &demand) {
            Round::Granted(decided) if demand.key.account.policies.has_shadow_limits => {
                Acquiring::Waits(Box::pin(async move {
                    held.group().counters.decided.add_one();
                    let mut grant = Grant::new(held, decided);
                    grant.shadows = shadow::refusing(&grant.held, &demand).await;
                    Ok(grant)
                }))
            }
            Round::Granted(decided) => {
                held.group().counters.decided.add_one();
                Acquiring::Decided(Ok(Grant::new(held, decided)))
            }
            Round::Refused(denied) => Acquiring::Decided(Err(denied)),
            lacking => Acquiring::Waits(Box::pin(async move {
                let mut grant = match wait(held, has_quotas, lacking, demand).await {
                    Ok(grant) => grant,
                    Err(Stop::Denied(denied)) => return Err(denied),
                    Err(Stop::Moved) => Box::pin(self.acquire_elsewhere(demand)).await?,
                };
                if demand.key.account.policies.has_shadow_limits {
                    grant.shadows = shadow::refusing(&grant.held, &demand).await;
                }
                Ok(grant)
            })),
        }
    }

    /// As [`Leases::begin`], waiting for what it waits for.
    ///
    /// # Errors
    /// [`Denied::Refused`] by a policy, or [`Denied::Unavailable`] without a leader within the commit deadline.
    pub async fn acquire(&self, demand: Demand<'_>) -> Result<Grant, Denied> {
        match self.begin(demand) {
            Acquiring::Decided(decided) => decided,
            Acquiring::Waits(waits) => waits.await,
        }
    }

    fn handle(&self, account: &AccountView) -> Arc<Handle> {
        let id = self.inner.authority.group(&account.id);
        match self.inner.first(id) {
            Some(group) => Handle::of(group, account),
            None => Handle::of(&self.inner.group(id), account),
        }
    }
}

/// What the leader needs to know of a demand.
pub(super) fn wants(demand: &Demand<'_>) -> Wants {
    let account = &*demand.key.account;
    let revision = account.policy_revision();
    let rates = account.policies.limits_at(demand.now).map(|policy| Wanted {
        name: policy.bucket(account.number, demand.key.number, demand.route.number),
        emission_ns: policy.gcra.emission_ns,
        capacity_ns: policy.gcra.capacity_ns,
        revision: revision.max(policy.revision),
        since_ns: 0,
    });
    Wants { account: account.number, slot: None, concurrency: account.policies.concurrency, rates: rates.collect() }
}

/// Decides from memory and from what was granted before, or says what is lacking. Whatever is not granted is given back,
/// but for what lies in `held`.
pub(super) fn round(
    held: &mut Held,
    promises: &mut Option<Promises>,
    has_quotas: &mut bool,
    demand: &Demand<'_>,
) -> Round {
    let account = &demand.key.account.id;
    let place = held.group().authority.place(account);
    if !place.is_open || place.group != held.group().id {
        return Round::Moved;
    }
    let mut wants = wants(demand);
    wants.slot = place.slot;
    let now_ns = held.group().authority.now_ns();
    let taken = match held.group().authority.leading(held.group().id, now_ns) {
        Some(leadership) => {
            *promises = None;
            let Some(since_ns) = held.group().authority.decides(held.group().id, place.slot) else {
                return Round::NotYet;
            };
            wants.begin_at(since_ns);
            lead(held, leadership, &wants, demand, now_ns)
        }
        None => spend(held, promises.take(), &wants, demand, now_ns),
    };
    let (decided, rates) = match taken {
        Ok(taken) => taken,
        Err(round) => return round,
    };
    let short = if *has_quotas { None } else { quotas(held, demand, now_ns) };
    *has_quotas = short.is_none();
    // The look at the slot and the taking are two instants: what was taken of a slot that was closed between them goes back.
    if short.is_none() && held.group().authority.place(account) == place {
        return Round::Granted(decided);
    }
    // Nobody lets this request through now: its rates are unspent.
    let group = held.group();
    match rates {
        Rates::Leading(leadership) => {
            if let Some(reign) = group.newest_reign(leadership) {
                let now_ns = group.authority.now_ns();
                wants.rates.iter().for_each(|wanted| reign.buckets.give_back(wanted, decided.clock_ns, now_ns));
            }
        }
        Rates::Asked(leases) => group.purses.give_back(wants.rates.iter().zip(leases.iter())),
    }
    match short {
        None => Round::Moved,
        Some(Lacking::Wait(wait)) => Round::Reserve(wait),
        Some(Lacking::Exhausted) => {
            held.release_unit();
            held.group().counters.from_memory.add(1);
            Round::Refused(no_quota(held, &wants, demand))
        }
    }
}

/// Why a quota gave nothing.
enum Lacking {
    Wait(Reservation),
    Exhausted,
}

/// As the leader: a unit of the concurrency, then one of each rate.
fn lead(
    held: &mut Held,
    leadership: Leadership,
    wants: &Wants,
    demand: &Demand<'_>,
    now_ns: u64,
) -> Result<(Decided, Rates), Round> {
    let Held { handle, unit, .. } = held;
    let group = &*handle.group;
    let reign = group.reign(leadership);
    if !wants.rates.is_empty() && !reign.is_open(now_ns) {
        return Err(Round::NotYet);
    }
    let refused = |decision, in_use| {
        let verdict = reign.refusal(wants, decision, in_use, now_ns);
        Err(Round::Refused(Denied::Refused(Box::new(standing::refusal(handle, demand, &verdict, now_ns)))))
    };
    let mut in_use = 0;
    match wants.concurrency {
        Some(_) if unit.is_held => in_use = handle.units.in_use(),
        Some(limit) => {
            if !reign.is_settled(now_ns) {
                return Err(Round::NotYet);
            }
            let taken = handle.units.take_own(limit).or_else(|in_use| match group.expire(now_ns) {
                true => handle.units.take_own(limit),
                false => Err(in_use),
            });
            match taken {
                Ok(total) => in_use = total,
                Err(in_use) => return refused(Decision::Concurrency, in_use),
            }
            unit.hold(false, group.lapses());
        }
        None => {}
    }
    let mut taken = reign.buckets.take_all(wants.rates.iter(), now_ns);
    if matches!(taken, Err(Short::Refused)) && group.end_leases(reign, now_ns) {
        taken = reign.buckets.take_all(wants.rates.iter(), now_ns);
    }
    match taken {
        Ok(rates) => {
            if wants.rates.iter().any(|wanted| super::debt::is_slow(wanted.gcra())) {
                group.raise_debts(reign, &wants.rates, now_ns, false);
            }
            Ok((Decided { rates, in_use, clock_ns: now_ns }, Rates::Leading(reign.leadership)))
        }
        Err(Short::Refused) if reign.refills(wants, now_ns) => {
            unit.release(handle);
            Err(Round::Refills)
        }
        Err(Short::Refused) => {
            unit.release(handle);
            refused(Decision::Rate, in_use.saturating_sub(1))
        }
        Err(Short::Bound) => {
            unit.release(handle);
            group.raise_debts(reign, &wants.rates, now_ns, true);
            Err(Round::NotYet)
        }
    }
}

/// As a node that does not lead: units on lease, those that were promised to this request first.
fn spend(
    held: &mut Held,
    promises: Option<Promises>,
    wants: &Wants,
    demand: &Demand<'_>,
    now_ns: u64,
) -> Result<(Decided, Rates), Round> {
    let from_memory = |held: &Held, decision, in_use| {
        held.group().counters.from_memory.add(1);
        let verdict = remembered(held.group(), wants, decision, in_use, now_ns);
        Round::Refused(Denied::Refused(Box::new(standing::refusal(&held.handle, demand, &verdict, now_ns))))
    };
    let mut lacking = Wants { concurrency: None, rates: Few::default(), ..*wants };
    let mut in_use = 0;
    if let Some(limit) = wants.concurrency {
        let lapses = held.group().lapses();
        if !held.unit.is_held && held.group().holds_renewed_units(now_ns) && held.handle.units.take_spare().is_some() {
            held.unit.hold(true, lapses);
        }
        if held.unit.is_held {
            in_use = held.handle.units.in_use();
        } else if held.group().is_crowded(wants.account, now_ns) {
            return Err(from_memory(held, Decision::Concurrency, u64::from(limit)));
        } else {
            lacking.concurrency = Some(limit);
        }
    }
    let (found, soon) = match (promises, lacking.concurrency) {
        (Some(mut promises), None) if !promises.all.is_empty() => keep(held.group(), &mut promises, now_ns),
        (_, None) => held.group().purses.take_all(&wants.rates, now_ns),
        (_, Some(_)) => match held.group().purses.has_all(&wants.rates, now_ns) {
            Some(true) => (Found::Spent(Few::default(), Few::default()), false),
            Some(false) => (Found::None, false),
            None => (Found::Ask, false),
        },
    };
    if soon {
        held.group().nudge.notify_one();
    }
    match found {
        Found::None => {
            held.release_unit();
            Err(from_memory(held, Decision::Rate, in_use.saturating_sub(1)))
        }
        Found::Ask => {
            // Refused later for a quota that is known to be exhausted, it would have asked in vain.
            let exhausted = standing::exhausted(&held.handle, demand, now_ns);
            if !exhausted.is_empty() && held.quotas.is_empty() {
                held.release_unit();
                held.group().counters.from_memory.add(1);
                return Err(Round::Refused(no_quota(held, wants, demand)));
            }
            lacking.rates = wants.rates.clone();
            Err(Round::Ask(Box::new(lacking)))
        }
        Found::Spent(..) if lacking.concurrency.is_some() => Err(Round::Ask(Box::new(lacking))),
        Found::Spent(rates, leases) => Ok((Decided { rates, in_use, clock_ns: now_ns }, Rates::Asked(leases))),
    }
}

/// Spends what was promised. A lease that has ended meanwhile, or another's that was begun since, is asked for again.
pub(super) fn keep(group: &Group, promises: &mut Promises, now_ns: u64) -> (Found, bool) {
    let (mut levels, mut soon, mut spent) = (Few::default(), false, Vec::new());
    for promise in promises.all.drain(..) {
        let (level, then) = group.purses.keep_promise(&promise, now_ns);
        soon |= then;
        if let Some(level) = level {
            levels.push(level);
            spent.push((promise, true));
        } else {
            spent.push((promise, false));
        }
    }
    if spent.iter().all(|(_, kept)| *kept) {
        return (Found::Spent(levels, spent.iter().map(|(promise, _)| promise.lease).collect()), soon);
    }
    for (promise, _) in spent.iter().filter(|(_, kept)| *kept) {
        group.purses.give_back_to(promise);
    }
    (Found::Ask, soon)
}

/// Takes what the demand needs of every quota; else none, and why.
fn quotas(held: &mut Held, demand: &Demand<'_>, now_ns: u64) -> Option<Lacking> {
    let Held { handle, quotas: taken, .. } = held;
    // What an earlier round has taken stays.
    let had = taken.len();
    for (policy, place) in handle.placed_quotas(demand.now).skip(had) {
        let units = standing::units_of(demand, policy.unit);
        let (step, wants) = handle.slice(place).take((policy, place), policy.bounds(demand.now), units, now_ns);
        let urgent = matches!(step, Step::Wait(_));
        for want in wants {
            handle.group.reserve(Want::Quota(want), urgent);
        }
        match step {
            Step::Taken(take) => taken.push(take),
            Step::Wait(wait) => return Some(Lacking::Wait(wait)),
            Step::Exhausted => return Some(Lacking::Exhausted),
        }
    }
    None
}
