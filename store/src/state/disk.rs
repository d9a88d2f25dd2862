//! Where redb files live: the file system, or what a test puts in its place.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use redb::{Builder, Database, DatabaseError};

/// The file system as the state needs it. One implementation is the disk; tests and simulations bring theirs.
///
/// Directories are few and always real; what crashes tear are the redb files in them.
pub trait Files: std::fmt::Debug + Send + Sync {
    /// Opens a redb file, or makes it. `cache_bytes` is what redb may keep of it in memory.
    ///
    /// # Errors
    /// redb's.
    fn open(&self, path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError>;
    /// Whether the file is there.
    fn exists(&self, path: &Path) -> bool;
    /// The redb files of a directory.
    ///
    /// # Errors
    /// The file system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// The file system's.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it; one that is not there is no error.
    ///
    /// # Errors
    /// The file system's.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives a directory another name, durably.
    ///
    /// # Errors
    /// The file system's.
    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// A file's length in bytes, 0 when it is not there.
    fn bytes(&self, path: &Path) -> u64;
}

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn open(&self, path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
        let is_new = !path.exists();
        let database = Builder::new().set_cache_size(cache_bytes).create(path)?;
        if is_new && let Some(dir) = path.parent() {
            sync_dir(dir)?;
        }
        Ok(database)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let files = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
        files
            .filter(|path| path.as_ref().map_or(true, |path| path.extension().is_some_and(|ext| ext == "redb")))
            .collect()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_file(path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_dir_all(dir))
    }

    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        sync_dir(from)?;
        fs::rename(from, to)?;
        to.parent().map_or(Ok(()), sync_dir)
    }

    fn bytes(&self, path: &Path) -> u64 {
        fs::metadata(path).map_or(0, |meta| meta.len())
    }
}

/// Makes a directory's names durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
