//! One Raft group on this node: proposing, reading linearizably, knowing who leads.

mod everywhere;
mod leaving;
mod members;
mod reads;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use openraft::{Raft, async_runtime::watch::WatchReceiver, errors::ClientWriteError};
use tokio::time::Instant;

use super::{
    config::{self, ELECTION_MAX_MS},
    log::LogStore,
    machine::{Machine, WaitDurable},
    network::Network,
    node::Fail,
    peer::CallError,
    peers::Peers,
    types::{Proposal, TypeConfig, Waiter, WriteResult, log_id},
    view_lease::{Granted, Held},
    wait::{Answer, ProposeError, Wait},
    wire::{self, Fault, Kind},
};
use crate::{
    model::{GroupId, NodeId, NodeInfo, Reply},
    platform::lease_clock_ns,
    state::State,
    wal::Wal,
};

/// A leader trusts its leadership for this long after it asked a quorum that answered: the leader lease less a bound on
/// the drift of two clocks over it.
pub(super) const LEADER_TRUST: Duration = Duration::from_millis(ELECTION_MAX_MS - 60);
/// A voter that has answered a leader elects nobody else for so long.
const PROMISE: Duration = Duration::from_millis(ELECTION_MAX_MS);
/// A follower counts as in contact for this long after the leader's last message.
const CONTACT_LEASE: Duration = Duration::from_millis(1_000);
/// An election that follows a hand-over comes within this, however late its messages are.
const HANDED: Duration = Duration::from_secs(10);
/// Pause before a proposal is tried again elsewhere.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// Who waits for a leader's answer looks this often whether it still leads.
const LEADER_LOOK: Duration = Duration::from_millis(50);
/// One attempt to learn a read's index: answered from memory and a round of heartbeats.
const READ_ATTEMPT: Duration = Duration::from_secs(1);

/// A group's replica here.
pub(crate) struct Group {
    id: GroupId,
    me: NodeId,
    raft: Raft<TypeConfig, Machine>,
    state: Arc<State>,
    peers: Arc<Peers>,
    started: Instant,
    /// Newest entry that is applied here and that all who listen have been told of.
    in_force: Arc<AtomicU64>,
    /// Milliseconds after `started` (plus one; 0 for never) when the leader was last heard of.
    contact_ms: AtomicU64,
    /// Lease clock until which this node is in fresh contact with the quorum.
    contact_until_ns: AtomicU64,
    /// Lease clock from which and until which this replica's view may be trusted.
    view_from_ns: AtomicU64,
    view_until_ns: AtomicU64,
    held: Mutex<Held>,
    /// Lease clock until which the leader's word that it decides about units is taken.
    leader_decides_until_ns: AtomicU64,
    /// This node leads, and its view has all that its predecessors had committed.
    led: ArcSwapOption<Led>,
    /// On the leader, by member: when a lease on its view was last granted.
    grants: Mutex<BTreeMap<u64, Granted>>,
    /// On the leader: members that are to go, and the lease clock since which they get no lease of any kind.
    leaving: Mutex<BTreeMap<u64, u64>>,
    /// The confirmed leader says that this node is no member.
    is_stranger: AtomicBool,
    /// Leaderships that this node has seen begin, anybody's.
    leaderships: AtomicU64,
    /// This node gives its leadership away and grants nothing any more.
    handing_over: AtomicBool,
    /// This node leads, its quorum does not answer, and it says nothing so that the others elect.
    quiet: AtomicBool,
    /// It had been part of a cluster when it started: it may have promised a leader its lease.
    was_member: bool,
    /// Milliseconds after `started` (plus one; 0 for never) when a leader last handed its leadership to this node.
    handed_ms: AtomicU64,
    /// This node leads and may grant.
    granting: ArcSwapOption<Granting>,
}

/// A leadership that was confirmed by a quorum and has applied what came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Led {
    term: u64,
    /// Lease clock when that was found.
    since_ns: u64,
}

