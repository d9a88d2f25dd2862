//! What a changed policy makes of the use that was there before: a limit that is lowered to below what was used has passed
//! its thresholds, and no row may come to say so, for all are refused.
//!
//! A ledger group's leader looks when policies may have changed, and now and then for overrides that end by themselves. What
//! it finds it writes as a look at the counter, so every replica raises the same alerts; found twice, it raises none.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Store;
use crate::{
    model::{AccountId, ColdCommand, Command, KeyId, Name, Quota, Reservation, Revision, Timestamp, Watch},
    platform,
    raft::{Group, LOOKS_AT_QUOTAS, Wait},
};

/// Also when nothing was written: overrides end.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A look takes at most this part of the time: with many counters it comes less often.
const PART_OF_TIME: u32 = 50;
/// Counters in one entry; what is beyond is found by the next look.
const AN_ENTRY: usize = 1_024;
const DEADLINE: Duration = Duration::from_secs(5);

/// When the leader looked last.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// The metadata that it looked by.
    revision: Revision,
    at: Option<Instant>,
    took: Duration,
}

impl Looked {
    fn is_due(&self, revision: Revision) -> bool {
        let Some(at) = self.at else { return true };
        let since = at.elapsed();
        since >= self.took * PART_OF_TIME && (self.revision != revision || since >= LOOK_EVERY)
    }
}

impl Store {
    /// Looks, if it is time to.
    pub(super) async fn notice_thresholds(&self, ledger: &Group, looked: &mut Looked) {
        let revision = self.revision();
        // A replica of a build that does not know of looks would raise no alert where the others do.
        if !looked.is_due(revision) || !self.0.node.all_speak(LOOKS_AT_QUOTAS).await {
            return;
        }
        let begun = Instant::now();
        let found = self.unnoticed(ledger).await;
        *looked = Looked { revision, at: Some(begun), took: begun.elapsed() };
        if found.is_empty() {
            return;
        }
        // More are left, or it may fail: look again.
        looked.revision = 0;
        let command = Command::from(ColdCommand::Reserve(found)).encode();
        if let Err(error) = ledger.propose(&command, Wait::Applied, true, DEADLINE).await {
            tracing::debug!(%error, "notice thresholds that a changed policy has passed");
        }
    }

    async fn unnoticed(&self, ledger: &Group) -> Vec<Reservation> {
        let (store, state, group) = (self.clone(), Arc::clone(ledger.state()), ledger.id());
        let now = Timestamp::now();
        let found = platform::blocking(move || {
            state.unnoticed(&|account, counter, start| {
                // What an account had used before it moved, its group now has counted too.
                let is_here = store.directory().group_of(account) == group;
                if is_here { store.watch(account, counter, start, now) } else { None }
            })
        });
        let (node, incarnation) = (self.0.node.me(), self.0.node.incarnation());
        let look = |(account, quota, period_start, watch)| Reservation {
            node,
            incarnation,
            account,
            quota,
            period_start,
            units: 0,
            limit: 0,
            watch: Some(watch),
            look_at: Some(now),
        };
        match found.await {
            Ok(Ok(found)) => found.into_iter().take(AN_ENTRY).map(look).collect(),
            Ok(Err(error)) => {
                tracing::debug!(%error, "look at quotas' use");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    /// What is to be noticed about a counter's period by the policies as they are now; none when it is no policy's any more,
    /// or not the period that is under way.
    fn watch(&self, account: &AccountId, counter: &Name, start: i64, now: Timestamp) -> Option<Watch> {
        let view = match Quota::key_of_counter(counter) {
            Some(key) => self.directory().key_by_id(&KeyId::from(key))?.account,
            None => self.directory().account(account)?,
        };
        if view.id != *account {
            return None;
        }
        let quota = view.policies.quotas_at(now).find(|quota| quota.counter == *counter)?;
        let bounds = quota.bounds(now);
        (bounds.start.unix_seconds() == start).then(|| quota.watch(bounds))
    }
}
