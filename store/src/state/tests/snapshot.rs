//! Streams: what goes out comes in, and what is cut changes nothing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    model::{Charge, Profile, Reservation},
    state::{Change, RowQuery, StateError},
};

/// A ledger with some of everything, some of it in files and some in memory.
pub(super) fn busy_ledger() -> Rig {
    let mut rig = Rig::new(GroupId::LEDGER);
    busy(&mut rig, true);
    rig
}

pub(super) fn busy(rig: &mut Rig, checkpoints: bool) {
    let profile = Profile { name: "Acme".into(), ..Profile::default() };
    let (stage, published) = ("s1".to_owned(), String::new());
    rig.payload(Payload::Membership(Bytes::from_static(b"three nodes")));
    rig.cold(ColdCommand::NodeStarted { node: NodeId(1), incarnation: 1 });
    rig.cold(ColdCommand::StageProfile { account: "acme".into(), stage, published, profile });
    for number in 1..=30u64 {
        let (node, account, quota) = (NodeId(1), "acme".into(), "daily".into());
        let demand = Reservation {
            node,
            incarnation: 1,
            account,
            quota,
            period_start: 0,
            units: 5,
            limit: 100,
            watch: None,
            look_at: None,
        };
        rig.cold(ColdCommand::Reserve(vec![demand]));
        let ts = at(86_390 + number as i64);
        let mut rows: Vec<Row> = (0..20).map(|low| row(number * 100 + low, ts)).collect();
        rows[0].charges = vec![Charge { quota: "daily".into(), period_start: 0, units: 3 }];
        rows[1].completion = Completion::Open;
        if number > 3 {
            let open = at(86_390 + number as i64 - 3);
            rows[2] = Row { settles: true, cost: 9, ..row((number - 3) * 100 + 1, open) };
        }
        rig.rows(number, &rows);
        if number % 7 == 0 {
            let last = rig.log.len() as u64;
            rig.cold(ColdCommand::Seal { from: last.saturating_sub(8), to: last });
        }
        if number % 5 == 0 && checkpoints {
            rig.checkpoint();
        }
    }
    rig.cold(ColdCommand::NodeStarted { node: NodeId(1), incarnation: 2 });
}

pub(super) fn export(state: &State) -> Vec<u8> {
    let mut stream = Vec::new();
    assert_eq!(state.export(&mut stream).expect("exported"), state.applied());
    stream
}

fn digest(state: &State) -> [u8; 32] {
    state.digest().expect("a digest")
}

#[test]
fn replicas_with_other_checkpoints_agree_and_disagree_after_one_more_row() {
    let rig = busy_ledger();
    let mut twin = rig.twin();
    assert_eq!(digest(rig.state()), digest(twin.state()));
    twin.rows(99, &[row(1, at(0))]);
    assert_ne!(digest(rig.state()), digest(twin.state()));
}

#[test]
fn an_imported_stream_is_the_state_and_stays_it() {
    let rig = busy_ledger();
    let stream = export(rig.state());
    let mut other = Rig::new(GroupId::LEDGER);
    other.rows(1, &[row(7, at(7))]);
    other.checkpoint();
    other.rows(2, &[row(8, at(8))]);
    let resets = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&resets);
    other.state().subscribe(Box::new(move |changes| {
        assert_eq!(changes, [Change::Reset]);
        count.fetch_add(1, Ordering::Relaxed);
    }));
    assert_eq!(other.state().import(&mut &stream[..]).expect("imported"), rig.state().applied());
    assert_eq!(resets.load(Ordering::Relaxed), 1);
    assert_eq!(digest(other.state()), digest(rig.state()));
    let checkpointed = other.state().checkpointed().expect("it is durable");
    assert_eq!(Some(checkpointed.0), rig.state().applied().last);
    assert_eq!(checkpointed.1.as_deref(), Some(&b"three nodes"[..]));
    other.log.clone_from(&rig.log);
    other.restart();
    assert_eq!(digest(other.state()), digest(rig.state()));
    let query = RowQuery { limit: 1_000, ..RowQuery::default() };
    assert_eq!(other.state().rows(&query).expect("rows").rows, rig.state().rows(&query).expect("rows").rows);
    other.rows(50, &[row(9, at(9))]);
    let mut twin = rig.twin();
    twin.rows(50, &[row(9, at(9))]);
    assert_eq!(digest(other.state()), digest(twin.state()), "it goes on as any replica");
    assert_eq!(std::fs::read_dir(other.dir.path()).expect("list").count(), 2, "LOCK and one generation");
}