/// A leadership that has waited out its predecessor's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granting {
    pub(crate) term: u64,
    /// Lease clock when it began to be used.
    pub(crate) since_ns: u64,
    /// The group's first leadership: nobody can have granted before.
    pub(crate) first: bool,
}

impl Group {
    pub(super) async fn start(
        id: GroupId,
        me: NodeId,
        wal: Wal,
        state: Arc<State>,
        peers: Arc<Peers>,
        wait_durable: WaitDurable,
        failed: Fail,
    ) -> io::Result<Arc<Self>> {
        let config = Arc::new(config::of(id).validate().map_err(io::Error::other)?);
        let in_force = Arc::new(AtomicU64::new(state.applied().last.map_or(0, |last| last.index)));
        let machine = Machine::new(Arc::clone(&state), Arc::clone(&in_force), wait_durable, failed);
        let network = Network { group: id, peers: Arc::clone(&peers), state: Arc::clone(&state) };
        let raft = Raft::new(me.0, config, network, LogStore::new(wal, id), machine).await.map_err(io::Error::other)?;
        let was_member = raft.is_initialized().await.map_err(io::Error::other)?;
        // `watch` lets it, when it may.
        raft.runtime_config().elect(!was_member);
        Ok(Arc::new(Self {
            id,
            me,
            raft,
            state,
            peers,
            started: Instant::now(),
            in_force,
            contact_ms: AtomicU64::new(0),
            contact_until_ns: AtomicU64::new(0),
            view_from_ns: AtomicU64::new(0),
            view_until_ns: AtomicU64::new(0),
            held: Mutex::default(),
            leader_decides_until_ns: AtomicU64::new(0),
            led: ArcSwapOption::empty(),
            grants: Mutex::default(),
            leaving: Mutex::default(),
            is_stranger: AtomicBool::new(false),
            leaderships: AtomicU64::new(0),
            handing_over: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            was_member,
            handed_ms: AtomicU64::new(0),
            granting: ArcSwapOption::empty(),
        }))
    }

