//! Looking without taking: what a demand would meet, and where a client stands.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Leases,
    acquire::wants,
    ask::AskError,
    deny::{nobody, remembered},
    grant::{Demand, Denied, Standing},
    group::{Group, Wants},
    handle::Handle,
    standing,
    wait::{DECIDE_WITHIN, LOOK_AGAIN, again, ask},
    wire::{Decision, Verdict},
};
use crate::model::Unavailable;

impl Leases {
    /// The decision that [`Leases::acquire`] would take, consuming nothing: where the client stands, or the refusal. Over
    /// quotas it is this node's knowledge, which is none before the account's first request here.
    ///
    /// # Errors
    /// As `acquire`.
    pub async fn peek(&self, demand: Demand<'_>) -> Result<Vec<Standing>, Denied> {
        let group = self.inner.group(self.inner.authority.group(&demand.key.account.id));
        let handle = Handle::of(&group, &demand.key.account);
        let (verdict, clock_ns) =
            Box::pin(look(&group, &wants(&demand))).await.map_err(|error| nobody(&group, error))?;
        if verdict.decision != Decision::Granted {
            return Err(Denied::Refused(Box::new(standing::refusal(&handle, &demand, &verdict, clock_ns))));
        }
        let refused = standing::refusing(&handle, &demand, group.authority.now_ns());
        if refused.is_empty() {
            return Ok(standing::standings(&handle, &demand, &verdict, clock_ns));
        }
        Err(Denied::Refused(Box::new(standing::quota_refusal(&handle, &demand, &refused, &verdict, clock_ns))))
    }

    /// Where a client stands as this node's memory knows, for an answer that takes nothing. Of a node that does not lead
    /// it is what the leader last said, less what was spent here.
    pub fn standings(&self, demand: Demand<'_>) -> Vec<Standing> {
        let group = self.inner.group(self.inner.authority.group(&demand.key.account.id));
        let handle = Handle::of(&group, &demand.key.account);
        let (wants, now_ns) = (wants(&demand), group.authority.now_ns());
        let verdict = match group.authority.leading(group.id, now_ns) {
            Some(leadership) => group.look(group.reign(leadership), &wants, now_ns),
            None => remembered(&group, &wants, Decision::Granted, handle.units.in_use(), now_ns),
        };
        standing::standings(&handle, &demand, &verdict, now_ns)
    }
}

/// What a demand would meet, and the clock of it.
///
/// # Errors
/// Nobody can say.
pub(super) async fn look(group: &Arc<Group>, wants: &Wants) -> Result<(Verdict, u64), Unavailable> {
    let until = Instant::now() + DECIDE_WITHIN;
    let mut pause = LOOK_AGAIN.0;
    loop {
        let now_ns = group.authority.now_ns();
        if let Some(leadership) = group.authority.leading(group.id, now_ns) {
            return Ok((group.look(group.reign(leadership), wants, now_ns), now_ns));
        }
        match ask(group, wants, None, until).await {
            Ok(told) => return Ok((told.verdict, told.leader_ns)),
            Err(AskError::Unavailable(error)) => return Err(error),
            Err(AskError::Moved) => again(&mut pause, until).await?,
        }
    }
}
