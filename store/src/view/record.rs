//! Stable records of keys: 64 bytes of atomics each, read under a sequence lock.
//!
//! The sequence lock is the one of Boehm, "Can seqlocks get along with programming language memory models?" (2012), with
//! every word an atomic: no unsafe, no torn read, and readers write nothing, so that a hot key is in every core's cache.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Spins before a reader gives its core to the writer that it waits for.
const SPINS: u32 = 64;

/// What a record says: a consistent copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Words {
    /// The first 128 bits of the secret's SHA-256; all zero in a free record.
    pub(super) hash: [u64; 2],
    /// The account's slot in the high half, flags in the low one.
    pub(super) meta: u64,
    /// The ULID of the key's id, high half first; zero when the id is of another form.
    pub(super) ulid: [u64; 2],
    /// When it stops working, if flagged.
    pub(super) expires_at: i64,
    /// Slot + 1 of what most keys do not have; 0 for nothing.
    pub(super) rare: u64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Record {
    /// Even: stable. Odd: being written.
    sequence: AtomicU64,
    words: [AtomicU64; 7],
}

impl Record {
    /// A consistent copy, and its sequence for [`Record::is_still`].
    pub(super) fn read(&self) -> (u64, Words) {
        let mut spins = 0;
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before & 1 == 0 {
                let word = |at: usize| self.words[at].load(Ordering::Relaxed);
                let words = Words {
                    hash: [word(0), word(1)],
                    meta: word(2),
                    ulid: [word(3), word(4)],
                    expires_at: word(5).cast_signed(),
                    rare: word(6),
                };
                if self.is_still(before) {
                    return (before, words);
                }
            }
            spins += 1;
            if spins % SPINS == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }

    /// Whether the record has not changed since it was read with this sequence.
    pub(super) fn is_still(&self, sequence: u64) -> bool {
        fence(Ordering::Acquire);
        self.sequence.load(Ordering::Relaxed) == sequence
    }

    /// For the one writer.
    pub(super) fn write(&self, words: &Words) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let values = [
            words.hash[0],
            words.hash[1],
            words.meta,
            words.ulid[0],
            words.ulid[1],
            words.expires_at.cast_unsigned(),
            words.rare,
        ];
        for (word, value) in self.words.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        self.sequence.store(sequence + 2, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_record_is_a_cache_line() {
        assert_eq!((size_of::<Record>(), align_of::<Record>()), (64, 64));
    }

    #[test]
    fn readers_never_see_two_writes_mixed() {
        let (record, done) = (Record::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let (_, words) = record.read();
                        let n = words.rare;
                        let whole = Words { hash: [n, n], meta: n, ulid: [n, n], expires_at: n.cast_signed(), rare: n };
                        assert_eq!(words, whole);
                    }
                });
            }
            for n in 0..200_000 {
                record.write(&Words { hash: [n, n], meta: n, ulid: [n, n], expires_at: n.cast_signed(), rare: n });
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
