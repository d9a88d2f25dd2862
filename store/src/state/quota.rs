//! Quota counters: units used, reserved by live incarnations, and held by incarnations that are gone.
//!
//! `used + reserved + unsettled <= limit` holds unless rows charge more than was reserved for them. A reservation names its
//! node's incarnation; whether that incarnation still runs is one number a node ([`Nodes`]), so that a node's start
//! forfeits its old reservations without touching a single counter.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::{
    model::{NodeId, Reservation, Watch},
    platform::planted,
};

/// The newest incarnation of each node that has started.
pub(super) type Nodes = BTreeMap<NodeId, u64>;

/// Periods that always stay.
const NEWEST_PERIODS: usize = 2;
/// Older ones stay while they began at most so long before the newest: rows of long streams settle late.
const LATE_SECONDS: i64 = 2 * 86_400;
/// Incarnations of one node that are told apart in a period; older ones' units are put together.
const INCARNATIONS: usize = 8;

/// One account's quota.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Counter {
    /// By start of the period, ascending.
    #[n(0)]
    periods: Vec<Period>,
}

/// One period.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Period {
    #[n(0)]
    pub(super) start: i64,
    #[n(1)]
    pub(super) used: u64,
    /// Units of incarnations so old that they are not told apart.
    #[n(2)]
    unsettled: u64,
    /// Units that incarnations hold, sorted; never 0.
    #[n(3)]
    held: Vec<(NodeId, u64, u64)>,
    /// What is to be noticed about its use, as the newest reservation said.
    #[n(4)]
    pub(super) watch: Option<Watch>,
    /// The highest threshold that was passed.
    #[n(5)]
    raised: Option<u16>,
}

/// What a charge has made noticeable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Noticed {
    /// Thresholds that were passed, ascending.
    pub(super) thresholds: Vec<u16>,
    /// More than the limit is used.
    pub(super) is_over: bool,
}

impl Counter {
    pub(super) fn periods(&self) -> &[Period] {
        &self.periods
    }

    pub(super) fn period(&self, start: i64) -> Option<&Period> {
        self.periods.iter().find(|period| period.start == start)
    }

    /// Grants what is left of the limit, or takes units back; says how many units were granted.
    pub(super) fn reserve(&mut self, nodes: &Nodes, demand: &Reservation) -> u64 {
        if is_gone(nodes, demand.node, demand.incarnation) {
            return 0;
        }
        let Ok(wanted) = u64::try_from(demand.units) else {
            if let Some(period) = self.periods.iter_mut().find(|period| period.start == demand.period_start) {
                period.release(demand.node, demand.incarnation, demand.units.unsigned_abs());
            }
            return 0;
        };
        if self.periods.last().is_some_and(|newest| newest.start > demand.period_start) {
            return 0;
        }
        let Some(period) = self.period_mut(demand.period_start) else { return 0 };
        let taken = period.used.saturating_add(period.total_held()).saturating_add(period.unsettled);
        let left = demand.limit.saturating_sub(taken);
        let granted = if planted!(OverReserves) { wanted } else { wanted.min(left) };
        period.hold(demand.node, demand.incarnation, granted);
        if let Some(watch) = &demand.watch {
            period.follow(watch);
        }
        granted
    }

    /// Thresholds of a period that its use has passed and nobody was told of: the policy has changed, and no row has come
    /// since.
    pub(super) fn look(&mut self, start: i64) -> Option<(&Period, Vec<u16>)> {
        let period = self.periods.iter_mut().find(|period| period.start == start)?;
        let thresholds = period.notice().thresholds;
        Some((period, thresholds))
    }

    /// The newest period, if [`Self::look`] would find something there under this policy.
    pub(super) fn would_notice(&self, watch: impl FnOnce(i64) -> Option<Watch>) -> Option<(i64, Watch)> {
        let newest = self.periods.last().filter(|newest| newest.used > 0 && newest.watch.is_some())?;
        let watch = watch(newest.start)?;
        let mut then = newest.clone();
        then.follow(&watch);
        (!then.notice().thresholds.is_empty()).then_some((newest.start, watch))
    }

