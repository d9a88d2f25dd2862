//! Row blocks: what one log entry carries (1 to 1,024 rows) and what sealed blocks are (16,384 rows and more).
//!
//! A block is a head, a directory and up to 26 columns, each read without the others. Its bytes are drawn in
//! `store/README.md`. It is made once, by the node that served the requests, and is the same on every replica; sealing
//! joins blocks into one ([`join`]) that is, byte for byte, the block of all their rows.
//!
//! Why columns of our own: Arrow's and Parquet's heads outweigh a small entry's rows. Why tuples: a row's account, key and
//! tier depend on each other, and so do route, method, node, status, outcome: one code names them all, and a query tests
//! each distinct tuple once.
//!
//! Never: panics on foreign bytes, allocates by a number that it has not compared with a bound, walks a hash map in order.

mod column;
mod dictionary;
mod error;
mod filter;
mod gather;
mod head;
mod ints;
mod join;
mod names;
mod read;
mod rows;
mod texts;
mod ulid;
mod wire;
mod write;
mod zip;

#[cfg(test)]
mod tests;

pub use column::{Charges, Column, Principal, Shape};
pub use error::{BlockError, EncodeError, JoinError};
pub use filter::Filter;
pub(super) use head::fix_for_fuzz;
pub use join::join;
pub use read::Block;
pub(super) use texts::SharedTexts;

use crate::model::Row;

/// Most rows of a block. More are refused by [`encode`], [`join`] and [`Block::open`].
pub const MAX_ROWS: usize = 1 << 20;
/// Most charges of a block.
pub const MAX_CHARGES: usize = 1 << 22;
/// Most bytes of one of its text heaps (names, paths, client request ids).
pub const MAX_TEXT_BYTES: usize = 64 << 20;
/// Most bytes of one text.
pub const MAX_TEXT: usize = u16::MAX as usize;

/// The rows' block. The same rows give the same bytes, wherever they are encoded with the same zstd.
///
/// # Errors
/// No rows at all, or more of something than a block holds; the error names it. Nothing is cut short.
pub fn encode(rows: &[Row]) -> Result<Vec<u8>, EncodeError> {
    let mut gather = gather::Gather::for_rows(rows.len());
    for row in rows {
        gather.push(row)?;
    }
    write::block(&gather)
}
