//! Numbered places that readers reach without a lock: chunks that never move, added at the end; and places whose values are
//! read by plain loads, of which a change makes a new version.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// Places that are built a chunk at a time. A clone shares the chunks and has its own list of them.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    chunks: Vec<Arc<[T]>>,
    /// Places a chunk, a power of two.
    chunk: usize,
}

impl<T> Clone for Chunks<T> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), chunk: self.chunk }
    }
}

impl<T: Default> Chunks<T> {
    pub(super) fn new(chunk: usize) -> Self {
        assert!(chunk.is_power_of_two());
        Self { chunks: Vec::new(), chunk }
    }

    /// The place; none when this list of chunks is older than the slot.
    pub(super) fn at(&self, slot: u32) -> Option<&T> {
        let slot = slot as usize;
        self.chunks.get(slot / self.chunk)?.get(slot & (self.chunk - 1))
    }

    /// Adds a chunk if the slot lies beyond the last one; whether it did.
    pub(super) fn make_room(&mut self, slot: u32) -> bool {
        let missing = slot as usize >= self.chunks.len() * self.chunk;
        if missing {
            self.chunks.push((0..self.chunk).map(|_| T::default()).collect());
        }
        missing
    }
}

/// Places that hold shared values, each changed by itself.
pub(super) type Slots<T> = Chunks<ArcSwapOption<T>>;

/// Shared values by number. A clone shares all of them, and a change in it copies 256: a reader writes nothing and waits for
/// nothing, and the one writer shows many changes with one new version.
#[derive(Debug)]
pub(super) struct Places<T> {
    leaves: Arc<Vec<Arc<Leaf<T>>>>,
}

type Leaf<T> = [Option<Arc<T>>; LEAF];
const LEAF: usize = 256;

impl<T> Clone for Places<T> {
    fn clone(&self) -> Self {
        Self { leaves: Arc::clone(&self.leaves) }
    }
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { leaves: Arc::default() }
    }
}

impl<T> Places<T> {
    pub(super) fn at(&self, slot: u32) -> Option<&Arc<T>> {
        self.leaves.get(slot as usize / LEAF)?[slot as usize % LEAF].as_ref()
    }

    pub(super) fn set(&mut self, slot: u32, value: Option<Arc<T>>) {
        let (leaf, place) = (slot as usize / LEAF, slot as usize % LEAF);
        let leaves = Arc::make_mut(&mut self.leaves);
        if leaves.len() <= leaf {
            leaves.resize_with(leaf + 1, || Arc::new([const { None }; LEAF]));
        }
        Arc::make_mut(&mut leaves[leaf])[place] = value;
    }

    /// Changes all values for which `change` has another one.
    pub(super) fn replace(&mut self, change: impl Fn(&T) -> Option<Arc<T>>) -> bool {
        let mut any = false;
        for leaf in Arc::make_mut(&mut self.leaves) {
            for place in 0..LEAF {
                if let Some(new) = leaf[place].as_deref().and_then(&change) {
                    Arc::make_mut(leaf)[place] = Some(new);
                    any = true;
                }
            }
        }
        any
    }
}

/// The writer's numbers: freed ones first.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    free: Vec<u32>,
    next: u32,
}

impl Numbers {
    pub(super) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let next = self.next;
            self.next = next.checked_add(1).expect("memory ends before four billion slots");
            next
        })
    }

    pub(super) fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }
}
