//! Slots on their way from one ledger group to another, moved by the leader of group 0 while the cluster is in use.
//!
//! What has to be done next follows from the placement alone, so the next leader goes on where one has died. Some slots at a
//! time are *closed*: once that is in force everywhere (the write barrier, P3), no node lets a request of theirs through, and
//! requests wait. Then every node gives back what it holds of them; requests in flight that hold concurrency units are waited
//! for. Then the new group takes the counters over, and the slots are *opened* there. When that cannot be done soon, they are
//! opened where they were, and it is tried again later. Drawn in `store/README.md`.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use minicbor::{Decode, Encode};
use tokio::time::Instant;

use super::{
    membership::{MemberNow, OperateError},
    node::Node,
    version::{MOVES_SLOTS, Spoken},
    wait::{ProposeError, Wait},
    wire::{self, Kind},
};
use crate::{
    model::{
        Carried, ColdCommand, Command, FirstVoter, GroupId, MAX_LEDGER_GROUPS, MetaWrite, Moving, NodeId, Placement,
        Reply, Revision,
    },
    platform::{self, planted},
};

/// How often it is looked whether there is something to move.
const TICK: Duration = Duration::from_millis(100);
/// Longest that slots stay closed for what is in flight.
const DRAIN_WITHIN: Duration = Duration::from_millis(1_500);
/// For requests that hold quota units and no concurrency unit, slots stay closed no longer than this: what these have not
/// settled then stays unsettled in the new group.
const SETTLE_WITHIN: Duration = Duration::from_millis(250);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A node says within this whether it is quiet.
const QUIET_DEADLINE: Duration = Duration::from_millis(500);
/// While somebody is not there.
const UNTIL_THERE: Duration = Duration::from_millis(500);
/// After a move that could not be made.
const AFTER_FAILURE: Duration = Duration::from_secs(3);
/// The barrier waits for leases that have to run out.
const EVERYWHERE: Duration = Duration::from_secs(6);
const DEADLINE: Duration = Duration::from_secs(2);
/// Counters in one entry.
const CARRIED_AT_ONCE: usize = 1_000;

/// A question of `Kind::Quiet`.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(crate) struct Quiet {
    /// The placement that closed them.
    #[n(0)]
    pub(crate) epoch: Revision,
    #[n(1)]
    pub(crate) moving: Moving,
    /// Requests with quota units are waited for too, so that their rows settle them before the counters are carried.
    #[n(2)]
    #[cbor(default)]
    pub(crate) settles: bool,
}

/// What became of a step; it is found again from the placement.
enum Step {
    Made,
    /// Nothing is left to do.
    Last,
    /// Nothing was closed: somebody is not there.
    NotYet(String),
}

/// Why a step was not made.
type Failed = String;

/// Runs as long as the node does; acts on the confirmed leader of group 0.
pub(super) async fn run(node: Arc<Node>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !node.is_stopping() {
        tick.tick().await;
        while node.meta().leads().is_some() && !node.is_stopping() {
            let Some(placement) = node.meta().state().placement().filter(|one| one.goal > 0 || one.moving.is_some())
            else {
                break;
            };
            let made = step(&node, &placement).await;
            node.slots_wait(match &made {
                Ok(Step::Made | Step::Last) => None,
                Ok(Step::NotYet(why)) | Err(why) => Some(why),
            });
            match made {
                Ok(Step::Made) => {}
                Ok(Step::Last) => break,
                Ok(Step::NotYet(why)) => {
                    tracing::debug!(%why, "slots stay where they are for now");
                    tokio::time::sleep(UNTIL_THERE).await;
                }
                Err(why) => {
                    tracing::info!(%why, "slots stay where they are for now");
                    let is_closed = node.meta().state().placement().is_some_and(|one| one.moving.is_some());
                    tokio::time::sleep(if is_closed { TICK } else { AFTER_FAILURE }).await;
                }
            }
        }
        // Another one leads, or nothing is to be moved.
        node.slots_wait(None);
    }
}

