//! What is known of row blocks without reading them, all of it in memory.

use std::{collections::BTreeMap, sync::Arc};

use minicbor::{Decode, Encode};

use crate::model::Timestamp;

/// Rows from which a range is worth sealing.
pub(super) const SEAL_ROWS: u64 = 16_384;
/// Rows that one proposal seals at most, about.
const SEAL_ROWS_MOST: u64 = 65_536;
/// Age by data time from which fewer rows are sealed too.
const SEAL_AGE_US: i64 = 60_000_000;

/// Where a block is: in the file of its day and retention class, under its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BlockKey {
    /// The entry that brought it, or that joined it.
    pub(super) at: u64,
    /// Days since 1970.
    pub(super) day: i32,
    /// Retention class in days; 0 for the default.
    pub(super) class: u16,
}

/// A row file: day and class.
pub(super) type FileKey = (i32, u16);

impl BlockKey {
    pub(super) fn file(self) -> FileKey {
        (self.day, self.class)
    }

    /// The stored key: sorts by entry, then day, then class.
    pub(super) fn to_bytes(self) -> [u8; 14] {
        let mut key = [0; 14];
        key[..8].copy_from_slice(&self.at.to_be_bytes());
        key[8..12].copy_from_slice(&(self.day as u32 ^ 1 << 31).to_be_bytes());
        key[12..].copy_from_slice(&self.class.to_be_bytes());
        key
    }

    pub(super) fn from_bytes(key: &[u8]) -> Option<Self> {
        let key: [u8; 14] = key.try_into().ok()?;
        let (at, rest) = key.split_first_chunk::<8>()?;
        let (day, class) = rest.split_first_chunk::<4>()?;
        Some(Self {
            at: u64::from_be_bytes(*at),
            day: (u32::from_be_bytes(*day) ^ 1 << 31) as i32,
            class: u16::from_be_bytes(class.try_into().ok()?),
        })
    }
}

/// A block's summary.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct BlockMeta {
    /// Entries whose rows it holds: first and last.
    #[n(0)]
    pub(super) first: u64,
    #[n(1)]
    pub(super) last: u64,
    /// Records.
    #[n(2)]
    pub(super) rows: u32,
    /// Earliest and latest arrival of its rows; none (`min > max`) when all records settle others.
    #[n(3)]
    pub(super) min_ts: Timestamp,
    #[n(4)]
    pub(super) max_ts: Timestamp,
    /// Length.
    #[n(5)]
    pub(super) bytes: u32,
    /// Joined, or never to be.
    #[n(6)]
    pub(super) sealed: bool,
    /// Numbers of its records in the group: (first, how many), in order. One run, but around midnight.
    #[n(7)]
    pub(super) runs: Vec<(u64, u32)>,
    /// Latest arrival of all its records: its age.
    #[n(8)]
    pub(super) newest: Timestamp,
}

impl BlockMeta {
    /// The group-wide number of a record.
    pub(super) fn seq(&self, record: u32) -> u64 {
        let mut left = record;
        for &(first, count) in &self.runs {
            if left < count {
                return first + u64::from(left);
            }
            left -= count;
        }
        u64::MAX
    }

    /// Joins summaries, in order of their entries.
    pub(super) fn joined(parts: &[&Self], bytes: u32) -> Self {
        let mut runs: Vec<(u64, u32)> = Vec::new();
        for &(first, count) in parts.iter().flat_map(|part| &part.runs) {
            match runs.last_mut() {
                Some(run) if run.0 + u64::from(run.1) == first => run.1 += count,
                _ => runs.push((first, count)),
            }
        }
        Self {
            first: parts.iter().map(|part| part.first).min().unwrap_or_default(),
            last: parts.iter().map(|part| part.last).max().unwrap_or_default(),
            rows: parts.iter().map(|part| part.rows).sum(),
            min_ts: parts.iter().map(|part| part.min_ts).min().unwrap_or(Timestamp(i64::MAX)),
            max_ts: parts.iter().map(|part| part.max_ts).max().unwrap_or(Timestamp(i64::MIN)),
            newest: parts.iter().map(|part| part.newest).max().unwrap_or_default(),
            bytes,
            sealed: true,
            runs,
        }
    }
}

/// All blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct BlockIndex {
    blocks: BTreeMap<BlockKey, Arc<BlockMeta>>,
    /// Those that wait for sealing, with their rows.
    unsealed: BTreeMap<BlockKey, (u32, Timestamp)>,
    unsealed_rows: u64,
    /// Latest arrival ever: the clock of what is old.
    newest: Timestamp,
    rows: u64,
    bytes: u64,
}

impl BlockIndex {
    pub(super) fn insert(&mut self, key: BlockKey, meta: Arc<BlockMeta>) {
        self.remove(key);
        self.newest = self.newest.max(meta.newest);
        self.rows += u64::from(meta.rows);
        self.bytes += u64::from(meta.bytes);
        if !meta.sealed {
            self.unsealed.insert(key, (meta.rows, meta.newest));
            self.unsealed_rows += u64::from(meta.rows);
        }
        self.blocks.insert(key, meta);
    }

