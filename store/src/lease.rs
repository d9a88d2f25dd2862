//! What a node may spend: rate limits, concurrency and quotas.
//!
//! The stack makes one call, [`Leases::begin`]. Rates and concurrency are decided by the leader of the account's ledger
//! group (in its memory); quotas are spent from slices that are reserved in the replicated state. Whoever is refused is
//! given back exactly what was taken before the refusal.
//!
//! - `bucket`, `units`, `slice`: what is counted, each by itself, in memory.
//! - `group`: the leader's decision; `answer` for other nodes; `ask` and `reserve` are the asking side.
//! - `held`, `grant`, `standing`: what a request holds, and what its client is told.
//!
//! It never decides without a leader's or the replicated state's word: what is not known is [`Denied::Unavailable`].

mod acquire;
mod answer;
mod ask;
mod authority;
mod bucket;
mod debt;
mod deny;
mod elsewhere;
mod few;
mod grant;
mod group;
mod handle;
mod held;
mod lend;
mod levels;
mod peek;
mod purse;
mod quiet;
mod reign;
mod reserve;
mod shadow;
mod slice;
mod standing;
mod stats;
mod units;
mod wait;
mod wire;

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{runtime::Handle, sync::mpsc};

pub use acquire::Acquiring;
pub use authority::{Authority, Granted, Holder, Leadership, Place};
pub use grant::{Demand, Denied, Grant, Policy, Refusal, Standing};
pub use levels::{Level, Levels};
pub use standing::CONCURRENCY;

use crate::model::{GroupId, Unavailable};
use group::Group;
use stats::Counters;

/// Idle slices are looked for, and groups without demand, this often.
const TEND_EVERY: Duration = Duration::from_millis(500);

/// The node's leases. Cheap to clone.
#[derive(Clone)]
pub struct Leases {
    inner: Arc<Inner>,
}

struct Inner {
    authority: Arc<dyn Authority>,
    runtime: Handle,
    /// Few; added and never taken away.
    groups: ArcSwap<Vec<Arc<Group>>>,
    /// The first of them, which is nearly always the one: found with one load.
    first: OnceLock<Arc<Group>>,
    adding: Mutex<()>,
    counters: Arc<Counters>,
}

impl Leases {
    /// The leases of a node. Background work (asks, reservations, returns) runs on `runtime` until the last clone is gone.
    pub fn new(authority: Arc<dyn Authority>, runtime: &Handle) -> Self {
        let inner = Arc::new(Inner {
            authority,
            runtime: runtime.clone(),
            groups: ArcSwap::default(),
            first: OnceLock::new(),
            adding: Mutex::default(),
            counters: Arc::default(),
        });
        runtime.spawn(tend(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// On the leader: acts on another node's message ([`Authority::ask`]) and makes the answer. From memory, never waits;
    /// bytes that make no sense get an answer that says so.
    pub fn answer(&self, body: &Bytes) -> Bytes {
        answer::answer(body, &*self.inner.authority, |ask| self.inner.group(ask.group))
    }

    /// Gives the unspent quota units of this node back to the replicated state: before it stops.
    pub async fn return_unspent(&self) {
        for group in self.inner.groups.load_full().iter() {
            let wants = group.idle_slices(self.inner.authority.now_ns(), true);
            if !wants.is_empty() {
                reserve::make(group, wants).await;
            }
        }
    }

    /// Numbers for `/metrics`: name (Prometheus, with unit), help, value.
    pub fn stats(&self) -> Vec<(&'static str, &'static str, f64)> {
        let mut stats = self.inner.counters.list();
        let buckets: usize = self.inner.groups.load().iter().map(|group| group.buckets()).sum();
        let held: u64 = self.inner.groups.load().iter().map(|group| group.purses.units()).sum();
        stats.push(("tollgate_lease_units_held", "Rate units that this node holds on lease, unspent.", held as f64));
        stats.push(("tollgate_lease_buckets", "Rate buckets in the memory of this node as a leader.", buckets as f64));
        stats
    }
}

impl Inner {
    /// The group, if it is the first.
    fn first(&self, id: GroupId) -> Option<&Arc<Group>> {
        self.first.get().filter(|first| first.id == id)
    }

    fn group(&self, id: GroupId) -> Arc<Group> {
        if let Some(first) = self.first(id) {
            return first.clone();
        }
        let find = || self.groups.load().iter().find(|group| group.id == id).cloned();
        if let Some(group) = find() {
            return group;
        }
        let _adding = self.adding.lock().expect("no holder panics");
        find().unwrap_or_else(|| {
            let (asks, asked) = mpsc::channel(ask::ASKS_WAITING);
            let (reserves, wants) = mpsc::unbounded_channel();
            let group = Arc::new(Group::new(id, self.authority.clone(), asks, reserves, self.counters.clone()));
            self.runtime.spawn(ask::run(Arc::downgrade(&group), asked));
            self.runtime.spawn(reserve::run(Arc::downgrade(&group), wants));
            let mut groups = Vec::clone(&self.groups.load());
            groups.push(group.clone());
            self.groups.store(Arc::new(groups));
            // Taken already by the first, for all but the first.
            let _ = self.first.set(group.clone());
            group
        })
    }
}

/// Returns idle slices, and makes sure that every group is taken part in.
async fn tend(inner: Weak<Inner>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        for id in inner.authority.groups() {
            inner.group(id);
        }
        let now_ns = inner.authority.now_ns();
        for group in inner.groups.load().iter() {
            group.refresh_debts(now_ns);
            for want in group.idle_slices(now_ns, false) {
                group.reserve(want, false);
            }
        }
        drop(inner);
        tokio::time::sleep(TEND_EVERY).await;
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").field("groups", &self.inner.groups).finish_non_exhaustive()
    }
}

/// Reads bytes as the messages between nodes, for fuzzing.
pub(crate) fn decode_for_fuzz(bytes: &[u8]) {
    let _ = wire::decode::<wire::Ask>(bytes);
    let _ = wire::decode::<wire::Answer>(bytes);
}

fn unavailable(reason: &str) -> Unavailable {
    Unavailable::new(reason)
}

#[cfg(test)]
mod tests;
