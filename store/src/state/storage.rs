//! The files of a replica: one main file, and one file of rows for each day and retention class.

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, TableDefinition, TransactionError,
    WriteTransaction,
};

use super::{
    Files, OpenError, Options, StateError,
    index::{BlockKey, FileKey},
    settled::Settled,
    tables::Table,
};
use crate::{model::RequestId, platform::panics::expected};

/// Entry (8 bytes), part (2 bytes) -> a piece of the entry's block.
const PARTS: TableDefinition<'static, [u8; 10], &'static [u8]> = TableDefinition::new("blocks");
/// Request id -> what its settling record says.
const SETTLED: TableDefinition<'static, [u8; 16], &'static [u8]> = TableDefinition::new("settled");

/// redb keeps a value in a page of its own of 2^n bytes when it is larger than this page.
const PAGE: usize = 4_096;
/// What redb adds to a lone value in its page, and some room.
const PAGE_HEAD: usize = 64;
/// Bytes of a transaction on a file of rows before it is committed without a sync, while a snapshot is taken in.
pub(super) const IMPORT_BYTES: usize = 16 << 20;

/// What the main file knows to be in a file of rows.
#[derive(Debug)]
pub(super) enum Known {
    /// So many blocks, the newest of this entry.
    Blocks { newest: u64, count: usize },
    /// The settling record of this request, of the last that were written.
    Settled(RequestId),
}

/// Open files of one generation (a directory that an import replaces as a whole).
#[derive(Debug)]
pub(super) struct Storage {
    dir: PathBuf,
    files: Arc<dyn Files>,
    row_cache_bytes: usize,
    main: Database,
    rows: Mutex<BTreeMap<FileKey, Arc<Database>>>,
}

