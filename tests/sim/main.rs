//! The simulation's own tests: it repeats itself, it finds what is planted, and what it once found stays found.
//!
//! They count seeds and simulated seconds, never real ones: a slow machine takes longer and comes to the same.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use tests::seeds::{self, Manner};

fn simulate() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| seeds::program().expect("it is built"))
}

#[test]
fn a_seed_repeats_itself_to_the_last_event() {
    let manner = Manner { seconds: Some(12), ..Manner::default() };
    let play = |seed| seeds::play(simulate(), seed, &manner).expect("it reports");
    let (first, second, other) = (play(7), play(7), play(8));
    assert_eq!(first, second);
    assert_ne!(first.sum, other.sum, "the sum says nothing");
}

#[test]
fn a_failure_repeats_itself() {
    let manner = Manner { defect: Some("AllowsOneMoreAtOnce".to_owned()), ..Manner::default() };
    let play = || seeds::play(simulate(), 1, &manner).expect("it reports");
    let (first, second) = (play(), play());
    assert!(first.violation.is_some());
    assert_eq!(first, second);
}

/// Seeds that found something once; see `tests/BUGS.md`.
#[test]
fn seeds_that_found_bugs_pass() {
    for seed in [1, 3] {
        let report = seeds::play(simulate(), seed, &Manner::default()).expect("it reports");
        assert_eq!(report.violation, None, "seed {seed}");
    }
}

/// Every fourth seed has three ledger groups; to every second one more come, and slots move to them.
#[test]
fn several_ledger_groups_keep_the_laws() {
    for seed in [2, 4, 6] {
        let report = seeds::play(simulate(), seed, &Manner::default()).expect("it reports");
        assert_eq!(report.violation, None, "seed {seed}");
    }
}

#[test]
fn every_planted_defect_breaks_a_law_of_its_own() {
    let output = Command::new(env!("CARGO_BIN_EXE_soak")).arg("--planted").output().expect("the soak starts");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
