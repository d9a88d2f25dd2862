//! A disk in memory that forgets: what was not synced may be lost, or half of it, when the machine crashes.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use crate::wal::{Disk, DiskFile};

/// What a device writes as one.
const SECTOR: usize = 512;

#[derive(Clone, Default)]
pub(super) struct FaultDisk(Arc<Mutex<Machine>>);

#[derive(Clone, Default)]
struct Machine {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameOp>,
    /// Operations until the machine is dead; every later one fails.
    left: Option<u64>,
    operations: u64,
    /// The next syncs of files fail, and the kernel forgets that it had anything to write.
    fail_syncs: bool,
    fail_writes: bool,
    /// Bytes of files until the disk is full.
    capacity: Option<usize>,
}

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameOp {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

/// splitmix64
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl FaultDisk {
    /// The machine loses its power: each unsynced sector and name is kept or lost, all, none, or by lot.
    pub(super) fn crash(&self, rng: &mut Rng) {
        let mut machine = self.0.lock().unwrap();
        let machine = &mut *machine;
        let mode = rng.below(4);
        let mut kept = |_: &()| match mode {
            0 => false,
            1 => true,
            _ => rng.below(2) == 0,
        };
        for inode in &mut machine.inodes {
            for (offset, bytes) in inode.unsynced.drain(..) {
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min(at + SECTOR - (offset + at) % SECTOR);
                    if kept(&()) {
                        put(&mut inode.durable, offset + at, &bytes[at..end]);
                    }
                    at = end;
                }
            }
            inode.current.clone_from(&inode.durable);
        }
        for op in std::mem::take(&mut machine.unsynced_names) {
            if kept(&()) {
                op.apply(&mut machine.durable_names);
            }
        }
        machine.names = machine.durable_names.clone();
        (machine.left, machine.fail_syncs, machine.fail_writes, machine.capacity) = (None, false, false, None);
    }

    /// The process dies, the machine lives: what it wrote is there, synced or not.
    pub(super) fn kill(&self) {
        self.0.lock().unwrap().left = None;
    }

    pub(super) fn die_after(&self, operations: u64) {
        self.0.lock().unwrap().left = Some(operations);
    }

    pub(super) fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    pub(super) fn fail_syncs(&self, fail: bool) {
        self.0.lock().unwrap().fail_syncs = fail;
    }

    pub(super) fn fail_writes(&self, fail: bool) {
        self.0.lock().unwrap().fail_writes = fail;
    }

    pub(super) fn fill_up(&self, spare_bytes: usize) {
        let mut machine = self.0.lock().unwrap();
        machine.capacity = Some(machine.used() + spare_bytes);
    }

    /// A copy of everything as it is now, all of it durable.
    pub(super) fn image(&self) -> Self {
        let mut machine = self.0.lock().unwrap().clone();
        for inode in &mut machine.inodes {
            inode.unsynced.clear();
            inode.durable.clone_from(&inode.current);
        }
        machine.unsynced_names.clear();
        machine.durable_names = machine.names.clone();
        Self(Arc::new(Mutex::new(machine)))
    }

    /// Changes a file behind the log's back.
    pub(super) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut machine = self.0.lock().unwrap();
        let inode = machine.names[path];
        let inode = &mut machine.inodes[inode];
        edit(&mut inode.current);
        inode.durable.clone_from(&inode.current);
    }

    pub(super) fn put_file(&self, path: &Path, bytes: Vec<u8>) {
        let mut machine = self.0.lock().unwrap();
        machine.inodes.push(Inode { durable: bytes.clone(), current: bytes, unsynced: Vec::new() });
        let inode = machine.inodes.len() - 1;
        machine.names.insert(path.to_owned(), inode);
        machine.durable_names.insert(path.to_owned(), inode);
    }

    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let machine = self.0.lock().unwrap();
        machine.names.iter().map(|(path, inode)| (path.clone(), machine.inodes[*inode].current.clone())).collect()
    }
}

impl Machine {
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        if let Some(left) = &mut self.left {
            if *left == 0 {
                return Err(io::Error::other("the machine is dead"));
            }
            *left -= 1;
        }
        Ok(())
    }

    fn used(&self) -> usize {
        let names: std::collections::BTreeSet<usize> = self.names.values().copied().collect();
        names.into_iter().map(|inode| self.inodes[inode].current.len()).sum()
    }

    fn name(&mut self, op: NameOp) -> io::Result<()> {
        let outcome = self.operate();
        // A dying machine may or may not have done it.
        op.clone().apply(&mut self.names);
        self.unsynced_names.push(op);
        outcome
    }
}

impl NameOp {
    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, inode) => drop(names.insert(path, inode)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            Self::Unlink(path) => drop(names.remove(&path)),
        }
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Disk for FaultDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut machine = self.0.lock().unwrap();
        if machine.names.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        machine.inodes.push(Inode::default());
        let inode = machine.inodes.len() - 1;
        machine.name(NameOp::Link(path.to_owned(), inode))?;
        Ok(Arc::new(FaultFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = *self.0.lock().unwrap().names.get(path).ok_or_else(missing)?;
        Ok(Arc::new(FaultFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.0.lock().unwrap();
        if !machine.names.contains_key(from) {
            return Err(missing());
        }
        machine.name(NameOp::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.0.lock().unwrap();
        if !machine.names.contains_key(path) {
            return Err(missing());
        }
        machine.name(NameOp::Unlink(path.to_owned()))
    }

    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        Ok(self.0.lock().unwrap().names.keys().filter_map(|path| path.file_name()).map(OsString::from).collect())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut machine = self.0.lock().unwrap();
        machine.operate()?;
        machine.unsynced_names.clear();
        machine.durable_names = machine.names.clone();
        Ok(())
    }
}

struct FaultFile {
    disk: FaultDisk,
    inode: usize,
}

impl DiskFile for FaultFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().unwrap().inodes[self.inode].current.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let machine = self.disk.0.lock().unwrap();
        let file = &machine.inodes[self.inode].current;
        let bytes = file.get(offset as usize..offset as usize + buf.len());
        buf.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut machine = self.disk.0.lock().unwrap();
        let end = offset as usize + buf.len();
        let grows = end.saturating_sub(machine.inodes[self.inode].current.len());
        if machine.capacity.is_some_and(|capacity| grows > 0 && machine.used() + grows > capacity) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if machine.fail_writes {
            return Err(io::Error::other("injected"));
        }
        let dead = machine.left == Some(0);
        let outcome = machine.operate();
        // What is written while the machine dies may reach the disk, what comes later does not.
        if outcome.is_ok() || dead {
            let inode = &mut machine.inodes[self.inode];
            put(&mut inode.current, offset as usize, buf);
            inode.unsynced.push((offset as usize, buf.to_vec()));
        }
        outcome
    }

    fn sync(&self) -> io::Result<()> {
        let mut machine = self.disk.0.lock().unwrap();
        machine.operate()?;
        let fail = machine.fail_syncs;
        let inode = &mut machine.inodes[self.inode];
        if fail {
            // As Linux does it: the pages are clean now, and their content is in memory only.
            inode.unsynced.clear();
            return Err(io::Error::other("injected"));
        }
        for (offset, bytes) in inode.unsynced.drain(..) {
            put(&mut inode.durable, offset, &bytes);
        }
        Ok(())
    }
}
