//! On the leader of a ledger group: the same members and voters as group 0 has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{CatchUp, TICK};
use crate::{
    model::{ColdCommand, Command, NodeId, NodeInfo},
    raft::{group::Group, node::Node, wait::Wait},
};

const DEADLINE: Duration = Duration::from_secs(2);

/// Runs as long as the node does; acts while it leads the group.
pub(in crate::raft) async fn follow(node: Arc<Node>, group: Arc<Group>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut catch_up = CatchUp::default();
    loop {
        tick.tick().await;
        if node.is_stopping() {
            return;
        }
        if group.leads().is_none() {
            catch_up = CatchUp::default();
            continue;
        }
        if let Err(error) = step(&node, &group, &mut catch_up).await {
            tracing::debug!(%error, group = %group.id(), "follow the membership");
        }
    }
}

type Members = BTreeMap<u64, (NodeInfo, bool)>;

fn voters(members: &Members) -> BTreeSet<u64> {
    members.iter().filter(|(_, (_, votes))| *votes).map(|(id, _)| *id).collect()
}

async fn step(node: &Node, group: &Group, catch_up: &mut CatchUp) -> Result<(), String> {
    if let Some(voters) = group.unfinished_change() {
        return group.set_voters(voters).await;
    }
    let caught_up = catch_up.look(group);
    // Half of a change is no goal.
    if node.meta().unfinished_change().is_some() {
        return Ok(());
    }
    let (goal, have) = (node.meta().members(), group.members());
    if goal.is_empty() {
        return Ok(());
    }
    for (id, (info, _)) in goal.iter().filter(|(id, _)| !have.contains_key(id)) {
        group.add_learner(*id, info.clone()).await?;
    }
    for (id, (info, _)) in goal.iter().filter(|(id, (info, _))| have.get(id).is_some_and(|(known, _)| known != info)) {
        group.set_member(*id, info.clone()).await?;
    }
    let (wanted, votes) = (voters(&goal), voters(&have));
    if wanted != votes && wanted.iter().all(|id| votes.contains(id) || caught_up(*id)) {
        if !wanted.contains(&node.me().0)
            && let Some(to) = group.furthest(|id| wanted.contains(&id))
        {
            return group.hand_over_to(to).await;
        }
        group.set_voters(wanted).await?;
    }
    let strangers: BTreeSet<u64> = have.into_keys().filter(|id| !goal.contains_key(id)).collect();
    group.bar_only(&strangers);
    if strangers.is_empty() {
        return Ok(());
    }
    // This replica of group 0 may be behind: a member that it does not know yet must not go.
    node.meta().barrier(DEADLINE).await?;
    let goal = node.meta().members();
    for id in strangers.into_iter().filter(|id| !goal.contains_key(id)) {
        if voters(&group.members()).contains(&id) || !group.let_go(id).await? {
            continue;
        }
        // What it had reserved of quotas is charged for as long as their periods last; rows that come late settle against it.
        let gone = ColdCommand::NodeStarted { node: NodeId(id), incarnation: u64::MAX };
        let reply = group.propose(&Command::from(gone).encode(), Wait::Applied, true, DEADLINE).await;
        reply.map_err(|error| error.to_string())?;
    }
    Ok(())
}
