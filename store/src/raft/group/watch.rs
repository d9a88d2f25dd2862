//! What a replica knows of its leadership, of its contact and of its view, kept up to date by two loops.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use openraft::{Instant as _, ReadPolicy, ServerState, async_runtime::watch::WatchReceiver};
use tokio::time::Instant;

use super::{CONTACT_LEASE, Granting, Group, HANDED, LEADER_TRUST, Led, PROMISE};
use crate::{
    model::{NodeId, NodeInfo},
    platform::lease_clock_ns,
    raft::{
        config::ELECTION_MAX_MS,
        peer::CallError,
        view_lease::{Granted, RENEWAL, Trust, VIEW_LEASE, ViewAsk, ViewGrant, ns},
        wire::{self, Fault, Kind},
    },
};

/// How often leadership and contact are looked at.
const WATCH_TICK: Duration = Duration::from_millis(20);
/// Pause before a lease that was not granted, or by a leader that does not decide yet, is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// An ask is answered from memory; longer means that the leader is gone.
const ASK_DEADLINE: Duration = Duration::from_millis(500);

/// A leader that its quorum has not answered for so long says nothing for [`QUIET`], and is heard again for as long, in turns:
/// whom its followers hear and cannot answer (a link that works one way) must not keep them from electing another. Long
/// enough that no stalled disk or machine makes it so.
const QUORUM_LOST: Duration = Duration::from_millis(1_500);
/// Longer than the followers' wait for a leader.
const QUIET: Duration = Duration::from_millis(3 * ELECTION_MAX_MS);
/// Nodes that were started together ask for votes within this.
const CAMPAIGNS_APART_MS: u64 = 200;
/// A look that comes so much too late tells that this process stood still: the silence meanwhile was its own.
const STOOD_STILL: Duration = Duration::from_millis(250);

/// A leadership of this node.
struct Leading {
    term: u64,
    since: Instant,
    /// Its voters may not have waited for the predecessor's lease to end.
    handed: bool,
}

