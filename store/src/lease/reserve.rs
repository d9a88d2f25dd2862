//! Reservations and returns of quota units, and the debts of slow rates: everything that waits goes into one entry of the
//! group's log.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{
    authority::{Granted, Leadership},
    debt::Debt,
    group::Group,
    slice::{self},
};
use crate::model::{Reservation, Unavailable};

/// Reservations in one entry. A slice and a bucket have at most one under way, so the queue before it is bounded by their
/// number.
const WANTS_AN_ENTRY: usize = 1_024;
/// What nobody waits for is made together with what comes within this: slices are asked for when half of one is left, so there
/// is time, and each time the task is woken costs a request's thread some ten decisions.
const LINGER: Duration = Duration::from_millis(4);

/// A reservation that must be made.
#[derive(Debug, Clone)]
pub(super) enum Want {
    Quota(slice::Want),
    /// In a term of this node's leadership.
    Debt {
        leadership: Leadership,
        debt: Debt,
    },
}

/// Runs until the group is gone.
pub(super) async fn run(group: Weak<Group>, mut wants: mpsc::UnboundedReceiver<Want>) {
    let mut batch = Vec::new();
    loop {
        if wants.recv_many(&mut batch, WANTS_AN_ENTRY).await == 0 {
            return;
        }
        {
            let Some(group) = group.upgrade() else { return };
            // Cut short by one that somebody waits for.
            let _ = tokio::time::timeout(LINGER, group.urgent.notified()).await;
        }
        while batch.len() < WANTS_AN_ENTRY
            && let Ok(want) = wants.try_recv()
        {
            batch.push(want);
        }
        let Some(group) = group.upgrade() else { return };
        make(&group, std::mem::take(&mut batch)).await;
    }
}

/// Makes reservations, and hands out what they came to.
pub(super) async fn make(group: &Arc<Group>, batch: Vec<Want>) {
    let holder = group.authority.holder();
    let reservations: Vec<_> = batch
        .iter()
        .map(|want| match want {
            Want::Quota(want) => Reservation {
                node: holder.node,
                incarnation: holder.incarnation,
                account: want.slice.account.clone(),
                quota: want.slice.quota.clone(),
                period_start: want.period_start,
                units: want.units,
                limit: want.limit,
                watch: want.watch.as_deref().cloned(),
                look_at: None,
            },
            Want::Debt { debt, .. } => Reservation {
                node: holder.node,
                incarnation: holder.incarnation,
                account: Debt::account(debt.bucket),
                quota: Debt::quota(),
                period_start: debt.start(),
                units: debt.units(),
                limit: u64::MAX,
                watch: None,
                look_at: None,
            },
        })
        .collect();
    group.counters.reserves.add(batch.len() as u64);
    let granted = match group.authority.reserve(group.id, reservations).await {
        Ok(granted) if granted.len() == batch.len() => Ok(granted),
        Ok(granted) => Err(Unavailable::new(format!("{} reservations got {} answers", batch.len(), granted.len()))),
        Err(unavailable) => Err(unavailable),
    };
    for (at, want) in batch.iter().enumerate() {
        let result = granted.as_ref().map(|granted| granted[at]).map_err(Clone::clone);
        match want {
            Want::Quota(want) => quota(group, want, result),
            Want::Debt { leadership, debt } => {
                let landed = result.is_ok_and(|granted| debt.has_landed(granted));
                if let Some(reign) = group.newest_reign(*leadership) {
                    debt.written(reign.buckets, landed);
                }
            }
        }
    }
}

fn quota(group: &Group, want: &slice::Want, result: Result<Granted, Unavailable>) {
    // A return whose fate is not known is not spent again: it may have been made. Its units are lost to the period.
    if want.units > 0 {
        for next in want.slice.reserved(want, result, group.authority.now_ns()) {
            group.reserve(Want::Quota(next), true);
        }
    }
}
