//! The receiving side: a new generation is made whole beside the old one, and then takes its place by one rename.

use std::{collections::BTreeMap, io::Read};

use redb::Durability;

use super::stream::{END, HEAD, MAGIC, PIECES, VERSION, damaged, read_frame, take_bytes};
use crate::{
    model::RequestId,
    state::{
        Applied, Change, State, StateError,
        codec::{self, Take},
        index::{BlockKey, FileKey},
        ledger::SETTLED_CLASS,
        open::{generation_number, generation_path, make_generation, open_generation},
        settled::{self, Settled},
        storage::{IMPORT_BYTES, Storage, storage_error},
        tables::Table,
        vars::{self, Vars},
    },
};

/// One frame's pieces.
#[derive(Default)]
struct Pieces<'a> {
    rows: Vec<(Table, &'a [u8], &'a [u8])>,
    blocks: Vec<(BlockKey, &'a [u8])>,
    settled: Vec<(FileKey, RequestId, Settled)>,
}

impl State {
    /// Replaces everything by what a stream holds, durably. A stream that is cut, damaged, of another group or of a newer
    /// version changes nothing, nor does a crash before the end. Listeners get [`Change::Reset`].
    ///
    /// # Errors
    /// [`StateError::Snapshot`] for the stream, others for the disk.
    pub fn import(&self, source: &mut dyn Read) -> Result<Applied, StateError> {
        let _one = self.only(&self.checkpointing);
        let _writer = self.only(&self.writer);
        self.check()?;
        let new = self.dir.join("new");
        let files = &self.options.files;
        let made = make_generation(&new, self.group, &self.options, |storage| self.fill(storage, source));
        if let Err(error) = made {
            files.remove_dir(&new).map_err(storage_error("remove", &new))?;
            return Err(error);
        }
        let old = self.read().storage.dir().to_owned();
        let path = generation_path(&self.dir, generation_number(&old) + 1);
        // From the rename on the new generation is the state; failing after it must stop the node.
        let switched = files.rename_dir(&new, &path).map_err(storage_error("rename", &new)).and_then(|()| {
            open_generation(&path, self.group, &self.options).map_err(|error| storage_error("open", &path)(error))
        });
        let replica = switched.inspect_err(|error| self.fail(error))?;
        let applied = replica.live.vars.applied.clone();
        let replaced = std::mem::replace(&mut *self.write(), replica);
        // Closing the old files takes its time: not under the lock.
        drop(replaced);
        *self.checkpointed.lock().expect("no panic while locked") =
            applied.last.map(|last| (last, applied.membership.clone()));
        self.tell(&[Change::Reset]);
        // Readers of the old one keep its files open as long as they need them.
        files.remove_dir(&old).map_err(storage_error("remove", &old))?;
        Ok(applied)
    }

    fn fill(&self, storage: &Storage, source: &mut dyn Read) -> Result<(), StateError> {
        let (kind, head) = read_frame(source)?;
        let vars = self.head(kind, &head)?;
        let mut counts = [0u64; 3];
        let mut touched: BTreeMap<FileKey, Option<RequestId>> = BTreeMap::new();
        let mut unsynced = 0;
        loop {
            let (kind, raw) = read_frame(source)?;
            match kind {
                PIECES => {
                    let pieces = Pieces::read(&raw).ok_or_else(|| damaged("a piece"))?;
                    unsynced += raw.len();
                    let durability = if unsynced > IMPORT_BYTES { Durability::Immediate } else { Durability::None };
                    unsynced = if unsynced > IMPORT_BYTES { 0 } else { unsynced };
                    counts[0] += pieces.rows.len() as u64;
                    counts[1] += pieces.blocks.len() as u64;
                    counts[2] += pieces.settled.len() as u64;
                    pieces.write(storage, durability, &mut touched)?;
                }
                END => {
                    let end: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
                    if raw != end {
                        return Err(StateError::Snapshot("damaged: it does not hold as much as it says".into()));
                    }
                    break;
                }
                kind => return Err(StateError::Snapshot(format!("damaged: a frame of kind {kind}"))),
            }
        }
        for file in touched.keys() {
            storage.write_rows(*file, Durability::Immediate, |_| Ok(()))?;
        }
        storage.write_main(Durability::Immediate, |txn| {
            let error = |what: redb::Error| storage_error("write", &storage.main_path())(what);
            for (file, settled) in &touched {
                if let Some(id) = settled {
                    settled::note_file(txn, *file, *id, error)?;
                }
            }
            let mut table = txn.open_table(Table::Vars.definition()).map_err(|what| error(what.into()))?;
            table.insert(vars::KEY, &vars.encode(0)[..]).map(drop).map_err(|what| error(what.into()))
        })
    }