    /// Charges a row's units to its period, from its incarnation's reservation as far as that goes.
    pub(super) fn charge(&mut self, nodes: &Nodes, node: NodeId, incarnation: u64, start: i64, units: u64) -> Noticed {
        let Some(period) = self.period_mut(start) else { return Noticed::default() };
        period.used = period.used.saturating_add(units);
        if planted!(AppliesUnevenly) {
            period.used += u64::from(crate::platform::wall_clock().subsec_millis().is_multiple_of(7));
        }
        let short = units - period.release(node, incarnation, units);
        if is_gone(nodes, node, incarnation) {
            period.unsettled = period.unsettled.saturating_sub(short);
        }
        period.notice()
    }

    /// The period, made if it is new; none when it is so old that it is kept no more.
    fn period_mut(&mut self, start: i64) -> Option<&mut Period> {
        let at = match self.periods.binary_search_by_key(&start, |period| period.start) {
            Ok(at) => return self.periods.get_mut(at),
            Err(at) => at,
        };
        self.periods.insert(at, Period { start, ..Period::default() });
        let newest = self.periods.last().map_or(start, |period| period.start);
        let late = newest.saturating_sub(LATE_SECONDS);
        let kept = self.periods.len().saturating_sub(NEWEST_PERIODS);
        let old = self.periods[..kept].partition_point(|period| period.start < late);
        self.periods.drain(..old);
        self.periods.iter_mut().find(|period| period.start == start)
    }
}

impl Period {
    /// Units that live incarnations hold, and those of incarnations that are gone.
    pub(super) fn reserved_and_unsettled(&self, nodes: &Nodes) -> (u64, u64) {
        self.held.iter().fold((0, self.unsettled), |(reserved, unsettled), (node, incarnation, units)| {
            if is_gone(nodes, *node, *incarnation) {
                (reserved, unsettled + units)
            } else {
                (reserved + units, unsettled)
            }
        })
    }

    /// Is watched as a policy says now.
    fn follow(&mut self, watch: &Watch) {
        if self.watch.as_ref() == Some(watch) {
            return;
        }
        // Under a greater limit its thresholds can be passed again.
        if self.watch.as_ref().is_some_and(|old| watch.limit > old.limit) {
            self.raised = Some(self.passed(watch));
        }
        self.watch = Some(watch.clone());
    }

    /// What its use has come to since the last look.
    fn notice(&mut self) -> Noticed {
        let Some(watch) = &self.watch else { return Noticed::default() };
        let mut thresholds: Vec<u16> = watch
            .thresholds
            .iter()
            .copied()
            .filter(|threshold| *threshold > self.raised.unwrap_or(0) && self.has_passed(watch, *threshold))
            .collect();
        thresholds.sort_unstable();
        let is_over = self.used > watch.limit;
        self.raised = thresholds.last().copied().or(self.raised);
        Noticed { thresholds, is_over }
    }

    fn has_passed(&self, watch: &Watch, threshold: u16) -> bool {
        self.used > 0 && u128::from(self.used) * 100 >= u128::from(watch.limit) * u128::from(threshold)
    }

    /// The highest threshold of a watch that its use has passed already.
    fn passed(&self, watch: &Watch) -> u16 {
        watch.thresholds.iter().copied().filter(|threshold| self.has_passed(watch, *threshold)).max().unwrap_or(0)
    }

    fn total_held(&self) -> u64 {
        self.held.iter().fold(0, |sum, (_, _, units)| sum.saturating_add(*units))
    }

    fn hold(&mut self, node: NodeId, incarnation: u64, units: u64) {
        if units == 0 {
            return;
        }
        match self.held.binary_search_by_key(&(node, incarnation), |(node, incarnation, _)| (*node, *incarnation)) {
            Ok(at) => self.held[at].2 = self.held[at].2.saturating_add(units),
            Err(at) => self.held.insert(at, (node, incarnation, units)),
        }
        let first = self.held.partition_point(|held| held.0 < node);
        let of_node = self.held[first..].partition_point(|held| held.0 == node);
        if of_node > INCARNATIONS {
            self.unsettled = self.unsettled.saturating_add(self.held.remove(first).2);
        }
    }

    /// Takes units from an incarnation's reservation, at most what it holds; says how many.
    fn release(&mut self, node: NodeId, incarnation: u64, units: u64) -> u64 {
        let key = (node, incarnation);
        let Ok(at) = self.held.binary_search_by_key(&key, |(node, incarnation, _)| (*node, *incarnation)) else {
            return 0;
        };
        let released = units.min(self.held[at].2);
        self.held[at].2 -= released;
        if self.held[at].2 == 0 {
            self.held.remove(at);
        }
        released
    }
}

