//! Opening a replica's directory.
//!
//! `LOCK` says that it is in use. `state_<n>` is a generation: `FORMAT`, the main file, the files of rows. A generation is
//! made under the name `new` and renamed when it is whole, so the one with the greatest number is the state; the first
//! opening and each import make one.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Durability, ReadableTable};

use super::{
    OpenError, Options, State, StateError,
    disk::sync_dir,
    index::{BlockIndex, BlockKey, BlockMeta, FileKey},
    layer::Live,
    replica::Replica,
    settled,
    storage::{Known, Storage},
    tables::Table,
    vars::{self, Vars},
};
use crate::{
    model::{GroupId, RequestId, audit_link},
    platform,
};

/// Format of a generation that this build writes, and the newest that it reads.
const FORMAT: u32 = 1;
const FORMAT_HEAD: &str = "tollgate state, format ";

impl State {
    /// Opens a group's directory, or makes it, at its newest checkpoint: the log is to be replayed from there.
    ///
    /// # Errors
    /// [`OpenError`] says which file, why, and what to do.
    pub fn open(dir: &Path, group: GroupId, options: Options) -> Result<Self, OpenError> {
        fs::create_dir_all(dir).map_err(io_error("make", dir))?;
        let lock = lock(dir)?;
        let files = &options.files;
        let new = dir.join("new");
        files.remove_dir(&new).map_err(io_error("remove", &new))?;
        let mut generations = generations(dir)?;
        if generations.is_empty() {
            make_generation(&new, group, &options, |_| Ok(())).map_err(|error| damaged(&new, &error))?;
            let first = generation_path(dir, 1);
            files.rename_dir(&new, &first).map_err(io_error("rename", &new))?;
            generations.push(1);
        }
        let newest = generations.pop().expect("one was made if there was none");
        let path = generation_path(dir, newest);
        let replica = open_generation(&path, group, &options)?;
        // Older ones are what an import replaced; it was cut short before it removed them.
        for old in generations {
            let path = generation_path(dir, old);
            files.remove_dir(&path).map_err(io_error("remove", &path))?;
        }
        Ok(Self::new((group, dir.to_owned(), options), replica, lock))
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("LOCK");
    let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(io_error("open", &path))?;
    // A simulated crash leaves what the node had open behind in the process.
    if platform::simulated() {
        return Ok(lock);
    }
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { action: "lock", path, source }),
    }
}

/// Numbers of the generations, ascending.
fn generations(dir: &Path) -> Result<Vec<u64>, OpenError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let name = entry.map_err(io_error("list", dir))?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix("state_")?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn generation_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("state_{number}"))
}

/// The number of a generation's directory.
pub(super) fn generation_number(path: &Path) -> u64 {
    let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("state_")?.parse().ok());
    number.unwrap_or_default()
}

/// Makes a generation's files, filled by `fill`, all of it durable when this returns.
pub(super) fn make_generation(
    path: &Path,
    group: GroupId,
    options: &Options,
    fill: impl FnOnce(&Storage) -> Result<(), StateError>,
) -> Result<(), StateError> {
    let io = |action| move |error: io::Error| super::storage::storage_error(action, path)(error);
    options.files.remove_dir(path).map_err(io("remove"))?;
    fs::create_dir(path).map_err(io("make"))?;
    let storage = Storage::open(path, options).map_err(|error| super::storage::storage_error("make", path)(error))?;
    make_tables(&storage, path)?;
    fill(&storage)?;
    drop(storage);
    let format = path.join("FORMAT");
    let write = || {
        let mut file = File::create(&format)?;
        writeln!(file, "{FORMAT_HEAD}{FORMAT}\ngroup {group}")?;
        file.sync_all()?;
        sync_dir(path)
    };
    write().map_err(super::storage::storage_error("write", &format))
}

/// Makes every table that is not there: all of a new generation's; those that an older build did not know.
fn make_tables(storage: &Storage, path: &Path) -> Result<(), StateError> {
    storage.write_main(Durability::Immediate, |txn| {
        for table in Table::ALL {
            let opened = txn.open_table(table.definition());
            opened.map(drop).map_err(super::storage::storage_error(table.name(), path))?;
        }
        Ok(())
    })
}

/// Finds profiles by their names that an older build kept without.
fn name_profiles(storage: &Storage, path: &Path) -> Result<(), StateError> {
    use super::storage::storage_error as error;
    storage.write_main(Durability::Immediate, |txn| {
        let profiles = txn.open_table(Table::Profiles.definition()).map_err(error("profiles", path))?;
        let mut names = txn.open_table(Table::ProfileNames.definition()).map_err(error("profile_names", path))?;
        for row in ReadableTable::iter(&profiles).map_err(error("profiles", path))? {
            let (key, value) = row.map_err(error("profiles", path))?;
            // One that cannot be read is told when it is.
            if let Ok(profile) = super::codec::decode(value.value()) {
                let name = super::ledger::name_key(&profile, key.value());
                names.insert(&name[..], &[][..]).map_err(error("profile_names", path))?;
            }
        }
        Ok(())
    })
}

