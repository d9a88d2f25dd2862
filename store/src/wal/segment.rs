//! A segment file: its name, its header, and what the names in the log's directory mean.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::disk::DiskFile;

/// Frames begin here: a page of its own for the header, so that no frame's write touches it.
pub(super) const HEADER_BYTES: usize = PAGE;
/// Segments are whole pages, and so are writes as far as they reach, so that no write has to read first.
pub(super) const PAGE: usize = 4096;
/// The format this version writes and reads.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"TGATEWAL";
const ENCODED_BYTES: usize = 44;

/// A segment's header. These 44 bytes keep their places in every version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Counts up by one from segment to segment, also when a file is used again; at least 1.
    pub(super) generation: u32,
    /// The number of the segment's first frame. All frames before it were synced when this was written.
    pub(super) first_seq: u64,
    /// The file's length.
    pub(super) bytes: u64,
}

/// Why bytes are not a [`Header`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged(&'static str),
    Newer(u32),
}

impl Header {
    pub(super) fn encode(&self) -> [u8; ENCODED_BYTES] {
        let mut bytes = [0; ENCODED_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&u64::from(self.generation).to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.bytes.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.first_chunk::<ENCODED_BYTES>().ok_or(HeaderError::Damaged("the header is cut off"))?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Damaged("this is not a segment's header"));
        }
        if crc32c::crc32c(&bytes[..40]) != word(40) {
            return Err(HeaderError::Damaged("the header does not match its crc32c"));
        }
        if word(8) != VERSION {
            return Err(HeaderError::Newer(word(8)));
        }
        let generation = u32::try_from(long(16)).ok().filter(|generation| *generation > 0);
        let generation = generation.ok_or(HeaderError::Damaged("the generation is impossible"))?;
        if long(24) == 0 || long(32) < HEADER_BYTES as u64 || long(32) > u64::from(u32::MAX) {
            return Err(HeaderError::Damaged("the first frame's number or the length is impossible"));
        }
        Ok(Self { generation, first_seq: long(24), bytes: long(32) })
    }
}

/// A segment in use.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) generation: u32,
    pub(super) bytes: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
}

/// What a name in the log's directory stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A segment of this generation.
    Segment(u32),
    /// Ready to become one: zeros, or what a purged segment held.
    Spare(u32),
    /// Not filled with zeros yet.
    Unfinished(u32),
    Foreign,
}

impl Name {
    pub(super) fn of(name: &str) -> Self {
        let hex = |digits: &str| (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok()).flatten();
        let parsed = match name.split_once('.') {
            Some((digits, "wal")) if !digits.starts_with("spare-") => hex(digits).map(Self::Segment),
            Some((stem, "wal")) => stem.strip_prefix("spare-").and_then(hex).map(Self::Spare),
            Some((stem, "tmp")) => stem.strip_prefix("spare-").and_then(hex).map(Self::Unfinished),
            _ => None,
        };
        parsed.filter(|parsed| parsed.text() == name).unwrap_or(Self::Foreign)
    }

    fn text(&self) -> String {
        match self {
            Self::Segment(generation) => format!("{generation:08x}.wal"),
            Self::Spare(id) => format!("spare-{id:08x}.wal"),
            Self::Unfinished(id) => format!("spare-{id:08x}.tmp"),
            Self::Foreign => String::new(),
        }
    }

    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.text())
    }
}
