//! The handle: what the gateway holds of a node's store.

mod authority;
mod cluster;
mod error;
mod follow;
mod gauges;
mod lanes;
mod ledger;
mod merge;
mod meta;
mod profiles;
mod rows;
#[cfg(feature = "simulation")]
pub mod simulation;
mod status;
mod thresholds;
mod upkeep;

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use self::lanes::Lanes;
pub use self::{
    cluster::{ClusterError, ClusterStatus, MemberStatus},
    error::{CommitError, OpenError, ReadError, WriteError},
    follow::{Followed, RecordPlace},
    ledger::{LimitsNow, PolicyNow},
    meta::Written,
    rows::{RowPermit, View},
    status::{Distribution, GroupStatus, Readiness},
};
pub use crate::model::Unavailable;
pub use crate::state::{RowPage, RowQuery, UsageBy, UsagePoint, UsageQuery, UsageStep};
use crate::{
    lease::Leases,
    model::{
        Account, ColdCommand, Command, GroupId, KeyHash, MetaOp, MetaWrite, NodeInfo, Role, Route, Tier, Timestamp,
        Token, Upstream,
    },
    platform::lease_clock_ns,
    raft::{Fail, Node, NodeSettings, PeerTls, Spoken, Wait},
    state::{self, Change, State, StateError},
    view::{Directory, Edit},
    wal,
};

/// How to open a node's store.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Everything the node keeps is below it; locked while open.
    pub data_dir: PathBuf,
    /// Name, region and addresses that peers and operators are told.
    pub node: NodeInfo,
    /// Where to listen for peers.
    pub peer_listen: SocketAddr,
    /// The certificates that peers show each other; none for plain connections.
    pub peer_tls: Option<Arc<PeerTls>>,
    /// Peers to form or join a cluster with, this node's own address among them; empty for a cluster of one.
    pub join: Vec<String>,
    /// Voters that a cluster is to have; a joining node becomes one while they are fewer.
    pub voters: usize,
    /// Ledger groups that a cluster is made with, each with its own leader; one that exists keeps its own.
    pub ledger_groups: u32,
    /// How long a row may wait for its quorum before the answer is 503.
    pub commit_deadline: Duration,
    /// Rows that may wait for their quorum on this node; at the bound, 503.
    pub max_waiting_rows: usize,
    /// Days that rows are kept when the tier does not say.
    pub log_retention_days: u16,
    /// The admin token that a cluster gets which has none.
    pub first_token: Option<FirstToken>,
}

/// An admin token that is written into a cluster that has never been written to: by the node that made it, or, if that one
/// was ended before it did so, by whoever leads.
#[derive(Clone)]
pub struct FirstToken {
    /// Of its text.
    pub hash: KeyHash,
    /// Called once before it is written, so that it is known to somebody whenever it works.
    pub tell: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for FirstToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstToken").finish_non_exhaustive()
    }
}

/// How long the node that made a cluster has to write its first admin token; then whoever leads does.
const MAKER_WRITES_WITHIN: Duration = Duration::from_secs(2);

/// A node's store. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    directory: Arc<Directory>,
    leases: Leases,
    lanes: Lanes,
    commit_deadline: Duration,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store(node {})", self.0.node.me())
    }
}

impl Store {
    /// Opens the data directory, recovers, listens for peers, and starts to form, join or resume the cluster.
    /// Its tasks run on the runtime that this is called from.
    ///
    /// # Errors
    /// [`OpenError`], with what to do about it.
    pub async fn open(settings: Settings) -> Result<Self, OpenError> {
        Self::open_on(settings, Arc::new(wal::RealDisk), Arc::new(state::Disk)).await
    }

