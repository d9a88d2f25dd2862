//! The replicas of a node: opened at the start where the disk knows of them, later when group 0 adds them.

use std::{io, path::PathBuf, sync::Arc, thread::JoinHandle};

use tokio::sync::watch;

use super::{Fail, Node, StartError};
use crate::{
    model::{GroupId, NodeId},
    platform,
    raft::{
        checkpointer::Checkpointer, group::Group, log::Log, machine::WaitDurable, membership, peers::Peers, whole,
        wire::Fault,
    },
    state::{self, State, StateError},
};

/// Bytes of its files that each ledger group beside the first may keep in memory.
const ADDED_CACHE_BYTES: usize = 32 << 20;

/// What a replica is opened with.
pub(super) struct Opener {
    pub(super) me: NodeId,
    pub(super) data_dir: PathBuf,
    pub(super) retention_days: u16,
    pub(super) files: Arc<dyn state::Files>,
    pub(super) log: Log,
    pub(super) peers: Arc<Peers>,
    pub(super) stopping: Arc<std::sync::atomic::AtomicBool>,
    pub(super) fail: Fail,
}

impl Opener {
    /// Opens a replica and starts what makes its checkpoints. `prepare` sees the state before its log is replayed into it.
    pub(super) async fn open(
        &self,
        id: GroupId,
        prepare: impl FnOnce(&Arc<State>) -> Result<(), StateError>,
    ) -> Result<(Arc<Group>, Option<JoinHandle<()>>), StartError> {
        let dir = self.data_dir.join("groups").join(id.to_string());
        let mut options = state::Options {
            retention_days: self.retention_days,
            files: Arc::clone(&self.files),
            ..state::Options::default()
        };
        if id > GroupId::LEDGER {
            options.cache_bytes = ADDED_CACHE_BYTES;
        }
        let raft = |error| StartError::Raft { group: id, error };
        let opened = platform::blocking(move || State::open(&dir, id, options)).await;
        let state = Arc::new(opened.map_err(raft)??);
        let wal = &self.log.wal;
        whole::check_group(&self.data_dir, id, &wal.group(id), &state.applied())?;
        prepare(&state).map_err(|error| raft(io::Error::other(error)))?;
        let wait_durable: WaitDurable = {
            let log = self.log.clone();
            Arc::new(move |index| log.wait_durable(id, index))
        };
        let group = Group::start(
            id,
            self.me,
            wal.clone(),
            Arc::clone(&state),
            Arc::clone(&self.peers),
            Arc::clone(&wait_durable),
            Arc::clone(&self.fail),
        )
        .await
        .map_err(raft)?;
        let (stop, fail) = (Arc::clone(&self.stopping), Arc::clone(&self.fail));
        let checkpointer = Checkpointer::new(Arc::clone(&group), wal.clone(), wait_durable, stop, fail);
        #[cfg(feature = "simulation")]
        if platform::simulated() {
            tokio::spawn(checkpointer.run());
            return Ok((group, None));
        }
        let thread = checkpointer.start().map_err(raft)?;
        Ok((group, Some(thread)))
    }
}

impl Node {
    /// All groups of this node, in order of their ids.
    pub(crate) fn groups(&self) -> Arc<Vec<Arc<Group>>> {
        self.groups.load_full()
    }

    /// Its ledger groups.
    pub(crate) fn ledgers(&self) -> Vec<Arc<Group>> {
        self.groups.load().iter().filter(|group| group.id() != GroupId::META).cloned().collect()
    }

    /// Changes whenever one more group is open.
    pub(crate) fn opened(&self) -> watch::Receiver<usize> {
        self.opened.subscribe()
    }

    /// Group 0.
    pub(crate) fn meta(&self) -> &Arc<Group> {
        &self.meta
    }

    /// The first ledger group.
    pub(crate) fn ledger(&self) -> &Arc<Group> {
        &self.ledger
    }

    /// A group of this node, if it is open.
    pub(crate) fn replica(&self, id: GroupId) -> Option<Arc<Group>> {
        match id {
            GroupId::META => Some(Arc::clone(&self.meta)),
            GroupId::LEDGER => Some(Arc::clone(&self.ledger)),
            id => self.groups.load().iter().find(|group| group.id() == id).cloned(),
        }
    }

    pub(in crate::raft) fn group(&self, id: GroupId) -> Result<Arc<Group>, Fault> {
        self.replica(id).ok_or_else(|| Fault::Failed(format!("group {id} has no replica here")))
    }

    /// Opens a ledger group that group 0 has added, and takes part in it.
    pub(in crate::raft) async fn add_group(self: &Arc<Self>, id: GroupId) -> Result<(), StartError> {
        let (group, thread) = self.opener.open(id, |_| Ok(())).await?;
        self.threads.lock().expect("no holder of this lock panics").extend(thread);
        self.take_part(&group);
        self.groups.rcu(|groups| {
            let mut groups = Vec::clone(groups);
            groups.push(Arc::clone(&group));
            groups.sort_by_key(|group| group.id());
            groups
        });
        self.opened.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Starts what keeps a group's knowledge of its leadership, and a ledger group's members, up to date.
    pub(super) fn take_part(self: &Arc<Self>, group: &Arc<Group>) {
        let mut tasks = self.tasks.lock().expect("no holder of this lock panics");
        if group.id() != GroupId::META {
            tasks.spawn(membership::follow(Arc::clone(self), Arc::clone(group)));
        }
        tasks.spawn(Arc::clone(group).watch());
        tasks.spawn(Arc::clone(group).keep_view_lease());
    }
}