/// The next step.
async fn step(node: &Node, placement: &Placement) -> Result<Step, Failed> {
    let (moving, epoch) = match placement.moving {
        // Closed by a leader that is gone, which may not have waited until that was in force everywhere.
        Some(moving) => {
            let entry = Command::from(ColdCommand::Meta(MetaWrite::default())).encode();
            let everywhere = node.meta().propose(&entry, Wait::Everywhere, true, EVERYWHERE).await;
            everywhere.map_err(|error| error.to_string())?;
            (moving, placement.epoch)
        }
        None => {
            let Some(moving) = placement.next_move() else {
                propose(node, placement.epoch, placement.settled(), Wait::Applied).await?;
                tracing::info!(groups = placement.groups(), "slots are spread over the ledger groups");
                return Ok(Step::Last);
            };
            if let Err(why) = are_there(node, &moving).await {
                return Ok(Step::NotYet(why));
            }
            (moving, propose(node, placement.epoch, placement.closed(moving), Wait::Everywhere).await?)
        }
    };
    let closed = placement.closed(moving);
    match hand_over(node, epoch, &moving).await {
        Ok(index) => {
            propose(node, epoch, closed.opened(index), Wait::Applied).await?;
            tracing::debug!(slots = ?moving.range(), from = %moving.from, to = %moving.to, "slots have moved");
            Ok(Step::Made)
        }
        Err(why) => {
            // If it is not known whether that landed, the next look at the placement says.
            propose(node, epoch, closed.reopened(), Wait::Applied).await?;
            Err(why)
        }
    }
}

/// Whether all members answer and have the new group, and both groups have a leader that commits: otherwise nothing is closed.
async fn are_there(node: &Node, moving: &Moving) -> Result<(), Failed> {
    let members = node.members_now().await;
    able(&members)?;
    if let Some(without) = members.iter().find(|member| !has_group(member, moving.to)) {
        return Err(format!("{} has not heard of a leader of the ledger group {} yet", without.info, moving.to));
    }
    for id in [moving.from, moving.to] {
        let group = node.replica(id).ok_or_else(|| format!("the ledger group {id} is not open here yet"))?;
        group.barrier(DEADLINE).await.map_err(|why| format!("the ledger group {id}: {why}"))?;
    }
    Ok(())
}

fn has_group(member: &MemberNow, id: GroupId) -> bool {
    let leaders = member.status.as_ref().map(|status| &status.leaders[..]).unwrap_or_default();
    leaders.iter().any(|leader| leader.group == id)
}

