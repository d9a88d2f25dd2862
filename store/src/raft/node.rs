//! A node: its log, its groups, its listener.

mod open;
mod readiness;

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use self::open::Opener;
use super::{
    bootstrap,
    group::Group,
    identity::Identity,
    lane::PeerTls,
    log::{self, QUEUE_BYTES},
    membership,
    moving::{self, Quiet},
    peer::CallError,
    peers::Peers,
    placing, room, server,
    version::{BUILD, Heard, Own, Spoken},
    wait::{ProposeError, Wait},
    whole,
    wire::{Fault, Kind},
};
use crate::{
    model::{ColdCommand, Command, GroupId, NodeId, NodeInfo},
    platform::{self, net::TcpListener},
    state::{self, State, StateError},
    wal::{self, Wal},
};

/// Pause before it is looked again who leads.
const NEXT_LEADER_PAUSE: Duration = Duration::from_millis(10);

/// Told when the node cannot go on; the first reason counts.
pub(crate) type Fail = Arc<dyn Fn(String) + Send + Sync>;

/// How to start a node.
pub(crate) struct NodeSettings {
    pub(crate) data_dir: PathBuf,
    pub(crate) info: NodeInfo,
    pub(crate) listen: SocketAddr,
    pub(crate) tls: Option<Arc<PeerTls>>,
    pub(crate) join: Vec<String>,
    pub(crate) voters: usize,
    /// Ledger groups that a new cluster is to have.
    pub(crate) ledger_groups: u32,
    pub(crate) retention_days: u16,
    /// The disk of the log …
    pub(crate) disk: Arc<dyn wal::Disk>,
    /// … and of the states.
    pub(crate) files: Arc<dyn state::Files>,
    /// What it speaks.
    pub(crate) spoken: Spoken,
}

/// Why a node did not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Identity(#[from] super::identity::IdentityError),
    #[error(transparent)]
    Wal(#[from] wal::OpenError),
    #[error(transparent)]
    State(#[from] state::OpenError),
    #[error(
        "{} has {free_mib} MiB of free space, a node needs {needed_mib} MiB to begin with (two segments of its log, and its \
         state); make room, or choose another --data-dir",
        .path.display()
    )]
    Room { path: PathBuf, free_mib: u64, needed_mib: u64 },
    #[error(
        "{} {lacks}; restore the data directory from a backup, or, where other nodes hold the data, move it aside and let \
         this node join them with an empty one",
        .path.display()
    )]
    Lost { path: PathBuf, lacks: String },
    #[error("listen for peers on {addr}: {error}; is another process using it? Choose another --peer-addr")]
    Listen { addr: SocketAddr, error: io::Error },
    #[error("start raft group {group}: {error}")]
    Raft { group: GroupId, error: io::Error },
}

/// Answers a peer's demand for units; set by the lease room above.
pub(crate) type LeaseAnswer = Box<dyn Fn(Bytes) -> BoxFuture<'static, Bytes> + Send + Sync>;

/// Counts requests in flight; set by the room above.
pub(crate) type InFlight = Box<dyn Fn() -> u64 + Send + Sync>;

/// Gives back what this node holds of closed slots, and says whether nothing was left; set by the rooms above.
pub(crate) type Quieten = Box<dyn Fn(Quiet) -> BoxFuture<'static, bool> + Send + Sync>;

