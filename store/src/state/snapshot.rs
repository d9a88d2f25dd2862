//! A replica's whole state as a stream, and its digest.
//!
//! A frozen view is taken under a short lock; apply and checkpoints go on while it is walked. The stream is logical: tables
//! and blocks, not pages of files, so a replica can take it in whatever its own files look like.

mod export;
pub(super) mod import;
mod stream;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{
    State, StateError,
    block::Block,
    codec,
    flat::Flat,
    index::{BlockKey, BlockMeta, FileKey},
    layer::Layer,
    replica::stored_layer,
    seal::lost,
    settled::Settled,
    storage::{Main, Rows},
    tables::Table,
    usage::Record,
    vars::Vars,
    view::{self, Overlay, Range},
};
use crate::model::{RequestId, Row};

/// The state at one entry.
struct Frozen {
    vars: Vars,
    blocks: Vec<(BlockKey, Arc<BlockMeta>)>,
    layers: Vec<Arc<Layer>>,
    main: Main,
    rows: BTreeMap<FileKey, Rows>,
}

/// A piece of a state, in the order of [`Frozen::walk`].
enum Piece<'a> {
    Row(Table, &'a [u8], &'a [u8]),
    Block(BlockKey, &'a [u8]),
    Settled(i32, RequestId, &'a Settled),
}

/// The head of a stream of any version, for tests.
#[cfg(test)]
pub(super) fn write_head(sink: &mut dyn std::io::Write, version: u8, group: u32) {
    let head = [&stream::MAGIC[..], &[version], &group.to_le_bytes(), &Vars::default().encode(0)].concat();
    stream::write_frame(sink, stream::HEAD, &head).expect("writing to memory cannot fail");
}

impl State {
    /// SHA-256 of all that replicas must agree on: equal on all replicas at the same entry, whatever their checkpoints,
    /// files and compression library. Reads everything; for tests and checks, not for every minute.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn digest(&self) -> Result<[u8; 32], StateError> {
        let frozen = self.frozen()?;
        let mut sum = Sha256::new();
        sum.update(frozen.vars.encode(0));
        let mut buffer = Vec::new();
        frozen.walk(&mut |piece| {
            buffer.clear();
            match piece {
                Piece::Row(table, key, value) => {
                    buffer.push(table as u8);
                    put(&mut buffer, key);
                    if table == Table::Blocks {
                        let meta: BlockMeta = codec::decode(value).map_err(frozen.main.error(table))?;
                        // Its length depends on the compression library.
                        put(&mut buffer, &codec::encode(&BlockMeta { bytes: 0, ..meta }));
                    } else {
                        put(&mut buffer, value);
                    }
                }
                Piece::Block(key, bytes) => {
                    let damaged = |source| StateError::Block { index: key.at, source };
                    let block = Block::open(bytes).map_err(damaged)?;
                    for row in block.rows_iter().map_err(damaged)? {
                        put_row(&mut buffer, &row);
                    }
                }
                Piece::Settled(day, id, settled) => {
                    buffer.extend_from_slice(&day.to_be_bytes());
                    buffer.extend_from_slice(&id.0.to_be_bytes());
                    put(&mut buffer, &codec::encode(settled));
                }
            }
            sum.update(&buffer);
            Ok(())
        })?;
        Ok(sum.finalize().into())
    }

    /// A view that stays as it is now.
    fn frozen(&self) -> Result<Frozen, StateError> {
        self.check()?;
        // No checkpoint meanwhile: no file of rows comes or goes.
        let _one = self.only(&self.checkpointing);
        let storage = Arc::clone(&self.read().storage);
        let files = storage.row_files()?;
        for file in &files {
            storage.row_file(*file, false)?;
        }
        let mut replica = self.write();
        replica.live.freeze();
        let mut rows = BTreeMap::new();
        for file in files {
            rows.extend(storage.read_rows(file)?.map(|read| (file, read)));
        }
        Ok(Frozen {
            vars: replica.live.vars.clone(),
            blocks: replica.live.index.iter().map(|(key, meta)| (key, Arc::clone(meta))).collect(),
            layers: replica.live.frozen.clone(),
            main: storage.read_main()?,
            rows,
        })
    }
}

