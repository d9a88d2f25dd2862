//! What a request holds while it is decided and served: given back exactly when it is dropped, unless it was kept.

use std::{fmt, sync::Arc};

use super::{few::Few, group::Group, handle::Handle, purse::Promise, slice::Take};
use crate::model::Timestamp;

pub(super) struct Held {
    pub(super) handle: Arc<Handle>,
    pub(super) unit: Unit,
    /// The time of the request, which says what quotas are in force.
    pub(super) now: Timestamp,
    /// Of the first of these quotas, in their order.
    pub(super) quotas: Few<Take>,
}

/// Of the concurrency.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub(super) is_held: bool,
    /// Another node leads, and granted it.
    asked: bool,
    /// [`Group::lapses`] when it was granted: units lapsed since are nobody's.
    pub(super) lapses: u64,
}

/// Rate units that the leader granted for this request.
pub(super) struct Promises {
    pub(super) group: Arc<Group>,
    pub(super) all: Vec<Promise>,
}

impl Held {
    pub(super) fn new(handle: Arc<Handle>, now: Timestamp) -> Self {
        Self { handle, unit: Unit::default(), now, quotas: Few::new() }
    }

    /// The account's.
    pub(super) fn group(&self) -> &Arc<Group> {
        &self.handle.group
    }

    /// Takes over the unit of another, if it has one.
    pub(super) fn take_unit(&mut self, mut other: Self) {
        if other.unit.is_held {
            self.unit = std::mem::take(&mut other.unit);
        }
    }

    /// Leaves the quotas spent.
    pub(super) fn keep_quotas(&mut self) {
        self.quotas.iter_mut().for_each(Take::keep);
    }

    /// Gives the quotas back that were not kept; how many there were.
    pub(super) fn end_quotas(&mut self) -> usize {
        let count = self.quotas.len();
        while let Some(take) = self.quotas.pop() {
            self.handle.slice(take.place).end(take);
        }
        count
    }

    /// Gives the concurrency unit back.
    pub(super) fn release_unit(&mut self) {
        self.unit.release(&self.handle);
    }
}

impl Unit {
    /// It is held now: this node granted it itself, or asked for it; `lapses` is of before.
    pub(super) fn hold(&mut self, asked: bool, lapses: u64) {
        *self = Self { is_held: true, asked, lapses };
    }

    /// Gives it back to the account's units.
    pub(super) fn release(&mut self, handle: &Handle) {
        if std::mem::take(&mut self.is_held) {
            handle.group.release(&handle.units, self.asked);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release_unit();
        self.end_quotas();
    }
}

impl Drop for Promises {
    fn drop(&mut self) {
        for promise in &self.all {
            self.group.purses.break_promise(promise);
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("group", &self.handle.group.id)
            .field("unit", &self.unit)
            .field("quotas", &self.quotas)
            .finish()
    }
}

impl fmt::Debug for Promises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Promises({})", self.all.len())
    }
}
