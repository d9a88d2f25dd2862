//! Bytes that nobody wrote, read by the parser that `TARGET` names; `.ci/fuzz` runs all of them in turn.
//! One program for all, so that what is below them is built and linked once.

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let all = [store::fuzz::TARGETS, gateway::fuzz::TARGETS, loadtest::fuzz::TARGETS];
    let named = std::env::var("TARGET").unwrap_or_default();
    let found = all.iter().flat_map(|some| some.iter()).find(|(name, _)| *name == named);
    let Some((_, target)) = found else {
        let names: Vec<&str> = all.iter().flat_map(|some| some.iter()).map(|(name, _)| *name).collect();
        eprintln!("TARGET={named:?} is none of: {}", names.join(" "));
        std::process::exit(2);
    };
    *target
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
