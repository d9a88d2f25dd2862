//! Reservations and returns of quota units: everything that waits goes into one entry of the group's log.

use std::{sync::Weak, time::Duration};

use tokio::sync::mpsc;

use super::{group::Group, slice::Want};
use crate::{Unavailable, model::Reservation};

/// Reservations in one entry. A slice has at most one under way, so the queue before it is bounded by their number.
const WANTS_AN_ENTRY: usize = 1_024;

/// Runs until the group is gone.
pub(super) async fn run(group: Weak<Group>, mut wants: mpsc::UnboundedReceiver<Want>) {
    loop {
        let mut batch = Vec::new();
        if wants.recv_many(&mut batch, WANTS_AN_ENTRY).await == 0 {
            return;
        }
        let Some(group) = group.upgrade() else { return };
        make(&group, batch).await;
    }
}

/// Makes reservations, and hands out what they came to.
pub(super) async fn make(group: &Group, batch: Vec<Want>) {
    let holder = group.authority.holder();
    let reservations = batch
        .iter()
        .map(|want| Reservation {
            node: holder.node,
            incarnation: holder.incarnation,
            account: want.slice.account.clone(),
            quota: want.slice.quota.clone(),
            period_start: want.period_start,
            units: want.units,
            limit: want.limit,
        })
        .collect();
    group.counters.reserves.add(batch.len() as u64);
    let granted = match group.authority.reserve(group.id, reservations).await {
        Ok(granted) if granted.len() == batch.len() => Ok(granted),
        Ok(granted) => Err(Unavailable {
            reason: format!("{} reservations got {} answers", batch.len(), granted.len()),
            retry_after: Duration::from_secs(1),
        }),
        Err(unavailable) => Err(unavailable),
    };
    let now_ns = group.authority.now_ns();
    for (at, want) in batch.iter().enumerate() {
        // A return whose fate is not known is not spent again: it may have been made. Its units are lost to the period.
        if want.units > 0 {
            let result = granted.as_ref().map(|granted| granted[at]).map_err(Clone::clone);
            for next in want.slice.reserved(want, result, now_ns) {
                // Fails only when the group is going away.
                let _ = group.reserves.send(next);
            }
        }
    }
}
