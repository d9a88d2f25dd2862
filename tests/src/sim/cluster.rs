//! What the parts of a simulation share: the nodes as the world sees them, and what the checkers have been told.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use store::{
    Store,
    model::{AccountId, KeyHash, KeyId},
};

use super::{clock, disk::Disk, run::Plan};
use crate::invariants::Laws;

/// One node.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) disk: Disk,
    pub(super) drift_ppm: i64,
    /// By how many milliseconds its wall clock is wrong.
    pub(super) wrong_ms: Rc<Cell<i64>>,
    /// Starts so far.
    pub(super) life: u32,
    pub(super) store: Option<Store>,
    /// Why it serves no more, or did not start.
    pub(super) ended: Option<Ended>,
    /// It is asked to stop in good order.
    pub(super) stop: bool,
    /// What an operator asks of the cluster through it.
    pub(super) order: Option<Order>,
}

/// What an operator may ask of any node.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// Take the node of this name out.
    Remove(String),
    /// Drain it, or end that.
    Drain(String, bool),
    /// Move leadership of all groups to whoever is fit.
    Transfer,
}

/// Why a node's process ended.
#[derive(Debug, Clone)]
pub(super) enum Ended {
    /// Its disk failed while it ran.
    Failed(#[allow(dead_code, reason = "printed")] String),
    /// It did not start.
    Refused(String),
    /// It was asked to.
    Stopped,
}

/// A key that clients use.
#[derive(Debug, Clone)]
pub(super) struct KnownKey {
    pub(super) id: KeyId,
    pub(super) hash: KeyHash,
    pub(super) account: AccountId,
    /// Number in the barrier's law.
    pub(super) number: usize,
}

pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) slots: RefCell<Vec<Slot>>,
    pub(super) laws: RefCell<Laws>,
    pub(super) keys: RefCell<Vec<KnownKey>>,
    /// Clients send.
    pub(super) load: Cell<bool>,
    /// Accounts and keys are there.
    pub(super) is_set_up: Cell<bool>,
    /// The node through which an operator's order is under way.
    pub(super) operating: Cell<Option<usize>>,
    pub(super) counts: RefCell<BTreeMap<String, u64>>,
    sequence: Cell<u64>,
    trace: Cell<u32>,
}

impl Shared {
    pub(super) fn new(plan: Plan, names: Vec<String>, drifts: &[i64]) -> Self {
        let slot = |(at, name): (usize, String)| Slot {
            name,
            disk: Disk::new(plan.seed.wrapping_mul(31).wrapping_add(at as u64)),
            drift_ppm: drifts[at],
            wrong_ms: Rc::default(),
            life: 0,
            store: None,
            ended: None,
            stop: false,
            order: None,
        };
        Self {
            slots: RefCell::new(names.into_iter().enumerate().map(slot).collect()),
            plan,
            laws: RefCell::default(),
            keys: RefCell::default(),
            load: Cell::new(true),
            is_set_up: Cell::new(false),
            operating: Cell::new(None),
            counts: RefCell::default(),
            sequence: Cell::new(0),
            trace: Cell::new(0),
        }
    }

    /// A number for each event: events of one thread have an order.
    pub(super) fn next(&self) -> u64 {
        self.sequence.set(self.sequence.get() + 1);
        self.sequence.get()
    }

    /// Something happened to a client: it is counted, and goes into the run's sum.
    pub(super) fn count(&self, what: &str) {
        *self.counts.borrow_mut().entry(what.to_owned()).or_default() += 1;
        self.add(what);
    }

    /// Something happened to the cluster: it goes into the run's sum, and is printed when asked for.
    pub(super) fn note(&self, what: &str) {
        self.add(what);
        if self.plan.trace {
            eprintln!("{:9.3} {what}", clock::elapsed().as_secs_f64());
        }
    }

    fn add(&self, what: &str) {
        let sum = crc32c::crc32c_append(self.trace.get(), &clock::elapsed().as_nanos().to_le_bytes());
        self.trace.set(crc32c::crc32c_append(sum, what.as_bytes()));
    }

    /// The sum of all that happened: equal for equal runs.
    pub(super) fn sum(&self) -> u32 {
        self.trace.get()
    }

    pub(super) fn running(&self) -> Vec<(usize, Store)> {
        let slots = self.slots.borrow();
        slots.iter().enumerate().filter_map(|(at, slot)| Some((at, slot.store.clone()?))).collect()
    }

    pub(super) fn elapsed(&self) -> Duration {
        clock::elapsed()
    }
}
