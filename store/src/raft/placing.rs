//! Ledger groups beside the first: opened on every node when group 0 names them, made by its leader, led by different nodes.
//!
//! Group 0's state says which there are ([`crate::model::Placement`]). Each is made with the voters that the placement names,
//! so it does not matter how many leaders of group 0 try; what its members should be from then on is `membership`'s.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    group::Group,
    membership::MemberNow,
    moving,
    node::Node,
    wait::{ProposeError, Wait},
};
use crate::{
    model::{ColdCommand, Command, FirstVoter, GroupId, NodeId, NodeInfo, Placement, Reply},
    platform::lease_clock_ns,
};

/// How often it is looked which groups there are.
const TICK: Duration = Duration::from_millis(100);
/// How often a node looks whether it leads more groups than others.
const SPREAD_EVERY: Duration = Duration::from_secs(1);
/// A leadership that is younger is not handed on for the spread's sake.
const SPREAD_AFTER: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_secs(5);

impl Node {
    /// Groups that group 0 names and that are not open here.
    pub(super) fn unopened(&self) -> impl Iterator<Item = GroupId> + use<> {
        let placement = self.meta().state().placement();
        let open: Vec<GroupId> = self.groups().iter().map(|group| group.id()).collect();
        let added = placement.into_iter().flat_map(|placement| placement.added.clone());
        added.map(|added| added.id).filter(move |id| !open.contains(id))
    }
}

/// Runs as long as the node does.
pub(super) async fn run(node: Arc<Node>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut spread = Instant::now();
    while !node.is_stopping() {
        tick.tick().await;
        for id in node.unopened() {
            if let Err(error) = node.add_group(id).await {
                return node.fail(error.to_string());
            }
            if let Some(group) = node.replica(id) {
                tokio::spawn(announce(Arc::clone(&node), group));
            }
        }
        make(&node).await;
        if spread.elapsed() >= SPREAD_EVERY {
            spread = Instant::now();
            hand_surplus_on(&node).await;
        }
    }
}

/// Tells a group that was opened while the node runs that this incarnation has begun.
async fn announce(node: Arc<Node>, group: Arc<Group>) {
    while !node.is_stopping() && node.announce(&group).await.is_err() {}
}

/// On the leader of group 0: makes the groups that nobody has made yet. Where that one is none of their first voters, each of
/// these does.
async fn make(node: &Node) {
    let Some(placement) = node.meta().state().placement() else { return };
    let Some((leader, _)) = node.meta().leader() else { return };
    for added in &placement.added {
        let voters: BTreeMap<u64, NodeInfo> =
            added.voters.iter().map(|voter| (voter.id.0, voter.info.clone())).collect();
        let Some(group) = node.replica(added.id).filter(|_| voters.contains_key(&node.me().0)) else { continue };
        let others_do = leader != node.me() && added.voters.iter().any(|voter| voter.id == leader);
        if others_do || group.is_initialized().await {
            continue;
        }
        match group.raft().initialize(voters).await {
            Ok(()) => tracing::info!(group = %added.id, "a ledger group was made"),
            Err(error) => tracing::debug!(%error, group = %added.id, "make a ledger group"),
        }
    }
}

/// Places the slots on as many groups as the settings want, before anything is written. A cluster that is in use stays as it is.
pub(super) async fn place_first(node: &Node) {
    let wanted = node.ledger_groups();
    while wanted > 1 && node.meta().state().placement().is_none() && !node.is_stopping() {
        if let Some(why) = moving::older_build(&node.members_now().await) {
            let later = "`tollgate cluster split` adds ledger groups later";
            return tracing::warn!("ledger_groups {wanted} says nothing here: {why}; {later}");
        }
        let members = node.meta().members().into_iter();
        let voters: Vec<FirstVoter> = members
            .filter(|(_, (_, votes))| *votes)
            .map(|(id, (info, _))| FirstVoter { id: NodeId(id), info })
            .collect();
        let place = ColdCommand::Place { expect: 0, placement: Placement::even(wanted, &voters) };
        node.set_progress(format!("placing accounts on {wanted} ledger groups"));
        match node.meta().propose(&Command::from(place).encode(), Wait::Everywhere, true, DEADLINE).await {
            Ok(Reply::Refused(why)) if node.meta().state().placement().is_none() => {
                let _ = node.meta().barrier(DEADLINE).await;
                if node.meta().state().placement().is_none() {
                    tracing::warn!("ledger_groups {wanted} says nothing here: {why}");
                    return;
                }
            }
            Ok(_) => {
                let _ = node.meta().barrier(DEADLINE).await;
            }
            Err(error @ (ProposeError::NotDone(_) | ProposeError::Unknown(_))) => {
                tracing::debug!(%error, "place the slots");
            }
        }
    }
}

