//! Every request's id and outcome, kept for the audit.

use crate::measure::Label;

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Whose: the number of the principal.
    pub(crate) principal: u32,
    /// To which target.
    pub(crate) target: u16,
    /// The answer's status; 0 without one.
    pub(crate) status: u16,
    /// Status and code.
    pub(crate) outcome: Label,
    /// What the gateway called it (`X-Request-Id`); 0 when it did not say.
    pub(crate) id: u128,
    /// When it was sent, microseconds since 1970.
    pub(crate) sent_us: i64,
    /// When its end was known.
    pub(crate) ended_us: i64,
}

/// The entries of one thread, by number: a request's own id is `lt-<run>-<thread>-<number>`.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: Vec<Option<Entry>>,
}

impl Journal {
    /// Most requests that an audited run may send from one thread: 64 bytes each.
    pub(crate) const MAX_ENTRIES: usize = 20_000_000;

    /// The number of a request that is about to be sent; nothing at the bound, and the run must end then.
    pub(crate) fn begin(&mut self) -> Option<usize> {
        if self.entries.len() >= Self::MAX_ENTRIES {
            return None;
        }
        self.entries.push(None);
        Some(self.entries.len() - 1)
    }

    /// Whether it took all that it may.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= Self::MAX_ENTRIES
    }

    /// It ended.
    pub(crate) fn end(&mut self, number: usize, entry: Entry) {
        if let Some(place) = self.entries.get_mut(number) {
            *place = Some(entry);
        }
    }

    /// All of them, by number; nothing where the run was broken off before the end.
    pub(crate) fn into_entries(self) -> Vec<Option<Entry>> {
        self.entries
    }
}

/// The id that the client sends.
pub(crate) fn client_id(run: u32, thread: u16, number: usize) -> String {
    format!("lt-{run:08x}-{thread:x}-{number:x}")
}
