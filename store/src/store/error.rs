//! What can go wrong with a store.

use crate::{
    model::{CommandError, Unavailable},
    state::{self},
};

/// Why a store could not be opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// A row's fate is not known, or it has none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row not committed: {0}")]
pub struct CommitError(pub Unavailable);

/// A write that changed nothing (or whose fate is unknown, for `Unavailable`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A condition does not hold.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// No quorum.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A read that failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No quorum for a linearizable read.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The disk or a stored form.
    #[error("read the ledger: {reason}")]
    Storage {
        /// What was tried, on which path, and why it failed.
        reason: String,
        /// The name of the file that is damaged, where it is known.
        file: Option<String>,
    },
    /// The metadata here name what this node's replica of the ledger does not have yet, or no more: after
    /// [`super::Store::barrier`] both are read anew.
    #[error("this node's ledger is behind its metadata")]
    Behind,
    /// A cursor that this store did not make.
    #[error("the cursor is not valid: use a next_cursor as it was given")]
    Cursor,
}

impl From<state::ReadError> for ReadError {
    fn from(error: state::ReadError) -> Self {
        match error {
            state::ReadError::Cursor => Self::Cursor,
            state::ReadError::State(error) => Self::Storage { reason: error.to_string(), file: error.file() },
        }
    }
}
