//! Stored bytes: the versioned envelope of values, and the pieces that keys and compact values are made of.

use minicbor::{Decode, Encode};

/// Version of the values that this build writes, and the newest that it reads.
pub(super) const VALUE_VERSION: u8 = 1;

/// A value's bytes: version, then CBOR.
pub(super) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    encode_in(VALUE_VERSION, value)
}

/// A value's bytes in another version, for one that builds which know [`VALUE_VERSION`] alone must not read.
pub(super) fn encode_in<T: Encode<()>>(version: u8, value: &T) -> Vec<u8> {
    let mut out = vec![version];
    minicbor::encode(value, &mut out).expect("writing to memory cannot fail");
    out
}

/// Reads a value's bytes.
///
/// # Errors
/// A newer version, by name; or damage.
pub(super) fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, String> {
    decode_up_to(VALUE_VERSION, bytes)
}

/// Reads the bytes of a value that has had so many versions.
///
/// # Errors
/// As [`decode`].
pub(super) fn decode_up_to<'b, T: Decode<'b, ()>>(newest: u8, bytes: &'b [u8]) -> Result<T, String> {
    minicbor::decode(body_up_to(newest, bytes)?).map_err(|error| error.to_string())
}

/// What follows the version byte, when this build reads it.
pub(super) fn body(bytes: &[u8]) -> Result<&[u8], String> {
    body_up_to(VALUE_VERSION, bytes)
}

fn body_up_to(newest: u8, bytes: &[u8]) -> Result<&[u8], String> {
    match bytes {
        [version, body @ ..] if (1..=newest).contains(version) => Ok(body),
        [version, ..] if *version > newest => Err(format!(
            "value format version {version} is newer than this build knows (up to {newest}): upgrade this node"
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

/// The text and the rest of such a key, when both are text.
pub(super) fn split_text_key(key: &[u8]) -> Option<(&str, &str)> {
    let (length, rest) = key.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, std::str::from_utf8(rest).ok()?))
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
