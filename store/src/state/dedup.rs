//! Which batches have landed: a retried proposal, byte for byte the same, lands once, also across a change of leader.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::{model::NodeId, platform::planted};

/// Incarnations a node whose batches are remembered: the one that runs and the one before it.
const INCARNATIONS: usize = 2;
/// Runs of one incarnation. Nodes number their batches 1, 2, 3, … and have two in flight, so there are one to three. At
/// the bound the lowest hole is closed: what would have filled it counts as landed.
const RUNS: usize = 4_096;

/// A set of numbers as sorted runs, both ends included: exact, and small while numbers come nearly in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Runs(#[n(0)] Vec<(u64, u64)>);

impl Runs {
    pub(super) fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|run| run.0 <= number);
        after > 0 && self.0[after - 1].1 >= number
    }

    /// Adds a number; false when it was there.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let at = self.0.partition_point(|run| run.0 <= number);
        if at > 0 && self.0[at - 1].1 >= number {
            return false;
        }
        let joins_left = at > 0 && self.0[at - 1].1.checked_add(1) == Some(number);
        let joins_right = self.0.get(at).is_some_and(|run| number.checked_add(1) == Some(run.0));
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = number,
            (false, true) => self.0[at].0 = number,
            (false, false) => self.0.insert(at, (number, number)),
        }
        if self.0.len() > RUNS {
            self.0[1].0 = self.0[0].0;
            self.0.remove(0);
        }
        true
    }
}

/// The landed batches of all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Landed(BTreeMap<(NodeId, u64), Runs>);

impl Landed {
    pub(super) fn contains(&self, node: NodeId, incarnation: u64, batch: u64) -> bool {
        !planted!(ForgetsDedup) && self.0.get(&(node, incarnation)).is_some_and(|runs| runs.contains(batch))
    }

    /// Notes a batch.
    pub(super) fn insert(&mut self, node: NodeId, incarnation: u64, batch: u64) {
        self.0.entry((node, incarnation)).or_default().insert(batch);
        self.forget(node);
    }

    /// Notes that an incarnation has begun.
    pub(super) fn begin(&mut self, node: NodeId, incarnation: u64) {
        self.0.entry((node, incarnation)).or_default();
        self.forget(node);
    }

    /// Forgets incarnations older than the newest [`INCARNATIONS`]: their process is gone, and so is who would retry.
    fn forget(&mut self, node: NodeId) {
        while self.0.range((node, 0)..=(node, u64::MAX)).count() > INCARNATIONS {
            let oldest = self.0.range((node, 0)..).next().map(|(key, _)| *key);
            self.0.remove(&oldest.expect("more than two were counted"));
        }
    }

    pub(super) fn to_stored(&self) -> Vec<(NodeId, u64, Runs)> {
        self.0.iter().map(|((node, incarnation), runs)| (*node, *incarnation, runs.clone())).collect()
    }

    pub(super) fn from_stored(stored: Vec<(NodeId, u64, Runs)>) -> Self {
        Self(stored.into_iter().map(|(node, incarnation, runs)| ((node, incarnation), runs)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_the_exact_set(numbers in prop::collection::vec(0u64..300, 0..400)) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(runs.insert(number), set.insert(number));
            }
            for number in 0..301 {
                prop_assert_eq!(runs.contains(number), set.contains(&number));
            }
            prop_assert!(runs.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }

    #[test]
    fn a_window_of_holes_is_exact_for_4096_runs_and_then_closes_the_lowest() {
        let mut runs = Runs::default();
        for number in 0..RUNS as u64 {
            assert!(runs.insert(number * 2));
        }
        assert!(!runs.contains(1));
        assert!(runs.insert(RUNS as u64 * 2));
        assert!(runs.contains(1) && !runs.contains(3));
    }

    #[test]
    fn the_newest_two_incarnations_of_each_node_are_remembered() {
        let mut landed = Landed::default();
        let (a, b) = (NodeId(1), NodeId(2));
        for incarnation in 1..=3 {
            landed.insert(a, incarnation, 7);
        }
        landed.insert(b, 1, 7);
        assert!(!landed.contains(a, 1, 7) && landed.contains(a, 2, 7) && landed.contains(a, 3, 7));
        assert!(landed.contains(b, 1, 7));
        assert_eq!(Landed::from_stored(landed.to_stored()), landed);
    }
}
