//! What a request holds while it is decided and served: given back exactly when it is dropped, unless it was kept.

use std::{fmt, sync::Arc};

use super::{bucket::Taken, few::Few, group::Group, slice::QuotaTake, units::Entry};

pub(super) struct Held {
    pub(super) group: Arc<Group>,
    unit: Option<Arc<Entry>>,
    term: u64,
    /// Rates were decided in this node's memory.
    by_this_node: bool,
    pub(super) rates: Few<Taken>,
    pub(super) quotas: Few<QuotaTake>,
}

impl Held {
    pub(super) fn new(
        group: Arc<Group>,
        unit: Option<Arc<Entry>>,
        term: u64,
        by_this_node: bool,
        rates: Few<Taken>,
    ) -> Self {
        Self { group, unit, term, by_this_node, rates, quotas: Few::default() }
    }

    /// Leaves the quotas spent.
    pub(super) fn keep_quotas(&mut self) {
        self.quotas.take().for_each(QuotaTake::keep);
    }

    /// Leaves rates and quotas spent; only the concurrency unit still goes back.
    pub(super) fn spend(&mut self) {
        self.rates = Few::default();
        self.keep_quotas();
    }

    /// Whether the rates were decided in this node's memory, by its clock.
    pub(super) fn by_this_node(&self) -> bool {
        self.by_this_node
    }

    /// Whether it holds a concurrency unit.
    pub(super) fn has_unit(&self) -> bool {
        self.unit.is_some()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(entry) = self.unit.take() {
            self.group.units.give_back(&entry);
            if !self.by_this_node {
                self.group.not_crowded(&entry);
                self.group.nudge.notify_one();
            }
        }
        if !self.rates.is_empty() {
            self.group.give_back_rates(self.term, self.by_this_node, &self.rates);
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("group", &self.group.id)
            .field("unit", &self.has_unit())
            .field("rates", &self.rates)
            .field("quotas", &self.quotas)
            .finish()
    }
}
