//! Bytes of the state's files and of other nodes' snapshots, for the fuzzer. Checksums are made right where they stand, or
//! nothing behind them would ever be read.

use super::{block, snapshot, usage, vars};

/// A row block, read whole and joined with itself.
pub(crate) fn block(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    block::fix_for_fuzz(&mut bytes);
    let Ok(read) = block::Block::open(&bytes) else { return };
    let _ = read.rows_iter().map(Iterator::count);
    let _ = read.matching(&block::Filter::default());
    let _ = block::join(&[&bytes, &bytes]);
}

/// A snapshot's stream, and one piece of it.
pub(crate) fn snapshot(bytes: &[u8]) {
    snapshot::import::read_for_fuzz(bytes);
}

/// Values of the state's tables.
pub(crate) fn values(bytes: &[u8]) {
    let _ = vars::Vars::decode(bytes);
    usage::decode_for_fuzz(bytes);
}