    fn head(&self, kind: u8, head: &[u8]) -> Result<Vars, StateError> {
        let mut from = Take(head);
        let magic = from.array::<4>().filter(|magic| magic == MAGIC && kind == HEAD);
        let version = magic.and_then(|_| from.array::<1>()).ok_or_else(|| damaged("its head"))?[0];
        if version != VERSION {
            return Err(StateError::Snapshot(format!(
                "format version {version}, this build reads {VERSION}: upgrade this node"
            )));
        }
        let group = u32::from_le_bytes(from.array().ok_or_else(|| damaged("its head"))?);
        if group != self.group.0 {
            return Err(StateError::Snapshot(format!("it is of group {group}, this is group {}", self.group)));
        }
        let (vars, _) = Vars::decode(from.0).map_err(StateError::Snapshot)?;
        Ok(vars)
    }
}

/// Reads bytes as a stream of frames, and as one frame's pieces, for fuzzing.
pub(in crate::state) fn read_for_fuzz(bytes: &[u8]) {
    let mut source = bytes;
    while let Ok((_, raw)) = read_frame(&mut source) {
        let _ = Pieces::read(&raw);
    }
    let _ = Pieces::read(bytes);
}

impl<'a> Pieces<'a> {
    fn read(raw: &'a [u8]) -> Option<Self> {
        let mut pieces = Self::default();
        let mut from = Take(raw);
        while let Some([tag]) = from.array() {
            match tag {
                1 => {
                    let table = Table::from_u8(from.array::<1>()?[0])?;
                    pieces.rows.push((table, take_bytes(&mut from)?, take_bytes(&mut from)?));
                }
                2 => pieces.blocks.push((BlockKey::from_bytes(from.bytes(14)?)?, take_bytes(&mut from)?)),
                3 => {
                    let day = i32::from_le_bytes(from.array()?);
                    let id = RequestId(u128::from_le_bytes(from.array()?));
                    pieces.settled.push(((day, SETTLED_CLASS), id, codec::decode(take_bytes(&mut from)?).ok()?));
                }
                _ => return None,
            }
        }
        Some(pieces)
    }

    fn write(
        &self,
        storage: &Storage,
        durability: Durability,
        touched: &mut BTreeMap<FileKey, Option<RequestId>>,
    ) -> Result<(), StateError> {
        storage.write_main(durability, |txn| {
            for rows in self.rows.chunk_by(|(a, ..), (b, ..)| a == b) {
                let error = |what: redb::Error| storage_error(rows[0].0.name(), &storage.main_path())(what);
                let mut table = txn.open_table(rows[0].0.definition()).map_err(|what| error(what.into()))?;
                for (_, key, value) in rows {
                    table.insert(*key, *value).map_err(|what| error(what.into()))?;
                }
            }
            Ok(())
        })?;
        let mut files: Vec<FileKey> = self.blocks.iter().map(|(key, _)| key.file()).collect();
        files.extend(self.settled.iter().map(|(file, ..)| *file));
        files.sort_unstable();
        files.dedup();
        for file in files {
            let settled = self.settled.iter().rfind(|(of, ..)| *of == file).map(|(_, id, _)| *id);
            let newest = touched.entry(file).or_default();
            *newest = settled.or(*newest);
            storage.write_rows(file, durability, |writer| {
                for (key, block) in self.blocks.iter().filter(|(key, _)| key.file() == file) {
                    writer.put(*key, block)?;
                }
                for (_, id, settled) in self.settled.iter().filter(|(of, ..)| *of == file) {
                    writer.settle(*id, settled)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