/// Opens a whole generation.
pub(super) fn open_generation(path: &Path, group: GroupId, options: &Options) -> Result<Replica, OpenError> {
    check_format(&path.join("FORMAT"), group)?;
    let storage = Storage::open(path, options)?;
    let main_path = storage.main_path();
    let main = storage.read_main().map_err(|error| damaged(&main_path, &error))?;
    if !Table::ALL.into_iter().all(|table| main.has(table)) {
        let has_names = main.has(Table::ProfileNames);
        make_tables(&storage, path).map_err(|error| damaged(&main_path, &error))?;
        if !has_names {
            name_profiles(&storage, path).map_err(|error| damaged(&main_path, &error))?;
        }
    }
    drop(main);
    let live = load(&storage).map_err(|error| damaged(&main_path, &error))?;
    for (file, (newest, count)) in live.index.files() {
        storage.check_rows(file, &Known::Blocks { newest, count })?;
    }
    for (file, settled) in settled_files(&storage).map_err(|error| damaged(&main_path, &error))? {
        if !live.vars.is_dropped(file) {
            storage.check_rows(file, &Known::Settled(settled))?;
        }
    }
    let is_left_over =
        |file: (i32, u16)| live.vars.is_dropped(file) && !live.index.iter().any(|(key, _)| key.file() == file);
    storage.remove_rows(is_left_over).map_err(|error| damaged(path, &error))?;
    Ok(Replica { live, storage: Arc::new(storage) })
}

fn check_format(path: &Path, group: GroupId) -> Result<(), OpenError> {
    let damaged = |what: String| OpenError::Damaged { path: path.to_owned(), what };
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        // The directory got its name when the file was in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("it is missing, and the state that it tells the format of is there".into()));
        }
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let unknown = || damaged(if text.is_empty() { "it is empty".into() } else { format!("it says {text:?}") });
    let (format, rest) = text.strip_prefix(FORMAT_HEAD).and_then(|rest| rest.split_once('\n')).ok_or_else(unknown)?;
    let found = format.parse().map_err(|_| unknown())?;
    if found > FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found, newest: FORMAT });
    }
    let found = rest.strip_prefix("group ").and_then(|group| group.trim_end().parse().ok()).ok_or_else(unknown)?;
    if found == group.0 {
        Ok(())
    } else {
        Err(OpenError::OtherGroup { path: path.to_owned(), found, expected: group.0 })
    }
}

/// What a generation holds in memory.
fn load(storage: &Storage) -> Result<Live, StateError> {
    let main = storage.read_main()?;
    let (mut vars, layer) = match main.get(Table::Vars, vars::KEY)? {
        Some(bytes) => Vars::decode(&bytes).map_err(main.error(Table::Vars))?,
        None => (Vars::default(), 0),
    };
    if vars.audit_head.is_empty() {
        // Of a build that did not keep it.
        let lines = main.table(Table::Audit)?;
        let mut newest = lines.range::<&[u8]>(..).map_err(main.error(Table::Audit))?;
        if let Some(line) = newest.next_back() {
            vars.audit_head = audit_link(line.map_err(main.error(Table::Audit))?.1.value());
        }
    }
    let mut index = BlockIndex::default();
    for row in main.table(Table::Blocks)?.range::<&[u8]>(..).map_err(main.error(Table::Blocks))? {
        let (key, value) = row.map_err(main.error(Table::Blocks))?;
        let (key, meta) = decode_block(key.value(), value.value()).map_err(main.error(Table::Blocks))?;
        index.insert(key, Arc::new(meta));
    }
    Ok(Live::new(vars, index, layer))
}

/// Files of settling records, each with one that it has; none of those that only builds wrote that did not say.
fn settled_files(storage: &Storage) -> Result<Vec<(FileKey, RequestId)>, StateError> {
    let main = storage.read_main()?;
    let mut files = Vec::new();
    for row in main.table(Table::SettledFiles)?.range::<&[u8]>(..).map_err(main.error(Table::SettledFiles))? {
        let (key, value) = row.map_err(main.error(Table::SettledFiles))?;
        let file = settled::stored_file(key.value(), value.value());
        files.push(file.ok_or("a key or value of another length").map_err(main.error(Table::SettledFiles))?);
    }
    Ok(files)
}

/// Reads a row of the table of blocks.
pub(super) fn decode_block(key: &[u8], value: &[u8]) -> Result<(BlockKey, BlockMeta), String> {
    let key = BlockKey::from_bytes(key).ok_or("a block's key that is not 14 bytes")?;
    Ok((key, super::codec::decode(value)?))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

fn damaged(path: &Path, error: &StateError) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), what: error.to_string() }
}
