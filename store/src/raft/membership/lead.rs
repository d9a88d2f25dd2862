//! On the leader of group 0: brings the membership to what it should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    CatchUp, MemberNow, TICK,
    plan::{Seen, plan},
};
use crate::raft::node::Node;

/// A member that has said nothing for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(2);
/// A learner that this leader has not heard for so long goes: a gateway that was scaled away, most likely. It comes back with
/// an empty directory.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3_600);

/// When a member was last heard, or looked for at first.
struct Heard {
    at: Instant,
    said: bool,
}

/// Runs as long as the node does; acts while it leads.
pub(in crate::raft) async fn lead(node: Arc<Node>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut heard, mut catch_up) = (BTreeMap::new(), CatchUp::default());
    loop {
        tick.tick().await;
        if node.is_stopping() {
            return;
        }
        if node.meta().leads().is_none() {
            (heard, catch_up) = Default::default();
            node.asked_to_go.lock().unwrap_or_else(PoisonError::into_inner).clear();
            continue;
        }
        if let Err(error) = step(&node, &mut heard, &mut catch_up).await {
            tracing::debug!(%error, "change the membership");
        }
    }
}

async fn step(node: &Node, heard: &mut BTreeMap<u64, Heard>, catch_up: &mut CatchUp) -> Result<(), String> {
    let meta = node.meta();
    if let Some(voters) = meta.unfinished_change() {
        return meta.set_voters(voters).await;
    }
    let now = node.members_now().await;
    let caught_up = catch_up.look(meta);
    for member in now.iter() {
        // Whom it has never heard counts as silent since then, and as dead all the same.
        let begun = || Heard { at: Instant::now(), said: false };
        let heard = heard.entry(member.id.0).or_insert_with(begun);
        if member.status.is_some() {
            *heard = Heard { at: Instant::now(), said: true };
        }
    }
    heard.retain(|id, _| now.iter().any(|member| member.id.0 == *id));
    let seen: Vec<Seen> = now.iter().map(|member| see(node, member, heard, &caught_up)).collect();
    let asked = node.asked_to_go.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let plan = plan(&seen, &asked);
    meta.bar_only(&plan.leave);
    let voters: BTreeSet<u64> = now.iter().filter(|member| member.voter).map(|member| member.id.0).collect();
    if plan.voters != voters && !plan.voters.is_empty() {
        meta.set_voters(plan.voters.clone()).await?;
        let names = |ids: &BTreeSet<u64>| -> Vec<String> {
            now.iter().filter(|member| ids.contains(&member.id.0)).map(|member| member.info.to_string()).collect()
        };
        tracing::info!(voters = ?names(&plan.voters), before = ?names(&voters), "the cluster's voters have changed");
    }
    for id in plan.leave {
        if meta.let_go(id).await? {
            let left = now.iter().find(|member| member.id.0 == id);
            tracing::info!(node = left.map(|member| member.info.to_string()), "a node has left the cluster");
            node.asked_to_go.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }
    Ok(())
}

fn see(node: &Node, member: &MemberNow, heard: &BTreeMap<u64, Heard>, caught_up: impl Fn(u64) -> bool) -> Seen {
    let leader = member.id == node.me();
    let last = heard.get(&member.id.0);
    let wants = member.status.as_ref().map_or(0, |status| usize::from(status.voters));
    Seen {
        id: member.id.0,
        name: member.info.name.clone(),
        voter: member.voter,
        leader,
        live: leader || last.is_some_and(|last| last.said && last.at.elapsed() < SILENCE),
        forgotten: last.is_some_and(|last| last.at.elapsed() >= FORGOTTEN),
        caught_up: leader || caught_up(member.id.0),
        draining: member.status.as_ref().is_none_or(|status| status.draining),
        wants,
    }
}
