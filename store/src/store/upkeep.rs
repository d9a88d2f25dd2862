//! What a ledger group's leader proposes by itself: sealing small blocks into large ones, dropping days that are over,
//! forgetting names of accounts that are gone, and noticing thresholds that changed policies have passed.

use std::{collections::HashMap, time::Duration};

use super::{Store, profiles::SWEEP_EVERY, thresholds::Looked};
use crate::{
    model::{ColdCommand, Command, GroupId, Timestamp},
    raft::{Group, Wait},
};

const INTERVAL: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(5);

/// Runs as long as the store does; acts only on the leader.
pub(super) async fn run(store: Store) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut swept = tokio::time::Instant::now();
    let mut looked = HashMap::<GroupId, Looked>::new();
    loop {
        tick.tick().await;
        for ledger in store.0.node.ledgers() {
            if !ledger.is_leader() || store.0.node.is_draining() {
                looked.remove(&ledger.id());
                continue;
            }
            store.notice_thresholds(&ledger, looked.entry(ledger.id()).or_default()).await;
            keep(&ledger).await;
        }
        // The first group's leader for all of them.
        if swept.elapsed() >= SWEEP_EVERY && store.0.node.ledger().is_leader() && !store.0.node.is_draining() {
            swept = tokio::time::Instant::now();
            let forgotten = store.sweep_profiles().await;
            if forgotten > 0 {
                tracing::info!(forgotten, "forgot profiles of accounts that are gone");
            }
        }
    }
}

/// What one group's leader proposes.
async fn keep(ledger: &Group) {
    while let Some((from, to)) = ledger.state().sealable() {
        let command = Command::from(ColdCommand::Seal { from, to }).encode();
        if let Err(error) = ledger.propose(&command, Wait::Applied, false, DEADLINE).await {
            tracing::debug!(%error, from, to, "seal row blocks");
            break;
        }
    }
    if let Some((day, class)) = ledger.state().droppable(Timestamp::now()) {
        let command = Command::from(ColdCommand::DropBefore { day, class }).encode();
        if let Err(error) = ledger.propose(&command, Wait::Applied, true, DEADLINE).await {
            tracing::debug!(%error, day, class, "drop days that are over");
        }
    }
}
