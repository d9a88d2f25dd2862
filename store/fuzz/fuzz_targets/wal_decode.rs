//! Bytes that nobody wrote, read as a segment of the write-ahead log: `cargo +nightly fuzz run wal_decode`, in `store/`.
//! A segment written by the log makes a good first corpus: `src/wal/testdata/golden.hex` has two.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| store::wal::decode_segment_for_fuzz(bytes));
