//! Sealing and retention: blocks of some entries become one, and days of them go.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    State, StateError,
    block::{self, JoinError},
    index::{BlockKey, BlockMeta, FileKey},
    ledger::{DEFAULT_CLASS, SETTLED_CLASS, drop_block, put_block},
    settled,
    storage::row_name,
    tables::Table,
};
use crate::model::{LogId, Reply, Timestamp};

/// Rows from which a joined block takes no more; the blocks beyond wait for another command.
const JOINED_ROWS: u64 = 1 << 18;

/// Blocks of one file, in order of their entries.
type Blocks = Vec<(BlockKey, Arc<BlockMeta>)>;

impl State {
    /// Joins the unsealed blocks of entries `from..=to`, file by file. No row changes, nor its number, nor its place in a
    /// listing. A joined block lies under the sealing entry; the ones it replaces stay in their file until the main file
    /// durably knows of it, and one checkpoint longer.
    pub(super) fn seal(&self, id: LogId, from: u64, to: u64) -> Result<Reply, StateError> {
        let mut joined = Vec::new();
        let mut blocks = self.read().live.index.unsealed_within(from, to);
        blocks.sort_by_key(|(key, _)| (key.file(), key.at));
        for file in blocks.chunk_by(|(a, _), (b, _)| a.file() == b.file()) {
            let mut rows = 0;
            // At least one, however large, so that every command seals something.
            let fits = file.iter().take_while(|(_, meta)| {
                let goes_on = rows < JOINED_ROWS;
                rows += u64::from(meta.rows);
                goes_on
            });
            let file: Blocks = fits.cloned().collect();
            joined.push((self.join(id, &file)?, file));
        }
        Ok(self.step(id, 0, |live| {
            for (block, file) in joined {
                let Some(block) = block else {
                    for (key, meta) in file {
                        put_block(live, key, BlockMeta { sealed: true, ..(*meta).clone() });
                    }
                    continue;
                };
                let metas: Vec<&BlockMeta> = file.iter().map(|(_, meta)| &**meta).collect();
                let meta = BlockMeta::joined(&metas, block.len() as u32);
                let key = BlockKey { at: id.index, ..file[0].0 };
                for (key, _) in &file {
                    if !live.active.blocks.contains_key(key) {
                        live.put(Table::Garbage, key.to_bytes().to_vec(), Some(Bytes::new()));
                    }
                    drop_block(live, *key);
                }
                live.active.bytes += block.len() as u64;
                put_block(live, key, meta);
                live.active.blocks.insert(key, block);
            }
            Reply::Done
        }))
    }

    /// What the leader should propose to seal: first and last entry. Many unsealed rows, or some that are a minute old by the
    /// arrival of newer ones.
    pub fn sealable(&self) -> Option<(u64, u64)> {
        self.read().live.index.sealable()
    }

    /// What the leader should propose to drop at this time: the first day (since 1970) that stays, and the retention class.
    pub fn droppable(&self, now: Timestamp) -> Option<(i32, u16)> {
        let today = settled::day(now.unix_seconds());
        let days = |class| if class == DEFAULT_CLASS { self.options.retention_days } else { class };
        let first = |class| today.saturating_sub(i32::from(days(class)));
        let (storage, floor) = {
            let replica = self.read();
            let mut longest = DEFAULT_CLASS;
            for (key, _) in replica.live.index.iter() {
                if key.day < first(key.class) {
                    return Some((first(key.class), key.class));
                }
                if days(key.class) > days(longest) {
                    longest = key.class;
                }
            }
            (Arc::clone(&replica.storage), first(longest))
        };
        let is_over = |file: FileKey| file.1 == SETTLED_CLASS && file.0 < floor;
        let over = storage.row_files().is_ok_and(|files| files.into_iter().any(is_over));
        over.then_some((floor, SETTLED_CLASS))
    }

    /// The blocks' join; none when they stay as they are: a lone one, or more text than a block holds.
    fn join(&self, id: LogId, file: &Blocks) -> Result<Option<Bytes>, StateError> {
        if file.len() < 2 {
            return Ok(None);
        }
        let mut parts = Vec::with_capacity(file.len());
        for (key, _) in file {
            parts.push(self.block_bytes(*key)?.ok_or_else(|| lost(*key))?);
        }
        let slices: Vec<&[u8]> = parts.iter().map(AsRef::as_ref).collect();
        match block::join(&slices) {
            Ok(joined) => Ok(Some(joined.into())),
            Err(JoinError::Encode(_)) => Ok(None),
            Err(JoinError::Block { index, source }) => {
                let index = file.get(index).map_or(id.index, |(key, _)| key.at);
                Err(StateError::Block { index, source })
            }
        }
    }

    /// A block's bytes, from memory or its file.
    pub(super) fn block_bytes(&self, key: BlockKey) -> Result<Option<Bytes>, StateError> {
        let storage = {
            let replica = self.read();
            if let Some(bytes) = replica.live.block(key) {
                return Ok(Some(bytes));
            }
            Arc::clone(&replica.storage)
        };
        storage.read_rows(key.file())?.map_or(Ok(None), |rows| rows.block(key.at))
    }
}

/// A block that the index knows and its file does not.
pub(super) fn lost(key: BlockKey) -> StateError {
    StateError::Lost { file: row_name(key.file()), index: key.at }
}
