//! What a request holds while it is decided and served: given back exactly when it is dropped, unless it was kept.

use std::{fmt, sync::Arc};

use super::{few::Few, group::Group, handle::Handle, purse::Promise, slice::QuotaTake};

pub(super) struct Held {
    pub(super) group: Arc<Group>,
    pub(super) handle: Arc<Handle>,
    /// It has a unit of the concurrency.
    pub(super) unit: bool,
    /// Another node leads, and granted it.
    pub(super) asked: bool,
    /// [`Group::lapses`] when it was granted: units lapsed since are nobody's.
    pub(super) lapses: u64,
    pub(super) quotas: Few<QuotaTake>,
}

/// Rate units that the leader granted for this request.
pub(super) struct Promises {
    pub(super) group: Arc<Group>,
    pub(super) all: Vec<Promise>,
}

impl Held {
    pub(super) fn new(group: Arc<Group>, handle: Arc<Handle>) -> Self {
        Self { group, handle, unit: false, asked: false, lapses: 0, quotas: Few::default() }
    }

    /// It has a unit now, which this node granted itself, or asked for; `lapses` is of before.
    pub(super) fn hold_unit(&mut self, asked: bool, lapses: u64) {
        (self.unit, self.asked, self.lapses) = (true, asked, lapses);
    }

    /// Takes over the unit of another, if it has one.
    pub(super) fn take_unit(&mut self, mut other: Self) {
        if std::mem::take(&mut other.unit) {
            (self.unit, self.asked, self.lapses) = (true, other.asked, other.lapses);
        }
    }

    /// Leaves the quotas spent.
    pub(super) fn keep_quotas(&mut self) {
        self.quotas.take().for_each(QuotaTake::keep);
    }

    /// Gives the concurrency unit back.
    pub(super) fn release_unit(&mut self) {
        if std::mem::take(&mut self.unit) {
            self.group.release(&self.handle.units, self.asked);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release_unit();
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
            .field("group", &self.group.id)
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
