//! The classes that outcomes are put together in.

use serde::{Deserialize, Serialize};

/// How a request ended, coarsely; each has a histogram a second. The fine picture (status and problem code) is counted
/// beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub(crate) enum Class {
    /// 1xx to 3xx.
    Ok,
    /// 429.
    Rejected,
    /// Another 4xx.
    ClientError,
    /// 5xx.
    ServerError,
    /// Timed out, broken off, or never connected.
    NoAnswer,
    /// The client went away on purpose.
    HungUp,
}

/// All of them, in order.
pub(crate) const CLASSES: [Class; 6] =
    [Class::Ok, Class::Rejected, Class::ClientError, Class::ServerError, Class::NoAnswer, Class::HungUp];

impl Class {
    /// Of an answer's status.
    pub(crate) fn of(status: u16) -> Self {
        match status {
            0..400 => Self::Ok,
            429 => Self::Rejected,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }

    /// In words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Rejected => "429",
            Self::ClientError => "other 4xx",
            Self::ServerError => "5xx",
            Self::NoAnswer => "no answer",
            Self::HungUp => "hung up",
        }
    }

    /// Counts into `error_rate`: the service did not do its work. A 429 is what a limit is for, and a hang-up was our own.
    pub(crate) fn is_error(self) -> bool {
        matches!(self, Self::ClientError | Self::ServerError | Self::NoAnswer)
    }
}
