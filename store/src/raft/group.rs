//! One Raft group on this node: proposing, reading linearizably, knowing who leads.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use openraft::{
    Instant as _, Raft, ReadPolicy, ServerState,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
};
use tokio::time::Instant;

use super::{
    config::{self, ELECTION_MAX_MS},
    log::LogStore,
    machine::{Machine, WaitDurable},
    network::Network,
    peer::CallError,
    peers::Peers,
    types::{Proposal, TypeConfig, Waiter, WriteResult},
    wait::{ProposeError, Wait},
    wire::{self, Fault, Kind},
};
use crate::{
    model::{GroupId, NodeId, NodeInfo, Reply},
    state::State,
    wal::Wal,
};

/// A leader trusts its leadership for this long after it asked a quorum that answered: the leader lease less a bound on
/// the drift of two clocks over it.
pub(super) const LEADER_TRUST: Duration = Duration::from_millis(ELECTION_MAX_MS - 60);
/// A follower counts as in contact for this long after the leader's last message.
const CONTACT_LEASE: Duration = Duration::from_millis(1_000);
/// How often leadership and contact are looked at.
const WATCH_TICK: Duration = Duration::from_millis(20);
/// A member that has not answered its leader for this long decides nothing by what it knows: its own contact lease, which
/// begins with a message of the leader's and so before the answer to it, has run out long before.
pub(crate) const VIEW_LEASE: Duration = Duration::from_secs(3);
/// Pause before a proposal is tried again elsewhere.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A group's replica here.
pub(crate) struct Group {
    id: GroupId,
    me: NodeId,
    raft: Raft<TypeConfig, Machine>,
    state: Arc<State>,
    peers: Arc<Peers>,
    started: Instant,
    /// Milliseconds after `started` (plus one; 0 for never) when the leader was last heard of.
    contact_ms: AtomicU64,
    /// Lease clock until which this node is in fresh contact with the quorum.
    fresh_until_ns: AtomicU64,
    /// This node leads and may grant.
    granting: ArcSwapOption<Granting>,
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

/// The lease clock: `CLOCK_BOOTTIME`, which neither stops nor jumps.
pub(crate) fn lease_clock_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

impl Group {
    pub(super) async fn start(
        id: GroupId,
        me: NodeId,
        wal: Wal,
        state: Arc<State>,
        peers: Arc<Peers>,
        wait_durable: WaitDurable,
        failed: Arc<dyn Fn(String) + Send + Sync>,
    ) -> io::Result<Arc<Self>> {
        let config = Arc::new(config::of(id).validate().map_err(io::Error::other)?);
        let machine = Machine::new(Arc::clone(&state), wait_durable, failed);
        let network = Network { group: id, peers: Arc::clone(&peers), state: Arc::clone(&state) };
        let raft = Raft::new(me.0, config, network, LogStore::new(wal, id), machine).await.map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            id,
            me,
            raft,
            state,
            peers,
            started: Instant::now(),
            contact_ms: AtomicU64::new(0),
            fresh_until_ns: AtomicU64::new(0),
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

    /// Whether the quorum was in contact a moment ago.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh_at(lease_clock_ns())
    }

    fn is_fresh_at(&self, now_ns: u64) -> bool {
        now_ns < self.fresh_until_ns.load(Ordering::Relaxed)
    }

    /// Time since this replica was known to be in contact with its leader.
    pub(crate) fn staleness(&self) -> Duration {
        if self.is_leader() {
            return Duration::ZERO;
        }
        match self.contact_ms.load(Ordering::Relaxed) {
            0 => self.started.elapsed(),
            at => Duration::from_millis((self.now_ms() + 1).saturating_sub(at)),
        }
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
        self.is_fresh_at(now_ns).then_some(granting)
    }

    /// Stops granting, until leadership is won anew.
    pub(super) fn stop_granting(&self) {
        self.granting.store(None);
    }

