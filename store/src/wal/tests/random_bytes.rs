//! Bytes that nobody wrote never panic. The cargo-fuzz target `wal_decode` does the same for longer.

use proptest::prelude::*;

use super::{fault::Rng, model::Rig};
use crate::wal::{decode_segment_for_fuzz, frame, segment};

/// A segment of a short random life, its changed bytes given true sums again, so that what lies behind the sums is reached.
fn mutated(seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed);
    let mut rig = Rig::new();
    for _ in 0..12 {
        rig.append_any(&mut rng);
        rig.stepper.step();
    }
    let files = rig.disk.files();
    let mut bytes = files.values().nth(rng.below(files.len() as u64) as usize).unwrap().clone();
    let Ok(header) = segment::Header::decode(&bytes) else { return bytes };
    let seed = frame::seed(header.generation);
    let mut at = segment::HEADER_BYTES;
    while let Some(found) = frame::Header::decode(&bytes[at.min(bytes.len())..], seed) {
        let end = at + frame::HEADER_BYTES + found.body_bytes;
        for _ in 0..rng.below(4) {
            let place = at + frame::HEADER_BYTES + rng.below(found.body_bytes.max(1) as u64) as usize;
            if let Some(byte) = bytes.get_mut(place) {
                *byte = if rng.below(2) == 0 { rng.next() as u8 } else { 0xff };
            }
        }
        if end <= bytes.len() {
            frame::seal(&mut bytes[at..end], seed, found.seq, found.synced);
        }
        at += frame::padded(found.body_bytes);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        decode_segment_for_fuzz(&bytes);
    }

    #[test]
    fn random_records_never_panic(bytes in proptest::collection::vec(0_u8..9, 0..200)) {
        decode_segment_for_fuzz(&bytes);
    }

    #[test]
    fn changed_segments_with_true_sums_never_panic(seed in any::<u64>()) {
        decode_segment_for_fuzz(&mutated(seed));
    }
}
