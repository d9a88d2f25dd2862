//! An open-addressing index from a 32-bit hash to a slot: one writer, any number of readers, no lock on either side.
//!
//! A cell is the hash in the high half and slot + 1 in the low half; 0 is empty. The hash alone gives the place, so that
//! growing reads nothing but the cells. A reader confirms each candidate by looking at the record in the slot.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A cell whose entry was removed: readers go on, the writer may use it again.
const REMOVED: u64 = 1 << 32;
const SLOT: u64 = 0xffff_ffff;
/// Grown when more than 13 in 16 cells are taken; short probes matter more than 8 bytes.
const FULL_OF_16: usize = 13;

#[derive(Debug)]
pub(super) struct Index {
    cells: Box<[AtomicU64]>,
    /// A word beside each cell that may be read before the cell is, or none at all: nothing is decided by it.
    hints: Box<[AtomicU32]>,
    /// `hash >> shift` is the first place: the high bits, as the low ones are all that a small table would see.
    shift: u32,
}

impl Index {
    /// An index for at least so many entries.
    pub(super) fn with_room(entries: usize) -> Self {
        let cells = (entries * 16 / FULL_OF_16 + 1).next_power_of_two().max(16);
        Self {
            cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
            hints: Box::default(),
            shift: 32 - cells.trailing_zeros(),
        }
    }

    /// The same, with a hint beside each entry.
    pub(super) fn with_hints(entries: usize) -> Self {
        let index = Self::with_room(entries);
        Self { hints: index.cells.iter().map(|_| AtomicU32::new(u32::MAX)).collect(), ..index }
    }

    /// The hint of the entry at this hash's first place, which is nearly always its own.
    pub(super) fn hint(&self, hash: u32) -> Option<u32> {
        self.hints.get((hash >> self.shift) as usize).map(|hint| hint.load(Ordering::Relaxed))
    }

    /// The first slot of this hash that `is_it` confirms.
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.probe(hash).find_map(|place| {
            let cell = self.cells[place].load(Ordering::Acquire);
            if cell == 0 {
                return Some(None);
            }
            let slot = ((cell & SLOT) as u32).wrapping_sub(1);
            (cell & SLOT != 0 && (cell >> 32) as u32 == hash && is_it(slot)).then_some(Some(slot))
        })?
    }

    /// Adds an entry that is not there. For the writer, who has made room. True when a fresh cell was taken.
    pub(super) fn insert(&self, hash: u32, slot: u32, hint: u32) -> bool {
        let entry = (u64::from(hash) << 32) | (u64::from(slot) + 1);
        for place in self.probe(hash) {
            let cell = self.cells[place].load(Ordering::Relaxed);
            if cell == 0 || cell & SLOT == 0 {
                if let Some(beside) = self.hints.get(place) {
                    beside.store(hint, Ordering::Relaxed);
                }
                self.cells[place].store(entry, Ordering::Release);
                return cell == 0;
            }
        }
        unreachable!("the writer makes room before it inserts");
    }

    /// Removes an entry. For the writer.
    pub(super) fn remove(&self, hash: u32, slot: u32) {
        let entry = (u64::from(hash) << 32) | (u64::from(slot) + 1);
        for place in self.probe(hash) {
            match self.cells[place].load(Ordering::Relaxed) {
                0 => return,
                cell if cell == entry => return self.cells[place].store(REMOVED, Ordering::Release),
                _ => {}
            }
        }
    }

    /// Whether one more fresh cell may be taken when so many are.
    pub(super) fn has_room(&self, taken: usize) -> bool {
        (taken + 1) * 16 <= self.cells.len() * FULL_OF_16
    }

    /// A copy with room for so many entries, without the removed ones.
    pub(super) fn regrown(&self, entries: usize) -> Self {
        let grown = if self.hints.is_empty() { Self::with_room(entries) } else { Self::with_hints(entries) };
        for (place, cell) in self.cells.iter().enumerate() {
            let cell = cell.load(Ordering::Relaxed);
            if cell & SLOT != 0 {
                let hint = self.hints.get(place).map_or(0, |hint| hint.load(Ordering::Relaxed));
                grown.insert((cell >> 32) as u32, (cell & SLOT) as u32 - 1, hint);
            }
        }
        grown
    }

    fn probe(&self, hash: u32) -> impl Iterator<Item = usize> {
        let mask = self.cells.len() - 1;
        let first = (hash >> self.shift) as usize;
        (0..self.cells.len()).map(move |step| (first + step) & mask)
    }
}

/// An index with the writer's counts.
#[derive(Debug, Default)]
pub(super) struct Fill {
    /// Cells that are not empty: entries and removed ones.
    taken: usize,
    /// Entries.
    pub(super) entries: usize,
}

impl Fill {
    /// Adds an entry; the grown index when there was no room, for the writer to publish.
    pub(super) fn insert(&mut self, index: &Index, hash: u32, slot: u32, hint: u32) -> Option<Index> {
        let grown = (!index.has_room(self.taken)).then(|| {
            self.taken = self.entries;
            index.regrown((self.entries + 1) * 3 / 2)
        });
        let fresh = grown.as_ref().unwrap_or(index).insert(hash, slot, hint);
        self.taken += usize::from(fresh);
        self.entries += 1;
        grown
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, index: &Index, hash: u32, slot: u32) {
        index.remove(hash, slot);
        self.entries -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map, with few hashes, so that they collide and removed cells are used again.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u32..24, any::<bool>()), 1..600)) {
            let (mut index, mut fill, mut model) = (Index::with_hints(1), Fill::default(), HashMap::new());
            for (id, put) in steps {
                let hash = (id % 5) << 29 | (id % 3);
                if put {
                    if model.insert(id, hash).is_none() && let Some(grown) = fill.insert(&index, hash, id, id) {
                        index = grown;
                    }
                } else if model.remove(&id).is_some() {
                    fill.remove(&index, hash, id);
                }
                prop_assert_eq!(fill.entries, model.len());
                for id in 0..24 {
                    let hash = (id % 5) << 29 | (id % 3);
                    prop_assert_eq!(index.find(hash, |slot| slot == id), model.contains_key(&id).then_some(id));
                }
            }
        }
    }
}
