//! The formats that others write: each has a reader, a stream of [`Seen`], and a function that writes one.

pub(crate) mod combined;
pub(crate) mod gor;
pub(crate) mod har;
pub(crate) mod nginx_json;
pub(crate) mod table;
mod time;
pub(crate) mod vegeta;

pub(crate) use time::{Clock, nanoseconds, rfc3339};

use super::{Bad, Record, order::Timed};

/// A request at its place on the calendar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    /// Nanoseconds since 1970.
    pub(crate) at_ns: i128,
    /// The log knows no finer time.
    pub(crate) whole_seconds: bool,
    /// The request; its `t` is not set yet.
    pub(crate) record: Record,
}

impl Timed for Seen {
    fn time(&self) -> i128 {
        self.at_ns
    }

    fn held_bytes(&self) -> usize {
        self.record.held_bytes()
    }
}

/// Requests with the numbers of their lines.
pub(crate) type Source = Box<dyn Iterator<Item = Result<(u64, Seen), Bad>> + Send>;

/// Names that are put in the place of what tells who it was.
pub(crate) type Names = super::Pseudonyms;
