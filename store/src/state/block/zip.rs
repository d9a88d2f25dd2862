//! zstd level 1, with one context a thread, used where it pays.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use super::{
    BlockError,
    wire::{Reader, put_varint},
};

const LEVEL: i32 = 1;
/// Below this a frame's head and tables outweigh what they save.
const LEAST: usize = 64;

thread_local! {
    static COMPRESSOR: RefCell<(Option<Compressor<'static>>, Vec<u8>)> = const { RefCell::new((None, Vec::new())) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends varint length and frame when that is shorter than `raw` by a sixteenth; otherwise appends nothing, says false.
pub(super) fn put_frame(out: &mut Vec<u8>, raw: &[u8]) -> bool {
    if raw.len() < LEAST {
        return false;
    }
    COMPRESSOR.with_borrow_mut(|(compressor, frame)| {
        if compressor.is_none() {
            *compressor = Compressor::new(LEVEL).ok();
        }
        let Some(compressor) = compressor else { return false };
        frame.clear();
        frame.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        match compressor.compress_to_buffer(raw, frame) {
            Ok(bytes) if bytes + 2 <= raw.len() - raw.len() / 16 => {
                put_varint(out, bytes as u64);
                out.extend_from_slice(frame);
                true
            }
            _ => false,
        }
    })
}

/// Reads what [`put_frame`] appended: exactly `raw_bytes`, which the caller has bounded.
pub(super) fn read_frame(from: &mut Reader<'_>, raw_bytes: usize) -> Result<Vec<u8>, BlockError> {
    let bytes = from.count(from.left(), "a frame longer than its column")?;
    let frame = from.take(bytes)?;
    let mut raw = Vec::with_capacity(raw_bytes);
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        if decompressor.is_none() {
            *decompressor = Decompressor::new().ok();
        }
        let decompressor = decompressor.as_mut().ok_or(BlockError::Damaged("no memory for a frame"))?;
        match decompressor.decompress_to_buffer(frame, &mut raw) {
            Ok(_) if raw.len() == raw_bytes => Ok(()),
            _ => Err(BlockError::Damaged("a frame that does not decompress to its length")),
        }
    })?;
    Ok(raw)
}

/// Appends a heap: varint `2 * length + zipped`, then the bytes or a frame.
pub(super) fn put_heap(out: &mut Vec<u8>, raw: &[u8]) {
    let start = out.len();
    put_varint(out, raw.len() as u64 * 2 + 1);
    if !put_frame(out, raw) {
        out.truncate(start);
        put_varint(out, raw.len() as u64 * 2);
        out.extend_from_slice(raw);
    }
}

/// Reads a heap of at most `max` bytes.
pub(super) fn read_heap(from: &mut Reader<'_>, max: usize) -> Result<Vec<u8>, BlockError> {
    let head = from.count(max * 2 + 1, "a heap above its bound")?;
    if head % 2 == 1 { read_frame(from, head / 2) } else { Ok(from.take(head / 2)?.to_vec()) }
}
