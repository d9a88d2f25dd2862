//! Crashes at every operation and at random ones: what was acknowledged is there afterwards.

use proptest::prelude::*;

use super::{
    fault::{FaultDisk, Rng},
    model::{Rig, small},
};
use crate::wal::Options;

/// A few appends of every kind, over several segments, with recycling.
fn life(rig: &mut Rig, rng: &mut Rng, appends: u64) {
    for _ in 0..appends {
        rig.append_any(rng);
        match rng.below(6) {
            0 => {}
            1 => {
                rig.settle();
                rig.stepper.idle();
            }
            _ => drop(rig.stepper.step()),
        }
        if rig.wal.is_poisoned().is_some() {
            break;
        }
    }
}

/// As [`life`], on a machine that may die; appends to a dead log are not made.
fn mortal_life(rig: &mut Rig, rng: &mut Rng, appends: u64) {
    for _ in 0..appends {
        life(rig, rng, 1);
        if rig.wal.is_poisoned().is_some() {
            return;
        }
    }
}

#[test]
fn a_crash_at_every_operation_loses_nothing_acknowledged() {
    let mut recycled = 0;
    for seed in 0..6 {
        let whole = FaultDisk::default();
        let mut rig = Rig::on(whole.clone(), small());
        life(&mut rig, &mut Rng(seed), 60);
        let stats = rig.wal.stats();
        assert!(stats.rolls > 3, "{stats:?}");
        recycled += stats.recycled;
        let began = {
            let disk = FaultDisk::default();
            drop(Rig::on(disk.clone(), small()));
            disk.operations()
        };
        for operations in 0..whole.operations() - began {
            let mut rig = Rig::new();
            rig.disk.die_after(operations);
            mortal_life(&mut rig, &mut Rng(seed), 60);
            rig.disk.crash(&mut Rng(seed << 32 | operations));
            rig.reopen();
            // And it goes on from there.
            rig.append_any(&mut Rng(operations));
            rig.settle();
            assert_eq!(rig.acknowledged(), rig.history.len() - 1);
            rig.reopen();
        }
    }
    assert!(recycled > 5, "the lives meet used segments: {recycled}");
}

#[test]
fn a_crash_while_a_log_is_begun_leaves_one_that_opens() {
    for operations in 0..20 {
        for seed in 0..16 {
            let disk = FaultDisk::default();
            disk.die_after(operations);
            let _ = super::model::open(&disk);
            disk.crash(&mut Rng(seed));
            let mut rig = Rig::on(disk, small());
            rig.append_any(&mut Rng(seed));
            rig.settle();
            rig.reopen();
        }
    }
}

#[test]
fn a_crash_during_recovery_loses_nothing_that_the_one_before_left() {
    for seed in 0..200 {
        let mut rig = Rig::new();
        let mut rng = Rng(seed);
        life(&mut rig, &mut rng, 20);
        rig.append_any(&mut rng);
        rig.disk.die_after(1); // the write, not the sync
        rig.settle();
        rig.disk.crash(&mut rng);
        for operations in 0..8 {
            rig.disk.die_after(operations);
            let _ = super::model::open(&rig.disk);
            rig.disk.crash(&mut rng);
        }
        rig.reopen();
    }
}

#[test]
fn what_a_killed_process_had_not_synced_is_durable_once_the_log_is_open_again() {
    for seed in 0..200 {
        let mut rig = Rig::new();
        let mut rng = Rng(seed);
        life(&mut rig, &mut rng, 20);
        rig.settle();
        rig.append_any(&mut rng);
        // The write is done and lies in the page cache; the sync fails or never comes.
        if seed % 2 == 0 {
            rig.disk.fail_syncs(true);
        } else {
            rig.disk.die_after(1);
        }
        rig.settle();
        rig.disk.fail_syncs(false);
        rig.disk.kill();
        rig.reopen(); // from now on, what it found counts as acknowledged
        rig.disk.crash(&mut rng);
        rig.reopen();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lost_and_torn_unsynced_writes_take_nothing_acknowledged(seed in any::<u64>()) {
        let mut rng = Rng(seed);
        let options = Options { segment_bytes: 8192 << rng.below(4), spare_segments: rng.below(4) as usize, ..small() };
        let mut rig = Rig::on(FaultDisk::default(), options);
        for _ in 0..5 {
            let operations = rng.below(120);
            rig.disk.die_after(operations);
            let appends = rng.below(60);
            mortal_life(&mut rig, &mut rng, appends);
            if rng.below(4) == 0 { rig.disk.kill() } else { rig.disk.crash(&mut rng) }
            rig.reopen();
        }
    }
}