    pub(crate) fn id(&self) -> GroupId {
        self.id
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    pub(super) fn raft(&self) -> &Raft<TypeConfig, Machine> {
        &self.raft
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The leader was heard of.
    pub(super) fn heard(&self) {
        self.contact_ms.store(self.now_ms() + 1, Ordering::Relaxed);
    }

    /// A leader hands its leadership over, to this node or by its vote.
    pub(super) fn handed(&self) {
        self.handed_ms.store(self.now_ms() + 1, Ordering::Relaxed);
    }

    /// Whether that was within so long: voters do not wait for the end of a lease that is handed over.
    fn was_handed(&self, within: Duration) -> bool {
        let at = self.handed_ms.load(Ordering::Relaxed);
        at != 0 && Duration::from_millis(self.now_ms() + 1 - at) < within
    }

    /// Whether this node may vote in an election that no leader has asked for. What it had promised a leader before it was
    /// restarted is forgotten, and what it had promised one that hands over is ended for its successor alone: it keeps to
    /// both by waiting for as long as a promise holds.
    pub(super) fn may_vote(&self, voters: usize) -> bool {
        let kept = self.promised_nothing(voters) || self.started.elapsed() >= PROMISE;
        kept && !self.was_handed(PROMISE)
    }

    /// No leader has a promise of this node from before its start: it was in no cluster, or the only voter.
    fn promised_nothing(&self, voters: usize) -> bool {
        !self.was_member || voters == 1
    }

    /// Newest entry that this node acts on.
    fn in_force(&self) -> u64 {
        self.in_force.load(Ordering::SeqCst)
    }

    /// Whether the quorum was in contact a moment ago.
    pub(crate) fn is_in_contact(&self) -> bool {
        self.is_in_contact_at(lease_clock_ns())
    }

    fn is_in_contact_at(&self, now_ns: u64) -> bool {
        now_ns < self.contact_until_ns.load(Ordering::SeqCst) || self.is_its_own_quorum()
    }

    /// Lease clock until which this replica's view may be trusted; what is looked up after this call is part of that view.
    pub(crate) fn view_until_ns(&self) -> u64 {
        self.view_until_ns.load(Ordering::SeqCst)
    }

    /// Whether this replica's view may be trusted now.
    pub(crate) fn has_view_lease(&self) -> bool {
        lease_clock_ns() < self.view_until_ns()
    }

    /// Age of this replica's view: all that was answered so long ago is in it.
    pub(crate) fn staleness(&self) -> Duration {
        match self.view_from_ns.load(Ordering::SeqCst) {
            0 => self.started.elapsed(),
            from => Duration::from_nanos(lease_clock_ns().saturating_sub(from)),
        }
    }

    /// Whether whoever leads decides about units, as far as this node knows.
    pub(crate) fn is_decided(&self) -> bool {
        let now_ns = lease_clock_ns();
        self.granting(now_ns).is_some() || now_ns < self.leader_decides_until_ns.load(Ordering::Relaxed)
    }

    /// The leader that this node knows of.
    pub(crate) fn leader(&self) -> Option<(NodeId, NodeInfo)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let id = metrics.current_leader?;
        let info = metrics.membership_config.membership().get_node(&id)?.clone();
        Some((NodeId(id), info))
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// This node leads, has waited out its predecessor, and was confirmed by a quorum a moment ago.
    pub(crate) fn granting(&self, now_ns: u64) -> Option<Granting> {
        let granting = **self.granting.load().as_ref()?;
        self.is_in_contact_at(now_ns).then_some(granting)
    }

    /// Stops granting, until leadership is won anew or the handing over is given up.
    pub(super) fn hand_over(&self, begins: bool) {
        self.handing_over.store(begins, Ordering::SeqCst);
        if begins {
            self.granting.store(None);
        }
    }

    fn is_handing_over(&self) -> bool {
        self.handing_over.load(Ordering::SeqCst)
    }

    /// Proposes a command wherever the leader is.
    ///
    /// `repeatable`: landing twice does no harm (the state tells repeats apart), so it is tried again also when its fate is
    /// unknown.
    pub(crate) async fn propose(
        &self,
        command: &Bytes,
        wait: Wait,
        repeatable: bool,
        deadline: Duration,
    ) -> Result<Reply, ProposeError> {
        self.propose_and_tell(command, wait, repeatable, deadline).await.map(|answer| answer.reply)
    }

    /// As [`Group::propose`]; also tells how the wait went.
    pub(crate) async fn propose_and_tell(
        &self,
        command: &Bytes,
        wait: Wait,
        repeatable: bool,
        deadline: Duration,
    ) -> Result<Answer, ProposeError> {
        let until = Instant::now() + deadline;
        let mut last = ProposeError::NotDone("no leader".into());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(last);
            }
            let error = match self.leader() {
                Some((id, _)) if id == self.me => {
                    match tokio::time::timeout(left, self.propose_here(command.clone(), wait)).await {
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(fault)) => CallError::Fault(fault),
                        Err(_) => CallError::Fault(Fault::Unknown("not committed in time".into())),
                    }
                }
                Some((id, info)) => {
                    let peer = self.peers.peer(id, &info.peer_addr);
                    let head = wire::propose_head(self.id, wait as u8);
                    let asking = peer.call_parts(Kind::Propose, [head, command.clone()], left);
                    let asked = if repeatable { self.while_led_by(id, &info, asking).await } else { asking.await };
                    match asked {
                        Ok(body) => {
                            return Answer::decode(&body).map_err(|fault| ProposeError::Unknown(fault.to_string()));
                        }
                        Err(error) => error,
                    }
                }
                None => CallError::Fault(Fault::NotLeader(None)),
            };
            last = match (&error, &last) {
                (error, _) if error.may_have_happened() => ProposeError::Unknown(error.to_string()),
                // Once its fate is unknown, a later certain failure does not make it known.
                (_, ProposeError::Unknown(_)) => last,
                (error, _) => ProposeError::NotDone(error.to_string()),
            };
            if error.may_have_happened() && !repeatable {
                return Err(last);
            }
            tokio::time::sleep(RETRY_PAUSE.min(left)).await;
        }
    }

    /// Waits for a leader's answer for as long as no other leads: one that is cut off does not answer, and what may be
    /// asked again need not wait for it.
    pub(super) async fn while_led_by<T>(
        &self,
        id: NodeId,
        info: &NodeInfo,
        asking: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let mut asking = pin!(asking);
        loop {
            match tokio::time::timeout(LEADER_LOOK, asking.as_mut()).await {
                Ok(answer) => return answer,
                Err(_) if self.leader().is_some_and(|(leader, _)| leader != id) => {
                    let (addr, error) = (info.peer_addr.clone(), "another node leads by now".into());
                    return Err(CallError::Lost { addr, error });
                }
                Err(_) => {}
            }
        }
    }

    /// Proposes a command on this node, which must lead.
    pub(super) async fn propose_here(&self, command: Bytes, wait: Wait) -> Result<Answer, Fault> {
        let (waiter, committed, complete) = Waiter::pair();
        self.raft.write(Proposal(command)).responder(waiter).await.map_err(|error| Fault::Failed(error.to_string()))?;
        if wait == Wait::Committed && committed.await.is_ok() {
            return Ok(Reply::Done.into());
        }
        let result: WriteResult =
            complete.await.map_err(|_| Fault::Unknown("this node stopped before the answer".into()))?;
        match result {
            Ok(response) => {
                let everywhere = if wait == Wait::Everywhere && matches!(response.data, Reply::Written(_)) {
                    let at = log_id(&response.log_id);
                    Some(self.wait_everywhere(at.term, at.index).await)
                } else {
                    None
                };
                Ok(Answer { reply: response.data, everywhere })
            }
            Err(ClientWriteError::ForwardToLeader(to)) => Err(Fault::NotLeader(to.leader_id)),
            Err(ClientWriteError::LogEntryDiscarded(_)) => {
                Err(Fault::Unknown("the leader changed before the commit".into()))
            }
            Err(error) => Err(Fault::Failed(error.to_string())),
        }
    }

    /// Why Raft stopped here; none while it runs.
    pub(super) fn fatal(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    /// Members by id, and whether each votes.
    pub(crate) fn members(&self) -> BTreeMap<u64, (NodeInfo, bool)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.membership_config;
        let voters: BTreeSet<u64> = stored.voter_ids().collect();
        stored.nodes().map(|(id, info)| (*id, (info.clone(), voters.contains(id)))).collect()
    }

    /// Voters of the group, as far as this node knows.
    pub(super) fn voters(&self) -> usize {
        self.raft.metrics().borrow_watched().membership_config.voter_ids().count()
    }

    /// Whether this replica has ever been part of a cluster.
    pub(super) async fn is_initialized(&self) -> bool {
        self.raft.is_initialized().await.unwrap_or(false)
    }

    /// Term, last index, committed index, applied index, and (on the leader) each follower's matched index.
    pub(crate) fn progress(&self) -> Progress {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        Progress {
            term: metrics.current_term,
            last: metrics.last_log_index.unwrap_or(0),
            committed: metrics.local_committed.map_or(0, |id| id.index),
            applied: metrics.last_applied.map_or(0, |id| id.index),
            matched: metrics
                .replication
                .iter()
                .flatten()
                .map(|(id, matched)| (*id, matched.map_or(0, |id| id.index)))
                .collect(),
        }
    }
}

/// Numbers of a group for operators.
pub(crate) struct Progress {
    pub(crate) term: u64,
    pub(crate) last: u64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
    pub(crate) matched: BTreeMap<u64, u64>,
}
