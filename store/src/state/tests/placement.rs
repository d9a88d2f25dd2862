//! Where slots are: placed before the first write, kept like everything else.

use std::sync::{Arc, Mutex};

use super::{snapshot::export, *};
use crate::{
    model::{CommandError, FirstVoter, NodeInfo, Placement, SLOTS},
    state::{
        Change,
        codec::{self, VALUE_VERSION},
        vars::Vars,
    },
};

fn even(groups: u32) -> Placement {
    let info = NodeInfo { name: "a".into(), peer_addr: "a:1".into(), ..NodeInfo::default() };
    Placement::even(groups, &[FirstVoter { id: NodeId(5), info }])
}

fn place(expect: u64, placement: Placement) -> ColdCommand {
    ColdCommand::Place { expect, placement }
}

#[track_caller]
fn assert_refused(reply: &Reply, why: &str) {
    assert!(matches!(reply, Reply::Refused(CommandError::Placement(what)) if what.contains(why)), "{reply:?}");
}

#[test]
fn slots_are_placed_before_the_first_write_and_stay_over_restarts_and_snapshots() {
    let mut rig = Rig::new(GroupId::META);
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    rig.state().subscribe(Box::new(move |changes| listener.lock().expect("whole").extend(changes.to_vec())));
    assert_eq!(rig.state().placement(), None);
    assert_refused(&rig.cold(place(0, Placement { runs: Vec::new(), ..even(2) })), "0 slots");
    assert_eq!(rig.cold(place(0, even(3))), Reply::Written(2));
    assert_refused(&rig.cold(place(0, even(2))), "epoch 2");
    let placed = Placement { epoch: 2, ..even(3) };
    assert_eq!(rig.state().placement().as_deref(), Some(&placed));
    assert_eq!(*told.lock().expect("whole"), [Change::Placement(Arc::new(placed.clone()))]);
    assert_eq!(rig.meta(vec![tier("free"), put_account("acme", "free")]), Reply::Written(4));
    assert_refused(&rig.cold(place(2, even(2))), "is in use");
    rig.checkpoint();
    rig.restart();
    assert_eq!(rig.state().placement().as_deref(), Some(&placed));
    let mut loaded = Vec::new();
    rig.state().load(&mut |change| loaded.push(change)).expect("reads");
    assert_eq!(loaded[0], Change::Placement(Arc::new(placed.clone())), "before any account");
    let other = Rig::new(GroupId::META);
    other.state().import(&mut &export(rig.state())[..]).expect("imported");
    assert_eq!(other.state().placement().as_deref(), Some(&placed));
    assert_eq!(other.state().digest().expect("a digest"), rig.twin().state().digest().expect("a digest"));
}

#[test]
fn a_ledger_places_nothing() {
    let mut rig = Rig::new(GroupId::LEDGER);
    assert_eq!(rig.cold(place(0, even(2))), Reply::Refused(CommandError::WrongGroup));
}

#[test]
fn slots_of_a_cluster_in_use_move_and_each_placement_follows_the_one_before() {
    let mut rig = Rig::new(GroupId::META);
    assert_eq!(rig.meta(vec![tier("free"), put_account("acme", "free")]), Reply::Written(1));
    let follow = |expect, placement| ColdCommand::Move { expect, placement };
    let one = Placement::even(1, &[]);
    let grown = one.grown(2, &even(2).added[0].voters);
    assert_refused(&rig.cold(follow(0, even(2))), "was not closed");
    assert_eq!(rig.cold(follow(0, grown.clone())), Reply::Written(3));
    let moving = grown.next_move().expect("a move");
    let closed = grown.closed(moving);
    assert_refused(&rig.cold(follow(0, closed.clone())), "epoch 3");
    assert_refused(&rig.cold(follow(3, closed.opened(7))), "was not closed");
    assert_eq!(rig.cold(follow(3, closed.clone())), Reply::Written(6));
    rig.checkpoint();
    rig.restart();
    let kept = rig.state().placement().expect("a placement");
    assert_eq!((kept.epoch, kept.moving), (6, Some(moving)));
    // A leader that was deposed before it opened them.
    assert_refused(&rig.cold(follow(3, grown.clone())), "epoch 6");
    assert_eq!(rig.cold(follow(6, closed.opened(7))), Reply::Written(8));
    let now = rig.state().placement().expect("a placement");
    assert_eq!((now.slots_of(GroupId(2)), now.left[0].index), (u32::from(moving.slots), 7));
    let mut ledger = Rig::new(GroupId::LEDGER);
    assert_eq!(ledger.cold(follow(0, grown)), Reply::Refused(CommandError::WrongGroup));
}

/// A build that knows nothing of placements must not take all accounts for the first group's.
#[test]
fn an_older_build_refuses_the_state_of_a_cluster_with_several_ledger_groups_by_name() {
    let one = Vars::default();
    assert_eq!(one.encode(0)[0], VALUE_VERSION, "as ever");
    let several = Vars { placement: Some(Arc::new(even(2))), ..Vars::default() };
    let bytes = several.encode(3);
    assert_eq!(Vars::decode(&bytes), Ok((several, 3)));
    assert_eq!(Vars::layer(&bytes), Ok(3));
    let why = codec::decode::<minicbor::data::Int>(&bytes).expect_err("a newer version");
    assert!(why.contains("value format version 2") && why.contains("upgrade this node"), "{why}");
}

/// Nodes of different builds must read it: what was sent stays readable.
#[test]
fn the_command_is_frozen() {
    let bytes = Command::from(place(7, even(2))).encode();
    #[rustfmt::skip]
    let frozen = [
        1, 0, 0x82, 8, 0x82, 7,
        0x86, 0,
        0x81, 0x82, 2, 0x81, 0x82, 5,
    ];
    assert_eq!(bytes[..frozen.len()], frozen);
    let runs = [0x82, 0x82, 0x19, 2, 0, 1, 0x82, 0x19, 2, 0, 2, 0, 0xf6, 0x80];
    assert_eq!(bytes[bytes.len() - runs.len()..], runs);
    assert_eq!(even(2).groups_of_slots().count(), usize::from(SLOTS));
}
