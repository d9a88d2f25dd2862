//! What the log's callers see: every group's state and entries, appends included that are not written yet.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{AppendError, GroupState, Record};
use crate::model::GroupId;

/// Where an entry's record lies. Twelve bytes, because a log that keeps minutes of small entries has millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loc {
    pub(super) generation: u32,
    /// Of the record's head in the segment; segments are shorter than 4 GiB.
    pub(super) offset: u32,
    /// Of the entry, without the head.
    pub(super) bytes: u32,
}

/// An entry found by [`Index::find`].
pub(super) enum Found {
    Cached(Bytes),
    OnDisk(Loc),
}

/// Which append put an entry there: after a truncation an index is used again.
pub(super) type Ticket = u64;

#[derive(Debug)]
struct Cached {
    ticket: Ticket,
    bytes: Bytes,
}

/// Entries are `first..end`. Those that are durable have a place, those that are recent are cached; each has at least one:
///
/// ```text
/// first            cached_first      first + locs.len()      end
///   |--- on disk only ---|--- on disk and cached ---|--- not durable, cached ---|
/// ```
#[derive(Debug, Default)]
struct Group {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    /// `committed` waits for a frame.
    committed_waits: bool,
    purged: Option<(u64, Bytes)>,
    durable_purge: Option<u64>,
    first: u64,
    locs: VecDeque<Loc>,
    cached_first: u64,
    cached: VecDeque<Cached>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    groups: BTreeMap<GroupId, Group>,
    pub(super) cached_bytes: usize,
    next_ticket: Ticket,
    committed_waits: bool,
}

impl Index {
    pub(super) fn groups(&self) -> Vec<GroupId> {
        self.groups.keys().copied().collect()
    }

    pub(super) fn state(&self, id: GroupId) -> GroupState {
        let Some(group) = self.groups.get(&id) else { return GroupState::default() };
        GroupState {
            vote: group.vote.clone(),
            committed: group.committed.clone(),
            purged: group.purged.clone(),
            first_index: if group.is_empty() { group.next().unwrap_or(0) } else { group.first },
            last_index: (!group.is_empty()).then(|| group.end() - 1),
        }
    }

    /// Whether `records` may follow what is there. Must hold before the first one is [`Index::apply`]-ed.
    pub(super) fn check(&self, id: GroupId, records: &[Record]) -> Result<(), AppendError> {
        let group = self.groups.get(&id);
        // The entries are first..end, and `next` the only index that may follow, if it matters.
        let (mut first, mut end) = group.map_or((0, 0), |group| (group.first, group.end()));
        let mut purged = group.and_then(|group| group.purged.as_ref().map(|(index, _)| *index));
        for record in records {
            let next = if first < end { Some(end) } else { purged.map(|purged| purged + 1) };
            match *record {
                Record::Entry { index, .. } => {
                    if index == u64::MAX || next.is_some_and(|next| next != index) {
                        return Err(AppendError::OutOfOrder { group: id, index, expected: next.unwrap_or(0) });
                    }
                    if next.is_none() {
                        first = index;
                    }
                    end = index + 1;
                }
                Record::TruncateFrom { index } => end = end.min(index.max(first)),
                Record::PurgeUpTo { index, .. } => {
                    if index == u64::MAX {
                        return Err(AppendError::OutOfOrder { group: id, index, expected: end });
                    }
                    if purged.is_none_or(|purged| purged <= index) {
                        purged = Some(index);
                        first = first.max(index + 1);
                        end = end.max(first);
                    }
                }
                Record::Vote(_) => {}
            }
        }
        Ok(())
    }

    /// The ticket that the next entry will get; the following ones count up from it.
    pub(super) fn next_ticket(&self) -> Ticket {
        self.next_ticket
    }

