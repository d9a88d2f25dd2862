//! How commands fail, and with which exit code.

use std::{io, process::ExitCode};

/// Why a command did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// It could not: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// It was used in a way that cannot work: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The token is missing, not known, or its role too low: exit code 4.
    #[error("{0}")]
    NotAllowed(String),
    /// What is there is newer than what the caller had read: exit code 1.
    #[error("{0}")]
    Overtaken(String),
    /// What was compared differs, and was told: exit code 8.
    #[error("different")]
    Differs,
    /// The reader of stdout has gone: nothing is wrong.
    #[error("stdout is closed")]
    Closed,
}

/// What commands return.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Says it on stderr.
    pub(crate) fn tell(&self) -> ExitCode {
        let code = self.code();
        if code != 0 && *self != Self::Differs {
            eprintln!("tollgate: {self}");
        }
        ExitCode::from(code)
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Failed(_) | Self::Overtaken(_) => 1,
            Self::Usage(_) => 2,
            Self::NotAllowed(_) => 4,
            Self::Differs => 8,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

/// Of writing to stdout.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(format!("write the answer: {error}")),
        }
    }
}
