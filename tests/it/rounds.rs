//! A few rounds of faults on real processes in network namespaces; `cargo run -p tests --bin rounds` plays as many as asked.

use std::process::Command;

use tests::{Net, binary};

fn play(words: &[&str]) {
    if let Some(why) = Net::missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_rounds"));
    let output = command.args(words).env("GATEWAY_BINARY", binary()).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_cluster_in_namespaces_keeps_every_law_through_a_few_faults() {
    play(&["--rounds", "3"]);
}

/// Its followers heard it and could not answer: they elected nobody else for as long as that lasted.
#[test]
fn a_leader_that_hears_nothing_does_not_keep_the_others_from_electing() {
    play(&["--rounds", "1", "--only", "leader hears nothing", "--hold", "16"]);
}
