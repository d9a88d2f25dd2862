//! Power failures at every kind of moment: the state is at its last checkpoint, whole, and replay makes it what it was.

use std::sync::Arc;

use super::{faulty::Faulty, snapshot::busy, *};
use crate::state::{RowQuery, UsageQuery, UsageStep};

/// Rigs whose files a power failure tears.
fn rig(disk: &Faulty) -> Rig {
    Rig::with(GroupId::LEDGER, Options { cache_bytes: 1 << 20, files: Arc::new(disk.clone()), ..Options::default() })
}

/// The log that a busy ledger was given.
fn log() -> Vec<Entry> {
    let mut rig = Rig::new(GroupId::LEDGER);
    busy(&mut rig, false);
    rig.cold(ColdCommand::DropBefore { day: DAY + 1, class: 0 });
    rig.rows(77, &[row(1, at(100_000))]);
    rig.log
}

/// What a replica without a checkpoint is after so many entries.
fn after(log: &[Entry]) -> Rig {
    let rig = Rig::new(GroupId::LEDGER);
    rig.state().apply(log).expect("applied");
    rig
}

fn digest(rig: &Rig) -> [u8; 32] {
    rig.state().digest().expect("a digest")
}

/// Applies the log with a checkpoint every few entries, until the power fails or all is done; says how far the log was
/// waited for.
fn run(rig: &Rig, log: &[Entry], every: usize) -> u64 {
    let mut durable = 0;
    let applied = rig.state().applied().last.map_or(0, |last| last.index as usize);
    for entries in log[applied..].chunks(every) {
        if rig.state().apply(entries).is_err() {
            break;
        }
        let wait = &mut |index| {
            durable = index;
            Ok(())
        };
        if rig.state().checkpoint(wait).is_err() {
            break;
        }
    }
    durable
}

#[test]
fn after_a_power_failure_the_state_is_a_whole_checkpoint_and_replay_makes_it_what_it_was() {
    let log = log();
    let expected = digest(&after(&log));
    let disk = Faulty::default();
    run(&rig(&disk), &log, 9);
    let writes = disk.writes();
    // An odd step, so that the failures fall on all kinds of writes.
    for (fail_after, seed) in (0..writes).step_by((writes / 40) as usize | 1).zip(1u64..) {
        let disk = Faulty::default();
        let mut rig = rig(&disk);
        rig.log.clone_from(&log);
        disk.fail_after(fail_after);
        let durable = run(&rig, &log, 9);
        rig.state = None;
        disk.restart(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rig.state = Some(open(rig.dir.path(), rig.group, &rig.options));
        let applied = rig.state().applied().last.map_or(0, |last| last.index);
        assert!(applied <= durable, "seed {seed}: state at {applied}, but the log is durable up to {durable} only");
        let there = digest(&rig);
        let whole = digest(&after(&log[..applied as usize]));
        assert_eq!(there, whole, "seed {seed}, failed after {fail_after} writes: at {applied}");
        run(&rig, &log, 7);
        assert_eq!(digest(&rig), expected, "seed {seed}, after replay");
        rig.restart();
        assert_eq!(digest(&rig), expected, "seed {seed}, after a clean restart");
    }
}

#[test]
fn replies_are_the_same_when_entries_are_replayed() {
    let log = log();
    let whole = Rig::new(GroupId::LEDGER);
    let replies = whole.state().apply(&log).expect("applied");
    let mut rig = Rig::new(GroupId::LEDGER);
    rig.log.clone_from(&log);
    rig.state().apply(&log[..20]).expect("applied");
    rig.checkpoint();
    rig.state().apply(&log[20..]).expect("applied");
    rig.state = None;
    rig.state = Some(open(rig.dir.path(), rig.group, &rig.options));
    assert_eq!(rig.state().applied().last.expect("a checkpoint").index, 20);
    assert_eq!(rig.replay(), replies[20..]);
}

#[test]
fn a_power_failure_during_an_import_leaves_the_old_state_or_the_new_one() {
    let log = log();
    let source = after(&log);
    let stream = super::snapshot::export(source.state());
    let new = digest(&source);
    let (mut olds, mut news) = (0, 0);
    for fail_after in (0..1_000_000).step_by(13) {
        let disk = Faulty::default();
        let mut rig = rig(&disk);
        rig.rows(1, &[row(1, at(0))]);
        rig.checkpoint();
        let old = digest(&rig);
        disk.fail_after(fail_after);
        let imported = rig.state().import(&mut &stream[..]);
        rig.state = None;
        disk.restart(fail_after * 77 + 1);
        rig.state = Some(open(rig.dir.path(), rig.group, &rig.options));
        let there = digest(&rig);
        assert!(there == old || there == new, "failed after {fail_after} writes");
        assert!(imported.is_err() || there == new, "an import that returned is durable");
        *(if there == old { &mut olds } else { &mut news }) += 1;
        if imported.is_ok() {
            break;
        }
    }
    assert!(olds > 0 && news > 0, "{olds} {news}");
}

#[test]
fn a_log_that_cannot_become_durable_stops_the_replica() {
    let mut rig = Rig::new(GroupId::LEDGER);
    rig.rows(1, &[row(1, at(0))]);
    let error = rig.state().checkpoint(&mut |_| Err(std::io::Error::other("fsync"))).expect_err("no log");
    assert!(error.to_string().contains("entry 1"), "{error}");
    assert_eq!(rig.state().checkpointed(), None);
    assert!(rig.state().checkpoint(&mut |_| Ok(())).is_err());
    rig.restart();
    assert_eq!(rig.state().stats().rows, 1);
}

#[test]
fn apply_and_reads_go_on_while_a_checkpoint_waits_for_the_log() {
    let mut rig = Rig::new(GroupId::LEDGER);
    rig.rows(1, &[row(1, at(0))]);
    let entry = |index, number| {
        let payload = Payload::Command(batch_of(1, 1, number, &[row(number, at(number as i64))]).encode());
        Entry { id: LogId { term: 1, index }, payload }
    };
    let state = rig.state();
    let mut waited = Vec::new();
    let checkpointed = state.checkpoint(&mut |index| {
        waited.push(index);
        // Would hang if the checkpoint held a lock that one of these needs.
        state.apply(&[entry(2, 2)]).expect("applied");
        assert_eq!(state.rows(&RowQuery { limit: 9, ..RowQuery::default() }).expect("rows").rows.len(), 2);
        let query = UsageQuery { account: "acme".into(), since: at(0), until: at(60), step: UsageStep::Day, by: None };
        assert_eq!(state.usage(&query).expect("usage")[0].counters.requests, 2);
        Ok(())
    });
    assert_eq!(checkpointed.expect("checkpoint"), Some(LogId { term: 1, index: 1 }));
    assert_eq!(state.checkpointed().map(|(id, _)| id.index), Some(1));
    state
        .checkpoint(&mut |index| {
            waited.push(index);
            Ok(())
        })
        .expect("checkpoint");
    state.checkpoint(&mut |_| unreachable!("there is nothing new to write")).expect("checkpoint");
    assert_eq!(waited, [1, 2]);
}

#[test]
fn a_command_of_a_newer_build_stops_the_replica_and_names_its_entry() {
    let rig = Rig::new(GroupId::META);
    let payload = Payload::Command(Bytes::from_static(&[9, 0, 0]));
    let error = rig.state().apply(&[Entry { id: LogId { term: 1, index: 4 }, payload }]).expect_err("newer");
    assert!(error.to_string().contains("entry 4") && error.to_string().contains("version 9"), "{error}");
}