impl Group {
    /// Keeps freshness and the right to grant up to date. Runs as long as the node does.
    pub(in crate::raft) async fn watch(self: Arc<Self>) {
        let mut tick = tokio::time::interval(WATCH_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut leading: Option<Leading> = None;
        let mut last_leader = None;
        // What its own quorum last let it trust; it outlives the leadership, as a successor waits for it like for any lease.
        let mut own: Option<Trust> = None;
        let mut campaigns = false;
        // Since when this process has run without standing still, and its last look.
        let (mut awake, mut looked) = (Instant::now(), Instant::now());
        loop {
            tick.tick().await;
            if looked.elapsed() >= STOOD_STILL {
                awake = Instant::now();
            }
            looked = Instant::now();
            let (term, leader, is_leader, acked, voters, members, stopped) = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow_watched();
                (
                    metrics.current_term,
                    metrics.current_leader,
                    metrics.state == ServerState::Leader,
                    metrics.last_quorum_acked.map(|at| at.elapsed()),
                    metrics.membership_config.voter_ids().count(),
                    metrics.membership_config.nodes().count(),
                    metrics.running_state.is_err(),
                )
            };
            if leader.is_some() && last_leader != Some((term, leader)) {
                last_leader = Some((term, leader));
                self.leaderships.fetch_add(1, Ordering::Relaxed);
            }
            let now_ns = lease_clock_ns();
            if !campaigns && self.may_campaign(voters) {
                campaigns = true;
                self.raft.runtime_config().elect(true);
            }
            if stopped {
                self.contact_until_ns.store(0, Ordering::SeqCst);
                self.trust_view(Trust::default());
                self.led.store(None);
                self.granting.store(None);
                return;
            }
            let led = leading.as_ref().filter(|leading| is_leader && leading.term == term);
            let unanswered = led.map_or(Duration::ZERO, |leading| {
                acked.unwrap_or(Duration::MAX).min(leading.since.elapsed()).min(awake.elapsed())
            });
            let quiet = is_quiet(unanswered, voters);
            if self.quiet.swap(quiet, Ordering::Relaxed) != quiet {
                self.raft.runtime_config().heartbeat(!quiet);
            }
            let held = self.held.lock().expect("no holder of this lock panics").fulfilled(self.in_force());
            if !is_leader {
                leading = None;
                self.led.store(None);
                self.granting.store(None);
                self.hand_over(false);
                self.bar_only(&BTreeSet::new());
                let silent = match self.contact_ms.load(Ordering::Relaxed) {
                    0 => None,
                    at => Some(Duration::from_millis((self.now_ms() + 1).saturating_sub(at))),
                };
                // Who led until now was in contact: a hand-over is no reason to refuse requests.
                self.contact_until_ns.fetch_max(until(now_ns, silent, CONTACT_LEASE), Ordering::SeqCst);
                self.trust_view(own.max_by_end(held));
                continue;
            }
            let confirmed = if voters == 1 { Some(Duration::ZERO) } else { acked };
            // Just elected, by a quorum: what it had as a follower stands until that quorum has answered. Nothing that is only
            // the leader's to say depends on it before then (`led`).
            if confirmed.is_some() || self.led.load().is_some() {
                self.contact_until_ns.store(until(now_ns, confirmed, LEADER_TRUST), Ordering::SeqCst);
            }
            let Some(leading) = leading.as_ref().filter(|leading| leading.term == term) else {
                self.led.store(None);
                self.granting.store(None);
                leading = Some(Leading { term, since: Instant::now(), handed: self.was_handed(HANDED) });
                continue;
            };
            // What predecessors had committed must be applied here before this leadership is used.
            if self.led.load().is_none() {
                self.trust_view(own.max_by_end(held));
                if self.read_confirmed().await {
                    // Not before the election: what it grants from now on is waited for by whoever comes next.
                    self.led.store(Some(Arc::new(Led { term, since_ns: lease_clock_ns() })));
                }
                continue;
            }
            // The quorum that answered elects nobody else before its lease ends, and a successor waits for this view.
            own = confirmed.map(|ago| Trust::of(now_ns.saturating_sub(ns(ago)), VIEW_LEASE)).or(own);
            self.trust_view(own.max_by_end(held));
            // Each of its voters has elected it after the lease that it had promised the predecessor, which trusted itself for
            // less; but one that hands over is followed at once. (The only member has no predecessor: its process is dead, or
            // it would hold the data directory.)
            let waited = members == 1 || !leading.handed || leading.since.elapsed() >= PROMISE;
            if waited && self.granting.load().is_none() && !self.is_handing_over() {
                let granting = Granting { term, since_ns: lease_clock_ns(), first: term == 1 };
                self.granting.store(Some(Arc::new(granting)));
            }
        }
    }

    /// Whether this node may ask for votes. Nodes that were started together do so one after the other.
    fn may_campaign(&self, voters: usize) -> bool {
        let apart = Duration::from_millis(self.me.0 % CAMPAIGNS_APART_MS);
        self.may_vote(voters) && (self.promised_nothing(voters) || self.started.elapsed() >= PROMISE + apart)
    }

    /// How many leaderships this node has seen begin since it started.
    pub(crate) fn leaderships(&self) -> u64 {
        self.leaderships.load(Ordering::Relaxed)
    }

    fn trust_view(&self, trust: Trust) {
        self.view_from_ns.fetch_max(trust.from_ns, Ordering::SeqCst);
        self.view_until_ns.store(trust.until_ns, Ordering::SeqCst);
    }

    async fn read_confirmed(&self) -> bool {
        let reading = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        matches!(tokio::time::timeout(LEADER_TRUST, reading).await, Ok(Ok(_)))
    }

