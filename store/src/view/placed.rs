//! The ledger group of each slot, as the request path reads it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    },
};

use arc_swap::ArcSwapOption;

use crate::model::{GroupId, Placement, Revision, SLOTS, slot_of};

/// Set in a slot's group while the slot is closed. There are no groups with such numbers.
const CLOSED: u32 = 1 << 31;

/// Where an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceOfAccount {
    /// Its ledger group.
    pub group: GroupId,
    /// Its slot; none where there is one ledger group.
    pub slot: Option<u16>,
    /// Requests are let through: its slot is not on its way to another group.
    pub is_open: bool,
}

/// Where accounts are.
pub(super) struct Placed {
    /// More than one group has slots: otherwise an account's slot need not be known.
    several: AtomicBool,
    /// Slots have moved, or are about to.
    has_moved: AtomicBool,
    /// Of the placement that is being taken over: stored before any of its slots …
    epoch: AtomicU64,
    /// … and after all of them.
    in_force: AtomicU64,
    slots: Box<[Slot]>,
    placement: ArcSwapOption<Placement>,
}

struct Slot {
    /// The group, and [`CLOSED`].
    group: AtomicU32,
    /// When this node learned that the slot has come to its group (lease clock); 0 when it was there before.
    since_ns: AtomicU64,
}

impl Default for Placed {
    fn default() -> Self {
        let slot = |_| Slot { group: AtomicU32::new(GroupId::LEDGER.0), since_ns: AtomicU64::new(0) };
        Self {
            several: AtomicBool::new(false),
            has_moved: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            in_force: AtomicU64::new(0),
            slots: (0..SLOTS).map(slot).collect(),
            placement: ArcSwapOption::empty(),
        }
    }
}

impl Placed {
    /// `now_ns`: on the lease clock.
    pub(super) fn place(&self, placement: &Arc<Placement>, now_ns: u64) {
        self.epoch.store(placement.epoch, Ordering::SeqCst);
        self.has_moved.store(placement.has_moved(), Ordering::SeqCst);
        // What is found when this node opens its state was so before it began to lead anything.
        let is_first = self.placement.swap(Some(Arc::clone(placement))).is_none();
        for (n, (slot, group)) in (0..).zip(self.slots.iter().zip(placement.groups_of_slots())) {
            let is_closed = placement.moving.is_some_and(|moving| moving.range().contains(&n));
            let before = slot.group.load(Ordering::Relaxed) & !CLOSED;
            if before != group.0 && !is_first {
                // Before the group: who sees that one sees this.
                slot.since_ns.store(now_ns, Ordering::Release);
            }
            slot.group.store(group.0 | if is_closed { CLOSED } else { 0 }, Ordering::SeqCst);
        }
        self.several.store(!placement.added.is_empty(), Ordering::SeqCst);
        self.in_force.store(placement.epoch, Ordering::SeqCst);
    }

    pub(super) fn group_of(&self, account: &str) -> GroupId {
        if !self.several.load(Ordering::Acquire) {
            return GroupId::LEDGER;
        }
        self.slots.get(usize::from(slot_of(account))).map_or(GroupId::LEDGER, |slot| slot.read().0)
    }

    /// Where an account is. What a request has taken before this call is seen by whoever closes the slot after it.
    pub(super) fn place_of(&self, account: &str) -> PlaceOfAccount {
        if !self.several.load(Ordering::Acquire) {
            return PlaceOfAccount { group: GroupId::LEDGER, slot: None, is_open: true };
        }
        let slot = slot_of(account);
        fence(Ordering::SeqCst);
        let (group, is_open) = self.slots.get(usize::from(slot)).map_or((GroupId::LEDGER, true), Slot::read);
        PlaceOfAccount { group, slot: Some(slot), is_open }
    }

    /// A slot's group, whether it is open, and since when it is there.
    pub(super) fn slot(&self, slot: u16) -> (GroupId, bool, u64) {
        self.slots.get(usize::from(slot)).map_or((GroupId::LEDGER, true, 0), |slot| {
            let (group, is_open) = slot.read();
            (group, is_open, slot.since_ns.load(Ordering::Acquire))
        })
    }

    pub(super) fn has_moved(&self) -> bool {
        self.has_moved.load(Ordering::Acquire)
    }

    pub(super) fn epoch(&self) -> Revision {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn in_force(&self) -> Revision {
        self.in_force.load(Ordering::SeqCst)
    }

    /// The placement in force; none while there is one ledger group.
    pub(super) fn placement(&self) -> Option<Arc<Placement>> {
        if !self.several.load(Ordering::Acquire) {
            return None;
        }
        self.placement.load_full()
    }
}

impl Slot {
    fn read(&self) -> (GroupId, bool) {
        let group = self.group.load(Ordering::SeqCst);
        (GroupId(group & !CLOSED), group & CLOSED == 0)
    }
}

impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placed").field("several", &self.several).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FirstVoter, NodeId, NodeInfo};

    fn voters() -> [FirstVoter; 1] {
        [FirstVoter { id: NodeId(1), info: NodeInfo::default() }]
    }

    #[test]
    fn accounts_are_where_their_slots_are() {
        let placed = Placed::default();
        assert_eq!(placed.group_of("acme"), GroupId::LEDGER);
        let placement = Arc::new(Placement::even(3, &voters()));
        placed.place(&placement, 1);
        let groups: Vec<GroupId> = placement.groups_of_slots().collect();
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..100 {
            let account = format!("account-{n}");
            assert_eq!(placed.group_of(&account), groups[usize::from(slot_of(&account))]);
            seen.insert(placed.group_of(&account));
        }
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn a_slot_that_moves_is_closed_and_then_new_in_its_group() {
        let placed = Placed::default();
        let one = Placement::even(1, &[]).grown(2, &voters());
        placed.place(&Arc::new(one.clone()), 10);
        let moving = one.next_move().expect("a move");
        let account = (0..).map(|n| format!("a-{n}")).find(|name| moving.range().contains(&slot_of(name)));
        let account = account.expect("names do not end");
        let slot = slot_of(&account);
        assert_eq!(placed.slot(slot), (GroupId::LEDGER, true, 0));
        placed.place(&Arc::new(one.closed(moving)), 20);
        let closed = PlaceOfAccount { group: GroupId::LEDGER, slot: Some(slot), is_open: false };
        assert_eq!(placed.place_of(&account), closed);
        placed.place(&Arc::new(one.closed(moving).opened(7)), 30);
        assert_eq!(placed.place_of(&account), PlaceOfAccount { group: GroupId(2), is_open: true, ..closed });
        assert_eq!(placed.slot(slot).2, 30);
        let fresh = Placed::default();
        fresh.place(&Arc::new(one.closed(moving).opened(7)), 40);
        assert_eq!(fresh.slot(slot), (GroupId(2), true, 0), "found when the node opened");
    }
}
