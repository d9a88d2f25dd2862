//! Why an append was not taken, and why a log was not opened.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::model::GroupId;

/// What to do about a log that cannot be trusted; the end of every refusal.
pub(super) const REJOIN: &str = "nothing was changed; restore the directory from a backup, or, where other nodes hold the data, move it aside (keep it) and \
     let the node join them with an empty one";

/// Why [`super::Wal::append`] took nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk does not keep up. Nothing is wrong: shed load, try again.
    #[error("the write-ahead log's queue is full: {queued} of {limit} bytes wait for the disk")]
    Full {
        /// Bytes accepted and not yet durable.
        queued: usize,
        /// `Options::queue_bytes`.
        limit: usize,
    },
    /// One append larger than [`super::MAX_APPEND_BYTES`].
    #[error("an append of {bytes} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Its length, records' heads included.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The entries would leave a gap or overwrite others; truncate first.
    #[error("group {}: entry {index} does not follow the log, whose next index is {expected}", .group.0)]
    OutOfOrder {
        /// The group.
        group: GroupId,
        /// The entry's index.
        index: u64,
        /// The only index that would have been taken.
        expected: u64,
    },
    /// A write or sync failed before; the node must stop.
    #[error("the write-ahead log takes nothing more: {reason}")]
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// [`super::Wal::close`] was called.
    #[error("the write-ahead log is closed")]
    Closed,
}

/// Why a log was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error(
        "cannot {action} {}: {source}; check that the disk has free space and is not mounted read-only, and that the node's user may write there",
        .path.display()
    )]
    Io {
        /// What was being done, a verb.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// Bytes that were synced are not there any more.
    #[error("write-ahead log damaged: {} at offset {offset}: {reason}; {REJOIN}", .file.display())]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The format is not one of this version.
    #[error(
        "{} was written by a newer version (log format {version}, this version reads {supported}): start that version again",
        .file.display()
    )]
    NewerVersion {
        /// The segment.
        file: PathBuf,
        /// Its format version.
        version: u32,
        /// Ours.
        supported: u32,
    },
    /// A limit in [`super::Options`] is out of its range.
    #[error("write-ahead log: {0}")]
    Options(String),
}

impl OpenError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn damaged(file: &Path, offset: usize, reason: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), offset: offset as u64, reason: reason.into() }
    }
}