impl Frozen {
    /// Everything, in an order that is the same on all replicas.
    fn walk(&self, f: &mut dyn FnMut(Piece<'_>) -> Result<(), StateError>) -> Result<(), StateError> {
        let flat = Flat::of(&self.layers, stored_layer(&self.main)?);
        let mut puts: BTreeMap<Table, Overlay> = BTreeMap::new();
        for ((table, key), value) in flat.puts {
            puts.entry(table).or_default().insert(key, value);
        }
        let cells = puts.entry(Table::Usage).or_default();
        for (key, more) in flat.usage {
            let mut sum = match self.main.get(Table::Usage, &key)? {
                Some(stored) => Record::decode(&stored).map_err(self.main.error(Table::Usage))?,
                None => Record::default(),
            };
            sum.merge(&more);
            cells.insert(key, Some(Bytes::from(sum.encode())));
        }
        for table in Table::ALL.into_iter().filter(|table| !table.is_local()) {
            let overlay = puts.remove(&table).unwrap_or_default();
            view::walk(&self.main, table, &Range::all(), overlay, false, &mut |key, value| {
                f(Piece::Row(table, key, value)).map(|()| true)
            })?;
        }
        for (key, _) in &self.blocks {
            match flat.rows.get(&key.file()).and_then(|rows| rows.blocks.get(key)) {
                Some(bytes) => f(Piece::Block(*key, bytes))?,
                None => {
                    let rows = self.rows.get(&key.file()).ok_or_else(|| lost(*key))?;
                    let bytes = rows.block(key.at)?.ok_or_else(|| lost(*key))?;
                    f(Piece::Block(*key, &bytes))?;
                }
            }
        }
        let mut files: Vec<FileKey> = self.rows.keys().chain(flat.rows.keys()).copied().collect();
        files.sort_unstable();
        files.dedup();
        for file in files.into_iter().filter(|file| !self.vars.is_dropped(*file)) {
            let none = BTreeMap::new();
            let newer = flat.rows.get(&file).map_or(&none, |rows| &rows.settled);
            let mut newer = newer.iter().peekable();
            if let Some(rows) = self.rows.get(&file) {
                rows.each_settled(&mut |id, settled| {
                    while let Some((id, settled)) = newer.next_if(|(newer, _)| **newer < id) {
                        f(Piece::Settled(file.0, *id, settled))?;
                    }
                    // A record that the file has from before a crash is not there until its entry is replayed.
                    match newer.next_if(|(newer, _)| **newer == id) {
                        Some((_, settled)) => f(Piece::Settled(file.0, id, settled)),
                        None if settled.seq < self.vars.next_seq => f(Piece::Settled(file.0, id, &settled)),
                        None => Ok(()),
                    }
                })?;
            }
            for (id, settled) in newer {
                f(Piece::Settled(file.0, *id, settled))?;
            }
        }
        Ok(())
    }
}

fn put(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    buffer.extend_from_slice(bytes);
}

/// A row, for the digest alone.
fn put_row(buffer: &mut Vec<u8>, row: &Row) {
    for text in [&row.tier, &row.route, &row.method, &row.path, &row.node, &row.region] {
        put(buffer, text.as_bytes());
    }
    put(buffer, row.account.as_bytes());
    put(buffer, row.key_id.as_bytes());
    put(buffer, row.client_ip.map(|ip| ip.to_string()).unwrap_or_default().as_bytes());
    put(buffer, row.client_request_id.as_deref().map_or(&[], str::as_bytes));
    for number in [row.cost, row.bytes_in, row.bytes_out, row.upstream_us, row.duration_us] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    buffer.extend_from_slice(&row.request_id.0.to_le_bytes());
    buffer.extend_from_slice(&row.trace_id.to_le_bytes());
    buffer.extend_from_slice(&row.ts.0.to_le_bytes());
    buffer.extend_from_slice(&row.count.to_le_bytes());
    buffer.extend_from_slice(&row.status.to_le_bytes());
    buffer.extend_from_slice(&[row.outcome as u8, row.completion as u8, u8::from(row.settles)]);
    buffer.extend_from_slice(&[u8::from(row.client_ip.is_some()), u8::from(row.client_request_id.is_some())]);
    for charge in &row.charges {
        put(buffer, charge.quota.as_bytes());
        buffer.extend_from_slice(&charge.period_start.to_le_bytes());
        buffer.extend_from_slice(&charge.units.to_le_bytes());
    }
}
