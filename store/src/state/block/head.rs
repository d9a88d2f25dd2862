//! A block's head and directory: what is known without touching a column.

use std::ops::Range;

use super::{
    BlockError, MAX_ROWS,
    wire::{Reader, put_varint, unzigzag, zigzag},
};

/// First byte of every block.
pub(super) const MAGIC: u8 = 0xb7;
/// The newest format that is read.
pub(super) const VERSION: u8 = 2;
/// The format of a block without the columns that format 2 brought: what a build before it reads too.
const FIRST_VERSION: u8 = 1;
/// Magic, version, checksum: bytes before what the checksum covers (it covers magic and version too).
pub(super) const CHECKED_FROM: usize = 6;
/// Columns that the newest format knows.
pub(super) const SECTIONS: usize = 28;
/// Columns that format 1 knows.
const FIRST_SECTIONS: usize = 26;

/// A column's number: its bit in the directory. Frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is drawn in store/README.md")]
pub(super) enum Section {
    Names = 0,
    Principals = 1,
    Principal = 2,
    Shapes = 3,
    Shape = 4,
    Paths = 5,
    Path = 6,
    Ts = 7,
    IdKind = 8,
    IdMs = 9,
    IdHigh = 10,
    IdLow = 11,
    IdOtherHigh = 12,
    IdOtherLow = 13,
    Cost = 14,
    BytesIn = 15,
    BytesOut = 16,
    Upstream = 17,
    Rest = 18,
    Count = 19,
    Ips = 20,
    Ip = 21,
    ClientIds = 22,
    Traces = 23,
    Lists = 24,
    List = 25,
    Decisions = 26,
    Decision = 27,
}

/// A head as it was read.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) rows: usize,
    pub(super) min_ts: i64,
    pub(super) max_ts: i64,
    /// Where each column is; empty when it is absent.
    pub(super) sections: [Range<usize>; SECTIONS],
}

/// Collects columns, then writes the head in front of them.
#[derive(Default)]
pub(super) struct Writer {
    body: Vec<u8>,
    lengths: [usize; SECTIONS],
}

impl Writer {
    /// Writes one column, in the order of their numbers. A column of zeros (the single byte 0) is left out.
    pub(super) fn section(&mut self, section: Section, put: impl FnOnce(&mut Vec<u8>)) {
        let start = self.body.len();
        put(&mut self.body);
        if self.body[start..] == [0] {
            self.body.truncate(start);
        }
        self.lengths[section as usize] = self.body.len() - start;
    }

    /// The whole block.
    pub(super) fn finish(self, rows: usize, min_ts: i64, max_ts: i64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 96);
        let is_first = self.lengths[FIRST_SECTIONS..].iter().all(|length| *length == 0);
        out.extend_from_slice(&[MAGIC, if is_first { FIRST_VERSION } else { VERSION }, 0, 0, 0, 0]);
        put_varint(&mut out, rows as u64);
        put_varint(&mut out, zigzag(min_ts));
        put_varint(&mut out, max_ts.wrapping_sub(min_ts) as u64);
        let present = self.lengths.iter().enumerate().filter(|(_, length)| **length > 0);
        put_varint(&mut out, present.clone().fold(0, |bits, (section, _)| bits | 1 << section));
        for (_, &length) in present {
            put_varint(&mut out, length as u64);
        }
        out.extend_from_slice(&self.body);
        let checksum = checksum(&out);
        out[2..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
        out
    }
}

/// CRC-32C of a block's bytes but for the checksum itself.
pub(super) fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..2]), &block[CHECKED_FROM..])
}

/// Gives bytes the magic, a version and the checksum that they would have as a block, for fuzzing.
pub(in crate::state) fn fix_for_fuzz(block: &mut [u8]) {
    if block.len() >= CHECKED_FROM {
        block[0] = MAGIC;
        block[1] = if block[1].is_multiple_of(2) { FIRST_VERSION } else { VERSION };
        let checksum = checksum(block);
        block[2..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Reads and checks everything that can be checked without reading a column.
pub(super) fn read(block: &[u8]) -> Result<Head, BlockError> {
    let mut from = Reader::new(block);
    let magic = from.byte()?;
    if magic != MAGIC {
        return Err(BlockError::NotABlock { found: magic });
    }
    let version = from.byte()?;
    match version {
        0 => return Err(BlockError::Damaged("format 0 was never written")),
        FIRST_VERSION | VERSION => {}
        _ => return Err(BlockError::NewerVersion { version, newest: VERSION }),
    }
    let stored = from.take(4)?.iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
    let computed = checksum(block);
    if stored != computed {
        return Err(BlockError::Checksum { stored, computed });
    }
    let rows = from.count(MAX_ROWS, "more rows than a block holds")?;
    if rows == 0 {
        return Err(BlockError::Damaged("no rows"));
    }
    let min_ts = unzigzag(from.varint()?);
    let max_ts = min_ts.wrapping_add(from.varint()? as i64);
    if max_ts < min_ts {
        return Err(BlockError::Damaged("its last time is before its first"));
    }
    let present = from.varint()?;
    let known = if version == FIRST_VERSION { FIRST_SECTIONS } else { SECTIONS };
    if present >> known != 0 {
        return Err(BlockError::Damaged("a column that its format does not know"));
    }
    let mut lengths = [0; SECTIONS];
    for (section, length) in lengths.iter_mut().enumerate() {
        if present & 1 << section != 0 {
            *length = from.count(block.len(), "a column longer than its block")?;
            if *length == 0 {
                return Err(BlockError::Damaged("a column that is there but empty"));
            }
        }
    }
    let mut at = block.len() - from.left();
    let sections = lengths.map(|length| {
        let start = at;
        at += length;
        start..at
    });
    match at.cmp(&block.len()) {
        std::cmp::Ordering::Equal => Ok(Head { rows, min_ts, max_ts, sections }),
        std::cmp::Ordering::Less => Err(BlockError::Damaged("bytes after its last column")),
        std::cmp::Ordering::Greater => Err(BlockError::Cut { wanted: at, left: block.len() }),
    }
}