    pub(super) fn apply(&mut self, id: GroupId, record: &Record) {
        let group = self.groups.entry(id).or_default();
        match record {
            Record::Entry { index, bytes } => {
                group.begin_at(*index);
                group.cached.push_back(Cached { ticket: self.next_ticket, bytes: bytes.clone() });
                self.next_ticket += 1;
                self.cached_bytes += bytes.len();
            }
            Record::TruncateFrom { index } => self.cached_bytes -= group.truncate(*index),
            Record::PurgeUpTo { index, mark } => self.cached_bytes -= group.purge(*index, mark),
            Record::Vote(vote) => group.vote = Some(vote.clone()),
        }
    }

    pub(super) fn set_committed(&mut self, id: GroupId, mark: Bytes) {
        let group = self.groups.entry(id).or_default();
        if group.committed.as_ref() != Some(&mark) {
            group.committed = Some(mark);
            group.committed_waits = true;
            self.committed_waits = true;
        }
    }

    /// The committed marks that wait for a frame.
    pub(super) fn take_committed(&mut self) -> Vec<(GroupId, Bytes)> {
        if !std::mem::take(&mut self.committed_waits) {
            return Vec::new();
        }
        let take = |(id, group): (&GroupId, &mut Group)| {
            let waits = std::mem::take(&mut group.committed_waits);
            group.committed.clone().filter(|_| waits).map(|mark| (*id, mark))
        };
        self.groups.iter_mut().filter_map(take).collect()
    }

    /// The entry that got `ticket` is durable, at `loc`; no news if it was truncated or purged meanwhile.
    pub(super) fn written(&mut self, id: GroupId, index: u64, ticket: Ticket, loc: Loc) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if index == group.first + group.locs.len() as u64
            && let Some(at) = index.checked_sub(group.cached_first)
            && group.cached.get(at as usize).is_some_and(|cached| cached.ticket == ticket)
        {
            group.locs.push_back(loc);
        }
    }

    /// The purge up to `index` is durable.
    pub(super) fn purge_written(&mut self, id: GroupId, index: u64) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.durable_purge = group.durable_purge.max(Some(index));
        }
    }

    pub(super) fn durable_index(&self, id: GroupId) -> Option<u64> {
        let group = self.groups.get(&id)?;
        let entries = (!group.locs.is_empty()).then(|| group.first + group.locs.len() as u64 - 1);
        entries.max(group.durable_purge)
    }

    /// Drops the oldest cached entries that are durable, until less than `limit` bytes are cached.
    pub(super) fn evict(&mut self, limit: usize) {
        if self.cached_bytes <= limit {
            return;
        }
        let goal = limit - limit / 16; // so that the search for a victim is rare
        while self.cached_bytes > goal {
            let victim =
                self.groups.values_mut().filter(|group| group.may_evict()).min_by_key(|group| group.cached[0].ticket);
            let Some(group) = victim else { return };
            // A few from the same group, for the same reason.
            for _ in 0..64 {
                if self.cached_bytes <= goal || !group.may_evict() {
                    break;
                }
                let evicted = group.cached.pop_front().expect("it may evict");
                group.cached_first += 1;
                self.cached_bytes -= evicted.bytes.len();
            }
        }
    }

    /// The entries `from..to` without a gap, until they sum up to more than `max_bytes`; at least one if `from` is there.
    pub(super) fn find(&self, id: GroupId, from: u64, to: u64, max_bytes: usize) -> Vec<Found> {
        let mut found = Vec::new();
        let Some(group) = self.groups.get(&id) else { return found };
        let mut bytes = 0;
        for index in from.max(group.first)..to.min(group.end()) {
            if from < group.first {
                break;
            }
            let entry = match index.checked_sub(group.cached_first) {
                Some(at) => Found::Cached(group.cached[at as usize].bytes.clone()),
                None => Found::OnDisk(group.locs[(index - group.first) as usize]),
            };
            bytes += match &entry {
                Found::Cached(bytes) => bytes.len(),
                Found::OnDisk(loc) => loc.bytes as usize,
            };
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(entry);
        }
        found
    }

    /// Whether entry `index` still lies at `loc`.
    pub(super) fn lies_at(&self, id: GroupId, index: u64, loc: Loc) -> bool {
        let at = |group: &Group| group.locs.get(index.checked_sub(group.first)? as usize).copied();
        self.groups.get(&id).and_then(at) == Some(loc)
    }

    /// Recovery: an entry that is on disk, cached as well if `bytes` are given.
    pub(super) fn recovered(&mut self, id: GroupId, index: u64, loc: Loc, bytes: Option<Bytes>) {
        let group = self.groups.entry(id).or_default();
        group.begin_at(index);
        debug_assert!(bytes.is_some() || group.cached.is_empty(), "what is cached is the newest");
        group.locs.push_back(loc);
        match bytes {
            Some(bytes) => {
                self.cached_bytes += bytes.len();
                group.cached.push_back(Cached { ticket: self.next_ticket, bytes });
                self.next_ticket += 1;
            }
            None => group.cached_first = index + 1,
        }
    }

    /// Recovery: a group as the oldest segment's head states it, its entries gone or still to come.
    pub(super) fn recovered_state(&mut self, id: GroupId, state: super::view::State) {
        let group = self.groups.entry(id).or_default();
        let next = state.span.map_or(0, |(_, last)| last + 1);
        (group.first, group.cached_first) = (next, next);
        group.durable_purge = state.purged.as_ref().map(|(index, _)| *index);
        (group.vote, group.committed, group.purged) = (state.vote, state.committed, state.purged);
    }

    /// Recovery: a committed mark that is on disk.
    pub(super) fn recovered_committed(&mut self, id: GroupId, mark: Bytes) {
        self.groups.entry(id).or_default().committed = Some(mark);
    }
}