/// Takes closed slots out of their group and into the new one; says up to which entry the old one had something of them.
async fn hand_over(node: &Node, epoch: Revision, moving: &Moving) -> Result<u64, Failed> {
    let closed = Instant::now();
    loop {
        let settles = closed.elapsed() < SETTLE_WITHIN;
        let Some(busy) = busy(node, Quiet { epoch, moving: *moving, settles }).await else { break };
        if closed.elapsed() > DRAIN_WITHIN {
            return Err(format!("requests in flight on {busy} did not end, or it did not answer"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let open = |id: GroupId| node.replica(id).ok_or_else(|| format!("the ledger group {id} is not open here"));
    let (from, to) = (open(moving.from)?, open(moving.to)?);
    // Nothing of these slots can be spent in the old group any more: what this replica has now is all there will be.
    from.barrier(DEADLINE).await?;
    let state = Arc::clone(from.state());
    let slots = moving.range();
    let carried = platform::blocking(move || {
        let index = state.applied().last.map_or(0, |last| last.index);
        Ok::<_, crate::state::ReadError>((index, state.carried(&slots)?))
    });
    let carried = carried.await.map_err(|error| error.to_string())?;
    let (index, mut carried): (u64, Vec<Carried>) = carried.map_err(|error| error.to_string())?;
    if planted!(MovesWithoutCounters) {
        carried.clear();
    }
    // Also when there is nothing: then the group's log is not empty, and no later leader takes it for new.
    let mut parts: Vec<Vec<Carried>> = carried.chunks(CARRIED_AT_ONCE).map(<[Carried]>::to_vec).collect();
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    for part in parts {
        let command = Command::from(ColdCommand::TakeOver(part)).encode();
        match to.propose(&command, Wait::Applied, true, DEADLINE).await {
            Ok(Reply::Done) => {}
            Ok(reply) => return Err(format!("unexpected reply to a take-over: {reply:?}")),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(index)
}

/// A member that still holds something of the slots, or does not answer; none when nobody does.
async fn busy(node: &Node, quiet: Quiet) -> Option<String> {
    let body = wire::cbor(&quiet);
    let asked = node.meta().members().into_iter().map(|(id, (info, _))| {
        let body = body.clone();
        async move {
            let is_quiet = if NodeId(id) == node.me() {
                node.is_quiet(quiet).await
            } else {
                let peer = node.peers().peer(NodeId(id), &info.peer_addr);
                let answer = peer.call(Kind::Quiet, body, QUIET_DEADLINE).await;
                answer.ok().and_then(|body| wire::from_cbor(&body).ok()).unwrap_or(false)
            };
            (!is_quiet).then(|| info.to_string())
        }
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().next()
}

/// Makes a placement the one in force, if the one before is the one that it was made of; says its epoch.
async fn propose(node: &Node, expect: Revision, placement: Placement, wait: Wait) -> Result<Revision, Failed> {
    let deadline = if wait == Wait::Everywhere { EVERYWHERE } else { DEADLINE };
    let command = Command::from(ColdCommand::Move { expect, placement }).encode();
    // Landing twice does no harm: the second one finds another epoch. But then its reply is a refusal.
    match node.meta().propose(&command, wait, false, deadline).await {
        Ok(Reply::Written(epoch)) => Ok(epoch),
        Ok(Reply::Refused(why)) => Err(why.to_string()),
        Ok(reply) => Err(format!("unexpected reply to a placement: {reply:?}")),
        Err(ProposeError::NotDone(why) | ProposeError::Unknown(why)) => Err(why),
    }
}

/// Whether all members are there and of builds that can move slots.
fn able(members: &[MemberNow]) -> Result<(), Failed> {
    if let Some(silent) = members.iter().find(|member| member.status.is_none()) {
        return Err(format!("{} does not answer", silent.info));
    }
    older_build(members).map_or(Ok(()), Err)
}

/// Says which member's build knows nothing of several ledger groups.
pub(super) fn older_build(members: &[MemberNow]) -> Option<String> {
    let is_older = |member: &&MemberNow| {
        member.status.as_ref().is_some_and(|status| status.spoken.unwrap_or(Spoken::FIRST).newest < MOVES_SLOTS)
    };
    let older = members.iter().find(is_older)?;
    Some(format!("{} is of a build that cannot move slots: upgrade it first", older.info))
}

impl Node {
    /// Whether this node acts on these slots being closed, and holds nothing of them any more.
    pub(super) async fn is_quiet(&self, quiet: Quiet) -> bool {
        match self.quieten.get() {
            Some(quieten) => quieten(quiet).await,
            None => false,
        }
    }

    /// Says in this node's status why slots that are to move do not.
    fn slots_wait(&self, why: Option<&String>) {
        *self.slots_wait_for.lock().unwrap_or_else(PoisonError::into_inner) = why.cloned();
    }

    /// Adds ledger groups until there are so many, and begins to spread the slots over them.
    pub(crate) async fn split(&self, groups: u32) -> Result<(), OperateError> {
        let refused = |why: String| OperateError::Refused(why);
        let meta = self.meta();
        loop {
            meta.barrier(DEADLINE).await.map_err(OperateError::Unavailable)?;
            let placement = meta.state().placement();
            let old = placement.map_or_else(|| Placement::even(1, &[]), |placement| Placement::clone(&placement));
            if old.goal > 0 && old.goal == groups {
                return Ok(());
            }
            may_grow(&old, groups).map_err(refused)?;
            able(&self.members_now().await).map_err(refused)?;
            let voters: Vec<FirstVoter> = meta
                .members()
                .into_iter()
                .filter(|(_, (_, votes))| *votes)
                .map(|(id, (info, _))| FirstVoter { id: NodeId(id), info })
                .collect();
            let Err(why) = propose(self, old.epoch, old.grown(groups, &voters), Wait::Everywhere).await else {
                return Ok(());
            };
            // Somebody else's came first: what that says decides.
            meta.barrier(DEADLINE).await.map_err(OperateError::Unavailable)?;
            if meta.state().placement().map_or(0, |placement| placement.epoch) == old.epoch {
                return Err(OperateError::Unavailable(why));
            }
        }
    }
}

/// Why a placement cannot get so many ledger groups.
fn may_grow(old: &Placement, groups: u32) -> Result<(), String> {
    if groups > MAX_LEDGER_GROUPS {
        return Err(format!("a cluster has at most {MAX_LEDGER_GROUPS} ledger groups"));
    }
    if old.goal > 0 {
        return Err(format!("slots are being spread over {} ledger groups already: wait until they are", old.goal));
    }
    if groups <= old.groups() {
        let has = old.groups();
        return Err(format!("the cluster has {has} ledger groups already, and groups are never taken away"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::NodeInfo,
        raft::status::{Leader, Status},
    };

    fn member(name: &str, status: Option<Status>) -> MemberNow {
        let info = NodeInfo { name: name.into(), ..NodeInfo::default() };
        MemberNow { id: NodeId(1), info, voter: true, status, silent: None }
    }

    fn status(newest: u16) -> Status {
        let leaders = vec![Leader { group: GroupId::LEDGER, info: NodeInfo::default() }];
        Status { spoken: Some(Spoken { oldest: 1, newest }), leaders, ..Status::default() }
    }

    #[test]
    fn nothing_moves_while_a_member_is_silent_or_of_an_older_build() {
        let new = || member("new", Some(status(MOVES_SLOTS)));
        assert_eq!(able(&[new(), new()]), Ok(()));
        let why = able(&[new(), member("old", Some(status(MOVES_SLOTS - 1)))]).expect_err("an older build");
        assert!(why.contains("old") && why.contains("upgrade it first"), "{why}");
        let why = able(&[member("gone", None), new()]).expect_err("nobody there");
        assert!(why.contains("gone") && why.contains("does not answer"), "{why}");
        assert!(has_group(&new(), GroupId::LEDGER) && !has_group(&new(), GroupId(2)));
        assert!(!has_group(&member("gone", None), GroupId::LEDGER));
    }

    #[test]
    fn groups_are_added_one_split_at_a_time_and_never_taken_away() {
        let why = |old: &Placement, groups| may_grow(old, groups).expect_err("refused");
        let one = Placement::even(1, &[]);
        assert_eq!(may_grow(&one, MAX_LEDGER_GROUPS), Ok(()));
        assert!(why(&one, MAX_LEDGER_GROUPS + 1).contains("at most 16"));
        assert!(why(&one, 1).contains("has 1 ledger groups already"));
        let three = one.grown(3, &[FirstVoter { id: NodeId(1), info: NodeInfo::default() }]);
        assert!(why(&three, 4).contains("over 3 ledger groups already"));
        let settled = three.settled();
        assert_eq!(may_grow(&settled, 4), Ok(()));
        assert!(why(&settled, 2).contains("never taken away") && why(&settled, 3).contains("never taken away"));
    }

    /// The first builds did not say what they speak.
    #[test]
    fn a_build_that_says_nothing_of_versions_cannot_move_slots() {
        let silent = Status { spoken: None, ..status(MOVES_SLOTS) };
        assert!(older_build(&[member("old", Some(silent))]).is_some_and(|why| why.contains("old")));
        assert_eq!(older_build(&[member("new", Some(status(MOVES_SLOTS))), member("gone", None)]), None);
        let ours = Status { spoken: Some(Spoken::OURS), ..status(1) };
        assert_eq!(older_build(&[member("ours", Some(ours))]), None);
    }
}
