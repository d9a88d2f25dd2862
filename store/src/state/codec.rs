//! Stored bytes: the versioned envelope of values, and the pieces that keys and compact values are made of.

use minicbor::{Decode, Encode};

/// Version of the values that this build writes, and the newest that it reads.
pub(super) const VALUE_VERSION: u8 = 1;

/// A value's bytes: version, then CBOR.
pub(super) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = vec![VALUE_VERSION];
    minicbor::encode(value, &mut out).expect("writing to memory cannot fail");
    out
}

/// Reads a value's bytes.
///
/// # Errors
/// A newer version, by name; or damage.
pub(super) fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, String> {
    minicbor::decode(body(bytes)?).map_err(|error| error.to_string())
}

/// What follows the version byte, when this build reads it.
pub(super) fn body(bytes: &[u8]) -> Result<&[u8], String> {
    match bytes {
        [VALUE_VERSION, body @ ..] => Ok(body),
        [version, ..] if *version > VALUE_VERSION => Err(format!(
            "value format version {version} is newer than this build knows (up to {VALUE_VERSION}): upgrade this node"
        )),
        _ => Err("not a stored value".to_owned()),
    }
}

/// A key of a text and a rest: two bytes of length, the text, the rest. Keys of one text lie together.
pub(super) fn text_key(text: &str, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + text.len() + rest.len());
    key.extend_from_slice(&(text.len() as u16).to_be_bytes());
    key.extend_from_slice(text.as_bytes());
    key.extend_from_slice(rest);
    key
}

/// Appends a LEB128 varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads from the front of stored bytes; none past their end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Take<'a>(pub(super) &'a [u8]);

impl<'a> Take<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)?[0];
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}
