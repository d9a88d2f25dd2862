//! The records in a frame's body: their bytes, and how those are read without trusting them.

use bytes::Bytes;

use super::{
    Record,
    view::{State, View},
};
use crate::model::GroupId;

/// Bytes of an entry's record before the entry itself: kind, group, index, length, crc.
pub(super) const ENTRY_HEAD: usize = 1 + 4 + 8 + 4 + 4;

const ENTRY: u8 = 1;
const TRUNCATE: u8 = 2;
const PURGE: u8 = 3;
const VOTE: u8 = 4;
const COMMITTED: u8 = 5;
const STATES: u8 = 6;

const HAS_VOTE: u8 = 1;
const HAS_COMMITTED: u8 = 2;
const HAS_PURGED: u8 = 4;
const HAS_ENTRIES: u8 = 8;

/// The length of `record` in a frame.
pub(super) fn encoded_bytes(record: &Record) -> usize {
    match record {
        Record::Entry { bytes, .. } => ENTRY_HEAD + bytes.len(),
        Record::TruncateFrom { .. } => 13,
        Record::PurgeUpTo { mark, .. } => 17 + mark.len(),
        Record::Vote(vote) => 9 + vote.len(),
    }
}

/// The length of a committed mark in a frame.
pub(super) fn committed_bytes(mark: &Bytes) -> usize {
    9 + mark.len()
}

/// The length of [`put_states`]'s record.
pub(super) fn states_bytes(view: &View) -> usize {
    let state = |state: &State| {
        let mark = |mark: &Option<Bytes>| mark.as_ref().map_or(0, |mark| 4 + mark.len());
        5 + mark(&state.vote)
            + mark(&state.committed)
            + state.purged.as_ref().map_or(0, |(_, mark)| 12 + mark.len())
            + state.span.map_or(0, |_| 16)
    };
    5 + view.states().map(|(_, found)| state(&found)).sum::<usize>()
}

pub(super) fn put(buf: &mut Vec<u8>, seed: u32, group: GroupId, record: &Record) {
    match record {
        Record::Entry { index, bytes } => {
            head(buf, ENTRY, group);
            buf.extend_from_slice(&index.to_le_bytes());
            buf.extend_from_slice(&length(bytes));
            buf.extend_from_slice(&entry_crc(seed, group, *index, bytes).to_le_bytes());
            buf.extend_from_slice(bytes);
        }
        Record::TruncateFrom { index } => {
            head(buf, TRUNCATE, group);
            buf.extend_from_slice(&index.to_le_bytes());
        }
        Record::PurgeUpTo { index, mark } => {
            head(buf, PURGE, group);
            buf.extend_from_slice(&index.to_le_bytes());
            put_mark(buf, mark);
        }
        Record::Vote(vote) => {
            head(buf, VOTE, group);
            put_mark(buf, vote);
        }
    }
}

pub(super) fn put_committed(buf: &mut Vec<u8>, group: GroupId, mark: &Bytes) {
    head(buf, COMMITTED, group);
    put_mark(buf, mark);
}

/// What the log knows of every group, put first in a segment, so that older segments may go.
pub(super) fn put_states(buf: &mut Vec<u8>, view: &View) {
    buf.push(STATES);
    buf.extend_from_slice(&u32::try_from(view.states().count()).expect("group ids are 32 bits").to_le_bytes());
    for (group, state) in view.states() {
        buf.extend_from_slice(&group.0.to_le_bytes());
        let flag = |has: bool, flag: u8| if has { flag } else { 0 };
        buf.push(
            flag(state.vote.is_some(), HAS_VOTE)
                | flag(state.committed.is_some(), HAS_COMMITTED)
                | flag(state.purged.is_some(), HAS_PURGED)
                | flag(state.span.is_some(), HAS_ENTRIES),
        );
        for mark in [&state.vote, &state.committed].into_iter().flatten() {
            put_mark(buf, mark);
        }
        if let Some((index, mark)) = &state.purged {
            buf.extend_from_slice(&index.to_le_bytes());
            put_mark(buf, mark);
        }
        if let Some((first, last)) = state.span {
            buf.extend_from_slice(&first.to_le_bytes());
            buf.extend_from_slice(&last.to_le_bytes());
        }
    }
}

/// The entry's own crc, seeded with its segment, group and index: one entry can be read and checked without its frame, and a
/// place that was recycled under the reader cannot be taken for it.
fn entry_crc(seed: u32, group: GroupId, index: u64, bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(seed, &group.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &index.to_le_bytes()), bytes)
}

