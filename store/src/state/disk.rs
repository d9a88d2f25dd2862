//! Where redb files live: the file system, or what a test puts in its place.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use redb::{Builder, Database, DatabaseError, ReadOnlyDatabase};

/// The file system as the state needs it. One implementation is the disk; tests and simulations bring theirs.
///
/// Directories are few and always real; what crashes tear are the redb files in them.
pub trait Files: std::fmt::Debug + Send + Sync {
    /// Opens a redb file, or makes it. `cache_bytes` is what redb may keep of it in memory.
    ///
    /// # Errors
    /// redb's.
    fn open(&self, path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError>;
    /// Opens a redb file that is there without writing to it; none when that cannot be, because it must be repaired first.
    ///
    /// # Errors
    /// redb's.
    fn open_to_read(&self, _path: &Path) -> Result<Option<ReadOnlyDatabase>, DatabaseError> {
        Ok(None)
    }
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

/// A redb file that is being made ends so.
const UNFINISHED: &str = "new";
/// Cache of a file that is looked into once.
const READ_ONCE_BYTES: usize = 1 << 20;

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn open(&self, path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
        if !path.exists() {
            make(path)?;
        }
        Builder::new().set_cache_size(cache_bytes).create(path)
    }

    fn open_to_read(&self, path: &Path) -> Result<Option<ReadOnlyDatabase>, DatabaseError> {
        match Builder::new().set_cache_size(READ_ONCE_BYTES).open_read_only(path) {
            Ok(database) => Ok(Some(database)),
            Err(DatabaseError::RepairAborted) => Ok(None),
            Err(error) => Err(error),
        }
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

/// Makes an empty redb file. redb gives a file its magic number last; a crash or a full disk before that leaves one under this
/// name that can never be opened again, so it gets its name when it is whole.
fn make(path: &Path) -> Result<(), DatabaseError> {
    let unfinished = path.with_extension(UNFINISHED);
    absent_is_fine(fs::remove_file(&unfinished))?;
    let made = Builder::new().create(&unfinished).map(drop);
    if made.is_err() {
        // The space may be what others wait for; left behind, it is taken away by the next attempt.
        let _ = fs::remove_file(&unfinished);
    }
    made?;
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), |dir| sync_dir(dir).map_err(DatabaseError::from))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As after a crash while it was made: its space is there, its magic number is not.
    #[test]
    fn a_file_whose_making_was_cut_short_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("rows_1_0.redb");
        fs::write(path.with_extension(UNFINISHED), vec![0; 1 << 20]).expect("write");
        drop(Disk.open(&path, 1 << 20).expect("made"));
        assert!(path.exists() && !path.with_extension(UNFINISHED).exists());
        assert_eq!(Disk.list(dir.path()).expect("a list"), std::slice::from_ref(&path));
        drop(Disk.open(&path, 1 << 20).expect("opened again"));
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("absent").join("rows_1_0.redb");
        assert!(Disk.open(&path, 1 << 20).is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
    }
}
