//! Numbers in bytes: LEB128 varints, zigzag, and a reader that cannot run over the end.

use super::BlockError;

/// Appends a LEB128 varint, 1 to 10 bytes.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Signed to unsigned, small magnitudes to small numbers.
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads from the front.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], BlockError> {
        let (taken, left) =
            self.left.split_at_checked(bytes).ok_or(BlockError::Cut { wanted: bytes, left: self.left.len() })?;
        self.left = left;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, BlockError> {
        Ok(self.take(1)?[0])
    }

    /// A varint; the tenth byte holds one bit only.
    pub(super) fn varint(&mut self) -> Result<u64, BlockError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(BlockError::Damaged("a number of more than 64 bits"))
    }

    /// A count or length that must not be above `max`.
    pub(super) fn count(&mut self, max: usize, what: &'static str) -> Result<usize, BlockError> {
        let count = self.varint()?;
        if count > max as u64 {
            return Err(BlockError::Damaged(what));
        }
        Ok(count as usize)
    }

    pub(super) fn end(self) -> Result<(), BlockError> {
        if self.left.is_empty() { Ok(()) } else { Err(BlockError::Damaged("bytes after a column's end")) }
    }
}