    /// As [`Store::open`], on other disks: the log's, and the states'.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_on(
        settings: Settings,
        disk: Arc<dyn wal::Disk>,
        files: Arc<dyn state::Files>,
    ) -> Result<Self, OpenError> {
        Self::open_speaking(settings, disk, files, Spoken::OURS).await
    }

    async fn open_speaking(
        settings: Settings,
        disk: Arc<dyn wal::Disk>,
        files: Arc<dyn state::Files>,
        spoken: Spoken,
    ) -> Result<Self, OpenError> {
        let directory = Arc::new(Directory::default());
        let node = Node::start(
            NodeSettings {
                data_dir: settings.data_dir,
                info: settings.node,
                listen: settings.peer_listen,
                tls: settings.peer_tls,
                join: settings.join,
                voters: settings.voters,
                ledger_groups: settings.ledger_groups,
                retention_days: settings.log_retention_days,
                disk,
                files,
                spoken,
            },
            |group, state, fail| {
                if group == GroupId::META { feed(&directory, state, fail) } else { Ok(()) }
            },
        )
        .await
        .map_err(|error| OpenError(error.to_string()))?;
        let authority =
            authority::RaftAuthority::new(Arc::clone(&node), Arc::clone(&directory), settings.commit_deadline);
        let leases = Leases::new(Arc::new(authority), &tokio::runtime::Handle::current());
        {
            let leases = leases.clone();
            node.set_lease_answer(Box::new(move |body| {
                let leases = leases.clone();
                Box::pin(async move { leases.answer(&body) })
            }));
        }
        {
            let (leases, directory) = (leases.clone(), Arc::clone(&directory));
            node.set_quieten(Box::new(move |quiet| {
                let (leases, directory) = (leases.clone(), Arc::clone(&directory));
                Box::pin(async move {
                    let moving = quiet.moving;
                    directory.placement_in_force() >= quiet.epoch
                        && leases.are_quiet(moving.from, &moving.range(), quiet.settles).await
                })
            }));
        }
        let lanes = Lanes::new(&node, settings.max_waiting_rows);
        let in_flight = lanes.gauge();
        node.set_in_flight(Box::new(move || in_flight() as u64));
        let commit_deadline = settings.commit_deadline;
        let store = Self(Arc::new(Inner { node, directory, leases, lanes, commit_deadline }));
        tokio::spawn(upkeep::run(store.clone()));
        tokio::spawn(lanes::follow(store.clone()));
        if let Some(first) = settings.first_token {
            tokio::spawn(store.clone().write_first_token(first));
        }
        Ok(store)
    }

    /// Keys, accounts, routes, tokens: memory only.
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// What the node may spend.
    pub fn leases(&self) -> &Leases {
        &self.0.leases
    }

    /// Stops granting, gives unspent units back and hands leadership over; what is in flight is still served.
    pub async fn drain(&self) {
        self.0.leases.return_unspent().await;
        self.0.node.drain().await;
    }

    /// Commits or refuses the rows that were handed in, then flushes and closes.
    pub async fn shutdown(&self) {
        let until = tokio::time::Instant::now() + self.0.commit_deadline;
        while self.0.lanes.waiting() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.0.node.shutdown().await;
    }

    /// Waits until the node has failed (disk), and says why. A failed node serves nothing more.
    pub async fn failed(&self) -> String {
        self.0.node.failed().await
    }

    /// Whether this start made the cluster, so that its bootstrap token is the cluster's first.
    pub fn made_cluster(&self) -> bool {
        self.0.node.made_cluster()
    }

    /// Whether nothing was ever written. The first write is the first line of the audit log, whose lines end after a year; a
    /// cluster that is that old has tokens.
    fn is_unwritten(&self) -> Result<bool, ReadError> {
        Ok(self.audit(None, 1)?.is_empty() && self.tokens()?.is_empty())
    }

    /// Writes the first admin token, if the cluster has none and it is for this node to do.
    async fn write_first_token(self, FirstToken { hash, tell }: FirstToken) {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        let mut ready_since = None;
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            if self.readiness() != Readiness::Ready {
                ready_since = None;
                continue;
            }
            match self.is_unwritten() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    return tracing::error!(%error, "look whether the cluster has an admin token");
                }
            }
            let waited = ready_since.get_or_insert_with(tokio::time::Instant::now).elapsed();
            if self.made_cluster() || waited >= MAKER_WRITES_WITHIN && self.0.node.meta().is_leader() {
                break;
            }
        }
        if let Some(tell) = tell {
            tell();
        }
        let token = Token {
            id: "tok_bootstrap".into(),
            name: "bootstrap".into(),
            hash,
            role: Role::Admin,
            created_at: Timestamp::now(),
            ..Token::default()
        };
        let write = MetaWrite {
            at: token.created_at,
            actor: "bootstrap".into(),
            request_id: String::new(),
            ops: vec![MetaOp::PutToken { token, expect: crate::model::Expect::Absent }],
            role: Some(Role::Admin),
            ..MetaWrite::default()
        };
        let command = Command::from(ColdCommand::Meta(write)).encode();
        // `Absent` makes it repeatable: the second one changes nothing.
        while let Err(error) = self.0.node.meta().propose(&command, Wait::Applied, true, self.0.commit_deadline).await {
            tracing::warn!(%error, "write the bootstrap token");
        }
    }
}

