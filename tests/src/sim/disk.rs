//! A node's disk: what was not flushed may be lost, torn, or kept out of order when the power fails; writes and flushes
//! fail when told to; pages rot.
//!
//! The log's files and redb's lie on the same one. Names of the log's files are durable by a flush of their directory alone;
//! names of redb's files at once (their directories are real, few, and flushed by the store).

mod redb_files;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use store::wal;

/// What a device writes as one.
const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// A disk. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Mutex<Machine>>);

#[derive(Debug)]
struct Machine {
    rng: SmallRng,
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameOp>,
    /// How often it was restarted: whoever opened a file before can do nothing more.
    life: u64,
    fault: Option<Fault>,
    slow: Duration,
    is_rotten: bool,
}

/// What goes wrong until the next restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next flush fails, and what it should have written is forgotten.
    FailedFlush,
    /// Writes fail.
    FailedWrites,
    /// Files cannot grow.
    Full,
}

#[derive(Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Debug)]
enum Write {
    Bytes(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug)]
enum NameOp {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

impl NameOp {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, inode) => drop(names.insert(path.clone(), *inode)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Unlink(path) => drop(names.remove(path)),
        }
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Disk {
    /// An empty disk; `seed` decides what a crash leaves of it.
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Machine {
            rng: SmallRng::seed_from_u64(seed),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            life: 0,
            fault: None,
            slow: Duration::ZERO,
            is_rotten: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// The process dies: what it wrote is there, flushed or not; nothing that it had open writes any more.
    pub(super) fn kill(&self) {
        let mut machine = self.lock();
        machine.life += 1;
        (machine.fault, machine.slow) = (None, Duration::ZERO);
    }

    /// The power fails: of each sector and name that was not flushed, chance decides, in any order.
    pub(super) fn power_loss(&self) {
        self.kill();
        let mut machine = self.lock();
        let machine = &mut *machine;
        let (rng, mode) = (&mut machine.rng, machine.life % 3);
        let kept = |rng: &mut SmallRng| match mode {
            0 => false,
            1 => rng.random_bool(0.5),
            _ => rng.random_bool(0.9),
        };
        for inode in &mut machine.inodes {
            if inode.unsynced.is_empty() {
                continue;
            }
            let mut pieces = Vec::new();
            for write in inode.unsynced.drain(..) {
                match write {
                    Write::Length(length) => {
                        if kept(rng) {
                            inode.durable.resize(length, 0);
                        }
                    }
                    Write::Bytes(offset, bytes) => {
                        let mut at = 0;
                        while at < bytes.len() {
                            let end = bytes.len().min(at + SECTOR - (offset + at) % SECTOR);
                            if kept(rng) {
                                pieces.push((offset + at, bytes[at..end].to_vec()));
                            }
                            at = end;
                        }
                    }
                }
            }
            // The device reorders: of two writes to one sector either may be the later one.
            pieces.shuffle(rng);
            for (offset, bytes) in pieces {
                put(&mut inode.durable, offset, &bytes);
            }
            inode.current.clone_from(&inode.durable);
        }
        for op in std::mem::take(&mut machine.unsynced_names) {
            if kept(rng) {
                op.apply(&mut machine.durable_names);
            }
        }
        machine.names = machine.durable_names.clone();
    }

    /// From now until the next restart, this goes wrong.
    pub(super) fn inject(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// Frames take this much longer.
    pub(super) fn slow_down(&self, by: Duration) {
        self.lock().slow = by;
    }

    /// Rots a page of the log that is below the newest ones; whether there was one.
    pub(super) fn rot(&self) -> bool {
        let mut machine = self.lock();
        let machine = &mut *machine;
        let mut pages = Vec::new();
        let segments = machine.names.iter().filter(|(path, _)| {
            path.extension().is_some_and(|ext| ext == "wal")
                && !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("spare"))
        });
        for (_, inode) in segments {
            let bytes = &machine.inodes[*inode].current;
            pages.extend(
                (1..bytes.len() / PAGE)
                    .filter(|page| bytes[page * PAGE..][..PAGE].iter().any(|b| *b != 0))
                    .map(|page| (*inode, page)),
            );
        }
        // The newest frames are where a tear may be: rot there cannot be told from one.
        pages.truncate(pages.len().saturating_sub(16));
        let Some((inode, page)) = pages.get(machine.rng.random_range(0..pages.len().max(1))).copied() else {
            return false;
        };
        let at = page * PAGE + machine.rng.random_range(0..64);
        machine.inodes[inode].durable[at] ^= 0x40;
        machine.inodes[inode].current[at] ^= 0x40;
        machine.is_rotten = true;
        true
    }

    /// Whether a page has rotten.
    pub(super) fn is_rotten(&self) -> bool {
        self.lock().is_rotten
    }

    /// A new disk in place of this one.
    pub(super) fn replace(&self) {
        let mut machine = self.lock();
        machine.life += 1;
        machine.inodes.clear();
        machine.names.clear();
        machine.durable_names.clear();
        machine.unsynced_names.clear();
        (machine.fault, machine.slow, machine.is_rotten) = (None, Duration::ZERO, false);
    }

    fn open(&self, path: &Path, make: bool) -> io::Result<OpenFile> {
        let mut machine = self.lock();
        let inode = match machine.names.get(path) {
            Some(inode) => *inode,
            None if make => {
                machine.inodes.push(Inode::default());
                let inode = machine.inodes.len() - 1;
                machine.names.insert(path.to_owned(), inode);
                machine.durable_names.insert(path.to_owned(), inode);
                inode
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let life = machine.life;
        Ok(OpenFile { disk: self.clone(), inode, life })
    }

    fn name(&self, op: NameOp) {
        let mut machine = self.lock();
        op.apply(&mut machine.names);
        machine.unsynced_names.push(op);
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: Disk,
    inode: usize,
    life: u64,
}

impl OpenFile {
    fn with<T>(&self, f: impl FnOnce(&mut Inode, &mut Option<Fault>) -> io::Result<T>) -> io::Result<T> {
        let mut machine = self.disk.lock();
        if machine.life != self.life {
            return Err(io::Error::other("this process is dead"));
        }
        let machine = &mut *machine;
        f(&mut machine.inodes[self.inode], &mut machine.fault)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|inode, _| {
            let bytes = inode.current.get(offset as usize..offset as usize + out.len());
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|inode, fault| {
            let grows = offset as usize + bytes.len() > inode.current.len();
            match fault {
                Some(Fault::FailedWrites) => return Err(io::Error::other("simulated input/output error")),
                Some(Fault::Full) if grows => return Err(io::ErrorKind::StorageFull.into()),
                _ => {}
            }
            put(&mut inode.current, offset as usize, bytes);
            inode.unsynced.push(Write::Bytes(offset as usize, bytes.to_vec()));
            Ok(())
        })
    }

    fn resize(&self, length: u64) -> io::Result<()> {
        self.with(|inode, fault| {
            if *fault == Some(Fault::Full) && length as usize > inode.current.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            inode.current.resize(length as usize, 0);
            inode.unsynced.push(Write::Length(length as usize));
            Ok(())
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.with(|inode, fault| {
            if *fault == Some(Fault::FailedFlush) {
                // As Linux does it: the pages count as clean now.
                inode.unsynced.clear();
                return Err(io::Error::other("simulated input/output error"));
            }
            for write in inode.unsynced.drain(..) {
                match write {
                    Write::Length(length) => inode.durable.resize(length, 0),
                    Write::Bytes(offset, bytes) => put(&mut inode.durable, offset, &bytes),
                }
            }
            Ok(())
        })
    }
}

impl wal::Disk for Disk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn wal::DiskFile>> {
        let (inode, life) = {
            let mut machine = self.lock();
            if machine.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            machine.inodes.push(Inode::default());
            (machine.inodes.len() - 1, machine.life)
        };
        self.name(NameOp::Link(path.to_owned(), inode));
        Ok(Arc::new(OpenFile { disk: self.clone(), inode, life }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn wal::DiskFile>> {
        Ok(Arc::new(self.open(path, false)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.name(NameOp::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.name(NameOp::Unlink(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let machine = self.lock();
        let names = machine.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| path.file_name()).map(OsString::from).collect())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut machine = self.lock();
        machine.unsynced_names.clear();
        machine.durable_names = machine.names.clone();
        Ok(())
    }

    fn latency(&self) -> Duration {
        let mut machine = self.lock();
        let slow = machine.slow;
        slow + Duration::from_millis(machine.rng.random_range(1..=3))
    }
}

impl wal::DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|inode, _| Ok(inode.current.len() as u64))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read(offset, buf)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write(offset, buf)
    }

    fn sync(&self) -> io::Result<()> {
        self.flush()
    }
}