impl Storage {
    /// Opens the main file; files of rows open when they are asked for.
    pub(super) fn open(dir: &Path, options: &Options) -> Result<Self, OpenError> {
        let path = dir.join("main.redb");
        let main = opened(&path, || options.files.open(&path, options.cache_bytes))?;
        let (dir, files) = (dir.to_owned(), Arc::clone(&options.files));
        Ok(Self { dir, files, row_cache_bytes: options.cache_bytes / 8, main, rows: Mutex::default() })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn main_path(&self) -> PathBuf {
        self.dir.join("main.redb")
    }

    fn row_path(&self, key: FileKey) -> PathBuf {
        self.dir.join(row_name(key))
    }

    /// A consistent view of the main file.
    pub(super) fn read_main(&self) -> Result<Main, StateError> {
        let txn = self.main.begin_read().map_err(storage_error("read", &self.main_path()))?;
        Ok(Main { txn, path: self.main_path() })
    }

    /// Changes the main file, durably if asked.
    pub(super) fn write_main(
        &self,
        durability: Durability,
        write: impl FnOnce(&WriteTransaction) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        write_transaction(&self.main, &self.main_path(), durability, write)
    }

    /// A file of rows; none when there is none and it shall not be made.
    pub(super) fn row_file(&self, key: FileKey, make: bool) -> Result<Option<Arc<Database>>, StateError> {
        let mut rows = self.rows.lock().expect("no panic while the map is locked");
        if let Some(database) = rows.get(&key) {
            return Ok(Some(Arc::clone(database)));
        }
        let path = self.row_path(key);
        if !make && !self.files.exists(&path) {
            return Ok(None);
        }
        let database = Arc::new(opened(&path, || self.files.open(&path, self.row_cache_bytes)).map_err(Box::new)?);
        rows.insert(key, Arc::clone(&database));
        Ok(Some(database))
    }

    /// A consistent view of a file of rows.
    pub(super) fn read_rows(&self, key: FileKey) -> Result<Option<Rows>, StateError> {
        let path = self.row_path(key);
        let Some(database) = self.row_file(key, false)? else { return Ok(None) };
        let txn = database.begin_read().map_err(storage_error("read", &path))?;
        Ok(Some(Rows { txn, path }))
    }

    /// Proves that a file of rows is there, opens, and holds the newest of what the main file knows to be in it: what was
    /// lost, cut short or put back from another day is found when the node starts, not when somebody asks for its rows.
    pub(super) fn check_rows(&self, key: FileKey, known: &Known) -> Result<(), OpenError> {
        let path = self.row_path(key);
        if !self.files.exists(&path) {
            let what = match known {
                Known::Blocks { count, .. } => {
                    format!("it is missing, and main.redb knows of {count} blocks of rows in it")
                }
                Known::Settled(_) => "it is missing, and main.redb knows of settling records in it".into(),
            };
            return Err(OpenError::Damaged { path, what });
        }
        let read_only = opened(&path, || self.files.open_to_read(&path))?;
        let txn = match &read_only {
            Some(database) => opened(&path, || database.begin_read().map_err(no_transaction))?,
            None => {
                let database = opened(&path, || self.files.open(&path, self.row_cache_bytes))?;
                let txn = opened(&path, || database.begin_read().map_err(no_transaction))?;
                self.rows.lock().expect("no panic while the map is locked").insert(key, Arc::new(database));
                txn
            }
        };
        let rows = Rows { txn, path: path.clone() };
        let found = match known {
            Known::Blocks { newest, .. } => rows.block(*newest).map(|block| block.is_some()),
            Known::Settled(id) => rows.settled(*id).map(|settled| settled.is_some()),
        };
        let what = match (found, known) {
            (Ok(true), _) => return Ok(()),
            (Ok(false), Known::Blocks { newest, .. }) => {
                format!("it lacks the rows of entry {newest}, which main.redb knows to be in it")
            }
            (Ok(false), Known::Settled(id)) => {
                format!("it lacks the settling record of request {id}, which main.redb knows to be in it")
            }
            (Err(error), _) => error.to_string(),
        };
        Err(OpenError::Damaged { path, what })
    }

    /// Changes a file of rows.
    pub(super) fn write_rows(
        &self,
        key: FileKey,
        durability: Durability,
        write: impl FnOnce(&mut RowWriter<'_>) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let path = self.row_path(key);
        let Some(database) = self.row_file(key, true)? else { return Ok(()) };
        write_transaction(&database, &path, durability, |txn| {
            let parts = txn.open_table(PARTS).map_err(storage_error("open blocks in", &path))?;
            let settled = txn.open_table(SETTLED).map_err(storage_error("open settled in", &path))?;
            write(&mut RowWriter { parts, settled, path: &path })
        })
    }

    /// Closes and removes files of rows.
    pub(super) fn remove_rows(&self, is_gone: impl Fn(FileKey) -> bool) -> Result<(), StateError> {
        for path in self.files.list(&self.dir).map_err(storage_error("list", &self.dir))? {
            if let Some(key) = file_key(&path).filter(|key| is_gone(*key)) {
                // Both under the lock, or a reader could open the file once more in between and keep it among the open
                // ones, and rows that come late for that day would go into a file without a name.
                let mut rows = self.rows.lock().expect("no panic while the map is locked");
                rows.remove(&key);
                self.files.remove(&path).map_err(storage_error("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Keys of the files of rows.
    pub(super) fn row_files(&self) -> Result<Vec<FileKey>, StateError> {
        let files = self.files.list(&self.dir).map_err(storage_error("list", &self.dir))?;
        let mut keys: Vec<FileKey> = files.iter().filter_map(|path| file_key(path)).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// Bytes of all files, and how many are files of rows.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let files = self.files.list(&self.dir).unwrap_or_default();
        let bytes = files.iter().map(|path| self.files.bytes(path)).sum();
        (bytes, files.iter().filter(|path| file_key(path).is_some()).count() as u64)
    }
}

/// The name of a file of rows.
pub(super) fn row_name((day, class): FileKey) -> String {
    format!("rows_{day}_{class}.redb")
}

fn file_key(path: &Path) -> Option<FileKey> {
    let (day, class) = path.file_stem()?.to_str()?.strip_prefix("rows_")?.split_once('_')?;
    Some((day.parse().ok()?, class.parse().ok()?))
}

/// A read transaction of the main file.
#[derive(Debug)]
pub(super) struct Main {
    txn: ReadTransaction,
    path: PathBuf,
}

/// A table that is read.
pub(super) type ReadTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

impl Main {
    pub(super) fn table(&self, table: Table) -> Result<ReadTable, StateError> {
        self.txn.open_table(table.definition()).map_err(storage_error(table.name(), &self.path))
    }

    /// Whether the table was made; a table that cannot be opened says so when it is read.
    pub(super) fn has(&self, table: Table) -> bool {
        !matches!(self.txn.open_table(table.definition()), Err(redb::TableError::TableDoesNotExist(_)))
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        let found = self.table(table)?.get(key).map_err(self.error(table))?;
        Ok(found.map(|value| Bytes::copy_from_slice(value.value())))
    }

    pub(super) fn error<E: Display>(&self, table: Table) -> impl FnOnce(E) -> StateError {
        storage_error(table.name(), &self.path)
    }
}

/// A read transaction of a file of rows.
#[derive(Debug)]
pub(super) struct Rows {
    txn: ReadTransaction,
    path: PathBuf,
}

impl Rows {
    /// A block's bytes, its parts put together.
    pub(super) fn block(&self, at: u64) -> Result<Option<Bytes>, StateError> {
        self.looked_up(|| {
            let Some(table) = self.open(PARTS)? else { return Ok(None) };
            let parts = table.range(part_key(at, 0)..=part_key(at, u16::MAX)).map_err(self.error())?;
            let mut block: Option<Vec<u8>> = None;
            for part in parts {
                let (_, value) = part.map_err(self.error())?;
                block.get_or_insert_default().extend_from_slice(value.value());
            }
            Ok(block.map(Bytes::from))
        })
    }

    /// The stored settling record of a request.
    pub(super) fn settled(&self, id: RequestId) -> Result<Option<Settled>, StateError> {
        self.looked_up(|| {
            let Some(table) = self.open(SETTLED)? else { return Ok(None) };
            let found = table.get(id.0.to_be_bytes()).map_err(self.error())?;
            found.map(|value| self.decode(value.value())).transpose()
        })
    }

    /// What redb finds; where it panics over a damaged page (see [`opened`]), an error.
    fn looked_up<T>(&self, read: impl FnOnce() -> Result<T, StateError>) -> Result<T, StateError> {
        expected(read).unwrap_or_else(|| Err(self.error()(NO_SENSE)))
    }

    /// Every settling record, by request id.
    pub(super) fn each_settled(
        &self,
        f: &mut dyn FnMut(RequestId, Settled) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let Some(table) = self.open(SETTLED)? else { return Ok(()) };
        for row in table.range::<[u8; 16]>(..).map_err(self.error())? {
            let (id, value) = row.map_err(self.error())?;
            f(RequestId(u128::from_be_bytes(id.value())), self.decode(value.value())?)?;
        }
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Settled, StateError> {
        let value = |what| StateError::Value { table: "settled", path: self.path.clone(), what };
        super::codec::decode(bytes).map_err(value)
    }

    fn open<K: redb::Key + 'static>(
        &self,
        table: TableDefinition<'static, K, &'static [u8]>,
    ) -> Result<Option<redb::ReadOnlyTable<K, &'static [u8]>>, StateError> {
        match self.txn.open_table(table) {
            Ok(table) => Ok(Some(table)),
            // Made but never written: a crash came before its first commit.
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(self.error()(error)),
        }
    }

    fn error<E: Display>(&self) -> impl FnOnce(E) -> StateError {
        storage_error("read", &self.path)
    }
}

/// A write transaction of a file of rows.
pub(super) struct RowWriter<'t> {
    parts: redb::Table<'t, [u8; 10], &'static [u8]>,
    settled: redb::Table<'t, [u8; 16], &'static [u8]>,
    path: &'t Path,
}

impl RowWriter<'_> {
    /// Puts a block in the place of whatever its entry had there.
    pub(super) fn put(&mut self, key: BlockKey, block: &[u8]) -> Result<(), StateError> {
        self.remove(key)?;
        let mut rest = block;
        let mut part = 0;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(piece_bytes(rest.len()));
            self.parts.insert(part_key(key.at, part), piece).map_err(storage_error("write", self.path))?;
            (rest, part) = (more, part + 1);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, key: BlockKey) -> Result<(), StateError> {
        let range = part_key(key.at, 0)..=part_key(key.at, u16::MAX);
        self.parts.retain_in(range, |_, _| false).map_err(storage_error("write", self.path))
    }

    pub(super) fn settle(&mut self, id: RequestId, settled: &Settled) -> Result<(), StateError> {
        let value = super::codec::encode(settled);
        self.settled.insert(id.0.to_be_bytes(), &value[..]).map_err(storage_error("write", self.path))?;
        Ok(())
    }
}

fn part_key(at: u64, part: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&at.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

/// How much of a value goes into its next piece: just under a power of two, so that little of redb's pages stays empty.
fn piece_bytes(rest: usize) -> usize {
    let full = (rest + PAGE_HEAD).next_power_of_two();
    if rest + PAGE_HEAD <= PAGE || rest + PAGE_HEAD > full / 8 * 7 { rest } else { full / 2 - PAGE_HEAD }
}

fn write_transaction(
    database: &Database,
    path: &Path,
    durability: Durability,
    write: impl FnOnce(&WriteTransaction) -> Result<(), StateError>,
) -> Result<(), StateError> {
    let mut txn = database.begin_write().map_err(storage_error("write", path))?;
    txn.set_durability(durability).map_err(storage_error("write", path))?;
    if matches!(durability, Durability::Immediate) {
        txn.set_quick_repair(true);
    }
    write(&txn)?;
    txn.commit().map_err(storage_error("commit", path))
}

/// What is said of a damaged page over which redb panics.
const NO_SENSE: &str = "redb cannot make sense of a page";

/// What opening a file gives. A page that is damaged and has no checksum of its own can make redb panic.
fn opened<T>(path: &Path, open: impl FnOnce() -> Result<T, DatabaseError>) -> Result<T, OpenError> {
    match expected(open) {
        Some(opened) => opened.map_err(|error| open_error(path, error)),
        None => Err(OpenError::Damaged { path: path.to_owned(), what: NO_SENSE.to_owned() }),
    }
}

fn no_transaction(error: TransactionError) -> DatabaseError {
    match error {
        TransactionError::Storage(error) => DatabaseError::Storage(error),
        error => DatabaseError::Storage(redb::StorageError::Corrupted(error.to_string())),
    }
}

/// Names the file of a redb error.
pub(super) fn storage_error<E: Display>(action: &'static str, path: &Path) -> impl FnOnce(E) -> StateError + use<E> {
    let path = path.to_owned();
    move |error| StateError::Storage { action, path, what: error.to_string() }
}

/// Says what to do about a redb file that does not open.
pub(super) fn open_error(path: &Path, error: redb::DatabaseError) -> OpenError {
    use redb::{DatabaseError, StorageError};
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked { path },
        // Bytes that are wrong, or fewer than there should be, are not the operating system's refusal.
        DatabaseError::Storage(StorageError::Io(source))
            if !matches!(source.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            OpenError::Io { action: "open", path, source }
        }
        DatabaseError::Storage(StorageError::Corrupted(what)) => {
            OpenError::Damaged { path, what: newer_redb(&what).unwrap_or(what) }
        }
        error => OpenError::Damaged { path, what: error.to_string() },
    }
}

/// What a file of a later redb looks like. Its version is in front of its checksum, so damage can look the same.
fn newer_redb(what: &str) -> Option<String> {
    let (newest, found) = what.strip_prefix("Expected file format version <= ")?.split_once(", found ")?;
    Some(format!(
        "it says redb format {found}, this build reads up to {newest}; if a newer version wrote it, start that one"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fill_redbs_pages() {
        for bytes in [1, 4_032, 4_033, 5_000, 36_000, 40_000, 65_472, 65_473, 600_000, 1_300_000] {
            let (mut rest, mut pages, mut parts) = (bytes, 0, 0);
            while rest > 0 {
                let piece = piece_bytes(rest);
                pages += (piece + PAGE_HEAD).next_power_of_two().max(PAGE);
                rest -= piece;
                parts += 1;
            }
            assert!(pages <= PAGE + bytes + bytes / 6 + parts * PAGE_HEAD, "{bytes}: {pages} in {parts}");
            assert!(parts <= 12, "{bytes}: {parts}");
        }
    }
}
