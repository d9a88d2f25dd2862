//! What applying a command answers. The same on every replica: it is part of the replicated state's behaviour, and it travels
//! back to the node that asked.

use minicbor::{Decode, Encode};

use super::{Happened, Revision};

/// Why an operation did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum WriteConflict {
    /// Expected to be absent.
    #[n(0)]
    #[error("exists already")]
    Exists,
    /// Expected to be present.
    #[n(1)]
    #[error("does not exist")]
    Missing,
    /// Changed since it was read.
    #[n(2)]
    #[error("is at revision {current}, not {expected}")]
    Revision {
        /// The one asked for.
        #[n(0)]
        expected: Revision,
        /// The one it has.
        #[n(1)]
        current: Revision,
    },
    /// Names an object that does not exist.
    #[n(3)]
    #[error("names the {kind} {id:?}, which does not exist")]
    Dangling {
        /// Kind of the missing object.
        #[n(0)]
        kind: String,
        /// Its id.
        #[n(1)]
        id: String,
    },
    /// Another object needs it.
    #[n(4)]
    #[error("is in use by the {kind} {id:?}")]
    InUse {
        /// Kind of the object that needs it.
        #[n(0)]
        kind: String,
        /// Its id.
        #[n(1)]
        id: String,
    },
    /// Revoked keys stay revoked.
    #[n(5)]
    #[error("is revoked, for ever")]
    Revoked,
}

/// Why a command changed nothing. The same on every replica.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum CommandError {
    /// An operation's condition does not hold.
    #[n(0)]
    #[error("{kind} {id:?} {conflict}")]
    Conflict {
        /// Which operation, from 0.
        #[n(0)]
        op: u32,
        /// `account`, `key`, `tier`, …
        #[n(1)]
        kind: String,
        /// Which one.
        #[n(2)]
        id: String,
        /// Why.
        #[n(3)]
        conflict: WriteConflict,
    },
    /// The command belongs to the other kind of group.
    #[n(1)]
    #[error("this command does not belong to this group")]
    WrongGroup,
    /// A write with this key has happened.
    #[n(2)]
    #[error("has happened already at revision {}", .0.revision)]
    Happened(#[n(0)] Happened),
    /// As many writes with a key are kept as can be.
    #[n(3)]
    #[error("{0} writes with an idempotency key are kept already: wait until some are a day old, or write without one")]
    TooManyKept(#[n(0)] u64),
    /// Slots are not placed so.
    #[n(4)]
    #[error("the slots are not placed so: {0}")]
    Placement(#[n(0)] String),
}

/// What applying an entry answers.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub enum Reply {
    /// Nothing to say.
    #[default]
    #[n(0)]
    Done,
    /// Changed; the entry's index is the new revision of every object put.
    #[n(1)]
    Written(#[n(0)] Revision),
    /// Units granted, one number a reservation.
    #[n(2)]
    Granted(#[n(0)] Vec<u64>),
    /// Rows stored; `false` when the batch had landed before.
    #[n(3)]
    Rows(#[n(0)] bool),
    /// Changed nothing.
    #[n(4)]
    Refused(#[n(0)] CommandError),
}
