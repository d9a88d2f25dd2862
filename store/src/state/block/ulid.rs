//! ULIDs inside names: `acct_01J…` is a prefix and 128 bits, not 26 characters.
//!
//! Own code, because only the one canonical spelling may be taken apart: a text must come back as it was.

/// Characters of a ULID.
pub(super) const LENGTH: usize = 26;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const VALUES: [u8; 256] = {
    let mut values = [0xff; 256];
    let mut i = 0;
    while i < 32 {
        values[ALPHABET[i] as usize] = i as u8;
        i += 1;
    }
    values
};

/// A text that ends with a canonical ULID: what is before it, and its bits.
pub(super) fn split(text: &str) -> Option<(&str, u128)> {
    let (prefix, ulid) = text.split_at_checked(text.len().checked_sub(LENGTH)?)?;
    let (high, low) = ulid.as_bytes().split_at(LENGTH / 2);
    // Two halves of 65 bits each; the first character holds 3 of 130, so that its half fits 63.
    let half = |half: &[u8]| {
        half.iter().fold((0u128, 0u8), |(bits, bad), &byte| {
            let value = VALUES[usize::from(byte)];
            (bits << 5 | u128::from(value & 31), bad | value)
        })
    };
    let ((high, bad_high), (low, bad_low)) = (half(high), half(low));
    ((bad_high | bad_low) < 32 && ulid.as_bytes()[0] <= b'7').then_some((prefix, high << 65 | low))
}

/// The text again.
pub(super) fn joined(prefix: &str, bits: u128) -> String {
    let mut text = String::with_capacity(prefix.len() + LENGTH);
    text.push_str(prefix);
    // 12 characters are 60 bits: 64-bit shifts are several times faster than 128-bit ones.
    for (part, characters) in [(bits >> 120, 2), (bits >> 60, 12), (bits, 12)] {
        let part = part as u64;
        text.extend((0..characters).rev().map(|i| char::from(ALPHABET[(part >> (5 * i)) as usize & 31])));
    }
    text
}
