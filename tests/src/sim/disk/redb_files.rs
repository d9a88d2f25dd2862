//! redb's files on the simulated disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use redb::{Builder, Database, DatabaseError, StorageBackend};
use store::state::Files;

use super::{Disk, OpenFile};

impl StorageBackend for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|inode, _| Ok(inode.current.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.flush()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write(offset, data)
    }
}

impl Files for Disk {
    fn open(&self, path: &Path, _: usize) -> Result<Database, DatabaseError> {
        let file = self.open(path, true).map_err(|error| DatabaseError::Storage(error.into()))?;
        Builder::new().set_cache_size(1 << 20).create_with_backend(file)
    }

    fn exists(&self, path: &Path) -> bool {
        self.lock().names.contains_key(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.lock().names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.lock();
        machine.names.remove(path);
        machine.durable_names.remove(path);
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        {
            let mut machine = self.lock();
            machine.names.retain(|path, _| !path.starts_with(dir));
            machine.durable_names.retain(|path, _| !path.starts_with(dir));
        }
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.lock();
        let machine = &mut *machine;
        for names in [&mut machine.names, &mut machine.durable_names] {
            let moved = std::mem::take(names).into_iter().map(|(path, inode)| match path.strip_prefix(from) {
                Ok(rest) => (to.join(rest), inode),
                Err(_) => (path, inode),
            });
            *names = moved.collect();
        }
        fs::rename(from, to)
    }

    fn bytes(&self, path: &Path) -> u64 {
        let machine = self.lock();
        machine.names.get(path).map_or(0, |inode| machine.inodes[*inode].current.len() as u64)
    }
}
