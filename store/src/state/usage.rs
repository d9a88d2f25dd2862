//! Usage rollups: for each account and minute one record with the sums in total and by status, route and key.
//!
//! One record, not one row a sum: a minute's sums change together, and a checkpoint writes each account once.

use std::cmp::Ordering;

use super::{
    codec::{self, Take, put_varint, text_key},
    latency::Latency,
};
use crate::model::{KeyId, Name, UsageCounters};

/// What a sum counts apart. Their order is that of a stored record: what is asked most comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Split {
    /// Everything.
    Total,
    /// One status.
    Status(u16),
    /// One route; the empty one is "no route".
    Route(Name),
    /// One key.
    Key(KeyId),
}

/// A kind of [`Split`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dimension {
    Total,
    Status,
    Route,
    Key,
}

const DIMENSIONS: [Dimension; 4] = [Dimension::Total, Dimension::Status, Dimension::Route, Dimension::Key];

impl Split {
    pub(super) fn dimension(&self) -> Dimension {
        match self {
            Self::Total => Dimension::Total,
            Self::Status(_) => Dimension::Status,
            Self::Route(_) => Dimension::Route,
            Self::Key(_) => Dimension::Key,
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Total => Ok(()),
            Self::Status(status) => status.fmt(f),
            Self::Route(name) => name.fmt(f),
            Self::Key(id) => id.fmt(f),
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

    fn encode(&self, out: &mut Vec<u8>) {
        let UsageCounters { requests, errors, rejected, bytes_in, bytes_out, cost } = self.counters;
        for sum in [requests, errors, rejected, bytes_in, bytes_out, cost] {
            put_varint(out, sum);
        }
        self.latency.encode(out);
    }

    fn decode(from: &mut Take<'_>) -> Option<Self> {
        let counters = UsageCounters {
            requests: from.varint()?,
            errors: from.varint()?,
            rejected: from.varint()?,
            bytes_in: from.varint()?,
            bytes_out: from.varint()?,
            cost: from.varint()?,
        };
        Some(Self { counters, latency: Latency::decode(from)? })
    }
}

/// An account's minute, sorted by split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record(pub(super) Vec<(Split, Cell)>);

impl Record {
    /// Adds another record of the same account and minute.
    pub(super) fn merge(&mut self, other: &Self) {
        let mut merged = Vec::with_capacity(self.0.len() + other.0.len());
        let mut left = std::mem::take(&mut self.0).into_iter().peekable();
        let mut right = other.0.iter().peekable();
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let both = |((split, mut cell), (_, more)): ((Split, Cell), &(Split, Cell))| {
                cell.merge(more);
                (split, cell)
            };
            merged.extend(match order {
                Ordering::Less => left.next(),
                Ordering::Greater => right.next().cloned(),
                Ordering::Equal => left.next().zip(right.next()).map(both),
            });
        }
        self.0 = merged;
    }

    /// The stored form: version; then for each dimension the bytes that it takes, and its sums, each after its text.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![codec::VALUE_VERSION];
        let mut section = Vec::new();
        let mut cells = self.0.iter().peekable();
        for dimension in DIMENSIONS {
            section.clear();
            while let Some((split, cell)) = cells.next_if(|(split, _)| split.dimension() == dimension) {
                let text = match split {
                    Split::Total => "",
                    Split::Status(status) => {
                        put_varint(&mut section, u64::from(*status));
                        ""
                    }
                    Split::Route(name) => name.as_str(),
                    Split::Key(id) => id.as_str(),
                };
                if dimension >= Dimension::Route {
                    put_varint(&mut section, text.len() as u64);
                    section.extend_from_slice(text.as_bytes());
                }
                cell.encode(&mut section);
            }
            put_varint(&mut out, section.len() as u64);
            out.extend_from_slice(&section);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut record = Self::default();
        for dimension in DIMENSIONS {
            record.0.extend(Self::decode_one(bytes, dimension)?.0);
        }
        Ok(record)
    }

    /// The sums of one dimension alone.
    pub(super) fn decode_one(bytes: &[u8], wanted: Dimension) -> Result<Self, String> {
        let body = codec::body(bytes)?;
        let read = || {
            let mut from = Take(body);
            for dimension in DIMENSIONS {
                let length = usize::try_from(from.varint()?).ok()?;
                let mut section = Take(from.bytes(length)?);
                if dimension != wanted {
                    continue;
                }
                let mut cells = Vec::new();
                while !section.0.is_empty() {
                    cells.push((decode_split(&mut section, dimension)?, Cell::decode(&mut section)?));
                }
                return Some(Self(cells));
            }
            None
        };
        read().ok_or_else(|| "a usage record that is cut short".to_owned())
    }
}

fn decode_split(from: &mut Take<'_>, dimension: Dimension) -> Option<Split> {
    let text = |from: &mut Take<'_>| {
        let length = usize::try_from(from.varint()?).ok()?;
        std::str::from_utf8(from.bytes(length)?).ok().map(str::to_owned)
    };
    Some(match dimension {
        Dimension::Total => Split::Total,
        Dimension::Status => Split::Status(u16::try_from(from.varint()?).ok()?),
        Dimension::Route => Split::Route(text(from)?.into()),
        Dimension::Key => Split::Key(text(from)?.into()),
    })
}

