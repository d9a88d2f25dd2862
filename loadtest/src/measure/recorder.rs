//! Where a generator thread writes.

use std::time::Duration;

use super::{
    Class, Delta, Label, Unsent,
    hdr::{empty, record},
};

/// A request that ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished {
    /// When it was due, since the start.
    pub(crate) due: Duration,
    /// How it ended.
    pub(crate) class: Class,
    /// Status and code.
    pub(crate) outcome: Label,
    /// Its account's tier.
    pub(crate) tier: Label,
    /// From the intended send.
    pub(crate) corrected: Duration,
    /// From the actual send.
    pub(crate) service: Duration,
}

/// Counts since the last look.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    delta: Delta,
}

impl Recorder {
    /// A request is due; `lag` is how late the generator was.
    pub(crate) fn due(&mut self, due: Duration, lag: Duration) {
        let second = self.second(due);
        second.planned += 1;
        let us = micros(due);
        second.first_due_us = Some(second.first_due_us.map_or(us, |first| first.min(us)));
        record(second.lag.get_or_insert_with(empty), micros(lag));
    }

    /// It was not sent.
    pub(crate) fn unsent(&mut self, due: Duration, why: Unsent) {
        let second = self.second(due);
        match why {
            Unsent::Late => second.unsent_late += 1,
            Unsent::Full => second.unsent_full += 1,
        }
    }

    /// It was sent; `again` by a retry profile.
    pub(crate) fn sent(&mut self, due: Duration, again: bool) {
        let second = self.second(due);
        second.sent += 1;
        second.retries += u64::from(again);
    }

    /// It was sent again, because nothing of it had been done.
    pub(crate) fn resent(&mut self, due: Duration) {
        self.second(due).resent += 1;
    }

    /// It ended.
    pub(crate) fn finished(&mut self, of: &Finished) {
        let second = self.second(of.due);
        record(second.corrected.entry(of.class).or_insert_with(empty), micros(of.corrected));
        record(second.service.entry(of.class).or_insert_with(empty), micros(of.service));
        *second.counts.entry((of.tier, of.outcome)).or_default() += 1;
        second.last_end_us = second.last_end_us.max(micros(of.due.saturating_add(of.corrected)));
    }

    /// A retry follows an answer that was recorded as ended.
    pub(crate) fn superseded(&mut self, due: Duration, tier: Label, outcome: Label) {
        *self.second(due).superseded.entry((tier, outcome)).or_default() += 1;
    }

    /// What is new.
    pub(crate) fn take(&mut self) -> Delta {
        std::mem::take(&mut self.delta)
    }

    fn second(&mut self, due: Duration) -> &mut super::Second {
        let number = u32::try_from(due.as_secs()).unwrap_or(u32::MAX);
        self.delta.seconds.entry(number).or_default()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
