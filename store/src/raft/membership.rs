//! Who belongs to the cluster, who votes, who leads.
//!
//! The members of group 0 are the cluster's. Its leader decides ([`lead`]): a learner that has caught up is made a voter while
//! voters are missing (`plan`), a node that came back empty takes the place of the one whose name it has, and a node that an
//! operator has removed goes. Every ledger group follows ([`follow`]): same members, same voters. What an operator asks of any
//! node is in `operate`; `lost` says what to do when there is no quorum.
//!
//! A member goes only after everything that it may hold has run out (`group/leaving.rs`).

mod follow;
mod lead;
mod lost;
mod operate;
mod plan;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub(super) use follow::follow;
pub(super) use lead::lead;
pub(super) use lost::{look, trouble};
pub(crate) use operate::OperateError;

use super::{
    group::Group,
    node::Node,
    status::Status,
    wire::{self, Kind},
};
use crate::model::{NodeId, NodeInfo};

/// How often the membership is looked at.
const TICK: Duration = Duration::from_millis(250);
/// A member says what it is within this, or counts as silent.
const STATUS_DEADLINE: Duration = Duration::from_millis(400);
/// How often a node looks why there is no leader, and whether it leads although it drains.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A member as it is now.
pub(crate) struct MemberNow {
    pub(crate) id: NodeId,
    pub(crate) info: NodeInfo,
    pub(crate) voter: bool,
    /// What it says; none when it does not answer.
    pub(crate) status: Option<Status>,
    /// For how long this node could not connect to it; none when it can.
    pub(crate) silent: Option<Duration>,
}

impl Node {
    /// All members of the cluster as this node knows them, each asked what it is.
    pub(crate) async fn members_now(&self) -> Vec<MemberNow> {
        let asked = self.meta().members().into_iter().map(|(id, (info, voter))| async move {
            let id = NodeId(id);
            if id == self.me() {
                return MemberNow { id, info, voter, status: Some(self.status().await), silent: None };
            }
            let peer = self.peers().peer(id, &info.peer_addr);
            let answer = peer.call(Kind::Status, wire::cbor(&()), STATUS_DEADLINE).await;
            let status = answer.ok().and_then(|body| wire::from_cbor(&body).ok());
            MemberNow { id, info, voter, silent: peer.away(), status }
        });
        futures_util::future::join_all(asked).await
    }

    /// Hands over what this node leads, as far as another voter is there to take it.
    pub(super) async fn give_leadership_away(&self) {
        let all = self.groups();
        let leads = || all.iter().filter(|group| group.is_leader());
        if leads().next().is_none() {
            return;
        }
        let now = self.members_now().await;
        let takers: BTreeMap<u64, bool> =
            now.iter().filter_map(|member| Some((member.id.0, !member.status.as_ref()?.draining))).collect();
        let handed = leads().map(|group| async {
            let taker = |id: u64| takers.get(&id).copied().unwrap_or(false);
            // The last one leads to the end: what is in flight needs a leader.
            let Some(to) = group.furthest(taker) else { return };
            if let Err(error) = group.hand_over_to(to).await {
                tracing::warn!("{error}");
            }
        });
        futures_util::future::join_all(handed).await;
    }
}

/// Says why there is no leader, notices that this node was removed, and gives leadership away while it drains. Runs as long as
/// the node does.
pub(super) async fn look_after(node: Arc<Node>) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if node.is_stopping() {
            return;
        }
        if node.is_draining() {
            node.give_leadership_away().await;
        }
        let meta = node.meta();
        if !meta.is_initialized().await || meta.leader().is_some() && meta.is_in_contact() {
            node.set_trouble(String::new());
            continue;
        }
        let members = meta.members();
        let votes = members.iter().filter(|(_, (_, voter))| *voter).map(|(id, (info, _))| (*id, info.clone()));
        let seen = lost::look(&node, votes.collect()).await;
        if lost::denied(&node, &seen).await {
            meta.set_stranger(true);
        }
        node.set_trouble(lost::trouble(&seen).unwrap_or_default());
    }
}

/// Whether followers have what the leader had when it was looked at last.
#[derive(Default)]
struct CatchUp {
    last: u64,
}

impl CatchUp {
    /// Looks at the leader's progress; the goal for the next look is what the log has now.
    fn look(&mut self, group: &Group) -> impl Fn(u64) -> bool + use<> {
        let progress = group.progress();
        let goal = std::mem::replace(&mut self.last, progress.last);
        let matched = progress.matched;
        // Never looked before: nobody has caught up yet.
        move |id| goal > 0 && matched.get(&id).is_some_and(|matched| *matched >= goal)
    }
}