    /// Keeps freshness and the right to grant up to date. Runs as long as the node does.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut tick = tokio::time::interval(WATCH_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut leading: Option<(u64, Instant)> = None;
        loop {
            tick.tick().await;
            let (term, is_leader, acked, alone, stopped) = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow_watched();
                (
                    metrics.current_term,
                    metrics.state == ServerState::Leader,
                    metrics.last_quorum_acked.map(|at| at.elapsed()),
                    metrics.membership_config.voter_ids().count() == 1,
                    metrics.running_state.is_err(),
                )
            };
            let now_ns = lease_clock_ns();
            if stopped {
                self.fresh_until_ns.store(0, Ordering::Relaxed);
                self.granting.store(None);
                return;
            }
            if !is_leader {
                leading = None;
                self.granting.store(None);
                let silent = match self.contact_ms.load(Ordering::Relaxed) {
                    0 => None,
                    at => Some(Duration::from_millis((self.now_ms() + 1).saturating_sub(at))),
                };
                self.fresh_until_ns.store(until(now_ns, silent, CONTACT_LEASE), Ordering::Relaxed);
                continue;
            }
            let confirmed = if alone { Some(Duration::ZERO) } else { acked };
            self.fresh_until_ns.store(until(now_ns, confirmed, LEADER_TRUST), Ordering::Relaxed);
            match leading {
                Some((led, since)) if led == term => {
                    // A predecessor may have trusted its lease until now; and what it had committed must be applied here.
                    let waited = since.elapsed() >= Duration::from_millis(ELECTION_MAX_MS);
                    if waited && self.granting.load().is_none() && self.read_confirmed().await {
                        let granting = Granting { term, since_ns: lease_clock_ns(), first: term == 1 };
                        self.granting.store(Some(Arc::new(granting)));
                    }
                }
                _ => {
                    self.granting.store(None);
                    leading = Some((term, Instant::now()));
                }
            }
        }
    }

    async fn read_confirmed(&self) -> bool {
        let reading = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        matches!(tokio::time::timeout(LEADER_TRUST, reading).await, Ok(Ok(_)))
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
                        Ok(Ok(reply)) => return Ok(reply),
                        Ok(Err(fault)) => CallError::Fault(fault),
                        Err(_) => CallError::Fault(Fault::Unknown("not committed in time".into())),
                    }
                }
                Some((id, info)) => {
                    let peer = self.peers.peer(id, &info.peer_addr);
                    let head = wire::propose_head(self.id, wait as u8);
                    match peer.call_parts(Kind::Propose, [head, command.clone()], left).await {
                        Ok(body) => {
                            return wire::from_cbor(&body).map_err(|fault| ProposeError::Unknown(fault.to_string()));
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

    /// Proposes a command on this node, which must lead.
    pub(super) async fn propose_here(&self, command: Bytes, wait: Wait) -> Result<Reply, Fault> {
        let (waiter, committed, complete) = Waiter::pair();
        self.raft.write(Proposal(command)).responder(waiter).await.map_err(|error| Fault::Failed(error.to_string()))?;
        if wait == Wait::Committed && committed.await.is_ok() {
            return Ok(Reply::Done);
        }
        let result: WriteResult =
            complete.await.map_err(|_| Fault::Unknown("this node stopped before the answer".into()))?;
        match result {
            Ok(response) => {
                if wait == Wait::Everywhere && matches!(response.data, Reply::Written(_)) {
                    self.wait_everywhere(response.log_id.index).await;
                }
                Ok(response.data)
            }
            Err(ClientWriteError::ForwardToLeader(to)) => Err(Fault::NotLeader(to.leader_id)),
            Err(ClientWriteError::LogEntryDiscarded(_)) => {
                Err(Fault::Unknown("the leader changed before the commit".into()))
            }
            Err(error) => Err(Fault::Failed(error.to_string())),
        }
    }

    /// On the leader: waits until each other member has applied an index, or has been out of contact for so long that it no
    /// longer decides by what was before.
    async fn wait_everywhere(&self, index: u64) {
        let waits = self.members().into_iter().filter(|(id, _)| *id != self.me.0).map(|(id, (info, _))| {
            let peer = self.peers.peer(NodeId(id), &info.peer_addr);
            async move {
                let started = Instant::now();
                loop {
                    let silent = self.silence_of(id).unwrap_or_default().max(started.elapsed());
                    let Some(left) = VIEW_LEASE.checked_sub(silent).filter(|left| !left.is_zero()) else {
                        return Some(info.name);
                    };
                    let wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                    let body = wire::cbor(&(self.id, index, wait_ms));
                    match peer.call(Kind::WaitApplied, body, left).await {
                        Ok(_) => return None,
                        Err(_) => tokio::time::sleep(RETRY_PAUSE.min(left)).await,
                    }
                }
            }
        });
        let waited_out: Vec<_> = futures_util::future::join_all(waits).await.into_iter().flatten().collect();
        if !waited_out.is_empty() {
            tracing::warn!(index, nodes = ?waited_out, "waited out the views of nodes that did not confirm a write");
        }
    }

    /// On the leader: time since a member last answered; none when it never has, or this node does not lead.
    fn silence_of(&self, member: u64) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let answered = (*metrics.heartbeat.as_ref()?.get(&member)?)?;
        Some(answered.elapsed())
    }

    /// The index that a linearizable read must see, confirmed by a quorum; on the leader only.
    pub(super) async fn read_index_here(&self) -> Result<u64, Fault> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().log_id().index),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => Err(Fault::NotLeader(to.leader_id)),
            Err(error) => Err(Fault::Failed(error.to_string())),
        }
    }

    /// Waits until this replica has everything that was committed before the call (ReadIndex, Raft dissertation 6.4).
    pub(crate) async fn barrier(&self, deadline: Duration) -> Result<(), String> {
        let until = Instant::now() + deadline;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("no leader confirmed a read in time".into());
            }
            let index = match self.leader() {
                Some((id, _)) if id == self.me => {
                    tokio::time::timeout(left, self.read_index_here()).await.ok().and_then(Result::ok)
                }
                Some((id, info)) => {
                    let peer = self.peers.peer(id, &info.peer_addr);
                    let body = peer.call(Kind::ReadIndex, wire::cbor(&self.id), left).await;
                    body.ok().and_then(|body| wire::from_cbor(&body).ok())
                }
                None => None,
            };
            if let Some(index) = index {
                return self.wait_applied(index, left).await;
            }
            tokio::time::sleep(RETRY_PAUSE.min(left)).await;
        }
    }

    /// Waits until this replica has applied an index.
    pub(crate) async fn wait_applied(&self, index: u64, deadline: Duration) -> Result<(), String> {
        if self.state.applied().last.is_some_and(|last| last.index >= index) {
            return Ok(());
        }
        self.raft
            .wait(Some(deadline))
            .applied_index_at_least(Some(index), "read")
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
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
        let voters: std::collections::BTreeSet<u64> = stored.voter_ids().collect();
        stored.nodes().map(|(id, info)| (*id, (info.clone(), voters.contains(id)))).collect()
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

/// Until when something that happened `ago` is trusted for `lease`; 0 for never.
fn until(now_ns: u64, ago: Option<Duration>, lease: Duration) -> u64 {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    ago.map_or(0, |ago| now_ns.saturating_add(ns(lease)).saturating_sub(ns(ago)))
}

/// Numbers of a group for operators.
pub(crate) struct Progress {
    pub(crate) term: u64,
    pub(crate) last: u64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
    pub(crate) matched: BTreeMap<u64, u64>,
}
