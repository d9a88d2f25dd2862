//! The replica: its memory, its files, and who may touch them when.
//!
//! Locks, in the order in which they are taken: `checkpointing` (one checkpoint, export set-up or import at a time),
//! `writer` (one apply or import), `live` (short: memory only, or a read transaction's begin).

use std::{
    fmt,
    fs::File,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{
    Applied, Change, Options, StateError, Stats,
    block::SharedTexts,
    layer::Live,
    storage::{Main, Storage},
    tables::Table,
    vars::{self, Vars},
    view::{self, Range, Visit},
};
use crate::model::{GroupId, LogId};

/// Told of changes, in order of apply.
type Listener = Box<dyn Fn(&[Change]) + Send + Sync>;

/// One replica's state of one group. One thread applies; any number read.
pub struct State {
    pub(super) group: GroupId,
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) live: RwLock<Replica>,
    pub(super) writer: Mutex<()>,
    /// Of the writer alone.
    pub(super) texts: Mutex<SharedTexts>,
    pub(super) checkpointing: Mutex<()>,
    pub(super) checkpointed: Mutex<Option<(LogId, Option<Bytes>)>>,
    pub(super) checkpoints: AtomicU64,
    listeners: RwLock<Vec<Listener>>,
    failed: OnceLock<String>,
    /// Locked while the replica is open.
    pub(super) _lock: File,
}

/// Memory and the files below it; an import replaces both at once.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) live: Live,
    pub(super) storage: Arc<Storage>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State(group {}, {})", self.group, self.dir.display())
    }
}

impl State {
    pub(super) fn new((group, dir, options): (GroupId, PathBuf, Options), replica: Replica, lock: File) -> Self {
        let applied = replica.live.vars.applied.clone();
        Self {
            group,
            dir,
            options,
            live: RwLock::new(replica),
            writer: Mutex::default(),
            texts: Mutex::default(),
            checkpointing: Mutex::default(),
            checkpointed: Mutex::new(applied.last.map(|last| (last, applied.membership))),
            checkpoints: AtomicU64::new(0),
            listeners: RwLock::default(),
            failed: OnceLock::new(),
            _lock: lock,
        }
    }

    /// How far this replica is.
    pub fn applied(&self) -> Applied {
        self.read().live.vars.applied.clone()
    }

    /// The newest checkpoint: where replay of the log starts after a crash, and the membership then.
    pub fn checkpointed(&self) -> Option<(LogId, Option<Bytes>)> {
        self.checkpointed.lock().expect("no panic while locked").clone()
    }

    /// Adds a listener. It is called on the applying thread, in order of apply, after the changes can be read; also after
    /// an import, with [`Change::Reset`].
    pub fn subscribe(&self, listener: Listener) {
        self.listeners.write().expect("no panic while locked").push(listener);
    }

    /// Sizes, for `/metrics`.
    pub fn stats(&self) -> Stats {
        let live = self.read();
        let (blocks, unsealed_blocks, rows, block_bytes) = live.live.index.sizes();
        let pending_bytes = live.live.layers().map(|layer| layer.bytes).sum();
        let storage = Arc::clone(&live.storage);
        drop(live);
        let (file_bytes, row_files) = storage.sizes();
        let checkpoints = self.checkpoints.load(Ordering::Relaxed);
        Stats { file_bytes, row_files, blocks, unsealed_blocks, rows, block_bytes, pending_bytes, checkpoints }
    }

    /// Bytes of entries that no checkpoint holds yet, about: 64 MiB are reason enough for the next one.
    pub fn pending_bytes(&self) -> u64 {
        self.read().live.layers().map(|layer| layer.bytes).sum()
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Replica> {
        self.live.read().expect("no panic while the replica is locked")
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Replica> {
        self.live.write().expect("no panic while the replica is locked")
    }

    pub(super) fn only<'a>(&self, lock: &'a Mutex<()>) -> MutexGuard<'a, ()> {
        lock.lock().expect("no panic while locked")
    }

    pub(super) fn tell(&self, changes: &[Change]) {
        if !changes.is_empty() {
            for listener in self.listeners.read().expect("no panic while locked").iter() {
                listener(changes);
            }
        }
    }

    /// Refuses when an earlier call failed: memory may hold half of it.
    pub(super) fn check(&self) -> Result<(), StateError> {
        self.failed.get().map_or(Ok(()), |why| Err(StateError::Failed(why.clone())))
    }

    pub(super) fn fail(&self, error: &StateError) {
        // Only the first reason counts.
        let _ = self.failed.set(error.to_string());
    }

    /// A row of a table.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        let main = {
            let replica = self.read();
            if let Some(found) = replica.live.get(&(table, key.to_vec())) {
                return Ok(found);
            }
            replica.storage.read_main()?
        };
        main.get(table, key)
    }

    /// Walks a range of a table as it is now; the lock is not held meanwhile.
    pub(super) fn walk(
        &self,
        table: Table,
        range: &Range,
        backwards: bool,
        f: &mut Visit<'_>,
    ) -> Result<(), StateError> {
        let (overlay, main) = {
            let replica = self.read();
            (view::overlay(&replica.live, None, table, range), replica.storage.read_main()?)
        };
        view::walk(&main, table, range, overlay, backwards, f)
    }

    /// A stored value that does not read.
    pub(super) fn value_error(&self, table: Table, what: String) -> StateError {
        StateError::Value { table: table.name(), path: self.read().storage.main_path(), what }
    }
}

/// The newest layer whose differences the main file's cells hold.
pub(super) fn stored_layer(main: &Main) -> Result<u64, StateError> {
    let stored = main.get(Table::Vars, vars::KEY)?;
    stored.map_or(Ok(0), |bytes| Vars::layer(&bytes).map_err(main.error(Table::Vars)))
}