    pub(super) fn remove(&mut self, key: BlockKey) {
        let Some(meta) = self.blocks.remove(&key) else { return };
        self.rows -= u64::from(meta.rows);
        self.bytes -= u64::from(meta.bytes);
        if let Some((rows, _)) = self.unsealed.remove(&key) {
            self.unsealed_rows -= u64::from(rows);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (BlockKey, &Arc<BlockMeta>)> {
        self.blocks.iter().map(|(key, meta)| (*key, meta))
    }

    /// The files that blocks are in: the entry of the newest of each, and how many there are.
    pub(super) fn files(&self) -> BTreeMap<FileKey, (u64, usize)> {
        let mut files = BTreeMap::new();
        for key in self.blocks.keys() {
            let (newest, blocks) = files.entry(key.file()).or_insert((key.at, 0));
            (*newest, *blocks) = (key.at.max(*newest), *blocks + 1);
        }
        files
    }

    /// Blocks that wait for sealing, of these entries.
    pub(super) fn unsealed_within(&self, from: u64, to: u64) -> Vec<(BlockKey, Arc<BlockMeta>)> {
        let lowest = BlockKey { at: from, day: i32::MIN, class: 0 };
        let range = self.unsealed.range(lowest..).map(|(key, _)| *key).take_while(|key| key.at <= to);
        range.filter_map(|key| Some((key, Arc::clone(self.blocks.get(&key)?)))).collect()
    }

    /// The entries that are worth sealing now, first and last: many rows, or old ones.
    pub(super) fn sealable(&self) -> Option<(u64, u64)> {
        let old = self.newest.0.saturating_sub(SEAL_AGE_US);
        let (mut rows, mut blocks) = (0, 0);
        let (mut first, mut last) = (None, 0);
        for (key, (more, newest)) in &self.unsealed {
            if self.unsealed_rows < SEAL_ROWS && newest.0 > old {
                break;
            }
            if rows + u64::from(*more) > SEAL_ROWS_MOST && rows > 0 {
                break;
            }
            rows += u64::from(*more);
            blocks += 1;
            first = first.or(Some(key.at));
            last = key.at;
        }
        first.filter(|_| rows >= SEAL_ROWS || blocks >= 2).map(|first| (first, last))
    }

    /// Blocks, those unsealed, rows and bytes.
    pub(super) fn sizes(&self) -> (u64, u64, u64, u64) {
        (self.blocks.len() as u64, self.unsealed.len() as u64, self.rows, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(at: u64, rows: u32, second: i64) -> Arc<BlockMeta> {
        let ts = Timestamp::from_unix_seconds(second);
        let runs = vec![(at * 1_000, rows)];
        Arc::new(BlockMeta {
            first: at,
            last: at,
            rows,
            min_ts: ts,
            max_ts: ts,
            bytes: 1,
            sealed: false,
            runs,
            newest: ts,
        })
    }

    fn key(at: u64) -> BlockKey {
        BlockKey { at, day: 0, class: 0 }
    }

    #[test]
    fn many_rows_or_old_ones_are_worth_sealing() {
        let mut index = BlockIndex::default();
        assert_eq!(index.sealable(), None);
        index.insert(key(3), meta(3, 10_000, 0));
        index.insert(key(5), meta(5, 6_000, 1));
        assert_eq!(index.sealable(), None, "neither many nor old");
        index.insert(key(6), meta(6, 1, 62));
        assert_eq!(index.sealable(), Some((3, 5)), "two are a minute old");
        index.insert(key(7), meta(7, 60_000, 62));
        assert_eq!(index.sealable(), Some((3, 6)), "many, but at most 65,536 at once");
        for at in [3, 5, 6] {
            index.remove(key(at));
        }
        assert_eq!(index.sealable(), Some((7, 7)));
        assert_eq!(index.sizes(), (1, 1, 60_000, 1));
    }

    #[test]
    fn keys_sort_by_entry_and_read_back() {
        let keys = [(1, -1, 0), (1, 0, 0), (1, 0, 7), (256, -9, 0)].map(|(at, day, class)| BlockKey { at, day, class });
        assert!(keys.windows(2).all(|pair| pair[0].to_bytes() < pair[1].to_bytes()));
        assert!(keys.iter().all(|key| BlockKey::from_bytes(&key.to_bytes()) == Some(*key)));
    }

    #[test]
    fn numbers_of_records_survive_joining() {
        let parts = [meta(1, 10, 0), meta(2, 5, 0)];
        let joined = BlockMeta::joined(&[&parts[0], &parts[1]], 9);
        assert_eq!((joined.seq(0), joined.seq(9), joined.seq(10), joined.seq(15)), (1_000, 1_009, 2_000, u64::MAX));
    }
}
