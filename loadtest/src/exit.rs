//! What the process's exit code says.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All thresholds held, the audit found nothing.
    Pass = 0,
    /// Something failed that is no finding: a file, a socket, a bug.
    Internal = 1,
    /// The command line, a shape, a trace or a scenario is wrong.
    Usage = 2,
    /// A threshold did not hold.
    Threshold = 10,
    /// The audit found something, whatever else there is to say: no lateness can have made it.
    Audit = 11,
    /// The generator was too slow: the figures say nothing about the service.
    Invalid = 12,
    /// Ended by a signal before its time.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a run says nothing, or less than it should.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// In words.
    pub(crate) what: String,
    /// It is a mistake of the caller: the run ends with [`Exit::Usage`].
    #[serde(default)]
    pub(crate) is_usage: bool,
}

impl Failure {
    /// Not the caller's.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), is_usage: false }
    }
}

/// A mistake of the caller: it ends with [`Exit::Usage`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

impl Usage {
    /// As an error to be returned.
    pub(crate) fn error(what: impl Into<String>) -> anyhow::Error {
        Self(what.into()).into()
    }
}
