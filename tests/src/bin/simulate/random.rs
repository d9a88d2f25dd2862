//! The process's randomness, from the seed: keys of hash maps, of runtimes, of elections, of ids.
//!
//! Everything asks libc's `getrandom` in the end: std and tokio by a weak symbol that a program may define itself, crates by
//! `dlsym` (see `build.rs`). So this program defines it. The generator is splitmix64.

use std::{
    ffi::{c_uint, c_void},
    sync::atomic::{AtomicU64, Ordering},
};

static STATE: AtomicU64 = AtomicU64::new(0x7011_6a7e);

/// Begins the sequence of a seed.
pub(crate) fn seed(seed: u64) {
    STATE.store(seed ^ 0x7011_6a7e, Ordering::Relaxed);
}

fn next() -> u64 {
    let mut z = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// As libc's, and never at random.
#[allow(unsafe_code, reason = "a symbol of libc is replaced, with its own signature; the buffer is the caller's")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    let bytes = buffer.cast::<u8>();
    for at in 0..length {
        // SAFETY: the caller's buffer has `length` bytes.
        unsafe { bytes.add(at).write((next() >> 24) as u8) };
    }
    length as isize
}
