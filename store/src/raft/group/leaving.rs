//! Members that are to go, on the leader (P2, P3): first they get no lease any more, then all that they may still hold runs
//! out, and only then does the membership forget them.
//!
//! Whoever leads next waits for the leases of the members that it knows. So a node must be a member for as long as it can
//! hold one, whoever has granted it. Leases on views are the longest (`VIEW_LEASE`); a lease's time starts before it is asked
//! for, so what was asked for before the bar has run out one such time after it.

use std::{
    collections::BTreeSet,
    sync::{PoisonError, atomic::Ordering},
};

use openraft::ChangeMembers;

use super::{Group, lease_clock_ns};
use crate::{
    model::NodeId,
    raft::{
        view_lease::{end_of_grant, grants_of_predecessor},
        wire::Fault,
    },
};

impl Group {
    /// When this node's leadership was confirmed by a quorum, if it leads and a quorum was in contact a moment ago.
    pub(in crate::raft) fn leads(&self) -> Option<u64> {
        let led = **self.led.load().as_ref()?;
        self.is_in_contact().then_some(led.since_ns)
    }

    /// Members that get no lease any more.
    pub(in crate::raft) fn bars(&self, id: u64) -> bool {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    /// Members beside these get leases again.
    pub(in crate::raft) fn bar_only(&self, leaving: &BTreeSet<u64>) {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| leaving.contains(id));
    }

    /// Lets a learner go: bars it, and once it can hold no lease any more takes it out of the membership. Called again and
    /// again; `true` when it has gone.
    pub(in crate::raft) async fn let_go(&self, id: u64) -> Result<bool, String> {
        let Some(led_ns) = self.leads() else { return Err("no confirmed leader any more".into()) };
        let now_ns = lease_clock_ns();
        let since_ns = *self.leaving.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert(now_ns);
        if now_ns < end_of_grant(since_ns).max(grants_of_predecessor(led_ns)) {
            return Ok(false);
        }
        let leaves = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        self.raft.change_membership(leaves, true).await.map_err(|error| error.to_string())?;
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.grants.lock().expect("no holder of this lock panics").remove(&id);
        Ok(true)
    }

    /// Whether a node may be answered what only members are told; the leader's word alone.
    pub(in crate::raft) fn require_member(&self, id: NodeId) -> Result<(), Fault> {
        if self.is_leader() && self.leads().is_some() && !self.members().contains_key(&id.0) {
            return Err(Fault::NotMember);
        }
        Ok(())
    }

    /// Whether the confirmed leader has said that this node is no member.
    pub(in crate::raft) fn is_stranger(&self) -> bool {
        self.is_stranger.load(Ordering::Relaxed)
    }

    pub(in crate::raft) fn set_stranger(&self, stranger: bool) {
        self.is_stranger.store(stranger, Ordering::Relaxed);
    }
}
