//! A fast hash for maps that are only asked, never walked in the order of their hashing.
//!
//! Keys are ids made by this cluster's administrators and numbers of its own, so nobody can aim for collisions.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A map with [`Fast`] hashing.
pub(super) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<Fast>>;

/// Multiply and rotate, eight bytes a step (as rustc's own FxHash).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fast(u64);

const FACTOR: u64 = 0xf135_7aea_2e62_a9c5;

impl Fast {
    fn step(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for Fast {
    fn finish(&self) -> u64 {
        // The map takes the low bits for the place and the top seven for the tag: bring the good ones down.
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.step(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.step(u64::from_le_bytes(last) ^ ((rest.len() as u64) << 56));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.step(u64::from(n));
    }
    fn write_u16(&mut self, n: u16) {
        self.step(u64::from(n));
    }
    fn write_u32(&mut self, n: u32) {
        self.step(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        self.step(n);
    }
    fn write_u128(&mut self, n: u128) {
        self.step(n as u64);
        self.step((n >> 64) as u64);
    }
    fn write_usize(&mut self, n: usize) {
        self.step(n as u64);
    }
}