/// The stored key of an account's minute.
pub(super) fn usage_key(account: &str, minute: u32) -> Vec<u8> {
    text_key(account, &minute.to_be_bytes())
}

/// The minute at a stored key's end.
pub(super) fn minute_of(key: &[u8]) -> u32 {
    key.last_chunk().map_or(0, |minute| u32::from_be_bytes(*minute))
}

/// Minutes since 1970 as stored: 32 bits, enough for the year 9999.
pub(super) fn stored_minute(minute: i64) -> u32 {
    u32::try_from(minute.max(0)).unwrap_or(u32::MAX)
}

/// Reads bytes as a stored record, for fuzzing.
pub(super) fn decode_for_fuzz(bytes: &[u8]) {
    let _ = Record::decode(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(requests: u64, bins: &mut [u16]) -> Cell {
        let counters = UsageCounters { requests, errors: 1, rejected: 2, bytes_in: 3, bytes_out: 4, cost: 5 };
        Cell { counters, latency: Latency::of(bins) }
    }

    fn record() -> Record {
        Record(vec![
            (Split::Total, cell(300, &mut [7, 200, 7])),
            (Split::Status(429), cell(1, &mut [])),
            (Split::Route("".into()), cell(2, &mut [])),
            (Split::Route("ab".into()), cell(3, &mut [])),
            (Split::Key("k".into()), cell(4, &mut [])),
        ])
    }

    #[test]
    fn stored_record_is_frozen() {
        #[rustfmt::skip]
        let bytes = [
            1,
            12, 0xac, 2, 1, 2, 3, 4, 5, 2, 7, 2, 193, 1, 1,
            9, 173, 3, 1, 1, 2, 3, 4, 5, 0,
            18, 0, 2, 1, 2, 3, 4, 5, 0, 2, b'a', b'b', 3, 1, 2, 3, 4, 5, 0,
            9, 1, b'k', 4, 1, 2, 3, 4, 5, 0,
        ];
        let mut bytes = bytes.to_vec();
        bytes[1] = 13;
        assert_eq!(record().encode(), bytes);
        assert_eq!(Record::decode(&bytes), Ok(record()));
        assert_eq!(Record::decode_one(&bytes, Dimension::Key), Ok(Record(record().0.split_off(4))));
        for cut in 0..bytes.len() {
            assert!(Record::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(Record::decode(&[2, 0]).expect_err("newer").contains("version 2"));
        assert_eq!(usage_key("ab", 258), [0, 2, b'a', b'b', 0, 0, 1, 2]);
    }

    #[test]
    fn merging_adds_what_both_have_and_keeps_the_rest_sorted() {
        let mut sum = Record(vec![(Split::Total, cell(1, &mut [9])), (Split::Key("z".into()), cell(5, &mut []))]);
        sum.merge(&record());
        assert_eq!(sum.0.len(), 6);
        assert!(sum.0.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(sum.0[0].1.counters.requests, 301);
        assert_eq!(sum.0[0].1.latency, Latency::of(&mut [7, 200, 7, 9]));
    }
}
