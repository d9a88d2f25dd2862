//! An operator: takes nodes out of the cluster and brings them back empty, drains them, moves leadership. What an order was
//! lost with (the node it went through, a leader) is asked again, as operators do.

use std::{rc::Rc, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use store::Readiness;

use super::cluster::{Order, Shared};

/// Mean pause between two orders.
const PAUSE: Duration = Duration::from_secs(5);
/// A drained node serves again after this long at the most.
const LONGEST_DRAIN_MS: u64 = 3_000;

pub(super) struct Operator {
    rng: SmallRng,
    next: Duration,
    /// To be taken out, until it is and has said so.
    leaving: Option<usize>,
    /// Drained, and until when.
    drained: Option<(usize, Duration)>,
}

impl Operator {
    pub(super) fn new(shared: &Rc<Shared>) -> Self {
        let rng = SmallRng::seed_from_u64(shared.plan.seed ^ 0x0be4_a704);
        Self { rng, next: Duration::from_secs(5), leaving: None, drained: None }
    }

    /// Whether a node is being taken out.
    pub(super) fn removes(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether something new is due.
    pub(super) fn wants(&self, now: Duration) -> bool {
        now >= self.next && self.leaving.is_none() && self.drained.is_none()
    }

    /// Does what is due; `fit`: whether all is well enough for something new. A node that has been taken out, if one has.
    pub(super) fn tick(&mut self, shared: &Rc<Shared>, down: &[bool], fit: bool) -> Option<usize> {
        let says = |node: usize, what: &str| {
            let store = shared.slots.borrow()[node].store.clone();
            store.is_some_and(|store| matches!(store.readiness(), Readiness::NotReady(reason) if reason.contains(what)))
        };
        if let Some(node) = self.leaving
            && !down[node]
            && says(node, "was removed from the cluster")
        {
            self.leaving = None;
            shared.count("fault: nodes removed, back empty");
            return Some(node);
        }
        if shared.operating.get().is_some() {
            return None;
        }
        let now = shared.elapsed();
        if let Some(node) = self.leaving {
            self.order(shared, node, Order::Remove);
        } else if let Some((node, until)) = self.drained {
            if now >= until {
                // Restarted meanwhile, it has forgotten.
                if !down[node] && says(node, "draining") {
                    self.order(shared, node, |name| Order::Drain(name, false));
                } else if !down[node] {
                    self.drained = None;
                }
            }
        } else if fit && shared.plan.faults && shared.is_set_up.get() {
            let wait = -PAUSE.as_secs_f64() * (1.0 - self.rng.random::<f64>()).ln();
            self.next = now + Duration::from_secs_f64(wait);
            let node = self.rng.random_range(0..down.len());
            match self.rng.random_range(0..4) {
                0 | 1 => {
                    self.leaving = Some(node);
                    shared.note(&format!("node {node} is to go"));
                }
                2 => {
                    let long = Duration::from_millis(self.rng.random_range(100..LONGEST_DRAIN_MS));
                    self.drained = Some((node, now + long));
                    self.order(shared, node, |name| Order::Drain(name, true));
                }
                _ => self.order(shared, node, |_| Order::Transfer),
            }
        }
        None
    }

    /// Through any node but the one that it is about.
    fn order(&mut self, shared: &Rc<Shared>, about: usize, order: impl Fn(String) -> Order) {
        let running: Vec<usize> = shared.running().into_iter().map(|(at, _)| at).filter(|at| *at != about).collect();
        if running.is_empty() {
            return;
        }
        let through = running[self.rng.random_range(0..running.len())];
        let mut slots = shared.slots.borrow_mut();
        let name = slots[about].name.clone();
        slots[through].order = Some(order(name));
        drop(slots);
        shared.operating.set(Some(through));
    }
}
