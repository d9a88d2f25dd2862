//! The ways of rows into the ledger groups: one batcher a group on this node.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::Store;
use crate::{
    model::{AccountId, GroupId},
    raft::{Batcher, Counters, Group, Node, Place},
    state::State,
};

/// Into one group.
pub(super) struct Lane {
    pub(super) group: Arc<Group>,
    pub(super) batcher: Batcher,
}

/// A lane that is in use: the first is lent, counting nothing.
pub(super) enum LaneRef<'a> {
    First(&'a Lane),
    Other(Arc<Lane>),
}

impl Deref for LaneRef<'_> {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        match self {
            Self::First(lane) => lane,
            Self::Other(lane) => lane,
        }
    }
}

/// All of a node. The first is at hand; there are others in clusters with several ledger groups.
pub(super) struct Lanes {
    first: Lane,
    others: ArcSwap<Vec<Arc<Lane>>>,
    waiting: Arc<AtomicUsize>,
    max_waiting: usize,
    counters: Arc<Counters>,
}

impl Lanes {
    /// `max_waiting`: rows that may be queued or in flight, over all groups.
    pub(super) fn new(node: &Node, max_waiting: usize) -> Self {
        let (waiting, counters) = (Arc::<AtomicUsize>::default(), Arc::<Counters>::default());
        let group = Arc::clone(node.ledger());
        let batcher = Batcher::start(Arc::clone(&group), (node.me(), node.incarnation()), Arc::clone(&counters));
        Self { first: Lane { group, batcher }, others: ArcSwap::default(), waiting, max_waiting, counters }
    }

    /// Opens lanes into groups that have none.
    fn open(&self, node: &Node) {
        let mut others = Vec::clone(&self.others.load());
        for group in node.ledgers() {
            let id = group.id();
            if id != GroupId::LEDGER && others.iter().all(|lane| lane.group.id() != id) {
                let of = (node.me(), node.incarnation());
                let batcher = Batcher::start(Arc::clone(&group), of, Arc::clone(&self.counters));
                others.push(Arc::new(Lane { group, batcher }));
            }
        }
        self.others.store(Arc::new(others));
    }

    /// The lane into a group; none while the group is not open here.
    pub(super) fn of(&self, group: GroupId) -> Option<LaneRef<'_>> {
        if group == GroupId::LEDGER {
            return Some(LaneRef::First(&self.first));
        }
        self.others.load().iter().find(|lane| lane.group.id() == group).cloned().map(LaneRef::Other)
    }

    /// Whether some ledger group is in fresh contact.
    pub(super) fn any_in_contact(&self) -> bool {
        self.first.group.is_in_contact() || self.others.load().iter().any(|lane| lane.group.is_in_contact())
    }

    /// Takes a place in the queue; none at the bound.
    pub(super) fn place(&self) -> Option<Place> {
        Place::take(&self.waiting, self.max_waiting)
    }

    /// Takes a place for the record that settles a row which had one of its own. Never refused: there is at most one for each
    /// answer that is streamed now, and those are bounded by the connections and their streams.
    pub(super) fn place_to_settle(&self) -> Place {
        Place::beyond(&self.waiting)
    }

    /// Rows queued or in flight.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Counts what [`Lanes::waiting`] says, for who does not hold the lanes.
    pub(super) fn gauge(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let waiting = Arc::clone(&self.waiting);
        move || waiting.load(Ordering::Relaxed)
    }

    /// The bound of [`Lanes::waiting`].
    pub(super) fn max_waiting(&self) -> usize {
        self.max_waiting
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Store {
    /// The ledger group of an account, if it is open here.
    pub(super) fn group_of(&self, account: &AccountId) -> Option<Arc<Group>> {
        self.0.node.replica(self.directory().group_of(account))
    }

    /// The state that has what is known of an account; the first group's while its own is not open here, which knows nothing of
    /// it.
    pub(super) fn state_of(&self, account: &AccountId) -> Arc<State> {
        let group = self.group_of(account);
        Arc::clone(group.as_ref().unwrap_or_else(|| self.0.node.ledger()).state())
    }

    /// The states that have something of an account: its group's, and those of the groups that its slot may have been in, the
    /// newest first.
    pub(super) fn states_of(&self, account: &AccountId) -> Vec<(GroupId, Arc<State>)> {
        let own = self.directory().group_of(account);
        if !self.directory().slots_have_moved() {
            return vec![(own, self.state_of(account))];
        }
        // Slots come to younger groups only.
        let mut states = self.ledger_states();
        states.retain(|(id, _)| *id <= own);
        states.reverse();
        states
    }

    /// The states of all ledger groups, in order of their numbers.
    pub(super) fn ledger_states(&self) -> Vec<(GroupId, Arc<State>)> {
        self.0.node.ledgers().iter().map(|group| (group.id(), Arc::clone(group.state()))).collect()
    }
}

/// Opens a lane into each group that is opened. Runs as long as the node does.
pub(super) async fn follow(store: Store) {
    let mut opened = store.0.node.opened();
    loop {
        store.0.lanes.open(&store.0.node);
        if opened.changed().await.is_err() {
            return;
        }
    }
}
