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

#[test]
fn what_is_taken_over_counts_once_and_never_less() {
    let (mut old, nodes) = (Counter::default(), Nodes::from([(NodeId(1), 2)]));
    old.reserve(&nodes, &demand(1, 2, 0, 60));
    old.charge(&nodes, NodeId(1), 2, 0, 20);
    let carried: Vec<Carried> = old.carried(&"a".into(), &"q".into()).collect();
    assert_eq!((carried.len(), carried[0].used, carried[0].unsettled), (1, 20, 40));
    let mut new = Counter::default();
    new.take_over(&carried[0]);
    assert_eq!(now(&new, &nodes, 0), (20, 0, 40));
    assert_eq!(new.reserve(&nodes, &demand(1, 2, 0, 30)), 30);
    new.charge(&nodes, NodeId(1), 2, 0, 10);
    // A delayed second one gives nothing back and takes nothing.
    new.take_over(&carried[0]);
    assert_eq!(now(&new, &nodes, 0), (30, 20, 40));
    assert_eq!(new.reserve(&nodes, &demand(1, 2, 0, 30)), 10);
    // The move was given up before, and more was taken in the old group.
    assert_eq!(old.reserve(&nodes, &demand(1, 2, 0, 10)), 10);
    let later: Vec<Carried> = old.carried(&"a".into(), &"q".into()).collect();
    let mut again = Counter::default();
    again.take_over(&carried[0]);
    again.take_over(&later[0]);
    assert_eq!(now(&again, &nodes, 0), (20, 0, 50));
    // And then used there: what was taken stays as much.
    old.charge(&nodes, NodeId(1), 2, 0, 50);
    let used: Vec<Carried> = old.carried(&"a".into(), &"q".into()).collect();
    again.take_over(&used[0]);
    again.take_over(&later[0]);
    assert_eq!(now(&again, &nodes, 0), (70, 0, 0));
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
