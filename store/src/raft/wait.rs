//! How long a proposal is waited for, and why it may end without an answer.

/// How long a proposal is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until a quorum has it on disk.
    Committed,
    /// Until the leader has applied it.
    Applied,
    /// Until every member has applied it, or can no longer decide by what was before: the write barrier (P3).
    Everywhere,
}

impl Wait {
    pub(super) fn from_u8(wait: u8) -> Option<Self> {
        [Self::Committed, Self::Applied, Self::Everywhere].get(usize::from(wait)).copied()
    }
}

/// A proposal without an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ProposeError {
    /// It did not happen.
    #[error("{0}")]
    NotDone(String),
    /// It may have happened, or may yet.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}
