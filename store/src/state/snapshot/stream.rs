//! Frames of a snapshot stream. Drawn in `store/README.md`.
//!
//! ```text
//! frame    kind u8, raw bytes u32, stored bytes u32, crc32c of what follows u32, stored bytes (zstd level 1 of the raw ones)
//! head     "TGSS", version u8, group u32, vars (as in the main file)
//! pieces   one after the other: tag u8, then
//!          1 row of a table: table u8, key, value       2 block: its 14-byte key, bytes
//!          3 settling record: day i32, request id u128, value           (texts and bytes: length u32, then they)
//! end      rows u64, blocks u64, settling records u64
//! ```
//! All numbers little-endian.

use std::io::{self, Read, Write};

use crate::state::{StateError, codec::Take};

pub(super) const MAGIC: &[u8; 4] = b"TGSS";
/// Version of streams that this build writes, and the newest that it reads.
pub(super) const VERSION: u8 = 1;
pub(super) const HEAD: u8 = 1;
pub(super) const PIECES: u8 = 2;
pub(super) const END: u8 = 3;
/// Raw bytes from which a frame of pieces is closed.
pub(super) const FRAME_BYTES: usize = 1 << 20;
/// Raw bytes of a frame at most: one piece that is larger than [`FRAME_BYTES`] is a frame of its own.
const FRAME_BYTES_MOST: usize = 512 << 20;
const FRAME_HEAD: usize = 13;
const LEVEL: i32 = 1;

pub(super) fn write_frame(sink: &mut dyn Write, kind: u8, raw: &[u8]) -> Result<(), StateError> {
    let stored = zstd::bulk::compress(raw, LEVEL).map_err(StateError::Stream)?;
    let sizes = [raw.len() as u32, stored.len() as u32, crc32c::crc32c(&stored)];
    let mut head = vec![kind];
    sizes.iter().for_each(|size| head.extend_from_slice(&size.to_le_bytes()));
    sink.write_all(&head).and_then(|()| sink.write_all(&stored)).map_err(StateError::Stream)
}

pub(super) fn read_frame(source: &mut dyn Read) -> Result<(u8, Vec<u8>), StateError> {
    let cut = |error: io::Error| StateError::Snapshot(format!("cut short: {error}"));
    let mut head = [0; FRAME_HEAD];
    source.read_exact(&mut head).map_err(cut)?;
    let size = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes of a fixed head"));
    let (raw_bytes, stored_bytes, crc) = (size(1) as usize, size(5) as usize, size(9));
    if raw_bytes > FRAME_BYTES_MOST || stored_bytes > FRAME_BYTES_MOST {
        return Err(StateError::Snapshot(format!("damaged: a frame of {} bytes", raw_bytes.max(stored_bytes))));
    }
    let mut stored = Vec::new();
    source.take(stored_bytes as u64).read_to_end(&mut stored).map_err(cut)?;
    if stored.len() < stored_bytes {
        return Err(StateError::Snapshot(format!("cut short: {} of {stored_bytes} bytes of a frame", stored.len())));
    }
    if crc32c::crc32c(&stored) != crc {
        return Err(StateError::Snapshot("damaged: a frame's checksum does not match".into()));
    }
    let raw = zstd::bulk::decompress(&stored, raw_bytes).map_err(|_| damaged("a frame"))?;
    if raw.len() == raw_bytes { Ok((head[0], raw)) } else { Err(damaged("a frame's length")) }
}

pub(super) fn damaged(what: &str) -> StateError {
    StateError::Snapshot(format!("damaged: {what} does not read"))
}

/// Bytes with their length before them.
pub(super) fn take_bytes<'a>(from: &mut Take<'a>) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(from.array()?);
    from.bytes(length as usize)
}
