//! Writes that happen once: what is kept of them, and for how long.

use bytes::Bytes;

use super::Write;
use crate::{
    model::{Happened, Once, Timestamp},
    state::{
        StateError, codec,
        tables::Table,
        view::{self, Range},
    },
};

/// Key of the number of those that are kept.
pub(in crate::state) const COUNT: &[u8] = b"count";
/// Most that one write forgets: more than it adds, so that the table shrinks, and few, so that no write takes long.
const FORGOTTEN: usize = 16;

impl Write<'_> {
    /// What a write with this key was, unless it is forgotten or its time is over.
    pub(super) fn happened(&self, once: &Once) -> Result<Option<Happened>, StateError> {
        let Some(stored) = self.get(Table::Happened, &once.key)? else { return Ok(None) };
        let happened: Happened = codec::decode(&stored).map_err(self.main.error(Table::Happened))?;
        Ok(Some(happened).filter(|happened| is_kept(happened.at, self.write.at)))
    }

    /// Keeps this write, and forgets a few whose time is over; says how many are kept when there are too many.
    pub(super) fn remember(&mut self, once: &Once) -> Result<Option<u64>, StateError> {
        let mut count = match self.get(Table::Happened, COUNT)? {
            Some(stored) => codec::decode(&stored).map_err(self.main.error(Table::Happened))?,
            None => 0u64,
        };
        // One with the same key whose time is over.
        if let Some(stored) = self.get(Table::Happened, &once.key)? {
            let old: Happened = codec::decode(&stored).map_err(self.main.error(Table::Happened))?;
            self.set(Table::HappenedAt, time_key(old.at, &once.key), None);
            count = count.saturating_sub(1);
        }
        let over = self.write.at.plus_seconds(-Once::KEPT_SECONDS);
        let mut gone = Vec::new();
        // Only what is over is looked at: in order of time, from the first.
        let range = Range { to: std::ops::Bound::Included(time_key(over, &[0xff; 32])), ..Range::all() };
        let overlay = view::overlay(self.live, Some(&self.puts), Table::HappenedAt, &range);
        view::walk(self.main, Table::HappenedAt, &range, overlay, false, &mut |key, _| {
            gone.push(key.to_vec());
            Ok(gone.len() < FORGOTTEN)
        })?;
        for key in gone {
            self.set(Table::Happened, key[8..].to_vec(), None);
            self.set(Table::HappenedAt, key, None);
            count = count.saturating_sub(1);
        }
        if count >= Once::MOST {
            return Ok(Some(count));
        }
        let happened = Happened {
            at: self.write.at,
            revision: self.revision,
            request_id: self.write.request_id.clone(),
            fingerprint: once.fingerprint.clone(),
            answer: once.answer.clone(),
        };
        self.set(Table::Happened, once.key.clone(), Some(codec::encode(&happened).into()));
        self.set(Table::HappenedAt, time_key(self.write.at, &once.key), Some(Bytes::new()));
        self.set(Table::Happened, COUNT.to_vec(), Some(codec::encode(&(count + 1)).into()));
        Ok(None)
    }
}

/// Whether a write that happened at a time still counts at another.
pub(in crate::state) fn is_kept(happened: Timestamp, now: Timestamp) -> bool {
    happened.plus_seconds(Once::KEPT_SECONDS) > now
}

fn time_key(at: Timestamp, key: &[u8]) -> Vec<u8> {
    // Before 1970 there was no gateway: the order of the bytes is that of the times.
    [&at.0.max(0).to_be_bytes()[..], key].concat()
}
