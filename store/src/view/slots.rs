//! Numbered places that readers reach without a lock and that never move: chunks, added at the end.

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

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}

/// Places that hold shared values.
pub(super) type Slots<T> = Chunks<ArcSwapOption<T>>;

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
