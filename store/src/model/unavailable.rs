//! Nobody can decide or commit now.

use std::time::Duration;

/// No quorum, no leader, draining, or at a bound: 503 `temporary-reduced-capacity`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("temporarily reduced capacity: {reason}")]
pub struct Unavailable {
    /// For logs and the answer's `detail`.
    pub reason: String,
    /// When to try again.
    pub retry_after: Duration,
}

impl Unavailable {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry_after: Duration::from_secs(1) }
    }
}
