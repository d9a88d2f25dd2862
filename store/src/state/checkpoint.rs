//! Checkpoints: what apply left in memory is written down, so that replay after a crash starts there.
//!
//! The order makes every crash harmless. First the files of rows: until the main file knows of them, blocks there are
//! nobody's, and replay overwrites them. Then the log is waited for: no state may be durable of which the node's own log
//! could still lose an entry. Last, in one transaction, the main file: tables, index of blocks, usage, and `applied`.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, atomic::Ordering},
};

use redb::{Durability, ReadableTable};

use super::{
    State, StateError,
    flat::Flat,
    index::{BlockIndex, BlockKey, FileKey},
    layer::Layer,
    replica::stored_layer,
    settled,
    storage::{Storage, storage_error},
    tables::Table,
    usage::Record,
    vars::{self, Vars},
};
use crate::model::LogId;

impl State {
    /// Makes the state durable as it is when this is called, and says at which entry that is; none before the first one.
    /// For a thread of its own: apply goes on meanwhile. `wait_wal_durable` returns when this node's log is durable up to
    /// an index.
    ///
    /// # Errors
    /// The disk, or the log. The replica takes no more calls; the files are still at the checkpoint before.
    pub fn checkpoint(
        &self,
        wait_wal_durable: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<Option<LogId>, StateError> {
        let _one = self.only(&self.checkpointing);
        self.check()?;
        let (storage, layers, vars, files) = {
            let mut replica = self.write();
            replica.live.freeze();
            let drops = replica.live.frozen.iter().any(|layer| layer.drops);
            let files = if drops { row_files(&replica.live.index) } else { BTreeSet::new() };
            (Arc::clone(&replica.storage), replica.live.frozen.clone(), replica.live.vars.clone(), files)
        };
        if layers.is_empty() {
            return Ok(vars.applied.last);
        }
        let written = write_down(&storage, &layers, &vars, wait_wal_durable);
        let drops = written.inspect_err(|error| self.fail(error))?;
        self.write().live.frozen.drain(..layers.len());
        let last = vars.applied.last;
        let checkpointed = last.map(|last| (last, vars.applied.membership.clone()));
        *self.checkpointed.lock().expect("no panic while locked") = checkpointed;
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        if drops {
            // Whatever is removed here is not in the index that the main file now has; a crash before leaves it to opening.
            let gone = |file: FileKey| vars.is_dropped(file) && !files.contains(&file);
            storage.remove_rows(gone).inspect_err(|error| self.fail(error))?;
        }
        Ok(last)
    }
}

/// The files of rows that hold blocks.
fn row_files(index: &BlockIndex) -> BTreeSet<FileKey> {
    index.iter().map(|(key, _)| key.file()).collect()
}

/// Writes layers down; says whether files of rows are to be removed now.
fn write_down(
    storage: &Storage,
    layers: &[Arc<Layer>],
    vars: &Vars,
    wait_wal_durable: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<bool, StateError> {
    let main = storage.read_main()?;
    let flat = Flat::of(layers, stored_layer(&main)?);
    let garbage = garbage(&main)?;
    drop(main);
    write_rows(storage, &flat, &garbage, vars)?;
    if let Some(last) = vars.applied.last {
        wait_wal_durable(last.index).map_err(|source| StateError::Log { index: last.index, source })?;
    }
    let newest = layers.last().map_or(0, |layer| layer.number);
    storage.write_main(Durability::Immediate, |txn| {
        let mut puts = flat.puts.iter().peekable();
        for table in Table::ALL {
            let mut open = None;
            let error = |what| storage_error(table.name(), &storage.main_path())(what);
            while let Some(((_, key), value)) = puts.next_if(|((of, _), _)| *of == table) {
                if open.is_none() {
                    open = Some(txn.open_table(table.definition()).map_err(|what| error(redb::Error::from(what)))?);
                }
                let open = open.as_mut().expect("opened above");
                match value {
                    Some(value) => open.insert(&key[..], &value[..]).map(drop),
                    None => open.remove(&key[..]).map(drop),
                }
                .map_err(|what| error(what.into()))?;
            }
        }
        write_small(txn, storage, &flat, &garbage, vars, newest)
    })?;
    Ok(flat.drops)
}

/// The main file's usage, garbage, what it knows of files of settling records, and vars.
fn write_small(
    txn: &redb::WriteTransaction,
    storage: &Storage,
    flat: &Flat,
    garbage: &[BlockKey],
    vars: &Vars,
    newest: u64,
) -> Result<(), StateError> {
    let path = storage.main_path();
    if !flat.usage.is_empty() {
        let error = |what: redb::Error| storage_error(Table::Usage.name(), &path)(what);
        let mut cells = txn.open_table(Table::Usage.definition()).map_err(|what| error(what.into()))?;
        for (key, more) in &flat.usage {
            let stored = cells.get(&key[..]).map_err(|what| error(what.into()))?;
            let sum = match stored.as_ref().map(|value| Record::decode(value.value())) {
                Some(Err(what)) => return Err(storage_error(Table::Usage.name(), &path)(what)),
                Some(Ok(mut sum)) => {
                    sum.merge(more);
                    sum.encode()
                }
                None => more.encode(),
            };
            drop(stored);
            cells.insert(&key[..], &sum[..]).map_err(|what| error(what.into()))?;
        }
    }
    if !garbage.is_empty() {
        let error = |what: redb::Error| storage_error(Table::Garbage.name(), &path)(what);
        let mut table = txn.open_table(Table::Garbage.definition()).map_err(|what| error(what.into()))?;
        for key in garbage {
            table.remove(&key.to_bytes()[..]).map_err(|what| error(what.into()))?;
        }
    }
    let error = |what: redb::Error| storage_error(Table::SettledFiles.name(), &path)(what);
    for (file, rows) in &flat.rows {
        if let Some((id, _)) = rows.settled.last_key_value() {
            settled::note_file(txn, *file, *id, error)?;
        }
    }
    if flat.drops {
        let mut files = txn.open_table(Table::SettledFiles.definition()).map_err(|what| error(what.into()))?;
        let is_kept =
            |day: &[u8], id: &[u8]| settled::stored_file(day, id).is_none_or(|(file, _)| !vars.is_dropped(file));
        files.retain(is_kept).map_err(|what| error(what.into()))?;
    }
    let error = |what: redb::Error| storage_error(Table::Vars.name(), &path)(what);
    let mut table = txn.open_table(Table::Vars.definition()).map_err(|what| error(what.into()))?;
    table.insert(vars::KEY, &vars.encode(newest)[..]).map_err(|what| error(what.into()))?;
    Ok(())
}

/// Blocks that the main file has durably given up.
fn garbage(main: &super::storage::Main) -> Result<Vec<BlockKey>, StateError> {
    let mut keys = Vec::new();
    for row in main.table(Table::Garbage)?.range::<&[u8]>(..).map_err(main.error(Table::Garbage))? {
        let (key, _) = row.map_err(main.error(Table::Garbage))?;
        keys.extend(BlockKey::from_bytes(key.value()));
    }
    Ok(keys)
}

fn write_rows(storage: &Storage, flat: &Flat, garbage: &[BlockKey], vars: &Vars) -> Result<(), StateError> {
    let mut files: Vec<FileKey> = flat.rows.keys().copied().collect();
    for key in garbage {
        if !flat.rows.contains_key(&key.file()) && storage.row_file(key.file(), false)?.is_some() {
            files.push(key.file());
        }
    }
    files.sort_unstable();
    files.dedup();
    for file in files {
        let rows = flat.rows.get(&file);
        if vars.is_dropped(file) && rows.is_none_or(|rows| rows.blocks.is_empty()) {
            continue;
        }
        storage.write_rows(file, Durability::Immediate, |writer| {
            for key in garbage.iter().filter(|key| key.file() == file) {
                writer.remove(*key)?;
            }
            for (key, block) in rows.iter().flat_map(|rows| &rows.blocks) {
                writer.put(*key, block)?;
            }
            for (id, settled) in rows.iter().flat_map(|rows| &rows.settled) {
                writer.settle(*id, settled)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
