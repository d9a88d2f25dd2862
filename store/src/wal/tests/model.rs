//! What a log should contain, kept by the simplest means, and the tools the tests share.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;

use super::fault::{FaultDisk, Rng};
use crate::{
    model::GroupId,
    wal::{AppendError, Done, OpenError, Options, Record, Stepper, Wal},
};

pub(super) const DIR: &str = "/wal";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group {
    vote: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    entries: BTreeMap<u64, Bytes>,
}

/// Every group's contents; groups of which nothing is known are absent.
pub(super) type Contents = BTreeMap<GroupId, Group>;

pub(super) fn apply(contents: &mut Contents, group: GroupId, records: &[Record]) {
    let group = contents.entry(group).or_default();
    for record in records {
        match record {
            Record::Entry { index, bytes } => drop(group.entries.insert(*index, bytes.clone())),
            Record::TruncateFrom { index } => drop(group.entries.split_off(index)),
            Record::PurgeUpTo { index, mark } => {
                if group.purged.as_ref().is_none_or(|(purged, _)| purged <= index) {
                    group.entries = group.entries.split_off(&(index + 1));
                    group.purged = Some((*index, mark.clone()));
                }
            }
            Record::Vote(vote) => group.vote = Some(vote.clone()),
        }
    }
}

pub(super) fn contents(wal: &Wal) -> Contents {
    let mut contents = Contents::new();
    for id in wal.groups() {
        let state = wal.group(id);
        let entries: BTreeMap<u64, Bytes> = match state.last_index {
            Some(last) => wal.read(id, state.first_index, last + 1, usize::MAX).unwrap().into_iter().collect(),
            None => BTreeMap::new(),
        };
        assert_eq!(entries.len() as u64, state.last_index.map_or(0, |last| last + 1 - state.first_index));
        contents.insert(id, Group { vote: state.vote, purged: state.purged, entries });
    }
    contents.retain(|_, group| *group != Group::default());
    contents
}

/// Small segments and nearly no cache, so that a test of a few entries meets both ends.
pub(super) fn small() -> Options {
    Options {
        segment_bytes: 8192,
        spare_segments: 2,
        cache_bytes: 512,
        frontier_interval: Duration::from_millis(1),
        queue_bytes: 1 << 20,
    }
}

pub(super) fn open(disk: &FaultDisk) -> Result<(Wal, Stepper), OpenError> {
    open_with(disk, small())
}

pub(super) fn open_with(disk: &FaultDisk, options: Options) -> Result<(Wal, Stepper), OpenError> {
    Wal::open_stepped(Arc::new(disk.clone()), Path::new(DIR), options)
}

pub(super) fn entry(index: u64, bytes: impl Into<Bytes>) -> Record {
    Record::Entry { index, bytes: bytes.into() }
}

pub(super) fn ignore() -> Done {
    Box::new(|_| ())
}

/// A log on a faulty disk, what was appended to it, and how much of that it acknowledged.
pub(super) struct Rig {
    pub(super) disk: FaultDisk,
    options: Options,
    pub(super) wal: Wal,
    pub(super) stepper: Stepper,
    /// The contents after each append; `[0]` is the beginning.
    pub(super) history: Vec<Contents>,
    acknowledged: Arc<AtomicUsize>,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::on(FaultDisk::default(), small())
    }

    pub(super) fn on(disk: FaultDisk, options: Options) -> Self {
        let (wal, stepper) = open_with(&disk, options.clone()).unwrap();
        let history = vec![contents(&wal)];
        Self { disk, options, wal, stepper, history, acknowledged: Arc::default() }
    }

    pub(super) fn append(&mut self, group: u32, records: Vec<Record>) -> Result<(), AppendError> {
        let mut next = self.history.last().unwrap().clone();
        apply(&mut next, GroupId(group), &records);
        next.retain(|_, group| *group != Group::default());
        let (number, acknowledged) = (self.history.len(), Arc::clone(&self.acknowledged));
        let done: Done = Box::new(move |outcome| {
            if outcome.is_ok() {
                let before = acknowledged.swap(number, SeqCst);
                assert_eq!(before + 1, number, "acknowledged in order");
            }
        });
        self.wal.append(GroupId(group), records, done)?;
        self.history.push(next);
        Ok(())
    }

    /// Appends something that fits: mostly entries, sometimes a vote, a truncation, a purge.
    pub(super) fn append_any(&mut self, rng: &mut Rng) {
        let group = rng.below(3) as u32;
        let state = self.wal.group(GroupId(group));
        let next = state.last_index.map_or(state.first_index, |last| last + 1);
        let bytes = |rng: &mut Rng| {
            let length = match rng.below(20) {
                0 => rng.below(12_000),
                1..4 => 0,
                _ => rng.below(300),
            };
            let fill = rng.next();
            Bytes::from((0..length).map(|at| (fill >> (at % 8 * 8)) as u8).collect::<Vec<u8>>())
        };
        let records = match rng.below(12) {
            0 => vec![Record::Vote(Bytes::from(rng.next().to_le_bytes().to_vec()))],
            1 => {
                let from = state.first_index + rng.below(next - state.first_index + 1);
                // Truncation, new entries in the same place, and the vote that caused it, as one.
                vec![
                    Record::TruncateFrom { index: from },
                    entry(from.max(state.first_index), bytes(rng)),
                    Record::Vote(Bytes::from_static(b"after truncation")),
                ]
            }
            2 | 3 => {
                let index = state.first_index + rng.below(next - state.first_index + 2);
                vec![Record::PurgeUpTo { index, mark: Bytes::from(index.to_string()) }]
            }
            _ => (0..rng.below(4)).map(|at| entry(next + at, bytes(rng))).collect(),
        };
        self.append(group, records).unwrap();
        if rng.below(4) == 0 {
            self.wal.set_committed(GroupId(group), Bytes::from(next.to_string()));
        }
    }

    pub(super) fn settle(&mut self) {
        while self.stepper.step() {}
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.load(SeqCst)
    }

    /// Opens the log again and checks that it holds a state between the last acknowledged one and the last one appended.
    pub(super) fn reopen(&mut self) {
        let (wal, stepper) =
            open_with(&self.disk, self.options.clone()).unwrap_or_else(|refusal| panic!("refused: {refusal}"));
        let found = contents(&wal);
        let acknowledged = self.acknowledged();
        let kept = (acknowledged..self.history.len()).rev().find(|at| self.history[*at] == found);
        let Some(kept) = kept else {
            let before = self.history[..acknowledged].iter().rposition(|state| *state == found);
            panic!(
                "found the state of append {before:?}; {acknowledged} were acknowledged, {} made",
                self.history.len()
            );
        };
        (self.wal, self.stepper) = (wal, stepper);
        self.history.truncate(kept + 1);
        self.acknowledged = Arc::new(AtomicUsize::new(kept));
    }
}

impl Rig {
    /// After `history` was shortened: its last state is acknowledged.
    pub(super) fn reset_acknowledged(&mut self) {
        self.acknowledged = Arc::new(AtomicUsize::new(self.history.len() - 1));
    }
}