impl Group {
    fn end(&self) -> u64 {
        self.cached_first + self.cached.len() as u64
    }

    fn is_empty(&self) -> bool {
        self.first == self.end()
    }

    /// Where the next entry goes; `None`: anywhere.
    fn next(&self) -> Option<u64> {
        if self.is_empty() { self.purged.as_ref().map(|(index, _)| index + 1) } else { Some(self.end()) }
    }

    fn begin_at(&mut self, index: u64) {
        if self.is_empty() {
            (self.first, self.cached_first) = (index, index);
        }
    }

    fn may_evict(&self) -> bool {
        !self.cached.is_empty() && self.cached_first < self.first + self.locs.len() as u64
    }

    /// Returns the bytes that are cached no more.
    fn truncate(&mut self, from: u64) -> usize {
        if from >= self.end() {
            return 0;
        }
        let end = from.max(self.first);
        self.locs.truncate((end - self.first) as usize);
        let keep = end.saturating_sub(self.cached_first) as usize;
        let freed = self.cached.drain(keep..).map(|cached| cached.bytes.len()).sum();
        self.cached_first = self.cached_first.min(end);
        freed
    }

    /// Returns the bytes that are cached no more.
    fn purge(&mut self, index: u64, mark: &Bytes) -> usize {
        if self.purged.as_ref().is_some_and(|(purged, _)| *purged > index) {
            return 0;
        }
        self.purged = Some((index, mark.clone()));
        let first = index + 1;
        if first <= self.first {
            return 0;
        }
        let gone = (first - self.first).min(self.locs.len() as u64) as usize;
        self.locs.drain(..gone);
        let gone = first.saturating_sub(self.cached_first).min(self.cached.len() as u64) as usize;
        let freed = self.cached.drain(..gone).map(|cached| cached.bytes.len()).sum();
        self.first = first;
        self.cached_first = self.cached_first.max(first);
        if self.locs.capacity() > 1024 && self.locs.len() < self.locs.capacity() / 4 {
            self.locs.shrink_to(self.locs.len() * 2);
        }
        freed
    }
}
