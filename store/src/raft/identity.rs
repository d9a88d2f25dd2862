//! What makes a directory this node's: its lock, its id, its incarnation.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{model::NodeId, platform};

/// Version of the directory's layout.
const FORMAT: u32 = 1;
const FILE: &str = "node.json";

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    node_id: String,
    incarnation: u64,
}

/// A locked data directory. The lock goes with this value (and with the process).
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) id: NodeId,
    /// 1 at the first start, one more at each.
    pub(super) incarnation: u64,
    lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("create {path}: {error}; give --data-dir a directory that this user can write")]
    Create { path: PathBuf, error: io::Error },
    #[error("{path} is in use by another tollgate process; stop it, or give this one a --data-dir of its own")]
    Locked { path: PathBuf },
    #[error("write {path}: {error}; the data directory must be writable, with space left")]
    Write { path: PathBuf, error: io::Error },
    #[error("{path} was written by a newer version (format {found}, this build knows {FORMAT}); upgrade this node")]
    Newer { path: PathBuf, found: u32 },
    #[error(
        "{path} is damaged ({error}); restore it from a backup, or, where other nodes hold the data, move the whole data directory aside and let this node join them with an empty one"
    )]
    Damaged { path: PathBuf, error: String },
}

impl Identity {
    /// Locks the directory (made when missing) and mints this start's incarnation durably.
    pub(super) fn open(dir: &Path) -> Result<Self, IdentityError> {
        std::fs::create_dir_all(dir).map_err(|error| IdentityError::Create { path: dir.into(), error })?;
        let lock_path = dir.join("LOCK");
        let write = |path: &Path| {
            let path = path.to_owned();
            move |error| IdentityError::Write { path, error }
        };
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(write(&lock_path))?;
        // A simulated crash leaves what the node had open behind in the process.
        if !platform::simulated() && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(IdentityError::Locked { path: dir.into() });
        }
        let path = dir.join(FILE);
        let (id, incarnation) = match std::fs::read(&path) {
            Ok(bytes) => {
                let damaged = |error: String| IdentityError::Damaged { path: path.clone(), error };
                let record: Record = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
                if record.format > FORMAT {
                    return Err(IdentityError::Newer { path, found: record.format });
                }
                let id = u64::from_str_radix(&record.node_id, 16).map_err(|error| damaged(error.to_string()))?;
                (NodeId(id), record.incarnation + 1)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Anything else in the directory means that its identity was lost, not that it is new.
                if dir.join("wal").exists() || dir.join("groups").exists() {
                    let error = "it is missing, but the directory has data".into();
                    return Err(IdentityError::Damaged { path, error });
                }
                let id = getrandom::u64()
                    .map_err(|error| IdentityError::Write { path: path.clone(), error: io::Error::other(error) })?;
                (NodeId(id.max(1)), 1)
            }
            Err(error) => return Err(IdentityError::Damaged { path, error: error.to_string() }),
        };
        let record = Record { format: FORMAT, node_id: id.to_string(), incarnation };
        replace(dir, &path, &record).map_err(write(&path))?;
        Ok(Self { id, incarnation, lock })
    }

    /// Lets another process have the directory; nothing may be written after it.
    pub(super) fn unlock(&self) {
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// Writes the file anew: all of it or nothing, also across a power cut.
fn replace(dir: &Path, path: &Path, record: &Record) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    serde_json::to_writer(&mut file, record)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_a_greater_incarnation_and_the_same_id() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Identity::open(dir.path()).expect("opens");
        let (id, incarnation) = (first.id, first.incarnation);
        drop(first);
        let second = Identity::open(dir.path()).expect("opens");
        assert_eq!((second.id, second.incarnation), (id, incarnation + 1));
    }

    #[test]
    fn a_second_process_is_refused_and_told_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let _first = Identity::open(dir.path()).expect("opens");
        let error = Identity::open(dir.path()).expect_err("locked").to_string();
        assert!(error.contains("in use by another tollgate process"), "{error}");
    }

    #[test]
    fn a_lost_or_newer_identity_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(Identity::open(dir.path()).expect("opens"));
        let path = dir.path().join(FILE);
        std::fs::write(&path, r#"{"format":9,"node_id":"1","incarnation":1}"#).expect("writes");
        assert!(matches!(Identity::open(dir.path()), Err(IdentityError::Newer { found: 9, .. })));
        std::fs::remove_file(&path).expect("removes");
        std::fs::create_dir(dir.path().join("wal")).expect("creates");
        assert!(matches!(Identity::open(dir.path()), Err(IdentityError::Damaged { .. })));
    }
}
