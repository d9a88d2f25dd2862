//! What the files say: every group's state after the frames written so far, and which segment each entry lies in.
//!
//! Recovery builds it from the files, the writer keeps it while it writes. It runs behind the [`super::index::Index`], which
//! knows appends before they are written; only this one may decide what goes into a segment's head and which segments may go.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::model::GroupId;

/// One group as a segment's head states it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) purged: Option<(u64, Bytes)>,
    /// First and last entry.
    pub(super) span: Option<(u64, u64)>,
}

/// The generation of entries whose segment is not among the files. Real generations begin with 1.
const GONE: u32 = 0;

#[derive(Debug, Default)]
struct Group {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    /// Oldest first, without gaps between them.
    runs: VecDeque<Run>,
}

/// Entries `first..=last` lie in segment `generation`.
#[derive(Debug)]
struct Run {
    generation: u32,
    first: u64,
    last: u64,
}

#[derive(Debug, Default)]
pub(super) struct View {
    groups: BTreeMap<GroupId, Group>,
    /// Whether a segment's head has been read. (The writer, which reads none, does not care.)
    based: bool,
}

impl View {
    pub(super) fn states(&self) -> impl Iterator<Item = (GroupId, State)> {
        self.groups.iter().map(|(id, group)| (*id, group.state()))
    }

    /// Whether a head has been taken.
    pub(super) fn is_based(&self) -> bool {
        self.based
    }

    /// Takes a segment's head: the first one that is read is believed, the others must agree with what was read before.
    pub(super) fn head(&mut self, states: Vec<(GroupId, State)>) -> Result<(), String> {
        if self.based {
            let agree = states.len() == self.groups.len()
                && states.iter().all(|(id, state)| self.groups.get(id).is_some_and(|group| group.state() == *state));
            return if agree {
                Ok(())
            } else {
                Err("the segment's head contradicts the segments before it".to_owned())
            };
        }
        self.based = true;
        for (id, State { vote, committed, purged, span }) in states {
            let runs = span.map(|(first, last)| Run { generation: GONE, first, last }).into_iter().collect();
            if self.groups.insert(id, Group { vote, committed, purged, runs }).is_some() {
                return Err(format!("the segment's head has group {} twice", id.0));
            }
        }
        Ok(())
    }

    pub(super) fn entry(&mut self, id: GroupId, index: u64, generation: u32) -> Result<(), String> {
        let group = self.groups.entry(id).or_default();
        if let Some(expected) = group.next()
            && expected != index
        {
            return Err(format!("group {} continues with entry {index}, entry {expected} is missing", id.0));
        }
        match group.runs.back_mut() {
            Some(run) if run.generation == generation => run.last = index,
            _ => group.runs.push_back(Run { generation, first: index, last: index }),
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, id: GroupId, from: u64) {
        let runs = &mut self.groups.entry(id).or_default().runs;
        while runs.back().is_some_and(|run| run.first >= from) {
            runs.pop_back();
        }
        if let Some(run) = runs.back_mut() {
            run.last = run.last.min(from - 1); // above run.first, so above 0
        }
    }

    pub(super) fn purge(&mut self, id: GroupId, index: u64, mark: Bytes) {
        let group = self.groups.entry(id).or_default();
        if group.purged.as_ref().is_some_and(|(purged, _)| *purged > index) {
            return;
        }
        while group.runs.front().is_some_and(|run| run.last <= index) {
            group.runs.pop_front();
        }
        if let Some(run) = group.runs.front_mut() {
            run.first = run.first.max(index + 1);
        }
        // Entries before the first one never were: purging below them leaves nothing to keep.
        group.purged = Some((index, mark));
    }

    pub(super) fn vote(&mut self, id: GroupId, vote: Bytes) {
        self.groups.entry(id).or_default().vote = Some(vote);
    }

    pub(super) fn committed(&mut self, id: GroupId, mark: Bytes) {
        self.groups.entry(id).or_default().committed = Some(mark);
    }

    /// The oldest segment that still holds an entry.
    pub(super) fn oldest_generation(&self) -> Option<u32> {
        self.groups.values().filter_map(|group| group.runs.front()).map(|run| run.generation).min()
    }

    /// Entries that no file holds, which no purge explains: group, first, last.
    pub(super) fn gone(&self) -> Option<(GroupId, u64, u64)> {
        self.groups.iter().find_map(|(id, group)| {
            group.runs.front().filter(|run| run.generation == GONE).map(|run| (*id, run.first, run.last))
        })
    }
}

impl Group {
    fn state(&self) -> State {
        State {
            vote: self.vote.clone(),
            committed: self.committed.clone(),
            purged: self.purged.clone(),
            span: self.runs.front().zip(self.runs.back()).map(|(front, back)| (front.first, back.last)),
        }
    }

    /// The only index the next entry may have; any if the group is empty and was never purged.
    fn next(&self) -> Option<u64> {
        match (self.runs.back(), &self.purged) {
            (Some(run), _) => Some(run.last + 1),
            (None, Some((purged, _))) => Some(purged + 1),
            (None, None) => None,
        }
    }
}