fn is_gone(nodes: &Nodes, node: NodeId, incarnation: u64) -> bool {
    nodes.get(&node).is_some_and(|newest| incarnation < *newest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 100;

    fn demand(node: u64, incarnation: u64, period_start: i64, units: i64) -> Reservation {
        let node = NodeId(node);
        let (account, quota) = ("a".into(), "q".into());
        Reservation { node, incarnation, account, quota, period_start, units, limit: LIMIT, watch: None, look_at: None }
    }

    fn watched(limit: u64, units: i64) -> Reservation {
        let watch = Watch { limit, thresholds: vec![80, 100], shadow: false, period_end: 3_600 };
        Reservation { limit: u64::MAX, watch: Some(watch), ..demand(1, 1, 0, units) }
    }

    #[test]
    fn a_threshold_is_noticed_once_and_again_only_under_a_greater_limit() {
        let (mut counter, nodes) = (Counter::default(), Nodes::new());
        counter.reserve(&nodes, &watched(10, 100));
        let charge = |counter: &mut Counter, units| {
            let noticed = counter.charge(&nodes, NodeId(1), 1, 0, units);
            (noticed.thresholds, noticed.is_over)
        };
        assert_eq!(charge(&mut counter, 7), (vec![], false));
        assert_eq!(charge(&mut counter, 1), (vec![80], false));
        assert_eq!(charge(&mut counter, 1), (vec![], false));
        assert_eq!(charge(&mut counter, 1), (vec![100], false), "all of it is used, and no more");
        assert_eq!(charge(&mut counter, 1), (vec![], true));
        counter.reserve(&nodes, &watched(20, 1));
        assert_eq!(charge(&mut counter, 4), (vec![], false));
        assert_eq!(charge(&mut counter, 1), (vec![80], false));
        counter.reserve(&nodes, &watched(10, 1));
        assert_eq!(charge(&mut counter, 1), (vec![100], true), "lowered: passed as it is");
        let mut at_once = Counter::default();
        at_once.reserve(&nodes, &watched(10, 100));
        assert_eq!(charge(&mut at_once, 30), (vec![80, 100], true));
        assert_eq!(at_once.charge(&nodes, NodeId(1), 1, 3_600, 30), Noticed::default(), "nobody watches that period");
    }

    #[test]
    fn a_limit_that_is_lowered_below_what_was_used_is_noticed_without_a_row() {
        let (mut counter, nodes) = (Counter::default(), Nodes::new());
        counter.reserve(&nodes, &watched(100, 50));
        counter.charge(&nodes, NodeId(1), 1, 0, 50);
        let watch = |limit| move |_| watched(limit, 0).watch;
        let mut lower = |limit| {
            let told = counter.would_notice(watch(limit)).map(|(start, watch)| (start, watch.limit));
            counter.reserve(&nodes, &watched(limit, 0));
            (told, counter.look(0).map(|(period, thresholds)| (period.used, thresholds)))
        };
        assert_eq!(lower(90), (None, Some((50, vec![]))));
        assert_eq!(lower(60), (Some((0, 60)), Some((50, vec![80]))));
        assert_eq!(lower(60), (None, Some((50, vec![]))), "told once");
        assert_eq!(lower(20), (Some((0, 20)), Some((50, vec![100]))));
        assert_eq!(lower(10), (None, Some((50, vec![]))));
        assert_eq!(lower(100), (None, Some((50, vec![]))));
        assert_eq!(lower(50), (Some((0, 50)), Some((50, vec![80, 100]))), "it was raised in between");
        assert_eq!(counter.would_notice(|_| None), None, "a quota that is gone");
        assert_eq!((counter.look(3_600), Counter::default().would_notice(watch(1))), (None, None));
    }

    fn now(counter: &Counter, nodes: &Nodes, start: i64) -> (u64, u64, u64) {
        let period = counter.period(start).expect("the period");
        let (reserved, unsettled) = period.reserved_and_unsettled(nodes);
        (period.used, reserved, unsettled)
    }

    #[test]
    fn a_dead_incarnations_units_stay_unsettled_until_its_late_rows_use_them() {
        let (mut counter, mut nodes) = (Counter::default(), Nodes::from([(NodeId(1), 1)]));
        assert_eq!(counter.reserve(&nodes, &demand(1, 1, 0, 60)), 60);
        counter.charge(&nodes, NodeId(1), 1, 0, 10);
        nodes.insert(NodeId(1), 2);
        assert_eq!(now(&counter, &nodes, 0), (10, 0, 50));
        assert_eq!(counter.reserve(&nodes, &demand(1, 1, 0, 5)), 0, "the dead get nothing");
        assert_eq!(counter.reserve(&nodes, &demand(1, 1, 0, -50)), 0, "and give nothing back");
        assert_eq!(counter.reserve(&nodes, &demand(1, 2, 0, 90)), 40);
        counter.charge(&nodes, NodeId(1), 1, 0, 20);
        assert_eq!(now(&counter, &nodes, 0), (30, 40, 30));
    }

    #[test]
    fn an_older_period_is_refused_but_its_rows_still_count() {
        let (mut counter, nodes) = (Counter::default(), Nodes::new());
        assert_eq!(counter.reserve(&nodes, &demand(1, 1, 0, 10)), 10);
        assert_eq!(counter.reserve(&nodes, &demand(1, 1, 3_600, 10)), 10);
        assert_eq!(counter.reserve(&nodes, &demand(1, 1, 0, 10)), 0);
        counter.charge(&nodes, NodeId(1), 1, 0, 4);
        assert_eq!(now(&counter, &nodes, 0), (4, 6, 0));
        assert_eq!(counter.reserve(&nodes, &demand(1, 1, 0, -6)), 0);
        assert_eq!(now(&counter, &nodes, 0), (4, 0, 0));
    }

    #[test]
    fn old_periods_go_but_two_and_the_late_ones_stay() {
        let (mut counter, nodes) = (Counter::default(), Nodes::new());
        let hour = 3_600;
        for start in 0..100 {
            counter.reserve(&nodes, &demand(1, 1, start * hour, 1));
        }
        assert_eq!(counter.periods().len(), 49);
        let month = 31 * 86_400;
        counter.reserve(&nodes, &demand(1, 1, 2 * month, 1));
        counter.reserve(&nodes, &demand(1, 1, 3 * month, 1));
        assert_eq!(counter.periods().iter().map(|p| p.start).collect::<Vec<_>>(), [2 * month, 3 * month]);
        counter.charge(&nodes, NodeId(1), 1, 0, 1);
        assert_eq!(counter.periods().len(), 2, "a row that late changes nothing");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(u64, i64),
        Charge(u64, u64),
        Restart(u64),
    }

    proptest! {
        /// Rows charge at most what their incarnation holds: then nothing ever exceeds the limit, and no unit is lost.
        #[test]
        fn used_reserved_and_unsettled_never_exceed_the_limit(steps in prop::collection::vec(
            prop_oneof![
                (0..3u64, -30..60i64).prop_map(|(node, units)| Step::Reserve(node, units)),
                (0..3u64, 0..40u64).prop_map(|(node, units)| Step::Charge(node, units)),
                (0..3u64).prop_map(Step::Restart),
            ],
            1..80,
        )) {
            let (mut counter, mut nodes) = (Counter::default(), Nodes::new());
            let mut incarnations = [1u64; 3];
            let mut holds = [0u64; 3];
            let (mut used, mut forfeited) = (0, 0);
            for step in steps {
                match step {
                    Step::Reserve(node, units) => {
                        let granted = counter.reserve(&nodes, &demand(node, incarnations[node as usize], 0, units));
                        let hold = &mut holds[node as usize];
                        *hold = if units < 0 { hold.saturating_sub(units.unsigned_abs()) } else { *hold + granted };
                    }
                    Step::Charge(node, units) => {
                        let units = units.min(holds[node as usize]);
                        counter.charge(&nodes, NodeId(node), incarnations[node as usize], 0, units);
                        holds[node as usize] -= units;
                        used += units;
                    }
                    Step::Restart(node) => {
                        incarnations[node as usize] += 1;
                        nodes.insert(NodeId(node), incarnations[node as usize]);
                        forfeited += std::mem::take(&mut holds[node as usize]);
                    }
                }
                prop_assert!(used + holds.iter().sum::<u64>() + forfeited <= LIMIT);
                if counter.period(0).is_some() {
                    prop_assert_eq!(now(&counter, &nodes, 0), (used, holds.iter().sum(), forfeited));
                }
            }
        }
    }
}
