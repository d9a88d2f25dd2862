//! Blocks joined into one: how entries become sealed blocks.

use super::{Block, JoinError, gather::Gather, rows::Columns, write};

/// One block of all rows, in order: byte for byte [`super::encode`] of the same rows, but no row is built on the way.
///
/// # Errors
/// A block that does not read, by its place; or more rows or text than one block holds.
pub fn join(blocks: &[&[u8]]) -> Result<Vec<u8>, JoinError> {
    let read = |(index, bytes): (usize, &&[u8])| {
        Block::open(bytes).and_then(|block| block.columns()).map_err(|source| JoinError::Block { index, source })
    };
    let columns: Vec<Columns> = blocks.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    let mut gather = Gather::default();
    for block in &columns {
        gather.append(block)?;
    }
    Ok(write::block(&gather)?)
}