/// A running node.
pub(crate) struct Node {
    identity: Identity,
    info: NodeInfo,
    data_dir: PathBuf,
    join: Vec<String>,
    voters: usize,
    wal: Wal,
    peers: Arc<Peers>,
    /// Ledger groups that a new cluster is to have.
    ledger_groups: u32,
    meta: Arc<Group>,
    ledger: Arc<Group>,
    /// All, in order of their ids; some are opened while the node runs.
    groups: ArcSwap<Vec<Arc<Group>>>,
    /// Told when one more was opened.
    opened: watch::Sender<usize>,
    opener: Opener,
    lease_answer: OnceLock<LeaseAnswer>,
    failed: watch::Sender<Option<String>>,
    stopping: Arc<AtomicBool>,
    draining: AtomicBool,
    /// This node is to leave the cluster: it lets no new request through.
    retiring: AtomicBool,
    /// Requests let through whose rows are not committed yet; told by the room above.
    in_flight: OnceLock<InFlight>,
    pub(super) quieten: OnceLock<Quieten>,
    /// Members that an operator wants to go, on the leader of the metadata.
    pub(super) asked_to_go: Mutex<BTreeSet<u64>>,
    /// Why slots that are to move do not, on the leader of the metadata.
    pub(super) slots_wait_for: Mutex<Option<String>>,
    /// What members speak.
    pub(super) heard: Heard,
    /// What forming or joining the cluster waits for; empty once it is done.
    progress: Mutex<String>,
    /// This start made the cluster.
    pub(super) initialized_cluster: AtomicBool,
    /// Why the metadata has no leader, as far as peers tell; empty while it has one.
    trouble: Mutex<String>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Node {
    /// Opens everything and starts to serve peers. `prepare` sees each group's state before its log is replayed into it.
    pub(crate) async fn start(
        settings: NodeSettings,
        prepare: impl Fn(GroupId, &Arc<State>, &Fail) -> Result<(), StateError>,
    ) -> Result<Arc<Self>, StartError> {
        let identity = Identity::open(&settings.data_dir)?;
        room::check(&settings.data_dir)?;
        whole::check_files(&*settings.disk, &settings.data_dir)?;
        let listener = TcpListener::bind(settings.listen)
            .await
            .map_err(|error| StartError::Listen { addr: settings.listen, error })?;
        let mut info = settings.info;
        if let (Ok(bound), true) = (listener.local_addr(), info.peer_addr.ends_with(":0")) {
            info.peer_addr = bound.to_string();
        }
        let (failed, _) = watch::channel(None);
        let fail: Fail = {
            let failed = failed.clone();
            Arc::new(move |reason| fail_with(&failed, reason))
        };
        let wal_dir = settings.data_dir.join("wal");
        let queue_bytes = 4 * usize::try_from(QUEUE_BYTES).unwrap_or(usize::MAX);
        let options = wal::Options { queue_bytes, ..wal::Options::default() };
        #[cfg(feature = "simulation")]
        let disk = Arc::clone(&settings.disk);
        let log = platform::blocking(move || log::open(settings.disk, &wal_dir, options))
            .await
            .map_err(|error| StartError::Raft { group: GroupId::META, error })??;
        let wal = log.wal.clone();
        #[cfg(feature = "simulation")]
        tokio::spawn(log.clone().run(disk));
        let own = Own { id: identity.id, name: info.name.clone(), build: BUILD.into(), spoken: settings.spoken };
        let peers = Peers::new(own, settings.tls);
        let stopping = Arc::new(AtomicBool::new(false));
        let opener = Opener {
            me: identity.id,
            data_dir: settings.data_dir.clone(),
            retention_days: settings.retention_days,
            files: settings.files,
            log,
            peers: Arc::clone(&peers),
            stopping: Arc::clone(&stopping),
            fail: Arc::clone(&fail),
        };
        let (mut groups, mut threads) = (Vec::new(), Vec::new());
        let mut ids = vec![GroupId::META, GroupId::LEDGER];
        let mut next = 0;
        while let Some(id) = ids.get(next).copied() {
            let (group, thread) = opener.open(id, |state| prepare(id, state, &fail)).await?;
            if id == GroupId::META {
                let placement = group.state().placement();
                ids.extend(placement.iter().flat_map(|placement| placement.added.iter().map(|added| added.id)));
            }
            groups.push(group);
            threads.extend(thread);
            next += 1;
        }
        let node = Arc::new(Self {
            identity,
            info,
            data_dir: settings.data_dir,
            join: settings.join,
            voters: settings.voters,
            ledger_groups: settings.ledger_groups,
            wal,
            peers,
            meta: Arc::clone(&groups[0]),
            ledger: Arc::clone(&groups[1]),
            groups: ArcSwap::from_pointee(groups),
            opened: watch::Sender::new(0),
            opener,
            lease_answer: OnceLock::new(),
            failed,
            stopping,
            draining: AtomicBool::new(false),
            retiring: AtomicBool::new(false),
            in_flight: OnceLock::new(),
            quieten: OnceLock::new(),
            asked_to_go: Mutex::default(),
            slots_wait_for: Mutex::default(),
            heard: Heard::default(),
            progress: Mutex::new("starting".into()),
            initialized_cluster: AtomicBool::new(false),
            trouble: Mutex::default(),
            threads: Mutex::new(threads),
            tasks: Mutex::default(),
        });
        {
            let mut tasks = node.tasks.lock().expect("no holder of this lock panics");
            tasks.spawn(server::serve(listener, Arc::clone(&node)));
            tasks.spawn(bootstrap::run(Arc::clone(&node)));
            tasks.spawn(watch_disk(Arc::clone(&node), fail));
            tasks.spawn(membership::lead(Arc::clone(&node)));
            tasks.spawn(membership::look_after(Arc::clone(&node)));
            tasks.spawn(placing::run(Arc::clone(&node)));
            tasks.spawn(moving::run(Arc::clone(&node)));
        }
        for group in node.groups().iter() {
            node.take_part(group);
        }
        Ok(node)
    }

    pub(crate) fn me(&self) -> NodeId {
        self.identity.id
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.identity.incarnation
    }

    pub(crate) fn info(&self) -> &NodeInfo {
        &self.info
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(super) fn join(&self) -> &[String] {
        &self.join
    }

    pub(super) fn voters(&self) -> usize {
        self.voters
    }

    pub(super) fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    pub(crate) fn wal(&self) -> &Wal {
        &self.wal
    }

    /// Ledger groups that a cluster which this node makes is to have.
    pub(super) fn ledger_groups(&self) -> u32 {
        self.ledger_groups
    }

    /// Who answers demands for units on this node.
    pub(crate) fn set_lease_answer(&self, answer: LeaseAnswer) {
        let _ = self.lease_answer.set(answer);
    }

    pub(super) async fn answer_lease(&self, body: Bytes) -> Result<Bytes, Fault> {
        match self.lease_answer.get() {
            Some(answer) => Ok(answer(body).await),
            None => Err(Fault::Failed("this node is still starting".into())),
        }
    }

    /// Asks the leader of a group for units. While there is none, or it cannot be reached, the next one is waited for; what
    /// may have reached one is not sent again.
    pub(crate) async fn ask_lease(&self, group: GroupId, body: Bytes, deadline: Duration) -> Result<Bytes, String> {
        let group = self.group(group).map_err(|fault| fault.to_string())?;
        let until = Instant::now() + deadline;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let why = match group.leader() {
                Some((id, _)) if id == self.me() => {
                    return self.answer_lease(body).await.map_err(|fault| fault.to_string());
                }
                Some((id, info)) => {
                    let peer = self.peers.peer(id, &info.peer_addr);
                    match group.while_led_by(id, &info, peer.call(Kind::Lease, body.clone(), left)).await {
                        Ok(answer) => return Ok(answer),
                        Err(error @ CallError::Unreachable { .. }) => error.to_string(),
                        Err(error) => return Err(error.to_string()),
                    }
                }
                None => "no leader is known".into(),
            };
            if left <= NEXT_LEADER_PAUSE {
                return Err(why);
            }
            tokio::time::sleep(NEXT_LEADER_PAUSE).await;
        }
    }

    /// Who counts the requests in flight on this node.
    pub(crate) fn set_in_flight(&self, in_flight: InFlight) {
        let _ = self.in_flight.set(in_flight);
    }

    /// Who gives back what this node holds of closed slots.
    pub(crate) fn set_quieten(&self, quieten: Quieten) {
        let _ = self.quieten.set(quieten);
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.get().map_or(0, |count| count())
    }

    /// Refuses a demand for units by a node that is no member or is to go, on the leader of the ledger.
    pub(super) fn require_lessee(&self, id: NodeId) -> Result<(), Fault> {
        for group in self.ledgers() {
            group.require_member(id)?;
            if group.bars(id.0) {
                return Err(Fault::Failed("this node is to leave the cluster".into()));
            }
        }
        Ok(())
    }

    /// The failure that stopped this node, if any.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Stops this node; the first reason is told.
    pub(super) fn fail(&self, reason: String) {
        fail_with(&self.failed, reason);
    }

    /// Whether a failure has stopped this node; cheap.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Waits until the node has failed.
    pub(crate) async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn made_cluster(&self) -> bool {
        self.initialized_cluster.load(Ordering::Acquire)
    }

    /// Stops granting and hands leadership of every group to another voter that answers.
    pub(crate) async fn drain(&self) {
        self.draining(true);
        self.give_leadership_away().await;
    }

    /// Stops Raft, makes last checkpoints, closes the log.
    pub(crate) async fn shutdown(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.stopping.store(true, Ordering::Release);
        let threads = std::mem::take(&mut *self.threads.lock().expect("no holder of this lock panics"));
        let _ = platform::blocking(move || threads.into_iter().map(std::thread::JoinHandle::join).count()).await;
        for group in self.groups().iter() {
            let _ = group.raft().shutdown().await;
        }
        let mut tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder of this lock panics"));
        tasks.shutdown().await;
        let wal = self.wal.clone();
        let _ = platform::blocking(move || wal.close()).await;
        self.identity.unlock();
    }

    /// Tells a ledger group that this incarnation has begun, so that what the earlier ones had reserved is settled.
    pub(super) async fn announce(&self, group: &Group) -> Result<(), ProposeError> {
        let started = ColdCommand::NodeStarted { node: self.me(), incarnation: self.incarnation() };
        let command = Command::from(started).encode();
        group.propose(&command, Wait::Applied, true, Duration::from_secs(5)).await.map(|_| ())
    }
}

/// A log that could not write or flush is of no use any more: the node stops serving.
async fn watch_disk(node: Arc<Node>, fail: Fail) {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while node.failure().is_none() && !node.stopping.load(Ordering::Relaxed) {
        tick.tick().await;
        if let Some(reason) = node.wal.is_poisoned() {
            fail(reason);
        }
        for group in node.groups().iter() {
            if let Some(reason) = group.fatal() {
                fail(format!("raft group {}: {reason}", group.id()));
            }
        }
    }
}

fn fail_with(failed: &watch::Sender<Option<String>>, reason: String) {
    failed.send_if_modified(|first| {
        let is_new = first.is_none();
        if is_new {
            tracing::error!(%reason, "this node stops serving");
            *first = Some(reason);
        }
        is_new
    });
}
