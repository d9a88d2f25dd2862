//! Who decides about units, over Raft: the lease room's view of the groups.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    lease::{Authority, Granted, Holder, Leadership},
    model::{AccountId, ColdCommand, Command, GroupId, NodeId, Reply, Reservation, Unavailable},
    platform::lease_clock_ns,
    raft::{Node, Wait},
    state::QuotaNow,
};

/// An ask is answered from the leader's memory; longer means that the leader is gone.
const ASK_DEADLINE: Duration = Duration::from_secs(1);

pub(super) struct RaftAuthority {
    node: Arc<Node>,
    deadline: Duration,
}

impl RaftAuthority {
    pub(super) fn new(node: Arc<Node>, deadline: Duration) -> Self {
        Self { node, deadline }
    }
}

impl Authority for RaftAuthority {
    fn now_ns(&self) -> u64 {
        lease_clock_ns()
    }

    fn holder(&self) -> Holder {
        Holder { node: self.node.me(), incarnation: self.node.incarnation() }
    }

    fn group(&self, _account: &AccountId) -> GroupId {
        GroupId::LEDGER
    }

    fn leading(&self, group: GroupId, now_ns: u64) -> Option<Leadership> {
        if group != GroupId::LEDGER {
            return None;
        }
        let granting = self.node.ledger().granting(now_ns)?;
        Some(Leadership { term: granting.term, since_ns: granting.since_ns, fresh: granting.first })
    }

    fn peers(&self, _group: GroupId) -> Vec<NodeId> {
        let me = self.node.me().0;
        self.node.ledger().members().into_keys().filter(|id| *id != me).map(NodeId).collect()
    }

    fn ask(&self, group: GroupId, body: Bytes) -> BoxFuture<'static, Result<Bytes, Unavailable>> {
        let node = Arc::clone(&self.node);
        Box::pin(async move { node.ask_lease(group, body, ASK_DEADLINE).await.map_err(Unavailable::new) })
    }

    fn reserved(&self, _group: GroupId, account: &AccountId) -> Result<Vec<(i64, u64)>, Unavailable> {
        let all = self.node.ledger().state().quotas(account).map_err(|error| Unavailable::new(error.to_string()))?;
        let units = |now: &QuotaNow| now.used.saturating_add(now.reserved).saturating_add(now.unsettled);
        Ok(all.iter().map(|now| (now.period_start, units(now))).collect())
    }

    fn reserve(
        &self,
        _group: GroupId,
        reservations: Vec<Reservation>,
    ) -> BoxFuture<'static, Result<Vec<Granted>, Unavailable>> {
        let (node, deadline) = (Arc::clone(&self.node), self.deadline);
        Box::pin(async move {
            let asked: Vec<_> =
                reservations.iter().map(|r| (r.account.clone(), r.quota.clone(), r.period_start, r.limit)).collect();
            let command = Command::from(ColdCommand::Reserve(reservations)).encode();
            // Not repeatable: a reservation that landed twice would hold its units twice.
            let reply = node.ledger().propose(&command, Wait::Applied, false, deadline).await;
            match reply.map_err(|error| Unavailable::new(error.to_string()))? {
                Reply::Granted(units) => {
                    // As far as this replica has applied: a hint, which is all that `free` is.
                    let state = node.ledger().state();
                    let free = asked.iter().map(|(account, quota, start, limit)| {
                        let now = state.quota(account, quota, *start).ok()?;
                        Some(limit.saturating_sub(now.used).saturating_sub(now.reserved).saturating_sub(now.unsettled))
                    });
                    Ok(units.into_iter().zip(free).map(|(units, free)| Granted { units, free }).collect())
                }
                reply => Err(Unavailable::new(format!("unexpected reply to a reservation: {reply:?}"))),
            }
        })
    }
}