#[test]
fn a_cut_or_damaged_stream_changes_nothing() {
    let rig = busy_ledger();
    let stream = export(rig.state());
    let mut other = Rig::new(GroupId::LEDGER);
    other.rows(1, &[row(7, at(7))]);
    let before = digest(other.state());
    let cuts = (0..stream.len()).step_by(stream.len() / 23).chain([stream.len() - 1]);
    for cut in cuts {
        let error = other.state().import(&mut &stream[..cut]).expect_err("cut");
        assert!(matches!(error, StateError::Snapshot(_)), "{cut}: {error}");
    }
    for place in (0..stream.len()).step_by(stream.len() / 31) {
        let mut bent = stream.clone();
        bent[place] ^= 0x10;
        let error = other.state().import(&mut &bent[..]).expect_err("damaged");
        assert!(matches!(error, StateError::Snapshot(_)), "{place}: {error}");
    }
    assert_eq!(digest(other.state()), before);
    other.rows(2, &[row(8, at(8))]);
    other.restart();
    assert_eq!(other.state().stats().rows, 2);
    assert_eq!(std::fs::read_dir(other.dir.path()).expect("list").count(), 2, "nothing is left over");
}

#[test]
fn streams_of_other_groups_and_newer_versions_are_refused_by_name() {
    let rig = busy_ledger();
    let stream = export(rig.state());
    let other = Rig::new(GroupId(2));
    let error = other.state().import(&mut &stream[..]).expect_err("another group's").to_string();
    assert!(error.contains("group 1"), "{error}");
    let mut newer = Vec::new();
    crate::state::snapshot::write_head(&mut newer, 2, 1);
    let error = rig.state().import(&mut &newer[..]).expect_err("newer").to_string();
    assert!(error.contains("version 2"), "{error}");
}

#[test]
fn metadata_goes_through_a_stream_as_well() {
    let mut rig = Rig::new(GroupId::META);
    rig.meta(vec![tier("free"), put_account("acme", "free"), put_key(key("key_1", "acme", "s1"))]);
    rig.checkpoint();
    rig.meta(vec![upstream("up"), route("scan", "up"), put_account("acme", "free")]);
    let other = Rig::new(GroupId::META);
    other.state().import(&mut &export(rig.state())[..]).expect("imported");
    assert_eq!(digest(other.state()), digest(rig.state()));
    assert_eq!(other.state().audit(None, 99).expect("read"), rig.state().audit(None, 99).expect("read"));
}

#[test]
fn an_export_is_of_one_instant_while_apply_and_checkpoints_go_on() {
    let mut rig = busy_ledger();
    let before = digest(rig.state());
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<u8>>(0);
    struct Slow(std::sync::mpsc::SyncSender<Vec<u8>>);
    impl std::io::Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut stream = Vec::new();
    let (last, state) = (rig.log.len() as u64, rig.state.take().expect("open"));
    std::thread::scope(|scope| {
        scope.spawn(|| state.export(&mut Slow(sender)).expect("exported"));
        // The head has come, so the view is taken.
        stream.extend(receiver.recv().expect("the head"));
        for index in last + 1..last + 30 {
            let command = match index % 3 {
                0 => Command::Cold(ColdCommand::Seal { from: 1, to: index }),
                1 => Command::Cold(ColdCommand::DropBefore { day: DAY + 1, class: 0 }),
                _ => batch_of(3, 1, index, &[row(index, at(90_000))]),
            };
            let payload = Payload::Command(command.encode());
            state.apply(&[Entry { id: LogId { term: 1, index }, payload }]).expect("applied");
            state.checkpoint(&mut |_| Ok(())).expect("checkpoint");
        }
        stream.extend(receiver.iter().flatten());
    });
    let other = Rig::new(GroupId::LEDGER);
    other.state().import(&mut &stream[..]).expect("imported");
    assert_eq!(digest(other.state()), before);
}
