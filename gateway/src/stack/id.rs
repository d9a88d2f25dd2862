//! Ids that the gateway makes: request ids (UUIDv7, RFC 9562) and trace ids.

use std::sync::atomic::{AtomicU64, Ordering};

use store::model::{RequestId, Timestamp};

/// The step of SplitMix64 (Steele, Lea, Flood 2014): odd, so that the counter visits every number once.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A source of ids, one a core. Two sources differ by 64 bits from the system's generator at their start, and ids carry
/// the microsecond besides, so that no two nodes or cores make the same.
#[derive(Debug)]
pub(crate) struct Ids {
    state: AtomicU64,
}

impl Ids {
    /// # Panics
    /// When the kernel cannot give random bytes.
    pub(crate) fn new() -> Self {
        let seed = getrandom::u64().expect("the kernel's random generator answers");
        Self { state: AtomicU64::new(seed) }
    }

    /// Not a secret; unique.
    pub(crate) fn next(&self) -> u64 {
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// RFC 9562 §5.7 with method 3 of §6.2: milliseconds, then the fraction in twelve bits, then random bits.
    pub(crate) fn request(&self, now: Timestamp) -> RequestId {
        let micros = u64::try_from(now.0).unwrap_or_default();
        let (millis, rest) = (micros / 1_000, micros % 1_000);
        let fraction = (rest << 12) / 1_000;
        let high = (millis << 16) | (7 << 12) | fraction;
        let low = (2 << 62) | (self.next() >> 2);
        RequestId((u128::from(high) << 64) | u128::from(low))
    }

    /// A W3C trace id; never zero.
    pub(crate) fn trace(&self) -> u128 {
        (u128::from(self.next()) << 64) | u128::from(self.next()) | 1
    }
}

/// Hexadecimal digits, as ids are written.
pub(crate) const HEX: &[u8; 16] = b"0123456789abcdef";

/// Writes `out.len()` lower-case digits of a number, the last ones.
pub(crate) fn write_hex(mut number: u128, out: &mut [u8]) {
    for place in out.iter_mut().rev() {
        *place = HEX[(number & 15) as usize];
        number >>= 4;
    }
}

/// A request id as text, 36 characters.
pub(crate) fn request_id_text(id: RequestId) -> [u8; 36] {
    let mut out = [b'-'; 36];
    let mut digits = [0; 32];
    write_hex(id.0, &mut digits);
    let mut from = 0;
    for (start, end) in [(0, 8), (9, 13), (14, 18), (19, 23), (24, 36)] {
        out[start..end].copy_from_slice(&digits[from..from + end - start]);
        from += end - start;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_uuid_7_of_their_time_and_sort_by_it() {
        let ids = Ids::new();
        let early = ids.request(Timestamp(1_700_000_000_123_456));
        let late = ids.request(Timestamp(1_700_000_000_123_900));
        assert!(early < late);
        assert_eq!(early.unix_ms(), 1_700_000_000_123);
        assert_eq!(early.0 >> 76 & 15, 7);
        assert_eq!(early.0 >> 62 & 3, 2);
        assert_eq!(request_id_text(early), early.to_string().as_bytes());
    }

    #[test]
    fn ids_of_a_source_differ() {
        let ids = Ids::new();
        let mut seen = std::collections::HashSet::new();
        assert!((0..10_000).all(|_| seen.insert(ids.request(Timestamp(1)))));
    }
}