    /// Asks the leader for leases on this node's view. Runs as long as the node does.
    pub(in crate::raft) async fn keep_view_lease(self: Arc<Self>) {
        loop {
            let pause = match self.leader() {
                Some((id, info)) if id != self.me => self.ask_for_view_lease(id, &info).await,
                _ => ASK_AGAIN,
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask_for_view_lease(&self, leader: NodeId, info: &NodeInfo) -> Duration {
        let asked_ns = lease_clock_ns();
        let peer = self.peers.peer(leader, &info.peer_addr);
        let ask = wire::cbor(&ViewAsk { group: self.id, node: self.me, in_force: self.in_force() });
        let answer = peer.call(Kind::ViewLease, ask, ASK_DEADLINE).await;
        if matches!(answer, Err(CallError::Fault(Fault::NotMember))) {
            self.set_stranger(true);
        }
        let Some(grant) = answer.ok().and_then(|body| wire::from_cbor::<ViewGrant>(&body).ok()) else {
            self.leader_decides_until_ns.store(0, Ordering::Relaxed);
            return ASK_AGAIN;
        };
        self.set_stranger(false);
        self.held.lock().expect("no holder of this lock panics").granted(asked_ns, &grant);
        let until_ns = if grant.decides { asked_ns.saturating_add(ns(CONTACT_LEASE)) } else { 0 };
        self.leader_decides_until_ns.store(until_ns, Ordering::Relaxed);
        if grant.decides && grant.index.is_some() { RENEWAL } else { ASK_AGAIN }
    }

    /// On the leader: a lease on a member's view.
    pub(in crate::raft) fn grant_view_lease(&self, ask: &ViewAsk) -> Result<ViewGrant, Fault> {
        let now_ns = lease_clock_ns();
        if self.led.load().is_none() || now_ns >= self.contact_until_ns.load(Ordering::SeqCst) {
            return Err(Fault::NotLeader(None));
        }
        let Some((info, _)) = self.members().remove(&ask.node.0) else { return Err(Fault::NotMember) };
        if self.bars(ask.node.0) {
            return Err(Fault::Failed("this node is to leave the cluster".into()));
        }
        let mut grants = self.grants.lock().expect("no holder of this lock panics");
        let catches_up = grants.get(&ask.node.0).is_some_and(|last| ask.in_force < last.index);
        let index = (!catches_up).then(|| {
            let granted = grants.entry(ask.node.0).or_insert(Granted { info, at_ns: 0, index: 0 });
            granted.at_ns = now_ns;
            // After the note: a write that this index does not cover finds it.
            granted.index = self.in_force();
            granted.index
        });
        drop(grants);
        let lease_ms = u64::try_from(VIEW_LEASE.as_millis()).unwrap_or(u64::MAX);
        Ok(ViewGrant { index, lease_ms, decides: self.granting(now_ns).is_some() })
    }

    /// Whether this node leads and is the only voter: nobody else's word is needed, however late [`Group::watch`] comes to say so
    /// on a machine that is busy. What is read here knows of other voters before these can elect: they need this node's vote
    /// until it has committed, one step later, that they do not.
    pub(super) fn is_its_own_quorum(&self) -> bool {
        let Some(led) = self.led.load().as_deref().copied() else { return false };
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.is_ok()
            && metrics.state == ServerState::Leader
            && metrics.current_term == led.term
            && metrics.membership_config.voter_ids().eq([self.me.0])
    }
}

/// Whether a leader that its quorum has not answered for so long is to say nothing now.
fn is_quiet(unanswered: Duration, voters: usize) -> bool {
    let Some(lost) = unanswered.checked_sub(QUORUM_LOST) else { return false };
    voters > 1 && (lost.as_millis() / QUIET.as_millis()).is_multiple_of(2)
}

/// The longer of two trusts.
trait MaxByEnd {
    fn max_by_end(self, other: Option<Trust>) -> Trust;
}

impl MaxByEnd for Option<Trust> {
    fn max_by_end(self, other: Option<Trust>) -> Trust {
        self.into_iter().chain(other).max_by_key(|trust| trust.until_ns).unwrap_or_default()
    }
}

/// Until when something that happened `ago` is trusted for `lease`; 0 for never.
fn until(now_ns: u64, ago: Option<Duration>, lease: Duration) -> u64 {
    ago.map_or(0, |ago| now_ns.saturating_add(ns(lease)).saturating_sub(ns(ago)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_without_a_quorum_is_quiet_and_heard_in_turns() {
        let at = |ms| is_quiet(Duration::from_millis(ms), 3);
        assert_eq!(
            [0, 1_499, 1_500, 2_999, 3_000, 4_499, 4_500].map(at),
            [false, false, true, true, false, false, true]
        );
        assert!(!is_quiet(Duration::from_secs(2), 1), "it is its own quorum");
    }
}