/// Fills the directory from the state, and keeps it so.
fn feed(directory: &Arc<Directory>, state: &Arc<State>, fail: &Fail) -> Result<(), StateError> {
    refill(directory, state)?;
    let (directory, weak, fail) = (Arc::clone(directory), Arc::downgrade(state), Arc::clone(fail));
    state.subscribe(Box::new(move |changes| {
        let Some(state) = weak.upgrade() else { return };
        if follow(&directory, changes, || refill(&directory, &state), &fail) {
            directory.set_revision(state.applied().last.map_or(0, |last| last.index));
        }
    }));
    Ok(())
}

/// Takes changes into the directory. One that cannot be read again after a snapshot would let revoked keys in: `false`, and
/// the node has failed.
fn follow(
    directory: &Directory,
    changes: &[Change],
    refill: impl FnOnce() -> Result<(), StateError>,
    fail: &Fail,
) -> bool {
    // After a snapshot all is different; what follows the reset in `changes` is in it already.
    if changes.contains(&Change::Reset) {
        let filled = refill();
        return filled.map_err(|error| fail(format!("read the directory after a snapshot: {error}"))).is_ok();
    }
    let mut edit = directory.edit();
    for change in changes {
        take(directory, &mut edit, change);
    }
    true
}

fn refill(directory: &Directory, state: &State) -> Result<(), StateError> {
    let mut edit = directory.edit();
    edit.reset();
    let loaded = state.load(&mut |change| take(directory, &mut edit, &change));
    if loaded.is_err() {
        edit.abandon();
    }
    loaded
}

fn take(directory: &Directory, edit: &mut Edit<'_>, change: &Change) {
    match change {
        Change::Account(account) => edit.put_account(Account::clone(account)),
        Change::AccountGone(id) => edit.remove_account(id),
        Change::Key(key) => edit.put_key(key),
        Change::KeyGone { id, .. } => edit.remove_key(id),
        Change::Tier(tier) => edit.put_tier(Tier::clone(tier)),
        Change::TierGone(name) => edit.remove_tier(name),
        Change::Route(route) => edit.put_route(Route::clone(route)),
        Change::RouteGone(name) => edit.remove_route(name),
        Change::Upstream(upstream) => edit.put_upstream(Upstream::clone(upstream)),
        Change::UpstreamGone(name) => edit.remove_upstream(name),
        Change::Token(token) => edit.put_token(Token::clone(token)),
        Change::TokenGone(id) => edit.remove_token(id),
        Change::Placement(placement) => directory.place(placement, lease_clock_ns()),
        Change::Reset => edit.reset(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_directory_that_cannot_be_read_after_a_snapshot_fails_the_node() {
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let fail: Fail = {
            let reasons = Arc::clone(&reasons);
            Arc::new(move |reason| reasons.lock().expect("no holder panics").push(reason))
        };
        let directory = Directory::default();
        let damaged =
            || Err(StateError::Storage { action: "read", path: "main.redb".into(), what: "a rotten page".into() });
        assert!(!follow(&directory, &[Change::Reset], damaged, &fail));
        let told = reasons.lock().expect("no holder panics").clone();
        assert!(
            matches!(&told[..], [one] if one.contains("after a snapshot") && one.contains("a rotten page")),
            "{told:?}"
        );
        assert!(follow(&directory, &[Change::Reset], || Ok(()), &fail), "one that can be is followed");
    }
}
