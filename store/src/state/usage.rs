//! Usage rollups: for each account and minute the sums in total and by route, key and status.
//!
//! What a checkpoint interval adds is collected in memory ([`Usage`]) and added to the file's cells when it is written
//! down: a cell in memory is a difference, never the whole.

use std::collections::BTreeMap;

use super::{
    codec::{self, Take, put_text, put_varint, text_key},
    hash::FastMap,
    latency::Latency,
};
use crate::model::{AccountId, KeyId, Name, UsageCounters};

/// What a cell counts apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Split {
    /// Everything.
    Total,
    /// One route; the empty one is "no route".
    Route(Name),
    /// One key.
    Key(KeyId),
    /// One status.
    Status(u16),
}

impl Split {
    /// The dimension's number in stored keys.
    pub(super) fn number(&self) -> u8 {
        match self {
            Self::Total => 0,
            Self::Route(_) => 1,
            Self::Key(_) => 2,
            Self::Status(_) => 3,
        }
    }
}

/// Sums and latencies of some rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) counters: UsageCounters,
    pub(super) latency: Latency,
}

impl Cell {
    pub(super) fn merge(&mut self, other: &Self) {
        self.counters.merge(&other.counters);
        self.latency.merge(&other.latency);
    }

    /// The stored form: version, six varints, the latencies.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        out.push(codec::VALUE_VERSION);
        let UsageCounters { requests, errors, rejected, bytes_in, bytes_out, cost } = self.counters;
        for sum in [requests, errors, rejected, bytes_in, bytes_out, cost] {
            put_varint(&mut out, sum);
        }
        self.latency.encode(&mut out);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut from = Take(codec::body(bytes)?);
        let mut cell = || {
            let counters = UsageCounters {
                requests: from.varint()?,
                errors: from.varint()?,
                rejected: from.varint()?,
                bytes_in: from.varint()?,
                bytes_out: from.varint()?,
                cost: from.varint()?,
            };
            Some(Self { counters, latency: Latency::decode(&mut from)? })
        };
        cell().ok_or_else(|| "a usage cell that is cut short".to_owned())
    }
}

/// The stored key of an account's dimension.
pub(super) fn dimension_key(account: &str, number: u8) -> Vec<u8> {
    text_key(account, &[number])
}

/// The stored key of all minutes of one split.
pub(super) fn split_key(account: &str, split: &Split) -> Vec<u8> {
    let mut key = dimension_key(account, split.number());
    match split {
        Split::Total => put_text(&mut key, b""),
        Split::Route(name) => put_text(&mut key, name.as_bytes()),
        Split::Key(id) => put_text(&mut key, id.as_bytes()),
        Split::Status(status) => put_text(&mut key, &status.to_be_bytes()),
    }
    key
}

/// Minutes since 1970 as stored: 32 bits, enough for the year 9999.
pub(super) fn stored_minute(minute: i64) -> u32 {
    u32::try_from(minute.max(0)).unwrap_or(u32::MAX)
}

/// Reads what follows the dimension in a key: the split's text and the minute.
pub(super) fn split_and_minute<'k>(key: &'k [u8], dimension: &[u8]) -> Option<(&'k [u8], u32)> {
    let mut from = Take(key.strip_prefix(dimension)?);
    Some((from.text()?, u32::from_be_bytes(from.array()?)))
}

/// A minute's cells.
pub(super) type Minute = FastMap<Split, Cell>;

/// Differences of all accounts.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    accounts: FastMap<AccountId, Vec<(u32, Minute)>>,
}

impl Usage {
    /// A minute's cells, to add to.
    pub(super) fn minute(&mut self, account: &AccountId, minute: u32) -> &mut Minute {
        if !self.accounts.contains_key(account) {
            self.accounts.insert(account.clone(), Vec::new());
        }
        let minutes = self.accounts.get_mut(account).expect("inserted above");
        // Rows come nearly in order: the newest minutes are at the end.
        let at = minutes.iter().rposition(|(at, _)| *at <= minute);
        match at {
            Some(at) if minutes[at].0 == minute => &mut minutes[at].1,
            at => {
                let at = at.map_or(0, |at| at + 1);
                minutes.insert(at, (minute, Minute::default()));
                &mut minutes[at].1
            }
        }
    }

    /// An account's minutes, ascending.
    pub(super) fn of(&self, account: &AccountId) -> &[(u32, Minute)] {
        self.accounts.get(account).map_or(&[], Vec::as_slice)
    }

    /// Adds every cell under its stored key.
    pub(super) fn flatten_into(&self, cells: &mut BTreeMap<Vec<u8>, Cell>) {
        for (account, minutes) in &self.accounts {
            for (minute, splits) in minutes {
                for (split, cell) in splits {
                    let mut key = split_key(account, split);
                    key.extend_from_slice(&minute.to_be_bytes());
                    cells.entry(key).and_modify(|sum| sum.merge(cell)).or_insert_with(|| cell.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_cell_is_frozen() {
        let counters = UsageCounters { requests: 300, errors: 1, rejected: 2, bytes_in: 3, bytes_out: 4, cost: 5 };
        let cell = Cell { counters, latency: Latency::of(&mut [7, 200, 7]) };
        let bytes = [1, 0xac, 2, 1, 2, 3, 4, 5, 2, 7, 2, 193, 1, 1];
        assert_eq!(cell.encode(), bytes);
        assert_eq!(Cell::decode(&bytes), Ok(cell));
        for cut in 0..bytes.len() {
            assert!(Cell::decode(&bytes[..cut]).is_err());
        }
        assert!(Cell::decode(&[2, 0]).expect_err("newer").contains("version 2"));
    }

    #[test]
    fn stored_key_is_frozen_and_minutes_sort() {
        let key = |minute: u32| [split_key("ab", &Split::Status(429)), minute.to_be_bytes().to_vec()].concat();
        assert_eq!(key(258), [0, 2, b'a', b'b', 3, 0, 2, 1, 173, 0, 0, 1, 2]);
        assert_eq!(split_and_minute(&key(258), &dimension_key("ab", 3)), Some((&[1u8, 173][..], 258)));
        assert!(key(255) < key(256));
    }
}
