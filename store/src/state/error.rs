//! What can be wrong.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::block::BlockError;
use crate::model::DecodeError;

/// Why a state cannot be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk refuses.
    #[error("{action} {}: {source}; check that the disk has free space and is not mounted read-only, and that the node's user may write there", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is open in another process: stop it first, a data directory serves one node", path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
    },
    /// Made by a later build.
    #[error("{} was written by a newer version (format {found}, this build reads up to {newest}): start the newer build", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that this build reads.
        newest: u32,
    },
    /// Another group's.
    #[error("{} holds group {found}, not group {expected}: the data directory was moved or mixed up", path.display())]
    OtherGroup {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: u32,
        /// Whose it should be.
        expected: u32,
    },
    /// Damaged beyond what recovery mends.
    #[error("{} is damaged ({what}): restore the data directory from a backup, or, where other nodes hold the data, move it aside and let this node join them with an empty one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        what: String,
    },
}

/// A replica that cannot go on: the node stops. Never a refusal of a command (that is a reply, the same everywhere).
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk or redb.
    #[error("{action} {}: {what}", path.display())]
    Storage {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// A file of rows that does not open.
    #[error(transparent)]
    Open(#[from] Box<OpenError>),
    /// A block that the index knows and its file of rows does not have.
    #[error(
        "{file} is damaged (it lacks the rows of entry {index}): restore the data directory from a backup, or, where other nodes hold the data, move it aside and let this node join them with an empty one"
    )]
    Lost {
        /// The file's name.
        file: String,
        /// The entry.
        index: u64,
    },
    /// An entry that this build does not read.
    #[error("entry {index}: {source}")]
    Command {
        /// The entry.
        index: u64,
        /// Why not.
        source: DecodeError,
    },
    /// A row block that this build does not read.
    #[error("row block of entry {index}: {source}")]
    Block {
        /// The entry.
        index: u64,
        /// Why not.
        source: BlockError,
    },
    /// Entries come in order, each once. (That the log has no holes is Raft's to see to.)
    #[error("entry {found} after entry {last}: out of order")]
    Order {
        /// The last entry applied.
        last: u64,
        /// The one that came.
        found: u64,
    },
    /// A stored value that this build does not read.
    #[error("{table} in {}: {what}", path.display())]
    Value {
        /// The table.
        table: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// The write-ahead log could not be made durable.
    #[error("wait until the log is durable up to entry {index}: {source}")]
    Log {
        /// Up to here.
        index: u64,
        /// Why not.
        source: io::Error,
    },
    /// A snapshot stream that is cut, damaged, of another group or of a newer version. Nothing was changed.
    #[error("snapshot not taken: {0}")]
    Snapshot(String),
    /// The other end of a snapshot stream.
    #[error("snapshot stream: {0}")]
    Stream(#[source] io::Error),
    /// An earlier call failed; what is in memory may be half a transaction.
    #[error("the state failed before ({0}) and takes no more")]
    Failed(String),
}

impl StateError {
    /// The name of the file that is damaged, where it is known.
    pub fn file(&self) -> Option<String> {
        let path = match self {
            Self::Lost { file, .. } => return Some(file.clone()),
            Self::Storage { path, .. } | Self::Value { path, .. } => path,
            Self::Open(error) => error.path(),
            _ => return None,
        };
        Some(path.file_name()?.to_string_lossy().into_owned())
    }
}

impl OpenError {
    fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::Locked { path }
            | Self::Newer { path, .. }
            | Self::OtherGroup { path, .. }
            | Self::Damaged { path, .. } => path,
        }
    }
}

/// A read that failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk or a stored value.
    #[error(transparent)]
    State(#[from] StateError),
    /// A cursor that this state did not make.
    #[error("the cursor is not valid: use a next_cursor as it was given")]
    Cursor,
}
