//! What reads bytes from disks and peers, by name, for the fuzzer (`.ci/fuzz`) and for a test that feeds each a little.
//! The product never calls it.

use bytes::Bytes;

use crate::{lease, model, raft, state, wal};

/// A parser and its name. What it returns does not matter: it must neither panic nor take memory that the bytes do not.
pub type Target = (&'static str, fn(&[u8]));

/// All of the store.
pub const TARGETS: &[Target] = &[
    ("wal-segment", wal::decode_segment_for_fuzz),
    ("peer-frames", raft::fuzz::frames),
    ("peer-messages", raft::fuzz::messages),
    ("command", command),
    ("lease-messages", lease::decode_for_fuzz),
    ("row-block", state::fuzz::block),
    ("snapshot", state::fuzz::snapshot),
    ("stored-values", state::fuzz::values),
    ("key-text", key_text),
    ("row-decisions", decisions),
];

fn command(bytes: &[u8]) {
    let _ = model::Command::is_rows(bytes);
    let _ = model::Command::decode(&Bytes::copy_from_slice(bytes));
}

fn decisions(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = model::Decided::text(model::Decided::read(text));
    }
}

fn key_text(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = model::Secret::check(text);
        let _ = model::Secret::parse(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_parser_panics_on_random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            for (_, target) in TARGETS {
                target(&bytes);
            }
        }
    }
}
