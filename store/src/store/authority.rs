//! Who decides about units, over Raft: the lease room's view of the groups.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    lease::{Authority, Granted, Holder, Leadership, Place},
    model::{AccountId, ColdCommand, Command, GroupId, Left, NodeId, Reply, Reservation, Unavailable},
    platform::lease_clock_ns,
    raft::{Node, Wait},
    state::QuotaNow,
    view::{Directory, PlaceOfAccount},
};

/// An ask is answered from the leader's memory; longer means that the leader is gone.
const ASK_DEADLINE: Duration = Duration::from_secs(1);

pub(super) struct RaftAuthority {
    node: Arc<Node>,
    directory: Arc<Directory>,
    deadline: Duration,
    /// Epoch of the newest placement whose earlier groups have been applied here as far as slots were in them.
    caught_up: AtomicU64,
}

impl RaftAuthority {
    pub(super) fn new(node: Arc<Node>, directory: Arc<Directory>, deadline: Duration) -> Self {
        Self { node, directory, deadline, caught_up: AtomicU64::new(0) }
    }

    /// Whether this node's replicas of groups that slots have left have all that these had of them.
    fn knows_what_was_left(&self) -> bool {
        if self.caught_up.load(Ordering::Acquire) >= self.directory.placement_epoch() {
            return true;
        }
        let Some(placement) = self.directory.placement() else { return false };
        let has_applied = |left: &Left| {
            let group = self.node.replica(left.group);
            group.is_some_and(|group| group.state().applied().last.is_some_and(|last| last.index >= left.index))
        };
        let knows = placement.left.iter().all(has_applied);
        if knows {
            self.caught_up.fetch_max(placement.epoch, Ordering::AcqRel);
        }
        knows
    }
}

impl Authority for RaftAuthority {
    fn now_ns(&self) -> u64 {
        lease_clock_ns()
    }

    fn holder(&self) -> Holder {
        Holder { node: self.node.me(), incarnation: self.node.incarnation() }
    }

    fn groups(&self) -> Vec<GroupId> {
        self.node.ledgers().iter().map(|group| group.id()).collect()
    }

    fn group(&self, account: &AccountId) -> GroupId {
        self.directory.group_of(account)
    }

    fn place(&self, account: &AccountId) -> Place {
        let PlaceOfAccount { group, slot, is_open } = self.directory.place_of(account);
        Place { group, slot, is_open }
    }

    fn decides(&self, group: GroupId, slot: Option<u16>) -> Option<u64> {
        let view_until_ns = self.node.meta().view_until_ns();
        if !self.directory.slots_have_moved() {
            // Who was started a moment ago may not have heard yet that they have: others have, and ask it.
            return (slot.is_none() || lease_clock_ns() < view_until_ns).then_some(0);
        }
        // A node that does not know yet that slots move does not say which it means.
        let (owner, is_open, since_ns) = self.directory.slot(slot?);
        (owner == group && is_open && self.knows_what_was_left()).then_some(since_ns)
    }

    fn leading(&self, group: GroupId, now_ns: u64) -> Option<Leadership> {
        let granting = match group {
            GroupId::LEDGER => self.node.ledger().granting(now_ns)?,
            group => self.node.replica(group)?.granting(now_ns)?,
        };
        Some(Leadership { term: granting.term, since_ns: granting.since_ns, fresh: granting.first })
    }

    fn peers(&self, group: GroupId) -> Vec<NodeId> {
        let me = self.node.me().0;
        let members = self.node.replica(group).map(|group| group.members()).unwrap_or_default();
        members.into_keys().filter(|id| *id != me).map(NodeId).collect()
    }

    fn ask(&self, group: GroupId, body: Bytes) -> BoxFuture<'static, Result<Bytes, Unavailable>> {
        let node = Arc::clone(&self.node);
        Box::pin(async move { node.ask_lease(group, body, ASK_DEADLINE).await.map_err(Unavailable::new) })
    }

    fn reserved(&self, group: GroupId, account: &AccountId) -> Result<Vec<(i64, u64)>, Unavailable> {
        let units = |now: &QuotaNow| now.used.saturating_add(now.reserved).saturating_add(now.unsettled);
        let has_moved = self.directory.slots_have_moved();
        // A bucket that this group does not know may have come from an older one: the youngest that knows it is the last.
        let mut look = Some(group);
        while let Some(id) = look {
            let replica = self.node.replica(id).ok_or_else(|| not_open(id))?;
            let all = replica.state().quotas(account).map_err(|error| Unavailable::new(error.to_string()))?;
            if !all.is_empty() {
                return Ok(all.iter().map(|now| (now.period_start, units(now))).collect());
            }
            look = (has_moved && id > GroupId::LEDGER).then(|| GroupId(id.0 - 1));
        }
        Ok(Vec::new())
    }

    fn reserve(
        &self,
        group: GroupId,
        reservations: Vec<Reservation>,
    ) -> BoxFuture<'static, Result<Vec<Granted>, Unavailable>> {
        let (found, deadline) = (self.node.replica(group), self.deadline);
        Box::pin(async move {
            let group = found.ok_or_else(|| not_open(group))?;
            let asked: Vec<_> =
                reservations.iter().map(|r| (r.account.clone(), r.quota.clone(), r.period_start, r.limit)).collect();
            let command = Command::from(ColdCommand::Reserve(reservations)).encode();
            // Not repeatable: a reservation that landed twice would hold its units twice.
            let reply = group.propose(&command, Wait::Applied, false, deadline).await;
            match reply.map_err(|error| Unavailable::new(error.to_string()))? {
                Reply::Granted(units) => {
                    // As far as this replica has applied: a hint, which is all that `free` is.
                    let state = group.state();
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

fn not_open(group: GroupId) -> Unavailable {
    Unavailable::new(format!("the ledger group {group} is not open here yet"))
}
