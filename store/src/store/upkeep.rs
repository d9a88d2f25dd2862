//! What the ledger's leader proposes by itself: sealing small blocks into large ones, and dropping days that are over.

use std::time::Duration;

use super::Store;
use crate::{
    model::{ColdCommand, Command, Timestamp},
    raft::Wait,
};

const INTERVAL: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(5);
/// Retention is looked at this often.
const RETENTION_INTERVAL: Duration = Duration::from_secs(600);

/// Runs as long as the store does; acts only on the leader.
pub(super) async fn run(store: Store, retention_days: u16) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut dropped = None;
    loop {
        tick.tick().await;
        let ledger = store.0.node.ledger();
        if !ledger.is_leader() || store.0.node.is_draining() {
            continue;
        }
        while let Some((from, to)) = ledger.state().sealable() {
            let command = Command::from(ColdCommand::Seal { from, to }).encode();
            if let Err(error) = ledger.propose(&command, Wait::Applied, false, DEADLINE).await {
                tracing::debug!(%error, from, to, "seal row blocks");
                break;
            }
        }
        if dropped.is_none_or(|at: tokio::time::Instant| at.elapsed() >= RETENTION_INTERVAL) {
            let today = Timestamp::now().unix_seconds().div_euclid(86_400);
            let day = i32::try_from(today - i64::from(retention_days)).unwrap_or(0);
            let command = Command::from(ColdCommand::DropBefore { day, class: 0 }).encode();
            if ledger.propose(&command, Wait::Applied, true, DEADLINE).await.is_ok() {
                dropped = Some(tokio::time::Instant::now());
            }
        }
    }
}
