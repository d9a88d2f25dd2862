//! Changes of a group's membership, on its leader, and handing leadership over.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{ChangeMembers, async_runtime::watch::WatchReceiver};

use super::Group;
use crate::model::{NodeId, NodeInfo};

/// Longest that a change of membership is waited for; it goes on, and is looked at again.
const CHANGE_DEADLINE: Duration = Duration::from_secs(5);
/// Longest that the next leader is waited for.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(2);

impl Group {
    /// Voters that a change under way leads to: its leader went away in the middle of it.
    pub(in crate::raft) fn unfinished_change(&self) -> Option<BTreeSet<u64>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let configs = metrics.membership_config.membership().get_joint_config();
        if configs.len() > 1 { configs.last().cloned() } else { None }
    }

    /// Whether the membership as it is has been committed.
    pub(in crate::raft) fn is_membership_committed(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let set_at = metrics.membership_config.log_id().as_ref().map(|id| id.index);
        set_at <= metrics.local_committed.as_ref().map(|id| id.index)
            && metrics.membership_config.membership().get_joint_config().len() == 1
    }

    /// Makes exactly these members the voters; who was one and is none becomes a learner.
    pub(in crate::raft) async fn set_voters(&self, voters: BTreeSet<u64>) -> Result<(), String> {
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Takes a node in as a learner.
    pub(in crate::raft) async fn add_learner(&self, id: u64, info: NodeInfo) -> Result<(), String> {
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, info)]))).await
    }

    /// A member is called, or is, something else than before.
    pub(in crate::raft) async fn set_member(&self, id: u64, info: NodeInfo) -> Result<(), String> {
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, info)]))).await
    }

    async fn change(&self, change: ChangeMembers<u64, NodeInfo>) -> Result<(), String> {
        let changing = self.raft.change_membership(change, true);
        match tokio::time::timeout(CHANGE_DEADLINE, changing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("a change of group {} was not committed within {CHANGE_DEADLINE:?}", self.id)),
        }
    }

    /// Of some voters, the one that has most of the log, as this leader knows.
    pub(in crate::raft) fn furthest(&self, among: impl Fn(u64) -> bool) -> Option<u64> {
        let members = self.members();
        let matched = self.progress().matched.into_iter();
        matched
            .filter(|(id, _)| *id != self.me.0 && among(*id) && members.get(id).is_some_and(|(_, votes)| *votes))
            .max_by_key(|(_, matched)| *matched)
            .map(|(id, _)| id)
    }

    /// Stops granting and hands the leadership to a voter; goes on as the leader when that one does not take it.
    pub(in crate::raft) async fn hand_over_to(&self, to: u64) -> Result<(), String> {
        self.hand_over(true);
        let _ = self.raft.trigger().transfer_leader(to).await;
        let handed = async {
            while self.is_leader() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(HAND_OVER_DEADLINE, handed).await.is_err() {
            self.hand_over(false);
            return Err(format!("node {} did not take the leadership of group {}", NodeId(to), self.id));
        }
        Ok(())
    }
}