/// Whether `record`, head and bytes, is entry `index` of `group`.
pub(super) fn is_entry(record: &[u8], seed: u32, group: GroupId, index: u64) -> bool {
    matches!(
        Decoder::new(record, seed).next(),
        Some(Ok(Decoded::Entry { group: found, index: at, bytes, .. }))
            if found == group && at == index && ENTRY_HEAD + bytes.len() == record.len()
    )
}

fn head(buf: &mut Vec<u8>, kind: u8, group: GroupId) {
    buf.push(kind);
    buf.extend_from_slice(&group.0.to_le_bytes());
}

fn put_mark(buf: &mut Vec<u8>, mark: &[u8]) {
    buf.extend_from_slice(&length(mark));
    buf.extend_from_slice(mark);
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("an append is bounded far below 4 GiB").to_le_bytes()
}

/// A record as it lies in a body.
pub(super) enum Decoded<'a> {
    /// `offset` is that of the record in the body.
    Entry {
        group: GroupId,
        index: u64,
        offset: usize,
        bytes: &'a [u8],
    },
    Truncate {
        group: GroupId,
        index: u64,
    },
    Purge {
        group: GroupId,
        index: u64,
        mark: &'a [u8],
    },
    Vote {
        group: GroupId,
        vote: &'a [u8],
    },
    Committed {
        group: GroupId,
        mark: &'a [u8],
    },
    States(Vec<(GroupId, State)>),
}

/// Reads a body's records one by one; ends after the first error.
pub(super) struct Decoder<'a> {
    body: &'a [u8],
    at: usize,
    seed: u32,
    failed: bool,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(body: &'a [u8], seed: u32) -> Self {
        Self { body, at: 0, seed, failed: false }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let rest = &self.body[self.at..];
        let taken = rest.get(..bytes).ok_or_else(|| format!("a field of {bytes} bytes in the last {}", rest.len()))?;
        self.at += bytes;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("N bytes were taken"))
    }

    fn word(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.chunk()?))
    }

    fn index(&mut self) -> Result<u64, String> {
        let index = u64::from_le_bytes(self.chunk()?);
        if index == u64::MAX { Err(format!("the index {index} is impossible")) } else { Ok(index) }
    }

    fn mark(&mut self) -> Result<&'a [u8], String> {
        let bytes = self.word()? as usize;
        self.take(bytes)
    }

    fn record(&mut self) -> Result<Decoded<'a>, String> {
        let offset = self.at;
        let [kind] = self.chunk()?;
        if kind == STATES {
            return self.states();
        }
        let group = GroupId(self.word()?);
        match kind {
            ENTRY => {
                let index = self.index()?;
                let length = self.word()? as usize;
                let crc = self.word()?;
                let bytes = self.take(length)?;
                if entry_crc(self.seed, group, index, bytes) != crc {
                    return Err(format!("entry {index} of group {} does not match its crc32c", group.0));
                }
                Ok(Decoded::Entry { group, index, offset, bytes })
            }
            TRUNCATE => Ok(Decoded::Truncate { group, index: u64::from_le_bytes(self.chunk()?) }),
            PURGE => Ok(Decoded::Purge { group, index: self.index()?, mark: self.mark()? }),
            VOTE => Ok(Decoded::Vote { group, vote: self.mark()? }),
            COMMITTED => Ok(Decoded::Committed { group, mark: self.mark()? }),
            unknown => Err(format!("a record of unknown kind {unknown}")),
        }
    }

    fn states(&mut self) -> Result<Decoded<'a>, String> {
        let mut states = Vec::new(); // not with_capacity: the count is not to be trusted
        for _ in 0..self.word()? {
            let group = GroupId(self.word()?);
            let [flags] = self.chunk()?;
            let has = |flag| flags & flag != 0;
            let mut state = State::default();
            if has(HAS_VOTE) {
                state.vote = Some(Bytes::copy_from_slice(self.mark()?));
            }
            if has(HAS_COMMITTED) {
                state.committed = Some(Bytes::copy_from_slice(self.mark()?));
            }
            if has(HAS_PURGED) {
                state.purged = Some((self.index()?, Bytes::copy_from_slice(self.mark()?)));
            }
            if has(HAS_ENTRIES) {
                let (first, last) = (self.index()?, self.index()?);
                if first > last || state.purged.as_ref().is_some_and(|(purged, _)| first <= *purged) {
                    return Err(format!("group {} cannot have the entries {first} to {last}", group.0));
                }
                state.span = Some((first, last));
            }
            states.push((group, state));
        }
        Ok(Decoded::States(states))
    }
}

impl<'a> Iterator for Decoder<'a> {
    type Item = Result<Decoded<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.at == self.body.len() {
            return None;
        }
        let record = self.record();
        self.failed = record.is_err();
        Some(record)
    }
}