/// Hands the leadership of one ledger group on, when another voter leads two fewer.
async fn hand_surplus_on(node: &Node) {
    let ledgers = node.ledgers();
    let old_ns = lease_clock_ns().saturating_sub(u64::try_from(SPREAD_AFTER.as_nanos()).unwrap_or(u64::MAX));
    let settled = |group: &&Arc<Group>| group.leads().is_some_and(|since_ns| since_ns < old_ns);
    let led: Vec<&Arc<Group>> = ledgers.iter().filter(|group| group.is_leader()).collect();
    let mine: Vec<GroupId> = led.iter().copied().filter(settled).map(|group| group.id()).collect();
    // A group without a leader is about to have one: who leads how many is not known before.
    if led.len() < 2 || ledgers.iter().any(|group| group.leader().is_none()) || node.is_draining() {
        return;
    }
    let now = node.members_now().await;
    let others = now.iter().filter(|member| member.id != node.me());
    let others: Vec<(u64, usize)> = others.filter_map(|member| Some((member.id.0, leads(member)?))).collect();
    let Some((group, to)) = surplus(led.len(), &mine, &others) else { return };
    let Some(group) = node.replica(group) else { return };
    let Some(to) = group.furthest(|id| to.contains(&id)) else { return };
    if let Err(error) = group.hand_over_to(to).await {
        tracing::debug!(%error, group = %group.id(), "spread leadership");
    }
}

/// Ledger groups that a member leads; none when it is not there to lead one.
fn leads(member: &MemberNow) -> Option<usize> {
    let status = member.status.as_ref().filter(|status| member.voter && !status.draining)?;
    Some(status.leading.iter().filter(|group| **group != GroupId::META).count())
}

/// Of the groups that may be handed on, the one that should be, and to one of whom: to those that lead the fewest, when that
/// is two fewer than `led`.
fn surplus(led: usize, mine: &[GroupId], others: &[(u64, usize)]) -> Option<(GroupId, Vec<u64>)> {
    let least = others.iter().map(|(_, leads)| *leads).min().filter(|least| *least + 2 <= led)?;
    let to = others.iter().filter(|(_, leads)| *leads == least).map(|(id, _)| *id).collect();
    Some((*mine.last()?, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_group_goes_to_those_that_lead_two_fewer() {
        let (two, three) = (GroupId(2), GroupId(3));
        let mine = [GroupId::LEDGER, two, three];
        assert_eq!(surplus(3, &mine, &[(1, 0), (2, 0)]), Some((three, vec![1, 2])));
        assert_eq!(surplus(2, &mine[..2], &[(1, 0), (2, 1)]), Some((two, vec![1])));
        assert_eq!(surplus(2, &mine[..2], &[(1, 1), (2, 1)]), None);
        assert_eq!(surplus(1, &mine[..1], &[(1, 0)]), None);
        assert_eq!(surplus(3, &mine, &[]), None);
        // Its leaderships are too young.
        assert_eq!(surplus(3, &[], &[(1, 0)]), None);
    }

    /// From any start, no node leads two more than another in the end, and then nothing moves any more.
    #[test]
    fn leaders_spread_and_then_stay() {
        for groups in 1..=7_u32 {
            for nodes in 1..=5_usize {
                let mut led: Vec<Vec<GroupId>> = vec![Vec::new(); nodes];
                led[0] = (1..=groups).map(GroupId).collect();
                let mut moves = 0;
                while let Some((from, (group, to))) = (0..nodes).find_map(|node| {
                    let others: Vec<(u64, usize)> = (0..nodes)
                        .filter(|other| *other != node)
                        .map(|other| (other as u64, led[other].len()))
                        .collect();
                    Some((node, surplus(led[node].len(), &led[node], &others)?))
                }) {
                    led[from].retain(|one| *one != group);
                    led[to[0] as usize].push(group);
                    moves += 1;
                    assert!(moves <= groups, "{led:?}");
                }
                let counts: Vec<usize> = led.iter().map(Vec::len).collect();
                assert!(counts.iter().max().expect("a node") - counts.iter().min().expect("a node") <= 1, "{counts:?}");
            }
        }
    }
}
