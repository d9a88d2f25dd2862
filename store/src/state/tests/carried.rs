//! Counters of slots that come to another group.

use super::{
    ledger::{charged, ledger, reserve},
    *,
};
use crate::model::{SLOTS, Watch, slot_of};

/// What an account's counters say goes on in the group that its slot comes to: used, held by whomever, what is watched, and
/// which alerts were raised.
#[test]
fn counters_of_slots_that_leave_go_on_in_another_group() {
    let (mut old, mut new) = (ledger(), Rig::new(GroupId(2)));
    let watched = |node, incarnation, units, limit| {
        let ColdCommand::Reserve(mut demands) = reserve(node, incarnation, units) else { unreachable!("it reserves") };
        let watch = Watch { limit, thresholds: vec![50, 80], shadow: false, period_end: 86_400 };
        demands[0].watch = Some(watch);
        ColdCommand::Reserve(demands)
    };
    let start = |incarnation| ColdCommand::NodeStarted { node: NodeId(1), incarnation };
    old.cold(start(1));
    old.cold(watched(1, 1, 65, 100));
    old.rows(1, &[charged(row(1, at(1)), 55)]);
    // Ten units are forfeited, five are held.
    old.cold(start(2));
    old.cold(watched(1, 2, 5, 100));
    let alerts = |rig: &Rig| {
        let all = rig.state().alerts(None, 10, &mut |_| true).expect("reads");
        all.into_iter().map(|(_, alert)| (alert.threshold, alert.used)).collect::<Vec<_>>()
    };
    assert_eq!(alerts(&old), [(50, 55)]);
    let slot = slot_of("acme");
    for is_stored in [false, true] {
        assert_eq!(old.state().carried(&(slot + 1..SLOTS)).expect("reads"), []);
        let carried = old.state().carried(&(slot..slot + 1)).expect("reads");
        assert_eq!(carried.len(), 1);
        assert_eq!((carried[0].used, carried[0].unsettled, carried[0].raised), (55, 15, Some(50)), "{is_stored}");
        old.checkpoint();
        old.restart();
    }
    let carried = old.state().carried(&(slot..slot + 1)).expect("reads");
    new.cold(start(2));
    assert_eq!(new.cold(ColdCommand::TakeOver(carried.clone())), Reply::Done);
    let now = |rig: &Rig| {
        let now = rig.state().quota(&"acme".into(), &"daily".into(), 0).expect("reads");
        (now.used, now.reserved, now.unsettled)
    };
    assert_eq!(now(&new), (55, 0, 15));
    assert_eq!(new.cold(watched(1, 2, 90, 100)), Reply::Granted(vec![30]), "what is left of 100");
    assert_eq!(alerts(&new), [], "50 % were told already");
    new.command(batch_of(1, 2, 1, &[charged(row(2, at(2)), 25)]));
    assert_eq!((alerts(&new), now(&new)), (vec![(80, 80)], (80, 5, 15)));
    // It comes a second time, late, also after the group was opened anew.
    new.checkpoint();
    new.restart();
    assert_eq!(new.cold(ColdCommand::TakeOver(carried)), Reply::Done);
    assert_eq!((alerts(&new), now(&new)), (vec![(80, 80)], (80, 5, 15)));
}
