//! A node: its log, its groups, its listener.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{sync::watch, task::JoinSet};

use super::{
    bootstrap,
    checkpointer::Checkpointer,
    group::Group,
    identity::Identity,
    lane::PeerTls,
    log::{self, QUEUE_BYTES},
    machine::WaitDurable,
    peers::Peers,
    room, server,
    wait::{ProposeError, Wait},
    whole,
    wire::{Fault, Kind, Leader, Status},
};
use crate::{
    model::{ColdCommand, Command, GroupId, NodeId, NodeInfo},
    platform::{self, net::TcpListener},
    state::{self, State, StateError},
    wal::{self, Wal},
};

/// How to start a node.
pub(crate) struct NodeSettings {
    pub(crate) data_dir: PathBuf,
    pub(crate) info: NodeInfo,
    pub(crate) listen: SocketAddr,
    pub(crate) tls: Option<Arc<PeerTls>>,
    pub(crate) join: Vec<String>,
    pub(crate) voters: usize,
    pub(crate) retention_days: u16,
    /// The disk of the log …
    pub(crate) disk: Arc<dyn wal::Disk>,
    /// … and of the states.
    pub(crate) files: Arc<dyn state::Files>,
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

/// A running node.
pub(crate) struct Node {
    identity: Identity,
    info: NodeInfo,
    data_dir: PathBuf,
    join: Vec<String>,
    voters: usize,
    wal: Wal,
    peers: Arc<Peers>,
    groups: Vec<Arc<Group>>,
    lease_answer: OnceLock<LeaseAnswer>,
    failed: watch::Sender<Option<String>>,
    stopping: Arc<AtomicBool>,
    draining: AtomicBool,
    /// What forming or joining the cluster waits for; empty once it is done.
    progress: Mutex<String>,
    /// This start made the cluster.
    pub(super) initialized_cluster: AtomicBool,
    /// One change of membership at a time.
    pub(super) membership: tokio::sync::Mutex<()>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Node {
    /// Opens everything and starts to serve peers. `prepare` sees each group's state before its log is replayed into it.
    pub(crate) async fn start(
        settings: NodeSettings,
        prepare: impl Fn(GroupId, &Arc<State>) -> Result<(), StateError>,
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
        let fail: Arc<dyn Fn(String) + Send + Sync> = {
            let failed = failed.clone();
            Arc::new(move |reason: String| {
                failed.send_if_modified(|first| {
                    let new = first.is_none();
                    if new {
                        tracing::error!(%reason, "this node stops serving");
                        *first = Some(reason.clone());
                    }
                    new
                });
            })
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
        let peers = Peers::new(identity.id, settings.tls);
        let stopping = Arc::new(AtomicBool::new(false));
        let (mut groups, mut threads) = (Vec::new(), Vec::new());
        for id in [GroupId::META, GroupId::LEDGER] {
            let dir = settings.data_dir.join("groups").join(id.to_string());
            let options = state::Options {
                retention_days: settings.retention_days,
                files: Arc::clone(&settings.files),
                ..state::Options::default()
            };
            let opened = platform::blocking(move || State::open(&dir, id, options)).await;
            let raft = |error| StartError::Raft { group: id, error };
            let state = Arc::new(opened.map_err(raft)??);
            whole::check_group(&settings.data_dir, id, &wal.group(id), &state.applied())?;
            prepare(id, &state).map_err(|error| raft(io::Error::other(error)))?;
            let wait_durable: WaitDurable = {
                let log = log.clone();
                Arc::new(move |index| log.wait_durable(id, index))
            };
            let group = Group::start(
                id,
                identity.id,
                wal.clone(),
                Arc::clone(&state),
                Arc::clone(&peers),
                Arc::clone(&wait_durable),
                Arc::clone(&fail),
            )
            .await
            .map_err(raft)?;
            let stop = Arc::clone(&stopping);
            let checkpointer =
                Checkpointer::new(Arc::clone(&group), wal.clone(), wait_durable, stop, Arc::clone(&fail));
            #[cfg(feature = "simulation")]
            if platform::simulated() {
                tokio::spawn(checkpointer.run());
                groups.push(group);
                continue;
            }
            threads.push(checkpointer.start().map_err(raft)?);
            groups.push(group);
        }
        let node = Arc::new(Self {
            identity,
            info,
            data_dir: settings.data_dir,
            join: settings.join,
            voters: settings.voters,
            wal,
            peers,
            groups,
            lease_answer: OnceLock::new(),
            failed,
            stopping,
            draining: AtomicBool::new(false),
            progress: Mutex::new("starting".into()),
            initialized_cluster: AtomicBool::new(false),
            membership: tokio::sync::Mutex::default(),
            threads: Mutex::new(threads),
            tasks: Mutex::default(),
        });
        {
            let mut tasks = node.tasks.lock().expect("no holder of this lock panics");
            tasks.spawn(server::serve(listener, Arc::clone(&node)));
            tasks.spawn(bootstrap::run(Arc::clone(&node)));
            tasks.spawn(watch_disk(Arc::clone(&node), fail));
            for group in &node.groups {
                tasks.spawn(Arc::clone(group).watch());
                tasks.spawn(Arc::clone(group).keep_view_lease());
            }
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

    pub(crate) fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// Group 0.
    pub(crate) fn meta(&self) -> &Arc<Group> {
        &self.groups[0]
    }

    /// The first ledger group.
    pub(crate) fn ledger(&self) -> &Arc<Group> {
        &self.groups[1]
    }

    pub(super) fn group(&self, id: GroupId) -> Result<Arc<Group>, Fault> {
        self.groups
            .iter()
            .find(|group| group.id() == id)
            .cloned()
            .ok_or_else(|| Fault::Failed(format!("group {id} has no replica here")))
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

    /// Asks the leader of a group for units.
    pub(crate) async fn ask_lease(&self, group: GroupId, body: Bytes, deadline: Duration) -> Result<Bytes, String> {
        let group = self.group(group).map_err(|fault| fault.to_string())?;
        match group.leader() {
            Some((id, _)) if id == self.me() => self.answer_lease(body).await.map_err(|fault| fault.to_string()),
            Some((id, info)) => self
                .peers
                .peer(id, &info.peer_addr)
                .call(Kind::Lease, body, deadline)
                .await
                .map_err(|error| error.to_string()),
            None => Err("no leader is known".into()),
        }
    }

    pub(super) async fn status(&self) -> Status {
        Status {
            id: self.me(),
            info: self.info.clone(),
            member: self.meta().is_initialized().await,
            leaders: self
                .groups
                .iter()
                .filter_map(|group| Some(Leader { group: group.id(), info: group.leader()?.1 }))
                .collect(),
        }
    }

    pub(super) fn set_progress(&self, progress: impl Into<String>) {
        let progress = progress.into();
        let mut held = self.progress.lock().expect("no holder of this lock panics");
        if *held != progress && !progress.is_empty() {
            tracing::info!("{progress}");
        }
        *held = progress;
    }

    /// Why this node cannot serve; none when it can.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if let Some(reason) = self.failure() {
            return Some(reason);
        }
        if self.is_draining() {
            return Some("draining".into());
        }
        let progress = self.progress.lock().expect("no holder of this lock panics").clone();
        if !progress.is_empty() {
            return Some(progress);
        }
        self.groups.iter().find_map(|group| {
            let what = if group.id() == GroupId::META { "metadata" } else { "ledger" };
            if group.leader().is_none() {
                return Some(format!("no leader of the {what} group is known"));
            }
            if !group.is_in_contact() {
                return Some(format!("no fresh contact with the quorum of the {what} group"));
            }
            if group.id() == GroupId::META {
                return (!group.has_view_lease()).then(|| "the metadata here may not be trusted yet".into());
            }
            (!group.is_decided()).then(|| "the ledger's leader is new and does not decide yet".into())
        })
    }

    /// The failure that stopped this node, if any.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
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

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn made_cluster(&self) -> bool {
        self.initialized_cluster.load(Ordering::Acquire)
    }

    /// Stops granting and hands leadership of every group to the follower that has most of the log.
    pub(crate) async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        for group in &self.groups {
            if !group.is_leader() {
                continue;
            }
            let voters = group.members();
            let next = group
                .progress()
                .matched
                .into_iter()
                .filter(|(id, _)| *id != self.me().0 && voters.get(id).is_some_and(|(_, votes)| *votes))
                .max_by_key(|(_, matched)| *matched);
            // The last one leads to the end: what is in flight needs a leader.
            let Some((to, _)) = next else { continue };
            group.hand_over(true);
            let _ = group.raft().trigger().transfer_leader(to).await;
            let handed = async {
                while group.is_leader() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            if tokio::time::timeout(Duration::from_secs(2), handed).await.is_err() {
                group.hand_over(false);
            }
        }
    }

    /// Stops Raft, makes last checkpoints, closes the log.
    pub(crate) async fn shutdown(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.stopping.store(true, Ordering::Release);
        let threads = std::mem::take(&mut *self.threads.lock().expect("no holder of this lock panics"));
        let _ = platform::blocking(move || threads.into_iter().map(std::thread::JoinHandle::join).count()).await;
        for group in &self.groups {
            let _ = group.raft().shutdown().await;
        }
        let mut tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder of this lock panics"));
        tasks.shutdown().await;
        let wal = self.wal.clone();
        let _ = platform::blocking(move || wal.close()).await;
        self.identity.unlock();
    }

    /// Tells the ledger that this incarnation has begun, so that what the earlier ones had reserved is settled.
    pub(super) async fn announce(&self) -> Result<(), ProposeError> {
        let started = ColdCommand::NodeStarted { node: self.me(), incarnation: self.incarnation() };
        let command = Command::from(started).encode();
        self.ledger().propose(&command, Wait::Applied, true, Duration::from_secs(5)).await.map(|_| ())
    }
}

/// A log that could not write or flush is of no use any more: the node stops serving.
async fn watch_disk(node: Arc<Node>, fail: Arc<dyn Fn(String) + Send + Sync>) {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while node.failure().is_none() && !node.stopping.load(Ordering::Relaxed) {
        tick.tick().await;
        if let Some(reason) = node.wal.is_poisoned() {
            fail(reason);
        }
        for group in &node.groups {
            if let Some(reason) = group.fatal() {
                fail(format!("raft group {}: {reason}", group.id()));
            }
        }
    }
}
