//! What can be wrong.

/// Rows that do not go into a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A block has at least one row.
    #[error("a block of no rows")]
    NoRows,
    /// More rows than [`super::MAX_ROWS`].
    #[error("{rows} rows, a block holds {max}")]
    TooManyRows {
        /// Given.
        rows: usize,
        /// Allowed.
        max: usize,
    },
    /// More charges than [`super::MAX_CHARGES`].
    #[error("{charges} charges, a block holds {max}")]
    TooManyCharges {
        /// Given.
        charges: usize,
        /// Allowed.
        max: usize,
    },
    /// A text longer than [`super::MAX_TEXT`].
    #[error("{field} of {bytes} bytes, at most {max} are stored")]
    TextTooLong {
        /// The row's field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// Allowed.
        max: usize,
    },
    /// Texts longer than [`super::MAX_TEXT_BYTES`] together.
    #[error("{bytes} bytes of {heap}, a block holds {max}")]
    TooMuchText {
        /// `names`, `paths` or `client request ids`.
        heap: &'static str,
        /// Given.
        bytes: usize,
        /// Allowed.
        max: usize,
    },
}

/// Bytes that are no block, or no block that this build reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The first byte is another's.
    #[error("not a row block: it starts with {found:#04x}")]
    NotABlock {
        /// The first byte.
        found: u8,
    },
    /// A format of a later build.
    #[error("row block of format {version}, written by a newer version; this one reads up to {newest}")]
    NewerVersion {
        /// Of the block.
        version: u8,
        /// Of this build.
        newest: u8,
    },
    /// Other bytes than were written.
    #[error("row block is damaged: its checksum is {stored:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// In the head.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// It ends too early.
    #[error("row block is cut: {wanted} bytes wanted, {left} left")]
    Cut {
        /// Needed next.
        wanted: usize,
        /// There.
        left: usize,
    },
    /// The checksum holds but a column makes no sense.
    #[error("row block is damaged: {0}")]
    Damaged(&'static str),
}

/// Blocks that were not joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// One of them does not read.
    #[error("block {index} of those to join: {source}")]
    Block {
        /// Which, from 0.
        index: usize,
        /// Why.
        source: BlockError,
    },
    /// Together they are too large.
    #[error("joined block: {0}")]
    Encode(#[from] EncodeError),
}
