//! A frame: what one write and one sync put on the disk, and how a written one is told from anything else.

/// Length of a frame's header.
pub(super) const HEADER_BYTES: usize = 32;
/// Frames begin at multiples of this, so that recovery can look for them behind a break.
pub(super) const ALIGN: usize = 8;

const MAGIC: [u8; 4] = *b"TGFR";

/// The crc's seed in a segment: the crc32c of its generation. A recycled segment has a new generation, so that the frames
/// left in it fail their check (surely, not probably: with equal bytes, different seeds give different sums).
pub(super) fn seed(generation: u32) -> u32 {
    crc32c::crc32c(&u64::from(generation).to_le_bytes())
}

/// Length of a frame with a body of `body` bytes, up to where the next frame begins.
pub(super) fn padded(body: usize) -> usize {
    (HEADER_BYTES + body).next_multiple_of(ALIGN)
}

/// A frame's header, its own crc checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) body_bytes: usize,
    body_crc: u32,
    /// The frame's number, one more than the frame's before it, across segments.
    pub(super) seq: u64,
    /// The frontier: when this frame was written, all frames up to this number were synced.
    pub(super) synced: u64,
}

impl Header {
    /// The header at the start of `bytes`, if there is a true one.
    pub(super) fn decode(bytes: &[u8], seed: u32) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        if bytes[..4] != MAGIC || crc32c::crc32c_append(seed, &bytes[8..]).to_le_bytes() != bytes[4..8] {
            return None;
        }
        let header = Self {
            body_bytes: word(bytes, 8) as usize,
            body_crc: word(bytes, 12),
            seq: long(bytes, 16),
            synced: long(bytes, 24),
        };
        (header.synced < header.seq).then_some(header)
    }

    /// The body behind this header in `bytes`, which begin with the header; an error says what is wrong with it.
    pub(super) fn body<'a>(&self, bytes: &'a [u8], seed: u32) -> Result<&'a [u8], &'static str> {
        let body =
            bytes[HEADER_BYTES..].get(..self.body_bytes).ok_or("the frame is longer than the rest of the file")?;
        if crc32c::crc32c_append(seed, body) != self.body_crc {
            return Err("the frame's bytes do not match its crc32c");
        }
        Ok(body)
    }
}

/// Makes `frame`, a body with room for a header before it, into frame `seq`.
pub(super) fn seal(frame: &mut [u8], seed: u32, seq: u64, synced: u64) {
    let (header, body) = frame.split_at_mut(HEADER_BYTES);
    let body_bytes = u32::try_from(body.len()).expect("a frame's body is bounded by the largest append");
    header[..4].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&body_bytes.to_le_bytes());
    header[12..16].copy_from_slice(&crc32c::crc32c_append(seed, body).to_le_bytes());
    header[16..24].copy_from_slice(&seq.to_le_bytes());
    header[24..32].copy_from_slice(&synced.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &header[8..]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Whether anything in `bytes` (behind a break) shows that frame `seq` had been synced: the true header of a later frame.
/// Returns its offset.
pub(super) fn evidence(bytes: &[u8], from: usize, seed: u32, seq: u64) -> Option<usize> {
    (from.next_multiple_of(ALIGN)..bytes.len().saturating_sub(HEADER_BYTES - 1)).step_by(ALIGN).find(|&at| {
        bytes[at..at + 4] == MAGIC
            && Header::decode(&bytes[at..], seed).is_some_and(|header| header.seq > seq && header.synced >= seq)
    })
}

fn word(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_in_its_own_generation_only() {
        let mut frame = vec![0; HEADER_BYTES];
        frame.extend_from_slice(b"records");
        seal(&mut frame, seed(5), 9, 8);
        let header = Header::decode(&frame, seed(5)).unwrap();
        assert_eq!((header.seq, header.synced, header.body_bytes), (9, 8, 7));
        assert_eq!(header.body(&frame, seed(5)), Ok(&b"records"[..]));
        for generation in (0..2000).filter(|generation| *generation != 5) {
            assert_eq!(Header::decode(&frame, seed(generation)), None);
            assert!(header.body(&frame, seed(generation)).is_err());
        }
    }
}
