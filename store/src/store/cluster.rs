//! The cluster's members, for operators: who is there, and who comes and goes.

use std::{collections::BTreeMap, time::Duration};

use super::{GroupStatus, Store, Unavailable};
use crate::{
    model::{GroupId, Moving, Name, NodeInfo, SLOTS},
    raft::{OperateError, Status},
};

/// A member of the cluster.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    /// Raft id, in hexadecimal.
    pub id: String,
    /// What peers know of it.
    pub info: NodeInfo,
    /// Votes in group 0; otherwise it is a learner.
    pub voter: bool,
    /// Is this node.
    pub this: bool,
    /// It answered just now; what follows is known of those alone.
    pub live: bool,
    /// For how long this node could not connect to it; none when it can, or has not tried.
    pub silent: Option<Duration>,
    /// By group: the newest entry that it has applied.
    pub applied: BTreeMap<u32, u64>,
    /// Its build's version.
    pub version: Option<String>,
    /// Oldest and newest version of the wire that it speaks.
    pub wire: Option<(u16, u16)>,
    /// It gives leadership away and says that it is not ready.
    pub draining: bool,
}

/// The cluster as this node sees it.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// This node's name.
    pub node: Name,
    /// Members.
    pub members: Vec<MemberStatus>,
    /// Groups.
    pub groups: Vec<GroupStatus>,
    /// Slots are being spread over more ledger groups.
    pub split: Option<SplitStatus>,
}

/// Slots on their way to other ledger groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitStatus {
    /// Ledger groups that they are being spread over.
    pub ledger_groups: u32,
    /// All slots …
    pub slots: u32,
    /// … and those that are still to move.
    pub slots_to_move: u32,
    /// Those that are closed now.
    pub moving: Option<Moving>,
    /// Why nothing moves for now: what was in the way of the last try.
    pub waits_for: Option<String>,
}

/// Why a change of the cluster was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// There is no such node.
    #[error("there is no node {0:?}")]
    Unknown(String),
    /// It must not be made; with what to do.
    #[error("{0}")]
    Refused(String),
    /// It could not be made now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<OperateError> for ClusterError {
    fn from(error: OperateError) -> Self {
        match error {
            OperateError::Unknown(name) => Self::Unknown(name),
            OperateError::Refused(why) => Self::Refused(why),
            OperateError::Unavailable(why) => Self::Unavailable(Unavailable::new(why)),
        }
    }
}

impl Store {
    /// The cluster as this node sees it; every member is asked what it is, and waited for less than half a second.
    pub async fn cluster(&self) -> ClusterStatus {
        let node = &self.0.node;
        let now = node.members_now().await;
        let placement = node.meta().state().placement().filter(|placement| placement.goal > 0);
        let split = placement.map(|placement| SplitStatus {
            ledger_groups: placement.goal,
            slots: SLOTS.into(),
            slots_to_move: placement.slots_to_move(),
            moving: placement.moving,
            waits_for: waits_for(now.iter().filter_map(|member| member.status.as_ref())),
        });
        let members = now.into_iter().map(|member| {
            let status = member.status;
            let of = |read: fn(&Status) -> bool| status.as_ref().is_some_and(read);
            MemberStatus {
                id: member.id.to_string(),
                // It knows its own addresses best.
                info: status.as_ref().map_or(member.info, |status| status.info.clone()),
                voter: member.voter,
                this: member.id == node.me(),
                live: status.is_some(),
                silent: member.silent,
                draining: of(|status| status.draining),
                applied: status
                    .iter()
                    .flat_map(|status| status.applied.iter().map(|applied| (applied.group.0, applied.index)))
                    .collect(),
                version: status.as_ref().map(|status| status.build.clone()),
                wire: status.and_then(|status| status.spoken).map(|spoken| (spoken.oldest, spoken.newest)),
            }
        });
        ClusterStatus { node: node.info().name.clone(), members: members.collect(), groups: self.groups(), split }
    }

    /// Adds ledger groups until there are so many, and begins to spread the accounts' slots over them, while the cluster is in
    /// use. [`Store::cluster`] says how far it is.
    ///
    /// # Errors
    /// Fewer than there are, or more than there may be; a member that does not answer or cannot move slots; no quorum.
    pub async fn split(&self, ledger_groups: u32) -> Result<(), ClusterError> {
        Ok(self.0.node.split(ledger_groups).await?)
    }

    /// Takes in the node that listens for peers at an address: empty, and waiting for peers of its own list that are gone. It
    /// comes as a learner, and is made a voter while voters are missing. Says its name.
    ///
    /// # Errors
    /// Nobody answers there, it has data, or a live member has its name.
    pub async fn take_in(&self, peer_addr: &str) -> Result<Name, ClusterError> {
        Ok(self.0.node.take_in_at(peer_addr).await?.info.name)
    }

    /// Takes a node out, by name or id, dead or alive. It is drained first; when this returns it holds no lease and no vote.
    ///
    /// # Errors
    /// Unknown; the only voter; or no quorum would be left of the others.
    pub async fn remove_node(&self, node: &str) -> Result<(), ClusterError> {
        Ok(self.0.node.remove_node(node).await?)
    }

    /// Makes a node give its leadership away and say that it is not ready, or ends that. It goes on serving.
    ///
    /// # Errors
    /// Unknown, or it does not answer.
    pub async fn drain_node(&self, node: &str, drains: bool) -> Result<(), ClusterError> {
        Ok(self.0.node.drain_node(node, drains).await?)
    }

    /// Hands the leadership of a group (of all when none is named) to a node, or to whoever is fit.
    ///
    /// # Errors
    /// No such node or group, or nobody who could lead.
    pub async fn transfer_leader(&self, group: Option<u32>, to: Option<&str>) -> Result<(), ClusterError> {
        if let Some(group) = group.filter(|group| self.groups().iter().all(|one| one.group != *group)) {
            return Err(ClusterError::Refused(format!("there is no group {group}: see tollgate cluster status")));
        }
        Ok(self.0.node.transfer(group.map(GroupId), to).await?)
    }
}

/// Why slots do not move, from what members say: the leader of group 0 moves them.
fn waits_for<'a>(mut members: impl Iterator<Item = &'a Status>) -> Option<String> {
    match members.find(|status| status.confirmed) {
        Some(leader) => leader.slots_wait_for.clone(),
        None => Some("no member that answers leads the metadata (group 0)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_leads_the_metadata_says_why_slots_wait() {
        let status = |confirmed, why: &str| Status {
            confirmed,
            slots_wait_for: Some(why.to_owned()).filter(|why| !why.is_empty()),
            ..Status::default()
        };
        let said = |all: &[Status]| waits_for(all.iter());
        assert_eq!(said(&[status(false, "stale"), status(true, "")]), None);
        assert_eq!(said(&[status(false, "stale"), status(true, "c is away")]).as_deref(), Some("c is away"));
        assert!(said(&[status(false, "stale")]).is_some_and(|why| why.contains("group 0")));
    }
}
