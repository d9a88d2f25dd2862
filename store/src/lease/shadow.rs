//! Limits that never refuse: each is decided as if it stood alone, once the request has been let through by all others.
//!
//! They take units like the others, by the same buckets and leases, so that what they report is what would happen; but a
//! request waits for them only a moment, and a shadow that nobody can decide by then says nothing.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    acquire::keep,
    bucket::{Short, Wanted},
    debt,
    few::Few,
    grant::Demand,
    group::{Group, Wants},
    held::Held,
    purse::Found,
    reign::Reign,
    wait::{LOOK_AGAIN, again, ask},
    wire::Decision,
};
use crate::model::Name;

/// Longest that a request waits for the leader's word on its shadows.
const DECIDE_WITHIN: Duration = Duration::from_millis(500);

/// The shadows that would have refused.
pub(super) async fn refusing(held: &Held, demand: &Demand<'_>) -> Vec<Name> {
    let account = &*demand.key.account;
    let until = Instant::now() + DECIDE_WITHIN;
    let mut refusing = Vec::new();
    for policy in account.policies.shadow_limits_at(demand.now) {
        let wanted = Wanted {
            name: policy.bucket(account.number, demand.key.number, demand.route.number),
            emission_ns: policy.gcra.emission_ns,
            capacity_ns: policy.gcra.capacity_ns,
            revision: account.policy_revision().max(policy.revision),
            since_ns: 0,
        };
        let slot = held.group().authority.place(&account.id).slot;
        let wants = Wants { account: account.number, slot, concurrency: None, rates: Few::from_iter([wanted]) };
        if would_refuse(held, &wants, until).await == Some(true) {
            refusing.push(policy.limit.name.clone());
        }
    }
    refusing
}

/// Takes a unit, or says that there is none; nothing when nobody can say in time.
async fn would_refuse(held: &Held, wants: &Wants, until: Instant) -> Option<bool> {
    let group = held.group();
    let mut pause = LOOK_AGAIN.0;
    loop {
        let now_ns = group.authority.now_ns();
        let told = match group.authority.leading(group.id, now_ns) {
            Some(leadership) => lead(group, group.reign(leadership), wants, now_ns),
            None => spend(held, wants, now_ns, until).await,
        };
        if told.is_some() {
            return told;
        }
        again(&mut pause, until).await.ok()?;
    }
}

/// As the leader.
fn lead(group: &Arc<Group>, reign: Reign<'_>, wants: &Wants, now_ns: u64) -> Option<bool> {
    if !reign.is_open(now_ns) {
        return None;
    }
    let mut wants = wants.clone();
    wants.begin_at(group.authority.decides(group.id, wants.slot)?);
    let mut taken = reign.buckets.take_all(wants.rates.iter(), now_ns);
    if matches!(taken, Err(Short::Refused)) && group.end_leases(reign, now_ns) {
        taken = reign.buckets.take_all(wants.rates.iter(), now_ns);
    }
    match taken {
        Ok(_) => {
            if wants.rates.iter().any(|wanted| debt::is_slow(wanted.gcra())) {
                group.raise_debts(reign, &wants.rates, now_ns, false);
            }
            Some(false)
        }
        Err(Short::Refused) => Some(true),
        Err(Short::Bound) => {
            group.raise_debts(reign, &wants.rates, now_ns, true);
            None
        }
    }
}

/// As a node that does not lead.
async fn spend(held: &Held, wants: &Wants, now_ns: u64, until: Instant) -> Option<bool> {
    let group = held.group();
    let (found, soon) = group.purses.take_all(&wants.rates, now_ns);
    if soon {
        group.nudge.notify_one();
    }
    match found {
        Found::Spent(..) => Some(false),
        Found::None => Some(true),
        Found::Ask => {
            let told = ask(group, wants, Some(Held::new(held.handle.clone(), held.now)), until).await.ok()?;
            match told.verdict.decision {
                Decision::Rate => Some(true),
                Decision::Granted => {
                    let mut promises = told.promises?;
                    let (found, _) = keep(group, &mut promises, group.authority.now_ns());
                    matches!(found, Found::Spent(..)).then_some(false)
                }
                _ => None,
            }
        }
    }
}
